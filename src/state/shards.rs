//! `shards.json`: how many shards a store is made of. Ours alone; Apache's broker knows no shards.

use super::StateError;
use super::fields::Fields;
use super::json::{Document, Node, write};

const FILE: &str = "shards.json";
const VERSION: u32 = 1;

/// Shard ids have eight bits.
pub const COUNT_MAX: u32 = 256;

/// Reads the count of shards, 1 to [`COUNT_MAX`].
pub fn decode(bytes: &[u8]) -> Result<u32, StateError> {
    let document = Document::new(FILE, bytes);
    let root = document.parse()?;
    let at = root.at;
    let mut fields = Fields::of(&document, "the file", root)?;
    let version: u32 = fields.integer("version", 0)?;
    if version != VERSION {
        let why = format!("version is {version}, this broker knows version {VERSION} only");
        return Err(document.fail(at, why));
    }
    let count = fields.integer("count", 0)?;
    if (1..=COUNT_MAX).contains(&count) {
        Ok(count)
    } else {
        Err(document.fail(at, format!("count is {count}, allowed is 1 to {COUNT_MAX}")))
    }
}

/// Writes the file.
#[must_use]
pub fn encode(count: u32) -> Vec<u8> {
    assert!(
        (1..=COUNT_MAX).contains(&count),
        "a store of {count} shards"
    );
    let fields = [
        ("version", Node::number(VERSION)),
        ("count", Node::number(count)),
    ];
    let mut bytes = write(&Node::table(fields));
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_comes_back() {
        for count in [1, 2, COUNT_MAX] {
            assert_eq!(decode(&encode(count)).unwrap(), count);
        }
        assert_eq!(encode(2), b"{\n\t\"version\":1,\n\t\"count\":2\n}\n");
        assert_eq!(decode(b"{\"version\":1,\"count\":3}").unwrap(), 3);
    }

    #[test]
    fn what_is_no_count_is_refused() {
        let cases = [
            ("{}", "version is 0, this broker knows version 1 only"),
            (
                "{\"version\":2,\"count\":1}",
                "version is 2, this broker knows version 1 only",
            ),
            ("{\"version\":1}", "count is 0, allowed is 1 to 256"),
            (
                "{\"version\":1,\"count\":257}",
                "count is 257, allowed is 1 to 256",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text.as_bytes()).unwrap_err().why, expected);
        }
    }
}

//! Which keys a record is indexed under, and what they hash to.

use crate::base::string_hash;
use crate::log::record::{Record, pairs, sys_flag};

/// Hash of a key of a topic's messages: Java's hash of `topic#key` without its sign.
#[must_use]
pub fn key_hash(topic: &str, key: &str) -> u32 {
    absolute(continue_hash(topic_prefix(topic), key))
}

/// Hash of a tag of a topic's messages: `topic#T#tag` likewise.
#[must_use]
pub fn tag_hash(topic: &str, tag: &str) -> u32 {
    absolute(continue_hash(continue_hash(topic_prefix(topic), "T#"), tag))
}

/// Java's hash of `topic#`, with which all hashes of a topic's messages begin.
#[must_use]
pub fn topic_prefix(topic: &str) -> i32 {
    continue_hash(string_hash(topic), "#")
}

/// Gives the hash of each key of a record, in the order of Apache's entries: unique key, keys, tag.
/// A rollback record has none.
pub fn hashes(record: &Record<'_>, each: impl FnMut(u32)) {
    if record.transaction_type() != sys_flag::TRANSACTION_ROLLBACK {
        Names::of(record.properties).hashes(topic_prefix(record.topic), each);
    }
}

/// The properties under which a message is found again and chosen (P§3.8). Of several with one name the
/// last counts; who writes something else than UTF-8 cannot ask for it either.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// UNIQ_KEY, which the client gave.
    pub unique: Option<&'a str>,
    words: Option<&'a str>,
    tag: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// Those among a message's properties.
    #[must_use]
    pub fn of(properties: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let mut names = Self::default();
        for (name, value) in pairs(properties) {
            names.note(name, value);
        }
        names
    }

    /// Looks whether a property is one of them.
    pub fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let found = match name {
            b"UNIQ_KEY" => &mut self.unique,
            b"KEYS" => &mut self.words,
            b"TAGS" => &mut self.tag,
            _ => return,
        };
        *found = std::str::from_utf8(value).ok();
    }

    /// What the ConsumeQueue holds of the tag; 0 for none.
    #[must_use]
    pub fn tags_code(&self) -> i64 {
        self.tag.map_or(0, |tag| i64::from(string_hash(tag)))
    }

    /// Gives the hash of each of them, in the order of Apache's index entries. `prefix` is Java's hash of
    /// `topic#`.
    pub fn hashes(&self, prefix: i32, mut each: impl FnMut(u32)) {
        let hash_of = |text: &str| absolute(continue_hash(prefix, text));
        self.unique.map(hash_of).into_iter().for_each(&mut each);
        let words = self.words.into_iter().flat_map(|words| words.split(' '));
        let words = words.filter(|word| !word.is_empty()).map(hash_of);
        words.for_each(&mut each);
        if let Some(tag) = self.tag {
            each(absolute(continue_hash(continue_hash(prefix, "T#"), tag)));
        }
    }
}

/// Java's hash of `before + text`, given the hash of `before`.
fn continue_hash(before: i32, text: &str) -> i32 {
    let step = |hash: i32, unit: i32| hash.wrapping_mul(31).wrapping_add(unit);
    if !text.is_ascii() {
        return text
            .encode_utf16()
            .fold(before, |hash, unit| step(hash, i32::from(unit)));
    }
    // Eight at a time: byte by byte each step would wait for the multiplication of the one before.
    let (chunks, rest) = text.as_bytes().as_chunks();
    let hash = chunks.iter().fold(before, |hash, chunk: &[u8; 8]| {
        let bytes = chunk.iter().zip(&POWERS[1..]);
        let sum = bytes.fold(0i32, |sum, (byte, power)| {
            sum.wrapping_add(power.wrapping_mul(i32::from(*byte)))
        });
        hash.wrapping_mul(POWERS[0]).wrapping_add(sum)
    });
    rest.iter()
        .fold(hash, |hash, byte| step(hash, i32::from(*byte)))
}

/// Of 31, from the eighth down to the zeroth.
const POWERS: [i32; 9] = {
    let mut powers = [1; 9];
    let mut index = 8;
    while 0 < index {
        powers[index - 1] = 31i32.wrapping_mul(powers[index]);
        index -= 1;
    }
    powers
};

/// The index takes the absolute value; the one that has none becomes 0 (P§3.8).
fn absolute(hash: i32) -> u32 {
    hash.checked_abs().map_or(0, |hash| hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PhysicalOffset;
    use crate::log::record::{Draft, Properties, parse};

    #[test]
    fn hashes_are_those_of_java() {
        // P§A.1.
        assert_eq!(key_hash("TopicTest", "KEY1"), 1_656_969_516);
        assert_eq!(
            key_hash("主题", "键"),
            string_hash("主题#键").unsigned_abs()
        );
        assert_eq!(tag_hash("T", "A"), string_hash("T#T#A").unsigned_abs());
        // Java: "polygenelubricants".hashCode() == Integer.MIN_VALUE.
        assert_eq!(string_hash("polygenelubricants"), i32::MIN);
        assert_eq!(absolute(i32::MIN), 0);
    }

    #[test]
    fn a_record_is_found_by_unique_key_then_keys_then_tag() {
        let hashes_with = |sys_flag| {
            let mut bytes = Vec::new();
            let draft = Draft {
                queue_id: 0,
                flag: 0,
                queue_offset: 0,
                sys_flag,
                born_ms: 0,
                born_host: "127.0.0.1:1".parse().expect("an address"),
                store_ms: 0,
                store_host: "127.0.0.1:1".parse().expect("an address"),
                reconsume_times: 0,
                prepared_offset: 0,
                body: b"x",
                topic: "T",
                properties: Properties::new(
                    "TAGS\u{1}t\u{2}KEYS\u{1}a  b \u{2}UNIQ_KEY\u{1}u\u{2}",
                    &[],
                ),
            };
            draft.encode(PhysicalOffset(0), &mut bytes);
            let mut found = Vec::new();
            hashes(&parse(&bytes).expect("a record"), |hash| found.push(hash));
            found
        };
        let wanted = ["T#u", "T#a", "T#b", "T#T#t"].map(|text| string_hash(text).unsigned_abs());
        assert_eq!(hashes_with(sys_flag::TRANSACTION_NONE), wanted);
        assert_eq!(hashes_with(sys_flag::TRANSACTION_PREPARED), wanted);
        assert_eq!(hashes_with(sys_flag::TRANSACTION_COMMIT), wanted);
        assert_eq!(hashes_with(sys_flag::TRANSACTION_ROLLBACK), [0u32; 0]);
    }

    #[test]
    fn a_hash_goes_on_where_its_prefix_ends() {
        assert_eq!(
            continue_hash(string_hash("TopicTest#"), "KEY1"),
            -1_656_969_516
        );
        for text in [
            "",
            "A",
            "é中😀-and more than eight",
            "0123456789ABCDEF0123456789abcdefXYZ",
        ] {
            for (at, _) in text.char_indices() {
                let (front, back) = text.split_at(at);
                assert_eq!(continue_hash(string_hash(front), back), string_hash(text));
            }
        }
        assert_eq!(absolute(-1_656_969_516), 1_656_969_516);
        assert_eq!(absolute(i32::MIN), 0);
    }

    #[test]
    fn no_word_of_many_is_left_out() {
        let words: Vec<String> = (0..5_000).map(|word| format!("w{word}")).collect();
        let properties = format!("KEYS\u{1}{}\u{2}", words.join(" "));
        let mut found = Vec::new();
        Names::of(properties.as_bytes()).hashes(topic_prefix("T"), |hash| found.push(hash));
        let wanted: Vec<u32> = words.iter().map(|word| key_hash("T", word)).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_last_of_a_name_counts_even_if_it_is_no_text() {
        for (last, wanted) in [(&b"b"[..], string_hash("b")), (&[0xff], 0)] {
            let properties = [b"TAGS\x01a\x02TAGS\x01", last, b"\x02"].concat();
            let names = Names::of(&properties);
            assert_eq!(names.tags_code(), i64::from(wanted));
            let found = crate::log::record::property(&properties, "TAGS");
            assert_eq!(
                found.map_or(0, string_hash),
                wanted,
                "as a rebuild reads it"
            );
        }
    }
}

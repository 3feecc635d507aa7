//! Which keys a record is indexed under, and what they hash to.

use crate::base::string_hash;
use crate::log::record::{Record, pairs, sys_flag};

/// Hash of a key of a topic's messages: Java's hash of `topic#key` without its sign.
#[must_use]
pub fn key_hash(topic: &str, key: &str) -> u32 {
    positive(append(append(string_hash(topic), "#"), key))
}

/// Hash of a tag of a topic's messages: `topic#T#tag` likewise.
#[must_use]
pub fn tag_hash(topic: &str, tag: &str) -> u32 {
    positive(append(append(string_hash(topic), "#T#"), tag))
}

/// Java's hash of a longer text from that of its beginning.
fn append(hash: i32, text: &str) -> i32 {
    let units = text.encode_utf16();
    units.fold(hash, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// As Java: the smallest number has no positive counterpart and becomes 0.
fn positive(hash: i32) -> u32 {
    hash.checked_abs().unwrap_or(0) as u32
}

/// Gives the hash of each key of a record, in the order of Apache's entries: unique key, keys, tag.
/// A rollback record has none.
pub fn hashes(record: &Record<'_>, mut each: impl FnMut(u32)) {
    if record.transaction_type() == sys_flag::TRANSACTION_ROLLBACK {
        return;
    }
    let (mut unique_key, mut keys, mut tag) = (None, None, None);
    for (name, value) in pairs(record.properties) {
        match name {
            b"UNIQ_KEY" => unique_key = Some(value),
            b"KEYS" => keys = Some(value),
            b"TAGS" => tag = Some(value),
            _ => {}
        }
    }
    // Who writes something else than UTF-8 cannot ask for it either.
    let text = |value: Option<_>| value.and_then(|value| std::str::from_utf8(value).ok());
    if let Some(key) = text(unique_key) {
        each(key_hash(record.topic, key));
    }
    let words = text(keys).unwrap_or_default().split(' ');
    for word in words.filter(|word| !word.is_empty()) {
        each(key_hash(record.topic, word));
    }
    if let Some(tag) = text(tag) {
        each(tag_hash(record.topic, tag));
    }
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
        assert_eq!(positive(i32::MIN), 0);
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
}

//! The names under which a message is found again and chosen: unique key, keys, tag (P§3.8).

use crate::base::string_hash;
use crate::log::record::pairs;

/// Words of KEYS that are indexed; more of them are nobody's keys.
const WORDS_MAX: usize = 253;

/// Of several properties with one name the last counts.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::shard) struct Names<'a> {
    pub(in crate::shard) unique: Option<&'a str>,
    words: Option<&'a str>,
    tag: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// Those among a message's properties.
    pub(in crate::shard) fn of(properties: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let mut names = Self::default();
        for (name, value) in pairs(properties) {
            names.note(name, value);
        }
        names
    }

    /// Looks whether a property is one of them.
    pub(super) fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let found = match name {
            b"UNIQ_KEY" => &mut self.unique,
            b"KEYS" => &mut self.words,
            b"TAGS" => &mut self.tag,
            _ => return,
        };
        if let Ok(value) = std::str::from_utf8(value) {
            *found = Some(value);
        }
    }

    /// What the ConsumeQueue holds of the tag; 0 for none.
    pub(super) fn tags_code(&self) -> i64 {
        self.tag.map_or(0, |tag| i64::from(string_hash(tag)))
    }

    /// Gives the hash of each of them, in the order of Apache's index entries. `prefix` is Java's hash of
    /// `topic#`.
    pub(super) fn hashes(&self, prefix: i32, mut each: impl FnMut(u32)) {
        let hash_of = |text: &str| absolute(continue_hash(prefix, text));
        self.unique.map(hash_of).into_iter().for_each(&mut each);
        let words = self.words.into_iter().flat_map(|words| words.split(' '));
        let words = words.filter(|word| !word.is_empty()).map(hash_of);
        words.take(WORDS_MAX).for_each(&mut each);
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
}

//! The hashes under which the keys of a message are found (P§3.8).

/// Java's hash of `before + text`, given the hash of `before`.
pub(super) fn continue_hash(before: i32, text: &str) -> i32 {
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
pub(super) fn absolute(hash: i32) -> u32 {
    hash.checked_abs().map_or(0, |hash| hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::string_hash;

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

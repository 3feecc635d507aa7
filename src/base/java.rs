//! What Java computes and other programs then store: `String.hashCode`.

/// Java's `String.hashCode`: a polynomial in 31 over UTF-16 units with 32-bit overflow (P§3.4).
#[must_use]
pub fn string_hash(text: &str) -> i32 {
    if text.is_ascii() {
        return text.bytes().fold(0i32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(i32::from(byte))
        });
    }
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::string_hash;

    #[test]
    fn hashes_are_those_of_java() {
        // Vectors of the protocol reference, appendix A.1.
        assert_eq!(string_hash("TagA"), 2_598_919);
        assert_eq!(string_hash("中文"), 646_394);
        assert_eq!(string_hash("a tag that is long enough"), -1_920_693_006);
        assert_eq!(string_hash("TopicTest#KEY1"), -1_656_969_516);
        assert_eq!(string_hash(""), 0);
    }
}

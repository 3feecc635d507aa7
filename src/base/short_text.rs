//! Text that is nearly always short.

use std::fmt;

use smallvec::SmallVec;

/// Text that stands where it is, without memory of its own, where it is no longer than the unique keys that
/// client libraries make (32 characters; of a client without an IPv4 address 56, which are kept elsewhere).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ShortText(SmallVec<[u8; 32]>);

impl ShortText {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was made of text")
    }
}

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        Self(SmallVec::from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_text_that_it_was_made_of() {
        for len in [0, 1, 31, 32, 33, 1000] {
            let text = "é".repeat(len / 2);
            let short = ShortText::from(text.as_str());
            assert_eq!(short.as_str(), text);
            assert_eq!(format!("{short:?}"), format!("{text:?}"));
        }
        assert_ne!(ShortText::from("a"), ShortText::from("b"));
    }
}

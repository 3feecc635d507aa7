//! What is kept of a request until it is answered, in one number.

use super::frame::HeaderKind;

/// What an answer must know of its request: in a `u64`, bits 0 to 31 opaque, 32 header kind, 33 oneway,
/// 34 to 53 request code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Echoed as it is.
    pub opaque: i32,
    /// Of the request.
    pub kind: HeaderKind,
    /// Nothing is to be answered.
    pub oneway: bool,
    /// Request code; −1 where the number is no code of RocketMQ's.
    pub code: i32,
}

impl Note {
    /// All ones in 20 bits: a request code that fits nowhere.
    const CODE_OTHER: u64 = 0x000f_ffff;

    /// As a number.
    #[must_use]
    pub fn pack(self) -> u64 {
        let code = match u64::try_from(self.code) {
            Ok(code) if code < Self::CODE_OTHER => code,
            _ => Self::CODE_OTHER,
        };
        u64::from(self.opaque as u32)
            | u64::from(self.kind.to_byte()) << 32
            | u64::from(self.oneway) << 33
            | code << 34
    }

    /// The other way round.
    #[must_use]
    pub fn unpack(note: u64) -> Self {
        let code = note >> 34 & Self::CODE_OTHER;
        Self {
            opaque: note as u32 as i32,
            kind: if note >> 32 & 1 == 0 {
                HeaderKind::Json
            } else {
                HeaderKind::Binary
            },
            oneway: note >> 33 & 1 != 0,
            code: if code == Self::CODE_OTHER {
                -1
            } else {
                code as i32
            },
        }
    }
}

//! Strings with escapes: what they stand for goes to the arena.

use super::{Copied, Scan};
use crate::protocol::rocketmq::frame::{FrameError, Piece, Scratch};

impl Scan<'_> {
    /// A string whose first backslash stands at `end`.
    #[inline(never)]
    pub(super) fn escaped_string(
        &mut self,
        mut start: usize,
        mut end: usize,
        scratch: &mut Scratch,
    ) -> Result<Piece, FrameError> {
        // What an escape stands for is never longer than the escape.
        scratch.arena.reserve(self.bytes.len());
        let arena_start = scratch.arena.len();
        loop {
            scratch.arena.copy(self.bytes, start, end);
            let piece = (start, end);
            match self.bytes.get(end) {
                Some(b'"') => {
                    self.note_copied(piece, None);
                    break;
                }
                Some(_) => {
                    self.at = end + 1;
                    if let Some(byte) = self.separator() {
                        scratch.arena.push(byte);
                        self.note_copied(piece, Some(byte));
                    } else {
                        let character = self.escape()?;
                        scratch.arena.push_char(character);
                        self.copied = None;
                    }
                    start = self.at;
                    end = self.marks.next(self.bytes, start);
                }
                None => return Err(self.error("a string has no end")),
            }
        }
        self.at = end + 1;
        Ok(Piece::of_arena(arena_start, scratch.arena.len()))
    }

    fn note_copied(&mut self, (start, end): (usize, usize), then: Option<u8>) {
        if let Some(copied) = &mut self.copied {
            copied.push(Copied {
                start: start as u32,
                end: end as u32,
                then,
            });
        }
    }

    /// What stands behind the backslash of `\u0001` and `\u0002`, of which a string of properties is full.
    #[inline]
    fn separator(&mut self) -> Option<u8> {
        let [u, a, b, c, digit] = *self.bytes.get(self.at..)?.first_chunk()?;
        let byte = digit.wrapping_sub(b'0');
        if [u, a, b, c] != *b"u000" || 9 < byte {
            return None;
        }
        self.at += 5;
        Some(byte)
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char, FrameError> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(self.error("a string has no end"));
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' | b'\'' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    // A lone low half is what Java writes as `?` when it makes bytes of it.
                    return Ok(char::from_u32(unit).unwrap_or('?'));
                }
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Ok('?');
                }
                let behind_high = self.at;
                self.at += 2;
                let low = self.hex4()?;
                if !(0xdc00..0xe000).contains(&low) {
                    self.at = behind_high;
                    return Ok('?');
                }
                let both = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                char::from_u32(both).unwrap_or('?')
            }
            _ => return Err(self.error("an unknown escape in a string")),
        })
    }

    fn hex4(&mut self) -> Result<u32, FrameError> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let number = digits.and_then(|digits| {
            digits.iter().try_fold(0, |number, digit| {
                (*digit as char)
                    .to_digit(16)
                    .map(|digit| number << 4 | digit)
            })
        });
        let Some(number) = number else {
            return Err(self.error("`\\u` without four hexadecimal digits"));
        };
        self.at += 4;
        Ok(number)
    }
}

//! Passes over members of a JSON header that mean nothing to us.

use super::Scan;
use crate::protocol::rocketmq::frame::FrameError;

/// Objects and arrays inside one another.
const DEPTH_MAX: u32 = 32;

impl Scan<'_> {
    /// Passes over a value that nobody asked for. Only strings and brackets are looked at.
    pub(super) fn skip(&mut self) -> Result<(), FrameError> {
        let mut depth = 0u32;
        loop {
            match self.peek() {
                Some(b'"') => self.skip_string()?,
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    if DEPTH_MAX < depth {
                        return Err(self.error(format!("more than {DEPTH_MAX} levels of JSON")));
                    }
                    continue;
                }
                Some(b'}' | b']') if 0 < depth => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if 0 < depth => {
                    self.at += 1;
                    continue;
                }
                Some(byte)
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') =>
                {
                    let rest = &self.bytes[self.at..];
                    let len = rest
                        .iter()
                        .position(|byte| {
                            matches!(
                                byte,
                                b',' | b':' | b'}' | b']' | b'"' | b' ' | b'\n' | b'\r' | b'\t'
                            )
                        })
                        .unwrap_or(rest.len());
                    self.at += len;
                }
                Some(_) => return Err(self.error("expected a value")),
                None => return Err(self.error("a value has no end")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), FrameError> {
        self.at += 1;
        loop {
            self.at = self.marks.next(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => self.at += 2,
                None => return Err(self.error("a string has no end")),
            }
        }
    }
}

//! Cutting what peers send into frames: in place where a frame is whole, gathered where it is not.

use crate::io::Lease;

/// Says how long the frame is that these bytes begin; `Ok(None)` = too few bytes to say; an error = these
/// bytes begin no frame, with the reason.
pub type FrameSize = fn(&[u8]) -> Result<Option<usize>, String>;

/// Bytes of one peer on their way to whole frames. Lend it the piece that arrived, take frames until there
/// is none, give the rest back to the connection.
#[derive(Debug)]
pub struct Frames {
    /// Begins a frame that is not whole.
    carry: Vec<u8>,
    piece: Lease,
    at: usize,
    frame_size: FrameSize,
    /// The frame that was lent out last stood in `carry`.
    lent_carry: bool,
}

impl Frames {
    pub(super) const fn new(carry: Vec<u8>, piece: Lease, frame_size: FrameSize) -> Self {
        Self {
            carry,
            piece,
            at: 0,
            frame_size,
            lent_carry: false,
        }
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The bytes are no frame: the connection is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, String> {
        if std::mem::replace(&mut self.lent_carry, false) {
            self.carry.clear();
            // A large frame must not leave its memory with an idle connection.
            if 64 << 10 < self.carry.capacity() {
                self.carry = Vec::new();
            }
        }
        if self.carry.is_empty() {
            let rest = &self.piece[self.at..];
            return match (self.frame_size)(rest)? {
                Some(size) if size <= rest.len() => {
                    let start = self.at;
                    self.at += size;
                    Ok(Some(&self.piece[start..start + size]))
                }
                _ => {
                    self.carry.extend_from_slice(rest);
                    self.at = self.piece.len();
                    Ok(None)
                }
            };
        }
        self.complete_carry()
    }

    fn complete_carry(&mut self) -> Result<Option<&[u8]>, String> {
        loop {
            let rest = &self.piece[self.at..];
            // The head of a frame says how long it is; until it is whole, take a little more.
            let want = match (self.frame_size)(&self.carry)? {
                Some(size) if size <= self.carry.len() => {
                    self.lent_carry = true;
                    return Ok(Some(&self.carry[..size]));
                }
                Some(size) => size - self.carry.len(),
                None => 1,
            };
            if rest.is_empty() {
                return Ok(None);
            }
            let count = want.min(rest.len());
            self.carry.extend_from_slice(&rest[..count]);
            self.at += count;
        }
    }

    pub(super) fn into_carry(self) -> Vec<u8> {
        if self.lent_carry {
            return Vec::new();
        }
        self.carry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: &[u8]) -> Result<Option<usize>, String> {
        match bytes {
            [] => Ok(None),
            [0, ..] => Err("a frame is never empty".to_owned()),
            [size, ..] => Ok(Some(usize::from(*size))),
        }
    }

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let stream = [3, 1, 2, 1, 4, 9, 9, 9, 2, 7];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut carry = Vec::new();
                let mut got = Vec::new();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    let mut frames = Frames::new(carry, Lease::of(piece.to_vec()), size);
                    while let Some(frame) = frames.next_frame().expect("frames") {
                        got.push(frame.to_vec());
                    }
                    carry = frames.into_carry();
                }
                let want: [&[u8]; 4] = [&[3, 1, 2], &[1], &[4, 9, 9, 9], &[2, 7]];
                assert_eq!(got, want, "cut at {first} and {second}");
                assert!(carry.is_empty());
            }
        }
    }
}

//! Cutting what peers send into frames: in place where a frame is whole, gathered where it is not.

use std::sync::Arc;

use crate::io::Lease;

/// A frame of this size that had to be gathered is lent in memory that may be held on to.
const HELD_SIZE_MIN: usize = 64 << 10;

/// Says how long the frame is that these bytes begin; `Ok(None)` = too few bytes to say; an error = these
/// bytes begin no frame, with the reason.
pub type FrameSize = fn(&[u8]) -> Result<Option<usize>, String>;

/// A whole frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// From its first byte to its last.
    pub bytes: &'a [u8],
    /// The memory in which it lies alone, where it may be held on to.
    pub held: Option<&'a Arc<Vec<u8>>>,
}

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
    /// Or it was large, and stands here.
    whole: Arc<Vec<u8>>,
}

impl Frames {
    pub(super) fn new(carry: Vec<u8>, piece: Lease, frame_size: FrameSize) -> Self {
        Self {
            carry,
            piece,
            at: 0,
            frame_size,
            lent_carry: false,
            whole: Arc::default(),
        }
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The bytes are no frame: the connection is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, String> {
        if std::mem::replace(&mut self.lent_carry, false) {
            self.carry.clear();
        }
        if self.carry.is_empty() {
            let rest = &self.piece[self.at..];
            return match (self.frame_size)(rest)? {
                Some(size) if size <= rest.len() => {
                    let start = self.at;
                    self.at += size;
                    Ok(Some(Frame {
                        bytes: &self.piece[start..start + size],
                        held: None,
                    }))
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

    fn complete_carry(&mut self) -> Result<Option<Frame<'_>>, String> {
        loop {
            let rest = &self.piece[self.at..];
            // The head of a frame says how long it is; until it is whole, take a little more.
            let want = match (self.frame_size)(&self.carry)? {
                Some(size) if size <= self.carry.len() => return Ok(Some(self.lend(size))),
                // Memory is taken for what has come, not for what a peer says is coming.
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

    fn lend(&mut self, size: usize) -> Frame<'_> {
        if size < HELD_SIZE_MIN {
            self.lent_carry = true;
            return Frame {
                bytes: &self.carry[..size],
                held: None,
            };
        }
        self.whole = Arc::new(std::mem::take(&mut self.carry));
        Frame {
            bytes: &self.whole,
            held: Some(&self.whole),
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
                        got.push(frame.bytes.to_vec());
                    }
                    carry = frames.into_carry();
                }
                let want: [&[u8]; 4] = [&[3, 1, 2], &[1], &[4, 9, 9, 9], &[2, 7]];
                assert_eq!(got, want, "cut at {first} and {second}");
                assert!(carry.is_empty());
            }
        }
    }

    #[test]
    fn a_large_frame_that_was_gathered_may_be_held_on_to() {
        fn size(bytes: &[u8]) -> Result<Option<usize>, String> {
            let head = bytes.first_chunk().map(|head| u32::from_be_bytes(*head));
            Ok(head.map(|size| size as usize))
        }
        let frame = |len: usize| {
            let mut bytes = (len as u32).to_be_bytes().to_vec();
            bytes.resize(len, len as u8);
            bytes
        };
        let stream = [frame(HELD_SIZE_MIN - 1), frame(HELD_SIZE_MIN), frame(9)].concat();
        for (cut, want) in [
            (stream.len(), [false, false, false]),
            (5, [false, false, false]),
            (HELD_SIZE_MIN + 5, [false, true, false]),
            (stream.len() - 1, [false, false, false]),
        ] {
            let (mut carry, mut got, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                let mut frames = Frames::new(carry, Lease::of(piece.to_vec()), size);
                while let Some(frame) = frames.next_frame().unwrap() {
                    got.push(frame.held.is_some());
                    kept.extend(frame.held.map(Arc::clone));
                }
                carry = frames.into_carry();
            }
            assert_eq!(got, want, "cut at {cut}");
            assert!(kept.iter().all(|whole| **whole == frame(HELD_SIZE_MIN)));
        }
    }
}

//! Cutting what peers send into frames: in place where a frame is whole, gathered where it is not.

use std::sync::Arc;

use crate::io::Lease;

/// A frame of this size that had to be gathered is lent in memory that may be held on to.
const HELD_SIZE_MIN: usize = 64 << 10;

/// Memory for a frame that is being gathered: at most that many times what of it has come.
const GROWTH: usize = 4;

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

/// Where a frame stands that is to be read once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the piece, from its first byte to the one behind its last.
    Piece(u32, u32),
    /// It came in several pieces. There is one of these at most: the first.
    Gathered,
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
    /// Where the frame that was lent out last begins in the piece, if it stands there.
    lent_at: usize,
    /// It stood in `carry`.
    lent_carry: bool,
    /// Or it was large, and stands here.
    whole: Option<Arc<Vec<u8>>>,
    /// One that stood in `carry` and is to be read once more.
    aside: Vec<u8>,
}

impl Frames {
    pub(super) fn new(carry: Vec<u8>, piece: Lease, frame_size: FrameSize) -> Self {
        Self {
            carry,
            piece,
            at: 0,
            frame_size,
            lent_at: 0,
            lent_carry: false,
            whole: None,
            aside: Vec::new(),
        }
    }

    /// The frame that was lent out last is to be read once more: where it stands, for [`Self::frame`].
    pub fn set_aside(&mut self) -> Place {
        if std::mem::replace(&mut self.lent_carry, false) {
            self.aside = std::mem::take(&mut self.carry);
            return Place::Gathered;
        }
        if self.lent_at == self.at {
            return Place::Gathered;
        }
        Place::Piece(self.lent_at as u32, self.at as u32)
    }

    /// A frame that was set aside.
    #[must_use]
    pub fn frame(&self, place: Place) -> Frame<'_> {
        match (place, &self.whole) {
            (Place::Piece(start, end), _) => Frame {
                bytes: &self.piece[start as usize..end as usize],
                held: None,
            },
            (Place::Gathered, Some(whole)) => Frame {
                bytes: whole,
                held: Some(whole),
            },
            (Place::Gathered, None) => Frame {
                bytes: &self.aside,
                held: None,
            },
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
        self.lent_at = self.at;
        if self.carry.is_empty() {
            let rest = &self.piece[self.at..];
            let size = (self.frame_size)(rest)?;
            if let Some(size) = size.filter(|size| *size <= rest.len()) {
                let start = self.at;
                self.at += size;
                return Ok(Some(Frame {
                    bytes: &self.piece[start..start + size],
                    held: None,
                }));
            }
            make_room(&mut self.carry, rest.len(), size);
            self.carry.extend_from_slice(rest);
            self.at = self.piece.len();
            return Ok(None);
        }
        self.complete_carry()
    }

    fn complete_carry(&mut self) -> Result<Option<Frame<'_>>, String> {
        loop {
            let rest = &self.piece[self.at..];
            // The head of a frame says how long it is; until it is whole, take a little more.
            let size = (self.frame_size)(&self.carry)?;
            let want = match size {
                Some(size) if size <= self.carry.len() => return Ok(Some(self.lend(size))),
                Some(size) => size - self.carry.len(),
                None => 1,
            };
            if rest.is_empty() {
                return Ok(None);
            }
            let count = want.min(rest.len());
            make_room(&mut self.carry, count, size);
            self.carry.extend_from_slice(&rest[..count]);
            self.at += count;
        }
    }

    fn lend(&mut self, size: usize) -> Frame<'_> {
        // It does not stand in the piece.
        self.lent_at = self.at;
        if size < HELD_SIZE_MIN {
            self.lent_carry = true;
            return Frame {
                bytes: &self.carry[..size],
                held: None,
            };
        }
        let whole = &*self.whole.insert(Arc::new(std::mem::take(&mut self.carry)));
        Frame {
            bytes: whole,
            held: Some(whole),
        }
    }

    /// What is left for the next piece, when there is no frame any more.
    pub(super) fn take_carry(&mut self) -> Vec<u8> {
        let mut carry = std::mem::take(&mut self.carry);
        if std::mem::replace(&mut self.lent_carry, false) {
            carry.clear();
        }
        carry
    }
}

/// Makes room for what comes next of a frame. Growing moves what is there, so a frame of a few pieces gets its room at
/// once; a longer one in steps, for memory is taken for what has come, not for what a peer says is coming.
fn make_room(carry: &mut Vec<u8>, more: usize, size: Option<usize>) {
    let comes = carry.len() + more;
    if carry.capacity() < comes {
        let room = size.unwrap_or(0).min(GROWTH * comes).max(comes);
        carry.reserve_exact(room - carry.len());
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
                    carry = frames.take_carry();
                }
                let want: [&[u8]; 4] = [&[3, 1, 2], &[1], &[4, 9, 9, 9], &[2, 7]];
                assert_eq!(got, want, "cut at {first} and {second}");
                assert!(carry.is_empty());
            }
        }
    }

    #[test]
    fn memory_is_taken_for_what_has_come() {
        let mut carry = Vec::new();
        for (more, size, least, most) in [
            (3, None, 3, 64),
            // A few pieces: at once.
            (97, Some(300), 300, 300),
            // What was announced since is not believed.
            (200, Some(1 << 40), 300, 1_200),
            (100, Some(1 << 40), 400, 1_600),
        ] {
            make_room(&mut carry, more, size);
            let room = carry.capacity();
            assert!((least..=most).contains(&room), "{more} {size:?}: {room}");
            carry.resize(carry.len() + more, 0);
        }
    }

    #[test]
    fn a_frame_that_was_set_aside_is_read_again() {
        let stream = [3, 1, 2, 1, 4, 9, 9, 9, 2, 7];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut carry = Vec::new();
                let mut kept = Vec::new();
                let mut want = Vec::new();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    let mut frames = Frames::new(carry, Lease::of(piece.to_vec()), size);
                    let mut places = Vec::new();
                    while let Some(frame) = frames.next_frame().unwrap() {
                        want.push(frame.bytes.to_vec());
                        places.push(frames.set_aside());
                    }
                    carry = frames.take_carry();
                    kept.push((frames, places));
                }
                let again = |(frames, places): &(Frames, Vec<Place>)| {
                    let read = |place: &Place| frames.frame(*place).bytes.to_vec();
                    places.iter().map(read).collect::<Vec<_>>()
                };
                let got: Vec<_> = kept.iter().flat_map(again).collect();
                assert_eq!(got, want, "cut at {first} and {second}");
                assert_eq!(got.len(), 4);
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
                    let bytes = frame.bytes.to_vec();
                    let place = frames.set_aside();
                    let again = frames.frame(place);
                    assert_eq!(again.bytes, bytes);
                    assert_eq!(Some(&again.held.is_some()), got.last());
                }
                carry = frames.take_carry();
            }
            assert_eq!(got, want, "cut at {cut}");
            assert!(kept.iter().all(|whole| **whole == frame(HELD_SIZE_MIN)));
        }
    }
}

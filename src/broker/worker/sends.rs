//! The sends of a turn: executed when all of them are there, in the order of their queues, so that records of a queue
//! lie side by side and leave as one. See kernel-notes/splice-and-sendfile.md.
//!
//! What a connection sends to one queue keeps its order. Its other requests do not wait for its sends: nothing was
//! answered yet, so nobody can know which came first.
//!
//! One that turns out to be no request ends its connection. What the connection sent before it is executed; what it sent
//! behind it is not, but for what has been executed by then: other requests, and sends to other queues.

use std::net::SocketAddr;

use super::Worker;
use crate::base::Key;
use crate::broker::stalls::Step;
use crate::io::Io;
use crate::net::{Frames, Place};
use crate::protocol::rocketmq::frame::{self, Scratch};

/// The clock is asked after so many sends, or so many bytes of them.
const MARK_COUNT: usize = 32;
const MARK_SIZE: usize = 64 << 10;

/// A send takes about as long by itself as so many bytes of it.
const OWN_SIZE: u64 = 4 << 10;

/// What that many bytes are thought to take before any were seen, nanoseconds.
const USUAL_NS: u64 = 1_000;

/// A piece in which sends stand.
#[derive(Debug)]
struct Piece {
    frames: Frames,
    from: Key,
    address: SocketAddr,
}

/// What has come in this turn.
#[derive(Debug)]
pub(super) struct Sends {
    pieces: Vec<Piece>,
    /// Which piece each stands in, and where.
    list: Vec<(u32, Place)>,
    /// The mark of each one's queue, and its place in the list in the lower half.
    order: Vec<u64>,
    /// What they are expected to cost: their bytes, and [`OWN_SIZE`] for each.
    size: u64,
    /// What [`OWN_SIZE`] took, nanoseconds.
    usual_ns: u64,
}

impl Default for Sends {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            list: Vec::new(),
            order: Vec::new(),
            size: 0,
            usual_ns: USUAL_NS,
        }
    }
}

impl Sends {
    /// Another one. It stands in the piece that is put in next.
    pub(super) fn push(&mut self, mark: u32, place: Place, size: usize) {
        self.size += OWN_SIZE + size as u64;
        self.order
            .push(u64::from(mark) << 32 | self.list.len() as u64);
        self.list.push((self.pieces.len() as u32, place));
    }

    /// A piece has been read; its memory stays here as long as sends stand in it.
    pub(super) fn put_piece(&mut self, (from, address): (Key, SocketAddr), frames: Frames) {
        let number = self.pieces.len() as u32;
        if self.list.last().is_some_and(|(piece, _)| *piece == number) {
            self.pieces.push(Piece {
                frames,
                from,
                address,
            });
        }
    }

    /// What all of them will probably take, nanoseconds.
    pub(super) const fn usual_ns(&self) -> u64 {
        self.usual_ns * self.size / OWN_SIZE
    }

    /// All of them took so long, and are done.
    fn took(&mut self, ns: u64) {
        let each_ns = ns * OWN_SIZE / self.size;
        self.usual_ns = (7 * self.usual_ns + each_ns) / 8;
        self.pieces.clear();
        self.list.clear();
        self.order.clear();
        self.size = 0;
    }
}

impl<I: Io> Worker<I> {
    /// Executes what has come in this turn.
    pub(super) fn run_sends(&mut self) {
        if self.sends.list.is_empty() {
            return;
        }
        let mut sends = std::mem::take(&mut self.sends);
        let mut scratch = std::mem::take(&mut self.scratch);
        // Places in the list are different, so those of one mark keep their order.
        sends.order.sort_unstable();
        let begun_ns = self.stalls.last_ns();
        let mut appended_before = self.parts.shard.counters.produced;
        let (mut count, mut size) = (0, 0);
        // Who has sent what is no request, and its place in the list.
        let mut broken_off: Vec<(Key, u32)> = Vec::new();
        for (at, index) in sends.order.iter().enumerate() {
            let index = *index as u32;
            let (piece, place) = sends.list[index as usize];
            let piece = &sends.pieces[piece as usize];
            self.times_decoding = count == 0;
            let is_behind = |(from, first): &(Key, u32)| *from == piece.from && *first < index;
            if !broken_off.iter().any(is_behind) {
                match self.run_send(piece, place, &mut scratch) {
                    Some(more) => size += more,
                    None => broken_off.push((piece.from, index)),
                }
            }
            count += 1;
            let is_last = at + 1 == sends.order.len();
            if is_last || count == MARK_COUNT || MARK_SIZE <= size {
                self.mark_sends(count, piece.address, &mut appended_before);
                (count, size) = (0, 0);
            }
        }
        sends.took(self.stalls.last_ns().saturating_sub(begun_ns));
        self.sends = sends;
        self.scratch = scratch;
    }

    /// Answers how many bytes it had; `None`: it is no request, and its connection was broken off.
    fn run_send(&mut self, piece: &Piece, place: Place, scratch: &mut Scratch) -> Option<usize> {
        let frame = piece.frames.frame(place);
        match frame::decode(frame.bytes, scratch) {
            Ok(request) => {
                self.time_decoding();
                let from = (piece.from, piece.address);
                self.serve(from, &request, frame.bytes, frame.held);
                Some(frame.bytes.len())
            }
            Err(why) => {
                self.break_off(piece.from, &why.to_string());
                None
            }
        }
    }

    fn mark_sends(&mut self, count: usize, last: SocketAddr, appended_before: &mut u64) {
        self.mark_by(Step::Requests, || {
            format!("{count} sends, the last of {last}")
        });
        self.note_appended(*appended_before);
        *appended_before = self.parts.shard.counters.produced;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_send_does_not_make_small_ones_look_slow() {
        let mut sends = Sends::default();
        let mut turn = |sizes: &[usize], took_ns: u64| {
            for size in sizes {
                sends.push(0, Place::Gathered, *size);
            }
            let expected_ns = sends.usual_ns();
            sends.took(took_ns);
            expected_ns
        };
        for _ in 0..50 {
            turn(&[1200; 100], 130_000);
        }
        let eight_ns = turn(&[1200; 8], 10_400);
        assert!((8_000..13_000).contains(&eight_ns), "{eight_ns}");
        for _ in 0..10 {
            turn(&[4 << 20], 1_500_000);
        }
        let eight_ns = turn(&[1200; 8], 10_400);
        assert!((8_000..20_000).contains(&eight_ns), "{eight_ns}");
    }
}

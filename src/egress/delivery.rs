//! A delivery under way, and what all deliveries of a shard share: pipes, windows of cold reads, counts.

use std::collections::VecDeque;

use super::choice::{Policy, Way};
use super::cold::{Cold, Found, Unsettled};
use super::{ROOM, copy, gather, sendfile, splice};
use crate::base::Key;
use crate::io::{Completion, Errno, Io, Op, PipeId, SocketId, Span, Token};

/// What must reach the peer: the head first, then every span, in order.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Bytes the broker made.
    pub head: Vec<u8>,
    /// Bytes that are in the log.
    pub spans: Vec<Span>,
    /// Known to be in the page cache, being at the end of the log.
    pub hot: bool,
    /// Where the log ends now: what is read ahead of a delivery must not go beyond.
    pub unsettled: Option<Unsettled>,
}

/// Where a delivery stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// An operation is in flight, or the delivery waits for a cold read.
    Busy,
    /// The kernel has taken the last byte.
    Sent,
    /// The connection is of no use any more.
    Broken(Errno),
}

/// Names of the ways, in the order of [`Egress::bytes`].
pub const WAYS: [&str; 6] = ["sendfile", "splice", "gather", "send-zc", "copy", "cold"];

/// One delivery.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) socket: SocketId,
    pub(super) token: Token,
    pub(super) way: Way,
    /// Taken while the kernel has it.
    pub(super) head: Vec<u8>,
    pub(super) head_sent: usize,
    pub(super) spans: VecDeque<Span>,
    pub(super) hot: bool,
    pub(super) stage: Stage,
    unsettled: Option<Unsettled>,
    /// Bytes of head and spans at the start.
    pub(super) total: u64,
    /// Bytes sent of a gather, or of the buffer in flight.
    pub(super) skip: u64,
    /// Of a gather without copying: how many bytes were sent was told already.
    pub(super) told: bool,
    /// Bytes of spans in the buffer in flight.
    pub(super) piece: usize,
    pub(super) pipe: Option<PipeId>,
    /// Bytes of spans that were left after the last answer of the kernel.
    uncounted: u64,
}

/// What the operation in flight does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Head,
    Spans,
    Fill,
    Drain {
        in_pipe: u32,
    },
    Read,
    SendCopy,
    /// For a window of cold reads; no operation of its own is in flight.
    WaitForWindow,
}

/// What all deliveries of a shard share.
#[derive(Debug)]
pub struct Egress {
    policy: Policy,
    sending: crate::base::Slab<Sending>,
    pipes_free: Vec<PipeId>,
    pipes_made: u32,
    cold: Cold,
    bytes: [u64; 6],
}

impl Egress {
    /// Nothing under way. `cold_reads_max`: reads past the page cache at once, this shard's part of what its
    /// disk is given to do.
    #[must_use]
    pub fn new(policy: Policy, cold_reads_max: u32) -> Self {
        Self {
            policy,
            sending: crate::base::Slab::default(),
            pipes_free: Vec::new(),
            pipes_made: 0,
            cold: Cold::new(cold_reads_max),
            bytes: [0; 6],
        }
    }

    /// Bytes of spans sent so far, per way.
    #[must_use]
    pub const fn bytes(&self) -> [u64; 6] {
        self.bytes
    }

    /// Starts a delivery. The caller starts no other for this socket before it ended.
    pub fn start(&mut self, io: &mut impl Io, socket: SocketId, delivery: Delivery) -> Key {
        assert!(
            !delivery.spans.is_empty(),
            "a delivery has something to deliver"
        );
        let way = self.policy.choose(&delivery.spans);
        let spans: u64 = delivery.spans.iter().map(|span| u64::from(span.len)).sum();
        let key = self.sending.insert(Sending {
            total: delivery.head.len() as u64 + spans,
            unsettled: delivery.unsettled,
            told: false,
            piece: 0,
            socket,
            token: Token(0),
            way,
            head: delivery.head,
            head_sent: 0,
            spans: delivery.spans.into(),
            hot: delivery.hot,
            stage: Stage::Head,
            skip: 0,
            pipe: None,
            uncounted: 0,
        });
        let sending = self.sending.get_mut(key).expect("was inserted just now");
        sending.uncounted = sending.left();
        sending.token = Token::of(ROOM, key.to_u64() & ((1 << 56) - 1));
        if way == Way::Splice {
            let pipe = self.pipes_free.pop().unwrap_or(PipeId(self.pipes_made));
            self.pipes_made = self.pipes_made.max(pipe.0 + 1);
            sending.pipe = Some(pipe);
        }
        match way {
            Way::Gather | Way::SendZc => gather::push(sending, io),
            Way::Sendfile | Way::Splice | Way::Copy | Way::Cold => sending.push_head(io),
        }
        key
    }

    /// Takes one answer of the kernel. `None`: not of a delivery that is known.
    pub fn complete(&mut self, io: &mut impl Io, done: Completion) -> Option<(Key, Progress)> {
        let key = Key::from_u64(done.token.rest());
        let sending = self.sending.get_mut(key)?;
        let way = sending.way;
        let step = match sending.stage {
            Stage::Head => sending.complete_head(io, done),
            Stage::Spans if matches!(way, Way::Gather | Way::SendZc) => {
                gather::complete(sending, io, done)
            }
            Stage::Spans => sendfile::complete(sending, io, done),
            Stage::Fill | Stage::Drain { .. } => splice::complete(sending, io, done),
            Stage::Read | Stage::SendCopy => copy::complete(sending, io, done),
            Stage::WaitForWindow => unreachable!("nothing is in flight while waiting"),
        };
        if let Ok(Step::Sent) = step {
            self.bytes[way as usize] += std::mem::take(&mut sending.uncounted);
        } else if let Some(left) = sending.left_if_known() {
            self.bytes[way as usize] += sending.uncounted.saturating_sub(left);
            sending.uncounted = sending.uncounted.min(left);
        }
        let progress = self.progress(io, key, step);
        Some((key, progress))
    }

    fn progress(&mut self, io: &mut impl Io, key: Key, step: Result<Step, Errno>) -> Progress {
        let step = match step {
            Ok(Step::Cold) => self.send_cold(io, key),
            other => other,
        };
        let progress = match step {
            Ok(Step::Busy | Step::Cold) => Progress::Busy,
            Ok(Step::Sent) => Progress::Sent,
            Err(errno) => Progress::Broken(errno),
        };
        if progress != Progress::Busy {
            self.forget(io, key);
        }
        progress
    }

    /// The page cache does not hold what comes next: it is sent out of windows, as far as they are there.
    fn send_cold(&mut self, io: &mut impl Io, key: Key) -> Result<Step, Errno> {
        let sending = self.sending.get_mut(key).expect("is under way");
        sending.way = Way::Cold;
        let unsettled = sending.unsettled;
        // A head that was sent whole is gone already.
        let head_sent = sending.head_sent.min(sending.head.len());
        let mut buffer = sending.head.split_off(head_sent);
        let head_len = buffer.len();
        let mut missing = None;
        let mut last = None;
        'spans: for span in &sending.spans {
            let mut at = span.at;
            let end = span.at + u64::from(span.len);
            while at < end {
                let room =
                    copy::CHUNK as usize - (buffer.len() - head_len).min(copy::CHUNK as usize);
                if room == 0 {
                    break 'spans;
                }
                match self.cold.find(io, span.file, at) {
                    Found::Here(bytes) => {
                        let count = bytes.len().min((end - at) as usize).min(room);
                        buffer.extend_from_slice(&bytes[..count]);
                        last = Some((span.file, at));
                        at += count as u64;
                    }
                    Found::Missing => {
                        missing = Some((span.file, at));
                        break 'spans;
                    }
                    // The file was cut short by somebody else.
                    Found::Beyond => return Err(Errno::EIO),
                }
            }
        }
        sending.head.clear();
        sending.head_sent = 0;
        sending.skip = 0;
        sending.piece = buffer.len() - head_len;
        if sending.piece == 0 {
            sending.head = buffer;
            sending.stage = Stage::WaitForWindow;
            let place = missing.expect("a delivery has something left");
            self.cold.want(io, place, unsettled, key);
            return Ok(Step::Busy);
        }
        copy::push_send(sending, io, buffer, 0);
        if let Some(place) = missing.or(last) {
            self.cold.read_ahead(io, place, unsettled);
        }
        Ok(Step::Busy)
    }

    /// Takes the answer to a read that deliveries share: each that waited for it, and where it stands now.
    pub fn complete_cold(&mut self, io: &mut impl Io, done: Completion) -> Vec<(Key, Progress)> {
        let (waiters, result) = self.cold.complete(io, done);
        let mut all = Vec::new();
        for key in waiters {
            let waits = |sending: &Sending| sending.stage == Stage::WaitForWindow;
            if !self.sending.get(key).is_some_and(waits) {
                continue;
            }
            let step = result.map(|()| Step::Cold);
            all.push((key, self.progress(io, key, step)));
        }
        all
    }

    /// Gives back what nobody has needed for a while.
    pub fn rest(&mut self, io: &mut impl Io) {
        self.cold.rest(io);
    }

    fn forget(&mut self, io: &mut impl Io, key: Key) {
        let Some(sending) = self.sending.remove(key) else {
            return;
        };
        let Some(pipe) = sending.pipe else {
            return;
        };
        // What a broken delivery has left in its pipe goes with it.
        if matches!(sending.stage, Stage::Drain { in_pipe } if 0 < in_pipe) {
            let pushed = io.push(sending.token, Op::ClosePipe { pipe });
            assert!(pushed.is_ok(), "one operation a connection fits the ring");
        }
        self.pipes_free.push(pipe);
    }

    /// Deliveries under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sending.len()
    }

    /// Whether none is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sending.is_empty()
    }
}

/// What a way says after an answer of the kernel.
pub(super) enum Step {
    Busy,
    /// What comes next is not in the page cache.
    Cold,
    Sent,
}

impl Sending {
    pub(super) fn left(&self) -> u64 {
        let spans: u64 = self.spans.iter().map(|span| u64::from(span.len)).sum();
        spans - self.skip.saturating_sub(self.head.len() as u64).min(spans)
    }

    /// While a gather is under way, its spans are with the kernel.
    fn left_if_known(&self) -> Option<u64> {
        let gathers = matches!(self.way, Way::Gather | Way::SendZc);
        let with_kernel = gathers && self.stage == Stage::Spans;
        match (with_kernel, self.spans.is_empty()) {
            (true, true) => None,
            _ => Some(self.left()),
        }
    }

    pub(super) fn push(&self, io: &mut impl Io, op: Op) {
        let pushed = io.push(self.token, op);
        assert!(pushed.is_ok(), "one operation a connection fits the ring");
    }

    /// Whether the front of a span can be had from the page cache: reading there what it does not hold would make
    /// what others read leave it.
    pub(super) fn is_there(&self, io: &mut impl Io, span: Span, len: u32) -> bool {
        self.hot || io.holds(span.file, span.at, u64::from(len))
    }

    /// The head goes first and waits in the socket for the spans (MSG_MORE).
    pub(super) fn push_head(&mut self, io: &mut impl Io) {
        self.stage = Stage::Head;
        let from = std::mem::take(&mut self.head);
        let (socket, skip) = (self.socket, self.head_sent);
        self.push(
            io,
            Op::Send {
                socket,
                from,
                skip,
                more: true,
            },
        );
    }

    fn complete_head(&mut self, io: &mut impl Io, done: Completion) -> Result<Step, Errno> {
        let crate::io::Payload::Buffer(head) = done.payload else {
            unreachable!("a send gives its buffer back")
        };
        self.head_sent += done.result? as usize;
        if self.head_sent < head.len() {
            self.head = head;
            self.push_head(io);
            return Ok(Step::Busy);
        }
        match self.way {
            Way::Sendfile | Way::Gather | Way::SendZc => {
                sendfile::push(self, io);
                Ok(Step::Busy)
            }
            Way::Splice => Ok(splice::push_fill(self, io)),
            Way::Copy => Ok(copy::push_read(self, io)),
            Way::Cold => Ok(Step::Cold),
        }
    }

    /// Takes `count` sent bytes off the first span.
    pub(super) fn advance(&mut self, count: u32) {
        let span = self.spans.front_mut().expect("bytes of a span were sent");
        assert!(count <= span.len);
        span.at += u64::from(count);
        span.len -= count;
        if span.len == 0 {
            self.spans.pop_front();
        }
    }
}

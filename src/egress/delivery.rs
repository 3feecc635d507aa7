//! A delivery under way, and what all deliveries of a shard share: pipes, the budget of cold reads, counts.

use std::collections::VecDeque;

use super::choice::{Policy, Way};
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
}

/// Where a delivery stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// An operation is in flight, or the delivery waits for the budget of cold reads.
    Busy,
    /// The kernel has taken the last byte.
    Sent,
    /// The connection is of no use any more.
    Broken(Errno),
}

/// Names of the ways, in the order of [`Egress::bytes`].
pub const WAYS: [&str; 4] = ["sendfile", "splice", "gather", "copy"];

/// Reads from the disk under way at once, a shard: enough to keep a disk busy, few enough that a log's sync
/// never waits behind a crowd of them.
const COLD_READS_MAX: u32 = 4;

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
    /// Bytes sent of a gather.
    pub(super) skip: u64,
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
    Drain { in_pipe: u32 },
    Read,
    SendCopy,
    WaitForBudget,
}

/// What all deliveries of a shard share.
#[derive(Debug)]
pub struct Egress {
    policy: Policy,
    sending: crate::base::Slab<Sending>,
    pipes_free: Vec<PipeId>,
    pipes_made: u32,
    cold_reads: u32,
    cold_waiting: VecDeque<Key>,
    bytes: [u64; 4],
}

impl Egress {
    /// Nothing under way.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            sending: crate::base::Slab::default(),
            pipes_free: Vec::new(),
            pipes_made: 0,
            cold_reads: 0,
            cold_waiting: VecDeque::new(),
            bytes: [0; 4],
        }
    }

    /// Bytes of spans sent so far, per way.
    #[must_use]
    pub const fn bytes(&self) -> [u64; 4] {
        self.bytes
    }

    /// Starts a delivery. The caller starts no other for this socket before it ended.
    pub fn start(&mut self, io: &mut impl Io, socket: SocketId, delivery: Delivery) -> Key {
        assert!(
            !delivery.spans.is_empty(),
            "a delivery has something to deliver"
        );
        let way = self.policy.choose(&delivery.spans);
        let key = self.sending.insert(Sending {
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
            Way::Gather => gather::push(sending, io),
            Way::Sendfile | Way::Splice | Way::Copy => sending.push_head(io),
        }
        key
    }

    /// Takes one answer of the kernel. `None`: not of a delivery that is known.
    pub fn complete(&mut self, io: &mut impl Io, done: Completion) -> Option<(Key, Progress)> {
        let key = Key::from_u64(done.token.rest());
        let sending = self.sending.get_mut(key)?;
        if sending.stage == Stage::Read {
            self.cold_reads -= 1;
        }
        let sending = self.sending.get_mut(key)?;
        let way = sending.way;
        let step = match sending.stage {
            Stage::Head => sending.complete_head(io, done),
            Stage::Spans if way == Way::Gather => gather::complete(sending, io, done),
            Stage::Spans => sendfile::complete(sending, io, done),
            Stage::Fill | Stage::Drain { .. } => splice::complete(sending, io, done),
            Stage::Read | Stage::SendCopy => copy::complete(sending, io, done),
            Stage::WaitForBudget => unreachable!("nothing is in flight while waiting"),
        };
        // A copy that failed half-way is counted when its span is done: what is left may seem to grow.
        let left = sending.left_if_known();
        if let Some(left) = left {
            self.bytes[way as usize] += sending.uncounted.saturating_sub(left);
            sending.uncounted = sending.uncounted.min(left);
        }
        let progress = match step {
            Ok(Step::Busy) => Progress::Busy,
            Ok(Step::Cold) => {
                self.read_cold(io, key);
                Progress::Busy
            }
            Ok(Step::Sent) => Progress::Sent,
            Err(errno) => Progress::Broken(errno),
        };
        self.start_cold_reads(io);
        if progress != Progress::Busy {
            self.forget(key);
        }
        Some((key, progress))
    }

    /// The page cache does not hold what comes next: it is read through the ring and sent from a buffer.
    fn read_cold(&mut self, io: &mut impl Io, key: Key) {
        let sending = self.sending.get_mut(key).expect("is under way");
        sending.way = Way::Copy;
        if COLD_READS_MAX <= self.cold_reads {
            sending.stage = Stage::WaitForBudget;
            self.cold_waiting.push_back(key);
            return;
        }
        self.cold_reads += 1;
        copy::push_read(sending, io);
    }

    fn start_cold_reads(&mut self, io: &mut impl Io) {
        while self.cold_reads < COLD_READS_MAX {
            let Some(key) = self.cold_waiting.pop_front() else {
                return;
            };
            if self.sending.get(key).is_some() {
                self.read_cold(io, key);
            }
        }
    }

    fn forget(&mut self, key: Key) {
        let Some(sending) = self.sending.remove(key) else {
            return;
        };
        // A pipe that still holds bytes of a broken delivery is never used again.
        let empty = !matches!(sending.stage, Stage::Drain { in_pipe } if 0 < in_pipe);
        if let Some(pipe) = sending.pipe
            && empty
        {
            self.pipes_free.push(pipe);
        }
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
        let with_kernel = self.way == Way::Gather && self.stage == Stage::Spans;
        match (with_kernel, self.spans.is_empty()) {
            (true, true) => None,
            _ => Some(self.left()),
        }
    }

    pub(super) fn push(&self, io: &mut impl Io, op: Op) {
        let pushed = io.push(self.token, op);
        assert!(pushed.is_ok(), "one operation a connection fits the ring");
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
            Way::Sendfile | Way::Gather => {
                sendfile::push(self, io);
                Ok(Step::Busy)
            }
            Way::Splice => {
                splice::push_fill(self, io);
                Ok(Step::Busy)
            }
            Way::Copy => Ok(Step::Cold),
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

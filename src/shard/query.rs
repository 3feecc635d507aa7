//! Questions that must read the store before they can be answered: a step, a read, the next step
//! (P§2.4, §2.5).

mod keys;
mod record;
mod search;
mod times;
mod units;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use super::{Reply, Shard, fetch};
use crate::base::{PhysicalOffset, QueueId};
use crate::command::{Answer, ConnectionId, Refusal, RefusalKind, Ticket};
use crate::index::{QueueIndex, Wanted};
use crate::io::{Errno, Io, Op, Payload, Token};

pub(super) use keys::Keys;
pub(super) use record::Record;
pub(super) use search::{Search, SearchFor};
pub(super) use times::{Target, Times, TimesFor};
pub(super) use units::{Range, Units};

/// Something was read for a question.
pub(super) const QUERY: u64 = 4 << 48;

/// Questions that read at once: each has one operation under way, and some hold megabytes.
const ACTIVE_MAX: usize = 32;
/// Questions that wait for their turn; above it clients are told to come back.
const WAITING_MAX: usize = 1024;

/// What is to be read next.
#[derive(Debug)]
pub(super) enum Want {
    /// A part of a file that is not held open.
    File { path: PathBuf, at: u64, len: u64 },
    /// A part of the CommitLog.
    Log { offset: u64, len: u32 },
}

impl From<Wanted> for Want {
    fn from(wanted: Wanted) -> Self {
        Self::File {
            path: wanted.path,
            at: wanted.at,
            len: wanted.len,
        }
    }
}

/// A question on its way.
#[derive(Debug)]
pub(super) enum Question {
    Record(Record),
    Keys(Keys),
    Units(Units),
    Times(Times),
    Search(Search),
}

impl Question {
    /// Goes on with what was read (nothing at first, no bytes where there is nothing any more).
    /// `None`: the answer is known.
    fn step(&mut self, shard: &mut Shard, got: Option<Vec<u8>>) -> Option<Want> {
        match self {
            Self::Record(question) => question.step(shard, got),
            Self::Keys(question) => question.step(shard, got),
            Self::Units(question) => question.step(shard, got),
            Self::Times(question) => question.step(shard, got),
            Self::Search(question) => question.step(shard, got),
        }
    }

    fn answer(self, shard: &mut Shard, now_ms: u64) -> Answer {
        match self {
            Self::Record(question) => question.answer(),
            Self::Keys(question) => question.answer(shard),
            Self::Units(question) => question.answer(shard),
            Self::Times(question) => question.answer(shard, now_ms),
            Self::Search(question) => question.answer(shard),
        }
    }
}

/// Everybody who waits for a read.
#[derive(Debug, Default)]
pub(super) struct Queries {
    next: u64,
    /// Reading. Without a ticket: the client is gone, and the read must still come back.
    active: BTreeMap<u64, (Option<Ticket>, Question)>,
    waiting: VecDeque<(Ticket, Question)>,
}

impl Shard {
    /// Answers a question, now if memory knows the answer.
    pub(super) fn ask(&mut self, io: &mut impl Io, ticket: Ticket, question: Question) -> Reply {
        if self.queries.active.len() < ACTIVE_MAX {
            return match self.run_question(io, ticket, question, None) {
                Some(answer) => Reply::Now(answer),
                None => Reply::Later,
            };
        }
        if WAITING_MAX <= self.queries.waiting.len() {
            let text =
                "[TIMEOUT_CLEAN_QUEUE]broker busy, too many queries wait for the disk; try again";
            return Self::refuse(RefusalKind::SystemBusy, text);
        }
        self.queries.waiting.push_back((ticket, question));
        Reply::Later
    }

    /// `None`: it reads.
    fn run_question(
        &mut self,
        io: &mut impl Io,
        ticket: Ticket,
        mut question: Question,
        mut got: Option<Vec<u8>>,
    ) -> Option<Answer> {
        // Each round is one probe of a question, and the number of those is bounded by the question.
        loop {
            let Some(want) = question.step(self, got.take()) else {
                return Some(question.answer(self, io.wall_ms()));
            };
            let op = match want {
                Want::File { path, at, len } => Op::Get { path, at, len },
                Want::Log { offset, len } => match self.log.span(PhysicalOffset(offset), len) {
                    Some(span) => Op::Read {
                        file: span.file,
                        at: span.at,
                        into: vec![0; len as usize],
                    },
                    None => {
                        got = Some(Vec::new());
                        continue;
                    }
                },
            };
            let number = self.queries.next;
            self.queries.next = (number + 1) & 0xffff_ffff;
            let pushed = io.push(Token::of(fetch::ROOM, QUERY | number), op);
            assert!(pushed.is_ok(), "questions that read are bounded");
            self.queries.active.insert(number, (Some(ticket), question));
            return None;
        }
    }

    /// A read of a question has come back.
    pub(super) fn query_read(
        &mut self,
        io: &mut impl Io,
        number: u64,
        result: Result<u32, Errno>,
        payload: Payload,
    ) {
        let Some((ticket, question)) = self.queries.active.remove(&number) else {
            return;
        };
        if let Some(ticket) = ticket {
            let answer = match (result, payload) {
                (Ok(len), Payload::Buffer(mut bytes)) => {
                    bytes.truncate(len as usize);
                    self.run_question(io, ticket, question, Some(bytes))
                }
                (Ok(_) | Err(Errno::ENOENT), _) => {
                    self.run_question(io, ticket, question, Some(Vec::new()))
                }
                (Err(errno), _) => {
                    let text = format!(
                        "the store cannot be read: {errno}; look at the disk (dmesg) and try again"
                    );
                    tracing::error!(%errno, "a query could not read the store");
                    Some(Answer::Refused(Refusal::new(
                        RefusalKind::SystemError,
                        text,
                    )))
                }
            };
            if let Some(answer) = answer {
                self.answer_later(ticket, answer);
            }
        }
        while self.queries.active.len() < ACTIVE_MAX
            && let Some((ticket, question)) = self.queries.waiting.pop_front()
        {
            if let Some(answer) = self.run_question(io, ticket, question, None) {
                self.answer_later(ticket, answer);
            }
        }
    }

    /// Drops questions of a connection that is gone.
    pub(super) fn forget_queries(&mut self, connection: ConnectionId) {
        let queries = &mut self.queries;
        queries
            .waiting
            .retain(|(ticket, _)| ticket.connection != connection);
        for (ticket, _) in queries.active.values_mut() {
            *ticket = ticket.filter(|ticket| ticket.connection != connection);
        }
    }

    /// A queue as clients number it, if anything was ever written into it.
    pub(super) fn find_queue(&self, topic: &str, queue_id: i32) -> Option<QueueIndex> {
        let queue_id = u32::try_from(queue_id).ok()?;
        self.queues.find(topic, QueueId(queue_id))
    }
}

//! Messages that a group could not consume: sent back, they come again later or end as dead letters (P§4.7).

use std::collections::BTreeMap;

use super::pending::After;
use super::produce::Message;
use super::topics::{self, PERM_WRITE};
use super::{Condition, Reply, Shard, fetch};
use crate::base::{PhysicalOffset, QueueId};
use crate::command::{ConnectionId, Peer, RefusalKind, Ticket};
use crate::index::Names;
use crate::io::{Errno, Io, Op, Payload, Token};
use crate::log::record::{self, Properties, RECORD_SIZE_MIN, message_id, put_property};

/// The front, and then the whole, of a record that is sent back was read.
pub(super) const RECORD: u64 = 5 << 48;

/// Delay level of the first retry: 10 s. The n-th takes level 3 + n.
const FIRST_LEVEL: i32 = 3;

/// Clients from V3_4_9 on say themselves how often a message may be retried (P§1.6).
const VERSION_WITH_MAX_RECONSUME: i32 = 121;

/// Messages that are being read to be sent back, at most.
const READING_MAX: usize = 1024;

const FAQ: &str = "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// A message on its way back.
#[derive(Debug)]
struct Returning {
    ticket: Ticket,
    group: String,
    offset: PhysicalOffset,
    delay_level: i32,
    /// Times it may be consumed again.
    reconsume_max: i32,
    /// The record's bytes once its size is known.
    whole: bool,
}

/// All messages on their way back.
#[derive(Debug, Default)]
pub(super) struct Returns {
    next: u64,
    table: BTreeMap<u64, Returning>,
}

/// What a client sends back.
pub(super) struct SendBack<'a> {
    pub(super) group: &'a str,
    pub(super) offset: i64,
    pub(super) delay_level: i32,
    pub(super) max_reconsume_times: Option<i32>,
}

/// Properties of a message that its next try does not inherit.
const NOT_KEPT: [&str; 5] = ["WAIT", "DELAY", "REAL_TOPIC", "REAL_QID", "__CRC32#"];

impl Shard {
    pub(super) fn send_back(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        back: &SendBack<'_>,
    ) -> Reply {
        let now_ms = io.wall_ms();
        let Some(config) = self.group_or_default(back.group, now_ms) else {
            let text = format!("subscription group not exist, {} \n{FAQ}", back.group);
            return Self::refuse(RefusalKind::GroupNotExist, text);
        };
        if self.settings.perm & PERM_WRITE == 0 {
            let ip = self.settings.store_host.ip();
            let text = format!("the broker[{ip}] sending message is forbidden");
            return Self::refuse(RefusalKind::NoPermission, text);
        }
        if config.retry_queue_count <= 0 {
            return Reply::Now(crate::command::Answer::Done);
        }
        let retry_topic = topics::retry_topic(back.group);
        if let Some(number) = self.change_of_topic(&retry_topic) {
            return Reply::Again(Condition::Change(number));
        }
        if self.make_retry_topic(back.group, config.retry_queue_count, now_ms) {
            return Reply::Again(self.begin_making(&retry_topic));
        }
        // The dead-letter topic is made beforehand where it may be needed, so that nothing waits later.
        let reconsume_max = match back.max_reconsume_times {
            Some(max) if VERSION_WITH_MAX_RECONSUME <= peer.version => max,
            _ => config.retry_max_times,
        };
        if let Err(condition) = self.dead_letter_topic(back.group, now_ms) {
            return Reply::Again(condition);
        }
        if READING_MAX <= self.returns.table.len() {
            let text = "[TIMEOUT_CLEAN_QUEUE]broker busy, too many messages are being sent back";
            return Self::refuse(RefusalKind::SystemBusy, text);
        }
        let offset = PhysicalOffset(u64::try_from(back.offset).unwrap_or(u64::MAX));
        let returning = Returning {
            ticket,
            group: back.group.to_owned(),
            offset,
            delay_level: back.delay_level,
            reconsume_max,
            whole: false,
        };
        match self.read_returning(io, returning, RECORD_SIZE_MIN as u32) {
            Ok(()) => Reply::Later,
            Err(()) => Self::not_found(back.offset),
        }
    }

    fn not_found(offset: i64) -> Reply {
        Self::refuse(
            RefusalKind::SystemError,
            format!("look message by offset failed, {offset}"),
        )
    }

    fn read_returning(
        &mut self,
        io: &mut impl Io,
        returning: Returning,
        len: u32,
    ) -> Result<(), ()> {
        let end = returning.offset.0.saturating_add(u64::from(len));
        let span = self
            .log
            .span(returning.offset, len)
            .filter(|_| end <= self.log.written());
        let span = span.ok_or(())?;
        let number = self.returns.next;
        self.returns.next = (number + 1) & 0xffff_ffff;
        let op = Op::Read {
            file: span.file,
            at: span.at,
            into: vec![0; len as usize],
        };
        let pushed = io.push(Token::of(fetch::ROOM, RECORD | number), op);
        assert!(pushed.is_ok(), "messages on their way back are bounded");
        self.returns.table.insert(number, returning);
        Ok(())
    }

    /// The front or the whole of a record has been read.
    pub(super) fn returning_read(
        &mut self,
        io: &mut impl Io,
        number: u64,
        result: Result<u32, Errno>,
        payload: Payload,
    ) {
        let Some(mut returning) = self.returns.table.remove(&number) else {
            return;
        };
        let (ticket, offset) = (returning.ticket, returning.offset.0 as i64);
        let refuse = |shard: &mut Self| {
            if let Reply::Now(answer) = Self::not_found(offset) {
                shard.answer_later(ticket, answer);
            }
        };
        let (Ok(count), Payload::Buffer(mut bytes)) = (result, payload) else {
            return refuse(self);
        };
        bytes.truncate(count as usize);
        if !returning.whole {
            let size = bytes
                .first_chunk()
                .map_or(0, |size| u32::from_be_bytes(*size));
            let fits =
                RECORD_SIZE_MIN <= size as usize && u64::from(size) <= self.log.segments().size();
            returning.whole = true;
            if !fits || self.read_returning(io, returning, size).is_err() {
                refuse(self);
            }
            return;
        }
        if let record::Verdict::Record(record) = record::check(&bytes, returning.offset, false) {
            self.return_record(io, &returning, &record);
        } else {
            refuse(self);
        }
    }

    /// Steps 2 to 7 of P§4.7.
    fn return_record(
        &mut self,
        io: &mut impl Io,
        returning: &Returning,
        record: &record::Record<'_>,
    ) {
        self.statistics.sent_back(record.topic, &returning.group);
        let dead = returning.delay_level < 0 || returning.reconsume_max <= record.reconsume_times;
        let sent = std::str::from_utf8(record.properties).unwrap_or("");
        let kept = record::without(sent, &NOT_KEPT);
        let mut added = Vec::new();
        if record.property("RETRY_TOPIC").is_none() {
            put_property(&mut added, "RETRY_TOPIC", record.topic);
        }
        if record.property("ORIGIN_MESSAGE_ID").is_none() {
            let id = message_id(record.store_host, record.physical_offset);
            put_property(&mut added, "ORIGIN_MESSAGE_ID", &id);
        }
        put_property(&mut added, "WAIT", "false");
        let ticket = returning.ticket;
        let retry_topic = topics::retry_topic(&returning.group);
        let dead_topic = format!("{}{}", topics::DEAD_LETTER_PREFIX, returning.group);
        let message = Message {
            topic: if dead { &dead_topic } else { &retry_topic },
            queue_id: QueueId(0),
            flag: record.flag,
            sys_flag: record.sys_flag,
            born_ms: record.born_ms,
            born_host: record.born_host,
            reconsume_times: record.reconsume_times + 1,
            body: record.body,
            held: None,
            properties: Properties::new(&*kept, &[]),
            names: Names::of(&*kept),
            due_ms: None,
            at_write: true,
        };
        let stored = if dead {
            put_property(&mut added, "DELAY", "0");
            let pieces = [added.as_slice()];
            let message = Message {
                properties: Properties::new(&*kept, &pieces),
                ..message
            };
            self.store(io, message, |_| After::Done(ticket))
        } else {
            let queue_count = self
                .topics
                .get(&retry_topic)
                .map_or(1, |topic| topic.config.write_queue_count.max(1));
            let queue_id = QueueId(self.prng.below(u64::from(queue_count)) as u32);
            let level = match returning.delay_level {
                0 => FIRST_LEVEL + record.reconsume_times,
                level => level,
            };
            let message = Message {
                queue_id,
                ..message
            };
            let level = i64::from(level.max(1));
            self.store_delayed(io, message, level, &added, |_| After::Done(ticket))
        };
        if let Err(why) = stored {
            let answer = match self.meet_no_room(why) {
                Reply::Now(answer) => answer,
                // The client sends the message itself when this fails; it is not lost.
                Reply::Later | Reply::Again(_) => {
                    crate::command::Answer::Refused(crate::command::Refusal::new(
                        RefusalKind::SystemBusy,
                        "[TIMEOUT_CLEAN_QUEUE]broker busy, the log waits for room",
                    ))
                }
            };
            self.answer_later(ticket, answer);
        }
    }

    /// Forgets what a connection that is gone has sent back and what was not read yet; the client's group
    /// gets the message again, having never been answered.
    pub(super) fn forget_returning(&mut self, connection: ConnectionId) {
        self.returns
            .table
            .retain(|_, one| one.ticket.connection != connection);
    }
}

//! Delay levels: messages wait in the schedule topic, one queue a level, and come back when their time has
//! come (P§4.8). Each level is read in order, one message at a time; its offset survives a restart.

use super::pending::After;
use super::produce::{Message, Unstored};
use super::topics::{self, PERM_READ, PERM_WRITE, SCHEDULE_TOPIC};
use super::{Shard, Touched, fetch};
use crate::base::{QueueId, QueueOffset};
use crate::index::{Look, Names, Unit};
use crate::io::{Errno, Io, Op, Payload, Token};
use crate::log::NoRoom;
use crate::log::record::{self, Properties};

/// The unit, or the record, of a level was read.
const UNITS: u64 = 2 << 48;
const RECORD: u64 = 3 << 48;

/// Look at a level again after this long when something is in its way.
const RETRY_NS: u64 = 100_000_000;

/// Messages of a level under way into the log at once.
const UNDER_WAY_MAX: u32 = 64;

#[derive(Debug, Default)]
struct Level {
    /// Next to look at.
    position: u64,
    /// Everything below has been delivered and is in the log.
    delivered: u64,
    under_way: u32,
    reading: bool,
    /// The first unit of those that are being read.
    reading_from: QueueOffset,
    retry_ns: u64,
}

/// All levels.
#[derive(Debug, Default)]
pub struct Delay {
    levels: Vec<Level>,
    changes: u64,
}

impl Delay {
    /// What was stored: (level from 1, next offset to deliver).
    #[must_use]
    pub fn load(level_count: usize, stored: &[(i32, i64)]) -> Self {
        let mut levels: Vec<Level> = (0..level_count).map(|_| Level::default()).collect();
        for (level, offset) in stored {
            let at = usize::try_from(*level - 1).ok();
            if let Some(level) = at.and_then(|at| levels.get_mut(at)) {
                level.delivered = u64::try_from(*offset).unwrap_or(0);
                level.position = level.delivered;
            }
        }
        Self { levels, changes: 0 }
    }

    /// (level, next offset to deliver) of the levels that were ever used.
    #[must_use]
    pub fn all(&self) -> Vec<(i32, i64)> {
        let used = self
            .levels
            .iter()
            .enumerate()
            .filter(|(_, level)| 0 < level.delivered);
        used.map(|(at, level)| (at as i32 + 1, level.delivered as i64))
            .collect()
    }

    /// Number of changes since start.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn delivered(&mut self, level: u32, next: u64) {
        let level = &mut self.levels[level as usize];
        level.under_way -= 1;
        level.delivered = next;
        self.changes += 1;
    }

    /// A message could not be written after all: the level starts again behind the last that was.
    pub(super) fn rejected(&mut self, level: u32) {
        let level = &mut self.levels[level as usize];
        level.under_way -= 1;
        level.position = level.delivered;
    }
}

impl Shard {
    /// Delivers what is due. Answers when to ask again, in nanoseconds from now.
    pub fn run_delays(&mut self, io: &mut impl Io) -> u64 {
        let mut wait_ns = u64::MAX;
        for at in 0..self.delay.levels.len() {
            wait_ns = wait_ns.min(self.run_level(io, at));
        }
        wait_ns
    }

    fn run_level(&mut self, io: &mut impl Io, at: usize) -> u64 {
        let Some(index) = self.queues.find(SCHEDULE_TOPIC, QueueId(at as u32)) else {
            return u64::MAX;
        };
        let now_ns = io.now_ns();
        let level = &mut self.delay.levels[at];
        if level.reading || UNDER_WAY_MAX <= level.under_way {
            return u64::MAX;
        }
        if now_ns < level.retry_ns {
            return level.retry_ns - now_ns;
        }
        let queue = self.queues.queue(index);
        level.position = level.position.max(queue.min());
        if queue.max() <= level.position {
            return u64::MAX;
        }
        match self.queues.look(index, QueueOffset(level.position)) {
            Look::Nothing => u64::MAX,
            Look::Miss(wanted) => {
                level.reading = true;
                level.reading_from = wanted.start;
                let op = Op::Get {
                    path: wanted.path,
                    at: wanted.at,
                    len: wanted.len,
                };
                self.push_delay(io, UNITS, at, op);
                u64::MAX
            }
            Look::Units(units) => {
                // Where its file is damaged there is nothing to deliver.
                let unit = Unit::decode(units).unwrap_or(Unit::HOLE);
                self.run_unit(io, at, unit)
            }
        }
    }

    fn push_delay(&self, io: &mut impl Io, kind: u64, level: usize, op: Op) {
        let pushed = io.push(Token::of(fetch::ROOM, kind | level as u64), op);
        assert!(pushed.is_ok(), "one read a level fits the ring");
    }

    fn run_unit(&mut self, io: &mut impl Io, at: usize, unit: Unit) -> u64 {
        let level = &mut self.delay.levels[at];
        let now_ms = io.wall_ms();
        let due_ms = u64::try_from(unit.tags_code).unwrap_or(0);
        // A clock that was set back must not hold a message longer than its level does.
        let due_ms = due_ms.min(now_ms + self.settings.delay_levels[at]);
        if now_ms < due_ms && !unit.is_hole() {
            return (due_ms - now_ms) * 1_000_000;
        }
        let span = self
            .log
            .span(unit.offset, unit.size)
            .filter(|_| !unit.is_hole());
        let Some(span) = span else {
            // Rot, or gone with its segment: nothing can be delivered.
            level.position += 1;
            if level.under_way == 0 {
                level.delivered = level.position;
                self.delay.changes += 1;
            }
            return 0;
        };
        level.reading = true;
        let into = vec![0; span.len as usize];
        self.push_delay(
            io,
            RECORD,
            at,
            Op::Read {
                file: span.file,
                at: span.at,
                into,
            },
        );
        u64::MAX
    }

    /// Something that a level read has come.
    pub(super) fn delay_read(
        &mut self,
        io: &mut impl Io,
        token: u64,
        result: Result<u32, Errno>,
        payload: Payload,
    ) {
        let at = (token & 0xffff) as usize;
        self.delay.levels[at].reading = false;
        let is_record = token & (0xff << 48) != UNITS;
        let bytes = match (result, payload) {
            // A record that was read in part is as good as not read.
            (Ok(count), Payload::Buffer(bytes)) if !is_record || bytes.len() <= count as usize => {
                bytes
            }
            (result, _) => {
                let why = result.err().map_or_else(
                    || "it was read in part".to_owned(),
                    |errno| errno.to_string(),
                );
                tracing::error!(
                    level = at + 1,
                    why,
                    "a delayed message cannot be read; trying again"
                );
                self.delay.levels[at].retry_ns = io.now_ns() + RETRY_NS;
                return;
            }
        };
        if !is_record {
            let start = self.delay.levels[at].reading_from;
            if let Some(index) = self.queues.find(SCHEDULE_TOPIC, QueueId(at as u32)) {
                self.queues.fill(index, start, bytes);
                let position = QueueOffset(self.delay.levels[at].position);
                if let Look::Miss(_) = self.queues.look(index, position) {
                    tracing::error!(level = at + 1, %position, "a unit of a delayed message is not in its file");
                    self.delay.levels[at].retry_ns = io.now_ns() + RETRY_NS;
                }
            }
            return;
        }
        self.deliver_delayed(io, at, &bytes);
    }

    fn deliver_delayed(&mut self, io: &mut impl Io, at: usize, bytes: &[u8]) {
        let position = self.delay.levels[at].position;
        let Ok(record) = record::parse(bytes) else {
            tracing::error!(
                level = at + 1,
                offset = position,
                "a delayed message is damaged; passed over"
            );
            self.delay.levels[at].position += 1;
            return;
        };
        let real_topic = record.property("REAL_TOPIC").unwrap_or("").to_owned();
        let queue_id = record
            .property("REAL_QID")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if topics::check_name(&real_topic).is_err() {
            tracing::error!(
                level = at + 1,
                offset = position,
                "a delayed message names no topic; passed over"
            );
            self.delay.levels[at].position += 1;
            return;
        }
        if self.topics.get(&real_topic).is_none() {
            // The topic was deleted meanwhile; its message is kept where it can be found.
            self.topics.put(
                topics::plain(&real_topic, queue_id + 1, PERM_READ | PERM_WRITE),
                io.wall_ms(),
            );
            self.begin_change(Vec::new(), Touched::topic(&real_topic), None);
        }
        let level = at as u32;
        let next = position + 1;
        let message = Message {
            topic: &real_topic,
            queue_id: QueueId(queue_id),
            flag: record.flag,
            sys_flag: record.sys_flag,
            born_ms: record.born_ms,
            born_host: record.born_host,
            reconsume_times: record.reconsume_times,
            body: record.body,
            held: None,
            properties: Properties::new(record.properties, &[]),
            names: Names::of(record.properties),
            due_ms: None,
            at_write: true,
        };
        let stored = self.store(io, message, |_| After::Delayed { level, next });
        let level = &mut self.delay.levels[at];
        match stored {
            Ok(()) => {
                level.under_way += 1;
                level.position = next;
            }
            Err(Unstored::NoRoom(NoRoom::TooLarge) | Unstored::PropertiesTooLarge) => {
                tracing::error!(
                    offset = position,
                    "a delayed message does not fit; passed over"
                );
                level.position = next;
            }
            Err(Unstored::NoRoom(_)) => level.retry_ns = io.now_ns() + RETRY_NS,
        }
    }
}

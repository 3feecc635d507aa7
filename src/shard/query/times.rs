//! When messages were stored, as their records say: for lists of places in queues.

use super::Want;
use crate::base::QueueOffset;
use crate::command::{Answer, ConsumeStats, QueueName, QueueStats, TimeSpan};
use crate::index::{Look, QueueIndex, Unit};
use crate::log::record::{MESSAGE_MAGIC_V1, MESSAGE_MAGIC_V2, sys_flag};
use crate::shard::Shard;

/// Where the store timestamp stands in a record: behind the born host, which has two sizes.
const SYS_FLAG_AT: usize = 36;
const STORE_MS_AT_V4: usize = 56;
const STORE_MS_AT_V6: usize = 68;
/// The front of a record up to its store timestamp.
const FRONT_LEN: u32 = STORE_MS_AT_V6 as u32 + 8;

/// Time of what is not there.
const NONE_MS: i64 = -1;

/// Whose store time is asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::shard) enum Target {
    /// A message of a queue.
    Queue(QueueIndex, u64),
    /// What stands first in the log.
    Log(u64),
    /// Nothing.
    Nothing,
}

/// One question for a store time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    Fresh,
    Unit,
    Record,
}

impl Probe {
    /// Goes on; the time, −1 if there is no such record, or what to read for it.
    pub(super) fn run(
        &mut self,
        shard: &Shard,
        target: Target,
        got: Option<Vec<u8>>,
    ) -> Result<i64, Want> {
        let bytes = got.unwrap_or_default();
        match (*self, target) {
            (_, Target::Nothing) => Ok(NONE_MS),
            (Self::Fresh, Target::Log(offset)) => self.read(shard, offset),
            (Self::Fresh, Target::Queue(index, offset)) => {
                let queue = shard.queues.queue(index);
                if offset + 1 == queue.max() && queue.last_store_ms != 0 {
                    return Ok(queue.last_store_ms as i64);
                }
                match shard.queues.look(index, QueueOffset(offset)) {
                    Look::Nothing => Ok(NONE_MS),
                    Look::Units(units) => self.follow(shard, Unit::decode(units)),
                    Look::Miss(_) => {
                        *self = Self::Unit;
                        Err(queue.wanted(offset, 1).into())
                    }
                }
            }
            (Self::Unit, _) => self.follow(shard, Unit::decode(&bytes)),
            (Self::Record, _) => Ok(store_ms(&bytes).unwrap_or(NONE_MS)),
        }
    }

    /// A hole names the record behind it, whose time is as good.
    fn follow(&mut self, shard: &Shard, unit: Option<Unit>) -> Result<i64, Want> {
        match unit {
            Some(unit) => self.read(shard, unit.offset.0),
            None => Ok(NONE_MS),
        }
    }

    fn read(&mut self, shard: &Shard, offset: u64) -> Result<i64, Want> {
        if offset < shard.log.first_offset() || shard.visible() < offset + u64::from(FRONT_LEN) {
            return Ok(NONE_MS);
        }
        *self = Self::Record;
        Err(Want::Log {
            offset,
            len: FRONT_LEN,
        })
    }
}

/// Of the front of a record.
fn store_ms(bytes: &[u8]) -> Option<i64> {
    let magic = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    if magic != MESSAGE_MAGIC_V1 && magic != MESSAGE_MAGIC_V2 {
        return None;
    }
    let flag = i32::from_be_bytes(*bytes.get(SYS_FLAG_AT..)?.first_chunk()?);
    let at = if flag & sys_flag::BORN_HOST_V6 == 0 {
        STORE_MS_AT_V4
    } else {
        STORE_MS_AT_V6
    };
    Some(i64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What the times are for.
#[derive(Debug)]
pub(in crate::shard) enum TimesFor {
    /// 32: one time.
    Earliest,
    /// 202: one time a queue.
    TopicStats {
        queues: Vec<(QueueName, QueueStats)>,
        put_tps: f64,
    },
    /// 208: one time a queue.
    ConsumeStats {
        queues: Vec<(QueueName, ConsumeStats)>,
        tps: f64,
    },
    /// 303: four times a queue: its first message, its last, the last that was consumed, the next.
    TimeSpans(Vec<QueueName>),
    /// 28: one time.
    Runtime,
}

/// 28, 32, 202, 208, 303.
#[derive(Debug)]
pub(in crate::shard) struct Times {
    purpose: TimesFor,
    targets: Vec<Target>,
    times: Vec<i64>,
    probe: Probe,
}

impl Times {
    pub(in crate::shard) const fn new(purpose: TimesFor, targets: Vec<Target>) -> Self {
        Self {
            purpose,
            targets,
            times: Vec::new(),
            probe: Probe::Fresh,
        }
    }

    pub(super) fn step(&mut self, shard: &Shard, mut got: Option<Vec<u8>>) -> Option<Want> {
        while let Some(target) = self.targets.get(self.times.len()) {
            match self.probe.run(shard, *target, got.take()) {
                Ok(time) => {
                    self.times.push(time);
                    self.probe = Probe::Fresh;
                }
                Err(want) => return Some(want),
            }
        }
        None
    }

    pub(super) fn answer(self, shard: &mut Shard, now_ms: u64) -> Answer {
        let times = self.times;
        let first = times.first().copied().unwrap_or(NONE_MS);
        match self.purpose {
            TimesFor::Earliest => Answer::Timestamp(first),
            TimesFor::TopicStats {
                mut queues,
                put_tps,
            } => {
                for ((_, stats), time) in queues.iter_mut().zip(times) {
                    stats.last_update_ms = time.max(0);
                }
                Answer::TopicStats { queues, put_tps }
            }
            TimesFor::ConsumeStats { mut queues, tps } => {
                for ((_, stats), time) in queues.iter_mut().zip(times) {
                    stats.last_ms = time.max(0);
                }
                Answer::ConsumeStats { queues, tps }
            }
            TimesFor::TimeSpans(queues) => {
                let spans = queues.into_iter().zip(times.chunks_exact(4));
                let spans = spans.map(|(queue, times)| span(queue, times, now_ms as i64));
                Answer::TimeSpans(spans.collect())
            }
            TimesFor::Runtime => Answer::Runtime(shard.runtime(now_ms, first)),
        }
    }
}

fn span(queue: QueueName, times: &[i64], now_ms: i64) -> TimeSpan {
    let (min_ms, consumed_ms, next_ms) = (times[0], times[2], times[3]);
    TimeSpan {
        queue,
        min_ms,
        max_ms: times[1],
        consume_ms: if consumed_ms == NONE_MS {
            min_ms
        } else {
            consumed_ms
        },
        delay_ms: if next_ms == NONE_MS {
            0
        } else {
            (now_ms - next_ms).max(0)
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base::PhysicalOffset;
    use crate::log::record::{Draft, Properties};

    #[test]
    fn the_store_time_is_read_behind_both_sizes_of_the_born_host() {
        for (host, flag) in [("127.0.0.1:1", 0), ("[::1]:1", sys_flag::BORN_HOST_V6)] {
            let host: SocketAddr = host.parse().unwrap();
            let draft = Draft {
                queue_id: 3,
                flag: 0,
                queue_offset: 7,
                sys_flag: flag,
                born_ms: 111,
                born_host: host,
                store_ms: 1_700_000_000_123,
                store_host: "127.0.0.1:10911".parse().unwrap(),
                reconsume_times: 0,
                prepared_offset: 0,
                body: b"body",
                topic: "topic",
                properties: Properties::new("", &[]),
            };
            let mut bytes = Vec::new();
            draft.encode(PhysicalOffset(0), &mut bytes);
            assert_eq!(store_ms(&bytes), Some(1_700_000_000_123), "{host}");
            assert_eq!(store_ms(&bytes[..60]), None, "too short");
            bytes[4] ^= 1;
            assert_eq!(store_ms(&bytes), None, "no record begins here");
        }
    }

    #[test]
    fn a_span_of_time_knows_what_was_consumed_and_how_late_that_is() {
        let queue = QueueName {
            topic: "t".to_owned(),
            broker: "b".to_owned(),
            queue_id: 0,
        };
        let half = span(queue.clone(), &[10, 90, 40, 50], 100);
        assert_eq!(
            (half.min_ms, half.max_ms, half.consume_ms, half.delay_ms),
            (10, 90, 40, 50)
        );
        let fresh = span(queue.clone(), &[10, 90, -1, 10], 100);
        assert_eq!((fresh.consume_ms, fresh.delay_ms), (10, 90));
        let done = span(queue, &[10, 90, 90, -1], 100);
        assert_eq!((done.consume_ms, done.delay_ms), (90, 0));
    }
}

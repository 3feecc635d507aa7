//! Units of a ConsumeQueue, as they stand in it.

use super::Want;
use crate::base::QueueOffset;
use crate::command::{self, Answer, Subscription};
use crate::index::{Look, QueueIndex, UNIT_SIZE, Unit};
use crate::shard::Shard;

/// Units in one answer at most: as JSON they take a hundred bytes each.
const COUNT_MAX: usize = 10_000;

/// From where, and how many.
#[derive(Debug, Clone, Copy)]
pub(in crate::shard) struct Range {
    pub(in crate::shard) from: i64,
    pub(in crate::shard) count: i32,
}

/// 321.
#[derive(Debug)]
pub(in crate::shard) struct Units {
    queue: QueueIndex,
    next: u64,
    count_max: usize,
    subscription: Option<Subscription>,
    found: Vec<command::Unit>,
}

impl Units {
    pub(in crate::shard) fn new(
        queue: QueueIndex,
        range: Range,
        subscription: Option<Subscription>,
    ) -> Self {
        Self {
            queue,
            // Before the beginning there is nothing, as behind the end.
            next: u64::try_from(range.from).unwrap_or(u64::MAX),
            count_max: usize::try_from(range.count).unwrap_or(0).min(COUNT_MAX),
            subscription,
            found: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, shard: &Shard, got: Option<Vec<u8>>) -> Option<Want> {
        if let Some(bytes) = got
            && self.take(&bytes) == 0
        {
            return None;
        }
        while self.found.len() < self.count_max {
            let queue = shard.queues.queue(self.queue);
            match shard.queues.look(self.queue, QueueOffset(self.next)) {
                Look::Nothing => return None,
                Look::Units(units) => {
                    if self.take(units) == 0 {
                        return None;
                    }
                }
                Look::Miss(_) => {
                    let count = (self.count_max - self.found.len()) as u64;
                    return Some(queue.wanted(self.next, count).into());
                }
            }
        }
        None
    }

    /// How many were taken.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let before = self.found.len();
        for unit in bytes.chunks_exact(UNIT_SIZE as usize) {
            let Some(unit) = Unit::decode(unit).filter(|_| self.found.len() < self.count_max)
            else {
                break;
            };
            self.next += 1;
            self.found.push(command::Unit {
                offset: unit.offset,
                size: unit.size,
                tags_code: unit.tags_code,
            });
        }
        self.found.len() - before
    }

    pub(super) fn answer(self, shard: &Shard) -> Answer {
        let queue = shard.queues.queue(self.queue);
        Answer::QueueUnits {
            units: self.found,
            min: queue.min() as i64,
            max: queue.max() as i64,
            subscription: self.subscription,
        }
    }
}

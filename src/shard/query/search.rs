//! The first or last message of queues at a time: halving, with one store time a probe (P§2.5).

use super::Want;
use super::times::{Probe, Target};
use crate::command::Answer;
use crate::index::QueueIndex;
use crate::shard::Shard;

/// What the offsets are for.
#[derive(Debug)]
pub(in crate::shard) enum SearchFor {
    /// 29: one queue.
    Offset,
    /// 222: set them.
    Reset { group: String, topic: String },
}

/// 29, 222.
#[derive(Debug)]
pub(in crate::shard) struct Search {
    purpose: SearchFor,
    timestamp_ms: i64,
    /// The last message up to the time, instead of the first from it on.
    upper: bool,
    queues: Vec<(i32, Option<QueueIndex>)>,
    found: Vec<i64>,
    halving: Option<Halving>,
}

/// The first offset in `low..high` is looked for whose message is late enough.
#[derive(Debug)]
struct Halving {
    min: u64,
    low: u64,
    high: u64,
    probe: Probe,
}

impl Halving {
    const fn middle(&self) -> u64 {
        self.low + (self.high - self.low) / 2
    }

    const fn judge(&mut self, is_late: bool) {
        if is_late {
            self.high = self.middle();
        } else {
            self.low = self.middle() + 1;
        }
        self.probe = Probe::Fresh;
    }

    /// The offset that is answered when nothing is left to halve.
    const fn result(&self, upper: bool) -> i64 {
        match (upper, self.low == self.min) {
            (false, _) => self.low as i64,
            (true, true) => 0,
            (true, false) => self.low as i64 - 1,
        }
    }
}

impl Search {
    pub(in crate::shard) const fn new(
        purpose: SearchFor,
        timestamp_ms: i64,
        upper: bool,
        queues: Vec<(i32, Option<QueueIndex>)>,
    ) -> Self {
        Self {
            purpose,
            timestamp_ms,
            upper,
            queues,
            found: Vec::new(),
            halving: None,
        }
    }

    pub(super) fn step(&mut self, shard: &Shard, mut got: Option<Vec<u8>>) -> Option<Want> {
        while let Some((_, queue)) = self.queues.get(self.found.len()) {
            let Some(queue) = *queue else {
                self.found.push(0);
                continue;
            };
            let halving = self.halving.get_or_insert_with(|| {
                let units = shard.queues.queue(queue);
                Halving {
                    min: units.min(),
                    low: units.min(),
                    high: units.max(),
                    probe: Probe::Fresh,
                }
            });
            if halving.high <= halving.low {
                self.found.push(halving.result(self.upper));
                self.halving = None;
                continue;
            }
            let target = Target::Queue(queue, halving.middle());
            // What is gone or damaged counts as early: it was there before what is left.
            match halving.probe.run(shard, target, got.take()) {
                Err(want) => return Some(want),
                Ok(time) if self.upper => halving.judge(self.timestamp_ms < time),
                Ok(time) => halving.judge(self.timestamp_ms <= time),
            }
        }
        None
    }

    pub(super) fn answer(self, shard: &mut Shard) -> Answer {
        match self.purpose {
            SearchFor::Offset => Answer::Offset(self.found.first().copied().unwrap_or(0)),
            SearchFor::Reset { group, topic } => {
                let queues = self.queues.iter().map(|(queue_id, _)| *queue_id);
                let offsets: Vec<(i32, i64)> = queues.zip(self.found).collect();
                shard.set_offsets(&group, &topic, &offsets)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(times: &[i64], min: u64, timestamp_ms: i64, upper: bool) -> i64 {
        let mut halving = Halving {
            min,
            low: min,
            high: min + times.len() as u64,
            probe: Probe::Fresh,
        };
        while halving.low < halving.high {
            let time = times[(halving.middle() - min) as usize];
            halving.judge(if upper {
                timestamp_ms < time
            } else {
                timestamp_ms <= time
            });
        }
        halving.result(upper)
    }

    #[test]
    fn lower_is_the_first_from_a_time_on_and_upper_the_last_up_to_it() {
        let times = [10, 20, 20, 20, 30];
        let lower = |ms| search(&times, 100, ms, false);
        assert_eq!(
            [lower(5), lower(10), lower(11), lower(20)],
            [100, 100, 101, 101]
        );
        assert_eq!([lower(21), lower(30), lower(31)], [104, 104, 105]);
        let upper = |ms| search(&times, 100, ms, true);
        assert_eq!(
            [upper(5), upper(10), upper(19), upper(20)],
            [0, 100, 100, 103]
        );
        assert_eq!([upper(29), upper(30), upper(99)], [103, 104, 104]);
        assert_eq!(search(&[], 0, 5, false), 0);
        assert_eq!(search(&[], 0, 5, true), 0);
    }
}

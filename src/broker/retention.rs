//! Removing what is too old, and refusing producers before the disk is full (P§3.9).

use std::path::PathBuf;

use super::worker::{REMOVE, ROOM, SEARCH, SPACE};
use crate::base::QueueOffset;
use crate::config;
use crate::index::{QueueIndex, Unit};
use crate::io::{Errno, Io, Op, Payload, Space, Token, local_hour};
use crate::shard::Shard;

/// The disk is looked at this often.
const PERIOD_NS: u64 = 10_000_000_000;
/// While producers are refused, this often: they should not wait for room that is there.
const PERIOD_FULL_NS: u64 = 1_000_000_000;
/// Segments that go in one round: unlinking a GiB keeps a file system busy.
const SEGMENTS_MAX: usize = 10;

const HOUR_MS: u64 = 3_600_000;

/// Looks for the first unit of a queue whose record is still there.
#[derive(Debug)]
struct Search {
    queue: QueueIndex,
    low: u64,
    high: u64,
}

/// Keeps one shard's share of the disk in bounds.
#[derive(Debug)]
pub(super) struct Keeper {
    rules: config::Retention,
    folder: PathBuf,
    next_ns: u64,
    asking: bool,
    searches: Vec<Search>,
    searching: bool,
}

impl Keeper {
    pub(super) const fn new(rules: config::Retention, folder: PathBuf) -> Self {
        Self {
            rules,
            folder,
            next_ns: 0,
            asking: false,
            searches: Vec::new(),
            searching: false,
        }
    }

    /// Takes over what an administrator has changed; the values were checked.
    pub(super) fn change_rules(&mut self, settings: &[(String, String)]) {
        let rules = &mut self.rules;
        for (key, value) in settings {
            let number: u64 = value.parse().unwrap_or(0);
            match key.as_str() {
                "fileReservedTime" => rules.reserved_hours = number,
                "deleteWhen" => {
                    let hours = value.split(';').filter_map(|hour| hour.trim().parse().ok());
                    rules.delete_hours = hours.collect();
                }
                "diskMaxUsedSpaceRatio" => rules.delete_from_percent = number as u8,
                "diskSpaceCleanForciblyRatio" => rules.force_from_percent = number as u8,
                "diskSpaceWarningLevelRatio" => rules.refuse_from_percent = number as u8,
                "cleanFileForciblyEnable" => rules.force = value == "true",
                _ => continue,
            }
            self.next_ns = 0;
        }
    }

    /// Asks how full the disk is, when it is time.
    pub(super) fn pump(&mut self, io: &mut impl Io, shard: &mut Shard) {
        self.search(io, shard);
        let now_ns = io.now_ns();
        if self.asking || now_ns < self.next_ns {
            return;
        }
        self.asking = true;
        let period_ns = if shard.disk_full {
            PERIOD_FULL_NS
        } else {
            PERIOD_NS
        };
        self.next_ns = now_ns + period_ns;
        push(
            io,
            SPACE,
            Op::Space {
                path: self.folder.clone(),
            },
        );
    }

    /// The disk has been looked at.
    pub(super) fn looked(
        &mut self,
        io: &mut impl Io,
        shard: &mut Shard,
        result: Result<u32, Errno>,
        payload: &Payload,
    ) {
        self.asking = false;
        let space = match (result, payload) {
            (Ok(_), Payload::Space(space)) => *space,
            (result, _) => {
                let errno = result.err().unwrap_or(Errno::EIO);
                tracing::error!(%errno, folder = %self.folder.display(), "the disk's room cannot be asked for");
                return;
            }
        };
        shard.space = Some(space);
        let percent = space.used_ratio() * 100.0;
        let full = f64::from(self.rules.refuse_from_percent) <= percent;
        if full != shard.disk_full {
            shard.disk_full = full;
            let used = format!("{percent:.1} %");
            if full {
                tracing::error!(used, limit = self.rules.refuse_from_percent, folder = %self.folder.display(),
                    "the disk is nearly full: sends are refused, consumers go on; make room");
                self.next_ns = io.now_ns() + PERIOD_FULL_NS;
            } else {
                tracing::info!(used, "there is room again: sends are accepted");
            }
        }
        self.remove_segments(io, shard, space);
    }

    fn remove_segments(&mut self, io: &mut impl Io, shard: &mut Shard, space: Space) {
        let now_ms = io.wall_ms();
        let percent = space.used_ratio() * 100.0;
        let forced = self.rules.force && f64::from(self.rules.force_from_percent) <= percent;
        let hour = local_hour(now_ms);
        let in_time = self.rules.delete_hours.contains(&hour)
            || f64::from(self.rules.delete_from_percent) <= percent;
        if !forced && !in_time {
            return;
        }
        let kept_ms = self.rules.reserved_hours * HOUR_MS;
        let mut removed = 0;
        while removed < SEGMENTS_MAX && 1 < shard.log.segments().len() {
            let Some(oldest) = shard.log.segments().iter().next() else {
                break;
            };
            let expired = kept_ms <= now_ms.saturating_sub(oldest.last_ms);
            if !forced && !expired {
                break;
            }
            let Some(segment) = shard.log.remove_oldest(io) else {
                break;
            };
            let why = if expired {
                "its time is up"
            } else {
                "the disk is too full"
            };
            tracing::info!(segment = segment.base, why, "segment removed");
            removed += 1;
        }
        if 0 < removed {
            self.log_was_cut(io, shard);
        }
    }

    /// The log begins later: indexes follow.
    fn log_was_cut(&mut self, io: &mut impl Io, shard: &mut Shard) {
        let first = shard.log.first_offset();
        for path in shard.index.expire(crate::base::PhysicalOffset(first)) {
            push(io, REMOVE, Op::Remove { path });
        }
        self.searches = shard
            .queues
            .iter()
            .map(|(queue, units)| Search {
                queue,
                low: units.min(),
                high: units.max(),
            })
            .filter(|search| search.low < search.high)
            .collect();
        self.search(io, shard);
    }

    /// Halves the range of the search that is on, from memory where the unit is there.
    fn search(&mut self, io: &mut impl Io, shard: &mut Shard) {
        while !self.searching {
            let Some(search) = self.searches.last() else {
                return;
            };
            if !shard.queues.is_known(search.queue) || search.high <= search.low {
                let (queue, min) = (search.queue, search.low);
                self.searches.pop();
                if shard.queues.is_known(queue) {
                    let files = shard.queues.queue_mut(queue).raise_min(QueueOffset(min));
                    for path in files {
                        push(io, REMOVE, Op::Remove { path });
                    }
                }
                continue;
            }
            let middle = search.low + (search.high - search.low) / 2;
            let queue = shard.queues.queue(search.queue);
            if let Some(unit) = queue.in_memory(QueueOffset(middle)) {
                self.judge(shard, middle, Some(unit));
                continue;
            }
            let wanted = queue.wanted(middle, 1);
            self.searching = true;
            push(
                io,
                SEARCH,
                Op::Get {
                    path: wanted.path,
                    at: wanted.at,
                    len: wanted.len,
                },
            );
        }
    }

    fn judge(&mut self, shard: &Shard, middle: u64, unit: Option<Unit>) {
        let first = shard.log.first_offset();
        let Some(search) = self.searches.last_mut() else {
            return;
        };
        let gone = unit.is_none_or(|unit| unit.offset.0 < first);
        if gone {
            search.low = middle + 1;
        } else {
            search.high = middle;
        }
    }

    /// A unit was read.
    pub(super) fn found(&mut self, io: &mut impl Io, shard: &mut Shard, payload: &Payload) {
        self.searching = false;
        let middle = self
            .searches
            .last()
            .map(|search| search.low + (search.high - search.low) / 2);
        let unit = match payload {
            Payload::Buffer(bytes) => Unit::decode(bytes),
            _ => None,
        };
        if let Some(middle) = middle {
            self.judge(shard, middle, unit);
        }
        self.search(io, shard);
    }
}

fn push(io: &mut impl Io, what: u64, op: Op) {
    let pushed = io.push(Token::of(ROOM, what), op);
    assert!(pushed.is_ok(), "the ring has room for housekeeping");
}

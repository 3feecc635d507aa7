//! Messages by a key: candidates out of the index, then the records themselves, which have the last word.

use super::Want;
use super::record::{Found, Reading};
use crate::base::PhysicalOffset;
use crate::command::Answer;
use crate::index::index_file::{
    Query as IndexQuery, Step as IndexStep, Want as IndexWant, key_hash,
};
use crate::log::record::{Record, parse, property};
use crate::shard::Shard;

/// Messages in one answer at most (RocketMQ's maxMsgsNumBatch).
const COUNT_MAX: usize = 64;
/// Bytes in one answer, but for the last record: well below the largest frame.
const BYTES_MAX: usize = 8 << 20;
/// Candidates beyond those asked for: two keys may have one hash.
const CANDIDATES_MORE: usize = 64;
/// Entries of the index that one question looks at.
const WALK_MAX: u32 = 1 << 16;

/// 12.
#[derive(Debug)]
pub(in crate::shard) struct Keys {
    topic: String,
    key: String,
    begin_ms: i64,
    end_ms: i64,
    count_max: usize,
    stage: Stage,
    /// Newest first.
    found: Vec<Vec<u8>>,
    size: usize,
}

#[derive(Debug)]
enum Stage {
    Fresh,
    Index(Box<IndexQuery>),
    /// Candidates that are left, oldest first, and the one that is read.
    Records(Vec<PhysicalOffset>, Option<Reading>),
}

impl Keys {
    pub(in crate::shard) fn new(
        topic: &str,
        key: &str,
        (begin_ms, end_ms): (i64, i64),
        count_max: usize,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            key: key.to_owned(),
            begin_ms,
            end_ms,
            count_max: count_max.clamp(1, COUNT_MAX),
            stage: Stage::Fresh,
            found: Vec::new(),
            size: 0,
        }
    }

    pub(super) fn step(&mut self, shard: &mut Shard, got: Option<Vec<u8>>) -> Option<Want> {
        let step = match &mut self.stage {
            Stage::Fresh => {
                let want = IndexWant {
                    hash: key_hash(&self.topic, &self.key),
                    begin_ms: self.begin_ms,
                    end_ms: self.end_ms,
                    count_max: self.count_max + CANDIDATES_MORE,
                    walk_max: WALK_MAX,
                };
                let (query, step) = IndexQuery::start(&mut shard.index, want);
                self.stage = Stage::Index(Box::new(query));
                step
            }
            Stage::Index(query) => query.resume(&shard.index, &got.unwrap_or_default()),
            Stage::Records(..) => return self.read_records(shard, got),
        };
        match step {
            IndexStep::Get { path, at, len } => Some(Want::File { path, at, len }),
            IndexStep::Done(mut candidates) => {
                candidates.sort_unstable();
                self.stage = Stage::Records(candidates, None);
                self.read_records(shard, None)
            }
        }
    }

    fn read_records(&mut self, shard: &Shard, mut got: Option<Vec<u8>>) -> Option<Want> {
        let Stage::Records(left, reading) = &mut self.stage else {
            return None;
        };
        loop {
            if let (Some(now), Some(mut bytes)) = (reading.as_mut(), got.take()) {
                match now.judge(shard, &bytes) {
                    Found::Read(want) => return Some(want),
                    Found::Record(size) => {
                        bytes.truncate(size);
                        let times = self.begin_ms..=self.end_ms;
                        let wanted = parse(&bytes).is_ok_and(|record| {
                            times.contains(&record.store_ms)
                                && has_key(&record, &self.topic, &self.key)
                        });
                        if wanted {
                            self.size += bytes.len();
                            self.found.push(bytes);
                        }
                    }
                    Found::Nothing => (),
                }
            }
            *reading = None;
            if self.count_max <= self.found.len() || BYTES_MAX <= self.size {
                return None;
            }
            let begun = Reading::begin(shard, left.pop()?.0);
            if let Some((next, want)) = begun {
                *reading = Some(next);
                return Some(want);
            }
        }
    }

    pub(super) fn answer(self, shard: &Shard) -> Answer {
        let (ms, offset) = shard.index.last().unwrap_or((0, PhysicalOffset(0)));
        let records: Vec<&[u8]> = self.found.iter().rev().map(Vec::as_slice).collect();
        Answer::Records {
            bytes: records.concat(),
            index_last_ms: ms,
            index_last_offset: offset.0 as i64,
        }
    }
}

fn has_key(record: &Record<'_>, topic: &str, key: &str) -> bool {
    let properties = record.properties;
    record.topic == topic
        && (property(properties, "UNIQ_KEY") == Some(key)
            || property(properties, "KEYS")
                .is_some_and(|keys| keys.split(' ').any(|word| word == key)))
}

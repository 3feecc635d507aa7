//! One record by its physical offset, and judging whether a record stands there at all.

use super::Want;
use crate::base::PhysicalOffset;
use crate::command::{Answer, Refusal, RefusalKind};
use crate::log::record::{self, Verdict};
use crate::shard::Shard;

/// Most records fit into this; a larger one is read a second time, whole.
const FIRST_LEN: u64 = 4096;

/// Reads the record that begins at a place of the log, if one does.
#[derive(Debug)]
pub(super) struct Reading {
    offset: u64,
    len: u32,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Read again: there is more of it.
    Read(Want),
    /// A good record of this many bytes stands at the front.
    Record(usize),
    /// No good record begins there.
    Nothing,
}

impl Reading {
    /// Begins; `None` if nothing that consumers see is there.
    pub(super) fn begin(shard: &Shard, offset: u64) -> Option<(Self, Want)> {
        let len = room(shard, offset).min(FIRST_LEN) as u32;
        if (len as usize) < record::RECORD_SIZE_MIN {
            return None;
        }
        Some((Self { offset, len }, Want::Log { offset, len }))
    }

    pub(super) fn judge(&mut self, shard: &Shard, bytes: &[u8]) -> Found {
        if bytes.len() < self.len as usize {
            return Found::Nothing;
        }
        match record::check(bytes, PhysicalOffset(self.offset), false) {
            Verdict::Record(record) => Found::Record(record.size as usize),
            // A longer read is asked for at most once: what was read then is as long as was needed.
            Verdict::Short { need } if need as u64 <= room(shard, self.offset) => {
                if need <= self.len as usize {
                    return Found::Nothing;
                }
                self.len = need as u32;
                Found::Read(Want::Log {
                    offset: self.offset,
                    len: self.len,
                })
            }
            _ => Found::Nothing,
        }
    }
}

/// Bytes from a place to the end of its segment or of what consumers see.
fn room(shard: &Shard, offset: u64) -> u64 {
    let Some(segment) = shard.log.segments().at(offset) else {
        return 0;
    };
    let end = (segment.base + shard.log.segments().size()).min(shard.visible());
    end.saturating_sub(offset)
}

/// 33.
#[derive(Debug)]
pub(in crate::shard) struct Record {
    asked: i64,
    reading: Option<Reading>,
    bytes: Option<Vec<u8>>,
}

impl Record {
    pub(in crate::shard) const fn new(offset: i64) -> Self {
        Self {
            asked: offset,
            reading: None,
            bytes: None,
        }
    }

    pub(super) fn step(&mut self, shard: &Shard, got: Option<Vec<u8>>) -> Option<Want> {
        let Some(mut bytes) = got else {
            let offset = u64::try_from(self.asked).ok()?;
            let (reading, want) = Reading::begin(shard, offset)?;
            self.reading = Some(reading);
            return Some(want);
        };
        match self.reading.as_mut()?.judge(shard, &bytes) {
            Found::Read(want) => Some(want),
            Found::Record(size) => {
                bytes.truncate(size);
                self.bytes = Some(bytes);
                None
            }
            Found::Nothing => None,
        }
    }

    pub(super) fn answer(self) -> Answer {
        match self.bytes {
            Some(bytes) => Answer::Record(bytes),
            None => Answer::Refused(Refusal::new(
                RefusalKind::SystemError,
                format!("can not find message by the offset, {}", self.asked),
            )),
        }
    }
}

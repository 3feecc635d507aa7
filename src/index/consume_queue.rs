//! One ConsumeQueue: 20-byte units that say where a queue's records are (P§3.7). The newest units are in
//! memory and reach their file in batches; older ones are read back ([`super::Queues::look`]).

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::base::{PhysicalOffset, QueueId, QueueOffset, Reader};

/// Bytes of a unit.
pub const UNIT_SIZE: u64 = 20;
const _: () = assert!(UNIT_SIZE == 8 + 4 + 8); // physical offset, record size, tags code

/// A unit of this size stands where no record is: Apache's pre-fill, and records lost to rot.
pub const HOLE_SIZE: u32 = i32::MAX as u32;

/// Flushed units that stay in memory, for consumers at the tail: 20 KiB a busy queue, at most.
pub(super) const TAIL_KEEP: u64 = 1024;

/// One entry of a ConsumeQueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Where the record starts.
    pub offset: PhysicalOffset,
    /// Its bytes.
    pub size: u32,
    /// Filter hash of its tag; in the schedule topic the time when it is due.
    pub tags_code: i64,
}

impl Unit {
    /// What stands where a file is damaged.
    pub const HOLE: Self = Self {
        offset: PhysicalOffset(0),
        size: HOLE_SIZE,
        tags_code: 0,
    };

    /// Big-endian, as stored.
    #[must_use]
    pub fn encode(self) -> [u8; UNIT_SIZE as usize] {
        let mut bytes = [0; UNIT_SIZE as usize];
        bytes[..8].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    /// `None` where no unit was written (size 0) or the bytes end.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let offset = PhysicalOffset(reader.u64()?);
        let size = reader.u32()?;
        let tags_code = reader.i64()?;
        (0 < size).then_some(Self {
            offset,
            size,
            tags_code,
        })
    }

    /// Whether no record stands behind it.
    #[must_use]
    pub const fn is_hole(&self) -> bool {
        self.size == HOLE_SIZE
    }
}

/// A part of a file that must be read before the queue can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// File.
    pub path: PathBuf,
    /// Byte position.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// Queue offset of the first unit in it.
    pub start: QueueOffset,
}

/// Units from an offset on, or what to read for them.
#[derive(Debug)]
pub enum Look<'a> {
    /// At least one unit, encoded one after another.
    Units(&'a [u8]),
    /// Read this and give it to [`super::Queues::fill`].
    Miss(Wanted),
    /// No unit has this offset.
    Nothing,
}

/// A batch of units for one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// File.
    pub path: PathBuf,
    /// Its full size.
    pub size: u64,
    /// Byte position.
    pub at: u64,
    /// Units, encoded.
    pub bytes: Vec<u8>,
}

/// One queue of a topic. Invariant: `min <= tail_start <= flushed <= max <= assigned`, where units
/// `tail_start..max` are in memory and units below `flushed` are in the file.
#[derive(Debug)]
pub struct ConsumeQueue {
    topic: Rc<str>,
    queue_id: QueueId,
    folder: PathBuf,
    file_size: u64,
    min: u64,
    tail_start: u64,
    tail: Vec<u8>,
    flushed: u64,
    /// End of the batch that is being written.
    flushing: Option<u64>,
    assigned: u64,
    /// Store time of the newest record, wall milliseconds.
    pub last_store_ms: u64,
    /// Its topic was deleted: one of the same name may own these files now.
    removed: bool,
}

impl ConsumeQueue {
    /// Its topic is deleted. What it has in memory goes, unless a batch of it is being written: then call this again.
    pub fn remove(&mut self) {
        self.removed = true;
        if self.flushing.is_none() {
            let max = self.max();
            (self.tail_start, self.flushed) = (max, max);
            self.tail = Vec::new();
        }
    }

    /// Whether its topic was deleted.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        self.removed
    }

    /// A queue whose units `min..max` are in its files.
    #[must_use]
    pub fn new(
        folder: &Path,
        topic: Rc<str>,
        queue_id: QueueId,
        file_size: u64,
        min: u64,
        max: u64,
    ) -> Self {
        assert!(min <= max && file_size.is_multiple_of(UNIT_SIZE));
        let folder = folder.join(&*topic).join(queue_id.to_string());
        Self {
            topic,
            queue_id,
            folder,
            file_size,
            min,
            tail_start: max,
            tail: Vec::new(),
            flushed: max,
            flushing: None,
            assigned: max,
            last_store_ms: 0,
            removed: false,
        }
    }

    /// Whose queue this is.
    #[must_use]
    pub const fn topic(&self) -> &Rc<str> {
        &self.topic
    }

    /// Its number.
    #[must_use]
    pub const fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// Where its files lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// First offset whose record may still be there.
    #[must_use]
    pub const fn min(&self) -> u64 {
        self.min
    }

    /// One behind the last visible unit.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.tail_start + self.tail.len() as u64 / UNIT_SIZE
    }

    /// The offset that the next appended record gets.
    #[must_use]
    pub const fn assigned(&self) -> u64 {
        self.assigned
    }

    /// Units that are in memory only.
    #[must_use]
    pub const fn unflushed(&self) -> u64 {
        self.max() - self.flushed
    }

    /// Units below this are in files.
    #[must_use]
    pub const fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Whether a batch is being written.
    #[must_use]
    pub const fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    /// Gives `count` consecutive offsets away.
    pub const fn assign(&mut self, count: u64) -> QueueOffset {
        let first = self.assigned;
        self.assigned += count;
        QueueOffset(first)
    }

    /// Takes offsets back that were given to records which never became visible.
    pub fn unassign(&mut self, from: QueueOffset) {
        assert!(self.max() <= from.0 && from.0 <= self.assigned);
        self.assigned = from.0;
    }

    /// Makes the next record visible.
    pub fn push(&mut self, unit: Unit) {
        self.tail.extend_from_slice(&unit.encode());
        self.assigned = self.assigned.max(self.max());
    }

    /// Makes the record of an offset visible when the log is walked again; offsets without a record
    /// become holes. Units that are there already stay.
    pub fn replay(&mut self, offset: QueueOffset, unit: Unit) {
        while self.max() < offset.0 {
            if self.max() == self.min && self.flushed == self.max() {
                // A queue that starts late starts there: nothing below was ever in it.
                self.min = offset.0;
                self.tail_start = offset.0;
                self.flushed = offset.0;
                self.assigned = offset.0;
                continue;
            }
            self.push(Unit {
                offset: unit.offset,
                size: HOLE_SIZE,
                tags_code: 0,
            });
        }
        if self.max() == offset.0 {
            self.push(unit);
        }
    }

    /// Units from an offset on, as far as they are in memory.
    #[must_use]
    pub fn tail_from(&self, from: QueueOffset) -> Option<&[u8]> {
        let at = from.0.checked_sub(self.tail_start)? * UNIT_SIZE;
        self.tail
            .get(at as usize..)
            .filter(|units| !units.is_empty())
    }

    /// One unit, if it is in memory.
    #[must_use]
    pub fn in_memory(&self, offset: QueueOffset) -> Option<Unit> {
        Unit::decode(self.tail_from(offset)?)
    }

    /// Units that one file holds.
    #[must_use]
    pub const fn units_per_file(&self) -> u64 {
        self.file_size / UNIT_SIZE
    }

    /// What to read for `count` units from an offset on, at most to the end of its file.
    #[must_use]
    pub fn wanted(&self, from: u64, count: u64) -> Wanted {
        let at = from * UNIT_SIZE;
        let file = at - at % self.file_size;
        let end = (self.tail_start.min(from + count) * UNIT_SIZE).min(file + self.file_size);
        Wanted {
            path: self.folder.join(format!("{file:020}")),
            at: at - file,
            len: end.saturating_sub(at).max(UNIT_SIZE),
            start: QueueOffset(from),
        }
    }

    /// The next batch for a file, if there is one and none is being written.
    pub fn batch(&mut self) -> Option<Batch> {
        if self.flushing.is_some() || self.unflushed() == 0 || self.removed {
            return None;
        }
        let at = self.flushed * UNIT_SIZE;
        let file = at - at % self.file_size;
        let end = (self.max() * UNIT_SIZE).min(file + self.file_size);
        let base = self.tail_start * UNIT_SIZE;
        let bytes = self.tail[(at - base) as usize..(end - base) as usize].to_vec();
        self.flushing = Some(end / UNIT_SIZE);
        Some(Batch {
            path: self.folder.join(format!("{file:020}")),
            size: self.file_size,
            at: at - file,
            bytes,
        })
    }

    /// The batch has been written, or must be written again. Of what is in files, `keep` units stay in memory.
    pub fn batch_done(&mut self, written: bool, keep: u64) {
        let end = self.flushing.take().expect("a batch was under way");
        if !written {
            return;
        }
        self.flushed = end;
        let keep_from = self.flushed.saturating_sub(keep).max(self.tail_start);
        // Moving the tail costs its length: done only when half of it can go.
        if keep < keep_from - self.tail_start {
            self.tail
                .drain(..((keep_from - self.tail_start) * UNIT_SIZE) as usize);
            self.tail_start = keep_from;
            if self.tail.len() * 4 < self.tail.capacity() {
                self.tail.shrink_to(self.tail.len() * 2);
            }
        }
    }

    /// The log's records below this queue offset are gone. Answers the files that can go too.
    pub fn raise_min(&mut self, min: QueueOffset) -> Vec<PathBuf> {
        let old = self.min;
        self.min = min.0.clamp(self.min, self.max());
        let units_per_file = self.units_per_file();
        // The last file stays even if nothing in it counts: it says where the queue goes on.
        let last_file = self.flushed.saturating_sub(1) / units_per_file;
        let files = old / units_per_file..(self.min / units_per_file).min(last_file);
        files
            .map(|file| self.folder.join(format!("{:020}", file * self.file_size)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(offset: u64) -> Unit {
        Unit {
            offset: PhysicalOffset(offset),
            size: 100,
            tags_code: -5,
        }
    }

    fn queue(max: u64) -> ConsumeQueue {
        ConsumeQueue::new(Path::new("cq"), Rc::from("t"), QueueId(3), 200, 0, max)
    }

    #[test]
    fn a_unit_is_twenty_big_endian_bytes() {
        let bytes = Unit {
            offset: PhysicalOffset(1),
            size: 2,
            tags_code: -2,
        }
        .encode();
        assert_eq!(bytes[7], 1);
        assert_eq!(bytes[11], 2);
        assert_eq!(bytes[12..], [255, 255, 255, 255, 255, 255, 255, 254]);
        assert_eq!(Unit::decode(&[0; 20]), None, "never written");
    }

    #[test]
    fn units_are_seen_from_memory_and_flushed_file_by_file() {
        let mut queue = queue(0);
        for at in 0..25 {
            assert_eq!(queue.assign(1).0, at);
            queue.push(unit(at * 100));
        }
        assert_eq!(queue.in_memory(QueueOffset(7)), Some(unit(700)));
        assert_eq!(queue.in_memory(QueueOffset(25)), None);
        let first = queue.batch().expect("25 units wait");
        assert_eq!(
            (first.at, first.bytes.len()),
            (0, 200),
            "a file holds ten units"
        );
        assert!(first.path.ends_with("t/3/00000000000000000000"));
        assert_eq!(queue.batch(), None, "one batch at a time");
        queue.batch_done(true, TAIL_KEEP);
        let second = queue.batch().expect("15 units wait");
        assert!(second.path.ends_with("00000000000000000200"));
        queue.batch_done(false, TAIL_KEEP);
        assert_eq!(
            queue.batch().expect("again").path,
            second.path,
            "what failed is written again"
        );
    }

    #[test]
    fn a_replayed_gap_becomes_holes_but_a_late_start_does_not() {
        let mut late = queue(0);
        late.replay(QueueOffset(5), unit(500));
        assert_eq!((late.min(), late.max()), (5, 6));
        late.replay(QueueOffset(8), unit(800));
        assert_eq!(late.max(), 9);
        let gap = late.in_memory(QueueOffset(6)).expect("a unit");
        assert!(gap.is_hole());
        late.replay(QueueOffset(5), unit(999));
        assert_eq!(late.max(), 9, "a unit that is there stays");
    }

    #[test]
    fn files_below_the_minimum_can_go_but_never_the_last() {
        let mut queue = queue(30);
        let gone = queue.raise_min(QueueOffset(21));
        assert_eq!(gone.len(), 2);
        assert!(
            queue.raise_min(QueueOffset(30)).is_empty(),
            "the last file stays"
        );
        assert_eq!(queue.min(), 30);
    }
}

//! All ConsumeQueues of a shard, and how their units reach the files. There may be 80,000 of them: nothing
//! that happens for a record, a write or in a turn may look at all.

mod load;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::consume_queue::{ConsumeQueue, Look, TAIL_KEEP, UNIT_SIZE, Unit};
use super::windows::Windows;
use crate::base::{QueueId, QueueOffset};
use crate::io::{Errno, Io, Op, Token};

/// This room's byte in tokens.
pub const ROOM: u8 = 3;

/// A queue with this many units in memory only is written without waiting for the checkpoint.
const FLUSH_UNITS: u64 = 4096;

/// Bytes of flushed units that all queues together keep in memory, about: with few queues each keeps as much as
/// helps, with 80,000 of them some dozens each.
const TAILS_SIZE: u64 = 64 << 20;
const TAIL_KEEP_MIN: u64 = 32;

fn tail_keep(queue_count: u64) -> u64 {
    (TAILS_SIZE / UNIT_SIZE / queue_count.max(1)).clamp(TAIL_KEEP_MIN, TAIL_KEEP)
}

/// A queue of this shard, for as long as the shard runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueIndex(pub u32);

/// All queues.
#[derive(Debug)]
pub struct Queues {
    folder: PathBuf,
    file_size: u64,
    list: Vec<ConsumeQueue>,
    by_name: BTreeMap<Rc<str>, BTreeMap<QueueId, QueueIndex>>,
    windows: Windows,
    /// Queues with units that are in memory only.
    dirty: BTreeSet<QueueIndex>,
    /// Those of them that have many and are not being written.
    large: BTreeSet<QueueIndex>,
    /// The next checkpoint's batch is of the first dirty queue from here on.
    flush_next: QueueIndex,
    /// Files written since they were last made durable.
    unsynced: BTreeSet<PathBuf>,
    /// Known queues that are in files as far as anybody has to know.
    written_count: u32,
    /// Batches that the lane has not answered.
    in_flight: u32,
    /// Of the last batch that failed.
    weather: Option<Errno>,
}

impl Queues {
    /// No queues yet, below this folder.
    #[must_use]
    pub fn new(folder: &Path, file_size: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            file_size: file_size - file_size % UNIT_SIZE,
            list: Vec::new(),
            by_name: BTreeMap::new(),
            windows: Windows::default(),
            dirty: BTreeSet::new(),
            large: BTreeSet::new(),
            flush_next: QueueIndex(0),
            unsynced: BTreeSet::new(),
            written_count: 0,
            in_flight: 0,
            weather: None,
        }
    }

    /// A queue by its name, if anything was ever written into it.
    #[must_use]
    pub fn find(&self, topic: &str, queue_id: QueueId) -> Option<QueueIndex> {
        self.by_name.get(topic)?.get(&queue_id).copied()
    }

    /// A queue by its name, made if missing.
    pub fn find_or_make(&mut self, topic: &str, queue_id: QueueId) -> QueueIndex {
        match self.find(topic, queue_id) {
            Some(index) => index,
            None => self.make(topic, queue_id, 0, 0),
        }
    }

    fn make(&mut self, topic: &str, queue_id: QueueId, min: u64, max: u64) -> QueueIndex {
        let name: Rc<str> = match self.by_name.get_key_value(topic) {
            Some((name, _)) => Rc::clone(name),
            None => Rc::from(topic),
        };
        let index = QueueIndex(self.list.len() as u32);
        let queue = ConsumeQueue::new(
            &self.folder,
            Rc::clone(&name),
            queue_id,
            self.file_size,
            min,
            max,
        );
        self.written_count += u32::from(0 < queue.flushed());
        self.list.push(queue);
        self.by_name
            .entry(name)
            .or_default()
            .insert(queue_id, index);
        index
    }

    /// A queue.
    #[must_use]
    pub fn queue(&self, index: QueueIndex) -> &ConsumeQueue {
        &self.list[index.0 as usize]
    }

    /// A queue.
    pub fn queue_mut(&mut self, index: QueueIndex) -> &mut ConsumeQueue {
        &mut self.list[index.0 as usize]
    }

    /// Units of a queue from an offset on.
    #[must_use]
    pub fn look(&self, index: QueueIndex, from: QueueOffset) -> Look<'_> {
        let queue = self.queue(index);
        if from.0 < queue.min() || queue.max() <= from.0 {
            return Look::Nothing;
        }
        let units = queue.tail_from(from);
        match units.or_else(|| self.windows.look(index, queue, from)) {
            Some(units) => Look::Units(units),
            None => Look::Miss(Windows::wanted(queue, from)),
        }
    }

    /// Takes units that were read back for [`Look::Miss`].
    pub fn fill(&mut self, index: QueueIndex, start: QueueOffset, bytes: Vec<u8>) {
        let queue = &self.list[index.0 as usize];
        if !queue.is_removed() {
            self.windows.fill(index, queue, start, bytes);
        }
    }

    /// Every queue that is known under a name now.
    pub fn iter(&self) -> impl Iterator<Item = (QueueIndex, &ConsumeQueue)> {
        self.by_name
            .values()
            .flat_map(BTreeMap::values)
            .map(|index| (*index, self.queue(*index)))
    }

    /// Queues of a topic.
    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = (QueueIndex, &ConsumeQueue)> {
        self.by_name
            .get(topic)
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|index| (*index, self.queue(*index)))
    }

    /// Topics that have a queue.
    pub fn topics(&self) -> impl Iterator<Item = &Rc<str>> {
        self.by_name.keys()
    }

    /// Makes the next record of a queue visible.
    pub fn push(&mut self, index: QueueIndex, unit: Unit, store_ms: u64) {
        let queue = &mut self.list[index.0 as usize];
        queue.push(unit);
        queue.last_store_ms = store_ms;
        if queue.is_removed() {
            // A record that was under way when its topic was deleted.
            return;
        }
        let unflushed = queue.unflushed();
        if unflushed == 1 {
            self.dirty.insert(index);
        }
        if FLUSH_UNITS <= unflushed && !queue.is_flushing() {
            self.large.insert(index);
        }
    }

    /// Takes a record in while the log is walked again. `false`: units before it are missing, though the
    /// checkpoint says that they were written.
    pub fn replay(
        &mut self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
        unit: Unit,
        store_ms: u64,
        rebuilding: bool,
    ) -> bool {
        let index = self.find_or_make(topic, queue_id);
        let queue = &mut self.list[index.0 as usize];
        if !rebuilding && queue.max() < offset.0 {
            return false;
        }
        let was_written = 0 < queue.flushed();
        queue.replay(offset, unit);
        self.written_count += u32::from(!was_written && 0 < queue.flushed());
        queue.last_store_ms = queue.last_store_ms.max(store_ms);
        if 0 < queue.unflushed() {
            self.dirty.insert(index);
        }
        true
    }

    /// Forgets the queues of a topic; answers their folder, which can go.
    pub fn remove_topic(&mut self, topic: &str) -> Option<PathBuf> {
        let queues = self.by_name.remove(topic)?;
        for index in queues.values() {
            self.dirty.remove(index);
            self.large.remove(index);
            self.windows.forget(*index);
            let queue = &mut self.list[index.0 as usize];
            self.written_count -= u32::from(0 < queue.flushed());
            queue.remove();
        }
        let folder = self.folder.join(topic);
        // They stand side by side: of all others none is looked at.
        let files = self.unsynced.range(folder.clone()..);
        let files = files.take_while(|path| path.starts_with(&folder));
        let files: Vec<PathBuf> = files.cloned().collect();
        for file in &files {
            self.unsynced.remove(file);
        }
        Some(folder)
    }

    /// Whether a queue is still known by its name: a removed topic's queues are not.
    #[must_use]
    pub fn is_known(&self, index: QueueIndex) -> bool {
        !self.queue(index).is_removed()
    }

    /// Some of the queues with units that are in memory only, from one on, and where they end now; and the next such queue, if
    /// there are more.
    #[must_use]
    pub fn unflushed(
        &self,
        from: QueueIndex,
        count_max: usize,
    ) -> (Vec<(QueueIndex, u64)>, Option<QueueIndex>) {
        let mut dirty = self.dirty.range(from..);
        let some = dirty.by_ref().take(count_max);
        let some = some.map(|index| (*index, self.queue(*index).max()));
        (some.collect(), dirty.next().copied())
    }

    /// Writes batches: of every queue with units in memory only if `all`, each in its turn, else of those
    /// with many.
    pub fn flush(&mut self, io: &mut impl Io, all: bool, count_max: u32) {
        let count = count_max.saturating_sub(self.in_flight) as usize;
        if count == 0 {
            return;
        }
        let due: Vec<QueueIndex> = if all {
            let turn = self.dirty.range(self.flush_next..);
            let turn = turn.chain(self.dirty.range(..self.flush_next));
            let idle = turn.filter(|index| !self.queue(**index).is_flushing());
            idle.take(count).copied().collect()
        } else {
            let due: Vec<QueueIndex> = self.large.iter().take(count).copied().collect();
            // Those that are left over come again with their next unit, or with the checkpoint.
            self.large.clear();
            due
        };
        for index in due {
            self.flush_next = QueueIndex(index.0 + 1);
            self.write(io, index);
        }
    }

    fn write(&mut self, io: &mut impl Io, index: QueueIndex) {
        let Some(batch) = self.list[index.0 as usize].batch() else {
            return;
        };
        self.unsynced.insert(batch.path.clone());
        let op = Op::Put {
            path: batch.path,
            size: batch.size,
            pieces: vec![(batch.at, batch.bytes)],
        };
        let pushed = io.push(Token::of(ROOM, u64::from(index.0)), op);
        assert!(pushed.is_ok(), "the ring has room for a few batches");
        self.in_flight += 1;
    }

    /// Writes batches of queues with many units in memory only; the rest waits for the checkpoint.
    pub fn flush_large(&mut self, io: &mut impl Io) {
        if !self.large.is_empty() {
            self.flush(io, false, 64);
        }
    }

    /// A batch was written, or not.
    pub fn flushed(&mut self, token: Token, result: Result<u32, Errno>) {
        self.in_flight -= 1;
        let index = QueueIndex(token.rest() as u32);
        if let Err(errno) = result
            && self.weather != Some(errno)
        {
            let folder = self.queue(index).folder().display();
            tracing::error!(%folder, %errno, "a ConsumeQueue could not be written; it will be tried again");
        }
        self.weather = result.err();
        let known = self.is_known(index);
        let keep = tail_keep(self.list.len() as u64);
        let queue = &mut self.list[index.0 as usize];
        let was_written = 0 < queue.flushed();
        queue.batch_done(result.is_ok(), keep);
        self.written_count += u32::from(known && !was_written && 0 < queue.flushed());
        if !known {
            queue.remove();
        }
        if queue.unflushed() == 0 || !known {
            self.dirty.remove(&index);
        }
    }

    /// Known queues of which something is in files: counted as it happens, for there may be 80,000.
    #[must_use]
    pub fn written_count(&self) -> u32 {
        debug_assert_eq!(
            self.written_count as usize,
            self.iter().filter(|(_, queue)| 0 < queue.flushed()).count()
        );
        self.written_count
    }

    /// Batches under way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Files to be made durable before a checkpoint may count on them.
    pub fn take_unsynced(&mut self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.unsynced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_queues_keep_less_each() {
        assert_eq!((tail_keep(0), tail_keep(8)), (TAIL_KEEP, TAIL_KEEP));
        assert_eq!(tail_keep(80_000), 41);
        assert_eq!(tail_keep(10_000_000), TAIL_KEEP_MIN);
    }
}

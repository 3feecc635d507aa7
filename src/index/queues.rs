//! All ConsumeQueues of a shard, and how their units reach the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::consume_queue::{ConsumeQueue, UNIT_SIZE, Unit};
use crate::base::{QueueId, QueueOffset};
use crate::io::{Errno, Io, Op, Payload, Token};
use crate::log::{parse_file_name, run_one};

/// This room's byte in tokens.
pub const ROOM: u8 = 3;

/// A queue with this many units in memory only is written without waiting for the checkpoint.
const FLUSH_UNITS: u64 = 4096;

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
    /// Queues with units that are in memory only.
    dirty: BTreeSet<QueueIndex>,
    /// Files written since they were last made durable.
    unsynced: BTreeSet<PathBuf>,
    /// Batches that the lane has not answered.
    in_flight: u32,
    /// Of the last batch that failed.
    weather: Option<Errno>,
    /// Some queue has many units in memory only.
    large: bool,
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
            dirty: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            in_flight: 0,
            weather: None,
            large: false,
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
        if queue.removed {
            // A record that was under way when its topic was deleted.
            return;
        }
        let unflushed = queue.unflushed();
        if unflushed == 1 {
            self.dirty.insert(index);
        }
        self.large |= FLUSH_UNITS <= unflushed && !queue.is_flushing();
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
        queue.replay(offset, unit);
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
            self.list[index.0 as usize].removed = true;
        }
        let folder = self.folder.join(topic);
        self.unsynced.retain(|path| !path.starts_with(&folder));
        Some(folder)
    }

    /// Whether a queue is still known by its name: a removed topic's queues are not.
    #[must_use]
    pub fn is_known(&self, index: QueueIndex) -> bool {
        let queue = self.queue(index);
        self.find(queue.topic(), queue.queue_id()) == Some(index)
    }

    /// Queues with units that are in memory only, and where they end now.
    #[must_use]
    pub fn unflushed(&self) -> Vec<(QueueIndex, u64)> {
        self.dirty
            .iter()
            .map(|index| (*index, self.queue(*index).max()))
            .collect()
    }

    /// Writes batches: of every queue with units in memory only if `all`, else of those with many.
    pub fn flush(&mut self, io: &mut impl Io, all: bool, count_max: u32) {
        let indexes: Vec<QueueIndex> = self.dirty.iter().copied().collect();
        for index in indexes {
            if count_max <= self.in_flight {
                return;
            }
            let queue = &mut self.list[index.0 as usize];
            if !all && queue.unflushed() < FLUSH_UNITS {
                continue;
            }
            let Some(batch) = queue.batch() else { continue };
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
    }

    /// Writes batches of queues with many units in memory only; the rest waits for the checkpoint.
    pub fn flush_large(&mut self, io: &mut impl Io) {
        if self.large {
            self.large = false;
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
        let queue = &mut self.list[index.0 as usize];
        queue.batch_done(result.is_ok());
        if queue.unflushed() == 0 || !known {
            self.dirty.remove(&index);
        }
    }

    /// Batches under way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Files to be made durable before a checkpoint may count on them.
    pub fn take_unsynced(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.unsynced).into_iter().collect()
    }

    /// Finds the queues on disk and cuts each back to units of records before `end`.
    ///
    /// # Errors
    /// A folder or file that cannot be read, with its path.
    pub fn load(&mut self, io: &mut impl Io, end: u64, first: u64) -> Result<(), (PathBuf, Errno)> {
        let topics = list(io, &self.folder)?;
        for topic in topics {
            let folder = self.folder.join(&topic);
            for queue in list(io, &folder)? {
                let Ok(queue_id) = queue.parse::<u32>() else {
                    continue;
                };
                self.load_queue(io, &topic, QueueId(queue_id), (end, first))?;
            }
        }
        Ok(())
    }

    fn load_queue(
        &mut self,
        io: &mut impl Io,
        topic: &str,
        queue_id: QueueId,
        (end, first): (u64, u64),
    ) -> Result<(), (PathBuf, Errno)> {
        let folder = self.folder.join(topic).join(queue_id.to_string());
        let bases: Vec<u64> = list(io, &folder)?
            .iter()
            .filter_map(|name| parse_file_name(name))
            .collect();
        let Some(lowest) = bases.first().map(|base| base / UNIT_SIZE) else {
            return Ok(());
        };
        let files = UnitFiles {
            folder: &folder,
            file_size: self.file_size,
        };
        let highest = (bases[bases.len() - 1] + self.file_size) / UNIT_SIZE;
        // Units are written in order, so "is there, and before the end" holds for a front part only.
        let max = files.partition(io, lowest, highest, |unit| {
            unit.is_some_and(|unit| unit.offset.0 < end)
        })?;
        // A hole of ours has the physical offset of what follows and keeps the order; what Apache's broker
        // puts in front of a queue that starts late has 0.
        let min = files.partition(io, lowest, max, |unit| {
            unit.is_none_or(|unit| unit.offset.0 < first || unit.is_hole() && unit.offset.0 == 0)
        })?;
        let index = self.make(topic, queue_id, min, max);
        self.list[index.0 as usize].last_store_ms = 0;
        Ok(())
    }
}

fn list(io: &mut impl Io, folder: &Path) -> Result<Vec<String>, (PathBuf, Errno)> {
    let listed = run_one(
        io,
        Op::List {
            path: folder.to_owned(),
        },
    );
    match (listed.result, listed.payload) {
        (Ok(_), Payload::Names(names)) => Ok(names.into_iter().map(|name| name.name).collect()),
        (result, _) => Err((folder.to_owned(), result.err().unwrap_or(Errno::EIO))),
    }
}

struct UnitFiles<'a> {
    folder: &'a Path,
    file_size: u64,
}

impl UnitFiles<'_> {
    /// The first offset in `low..high` whose unit does not satisfy `front`.
    fn partition(
        &self,
        io: &mut impl Io,
        low: u64,
        high: u64,
        front: impl Fn(Option<Unit>) -> bool,
    ) -> Result<u64, (PathBuf, Errno)> {
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            if front(self.unit(io, middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn unit(&self, io: &mut impl Io, offset: u64) -> Result<Option<Unit>, (PathBuf, Errno)> {
        let at = offset * UNIT_SIZE;
        let file = at - at % self.file_size;
        let path = self.folder.join(format!("{file:020}"));
        let got = run_one(
            io,
            Op::Get {
                path: path.clone(),
                at: at - file,
                len: UNIT_SIZE,
            },
        );
        match (got.result, got.payload) {
            (Ok(_), Payload::Buffer(bytes)) => Ok(Unit::decode(&bytes)),
            (Err(Errno::ENOENT), _) => Ok(None),
            (result, _) => Err((path, result.err().unwrap_or(Errno::EIO))),
        }
    }
}

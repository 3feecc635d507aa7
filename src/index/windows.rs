//! Units that were read back from files, for consumers that are behind: windows of whole blocks, so that
//! groups that read the same queue share them, whatever place each of them has come to.

use std::collections::{BTreeMap, VecDeque};

use super::consume_queue::{ConsumeQueue, UNIT_SIZE, Wanted};
use super::queues::QueueIndex;
use crate::base::QueueOffset;

/// Units of a window (kernel-notes/page-cache-and-cold-reads.md).
const UNITS: u64 = 1024;

/// Bytes of all windows of a shard, at most: some 800 places at which groups read.
const SIZE_MAX: usize = 16 << 20;

/// A queue and the number of a block in it.
type Name = (QueueIndex, u64);

/// The windows of a shard. When they are too many the one goes that was read first: consumers move on.
#[derive(Debug, Default)]
pub(super) struct Windows {
    table: BTreeMap<Name, Window>,
    /// Oldest first. Names of windows that are gone already may be among them.
    order: VecDeque<Name>,
    /// Bytes of all.
    size: usize,
}

#[derive(Debug)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Windows {
    /// Units from an offset on, if they were read and are still here.
    pub(super) fn look(
        &self,
        index: QueueIndex,
        queue: &ConsumeQueue,
        from: QueueOffset,
    ) -> Option<&[u8]> {
        let (block, _) = block_of(queue, from.0);
        let window = self.table.get(&(index, block))?;
        let at = from.0.checked_sub(window.start)? * UNIT_SIZE;
        window
            .bytes
            .get(at as usize..)
            .filter(|units| !units.is_empty())
    }

    /// What to read for the window of an offset.
    pub(super) fn wanted(queue: &ConsumeQueue, from: QueueOffset) -> Wanted {
        let (_, start) = block_of(queue, from.0);
        // Files in front of the first unit that counts may be gone.
        let first = start.max(queue.min());
        queue.wanted(first, start + UNITS - first)
    }

    /// Takes in what was read for a window.
    pub(super) fn fill(
        &mut self,
        index: QueueIndex,
        queue: &ConsumeQueue,
        start: QueueOffset,
        mut bytes: Vec<u8>,
    ) {
        bytes.truncate(bytes.len() - bytes.len() % UNIT_SIZE as usize);
        let (block, _) = block_of(queue, start.0);
        let name = (index, block);
        self.size += bytes.len();
        let start = start.0;
        if let Some(before) = self.table.insert(name, Window { start, bytes }) {
            // The newest block is read again as it grows. Whoever had it read finds it.
            self.size -= before.bytes.len();
            self.order.retain(|other| *other != name);
        }
        self.order.push_back(name);
        while SIZE_MAX < self.size
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
    }

    /// Forgets a queue's.
    pub(super) fn forget(&mut self, index: QueueIndex) {
        let of_it = (index, 0)..=(index, u64::MAX);
        let names: Vec<Name> = self.table.range(of_it).map(|(name, _)| *name).collect();
        for name in names {
            self.remove(name);
        }
        self.order.retain(|(queue, _)| *queue != index);
    }

    fn remove(&mut self, name: Name) {
        if let Some(window) = self.table.remove(&name) {
            self.size -= window.bytes.len();
        }
    }
}

/// The number of the block that an offset lies in, and its first offset. A block lies in one file.
const fn block_of(queue: &ConsumeQueue, offset: u64) -> (u64, u64) {
    let per_file = queue.units_per_file();
    let blocks_per_file = per_file.div_ceil(UNITS);
    let (file, in_file) = (offset / per_file, offset % per_file);
    let block = in_file / UNITS;
    (
        file * blocks_per_file + block,
        file * per_file + block * UNITS,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;

    use super::super::consume_queue::Unit;
    use super::*;
    use crate::base::{PhysicalOffset, QueueId};

    const FILE_SIZE: u64 = 3_000 * UNIT_SIZE;

    fn queue(min: u64, max: u64) -> ConsumeQueue {
        let topic = Rc::from("t");
        ConsumeQueue::new(Path::new("cq"), topic, QueueId(0), FILE_SIZE, min, max)
    }

    fn unit(offset: u64) -> [u8; UNIT_SIZE as usize] {
        let unit = Unit {
            offset: PhysicalOffset(offset * 100),
            size: 100,
            tags_code: 0,
        };
        unit.encode()
    }

    /// What stands in the queue's files.
    fn read(wanted: &Wanted) -> Vec<u8> {
        let count = wanted.len / UNIT_SIZE;
        (wanted.start.0..)
            .take(count as usize)
            .flat_map(unit)
            .collect()
    }

    fn look(windows: &Windows, queue: &ConsumeQueue, at: u64) -> Option<Unit> {
        let units = windows.look(QueueIndex(7), queue, QueueOffset(at))?;
        Some(Unit::decode(units).expect("all were written"))
    }

    #[test]
    fn every_unit_is_in_the_window_that_is_read_for_it() {
        let queue = queue(700, 7_500);
        for at in 700..7_500 {
            let mut windows = Windows::default();
            let wanted = Windows::wanted(&queue, QueueOffset(at));
            let file = wanted
                .path
                .to_str()
                .and_then(|path| path.get(path.len() - 20..));
            let base: u64 = file.and_then(|name| name.parse().ok()).expect("a file");
            assert_eq!(base + wanted.at, wanted.start.0 * UNIT_SIZE);
            assert!(wanted.at + wanted.len <= FILE_SIZE, "one file");
            assert!(wanted.len <= UNITS * UNIT_SIZE && 700 <= wanted.start.0);
            assert_eq!(look(&windows, &queue, at), None);
            windows.fill(QueueIndex(7), &queue, wanted.start, read(&wanted));
            let found = look(&windows, &queue, at).expect("read for it");
            assert_eq!(found.offset.0, at * 100);
            let end = wanted.start.0 + wanted.len / UNIT_SIZE;
            assert_eq!(look(&windows, &queue, end), None);
            if let Some(before) = wanted.start.0.checked_sub(1) {
                assert_eq!(look(&windows, &queue, before), None);
            }
        }
    }

    #[test]
    fn windows_take_so_much_memory_and_no_more() {
        let mut windows = Windows::default();
        let queue = queue(0, 3_000_000);
        let starts: Vec<u64> = (0..1_000)
            .flat_map(|file| [file * 3_000, file * 3_000 + 1_024])
            .collect();
        for start in &starts {
            let wanted = Windows::wanted(&queue, QueueOffset(*start));
            windows.fill(QueueIndex(7), &queue, wanted.start, read(&wanted));
            let held: usize = windows
                .table
                .values()
                .map(|window| window.bytes.len())
                .sum();
            assert_eq!(windows.size, held);
            assert!(held <= SIZE_MAX && windows.order.len() == windows.table.len());
            assert!(look(&windows, &queue, *start).is_some());
        }
        assert_eq!(look(&windows, &queue, 0), None, "the oldest went");
        windows.forget(QueueIndex(6));
        assert!(0 < windows.size);
        windows.forget(QueueIndex(7));
        assert_eq!((windows.size, windows.order.len()), (0, 0));
    }

    #[test]
    fn a_window_grows_with_its_queue() {
        let mut windows = Windows::default();
        for max in [1_030, 1_031, 2_000] {
            let queue = queue(0, max);
            let wanted = Windows::wanted(&queue, QueueOffset(max - 1));
            assert_eq!(wanted.start.0, 1_024);
            assert_eq!(look(&windows, &queue, max - 1), None);
            windows.fill(QueueIndex(7), &queue, wanted.start, read(&wanted));
            assert!(look(&windows, &queue, max - 1).is_some());
        }
        assert_eq!((windows.table.len(), windows.order.len()), (1, 1));
    }

    #[test]
    fn what_is_read_again_is_the_last_to_go() {
        let mut windows = Windows::default();
        let read_at = |windows: &mut Windows, max: u64, at: u64| {
            let queue = queue(0, max);
            let wanted = Windows::wanted(&queue, QueueOffset(at));
            windows.fill(QueueIndex(7), &queue, wanted.start, read(&wanted));
        };
        read_at(&mut windows, 10, 0);
        let whole = UNITS * UNIT_SIZE;
        let starts = (1..).flat_map(|file| [file * 3_000, file * 3_000 + UNITS]);
        for start in starts.take(SIZE_MAX / whole as usize) {
            read_at(&mut windows, 3_000_000, start);
        }
        let queue = queue(0, 3_000_000);
        assert!(look(&windows, &queue, 0).is_some(), "all have room");
        read_at(&mut windows, 3_000_000, 0);
        assert!(look(&windows, &queue, 1_000).is_some());
        assert!(windows.size <= SIZE_MAX);
        assert_eq!(windows.order.len(), windows.table.len());
    }
}

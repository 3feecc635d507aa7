//! IndexFiles: which records have a key (P§3.8), as state that hands out operations and never waits.
//!
//! The slot table of the last file is held in memory, because each new entry needs the head of its chain;
//! entries are held until they are written. Unique keys hit the table everywhere, so each look is a cache
//! miss: entries are linked into their chains in batches, whose misses the CPU overlaps. Nothing is written
//! through a map (Apache does), so a put costs no page fault on the file, and the caller chooses when to
//! write: [`Index::flush`].
//!
//! What a power cut may leave is repaired from the entries alone: [`Load`] reads them again up to the place
//! the caller knows to be synced, so slots and header need no order among writes. After two power cuts
//! in a row an entry of a history that the log has lost may fit by chance; it costs a look at the record
//! that it names, which has the last word anyway.

mod keys;
mod layout;
mod load;
mod query;
mod table;

use std::path::{Path, PathBuf};

use crate::base::PhysicalOffset;
use crate::io::Op;
use crate::log::record::Record;

pub use keys::{Names, hashes, key_hash, tag_hash, topic_prefix};
pub use load::{Load, LoadStep, Loaded};
pub use query::{Query, Step, Want};

use layout::{ENTRY_SIZE, Entry, HEADER_SIZE, Header, SLOT_SIZE, stamp_after};
use table::{Flushing, PAGE_SIZE, Table};

/// Entries that are linked together: enough for the CPU to have misses to overlap, few enough for one turn.
const LINK_BATCH: usize = 256;

/// So many entries are read soon enough, however few slots they share.
const SOON_READ: u32 = 1 << 20;

/// Where the files lie and how large they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `<root>/index`.
    pub folder: PathBuf,
    /// Apache's `maxHashSlotNum`.
    pub slot_count: u32,
    /// Apache's `maxIndexNum`. Entry 0 is never used, so a file holds one less.
    pub entry_count: u32,
}

impl Options {
    /// Apache's sizes.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            slot_count: 5_000_000,
            entry_count: 20_000_000,
        }
    }

    /// Whether a file takes no more entries. Apache's are full at `maxIndexNum`; here a large one also ends
    /// when it has as many entries as slots, because after an unclean stop all entries of the last file are
    /// read before the broker serves (13 ns each, and 20 bytes from a disk).
    fn is_full(&self, header: &Header) -> bool {
        let enough = self.slot_count.max(SOON_READ);
        header.next_number > enough.min(self.entry_count - 1)
    }

    /// Bytes of one file.
    #[must_use]
    pub const fn file_size(&self) -> u64 {
        self.entry_at(self.entry_count)
    }

    const fn slot_at(&self, slot: u32) -> u64 {
        HEADER_SIZE + slot as u64 * SLOT_SIZE
    }

    const fn entry_at(&self, number: u32) -> u64 {
        self.slot_at(self.slot_count) + number as u64 * ENTRY_SIZE
    }

    const fn slot_of(&self, hash: u32) -> u32 {
        hash % self.slot_count
    }

    fn path(&self, stamp: u64) -> PathBuf {
        self.folder.join(format!("{stamp:017}"))
    }
}

/// All IndexFiles of a shard.
#[derive(Debug)]
pub struct Index {
    options: Options,
    /// Oldest first. Only the last takes entries.
    files: Vec<File>,
    /// The newest name that was ever there, so that no name is given twice.
    stamp_last: Option<u64>,
    /// Records below this are indexed.
    dispatched: PhysicalOffset,
    flushing: Option<Flushing>,
    /// Stamps of files that were written to since [`Index::take_unsynced`].
    unsynced: Vec<u64>,
}

#[derive(Debug)]
struct File {
    /// Its name as a number: year to millisecond.
    stamp: u64,
    header: Header,
    /// While it takes entries, or something of it is not written yet.
    table: Option<Table>,
}

/// One file, for those who list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Where.
    pub path: PathBuf,
    /// Store time of its first record.
    pub begin_ms: i64,
    /// Store time of its last record.
    pub end_ms: i64,
    /// Its first record.
    pub begin_offset: PhysicalOffset,
    /// Its last record.
    pub end_offset: PhysicalOffset,
    /// Slots that have a chain; up to 256 of the newest entries may not be in theirs yet.
    pub slot_used_count: u32,
    /// Entries.
    pub entry_count: u32,
}

impl Index {
    /// No files yet; records from `dispatched` on will be indexed.
    #[must_use]
    pub fn new(options: Options, dispatched: PhysicalOffset) -> Self {
        assert!(0 < options.slot_count, "an IndexFile needs a slot");
        assert!(
            1 < options.entry_count && options.entry_count <= i32::MAX as u32,
            "entry 0 is not used"
        );
        Self {
            options,
            files: Vec::new(),
            stamp_last: None,
            dispatched,
            flushing: None,
            unsynced: Vec::new(),
        }
    }

    /// Takes in the keys of a record, unless it was dispatched before. Records come in log order.
    pub fn dispatch(&mut self, record: &Record<'_>, wall_ms: u64) {
        if record.physical_offset < self.dispatched {
            return;
        }
        hashes(record, |hash| {
            self.put(hash, record.physical_offset, record.store_ms, wall_ms);
        });
        self.dispatched = PhysicalOffset(record.physical_offset.0 + u64::from(record.size));
    }

    /// Adds one entry. `hash` comes from [`key_hash`], offsets never go down, and `wall_ms` names the
    /// next file when the last one is full.
    pub fn put(&mut self, hash: u32, offset: PhysicalOffset, store_ms: i64, wall_ms: u64) {
        assert!(
            hash <= i32::MAX as u32,
            "key hash {hash:#x} is not one of key_hash"
        );
        let full = |file: &File| self.options.is_full(&file.header);
        if self.files.last().is_none_or(full) {
            self.roll(wall_ms);
        }
        let slot = self.options.slot_of(hash);
        let file = self
            .files
            .last_mut()
            .expect("rolled just now if there was none");
        assert!(
            file.header.end_offset <= offset,
            "entry for {offset} after {}",
            file.header.end_offset
        );
        let table = file
            .table
            .as_mut()
            .expect("a file that takes entries has its table");
        let number = file.header.next_number;
        if number == 1 {
            file.header.begin_offset = offset;
            file.header.begin_ms = store_ms;
        }
        let entry = Entry {
            hash,
            offset,
            seconds: file.header.seconds(store_ms),
            previous: 0,
        };
        table.held.extend_from_slice(&entry.encode());
        table.unlinked.push(slot);
        file.header.next_number = number + 1;
        file.header.end_offset = offset;
        file.header.end_ms = store_ms;
        if LINK_BATCH <= table.unlinked.len() {
            file.link();
        }
    }

    /// Whoever looks at slots or chains of the last file asks for this first.
    fn link(&mut self) {
        if let Some(last) = self.files.last_mut() {
            last.link();
        }
    }

    fn roll(&mut self, wall_ms: u64) {
        self.link();
        let stamp = stamp_after(self.stamp_last, wall_ms);
        self.stamp_last = Some(stamp);
        let flushing = self.flushing_stamp();
        if let Some(full) = self.files.last_mut()
            && flushing != Some(full.stamp)
        {
            full.table.take_if(|table| !table.is_changed());
        }
        self.files.push(File {
            stamp,
            header: Header::EMPTY,
            table: Some(Table::new(&self.options, &Header::EMPTY)),
        });
    }

    /// The next write, of about `bytes_max` at most; `None` if nothing is to be written, or a write is
    /// on its way. Ask again once [`Index::flushed`] was told, until there is nothing left.
    pub fn flush(&mut self, bytes_max: usize) -> Option<Op> {
        if self.flushing.is_some() {
            return None;
        }
        self.link();
        let changed = |file: &&mut File| file.table.as_ref().is_some_and(Table::is_changed);
        let file = self.files.iter_mut().find(changed)?;
        let table = file.table.as_mut()?;
        let room = bytes_max.max(PAGE_SIZE as usize);
        let (mut flushing, pieces) = table.next_write(&file.header, &self.options, room);
        flushing.stamp = file.stamp;
        self.flushing = Some(flushing);
        let path = self.options.path(file.stamp);
        Some(Op::Put {
            path,
            size: self.options.file_size(),
            pieces,
        })
    }

    /// The write of [`Index::flush`] has completed. One that failed is offered again.
    pub fn flushed(&mut self, written: bool) {
        let Some(done) = self.flushing.take() else {
            return;
        };
        if !self.unsynced.contains(&done.stamp) {
            self.unsynced.push(done.stamp);
        }
        let Some(at) = self.files.iter().position(|file| file.stamp == done.stamp) else {
            return;
        };
        let is_last = at + 1 == self.files.len();
        let file = &mut self.files[at];
        let Some(table) = file.table.as_mut() else {
            return;
        };
        if !written {
            table.header_changed = true;
            done.pages.iter().for_each(|page| table.mark_page(*page));
            return;
        }
        let bytes = (done.entries_to - table.held_from) as usize * ENTRY_SIZE as usize;
        table.held.drain(..bytes);
        table.held_from = done.entries_to;
        table.written_end = done.end_offset;
        if table.held.capacity() - table.held.len() > 1 << 20 {
            table.held.shrink_to(2 * table.held.len());
        }
        if !is_last && !table.is_changed() {
            file.table = None;
        }
    }

    /// The entries of all records below this are in the files (not yet durable: sync what
    /// [`Index::take_unsynced`] names after asking for this, then it may go into the checkpoint).
    #[must_use]
    pub fn written(&self) -> PhysicalOffset {
        // Recovery makes the slots of one file anew: the one that holds the mark. Files are written
        // oldest first, so one whose slots are not written has a successor without entries, and the
        // mark is not in that.
        let tables = self.files.iter().filter_map(|file| file.table.as_ref());
        let first = tables.filter_map(|table| Entry::decode(&table.held)).next();
        first.map_or(self.dispatched, |entry| entry.offset)
    }

    fn flushing_stamp(&self) -> Option<u64> {
        self.flushing.as_ref().map(|flushing| flushing.stamp)
    }

    /// Records below this are indexed, in memory at least.
    #[must_use]
    pub const fn dispatched(&self) -> PhysicalOffset {
        self.dispatched
    }

    /// The files that were written to since the last call.
    pub fn take_unsynced(&mut self) -> Vec<PathBuf> {
        let stamps = std::mem::take(&mut self.unsynced);
        stamps
            .into_iter()
            .map(|stamp| self.options.path(stamp))
            .collect()
    }

    /// Bytes of entries that wait to be written. A caller that cannot flush stops dispatching at its bound.
    #[must_use]
    pub fn held_size(&self) -> usize {
        let tables = self.files.iter().filter_map(|file| file.table.as_ref());
        tables.map(|table| table.held.len()).sum()
    }

    /// Forgets the files whose records all lie below `min`, and names them to be removed. The last file
    /// stays, as with Apache.
    pub fn expire(&mut self, min: PhysicalOffset) -> Vec<PathBuf> {
        let busy = self.flushing_stamp();
        let count = self.files.len().saturating_sub(1);
        let expired = |file: &&File| file.header.end_offset < min && Some(file.stamp) != busy;
        let count = self.files[..count].iter().take_while(expired).count();
        let gone = self.files.drain(..count);
        let paths = gone.map(|file| {
            self.unsynced.retain(|stamp| *stamp != file.stamp);
            self.options.path(file.stamp)
        });
        paths.collect()
    }

    /// Store time and place of the last record that has a key.
    #[must_use]
    pub fn last(&self) -> Option<(i64, PhysicalOffset)> {
        let header = &self.files.last()?.header;
        Some((header.end_ms, header.end_offset))
    }

    /// All files, oldest first.
    pub fn files(&self) -> impl Iterator<Item = FileInfo> + '_ {
        self.files.iter().map(|file| FileInfo {
            path: self.options.path(file.stamp),
            begin_ms: file.header.begin_ms,
            end_ms: file.header.end_ms,
            begin_offset: file.header.begin_offset,
            end_offset: file.header.end_offset,
            slot_used_count: file.header.slot_used_count,
            entry_count: file.header.next_number - 1,
        })
    }

    /// Where they lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.options.folder
    }
}

impl File {
    /// Puts the newest entries into their chains.
    fn link(&mut self) {
        if let Some(table) = self.table.as_mut() {
            self.header.slot_used_count += table.link(self.header.next_number);
        }
    }
}

#[cfg(test)]
mod tests;

//! Finding the IndexFiles again after a start, and cutting them back to what is known to be whole.
//!
//! Below the caller's mark everything is durable. Above it anything may have survived or not, in any
//! order, so after an unclean stop the slots of the file that holds the mark are made anew from its
//! entries, each of which must fit the chains before it.

use std::path::PathBuf;

use super::layout::{ENTRY_SIZE, Entry, HEADER_SIZE, Header, SLOT_SIZE, stamp_of};
use super::table::{Table, page_of};
use super::{File, Index, Options};
use crate::base::PhysicalOffset;
use crate::io::Name;

/// Bytes of one read: large enough for a disk's full speed, small enough not to hold up a turn.
const READ_SIZE: u64 = 1 << 20;

/// Loading on its way.
#[derive(Debug)]
pub struct Load {
    options: Options,
    clean: bool,
    /// Files whose header is not read yet, newest first.
    unread: Vec<u64>,
    stage: Stage,
    /// What goes to the caller. Entries below `index.dispatched` are kept; damage lowers it.
    loaded: Loaded,
}

#[derive(Debug)]
enum Stage {
    Headers,
    /// The last file's entries, after an unclean stop.
    Entries(Scan),
    /// The last file's slots: taken over after a clean stop, else compared with what the entries say.
    Slots {
        next: u32,
        used_count: u32,
        compare: bool,
    },
}

/// What to do next.
#[derive(Debug)]
pub enum LoadStep {
    /// Read this and give it to [`Load::resume`].
    Get {
        /// From which file.
        path: PathBuf,
        /// Byte position.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// All is known.
    Done(Box<Loaded>),
}

/// What was found.
#[derive(Debug)]
pub struct Loaded {
    /// Ready for [`Index::dispatch`], which begins where [`Index::dispatched`] says: at the caller's mark,
    /// or before it where files are damaged. Then the mark in the checkpoint is lowered durably before
    /// anything is removed or flushed: what is lost cannot be seen afterwards. Such a place is not always
    /// the start of a record: walk the log from the start of its segment, dispatch passes over what it
    /// knows.
    pub index: Index,
    /// Files to remove: they hold nothing that is known to be whole.
    pub remove: Vec<PathBuf>,
    /// Files that are left alone and not looked into, because they have another size than the options
    /// say: Apache's `maxHashSlotNum` or `maxIndexNum` was changed.
    pub ignored: Vec<PathBuf>,
}

impl Load {
    /// Begins with the listing of the folder. `dispatched` is the checkpoint's mark ([`Index::written`],
    /// synced); `clean` = the last stop was, so that files are as they were left.
    #[must_use]
    pub fn start(
        options: Options,
        names: &[Name],
        dispatched: PhysicalOffset,
        clean: bool,
    ) -> (Self, LoadStep) {
        let index = Index::new(options.clone(), dispatched);
        let mut load = Self {
            options,
            clean,
            unread: Vec::new(),
            stage: Stage::Headers,
            loaded: Loaded {
                index,
                remove: Vec::new(),
                ignored: Vec::new(),
            },
        };
        for name in names.iter().filter(|name| !name.is_folder) {
            if let Some(stamp) = stamp_of(&name.name) {
                load.sort_in(stamp, name.size);
            }
        }
        load.unread.sort_unstable_by(|left, right| right.cmp(left));
        let step = load.next_header();
        (load, step)
    }

    fn sort_in(&mut self, stamp: u64, size: u64) {
        let last = &mut self.loaded.index.stamp_last;
        *last = (*last).max(Some(stamp));
        if size == self.options.file_size() {
            self.unread.push(stamp);
        } else if size == 0 {
            // Made, but not grown before the power went.
            self.loaded.remove.push(self.options.path(stamp));
        } else {
            self.loaded.ignored.push(self.options.path(stamp));
        }
    }

    /// Goes on with what was read; fewer bytes than asked for count as damage.
    pub fn resume(&mut self, bytes: &[u8]) -> LoadStep {
        match std::mem::replace(&mut self.stage, Stage::Headers) {
            Stage::Headers => self.take_header(bytes),
            Stage::Entries(scan) => self.take_entries(scan, bytes),
            Stage::Slots {
                next,
                compare: true,
                ..
            } => self.compare_slots(next, bytes),
            Stage::Slots {
                next, used_count, ..
            } => self.take_slots(next, used_count, bytes),
        }
    }

    fn next_header(&mut self) -> LoadStep {
        match self.unread.last() {
            Some(stamp) => self.get(*stamp, 0, HEADER_SIZE),
            None => self.choose_last(),
        }
    }

    fn take_header(&mut self, bytes: &[u8]) -> LoadStep {
        let stamp = self.unread.pop().expect("a header was asked for");
        match Header::decode(bytes).filter(|header| self.is_sane(header)) {
            Some(header) => {
                self.loaded.index.files.push(File {
                    stamp,
                    header,
                    table: None,
                });
            }
            None => {
                // What comes behind would leave a gap; it is dispatched again.
                self.loaded.remove.push(self.options.path(stamp));
                let rest = std::mem::take(&mut self.unread);
                self.loaded
                    .remove
                    .extend(rest.iter().map(|stamp| self.options.path(*stamp)));
                self.lower_to_last_end();
            }
        }
        self.next_header()
    }

    fn is_sane(&self, header: &Header) -> bool {
        let follows = |last: &File| last.header.end_offset <= header.begin_offset;
        1 <= header.next_number
            && header.next_number <= self.options.entry_count
            && header.slot_used_count < header.next_number
            && header.slot_used_count <= self.options.slot_count
            && header.begin_offset <= header.end_offset
            && self.loaded.index.files.last().is_none_or(follows)
    }

    /// Dispatch has to begin again in the last record that the remaining files know: its entries may go
    /// on in the file that is lost.
    fn lower_to_last_end(&mut self) {
        let last = self.loaded.index.files.last();
        self.lower_to(last.map_or(PhysicalOffset(0), |file| file.header.end_offset));
    }

    fn lower_to(&mut self, again: PhysicalOffset) {
        let dispatched = &mut self.loaded.index.dispatched;
        *dispatched = again.min(*dispatched);
    }

    /// The last file is the one that holds the mark. What is behind it, as its header says, is dispatched
    /// again; the header may be what is damaged, so all that the files before do not know is.
    fn choose_last(&mut self) -> LoadStep {
        while let Some(file) = self.loaded.index.files.last()
            && (file.header.next_number == 1
                || self.loaded.index.dispatched <= file.header.begin_offset)
        {
            self.loaded.remove.push(self.options.path(file.stamp));
            self.loaded.index.files.pop();
            self.lower_to_last_end();
        }
        let Some(file) = self.loaded.index.files.last_mut() else {
            return self.done();
        };
        if self.clean && file.header.end_offset < self.loaded.index.dispatched {
            if !self.options.is_full(&file.header) {
                file.table = Some(Table::new(&self.options, &file.header));
                return self.get_slots(0, 0, false);
            }
            return self.done();
        }
        self.scan()
    }

    fn scan(&mut self) -> LoadStep {
        let file = self
            .loaded
            .index
            .files
            .last_mut()
            .expect("there is a last file");
        file.table = Some(Table::new(&self.options, &Header::EMPTY));
        self.get_entries(Scan::default())
    }

    fn get_entries(&mut self, scan: Scan) -> LoadStep {
        let file = self
            .loaded
            .index
            .files
            .last()
            .expect("there is a last file");
        let (stamp, left) = (file.stamp, file.header.next_number - scan.next);
        let len = (u64::from(left) * ENTRY_SIZE).min(READ_SIZE / ENTRY_SIZE * ENTRY_SIZE);
        let at = self.options.entry_at(scan.next);
        self.stage = Stage::Entries(scan);
        self.get(stamp, at, len)
    }

    fn take_entries(&mut self, mut scan: Scan, bytes: &[u8]) -> LoadStep {
        let (first, dispatched) = (scan.next, self.loaded.index.dispatched);
        let file = self
            .loaded
            .index
            .files
            .last_mut()
            .expect("there is a last file");
        let table = file.table.as_mut().expect("made before the scan");
        let slot_of = |entry: &Entry| self.options.slot_of(entry.hash);
        let mut outcome = if bytes.is_empty() {
            Outcome::Damaged
        } else {
            Outcome::Fits
        };
        for (at, stored) in bytes.chunks(ENTRY_SIZE as usize).enumerate() {
            if scan.next == file.header.next_number {
                break;
            }
            outcome = match Entry::decode(stored) {
                Some(entry) => scan.take(&entry, &file.header, table, dispatched, slot_of(&entry)),
                None => Outcome::Damaged,
            };
            if outcome != Outcome::Fits {
                outcome = scan.judge(&bytes[at * ENTRY_SIZE as usize..], dispatched);
            }
            if outcome != Outcome::Fits {
                break;
            }
        }
        assert!(
            first < scan.next || outcome != Outcome::Fits,
            "each read leads on"
        );
        if outcome == Outcome::Fits && scan.next < file.header.next_number {
            return self.get_entries(scan);
        }
        // Its count and the place of its last record came into the header with one write.
        if outcome == Outcome::Fits && scan.last.end.0 != file.header.end_offset {
            outcome = Outcome::Damaged;
        }
        if outcome == Outcome::Damaged {
            let again = scan.undo(table);
            self.lower_to(again);
        }
        self.cut(scan)
    }

    fn cut(&mut self, scan: Scan) -> LoadStep {
        let index = &mut self.loaded.index;
        if scan.next == 1 {
            // Not even its first entry fits, so its header is not believed either.
            let file = index.files.pop().expect("there is a last file");
            self.loaded.remove.push(self.options.path(file.stamp));
            self.lower_to_last_end();
            return self.choose_last();
        }
        let file = index.files.last_mut().expect("there is a last file");
        let table = file.table.as_mut().expect("made before the scan");
        let stored = file.header;
        if scan.next < stored.next_number {
            // The entry knows the second only; its end is the safe side for a search by time.
            file.header.end_ms = stored.begin_ms + i64::from(scan.last.end.1) * 1000 + 999;
        }
        file.header.next_number = scan.next;
        file.header.end_offset = scan.last.end.0;
        file.header.slot_used_count = scan.slot_used_count;
        table.held_from = scan.next;
        table.written_end = scan.last.end.0;
        table.header_changed = file.header != stored;
        self.get_slots(0, 0, true)
    }

    fn get_slots(&mut self, next: u32, used_count: u32, compare: bool) -> LoadStep {
        let left = self.options.slot_count - next;
        if left == 0 {
            return self.done();
        }
        let len = (u64::from(left) * SLOT_SIZE).min(READ_SIZE);
        let stamp = self
            .loaded
            .index
            .files
            .last()
            .expect("there is a last file")
            .stamp;
        self.stage = Stage::Slots {
            next,
            used_count,
            compare,
        };
        self.get(stamp, self.options.slot_at(next), len)
    }

    fn compare_slots(&mut self, next: u32, bytes: &[u8]) -> LoadStep {
        let count = (self.options.slot_count - next).min((READ_SIZE / SLOT_SIZE) as u32);
        let table = self
            .loaded
            .index
            .files
            .last_mut()
            .and_then(|file| file.table.as_mut());
        let table = table.expect("made before the scan");
        let mut stored = bytes.chunks_exact(SLOT_SIZE as usize);
        for slot in next..next + count {
            let number = table.slots[slot as usize].to_be_bytes();
            if stored.next() != Some(&number) {
                table.mark_page(page_of(slot));
            }
        }
        self.get_slots(next + count, 0, true)
    }

    fn take_slots(&mut self, next: u32, mut used_count: u32, bytes: &[u8]) -> LoadStep {
        let count = (self.options.slot_count - next).min((READ_SIZE / SLOT_SIZE) as u32);
        let file = self
            .loaded
            .index
            .files
            .last_mut()
            .expect("there is a last file");
        let table = file.table.as_mut().expect("made before the slots are read");
        let mut whole = bytes.len() as u64 == u64::from(count) * SLOT_SIZE;
        for (slot, stored) in (next..next + count).zip(bytes.chunks_exact(SLOT_SIZE as usize)) {
            let number = stored
                .iter()
                .fold(0, |number, byte| number << 8 | u32::from(*byte));
            whole &= number < file.header.next_number;
            // Slots that are 0 are not written, so that their memory stays unused.
            if 0 < number {
                used_count += 1;
                table.slots[slot as usize] = number;
            }
        }
        let at_end = next + count == self.options.slot_count;
        if !whole || at_end && used_count != file.header.slot_used_count {
            return self.scan();
        }
        self.get_slots(next + count, used_count, false)
    }

    fn get(&self, stamp: u64, at: u64, len: u64) -> LoadStep {
        LoadStep::Get {
            path: self.options.path(stamp),
            at,
            len,
        }
    }

    fn done(&mut self) -> LoadStep {
        let empty = Index::new(self.options.clone(), PhysicalOffset(0));
        let nothing = Loaded {
            index: empty,
            remove: Vec::new(),
            ignored: Vec::new(),
        };
        LoadStep::Done(Box::new(std::mem::replace(&mut self.loaded, nothing)))
    }
}

/// Walks entries and builds their chains again.
#[derive(Debug)]
struct Scan {
    next: u32,
    slot_used_count: u32,
    /// The last record whose entries were taken.
    last: Taken,
    /// The one before.
    before: Taken,
    /// The one before that, its entries forgotten.
    kept: (PhysicalOffset, u32),
}

/// The entries of one record.
#[derive(Debug, Default)]
struct Taken {
    /// Its place, and the second that its entries name.
    end: (PhysicalOffset, u32),
    /// Slot and previous head of each.
    entries: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fits,
    /// From here on entries are behind the mark.
    End,
    Damaged,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            next: 1,
            slot_used_count: 0,
            last: Taken::default(),
            before: Taken::default(),
            kept: (PhysicalOffset(0), 0),
        }
    }
}

impl Scan {
    fn take(
        &mut self,
        entry: &Entry,
        header: &Header,
        table: &mut Table,
        dispatched: PhysicalOffset,
        slot: u32,
    ) -> Outcome {
        let head = table.slots[slot as usize];
        let begins = self.next != 1 || entry.offset == header.begin_offset;
        let fits = begins
            && entry.hash <= i32::MAX as u32
            && entry.seconds <= i32::MAX as u32
            && self.last.end.0 <= entry.offset
            && entry.offset <= header.end_offset
            && entry.previous == head;
        if !fits {
            return Outcome::Damaged;
        }
        if dispatched <= entry.offset {
            return Outcome::End;
        }
        if self.last.end.0 < entry.offset {
            self.kept = self.before.end;
            std::mem::swap(&mut self.before, &mut self.last);
            self.last.entries.clear();
        }
        self.last.end = (entry.offset, entry.seconds);
        self.last.entries.push((slot, head));
        self.slot_used_count += u32::from(head == 0);
        table.slots[slot as usize] = self.next;
        self.next += 1;
        Outcome::Fits
    }

    /// An entry does not fit, or is of a record behind the mark. If no entry from there on is one of a
    /// record below it, this is where the synced part ends: behind it a power cut leaves anything.
    fn judge(&self, rest: &[u8], dispatched: PhysicalOffset) -> Outcome {
        let below_mark = |stored: &[u8]| match Entry::decode(stored) {
            Some(entry) => {
                let known = self.last.end.0 <= entry.offset && entry.offset < dispatched;
                known && stored.iter().any(|byte| *byte != 0)
            }
            None => true,
        };
        if rest.chunks(ENTRY_SIZE as usize).any(below_mark) {
            Outcome::Damaged
        } else {
            Outcome::End
        }
    }

    /// Of a record whose entries end in damage none is kept, nor of the one before: the place that the
    /// last one names may be what is wrong, and then it tells not where to begin again.
    fn undo(&mut self, table: &mut Table) -> PhysicalOffset {
        let entries = self
            .before
            .entries
            .drain(..)
            .chain(self.last.entries.drain(..));
        for (slot, head) in entries.rev() {
            table.slots[slot as usize] = head;
            self.slot_used_count -= u32::from(head == 0);
            self.next -= 1;
        }
        self.last.end = self.kept;
        self.before.end.0
    }
}

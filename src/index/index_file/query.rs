//! Looking a key up: newest file first, from its slot down the chain, a read at a time.

use std::path::PathBuf;

use super::layout::{ENTRY_SIZE, Entry, SLOT_SIZE};
use super::{File, Index};
use crate::base::PhysicalOffset;

/// Entries of one chain are often close to each other (a tag that every record has), so that a read takes
/// what lies before the wanted entry along.
const WINDOW_ENTRIES: u32 = 400;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Of [`super::key_hash`] or [`super::tag_hash`].
    pub hash: u32,
    /// First store time, milliseconds.
    pub begin_ms: i64,
    /// Last store time, milliseconds.
    pub end_ms: i64,
    /// Records at most.
    pub count_max: usize,
    /// Entries to look at, at most: a chain may hold millions that others hash to.
    pub walk_max: u32,
}

/// A question on its way.
#[derive(Debug)]
pub struct Query {
    want: Want,
    found: Vec<PhysicalOffset>,
    walked: u32,
    /// The file that is looked at.
    stamp: u64,
    awaits: Awaits,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this and give it to [`Query::resume`].
    Get {
        /// From which file.
        path: PathBuf,
        /// Byte position.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Candidates, newest first. Two keys may have one hash, and times are kept in seconds, so the
    /// records themselves have the last word.
    Done(Vec<PhysicalOffset>),
}

#[derive(Debug, Clone, Copy)]
enum Awaits {
    Slot,
    /// Entries from `first` on; the chain goes on at `number`.
    Entries {
        first: u32,
        number: u32,
    },
}

impl Query {
    /// A question and its first step.
    #[must_use]
    pub fn start(index: &mut Index, want: Want) -> (Self, Step) {
        index.link();
        let found = Vec::new();
        let mut query = Self {
            want,
            found,
            walked: 0,
            stamp: u64::MAX,
            awaits: Awaits::Slot,
        };
        let step = query.next_file(index);
        (query, step)
    }

    /// Goes on with what was read. Fewer bytes than asked for (none, if the file has gone meanwhile) end
    /// the search in that file.
    pub fn resume(&mut self, index: &Index, bytes: &[u8]) -> Step {
        let Some(file) = index.files.iter().find(|file| file.stamp == self.stamp) else {
            return self.next_file(index);
        };
        match self.awaits {
            Awaits::Slot => match bytes.first_chunk() {
                Some(head) => self.walk(index, file, u32::from_be_bytes(*head), (0, &[])),
                None => self.next_file(index),
            },
            Awaits::Entries { first, number } => {
                if entry_in((first, bytes), number).is_none() {
                    return self.next_file(index);
                }
                self.walk(index, file, number, (first, bytes))
            }
        }
    }

    fn next_file(&mut self, index: &Index) -> Step {
        for file in index
            .files
            .iter()
            .rev()
            .filter(|file| file.stamp < self.stamp)
        {
            // Files follow one another in time: what is before one that begins too early is out of it.
            if self.is_done() || file.header.end_ms < self.want.begin_ms {
                break;
            }
            if file.header.begin_ms <= self.want.end_ms {
                self.stamp = file.stamp;
                return self.enter(index, file);
            }
        }
        Step::Done(std::mem::take(&mut self.found))
    }

    fn enter(&mut self, index: &Index, file: &File) -> Step {
        let slot = index.options.slot_of(self.want.hash);
        if let Some(table) = &file.table {
            return self.walk(index, file, table.slots[slot as usize], (0, &[]));
        }
        self.awaits = Awaits::Slot;
        Step::Get {
            path: index.options.path(file.stamp),
            at: index.options.slot_at(slot),
            len: SLOT_SIZE,
        }
    }

    /// Follows the chain through what is in memory and in the window.
    fn walk(&mut self, index: &Index, file: &File, head: u32, window: (u32, &[u8])) -> Step {
        let mut number = head;
        while 0 < number && number < file.header.next_number && !self.is_done() {
            let held = file
                .table
                .as_ref()
                .and_then(|table| table.held_entry(number));
            let Some(entry) = held.or_else(|| entry_in(window, number)) else {
                return self.read(index, file, number);
            };
            self.walked += 1;
            let begin_ms = i64::from(entry.seconds) * 1000 + file.header.begin_ms;
            if begin_ms + 999 < self.want.begin_ms {
                break;
            }
            let matches = entry.hash == self.want.hash && begin_ms <= self.want.end_ms;
            // A record may have a word twice among its keys.
            if matches && !self.found.contains(&entry.offset) {
                self.found.push(entry.offset);
            }
            // A chain only ever leads back; anything else is damage and must not become a circle.
            if number <= entry.previous {
                break;
            }
            number = entry.previous;
        }
        self.next_file(index)
    }

    fn read(&mut self, index: &Index, file: &File, number: u32) -> Step {
        let first = number.saturating_sub(WINDOW_ENTRIES - 1).max(1);
        self.awaits = Awaits::Entries { first, number };
        Step::Get {
            path: index.options.path(file.stamp),
            at: index.options.entry_at(first),
            len: u64::from(number - first + 1) * ENTRY_SIZE,
        }
    }

    fn is_done(&self) -> bool {
        self.want.count_max <= self.found.len() || self.want.walk_max <= self.walked
    }
}

fn entry_in((first, bytes): (u32, &[u8]), number: u32) -> Option<Entry> {
    let at = number.checked_sub(first)? as usize * ENTRY_SIZE as usize;
    Entry::decode(bytes.get(at..)?)
}

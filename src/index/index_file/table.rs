//! What of an IndexFile is in memory: its slots, and the entries that are not written yet.

use super::Options;
use super::layout::{ENTRY_SIZE, Entry, HEADER_SIZE, Header, SLOT_SIZE, set_previous};
use crate::base::PhysicalOffset;

/// Slots that share a page of the file; pages are what is marked as changed.
const PAGE_SLOTS: u32 = (PAGE_SIZE / SLOT_SIZE) as u32;
pub(super) const PAGE_SIZE: u64 = 4096;
/// Slots begin behind the header, so the first page has room for fewer.
const HEADER_SLOTS: u32 = (HEADER_SIZE / SLOT_SIZE) as u32;
const _: () = assert!(HEADER_SIZE.is_multiple_of(SLOT_SIZE));

/// What of a file is in memory.
#[derive(Debug)]
pub(super) struct Table {
    /// Numbers of the newest entries. Zeroed memory that the kernel gives page by page.
    pub(super) slots: Vec<u32>,
    /// A bit for each page with slots that differ from the file.
    changed: Vec<u64>,
    pub(super) header_changed: bool,
    /// Entries from `held_from` on, as they are stored.
    pub(super) held: Vec<u8>,
    pub(super) held_from: u32,
    /// Slots of the newest entries, which are not in their chains yet.
    pub(super) unlinked: Vec<u32>,
    /// Record of the entry before that.
    pub(super) written_end: PhysicalOffset,
}

/// Byte positions and what to write there.
pub(super) type Pieces = Vec<(u64, Vec<u8>)>;

/// One write on its way, and what it takes along.
#[derive(Debug)]
pub(super) struct Flushing {
    pub(super) stamp: u64,
    pub(super) entries_to: u32,
    pub(super) end_offset: PhysicalOffset,
    pub(super) pages: Vec<u32>,
}

impl Table {
    /// For a file whose written part ends as its header says; no slot is used yet.
    pub(super) fn new(options: &Options, header: &Header) -> Self {
        let pages = page_of(options.slot_count - 1) + 1;
        Self {
            slots: vec![0; options.slot_count as usize],
            changed: vec![0; pages.div_ceil(u64::BITS) as usize],
            header_changed: false,
            held: Vec::new(),
            held_from: header.next_number,
            unlinked: Vec::new(),
            written_end: header.end_offset,
        }
    }

    pub(super) fn is_changed(&self) -> bool {
        self.header_changed || !self.held.is_empty() || self.changed.iter().any(|bits| *bits != 0)
    }

    /// `next_number` comes behind the newest entry. Answers how many slots were used for the first time.
    pub(super) fn link(&mut self, next_number: u32) -> u32 {
        let first = next_number - self.unlinked.len() as u32;
        let from = (first - self.held_from) as usize * ENTRY_SIZE as usize;
        let entries = self.held[from..].chunks_exact_mut(ENTRY_SIZE as usize);
        let mut first_count = 0;
        // Nothing here waits for the slot that is looked at, so that many can be on their way.
        for (number, (slot, entry)) in (first..).zip(self.unlinked.iter().zip(entries)) {
            let previous = std::mem::replace(&mut self.slots[*slot as usize], number);
            set_previous(entry, previous);
            first_count += u32::from(previous == 0);
        }
        let mut unlinked = std::mem::take(&mut self.unlinked);
        for slot in unlinked.drain(..) {
            self.mark_page(page_of(slot));
        }
        // Its memory is used again.
        self.unlinked = unlinked;
        first_count
    }

    pub(super) fn mark_page(&mut self, page: u32) {
        self.changed[(page / u64::BITS) as usize] |= 1 << (page % u64::BITS);
    }

    /// Entries first, then slots, and the header with each.
    pub(super) fn next_write(
        &mut self,
        header: &Header,
        options: &Options,
        room: usize,
    ) -> (Flushing, Pieces) {
        let mut pieces = Vec::new();
        let held_size = self.held.len().min(room - room % ENTRY_SIZE as usize);
        let entries_to = self.held_from + (held_size / ENTRY_SIZE as usize) as u32;
        if 0 < held_size {
            pieces.push((
                options.entry_at(self.held_from),
                self.held[..held_size].to_vec(),
            ));
        }
        let pages = self.take_changed_pages((room - held_size).div_ceil(PAGE_SIZE as usize));
        self.put_pages(options, &pages, &mut pieces);
        // Entries behind the count do not exist for a reader, so the header tells of no more than
        // what is in the file after this write.
        let last = held_size.checked_sub(ENTRY_SIZE as usize);
        let last = last.and_then(|at| Entry::decode(&self.held[at..]));
        let end_offset = last.map_or(self.written_end, |entry| entry.offset);
        let header = Header {
            next_number: entries_to,
            end_offset,
            slot_used_count: header.slot_used_count.min(entries_to - 1),
            ..*header
        };
        pieces.push((0, header.encode().to_vec()));
        self.header_changed = false;
        (
            Flushing {
                stamp: 0,
                entries_to,
                end_offset,
                pages,
            },
            pieces,
        )
    }

    /// The first changed pages, which count as unchanged from now on.
    fn take_changed_pages(&mut self, count_max: usize) -> Vec<u32> {
        let mut pages = Vec::new();
        for (at, bits) in self.changed.iter_mut().enumerate() {
            while *bits != 0 && pages.len() < count_max {
                pages.push(at as u32 * u64::BITS + bits.trailing_zeros());
                *bits &= *bits - 1;
            }
        }
        pages
    }

    /// The slots of these pages as they are stored, neighbours in one piece.
    fn put_pages(&self, options: &Options, pages: &[u32], pieces: &mut Pieces) {
        let mut end = None;
        for page in pages {
            let slots = slots_of(*page, options.slot_count);
            if end != Some(slots.start) {
                pieces.push((options.slot_at(slots.start), Vec::new()));
            }
            end = Some(slots.end);
            let (_, piece) = pieces.last_mut().expect("pushed just now or before");
            let numbers = &self.slots[slots.start as usize..slots.end as usize];
            piece.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        }
    }

    /// An entry that may not be in the file yet.
    pub(super) fn held_entry(&self, number: u32) -> Option<Entry> {
        let at = number.checked_sub(self.held_from)? as usize * ENTRY_SIZE as usize;
        Entry::decode(self.held.get(at..)?)
    }
}

pub(super) const fn page_of(slot: u32) -> u32 {
    (slot + HEADER_SLOTS) / PAGE_SLOTS
}

pub(super) fn slots_of(page: u32, slot_count: u32) -> std::ops::Range<u32> {
    let start = (page * PAGE_SLOTS).saturating_sub(HEADER_SLOTS);
    let end = (page + 1) * PAGE_SLOTS - HEADER_SLOTS;
    start..end.min(slot_count)
}

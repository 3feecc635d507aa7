//! What is written with one write: the records of a turn, and what of the page before and behind them goes along.

use crate::io::{PAGE_SIZE, Source};

/// Records that are written together.
#[derive(Debug)]
pub(super) struct Group {
    /// Physical offset of the first record.
    pub(super) start: u64,
    /// Bytes in front of it that are in the file already.
    lead: usize,
    pub(super) bytes: Source,
}

impl Group {
    /// An empty one, in a buffer that is used again.
    pub(super) const fn at(start: u64, buffer: Vec<u8>) -> Self {
        Self {
            start,
            lead: 0,
            bytes: Source::of(buffer),
        }
    }

    /// Empties it, to begin elsewhere.
    pub(super) fn restart(&mut self, start: u64) {
        self.start = start;
        self.lead = 0;
        self.bytes.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.len() == self.lead
    }

    pub(super) const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Physical offset of the first byte that is written.
    pub(super) const fn first(&self) -> u64 {
        self.start - self.lead as u64
    }

    /// One behind the last record.
    pub(super) const fn end(&self) -> u64 {
        self.first() + self.bytes.len() as u64
    }

    /// Whether it begins with a page.
    pub(super) const fn is_whole(&self) -> bool {
        self.first().is_multiple_of(PAGE_SIZE)
    }

    /// The group behind it, which begins with the page in which this one ends, where its bytes are here.
    /// Nothing may be set in: a page is wanted in one piece.
    pub(super) fn next_with_page(&self, mut buffer: Vec<u8>) -> Self {
        let end = self.end();
        let page = end - end % PAGE_SIZE;
        let mut lead = 0;
        if self.first() <= page {
            lead = (end - page) as usize;
            let bytes = self.bytes.buffer();
            buffer.extend_from_slice(&bytes[bytes.len() - lead..]);
        }
        Self {
            start: end,
            lead,
            bytes: Source::of(buffer),
        }
    }

    /// It is written up to the end of its last page, over zeros with zeros: where the page is not in memory,
    /// the kernel then need not read it first. `at` is where it begins in its segment.
    pub(super) fn pad(&mut self, at: u64, segment_size: u64) {
        let end = (at + self.bytes.len() as u64).next_multiple_of(PAGE_SIZE);
        let end = end.min(segment_size);
        let more = (end - at) as usize - self.bytes.len();
        let buffer = self.bytes.buffer_mut();
        buffer.resize(buffer.len() + more, 0);
    }

    pub(super) fn into_bytes(self) -> Source {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_the_page_along_in_which_the_one_before_ended() {
        let mut group = Group::at(8192, Vec::new());
        group.bytes.buffer_mut().extend([1; 5000]);
        let mut next = group.next_with_page(Vec::new());
        assert_eq!(
            (next.start, next.first(), next.end()),
            (13192, 12288, 13192)
        );
        assert!(next.is_empty() && next.is_whole());
        next.bytes.buffer_mut().extend([2; 10]);
        assert_eq!((next.start, next.end(), next.size()), (13192, 13202, 914));
        next.pad(next.first(), 1 << 20);
        let bytes = next.into_bytes().to_vec();
        assert_eq!(
            (bytes.len(), bytes[903], bytes[904], bytes[914]),
            (4096, 1, 2, 0)
        );
    }

    #[test]
    fn a_group_inside_a_page_stays_without_it_until_a_page_begins() {
        let mut group = Group::at(100, Vec::new());
        group.bytes.buffer_mut().extend([1; 50]);
        let next = group.next_with_page(Vec::new());
        assert_eq!((next.start, next.first()), (150, 150));
        assert!(!next.is_whole());
        let mut group = Group::at(4000, Vec::new());
        group.bytes.buffer_mut().extend([1; 96]);
        let next = group.next_with_page(Vec::new());
        assert!(next.is_whole() && next.is_empty());
    }
}

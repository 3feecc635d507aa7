//! The segments of a CommitLog: files of one size, named by the physical offset of their first byte.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::base::PhysicalOffset;
use crate::io::{FileId, Span};

/// One file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Physical offset of its first byte.
    pub base: u64,
    /// The open file.
    pub file: FileId,
    /// When its last byte was written, as far as is known: wall milliseconds.
    pub last_ms: u64,
}

/// All segments of a log, oldest first, without gaps.
#[derive(Debug)]
pub struct Segments {
    folder: PathBuf,
    size: u64,
    list: VecDeque<Segment>,
}

impl Segments {
    /// No segments yet.
    #[must_use]
    pub const fn new(folder: PathBuf, size: u64) -> Self {
        Self {
            folder,
            size,
            list: VecDeque::new(),
        }
    }

    /// Bytes of each.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where the segments lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// First byte of the log.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.list.front().map_or(0, |segment| segment.base)
    }

    /// One behind the last byte that has a file.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.list
            .back()
            .map_or(0, |segment| segment.base + self.size)
    }

    /// Adds the next segment.
    pub fn push(&mut self, segment: Segment) {
        assert!(
            self.list.is_empty() || segment.base == self.end_offset(),
            "segments have no gaps"
        );
        self.list.push_back(segment);
    }

    /// Takes the oldest segment out.
    pub fn pop_oldest(&mut self) -> Option<Segment> {
        self.list.pop_front()
    }

    /// The segment that holds a byte.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<&Segment> {
        let index = offset.checked_sub(self.first_offset())? / self.size;
        self.list.get(usize::try_from(index).ok()?)
    }

    /// Like [`Self::at`], for changing it.
    pub fn at_mut(&mut self, offset: u64) -> Option<&mut Segment> {
        let index = offset.checked_sub(self.first_offset())? / self.size;
        self.list.get_mut(usize::try_from(index).ok()?)
    }

    /// Where in the files a range lies; `None` if it is gone, not there yet, or crosses a border.
    #[must_use]
    pub fn span(&self, offset: PhysicalOffset, len: u32) -> Option<Span> {
        let segment = self.at(offset.0)?;
        let at = offset.0 - segment.base;
        (at + u64::from(len) <= self.size).then_some(Span {
            file: segment.file,
            at,
            len,
        })
    }

    /// Path of the segment that starts at an offset.
    #[must_use]
    pub fn path(&self, base: u64) -> PathBuf {
        self.folder.join(file_name(base))
    }
}

/// 20 digits, as RocketMQ names the files of logs and queues.
#[must_use]
pub fn file_name(base: u64) -> String {
    format!("{base:020}")
}

/// The other way round; `None` for names that are not of a segment.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| name.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_in_its_segment_and_nowhere_else() {
        let mut segments = Segments::new(PathBuf::from("log"), 1000);
        for (index, base) in [2000, 3000].into_iter().enumerate() {
            segments.push(Segment {
                base,
                file: FileId(index as u32),
                last_ms: 0,
            });
        }
        let span = |offset, len| segments.span(PhysicalOffset(offset), len);
        assert_eq!(
            span(3010, 990),
            Some(Span {
                file: FileId(1),
                at: 10,
                len: 990
            })
        );
        assert_eq!(span(1999, 1), None, "before the first");
        assert_eq!(span(4000, 1), None, "behind the last");
        assert_eq!(span(2999, 2), None, "crosses a border");
        assert_eq!(parse_file_name(&file_name(3000)), Some(3000));
        assert_eq!(parse_file_name("00000000000000000000.tmp"), None);
    }
}

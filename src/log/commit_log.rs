//! Append, write, sync: in this order, never another.
//!
//! A record gets its place at once and travels with its group: one write for all that came in a turn.
//! Appends never pass the durable write horizon, and the region up to it reads as zeros durably
//! before, so that no append allocates and no sync meets the journal.

use std::collections::VecDeque;

use super::flush::FlushPolicy;
use super::group::Group;
use super::options::{Append, Mutant, Options};
use super::record::blank;
use super::segments::{Segment, Segments};
use crate::base::PhysicalOffset;
use crate::io::{Completion, Errno, Io, Op, Payload, Source, Span, Token};

/// This room's byte in tokens.
pub const ROOM: u8 = 2;

mod preparing;
mod route;
mod syncing;
mod weather;

pub use weather::is_weather;

const WRITE: u64 = 1 << 48;
const SYNC: u64 = 2 << 48;
const PREPARE: u64 = 3 << 48;
const OPEN: u64 = 4 << 48;
const WIPE: u64 = 5 << 48;
const FORGET: u64 = 6 << 48;
const WRITE_BACK: u64 = 7 << 48;

/// Buffers kept for reuse: one being filled, one being written.
const SPARE_MAX: usize = 2;

/// A group of this size is not filled further (kernel-notes/write-and-sync.md).
const GROUP_SIZE_MAX: usize = 8 << 20;
/// Nor is one with so many bodies set in: the kernel takes 1,024 pieces (IOV_MAX), and there are two for each.
const INSETS_MAX: usize = 500;

/// The log met an error it must not survive. Nothing is acknowledged after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// What was being done.
    pub doing: &'static str,
    /// At which physical offset.
    pub offset: u64,
    /// What the kernel said.
    pub errno: Errno,
}

/// Why a record got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The next step is being prepared: ask again when [`CommitLog::room_grew`].
    Soon,
    /// The disk is full, over quota or read-only; clears by itself.
    Weather(Errno),
    /// The record is larger than a segment.
    TooLarge,
    /// The log has failed.
    Failed(Failed),
}

#[derive(Debug)]
struct Writing {
    number: u64,
    start: u64,
    len: u64,
    /// Bytes in front of `start` that travel along.
    lead: u64,
    /// The answer, once it is there.
    result: Option<Result<(), Errno>>,
}

/// One append-only log. Invariant: `synced <= written <= appended <= horizon <= prepared`.
/// Acknowledgements stop at `written` or `synced`, as the flush policy says.
#[derive(Debug)]
pub struct CommitLog {
    options: Options,
    segments: Segments,
    filling: Group,
    sealed: VecDeque<Group>,
    writing: VecDeque<Writing>,
    writes: u64,
    /// Buffers that came back and wait to be filled again.
    spare: Vec<Vec<u8>>,
    /// Where it ended when it was opened.
    opened_at: u64,
    appended: u64,
    written: u64,
    synced: u64,
    /// What the sync in flight covers.
    syncing: Option<u64>,
    /// Given to the disk up to here, without a promise.
    given: u64,
    giving: bool,
    /// Waiters for durability, for the policy.
    oldest_unsynced_ns: u64,
    /// Reads as zeros durably up to here.
    prepared: u64,
    preparing: bool,
    /// Durable in the checkpoint.
    horizon: u64,
    room_grew: bool,
    /// Bad weather: since when to try again, and why.
    weather: Option<(u64, Errno)>,
    /// Appends from here on are void; set until the owner took note.
    rejected_from: Option<u64>,
    /// The void range, to be wiped before anything is appended again.
    wipe: Option<(u64, u64)>,
    wiping: bool,
    failed: Option<Failed>,
    /// Operations pushed and not answered, of every kind: the log may be dropped at 0.
    in_flight: u32,
    syncs: u64,
}

impl CommitLog {
    /// A log whose records end at `end`, all durable, with everything up to `horizon` wiped.
    #[must_use]
    pub fn open(options: Options, segments: Segments, end: u64, horizon: u64) -> Self {
        assert!(end <= horizon);
        Self {
            options,
            segments,
            filling: Group::at(end, Vec::new()),
            sealed: VecDeque::new(),
            writing: VecDeque::new(),
            writes: 0,
            spare: Vec::new(),
            opened_at: end,
            appended: end,
            written: end,
            synced: end,
            syncing: None,
            given: end,
            giving: false,
            oldest_unsynced_ns: 0,
            prepared: horizon,
            preparing: false,
            horizon,
            room_grew: false,
            weather: None,
            rejected_from: None,
            wipe: None,
            wiping: false,
            failed: None,
            in_flight: 0,
            syncs: 0,
        }
    }

    /// First byte that is still there.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.segments.first_offset()
    }

    /// One behind the last record that has a place.
    #[must_use]
    pub const fn appended(&self) -> u64 {
        self.appended
    }

    /// One behind the last record that the kernel has taken.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// One behind the last record that survives a power cut.
    #[must_use]
    pub const fn synced(&self) -> u64 {
        self.synced
    }

    /// The horizon that is durable.
    #[must_use]
    pub const fn horizon(&self) -> u64 {
        self.horizon
    }

    /// fdatasyncs that were completed.
    #[must_use]
    pub const fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Whether producers wait for durability, and consumers see only what is durable.
    #[must_use]
    pub const fn is_sync(&self) -> bool {
        self.options.flush.is_sync()
    }

    /// Why the log stopped, if it did.
    #[must_use]
    pub const fn failed(&self) -> Option<Failed> {
        self.failed
    }

    /// The bad weather there is now.
    #[must_use]
    pub fn weather(&self) -> Option<Errno> {
        self.weather.map(|(_, errno)| errno)
    }

    /// Operations that the kernel has not answered.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The files.
    #[must_use]
    pub const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Where a range lies, if it is there.
    #[must_use]
    pub fn span(&self, offset: PhysicalOffset, len: u32) -> Option<Span> {
        self.segments.span(offset, len)
    }

    /// Everything that was appended has been written and synced.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.appended == self.synced && self.writing.is_empty() && self.syncing.is_none()
    }

    /// Whether a record's body may be set in where it lies, see [`Source::set_in`]: direct writes begin with
    /// the page in which the one before ended, and want it in one piece.
    #[must_use]
    pub const fn takes_insets(&self) -> bool {
        !matches!(self.options.append, Append::Direct)
    }

    /// Takes the place of one record of `size` bytes and lets `encode` write it there.
    ///
    /// # Errors
    /// No place now, or never; see [`NoRoom`].
    pub fn append(
        &mut self,
        size: usize,
        now_ns: u64,
        encode: impl FnOnce(PhysicalOffset, &mut Source),
    ) -> Result<PhysicalOffset, NoRoom> {
        let offset = self.reserve(size as u64)?;
        if self.appended == self.synced {
            self.oldest_unsynced_ns = now_ns;
        }
        if offset != self.appended {
            self.close_segment(offset);
        }
        let before = self.filling.bytes.len();
        encode(PhysicalOffset(offset), &mut self.filling.bytes);
        assert_eq!(
            self.filling.bytes.len() - before,
            size,
            "a record has the size it promised"
        );
        self.appended = offset + size as u64;
        let insets = self.filling.bytes.inset_count();
        if GROUP_SIZE_MAX <= self.filling.bytes.len() || INSETS_MAX <= insets {
            self.seal();
        }
        Ok(PhysicalOffset(offset))
    }

    /// Whether `size` bytes (a whole batch) would find their place now, and where; a batch stays in
    /// one segment as RocketMQ's does.
    ///
    /// # Errors
    /// See [`NoRoom`].
    pub fn reserve(&self, size: u64) -> Result<u64, NoRoom> {
        if let Some(failed) = self.failed {
            return Err(NoRoom::Failed(failed));
        }
        // Eight bytes stay free for a blank at the end of every segment.
        if self.options.segment_size < size + 8 {
            return Err(NoRoom::TooLarge);
        }
        let left = self.options.segment_size - self.appended % self.options.segment_size;
        let offset = if left < size + 8 {
            self.appended + left
        } else {
            self.appended
        };
        let blocked = self.wipe.is_some() || self.rejected_from.is_some();
        if self.horizon < offset + size || blocked {
            return Err(self
                .weather
                .map_or(NoRoom::Soon, |(_, errno)| NoRoom::Weather(errno)));
        }
        Ok(offset)
    }

    /// Makes sure that `size` bytes of several records find their places one after another in one segment.
    ///
    /// # Errors
    /// See [`NoRoom`]; nothing was changed then.
    pub fn begin_batch(&mut self, size: usize) -> Result<(), NoRoom> {
        let offset = self.reserve(size as u64)?;
        if offset != self.appended {
            self.close_segment(offset);
        }
        Ok(())
    }

    /// Fills the rest of the segment with a blank and goes on in the next one.
    fn close_segment(&mut self, next: u64) {
        let left = next - self.appended;
        // The rest of the segment is zero already: only the blank's eight bytes are written.
        let buffer = self.filling.bytes.buffer_mut();
        buffer.extend_from_slice(&blank(left as u32));
        self.seal();
        self.appended = next;
        self.filling.restart(next);
    }

    fn seal(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        let buffer = self.spare.pop().unwrap_or_default();
        let next = match self.options.append {
            Append::Direct => self.filling.next_with_page(buffer),
            _ => Group::at(self.filling.end(), buffer),
        };
        self.sealed
            .push_back(std::mem::replace(&mut self.filling, next));
    }

    /// Queues writes, a sync and preparation as far as they are due. Answers when to ask again.
    pub fn pump(&mut self, io: &mut impl Io) -> u64 {
        if self.failed.is_some() {
            return u64::MAX;
        }
        if self.rejected_from.is_none() && self.wipe.is_none() {
            self.pump_writes(io);
        }
        self.pump_wipe(io);
        self.pump_prepare(io);
        self.pump_write_back(io);
        self.pump_sync(io)
    }

    fn push(&mut self, io: &mut impl Io, token: u64, op: Op) {
        let pushed = io.push(Token::of(ROOM, token), op);
        assert!(
            pushed.is_ok(),
            "the ring has room for the few operations of a log"
        );
        self.in_flight += 1;
    }

    fn pump_writes(&mut self, io: &mut impl Io) {
        // One at a time: the zeros behind a group lie where the next one begins, and two writes that are
        // in flight together may be carried out in any order.
        if self.writing.is_empty() {
            if self.sealed.is_empty() {
                self.seal();
            }
            let Some(mut group) = self.sealed.pop_front() else {
                return;
            };
            let segment = self
                .segments
                .at(group.start)
                .expect("the horizon lies in a segment");
            let (file, at) = (segment.file, group.first() - segment.base);
            let number = self.writes;
            self.writes += 1;
            self.writing.push_back(Writing {
                number,
                start: group.start,
                len: group.end() - group.start,
                lead: group.start - group.first(),
                result: None,
            });
            group.pad(at, self.options.segment_size);
            let route = self.route(&group);
            self.push(
                io,
                WRITE | (number & 0xffff_ffff),
                Op::Write {
                    file,
                    at,
                    from: group.into_bytes(),
                    durable: self.options.flush == FlushPolicy::DurableWrites,
                    route,
                },
            );
        }
    }

    /// Takes one answer of the kernel.
    pub fn complete(&mut self, io: &impl Io, completion: Completion) {
        self.in_flight -= 1;
        let rest = completion.token.rest();
        let number = rest & ((1 << 48) - 1);
        match rest & (0xff << 48) {
            WRITE => self.complete_write(number, completion),
            SYNC => self.complete_sync(completion.result),
            PREPARE => self.complete_prepare(io, number, completion.result),
            OPEN => self.complete_open(io, completion),
            WIPE => self.complete_wipe(io, number, completion.result),
            // What went wrong is told by the sync.
            WRITE_BACK => self.giving = false,
            FORGET => {
                if let Err(errno) = completion.result {
                    tracing::warn!(%errno, "an old segment could not be removed; it stays");
                }
            }
            other => unreachable!("{other:x} is not of this log"),
        }
        if self.rejected_from.is_none() && self.wipe.is_none() {
            assert!(self.synced <= self.written && self.written <= self.appended);
        }
        assert!(self.horizon <= self.prepared);
    }

    fn complete_write(&mut self, number: u64, completion: Completion) {
        let Payload::Buffer(mut buffer) = completion.payload else {
            unreachable!("a write gives its buffer back")
        };
        buffer.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
        let slot = self
            .writing
            .iter_mut()
            .find(|slot| slot.number & 0xffff_ffff == number);
        let slot = slot.expect("a write in flight has its slot");
        let careless = self.options.mutant == Mutant::ShortWriteIgnored;
        slot.result = Some(match completion.result {
            Ok(_) if careless => Ok(()),
            Ok(count) if slot.lead + slot.len <= u64::from(count) => Ok(()),
            // A short write is how a quota or a size limit shows first: its records have failed.
            Ok(_) => Err(Errno::ENOSPC),
            Err(errno) => Err(errno),
        });
        while let Some(Writing {
            start,
            len,
            result: Some(result),
            ..
        }) = self.writing.front()
        {
            let (start, len, result) = (*start, *len, *result);
            match result {
                Ok(()) if self.wipe.is_none() => {
                    self.written = start + len;
                    self.skip_blank_tail();
                    let durable = self.options.flush == FlushPolicy::DurableWrites;
                    if durable || self.options.mutant == Mutant::AckBeforeSync {
                        self.synced = self.written;
                    }
                }
                Ok(()) => (),
                Err(errno) => self.meet_write_error(start, errno),
            }
            self.writing.pop_front();
        }
    }

    /// A group that ended with a blank is followed by one at the start of the next segment.
    fn skip_blank_tail(&mut self) {
        let next = self
            .writing
            .get(1)
            .map(|writing| writing.start)
            .or_else(|| self.sealed.front().map(|group| group.start))
            .unwrap_or(self.filling.start);
        if self.written < next {
            self.written = next;
        }
    }

    /// What was written from here on is in the page cache, as long as that forgets nothing; what was there
    /// when the log was opened may not be.
    #[must_use]
    pub fn warm_from(&self) -> u64 {
        match self.options.append {
            Append::Direct => u64::MAX,
            _ => self.opened_at,
        }
    }

    /// Removes the oldest segment; never the one that is appended to. First its name: without one it goes in steps.
    pub fn remove_oldest(&mut self, io: &mut impl Io) -> Option<Segment> {
        let oldest = *self.segments.iter().next()?;
        if self.synced < oldest.base + self.options.segment_size {
            return None;
        }
        let path = self.segments.path(oldest.base);
        self.segments.pop_oldest();
        self.push(io, FORGET, Op::Remove { path });
        self.push(io, FORGET, Op::Release { file: oldest.file });
        Some(oldest)
    }
}

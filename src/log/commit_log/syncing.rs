//! What is written reaches the disk: given to it in pieces, promised by a sync.

use super::{CommitLog, Failed, SYNC, WRITE_BACK};
use crate::io::{Errno, Io, Op, PAGE_SIZE};
use crate::log::flush::{Decision, Pressure};
use crate::log::options::Mutant;

impl CommitLog {
    /// Whole pages only: the last one is written again with the next group.
    pub(super) fn pump_write_back(&mut self, io: &mut impl Io) {
        let from = self.given.max(self.synced);
        let from = from - from % PAGE_SIZE;
        if self.giving || self.written < from.saturating_add(self.options.write_back_stride) {
            return;
        }
        let Some(segment) = self.segments.at(from).copied() else {
            return;
        };
        let end = (segment.base + self.options.segment_size).min(self.written);
        self.given = end - end % PAGE_SIZE;
        if self.given <= from {
            return;
        }
        self.giving = true;
        let (file, at, len) = (segment.file, from - segment.base, self.given - from);
        self.push(io, WRITE_BACK, Op::WriteBack { file, at, len });
    }

    pub(super) fn pump_sync(&mut self, io: &mut impl Io) -> u64 {
        if self.syncing.is_some() {
            return u64::MAX;
        }
        let pressure = Pressure {
            unsynced_bytes: self.written - self.synced,
            waiters: 0,
            oldest_ns: io.now_ns().saturating_sub(self.oldest_unsynced_ns),
        };
        match self.options.flush.decide(pressure) {
            Decision::Sync => self.push_sync(io),
            Decision::AskAgain { after_ns } => return after_ns,
        }
        u64::MAX
    }

    /// Queues the sync that producers wait for, if one is due; answers whether one was. In the middle of a turn, for
    /// the requests of the turn take as long as the disk does.
    pub fn begin_sync(&mut self, io: &mut impl Io) -> bool {
        let was_syncing = self.syncing.is_some();
        if self.is_sync() && self.failed.is_none() {
            self.pump_sync(io);
        }
        !was_syncing && self.syncing.is_some()
    }

    /// Syncs at once whatever the policy says; for stopping.
    pub fn sync_now(&mut self, io: &mut impl Io) {
        if self.failed.is_none() && self.syncing.is_none() && self.synced < self.written {
            self.push_sync(io);
        }
    }

    fn push_sync(&mut self, io: &mut impl Io) {
        // One file at a time: a group that crossed a border is covered by two syncs, in order.
        let segment = *self
            .segments
            .at(self.synced)
            .expect("unsynced bytes lie in a segment");
        let end = (segment.base + self.options.segment_size).min(self.written);
        self.syncing = Some(end);
        // A sync promises what was written when it was pushed: the age starts anew for the rest.
        self.oldest_unsynced_ns = io.now_ns();
        self.push(io, SYNC, Op::Sync { file: segment.file });
    }

    pub(super) fn complete_sync(&mut self, result: Result<u32, Errno>) {
        let covers = self.syncing.take().expect("one sync is in flight");
        match result {
            Ok(_) => {
                self.synced = match self.options.mutant {
                    Mutant::SyncCoversCompletion => self.written,
                    _ => covers,
                };
                self.syncs += 1;
            }
            Err(_) if self.options.mutant == Mutant::FailedSyncRepeated => (),
            // After a failed fsync Linux may have dropped the dirty pages, so a second one that
            // succeeds proves nothing. See kernel-notes/fsync-errors.md.
            Err(errno) => {
                let offset = self.synced;
                self.failed.get_or_insert(Failed {
                    doing: "fdatasync",
                    offset,
                    errno,
                });
            }
        }
    }
}

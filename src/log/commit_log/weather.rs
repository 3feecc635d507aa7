//! A disk that is full or read-only: what could not be written is refused and wiped, and the log waits.

use super::{CommitLog, Failed, WIPE};
use crate::io::{Errno, Fill, Io, Op};

/// Try again after bad weather (a full disk, a read-only file system).
const WEATHER_RETRY_NS: u64 = 1_000_000_000;

impl CommitLog {
    pub(super) fn pump_wipe(&mut self, io: &mut impl Io) {
        let Some((from, to)) = self.wipe else { return };
        let waits = self
            .weather
            .is_some_and(|(retry_ns, _)| io.now_ns() < retry_ns);
        if self.wiping || self.rejected_from.is_some() || !self.writing.is_empty() || waits {
            return;
        }
        let segment = *self
            .segments
            .at(from)
            .expect("what was appended lies in a segment");
        let len = to.min(segment.base + self.options.segment_size) - from;
        self.wiping = true;
        let op = Op::Prepare {
            file: segment.file,
            at: from - segment.base,
            len,
            fill: Fill::Zeros,
        };
        self.push(io, WIPE | len, op);
    }

    pub(super) fn meet_write_error(&mut self, offset: u64, errno: Errno) {
        if !is_weather(errno) {
            self.failed.get_or_insert(Failed {
                doing: "write",
                offset,
                errno,
            });
            return;
        }
        if self.wipe.is_some() {
            return; // Of the same storm; everything from the first failure on is void.
        }
        let end = self.appended;
        self.rejected_from = Some(offset);
        self.wipe = Some((offset, end));
        self.weather = Some((0, errno));
        self.sealed.clear();
        self.filling.restart(end);
        tracing::error!(offset, %errno, "records could not be written and were refused; the log waits for room");
    }

    pub(super) fn complete_wipe(&mut self, io: &impl Io, len: u64, result: Result<u32, Errno>) {
        self.wiping = false;
        let (from, to) = self.wipe.expect("a wipe has its range");
        if let Err(errno) = result {
            if is_weather(errno) {
                self.weather = Some((io.now_ns() + WEATHER_RETRY_NS, errno));
            } else {
                self.failed.get_or_insert(Failed {
                    doing: "wipe",
                    offset: from,
                    errno,
                });
            }
            return;
        }
        if from + len < to {
            // The first part was wiped, but the log goes on from its start all the same.
            self.wipe = Some((from + len, to));
            return;
        }
        self.wipe = None;
        self.weather = None;
        self.appended = self.written;
        self.filling.restart(self.written);
        self.room_grew = true;
        tracing::info!(offset = self.written, "the log goes on");
    }

    pub(super) fn meet_prepare_error(&mut self, io: &impl Io, errno: Errno, doing: &'static str) {
        // EMFILE: nothing on the disk is wrong; a descriptor may come free.
        if is_weather(errno) || matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) {
            if self.weather.is_none() {
                tracing::error!(%errno, "cannot {doing}: producers are refused until there is room");
            }
            self.weather = Some((io.now_ns() + WEATHER_RETRY_NS, errno));
        } else {
            let offset = self.prepared;
            self.failed.get_or_insert(Failed {
                doing,
                offset,
                errno,
            });
        }
    }

    /// Appends from this offset on are void (their write failed): refuse them, give their queue
    /// offsets back. Asked once; the log goes on after that.
    pub const fn take_rejected(&mut self) -> Option<u64> {
        self.rejected_from.take()
    }
}

/// Errors that say nothing bad about what is on the disk and that pass by themselves.
#[must_use]
pub const fn is_weather(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EROFS
    )
}

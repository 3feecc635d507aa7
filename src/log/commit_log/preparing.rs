//! Room: what is prepared ahead of the appends, and how far they may go.

use super::{CommitLog, OPEN, PREPARE};
use crate::io::{Completion, Errno, Io, Op, OpenMode, Payload};
use crate::log::segments::Segment;

impl CommitLog {
    /// What the next checkpoint may name as its horizon.
    #[must_use]
    pub fn horizon_next(&self) -> u64 {
        // In whole steps: each is a checkpoint.
        let allowed = self.synced + self.options.horizon_ahead_max;
        let allowed = allowed - allowed % self.options.prepare_step;
        self.prepared.min(allowed).max(self.horizon)
    }

    /// While a step of a file is prepared, that thread holds it for milliseconds.
    pub(super) fn is_held(&self, offset: u64) -> bool {
        let file_of = |offset| offset / self.options.segment_size;
        self.preparing && file_of(offset) == file_of(self.prepared)
    }

    pub(super) fn pump_prepare(&mut self, io: &mut impl Io) {
        // A store that is hardly used stays small.
        let options = &self.options;
        let used = self.synced - self.opened_at;
        let ahead = used
            .min(options.prepare_ahead_max)
            .max(options.horizon_ahead_max);
        if self.preparing || self.synced + ahead < self.prepared + options.prepare_step {
            return;
        }
        if let Some((retry_ns, _)) = self.weather
            && io.now_ns() < retry_ns
        {
            return;
        }
        self.preparing = true;
        let Some(segment) = self.segments.at(self.prepared).copied() else {
            let path = self.segments.path(self.prepared);
            let mode = OpenMode::Create {
                size: self.options.segment_size,
            };
            return self.push(io, OPEN, Op::Open { path, mode });
        };
        let at = self.prepared - segment.base;
        let len = self
            .options
            .prepare_step
            .min(self.options.segment_size - at);
        self.push(
            io,
            PREPARE | len,
            Op::Prepare {
                file: segment.file,
                at,
                len,
                fill: self.options.fill,
            },
        );
    }

    pub(super) fn complete_prepare(&mut self, io: &impl Io, len: u64, result: Result<u32, Errno>) {
        self.preparing = false;
        match result {
            Ok(_) => {
                self.prepared += len;
                if self.wipe.is_none() {
                    self.weather = None;
                }
            }
            Err(errno) => self.meet_prepare_error(io, errno, "prepare a segment"),
        }
    }

    pub(super) fn complete_open(&mut self, io: &impl Io, completion: Completion) {
        self.preparing = false;
        match (completion.result, completion.payload) {
            (Ok(_), Payload::Opened(file, _)) => {
                let base = self.prepared;
                if let Some(last) = self.segments.at_mut(base.saturating_sub(1)) {
                    last.last_ms = io.wall_ms();
                }
                self.segments.push(Segment {
                    base,
                    file,
                    last_ms: io.wall_ms(),
                });
            }
            (Err(errno), _) => self.meet_prepare_error(io, errno, "make a segment"),
            (Ok(_), payload) => unreachable!("an open brings a file, not {payload:?}"),
        }
    }

    /// The checkpoint with this horizon is durable: appends may go up to it.
    pub fn horizon_is_durable(&mut self, horizon: u64) {
        assert!(horizon <= self.prepared);
        if self.horizon < horizon {
            self.horizon = horizon;
            self.room_grew = true;
        }
    }

    /// Whether there is more room than when this was last asked.
    pub const fn room_grew(&mut self) -> bool {
        std::mem::replace(&mut self.room_grew, false)
    }
}

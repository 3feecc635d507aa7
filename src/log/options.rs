//! How a log is kept, and the mistakes that the simulator must find.

use super::flush::FlushPolicy;
use crate::io::Fill;

/// How groups get into their file; see kernel-notes/write-and-sync.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Through the ring, into the page cache.
    Ring,
    /// By the shard's own thread, into the page cache.
    InPlace,
    /// Small groups in place while nothing else holds the file, all others through the ring: for file systems
    /// whose writes the ring hands to a worker.
    Mixed,
    /// Past the page cache: whole pages, the last one again and again until it is full. Consumers read from
    /// the disk then.
    Direct,
}

const HORIZON_AHEAD: u64 = 64 << 20;

/// A worker has a piece of this size under way in a fraction of a millisecond, in which the shard may have to
/// wait for their CPU; the 6 MiB of half a second at 10,000 messages take several. See
/// kernel-notes/write-and-sync.md.
const WRITE_BACK_STRIDE: u64 = 1 << 20;

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of a segment.
    pub segment_size: u64,
    /// When to sync.
    pub flush: FlushPolicy,
    /// How groups get into their file. [`Append::Direct`] needs segments of whole pages.
    pub append: Append,
    /// Prepared at once: made to read as zeros. A fresh store waits for one step before its first acknowledgement, so a
    /// step is small; see kernel-notes/preallocation.md.
    pub prepare_step: u64,
    /// How it comes to be zero.
    pub fill: Fill,
    /// The horizon is at most this far ahead of what is durable (and a recovery wipes at most this much).
    pub horizon_ahead_max: u64,
    /// What is prepared is at most this far ahead of what is durable, once so much has been appended: a whole
    /// segment where zeros are written, for in the file that is appended to they hold up writes and make its
    /// syncs write its metadata. See kernel-notes/preallocation.md.
    pub prepare_ahead_max: u64,
    /// So many bytes that are written and wait for a sync that nobody waits for are given to the disk, that the
    /// sync does not have to do it all at once; `u64::MAX` leaves it to the sync and the kernel.
    pub write_back_stride: u64,
    /// A planted mistake; none outside of tests.
    #[doc(hidden)]
    pub mutant: Mutant,
}

impl Options {
    /// What every log but a simulated one has.
    #[must_use]
    pub const fn new(segment_size: u64, flush: FlushPolicy) -> Self {
        Self {
            segment_size,
            flush,
            append: Append::Ring,
            prepare_step: 16 << 20,
            // A sync that somebody waits for must not drag the journal along; one that nobody waits
            // for may, and the bytes go to memory and disk once instead of twice.
            fill: if flush.is_sync() {
                Fill::DirectZeros
            } else {
                Fill::Reserve
            },
            horizon_ahead_max: HORIZON_AHEAD,
            prepare_ahead_max: if flush.is_sync() && HORIZON_AHEAD < segment_size {
                segment_size
            } else {
                HORIZON_AHEAD
            },
            write_back_stride: if flush.is_sync() {
                u64::MAX
            } else {
                WRITE_BACK_STRIDE
            },
            mutant: Mutant::None,
        }
    }
}

/// Mistakes that a log could make. A simulator that does not find each of them proves nothing.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mutant {
    /// The log as it is.
    #[default]
    None,
    /// What is written counts as durable.
    AckBeforeSync,
    /// A sync counts for what was written when it completed.
    SyncCoversCompletion,
    /// A short write counts as a whole one.
    ShortWriteIgnored,
    /// A failed sync is pushed again.
    FailedSyncRepeated,
    /// What lies behind the end of the log is left there.
    NoWipe,
    /// The checksum over a whole record is not compared.
    TrailerIgnored,
    /// What recovery read is taken for durable because it could be read.
    ReadIsDurable,
}

//! What recovery does to a log after it has found its end: behind it zeros, before it nothing that only
//! the page cache has.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::recovery::{RecoveryError, Walker, run_one};
use super::segments::{Segment, Segments};
use crate::io::{Errno, Fill, Io, Op, Payload, Route, Source};

/// The smallest step in which zeros are looked for and written while wiping.
const WIPE_STEP: u64 = 4 << 20;

/// Durably zero from the end of the log to the horizon: after a power cut whole and valid records can stand
/// behind a hole, and a later log must not join up with them.
///
/// `always`: zeros that are read are written too, for they may be in the page cache only.
pub(super) fn wipe(
    io: &mut impl Io,
    segments: &Segments,
    from: u64,
    to: u64,
    always: bool,
) -> Result<(), RecoveryError> {
    let mut at = from;
    while at < to {
        let segment = *segments.at(at).expect("the horizon lies in a segment");
        let in_file = at - segment.base;
        let len = (to - at).min(segments.size() - in_file).min(WIPE_STEP);
        let fault = |doing, errno| RecoveryError::Io {
            doing,
            path: segments.path(segment.base),
            errno,
        };
        let dirty = always || !is_zero(io, segments, segment, in_file, len)?;
        if dirty {
            let op = Op::Prepare {
                file: segment.file,
                at: in_file,
                len,
                fill: Fill::Zeros,
            };
            run_one(io, op)
                .result
                .map_err(|errno| fault("wipe", errno))?;
        }
        at += len;
    }
    Ok(())
}

/// After a kill records and zeros may have been read that are in the page cache only, and the names of
/// young segments may not be durable: what recovery has seen must not be lost by the next power cut.
pub(super) fn make_durable(
    io: &mut impl Io,
    segments: &Segments,
    from: u64,
) -> Result<(), RecoveryError> {
    let behind = segments
        .iter()
        .filter(|segment| from < segment.base + segments.size());
    let paths: BTreeSet<PathBuf> = behind.map(|segment| segments.path(segment.base)).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let synced = run_one(io, Op::SyncPaths { paths }).result;
    synced.map(drop).map_err(|errno| RecoveryError::Io {
        doing: "sync the segments in",
        path: segments.folder().to_owned(),
        errno,
    })
}

fn is_zero(
    io: &mut impl Io,
    segments: &Segments,
    segment: Segment,
    at: u64,
    len: u64,
) -> Result<bool, RecoveryError> {
    let read = Op::Read {
        file: segment.file,
        at,
        into: vec![0; len as usize],
    };
    let read = run_one(io, read);
    match (read.result, &read.payload) {
        (Ok(count), Payload::Buffer(bytes)) => {
            Ok(u64::from(count) == len && bytes.iter().all(|byte| *byte == 0))
        }
        (result, _) => Err(RecoveryError::Io {
            doing: "read",
            path: segments.path(segment.base),
            errno: result.err().unwrap_or(Errno::EIO),
        }),
    }
}

/// Writes what was read behind the durable mark once more. After a sync that failed the kernel holds pages
/// for clean that the disk never got: reads show them, and no later sync would write them
/// (kernel-notes/fsync-errors.md).
pub(super) fn rewrite(
    io: &mut impl Io,
    segments: &Segments,
    from: u64,
    to: u64,
) -> Result<(), RecoveryError> {
    let mut walker = Walker::new(segments);
    let mut at = from.max(segments.first_offset());
    while at < to {
        let segment = *segments.at(at).expect("records lie in a segment");
        let in_file = at - segment.base;
        let len = (to - at).min(segments.size() - in_file).min(WIPE_STEP) as usize;
        let from = walker.bytes(io, at, len)?[..len].to_vec();
        let write = Op::Write {
            file: segment.file,
            at: in_file,
            from: Source::of(from),
            durable: false,
            route: Route::Ring,
        };
        let errno = match run_one(io, write).result {
            Ok(count @ 1..) => {
                at += u64::from(count);
                continue;
            }
            Ok(_) => Errno::ENOSPC,
            Err(errno) => errno,
        };
        return Err(RecoveryError::Io {
            doing: "write",
            path: segments.path(segment.base),
            errno,
        });
    }
    Ok(())
}

//! Whether this kernel lets this process have an io_uring, what that ring can do, and how many there can be.
//! Rings are opened as a broker would and closed again; see kernel-notes/ring-setup.md.
#![allow(unsafe_code)]

use std::rc::Rc;

use io_uring::IoUring;
use nix::errno::Errno;

use super::Options;
use super::buffers::BufferRing;
use super::setup::SetupError;
use super::uring::entering::Door;
use super::uring::features::AtOpen;
use super::uring::probe::{Found, allowed, probe};
use crate::base::{Feature, Features};

/// What rings can do here, and how many there can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingTrial {
    /// Of small rings.
    pub found: Found,
    /// Rings of a shard's size that were open at once, of as many as were asked for.
    pub shard_rings: usize,
    /// Why there were not more.
    pub refused: Option<Errno>,
    /// Threads that one ring may have for what blocks, and for what may wait for ever (since 5.15).
    pub workers: Option<(u32, u32)>,
}

/// Opens rings as a broker would, first that of its name server where it has one, then those of `shards`, and closes them.
///
/// # Errors
/// The kernel's, when not even a plain ring could be had.
pub fn try_rings(shards: usize, has_names: bool) -> Result<RingTrial, Errno> {
    let found = probe()?.clone();
    let mut rings = Vec::new();
    let mut refused = None;
    let mut names = None;
    if has_names {
        match open(&found, Options::SMALL) {
            Ok(ring) => names = Some(ring),
            Err(errno) => refused = Some(errno),
        }
    }
    while rings.len() < shards && refused.is_none() {
        match open(&found, Options::SHARD) {
            Ok(ring) => rings.push(ring),
            Err(errno) => refused = Some(errno),
        }
    }
    let workers = rings.first().and_then(|(_, ring, _)| {
        // Zeros ask and change nothing.
        let mut workers = [0, 0];
        let asked = ring.submitter().register_iowq_max_workers(&mut workers);
        asked.ok().map(|()| (workers[0], workers[1]))
    });
    drop(names);
    Ok(RingTrial {
        found,
        shard_rings: rings.len(),
        refused,
        workers,
    })
}

/// One line for the log: what a ring uses here, and what it does without; and what it uses.
///
/// # Errors
/// There can be no ring.
pub fn in_force(masked: Features) -> Result<(String, Features), SetupError> {
    let mut used = allowed(masked)?;
    if !used.has(Feature::SingleIssuer) {
        // The kernel defers work only for a ring of one thread.
        used = used.without([Feature::DeferTaskrun].into_iter().collect());
    }
    let missing: Vec<_> = Feature::OF_RING
        .into_iter()
        .filter(|feature| !used.has(*feature))
        .map(|feature| why_not(feature, masked))
        .collect();
    let without = match missing.as_slice() {
        [] => "nothing".to_owned(),
        missing => missing.join(", "),
    };
    let of_ring: Features = used
        .iter()
        .filter(|it| Feature::OF_RING.contains(it))
        .collect();
    Ok((format!("ring: {of_ring}; without: {without}"), of_ring))
}

fn why_not(feature: Feature, masked: Features) -> String {
    if masked.has(feature) {
        format!("{} (masked)", feature.name())
    } else if feature == Feature::DeferTaskrun && masked.has(Feature::SingleIssuer) {
        format!(
            "{} (wants {})",
            feature.name(),
            Feature::SingleIssuer.name()
        )
    } else {
        format!("{} (Linux {})", feature.name(), feature.since())
    }
}

/// A ring of a size. The ring goes before its buffers do.
fn open(found: &Found, options: Options) -> Result<(Door, IoUring, Rc<BufferRing>), Errno> {
    let (ring, door) = AtOpen::of(found.features)
        .open(options.entries)
        .map_err(errno_of)?;
    let buffers = BufferRing::new(options.buffer_count, options.buffer_size).map_err(errno_of)?;
    // SAFETY: all leave this function together or the ring is dropped with nothing registered, and what
    // is returned is dropped from the left.
    let registered = unsafe { buffers.register(&ring) };
    match registered.map_err(errno_of) {
        // EINVAL: a kernel without buffer rings, and that is another verdict.
        Ok(()) | Err(Errno::EINVAL) => Ok((door, ring, buffers)),
        Err(errno) => Err(errno),
    }
}

fn errno_of(err: std::io::Error) -> Errno {
    Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO))
}

//! Whether this kernel lets this process have an io_uring, and what that ring can do. The ring is opened,
//! tried on a pair of sockets and closed again; see kernel-notes/ring-setup.md.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use nix::errno::Errno;

use super::Options;
use super::buffers::{BufferRing, GROUP};

/// Something that a ring may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RingFeature {
    /// Every operation that the broker pushes is known.
    Operations,
    /// Submitting, waiting and giving up is one call.
    TimedEnter,
    /// Completions interrupt nobody.
    CoopTaskrun,
    /// One thread submits, and the work behind completions runs when it asks for them.
    DeferTaskrun,
    /// Receive buffers that the kernel picks.
    BufferRings,
    /// A receive that stays armed.
    MultishotReceive,
    /// Sending from the memory of the process without a copy.
    ZeroCopySend,
    /// One receive or send that takes many buffers.
    Bundles,
    /// A wait that gathers completions for a while.
    MinTimeout,
    /// A wait that does not count as waiting for a disk.
    NoIoWait,
}

impl RingFeature {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Operations,
        Self::TimedEnter,
        Self::CoopTaskrun,
        Self::DeferTaskrun,
        Self::BufferRings,
        Self::MultishotReceive,
        Self::ZeroCopySend,
        Self::Bundles,
        Self::MinTimeout,
        Self::NoIoWait,
    ];
}

/// The operations that [`super::Uring`] pushes.
const OPERATIONS: &[u8] = &[
    opcode::Accept::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::Splice::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Fsync::CODE,
    opcode::SyncFileRange::CODE,
    opcode::AsyncCancel::CODE,
    opcode::PollAdd::CODE,
    opcode::Shutdown::CODE,
];

/// A wait of the trial gives up after this.
const PATIENCE_NS: u32 = 200_000_000;

/// What rings can do here, and how many there can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingTrial {
    /// Of a small ring.
    pub features: Vec<RingFeature>,
    /// Rings of a shard's size that were open at once, of as many as were asked for.
    pub shard_rings: usize,
    /// Why there were not more.
    pub refused: Option<Errno>,
    /// Threads that one ring may have for what blocks, and for what may wait for ever (since 5.15).
    pub workers: Option<(u32, u32)>,
}

/// Opens rings, one of them as small as can be and then `shards` as a broker would, and closes them.
///
/// # Errors
/// The kernel's, when not even a plain ring could be had.
pub fn try_rings(shards: usize) -> Result<RingTrial, Errno> {
    let features = features()?;
    let mut rings = Vec::new();
    let mut refused = None;
    while rings.len() < shards && refused.is_none() {
        match shard_ring() {
            Ok(ring) => rings.push(ring),
            Err(errno) => refused = Some(errno),
        }
    }
    let workers = rings.first().and_then(|(ring, _)| {
        // Zeros ask and change nothing.
        let mut workers = [0, 0];
        let asked = ring.submitter().register_iowq_max_workers(&mut workers);
        asked.ok().map(|()| (workers[0], workers[1]))
    });
    Ok(RingTrial {
        features,
        shard_rings: rings.len(),
        refused,
        workers,
    })
}

/// A ring with the sizes of [`Options::SHARD`]. The ring goes before its buffers do.
fn shard_ring() -> Result<(IoUring, Rc<BufferRing>), Errno> {
    let options = Options::SHARD;
    let ring = IoUring::builder()
        .setup_clamp()
        .setup_cqsize(options.entries * 8)
        .build(options.entries)
        .map_err(errno_of)?;
    let buffers = BufferRing::new(options.buffer_count, options.buffer_size).map_err(errno_of)?;
    // SAFETY: both leave this function together or the ring is dropped with nothing registered, and a
    // pair drops its first half first.
    let registered = unsafe {
        ring.submitter()
            .register_buf_ring_with_flags(buffers.address(), buffers.count(), GROUP, 0)
    };
    match registered.map_err(errno_of) {
        // EINVAL: a kernel without buffer rings, and that is another verdict.
        Ok(()) | Err(Errno::EINVAL) => Ok((ring, buffers)),
        Err(errno) => Err(errno),
    }
}

fn features() -> Result<Vec<RingFeature>, Errno> {
    let plain = IoUring::new(4).map_err(errno_of)?;
    let mut found = Vec::new();
    let mut note = |feature, has: bool| {
        if has {
            found.push(feature);
        }
    };
    let mut probe = Probe::new();
    let probed = plain.submitter().register_probe(&mut probe).is_ok();
    let knows = |code: &u8| probed && probe.is_supported(*code);
    let params = plain.params();
    note(RingFeature::Operations, OPERATIONS.iter().all(knows));
    note(RingFeature::TimedEnter, params.is_feature_ext_arg());
    let coop = IoUring::<io_uring::squeue::Entry, cqueue::Entry>::builder()
        .setup_coop_taskrun()
        .build(4)
        .is_ok();
    note(RingFeature::CoopTaskrun, coop);
    let defer = IoUring::<io_uring::squeue::Entry, cqueue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(4)
        .is_ok();
    note(RingFeature::DeferTaskrun, defer);
    note(
        RingFeature::ZeroCopySend,
        [opcode::SendZc::CODE, opcode::SendMsgZc::CODE]
            .iter()
            .all(knows),
    );
    note(RingFeature::Bundles, params.is_feature_recvsend_bundle());
    note(RingFeature::MinTimeout, params.is_feature_min_timeout());
    note(RingFeature::NoIoWait, params.is_feature_no_iowait());
    let (has_buffers, has_multishot) = try_receive(plain);
    note(RingFeature::BufferRings, has_buffers);
    note(RingFeature::MultishotReceive, has_multishot);
    found.sort_unstable();
    Ok(found)
}

/// Whether buffers can be registered, and whether a receive from a pair of sockets stays armed.
fn try_receive(mut ring: IoUring) -> (bool, bool) {
    let (Ok(buffers), Ok((mut near, far))) = (BufferRing::new(2, 4096), UnixStream::pair()) else {
        return (false, false);
    };
    // SAFETY: `buffers` is dropped after `ring`, see the end of this function.
    let registered = unsafe {
        ring.submitter()
            .register_buf_ring_with_flags(buffers.address(), buffers.count(), GROUP, 0)
    };
    if registered.is_err() {
        return (false, false);
    }
    let entry = opcode::RecvMulti::new(types::Fd(far.as_raw_fd()), GROUP).build();
    // SAFETY: the entry names no memory but the registered buffers.
    let pushed = unsafe { ring.submission().push(&entry) };
    let written = near.write_all(b"x");
    let patience = types::Timespec::new().nsec(PATIENCE_NS);
    let arguments = types::SubmitArgs::new().timespec(&patience);
    let waited = ring.submitter().submit_with_args(1, &arguments);
    let done = ring.completion().next();
    let is_armed = pushed.is_ok()
        && written.is_ok()
        && waited.is_ok()
        && done.is_some_and(|done| done.result() == 1 && cqueue::more(done.flags()));
    // The kernel lets go of the buffers with the ring.
    drop(ring);
    drop(buffers);
    (true, is_armed)
}

fn errno_of(err: std::io::Error) -> Errno {
    Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO))
}

//! What the ring of this kernel can do, found out by trying: set-up flags on small rings that are closed
//! again, the kernel's own list of operations, and a receive from a pair of sockets. The broker and the
//! doctor ask here, so there is one list. See kernel-notes/ring-setup.md.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use io_uring::{Builder, IoUring, Probe, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::super::buffers::{BufferRing, GROUP};
use super::super::residency;
use super::super::setup::{SetupError, once_freed};
use super::entering::{Door, RegisteredWait};
use crate::base::{Feature, Features};

/// What every ring of a broker must have; Linux 5.19 has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RingNeed {
    /// Every operation that the broker pushes is known.
    Operations,
    /// Submitting, waiting and giving up is one call.
    TimedEnter,
    /// Receive buffers that the kernel picks.
    BufferRings,
}

impl RingNeed {
    /// All.
    pub const ALL: [Self; 3] = [Self::Operations, Self::TimedEnter, Self::BufferRings];

    /// With the Linux that brought it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::TimedEnter => "timed enter (5.11)",
            Self::BufferRings => "buffer rings (5.19)",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is needed and not there.
    pub lacks: Vec<RingNeed>,
    /// What is there beyond that.
    pub features: Features,
    /// What is there and not used, and by which name the kernel knows it.
    pub unused: Vec<&'static str>,
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
const PATIENCE_NS: u64 = 200_000_000;

type Plain = Builder<squeue::Entry, cqueue::Entry>;

/// Looks, once in a process: a kernel does not change while it runs.
///
/// # Errors
/// The kernel's, when not even a plain ring could be had. That may change, and is asked for again.
pub(in crate::io) fn probe() -> Result<&'static Found, Errno> {
    static FOUND: OnceLock<Found> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found = look()?;
    Ok(FOUND.get_or_init(|| found))
}

/// What a ring and its files may use here, less what is masked.
pub(in crate::io) fn allowed(without: Features) -> Result<Features, SetupError> {
    let found = probe().map_err(|errno| SetupError::of("set up io_uring", &errno.into()))?;
    if found.lacks.is_empty() {
        return Ok(found.features.without(without));
    }
    let lacks: Vec<_> = found.lacks.iter().map(|need| need.name()).collect();
    Err(SetupError::lacking("set up io_uring", &lacks.join(", ")))
}

fn look() -> Result<Found, Errno> {
    let plain = small().map_err(errno_of)?;
    let mut probe = Probe::new();
    let probed = plain.submitter().register_probe(&mut probe).is_ok();
    let knows = |code: &u8| probed && probe.is_supported(*code);
    let params = plain.params();
    let has = |need: RingNeed| match need {
        RingNeed::Operations => OPERATIONS.iter().all(knows),
        RingNeed::TimedEnter => params.is_feature_ext_arg(),
        RingNeed::BufferRings => has_buffers(&plain),
    };
    let lacks: Vec<_> = RingNeed::ALL
        .into_iter()
        .filter(|need| !has(*need))
        .collect();
    let may = |feature: Feature| match feature {
        Feature::CoopTaskrun => opens(|ring| ring.setup_coop_taskrun()),
        Feature::SingleIssuer => opens(|ring| ring.setup_single_issuer()),
        Feature::DeferTaskrun => opens(|ring| ring.setup_single_issuer().setup_defer_taskrun()),
        Feature::NoSqarray => opens(|ring| ring.setup_no_sqarray()),
        Feature::MultishotAccept => accepts_again_and_again(),
        Feature::MultishotReceive => lacks.is_empty() && receives_again_and_again(),
        Feature::WorkerBound => {
            let asked = plain.submitter().register_iowq_max_workers(&mut [0, 0]);
            asked.is_ok()
        }
        Feature::RegisteredRing => Door::registered(&plain).is_some(),
        Feature::SendZc => [opcode::SendZc::CODE, opcode::SendMsgZc::CODE]
            .iter()
            .all(knows),
        Feature::RegisteredWait => waits_by_registered_memory(),
        Feature::NoIowait => params.is_feature_no_iowait(),
        Feature::Cachestat => residency::has_cachestat(),
        // A matter of each file: `uring/files.rs` learns it there, `file_trial.rs` tells it beforehand.
        Feature::DirectIo | Feature::Dontcache => true,
    };
    let features = Feature::ALL.into_iter().filter(|it| may(*it)).collect();
    let has_files = plain.submitter().register_files_sparse(1).is_ok();
    let has_buffers = plain.submitter().register_buffers_sparse(1).is_ok();
    let unused = [
        (has_files, "registered files (5.19)"),
        (has_buffers, "registered buffers (5.19)"),
        (params.is_feature_recvsend_bundle(), "bundles (6.10)"),
        (params.is_feature_min_timeout(), "gathering waits (6.12)"),
    ];
    let unused = unused.into_iter().filter(|(has, _)| *has);
    Ok(Found {
        lacks,
        features,
        unused: unused.map(|(_, name)| name).collect(),
    })
}

/// One ring for each thing that is tried: those before it are closed, and count as locked memory for a while.
fn small() -> std::io::Result<IoUring> {
    once_freed(|| IoUring::new(4))
}

fn opens(set: impl FnOnce(&mut Plain) -> &mut Plain) -> bool {
    let mut ring = IoUring::builder();
    set(&mut ring);
    once_freed(|| ring.build(4)).is_ok()
}

fn has_buffers(ring: &IoUring) -> bool {
    let Ok(buffers) = BufferRing::new(2, 4096) else {
        return false;
    };
    // SAFETY: `buffers` is alive until the kernel has let go of it, a line below.
    let registered = unsafe { buffers.register(ring) };
    registered.is_ok() && ring.submitter().unregister_buf_ring(GROUP).is_ok()
}

/// One submission of which the first completion is wanted.
fn first_completion(ring: &mut IoUring, entry: &squeue::Entry) -> Option<cqueue::Entry> {
    // SAFETY: the entries of this file name no memory but registered buffers.
    unsafe { ring.submission().push(entry) }.ok()?;
    let patience = types::Timespec::new().nsec(PATIENCE_NS as u32);
    let arguments = types::SubmitArgs::new().timespec(&patience);
    ring.submitter().submit_with_args(1, &arguments).ok()?;
    ring.completion().next()
}

/// Whether an accept may ask to stay armed. What is no socket shows it: a kernel that knows the flag finds
/// that out (ENOTSOCK), an older one refuses the flag before (EINVAL).
fn accepts_again_and_again() -> bool {
    let Ok(mut ring) = small() else {
        return false;
    };
    let no_socket = types::Fd(ring.as_raw_fd());
    let done = first_completion(&mut ring, &opcode::AcceptMulti::new(no_socket).build());
    done.is_some_and(|done| done.result() == -libc::ENOTSOCK)
}

/// Whether a receive from a pair of sockets stays armed.
fn receives_again_and_again() -> bool {
    let (Ok(mut ring), Ok(buffers)) = (small(), BufferRing::new(2, 4096)) else {
        return false;
    };
    let Ok((mut near, far)) = UnixStream::pair() else {
        return false;
    };
    // SAFETY: `buffers` is dropped after `ring`, see the end of this function.
    let registered = unsafe { buffers.register(&ring) };
    let entry = opcode::RecvMulti::new(types::Fd(far.as_raw_fd()), GROUP).build();
    let is_armed = registered.is_ok()
        && near.write_all(b"x").is_ok()
        && first_completion(&mut ring, &entry)
            .is_some_and(|done| done.result() == 1 && cqueue::more(done.flags()));
    // The kernel lets go of the buffers with the ring.
    drop(ring);
    drop(buffers);
    is_armed
}

/// Whether the kernel takes how long to wait from registered memory, and gives up in time.
fn waits_by_registered_memory() -> bool {
    let Ok(ring) = once_freed(|| IoUring::builder().setup_r_disabled().build(4)) else {
        return false;
    };
    let Some(wait) = RegisteredWait::new(&ring) else {
        return false;
    };
    if ring.submitter().register_enable_rings().is_err() {
        return false;
    }
    let door = Door::plain(&ring).by_registered_wait(wait);
    door.enter(0, 1, 1_000) == Err(Errno::ETIME)
}

fn errno_of(err: std::io::Error) -> Errno {
    Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO))
}

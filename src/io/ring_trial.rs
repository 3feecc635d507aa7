//! Whether this kernel lets this process have an io_uring, and what that ring can do. The ring is opened,
//! tried on a pair of sockets and closed again; see kernel-notes/ring-setup.md.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use nix::errno::Errno;

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

/// Opens a ring as small as can be and answers what it has.
///
/// # Errors
/// The kernel's, when not even a plain ring could be had.
pub fn try_ring() -> Result<Vec<RingFeature>, Errno> {
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

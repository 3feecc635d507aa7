//! Witnesses: whoever holds one knows that the kernel has it, because only the probe gives them out, less
//! what is masked (`--without`). Where one is missing, something slower stands in. See
//! kernel-notes/ring-setup.md.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use io_uring::{Builder, IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::super::buffers::GROUP;
use super::super::residency;
use super::super::setup::once_freed;
use super::entering::{Door, RegisteredWait};
use crate::base::{Feature, Features};

type Plain = Builder<squeue::Entry, cqueue::Entry>;

/// Threads of the kernel that one ring may have, for what blocks on a file: as many as a disk has use for,
/// however many CPUs there are (otherwise four for each CPU, and that for each shard). See
/// kernel-notes/registered-resources.md.
const WORKERS_OF_FILES: u32 = 16;
/// And for what may wait for ever, which is a splice to a peer that does not read (otherwise as many as
/// there may be processes). See kernel-notes/registered-resources.md.
const WORKERS_OF_SOCKETS: u32 = 256;

/// What a ring is asked for when it is opened.
pub(in crate::io) struct AtOpen {
    single_issuer: Option<SingleIssuer>,
    taskrun: Taskrun,
    no_sqarray: Option<NoSqarray>,
    worker_bound: Option<WorkerBound>,
    registered_ring: Option<RegisteredRing>,
    registered_wait: Option<WaitByRegion>,
    no_iowait: Option<NoIowait>,
}

/// What operations use.
pub(super) struct InUse {
    pub(super) multishot_accept: Option<MultishotAccept>,
    pub(super) multishot_receive: Option<MultishotReceive>,
    pub(super) send_zc: Option<SendZc>,
    pub(super) cachestat: Option<Cachestat>,
    pub(super) direct_io: Option<DirectIo>,
    pub(super) dontcache: Option<Dontcache>,
}

struct SingleIssuer(());
struct CoopTaskrun(());
struct NoSqarray(());
struct WorkerBound(());
struct RegisteredRing(());
struct WaitByRegion(());
struct NoIowait(());

/// The kernel takes this only from a single issuer.
struct DeferTaskrun(());

/// When the work behind completions is done.
enum Taskrun {
    /// When the thread asks.
    Deferred(DeferTaskrun),
    /// When the thread enters the kernel for whatever reason.
    Cooperative(CoopTaskrun),
    /// At once, and the thread is interrupted for it.
    Interrupting,
}

/// Sending (`IORING_OP_SEND_ZC`, `IORING_OP_SENDMSG_ZC`) from the memory of the process without a copy.
pub(super) struct SendZc(());

/// An accept that stays armed.
pub(super) struct MultishotAccept(());

/// Counting the pages of a range that the page cache holds (`cachestat`).
pub(super) struct Cachestat(());

/// Reads and writes past the page cache may be asked for. Whether a file has them its own descriptor proves.
pub(super) struct DirectIo(());

/// Reads that leave nothing in the page cache (`RWF_DONTCACHE`) may be asked for. Each may be refused still.
pub(super) struct Dontcache(());

impl Cachestat {
    pub(super) fn holds(&self, file: &File, at: u64, len: u64) -> Result<bool, Errno> {
        residency::by_cachestat(file, at, len)
    }
}

impl DirectIo {
    /// The same file once more, past the page cache.
    pub(super) fn open(&self, file: &File, writable: bool) -> Option<File> {
        open_again(file, writable, libc::O_DIRECT)
    }
}

/// Another descriptor with flags of its own. Through /proc, so that it is this file even when its name is gone.
pub(super) fn open_again(file: &File, writable: bool, flags: i32) -> Option<File> {
    OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()
}

impl Dontcache {
    pub(super) const fn flag(&self) -> i32 {
        libc::RWF_DONTCACHE
    }
}

impl MultishotAccept {
    pub(super) fn entry(&self, listener: types::Fd) -> squeue::Entry {
        let accept = opcode::AcceptMulti::new(listener);
        accept.flags(libc::SOCK_CLOEXEC).build()
    }
}

/// A receive that stays armed.
pub(super) struct MultishotReceive(());

impl MultishotReceive {
    pub(super) fn entry(&self, socket: types::Fd) -> squeue::Entry {
        opcode::RecvMulti::new(socket, GROUP).build()
    }
}

impl SendZc {
    pub(super) fn entry(
        &self,
        socket: types::Fd,
        message: *const libc::msghdr,
        flags: u32,
    ) -> squeue::Entry {
        opcode::SendMsgZc::new(socket, message).flags(flags).build()
    }
}

impl AtOpen {
    pub(in crate::io) fn of(allowed: Features) -> Self {
        let has = |feature| allowed.has(feature);
        let single_issuer = has(Feature::SingleIssuer).then_some(SingleIssuer(()));
        let taskrun = if single_issuer.is_some() && has(Feature::DeferTaskrun) {
            Taskrun::Deferred(DeferTaskrun(()))
        } else if has(Feature::CoopTaskrun) {
            Taskrun::Cooperative(CoopTaskrun(()))
        } else {
            Taskrun::Interrupting
        };
        Self {
            single_issuer,
            taskrun,
            no_sqarray: has(Feature::NoSqarray).then_some(NoSqarray(())),
            worker_bound: has(Feature::WorkerBound).then_some(WorkerBound(())),
            registered_ring: has(Feature::RegisteredRing).then_some(RegisteredRing(())),
            registered_wait: has(Feature::RegisteredWait).then_some(WaitByRegion(())),
            no_iowait: has(Feature::NoIowait).then_some(NoIowait(())),
        }
    }

    /// Opens a ring on the calling thread, which alone may use it.
    pub(in crate::io) fn open(&self, entries: u32) -> std::io::Result<(IoUring, Door)> {
        let mut ring: Plain = IoUring::builder();
        ring.setup_clamp().setup_cqsize(entries * 8);
        if let Some(SingleIssuer(())) = self.single_issuer {
            ring.setup_single_issuer();
        }
        match self.taskrun {
            // The flag tells a thread that stays awake when to ask.
            Taskrun::Deferred(DeferTaskrun(())) => ring.setup_defer_taskrun().setup_taskrun_flag(),
            Taskrun::Cooperative(CoopTaskrun(())) => ring.setup_coop_taskrun().setup_taskrun_flag(),
            Taskrun::Interrupting => &mut ring,
        };
        if let Some(NoSqarray(())) = self.no_sqarray {
            ring.setup_no_sqarray();
        }
        if let Some(WaitByRegion(())) = self.registered_wait {
            ring.setup_r_disabled();
        }
        let ring = once_freed(|| ring.build(entries))?;
        let door = self.door(&ring)?;
        if let Some(WorkerBound(())) = self.worker_bound {
            let mut workers = [WORKERS_OF_FILES, WORKERS_OF_SOCKETS];
            ring.submitter().register_iowq_max_workers(&mut workers)?;
        }
        Ok((ring, door))
    }

    /// The cheapest way to enter the ring. A table that is full and memory that cannot be pinned cost a
    /// little speed and no start.
    fn door(&self, ring: &IoUring) -> std::io::Result<Door> {
        let mut wait = None;
        if let Some(WaitByRegion(())) = self.registered_wait {
            wait = RegisteredWait::new(ring);
            ring.submitter().register_enable_rings()?;
        }
        let registered = match self.registered_ring {
            Some(RegisteredRing(())) => Door::registered(ring),
            None => None,
        };
        let mut door = registered.unwrap_or_else(|| Door::plain(ring));
        if let Some(wait) = wait {
            door = door.by_registered_wait(wait);
        }
        if let Some(NoIowait(())) = self.no_iowait {
            door = door.without_iowait();
        }
        Ok(door)
    }
}

impl InUse {
    pub(super) fn of(allowed: Features) -> Self {
        let has = |feature| allowed.has(feature);
        Self {
            multishot_accept: has(Feature::MultishotAccept).then_some(MultishotAccept(())),
            multishot_receive: has(Feature::MultishotReceive).then_some(MultishotReceive(())),
            send_zc: has(Feature::SendZc).then_some(SendZc(())),
            cachestat: has(Feature::Cachestat).then_some(Cachestat(())),
            direct_io: has(Feature::DirectIo).then_some(DirectIo(())),
            dontcache: has(Feature::Dontcache).then_some(Dontcache(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::probe;
    use super::*;

    /// What was masked is not asked for, and what was found is.
    #[test]
    fn a_ring_is_opened_with_what_was_found_less_what_is_masked() {
        let found = probe().unwrap().features;
        let (ring, door) = AtOpen::of(Features::NONE).open(8).unwrap();
        assert!(!ring.params().is_setup_single_issuer());
        assert_eq!(door.ways(), (false, false, false));
        let (ring, door) = AtOpen::of(found).open(8).unwrap();
        let mut workers = [0, 0]; // Asks and changes nothing.
        let submitter = ring.submitter();
        submitter.register_iowq_max_workers(&mut workers).unwrap();
        if found.has(Feature::WorkerBound) {
            assert_eq!(workers, [WORKERS_OF_FILES, WORKERS_OF_SOCKETS]);
        }
        let has = |feature| found.has(feature);
        assert_eq!(
            ring.params().is_setup_single_issuer(),
            has(Feature::SingleIssuer)
        );
        let ways = (
            has(Feature::RegisteredRing),
            has(Feature::RegisteredWait),
            has(Feature::NoIowait),
        );
        assert_eq!(door.ways(), ways);
        let masked: Features = [Feature::MultishotReceive].into_iter().collect();
        let in_use = InUse::of(found.without(masked));
        assert!(in_use.multishot_receive.is_none());
        assert_eq!(
            in_use.multishot_accept.is_some(),
            has(Feature::MultishotAccept)
        );
    }

    /// A thread has 16 places for rings: more rings work too, and places are given back.
    #[test]
    fn rings_beyond_the_table_of_their_thread_are_entered_by_descriptor() {
        let found = probe().unwrap().features;
        for _ in 0..2 {
            let rings: Vec<_> = (0..20)
                .map(|_| {
                    let (ring, door) = AtOpen::of(found).open(4).unwrap();
                    (door, ring)
                })
                .collect();
            for (door, _) in &rings {
                assert_eq!(door.enter(0, 1, 1_000), Err(Errno::ETIME));
            }
            let registered = rings.iter().filter(|(door, _)| door.ways().0).count();
            let wanted = if found.has(Feature::RegisteredRing) {
                16
            } else {
                0
            };
            assert_eq!(registered, wanted);
        }
    }
}

//! Waking a ring from another thread.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A handle that wakes one ring. Cheap to clone, safe to ring from any thread.
#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    eventfd: EventFd,
    /// Rung by a person at the door (`ring`), not by a lane.
    rung: AtomicBool,
    /// A wake-up is under way: further rings need no system call.
    pending: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> nix::Result<Self> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Arc::new(Inner {
            eventfd,
            rung: AtomicBool::new(false),
            pending: AtomicBool::new(false),
        })))
    }

    /// Makes the ring complete its [`super::Op::Bell`].
    pub fn ring(&self) {
        self.0.rung.store(true, Ordering::Release);
        self.ring_internal();
    }

    pub(super) fn ring_internal(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            // A full counter (EAGAIN) means that the ring is woken anyway.
            let _ = self.0.eventfd.write(1);
        }
    }

    /// Takes the wake-up; answers whether somebody rang at the door.
    pub(super) fn answer(&self) -> bool {
        // Cleared before the inboxes are looked at: who comes later rings again.
        let _ = self.0.eventfd.read();
        self.0.pending.store(false, Ordering::Release);
        self.0.rung.swap(false, Ordering::AcqRel)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }
}

//! The provided-buffer ring: memory that the kernel takes from only when a peer has sent something,
//! so that idle connections cost no buffer. See kernel-notes/accept-and-receive.md.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

use super::lease::{Lease, Pool};
use super::setup::once_freed;

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// So many more than were taken last are offered: as often a receive reads on before the kernel looks at the next one.
const MORE: u16 = 32;

/// Buffers and the ring through which the kernel gets them back.
///
/// The kernel takes them in turn, so that with all of them offered each comes back when the caches have long forgotten
/// it. Only as many are offered as were wanted of late, and those first that were given back last.
pub(super) struct BufferRing {
    entries: MmapMut,
    memory: MmapMut,
    count: u16,
    size: u32,
    /// Mirror of the tail that the kernel reads.
    tail: Cell<u16>,
    /// Buffers that nobody has, the one given back last at the end.
    spare: RefCell<Vec<u16>>,
    /// Buffers that the kernel has.
    offered: Cell<u16>,
    /// Buffers that it was found to have taken since the last [`Self::offer`].
    taken: Cell<u16>,
    /// Buffers that it is to have.
    wanted: Cell<u16>,
}

impl BufferRing {
    /// `count` (a power of two) buffers of `size` bytes; pages are taken from the machine at first use.
    pub(super) fn new(count: u16, size: u32) -> std::io::Result<Rc<Self>> {
        assert!(count.is_power_of_two());
        let entries = MmapMut::map_anon(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = MmapMut::map_anon(usize::from(count) * size as usize)?;
        let ring = Rc::new(Self {
            entries,
            memory,
            count,
            size,
            tail: Cell::new(0),
            spare: RefCell::new((0..count).rev().collect()),
            offered: Cell::new(0),
            taken: Cell::new(0),
            wanted: Cell::new(0),
        });
        ring.offer();
        Ok(ring)
    }

    /// Gives them to a ring.
    ///
    /// # Safety
    /// They stay until the ring has gone, or has let go of them.
    pub(super) unsafe fn register(&self, ring: &IoUring) -> std::io::Result<()> {
        once_freed(|| {
            // SAFETY: the caller's promise.
            unsafe {
                ring.submitter()
                    .register_buf_ring_with_flags(self.address(), self.count, GROUP, 0)
            }
        })
    }

    /// Address of the ring, for its registration; page-aligned because it is a map of its own.
    fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Bytes of each.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// A lease of a buffer that the kernel has just filled.
    pub(super) fn lease(self: &Rc<Self>, buffer: u16, len: usize) -> Lease {
        assert!(buffer < self.count && len <= self.size as usize);
        self.offered.set(self.offered.get() - 1);
        self.taken.set(self.taken.get() + 1);
        let pool: Rc<dyn Pool> = Rc::<Self>::clone(self);
        Lease::of_ring(pool, buffer, len)
    }

    /// The kernel found none: it is to have all that there are.
    pub(super) fn ran_out(&self) {
        self.wanted.set(self.count);
    }

    /// Gives the kernel what it may want before the next time. What it is to have grows at once and shrinks slowly.
    pub(super) fn offer(&self) {
        let taken = self.taken.take();
        let enough = self.count.min(taken.saturating_add(taken / 2 + MORE));
        let wanted = enough.max(self.wanted.get().saturating_sub(1));
        self.wanted.set(wanted);
        let mut spare = self.spare.borrow_mut();
        while self.offered.get() < wanted
            && let Some(buffer) = spare.pop()
        {
            self.put_in(buffer);
        }
    }

    fn start(&self, buffer: u16) -> NonNull<u8> {
        let at = usize::from(buffer) * self.size as usize;
        NonNull::from(&self.memory[at])
    }

    fn put_in(&self, buffer: u16) {
        self.offered.set(self.offered.get() + 1);
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        let base = self.entries.as_ptr().cast::<BufRingEntry>().cast_mut();
        // SAFETY: `slot` is below `count`, and `entries` has room for `count` entries. The kernel
        // reads an entry only after the tail below has passed it.
        let entry = unsafe { &mut *base.add(slot) };
        entry.set_addr(self.start(buffer).as_ptr() as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: `base` is the start of the ring; the tail lies inside its first entry.
        let published = unsafe { BufRingEntry::tail(base) }.cast::<AtomicU16>();
        // SAFETY: the kernel reads this field with an acquire load; it is two-byte aligned memory of
        // ours that lives as long as the ring.
        unsafe { &*published }.store(self.tail.get(), Ordering::Release);
    }
}

impl Pool for BufferRing {
    fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        // SAFETY: the kernel gave this buffer up with the completion and gets it back only when the
        // lease is dropped, so nobody writes to it while the slice lives.
        unsafe { std::slice::from_raw_parts(self.start(buffer).as_ptr(), len) }
    }

    fn give_back(&self, buffer: u16) {
        self.spare.borrow_mut().push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The kernel's side: takes buffers from the ring in the order in which they were put in.
    struct Kernel {
        ring: Rc<BufferRing>,
        head: u16,
    }

    impl Kernel {
        fn of(count: u16) -> Self {
            let ring = BufferRing::new(count, 4096).unwrap();
            Self { ring, head: 0 }
        }

        fn has(&self) -> u16 {
            self.ring.tail.get().wrapping_sub(self.head)
        }

        fn take(&mut self) -> (u16, Lease) {
            assert_ne!(self.head, self.ring.tail.get(), "there is none");
            let slot = usize::from(self.head & (self.ring.count - 1));
            self.head = self.head.wrapping_add(1);
            let at = self.ring.entries.as_ptr().cast::<BufRingEntry>();
            // SAFETY: the slot was filled by `put_in`.
            let buffer = unsafe { (*at.add(slot)).bid() };
            (buffer, self.ring.lease(buffer, 1))
        }
    }

    #[test]
    fn what_was_given_back_last_is_offered_first() {
        let mut kernel = Kernel::of(128);
        assert_eq!(kernel.has(), MORE);
        let taken: Vec<_> = (0..4).map(|_| kernel.take()).collect();
        let numbers: Vec<_> = taken.iter().map(|(buffer, _)| *buffer).collect();
        drop(taken);
        kernel.ring.offer();
        assert_eq!(kernel.has(), 4 + 2 + MORE);
        // Those that it had not taken come first.
        for _ in 4..MORE {
            kernel.take();
        }
        let next: Vec<_> = (0..4).map(|_| kernel.take().0).collect();
        assert_eq!(next, numbers.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn as_many_are_offered_as_were_wanted_of_late() {
        let mut kernel = Kernel::of(128);
        let mut used = BTreeSet::new();
        for _ in 0..1_000 {
            used.insert(kernel.take().0);
            kernel.ring.offer();
        }
        assert!(used.len() <= usize::from(MORE) + 2, "{}", used.len());
        // It found none: it gets them all, and goes on having many for a while.
        kernel.ring.ran_out();
        kernel.ring.offer();
        assert_eq!(kernel.has(), 127);
        let held: Vec<_> = (0..100).map(|_| kernel.take()).collect();
        kernel.ring.offer();
        assert_eq!(kernel.has(), 28);
        drop(held);
        kernel.ring.offer();
        assert_eq!(kernel.has(), 127);
        for _ in 0..120 {
            let _ = kernel.take();
            kernel.ring.offer();
        }
        assert!(kernel.has() < 40, "{}", kernel.has());
    }

    #[test]
    fn no_buffer_is_in_two_hands() {
        let mut kernel = Kernel::of(16);
        let mut held = Vec::new();
        for round in 0u32..5_000 {
            if round % 7 < 4 && 0 < kernel.has() {
                held.push(kernel.take());
            } else if !held.is_empty() {
                held.swap_remove(round as usize % held.len());
            }
            if round % 50 == 0 {
                kernel.ring.ran_out();
            }
            kernel.ring.offer();
            let numbers: BTreeSet<_> = held.iter().map(|(buffer, _)| *buffer).collect();
            assert_eq!(numbers.len(), held.len());
            assert!(usize::from(kernel.has()) + held.len() <= 16);
        }
    }
}

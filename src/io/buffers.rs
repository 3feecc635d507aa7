//! The provided-buffer ring: memory that the kernel takes from only when a peer has sent something,
//! so that idle connections cost no buffer. See kernel-notes/accept-and-receive.md.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

use super::lease::{Lease, Pool};

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// Buffers and the ring through which the kernel gets them back.
pub(super) struct BufferRing {
    entries: MmapMut,
    memory: MmapMut,
    count: u16,
    size: u32,
    /// Mirror of the tail that the kernel reads.
    tail: Cell<u16>,
    /// Buffers that leases hold now.
    leased: Cell<u16>,
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
            leased: Cell::new(0),
        });
        for buffer in 0..count {
            ring.offer(buffer);
        }
        Ok(ring)
    }

    /// Address of the ring, for its registration; page-aligned because it is a map of its own.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of each.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// A lease of a buffer that the kernel has just filled.
    pub(super) fn lease(self: &Rc<Self>, buffer: u16, len: usize) -> Lease {
        assert!(buffer < self.count && len <= self.size as usize);
        self.leased.set(self.leased.get() + 1);
        let pool: Rc<dyn Pool> = Rc::<Self>::clone(self);
        Lease::of_ring(pool, buffer, len)
    }

    fn start(&self, buffer: u16) -> NonNull<u8> {
        let at = usize::from(buffer) * self.size as usize;
        NonNull::from(&self.memory[at])
    }

    fn offer(&self, buffer: u16) {
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
        self.leased.set(self.leased.get() - 1);
        self.offer(buffer);
    }
}

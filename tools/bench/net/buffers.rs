//! Buffers that the kernel picks from when something comes: a receive that waits has none, so one
//! request per connection serves for its whole life.
#![allow(unsafe_code)] // The kernel is told addresses; each place says who owns what.

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};
use memmap2::MmapMut;
use std::sync::atomic::{AtomicU16, Ordering};

pub const GROUP: u16 = 0;
const COUNT: u16 = 512;
const SIZE: usize = 16 << 10;
const _: () = assert!(COUNT.is_power_of_two() && size_of::<BufRingEntry>() == 16);

pub struct Buffers {
    /// The ring by which buffers are given to the kernel: page-aligned, as it wants.
    entries: MmapMut,
    bytes: MmapMut,
    tail: u16,
}

impl Buffers {
    /// None where the kernel does not take them (before 5.19).
    pub fn register(ring: &IoUring) -> Option<Buffers> {
        let entries = MmapMut::map_anon(usize::from(COUNT) * size_of::<BufRingEntry>()).ok()?;
        let bytes = MmapMut::map_anon(usize::from(COUNT) * SIZE).ok()?;
        let mut buffers = Buffers {
            entries,
            bytes,
            tail: 0,
        };
        let addr = buffers.entries.as_mut_ptr() as u64;
        // SAFETY: the mapping is page-aligned, has COUNT entries, and `Ring` drops the ring, which
        // ends the kernel's use of it, before these buffers.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(addr, COUNT, GROUP, 0)
        }
        .ok()?;
        (0..COUNT).for_each(|id| buffers.give(id));
        Some(buffers)
    }

    /// What a completion brought.
    pub fn bytes(&self, flags: u32, count: usize) -> Option<(u16, &[u8])> {
        let id = cqueue::buffer_select(flags)?;
        let at = usize::from(id) * SIZE;
        Some((id, &self.bytes[at..at + count]))
    }

    /// Gives a buffer to the kernel.
    pub fn give(&mut self, id: u16) {
        let addr = self.bytes[usize::from(id) * SIZE..].as_ptr() as u64;
        let at = usize::from(self.tail & (COUNT - 1));
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `at` is below COUNT, so the entry lies in the mapping; the kernel reads it only
        // once the tail has passed it, and the tail lies in the first entry, which is in the
        // mapping too and aligned for 16 bits.
        unsafe {
            let entry = &mut *base.add(at);
            entry.set_addr(addr);
            entry.set_len(SIZE as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

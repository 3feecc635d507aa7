//! A buffer that somebody owns right now.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// Where the buffers of a provided-buffer ring go back to. Only the ring makes one.
pub(super) trait Pool {
    /// The bytes of a buffer that the kernel has filled and let go.
    fn bytes(&self, buffer: u16, len: usize) -> &[u8];
    /// Gives the buffer back to the kernel.
    fn give_back(&self, buffer: u16);
}

enum Owner {
    Ring {
        pool: Rc<dyn Pool>,
        buffer: u16,
        len: usize,
    },
    Heap(Vec<u8>),
}

/// Received bytes. Dropping the lease gives the buffer back to the kernel, so hold it briefly.
pub struct Lease(Owner);

impl Lease {
    /// A lease of bytes that no kernel wants back; for the simulator.
    #[must_use]
    pub const fn of(bytes: Vec<u8>) -> Self {
        Self(Owner::Heap(bytes))
    }

    pub(super) fn of_ring(pool: Rc<dyn Pool>, buffer: u16, len: usize) -> Self {
        Self(Owner::Ring { pool, buffer, len })
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Owner::Ring { pool, buffer, len } => pool.bytes(*buffer, *len),
            Owner::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Owner::Ring { pool, buffer, .. } = &self.0 {
            pool.give_back(*buffer);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Lease({} bytes)", self.len())
    }
}

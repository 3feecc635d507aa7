//! What a ring is built with.

use crate::base::Features;

/// What a ring is built with.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Entries of the submission queue; the completion queue has eight times as many.
    pub entries: u32,
    /// Receive buffers, a power of two.
    pub buffer_count: u16,
    /// Bytes of each.
    pub buffer_size: u32,
    /// Operations in flight at most.
    pub in_flight_max: usize,
    /// Before it sleeps, a turn may stay awake so long, where that pays; 0 = never. Only for a thread that
    /// has its CPU to itself.
    pub spin_ns_max: u64,
    /// Whether somebody waits for what workers do: then the thread gives its CPU away once after each entry that
    /// gave a worker something to do.
    pub workers_first: bool,
    /// Masked: not used even where the kernel has it.
    pub without: Features,
}

impl Options {
    /// Of a shard. 128 buffers of 32 KiB: 4 MiB when all are in use, and a 1 KiB send of each of 64
    /// connections with 8 in flight fits into one buffer. See kernel-notes/accept-and-receive.md.
    pub const SHARD: Self = Self {
        entries: 1024,
        buffer_count: 128,
        buffer_size: 32 << 10,
        in_flight_max: 1 << 17,
        spin_ns_max: 0,
        workers_first: false,
        without: Features::NONE,
    };
    /// Of a name server's thread.
    pub const SMALL: Self = Self {
        entries: 128,
        buffer_count: 32,
        buffer_size: 8 << 10,
        in_flight_max: 1 << 15,
        spin_ns_max: 0,
        workers_first: false,
        without: Features::NONE,
    };

    /// The same with some features masked.
    #[must_use]
    pub const fn without(self, without: Features) -> Self {
        Self { without, ..self }
    }
}

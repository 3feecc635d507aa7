//! How much of a shard its peers may take.

/// Bounds of a shard's connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at most; further ones are closed as soon as they are accepted.
    pub connections_max: usize,
    /// Bytes that wait to be sent to one peer before nothing more is read from it.
    pub unsent_max: usize,
    /// Bytes of requests that one peer may have executed in a turn; what came beyond waits for the next
    /// turn, and nothing more is read meanwhile.
    pub turn_max: usize,
    /// Nanoseconds that the requests of one peer may take in a turn; a piece that was begun is finished.
    /// Small requests are many in few bytes.
    pub turn_ns_max: u64,
    /// Bytes of frames that are not whole, over all connections.
    pub carry_total_max: usize,
    /// A connection without a byte in either direction is closed after this long.
    pub idle_ns_max: u64,
    /// A frame that was begun must go on within this time.
    pub frame_ns_max: u64,
}

impl Limits {
    /// As RocketMQ has them where it has them: idle 120 s (P§1.2).
    #[must_use]
    pub const fn for_connections(connections_max: usize) -> Self {
        Self {
            connections_max,
            unsent_max: 8 << 20,
            turn_max: 512 << 10,
            turn_ns_max: 500_000,
            carry_total_max: 512 << 20,
            idle_ns_max: 120_000_000_000,
            frame_ns_max: 30_000_000_000,
        }
    }
}

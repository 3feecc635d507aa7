//! Listeners and connections: bytes in, whole frames out to whoever asks, replies back in order.

mod connection;
mod frames;

pub use connection::{Event, Limits, Net, NetCounters};
pub use frames::{FrameSize, Frames};

/// This room's byte in tokens.
pub const ROOM: u8 = 1;

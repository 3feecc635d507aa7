//! Listeners and connections: bytes in, whole frames out to whoever asks, replies back in order.

mod connection;
mod frames;
mod limits;

pub use connection::{Event, Net, NetCounters};
pub use frames::{FrameSize, Frames, Place};
pub use limits::Limits;

/// This room's byte in tokens.
pub const ROOM: u8 = 1;

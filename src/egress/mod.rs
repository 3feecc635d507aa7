//! How bytes leave: one small file per way, one choice between them, one operation in flight a connection.

mod choice;
mod cold;
mod copy;
mod delivery;
mod gather;
mod sendfile;
mod splice;

pub use choice::{Policy, Way};
pub use cold::Unsettled;
pub use delivery::{Delivery, Egress, Progress, WAYS};

/// This room's byte in tokens.
pub const ROOM: u8 = 4;

/// Likewise, of reads that deliveries share.
pub const COLD_ROOM: u8 = 7;

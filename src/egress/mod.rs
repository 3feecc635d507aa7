//! How bytes leave: one small file per way, one choice between them, one operation in flight a connection.

mod choice;
mod copy;
mod delivery;
mod gather;
mod sendfile;
mod splice;

pub use choice::{Policy, Way};
pub use delivery::{Delivery, Egress, Progress, WAYS};

/// This room's byte in tokens.
pub const ROOM: u8 = 4;

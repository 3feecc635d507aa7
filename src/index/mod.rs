//! Derived files: ConsumeQueues and IndexFile. Never evidence against the log; deleted, they are rebuilt.

mod consume_queue;
pub mod index_file;
mod queues;
mod windows;

pub use consume_queue::{Batch, ConsumeQueue, HOLE_SIZE, Look, UNIT_SIZE, Unit, Wanted};
pub use index_file::{Index, Names};
pub use queues::{QueueIndex, Queues, ROOM};

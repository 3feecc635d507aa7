//! Derived files: ConsumeQueues and IndexFile. Never evidence against the log; deleted, they are rebuilt.

mod consume_queue;
mod queues;

pub use consume_queue::{Batch, ConsumeQueue, HOLE_SIZE, Look, UNIT_SIZE, Unit, Wanted};
pub use queues::{QueueIndex, Queues, ROOM};

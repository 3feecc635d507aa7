//! The broker as a whole: what starts, registers and stops its shards.

mod checkpoint;
mod control;
mod indexes;
mod launch;
mod layout;
mod names;
mod open;
pub mod registration;
mod retention;
mod saving;
mod settings_change;
mod sharing;
mod stalls;
mod start;
mod worker;
mod writing;

pub use names::serve as serve_names;
pub use start::serve;

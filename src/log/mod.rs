//! The truth: records, and the CommitLog that they are appended to.

mod commit_log;
mod flush;
pub mod record;
mod recovery;
mod segments;

pub use commit_log::{CommitLog, Failed, HORIZON_AHEAD_MAX, NoRoom, Options, ROOM, is_weather};
pub use flush::{Decision, FlushPolicy, Pressure};
pub use recovery::{Found, Mark, RecoveryError, Walker, open_segments, recover, run_one};
pub use segments::{Segment, Segments, file_name, parse_file_name};

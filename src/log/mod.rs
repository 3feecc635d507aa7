//! The truth: records, and the CommitLog that they are appended to.

mod commit_log;
mod cut;
mod flush;
mod group;
mod options;
pub mod record;
mod recovery;
mod segments;

pub use commit_log::{CommitLog, Failed, NoRoom, ROOM, is_weather};
pub use flush::{Decision, FlushPolicy, Pressure};
pub use options::{Append, Mutant, Options};
pub use recovery::{
    Found, Mark, RecoveryError, Walker, open_segments, recover, recover_mutant, run_one,
};
pub use segments::{Segment, Segments, file_name, parse_file_name};

//! The truth: records, and the CommitLog that they are appended to.

pub mod record;

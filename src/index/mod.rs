//! Derived files: dispatch, ConsumeQueue, IndexFile. Never evidence against the log.

pub mod index_file;

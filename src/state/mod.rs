//! Files of settings to and from plain values; the only room that knows JSON on disk.
//!
//! Pure functions: who calls them reads and replaces the files. Each file has a module with `decode` and
//! `encode`. What they write Apache's broker reads, and what it writes they read, with all its liberties:
//! integer names without quotes, missing tables, fields of other versions (which are kept).

pub mod checkpoint;
pub mod delay;
mod fields;
pub mod groups;
mod json;
pub mod offsets;
pub mod shards;
pub mod topics;

pub use fields::Kept;

/// Why a file could not be read: which, where in it, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}, column {column}: {why}")]
pub struct StateError {
    /// What kind of file, by its usual name.
    pub file: &'static str,
    /// From 1. For the checkpoint, which has no lines: 1.
    pub line: usize,
    /// In characters, from 1. For the checkpoint: the byte behind its end.
    pub column: usize,
    /// What was found or missing.
    pub why: String,
}

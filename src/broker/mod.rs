//! The broker as a whole: what starts, registers and stops its shards.

pub mod registration;

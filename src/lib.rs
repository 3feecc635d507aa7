//! Corelane: a message broker for bare-metal Linux that unmodified RocketMQ clients use.
//!
//! The rooms and who may import whom: README.md, and `tests/tidy.rs`, which holds them apart.

pub mod base;
pub mod broker;
pub mod cli;
pub mod command;
pub mod config;
pub mod doctor;
pub mod egress;
pub mod index;
pub mod io;
pub mod log;
pub mod logging;
pub mod nameserver;
pub mod net;
pub mod protocol;
pub mod shard;
pub mod sim;
pub mod state;
pub mod stats;

//! Corelane: a message broker for bare-metal Linux that unmodified RocketMQ clients use.
//!
//! The rooms and who may import whom: README.md, and `tests/tidy.rs`, which holds them apart.

pub mod base;
pub mod cli;
pub mod command;
pub mod config;
pub mod index;
pub mod io;
pub mod logging;
pub mod nameserver;
pub mod protocol;
pub mod sim;
pub mod state;

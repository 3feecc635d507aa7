//! Replays recorded conversations of stock clients: the replayer's parts.

pub mod broker;
pub mod codes;
pub mod compare;
pub mod connection;
pub mod differences;
pub mod frame;
pub mod learned;
pub mod loose;
pub mod plan;
pub mod prepare;
pub mod record;
pub mod recording;
pub mod replay;
pub mod setup;

//! RocketMQ's NameServer as a pure state machine: who the brokers are, which queues they have, and the
//! answers to the requests about that. It neither reads sockets nor clocks nor files: frames, times and
//! stored bytes are handed in, answers and bytes to store are handed out.

pub mod body;
pub mod kv;
pub mod requests;
pub mod route;
pub mod server;
pub mod table;

pub use server::{NameServer, Settings};

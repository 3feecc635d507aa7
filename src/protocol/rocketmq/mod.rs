//! RocketMQ remoting: frames, headers, one file per family of requests. Pure functions.

pub mod codes;
pub mod frame;
mod header_json;

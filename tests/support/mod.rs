//! What tests of a running broker share: starting brokers and client programs, and asking the broker directly.

pub mod broker;
pub mod process;
pub mod program;
pub mod remoting;

use std::time::{Duration, Instant};

/// Asks `done` every 100 ms until it says yes; false when the time is up.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if end < Instant::now() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

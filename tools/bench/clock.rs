//! The one clock that latencies are taken from, and the wall clock that the protocol asks for.

use nix::time::{ClockId, clock_gettime};

pub const SECOND_NS: u64 = 1_000_000_000;

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("Linux has had these clocks since 2.6");
    time.tv_sec() as u64 * SECOND_NS + time.tv_nsec() as u64
}

/// CLOCK_MONOTONIC, shared by all processes of a machine.
pub fn now_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

pub fn wall_ms() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME) / 1_000_000
}

pub fn seconds_ns(seconds: f64) -> u64 {
    (seconds * SECOND_NS as f64) as u64
}

/// A number that differs from run to run: time and process.
pub fn run_id() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME) << 8 ^ u64::from(std::process::id())
}

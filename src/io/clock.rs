//! The clocks of a shard: a monotonic one that decides, and a wall clock that never goes back.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Look at the machine's wall clock again after this long.
const RECHECK_NS: u64 = 1_000_000_000;

/// Wall time is wall time at an anchor plus monotonic time since. The anchor is renewed once a second:
/// where the machine has stepped ahead, ours jumps to it; where it has stepped back, ours stands still
/// until both agree. So it never goes back. The anchor is kept in nanoseconds: cut to milliseconds it would
/// lag behind by another part of one after each renewal, and a delayed message would arrive early by that.
///
/// Both stand still between two ticks, of which each turn of a ring has one: a turn sees one time, and a
/// request does not pay for looking.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    now_ns: Cell<u64>,
    /// Wall time less monotonic time, as of the last look at the machine's wall clock.
    ahead_ns: Cell<u64>,
    /// Last value given out.
    last_ms: Cell<u64>,
    checked_ns: Cell<u64>,
}

fn machine_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

impl Clock {
    pub(super) fn start() -> Self {
        let started = Instant::now();
        let wall_ns = machine_ns();
        Self {
            started,
            now_ns: Cell::new(0),
            ahead_ns: Cell::new(wall_ns),
            last_ms: Cell::new(wall_ns / 1_000_000),
            checked_ns: Cell::new(0),
        }
    }

    pub(super) const fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(super) fn look_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    pub(super) const fn wall_ms(&self) -> u64 {
        self.last_ms.get()
    }

    pub(super) fn tick(&self) {
        let now_ns = self.look_ns();
        self.now_ns.set(now_ns);
        if RECHECK_NS <= now_ns - self.checked_ns.get() {
            self.checked_ns.set(now_ns);
            self.ahead_ns.set(machine_ns().saturating_sub(now_ns));
        }
        let wall_ms = (self.ahead_ns.get() + now_ns) / 1_000_000;
        self.last_ms.set(wall_ms.max(self.last_ms.get()));
    }
}

/// The hour of the day where this machine stands, 0 to 23.
#[must_use]
#[allow(unsafe_code)]
pub fn local_hour(wall_ms: u64) -> u8 {
    let seconds = (wall_ms / 1000) as libc::time_t;
    // SAFETY: all zeros is a valid `tm`.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values that outlive the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    u8::try_from(parts.tm_hour).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_never_behind_the_machines() {
        let clock = Clock::start();
        // Over many borders between milliseconds.
        while clock.look_ns() < 30_000_000 {
            let before_ms = machine_ns() / 1_000_000;
            clock.tick();
            assert!(before_ms <= clock.wall_ms(), "behind {before_ms}");
        }
    }

    #[test]
    fn both_clocks_stand_still_between_two_ticks() {
        let clock = Clock::start();
        clock.tick();
        let (now_ns, wall_ms) = (clock.now_ns(), clock.wall_ms());
        while clock.look_ns() < now_ns + 2_000_000 {}
        assert_eq!((clock.now_ns(), clock.wall_ms()), (now_ns, wall_ms));
        clock.tick();
        assert!(now_ns < clock.now_ns() && wall_ms < clock.wall_ms());
    }
}

//! The clocks of a shard: a monotonic one that decides, and a wall clock that never goes back.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Look at the machine's wall clock again after this long.
const RECHECK_NS: u64 = 1_000_000_000;

/// Wall time is wall time at an anchor plus monotonic time since. The anchor is renewed once a second:
/// where the machine has stepped ahead, ours jumps to it; where it has stepped back, ours stands still
/// until both agree. So it never goes back.
///
/// Both stand still between two ticks, of which each turn of a ring has one: a turn sees one time, and a
/// request does not pay for looking.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    now_ns: Cell<u64>,
    /// Wall milliseconds at `anchor_ns`.
    anchor_ms: Cell<u64>,
    anchor_ns: Cell<u64>,
    /// Last value given out.
    last_ms: Cell<u64>,
    checked_ns: Cell<u64>,
}

fn machine_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

impl Clock {
    pub(super) fn start() -> Self {
        let now = machine_ms();
        Self {
            started: Instant::now(),
            now_ns: Cell::new(0),
            anchor_ms: Cell::new(now),
            anchor_ns: Cell::new(0),
            last_ms: Cell::new(now),
            checked_ns: Cell::new(0),
        }
    }

    pub(super) const fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(super) const fn wall_ms(&self) -> u64 {
        self.last_ms.get()
    }

    pub(super) fn tick(&self) {
        let now_ns = self.started.elapsed().as_nanos() as u64;
        self.now_ns.set(now_ns);
        if RECHECK_NS <= now_ns - self.checked_ns.get() {
            self.checked_ns.set(now_ns);
            self.anchor_ms.set(machine_ms());
            self.anchor_ns.set(now_ns);
        }
        let ours = self.anchor_ms.get() + (now_ns - self.anchor_ns.get()) / 1_000_000;
        let wall = ours.max(self.last_ms.get());
        self.last_ms.set(wall);
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

//! Waiting awake for a moment before sleeping, where that pays. See kernel-notes/cores.md.

use nix::sys::resource::{UsageWho, getrusage};

/// A wait that ends within the bound earns one, one that does not costs some.
const CREDIT_MAX: i32 = 16;
/// From here on it is worth while.
const CREDIT_TO_SPIN: i32 = 8;
const MISS: i32 = 4;

/// The scheduler is asked this often (in spins) whether somebody else wants the CPU.
const CHECK_EVERY: u32 = 64;
/// Somebody does: no spinning for so long, twice as long the next time.
const OFF_NS: u64 = 100_000_000;
const OFF_NS_MAX: u64 = 10_000_000_000;

/// Whether to spin, by what waiting was like lately.
#[derive(Debug)]
pub(super) struct Spin {
    /// As long as a spin may take; 0 = never.
    max_ns: u64,
    credit: i32,
    spins: u32,
    /// Switches that the scheduler forced on this thread.
    switches: i64,
    off_until_ns: u64,
    off_ns: u64,
}

impl Spin {
    pub(super) const fn new(max_ns: u64) -> Self {
        Self {
            max_ns,
            credit: 0,
            spins: 0,
            switches: 0,
            off_until_ns: 0,
            off_ns: OFF_NS,
        }
    }

    /// How long to stay awake now; 0 = sleep at once.
    pub(super) const fn bound_ns(&self, now_ns: u64) -> u64 {
        if self.credit < CREDIT_TO_SPIN || now_ns < self.off_until_ns {
            0
        } else {
            self.max_ns
        }
    }

    /// Whether waits are worth measuring.
    pub(super) const fn is_on(&self) -> bool {
        0 < self.max_ns
    }

    /// A sleep took so long.
    pub(super) fn slept(&mut self, ns: u64) {
        let earned = if ns <= self.max_ns { 1 } else { -1 };
        self.credit = (self.credit + earned).clamp(0, CREDIT_MAX);
    }

    /// A spin has ended, with something or with nothing.
    pub(super) fn spun(&mut self, found: bool, now_ns: u64) {
        let earned = if found { 1 } else { -MISS };
        self.credit = (self.credit + earned).clamp(0, CREDIT_MAX);
        self.spins += 1;
        if self.spins < CHECK_EVERY {
            return;
        }
        self.spins = 0;
        let switches = getrusage(UsageWho::RUSAGE_THREAD)
            .map_or(0, |usage| usage.involuntary_context_switches());
        self.judge(switches, now_ns);
    }

    fn judge(&mut self, switches: i64, now_ns: u64) {
        let forced = std::mem::replace(&mut self.switches, switches) < switches;
        if forced {
            self.credit = 0;
            self.off_until_ns = now_ns + self.off_ns;
            self.off_ns = (self.off_ns * 2).min(OFF_NS_MAX);
        } else {
            self.off_ns = OFF_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_spins_while_waits_are_short_and_nobody_wants_the_cpu() {
        let mut spin = Spin::new(50_000);
        assert_eq!(spin.bound_ns(0), 0, "nothing is known yet");
        for _ in 0..8 {
            spin.slept(10_000);
        }
        assert_eq!(spin.bound_ns(0), 50_000);
        spin.spun(false, 0);
        assert_eq!(spin.bound_ns(0), 0, "in vain");
        for _ in 0..8 {
            spin.slept(10_000);
        }
        spin.judge(0, 0);
        assert_eq!(spin.bound_ns(0), 50_000);
        spin.judge(1, 1_000);
        for _ in 0..16 {
            spin.slept(10_000);
        }
        assert_eq!(spin.bound_ns(OFF_NS), 0, "somebody else wanted the CPU");
        assert_eq!(spin.bound_ns(OFF_NS + 1_000), 50_000);
        spin.judge(2, 0);
        assert_eq!(spin.off_ns, 4 * OFF_NS, "longer each time");
    }

    #[test]
    fn without_a_bound_it_never_does() {
        let mut spin = Spin::new(0);
        for _ in 0..100 {
            spin.slept(0);
        }
        assert!(!spin.is_on() && spin.bound_ns(0) == 0);
    }
}

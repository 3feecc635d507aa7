//! Waiting awake for a moment before sleeping, where that pays. See kernel-notes/cores.md.

/// A wait that ends within twice the bound earns one (awake it would have been shorter: whoever is answered
/// sooner asks again sooner), one that does not costs some.
const CREDIT_MAX: i32 = 16;
/// From here on it is worth while.
const CREDIT_TO_SPIN: i32 = 8;
const MISS: i32 = 4;

/// Peers that are known from lately. Where it is only these few that come and go, each waits for its answer
/// and a spin is felt by all; among many, one is only awake in vain for the CPU's sake.
const PEERS: usize = 4;

/// A spin that was away for so long in its middle had to leave the CPU to a program of its kind; workers of
/// the kernel take some ten microseconds.
const AWAY_NS: u64 = 300_000;
/// Then no spinning for so long, twice as long the next time.
const OFF_NS: u64 = 100_000_000;
const OFF_NS_MAX: u64 = 10_000_000_000;
/// So many spins in peace, and the next time is short again.
const PEACE: u32 = 4096;

/// Whether to spin, by what waiting was like lately.
#[derive(Debug)]
pub(super) struct Spin {
    /// As long as a spin may take; 0 = never.
    max_ns: u64,
    credit: i32,
    /// Whom something came from last, in a ring.
    peers: [u64; PEERS],
    next_peer: usize,
    /// High while those are the only ones.
    familiar: i32,
    /// Spins since somebody else last wanted the CPU.
    peace: u32,
    off_until_ns: u64,
    off_ns: u64,
}

impl Spin {
    pub(super) const fn new(max_ns: u64) -> Self {
        Self {
            max_ns,
            credit: 0,
            peers: [u64::MAX; PEERS],
            next_peer: 0,
            familiar: 0,
            peace: 0,
            off_until_ns: 0,
            off_ns: OFF_NS,
        }
    }

    /// How long to stay awake now; 0 = sleep at once.
    pub(super) const fn bound_ns(&self, now_ns: u64) -> u64 {
        let pays = CREDIT_TO_SPIN <= self.credit && CREDIT_TO_SPIN <= self.familiar;
        if !pays || now_ns < self.off_until_ns {
            0
        } else {
            self.max_ns
        }
    }

    /// Whether waits are worth measuring.
    pub(super) const fn is_on(&self) -> bool {
        0 < self.max_ns
    }

    /// Something came from a peer.
    #[inline]
    pub(super) fn heard(&mut self, peer: u64) {
        if self.peers.contains(&peer) {
            self.familiar = (self.familiar + 1).min(CREDIT_MAX);
            return;
        }
        self.familiar = (self.familiar - MISS).max(0);
        self.peers[self.next_peer] = peer;
        self.next_peer = (self.next_peer + 1) % PEERS;
    }

    /// A sleep took so long.
    pub(super) fn slept(&mut self, ns: u64) {
        let earned = if ns <= 2 * self.max_ns { 1 } else { -1 };
        self.credit = (self.credit + earned).clamp(0, CREDIT_MAX);
    }

    /// A spin has ended, with something or with nothing; between two looks it was away for `away_ns` at most.
    pub(super) fn spun(&mut self, found: bool, away_ns: u64, now_ns: u64) {
        let earned = if found { 1 } else { -MISS };
        self.credit = (self.credit + earned).clamp(0, CREDIT_MAX);
        self.peace += 1;
        if AWAY_NS <= away_ns {
            self.credit = 0;
            self.peace = 0;
            self.off_until_ns = now_ns + self.off_ns;
            self.off_ns = (self.off_ns * 2).min(OFF_NS_MAX);
        } else if self.peace == PEACE {
            self.peace = 0;
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
        for peer in 0..20 {
            spin.slept(10_000);
            spin.heard(peer);
        }
        assert_eq!(spin.bound_ns(0), 0, "many peers");
        for turn in 0..20 {
            spin.heard(turn % PEERS as u64);
        }
        assert_eq!(spin.bound_ns(0), 50_000, "the same few");
        (0..3).for_each(|_| spin.spun(false, 1_000, 0));
        assert_eq!(spin.bound_ns(0), 0, "in vain");
        let earn = |spin: &mut Spin| (0..16).for_each(|_| spin.slept(10_000));
        earn(&mut spin);
        spin.spun(true, 20_000, 0);
        assert_eq!(spin.bound_ns(0), 50_000, "a worker of the kernel came by");
        spin.spun(true, AWAY_NS, 1_000);
        earn(&mut spin);
        assert_eq!(spin.bound_ns(OFF_NS), 0, "somebody else wanted the CPU");
        assert_eq!(spin.bound_ns(OFF_NS + 1_000), 50_000);
        spin.spun(true, AWAY_NS, 0);
        assert_eq!(spin.off_ns, 4 * OFF_NS, "longer each time");
        for _ in 0..PEACE {
            spin.spun(true, 0, 0);
        }
        assert_eq!(spin.off_ns, OFF_NS, "peace");
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

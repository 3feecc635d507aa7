//! What held a turn for too long: while a shard does one thing, everybody else on its core waits.

use std::fmt::Write;

/// A step of a turn that takes longer is a stall.
const STALL_NS: u64 = 500_000;

/// Between two lines in the log.
const LOG_EVERY_NS: u64 = 10_000_000_000;

/// Steps of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Answers of the kernel are taken in.
    Completions,
    /// One piece that came from a client is decoded and executed.
    Requests,
    /// Records become visible, and are answered.
    Visible,
    /// Requests that had to wait are executed.
    Waiting,
    /// Deadlines, saving, checkpoint, retention.
    Housekeeping,
    /// What is to be written and sent is given to the ring.
    Submission,
}

const STEPS: [&str; 6] = [
    "completions",
    "requests",
    "visible",
    "waiting",
    "housekeeping",
    "submission",
];

/// Stalls so far.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    last_ns: u64,
    /// Of each step: how often, and the longest.
    table: [(u64, u64); STEPS.len()],
    unlogged: [(u64, u64); STEPS.len()],
    logged_ns: u64,
}

impl Stalls {
    /// A turn's work begins.
    pub(super) const fn begin(&mut self, now_ns: u64) {
        self.last_ns = now_ns;
    }

    /// When the last step ended.
    pub(super) const fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// A step has ended. Answers how long it took.
    pub(super) fn mark(&mut self, now_ns: u64, step: Step) -> u64 {
        let took_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        if STALL_NS <= took_ns {
            self.note(now_ns, took_ns, step);
        }
        took_ns
    }

    fn note(&mut self, now_ns: u64, took_ns: u64, step: Step) {
        for table in [&mut self.table, &mut self.unlogged] {
            let (count, longest_ns) = &mut table[step as usize];
            *count += 1;
            *longest_ns = (*longest_ns).max(took_ns);
        }
        if self.logged_ns == 0 || self.logged_ns + LOG_EVERY_NS <= now_ns {
            self.logged_ns = now_ns.max(1);
            let unlogged = std::mem::take(&mut self.unlogged);
            tracing::info!(
                "turns were held for more than 0.5 ms: {}; on a shared CPU that may be another program's doing",
                text(&unlogged)
            );
        }
    }

    /// Each step's name, how often it stalled, and the longest time in nanoseconds.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let counted = STEPS.iter().zip(&self.table);
        counted.map(|(name, (count, longest_ns))| (*name, *count, *longest_ns))
    }
}

fn text(table: &[(u64, u64)]) -> String {
    let mut text = String::new();
    for (name, (count, longest_ns)) in STEPS.iter().zip(table) {
        if 0 < *count {
            let separator = if text.is_empty() { "" } else { ", " };
            let longest_us = longest_ns / 1000;
            let _ = write!(
                text,
                "{separator}{name} {count} times, {longest_us} µs at most"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_counted_under_its_step() {
        assert_eq!(
            text(&[(0, 0), (2, 700_000), (0, 0), (0, 0), (1, 9_000_000), (0, 0)]),
            "requests 2 times, 700 µs at most, housekeeping 1 times, 9000 µs at most"
        );
        let mut stalls = Stalls::default();
        stalls.begin(1_000);
        stalls.mark(1_100, Step::Completions);
        stalls.mark(601_100, Step::Requests);
        stalls.mark(1_001_100, Step::Visible);
        let counts: Vec<_> = stalls.all().map(|(_, count, _)| count).collect();
        assert_eq!(counts, [0, 1, 0, 0, 0, 0]);
    }
}

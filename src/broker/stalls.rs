//! What held a turn for too long: while a shard does one thing, everybody else on its core waits.

use std::fmt::Write;

use crate::io::OwnCalls;
use crate::shard::Stall;

/// A step of a turn that takes longer is a stall.
const STALL_NS: u64 = 500_000;

/// Between two lines in the log.
const LOG_EVERY_NS: u64 = 10_000_000_000;

/// Steps of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Answers of the kernel are taken in.
    Completions,
    /// One piece that came from a client is looked at, or some sends of the turn are executed, or a client that has
    /// gone is forgotten.
    Requests,
    /// Records become visible, and are answered.
    Visible,
    /// Requests that had to wait are executed.
    Waiting,
    /// Deadlines, saving, checkpoint, retention.
    Housekeeping,
    /// What is to be written and sent is given to the ring, or to the kernel itself.
    Submission,
    /// All of a turn, where no step of it was a stall.
    Turn,
}

const STEPS: [&str; 7] = [
    "completions",
    "requests",
    "visible",
    "waiting",
    "housekeeping",
    "submission",
    "turn",
];

/// What is known of the stalls of one step.
#[derive(Debug, Default, Clone)]
struct Held {
    count: u64,
    longest_ns: u64,
    /// What was being done in the longest, where that is known.
    by: String,
}

impl Held {
    fn count(&mut self, took_ns: u64, by: &str) {
        self.count += 1;
        if self.longest_ns < took_ns {
            self.longest_ns = took_ns;
            by.clone_into(&mut self.by);
        }
    }
}

/// Stalls so far.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    begun_ns: u64,
    last_ns: u64,
    /// What each step of this turn took.
    took: [u64; STEPS.len()],
    /// A step of this turn was one.
    is_named: bool,
    table: [Held; STEPS.len()],
    unlogged: [Held; STEPS.len()],
    logged_ns: u64,
}

impl Stalls {
    /// A turn's work begins. `calls`: what the ring did itself before it waited.
    pub(super) fn begin(&mut self, now_ns: u64, calls: OwnCalls) {
        (self.begun_ns, self.last_ns) = (now_ns, now_ns);
        self.took = [0; STEPS.len()];
        self.is_named = false;
        if STALL_NS <= calls.took_ns {
            let by = format!(
                "{} writes in place and {} sends from the page cache",
                calls.writes, calls.sends
            );
            self.note(now_ns, calls.took_ns, Step::Submission, &by);
        }
    }

    /// A turn's work has ended. A busy turn is long in many short steps; that is told by `corelane stats`, and not logged.
    pub(super) fn end(&mut self) {
        let took_ns = self.last_ns.saturating_sub(self.begun_ns);
        if took_ns < STALL_NS || self.is_named {
            return;
        }
        let longest = (0..STEPS.len()).max_by_key(|step| self.took[*step]);
        let longest = longest.unwrap_or_default();
        let by = format!("{} us of it {}", self.took[longest] / 1000, STEPS[longest]);
        self.table[Step::Turn as usize].count(took_ns, &by);
    }

    /// When the last step ended.
    pub(super) const fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// A step has ended, or a part of one. Answers how long it took. What was being done in it is asked for
    /// only where it took too long.
    pub(super) fn mark(&mut self, now_ns: u64, step: Step, by: impl FnOnce() -> String) -> u64 {
        let took_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        self.took[step as usize] += took_ns;
        if STALL_NS <= took_ns {
            self.is_named = true;
            self.note(now_ns, took_ns, step, &by());
        }
        took_ns
    }

    fn note(&mut self, now_ns: u64, took_ns: u64, step: Step, by: &str) {
        for table in [&mut self.table, &mut self.unlogged] {
            table[step as usize].count(took_ns, by);
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

    /// Those of each step.
    pub(super) fn all(&self) -> Vec<Stall> {
        let table = STEPS.into_iter().zip(&self.table);
        let told = table.map(|(step, held)| Stall {
            step,
            count: held.count,
            longest_ns: held.longest_ns,
            by: held.by.clone(),
        });
        told.collect()
    }
}

fn text(table: &[Held]) -> String {
    let mut text = String::new();
    for (name, held) in STEPS.iter().zip(table) {
        if 0 < held.count {
            let separator = if text.is_empty() { "" } else { ", " };
            let (count, longest_us) = (held.count, held.longest_ns / 1000);
            let _ = write!(
                text,
                "{separator}{name} {count} times, {longest_us} µs at most"
            );
            if !held.by.is_empty() {
                let _ = write!(text, " ({})", held.by);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_counted_under_its_step_and_the_longest_says_by_whom() {
        let mut stalls = Stalls::default();
        let unasked = || unreachable!("it was short");
        stalls.begin(1_000, OwnCalls::default());
        stalls.mark(1_100, Step::Completions, unasked);
        for (end_ns, by) in [(601_100, "a"), (1_401_100, "b"), (1_951_100, "c")] {
            stalls.mark(end_ns, Step::Requests, || by.to_owned());
        }
        stalls.mark(2_351_100, Step::Visible, unasked);
        stalls.mark(9_999_999, Step::Housekeeping, String::new);
        let counts: Vec<_> = stalls.all().iter().map(|stall| stall.count).collect();
        assert_eq!(counts, [0, 3, 0, 0, 1, 0, 0]);
        assert_eq!(
            text(&stalls.table),
            "requests 3 times, 800 µs at most (b), housekeeping 1 times, 7648 µs at most"
        );
    }

    #[test]
    fn calls_before_the_wait_and_many_short_steps_are_stalls_too() {
        let mut stalls = Stalls::default();
        let unasked = || unreachable!("it was short");
        let calls = OwnCalls {
            took_ns: 20_000_000,
            writes: 1,
            sends: 3,
        };
        stalls.begin(1_000, calls);
        for part in 1..=5 {
            stalls.mark(1_000 + part * 100_000, Step::Requests, unasked);
        }
        stalls.mark(511_000, Step::Visible, unasked);
        stalls.end();
        // A step that has its name already.
        stalls.begin(600_000, OwnCalls::default());
        stalls.mark(1_200_000, Step::Waiting, String::new);
        stalls.end();
        let told: Vec<_> = stalls
            .all()
            .into_iter()
            .filter(|stall| 0 < stall.count)
            .map(|stall| (stall.step, stall.count, stall.longest_ns, stall.by))
            .collect();
        let by = "1 writes in place and 3 sends from the page cache";
        assert_eq!(
            told,
            [
                ("waiting", 1, 600_000, String::new()),
                ("submission", 1, 20_000_000, by.to_owned()),
                ("turn", 1, 510_000, "500 us of it requests".to_owned()),
            ]
        );
    }

    #[test]
    fn a_turn_is_judged_by_what_was_done_in_it() {
        let mut stalls = Stalls::default();
        stalls.begin(0, OwnCalls::default());
        stalls.mark(700_000, Step::Waiting, String::new);
        stalls.end();
        stalls.begin(1_000_000, OwnCalls::default());
        for part in 1..=6 {
            let end_ns = 1_000_000 + part * 100_000;
            stalls.mark(end_ns, Step::Visible, || unreachable!("it was short"));
        }
        stalls.end();
        let turn = &stalls.all()[Step::Turn as usize];
        let told = (turn.count, turn.longest_ns, turn.by.as_str());
        assert_eq!(told, (1, 600_000, "600 us of it visible"));
    }

    #[test]
    fn stalls_are_logged_together() {
        const STALL: u64 = 1_000_000;
        let mut stalls = Stalls::default();
        let waits = |stalls: &mut Stalls, begin_ns: u64| {
            stalls.begin(begin_ns, OwnCalls::default());
            stalls.mark(begin_ns + STALL, Step::Waiting, String::new);
            stalls.unlogged[Step::Waiting as usize].count
        };
        assert_eq!(waits(&mut stalls, 0), 0, "the first at once");
        for at in 1..4 {
            assert_eq!(waits(&mut stalls, at * STALL), at, "together with others");
        }
        assert_eq!(waits(&mut stalls, LOG_EVERY_NS), 0, "after ten seconds");
        assert_eq!(stalls.table[Step::Waiting as usize].count, 5);
    }
}

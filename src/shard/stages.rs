//! How long the stages of a message take, so that a slow one has a name: what `corelane stats` shows.
//!
//! All begin when the kernel handed over what came from a client. Times are those of turns, so that most
//! messages of a turn share one and are recorded together.

use crate::base::{Latency, Quantiles};

/// A place where a message has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its connection's turn has come: what the kernel handed over with it was taken in, and those in front
    /// of it were served. Counted are requests.
    Received,
    /// Its header is understood. Measured of one send in 32, of one other request a piece: a clock costs a fifth of
    /// what decoding does.
    Decoded,
    /// It has its place in the log.
    Appended,
    /// The kernel has taken it: the turn in which it said so has begun.
    Written,
    /// Likewise: it survives a power cut; measured where somebody waits for that.
    Durable,
    /// Consumers see it, and its producer's answer is made: the step of that turn has ended, behind the requests that came
    /// with it.
    Visible,
}

impl Stage {
    const ALL: [(Self, &str); 6] = [
        (Self::Received, "received"),
        (Self::Decoded, "decoded"),
        (Self::Appended, "appended"),
        (Self::Written, "written"),
        (Self::Durable, "durable"),
        (Self::Visible, "visible"),
    ];
}

/// What held turns for too long in one step of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// Its name.
    pub step: &'static str,
    /// How often.
    pub count: u64,
    /// The longest.
    pub longest_ns: u64,
    /// What was being done in the longest; empty where that is not known.
    pub by: String,
}

/// Times of all stages.
#[derive(Debug, Default)]
pub struct Stages {
    table: [Latency; Stage::ALL.len()],
    /// From an answer to the last byte that the kernel took of it; whoever sends tells.
    pub sent: [Quantiles; 2],
    /// What is recorded together: time, how often.
    runs: [(u64, u64); Stage::ALL.len()],
}

impl Stages {
    /// How many [`Self::add_up`] knows.
    pub const COUNT: usize = Stage::ALL.len();

    /// `count` messages took this long to a stage.
    pub fn record(&mut self, stage: Stage, ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        let (time, sum) = &mut self.runs[stage as usize];
        if *time == ns {
            *sum += count;
            return;
        }
        let (time, sum) = std::mem::replace(&mut self.runs[stage as usize], (ns, count));
        self.table[stage as usize].record(time, sum);
    }

    /// Ends the period of all stages at once, every ten seconds: what they tell is of the same messages.
    pub fn end_period(&mut self) {
        self.end_runs();
        self.table.iter_mut().for_each(Latency::end_period);
    }

    /// Adds up the period that has ended, of one stage, by its number. Called for each in a turn of its own: it takes
    /// some ten microseconds. Who asks before that has it done then.
    pub fn add_up(&mut self, number: usize) {
        if let Some(latency) = self.table.get_mut(number) {
            latency.add_up();
        }
    }

    fn end_runs(&mut self) {
        for (latency, run) in self.table.iter_mut().zip(&mut self.runs) {
            let (time, sum) = std::mem::take(run);
            latency.record(time, sum);
        }
    }

    /// Names, in the order in which a message comes through; times of the last whole period, and since
    /// the start.
    pub fn all(&mut self) -> impl Iterator<Item = (&'static str, [Quantiles; 2])> {
        self.end_runs();
        let table = Stage::ALL.into_iter().zip(&mut self.table);
        let own = table.map(|((_, name), latency)| (name, [latency.recent(), latency.total()]));
        own.chain([("sent", self.sent)])
    }

    /// Times to the stage that producers wait for, of the last whole period.
    pub fn visible(&mut self) -> Quantiles {
        self.table[Stage::Visible as usize].recent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_together_counts_each_time() {
        let mut stages = Stages::default();
        for (stage, ns) in [
            (Stage::Written, 10),
            (Stage::Written, 10),
            (Stage::Visible, 10),
            (Stage::Written, 20),
        ] {
            stages.record(stage, ns, 1);
        }
        stages.record(Stage::Appended, 30, 0);
        stages.end_period();
        let counts: Vec<_> = stages
            .all()
            .map(|(name, [recent, total])| (name, recent.count, total.max_ns))
            .collect();
        let want = [
            ("received", 0, 0),
            ("decoded", 0, 0),
            ("appended", 0, 0),
            ("written", 3, 20),
            ("durable", 0, 0),
            ("visible", 1, 10),
            ("sent", 0, 0),
        ];
        assert_eq!(counts, want);
    }
}

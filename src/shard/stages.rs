//! How long the stages of a message take, so that a slow one has a name: what `corelane stats` shows.
//!
//! All begin when the kernel handed over what came from a client. Times are those of turns, so that most
//! messages of a turn share one and are recorded together.

use crate::base::{Latency, Quantiles};

/// A place where a message has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Decoded and executed; a stored message has its place in the log.
    Executed,
    /// The kernel has taken it.
    Written,
    /// It survives a power cut; measured where somebody waits for that.
    Durable,
    /// Consumers see it, and its producer's answer is made.
    Visible,
}

impl Stage {
    const ALL: [(Self, &str); 4] = [
        (Self::Executed, "executed"),
        (Self::Written, "written"),
        (Self::Durable, "durable"),
        (Self::Visible, "visible"),
    ];
}

/// Times of all stages.
#[derive(Debug, Default)]
pub struct Stages {
    table: [Latency; Stage::ALL.len()],
    /// From an answer to the last byte that the kernel took of it; whoever sends tells.
    sent: [Quantiles; 2],
    /// What is recorded together: time, how often.
    runs: [(u64, u64); Stage::ALL.len()],
}

impl Stages {
    /// `count` messages took this long to a stage.
    pub fn record(&mut self, stage: Stage, ns: u64, count: u64) {
        let (time, sum) = &mut self.runs[stage as usize];
        if *time == ns {
            *sum += count;
            return;
        }
        let (time, sum) = std::mem::replace(&mut self.runs[stage as usize], (ns, count));
        self.table[stage as usize].record(time, sum);
    }

    /// Ends a period, with the times of what was sent in it and since the start. Called every ten seconds.
    pub fn rotate(&mut self, sent: [Quantiles; 2]) {
        self.end_runs();
        self.table.iter_mut().for_each(Latency::rotate);
        self.sent = sent;
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
        let table = Stage::ALL.into_iter().zip(&self.table);
        let own = table.map(|((_, name), latency)| (name, [latency.recent(), latency.total()]));
        own.chain([("sent", self.sent)])
    }

    /// Times to the stage that producers wait for, of the last whole period.
    #[must_use]
    pub fn visible(&self) -> Quantiles {
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
        stages.rotate(Default::default());
        let counts: Vec<_> = stages
            .all()
            .map(|(name, [recent, total])| (name, recent.count, total.max_ns))
            .collect();
        let want = [
            ("executed", 0, 0),
            ("written", 3, 20),
            ("durable", 0, 0),
            ("visible", 1, 10),
            ("sent", 0, 0),
        ];
        assert_eq!(counts, want);
    }
}

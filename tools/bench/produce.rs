//! The `produce` command.

use crate::check::Faults;
use crate::consume::{Read, ReadBack, read_back, report_foreign};
use crate::control::Control;
use crate::drive::DRAIN_NS;
use crate::producer::Producer;
use crate::ran::Ran;
use crate::report::Report;
use crate::search::Bound;
use crate::{Load, Outcome, clock, search, signals, team};
use serde_json::json;
use std::time::Duration;

#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// After the run, read what was acknowledged and check each message
    #[arg(long, value_enum, default_value_t = ReadBack::All, num_args = 0..=1, default_missing_value = "all")]
    pub read_back: ReadBack,
    /// Find the highest rate at which this holds, such as p99=5ms (of the response); each trial
    /// has a warm-up and a window as long as told
    #[arg(long, value_parser = search::parse)]
    pub search: Option<Bound>,
}

const LOOK: Duration = Duration::from_millis(20);

/// How many messages the queues grew by, once that is what was acknowledged, and their ends.
fn stored(
    control: &mut Control,
    load: &Load,
    before: &[u64],
    (acknowledged, give_up_ns): (u64, u64),
) -> Outcome<(u64, Vec<u64>)> {
    loop {
        let ends = control.ends(load)?.unwrap_or_default();
        let grown = ends.iter().zip(before);
        let stored: u64 = grown.map(|(end, start)| end.saturating_sub(*start)).sum();
        // A broker may index a message a little after it acknowledged it.
        let is_over = give_up_ns < clock::now_ns() || signals::is_told();
        if acknowledged <= stored || is_over {
            return Ok((stored, ends));
        }
        std::thread::sleep(LOOK);
    }
}

/// Compares what the queues grew by with what was acknowledged.
fn counted(producer: &Producer, stored: u64) -> Faults {
    let most = producer.acknowledged + producer.unsure();
    Faults {
        lost: producer.acknowledged.saturating_sub(stored),
        duplicated: stored.saturating_sub(most),
        ..Faults::default()
    }
}

/// Of one message that is missing, the count and the reading both tell.
fn worst(counted: Faults, read: Faults) -> Faults {
    Faults {
        lost: counted.lost.max(read.lost),
        duplicated: counted.duplicated.max(read.duplicated),
        reordered: read.reordered,
        corrupted: read.corrupted,
    }
}

/// A run that sends, up to its last answer.
pub struct Sent {
    pub ran: Ran,
    control: Control,
    before: Option<Vec<u64>>,
}

impl Sent {
    pub fn run(load: &Load, backlog_ns_max: u64) -> Outcome<Sent> {
        let mut control = Control::connect(load.addr)?;
        control.create_topics(load)?;
        let before = control.ends(load)?;
        let ran = team::run(load, |share, drive| {
            drive.backlog_ns_max = backlog_ns_max;
            drive.send(share)
        })?;
        Ok(Sent {
            ran,
            control,
            before,
        })
    }

    /// What is wrong with what the server holds; none if it cannot tell, or if a signal leaves no
    /// time to ask.
    fn check(
        ran: &Ran,
        control: &mut Control,
        before: Option<&[u64]>,
        load: &Load,
        depth: ReadBack,
    ) -> Outcome<Option<Read>> {
        let (Some(before), Some(producer)) = (before, &ran.producer) else {
            return Ok(None);
        };
        let limits = (producer.acknowledged, clock::now_ns() + DRAIN_NS);
        loop {
            if signals::is_told() {
                return Ok(None);
            }
            let (stored, ends) = stored(control, load, before, limits)?;
            if signals::is_told() {
                return Ok(None);
            }
            let faults = counted(producer, stored);
            // What is there beyond what was sent came twice or is of another run: only reading tells.
            if depth == ReadBack::None && faults.duplicated == 0 {
                return Ok(Some(Read { faults, foreign: 0 }));
            }
            let Some(read) = read_back(load, before, &ends, producer)? else {
                return Ok(None);
            };
            // Messages of others made up the count before the last own ones could be read.
            let is_early = 0 < read.foreign && 0 < read.faults.lost;
            if is_early && clock::now_ns() < limits.1 {
                std::thread::sleep(LOOK);
                continue;
            }
            let faults = counted(producer, stored.saturating_sub(read.foreign));
            return Ok(Some(Read {
                faults: worst(faults, read.faults),
                ..read
            }));
        }
    }

    /// Checks what the server holds and puts all that is to be told of the run into the report.
    /// At once: what is sent after it would be taken for its cost, and be read without need.
    pub fn conclude(
        mut self,
        report: &mut Report,
        load: &Load,
        depth: ReadBack,
    ) -> Outcome<(Ran, Option<Faults>)> {
        report.describe(load, &self.ran);
        report.arg("read_back", json!(format!("{depth:?}").to_lowercase()));
        report.sent(load, &self.ran);
        let (mut control, before) = (self.control, self.before);
        let mut found = None;
        report.conclude(&mut self.ran, load, |report, ran| {
            let read = Sent::check(ran, &mut control, before.as_deref(), load, depth)?;
            let faults = read.as_ref().map(|read| read.faults);
            if let Some(read) = read {
                report_foreign(report, read.foreign);
            }
            if depth == ReadBack::All && faults.is_some() {
                let read = ran.messages_all();
                report.check("messages_read_back", json!(read));
            }
            found = faults;
            Ok(faults)
        })?;
        Ok((self.ran, found))
    }
}

pub fn run(load: &Load, options: &Options) -> Outcome<bool> {
    if let Some(bound) = &options.search {
        return search::run(load, bound, options.read_back);
    }
    let sent = Sent::run(load, u64::MAX)?;
    let mut report = Report::new("produce", &load.title());
    let (ran, _) = sent.conclude(&mut report, load, options.read_back)?;
    report.finish_files(&ran, load)
}

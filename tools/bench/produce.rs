//! The `produce` command.

use crate::check::Faults;
use crate::consume::{ReadBack, read_back};
use crate::control::Control;
use crate::drive::DRAIN_NS;
use crate::producer::Producer;
use crate::ran::Ran;
use crate::report::Report;
use crate::search::Bound;
use crate::{Load, Outcome, clock, search, team};
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

/// Compares what the queues grew by with what was acknowledged.
fn check_stored(
    control: &mut Control,
    load: &Load,
    before: &[u64],
    producer: &Producer,
) -> Outcome<(Faults, Vec<u64>)> {
    let give_up_ns = clock::now_ns() + DRAIN_NS;
    let unsure = producer.unsure();
    loop {
        let ends = control.ends(load)?.unwrap_or_default();
        let grown = ends.iter().zip(before);
        let stored: u64 = grown.map(|(end, start)| end.saturating_sub(*start)).sum();
        // A broker may index a message a little after it acknowledged it.
        if producer.acknowledged <= stored || give_up_ns < clock::now_ns() {
            let faults = Faults {
                lost: producer.acknowledged.saturating_sub(stored),
                duplicated: stored.saturating_sub(producer.acknowledged + unsure),
                ..Faults::default()
            };
            return Ok((faults, ends));
        }
        std::thread::sleep(Duration::from_millis(20));
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

    /// What is wrong with what the server holds; none if it cannot tell.
    fn check(
        ran: &Ran,
        control: &mut Control,
        before: Option<&[u64]>,
        load: &Load,
        depth: ReadBack,
    ) -> Outcome<Option<Faults>> {
        let (Some(before), Some(producer)) = (before, &ran.producer) else {
            return Ok(None);
        };
        let (faults, ends) = check_stored(control, load, before, producer)?;
        if depth == ReadBack::None {
            return Ok(Some(faults));
        }
        let read = read_back(load, before, &ends, producer)?;
        Ok(Some(worst(faults, read)))
    }

    /// Checks what the server holds and puts all that is to be told of the run into the report.
    /// At once: what is sent after it would be taken for messages of this run that came twice, and
    /// for its cost.
    pub fn conclude(
        mut self,
        report: &mut Report,
        load: &Load,
        depth: ReadBack,
    ) -> Outcome<(Ran, Option<Faults>)> {
        report.describe(load, &self.ran);
        report.arg("read_back", json!(format!("{depth:?}").to_lowercase()));
        report.sent(&self.ran);
        let (mut control, before) = (self.control, self.before);
        let mut found = None;
        report.conclude(&mut self.ran, load, |report, ran| {
            let faults = Sent::check(ran, &mut control, before.as_deref(), load, depth)?;
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

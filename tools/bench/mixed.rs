//! The `mixed` command: one producer, several groups that follow it, and one group far behind,
//! which reads what was stored before the run, again and again.

use crate::consume::{Depth, PullSize, Readers, Ways};
use crate::control::Control;
use crate::drive::Drive;
use crate::e2e::{CONNECTIONS_MAX, tailing};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::report::Report;
use crate::{Load, Outcome, fail};
use serde_json::json;

#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Groups that follow the producer
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub groups: u32,
    /// Messages to be there before the run, for the group that is far behind; what the topic
    /// already has counts. 0: no such group
    #[arg(long, default_value_t = 100_000)]
    pub backlog: u64,
    /// How closely the group behind looks at records
    #[arg(long, value_enum, default_value_t = Depth::First)]
    pub check: Depth,
    #[command(flatten)]
    pub pull: PullSize,
}

/// Sends what is missing of the backlog, as fast as answers come.
fn fill(load: &Load, missing: u64) -> Outcome<()> {
    let mut load = load.clone();
    load.rate = 0.0;
    load.arrival = crate::load::Arrival::Constant;
    load.count = missing;
    load.duration = 86_400.0;
    load.set_warmup(0.0);
    let mut drive = Drive::new(&load)?;
    drive.producer = Some(Producer::connect(&load, &mut drive.net)?);
    drive.run(&load)?;
    let producer = drive.producer.as_ref().expect("it was put there");
    if producer.acknowledged < missing {
        return fail(format!(
            "the backlog could not be sent: {} of {missing} messages were acknowledged",
            producer.acknowledged
        ));
    }
    Ok(())
}

pub fn run(load: &Load, options: &Options) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    control.create_topics(load)?;
    let mut offsets = || -> Outcome<(Vec<u64>, Vec<u64>)> {
        match (control.beginnings(load)?, control.ends(load)?) {
            (Some(begins), Some(ends)) => Ok((begins, ends)),
            _ => fail(format!(
                "{} cannot tell its offsets; mixed needs codes 30 and 31",
                load.addr
            )),
        }
    };
    let total = |(begins, ends): &(Vec<u64>, Vec<u64>)| -> u64 {
        let grown = ends.iter().zip(begins);
        grown.map(|(end, begin)| end.saturating_sub(*begin)).sum()
    };
    let mut range = offsets()?;
    if total(&range) < options.backlog {
        fill(load, options.backlog - total(&range))?;
        range = offsets()?;
    }
    let backlog = total(&range);
    let (begins, ends) = range;
    let mut drive = Drive::new(load)?;
    drive.groups = u64::from(options.groups);
    drive.producer = Some(Producer::connect(load, &mut drive.net)?);
    let tail = |at: u32| {
        let (group, lane) = (at / load.lanes(), at % load.lanes());
        Reader::new(load, group, lane, (ends[lane as usize], None), false)
    };
    let readers = (0..load.lanes() * options.groups).map(tail).collect();
    let connections = CONNECTIONS_MAX * options.groups as usize;
    let ways = tailing(options.pull);
    let tailers = Readers::connect(load, &mut drive.net, connections, readers, ways)?;
    drive.readers.push(tailers);
    if 0 < options.backlog {
        let far = |lane: u32| {
            let (begin, end) = (begins[lane as usize], ends[lane as usize]);
            Reader::new(load, options.groups, lane, (begin, Some(end)), 0 < begin)
        };
        let ways = Ways {
            depth: options.check,
            suspend_ms: 0,
            repeats: true,
            ..ways
        };
        let readers = (0..load.lanes()).map(far).collect();
        let behind = Readers::connect(load, &mut drive.net, CONNECTIONS_MAX, readers, ways)?;
        drive.readers.push(behind);
    }
    drive.run(load)?;
    report(load, options, &mut drive, backlog)
}

fn report(load: &Load, options: &Options, drive: &mut Drive, backlog: u64) -> Outcome<bool> {
    let title = format!(
        "{} groups follow, {} · {}",
        options.groups,
        match options.backlog {
            0 => "none is behind".to_string(),
            _ => format!("one is {backlog} messages behind"),
        },
        load.title()
    );
    let mut report = Report::new("mixed", &title);
    report.describe(load, drive);
    report.arg("groups", json!(options.groups));
    report.arg("backlog", json!(options.backlog));
    report.arg("pull_messages", json!(options.pull.pull_messages));
    report.sent(drive);
    let words = "a message, intended to received by each group that follows";
    report.latency("e2e", words, &drive.e2e);
    report.value("received", json!(drive.received));
    let seconds = drive.window.seconds();
    let received = drive.received_in_window as f64 / seconds;
    report.rate(
        "received_per_s",
        received,
        "messages a second, received by all groups that follow",
    );
    drive.readers[0].report(&mut report, "pull_");
    if let Some(behind) = drive.readers.get(1) {
        let seconds = drive.total_seconds();
        let read = behind.counts;
        report.rate(
            "behind_messages_per_s",
            read.messages as f64 / seconds,
            "messages a second, read by the group that is behind (warm-up included)",
        );
        report.rate(
            "behind_record_bytes_per_s",
            read.bytes as f64 / seconds,
            "bytes of records a second, read by the group that is behind",
        );
        report.value("behind_passes", json!(behind.passes()));
        report.value("backlog_messages", json!(backlog));
        report.histogram(
            "behind_pull",
            "a pull of the group that is behind",
            behind.service.histogram(),
        );
        report.errors("behind_errors", &behind.errors);
        report.unexpected("behind_unexpected_answers", behind.unexpected);
        if read.messages == 0 {
            report.void("the group that is behind read nothing");
        }
    }
    report.finish_run(drive, load, |_, drive| {
        let producer = drive.producer.as_ref().expect("it sends");
        let tailers = &mut drive.readers[0];
        let mut faults = tailers.faults();
        faults.lost += tailers.missing(producer.run, producer.streams());
        if let Some(behind) = drive.readers.get(1) {
            faults.add(behind.faults());
        }
        Ok(Some(faults))
    })
}

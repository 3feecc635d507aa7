//! The `mixed` command: one producer, several groups that follow it, and one group far behind,
//! which reads what was stored before the run, again and again.

use crate::consume::{Depth, PullSize, Readers, Ways, report_foreign};
use crate::control::Control;
use crate::e2e::{CONNECTIONS_MAX, tailing};
use crate::ran::Ran;
use crate::reader::Reader;
use crate::report::Report;
use crate::{Load, Outcome, fail, signals, team};
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
    /// Messages a second that the group behind reads at most; 0: as many as it gets
    #[arg(long, default_value_t = 0.0)]
    pub behind_rate: f64,
    /// For so many seconds of the window the group behind waits: latencies are told without and
    /// with it too
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub alone: u32,
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
    let ran = team::run(&load, |share, drive| drive.send(share))?;
    let producer = ran.producer.as_ref().expect("it was put there");
    if signals::is_told() {
        return fail("ended by a signal while the backlog was sent: nothing was measured");
    }
    if producer.acknowledged < missing {
        return fail(format!(
            "the backlog could not be sent: {} of {missing} messages were acknowledged",
            producer.acknowledged
        ));
    }
    Ok(())
}

/// First and next offset of each lane.
type Range = (Vec<u64>, Vec<u64>);

/// The lanes' offsets, once the backlog is there.
fn prepare(load: &Load, options: &Options) -> Outcome<Range> {
    let mut control = Control::connect(load.addr)?;
    control.create_topics(load)?;
    let mut offsets = || -> Outcome<Range> {
        match (control.beginnings(load)?, control.ends(load)?) {
            (Some(begins), Some(ends)) => Ok((begins, ends)),
            _ => fail(format!(
                "{} cannot tell its offsets; mixed needs codes 30 and 31",
                load.addr
            )),
        }
    };
    let range = offsets()?;
    if options.backlog <= total(&range) {
        return Ok(range);
    }
    fill(load, options.backlog - total(&range))?;
    offsets()
}

fn total((begins, ends): &Range) -> u64 {
    let grown = ends.iter().zip(begins);
    grown.map(|(end, begin)| end.saturating_sub(*begin)).sum()
}

/// How the group behind reads.
fn behind(options: &Options) -> Ways {
    Ways {
        depth: options.check,
        suspend_ms: 0,
        repeats: true,
        rate: options.behind_rate,
        begin_s: (0 < options.alone).then_some(options.alone),
        ..tailing(options.pull)
    }
}

pub fn run(load: &Load, options: &Options) -> Outcome<bool> {
    if !(0.0..=100e6).contains(&options.behind_rate) {
        return fail("--behind-rate is 0 (no limit) to 100000000 messages a second");
    }
    if 0 < options.alone && load.duration <= f64::from(options.alone) {
        return fail("--alone is a part of the window: --duration has to be longer");
    }
    let range = prepare(load, options)?;
    let backlog = total(&range);
    let (begins, ends) = range;
    let mut ran = team::run(load, |share, drive| {
        drive.groups = u64::from(options.groups);
        drive.send(share)?;
        let tail = |at: u32| {
            let (group, lane) = (at / load.lanes(), at % load.lanes());
            let range = (ends[lane as usize], None);
            Reader::new(load, group, lane, range, false).of_run(share.run)
        };
        let readers = (0..load.lanes() * options.groups).map(tail);
        let connections = CONNECTIONS_MAX * options.groups as usize;
        let ways = tailing(options.pull);
        let tailers = Readers::share(share, &mut drive.net, connections, readers, ways)?;
        drive.ran.readers.push(tailers);
        if 0 < options.backlog {
            let far = |lane: u32| {
                let (begin, end) = (begins[lane as usize], ends[lane as usize]);
                Reader::new(load, options.groups, lane, (begin, Some(end)), 0 < begin)
            };
            let (readers, ways) = ((0..load.lanes()).map(far), behind(options));
            let behind = Readers::share(share, &mut drive.net, CONNECTIONS_MAX, readers, ways)?;
            drive.ran.readers.push(behind);
        }
        Ok(())
    })?;
    report(load, options, &mut ran, backlog)
}

/// What the group behind got, and what that cost the others.
fn report_behind(report: &mut Report, options: &Options, ran: &Ran, backlog: u64) {
    let Some(behind) = ran.readers.get(1) else {
        return;
    };
    // A signal may end it before the group begins.
    let seconds = (ran.window.seconds() - f64::from(options.alone)).max(1e-3);
    let read = ran.behind_between();
    report.rate(
        "behind_messages_per_s",
        read.messages as f64 / seconds,
        "messages a second, read by the group that is behind",
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
    behind.void_if_refused(report);
    report.unexpected("behind_unexpected_answers", behind.unexpected);
    if read.messages == 0 {
        report.void("the group that is behind read nothing");
    }
    if 0 < options.alone {
        report_alone(report, options.alone, ran);
    }
}

/// Latencies of the seconds before the group behind began to read, and of those since.
fn report_alone(report: &mut Report, alone: u32, ran: &Ran) {
    let producer = ran.producer.as_ref().expect("it sends");
    let sent = match producer.is_open_loop() {
        true => ("response", &producer.response),
        false => ("service", &producer.service),
    };
    for (name, recorder) in [sent, ("e2e", &ran.e2e)] {
        for (part, seconds, when) in [
            ("alone", 0..alone, "nobody was behind"),
            ("beside", alone..u32::MAX, "the group behind was reading"),
        ] {
            let histogram = recorder.histogram_of(|second| seconds.contains(&second));
            let (name, words) = (format!("{name}_{part}"), format!("{name} while {when}"));
            report.histogram_of(&name, &words, histogram, seconds);
        }
    }
}

fn report(load: &Load, options: &Options, ran: &mut Ran, backlog: u64) -> Outcome<bool> {
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
    report.describe(load, ran);
    report.arg("groups", json!(options.groups));
    report.arg("backlog", json!(options.backlog));
    report.arg("behind_rate_per_s", json!(options.behind_rate));
    report.arg("alone_s", json!(options.alone));
    report.arg("pull_messages", json!(options.pull.pull_messages));
    report.sent(load, ran);
    let words = "a message, intended to received by each group that follows";
    report.latency("e2e", words, &ran.e2e);
    report.value("received", json!(ran.received));
    let seconds = ran.window.seconds();
    let received = ran.received_in_window as f64 / seconds;
    report.rate(
        "received_per_s",
        received,
        "messages a second, received by all groups that follow",
    );
    ran.readers[0].report(&mut report, "pull_");
    report_behind(&mut report, options, ran, backlog);
    report.finish_run(ran, load, |report, ran| {
        let producer = ran.producer.as_ref().expect("it sends");
        let tailers = &mut ran.readers[0];
        report_foreign(report, tailers.foreign());
        let mut faults = tailers.faults();
        faults.lost += tailers.missing(producer.run, producer.streams());
        if let Some(behind) = ran.readers.get(1) {
            faults.add(behind.faults());
        }
        Ok(Some(faults))
    })
}

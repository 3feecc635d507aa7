//! The `e2e` command: one generator sends and receives, so both ends read the same clock.

use crate::consume::{Depth, PullSize, Readers, Ways, report_foreign};
use crate::control::Control;
use crate::reader::Reader;
use crate::report::Report;
use crate::{Load, Outcome, fail, team};
use serde_json::json;

/// What Java's push consumer asks for.
pub const SUSPEND_MS: u32 = 15_000;
/// Connections that the readers of a group share.
pub const CONNECTIONS_MAX: usize = 64;

/// How groups that follow a topic's end read it.
pub fn tailing(pull: PullSize) -> Ways {
    Ways {
        depth: Depth::Every,
        suspend_ms: SUSPEND_MS,
        repeats: false,
        count_max: pull.pull_messages,
        bytes_max: pull.pull_bytes,
        rate: 0.0,
        begin_s: None,
    }
}

pub fn run(load: &Load, pull: PullSize) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    control.create_topics(load)?;
    let Some(ends) = control.ends(load)? else {
        return fail(format!(
            "{} cannot tell its offsets; e2e needs code 30",
            load.addr
        ));
    };
    let mut ran = team::run(load, |share, drive| {
        drive.send(share)?;
        let reader = |(lane, end): (usize, &u64)| {
            Reader::new(load, 0, lane as u32, (*end, None), false).of_run(share.run)
        };
        let (readers, ways) = (ends.iter().enumerate().map(reader), tailing(pull));
        let readers = Readers::share(share, &mut drive.net, CONNECTIONS_MAX, readers, ways)?;
        drive.ran.readers.push(readers);
        Ok(())
    })?;
    let mut report = Report::new("e2e", &load.title());
    report.describe(load, &ran);
    report.arg("pull_messages", json!(pull.pull_messages));
    report.sent(load, &ran);
    report.latency("e2e", "a message, intended to received", &ran.e2e);
    report.value("received", json!(ran.received));
    let seconds = ran.window.seconds();
    let received = ran.received_in_window as f64 / seconds;
    report.rate("received_per_s", received, "messages a second, received");
    ran.readers[0].report(&mut report, "pull_");
    report.finish_run(&mut ran, load, |report, ran| {
        let producer = ran.producer.as_ref().expect("it sends");
        let readers = &mut ran.readers[0];
        report_foreign(report, readers.foreign());
        let mut faults = readers.faults();
        faults.lost += readers.missing(producer.run, producer.streams());
        Ok(Some(faults))
    })
}

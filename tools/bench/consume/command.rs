//! The `consume` command.

use super::{Depth, PullSize, Readers, Ways};
use crate::control::Control;
use crate::reader::Reader;
use crate::report::Report;
use crate::{Load, Outcome, fail, team};
use serde_json::json;

#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// How closely records are looked at
    #[arg(long, value_enum, default_value_t = Depth::First)]
    pub check: Depth,
    /// So many consumer groups read every queue
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub groups: u32,
    #[command(flatten)]
    pub pull: PullSize,
}

pub fn run(load: &Load, options: &Options) -> Outcome<bool> {
    let (load, without) = load.reading();
    let load = &load;
    let without = (!without.is_empty()).then(|| {
        format!(
            "consume sends nothing: {} without effect",
            without.join(", ")
        )
    });
    if let Some(words) = &without {
        eprintln!("note: {words}");
    }
    let mut control = Control::connect(load.addr)?;
    let (begins, ends) = (control.beginnings(load)?, control.ends(load)?);
    let (Some(begins), Some(ends)) = (begins, ends) else {
        return fail(format!(
            "{} cannot tell its offsets; consume needs codes 30 and 31",
            load.addr
        ));
    };
    let lanes = ends.iter().zip(&begins);
    let empty = lanes.clone().filter(|(end, begin)| end <= begin).count();
    let total: u64 = lanes.map(|(end, begin)| end.saturating_sub(*begin)).sum();
    if total == 0 {
        return fail(format!(
            "topic {} is empty in its {} queues; produce into it first",
            load.topic, load.queues
        ));
    }
    let ways = Ways {
        depth: options.check,
        suspend_ms: 0,
        repeats: true,
        count_max: options.pull.pull_messages,
        bytes_max: options.pull.pull_bytes,
        rate: 0.0,
        begin_s: None,
    };
    // Surplus connections of one group read lanes a second time.
    let count = (load.lanes() * options.groups).max(load.connections);
    let mut ran = team::run(load, |share, drive| {
        let reader = |at: u32| {
            let lane = at % load.lanes();
            let (begin, end) = (begins[lane as usize], ends[lane as usize]);
            let group = at / load.lanes() % options.groups;
            Reader::new(load, group, lane, (begin, Some(end)), 0 < begin)
        };
        let (connections, readers) = (load.connections as usize, (0..count).map(reader));
        let readers = Readers::share(share, &mut drive.net, connections, readers, ways)?;
        drive.ran.readers.push(readers);
        Ok(())
    })?;
    let title = format!(
        "{} · {} · {} connections · {} groups · {} queues with {total} messages · {} s after {} s of warm-up",
        load.addr,
        load.topic,
        load.connections,
        options.groups,
        load.lanes(),
        load.duration,
        load.warmup()
    );
    let mut report = Report::new("consume", &title);
    report.describe(load, &ran);
    if let Some(words) = without {
        report.note(words);
    }
    if 0 < empty {
        report.note(format!(
            "{empty} of the {} queues hold nothing: does the topic have them all (--queues)?",
            load.lanes()
        ));
    }
    report.arg(
        "check",
        json!(format!("{:?}", options.check).to_lowercase()),
    );
    report.arg("groups", json!(options.groups));
    report.arg("pull_messages", json!(options.pull.pull_messages));
    report.arg("pull_bytes", json!(options.pull.pull_bytes));
    report.value("topic_messages", json!(total));
    let (done, seconds) = (ran.between(), ran.window.seconds());
    report.rate(
        "messages_per_s",
        done.messages as f64 / seconds,
        "messages a second",
    );
    report.rate(
        "record_bytes_per_s",
        done.bytes as f64 / seconds,
        "bytes of records a second",
    );
    ran.readers[0].report(&mut report, "");
    report.finish_run(&mut ran, load, |report, ran| {
        let readers = &ran.readers[0];
        report.value("passes", json!(readers.passes()));
        if readers.passes() == 0 && options.check != Depth::Sizes {
            report.note("no pass came to its end: only a part of the topic was checked");
        }
        if ran.between().messages == 0 {
            report.void("no message came in the window");
        }
        Ok(Some(readers.faults()))
    })
}

//! The `table` command: the rows of goals, each measured beside RocketMQ and what the machine itself
//! can do, and whether each is reached.

mod cold;
mod fio;
mod footprint;
mod found;
mod group;
mod rows;
mod scale;
mod shards;
mod steady;
mod told;

use crate::bed::{self, Contender, Session, Work};
use crate::compare::matrix;
use crate::report_html::Run;
use crate::{Outcome, fail};
use found::Found;
use rows::{Goal, TESTS, Test, Who};
use scale::Scale;
use std::path::PathBuf;

pub const HELP: &str = "\
Rows: 1 single sends, 2 CPU of sending and tailing, 3 small batches, 4 large batches, 5 and 6 sends
with sync flush, 7 their latency, 8 async latency, 9 ten minutes at half of RocketMQ's maximum, 10 end
to end, 11 CPU of deliveries, 12 a cold drain, 13 writing past memory, 14 memory and start, 15 shards.

Servers have one CPU, the generator another (row 15: the server both). Apache RocketMQ is started once
for async and once for sync, warmed for --warm seconds, and stays up; who is not being measured is
stopped with SIGSTOP. Rows 12 and 13 run in a memory control group, which needs root, and beside fio.

DIR/table.md and DIR/table.jsonl get what was found appended; DIR/report.html is about this session.

Exit codes: 0 all runs count, 1 some are void, 2 it could not run, 130 a signal ended it. A goal that
is not reached is told and no failure.

Examples:
  tools/table                        all rows, in about three hours
  tools/table 1 2 5 --reps 5 --warm 180
  tools/table 6 7 8 --no-apache      only beside the floors of this machine";

#[derive(clap::Args, Clone)]
pub struct Options {
    /// Rows, by number [default: all]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=15))]
    rows: Vec<u8>,
    /// Measure without Apache RocketMQ: only beside the floors
    #[arg(long)]
    no_apache: bool,
    /// Measure without the floors, as far as rows can
    #[arg(long)]
    no_floor: bool,
    /// Windows of a second, one run of each, little data: whether everything works
    #[arg(long)]
    smoke: bool,
    /// Ours [default: the corelane beside this program, one shard]; settings are appended
    #[arg(long, value_name = "[NAME=]COMMAND")]
    broker: Option<String>,
    /// RocketMQ's command
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "env NAMESRV_PORT={nameserver-port} BROKER_PORT={port} BROKERS=1 HEAP=4g JVM_OPTIONS=-XX:+UseG1GC tests/reference/apache start {store} flushDiskType={flush-disk-type} waitTimeMillsInSendQueue=200"
    )]
    apache: String,
    /// How ours flushes in rows 5 to 7: sync, sync-fdatasync, sync-dsync, sync-direct …
    #[arg(long, default_value = "sync")]
    sync: String,
    /// How ours appends; given to it as it is
    #[arg(long)]
    append: Option<String>,
    /// How ours delivers; given to it as it is
    #[arg(long)]
    egress: Option<String>,
    /// RocketMQ's maximum, messages a second, for rows 2 and 9 where it is not measured
    #[arg(long, value_name = "PER_S")]
    apache_max: Option<f64>,
    /// In rows 6 and 7 the floor writes no byte twice: its zeros have their price too
    #[arg(long)]
    fresh_floor: bool,
    /// Count runs in which the generator's own delay shows in a percentile; the report tells which
    #[arg(long)]
    tell_own_delay: bool,
    /// Window of row 9, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    steady: f64,
    /// Log that row 14's broker has when it is killed, GiB
    #[arg(long, value_name = "GIB", default_value_t = 10)]
    log_gib: u64,
    /// Memory of the control group of rows 12 and 13, MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(32..))]
    memory_mib: u64,
    /// Folder for the table, the report and the JSON of each run
    #[arg(long, value_name = "DIR", default_value = "target/table")]
    out: PathBuf,
    #[command(flatten)]
    bed: bed::Options,
}

struct Table {
    options: Options,
    scale: Scale,
    session: Session,
    found: Found,
    /// Name and command of ours.
    broker: (String, Vec<String>),
}

pub fn run(options: &Options) -> Outcome<bool> {
    let scale = Scale::of(options.smoke);
    let mut options = options.clone();
    scale.shrink(&mut options.bed);
    if options.rows.is_empty() {
        options.rows = (1..=15).collect();
    }
    let broker = match &options.broker {
        Some(text) => matrix::named(text)?,
        None => matrix::named(&matrix::own_broker()?)?,
    };
    let goals: Vec<Goal> = rows::goals();
    let goals: Vec<Goal> = goals
        .into_iter()
        .filter(|goal| options.rows.contains(&goal.row))
        .collect();
    let session = Session::begin(options.bed.clone(), &options.out, expected_s(&options))?;
    let mut table = Table {
        scale,
        session,
        found: Found::default(),
        broker,
        options,
    };
    let outcome = table.measure(&goals);
    let (bench, out) = (&table.session.bench, &table.options.out);
    told::append(
        out,
        (&table.found, &goals),
        &bench.command,
        &bench.environment,
    )?;
    crate::say(format!("table: {}", out.join("table.md").display()));
    let place = ("corelane-bench table", table.options.out.as_path());
    table.session.conclude(place, outcome, false)
}

/// How long all of it should take: tests of a kind are the most of it.
fn expected_s(options: &Options) -> f64 {
    let bed = &options.bed;
    let tests = TESTS.iter().filter(|test| options.rows.contains(&test.row));
    let run_s = bed.warmup + bed.duration + 2.0;
    let whom = 3.0 - f64::from(u8::from(options.no_apache)) - f64::from(u8::from(options.no_floor));
    let warm_s = if options.no_apache { 0.0 } else { 360.0 };
    tests.count() as f64 * run_s * whom * f64::from(bed.repetitions) + warm_s
}

impl Table {
    fn measure(&mut self, goals: &[Goal]) -> Outcome<()> {
        let rows = self.options.rows.clone();
        for row in rows {
            self.session.bench.stop.check()?;
            for test in TESTS.iter().filter(|test| test.row == row) {
                self.test(test)?;
            }
            match row {
                2 => self.at_maximum()?,
                9 => self.steady()?,
                11 => self.note(
                    11,
                    "the goal beside Kafka is for Kafka's own tools, not for these",
                ),
                12 => self.drain()?,
                13 => self.write_past_memory()?,
                14 => self.footprint()?,
                15 => self.shards()?,
                _ => {}
            }
            for goal in goals.iter().filter(|goal| goal.row == row) {
                let line = told::line(&self.found.verdict(goal));
                self.session.bench.progress.say(&line);
            }
        }
        Ok(())
    }

    fn note(&mut self, row: u8, words: impl Into<String>) {
        let words = words.into();
        self.session
            .bench
            .progress
            .say(&format!("row {row}: {words}"));
        self.found.notes.push((row, words));
    }

    /// Ours, flushing in that way, with settings of its own.
    fn ours(&self, flush: &str, settings: &[&str]) -> Contender {
        let (name, words) = &self.broker;
        let mut contender = Contender {
            name: format!("{name} {flush}"),
            words: words.clone(),
            flush: flush.to_owned(),
            ..Contender::default()
        };
        contender.words.extend(matrix::appended("flush", flush));
        for (axis, value) in [
            ("append", &self.options.append),
            ("egress", &self.options.egress),
        ] {
            let value = value.iter();
            let words = value.flat_map(|value| matrix::appended(axis, value));
            contender.words.extend(words);
        }
        for setting in settings {
            contender.name += &format!(" {setting}");
            contender
                .words
                .extend(["--set".to_owned(), (*setting).to_owned()]);
        }
        contender
    }

    /// RocketMQ, flushing in that way, with settings of its own; none where it takes no part.
    fn apache(&self, flush: &str, settings: &[&str]) -> Outcome<Option<Contender>> {
        if self.options.no_apache {
            return Ok(None);
        }
        let mut words = matrix::split(&self.options.apache)?;
        words.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let mut name = format!("RocketMQ {flush}");
        settings
            .iter()
            .for_each(|setting| name += &format!(" {setting}"));
        Ok(Some(Contender {
            name,
            words,
            flush: flush.to_owned(),
            is_peer: true,
            ..Contender::default()
        }))
    }

    /// A floor that works on the store's file system, for the topic of a load.
    fn floor(&self, what: &str, work: &Work) -> Outcome<Contender> {
        let own = std::env::current_exe()?.to_string_lossy().into_owned();
        let kind = what.split(' ').next().unwrap_or("");
        let mut words = vec![own, "floor".to_owned()];
        words.extend(matrix::split(what)?);
        words.extend(["--addr".to_owned(), "127.0.0.1:{port}".to_owned()]);
        let reads = matches!(kind, "sendfile" | "gather");
        if reads {
            words.extend(["--topic".to_owned(), work.topic()]);
        }
        let is_fresh = kind == "flush" && self.options.fresh_floor;
        if is_fresh {
            words.push("--fresh".to_owned());
        }
        if kind != "echo" {
            words.extend(["--file".to_owned(), "{store}/floor".to_owned()]);
        }
        if let Some(mib) = self.scale.floor_mib() {
            words.extend(["--file-mib".to_owned(), mib.to_string()]);
        }
        Ok(Contender {
            name: format!("floor {kind}{}", if is_fresh { " fresh" } else { "" }),
            words,
            has_records: reads,
            ..Contender::default()
        })
    }

    /// A load under the name that its runs have.
    fn work(&self, name: &str, load: &str) -> Outcome<Work> {
        let mut words = matrix::split(load)?;
        let kind = words.remove(0);
        if self.options.tell_own_delay {
            words.extend(["--own-delay", "tell"].map(str::to_owned));
        }
        self.scale.shrink_load(&kind, &mut words);
        Ok(Work {
            name: name.to_owned(),
            kind,
            words,
            limit_s: 0.0,
        })
    }

    fn test(&mut self, test: &Test) -> Outcome<()> {
        let work = self.work(test.name, test.load)?;
        let sync = self.options.sync.clone();
        let flush = if test.flush == "sync" { &sync } else { "async" };
        let mut whom = vec![(Who::Ours, self.ours(flush, &[]))];
        if test.with_apache
            && let Some(apache) = self.apache(test.flush, &[])?
        {
            whom.push((Who::Apache, apache));
        }
        if !test.floor.is_empty() && !self.options.no_floor {
            whom.push((Who::Floor, self.floor(test.floor, &work)?));
        }
        self.compare(&work, &whom, self.options.bed.repetitions)
    }

    /// Measures contenders in turn and keeps what was found.
    fn compare(&mut self, work: &Work, whom: &[(Who, Contender)], repetitions: u32) -> Outcome<()> {
        let entries: Outcome<Vec<usize>> = whom
            .iter()
            .map(|(_, contender)| self.session.entry(contender))
            .collect();
        let first = self.session.ran.len();
        let outcome = self.session.measure(work, &entries?, repetitions);
        self.take(first, work, whom)?;
        outcome
    }

    /// Keeps what the runs since number `first` found.
    fn take(&mut self, first: usize, work: &Work, whom: &[(Who, Contender)]) -> Outcome<()> {
        for ran in &self.session.ran[first..] {
            if ran.void.is_some() {
                continue;
            }
            let run = Run::from_json(ran.json.clone(), "", None)?;
            let who = whom
                .iter()
                .find(|(_, contender)| contender.name == run.contender);
            let Some((who, _)) = who else {
                return fail(format!("a run of {} belongs to nobody", run.contender));
            };
            self.found.take(&work.name, *who, &run);
        }
        Ok(())
    }
}

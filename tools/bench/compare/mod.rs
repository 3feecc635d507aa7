//! The `compare` command: servers beside one another, measured in turn, and a report of it.

pub mod matrix;

use crate::Outcome;
use crate::bed::{self, Session};
use std::path::PathBuf;

pub const HELP: &str = "\
In the COMMAND of a broker or peer these are replaced: {store}, {port}, {nameserver-port}, {flush}
and {flush-disk-type} (ASYNC_FLUSH or SYNC_FLUSH). Settings for which a broker's command has no
place are appended to it: --flush VALUE, and for sync-METHOD --flush sync --set flushMethod=METHOD.

Every server runs on one CPU, the generator on another. A broker gets a fresh store for each load;
a peer keeps its own and stays up, so that its compiled code stays warm. Who is not being measured
is stopped with SIGSTOP; of more than 24 brokers each is started for its run and ended after it.
Before each run all dirty pages are written. Of an option given twice the
last one counts; values of those that take a LIST or may be repeated add up.

Exit codes: 0 all runs count, 1 some are void, 2 it could not run, 130 a signal ended it.

Examples:
  corelane-bench compare --flush async,sync
  corelane-bench compare --broker 'old=./corelane-1 serve --store {store} --port {port}' \\
      --broker 'new=./corelane-2 serve --store {store} --port {port}' \\
      --load 'sends=produce --connections 64 --in-flight 8' -n 9";

#[derive(clap::Args, Clone)]
pub struct Options {
    /// Ways to flush, separated by commas: async, sync, sync-fdatasync, sync-dsync, sync-direct, none,
    /// or whatever else the broker takes
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    flush: Vec<String>,
    /// Ways to append, separated by commas: auto, ring, inline, direct, or whatever else the broker
    /// takes
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    append: Vec<String>,
    /// Ways to deliver, separated by commas: auto, sendfile, splice, gather, send-zc, copy, or
    /// whatever else the broker takes
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    egress: Vec<String>,
    /// A broker of the matrix; may be repeated [default: the corelane beside this program, one shard]
    #[arg(long, value_name = "[NAME=]COMMAND")]
    broker: Vec<String>,
    /// A server to compare with, once for each of async and sync that --flush asks for; may be repeated
    #[arg(long, value_name = "[NAME=]COMMAND")]
    peer: Vec<String>,
    /// A load: NAME=produce, consume, e2e or mixed with its arguments; may be repeated [default: four]
    #[arg(long, value_name = "NAME=COMMAND")]
    load: Vec<String>,
    /// Folder for the report, the charts and the JSON of each run
    #[arg(long, value_name = "DIR", default_value = "target/bench-report")]
    out: PathBuf,
    #[command(flatten)]
    bed: bed::Options,
    /// Heading of the report
    #[arg(long, default_value = "corelane-bench compare")]
    title: String,
}

pub fn run(options: &Options) -> Outcome<bool> {
    let contenders = matrix::contenders(options)?;
    let works = matrix::works(options)?;
    let expected_s = bed::expected_s(&options.bed, &contenders, &works);
    let mut session = Session::begin(options.bed.clone(), &options.out, expected_s)?;
    let whom: Outcome<Vec<usize>> = contenders.iter().map(|it| session.entry(it)).collect();
    let outcome = whom.and_then(|whom| {
        let mut works = works.iter();
        works.try_for_each(|work| session.measure(work, &whom, options.bed.repetitions))
    });
    session.conclude((&options.title, &options.out), outcome, true)
}

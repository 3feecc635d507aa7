//! The `compare` command: servers beside one another, measured in turn, and a report of it.

mod environment;
mod group;
mod hold;
mod matrix;
mod measure;
mod progress;
mod server;
mod stop;

pub use hold::{Hold, hold};

use crate::report_html::{self, short, show_ns};
use crate::{Outcome, fail};
use matrix::{Contender, Work};
use measure::{Bench, Ran, Which};
use progress::Progress;
use server::{Place, Server};
use std::path::PathBuf;
use std::time::Duration;
use stop::Stop;

/// Ports from one contender to the next: a broker, its name server, and what a peer adds to them.
const PORTS_PER_CONTENDER: u16 = 40;
/// What a run takes beside its window: the disk's sync, the topic, the last answers.
const EXTRA_S: f64 = 1.5;
const START_S: f64 = 1.0;
/// When a signal ended it, as shells have it.
const EXIT_SIGNAL: i32 = 130;

pub const HELP: &str = "\
In the COMMAND of a broker or peer these are replaced: {store}, {port}, {nameserver-port}, {flush}
and {flush-disk-type} (ASYNC_FLUSH or SYNC_FLUSH). Settings for which a broker's command has no
place are appended to it: --flush VALUE, and for sync-METHOD --flush sync --set flushMethod=METHOD.

Every server runs on one CPU, the generator on another. A broker gets a fresh store for each load;
a peer keeps its own and stays up, so that its compiled code stays warm. Who is not being measured
is stopped with SIGSTOP. Before each run all dirty pages are written. Of an option given twice the
last one counts.

Exit codes: 0 all runs count, 1 some are void, 2 it could not run, 130 a signal ended it.

Examples:
  corelane-bench compare --flush async,sync
  corelane-bench compare --broker 'old=./corelane-1 serve --store {store} --port {port}' \\
      --broker 'new=./corelane-2 serve --store {store} --port {port}' \\
      --load 'sends=produce --connections 64 --in-flight 8' -n 9";

#[derive(clap::Args, Clone)]
pub struct Options {
    /// Ways to flush, separated by commas: async, sync, sync-fdatasync, sync-dsync, or whatever the
    /// broker takes
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    flush: Vec<String>,
    /// Ways to append, separated by commas; given to the broker as they are
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    append: Vec<String>,
    /// Ways to deliver, separated by commas; given to the broker as they are
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    egress: Vec<String>,
    /// A broker of the matrix; may be repeated [default: the corelane beside this program, one shard]
    #[arg(long, value_name = "[NAME=]COMMAND")]
    broker: Vec<String>,
    /// A server to compare with, once for each of async and sync that --flush asks for; may be repeated
    #[arg(long, value_name = "[NAME=]COMMAND")]
    peer: Vec<String>,
    /// Load every peer that many seconds before its first run, for its compiler
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    warm_peer: f64,
    /// A load: NAME=produce, consume or e2e with its arguments; may be repeated [default: four]
    #[arg(long, value_name = "NAME=COMMAND")]
    load: Vec<String>,
    /// Runs of each contender under each load
    #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Measured window of a run, seconds
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Load before the window, seconds
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Messages that a load that only reads finds in its topic
    #[arg(long, default_value_t = 200_000)]
    prepare: u64,
    /// CPU of the servers
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the generator
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Port of the first server; the next ones follow, 40 apart
    #[arg(long, default_value_t = 28_931, value_parser = clap::value_parser!(u16).range(1024..=60_000))]
    port: u16,
    /// Folder for stores and logs: on the file system to be measured
    #[arg(long, value_name = "DIR", default_value = "target/compare-work")]
    work: PathBuf,
    /// Folder for the report, the charts and the JSON of each run
    #[arg(long, value_name = "DIR", default_value = "target/bench-report")]
    out: PathBuf,
    /// Free space that each run wants, GiB
    #[arg(long, default_value_t = 10)]
    room_gib: u64,
    /// Time a server has to end after SIGTERM, seconds; then comes SIGKILL
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    grace: f64,
    /// Heading of the report
    #[arg(long, default_value = "corelane-bench compare")]
    title: String,
}

/// A contender and, while it is up, its server.
struct Entry {
    contender: Contender,
    port: u16,
    server: Option<Server>,
}

fn check(options: &Options) -> Outcome<()> {
    let is_time = |seconds: f64| (0.0..=86_400.0).contains(&seconds);
    if !is_time(options.duration) || options.duration < 0.1 || !is_time(options.warmup) {
        return fail("--duration is 0.1 to 86400 seconds, --warmup 0 to 86400");
    }
    if !is_time(options.warm_peer) || !is_time(options.grace) {
        return fail("--warm-peer and --grace are 0 to 86400 seconds");
    }
    Ok(())
}

pub fn run(options: &Options) -> Outcome<bool> {
    check(options)?;
    let contenders = matrix::contenders(options)?;
    let works = matrix::works(options)?;
    let ports = u32::from(options.port) + contenders.len() as u32 * u32::from(PORTS_PER_CONTENDER);
    if u32::from(u16::MAX) < ports {
        return fail(format!(
            "port {ports} does not exist: choose a lower --port"
        ));
    }
    let stop = Stop::listen()?;
    let runs = options.out.join("runs");
    // Runs of an earlier comparison would look like runs of this one.
    let _ = std::fs::remove_dir_all(&runs);
    for folder in [&options.work, &runs] {
        if let Err(error) = std::fs::create_dir_all(folder) {
            return fail(format!("cannot make {}: {error}", folder.display()));
        }
    }
    let mut options = options.clone();
    options.work = options.work.canonicalize()?;
    let progress = Progress::new(expected_s(&options, &contenders, &works));
    let words: Vec<String> = std::env::args().collect();
    let bench = Bench {
        options: &options,
        stop: &stop,
        environment: environment::of(&options.work),
        command: shlex::try_join(words.iter().map(String::as_str))?,
        runs,
        tick: &|| progress.tick(),
    };
    let mut session = Session {
        bench,
        progress: &progress,
        entries: entries(contenders, options.port),
        ran: Vec::new(),
    };
    let outcome = works.iter().try_for_each(|work| session.measure(work));
    session.end(|_| true);
    progress.clear();
    session.conclude(outcome)
}

fn entries(contenders: Vec<Contender>, port: u16) -> Vec<Entry> {
    let ports = (port..).step_by(usize::from(PORTS_PER_CONTENDER));
    let entry = |(contender, port)| Entry {
        contender,
        port,
        server: None,
    };
    contenders.into_iter().zip(ports).map(entry).collect()
}

/// How long all of it should take.
fn expected_s(options: &Options, contenders: &[Contender], works: &[Work]) -> f64 {
    let peers = contenders.iter().filter(|contender| contender.is_peer);
    let run_s = options.warmup + options.duration + EXTRA_S;
    let runs = contenders.len() * works.len() * options.repetitions as usize;
    runs as f64 * run_s
        + (contenders.len() * works.len()) as f64 * START_S
        + peers.count() as f64 * options.warm_peer
}

struct Session<'a> {
    bench: Bench<'a>,
    progress: &'a Progress,
    entries: Vec<Entry>,
    ran: Vec<Ran>,
}

impl Session<'_> {
    /// All contenders under one load, A B A B.
    fn measure(&mut self, work: &Work) -> Outcome<()> {
        for at in 0..self.entries.len() {
            self.start(at)?;
            if work.kind == "consume" {
                self.prepare(at, work)?;
            }
        }
        for repetition in 1..=self.bench.options.repetitions {
            for at in 0..self.entries.len() {
                self.bench.stop.check()?;
                self.measure_one(at, work, repetition)?;
            }
        }
        self.end(|contender| !contender.is_peer);
        Ok(())
    }

    /// Starts a server that is not up. It is halted then, as all but one always are.
    fn start(&mut self, at: usize) -> Outcome<()> {
        let entry = &mut self.entries[at];
        if entry.server.is_some() {
            return Ok(());
        }
        let options = self.bench.options;
        let place = Place {
            work: &options.work,
            port: entry.port,
            cpu: options.server_cpu,
            grace: Duration::from_secs_f64(options.grace),
        };
        let name = &entry.contender.name;
        self.progress.begin(format!("{name} starts"), START_S);
        let server = Server::start(&entry.contender, &place, self.bench.stop)?;
        self.progress.end(None);
        let is_to_warm = entry.contender.is_peer && 0.0 < options.warm_peer;
        let words = format!(
            "produce --addr {} --topic warm-up --cpu {} --connections 64 --in-flight 8 --warmup 0 --duration {}",
            server.addr, options.load_cpu, options.warm_peer
        );
        entry.server = Some(server);
        if is_to_warm {
            let limit = Duration::from_secs_f64(options.warm_peer) + Duration::from_secs(60);
            self.progress
                .begin(format!("{name} gets warm"), options.warm_peer);
            self.load(at, &words, "warm-up", limit)?;
            self.progress.end(None);
        }
        self.halt(at);
        Ok(())
    }

    fn halt(&self, at: usize) {
        if let Some(server) = &self.entries[at].server {
            server.halt();
        }
    }

    /// A load that is not measured; whether it went well.
    fn load(&self, at: usize, words: &str, name: &str, limit: Duration) -> Outcome<bool> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let file = report_html::file_name(&self.entries[at].contender.name);
        let log = self.bench.runs.join(format!("{name}.{file}.log"));
        let status = self.bench.generate(&words, &log, limit)?;
        Ok(status.success())
    }

    /// The same number of messages for every contender to read.
    fn prepare(&self, at: usize, work: &Work) -> Outcome<()> {
        let entry = &self.entries[at];
        let Some(server) = &entry.server else {
            return Ok(());
        };
        server.go_on();
        let words = format!(
            "produce --addr {} --topic {} --cpu {} --connections 16 --in-flight 8 --count {} --warmup 0 --duration 300",
            server.addr,
            work.topic(),
            self.bench.options.load_cpu,
            self.bench.options.prepare
        );
        let is_done = self.load(at, &words, &work.name, Duration::from_secs(330))?;
        server.halt();
        if !is_done {
            return fail(format!(
                "'{}' did not take the messages that {} shall read; see the log of its load in {}",
                entry.contender.name,
                work.name,
                self.bench.runs.display()
            ));
        }
        Ok(())
    }

    fn measure_one(&mut self, at: usize, work: &Work, repetition: u32) -> Outcome<()> {
        let entry = &self.entries[at];
        let Some(server) = &entry.server else {
            return Ok(());
        };
        let options = self.bench.options;
        let which = Which {
            contender: &entry.contender,
            work,
            repetition,
        };
        let words = format!(
            "{} {repetition}/{} {}",
            work.name, options.repetitions, entry.contender.name
        );
        self.progress
            .begin(words.clone(), options.warmup + options.duration + EXTRA_S);
        let ran = self.bench.measure(server, &which)?;
        self.progress
            .end(Some(&format!("{words}: {}", result(&ran))));
        self.ran.push(ran);
        Ok(())
    }

    /// Ends servers: all are told before the first is waited for.
    fn end(&mut self, is_meant: impl Fn(&Contender) -> bool) {
        let meant = |entry: &&mut Entry| is_meant(&entry.contender);
        let servers: Vec<Server> = self
            .entries
            .iter_mut()
            .filter(meant)
            .filter_map(|entry| entry.server.take())
            .collect();
        servers.iter().for_each(Server::tell_end);
    }

    /// The report of what was measured, also when it came to an early end.
    fn conclude(self, outcome: Outcome<()>) -> Outcome<bool> {
        let options = self.bench.options;
        let files: Vec<PathBuf> = self.ran.iter().map(|ran| ran.file.clone()).collect();
        if !files.is_empty() {
            report_html::of_files(&options.title, &files, &options.out)?;
        }
        if self.bench.stop.is_wanted() {
            eprintln!("corelane-bench: ended by a signal; every server was ended");
            std::process::exit(EXIT_SIGNAL);
        }
        outcome?;
        let void = self.ran.iter().filter(|ran| ran.void.is_some()).count();
        if 0 < void {
            eprintln!("corelane-bench: {void} of {} runs are void", self.ran.len());
        }
        Ok(void == 0)
    }
}

/// One line on a run that just ended.
fn result(ran: &Ran) -> String {
    if let Some(reason) = &ran.void {
        return format!("VOID: {reason}");
    }
    let figures = report_html::figures_of(&ran.json);
    let mut words = Vec::new();
    for (key, what) in [
        ("messages_per_s", "messages/s"),
        ("server_cpu_us_per_message", "µs CPU a message"),
    ] {
        words.extend(
            figures
                .get(key)
                .map(|value| format!("{} {what}", short(*value))),
        );
    }
    for (key, what) in [
        ("service_p50_ns", "p50"),
        ("service_p99_ns", "p99"),
        ("e2e_p99_ns", "end-to-end p99"),
    ] {
        words.extend(
            figures
                .get(key)
                .map(|ns| format!("{what} {}", show_ns(*ns))),
        );
    }
    words.join(", ")
}

//! Servers that stay up from load to load, all but one of them halted, and the runs they had.

use super::Options;
use super::contender::{Contender, Work};
use super::earlier::Earlier;
use super::measure::{Bench, Ran, Which};
use super::progress::Progress;
use super::server::{Place, Server};
use super::stop::Stop;
use crate::environment;
use crate::report_html::{self, short, show_ns};
use crate::{Outcome, fail};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ports from one contender to the next: a broker, its name server, and what a peer adds to them.
pub const PORTS_PER_CONTENDER: u16 = 40;
/// So many brokers stay up from run to run. Each has a segment of a GiB on the disk and one made
/// ahead, and its memory: of more, each is started for its run and ended after it.
pub const BROKERS_UP_MAX: usize = 24;
/// What a run takes beside its window: the disk's sync, the topic, the last answers.
const EXTRA_S: f64 = 1.5;
const START_S: f64 = 1.0;
/// When a signal ended it, as shells have it.
pub const EXIT_SIGNAL: i32 = 130;

/// A contender and, while it is up, its server.
struct Entry {
    contender: Contender,
    port: u16,
    server: Option<Server>,
}

pub struct Session {
    pub bench: Bench,
    entries: Vec<Entry>,
    pub ran: Vec<Ran>,
    /// Goes when a first server is up: a start that fails costs no results.
    earlier: Option<Earlier>,
}

/// As it is before anything was loaded.
fn environment_of(work: &Path) -> Map<String, Value> {
    let mut found = environment::machine();
    let load = found.remove("load_average");
    found.extend(load.map(|load| ("load_average_before".to_owned(), load)));
    let place = environment::Place::of_folder(work);
    found.extend(place.map_or_else(Map::new, |place| place.describe()));
    found
}

/// How long all of it should take.
pub fn expected_s(options: &Options, contenders: &[Contender], works: &[Work]) -> f64 {
    let peers = contenders.iter().filter(|contender| contender.is_peer);
    let run_s = options.warmup + options.duration + EXTRA_S;
    let runs = contenders.len() * works.len() * options.repetitions as usize;
    let starts = if stay_up(contenders.iter()) {
        contenders.len() * works.len()
    } else {
        runs
    };
    runs as f64 * run_s + starts as f64 * START_S + peers.count() as f64 * options.warm_peer()
}

/// Whether so many stay up from run to run. Peers always do: their compilers want to be warm.
fn stay_up<'a>(contenders: impl Iterator<Item = &'a Contender>) -> bool {
    contenders.filter(|contender| !contender.is_peer).count() <= BROKERS_UP_MAX
}

impl Session {
    /// Makes the folders.
    pub fn begin(mut options: Options, out: &Path, expected_s: f64) -> Outcome<Session> {
        options.check()?;
        let runs = out.join("runs");
        for folder in [&options.work, &runs] {
            if let Err(error) = std::fs::create_dir_all(folder) {
                return fail(format!("cannot make {}: {error}", folder.display()));
            }
        }
        options.work = options.work.canonicalize()?;
        let words: Vec<String> = std::env::args().collect();
        let bench = Bench {
            stop: Stop::listen()?,
            progress: Progress::new(expected_s),
            environment: environment_of(&options.work),
            command: shlex::try_join(words.iter().map(String::as_str))?,
            runs: runs.canonicalize()?,
            options,
        };
        Ok(Session {
            earlier: Some(Earlier::in_folder(bench.runs.clone())),
            bench,
            entries: Vec::new(),
            ran: Vec::new(),
        })
    }

    /// Adds a contender that is not there, and gives its number.
    pub fn entry(&mut self, contender: &Contender) -> Outcome<usize> {
        let known = |entry: &Entry| entry.contender == *contender;
        if let Some(at) = self.entries.iter().position(known) {
            return Ok(at);
        }
        let port = u32::from(self.bench.options.port)
            + self.entries.len() as u32 * u32::from(PORTS_PER_CONTENDER);
        if u32::from(u16::MAX) < port + u32::from(PORTS_PER_CONTENDER) {
            return fail(format!("port {port} does not exist: choose a lower --port"));
        }
        self.entries.push(Entry {
            contender: contender.clone(),
            port: port as u16,
            server: None,
        });
        Ok(self.entries.len() - 1)
    }

    /// The server of a contender that was started.
    pub fn server(&self, at: usize) -> Option<&Server> {
        self.entries[at].server.as_ref()
    }

    /// Takes a server that was started out of the session's hands.
    pub fn take_server(&mut self, at: usize) -> Option<Server> {
        self.entries[at].server.take()
    }

    pub fn port(&self, at: usize) -> u16 {
        self.entries[at].port
    }

    pub fn contender(&self, at: usize) -> &Contender {
        &self.entries[at].contender
    }

    /// Some contenders under one load, A B A B.
    pub fn measure(&mut self, work: &Work, whom: &[usize], repetitions: u32) -> Outcome<()> {
        let stay_up = stay_up(whom.iter().map(|at| &self.entries[*at].contender));
        let stays = |contender: &Contender| stay_up || contender.is_peer;
        for at in whom {
            if stays(&self.entries[*at].contender) {
                self.make_ready(*at, work)?;
            }
        }
        for repetition in 1..=repetitions {
            for at in whom {
                self.bench.stop.check()?;
                if stays(&self.entries[*at].contender) {
                    self.measure_one(*at, work, repetition)?;
                } else {
                    self.make_ready(*at, work)?;
                    self.measure_one(*at, work, repetition)?;
                    self.entries[*at].server = None;
                }
            }
        }
        self.end(|contender| !contender.is_peer);
        Ok(())
    }

    /// Up and halted, with what a load that only reads finds.
    fn make_ready(&mut self, at: usize, work: &Work) -> Outcome<()> {
        self.start(at)?;
        if self.entries[at].contender.is_to_prepare(work) {
            self.prepare(at, work)?;
        }
        Ok(())
    }

    /// Starts a server that is not up. It is halted then, as all but one always are.
    pub fn start(&mut self, at: usize) -> Outcome<()> {
        self.start_on(at, false)
    }

    /// The same; it may find the store that it left when it was killed.
    pub fn start_on(&mut self, at: usize, keeps_store: bool) -> Outcome<()> {
        let entry = &mut self.entries[at];
        if entry.server.is_some() {
            return Ok(());
        }
        let options = &self.bench.options;
        let cpus = entry.contender.cpus.as_ref();
        let place = Place {
            work: &options.work,
            port: entry.port,
            cpus: cpus.unwrap_or(&options.server_cpu).clone(),
            grace: Duration::from_secs_f64(options.grace),
            keeps_store,
        };
        let name = &entry.contender.name;
        self.bench.progress.begin(format!("{name} starts"), START_S);
        let server = Server::start(&entry.contender, &place, &self.bench.stop)?;
        if let Some(earlier) = self.earlier.take() {
            earlier.remove();
        }
        self.bench.progress.end(None);
        let is_to_warm = entry.contender.is_peer && 0.0 < options.warm_peer();
        let words = format!(
            "produce --addr {} --topic warm-up --cpu {} --connections 64 --in-flight 8 --warmup 0 --duration {}",
            server.addr,
            options.load_cpu,
            options.warm_peer()
        );
        entry.server = Some(server);
        if is_to_warm {
            let seconds = options.warm_peer();
            let limit = Duration::from_secs_f64(seconds) + Duration::from_secs(60);
            self.bench
                .progress
                .begin(format!("{name} gets warm"), seconds);
            self.load(at, &words, "warm-up", limit)?;
            self.bench.progress.end(None);
        }
        self.halt(at);
        Ok(())
    }

    pub fn halt(&self, at: usize) {
        if let Some(server) = &self.entries[at].server {
            server.halt();
        }
    }

    /// A load that is not measured; whether it went well.
    pub fn load(&self, at: usize, words: &str, name: &str, limit: Duration) -> Outcome<bool> {
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
        let words = self.bench.prepare_words(server, work);
        let is_done = self.load(at, &words.join(" "), &work.name, Duration::from_secs(330))?;
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

    pub fn measure_one(&mut self, at: usize, work: &Work, repetition: u32) -> Outcome<()> {
        let entry = &self.entries[at];
        let Some(server) = &entry.server else {
            return Ok(());
        };
        let which = Which {
            contender: &entry.contender,
            work,
            repetition,
        };
        let words = format!(
            "{} {repetition}/{} {}",
            work.name, self.bench.options.repetitions, entry.contender.name
        );
        self.bench
            .progress
            .begin(words.clone(), self.bench.expected_s(work) + EXTRA_S);
        let ran = self.bench.measure(server, &which)?;
        self.bench
            .progress
            .end(Some(&format!("{words}: {}", result(&ran))));
        self.ran.push(ran);
        Ok(())
    }

    /// Ends servers: all are told before the first is waited for.
    pub fn end(&mut self, is_meant: impl Fn(&Contender) -> bool) {
        let meant = |entry: &&mut Entry| is_meant(&entry.contender);
        let servers: Vec<Server> = self
            .entries
            .iter_mut()
            .filter(meant)
            .filter_map(|entry| entry.server.take())
            .collect();
        servers.iter().for_each(Server::tell_end);
    }

    /// Ends every server and makes the report; whether all runs count. `shows` its tables too.
    pub fn conclude(
        mut self,
        (title, out): (&str, &Path),
        outcome: Outcome<()>,
        shows: bool,
    ) -> Outcome<bool> {
        self.end(|_| true);
        self.bench.progress.clear();
        let files: Vec<PathBuf> = self.ran.iter().map(|ran| ran.file.clone()).collect();
        if !files.is_empty() {
            let text = report_html::of_files(title, &files, out)?;
            let from = if shows {
                0
            } else {
                text.rfind("report: ").unwrap_or(0)
            };
            crate::say(&text[from..]);
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

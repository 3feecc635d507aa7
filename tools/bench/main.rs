//! corelane-bench: a load generator for brokers that speak RocketMQ's remoting protocol.
//!
//! Pinned threads, each with its own io_uring or epoll, requests made of prebuilt frames, the same
//! bytes for every broker, so that the generator's own cost cancels out of a comparison.

mod absence;
mod bed;
mod check;
mod clock;
mod compare;
mod consume;
mod control;
mod cost;
mod drive;
mod e2e;
mod environment;
mod floor;
mod latency;
mod load;
mod mixed;
mod net;
mod own_delay;
mod produce;
mod producer;
mod progress;
mod ran;
mod reader;
mod refusals;
mod report;
mod report_html;
mod rounds;
mod search;
#[cfg(test)]
mod sham;
mod signals;
mod start;
mod table;
mod team;
mod wire;

use clap::{Parser, Subcommand};
pub(crate) use load::{Cpus, Load};
use std::path::PathBuf;
use std::process::ExitCode;

/// What went wrong, in words for the person at the terminal.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// Prints a line or several. Nobody has to read them: what a run wrote into files counts whether or not.
pub(crate) fn say(words: impl std::fmt::Display) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{words}").and_then(|()| out.flush()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => {
            eprintln!("corelane-bench: standard output cannot be written to: {err}");
        }
        _ => (),
    }
}

pub(crate) fn fail<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Failure(message.into()))
}

/// Loads a broker that speaks RocketMQ's remoting protocol, and checks what it answers.
///
/// Works the same against Corelane, Apache RocketMQ and any other server of that protocol.
///
/// Every message carries its run, stream, sequence, place and a checksum; whatever is lost,
/// duplicated, reordered or corrupted is counted and makes the run void.
///
/// Latencies are of requests that were granted: service is sent to acknowledged; response (open loop) is from the time at which a
/// message was due, so that a stall is seen by all that were due in it; e2e is from that time to
/// the message's arrival at a consumer. Quantiles with fewer than 10 samples above are not told.
///
/// Exit codes: 0 the run is valid, 1 the run is void (messages wrong, an answer missing, more than
/// one request of a hundred refused, or the generator too late itself), 2 it could not run, 130 a
/// signal ended it: it tells what it measured so far, and is void. A second signal ends it at once.
#[derive(Parser)]
#[command(name = "corelane-bench", version = env!("CORELANE_VERSION"), args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send messages: a closed loop, an open loop (--rate), or a search for the highest rate
    ///
    /// Closed loop: each of --connections keeps --in-flight requests outstanding. Open loop:
    /// messages are due at --rate, spaced as --arrival says, and are sent as soon as one of the
    /// connections × in-flight slots is free. A request's messages (--batch) are due together.
    ///
    /// Examples:
    ///   corelane-bench produce --addr 127.0.0.1:10911 --connections 64 --in-flight 8 --cpu 1
    ///   corelane-bench produce --addr 127.0.0.1:10911 --rate 20000 --arrival poisson --in-flight 64
    ///   corelane-bench produce --addr 127.0.0.1:10911 --search p99=5ms --in-flight 64 --duration 5
    #[command(verbatim_doc_comment)]
    #[command(args_override_self = true)]
    Produce {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        options: produce::Options,
    },
    /// Read a topic from its first offset to its end, again and again
    ///
    /// Each queue of each group has one pull outstanding, on one of --connections. With more
    /// connections than queues and one group, the surplus reads the queues a second time.
    /// --in-flight, --size, --batch, --keys, --tags, --rate and --count have no effect here, and it
    /// says so.
    #[command(args_override_self = true)]
    Consume {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        options: consume::Options,
    },
    /// Send and receive at once: latency from the intended send time to the pull answer
    ///
    /// Every queue has a long-polling pull, from the queue's end on; up to 64 connections beside
    /// the producer's share them.
    #[command(args_override_self = true)]
    E2e {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        pull: consume::PullSize,
    },
    /// Send to several groups that follow, while one that is far behind reads old messages
    ///
    /// The group behind reads what the topic held before the run again and again, as fast as it
    /// can, so that it stays behind for the whole window.
    #[command(args_override_self = true)]
    Mixed {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        options: mixed::Options,
    },
    /// Be the physical limit: a one-thread server that does one part of a broker's work
    ///
    /// Load echo, append and flush with `produce`, sendfile and gather with `consume` (the same
    /// --topic, --queues and --size): a broker's figures divided by these say how near it is to
    /// what kernel, wire and disk of this machine allow.
    ///
    /// Example, the floor on CPU 0 and the load on CPU 1:
    ///   corelane-bench floor append --cpu 0 --file /var/tmp/floor --addr 127.0.0.1:27901 &
    ///   corelane-bench produce --cpu 1 --addr 127.0.0.1:27901 --connections 64
    #[command(verbatim_doc_comment)]
    #[command(args_override_self = true)]
    Floor(floor::Options),
    /// Run a broker's command line and measure the time until its first acknowledgement
    Start(start::Options),
    /// Watch an idle server: memory and CPU time
    Idle {
        /// The process to look at
        #[arg(long)]
        server_pid: u32,
        /// Length of the look, seconds
        #[arg(long, default_value_t = 10.0)]
        duration: f64,
        /// Write the figures to this file
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Run brokers beside one another, in turn, and make a report of what was measured
    #[command(after_help = compare::HELP)]
    Compare(Box<compare::Options>),
    /// Measure the rows of goals beside RocketMQ and the floors, and say which are reached
    #[command(after_help = table::HELP)]
    Table(Box<table::Options>),
    /// Make a report out of the JSON files of earlier runs
    Report(report_html::Options),
    /// Run a command on chosen CPUs; it ends when its parent does
    #[command(hide = true)]
    Hold(bed::Hold),
}

impl Command {
    /// Whether its load can be, for who runs it later.
    fn check_load(&self) -> Outcome<()> {
        match self {
            Command::Produce { load, .. }
            | Command::E2e { load, .. }
            | Command::Mixed { load, .. } => load.check(),
            Command::Consume { load, .. } => load.reading().0.check(),
            _ => Ok(()),
        }
    }
}

/// Pins the calling thread on the first of these CPUs.
pub(crate) fn pin(cpus: Option<&Cpus>) -> Outcome<()> {
    environment::cpus_allowed();
    let first = cpus.and_then(|Cpus(cpus)| cpus.first().copied());
    let Some(id) = first else { return Ok(()) };
    if core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    fail(format!(
        "cannot pin on CPU {id}: this process may not use it; see `taskset -p $$`"
    ))
}

/// A connection takes a descriptor, and shells allow 1,024 as a rule.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, connecting says what is missing.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// What every command that loads a server does first.
fn prepare(load: &Load) -> Outcome<()> {
    load.check()?;
    load.check_outputs()?;
    signals::listen()?;
    allow_many_files();
    pin(load.cpu.as_ref())
}

fn run(cli: Cli) -> Outcome<bool> {
    match cli.command {
        Command::Produce { load, options } => {
            prepare(&load)?;
            produce::run(&load, &options)
        }
        Command::Consume { load, options } => {
            prepare(&load.reading().0)?;
            consume::run(&load, &options)
        }
        Command::E2e { load, pull } => {
            prepare(&load)?;
            e2e::run(&load, pull)
        }
        Command::Mixed { load, options } => {
            prepare(&load)?;
            mixed::run(&load, &options)
        }
        Command::Floor(options) => {
            allow_many_files();
            pin(options.cpu.map(|cpu| Cpus(vec![cpu])).as_ref())?;
            floor::run(&options).map(|()| true)
        }
        Command::Start(options) => start::run(&options),
        Command::Idle {
            server_pid,
            duration,
            json,
        } => cost::idle(server_pid, duration, json.as_deref()),
        Command::Compare(options) => compare::run(&options),
        Command::Table(options) => table::run(&options),
        Command::Report(options) => report_html::run(&options),
        Command::Hold(hold) => bed::hold(&hold),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(_) if signals::is_told() => ExitCode::from(bed::EXIT_SIGNAL as u8),
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure(message)) => {
            eprintln!("corelane-bench: {message}");
            match signals::is_told() {
                true => ExitCode::from(bed::EXIT_SIGNAL as u8),
                false => ExitCode::from(2),
            }
        }
    }
}

/// A load of words, for tests.
#[cfg(test)]
pub(crate) fn load_of(words: &str) -> Load {
    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        load: Load,
    }
    Words::parse_from(std::iter::once("x").chain(words.split_whitespace())).load
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_every_option_says_what_it_does() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                let name = argument.get_id();
                assert!(
                    argument.get_help().is_some(),
                    "{} {name}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn loads_that_cannot_be_are_refused() {
        for words in [
            "--rate=-1",
            "--duration 0",
            "--count 5 --warmup 1",
            "--arrival poisson",
            "--percentile 10",
            "--batch 10000 --size 4096",
        ] {
            let load = load_of(&format!("--addr 127.0.0.1:1 {words}"));
            assert!(load.check().is_err(), "{words}");
        }
        assert!(load_of("--addr 127.0.0.1:1").check().is_ok());
    }
}

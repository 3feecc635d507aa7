//! corelane-bench: a load generator for brokers that speak RocketMQ's remoting protocol.
//!
//! One pinned thread with epoll, requests made of prebuilt frames, the same bytes for every
//! broker, so that the generator's own cost cancels out of a comparison.

mod check;
mod clock;
mod compare;
mod connection;
mod consume;
mod control;
mod e2e;
mod floor;
mod produce;
mod producer;
mod reader;
mod report;
mod report_html;
mod server;
#[cfg(test)]
mod sham;
mod start;
mod wire;

use clap::{Args, Parser, Subcommand};
use std::net::{SocketAddr, ToSocketAddrs};
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

pub(crate) fn fail<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Failure(message.into()))
}

/// Loads a broker that speaks RocketMQ's remoting protocol, and checks what it answers.
///
/// Exit codes: 0 the run is valid, 1 the run is void (a message lost, duplicated, reordered or
/// corrupted, an answer missing, or every request refused), 2 it could not run.
#[derive(Parser)]
#[command(name = "corelane-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send messages: a closed loop, or an open loop with --rate
    Produce {
        #[command(flatten)]
        load: Load,
        /// After the run, read back and check all that was acknowledged
        #[arg(long)]
        read_back: bool,
    },
    /// Read a topic from its first offset to its end, again and again
    ///
    /// Each queue has one pull outstanding; queue q is read on connection q modulo N. With more
    /// connections than queues, the surplus reads the queues a second time. --in-flight, --size,
    /// --batch, --rate and --count mean nothing here.
    Consume {
        #[command(flatten)]
        load: Load,
        /// How closely records are looked at
        #[arg(long, value_enum, default_value_t = consume::Depth::First)]
        check: consume::Depth,
    },
    /// Send and receive at once: latency from the intended send time to the pull answer
    ///
    /// Every queue has its own connection with a long-polling pull, from the queue's end on.
    E2e {
        #[command(flatten)]
        load: Load,
    },
    /// Be the physical limit: a one-thread server that answers and does no broker's work
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
    /// Make a report out of the JSON files of earlier runs
    Report(report_html::Options),
    /// Run a command on one CPU; it ends when its parent does
    #[command(hide = true)]
    Hold(compare::Hold),
}

#[derive(Args, Clone)]
pub(crate) struct Load {
    /// Address of the broker (not of the name server)
    #[arg(long, value_parser = address)]
    pub addr: SocketAddr,
    /// Topic; created on the broker when it sends
    #[arg(long, default_value = "bench", value_parser = topic)]
    pub topic: String,
    /// Connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub connections: u32,
    /// Requests outstanding on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=wire::SLOTS_MAX as i64))]
    pub in_flight: u32,
    /// Bytes of a message's body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(check::FIELDS_SIZE as i64..=4 << 20))]
    pub size: u32,
    /// Messages in a request; above 1 they go as a batch (code 320)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Messages per second, each due at its own time (open loop); 0 sends as answers come
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// End as soon as that many messages are acknowledged; 0 sends for the whole duration
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Length of the measured window, seconds
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Load before the window, seconds
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// CPU to pin the generator on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Queues of the topic
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub queues: u32,
    /// Write the figures to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Process whose CPU time, memory and context switches are the server's
    #[arg(long)]
    pub server_pid: Option<u32>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|e| format!("{e}; write HOST:PORT"))?;
    found
        .next()
        .ok_or_else(|| "the name has no address; write HOST:PORT".to_string())
}

/// Only what needs no escape in JSON and is a topic for RocketMQ.
fn topic(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '%');
    if text.is_empty() || 127 < text.len() || !text.chars().all(legal) {
        return Err("a topic is 1 to 127 of A-Z a-z 0-9 _ - %".to_string());
    }
    Ok(text.to_string())
}

pub(crate) fn pin(cpu: Option<usize>) -> Outcome<()> {
    let Some(id) = cpu else { return Ok(()) };
    if core_affinity::set_for_current(core_affinity::CoreId { id }) {
        return Ok(());
    }
    fail(format!(
        "cannot pin on CPU {id}: this process may not use it; see `taskset -p $$`"
    ))
}

fn check_times(load: &Load) -> Outcome<()> {
    let sound = |seconds: f64| seconds.is_finite() && (0.0..=86_400.0).contains(&seconds);
    if !sound(load.duration) || load.duration < 0.1 || !sound(load.warmup) {
        return fail("--duration is 0.1 to 86400 seconds, --warmup 0 to 86400");
    }
    if !load.rate.is_finite() || !(0.0..=100e6).contains(&load.rate) {
        return fail("--rate is 0 (closed loop) to 100000000 messages a second");
    }
    if 0 < load.count && 0.0 < load.warmup {
        return fail("--count may be reached before the window begins: give --warmup 0 with it");
    }
    let request = u64::from(load.batch) * (u64::from(load.size) + 200);
    if 15 << 20 < request {
        return fail(format!(
            "a request of {request} bytes: the protocol's limit is 16 MiB a frame"
        ));
    }
    Ok(())
}

fn run(cli: Cli) -> Outcome<bool> {
    match cli.command {
        Command::Produce { load, read_back } => {
            check_times(&load)?;
            pin(load.cpu)?;
            produce::run(&load, read_back)
        }
        Command::Consume { load, check } => {
            check_times(&load)?;
            pin(load.cpu)?;
            consume::run(&load, check)
        }
        Command::E2e { load } => {
            check_times(&load)?;
            pin(load.cpu)?;
            e2e::run(&load)
        }
        Command::Floor(options) => {
            pin(options.cpu)?;
            floor::run(&options).map(|()| true)
        }
        Command::Start(options) => start::run(&options),
        Command::Idle {
            server_pid,
            duration,
            json,
        } => server::idle(server_pid, duration, json.as_deref()),
        Command::Compare(options) => compare::run(&options),
        Command::Report(options) => report_html::run(&options),
        Command::Hold(hold) => compare::hold(&hold),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure(message)) => {
            eprintln!("corelane-bench: {message}");
            ExitCode::from(2)
        }
    }
}

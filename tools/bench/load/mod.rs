//! What a run is asked to do: the options that every loading command shares, checked.

pub mod arrival;
mod share;
pub mod sizes;

pub use arrival::{Arrival, Schedule};
pub use share::{Cpus, Share, cpus};
pub use sizes::{Bodies, Sizes};

use crate::environment::check_cpus;
use crate::latency::files;
use crate::net::EngineKind;
use crate::{Outcome, fail, wire};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Bytes of a body, where nothing else is told.
const SIZE: usize = 1024;

/// What becomes of a run whose own delay spoils a percentile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum OwnDelay {
    /// As fail where a latency is measured: an open loop, a closed loop with one request outstanding
    /// on each thread, and any for which --percentile is given. A closed loop with more measures
    /// a rate, and its answers wait for one another in the generator: as withhold
    Auto,
    /// The run is void; of the latency nothing is told from that percentile on
    Fail,
    /// The run counts; of the latency nothing is told from that percentile on
    Withhold,
    /// The run counts and tells the percentile all the same, with a note
    Tell,
}

/// The percentile that own delay must not spoil, where none is told.
const PERCENTILE: f64 = 99.9;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WaitKind {
    /// An open loop spins, a closed loop sleeps
    Auto,
    /// Ask again and again: no wake-up in the latencies, a whole CPU used. Beside a server on the same
    /// machine it can hold up kernel threads of that CPU, which end the server's disk writes where
    /// the disk's interrupts come to it: then sleep tells more of the server
    Spin,
    /// Sleep in the kernel
    Sleep,
}

#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Address of the broker (not of the name server)
    #[arg(long, value_parser = address)]
    pub addr: SocketAddr,
    /// Topic; created on the broker by commands that send
    #[arg(long, default_value = "bench", value_parser = topic)]
    pub topic: String,
    /// So many topics; above 1 they are NAME-0, NAME-1 …
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: u32,
    /// Queues of each topic
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub queues: u32,
    /// Connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub connections: u32,
    /// Requests outstanding on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=wire::SLOTS_MAX as i64))]
    pub in_flight: u32,
    /// Bytes of a message's body: SIZE, MIN-MAX, exp:MEAN, or SIZE:WEIGHT,SIZE:WEIGHT…
    #[arg(long, default_value_t = Sizes::Fixed(SIZE), value_parser = sizes::parse)]
    pub size: Sizes,
    /// Messages in a request; above 1 they go as a batch (code 320)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Give each message one of N keys (property KEYS); 0 gives none
    #[arg(long, default_value_t = 0, value_parser = keys, allow_negative_numbers = true)]
    pub keys: u64,
    /// Give messages one of these tags in turn, comma-separated (property TAGS)
    #[arg(long, value_delimiter = ',', value_parser = topic)]
    pub tags: Vec<String>,
    /// Messages per second, each due at its own time (open loop); 0 sends as answers come
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub rate: f64,
    /// When they are due: constant, poisson, ramp:FROM (messages a second, over the window), or
    /// burst:COUNT (so many requests at once)
    #[arg(long, default_value = "constant", value_parser = arrival::parse)]
    pub arrival: Arrival,
    /// Seed of random arrivals, sizes and keys
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// End as soon as that many messages are acknowledged; 0 sends for the whole duration
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Length of the measured window, seconds
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    pub duration: f64,
    /// Load before the window, seconds [default: 2, with --count 0]
    #[arg(long = "warmup", allow_negative_numbers = true)]
    warmup_told: Option<f64>,
    /// Threads that make the load, each with connections and a ring or epoll of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// CPUs to pin the threads on, in turn: 1 or 1,3 or 2-5
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpu: Option<Cpus>,
    /// How bytes move
    #[arg(long, value_enum, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// How the generator waits
    #[arg(long, value_enum, default_value_t = WaitKind::Auto)]
    pub wait: WaitKind,
    /// What to do when the generator's own delay is above a tenth of a percentile; but with tell, a
    /// run is void too whose generator was kept off its CPU for a tenth of the window
    #[arg(long, value_enum, default_value_t = OwnDelay::Auto)]
    pub own_delay: OwnDelay,
    /// The highest percentile that own delay must not spoil, or the run is void [default: 99.9]
    #[arg(long)]
    pub percentile: Option<f64>,
    /// Write the figures to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write percentile spectra to PATH.service.hgrm, PATH.response.hgrm …
    #[arg(long, value_name = "PATH")]
    pub hgrm: Option<PathBuf>,
    /// Write the histograms of each second to this file, in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Process whose CPU time, memory, system calls and writes are the server's [default: the one
    /// that listens on --addr, if this machine runs it]
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Show a line of progress even where the error output is no terminal
    #[arg(long)]
    pub progress: bool,
}

pub fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|e| format!("{e}; write HOST:PORT"))?;
    found
        .next()
        .ok_or_else(|| "the name has no address; write HOST:PORT".to_string())
}

fn keys(text: &str) -> Result<u64, String> {
    let words = "write how many keys there are, or 0 to give none";
    text.parse().map_err(|_| words.to_string())
}

/// Only what needs no escape in JSON and is a topic for RocketMQ.
pub fn topic(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '%');
    if text.is_empty() || 127 < text.len() || !text.chars().all(legal) {
        return Err("a name is 1 to 127 of A-Z a-z 0-9 _ - %".to_string());
    }
    Ok(text.to_string())
}

impl Load {
    pub fn warmup(&self) -> f64 {
        let usual = if 0 < self.count { 0.0 } else { 2.0 };
        self.warmup_told.unwrap_or(usual)
    }

    pub fn set_warmup(&mut self, seconds: f64) {
        self.warmup_told = Some(seconds);
    }

    pub fn percentile(&self) -> f64 {
        self.percentile.unwrap_or(PERCENTILE)
    }

    pub fn is_open_loop(&self) -> bool {
        0.0 < self.rate
    }

    /// A load that only reads, and the options it was given that mean nothing to it: a rate would
    /// make it spin, and a count end its warm-up, though neither has anything to send.
    pub fn reading(&self) -> (Load, Vec<&'static str>) {
        let told = [
            ("--in-flight", self.in_flight != 1),
            ("--size", self.size != Sizes::Fixed(SIZE)),
            ("--batch", self.batch != 1),
            ("--keys", self.keys != 0),
            ("--tags", !self.tags.is_empty()),
            ("--rate", self.is_open_loop()),
            ("--arrival", self.arrival != Arrival::Constant),
            ("--count", 0 < self.count),
        ];
        let without = told.into_iter().filter_map(|(name, is)| is.then_some(name));
        let reading = Load {
            in_flight: 1,
            batch: 1,
            keys: 0,
            tags: Vec::new(),
            rate: 0.0,
            arrival: Arrival::Constant,
            count: 0,
            // Its size stays: it says which records are read.
            ..self.clone()
        };
        (reading, without.collect())
    }

    /// Name of topic number `index`.
    pub fn topic_name(&self, index: u32) -> String {
        if self.topics == 1 {
            return self.topic.clone();
        }
        format!("{}-{index}", self.topic)
    }

    /// Queues of all topics: lane `index` is queue `index % queues` of topic `index / queues`.
    pub fn lanes(&self) -> u32 {
        self.topics * self.queues
    }

    pub fn lane(&self, index: u32) -> (String, u32) {
        (self.topic_name(index / self.queues), index % self.queues)
    }

    pub fn check(&self) -> Outcome<()> {
        let sound = |seconds: f64| seconds.is_finite() && (0.0..=86_400.0).contains(&seconds);
        if !sound(self.duration) || self.duration < 0.1 || !sound(self.warmup()) {
            return fail("--duration is 0.1 to 86400 seconds, --warmup 0 to 86400");
        }
        if !self.rate.is_finite() || !(0.0..=100e6).contains(&self.rate) {
            return fail(format!(
                "--rate is 0 (closed loop) to 100000000 messages a second, and not {}",
                self.rate
            ));
        }
        if !self.is_open_loop() && self.arrival != Arrival::Constant {
            return fail("--arrival says when messages of an open loop are due: give --rate too");
        }
        if self.connections < self.threads {
            return fail(format!(
                "{} threads need at least as many --connections: each has its own",
                self.threads
            ));
        }
        if let Some(cpus) = &self.cpu {
            check_cpus("--cpu", cpus)?;
        }
        if !(50.0..100.0).contains(&self.percentile()) {
            return fail("--percentile is 50 or more and below 100, such as 99.9");
        }
        if 0 < self.count && 0.0 < self.warmup() {
            return fail("--count may be reached before the window begins: leave --warmup out");
        }
        let request = u64::from(self.batch) * (self.size.most() as u64 + 250);
        if 15 << 20 < request {
            return fail(format!(
                "a request of up to {request} bytes: the protocol's limit is 16 MiB a frame"
            ));
        }
        if 1 << 24 < u64::from(self.topics) * u64::from(self.queues) {
            return fail("topics × queues is above 16,777,216; lower one of them");
        }
        Ok(())
    }

    /// A file that cannot be written would take the results of the run along.
    pub fn check_outputs(&self) -> Outcome<()> {
        let spectrum = self.hgrm.as_ref();
        let spectrum = spectrum.map(|path| files::spectrum_path(path, "service"));
        let all = [self.json.as_ref(), self.hlog.as_ref(), spectrum.as_ref()];
        let mut told = all.into_iter().flatten();
        told.try_for_each(|path| files::check_writable(path))
    }

    pub fn describe(&self) -> Value {
        json!({
            "addr": self.addr.to_string(), "topic": self.topic, "topics": self.topics,
            "queues": self.queues, "connections": self.connections, "in_flight": self.in_flight,
            "size": self.size.to_string(), "batch": self.batch, "keys": self.keys,
            "tags": self.tags, "rate_per_s": self.rate, "arrival": self.arrival.to_string(),
            "seed": self.seed, "count": self.count, "duration_s": self.duration,
            "warmup_s": self.warmup(), "threads": self.threads, "cpu": self.cpus_told(),
            "percentile": self.percentile(),
        })
    }

    /// One CPU as a number, several as a list.
    pub fn cpus_told(&self) -> Value {
        match &self.cpu {
            Some(Cpus(cpus)) if cpus.len() == 1 => json!(cpus[0]),
            Some(Cpus(cpus)) => json!(cpus),
            None => Value::Null,
        }
    }

    /// Words that head a report.
    pub fn title(&self) -> String {
        let way = if self.is_open_loop() {
            format!("open loop at {}/s, {}", self.rate, self.arrival)
        } else {
            "closed loop".to_string()
        };
        let batch = match self.batch {
            1 => String::new(),
            count => format!("{count} × "),
        };
        let threads = match self.threads {
            1 => String::new(),
            count => format!("{count} threads · "),
        };
        let topics = match self.topics {
            1 => String::new(),
            count => format!("{count} topics × "),
        };
        let end = match self.count {
            0 => format!("{} s", self.duration),
            count => format!("{count} messages or {} s", self.duration),
        };
        format!(
            "{} · {} · {threads}{} connections × {} in flight · {batch}{} B · {topics}{} queues · {way} · {end} after {} s of warm-up",
            self.addr,
            self.topic,
            self.connections,
            self.in_flight,
            self.size,
            self.queues,
            self.warmup()
        )
    }
}

/// A small random number generator whose runs can be repeated (xorshift64*).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Two seeds that differ in one bit shall not begin alike, and zero would stay zero.
        let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        Random((state ^ state >> 31) | 1)
    }

    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    #[inline]
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(limit)) >> 64) as u64
    }

    /// Above 0 and at most 1.
    pub fn unit_above_zero(&mut self) -> f64 {
        ((self.word() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

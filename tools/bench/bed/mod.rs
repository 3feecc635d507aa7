//! The test bed of `compare` and `table`: servers beside one another, each measured in turn while
//! the others stand still, under the same loads.

mod contender;
mod earlier;
mod group;
mod hold;
mod measure;
mod progress;
mod server;
mod session;
mod stop;
mod version;

#[cfg(test)]
pub use contender::Places;
pub use contender::{Contender, Work, flush_family};
pub use hold::{Hold, hold};
pub use measure::{Which, reason};
pub use server::{PORT_FREE_MAX, Server, listens, tail};
pub use session::{EXIT_SIGNAL, Session, expected_s};

use crate::environment::check_cpus;
use crate::load::cpus;
use crate::{Cpus, Outcome, fail};
use std::path::PathBuf;

#[derive(clap::Args, Clone)]
#[group(id = "bed")]
pub struct Options {
    /// Load every peer that many seconds before its first run, for its compiler [default: 0, and
    /// 180 of `table`]
    #[arg(long, alias = "warm", value_name = "SECONDS")]
    warm_peer: Option<f64>,
    /// Runs of each contender under each load
    #[arg(short = 'n', long, alias = "reps", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: u32,
    /// Measured window of a run, seconds
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
    /// Load before the window, seconds
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Messages that a load that only reads finds in its topic
    #[arg(long, default_value_t = 200_000)]
    pub prepare: u64,
    /// CPU of the servers
    #[arg(long, default_value = "0", value_parser = cpus)]
    pub server_cpu: Cpus,
    /// CPUs of the generator; of several each gets a thread
    #[arg(long, default_value = "1", value_name = "LIST", value_parser = cpus)]
    pub load_cpu: Cpus,
    /// Port of the first server; the next ones follow, 40 apart
    #[arg(long, default_value_t = 20_931, value_parser = clap::value_parser!(u16).range(1024..=60_000))]
    pub port: u16,
    /// Folder for stores and logs: on the file system to be measured
    #[arg(long, value_name = "DIR", default_value = "target/compare-work")]
    pub work: PathBuf,
    /// Free space that each run wants, GiB
    #[arg(long, default_value_t = 10)]
    pub room_gib: u64,
    /// Time a server has to end after SIGTERM, seconds; then comes SIGKILL
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    grace: f64,
}

impl Options {
    pub fn check(&self) -> Outcome<()> {
        let is_time = |seconds: f64| (0.0..=86_400.0).contains(&seconds);
        if !is_time(self.duration) || self.duration < 0.1 || !is_time(self.warmup) {
            return fail("--duration is 0.1 to 86400 seconds, --warmup 0 to 86400");
        }
        if !is_time(self.warm_peer()) || !is_time(self.grace) {
            return fail("--warm-peer and --grace are 0 to 86400 seconds");
        }
        // Servers would be up before the first of them is missed.
        check_cpus("--server-cpu", &self.server_cpu)?;
        check_cpus("--load-cpu", &self.load_cpu)?;
        Ok(())
    }

    pub fn warm_peer(&self) -> f64 {
        self.warm_peer.unwrap_or(0.0)
    }

    /// Where nothing was told.
    pub fn warm_peers_by(&mut self, seconds: f64) {
        self.warm_peer.get_or_insert(seconds);
    }
}

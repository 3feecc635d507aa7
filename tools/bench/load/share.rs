//! One thread's part of a load: its connections, its share of the rate, and the slots that are its own.

use super::{Arrival, Load};
use crate::clock;

/// A list of CPUs, as `taskset -c` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

const CPUS_MAX: usize = 4096;

pub fn cpus(text: &str) -> Result<Cpus, String> {
    let words = "write a CPU, a list or ranges, such as 1 or 1,3 or 2-5";
    let number = |text: &str| text.parse::<usize>().ok().filter(|at| *at < CPUS_MAX);
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => found.extend(first..=last),
            _ => return Err(words.into()),
        }
    }
    Ok(Cpus(found))
}

impl std::fmt::Display for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "{}", words.join(","))
    }
}

#[derive(Clone)]
pub struct Share {
    pub thread: usize,
    pub threads: usize,
    /// Its own part: connections, rate and count are fewer than the whole load's.
    pub load: Load,
    /// Messages to be acknowledged, where the load has a count: a share of few may be none.
    pub count: Option<u64>,
    /// Slots are numbered through all threads, so that each stream has one sender.
    pub first_slot: usize,
    pub slots: usize,
    /// The same for all threads: their messages are of one run.
    pub run: u64,
}

impl Share {
    /// One for each thread. A load has at least as many connections as threads.
    pub fn of(load: &Load) -> Vec<Share> {
        let (run, threads) = (clock::run_id(), load.threads as usize);
        let mut first_connection = 0;
        let share = |thread: usize| {
            let part = part(load, thread as u32, first_connection);
            let first_slot = (first_connection * load.in_flight) as usize;
            first_connection += part.connections;
            Share {
                thread,
                threads,
                count: (0 < load.count).then_some(part.count),
                load: part,
                first_slot,
                slots: (load.connections * load.in_flight) as usize,
                run,
            }
        };
        (0..threads).map(share).collect()
    }

    /// Number `at` of what is dealt out to all threads in turn.
    pub fn has(&self, at: usize) -> bool {
        at % self.threads == self.thread
    }

    /// How many of that many are this thread's, at least one.
    pub fn some_of(&self, count: usize) -> usize {
        (count.saturating_sub(self.thread).div_ceil(self.threads)).max(1)
    }
}

fn part(load: &Load, thread: u32, first_connection: u32) -> Load {
    let mut part = load.clone();
    let (each, more) = (
        load.connections / load.threads,
        load.connections % load.threads,
    );
    part.connections = each + u32::from(thread < more);
    let of =
        |whole: f64, connections: u32| whole * f64::from(connections) / f64::from(load.connections);
    part.rate = of(load.rate, part.connections);
    // Shares of a count add up to it, whatever is left over by a division.
    let until = |connection: u32| {
        (u128::from(load.count) * u128::from(connection) / u128::from(load.connections)) as u64
    };
    part.count = until(first_connection + part.connections) - until(first_connection);
    part.arrival = match load.arrival {
        Arrival::Ramp { from_per_s } => Arrival::Ramp {
            from_per_s: of(from_per_s, part.connections),
        },
        Arrival::Burst { requests } => Arrival::Burst {
            requests: (of(f64::from(requests), part.connections).round() as u32).max(1),
        },
        same => same,
    };
    part.seed = load.seed.wrapping_add(u64::from(thread) << 32);
    if let Some(Cpus(cpus)) = &load.cpu {
        part.cpu = Some(Cpus(vec![cpus[thread as usize % cpus.len()]]));
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_of;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("1"), Ok(Cpus(vec![1])));
        assert_eq!(cpus("1,4-6,2"), Ok(Cpus(vec![1, 4, 5, 6, 2])));
        for text in ["", "a", "1,", "3-1", "-1", "99999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_add_up_to_the_load_and_no_slot_is_anybody_elses() {
        let load = load_of(
            "--addr 127.0.0.1:1 --threads 3 --connections 8 --in-flight 5 --rate 1000 --count 1001 --cpu 2,4",
        );
        let shares = Share::of(&load);
        let mut slot = 0;
        for share in &shares {
            assert_eq!((share.first_slot, share.slots), (slot, 40));
            slot += (share.load.connections * share.load.in_flight) as usize;
        }
        assert_eq!(slot, 40);
        let counts = |shares: &[Share]| shares.iter().map(|it| it.count).collect::<Vec<_>>();
        assert_eq!(counts(&shares), [Some(375), Some(375), Some(251)]);
        let few = load_of("--addr 127.0.0.1:1 --threads 2 --connections 2 --count 1");
        assert_eq!(counts(&Share::of(&few)), [Some(0), Some(1)]);
        let endless = load_of("--addr 127.0.0.1:1 --threads 2 --connections 2");
        assert_eq!(counts(&Share::of(&endless)), [None, None]);
        let rate: f64 = shares.iter().map(|it| it.load.rate).sum();
        assert!((rate - 1000.0).abs() < 1e-6);
        let cpus: Vec<_> = shares
            .iter()
            .map(|it| it.load.cpu.clone().unwrap().0[0])
            .collect();
        assert_eq!(cpus, [2, 4, 2]);
        let dealt = |share: &Share| (0..10).filter(|at| share.has(*at)).count();
        for share in &shares {
            assert_eq!(dealt(share), share.some_of(10));
        }
    }
}

//! What is left of a run when it is over: of one thread first, then of all of them together.

use crate::consume::Readers;
use crate::cost::Meter;
use crate::drive::{Counts, Window};
use crate::latency::{Recorder, Upto};
use crate::load::OwnDelay;
use crate::producer::Producer;
use crate::report::{grouped, short};
use crate::{Load, clock, latency};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Below this part of the window what a message costs the generator is not known: mostly it waited.
const BUSY_MIN: f64 = 0.25;

/// A generator that was kept off its CPU for more of the window has measured itself.
const AWAY_MAX: f64 = 0.1;

/// What the run is about, and what the readers behind got beside it.
#[derive(Clone, Copy, Default)]
pub struct Both {
    pub main: Counts,
    pub behind: Counts,
}

impl Both {
    pub fn since(self, before: Both) -> Both {
        Both {
            main: self.main.since(before.main),
            behind: self.behind.since(before.behind),
        }
    }

    fn add(&mut self, other: Both) {
        self.main.add(other.main);
        self.behind.add(other.behind);
    }
}

pub struct Ran {
    pub producer: Option<Producer>,
    /// Those that follow or read; then, of `mixed`, those behind.
    pub readers: Vec<Readers>,
    pub meter: Meter,
    pub window: Window,
    /// Intended to delivered.
    pub e2e: Recorder,
    /// How long answers that were there waited for the generator: those of a turn wait for those
    /// that are taken first, and all of them while it is kept off its CPU.
    pub pickup: Recorder,
    /// How long of the window the thread was kept off its CPU, or stopped; of several the one that
    /// was longest.
    pub kept_away_ns: u64,
    /// Messages of this run that came by `readers[0]`.
    pub received: u64,
    pub received_in_window: u64,
    pub started_wall: SystemTime,
    pub warm_up_ns: u64,
    pub engine: &'static str,
    /// Most requests that a thread has outstanding: of those that send, or, where none does, of
    /// those that read.
    pub at_once: usize,
    /// Whether it asked again and again instead of sleeping.
    pub spun: bool,
    /// How long the threads had nothing to do in the window: whose limit a rate met.
    pub idle_ns: u64,
    /// One of each second of the window.
    pub seconds: Vec<Both>,
    /// Where the counts stood when the window began and ended.
    pub begun: Option<Both>,
    pub ended: Option<Both>,
}

impl Ran {
    /// Takes over what another thread did.
    pub fn absorb(&mut self, other: Ran) {
        match (&mut self.producer, other.producer) {
            (Some(producer), Some(other)) => producer.absorb(other),
            (none, other) => *none = none.take().or(other),
        }
        for (at, readers) in other.readers.into_iter().enumerate() {
            match self.readers.get_mut(at) {
                Some(known) => known.absorb(readers),
                None => self.readers.push(readers),
            }
        }
        self.meter.absorb(other.meter);
        self.window.end_ns = self.window.end_ns.max(other.window.end_ns);
        self.e2e.absorb(other.e2e);
        self.pickup.absorb(other.pickup);
        self.kept_away_ns = self.kept_away_ns.max(other.kept_away_ns);
        self.received += other.received;
        self.received_in_window += other.received_in_window;
        self.at_once = self.at_once.max(other.at_once);
        self.spun |= other.spun;
        self.idle_ns += other.idle_ns;
        let least = self.seconds.len().max(other.seconds.len());
        self.seconds.resize(least, Both::default());
        for (sum, second) in self.seconds.iter_mut().zip(other.seconds) {
            sum.add(second);
        }
        for (sum, at) in [
            (&mut self.begun, other.begun),
            (&mut self.ended, other.ended),
        ] {
            if let (Some(sum), Some(at)) = (sum, at) {
                sum.add(at);
            }
        }
    }

    /// Wall time at which the window began.
    pub fn window_wall(&self) -> SystemTime {
        self.started_wall + Duration::from_nanos(self.warm_up_ns)
    }

    /// What the run is about: acknowledged messages, or read ones where nothing is sent.
    pub fn counts(&self) -> Both {
        let main = match (&self.producer, self.readers.first()) {
            (Some(producer), _) => Counts {
                messages: producer.acknowledged,
                bytes: producer.acknowledged_bytes,
            },
            (None, Some(readers)) => readers.counts,
            (None, None) => Counts::default(),
        };
        let behind = self.readers.get(1).map(|readers| readers.counts);
        Both {
            main,
            behind: behind.unwrap_or_default(),
        }
    }

    pub fn close_recorders(&mut self) {
        let second = self.seconds.len().saturating_sub(1) as u32;
        self.producer
            .iter_mut()
            .for_each(|producer| producer.close(second));
        self.readers
            .iter_mut()
            .for_each(|readers| readers.service.close(second));
        self.e2e.close(second);
        self.pickup.close(second);
    }

    /// After the run: what came since the last whole second.
    pub fn close_all(&mut self) {
        let unsent_ns = clock::now_ns();
        let seconds = self.window.seconds().ceil() as usize;
        if self.seconds.len() < seconds {
            self.close_second(self.all_between());
        }
        if let Some(producer) = &mut self.producer {
            producer.unsent_requests = producer.unsent(unsent_ns);
        }
        self.close_recorders();
    }

    /// Ends a second; `sum` is what was done since the window began.
    pub fn close_second(&mut self, sum: Both) {
        let mut before = Both::default();
        self.seconds.iter().for_each(|second| before.add(*second));
        self.seconds.push(sum.since(before));
        self.close_recorders();
    }

    /// The share of the window for which the generator was kept off its CPU, where that makes the run void: what
    /// it measured is itself then.
    pub fn was_kept_away(&self, load: &Load) -> Option<f64> {
        let share = self.kept_away();
        (AWAY_MAX < share && load.own_delay != OwnDelay::Tell).then_some(share)
    }

    pub fn kept_away(&self) -> f64 {
        self.kept_away_ns as f64 / 1e9 / self.window.seconds()
    }

    /// The latency that the run is about, with its name.
    pub fn primary(&self) -> Option<(&'static str, &Recorder)> {
        match (&self.producer, self.readers.first()) {
            (Some(_), Some(_)) => Some(("e2e", &self.e2e)),
            (Some(producer), None) if producer.is_open_loop() => {
                Some(("response", &producer.response))
            }
            (Some(producer), None) => Some(("service", &producer.service)),
            (None, Some(readers)) => Some(("pull", &readers.service)),
            (None, None) => None,
        }
    }

    fn all_between(&self) -> Both {
        match (self.begun, self.ended) {
            (Some(begun), Some(ended)) => ended.since(begun),
            _ => Both::default(),
        }
    }

    /// What came between the meter's readings.
    pub fn between(&self) -> Counts {
        self.all_between().main
    }

    /// What those behind got between the meter's readings.
    pub fn behind_between(&self) -> Counts {
        self.all_between().behind
    }

    /// Which part of the window the threads were at work.
    pub fn busy(&self, threads: u32) -> f64 {
        let idle_s = self.idle_ns as f64 / clock::SECOND_NS as f64;
        (1.0 - idle_s / (self.window.seconds() * f64::from(threads))).clamp(0.0, 1.0)
    }

    /// Why requests that were due never left, which is the server's doing only where the generator
    /// waited for it.
    pub fn unsent_words(&self, load: &Load) -> Option<String> {
        let unsent = self.producer.as_ref().map_or(0, |it| it.unsent_requests);
        if unsent == 0 {
            return None;
        }
        let busy = self.busy(load.threads);
        // What it would send if it never had to wait.
        let own_rate = self.between().messages as f64 / self.window.seconds() / busy.max(1e-3);
        let whose = match BUSY_MIN <= busy && own_rate < load.rate {
            true => format!(
                "that is the generator's limit, about {} a second however fast the server is: \
                 lower --rate, or give it more CPUs (--cpu, --threads)",
                short(own_rate)
            ),
            false => format!(
                "that is the server's limit with {} requests outstanding: \
                 lower --rate, or allow more of them (--connections, --in-flight)",
                load.connections * load.in_flight
            ),
        };
        Some(format!(
            "{} requests were due and never sent; {whose}",
            grouped(unsent as i64)
        ))
    }

    /// Messages of the whole run, warm-up included.
    pub fn messages_all(&self) -> u64 {
        self.counts().main.messages
    }

    /// How long a second of the window was: the last is cut where the window ended.
    pub fn length_s(&self, second: u32) -> f64 {
        (self.window.seconds() - f64::from(second)).clamp(1e-3, 1.0)
    }

    /// One object a second of the window; what is spoiled of its latency is null.
    pub fn series(&self, upto: Upto) -> Value {
        let mut latencies = vec![latency::histogram(); self.seconds.len()];
        for interval in self.primary().iter().flat_map(|(_, it)| it.intervals()) {
            if let Some(sum) = latencies.get_mut(interval.second as usize) {
                // Two intervals fall into the last second: what came after the window's end.
                sum.add(interval.histogram())
                    .expect("all have the same bounds");
            }
        }
        let has_behind = 1 < self.readers.len();
        let row = |(second, (at, latency)): (usize, (&Both, &hdrhistogram::Histogram<u64>))| {
            let quantile = |quantile: f64| {
                let is_told = !latency.is_empty() && upto.has(quantile);
                json!(is_told.then(|| latency.value_at_quantile(quantile)))
            };
            let mut row = json!({
                "second": second, "length_s": self.length_s(second as u32), "messages": at.main.messages, "bytes": at.main.bytes,
                "p50_ns": quantile(0.5), "p99_ns": quantile(0.99), "max_ns": quantile(1.0),
            });
            if has_behind {
                row["behind_messages"] = json!(at.behind.messages);
                row["behind_bytes"] = json!(at.behind.bytes);
            }
            row
        };
        let rows = self.seconds.iter().zip(&latencies).enumerate().map(row);
        Value::Array(rows.collect())
    }
}

//! One run: the turns of the generator's thread, the measured window, its seconds, and who takes
//! what came on which connection.

use crate::consume::Readers;
use crate::cost::Meter;
use crate::latency::Recorder;
use crate::load::{Load, WaitKind};
use crate::net::{Net, Wait};
use crate::producer::Producer;
use crate::progress::Progress;
use crate::{Outcome, clock, fail};
use serde_json::{Value, json};

/// How long the last answers may take.
pub const DRAIN_NS: u64 = 10 * clock::SECOND_NS;
/// What is not delivered when nothing came for so long does not come.
const QUIET_NS: u64 = 3 * clock::SECOND_NS;
const SLEEP_NS: u64 = 10_000_000;

/// The measured part of a run.
#[derive(Clone, Copy, Default)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub fn after(now_ns: u64, load: &Load) -> Window {
        let start_ns = now_ns + clock::seconds_ns(load.warmup());
        Window {
            start_ns,
            end_ns: start_ns + clock::seconds_ns(load.duration),
        }
    }

    pub fn has(&self, at_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&at_ns)
    }

    pub fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns).max(1) as f64 / clock::SECOND_NS as f64
    }
}

/// Messages and bytes of one second of the window.
#[derive(Clone, Copy)]
struct Second {
    messages: u64,
    bytes: u64,
}

/// Messages and bytes so far, and where they stood when the window began and ended.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub messages: u64,
    pub bytes: u64,
}

impl Counts {
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// A run in progress and what is left when it is over.
pub struct Drive {
    pub net: Net,
    pub producer: Option<Producer>,
    pub readers: Vec<Readers>,
    pub meter: Meter,
    pub window: Window,
    /// Intended to delivered.
    pub e2e: Recorder,
    /// How long answers that were there waited for the generator: those of a turn wait for those
    /// that are taken first.
    pub pickup: Recorder,
    /// Messages of this run that came by `readers[0]`.
    pub received: u64,
    pub received_in_window: u64,
    /// How many groups of `readers[0]` get every message.
    pub groups: u64,
    /// Stops sending when the oldest due message waited so long.
    pub backlog_ns_max: u64,
    pub started_wall: std::time::SystemTime,
    /// From the first request to the last answer.
    run_ns: u64,
    warm_up_ns: u64,
    /// How much was received, and when that was seen first.
    progress_at: (u64, u64),
    wait: Wait,
    progress: Progress,
    seconds: Vec<Second>,
    begun: Option<Counts>,
    ended: Option<Counts>,
}

/// Whose a connection is.
#[derive(Clone, Copy)]
enum Owner {
    Producer(usize),
    Readers(usize, usize),
}

impl Drive {
    pub fn new(load: &Load) -> Outcome<Drive> {
        let spins = match load.wait {
            WaitKind::Auto => load.is_open_loop(),
            WaitKind::Spin => true,
            WaitKind::Sleep => false,
        };
        Ok(Drive {
            net: Net::new(load.engine)?,
            producer: None,
            readers: Vec::new(),
            meter: Meter::new(load)?,
            window: Window::default(),
            e2e: Recorder::default(),
            pickup: Recorder::default(),
            received: 0,
            received_in_window: 0,
            run_ns: 0,
            warm_up_ns: 0,
            progress_at: (0, 0),
            groups: 1,
            backlog_ns_max: u64::MAX,
            started_wall: std::time::SystemTime::now(),
            wait: if spins {
                Wait::Spin
            } else {
                Wait::Sleep { ns: SLEEP_NS }
            },
            progress: Progress::new(load),
            seconds: Vec::new(),
            begun: None,
            ended: None,
        })
    }

    pub fn spins(&self) -> bool {
        self.wait == Wait::Spin
    }

    /// Wall time at which the window began.
    pub fn window_wall(&self) -> std::time::SystemTime {
        self.started_wall + std::time::Duration::from_nanos(self.warm_up_ns)
    }

    /// Length of the whole run, warm-up and last answers included.
    pub fn total_seconds(&self) -> f64 {
        self.run_ns.max(1) as f64 / clock::SECOND_NS as f64
    }

    fn owners(&self) -> Vec<Option<Owner>> {
        let mut owners = Vec::new();
        let mut set = |token: usize, owner| {
            if owners.len() <= token {
                owners.resize(token + 1, None);
            }
            owners[token] = Some(owner);
        };
        let producer = self.producer.iter().flat_map(|producer| producer.tokens());
        for (index, token) in producer.enumerate() {
            set(*token, Owner::Producer(index));
        }
        for (who, readers) in self.readers.iter().enumerate() {
            for (index, token) in readers.tokens().iter().enumerate() {
                set(*token, Owner::Readers(who, index));
            }
        }
        owners
    }

    /// What the run is about: acknowledged messages, or read ones where nothing is sent.
    fn counts(&self) -> Counts {
        match (&self.producer, self.readers.first()) {
            (Some(producer), _) => Counts {
                messages: producer.acknowledged,
                bytes: producer.acknowledged_bytes,
            },
            (None, Some(readers)) => readers.counts,
            (None, None) => Counts::default(),
        }
    }

    /// Runs from warm-up to the last answer.
    pub fn run(&mut self, load: &Load) -> Outcome<()> {
        let owners = self.owners();
        let run = self.producer.as_ref().map_or(0, |producer| producer.run);
        for readers in &mut self.readers {
            readers.start(&mut self.net)?;
        }
        let now_ns = clock::now_ns();
        self.started_wall = std::time::SystemTime::now();
        self.window = Window::after(now_ns, load);
        self.warm_up_ns = self.window.start_ns - now_ns;
        self.meter.warm_up(self.warm_up_ns);
        if let Some(producer) = &mut self.producer {
            producer.start(&mut self.net, self.window, now_ns)?;
        }
        let mut ready = Vec::new();
        loop {
            let wait = self.turn_wait();
            self.net.wait(wait, &mut ready)?;
            if !ready.is_empty() {
                self.take(&ready, &owners, run)?;
            }
            if let Some(producer) = &mut self.producer {
                producer.issue_due(&mut self.net)?;
            }
            if self.is_over()? {
                break;
            }
        }
        self.run_ns = clock::now_ns() - now_ns;
        self.progress.end();
        self.close_all();
        Ok(())
    }

    /// Sleeps no longer than until the next message is due.
    fn turn_wait(&self) -> Wait {
        let Wait::Sleep { ns } = self.wait else {
            return Wait::Spin;
        };
        let due_ns = self.producer.as_ref().and_then(Producer::due_ns);
        match due_ns.map(|due_ns| due_ns.saturating_sub(clock::now_ns())) {
            None => self.wait,
            Some(0) => Wait::Spin,
            Some(left_ns) => Wait::Sleep {
                ns: left_ns.min(ns),
            },
        }
    }

    /// Takes what came.
    fn take(&mut self, ready: &[usize], owners: &[Option<Owner>], run: u64) -> Outcome<()> {
        let turn_ns = clock::now_ns();
        for token in ready {
            let Some(owner) = owners.get(*token).copied().flatten() else {
                continue;
            };
            if self.net.receive(*token)?.is_none() {
                let left = self.producer.as_ref().map_or(0, |p| p.outstanding);
                return fail(format!(
                    "the server closed a connection with {left} send requests unanswered in all"
                ));
            }
            let now_ns = clock::now_ns();
            if self.window.has(now_ns) {
                self.pickup.record(now_ns - turn_ns);
            }
            match owner {
                Owner::Producer(index) => {
                    let producer = self.producer.as_mut().expect("it owns a connection");
                    producer.on_ready(&mut self.net, index, now_ns)?;
                }
                Owner::Readers(who, index) => {
                    let (window, e2e) = (self.window, &mut self.e2e);
                    let (all, in_window) = (&mut self.received, &mut self.received_in_window);
                    let is_in_window = window.has(now_ns);
                    let seen = |of_run: u64, intended_ns: u64| {
                        if of_run == run && who == 0 {
                            *all += 1;
                            *in_window += u64::from(is_in_window);
                            if window.has(intended_ns) {
                                e2e.record(now_ns.saturating_sub(intended_ns));
                            }
                        }
                    };
                    self.readers[who].on_ready(&mut self.net, index, now_ns, window, seen)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at the clock: seconds, window, end.
    fn is_over(&mut self) -> Outcome<bool> {
        let now_ns = clock::now_ns();
        if let Some(producer) = &mut self.producer {
            if self.backlog_ns_max < producer.backlog_ns(now_ns) {
                producer.give_up(now_ns);
            }
            self.window = producer.end_at_count(now_ns);
        }
        let window = self.window;
        let counts = self.counts();
        self.meter.tell_messages(counts.messages);
        if self.begun.is_none() && window.start_ns <= now_ns {
            self.begun = Some(counts);
            self.meter.begin()?;
        }
        if self.ended.is_none() && window.end_ns <= now_ns {
            self.ended = Some(counts);
            self.meter.end()?;
        }
        if let Some(begun) = self.begun {
            let next = window.start_ns + (self.seconds.len() as u64 + 1) * clock::SECOND_NS;
            if next <= now_ns && self.seconds.len() < 100_000 {
                self.close_second(counts.since(begun));
            }
        } else {
            self.progress.warm_up(now_ns, counts.messages);
        }
        let is_done = match &self.producer {
            Some(producer) => {
                let wanted = if self.readers.is_empty() {
                    0
                } else {
                    producer.acknowledged * self.groups
                };
                if self.received != self.progress_at.0 {
                    self.progress_at = (self.received, now_ns);
                }
                let is_quiet = self.progress_at.1.max(window.end_ns) + QUIET_NS < now_ns;
                producer.is_drained(now_ns) && (wanted <= self.received || is_quiet)
            }
            None => window.end_ns <= now_ns,
        };
        Ok(is_done || window.end_ns + DRAIN_NS < now_ns)
    }

    fn close_second(&mut self, sum: Counts) {
        let before = self.seconds.iter().fold((0, 0), |(messages, bytes), at| {
            (messages + at.messages, bytes + at.bytes)
        });
        self.seconds.push(Second {
            messages: sum.messages.saturating_sub(before.0),
            bytes: sum.bytes.saturating_sub(before.1),
        });
        self.close_recorders();
        let second = self.seconds.len();
        let p99_ns = self
            .primary()
            .and_then(|recorder| recorder.last_quantile(0.99));
        let messages = self.seconds[second - 1].messages;
        self.progress.second(second, messages, p99_ns);
    }

    fn close_recorders(&mut self) {
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
    fn close_all(&mut self) {
        let unsent_ns = clock::now_ns();
        let sum = match (self.begun, self.ended) {
            (Some(begun), Some(ended)) => ended.since(begun),
            _ => Counts::default(),
        };
        let seconds = self.window.seconds().ceil() as usize;
        if self.seconds.len() < seconds {
            self.close_second(sum);
        }
        if let Some(producer) = &mut self.producer {
            producer.unsent_requests = producer.unsent(unsent_ns);
        }
        self.close_recorders();
    }

    /// The latency that the run is about.
    pub fn primary(&self) -> Option<&Recorder> {
        match (&self.producer, self.readers.first()) {
            (Some(_), Some(_)) => Some(&self.e2e),
            (Some(producer), None) if producer.is_open_loop() => Some(&producer.response),
            (Some(producer), None) => Some(&producer.service),
            (None, Some(readers)) => Some(&readers.service),
            (None, None) => None,
        }
    }

    /// What came between the meter's readings.
    pub fn between(&self) -> Counts {
        match (self.begun, self.ended) {
            (Some(begun), Some(ended)) => ended.since(begun),
            _ => Counts::default(),
        }
    }

    /// Messages of the whole run, warm-up included.
    pub fn messages_all(&self) -> u64 {
        self.counts().messages
    }

    /// One object a second of the window.
    pub fn series(&self) -> Value {
        let mut latencies = vec![crate::latency::histogram(); self.seconds.len()];
        for interval in self.primary().iter().flat_map(|it| it.intervals()) {
            if let Some(sum) = latencies.get_mut(interval.second as usize) {
                // Two intervals fall into the last second: what came after the window's end.
                sum.add(interval.histogram())
                    .expect("all have the same bounds");
            }
        }
        let row = |(second, (at, latency)): (usize, (&Second, &hdrhistogram::Histogram<u64>))| {
            let quantile = |quantile: f64| match latency.is_empty() {
                true => Value::Null,
                false => json!(latency.value_at_quantile(quantile)),
            };
            json!({
                "second": second, "messages": at.messages, "bytes": at.bytes,
                "p50_ns": quantile(0.5), "p99_ns": quantile(0.99), "max_ns": quantile(1.0),
            })
        };
        Value::Array(
            self.seconds
                .iter()
                .zip(&latencies)
                .enumerate()
                .map(row)
                .collect(),
        )
    }
}

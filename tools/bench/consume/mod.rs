//! Reading: queues pulled record by record, each record's place and, where asked, body checked.

mod command;
mod read_back;

pub use command::{Options, run};
pub use read_back::{Read, ReadBack, read_back};

use crate::check::Faults;
use crate::drive::{Counts, Window};
use crate::latency::Recorder;
use crate::load::Share;
use crate::net::Net;
use crate::reader::Reader;
use crate::refusals::Refusals;
use crate::report::{Report, grouped};
use crate::wire::{self, Answers, NumberKey, Pull};
use crate::{Load, Outcome, clock, fail};
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Depth {
    /// Bodies in the first pass, sizes and queue offsets in the later ones
    First,
    /// Bodies in every pass
    Every,
    /// Only sizes and queue offsets
    Sizes,
}

const FOUND: i32 = 0;
const NO_NEW_MESSAGE: i32 = 19;
const RETRY_IMMEDIATELY: i32 = 20;
const OFFSET_MOVED: i32 = 21;
/// A reader with a rate that was slow for so long asks at once until it is even.
const CATCH_UP_NS: u64 = clock::SECOND_NS / 10;

/// Readers and their connections. A reader is known on its connection by its index.
pub struct Readers {
    group_name: String,
    topics: Vec<String>,
    queues: u32,
    tokens: Vec<usize>,
    pub readers: Vec<Reader>,
    ways: Ways,
    answers: Answers,
    next_begin: NumberKey,
    pub counts: Counts,
    pub pulls: u64,
    empty_pulls: u64,
    pub unexpected: u64,
    pub errors: BTreeMap<i32, u64>,
    refusals: Refusals,
    /// A pull, sent to answered.
    pub service: Recorder,
    /// Nanoseconds that a message takes of one reader's time; 0 sets no limit.
    gap_ns: f64,
    /// Readers that ask when their time has come.
    paused: Vec<usize>,
}

#[derive(Clone, Copy)]
pub struct Ways {
    pub depth: Depth,
    pub suspend_ms: u32,
    /// Whether a reader at its end begins anew.
    pub repeats: bool,
    /// Most messages and bytes of an answer.
    pub count_max: u32,
    pub bytes_max: Option<u32>,
    /// Messages a second that the readers of all threads get at most; 0 sets no limit.
    pub rate: f64,
    /// They begin so many seconds into the window; none begins with the run.
    pub begin_s: Option<u32>,
}

/// What is asked for in a pull, of commands that read.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct PullSize {
    /// Most messages that a pull asks for
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pull_messages: u32,
    /// Most bytes that a pull asks for (maxMsgBytes) [default: does not say]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=14 << 20))]
    pub pull_bytes: Option<u32>,
}

/// Tells how many messages were of other runs, which send to the topic at the same time.
pub fn report_foreign(report: &mut Report, count: u64) {
    report.value("foreign_messages", json!(count));
    report.check("foreign_messages", json!(count));
    if 0 < count {
        report.note(format!(
            "{} messages that were read are of another run, and were passed over: \
             does another generator send to the topic? Its load is in the figures",
            grouped(count as i64)
        ));
    }
}

impl Readers {
    /// Of all readers those that are one thread's, on its share of the connections.
    pub fn share(
        share: &Share,
        net: &mut Net,
        connections: usize,
        readers: impl Iterator<Item = Reader>,
        ways: Ways,
    ) -> Outcome<Readers> {
        let (mut own, mut all) = (Vec::new(), 0);
        for (at, reader) in readers.enumerate() {
            all += 1;
            if share.has(at) {
                own.push(reader);
            }
        }
        let part = own.len() as f64 / f64::from(all.max(1));
        let ways = Ways {
            rate: ways.rate * part,
            ..ways
        };
        Readers::connect(&share.load, net, share.some_of(connections), own, ways)
    }

    /// Connects so many connections and spreads the readers over them.
    pub fn connect(
        load: &Load,
        net: &mut Net,
        connections: usize,
        mut readers: Vec<Reader>,
        ways: Ways,
    ) -> Outcome<Readers> {
        if wire::SLOTS_MAX as usize <= readers.len() {
            return fail(format!(
                "{} queues to read; {} at most",
                readers.len(),
                wire::SLOTS_MAX - 1
            ));
        }
        let connections = connections.min(readers.len());
        let gap_ns = if 0.0 < ways.rate {
            readers.len() as f64 * clock::SECOND_NS as f64 / ways.rate
        } else {
            0.0
        };
        for (at, reader) in readers.iter_mut().enumerate() {
            reader.connection = at % connections;
        }
        let tokens: Outcome<Vec<usize>> =
            (0..connections).map(|_| net.connect(load.addr)).collect();
        Ok(Readers {
            group_name: "BENCH_CONSUMER".to_string(),
            topics: (0..load.topics).map(|at| load.topic_name(at)).collect(),
            queues: load.queues,
            tokens: tokens?,
            readers,
            ways,
            answers: Answers::new(Some(load.addr)),
            next_begin: NumberKey::new("\"nextBeginOffset\":"),
            counts: Counts::default(),
            pulls: 0,
            empty_pulls: 0,
            unexpected: 0,
            errors: BTreeMap::new(),
            refusals: Refusals::default(),
            service: Recorder::default(),
            gap_ns,
            paused: Vec::new(),
        })
    }

    pub fn tokens(&self) -> &[usize] {
        &self.tokens
    }

    pub fn start(&mut self, net: &mut Net, window: Window) -> Outcome<()> {
        let begin_ns = self.ways.begin_s.map_or(0, |seconds| {
            window.start_ns + u64::from(seconds) * clock::SECOND_NS
        });
        for at in 0..self.readers.len() {
            if !self.readers[at].is_empty() {
                self.readers[at].due_ns = begin_ns;
                self.paused.push(at);
            }
        }
        self.ask_due(net)
    }

    /// When the next of those that pause asks.
    pub fn due_ns(&self) -> Option<u64> {
        let paused = self.paused.iter();
        paused.map(|at| self.readers[*at].due_ns).min()
    }

    /// Lets those ask that pause and whose time has come.
    pub fn ask_due(&mut self, net: &mut Net) -> Outcome<()> {
        if self.paused.is_empty() {
            return Ok(());
        }
        let now_ns = clock::now_ns();
        let (due, paused) = std::mem::take(&mut self.paused)
            .into_iter()
            .partition(|at| self.readers[*at].due_ns <= now_ns);
        self.paused = paused;
        let due: Vec<usize> = due;
        for at in &due {
            self.ask(net, *at);
        }
        for at in due {
            net.send(self.tokens[self.readers[at].connection])?;
        }
        Ok(())
    }

    /// After an answer with so many messages: when the reader may ask again. What it missed by
    /// being slow for more than a little it does not make up for.
    fn is_to_pause(&mut self, at: usize, messages: u64, now_ns: u64) -> bool {
        if self.gap_ns == 0.0 {
            return false;
        }
        let reader = &mut self.readers[at];
        let from_ns = reader.due_ns.max(now_ns.saturating_sub(CATCH_UP_NS));
        reader.due_ns = from_ns + (messages as f64 * self.gap_ns) as u64;
        now_ns < reader.due_ns
    }

    /// Takes over what another thread read.
    pub fn absorb(&mut self, other: Readers) {
        self.readers.extend(other.readers);
        self.counts.add(other.counts);
        self.pulls += other.pulls;
        self.empty_pulls += other.empty_pulls;
        self.unexpected += other.unexpected;
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.refusals.absorb(other.refusals);
        self.service.absorb(other.service);
    }

    fn ask(&mut self, net: &mut Net, at: usize) {
        let reader = &mut self.readers[at];
        reader.generation += 1;
        reader.opaque = wire::opaque(at as u32, reader.generation);
        reader.asked_ns = clock::now_ns();
        let named;
        let group = match reader.group {
            0 => self.group_name.as_str(),
            group => {
                named = format!("{}_{group}", self.group_name);
                named.as_str()
            }
        };
        let pull = Pull {
            group,
            topic: &self.topics[(reader.lane / self.queues) as usize],
            queue: reader.queue,
            offset: reader.offset,
            opaque: reader.opaque,
            count_max: self.ways.count_max,
            bytes_max: self.ways.bytes_max,
            suspend_ms: self.ways.suspend_ms,
        };
        pull.put(&mut net.connection(self.tokens[reader.connection]).out);
    }

    /// Takes what came on connection `connection`; `seen` is told run and intended time of each
    /// good message.
    pub fn on_ready(
        &mut self,
        net: &mut Net,
        connection: usize,
        now_ns: u64,
        window: Window,
        mut seen: impl FnMut(u64, u64),
    ) -> Outcome<()> {
        let token = self.tokens[connection];
        while let Some(frame) = net.connection(token).next_frame()? {
            let (code, opaque) = self.answers.read(frame.header)?;
            let at = wire::slot_of(opaque).map(|slot| slot as usize);
            let reader = at
                .and_then(|at| self.readers.get_mut(at))
                .filter(|r| i64::from(r.opaque) == opaque);
            let (Some(at), Some(reader)) = (at, reader) else {
                self.unexpected += 1;
                continue;
            };
            reader.opaque = 0;
            let is_granted = matches!(code, FOUND | NO_NEW_MESSAGE | RETRY_IMMEDIATELY);
            if window.has(now_ns) && is_granted {
                self.service.record(now_ns - reader.asked_ns);
                self.refusals.granted += 1;
            } else if window.has(now_ns) {
                self.refusals.refused(code);
            }
            self.pulls += 1;
            let mut came = 0;
            match code {
                FOUND => {
                    let looks = self.ways.depth == Depth::Every
                        || self.ways.depth == Depth::First && reader.passes == 0;
                    came = reader.walk(frame.body, looks, &mut seen);
                    self.counts.messages += came;
                    self.counts.bytes += frame.body.len() as u64;
                }
                NO_NEW_MESSAGE | RETRY_IMMEDIATELY => self.empty_pulls += 1,
                OFFSET_MOVED => {
                    *self.errors.entry(code).or_default() += 1;
                    let next = self
                        .next_begin
                        .read(frame.header)
                        .and_then(|offset| u64::try_from(offset).ok());
                    reader.offset = next.unwrap_or(reader.begin);
                }
                _ => *self.errors.entry(code).or_default() += 1,
            }
            if reader.is_at_end() {
                reader.passes += 1;
                if !self.ways.repeats {
                    continue;
                }
                reader.begin_anew(self.ways.depth == Depth::Every);
            }
            if self.is_to_pause(at, came, now_ns) {
                self.paused.push(at);
            } else {
                self.ask(net, at);
            }
        }
        net.send(token)
    }

    pub fn faults(&self) -> Faults {
        let mut sum = Faults::default();
        self.readers
            .iter()
            .for_each(|reader| sum.add(reader.faults()));
        sum
    }

    /// Messages that came and are of other runs than the one that is checked.
    pub fn foreign(&self) -> u64 {
        let readers = self.readers.iter();
        readers.map(|reader| reader.checker.foreign).sum()
    }

    /// Messages that were acknowledged and that a group did not get.
    pub fn missing(&mut self, run: u64, streams: impl Iterator<Item = (u32, u32, u64)>) -> u64 {
        let mut by_lane: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, reader) in self.readers.iter().enumerate() {
            by_lane.entry(reader.lane).or_default().push(at);
        }
        let mut lost = 0;
        for (lane, slot, next) in streams {
            for at in by_lane.get(&lane).into_iter().flatten() {
                let came = self.readers[*at].checker.next_sequence(run, slot);
                lost += next.saturating_sub(came);
            }
        }
        lost
    }

    /// Least number of whole passes of a reader that has something to read.
    pub fn passes(&self) -> u64 {
        let passes = self.readers.iter().filter(|r| !r.is_empty());
        passes.map(|r| r.passes).min().unwrap_or(0)
    }

    /// `prefix` tells these figures from a producer's in the same report.
    pub fn report(&self, report: &mut Report, prefix: &str) {
        report.latency("pull", "a pull, sent to answered", &self.service);
        report.errors(&format!("{prefix}errors"), &self.errors);
        self.void_if_refused(report);
        report.value("empty_pulls", json!(self.empty_pulls));
        let without = self.empty_pulls + self.errors.values().sum::<u64>();
        let found = self.pulls.saturating_sub(without).max(1);
        report.value(
            "messages_per_pull",
            json!(self.counts.messages as f64 / found as f64),
        );
        report.unexpected(&format!("{prefix}unexpected_answers"), self.unexpected);
    }

    /// A group that is told no reads nothing, and a run with it is no run beside it.
    pub fn void_if_refused(&self, report: &mut Report) {
        if let Some(words) = self.refusals.void_words("pulls") {
            report.void(words);
        }
    }

    fn is_done(&self) -> bool {
        self.readers
            .iter()
            .all(|reader| reader.is_empty() || 0 < reader.passes)
    }
}

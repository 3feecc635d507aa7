//! Reading: queues pulled record by record, each record's place and, where asked, body checked.

use crate::check::Faults;
use crate::connection::{Connection, Poll};
use crate::control::Control;
use crate::produce::{Marks, Window, describe};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::report::{Report, histogram};
use crate::server::Meter;
use crate::wire::{self, Answers, NumberKey, Pull};
use crate::{Load, Outcome, clock, fail};
use hdrhistogram::Histogram;
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
const OFFSET_MOVED: i32 = 21;

/// Readers and their connections. A reader is known on its connection by its index.
pub struct Readers {
    topic: String,
    connections: Vec<Connection>,
    first_token: usize,
    pub readers: Vec<Reader>,
    depth: Depth,
    suspend_ms: u32,
    repeats: bool,
    answers: Answers,
    next_begin: NumberKey,
    pub messages: u64,
    pub bytes: u64,
    pub pulls: u64,
    empty_pulls: u64,
    unexpected: u64,
    pub errors: BTreeMap<i32, u64>,
    service: Histogram<u64>,
}

pub struct Ways {
    pub depth: Depth,
    pub suspend_ms: u32,
    /// Whether a reader at its end begins anew.
    pub repeats: bool,
}

impl Readers {
    pub fn connect(
        load: &Load,
        poll: &Poll,
        first_token: usize,
        readers: Vec<Reader>,
        ways: Ways,
    ) -> Outcome<Readers> {
        if wire::SLOTS_MAX as usize <= readers.len() {
            return fail(format!("more than {} queues to read", wire::SLOTS_MAX));
        }
        let count = readers
            .iter()
            .map(|reader| reader.connection + 1)
            .max()
            .unwrap_or(0);
        let connections: Outcome<Vec<Connection>> = (0..count)
            .map(|at| Connection::connect(load.addr, poll, first_token + at))
            .collect();
        Ok(Readers {
            topic: load.topic.clone(),
            connections: connections?,
            first_token,
            readers,
            depth: ways.depth,
            suspend_ms: ways.suspend_ms,
            repeats: ways.repeats,
            answers: Answers::new(),
            next_begin: NumberKey::new("\"nextBeginOffset\":"),
            messages: 0,
            bytes: 0,
            pulls: 0,
            empty_pulls: 0,
            unexpected: 0,
            errors: BTreeMap::new(),
            service: histogram(),
        })
    }

    pub fn start(&mut self, poll: &Poll) -> Outcome<()> {
        for at in 0..self.readers.len() {
            if !self.readers[at].is_empty() {
                self.ask(at);
            }
        }
        self.connections
            .iter_mut()
            .try_for_each(|connection| connection.send(poll))
    }

    fn ask(&mut self, at: usize) {
        let reader = &mut self.readers[at];
        reader.generation += 1;
        reader.opaque = wire::opaque(at as u32, reader.generation);
        reader.asked_ns = clock::now_ns();
        let pull = Pull {
            topic: &self.topic,
            queue: reader.queue,
            offset: reader.offset,
            opaque: reader.opaque,
            suspend_ms: self.suspend_ms,
        };
        pull.put(&mut self.connections[reader.connection].out);
    }

    pub fn on_ready(
        &mut self,
        poll: &Poll,
        token: usize,
        window: Window,
        mut seen: impl FnMut(u64, u64, u64),
    ) -> Outcome<()> {
        let connection = token - self.first_token;
        if self.connections[connection].receive()?.is_none() {
            return fail(format!("the server closed pulling connection {connection}"));
        }
        let now_ns = clock::now_ns();
        while let Some(frame) = self.connections[connection].next_frame()? {
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
            if window.has(now_ns) {
                self.service
                    .saturating_record((now_ns - reader.asked_ns).max(1));
            }
            self.pulls += 1;
            match code {
                FOUND => {
                    let looks = self.depth == Depth::Every
                        || self.depth == Depth::First && reader.passes == 0;
                    self.messages += reader.walk(frame.body, looks, &mut |run, intended| {
                        seen(run, intended, now_ns)
                    });
                    self.bytes += frame.body.len() as u64;
                }
                NO_NEW_MESSAGE => self.empty_pulls += 1,
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
                if !self.repeats {
                    continue;
                }
                reader.begin_anew(self.depth == Depth::Every);
            }
            self.ask(at);
        }
        self.connections[connection].send(poll)
    }

    pub fn faults(&self) -> Faults {
        let mut sum = Faults::default();
        self.readers
            .iter()
            .for_each(|reader| sum.add(reader.faults()));
        sum
    }

    /// `prefix` tells these figures from a producer's in the same report.
    pub fn report(&self, report: &mut Report, prefix: &str) {
        report.latency("pull", "a pull, sent to answered", &self.service);
        report.errors(&format!("{prefix}errors"), &self.errors);
        report.value("empty_pulls", json!(self.empty_pulls));
        let found = self.pulls.saturating_sub(self.empty_pulls).max(1);
        report.value(
            "messages_per_pull",
            json!(self.messages as f64 / found as f64),
        );
        report.unexpected(&format!("{prefix}unexpected_answers"), self.unexpected);
    }

    fn is_done(&self) -> bool {
        self.readers
            .iter()
            .all(|reader| reader.is_empty() || 0 < reader.passes)
    }
}

/// Reads the queues once between two offsets and compares with what a producer saw acknowledged.
pub fn read_back(load: &Load, from: &[u64], to: &[u64], producer: &Producer) -> Outcome<Faults> {
    let mut poll = Poll::new()?;
    let reader = |(queue, (begin, end)): (usize, (&u64, &u64))| {
        Reader::new(queue, queue as u32, *begin, Some(*end), false)
    };
    let readers = from.iter().zip(to).enumerate().map(reader).collect();
    let ways = Ways {
        depth: Depth::Every,
        suspend_ms: 0,
        repeats: false,
    };
    let mut readers = Readers::connect(load, &poll, 0, readers, ways)?;
    readers.start(&poll)?;
    let never = Window {
        start_ns: 0,
        end_ns: 0,
    };
    let mut progress_ns = clock::now_ns();
    let mut messages = 0;
    let mut ready = Vec::new();
    while !readers.is_done() {
        poll.wait(10, &mut ready)?;
        for token in &ready {
            readers.on_ready(&poll, *token, never, |_, _, _| {})?;
        }
        if messages < readers.messages {
            messages = readers.messages;
            progress_ns = clock::now_ns();
        }
        if progress_ns + 10 * clock::SECOND_NS < clock::now_ns() {
            return fail(format!(
                "reading back stands still at {messages} messages; answers by code: {:?}",
                readers.errors
            ));
        }
    }
    let mut faults = readers.faults();
    for (queue, stream, next) in producer.streams() {
        let came = readers.readers[queue as usize]
            .checker
            .next_sequence(producer.run, stream);
        faults.lost += next.saturating_sub(came);
    }
    Ok(faults)
}

pub fn run(load: &Load, depth: Depth) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    let (begins, ends) = (
        control.beginnings(&load.topic, load.queues)?,
        control.ends(&load.topic, load.queues)?,
    );
    let (Some(begins), Some(ends)) = (begins, ends) else {
        return fail(format!(
            "{} cannot tell its offsets; consume needs codes 30 and 31",
            load.addr
        ));
    };
    let total: u64 = ends
        .iter()
        .zip(&begins)
        .map(|(end, begin)| end.saturating_sub(*begin))
        .sum();
    if total == 0 {
        return fail(format!(
            "topic {} is empty in its {} queues; produce into it first",
            load.topic, load.queues
        ));
    }
    let mut poll = Poll::new()?;
    let reader = |at: u32| {
        let queue = at % load.queues;
        let (begin, end) = (begins[queue as usize], ends[queue as usize]);
        Reader::new(
            (at % load.connections) as usize,
            queue,
            begin,
            Some(end),
            0 < begin,
        )
    };
    let readers = (0..load.queues.max(load.connections)).map(reader).collect();
    let mut readers = Readers::connect(
        load,
        &poll,
        0,
        readers,
        Ways {
            depth,
            suspend_ms: 0,
            repeats: true,
        },
    )?;
    let mut meter = Meter::new(load.server_pid)?;
    let window = Window::after(clock::now_ns(), load);
    readers.start(&poll)?;
    let mut marks = Marks::default();
    let (mut bytes_before, mut is_begun) = (0, false);
    let mut ready = Vec::new();
    loop {
        poll.wait(10, &mut ready)?;
        for token in &ready {
            readers.on_ready(&poll, *token, window, |_, _, _| {})?;
        }
        let now_ns = clock::now_ns();
        marks.pass(now_ns, window, &mut meter, readers.messages)?;
        if !is_begun && window.start_ns <= now_ns {
            (bytes_before, is_begun) = (readers.bytes, true);
        }
        if window.end_ns <= now_ns {
            break;
        }
    }
    let title = format!(
        "{} · {} · {} connections · {} queues with {total} messages · {} s after {} s of warm-up",
        load.addr, load.topic, load.connections, load.queues, load.duration, load.warmup
    );
    let mut report = Report::new("consume", &title);
    describe(&mut report, load);
    report.value("topic_messages", json!(total));
    report.figure(
        "messages_per_s",
        marks.between() as f64 / window.seconds(),
        "messages a second",
    );
    let bytes = (readers.bytes - bytes_before) as f64;
    report.figure(
        "record_bytes_per_s",
        bytes / window.seconds(),
        "bytes of records a second",
    );
    readers.report(&mut report, "");
    meter.report(&mut report, marks.between(), readers.messages, true)?;
    let passes = readers
        .readers
        .iter()
        .filter(|r| !r.is_empty())
        .map(|r| r.passes)
        .min()
        .unwrap_or(0);
    report.value("passes", json!(passes));
    if passes == 0 && depth != Depth::Sizes {
        report.note("no pass came to its end: only a part of the topic was checked");
    }
    if marks.between() == 0 {
        report.void("no message came in the window");
    }
    report.faults(readers.faults());
    report.finish(load.json.as_deref())
}

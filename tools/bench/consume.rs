//! Reading: queues pulled record by record, each record's place and, where asked, body checked.

use crate::check::{Checker, Faults, Verdict};
use crate::connection::{Connection, Poll};
use crate::control::Control;
use crate::produce::{Marks, Producer, Window, describe};
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

/// Size of a record without body, topic and properties, both hosts IPv4.
const RECORD_SIZE_MIN: usize = 91;
const RECORD_MAGIC: [u32; 2] = [0xDAA3_20A7, 0xDAA3_20AB];
const BODY_SIZE_AT: usize = 84;

const FOUND: i32 = 0;
const NO_NEW_MESSAGE: i32 = 19;
const OFFSET_MOVED: i32 = 21;

/// One queue being read.
pub struct Reader {
    connection: usize,
    queue: u32,
    begin: u64,
    /// Where a pass ends; none follows the queue for ever.
    end: Option<u64>,
    offset: u64,
    generation: u32,
    opaque: u32,
    asked_ns: u64,
    passes: u64,
    pub checker: Checker,
    faults: Faults,
}

impl Reader {
    pub fn new(connection: usize, queue: u32, begin: u64, end: Option<u64>, joins_late: bool) -> Reader {
        Reader {
            connection,
            queue,
            begin,
            end,
            offset: begin,
            generation: 0,
            opaque: 0,
            asked_ns: 0,
            passes: 0,
            checker: Checker::new(joins_late),
            faults: Faults::default(),
        }
    }

    /// Walks the records of one answer; `seen` is told the run and intended time of good bodies.
    /// Returns their count.
    fn walk(&mut self, bytes: &[u8], looks_at_bodies: bool, seen: &mut impl FnMut(u64, u64)) -> u64 {
        let mut rest = bytes;
        let mut count = 0;
        while !rest.is_empty() {
            let size = rest.get(..4).map_or(0, |size| u32::from_be_bytes(size.try_into().expect("four bytes")) as usize);
            if size < RECORD_SIZE_MIN || rest.len() < size {
                // Where the next record begins is not known: the rest of the answer is lost to us.
                self.faults.corrupted += 1;
                break;
            }
            let (record, tail) = rest.split_at(size);
            self.place(record);
            if looks_at_bodies {
                self.record(record, seen);
            }
            rest = tail;
            count += 1;
        }
        count
    }

    /// Checks that the record is the one that follows.
    fn place(&mut self, record: &[u8]) {
        let offset = u64::from_be_bytes(record[20..28].try_into().expect("eight bytes"));
        if offset < self.offset {
            self.faults.duplicated += 1;
            return;
        }
        // The next offset is what a reader goes on from, so a jump is a loss.
        self.faults.lost += (offset - self.offset).min(u64::from(u32::MAX));
        self.offset = offset.saturating_add(1);
    }

    fn record(&mut self, record: &[u8], seen: &mut impl FnMut(u64, u64)) {
        let word = |at: usize| u32::from_be_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let sys_flag = word(36);
        let body_size_at = BODY_SIZE_AT + 12 * (sys_flag >> 4 & 1) as usize + 12 * (sys_flag >> 5 & 1) as usize;
        let body = (body_size_at + 4 <= record.len())
            .then(|| record.get(body_size_at + 4..)?.get(..word(body_size_at) as usize))
            .flatten();
        let Some(body) = body.filter(|_| RECORD_MAGIC.contains(&word(4)) && word(12) == self.queue) else {
            self.faults.corrupted += 1;
            return;
        };
        if let Verdict::Good { run, intended_ns } = self.checker.body(body) {
            seen(run, intended_ns);
        }
    }

    fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.begin)
    }

    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| end <= self.offset)
    }

    pub fn faults(&self) -> Faults {
        let mut faults = self.faults;
        faults.add(self.checker.faults);
        faults
    }
}

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
    pub fn connect(load: &Load, poll: &Poll, first_token: usize, readers: Vec<Reader>, ways: Ways) -> Outcome<Readers> {
        if wire::SLOTS_MAX as usize <= readers.len() {
            return fail(format!("more than {} queues to read", wire::SLOTS_MAX));
        }
        let count = readers.iter().map(|reader| reader.connection + 1).max().unwrap_or(0);
        let connections: Outcome<Vec<Connection>> =
            (0..count).map(|at| Connection::connect(load.addr, poll, first_token + at)).collect();
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
        self.connections.iter_mut().try_for_each(|connection| connection.send(poll))
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
        loop {
            let Some(frame) = self.connections[connection].next_frame()? else { break };
            let (code, opaque) = self.answers.read(frame.header)?;
            let at = wire::slot_of(opaque).map(|slot| slot as usize);
            let reader = at.and_then(|at| self.readers.get_mut(at)).filter(|r| i64::from(r.opaque) == opaque);
            let (Some(at), Some(reader)) = (at, reader) else {
                self.unexpected += 1;
                continue;
            };
            reader.opaque = 0;
            if window.has(now_ns) {
                self.service.saturating_record((now_ns - reader.asked_ns).max(1));
            }
            self.pulls += 1;
            match code {
                FOUND => {
                    let looks = self.depth == Depth::Every || self.depth == Depth::First && reader.passes == 0;
                    self.messages += reader.walk(frame.body, looks, &mut |run, intended| seen(run, intended, now_ns));
                    self.bytes += frame.body.len() as u64;
                }
                NO_NEW_MESSAGE => self.empty_pulls += 1,
                OFFSET_MOVED => {
                    *self.errors.entry(code).or_default() += 1;
                    let next = self.next_begin.read(frame.header).and_then(|offset| u64::try_from(offset).ok());
                    reader.offset = next.unwrap_or(reader.begin);
                }
                _ => *self.errors.entry(code).or_default() += 1,
            }
            if reader.is_at_end() {
                reader.passes += 1;
                if !self.repeats {
                    continue;
                }
                reader.offset = reader.begin;
                if self.depth == Depth::Every {
                    let done = std::mem::replace(&mut reader.checker, Checker::new(0 < reader.begin));
                    reader.faults.add(done.faults);
                }
            }
            self.ask(at);
        }
        self.connections[connection].send(poll)
    }

    pub fn faults(&self) -> Faults {
        let mut sum = Faults::default();
        self.readers.iter().for_each(|reader| sum.add(reader.faults()));
        sum
    }

    pub fn report(&self, report: &mut Report) {
        report.latency("pull", "a pull, sent to answered", &self.service);
        report.errors(&self.errors);
        report.value("empty_pulls", json!(self.empty_pulls));
        report.value("messages_per_pull", json!(self.messages as f64 / self.pulls.saturating_sub(self.empty_pulls).max(1) as f64));
        report.value("unexpected_answers", json!(self.unexpected));
        if 0 < self.unexpected {
            report.void(format!("{} answers had no request, or had been given before", self.unexpected));
        }
    }

    fn is_done(&self) -> bool {
        self.readers.iter().all(|reader| reader.is_empty() || 0 < reader.passes)
    }
}

/// Reads the queues once between two offsets and compares with what a producer saw acknowledged.
pub fn read_back(load: &Load, from: &[u64], to: &[u64], producer: &Producer) -> Outcome<Faults> {
    let mut poll = Poll::new()?;
    let reader = |(queue, (begin, end)): (usize, (&u64, &u64))| Reader::new(queue, queue as u32, *begin, Some(*end), false);
    let readers = from.iter().zip(to).enumerate().map(reader).collect();
    let ways = Ways { depth: Depth::Every, suspend_ms: 0, repeats: false };
    let mut readers = Readers::connect(load, &poll, 0, readers, ways)?;
    readers.start(&poll)?;
    let never = Window { start_ns: 0, end_ns: 0 };
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
            return fail(format!("reading back stands still at {messages} messages; answers by code: {:?}", readers.errors));
        }
    }
    let mut faults = readers.faults();
    for (queue, stream, next) in producer.streams() {
        let came = readers.readers[queue as usize].checker.next_sequence(producer.run, stream);
        faults.lost += next.saturating_sub(came);
    }
    Ok(faults)
}

pub fn run(load: &Load, depth: Depth) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    let (begins, ends) = (control.beginnings(&load.topic, load.queues)?, control.ends(&load.topic, load.queues)?);
    let (Some(begins), Some(ends)) = (begins, ends) else {
        return fail(format!("{} cannot tell its offsets; consume needs codes 30 and 31", load.addr));
    };
    let total: u64 = ends.iter().zip(&begins).map(|(end, begin)| end.saturating_sub(*begin)).sum();
    if total == 0 {
        return fail(format!("topic {} is empty in its {} queues; produce into it first", load.topic, load.queues));
    }
    let mut poll = Poll::new()?;
    let reader = |at: u32| {
        let queue = at % load.queues;
        let (begin, end) = (begins[queue as usize], ends[queue as usize]);
        Reader::new((at % load.connections) as usize, queue, begin, Some(end), 0 < begin)
    };
    let readers = (0..load.queues.max(load.connections)).map(reader).collect();
    let mut readers = Readers::connect(load, &poll, 0, readers, Ways { depth, suspend_ms: 0, repeats: true })?;
    let mut meter = Meter::new(load.server_pid)?;
    let window = Window::after(clock::now_ns(), load);
    readers.start(&poll)?;
    let mut marks = Marks::new(window);
    let (mut bytes_before, mut is_begun) = (0, false);
    let mut ready = Vec::new();
    loop {
        poll.wait(10, &mut ready)?;
        for token in &ready {
            readers.on_ready(&poll, *token, window, |_, _, _| {})?;
        }
        let now_ns = clock::now_ns();
        marks.pass(now_ns, &mut meter, readers.messages)?;
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
    report.figure("messages_per_s", marks.between() as f64 / window.seconds(), "messages a second");
    let bytes = (readers.bytes - bytes_before) as f64;
    report.figure("record_bytes_per_s", bytes / window.seconds(), "bytes of records a second");
    readers.report(&mut report);
    meter.report(&mut report, marks.between(), readers.messages, true)?;
    let passes = readers.readers.iter().filter(|r| !r.is_empty()).map(|r| r.passes).min().unwrap_or(0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SendTemplate;

    /// A record as a broker stores it, with a body of the generator's.
    fn record(queue: u32, offset: u64, stream: u32, sequence: u64) -> Vec<u8> {
        let mut request = Vec::new();
        SendTemplate::new("t", queue, 64, 1, 7).put(&mut request, 0, 0, stream, sequence, 5);
        let body = wire::frame(&request).unwrap().unwrap().body.to_vec();
        let mut record = vec![0; 88];
        record[4..8].copy_from_slice(&RECORD_MAGIC[0].to_be_bytes());
        record[12..16].copy_from_slice(&queue.to_be_bytes());
        record[20..28].copy_from_slice(&offset.to_be_bytes());
        record[84..88].copy_from_slice(&(body.len() as u32).to_be_bytes());
        record.extend_from_slice(&body);
        record.extend_from_slice(&[1, b't', 0, 0]);
        let size = record.len() as u32;
        record[..4].copy_from_slice(&size.to_be_bytes());
        record
    }

    fn faults_of(records: &[Vec<u8>]) -> (Faults, u64) {
        let mut reader = Reader::new(0, 3, 10, None, false);
        let mut good = 0;
        reader.walk(&records.concat(), true, &mut |run, intended| {
            assert_eq!((run, intended), (7, 5));
            good += 1;
        });
        (reader.faults(), good)
    }

    #[test]
    fn records_in_order_are_clean() {
        let records: Vec<_> = (0..4).map(|i| record(3, 10 + i, 1, i)).collect();
        assert_eq!(faults_of(&records), (Faults::default(), 4));
    }

    #[test]
    fn a_jump_of_the_queue_offset_and_of_the_sequence_are_losses() {
        let records = [record(3, 10, 1, 0), record(3, 12, 1, 1)];
        assert_eq!(faults_of(&records).0, Faults { lost: 1, ..Faults::default() });
        let records = [record(3, 10, 1, 0), record(3, 11, 1, 2)];
        assert_eq!(faults_of(&records).0, Faults { lost: 1, ..Faults::default() });
    }

    #[test]
    fn a_repeated_offset_and_a_repeated_sequence_are_duplicates() {
        let records = [record(3, 10, 1, 0), record(3, 10, 1, 1)];
        assert_eq!(faults_of(&records).0, Faults { duplicated: 1, ..Faults::default() });
        let records = [record(3, 10, 1, 0), record(3, 11, 1, 0)];
        assert_eq!(faults_of(&records).0, Faults { duplicated: 1, ..Faults::default() });
    }

    #[test]
    fn a_foreign_queue_a_bad_magic_a_flipped_body_and_a_lying_size_are_corruption() {
        let corrupted = Faults { corrupted: 1, ..Faults::default() };
        assert_eq!(faults_of(&[record(2, 10, 1, 0)]), (corrupted, 0));
        for at in [5, 100] {
            let mut bad = record(3, 10, 1, 0);
            bad[at] ^= 1;
            assert_eq!(faults_of(&[bad]), (corrupted, 0), "byte {at}");
        }
        for size in [0, 90, 1 << 20, u32::MAX] {
            let mut bad = record(3, 10, 1, 0);
            bad[..4].copy_from_slice(&size.to_be_bytes());
            assert_eq!(faults_of(&[bad]), (corrupted, 0), "size {size}");
        }
        let mut bad = record(3, 10, 1, 0);
        bad[84..88].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(faults_of(&[bad]), (corrupted, 0));
    }
}

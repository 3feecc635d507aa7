//! Sending: slots of connections, filled again when their answer came (closed loop) or when the
//! next message is due (open loop), and what the answers say.

use crate::check::Faults;
use crate::connection::{Connection, Poll};
use crate::control::Control;
use crate::report::{Report, histogram};
use crate::server::Meter;
use crate::wire::{self, Answers, SendTemplate};
use crate::{Load, Outcome, clock, consume, fail};
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long the last answers may take.
pub const DRAIN_NS: u64 = 10 * clock::SECOND_NS;
/// Codes that say "stored, but not as safe as asked": flush and replica timeouts.
const STORED_CODES: [i32; 4] = [0, 10, 11, 12];

/// The measured part of a run.
#[derive(Clone, Copy)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub fn after(now_ns: u64, load: &Load) -> Window {
        let start_ns = now_ns + clock::seconds_ns(load.warmup);
        Window { start_ns, end_ns: start_ns + clock::seconds_ns(load.duration) }
    }

    pub fn has(&self, at_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&at_ns)
    }

    pub fn seconds(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / clock::SECOND_NS as f64
    }
}

/// One request's place. While it is busy, it has exactly one request at the server.
struct Slot {
    is_busy: bool,
    generation: u32,
    opaque: u32,
    queue: u32,
    intended_ns: u64,
    sent_ns: u64,
}

/// When requests are due in an open loop: request k at start + k × interval, whatever happens.
struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    next: u64,
}

impl Schedule {
    fn due_ns(&self) -> u64 {
        self.start_ns + (self.next as f64 * self.interval_ns) as u64
    }
}

pub struct Producer {
    connections: Vec<Connection>,
    first_token: usize,
    slots: Vec<Slot>,
    in_flight: usize,
    queues: u32,
    batch: u64,
    /// Free slots of an open loop, longest free first.
    free: VecDeque<usize>,
    /// Since when an open loop has had a free slot.
    free_since_ns: u64,
    schedule: Option<Schedule>,
    window: Window,
    templates: Vec<SendTemplate>,
    /// Next sequence of each stream (slot × queues + queue): moves when a request was stored.
    sequences: Vec<u64>,
    answers: Answers,
    outstanding: usize,
    dirty: Vec<usize>,
    /// Wall time that requests carry: read once a turn, not once a message.
    born_ms: u64,
    pub run: u64,
    pub acknowledged: u64,
    pub in_window: u64,
    requests_in_window: u64,
    refused: u64,
    unexpected: u64,
    pub errors: BTreeMap<i32, u64>,
    service: Histogram<u64>,
    response: Histogram<u64>,
    /// Sent − intended when a slot was free all along: the generator's own lateness.
    lateness: Histogram<u64>,
}

impl Producer {
    pub fn connect(load: &Load, poll: &Poll, first_token: usize) -> Outcome<Producer> {
        let run = clock::run_id();
        let connections: Outcome<Vec<Connection>> =
            (0..load.connections as usize).map(|at| Connection::connect(load.addr, poll, first_token + at)).collect();
        let template = |queue| SendTemplate::new(&load.topic, queue, load.size as usize, load.batch as usize, run);
        let (connections_count, in_flight) = (load.connections as usize, load.in_flight as usize);
        let slot = |at: usize| Slot {
            is_busy: false,
            generation: 0,
            opaque: 0,
            queue: at as u32 % load.queues,
            intended_ns: 0,
            sent_ns: 0,
        };
        let slots_count = connections_count * in_flight;
        if 1 << 24 < slots_count * load.queues as usize {
            return fail("connections × in-flight × queues is above 16,777,216; lower one of them");
        }
        Ok(Producer {
            connections: connections?,
            first_token,
            slots: (0..slots_count).map(slot).collect(),
            in_flight,
            queues: load.queues,
            batch: u64::from(load.batch),
            // One slot of each connection, then the second ones: due requests spread over all.
            free: (0..in_flight).flat_map(|i| (0..connections_count).map(move |c| c * in_flight + i)).collect(),
            free_since_ns: 0,
            schedule: (0.0 < load.rate).then(|| Schedule {
                start_ns: 0,
                interval_ns: f64::from(load.batch) * 1e9 / load.rate,
                next: 0,
            }),
            window: Window { start_ns: 0, end_ns: 0 },
            templates: (0..load.queues).map(template).collect(),
            sequences: vec![0; slots_count * load.queues as usize],
            answers: Answers::new(),
            outstanding: 0,
            dirty: Vec::new(),
            born_ms: 0,
            run,
            acknowledged: 0,
            in_window: 0,
            requests_in_window: 0,
            refused: 0,
            unexpected: 0,
            errors: BTreeMap::new(),
            service: histogram(),
            response: histogram(),
            lateness: histogram(),
        })
    }

    pub fn start(&mut self, poll: &Poll, window: Window) -> Outcome<()> {
        let now_ns = clock::now_ns();
        self.window = window;
        self.born_ms = clock::wall_ms();
        if let Some(schedule) = &mut self.schedule {
            schedule.start_ns = now_ns;
            return self.issue_due(poll);
        }
        for connection in 0..self.connections.len() {
            for slot in 0..self.in_flight {
                self.fill(connection * self.in_flight + slot, now_ns, now_ns);
            }
            self.connections[connection].send(poll)?;
        }
        Ok(())
    }

    pub fn is_open_loop(&self) -> bool {
        self.schedule.is_some()
    }

    pub fn is_drained(&self, now_ns: u64) -> bool {
        let is_due = self.schedule.as_ref().is_some_and(|schedule| schedule.due_ns() < self.window.end_ns);
        self.window.end_ns <= now_ns && self.outstanding == 0 && !is_due
    }

    /// Puts the slot's next request into its connection's bytes.
    fn fill(&mut self, at: usize, now_ns: u64, intended_ns: u64) {
        let slot = &mut self.slots[at];
        debug_assert!(!slot.is_busy);
        slot.is_busy = true;
        slot.generation += 1;
        slot.queue = if slot.queue + 1 == self.queues { 0 } else { slot.queue + 1 };
        slot.opaque = wire::opaque((at % self.in_flight) as u32, slot.generation);
        slot.intended_ns = intended_ns;
        slot.sent_ns = now_ns;
        let stream = at * self.queues as usize + slot.queue as usize;
        let out = &mut self.connections[at / self.in_flight].out;
        let first = self.sequences[stream];
        self.templates[slot.queue as usize].put(out, slot.opaque, self.born_ms, stream as u32, first, intended_ns);
        self.outstanding += 1;
    }

    /// Open loop: sends what is due and has a free slot.
    pub fn issue_due(&mut self, poll: &Poll) -> Outcome<()> {
        let Some(schedule) = &self.schedule else { return Ok(()) };
        let mut due_ns = schedule.due_ns();
        let now_ns = clock::now_ns();
        if due_ns <= now_ns {
            self.born_ms = clock::wall_ms();
        }
        while due_ns <= now_ns && due_ns < self.window.end_ns {
            let Some(slot) = self.free.pop_front() else { break };
            if self.free_since_ns <= due_ns && self.window.has(due_ns) {
                self.lateness.saturating_record((now_ns - due_ns).max(1));
            }
            self.fill(slot, now_ns, due_ns);
            self.dirty.push(slot / self.in_flight);
            let schedule = self.schedule.as_mut().expect("this is an open loop");
            schedule.next += 1;
            due_ns = schedule.due_ns();
        }
        while let Some(connection) = self.dirty.pop() {
            self.connections[connection].send(poll)?;
        }
        Ok(())
    }

    /// Takes what came on a connection, and in a closed loop sends the next requests.
    pub fn on_ready(&mut self, poll: &Poll, token: usize) -> Outcome<()> {
        let connection = token - self.first_token;
        if self.connections[connection].receive()?.is_none() {
            return fail(format!(
                "the server closed connection {connection} with {} requests unanswered in all",
                self.outstanding
            ));
        }
        let now_ns = clock::now_ns();
        let mut freed_any = false;
        while let Some(frame) = self.connections[connection].next_frame()? {
            let (code, opaque) = self.answers.read(frame.header)?;
            let slot = wire::slot_of(opaque).map(|slot| slot as usize).filter(|slot| *slot < self.in_flight);
            let at = slot.map(|slot| connection * self.in_flight + slot);
            match at.filter(|at| self.slots[*at].is_busy && i64::from(self.slots[*at].opaque) == opaque) {
                Some(at) => self.answered(at, code, now_ns),
                None => self.unexpected += 1,
            }
            freed_any |= at.is_some();
        }
        if freed_any && self.schedule.is_none() {
            let now_ns = clock::now_ns();
            self.born_ms = clock::wall_ms();
            for at in connection * self.in_flight..(connection + 1) * self.in_flight {
                if !self.slots[at].is_busy && now_ns < self.window.end_ns {
                    self.fill(at, now_ns, now_ns);
                }
            }
        }
        self.connections[connection].send(poll)
    }

    fn answered(&mut self, at: usize, code: i32, now_ns: u64) {
        let slot = &mut self.slots[at];
        slot.is_busy = false;
        self.outstanding -= 1;
        if self.schedule.is_some() {
            if self.free.is_empty() {
                self.free_since_ns = now_ns;
            }
            self.free.push_back(at);
        }
        // An open loop counts what was due in the window, however late the answer: leaving out
        // the late ones would hide the stall that made them late.
        let counts = self.window.has(if self.schedule.is_some() { slot.intended_ns } else { now_ns });
        if counts {
            self.service.saturating_record((now_ns - slot.sent_ns).max(1));
            self.response.saturating_record((now_ns - slot.intended_ns).max(1));
        }
        if code != 0 {
            *self.errors.entry(code).or_default() += 1;
        }
        if !STORED_CODES.contains(&code) {
            self.refused += 1;
            return;
        }
        self.sequences[at * self.queues as usize + slot.queue as usize] += self.batch;
        self.acknowledged += self.batch;
        if self.window.has(now_ns) {
            self.in_window += self.batch;
            self.requests_in_window += 1;
        }
    }

    /// The sequence that each stream's next message would have, by queue.
    pub fn streams(&self) -> impl Iterator<Item = (u32, u32, u64)> + '_ {
        let queues = self.queues;
        self.sequences.iter().enumerate().map(move |(stream, next)| (stream as u32 % queues, stream as u32, *next))
    }

    /// Requests that were due and never left.
    fn unsent(&mut self, now_ns: u64) -> u64 {
        let Some(schedule) = &mut self.schedule else { return 0 };
        let first = schedule.next;
        while schedule.due_ns() < self.window.end_ns {
            if self.window.has(schedule.due_ns()) {
                self.response.saturating_record(now_ns - schedule.due_ns());
            }
            schedule.next += 1;
        }
        schedule.next - first
    }

    pub fn report(&mut self, report: &mut Report, load: &Load) {
        let seconds = self.window.seconds();
        let unanswered = self.outstanding as u64;
        let unsent = self.unsent(clock::now_ns());
        report.figure("messages_per_s", self.in_window as f64 / seconds, "messages a second, acknowledged");
        report.value("requests_per_s", json!((self.requests_in_window as f64 / seconds).round()));
        let bytes = self.in_window as f64 * f64::from(load.size);
        report.figure("body_bytes_per_s", bytes / seconds, "bytes of bodies a second");
        report.value("request_bytes", json!(self.templates[0].size()));
        report.value("acknowledged", json!(self.acknowledged));
        report.latency("service", "a request, sent to answered", &self.service);
        if self.schedule.is_some() {
            report.latency("response", "a request, intended to answered", &self.response);
            report.latency("lateness", "the generator's own part: intended to sent, with a slot free", &self.lateness);
            let tail = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.999);
            if tail(&self.response) < 10 * tail(&self.lateness) {
                report.note("the generator itself was late by more than a tenth of the response tail: see lateness");
            }
        }
        report.errors(&self.errors);
        report.value("unanswered", json!(unanswered));
        report.value("unsent", json!(unsent));
        report.value("unexpected_answers", json!(self.unexpected));
        if 0 < unanswered {
            report.void(format!("{unanswered} requests had no answer {} s after the end", DRAIN_NS / clock::SECOND_NS));
        }
        if 0 < unsent {
            report.void(format!("{unsent} requests were due and never sent: the rate is beyond the server's reach"));
        }
        if 0 < self.unexpected {
            report.void(format!("{} answers had no request, or had been given before", self.unexpected));
        }
        if self.in_window == 0 {
            report.void("no message was acknowledged in the window");
        }
    }
}

/// Words that head a report.
pub fn title(load: &Load) -> String {
    let way = if 0.0 < load.rate { format!("open loop at {}/s", load.rate) } else { "closed loop".to_string() };
    let batch = if 1 < load.batch { format!("{} × ", load.batch) } else { String::new() };
    format!(
        "{} · {} · {} connections × {} in flight · {batch}{} B · {} queues · {way} · {} s after {} s of warm-up",
        load.addr, load.topic, load.connections, load.in_flight, load.size, load.queues, load.duration, load.warmup
    )
}

pub fn describe(report: &mut Report, load: &Load) {
    report.value("addr", json!(load.addr.to_string()));
    report.value("topic", json!(load.topic));
    report.value("connections", json!(load.connections));
    report.value("in_flight", json!(load.in_flight));
    report.value("size_bytes", json!(load.size));
    report.value("batch", json!(load.batch));
    report.value("queues", json!(load.queues));
    report.value("rate_intended_per_s", json!(load.rate));
    report.value("duration_s", json!(load.duration));
    report.value("warmup_s", json!(load.warmup));
}

/// Compares what the queues grew by with what was acknowledged.
fn check_stored(control: &mut Control, load: &Load, before: &[u64], producer: &Producer) -> Outcome<(Faults, Vec<u64>)> {
    let give_up_ns = clock::now_ns() + DRAIN_NS;
    let unsure = (producer.refused + producer.outstanding as u64) * producer.batch;
    loop {
        let ends = control.ends(&load.topic, load.queues)?.unwrap_or_default();
        let stored: u64 = ends.iter().zip(before).map(|(end, start)| end.saturating_sub(*start)).sum();
        // A broker may index a message a little after it acknowledged it.
        if producer.acknowledged <= stored || give_up_ns < clock::now_ns() {
            let faults = Faults {
                lost: producer.acknowledged.saturating_sub(stored),
                duplicated: stored.saturating_sub(producer.acknowledged + unsure),
                ..Faults::default()
            };
            return Ok((faults, ends));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn run(load: &Load, read_back: bool) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    control.create_topic(&load.topic, load.queues)?;
    let before = control.ends(&load.topic, load.queues)?;
    let mut poll = Poll::new()?;
    let mut producer = Producer::connect(load, &poll, 0)?;
    let mut meter = Meter::new(load.server_pid)?;
    let window = Window::after(clock::now_ns(), load);
    producer.start(&poll, window)?;
    let mut marks = Marks::new(window);
    let wait_ms = if producer.is_open_loop() { 0 } else { 10 };
    let mut ready = Vec::new();
    loop {
        poll.wait(wait_ms, &mut ready)?;
        for token in &ready {
            producer.on_ready(&poll, *token)?;
        }
        producer.issue_due(&poll)?;
        let now_ns = clock::now_ns();
        marks.pass(now_ns, &mut meter, producer.acknowledged)?;
        if producer.is_drained(now_ns) || window.end_ns + DRAIN_NS < now_ns {
            break;
        }
    }
    let mut report = Report::new("produce", &title(load));
    describe(&mut report, load);
    producer.report(&mut report, load);
    meter.report(&mut report, marks.between(), producer.acknowledged, !producer.is_open_loop())?;
    match before {
        None => report.note("the server cannot tell its offsets: what it stored was not counted"),
        Some(before) => {
            let (mut faults, ends) = check_stored(&mut control, load, &before, &producer)?;
            if read_back {
                faults.add(consume::read_back(load, &before, &ends, &producer)?);
                report.note(format!("read back and checked: {} messages", producer.acknowledged));
            }
            report.faults(faults);
        }
    }
    report.finish(load.json.as_deref())
}

/// Takes the meter's readings when the window begins and ends, with the messages counted then.
pub struct Marks {
    window: Window,
    begun: Option<u64>,
    ended: Option<u64>,
}

impl Marks {
    pub fn new(window: Window) -> Marks {
        Marks { window, begun: None, ended: None }
    }

    pub fn pass(&mut self, now_ns: u64, meter: &mut Meter, messages: u64) -> Outcome<()> {
        if self.begun.is_none() && self.window.start_ns <= now_ns {
            self.begun = Some(messages);
            meter.begin()?;
        }
        if self.ended.is_none() && self.window.end_ns <= now_ns {
            self.ended = Some(messages);
            meter.end()?;
        }
        Ok(())
    }

    /// Messages between the meter's readings.
    pub fn between(&self) -> u64 {
        self.ended.unwrap_or(0).saturating_sub(self.begun.unwrap_or(0))
    }
}

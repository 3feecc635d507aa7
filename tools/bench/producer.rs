//! The sending side: slots of connections, filled again when their answer came (closed loop) or
//! when the next message is due (open loop), and what the answers say.

use crate::connection::{Connection, Poll};
use crate::produce::{DRAIN_NS, Window};
use crate::report::{Report, histogram};
use crate::wire::{self, Answers, SendTemplate};
use crate::{Load, Outcome, clock, fail};
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};

/// Codes that say "stored, but not as safe as asked": flush and replica timeouts.
const STORED_CODES: [i32; 4] = [0, 10, 11, 12];

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
    /// Messages to be acknowledged in all; 0 sends until the window ends.
    count: u64,
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
        let connections: Outcome<Vec<Connection>> = (0..load.connections as usize)
            .map(|at| Connection::connect(load.addr, poll, first_token + at))
            .collect();
        let template = |queue| {
            SendTemplate::new(
                &load.topic,
                queue,
                load.size as usize,
                load.batch as usize,
                run,
            )
        };
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
            count: load.count,
            // One slot of each connection, then the second ones: due requests spread over all.
            free: (0..in_flight)
                .flat_map(|i| (0..connections_count).map(move |c| c * in_flight + i))
                .collect(),
            free_since_ns: 0,
            schedule: (0.0 < load.rate).then(|| Schedule {
                start_ns: 0,
                interval_ns: f64::from(load.batch) * 1e9 / load.rate,
                next: 0,
            }),
            window: Window {
                start_ns: 0,
                end_ns: 0,
            },
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
                if self.wants_more() {
                    self.fill(connection * self.in_flight + slot, now_ns, now_ns);
                }
            }
            self.connections[connection].send(poll)?;
        }
        Ok(())
    }

    pub fn is_open_loop(&self) -> bool {
        self.schedule.is_some()
    }

    fn wants_more(&self) -> bool {
        self.count == 0 || self.acknowledged + self.outstanding as u64 * self.batch < self.count
    }

    /// Ends the window when the wanted count is acknowledged; gives the window.
    pub fn end_at_count(&mut self, now_ns: u64) -> Window {
        if 0 < self.count && self.count <= self.acknowledged && self.outstanding == 0 {
            self.window.end_ns = self.window.end_ns.min(now_ns);
        }
        self.window
    }

    pub fn is_drained(&self, now_ns: u64) -> bool {
        let is_due = self
            .schedule
            .as_ref()
            .is_some_and(|schedule| schedule.due_ns() < self.window.end_ns)
            && (self.count == 0 || self.acknowledged < self.count);
        self.window.end_ns <= now_ns && self.outstanding == 0 && !is_due
    }

    /// Puts the slot's next request into its connection's bytes.
    fn fill(&mut self, at: usize, now_ns: u64, intended_ns: u64) {
        let slot = &mut self.slots[at];
        debug_assert!(!slot.is_busy);
        slot.is_busy = true;
        slot.generation += 1;
        slot.queue = if slot.queue + 1 == self.queues {
            0
        } else {
            slot.queue + 1
        };
        slot.opaque = wire::opaque((at % self.in_flight) as u32, slot.generation);
        slot.intended_ns = intended_ns;
        slot.sent_ns = now_ns;
        let stream = at * self.queues as usize + slot.queue as usize;
        let out = &mut self.connections[at / self.in_flight].out;
        let first = self.sequences[stream];
        self.templates[slot.queue as usize].put(
            out,
            slot.opaque,
            self.born_ms,
            stream as u32,
            first,
            intended_ns,
        );
        self.outstanding += 1;
    }

    /// Open loop: sends what is due and has a free slot.
    pub fn issue_due(&mut self, poll: &Poll) -> Outcome<()> {
        let Some(schedule) = &self.schedule else {
            return Ok(());
        };
        let mut due_ns = schedule.due_ns();
        let now_ns = clock::now_ns();
        if due_ns <= now_ns {
            self.born_ms = clock::wall_ms();
        }
        while due_ns <= now_ns && due_ns < self.window.end_ns {
            if !self.wants_more() {
                break;
            }
            let Some(slot) = self.free.pop_front() else {
                break;
            };
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
            let slot = wire::slot_of(opaque)
                .map(|slot| slot as usize)
                .filter(|slot| *slot < self.in_flight);
            let at = slot.map(|slot| connection * self.in_flight + slot);
            match at
                .filter(|at| self.slots[*at].is_busy && i64::from(self.slots[*at].opaque) == opaque)
            {
                Some(at) => self.answered(at, code, now_ns),
                None => self.unexpected += 1,
            }
            freed_any |= at.is_some();
        }
        if freed_any && self.schedule.is_none() {
            let now_ns = clock::now_ns();
            self.born_ms = clock::wall_ms();
            for at in connection * self.in_flight..(connection + 1) * self.in_flight {
                if !self.slots[at].is_busy && now_ns < self.window.end_ns && self.wants_more() {
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
        let counts = self.window.has(if self.schedule.is_some() {
            slot.intended_ns
        } else {
            now_ns
        });
        if counts {
            self.service
                .saturating_record((now_ns - slot.sent_ns).max(1));
            self.response
                .saturating_record((now_ns - slot.intended_ns).max(1));
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
        self.sequences
            .iter()
            .enumerate()
            .map(move |(stream, next)| (stream as u32 % queues, stream as u32, *next))
    }

    /// Requests that were due and never left.
    fn unsent(&mut self, now_ns: u64) -> u64 {
        let Some(schedule) = &mut self.schedule else {
            return 0;
        };
        if 0 < self.count && self.count <= self.acknowledged {
            return 0;
        }
        let first = schedule.next;
        while schedule.due_ns() < self.window.end_ns {
            if self.window.has(schedule.due_ns()) {
                self.response.saturating_record(now_ns - schedule.due_ns());
            }
            schedule.next += 1;
        }
        schedule.next - first
    }

    /// Stored messages that an answer did not tell of: refused or unanswered ones may be.
    pub fn unsure(&self) -> u64 {
        (self.refused + self.outstanding as u64) * self.batch
    }

    pub fn report(&mut self, report: &mut Report, load: &Load) {
        let seconds = self.window.seconds();
        let unanswered = self.outstanding as u64;
        let unsent = self.unsent(clock::now_ns());
        report.figure(
            "messages_per_s",
            self.in_window as f64 / seconds,
            "messages a second, acknowledged",
        );
        report.value(
            "requests_per_s",
            json!((self.requests_in_window as f64 / seconds).round()),
        );
        let bytes = self.in_window as f64 * f64::from(load.size);
        report.figure(
            "body_bytes_per_s",
            bytes / seconds,
            "bytes of bodies a second",
        );
        report.value("request_bytes", json!(self.templates[0].size()));
        report.value("acknowledged", json!(self.acknowledged));
        report.latency("service", "a request, sent to answered", &self.service);
        if self.schedule.is_some() {
            report.latency(
                "response",
                "a request, intended to answered",
                &self.response,
            );
            report.latency(
                "lateness",
                "the generator's own part: intended to sent, with a slot free",
                &self.lateness,
            );
            let tail = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.999);
            if tail(&self.response) < 10 * tail(&self.lateness) {
                report.note("the generator itself was late by more than a tenth of the response tail: see lateness");
            }
        }
        report.errors("errors", &self.errors);
        report.value("unanswered", json!(unanswered));
        report.value("unsent", json!(unsent));
        report.unexpected("unexpected_answers", self.unexpected);
        if 0 < unanswered && unsent == 0 {
            report.void(format!(
                "{unanswered} requests had no answer {} s after the end",
                DRAIN_NS / clock::SECOND_NS
            ));
        }
        if 0 < unsent {
            report.void(format!(
                "{unsent} requests were due and never sent: the rate is beyond the server's reach"
            ));
        }
        if self.in_window == 0 {
            report.void("no message was acknowledged in the window");
        }
    }
}

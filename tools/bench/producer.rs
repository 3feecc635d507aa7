//! The sending side: slots of connections, filled again when their answer came (closed loop) or
//! when the next message is due (open loop), and what the answers say.

use crate::drive::Window;
use crate::latency::Recorder;
use crate::load::{Bodies, Random, Schedule, Share};
use crate::net::Net;
use crate::refusals::Refusals;
use crate::rounds::Rounds;
use crate::wire::{self, Answers, Request, SendTemplate, Style};
use crate::{Outcome, clock, fail};
use std::collections::{BTreeMap, VecDeque};

/// Codes that say "stored, but not as safe as asked": flush and replica timeouts.
const STORED_CODES: [i32; 4] = [0, 10, 11, 12];

/// One request's place. While it is busy, it has exactly one request at the server.
struct Slot {
    is_busy: bool,
    generation: u32,
    opaque: u32,
    /// Which of its lanes the request goes to.
    rank: u32,
    bytes: u64,
    intended_ns: u64,
    sent_ns: u64,
}

pub struct Producer {
    tokens: Vec<usize>,
    slots: Vec<Slot>,
    in_flight: usize,
    rounds: Rounds,
    pub batch: u64,
    /// Messages to be acknowledged in all; none sends until the window ends.
    count: Option<u64>,
    /// Free slots of an open loop, longest free first.
    free: VecDeque<usize>,
    /// Since when an open loop has had a free slot.
    free_since_ns: u64,
    schedule: Option<Schedule>,
    window: Window,
    /// By lane, then tag.
    templates: Vec<SendTemplate>,
    tags: usize,
    tag_at: usize,
    bodies: Bodies,
    random: Random,
    /// Next sequence of each slot's lanes: moves when a request was stored.
    sequences: Vec<u64>,
    /// Next sequences of streams that other threads sent.
    absorbed: Vec<(u32, u32, u64)>,
    answers: Answers,
    pub outstanding: usize,
    /// Requests that were due and never left: known after the run.
    pub unsent_requests: u64,
    dirty: Vec<usize>,
    /// Wall time that requests carry: read once a turn, not once a message.
    born_ms: u64,
    pub run: u64,
    pub acknowledged: u64,
    pub acknowledged_bytes: u64,
    pub in_window: u64,
    pub bytes_in_window: u64,
    pub refusals: Refusals,
    /// Of the whole run.
    refused: u64,
    pub unexpected: u64,
    pub errors: BTreeMap<i32, u64>,
    pub service: Recorder,
    pub response: Recorder,
    /// Sent − intended when a slot was free all along: the generator's own lateness.
    pub lateness: Recorder,
}

impl Producer {
    pub fn connect(share: &Share, net: &mut Net) -> Outcome<Producer> {
        let (load, run) = (&share.load, share.run);
        let (connections, in_flight) = (load.connections as usize, load.in_flight as usize);
        let lanes = load.lanes() as usize;
        let slots_count = connections * in_flight;
        let rounds = Rounds::new(share.first_slot, share.slots, lanes);
        let sequences_count = slots_count * rounds.width();
        if 1 << 24 < sequences_count || 1 << 24 < share.slots {
            return fail("connections × in-flight is above 16,777,216; lower one of them");
        }
        let tokens: Outcome<Vec<usize>> =
            (0..connections).map(|_| net.connect(load.addr)).collect();
        let style = Style {
            batch: load.batch as usize,
            run,
            keys: load.keys,
        };
        let tags: Vec<Option<&str>> = match load.tags.len() {
            0 => vec![None],
            _ => load.tags.iter().map(|tag| Some(tag.as_str())).collect(),
        };
        let templates = (0..load.lanes()).flat_map(|lane| {
            let (topic, queue) = load.lane(lane);
            let style = &style;
            tags.iter()
                .map(move |tag| SendTemplate::new(style, &topic, queue, lane, *tag))
        });
        let slot = |at: usize| Slot {
            is_busy: false,
            generation: 0,
            opaque: 0,
            rank: ((rounds.first() + at) % rounds.lanes_of(at)) as u32,
            bytes: 0,
            intended_ns: 0,
            sent_ns: 0,
        };
        Ok(Producer {
            tokens: tokens?,
            slots: (0..slots_count).map(slot).collect(),
            in_flight,
            rounds,
            batch: u64::from(load.batch),
            count: share.count,
            // One slot of each connection, then the second ones: due requests spread over all.
            free: (0..in_flight)
                .flat_map(|i| (0..connections).map(move |c| c * in_flight + i))
                .collect(),
            free_since_ns: 0,
            schedule: load.is_open_loop().then(|| {
                Schedule::new(load.arrival, load.rate, load.batch, load.seed)
                    .with_phase(share.thread as f64 / share.threads as f64)
            }),
            window: Window::default(),
            templates: templates.collect(),
            tags: tags.len(),
            tag_at: 0,
            bodies: Bodies::new(&load.size, load.seed),
            random: Random::new(!load.seed),
            sequences: vec![0; sequences_count],
            absorbed: Vec::new(),
            answers: Answers::new(Some(load.addr)),
            outstanding: 0,
            unsent_requests: 0,
            dirty: Vec::new(),
            born_ms: 0,
            run,
            acknowledged: 0,
            acknowledged_bytes: 0,
            in_window: 0,
            bytes_in_window: 0,
            refusals: Refusals::default(),
            refused: 0,
            unexpected: 0,
            errors: BTreeMap::new(),
            service: Recorder::default(),
            response: Recorder::default(),
            lateness: Recorder::default(),
        })
    }

    pub fn tokens(&self) -> &[usize] {
        &self.tokens
    }

    /// Requests that it has outstanding at most.
    pub fn slots_count(&self) -> usize {
        self.slots.len()
    }

    pub fn start(&mut self, net: &mut Net, window: Window, now_ns: u64) -> Outcome<()> {
        self.window = window;
        self.born_ms = clock::wall_ms();
        if let Some(schedule) = &mut self.schedule {
            schedule.start(now_ns, window.start_ns, window.end_ns);
            return self.issue_due(net);
        }
        for connection in 0..self.tokens.len() {
            for slot in 0..self.in_flight {
                if self.wants_more() {
                    self.fill(net, connection * self.in_flight + slot, now_ns, now_ns);
                }
            }
            net.send(self.tokens[connection])?;
        }
        Ok(())
    }

    pub fn is_open_loop(&self) -> bool {
        self.schedule.is_some()
    }

    fn wants_more(&self) -> bool {
        let sent = self.acknowledged + self.outstanding as u64 * self.batch;
        self.count.is_none_or(|count| sent < count)
    }

    /// Whether the wanted count is acknowledged.
    pub fn has_its_count(&self) -> bool {
        self.is_enough() && self.outstanding == 0
    }

    fn is_enough(&self) -> bool {
        self.count.is_some_and(|count| count <= self.acknowledged)
    }

    /// When there is something to do even if nothing comes: now, if a free slot has a message due.
    pub fn due_ns(&self) -> Option<u64> {
        let schedule = self.schedule.as_ref()?;
        let is_sendable = !self.free.is_empty() && schedule.due_ns() < self.window.end_ns;
        is_sendable.then(|| schedule.due_ns())
    }

    /// How long the oldest due message has waited to be sent.
    pub fn backlog_ns(&self, now_ns: u64) -> u64 {
        let due_ns = self.schedule.as_ref().map_or(now_ns, Schedule::due_ns);
        now_ns.saturating_sub(due_ns.max(self.window.start_ns))
    }

    /// Sends nothing that is due from now on.
    pub fn give_up(&mut self, now_ns: u64) {
        self.window.cut(now_ns);
    }

    pub fn is_drained(&self, now_ns: u64) -> bool {
        let is_due = self
            .schedule
            .as_ref()
            .is_some_and(|schedule| schedule.due_ns() < self.window.end_ns)
            && !self.is_enough();
        self.window.end_ns <= now_ns && self.outstanding == 0 && !is_due
    }

    /// Puts the slot's next request into its connection's bytes.
    #[inline]
    fn fill(&mut self, net: &mut Net, at: usize, now_ns: u64, intended_ns: u64) {
        let slot = &mut self.slots[at];
        debug_assert!(!slot.is_busy);
        slot.is_busy = true;
        slot.generation += 1;
        slot.rank += 1;
        if self.rounds.lanes_of(at) <= slot.rank as usize {
            slot.rank = 0;
        }
        let rank = slot.rank as usize;
        slot.opaque = wire::opaque((at % self.in_flight) as u32, slot.generation);
        slot.intended_ns = intended_ns;
        slot.sent_ns = now_ns;
        self.tag_at += 1;
        if self.tags <= self.tag_at {
            self.tag_at = 0;
        }
        let request = Request {
            opaque: slot.opaque,
            born_ms: self.born_ms,
            slot: (self.rounds.first() + at) as u32,
            first: self.sequences[at * self.rounds.width() + rank],
            intended_ns,
        };
        let out = &mut net.connection(self.tokens[at / self.in_flight]).out;
        slot.bytes = self.templates[self.rounds.lane(at, rank) * self.tags + self.tag_at].put(
            out,
            &request,
            &mut self.bodies,
            &mut self.random,
        );
        self.outstanding += 1;
    }

    /// Open loop: sends what is due and has a free slot.
    pub fn issue_due(&mut self, net: &mut Net) -> Outcome<()> {
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
            // Many may be due at once, and the last of them waits for the others to be made.
            let sent_ns = clock::now_ns();
            if self.free_since_ns <= due_ns && self.window.has(due_ns) {
                self.lateness.record(sent_ns - due_ns);
            }
            self.fill(net, slot, sent_ns, due_ns);
            self.dirty.push(slot / self.in_flight);
            let schedule = self.schedule.as_mut().expect("this is an open loop");
            schedule.advance();
            due_ns = schedule.due_ns();
        }
        while let Some(connection) = self.dirty.pop() {
            net.send(self.tokens[connection])?;
        }
        Ok(())
    }

    /// Takes what came on connection `connection`, and in a closed loop sends the next requests.
    pub fn on_ready(&mut self, net: &mut Net, connection: usize, now_ns: u64) -> Outcome<()> {
        let token = self.tokens[connection];
        let first = connection * self.in_flight;
        let mut freed_any = false;
        while let Some(frame) = net.connection(token).next_frame()? {
            let (code, opaque) = self.answers.read(frame.header)?;
            let slot = wire::slot_of(opaque)
                .map(|slot| slot as usize)
                .filter(|slot| *slot < self.in_flight);
            let at = slot.map(|slot| first + slot).filter(|at| {
                self.slots[*at].is_busy && i64::from(self.slots[*at].opaque) == opaque
            });
            match at {
                Some(at) => self.answered(at, code, now_ns),
                None => self.unexpected += 1,
            }
            freed_any |= at.is_some();
        }
        if freed_any && self.schedule.is_none() {
            let now_ns = clock::now_ns();
            self.born_ms = clock::wall_ms();
            for at in first..first + self.in_flight {
                if !self.slots[at].is_busy && now_ns < self.window.end_ns && self.wants_more() {
                    self.fill(net, at, now_ns, now_ns);
                }
            }
        }
        net.send(token)
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
        if code != 0 {
            *self.errors.entry(code).or_default() += 1;
        }
        if !STORED_CODES.contains(&code) {
            self.refused += 1;
            if self.window.has(now_ns) {
                self.refusals.refused(code);
            }
            return;
        }
        // A refusal took no part of the work that a latency is of.
        if counts {
            self.service.record(now_ns - slot.sent_ns);
            if self.schedule.is_some() {
                self.response.record(now_ns - slot.intended_ns);
            }
        }
        self.sequences[at * self.rounds.width() + slot.rank as usize] += self.batch;
        self.acknowledged += self.batch;
        self.acknowledged_bytes += slot.bytes;
        if self.window.has(now_ns) {
            self.in_window += self.batch;
            self.bytes_in_window += slot.bytes;
            self.refusals.granted += 1;
        }
    }

    /// The sequence that each stream's next message would have: lane, slot, sequence.
    pub fn streams(&self) -> impl Iterator<Item = (u32, u32, u64)> + '_ {
        let (rounds, width) = (self.rounds, self.rounds.width());
        self.sequences
            .iter()
            .enumerate()
            .filter(|(_, next)| 0 < **next)
            .map(move |(at, next)| {
                let (slot, rank) = (at / width, at % width);
                let stream = (rounds.first() + slot) as u32;
                (rounds.lane(slot, rank) as u32, stream, *next)
            })
            .chain(self.absorbed.iter().copied())
    }

    /// Takes over what another thread sent, when both have ended.
    pub fn absorb(&mut self, other: Producer) {
        self.absorbed.extend(other.streams());
        self.window.end_ns = self.window.end_ns.max(other.window.end_ns);
        self.outstanding += other.outstanding;
        self.unsent_requests += other.unsent_requests;
        self.acknowledged += other.acknowledged;
        self.acknowledged_bytes += other.acknowledged_bytes;
        self.in_window += other.in_window;
        self.bytes_in_window += other.bytes_in_window;
        self.refusals.absorb(other.refusals);
        self.refused += other.refused;
        self.unexpected += other.unexpected;
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.service.absorb(other.service);
        self.response.absorb(other.response);
        self.lateness.absorb(other.lateness);
    }

    /// Requests that were due and never left; their wait so far counts as a response.
    pub fn unsent(&mut self, now_ns: u64) -> u64 {
        if self.is_enough() {
            return 0;
        }
        let Some(schedule) = &mut self.schedule else {
            return 0;
        };
        let mut count = 0;
        while schedule.due_ns() < self.window.end_ns {
            if self.window.has(schedule.due_ns()) {
                self.response.record(now_ns - schedule.due_ns());
            }
            schedule.advance();
            count += 1;
        }
        count
    }

    /// Messages that may be stored though no answer said so: refused or unanswered ones.
    pub fn unsure(&self) -> u64 {
        (self.refused + self.outstanding as u64) * self.batch
    }

    pub fn window(&self) -> Window {
        self.window
    }

    /// Bytes of a request of mean size.
    pub fn request_bytes(&self) -> f64 {
        self.templates[0].size(self.bodies.mean())
    }

    /// All counting of this second of the window is done.
    pub fn close(&mut self, second: u32) {
        self.service.close(second);
        self.response.close(second);
        self.lateness.close(second);
    }
}

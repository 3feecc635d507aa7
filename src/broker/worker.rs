//! One shard's thread: take completions, decode, execute, index, wake, answer, flush. One line per arrow.

mod housekeeping;
mod requests;
mod sends;

use std::any::Any;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::checkpoint::CheckpointState;
use super::control::{Control, Mailbox, Report};
use super::registration::Registrar;
use super::retention::Keeper;
use super::saving::Saving;
use super::sharing;
use super::stalls::{Stalls, Step};
use crate::base::{Key, ShardId};
use crate::command::ConnectionId;
use crate::egress::{self, Egress};
use crate::index;
use crate::io::{Completion, Io, Op, Token};
use crate::log;
use crate::net::{self, Event, Net};
use crate::protocol::rocketmq;
use crate::protocol::rocketmq::frame::{HeaderKind, Scratch};
use crate::shard::{self, ChangeNumber, Condition, Outbound, Shard};
use requests::Waiting;
use sends::Sends;

/// This room's byte in tokens. The others: net 1, log 2, index 3, egress 4 and 7, shard 5.
pub(super) const ROOM: u8 = 6;
const _: () = assert!(net::ROOM == 1 && log::ROOM == 2 && index::ROOM == 3);
const _: () = assert!(egress::ROOM == 4 && shard::ROOM == 5 && egress::COLD_ROOM == 7);

const WHAT: u64 = 0xff << 48;
pub(super) const CHECKPOINT: u64 = 1 << 48;
pub(super) const INDEX_FLUSH: u64 = 2 << 48;
pub(super) const INDEX_SYNC: u64 = 3 << 48;
pub(super) const SAVE: u64 = 4 << 48;
pub(super) const SPACE: u64 = 5 << 48;
pub(super) const SEARCH: u64 = 6 << 48;
pub(super) const REMOVE: u64 = 7 << 48;
const BELL: u64 = 8 << 48;
const ABORT: u64 = 9 << 48;
/// With the number of the change that it is part of.
const REMOVE_FOR: u64 = 10 << 48;
const CHANGE: u64 = (1 << 48) - 1;

/// Where a worker's stop has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Answers leave, the log is synced, indexes and state go to disk.
    Settling {
        since_ns: u64,
    },
    /// The last checkpoint is written.
    Sealing,
    /// The abort file goes.
    Unmarking,
    Done,
}

/// What a worker is made of.
pub(super) struct Parts<I> {
    pub(super) io: I,
    pub(super) id: ShardId,
    pub(super) net: Net,
    pub(super) egress: Egress,
    pub(super) shard: Shard,
    pub(super) saving: Saving,
    pub(super) checkpoint: CheckpointState,
    pub(super) keeper: Keeper,
    pub(super) mailbox: Mailbox,
    /// Of all shards, in order.
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) registrar: Option<Arc<Registrar>>,
    pub(super) reports: Sender<Report>,
    pub(super) abort: std::path::PathBuf,
}

/// One shard's thread.
pub(super) struct Worker<I> {
    parts: Parts<I>,
    scratch: Scratch,
    sends: Sends,
    done: Vec<Completion>,
    events: Vec<Event>,
    /// Memory for what the shard wants done outside.
    outbox: Vec<Outbound>,
    /// Requests that wait for a condition.
    waiting: BTreeMap<Condition, Vec<Waiting>>,
    waiting_size: usize,
    /// Changes that other shards asked for: whom to tell.
    taking: BTreeMap<ChangeNumber, (ShardId, ChangeNumber)>,
    next_opaque: i32,
    next_tick_ns: u64,
    period_tick: usize,
    stalls: Stalls,
    /// Of the last request.
    last_code: i32,
    /// The next request to be decoded is looked at with a clock.
    times_decoding: bool,
    wait_ns: u64,
    stop: Stop,
    failed: bool,
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it does not say why")
}

impl<I: Io> Worker<I> {
    pub(super) fn new(parts: Parts<I>) -> Self {
        Self {
            parts,
            scratch: Scratch::default(),
            sends: Sends::default(),
            done: Vec::new(),
            events: Vec::new(),
            outbox: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_size: 0,
            taking: BTreeMap::new(),
            next_opaque: 0,
            next_tick_ns: 0,
            period_tick: 0,
            stalls: Stalls::default(),
            last_code: 0,
            times_decoding: false,
            wait_ns: 0,
            stop: Stop::No,
            failed: false,
        }
    }

    /// Turns until the shard has stopped or failed. A panic counts as a failure: nobody knows what it left behind.
    pub(super) fn run(self) {
        // A worker that has failed is never dropped: the kernel may still use its memory.
        let mut worker = ManuallyDrop::new(self);
        let turns = catch_unwind(AssertUnwindSafe(|| worker.run_turns()));
        if let Err(panic) = turns {
            worker.fail(format!("a panic: {}", words_of(panic.as_ref())));
        }
        if worker.failed {
            // The process is about to end with code 3; whoever waits sees its connection close.
            loop {
                std::thread::park();
            }
        }
        let worker = ManuallyDrop::into_inner(worker);
        let _ = worker.parts.reports.send(Report::Stopped);
    }

    fn run_turns(&mut self) {
        let pushed = self.parts.io.push(Token::of(ROOM, BELL), Op::Bell);
        assert!(pushed.is_ok(), "the ring is fresh");
        while self.stop != Stop::Done && !self.failed {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        if let Err(errno) = self.parts.io.turn(self.wait_ns, &mut done) {
            return self.fail(format!("io_uring_enter failed: {errno}"));
        }
        let calls = self.parts.io.own_calls();
        self.stalls.begin(self.parts.io.now_ns(), calls);
        let answers = done.len();
        for completion in done.drain(..) {
            self.complete(completion);
        }
        self.done = done;
        self.begin_sync();
        self.mark_by(Step::Completions, || {
            format!("{answers} answers of the kernel")
        });
        // Who waited for room comes before who has only just come.
        self.parts.shard.look_for_room();
        self.run_again();
        self.take_events();
        self.parts.shard.advance(&mut self.parts.io);
        let answers = self.give_out();
        self.mark_by(Step::Visible, || format!("{answers} answers to clients"));
        self.parts.shard.note_visible(self.stalls.last_ns());
        self.run_again();
        self.tick();
        let answers = self.give_out();
        self.mark_by(Step::Housekeeping, || {
            format!("{answers} answers of its tasks")
        });
        self.flush();
        self.mark_by(Step::Submission, || "what the ring is given".to_owned());
        self.stalls.end();
        if let Some(failed) = self.parts.shard.log.failed() {
            self.fail(format!(
                "{} at offset {} failed: {}",
                failed.doing, failed.offset, failed.errno
            ));
        } else if let Some(errno) = self.parts.checkpoint.failed() {
            self.fail(format!(
                "the sync of ConsumeQueues and IndexFiles failed: {errno}; see to the disk and start again: they are made again from the log"
            ));
        }
    }

    /// The sync of what is written begins before the requests of this turn are looked at: they take about as long as
    /// the disk does, and none of them would be covered by it. See kernel-notes/write-and-sync.md.
    fn begin_sync(&mut self) {
        let Parts { io, shard, .. } = &mut self.parts;
        if shard.log.begin_sync(io)
            && let Err(errno) = io.begin()
        {
            self.fail(format!("io_uring_enter failed: {errno}"));
        }
    }

    /// A step of the turn has ended, or a part of one, in which this was done.
    fn mark_by(&mut self, step: Step, by: impl FnOnce() -> String) {
        let now_ns = self.parts.io.look_ns();
        self.stalls.mark(now_ns, step, by);
    }

    fn fail(&mut self, why: String) {
        self.failed = true;
        let report = Report::Failed {
            shard: self.parts.id,
            why,
        };
        let _ = self.parts.reports.send(report);
    }

    fn complete(&mut self, done: Completion) {
        let Parts {
            io,
            net,
            egress,
            shard,
            ..
        } = &mut self.parts;
        match done.token.room() {
            net::ROOM => net.complete(io, done, &mut self.events),
            egress::ROOM => {
                if let Some((key, progress)) = egress.complete(io, done) {
                    net.delivered(io, key, progress, &mut self.events);
                }
            }
            egress::COLD_ROOM => {
                for (key, progress) in egress.complete_cold(io, done) {
                    net.delivered(io, key, progress, &mut self.events);
                }
            }
            log::ROOM => shard.log.complete(io, done),
            index::ROOM => shard.queues.flushed(done.token, done.result),
            shard::ROOM => shard.complete(io, done),
            _ => self.complete_own(done),
        }
    }

    fn complete_own(&mut self, done: Completion) {
        let rest = done.token.rest();
        let Parts {
            io,
            shard,
            saving,
            checkpoint,
            keeper,
            ..
        } = &mut self.parts;
        match rest & WHAT {
            what @ (CHECKPOINT | INDEX_FLUSH | INDEX_SYNC) => {
                checkpoint.complete(io, shard, what, done.result);
            }
            SAVE => saving.complete(io, shard, (rest & 0xff) as usize, done.result),
            SPACE => keeper.looked(io, shard, done.result, &done.payload),
            SEARCH => keeper.found(io, shard, &done.payload),
            what @ (REMOVE | REMOVE_FOR) => {
                if what == REMOVE_FOR {
                    shard.files_removed(rest & CHANGE);
                }
                if let Err(errno) = done.result {
                    tracing::warn!(%errno, "a file that is no longer needed could not be removed; it stays");
                }
            }
            ABORT => self.stop = Stop::Done,
            BELL => self.take_mail(),
            other => unreachable!("{other:x} is not of this room"),
        }
    }

    fn take_mail(&mut self) {
        while let Some(control) = self.parts.mailbox.take() {
            match control {
                Control::TakeTopics {
                    from,
                    change,
                    topics,
                } => {
                    let now_ms = self.parts.io.wall_ms();
                    let own = self.parts.shard.take_over_topics(topics, now_ms);
                    self.taking.insert(own, (from, change));
                }
                Control::TakeSettings {
                    from,
                    change,
                    settings,
                } => {
                    sharing::apply_settings(&mut self.parts, &settings);
                    let own = self.parts.shard.take_over_settings();
                    self.taking.insert(own, (from, change));
                }
                Control::TopicsTaken { change } => self.parts.shard.topics_taken(change),
                Control::Registered { change } => self.parts.shard.change_registered(change),
                Control::Stop => self.begin_stop(),
            }
        }
    }

    fn take_events(&mut self) {
        self.parts.net.begin_turn();
        let mut events = std::mem::take(&mut self.events);
        let mut later = Vec::new();
        while !events.is_empty() {
            for event in events.drain(..) {
                let Parts { io, net, .. } = &mut self.parts;
                match event {
                    Event::Opened(_) => (),
                    Event::Received(key, lease) if !net.may_go_on(io, key, lease.len()) => {
                        later.push(Event::Received(key, lease));
                    }
                    Event::Received(key, lease) => self.take_piece(key, lease),
                    Event::Ended(key) if net.is_held(key) => later.push(Event::Ended(key)),
                    Event::Ended(key) => {
                        let Parts { io, net, .. } = &mut self.parts;
                        net.close(io, key, &mut self.events);
                    }
                    Event::Closed(key) => {
                        self.disconnected(key);
                        self.mark_by(Step::Requests, || "a client that has gone".to_owned());
                    }
                }
            }
            std::mem::swap(&mut events, &mut self.events);
        }
        // Empty and allocated, or what waits.
        self.events = if later.is_empty() { events } else { later };
        self.run_sends();
    }

    fn disconnected(&mut self, key: Key) {
        self.parts.shard.disconnected(ConnectionId(key));
        self.forget_waiting(key);
    }

    /// Carries out what the shard wants done outside of itself. Answers how much that was.
    fn give_out(&mut self) -> usize {
        let mut count = 0;
        // There are hundreds of answers in a turn: looked at where they lie, not moved.
        let mut outbox = std::mem::take(&mut self.outbox);
        while self.parts.shard.swap_outbox(&mut outbox) {
            count += outbox.len();
            for outbound in &mut outbox {
                self.give(outbound);
            }
            outbox.clear();
        }
        self.outbox = outbox;
        count
    }

    fn give(&mut self, outbound: &mut Outbound) {
        match outbound {
            Outbound::Answer(ticket, answer) => self.answer(*ticket, answer),
            Outbound::Notice(connection, notice) => {
                let opaque = self.next_opaque;
                self.next_opaque = self.next_opaque.wrapping_add(1);
                if let Some(out) = self.parts.net.reply(connection.0) {
                    rocketmq::notice(out, HeaderKind::Json, opaque, notice);
                }
            }
            Outbound::ShareTopics(change, topics) => {
                sharing::share_topics(&self.parts, *change, topics);
            }
            Outbound::Register(change, touched, version) => {
                sharing::register(&mut self.parts, *change, (touched, *version));
            }
            Outbound::ChangeSettings(ticket, properties) => {
                if let Some(answer) = sharing::change_settings(&mut self.parts, *ticket, properties)
                {
                    self.answer(*ticket, &answer);
                }
            }
            Outbound::RemoveFiles(change, path) => {
                let token = Token::of(ROOM, REMOVE_FOR | *change & CHANGE);
                let path = std::mem::take(path);
                let pushed = self.parts.io.push(token, Op::Remove { path });
                assert!(pushed.is_ok(), "the ring has room for housekeeping");
            }
        }
    }

    fn flush(&mut self) {
        let Parts {
            io,
            net,
            egress,
            shard,
            ..
        } = &mut self.parts;
        let ask_again_ns = shard.log.pump(io);
        shard.queues.flush_large(io);
        net.flush(io, egress);
        self.wait_ns = self.wait_ns.min(ask_again_ns);
        if !self.events.is_empty() || self.parts.shard.has_met() {
            self.wait_ns = 0;
        }
    }
}

#[cfg(test)]
mod tests;

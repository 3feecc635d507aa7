//! Requests of clients: decoded, executed, answered or put off.

use std::sync::Arc;

use super::{Parts, Worker};
use crate::base::{Held, Key};
use crate::broker::control::Control;
use crate::broker::stalls::Step;
use crate::command::{
    Answer, Command, ConnectionId, FetchStatus, Fetched, Peer, Refusal, RefusalKind, Ticket,
};
use crate::egress::{Delivery, Unsettled};
use crate::io::{Io, Lease, Span};
use crate::protocol::rocketmq;
use crate::protocol::rocketmq::frame;
use crate::shard::{Condition, Reply, Stage};

/// Bytes of requests that wait for room or for a change, at most.
const WAITING_SIZE_MAX: usize = 64 << 20;

/// A smaller body is copied into its group. At this size both ways cost the same (kernel-notes/write-and-sync.md).
const BODY_HELD_MIN: usize = 64 << 10;

/// What was written last is in the page cache: it has just been there. Further back is asked for.
const HOT_SIZE: u64 = 32 << 20;

impl<I: Io> Worker<I> {
    /// A piece that came from a client: its requests are executed, and it is noted how far they have come.
    pub(super) fn take_piece(&mut self, key: Key, lease: Lease) {
        let turn_ns = self.parts.io.now_ns();
        // The clock was read when what came before had ended.
        let received_ns = self.stalls.last_ns().saturating_sub(turn_ns);
        let appended_before = self.parts.shard.counters.produced;
        self.times_decoding = true;
        let count = self.receive(key, lease);
        self.times_decoding = false;
        let Parts { io, net, shard, .. } = &mut self.parts;
        let last_code = self.last_code;
        let took_ns = self.stalls.mark(io.look_ns(), Step::Requests, || {
            let peer = net.peer(key).map(|peer| peer.to_string());
            let peer = peer.as_deref().unwrap_or("a client that has gone");
            format!("{count} of {peer}, the last with code {last_code}")
        });
        net.took(key, took_ns);
        shard.stages.record(Stage::Received, received_ns, count);
        self.note_appended(appended_before);
    }

    /// The messages that were appended since then have come so far when the last step ended.
    fn note_appended(&mut self, before: u64) {
        let Parts { io, shard, .. } = &mut self.parts;
        let ns = self.stalls.last_ns().saturating_sub(io.now_ns());
        let count = shard.counters.produced - before;
        shard.stages.record(Stage::Appended, ns, count);
    }

    /// Answers how many requests were in it.
    fn receive(&mut self, key: Key, lease: Lease) -> u64 {
        let Some(mut frames) = self.parts.net.frames(key, lease) else {
            return 0;
        };
        let mut count = 0;
        loop {
            let why = match frames.next_frame() {
                Ok(Some(frame)) => {
                    count += 1;
                    self.execute(key, frame.bytes, frame.held).err()
                }
                Ok(None) => break,
                Err(why) => Some(why),
            };
            if let Some(why) = why {
                self.break_off(key, &why);
                return count;
            }
        }
        let Parts { io, net, .. } = &mut self.parts;
        net.keep(io, key, frames, &mut self.events);
        net.hold_back(io, key);
        count
    }

    fn break_off(&mut self, key: Key, why: &str) {
        let Parts { io, net, .. } = &mut self.parts;
        net.break_off(io, key, why, &mut self.events);
    }

    /// One frame: decoded in place, executed, answered now or later. `whole` is its memory, where that may
    /// be held on to.
    pub(super) fn execute(
        &mut self,
        key: Key,
        bytes: &[u8],
        whole: Option<&Arc<Vec<u8>>>,
    ) -> Result<(), String> {
        let Some(address) = self.parts.net.peer(key) else {
            return Ok(());
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = match frame::decode(bytes, &mut scratch) {
            Err(error) => Err(error.to_string()),
            Ok(request) if request.is_response() => Ok(()),
            Ok(request) => {
                self.last_code = request.code;
                let peer = Peer {
                    connection: ConnectionId(key),
                    address,
                    language: request.language,
                    version: request.version,
                };
                let ticket = Ticket {
                    connection: ConnectionId(key),
                    note: request.note(),
                };
                let command = rocketmq::command(&request);
                let Parts { io, shard, .. } = &mut self.parts;
                if std::mem::take(&mut self.times_decoding) {
                    let took_ns = io.look_ns().saturating_sub(io.now_ns());
                    shard.stages.record(Stage::Decoded, took_ns, 1);
                }
                if matches!(command, Ok(Command::RuntimeInfo)) {
                    self.tell_times();
                }
                let Parts { io, shard, .. } = &mut self.parts;
                let reply = match command {
                    Ok(mut command) => {
                        hold(&mut command, whole);
                        shard.execute(io, &peer, ticket, command)
                    }
                    Err(refusal) => Reply::Now(Answer::Refused(refusal)),
                };
                match reply {
                    Reply::Now(answer) => self.answer(ticket, &answer),
                    Reply::Later => (),
                    Reply::Again(condition) => self.wait(condition, key, ticket, bytes),
                }
                Ok(())
            }
        };
        self.scratch = scratch;
        outcome
    }

    /// The shard is asked for times that it does not measure itself.
    fn tell_times(&mut self) {
        let Parts { net, shard, .. } = &mut self.parts;
        shard.stages.sent = net.sent_times();
        shard.stalls = self.stalls.all();
    }

    fn wait(&mut self, condition: Condition, key: Key, ticket: Ticket, bytes: &[u8]) {
        if WAITING_SIZE_MAX < self.waiting_size + bytes.len() {
            let text = "[TIMEOUT_CLEAN_QUEUE]broker busy, requests wait for room in the log; \
                        send it again later";
            let refusal = Refusal::new(RefusalKind::SystemBusy, text);
            return self.answer(ticket, &Answer::Refused(refusal));
        }
        self.waiting_size += bytes.len();
        self.waiting
            .entry(condition)
            .or_default()
            .push((key, bytes.to_vec()));
    }

    /// Executes again what waited for something that holds now.
    pub(super) fn run_again(&mut self) {
        for condition in self.parts.shard.take_met() {
            if let Condition::Change(change) = condition
                && let Some((from, theirs)) = self.taking.remove(&change)
            {
                let mailbox = &self.parts.mailboxes[usize::from(from.0)];
                mailbox.post(Control::TopicsTaken { change: theirs });
            }
            let list = self.waiting.remove(&condition).unwrap_or_default();
            let appended_before = self.parts.shard.counters.produced;
            for (key, bytes) in list {
                self.waiting_size -= bytes.len();
                if let Err(why) = self.execute(key, &bytes, None) {
                    self.break_off(key, &why);
                }
            }
            let last_code = self.last_code;
            self.mark_by(Step::Waiting, || format!("the last with code {last_code}"));
            self.note_appended(appended_before);
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        let key = ticket.connection.0;
        if let Answer::Fetched(fetched) = answer
            && !fetched.spans.is_empty()
        {
            return match self.delivery(ticket, answer, fetched) {
                Some(delivery) => self.parts.net.deliver(key, delivery),
                // Removed since the units were looked at: the client comes back for what follows.
                None => self.answer(
                    ticket,
                    &Answer::Fetched(Fetched {
                        status: FetchStatus::MessageWasRemoving,
                        spans: Vec::new(),
                        count: 0,
                        ..*fetched
                    }),
                ),
            };
        }
        let Parts { net, shard, .. } = &mut self.parts;
        if let Some(out) = net.reply(key) {
            rocketmq::answer(out, ticket.note, shard.settings.store_host, answer);
        }
    }

    /// What to deliver for an answer; `None` if it is no longer there.
    fn delivery(&self, ticket: Ticket, answer: &Answer, fetched: &Fetched) -> Option<Delivery> {
        let log = &self.parts.shard.log;
        let spans: Option<Vec<Span>> = fetched
            .spans
            .iter()
            .map(|span| log.span(span.offset, span.len))
            .collect();
        let spans = spans?;
        let first = fetched.spans[0].offset.0;
        let hot = log.warm_from().max(log.appended().saturating_sub(HOT_SIZE)) <= first;
        let written = log.written();
        let unsettled = log.segments().at(written).map(|segment| Unsettled {
            file: segment.file,
            from: written - segment.base,
        });
        let mut head = Vec::with_capacity(256);
        let host = self.parts.shard.settings.store_host;
        rocketmq::answer(&mut head, ticket.note, host, answer);
        Some(Delivery {
            head,
            spans,
            hot,
            unsettled,
        })
    }
}

/// A send with a large body says where that may be held on to.
fn hold<'a>(command: &mut Command<'a>, whole: Option<&'a Arc<Vec<u8>>>) {
    if let (Command::Produce(produce), Some(frame)) = (command, whole)
        && BODY_HELD_MIN <= produce.body.len()
        && let Some(body_at) = frame.len().checked_sub(produce.body.len())
        && std::ptr::eq(&raw const frame[body_at..], produce.body)
    {
        produce.held = Some(Held { frame, body_at });
    }
}

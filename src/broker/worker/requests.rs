//! Requests of clients: decoded, executed, answered or put off.

use std::net::SocketAddr;
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
use crate::net::Frames;
use crate::protocol::rocketmq;
use crate::protocol::rocketmq::frame::{self, Request, Scratch};
use crate::shard::{Condition, Reply, Stage};

/// Bytes of requests that wait for room or for a change, at most.
const WAITING_SIZE_MAX: usize = 64 << 20;

/// Bytes of requests that waited for room and are executed at once: about half a millisecond's. Each takes as long by
/// itself as so many bytes of it.
const ROOM_SIZE_MAX: usize = 1 << 20;
const REQUEST_SIZE: usize = 4 << 10;

/// A smaller body is copied into its group. Both ways cost the same at 256 KiB and 1 MiB; this size was not measured
/// (kernel-notes/write-and-sync.md).
const BODY_HELD_MIN: usize = 64 << 10;

/// What was written last is in the page cache: it has just been there. Further back is asked for
/// (kernel-notes/page-cache-and-cold-reads.md).
const HOT_SIZE: u64 = 32 << 20;

/// A request that waits for a condition.
#[derive(Debug)]
pub(super) struct Waiting {
    from: (Key, SocketAddr),
    bytes: Vec<u8>,
    is_send: bool,
}

impl<I: Io> Worker<I> {
    /// A piece that came from a client: its requests are executed, its sends put by for [`Self::run_sends`], and it
    /// is noted how far they have come.
    pub(super) fn take_piece(&mut self, key: Key, lease: Lease) {
        let turn_ns = self.parts.io.now_ns();
        // The clock was read when what came before had ended.
        let received_ns = self.stalls.last_ns().saturating_sub(turn_ns);
        let sends_before_ns = self.sends.usual_ns();
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
        let to_come_ns = self.sends.usual_ns() - sends_before_ns;
        net.took(key, took_ns + to_come_ns);
        shard.stages.record(Stage::Received, received_ns, count);
    }

    /// The messages that were appended since then have come so far when the last step ended.
    pub(super) fn note_appended(&mut self, before: u64) {
        let Parts { io, shard, .. } = &mut self.parts;
        let ns = self.stalls.last_ns().saturating_sub(io.now_ns());
        let count = shard.counters.produced - before;
        shard.stages.record(Stage::Appended, ns, count);
    }

    /// Answers how many requests were in it.
    fn receive(&mut self, key: Key, lease: Lease) -> u64 {
        let Parts { net, .. } = &mut self.parts;
        let (Some(mut frames), Some(address)) = (net.frames(key, lease), net.peer(key)) else {
            return 0;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut count = 0;
        let broken = loop {
            match self.take_frame((key, address), &mut frames, &mut scratch) {
                Ok(true) => count += 1,
                Ok(false) => break None,
                Err(why) => break Some(why),
            }
        };
        self.scratch = scratch;
        match broken {
            Some(why) => self.break_off(key, &why),
            None => {
                let Parts { io, net, .. } = &mut self.parts;
                net.keep(io, key, &mut frames, &mut self.events);
                net.hold_back(io, key);
            }
        }
        self.sends.put_piece((key, address), frames);
        count
    }

    /// Answers whether there was another frame. A send waits until all of this turn are there.
    fn take_frame(
        &mut self,
        from: (Key, SocketAddr),
        frames: &mut Frames,
        scratch: &mut Scratch,
    ) -> Result<bool, String> {
        let Some(frame) = frames.next_frame()? else {
            return Ok(false);
        };
        let mut mark = rocketmq::peek_queue_mark(frame.bytes, scratch);
        if mark.is_none() {
            let request = frame::decode(frame.bytes, scratch).map_err(|error| error.to_string())?;
            mark = rocketmq::queue_mark(&request);
            if mark.is_none() {
                self.time_decoding();
                self.serve(from, &request, frame.bytes, frame.held);
            }
        }
        if let Some(mark) = mark {
            let size = frame.bytes.len();
            self.sends.push(mark, frames.set_aside(), size);
        }
        Ok(true)
    }

    /// The header of a request is understood; of some it is noted when.
    pub(super) fn time_decoding(&mut self) {
        if std::mem::take(&mut self.times_decoding) {
            let Parts { io, shard, .. } = &mut self.parts;
            let took_ns = io.look_ns().saturating_sub(io.now_ns());
            shard.stages.record(Stage::Decoded, took_ns, 1);
        }
    }

    pub(super) fn break_off(&mut self, key: Key, why: &str) {
        let Parts { io, net, .. } = &mut self.parts;
        net.break_off(io, key, why, &mut self.events);
    }

    /// A request that had to wait.
    fn execute(&mut self, waiting: &Waiting) {
        let mut scratch = std::mem::take(&mut self.scratch);
        // It could be decoded before.
        if let Ok(request) = frame::decode(&waiting.bytes, &mut scratch) {
            self.serve(waiting.from, &request, &waiting.bytes, None);
        }
        self.scratch = scratch;
    }

    /// One request: executed, answered now or later. `whole` is the memory of its frame, where that may be held
    /// on to.
    pub(super) fn serve(
        &mut self,
        from: (Key, SocketAddr),
        request: &Request<'_>,
        bytes: &[u8],
        whole: Option<&Arc<Vec<u8>>>,
    ) {
        if request.is_response() {
            return;
        }
        self.last_code = request.code;
        let (key, address) = from;
        let is_send = rocketmq::is_send(request.code);
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
        let waiting = || Waiting {
            from,
            bytes: bytes.to_vec(),
            is_send,
        };
        // A small one may find room where a large one waits for it: it would come before what was sent before it.
        if is_send && self.waiting.contains_key(&Condition::Room) {
            return self.wait(Condition::Room, ticket, waiting());
        }
        let command = rocketmq::command(request);
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
            Reply::Again(condition) => self.wait(condition, ticket, waiting()),
        }
    }

    /// The shard is asked for times that it does not measure itself.
    fn tell_times(&mut self) {
        let Parts { net, shard, .. } = &mut self.parts;
        shard.stages.sent = net.sent_times();
        shard.stalls = self.stalls.all();
    }

    fn wait(&mut self, condition: Condition, ticket: Ticket, waiting: Waiting) {
        if WAITING_SIZE_MAX < self.waiting_size + waiting.bytes.len() {
            let text = "[TIMEOUT_CLEAN_QUEUE]broker busy, requests wait for room in the log; \
                        send it again later";
            let refusal = Refusal::new(RefusalKind::SystemBusy, text);
            return self.answer(ticket, &Answer::Refused(refusal));
        }
        self.waiting_size += waiting.bytes.len();
        self.waiting.entry(condition).or_default().push(waiting);
    }

    /// A client has gone: what of it waits is dropped, but for what it has sent.
    pub(super) fn forget_waiting(&mut self, key: Key) {
        for list in self.waiting.values_mut() {
            list.retain(|waiting| {
                let stays = waiting.from.0 != key || waiting.is_send;
                if !stays {
                    self.waiting_size -= waiting.bytes.len();
                }
                stays
            });
        }
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
            let is_for_room = condition == Condition::Room;
            let (mut size, mut found_none) = (0, false);
            for waiting in list {
                // What waits for room may be much; what comes later waits behind it.
                if is_for_room && (found_none || ROOM_SIZE_MAX <= size) {
                    self.waiting.entry(condition).or_default().push(waiting);
                    continue;
                }
                size += REQUEST_SIZE + waiting.bytes.len();
                self.waiting_size -= waiting.bytes.len();
                self.execute(&waiting);
                found_none = self.waiting.contains_key(&Condition::Room);
            }
            // There is room still. Where there was none, who waits is not asked again before there is.
            if is_for_room && !found_none && self.waiting.contains_key(&condition) {
                self.parts.shard.meet(condition);
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

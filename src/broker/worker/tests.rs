//! A whole shard on the simulated kernel: what has come together is there in one turn, and time passes as it is told to.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use super::super::open::tests::opened;
use super::super::start::frame_size;
use super::*;
use crate::base::QueueId;
use crate::config::Retention;
use crate::egress::Policy;
use crate::io::ListenerId;
use crate::net::Limits;
use crate::protocol::rocketmq::frame::{decode, encode_request};
use crate::shard::plain_topic;
use crate::sim::{Faults, PeerId, Sim};

const SECOND_NS: u64 = 1_000_000_000;

struct Desk {
    worker: Worker<Sim>,
    _reports: Receiver<Report>,
}

impl Desk {
    /// A shard with these topics.
    fn new(topics: &[(&str, u32)]) -> Self {
        let mut io = Sim::with_faults(1, Faults::none());
        let root = Path::new("/store");
        let (mut shard, loaded, checkpoint) = opened(&mut io, root);
        for (name, queue_count) in topics {
            shard.topics.put(plain_topic(name, *queue_count, 6), 1);
        }
        let mut net = Net::new(Limits::for_connections(100), frame_size);
        net.listen(&mut io, ListenerId(0));
        let rules = Retention {
            reserved_hours: 72,
            delete_hours: vec![4],
            delete_from_percent: 75,
            force_from_percent: 85,
            force: true,
            refuse_from_percent: 90,
        };
        let (reports, inbox) = channel();
        let worker = Worker::new(Parts {
            io,
            id: ShardId(0),
            net,
            egress: Egress::new(Policy::Auto, 1),
            shard,
            saving: Saving::new(root.join("config"), loaded),
            checkpoint,
            keeper: Keeper::new(rules, PathBuf::from(root)),
            mailbox: Mailbox::default(),
            mailboxes: vec![Mailbox::default()],
            registrar: None,
            reports,
            abort: root.join("abort"),
        });
        Self {
            worker,
            _reports: inbox,
        }
    }

    fn now_ns(&self) -> u64 {
        self.worker.parts.io.now_ns()
    }

    fn turn(&mut self) {
        self.worker.turn();
        assert!(!self.worker.failed);
    }

    /// As many turns as it takes.
    fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let end_ns = self.now_ns() + 60 * SECOND_NS;
        while !holds(self) {
            assert!(self.now_ns() < end_ns, "{what}: not within a minute");
            self.turn();
        }
    }

    fn turn_for(&mut self, ns: u64) {
        let end_ns = self.now_ns() + ns;
        while self.now_ns() < end_ns {
            self.turn();
        }
    }

    fn connect(&mut self) -> PeerId {
        self.worker.parts.io.connect(ListenerId(0))
    }

    fn is_closed(&self, peer: PeerId) -> bool {
        self.worker.parts.io.is_closed(peer)
    }

    /// It is there in one piece.
    fn send(&mut self, peer: PeerId, bytes: &[u8]) {
        self.worker.parts.io.peer_sends(peer, bytes);
    }

    /// Codes of the answers that have come since this was last asked.
    fn answers(&mut self, peer: PeerId) -> Vec<i32> {
        let bytes = self.worker.parts.io.peer_takes(peer);
        let mut rest = bytes.as_slice();
        let mut scratch = Scratch::default();
        let mut codes = Vec::new();
        while let Ok(Some(size)) = frame_size(rest) {
            let (frame, others) = rest.split_at(size);
            codes.push(decode(frame, &mut scratch).expect("an answer").code);
            rest = others;
        }
        assert!(rest.is_empty(), "whole answers");
        codes
    }

    /// How many messages a queue has.
    fn count(&self, topic: &str, queue_id: u32) -> u64 {
        let queues = &self.worker.parts.shard.queues;
        let found = queues.find(topic, QueueId(queue_id));
        found.map_or(0, |index| queues.queue(index).max())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.worker.parts.io.kill();
    }
}

fn request(code: i32, opaque: i32, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_request(
        &mut frame,
        HeaderKind::Json,
        code,
        opaque,
        false,
        fields,
        body,
    );
    frame
}

fn produce(queue_id: u32, properties: &str) -> Vec<u8> {
    let queue_id = queue_id.to_string();
    let fields = [
        ("a", "PG"),
        ("b", "T"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", &queue_id),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    request(310, 1, &fields, b"body")
}

/// Its queue can be told at a first look, its header cannot be read.
fn malformed(queue_id: u32) -> Vec<u8> {
    let mut frame = produce(queue_id, "");
    let last = frame.len() - b"body".len() - 1;
    assert_eq!(frame[last], b'}');
    frame[last] = b'!';
    assert!(rocketmq::peek_queue_mark(&frame, &mut Scratch::default()).is_some());
    frame
}

fn orders(items: &[u32]) -> Vec<Vec<u32>> {
    let Some((first, rest)) = items.split_first() else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for order in orders(rest) {
        for at in 0..=order.len() {
            let mut order = order.clone();
            order.insert(at, *first);
            all.push(order);
        }
    }
    all
}

/// Sends of a turn are executed in the order of their queues: also then those in front of one that is no request are
/// executed, each once, and none behind it in its queue is.
#[test]
fn what_stands_in_front_of_a_malformed_send_is_stored_once() {
    let mut desk = Desk::new(&[("T", 4)]);
    for order in orders(&[0, 1, 2, 3]) {
        for at in 0..order.len() {
            let before: Vec<u64> = (0..4).map(|queue_id| desk.count("T", queue_id)).collect();
            let (front, bad) = (&order[..at], order[at]);
            let mut bytes = Vec::new();
            bytes.extend(front.iter().flat_map(|queue_id| produce(*queue_id, "")));
            bytes.extend(malformed(bad));
            // Another one behind it, and more of its own queue.
            bytes.extend(
                order[at + 1..]
                    .iter()
                    .flat_map(|queue_id| malformed(*queue_id)),
            );
            bytes.extend(produce(bad, ""));
            let peer = desk.connect();
            desk.send(peer, &bytes);
            desk.turn_until("it is closed", |desk| desk.is_closed(peer));
            desk.turn_for(SECOND_NS / 10);
            for queue_id in 0..4 {
                let added = desk.count("T", queue_id) - before[queue_id as usize];
                let expected = u64::from(front.contains(&queue_id));
                assert_eq!(
                    added, expected,
                    "queue {queue_id}, {order:?}, malformed {at}"
                );
            }
        }
    }
}

const PULLS: usize = 1_000;
const TURN_MAX: usize = 256;

/// A pull of the one queue that waits for 20 s.
fn pull(opaque: usize, tag: &str) -> Vec<u8> {
    let fields = [
        ("consumerGroup", "readers"),
        ("topic", "T"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "1"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "20000"),
        ("subscription", tag),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    request(11, opaque as i32, &fields, &[])
}

impl Desk {
    /// Pulls of one client that wait.
    fn with_pulls(tag: &str) -> (Self, PeerId) {
        let mut desk = Self::new(&[("T", 1)]);
        let reader = desk.connect();
        let pulls: Vec<u8> = (0..PULLS).flat_map(|opaque| pull(opaque, tag)).collect();
        desk.send(reader, &pulls);
        desk.turn_until("all wait", |desk| desk.parked_count() == PULLS);
        (desk, reader)
    }

    fn parked_count(&self) -> usize {
        self.worker.parts.shard.parked_count()
    }

    /// From the first that is answered on all are, within a second, and not too many in a turn. Answers their codes.
    fn all_are_answered(&mut self, reader: PeerId) -> Vec<i32> {
        self.turn_until("the first is answered", |desk| desk.parked_count() < PULLS);
        let first = PULLS - self.parked_count();
        assert!(first <= TURN_MAX, "{first} of one turn");
        let since_ns = self.now_ns();
        while self.parked_count() != 0 {
            let before = self.parked_count();
            self.turn();
            let answered = before - self.parked_count();
            assert!(answered <= TURN_MAX, "{answered} of one turn");
            let ns = self.now_ns() - since_ns;
            assert!(ns < SECOND_NS, "{before} wait after {ns} ns");
        }
        let mut codes = Vec::new();
        self.turn_until("all have their answers", |desk| {
            codes.extend(desk.answers(reader));
            codes.len() == PULLS
        });
        codes
    }
}

/// A pull that is not woken is looked at again after five seconds; this must not be what answers them.
#[test]
fn a_message_wakes_all_pulls_and_a_turn_answers_some_of_them() {
    let (mut desk, reader) = Desk::with_pulls("*");
    let producer = desk.connect();
    desk.send(producer, &produce(0, ""));
    let codes = desk.all_are_answered(reader);
    assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
}

#[test]
fn pulls_of_a_queue_whose_time_is_up_together_are_told_so_in_several_turns() {
    let (mut desk, reader) = Desk::with_pulls("*");
    let codes = desk.all_are_answered(reader);
    assert!(codes.iter().all(|code| *code == 19), "{codes:?}");
}

#[test]
fn pulls_that_want_nothing_of_what_came_move_on_in_several_turns() {
    let (mut desk, reader) = Desk::with_pulls("another");
    let producer = desk.connect();
    desk.send(producer, &produce(0, ""));
    let codes = desk.all_are_answered(reader);
    assert!(codes.iter().all(|code| *code == 20), "{codes:?}");
}

#[test]
fn a_delayed_message_that_was_read_in_part_is_read_again() {
    let mut desk = Desk::new(&[("T", 1)]);
    let producer = desk.connect();
    // The first level is one second.
    desk.send(producer, &produce(0, "DELAY\u{1}1\u{2}"));
    desk.turn_until("it waits", |desk| desk.count("SCHEDULE_TOPIC_XXXX", 0) == 1);
    let short = Faults {
        short: 1_000,
        ..Faults::none()
    };
    desk.worker.parts.io.set_faults(short);
    desk.turn_for(3 * SECOND_NS);
    assert_eq!(
        desk.worker.parts.shard.delay.all(),
        [],
        "nothing is passed over"
    );
    assert_eq!(desk.count("T", 0), 0);
    desk.worker.parts.io.set_faults(Faults::none());
    desk.turn_until("it is delivered", |desk| desk.count("T", 0) == 1);
    desk.turn_for(SECOND_NS);
    assert_eq!(desk.count("T", 0), 1, "once");
    assert_eq!(desk.worker.parts.shard.delay.all(), [(1, 1)]);
}

#[test]
fn a_shard_ends_when_its_indexes_cannot_be_made_durable() {
    let mut desk = Desk::new(&[("T", 1)]);
    let producer = desk.connect();
    desk.send(producer, &produce(0, ""));
    // The log is durable by now, and the checkpoint not due.
    desk.turn_for(3 * SECOND_NS);
    assert_eq!(desk.count("T", 0), 1);
    desk.worker.parts.io.set_faults(Faults {
        sync_error: 1000,
        ..Faults::none()
    });
    let end_ns = desk.now_ns() + 10 * SECOND_NS;
    while !desk.worker.failed {
        assert!(desk.now_ns() < end_ns, "it goes on as if nothing were");
        desk.worker.turn();
    }
    assert!(desk.worker.parts.shard.log.failed().is_none());
}

#[test]
fn the_stages_of_a_shard_tell_of_the_same_ten_seconds() {
    const BURST: usize = 5;
    let mut desk = Desk::new(&[("T", 1)]);
    let producer = desk.connect();
    let mut told = 0;
    for tick in 0..220 {
        let before = desk.worker.period_tick;
        desk.turn_until("a tick", |desk| desk.worker.period_tick != before);
        if tick % 7 == 0 {
            let burst = vec![produce(0, ""); BURST].concat();
            desk.send(producer, &burst);
            let mut answers = 0;
            desk.turn_until("all are stored", |desk| {
                answers += desk.answers(producer).len();
                answers == BURST
            });
        }
        let stages = desk.worker.parts.shard.stages.all();
        let of_messages =
            stages.filter(|(name, _)| ["appended", "written", "visible"].contains(name));
        let counts: Vec<_> = of_messages.map(|(_, [recent, _])| recent.count).collect();
        assert_eq!(counts, [counts[0]; 3], "at tick {tick}");
        told = told.max(counts[0]);
    }
    assert!(5 * BURST as u64 <= told, "of a whole period: {told}");
}

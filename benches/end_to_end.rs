//! What a client waits for on loopback: a send's answer, a pull's answer, a message's way to a consumer that
//! waits for it; by each way to flush. One request at a time, no client library.
//!
//! `cargo bench --bench end_to_end`; with `SMOKE=1` a few messages only, to see that it works.

mod common;
#[path = "../tests/kit/mod.rs"]
mod kit;

use std::io::{Read, Write};
use std::time::Instant;

use common::{Study, folder, smoke_passed, tiny_or};
use kit::{Broker, Client, bodies, fetch_fields, frame, produce_fields};
use serde_json::json;

/// What `--flush` says; a way to flush is a row here.
const FLUSHES: [&str; 3] = ["async", "sync", "none"];

const BODY: [u8; 1024] = [b'e'; 1024];

const STEPS: [(&str, fn(&mut World) -> f64); 4] = [
    ("a send of 1 KiB", World::send),
    ("a pull of 1 message", World::pull_one),
    ("a pull of 32 messages", World::pull_many),
    ("a send until a waiting pull is answered", World::through),
];

fn main() {
    let folder = folder();
    let mut worlds: Vec<World> = FLUSHES
        .iter()
        .map(|flush| World::start(&folder.path().join(flush), flush))
        .collect();
    let rows = STEPS.map(|(name, _)| name);
    let study = Study::measure(&rows, &FLUSHES, |row, column| {
        let times = tiny_or(5, 1_000);
        let mut us: Vec<f64> = (0..times)
            .map(|_| STEPS[row].1(&mut worlds[column]) / 1e3)
            .collect();
        us.sort_by(f64::total_cmp);
        [us[times / 2], us[(times - 1) * 99 / 100]]
    });
    study.print_plain("end to end: µs, p50", "flush", 0);
    study.print_plain("end to end: µs, p99", "flush", 1);
    smoke_passed(
        "end_to_end",
        "sends and pulls are answered with what was sent",
    );
}

/// A broker with one queue, a producer, a consumer.
struct World {
    broker: Broker,
    producer: Client,
    consumer: Client,
    sent: i64,
    /// What was received last.
    received: Vec<u8>,
}

impl World {
    fn start(folder: &std::path::Path, flush: &str) -> Self {
        std::fs::create_dir_all(folder).expect("target/ can be written to");
        let broker = Broker::start(folder, &["--flush", flush]);
        let (mut producer, consumer) = (broker.client(), broker.client());
        producer.make_topic("end-to-end", 1);
        let mut world = Self {
            broker,
            producer,
            consumer,
            sent: 0,
            received: Vec::new(),
        };
        for _ in 0..32 {
            world.send();
        }
        world
    }

    fn send(&mut self) -> f64 {
        let request = frame(310, 1, &produce_fields("end-to-end", 0, ""), &BODY);
        let start = Instant::now();
        self.producer
            .stream
            .write_all(&request)
            .expect("the broker reads");
        receive(&mut self.producer, &mut self.received);
        let ns = start.elapsed().as_nanos() as f64;
        check_good(&self.received);
        self.sent += 1;
        ns
    }

    fn pull_one(&mut self) -> f64 {
        self.pull(1)
    }

    fn pull_many(&mut self) -> f64 {
        self.pull(32)
    }

    fn pull(&mut self, count: i64) -> f64 {
        let fields = fetch_fields("end-to-end", 0, self.sent - 32, count);
        let request = frame(11, 1, &fields, &[]);
        let start = Instant::now();
        self.consumer
            .stream
            .write_all(&request)
            .expect("the broker reads");
        receive(&mut self.consumer, &mut self.received);
        let ns = start.elapsed().as_nanos() as f64;
        check_bodies(&self.received, count as usize);
        ns
    }

    /// The pull waits before the message is sent; both answers are taken.
    fn through(&mut self) -> f64 {
        let mut fields = fetch_fields("end-to-end", 0, self.sent, 32);
        fields["sysFlag"] = json!("6");
        fields["suspendTimeoutMillis"] = json!("15000");
        let request = frame(11, 1, &fields, &[]);
        self.consumer
            .stream
            .write_all(&request)
            .expect("the broker reads");
        // Behind this answer the pull is parked: a connection's requests are taken in order.
        self.consumer
            .send(30, &json!({"topic": "end-to-end", "queueId": "0"}), &[]);
        self.consumer.receive().expect("an answer");
        let request = frame(310, 1, &produce_fields("end-to-end", 0, ""), &BODY);
        let start = Instant::now();
        self.producer
            .stream
            .write_all(&request)
            .expect("the broker reads");
        receive(&mut self.consumer, &mut self.received);
        let ns = start.elapsed().as_nanos() as f64;
        check_bodies(&self.received, 1);
        receive(&mut self.producer, &mut self.received);
        check_good(&self.received);
        self.sent += 1;
        ns
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.broker.kill();
    }
}

/// One frame, as it comes.
fn receive(client: &mut Client, into: &mut Vec<u8>) {
    into.resize(256 << 10, 0);
    let mut end = 0;
    loop {
        let count = client.stream.read(&mut into[end..]).expect("an answer");
        assert!(0 < count, "the broker closed the connection");
        end += count;
        if 4 <= end && 4 + number(&into[..4]) <= end {
            into.truncate(4 + number(&into[..4]));
            return;
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes(bytes.try_into().expect("four bytes")) as usize
}

fn check_good(frame: &[u8]) {
    let good = b"\"code\":0,";
    let found = frame.windows(good.len()).any(|window| window == good);
    assert!(found, "not done: {}", String::from_utf8_lossy(frame));
}

fn check_bodies(frame: &[u8], count: usize) {
    check_good(frame);
    // The first byte of the length says how the header is written.
    let header = number(&frame[4..8]) & 0x00ff_ffff;
    let bodies = bodies(&frame[8 + header..]);
    assert_eq!(bodies.len(), count, "messages of a pull");
    assert!(
        bodies.iter().all(|body| body == &BODY),
        "the bodies that were sent"
    );
}

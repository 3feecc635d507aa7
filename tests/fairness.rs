//! One peer that sends more than its share is served whole, in order, and starves nobody.

mod kit;

use std::io::Write;

use kit::{Broker, Client, frame, produce_fields};
use serde_json::json;

const COUNT: i64 = 6_000;

/// Many requests of one peer, all on their way before the first answer is read: several times what a turn
/// executes for one peer (512 KiB), and what its buffers hold (4 MiB).
fn flood(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), arguments);
    let mut other = broker.client();
    other.make_topic("flood", 1);
    let mut flooding = broker.client();
    let mut writing = flooding.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let fields = produce_fields("flood", 0, "");
        let body = vec![7; 2_000];
        for opaque in 1..=COUNT {
            let bytes = frame(310, opaque, &fields, &body);
            writing.write_all(&bytes).unwrap();
        }
    });
    let mut served = 0;
    for index in 0..COUNT {
        let (opaque, answer) = flooding.receive().unwrap();
        assert_eq!((opaque, answer.code), (index + 1, 0), "{}", answer.remark);
        assert_eq!(answer.number("queueOffset"), index);
        if index % 500 == 0 {
            served += ping(&mut other);
        }
    }
    assert_eq!(served, 12);
    writer.join().unwrap();
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

/// What a peer sent before it went is executed, held back or not.
fn leave(arguments: &[&str], flag: &str) {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), arguments);
    let mut other = broker.client();
    other.make_topic("flood", 1);
    let leaving = broker.client();
    let fields = produce_fields("flood", 0, "");
    let bytes: Vec<u8> = (1..=1_500)
        .flat_map(|opaque| frame(310, opaque, &fields, &[7; 2_000]))
        .collect();
    let bytes = with_flag(bytes, flag);
    (&leaving.stream).write_all(&bytes).unwrap();
    leaving.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let fields = json!({"topic": "flood", "queueId": "0"});
    let stored = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        other.call(30, &fields, &[]).number("offset") == 1_500
    });
    assert!(stored, "{}", broker.log());
}

fn with_flag(mut frames: Vec<u8>, flag: &str) -> Vec<u8> {
    let plain = br#""flag":0"#;
    for at in 0..frames.len() - plain.len() {
        if frames[at..].starts_with(plain) {
            frames[at + plain.len() - 1] = flag.as_bytes()[0];
        }
    }
    frames
}

#[test]
fn who_leaves_is_heard_to_the_end() {
    leave(&[], "0");
    leave(&["--without", "multishot-receive"], "0");
}

/// Nothing is answered then, so that nothing but the next turn makes the broker read on.
#[test]
fn who_wants_no_answers_is_heard_to_the_end() {
    leave(&[], "2");
    leave(&["--without", "multishot-receive"], "2");
}

/// A request of somebody else meanwhile.
fn ping(client: &mut Client) -> usize {
    let fields = json!({"topic": "flood", "queueId": "0"});
    let answer = client.call(30, &fields, &[]);
    usize::from(answer.code == 0)
}

#[test]
fn who_sends_more_than_its_share_waits_and_loses_nothing() {
    flood(&[]);
}

#[test]
fn the_same_where_receives_are_armed_one_by_one() {
    flood(&["--without", "multishot-receive"]);
}

/// Small requests, so many that it is their time and not their bytes that is shared out; each is answered
/// with the place that the one before it made.
fn pepper(arguments: &[&str]) {
    const SMALL_COUNT: i64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), arguments);
    let mut other = broker.client();
    other.make_topic("flood", 1);
    let mut peppering = broker.client();
    let mut writing = peppering.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let place = json!({"topic": "flood", "queueId": "0"});
        for first in (1..=SMALL_COUNT).step_by(1_000) {
            let many = (first..first + 1_000).flat_map(|opaque| frame(30, opaque, &place, &[]));
            writing.write_all(&many.collect::<Vec<u8>>()).unwrap();
        }
    });
    let mut served = 0;
    for opaque in 1..=SMALL_COUNT {
        let (found, answer) = peppering.receive().unwrap();
        assert_eq!((found, answer.code), (opaque, 0), "{}", answer.remark);
        if opaque % 5_000 == 0 {
            served += ping(&mut other);
        }
    }
    assert_eq!(served, 12);
    writer.join().unwrap();
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

#[test]
fn many_small_requests_are_all_answered_in_order() {
    pepper(&[]);
    pepper(&["--without", "multishot-receive"]);
}

//! Sends that come together are stored in the order of their queues, and each queue keeps the order in which they came.

mod kit;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use kit::{Answer, Broker, Client, bodies, frame, produce_fields};

const QUEUES: i64 = 4;
const COUNT: i64 = 32;

/// Requests with one write, to all queues by turns.
fn send_all(client: &mut Client, first: i64) -> Vec<Answer> {
    let requests: Vec<u8> = (first..first + COUNT)
        .flat_map(|index| {
            let fields = produce_fields("T", index % QUEUES, "");
            frame(310, index, &fields, format!("body {index}").as_bytes())
        })
        .collect();
    client.stream.write_all(&requests).unwrap();
    let mut answers: Vec<_> = (0..COUNT).map(|_| client.receive().unwrap()).collect();
    answers.sort_by_key(|(opaque, _)| *opaque);
    let opaques: Vec<_> = answers.iter().map(|(opaque, _)| *opaque).collect();
    assert_eq!(opaques, (first..first + COUNT).collect::<Vec<_>>());
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn place(answer: &Answer) -> u64 {
    assert_eq!(answer.code, 0, "{}", answer.remark);
    u64::from_str_radix(&answer.field("msgId")[16..], 16).unwrap()
}

#[test]
fn records_of_a_queue_lie_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", QUEUES as u32);
    let mut fewest = usize::MAX;
    // What one write sends may be received in two turns.
    for round in 0..20 {
        let answers = send_all(&mut client, round * COUNT);
        let mut places: Vec<_> = answers
            .iter()
            .map(|answer| (place(answer), answer.number("queueId")))
            .collect();
        for queue in 0..QUEUES {
            let of_queue = answers.iter().skip(queue as usize).step_by(QUEUES as usize);
            for (answer, offset) in of_queue.zip(round * COUNT / QUEUES..) {
                assert_eq!(answer.number("queueId"), queue);
                assert_eq!(
                    answer.number("queueOffset"),
                    offset,
                    "queue {queue}, round {round}"
                );
            }
        }
        places.sort_unstable();
        let queues: Vec<_> = places.iter().map(|(_, queue)| queue).collect();
        let runs = queues.chunk_by(|one, next| one == next).count();
        fewest = fewest.min(runs);
    }
    assert_eq!(fewest, QUEUES as usize, "runs of records of one queue");
}

#[test]
fn what_comes_in_front_of_an_end_or_of_garbage_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", QUEUES as u32);
    let max = |client: &mut Client, topic: &str| {
        let fields = serde_json::json!({"topic": topic, "queueId": "2"});
        let answer = client.call(30, &fields, &[]);
        if answer.code == 0 {
            answer.number("offset")
        } else {
            0
        }
    };
    let garbage = [&b""[..], b"\0\0\0\x01garbage", b"\0\0\0\x08\0\0\0\x04none"];
    // The first two wait for a log with room, or for their topic to be made.
    for (topic, tail, expected) in [
        ("T", garbage[0], 3),
        ("made", garbage[0], 3),
        ("T", garbage[1], 6),
        ("T", garbage[2], 9),
    ] {
        let mut other = broker.client();
        let mut bytes = Vec::new();
        for opaque in 0..3 {
            bytes.extend(frame(310, opaque, &produce_fields(topic, 2, ""), b"body"));
        }
        bytes.extend(tail);
        other.stream.write_all(&bytes).unwrap();
        other.stream.shutdown(Shutdown::Write).unwrap();
        while other.receive().is_ok() {}
        // They are seen when they are written.
        let deadline = Instant::now() + Duration::from_secs(20);
        while max(&mut client, topic) != expected {
            assert!(
                Instant::now() < deadline,
                "in front of {tail:?}: {}",
                max(&mut client, topic)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Its queue can be told at a first look, its header cannot be read.
fn malformed(queue: i64) -> Vec<u8> {
    let mut bytes = frame(310, 9, &produce_fields("T", queue, ""), b"body");
    let header_end = 8 + u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
    assert_eq!(bytes[header_end - 1], b'}');
    bytes[header_end - 1] = b'!';
    bytes
}

/// Whichever queue it names, and so whenever its turn comes among them.
#[test]
fn what_comes_in_front_of_a_malformed_send_is_stored_once_and_nothing_of_its_queue_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", QUEUES as u32);
    // The log has room when these are answered.
    assert_eq!(client.produce("T", 0, b"first").code, 0);
    let mut expected = [1, 0, 0, 0];
    for bad in 0..QUEUES {
        let mut bytes = Vec::new();
        for queue in 0..QUEUES {
            let body = format!("{queue} in front of {bad}");
            bytes.extend(frame(
                310,
                queue,
                &produce_fields("T", queue, ""),
                body.as_bytes(),
            ));
        }
        bytes.extend(malformed(bad));
        bytes.extend(frame(310, 10, &produce_fields("T", bad, ""), b"behind"));
        let mut other = broker.client();
        other.stream.write_all(&bytes).unwrap();
        while other.receive().is_ok() {}
        // What was executed in that turn is written when this is.
        assert_eq!(client.produce("T", 0, b"next").code, 0);
        let fields = |queue: i64| serde_json::json!({"topic": "T", "queueId": queue.to_string()});
        let ends: Vec<i64> = (0..QUEUES)
            .map(|queue| client.call(30, &fields(queue), &[]).number("offset"))
            .collect();
        expected = expected.map(|end| end + 1);
        expected[0] += 1;
        assert_eq!(ends, expected, "malformed for queue {bad}");
    }
    let mut stored = Vec::new();
    for queue in 0..QUEUES {
        stored.extend(bodies(&client.fetch("T", queue, 0, 32).body));
    }
    assert!(!stored.contains(&b"behind".to_vec()));
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

/// A topic that a send makes takes a few milliseconds; the client closes at some time in between.
#[test]
fn a_send_that_waits_outlives_its_connection() {
    const TOPICS: u64 = 30;
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    for topic in 0..TOPICS {
        let mut client = broker.client();
        let fields = produce_fields(&format!("made-{topic}"), 0, "");
        client
            .stream
            .write_all(&frame(310, 1, &fields, b"body"))
            .unwrap();
        std::thread::sleep(Duration::from_micros(150 * topic));
    }
    let mut client = broker.client();
    for topic in 0..TOPICS {
        let topic = format!("made-{topic}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.fetch(&topic, 0, 0, 1).code != 0 {
            assert!(Instant::now() < deadline, "{topic} has no message");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A log whose room is made while it is waited for: a large message waits where a small one would still fit.
#[test]
fn a_small_send_does_not_pass_a_large_one_that_waits_for_room() {
    const COUNT: i64 = 120;
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", 1);
    let large = vec![7; 3 << 20];
    let fields = produce_fields("T", 0, "");
    let mut writing = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for opaque in 0..COUNT {
            let body = if opaque % 2 == 0 {
                &large[..]
            } else {
                b"small"
            };
            writing
                .write_all(&frame(310, opaque, &fields, body))
                .unwrap();
        }
    });
    let mut offsets = vec![None; COUNT as usize];
    for _ in 0..COUNT {
        let (opaque, answer) = client.receive().unwrap();
        assert_eq!(answer.code, 0, "{}", answer.remark);
        offsets[opaque as usize] = Some(answer.number("queueOffset"));
    }
    writer.join().unwrap();
    let expected: Vec<_> = (0..COUNT).map(Some).collect();
    assert_eq!(offsets, expected, "in the order in which they were sent");
}

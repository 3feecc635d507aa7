//! Bad input: one clear answer or one closed connection, and nobody else notices.

mod kit;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kit::{Broker, Client, fetch_fields, frame, produce_fields};
use serde_json::{Value, json};

/// The connection is closed by the broker, without an answer, in time.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut byte = [0];
    matches!(stream.read(&mut byte), Ok(0))
        || stream.take_error().is_ok_and(|error| error.is_some())
}

/// Somebody else's connection works as if nothing had happened.
fn others_go_on(other: &mut Client) {
    let answer = other.produce("good", 0, b"still here");
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn frames_that_are_none_close_their_connection_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &[]);
    let mut other = broker.client();
    other.make_topic("good", 1);
    let whole = frame(310, 1, &produce_fields("good", 0, ""), b"body");
    let header_size = u32::from_be_bytes(whole[4..8].try_into().unwrap());
    let patched = |at: usize, number: u32| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("length 0", patched(0, 0)),
        ("length 3", patched(0, 3)),
        ("16 MiB + 1", patched(0, (16 << 20) - 3)),
        ("length of 4 GiB", patched(0, u32::MAX)),
        (
            "header longer than the frame",
            patched(4, whole.len() as u32),
        ),
        (
            "unknown kind of header",
            patched(4, header_size | 0x0700_0000),
        ),
        ("header that is no JSON", {
            let mut bytes = whole.clone();
            bytes[8] = b'!';
            bytes
        }),
        ("header that is no UTF-8", {
            let mut bytes = whole.clone();
            bytes[12] = 0xff;
            bytes
        }),
        (
            "somebody who speaks HTTP",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        (
            "nested without end",
            frame_of("[".repeat(200_000).as_bytes()),
        ),
        ("a JSON bomb of fields", {
            let fields: Vec<String> = (0..5000).map(|n| format!("\"k{n}\":\"v\"")).collect();
            frame_of(format!("{{\"code\":310,\"extFields\":{{{}}}}}", fields.join(",")).as_bytes())
        }),
    ];
    for (what, bytes) in bad {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        let _ = stream.write_all(&bytes);
        assert!(is_closed(&mut stream), "{what}: {}", broker.log());
        others_go_on(&mut other);
    }
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

fn frame_of(header: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + header.len()) as u32).to_be_bytes().to_vec();
    bytes.extend((header.len() as u32).to_be_bytes());
    bytes.extend(header);
    bytes
}

#[test]
fn a_frame_cut_at_any_byte_is_waited_for_and_then_answered() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut other = broker.client();
    other.make_topic("good", 1);
    let whole = frame(
        310,
        7,
        &produce_fields("good", 0, "KEYS\u{1}k\u{2}"),
        b"body",
    );
    for cut in 1..whole.len() {
        // Half goes away with its connection …
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        drop(stream);
        if cut % 16 == 0 {
            // … or the rest comes later.
            let mut late = broker.client();
            late.stream.write_all(&whole[..cut]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            late.stream.write_all(&whole[cut..]).unwrap();
            assert_eq!(late.receive().unwrap().1.code, 0, "cut at {cut}");
        }
    }
    others_go_on(&mut other);
    let stored = other.fetch("good", 0, 0, 900);
    let late_count = (1..whole.len()).filter(|cut| cut % 16 == 0).count();
    assert_eq!(
        kit::bodies(&stored.body).len(),
        late_count + 1,
        "halves are never stored"
    );
}

/// A request, what is wrong with it, and the code that it must get.
fn refused(broker: &Broker, other: &mut Client, cases: Vec<(&str, i64, Value, Vec<u8>, &[i64])>) {
    for (what, code, fields, body, allowed) in cases {
        let mut client = broker.client();
        let answer = client.call(code, &fields, &body);
        assert!(allowed.contains(&answer.code), "{what}: {answer:?}");
        assert!(!answer.remark.is_empty(), "{what}: a refusal says why");
        others_go_on(other);
    }
}

#[test]
fn requests_that_make_no_sense_get_one_clear_answer() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut other = broker.client();
    other.make_topic("good", 1);
    other.produce("good", 0, b"one");
    let with = |mut fields: Value, name: &str, value: Value| {
        fields[name] = value;
        fields
    };
    let without = |mut fields: Value, name: &str| {
        fields.as_object_mut().unwrap().remove(name);
        fields
    };
    let produce = || produce_fields("good", 0, "");
    let fetch = || fetch_fields("good", 0, 0, 32);
    let body = || b"x".to_vec();
    let long = "t".repeat(128);
    let cases: Vec<(&str, i64, Value, Vec<u8>, &[i64])> = vec![
        ("unknown code", 9999, json!({}), vec![], &[3]),
        ("no topic", 310, without(produce(), "b"), body(), &[1]),
        (
            "queue id is no number",
            310,
            with(produce(), "e", json!("x")),
            body(),
            &[1],
        ),
        (
            "queue id out of range",
            310,
            with(produce(), "e", json!("77")),
            body(),
            &[29],
        ),
        (
            "topic climbs",
            310,
            with(produce(), "b", json!("../../etc")),
            body(),
            &[29],
        ),
        (
            "topic is empty",
            310,
            with(produce(), "b", json!("")),
            body(),
            &[1, 29],
        ),
        (
            "topic is too long",
            310,
            with(produce(), "b", json!(long)),
            body(),
            &[29, 13],
        ),
        (
            "topic with a slash",
            310,
            with(produce(), "b", json!("a/b")),
            body(),
            &[29],
        ),
        (
            "system topic",
            310,
            with(produce(), "b", json!("SCHEDULE_TOPIC_XXXX")),
            body(),
            &[16],
        ),
        ("no body", 310, produce(), vec![], &[1]),
        (
            "body too large",
            310,
            produce(),
            vec![b'x'; (4 << 20) + 1],
            &[13],
        ),
        (
            "batch that is none",
            320,
            with(produce(), "m", json!("true")),
            body(),
            &[13],
        ),
        (
            "properties too large",
            310,
            with(
                produce(),
                "i",
                json!(format!("k\u{1}{}\u{2}", "v".repeat(32_760))),
            ),
            body(),
            &[13],
        ),
        (
            "pull of nothing",
            11,
            without(fetch(), "topic"),
            vec![],
            &[1],
        ),
        (
            "pull of an unknown topic",
            11,
            with(fetch(), "topic", json!("nowhere")),
            vec![],
            &[17],
        ),
        (
            "pull of queue −1",
            11,
            with(fetch(), "queueId", json!("-1")),
            vec![],
            &[29],
        ),
        (
            "pull of queue 77",
            11,
            with(fetch(), "queueId", json!("77")),
            vec![],
            &[29],
        ),
        (
            "pull far ahead",
            11,
            with(fetch(), "queueOffset", json!(i64::MAX.to_string())),
            vec![],
            &[21],
        ),
        (
            "pull of a negative offset",
            11,
            with(fetch(), "queueOffset", json!("-5")),
            vec![],
            &[21],
        ),
        (
            "offset of an unknown group",
            15,
            json!({"consumerGroup": "nobody", "topic": "good", "queueId": "0", "commitOffset": "1"}),
            vec![],
            &[26],
        ),
        (
            "sent back from nowhere",
            36,
            json!({"group": "readers", "offset": "999999", "delayLevel": "0"}),
            vec![],
            &[1],
        ),
        (
            "members of nobody",
            38,
            json!({"consumerGroup": "nobody"}),
            vec![],
            &[1],
        ),
        (
            "heartbeat that is no JSON",
            34,
            json!({}),
            b"{".to_vec(),
            &[1],
        ),
        (
            "heartbeat nested without end",
            34,
            json!({}),
            "[".repeat(100_000).into_bytes(),
            &[1],
        ),
        (
            "lock that is no JSON",
            41,
            json!({}),
            b"\xff\xfe".to_vec(),
            &[1],
        ),
    ];
    refused(&broker, &mut other, cases);
}

#[test]
fn huge_counts_are_cut_to_what_is_reasonable() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("good", 1);
    for _ in 0..1200 {
        client.produce("good", 0, &[b'x'; 2000]);
    }
    let mut fields = fetch_fields("good", 0, 0, i64::from(i32::MAX));
    fields["maxMsgBytes"] = json!(i32::MAX.to_string());
    let answer = client.call(11, &fields, &[]);
    assert_eq!(answer.code, 0);
    let count = kit::bodies(&answer.body).len();
    assert!(
        (1..=1024).contains(&count),
        "{count} messages in one answer"
    );
    fields["maxMsgNums"] = json!("-3");
    assert_eq!(
        kit::bodies(&client.call(11, &fields, &[]).body).len(),
        1,
        "at least one"
    );
}

#[test]
fn silent_and_half_open_peers_cost_little() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut other = broker.client();
    other.make_topic("good", 1);
    others_go_on(&mut other);
    let before = resident_kib(&broker);
    let whole = frame(310, 1, &produce_fields("good", 0, ""), &[b'x'; 60_000]);
    let mut silent = Vec::new();
    for index in 0..400 {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        // A lying length claims 16 MiB, a few bytes come; others say nothing at all.
        if index % 2 == 0 {
            let mut lie = whole[..5000].to_vec();
            lie[..4].copy_from_slice(&((16u32 << 20) - 4).to_be_bytes());
            stream.write_all(&lie).unwrap();
        }
        silent.push(stream);
    }
    let started = Instant::now();
    others_go_on(&mut other);
    assert!(started.elapsed() < Duration::from_secs(5));
    let grown = resident_kib(&broker).saturating_sub(before);
    assert!(
        grown < 64 << 10,
        "400 silent peers took {grown} KiB of memory"
    );
}

#[test]
fn what_was_sent_just_before_the_end_counts() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut other = broker.client();
    other.make_topic("good", 1);
    for round in 1..=50 {
        // Some libraries commit their offsets and close without waiting for anything.
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        let fields = json!({"consumerGroup": "TOOLS_CONSUMER", "topic": "good", "queueId": "0",
                            "commitOffset": round.to_string()});
        stream.write_all(&frame(15, 1, &fields, &[])).unwrap();
        drop(stream);
        let asked = json!({"consumerGroup": "TOOLS_CONSUMER", "topic": "good", "queueId": "0"});
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let answer = other.call(14, &asked, &[]);
            if answer.code == 0 && answer.number("offset") == round {
                break;
            }
            assert!(Instant::now() < end, "commit {round} was lost: {answer:?}");
        }
    }
}

/// A client that leaves with answers unread resets its connection: the broker's next send fails. What the client
/// said before that counts all the same.
#[test]
fn what_was_sent_before_a_reset_counts() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut other = broker.client();
    other.make_topic("good", 1);
    // A group is made by its first pull.
    let fetch = fetch_fields("good", 0, 0, 1);
    let group = fetch["consumerGroup"].as_str().unwrap();
    other.call(11, &fetch, &[]);
    for round in 1..=40 {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        let commit = json!({"consumerGroup": group, "topic": "good", "queueId": "0", "commitOffset": round.to_string()});
        // In one piece: what the client's kernel has not yet sent when it resets is never sent.
        let mut bytes: Vec<u8> = (0..50)
            .flat_map(|opaque| frame(28, opaque, &json!({}), &[]))
            .collect();
        bytes.extend(frame(15, 99, &commit, &[]));
        stream.write_all(&bytes).unwrap();
        drop(stream);
        let question = json!({"consumerGroup": group, "topic": "good", "queueId": "0"});
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let answer = other.call(14, &question, &[]);
            if answer.code == 0 && answer.number("offset") == round {
                break;
            }
            assert!(Instant::now() < until, "round {round}: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

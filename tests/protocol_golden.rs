//! What stock clients and Apache's broker said to each other is read, and written back to equal fields.

use std::collections::BTreeMap;

use base64::Engine;
use corelane::base::Prng;
use corelane::command::{Command, ConsumeFrom};
use corelane::protocol::rocketmq::{
    HeaderKind, Scratch, command, decode, encode_request, frame_size,
};

#[derive(serde::Deserialize)]
struct Recorded {
    of: String,
    from: String,
    kind: String,
    code: i32,
    opaque: i32,
    flag: i32,
    fields: BTreeMap<String, String>,
    body_len: usize,
    frame: String,
}

/// `GOLDEN_FRAMES` names another file of the same form.
fn recorded() -> Vec<(Recorded, Vec<u8>)> {
    let path = std::env::var("GOLDEN_FRAMES").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/frames.jsonl").to_owned()
    });
    let text = std::fs::read_to_string(&path).expect(&path);
    let all: Vec<_> = text
        .lines()
        .map(|line| {
            let recorded: Recorded = serde_json::from_str(line).expect("a line of frames.jsonl");
            let frame = base64::engine::general_purpose::STANDARD
                .decode(&recorded.frame)
                .expect("base64");
            (recorded, frame)
        })
        .collect();
    assert!(200 < all.len(), "only {} frames in {path}", all.len());
    all
}

#[test]
fn recorded_frames_are_read_and_written_back() {
    let mut scratch = Scratch::default();
    let mut again = Scratch::default();
    for (recorded, frame) in recorded() {
        let name = format!("{} {} {}", recorded.of, recorded.from, recorded.code);
        assert_eq!(frame_size(&frame), Ok(Some(frame.len())), "{name}");
        let request = decode(&frame, &mut scratch).expect(&name);
        let kind = if recorded.kind == "JSON" {
            HeaderKind::Json
        } else {
            HeaderKind::Binary
        };
        assert_eq!(request.kind, kind, "{name}");
        assert_eq!(request.code, recorded.code, "{name}");
        assert_eq!(request.opaque, recorded.opaque, "{name}");
        assert_eq!(request.flag, recorded.flag, "{name}");
        assert_eq!(request.body.len(), recorded.body_len, "{name}");
        let known = ["JAVA", "CPP", "GO", "RUST"];
        assert!(
            known.contains(&request.language),
            "{name}: {}",
            request.language
        );
        let fields: BTreeMap<_, _> = request.fields().collect();
        let expected: BTreeMap<_, _> = recorded
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(fields, expected, "{name}");

        for kind in [HeaderKind::Json, HeaderKind::Binary] {
            let lent: Vec<_> = request.fields().collect();
            let mut out = Vec::new();
            let oneway = request.is_oneway();
            encode_request(
                &mut out,
                kind,
                request.code,
                request.opaque,
                oneway,
                &lent,
                request.body,
            );
            let other = decode(&out, &mut again).expect(&name);
            assert_eq!(other.code, request.code, "{name}");
            assert_eq!(other.opaque, request.opaque, "{name}");
            assert_eq!(other.body, request.body, "{name}");
            let mut expected = fields.clone();
            if kind == HeaderKind::Binary {
                expected.retain(|_, value| !value.is_empty());
            }
            assert_eq!(
                other.fields().collect::<BTreeMap<_, _>>(),
                expected,
                "{name}"
            );
        }
    }
}

#[test]
fn recorded_requests_are_commands() {
    const UNDERSTOOD: [i32; 46] = [
        10, 11, 12, 14, 15, 17, 18, 21, 25, 26, 28, 29, 30, 31, 32, 33, 34, 35, 36, 38, 41, 42, 43,
        45, 46, 200, 201, 202, 203, 204, 207, 208, 215, 222, 225, 300, 303, 305, 310, 315, 320,
        321, 328, 343, 351, 361,
    ];
    let mut scratch = Scratch::default();
    let mut understood = BTreeMap::<i32, usize>::new();
    for (recorded, frame) in recorded() {
        if recorded.from != "client" || recorded.flag & 1 != 0 {
            continue;
        }
        let name = format!("{} {}", recorded.of, recorded.code);
        let request = decode(&frame, &mut scratch).expect(&name);
        let outcome = command(&request);
        if !UNDERSTOOD.contains(&recorded.code) {
            let text = outcome.expect_err(&name).text;
            let expected = format!(" request type {} not supported", recorded.code);
            assert_eq!(text, expected, "{name}");
            continue;
        }
        // A send that lacks everything: Apache answers with an exception, we with a sentence.
        if recorded.of.contains("errors")
            && request.fields().next().is_none()
            && recorded.code == 310
        {
            assert_eq!(
                outcome.expect_err(&name).text,
                "request 310 has no field `a`: send one (the producerGroup)"
            );
            continue;
        }
        let command = outcome.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        *understood.entry(recorded.code).or_default() += 1;
        match command {
            Command::Produce(produce) => {
                assert!(!produce.default_topic.is_empty(), "{name}");
                assert_eq!(produce.body.len(), recorded.body_len, "{name}");
                let batch = recorded.code == 320 || request.field("batch") == Some("1");
                assert_eq!(produce.batch, batch, "{name}");
            }
            Command::Fetch(fetch) => {
                assert_eq!(fetch.lite, recorded.code == 361, "{name}");
                let sys_flag: i32 = request.field("sysFlag").unwrap().parse().unwrap();
                assert_eq!(fetch.suspend_ms.is_some(), sys_flag & 2 != 0, "{name}");
                assert_eq!(fetch.commit.is_some(), sys_flag & 1 != 0, "{name}");
                assert_eq!(fetch.subscription.is_some(), sys_flag & 4 != 0, "{name}");
            }
            Command::Heartbeat(heartbeat) => {
                assert!(!heartbeat.client_id.is_empty(), "{name}");
                let groups = heartbeat.producers.len() + heartbeat.consumers.len();
                assert!(0 < groups, "{name}: {heartbeat:?}");
                for consumer in &heartbeat.consumers {
                    let from = [ConsumeFrom::FirstOffset, ConsumeFrom::LastOffset];
                    assert!(from.contains(&consumer.consume_from), "{name}");
                    for subscription in &consumer.subscriptions {
                        assert!(!subscription.topic.is_empty(), "{name}");
                        assert!(!subscription.expression.is_empty(), "{name}");
                    }
                }
            }
            Command::Lock { queues, .. } | Command::Unlock { queues, .. } => {
                assert!(!queues.is_empty(), "{name}");
            }
            _ => {}
        }
    }
    assert!(30 < understood.len(), "{understood:?}");
}

#[test]
fn recorded_frames_with_wrong_bytes_harm_nobody() {
    let seed = 7;
    let mut prng = Prng::from_seed(seed);
    let mut scratch = Scratch::default();
    let (mut commands, mut refusals, mut errors) = (0, 0, 0);
    for (_, frame) in recorded() {
        for _ in 0..100 {
            let mut wrong = frame.clone();
            for _ in 0..=prng.below(3) {
                // Behind the lengths: those have tests of their own.
                let at = 8 + prng.below(wrong.len() as u64 - 8) as usize;
                wrong[at] = match prng.below(3) {
                    0 => prng.next_u64() as u8,
                    1 => wrong[at] ^ 1 << prng.below(8),
                    _ => b"\"\\{}[],:0-"[prng.below(10) as usize],
                };
            }
            match decode(&wrong, &mut scratch) {
                Ok(request) => match command(&request) {
                    Ok(_) => commands += 1,
                    Err(_) => refusals += 1,
                },
                Err(_) => errors += 1,
            }
        }
    }
    let did = format!("seed {seed}: {commands} commands, {refusals} refusals, {errors} errors");
    assert!(
        1_000 < commands && 1_000 < refusals && 1_000 < errors,
        "{did}"
    );
}

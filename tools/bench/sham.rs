//! A broker in memory that can be told to do wrong: proof that the generator notices. Tests only.

use crate::Load;
use crate::wire;
use clap::Parser;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to message number `WRONG_AT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    Nothing,
    /// Acknowledged and not stored.
    Lose,
    /// Acknowledged and not stored, it and all that follow.
    LoseRest,
    /// Stored twice.
    Repeat,
    /// Stored before the one that came before it on its stream.
    Swap,
    /// One bit of its body is another.
    Flip,
    /// Stored and never answered.
    Silence,
    /// Answered twice.
    Echo,
    /// Refused with code 2, not stored.
    Refuse,
    /// Offsets leave one out.
    Jump,
}

/// Behind the messages that all slots send at first, so that each stream has one before it.
const WRONG_AT: usize = 500;

/// Queue offset and body.
type Stored = (u64, Vec<u8>);

#[derive(Default)]
struct Store {
    /// By topic and queue.
    queues: HashMap<(String, String), Vec<Stored>>,
    taken: usize,
}

fn record(queue: u32, offset: u64, body: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 88];
    record[4..8].copy_from_slice(&0xDAA3_20A7_u32.to_be_bytes());
    record[12..16].copy_from_slice(&queue.to_be_bytes());
    record[20..28].copy_from_slice(&offset.to_be_bytes());
    record[84..88].copy_from_slice(&(body.len() as u32).to_be_bytes());
    record.extend_from_slice(body);
    record.extend_from_slice(&[1, b't', 0, 0]);
    let size = record.len() as u32;
    record[..4].copy_from_slice(&size.to_be_bytes());
    record
}

impl Store {
    /// Takes one message; gives how often to answer, and with which code.
    fn send(&mut self, fields: &Value, body: &[u8], wrong: Wrong) -> (usize, i32) {
        self.taken += 1;
        if wrong == Wrong::LoseRest && WRONG_AT <= self.taken {
            return (1, 0);
        }
        let wrong = if self.taken == WRONG_AT {
            wrong
        } else {
            Wrong::Nothing
        };
        let text = |key: &str| fields[key].as_str().unwrap().to_string();
        let queue = self.queues.entry((text("b"), text("e"))).or_default();
        let next = queue.last().map_or(0, |last| last.0 + 1);
        let mut body = body.to_vec();
        match wrong {
            Wrong::Lose => return (1, 0),
            Wrong::Refuse => return (1, 2),
            Wrong::Repeat => queue.push((next, body.clone())),
            Wrong::Flip => body[3] ^= 1,
            _ => {}
        }
        let gap = u64::from(wrong == Wrong::Jump);
        queue.push((queue.last().map_or(0, |last| last.0 + 1) + gap, body));
        if wrong == Wrong::Swap {
            let last = queue.len() - 1;
            let stream = |body: &[u8]| body[body.len() - 24..body.len() - 20].to_vec();
            let own = stream(&queue[last].1);
            let before = (0..last)
                .rev()
                .find(|at| stream(&queue[*at].1) == own)
                .expect("the stream has one before");
            let moved = queue[last].1.clone();
            queue[last].1 = std::mem::replace(&mut queue[before].1, moved);
        }
        match wrong {
            Wrong::Silence => (0, 0),
            Wrong::Echo => (2, 0),
            _ => (1, 0),
        }
    }

    fn pull(&self, fields: &Value) -> (i32, Vec<u8>) {
        let text = |key: &str| fields[key].as_str().unwrap().to_string();
        let from: u64 = text("queueOffset").parse().unwrap();
        let queue = self
            .queues
            .get(&(text("topic"), text("queueId")))
            .map_or(&[][..], |queue| &queue[..]);
        let begin = queue.partition_point(|(offset, _)| *offset < from);
        let queue_id = text("queueId").parse().unwrap();
        let found = queue[begin..]
            .iter()
            .take(32)
            .map(|(offset, body)| record(queue_id, *offset, body));
        let body = found.collect::<Vec<_>>().concat();
        (if body.is_empty() { 19 } else { 0 }, body)
    }
}

fn serve(mut socket: TcpStream, store: &Mutex<Store>, wrong: Wrong) -> std::io::Result<()> {
    loop {
        let mut bytes = vec![0; 4];
        socket.read_exact(&mut bytes)?;
        let size = u32::from_be_bytes(bytes[..].try_into().unwrap()) as usize;
        bytes.resize(4 + size, 0);
        socket.read_exact(&mut bytes[4..])?;
        let frame = wire::frame(&bytes).unwrap().unwrap();
        let header: Value = serde_json::from_slice(frame.header)?;
        let fields = &header["extFields"];
        let mut body = Vec::new();
        let mut answer = json!({});
        let (mut times, mut code) = (1, 0);
        match header["code"].as_i64().unwrap() as i32 {
            wire::SEND => (times, code) = store.lock().unwrap().send(fields, frame.body, wrong),
            wire::PULL => {
                (code, body) = store.lock().unwrap().pull(fields);
                if code == 19 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            wire::MAX_OFFSET => {
                let key = (
                    fields["topic"].as_str().unwrap().to_string(),
                    fields["queueId"].as_str().unwrap().to_string(),
                );
                let end = store
                    .lock()
                    .unwrap()
                    .queues
                    .get(&key)
                    .and_then(|q| q.last())
                    .map_or(0, |last| last.0 + 1);
                answer = json!({"offset": end.to_string()});
            }
            wire::MIN_OFFSET => answer = json!({"offset": "0"}),
            _ => {}
        }
        let header =
            json!({"code": code, "flag": 1, "opaque": header["opaque"], "extFields": answer})
                .to_string();
        let mut out = Vec::new();
        (0..times).for_each(|_| wire::put_frame(&mut out, header.as_bytes(), &body));
        socket.write_all(&out)?;
    }
}

fn broker(wrong: Wrong) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let store = Arc::new(Mutex::new(Store::default()));
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let store = store.clone();
            std::thread::spawn(move || serve(socket, &store, wrong));
        }
    });
    addr
}

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    load: Load,
}

/// Runs something with a load and gives its JSON.
fn run(addr: SocketAddr, words: &str, command: impl Fn(&Load) -> crate::Outcome<bool>) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let line = format!(
        "x --addr {addr} --queues 2 --size 100 --warmup 0 --json {} {words}",
        path.display()
    );
    let load = Words::parse_from(line.split_whitespace()).load;
    let told = command(&load).unwrap();
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(json["valid"], told, "{json}");
    json
}

const COUNT: &str = "--connections 3 --in-flight 4 --count 2000 --duration 30";
const BRIEFLY: &str = "--connections 3 --in-flight 4 --duration 1";

fn produce(wrong: Wrong) -> Value {
    run(broker(wrong), COUNT, |load| crate::produce::run(load, true))
}

#[test]
fn a_right_broker_is_valid_whichever_way_it_is_loaded() {
    let addr = broker(Wrong::Nothing);
    let json = run(addr, COUNT, |load| crate::produce::run(load, true));
    assert_eq!(json["valid"], true, "{json}");
    assert_eq!(json["acknowledged"], 2000);
    let json = run(addr, "--connections 3 --duration 4", |load| {
        crate::consume::run(load, crate::consume::Depth::First)
    });
    assert_eq!(json["valid"], true, "{json}");
    assert_eq!(json["topic_messages"], 2000);
    assert!(1 <= json["passes"].as_u64().unwrap(), "{json}");
    for rate in ["--rate 1000", ""] {
        let json = run(
            addr,
            &format!("--topic live {BRIEFLY} {rate}"),
            crate::e2e::run,
        );
        assert_eq!(json["valid"], true, "{json}");
        assert_eq!(json["received"], json["acknowledged"]);
        assert!(100 < json["e2e_samples"].as_u64().unwrap(), "{json}");
    }
}

#[test]
fn every_wrong_that_a_broker_does_is_named() {
    for (wrong, key) in [
        (Wrong::Lose, "lost"),
        (Wrong::LoseRest, "lost"),
        (Wrong::Repeat, "duplicated"),
        (Wrong::Swap, "reordered"),
        (Wrong::Flip, "corrupted"),
        (Wrong::Echo, "unexpected_answers"),
        (Wrong::Jump, "lost"),
    ] {
        let json = produce(wrong);
        assert_eq!(json["valid"], false, "{wrong:?}: {json}");
        assert!(0 < json[key].as_u64().unwrap(), "{wrong:?}: {json}");
    }
}

#[test]
fn end_to_end_names_them_too() {
    for (wrong, key) in [
        (Wrong::Lose, "lost"),
        (Wrong::LoseRest, "lost"),
        (Wrong::Repeat, "duplicated"),
        (Wrong::Flip, "corrupted"),
        (Wrong::Echo, "unexpected_answers"),
    ] {
        // Not Swap: what was stored before is read before, and cannot change places any more.
        let json = run(
            broker(wrong),
            &format!("{BRIEFLY} --rate 1000"),
            crate::e2e::run,
        );
        assert_eq!(json["valid"], false, "{wrong:?}: {json}");
        assert!(0 < json[key].as_u64().unwrap(), "{wrong:?}: {json}");
    }
}

#[test]
fn a_loss_is_seen_without_reading_back() {
    let json = run(broker(Wrong::Lose), COUNT, |load| {
        crate::produce::run(load, false)
    });
    assert_eq!(json["lost"], 1, "{json}");
}

#[test]
fn a_refused_message_is_an_error_and_not_a_loss() {
    let json = produce(Wrong::Refuse);
    assert_eq!(json["valid"], true, "{json}");
    assert_eq!(json["errors"]["2"], 1, "{json}");
    assert_eq!(json["acknowledged"], 2000);
}

#[test]
fn a_request_without_answer_voids_the_run() {
    let json = run(broker(Wrong::Silence), BRIEFLY, |load| {
        crate::produce::run(load, false)
    });
    assert_eq!(json["valid"], false, "{json}");
    assert_eq!(json["unanswered"], 1, "{json}");
    assert_eq!(json["duplicated"], 0, "{json}");
}

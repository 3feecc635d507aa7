//! A broker in memory that can be told to do wrong: proof that the generator notices. It knows
//! nothing of the generator, so that tests of the program can have it too.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEND: i32 = 310;
const SEND_BATCH: i32 = 320;
const PULL: i32 = 11;
const MAX_OFFSET: i32 = 30;
const MIN_OFFSET: i32 = 31;

fn put_frame(out: &mut Vec<u8>, header: &[u8], body: &[u8]) {
    out.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    out.extend_from_slice(&(header.len() as u32).to_be_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(body);
}

/// What happens to message number `WRONG_AT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code)] // Each test that has this file does its own of them.
pub enum Wrong {
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
    /// Stored in another queue.
    Misplace,
    /// Its last byte is missing.
    Cut,
    /// The connection is closed instead of answered; not stored.
    Close,
    /// Refused with code 2, it and all that follow; not stored.
    RefuseRest,
    /// Every second pull is refused with code 2.
    RefusePulls,
}

/// Behind the messages that all slots send at first, so that each stream has one before it.
const WRONG_AT: usize = 500;

/// So many answers mean that the connection ends.
const CLOSE: usize = usize::MAX;

/// Queue offset and body.
type Stored = (u64, Vec<u8>);

#[derive(Default)]
struct Store {
    /// By topic and queue.
    queues: HashMap<(String, String), Vec<Stored>>,
    taken: usize,
    pulls: usize,
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

/// Bodies of a batch.
fn items(batch: &[u8]) -> Vec<&[u8]> {
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    let (mut rest, mut found) = (batch, Vec::new());
    while !rest.is_empty() {
        let (item, tail) = rest.split_at(word(rest));
        found.push(&item[20..20 + word(&item[16..])]);
        rest = tail;
    }
    found
}

impl Store {
    /// Takes one message; gives how often to answer, and with which code.
    fn send(&mut self, fields: &Value, body: &[u8], wrong: Wrong) -> (usize, i32) {
        self.taken += 1;
        if wrong == Wrong::LoseRest && WRONG_AT <= self.taken {
            return (1, 0);
        }
        if wrong == Wrong::RefuseRest && WRONG_AT <= self.taken {
            return (1, 2);
        }
        let wrong = if self.taken == WRONG_AT {
            wrong
        } else {
            Wrong::Nothing
        };
        let text = |key: &str| fields[key].as_str().unwrap().to_string();
        let mut queue_id = text("e");
        if wrong == Wrong::Misplace {
            queue_id = if queue_id == "0" {
                "1".into()
            } else {
                "0".into()
            };
        }
        let queue = self.queues.entry((text("b"), queue_id)).or_default();
        let next = queue.last().map_or(0, |last| last.0 + 1);
        let mut body = body.to_vec();
        match wrong {
            Wrong::Lose => return (1, 0),
            Wrong::Refuse => return (1, 2),
            Wrong::Repeat => queue.push((next, body.clone())),
            Wrong::Flip => body[3] ^= 1,
            Wrong::Cut => body.truncate(body.len() - 1),
            Wrong::Close => return (CLOSE, 0),
            _ => {}
        }
        let gap = u64::from(wrong == Wrong::Jump);
        queue.push((queue.last().map_or(0, |last| last.0 + 1) + gap, body));
        if wrong == Wrong::Swap {
            let last = queue.len() - 1;
            let stream = |body: &[u8]| body[body.len() - 28..body.len() - 24].to_vec();
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

    fn pull(&mut self, fields: &Value, wrong: Wrong) -> (i32, Vec<u8>) {
        self.pulls += 1;
        if wrong == Wrong::RefusePulls && self.pulls.is_multiple_of(2) {
            return (2, Vec::new());
        }
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
        let header_size = u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]]) as usize;
        let (header, request_body) = bytes[8..].split_at(header_size);
        let header: Value = serde_json::from_slice(header)?;
        let fields = &header["extFields"];
        let mut body = Vec::new();
        let mut answer = json!({});
        let (mut times, mut code) = (1, 0);
        match header["code"].as_i64().unwrap() as i32 {
            SEND => (times, code) = store.lock().unwrap().send(fields, request_body, wrong),
            SEND_BATCH => {
                for message in items(request_body) {
                    (times, code) = store.lock().unwrap().send(fields, message, wrong);
                }
            }
            PULL => {
                (code, body) = store.lock().unwrap().pull(fields, wrong);
                if code == 19 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            MAX_OFFSET => {
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
            MIN_OFFSET => answer = json!({"offset": "0"}),
            _ => {}
        }
        let header =
            json!({"code": code, "flag": 1, "opaque": header["opaque"], "extFields": answer})
                .to_string();
        if times == CLOSE {
            return Ok(());
        }
        let mut out = Vec::new();
        (0..times).for_each(|_| put_frame(&mut out, header.as_bytes(), &body));
        socket.write_all(&out)?;
    }
}

pub fn broker(wrong: Wrong) -> SocketAddr {
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

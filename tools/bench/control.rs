//! A blocking connection for the few requests around a run: topics and offsets.

use crate::net::CONNECT_TIMEOUT;
use crate::wire;
use crate::{Failure, Load, Outcome, fail};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Control {
    socket: TcpStream,
    addr: SocketAddr,
    opaque: u32,
}

pub struct Answer {
    pub code: i64,
    pub remark: String,
    pub fields: Value,
}

pub const NOT_SUPPORTED: i64 = 3;
const TOPIC_NOT_EXIST: i64 = 17;
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Control {
    pub fn connect(addr: SocketAddr) -> Outcome<Control> {
        let socket = match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            Ok(socket) => socket,
            Err(error) => {
                return fail(format!(
                    "cannot connect to {addr}: {error}; is the broker running?"
                ));
            }
        };
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        socket.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Control {
            socket,
            addr,
            opaque: 0,
        })
    }

    pub fn request(&mut self, code: i32, fields: Value) -> Outcome<Answer> {
        self.opaque += 1;
        let header = json!({
            "code": code, "extFields": fields, "flag": 0, "language": "JAVA",
            "opaque": self.opaque, "serializeTypeCurrentRPC": "JSON", "version": 513,
        });
        let mut out = Vec::new();
        wire::put_frame(&mut out, header.to_string().as_bytes(), &[]);
        self.exchange(code, &out)
    }

    /// A request with a body and without fields, which has to be granted.
    pub fn request_with(&mut self, code: i32, body: &[u8]) -> Outcome<()> {
        self.opaque += 1;
        let header = json!({
            "code": code, "flag": 0, "language": "JAVA", "opaque": self.opaque,
            "serializeTypeCurrentRPC": "JSON", "version": 513,
        });
        let mut out = Vec::new();
        wire::put_frame(&mut out, header.to_string().as_bytes(), body);
        let answer = self.exchange(code, &out)?;
        if answer.code == 0 {
            return Ok(());
        }
        fail(format!(
            "{} refuses request {code}: code {}, {}",
            self.addr, answer.code, answer.remark
        ))
    }

    /// Connects again where the broker has closed: it does so with who was silent for two minutes, and a run
    /// may last longer.
    fn renew(&mut self) -> Outcome<()> {
        self.socket.set_nonblocking(true)?;
        let seen = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false)?;
        if !matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            self.socket = Self::connect(self.addr)?.socket;
        }
        Ok(())
    }

    fn unanswered(&self, code: i32, error: &std::io::Error) -> String {
        let what = match code {
            wire::CREATE_TOPIC => "to create a topic",
            wire::MAX_OFFSET | wire::MIN_OFFSET => "for a queue's offset",
            wire::SEND => "to store a message",
            _ => "of another kind",
        };
        let why = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("within {} s; does the broker hang?", ANSWER_MAX.as_secs())
            }
            _ => format!("({error}); did the broker end? its log may say why"),
        };
        format!(
            "{} gave no answer to a request {what} (code {code}) {why}",
            self.addr
        )
    }

    fn no_answer(&self, what: &str) -> String {
        wire::no_answer(&self.addr.to_string(), what)
    }

    /// Sends a ready frame and reads its answer.
    pub fn exchange(&mut self, code: i32, frame: &[u8]) -> Outcome<Answer> {
        self.renew()?;
        let mut bytes = vec![0; 4];
        let told = self.socket.write_all(frame);
        told.and_then(|()| self.socket.read_exact(&mut bytes))
            .or_else(|error| fail(self.unanswered(code, &error)))?;
        let size = u32::from_be_bytes(bytes[..].try_into().expect("four bytes")) as usize;
        if wire::FRAME_SIZE_MAX < size {
            return fail(self.no_answer(&format!("a frame of {size} bytes")));
        }
        bytes.resize(4 + size, 0);
        let told = self.socket.read_exact(&mut bytes[4..]);
        told.or_else(|error| fail(self.unanswered(code, &error)))?;
        let frame = wire::frame(&bytes).or_else(|Failure(what)| fail(self.no_answer(&what)))?;
        let Some(frame) = frame else {
            let what = format!("a frame of {size} bytes, too short for a header");
            return fail(self.no_answer(&what));
        };
        let header: Value = serde_json::from_slice(frame.header)
            .or_else(|error| fail(self.no_answer(&format!("its header is no JSON: {error}"))))?;
        Ok(Answer {
            code: header["code"].as_i64().unwrap_or(-1),
            remark: header["remark"].as_str().unwrap_or("").to_string(),
            fields: header["extFields"].clone(),
        })
    }

    pub fn create_topic(&mut self, topic: &str, queues: u32) -> Outcome<()> {
        let queues = queues.to_string();
        let answer = self.request(
            wire::CREATE_TOPIC,
            json!({
                "topic": topic, "defaultTopic": "TBW102", "readQueueNums": queues, "writeQueueNums": queues,
                "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
            }),
        )?;
        if answer.code == 0 {
            return Ok(());
        }
        fail(format!(
            "{} does not create topic {topic}: code {}, {}",
            self.addr, answer.code, answer.remark
        ))
    }

    /// Offset of a queue's end (code 30) or beginning (31); none when the server cannot tell.
    pub fn offset(&mut self, code: i32, topic: &str, queue: u32) -> Outcome<Option<u64>> {
        let answer = self.request(code, json!({"topic": topic, "queueId": queue.to_string()}))?;
        if answer.code == NOT_SUPPORTED {
            return Ok(None);
        }
        let offset = match &answer.fields["offset"] {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        if answer.code == 0 && offset.is_some() {
            return Ok(offset);
        }
        let advice = match answer.code {
            TOPIC_NOT_EXIST => {
                "produce into it first, or name one that is there (--topic, --topics)"
            }
            _ => "does the topic have that many queues (--queues)?",
        };
        fail(format!(
            "{} does not tell the offsets of {topic}, queue {queue}: code {}, {}; {advice}",
            self.addr, answer.code, answer.remark
        ))
    }

    pub fn create_topics(&mut self, load: &Load) -> Outcome<()> {
        (0..load.topics).try_for_each(|at| self.create_topic(&load.topic_name(at), load.queues))
    }

    /// Ends of all lanes; none when the server cannot tell.
    pub fn ends(&mut self, load: &Load) -> Outcome<Option<Vec<u64>>> {
        self.offsets(load, wire::MAX_OFFSET)
    }

    pub fn beginnings(&mut self, load: &Load) -> Outcome<Option<Vec<u64>>> {
        self.offsets(load, wire::MIN_OFFSET)
    }

    fn offsets(&mut self, load: &Load, code: i32) -> Outcome<Option<Vec<u64>>> {
        (0..load.lanes())
            .map(|lane| {
                let (topic, queue) = load.lane(lane);
                self.offset(code, &topic, queue)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    #[test]
    fn a_broker_that_hangs_is_named_with_what_it_was_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut control = Control::connect(addr).unwrap();
        let short = Some(Duration::from_millis(20));
        control.socket.set_read_timeout(short).unwrap();
        let told = control.create_topic("x", 1).err().unwrap().0;
        for words in [&addr.to_string(), "to create a topic", "within 10 s"] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_connection_that_the_broker_has_closed_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (closed, is_closed) = channel();
        let broker = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut socket, _) = listener.accept().unwrap();
                let mut size = [0; 4];
                socket.read_exact(&mut size).unwrap();
                let mut request = vec![0; u32::from_be_bytes(size) as usize];
                socket.read_exact(&mut request).unwrap();
                let mut answer = Vec::new();
                wire::put_frame(&mut answer, br#"{"code":7,"opaque":1}"#, &[]);
                socket.write_all(&answer).unwrap();
                drop(socket);
                closed.send(()).unwrap();
            }
        });
        let mut control = Control::connect(addr).unwrap();
        for _ in 0..2 {
            assert_eq!(control.request(30, json!({})).unwrap().code, 7);
            is_closed.recv().unwrap();
        }
        broker.join().unwrap();
    }
}

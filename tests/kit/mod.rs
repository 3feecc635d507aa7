//! A running broker and a client that speaks its protocol, for tests of promises that no client library shows.
#![allow(dead_code)] // Each test file uses its own part of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// Ports that nobody listens on: `p`, `p - 2`, `p + 10`, `p + 8` … and `p + 60` for the name server.
pub fn free_ports() -> u16 {
    // Below the range from which the kernel takes the ports of outgoing connections.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 50) as u16;
    for _ in 0..100 {
        let step = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 50;
        let port = 10_100 + step * 100;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if [0, 8, 10, 18, 20, 60]
            .into_iter()
            .all(|step| free(port + step))
            && free(port - 2)
        {
            return port;
        }
    }
    panic!("no free ports");
}

/// A broker on a store of its own.
pub struct Broker {
    pub child: Child,
    pub port: u16,
    pub store: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
}

impl Broker {
    /// Starts one shard on a folder and waits until it is ready.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_on(free_ports(), folder, arguments)
    }

    pub fn start_on(port: u16, folder: &Path, arguments: &[&str]) -> Self {
        let store = folder.join("store");
        let log = folder.join("broker.log");
        let mut command = command(port, &store, arguments);
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let broker = Self {
            child,
            port,
            store,
            log,
            arguments,
        };
        assert!(
            line.starts_with("corelane is ready"),
            "{line}{}",
            broker.log()
        );
        broker
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.wait(Duration::from_secs(8))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit code, if it ends in time.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Starts again on the same store and ports.
    pub fn start_again(mut self) -> Self {
        self.kill();
        let folder = self.store.parent().unwrap().to_owned();
        let arguments: Vec<String> = std::mem::take(&mut self.arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start_on(self.port, &folder, &arguments)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command that starts one shard.
pub fn command(port: u16, store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command
        .arg("serve")
        .args([
            "--store",
            store.to_str().unwrap(),
            "--port",
            &port.to_string(),
        ])
        .args(["--nameserver-port", &(port + 60).to_string()])
        .env_remove("CORELANE_LOG")
        .stdin(Stdio::null());
    if !arguments.contains(&"--shards") {
        command.args(["--shards", "1"]);
    }
    command.args(arguments);
    command
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: i64,
    pub remark: String,
    pub fields: Map<String, Value>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.fields
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{name} in {self:?}"))
    }

    pub fn number(&self, name: &str) -> i64 {
        self.field(name).parse().unwrap()
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    opaque: i64,
}

/// A frame with a JSON header.
pub fn frame(code: i64, opaque: i64, fields: &Value, body: &[u8]) -> Vec<u8> {
    let header =
        json!({"code": code, "language": "JAVA", "version": 479, "opaque": opaque, "flag": 0,
                        "extFields": fields, "serializeTypeCurrentRPC": "JSON"})
        .to_string();
    let mut frame = Vec::new();
    frame.extend(((4 + header.len() + body.len()) as u32).to_be_bytes());
    frame.extend((header.len() as u32).to_be_bytes());
    frame.extend(header.as_bytes());
    frame.extend(body);
    frame
}

impl Client {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self { stream, opaque: 0 }
    }

    pub fn send(&mut self, code: i64, fields: &Value, body: &[u8]) -> i64 {
        self.opaque += 1;
        self.stream
            .write_all(&frame(code, self.opaque, fields, body))
            .unwrap();
        self.opaque
    }

    /// The next frame that answers something; the broker's own requests are passed over.
    pub fn receive(&mut self) -> std::io::Result<(i64, Answer)> {
        loop {
            let mut head = [0; 8];
            self.stream.read_exact(&mut head)?;
            let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
            let header_size = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
            let mut rest = vec![0; size - 4];
            self.stream.read_exact(&mut rest)?;
            let header: Value = serde_json::from_slice(&rest[..header_size]).unwrap();
            if header["flag"].as_i64().unwrap() & 1 == 0 {
                continue;
            }
            let answer = Answer {
                code: header["code"].as_i64().unwrap(),
                remark: header["remark"].as_str().unwrap_or("").to_owned(),
                fields: header["extFields"].as_object().cloned().unwrap_or_default(),
                body: rest[header_size..].to_vec(),
            };
            return Ok((header["opaque"].as_i64().unwrap(), answer));
        }
    }

    pub fn call(&mut self, code: i64, fields: &Value, body: &[u8]) -> Answer {
        let opaque = self.send(code, fields, body);
        let (answered, answer) = self.receive().unwrap();
        assert_eq!(answered, opaque, "{answer:?}");
        answer
    }

    pub fn make_topic(&mut self, topic: &str, queue_count: u32) {
        let fields = json!({"topic": topic, "defaultTopic": "TBW102", "readQueueNums": queue_count.to_string(),
            "writeQueueNums": queue_count.to_string(), "perm": "6", "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": "0", "order": "false"});
        assert_eq!(self.call(17, &fields, &[]).code, 0);
    }

    pub fn produce(&mut self, topic: &str, queue_id: i64, body: &[u8]) -> Answer {
        self.call(310, &produce_fields(topic, queue_id, ""), body)
    }

    pub fn fetch(&mut self, topic: &str, queue_id: i64, offset: i64, count: i64) -> Answer {
        self.call(11, &fetch_fields(topic, queue_id, offset, count), &[])
    }
}

pub fn produce_fields(topic: &str, queue_id: i64, properties: &str) -> Value {
    json!({"a": "group", "b": topic, "c": "TBW102", "d": "4", "e": queue_id.to_string(), "f": "0",
           "g": "1700000000000", "h": "0", "i": properties, "j": "0", "k": "false", "m": "false"})
}

pub fn fetch_fields(topic: &str, queue_id: i64, offset: i64, count: i64) -> Value {
    json!({"consumerGroup": "readers", "topic": topic, "queueId": queue_id.to_string(),
           "queueOffset": offset.to_string(), "maxMsgNums": count.to_string(), "sysFlag": "4",
           "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
           "expressionType": "TAG", "maxMsgBytes": "4194304"})
}

/// Bodies of stored records, one after another.
pub fn bodies(records: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = records;
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let body_size = u32::from_be_bytes(rest[84..88].try_into().unwrap()) as usize;
        bodies.push(rest[88..88 + body_size].to_vec());
        rest = &rest[size..];
    }
    bodies
}

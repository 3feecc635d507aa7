//! Sends over many topics from one thread: frames written in one piece, answers counted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use corelane::base::Prng;
use serde_json::json;

use crate::kit::{self, Client};

/// Queues of each topic.
pub const QUEUES: usize = 8;

const CONNECTIONS: usize = 16;
/// Requests under way on each connection.
const WINDOW: usize = 16;
/// Topics being made at once.
const MAKING: usize = 64;

pub fn name(topic: usize) -> String {
    format!("many-{topic:05}")
}

/// Makes topics, several requests under way.
pub fn make_topics(client: &mut Client, topics: Range<usize>) {
    let (mut sent, mut answered) = (topics.start, topics.start);
    while answered < topics.end {
        while sent < topics.end.min(answered + MAKING) {
            let count = QUEUES.to_string();
            let fields = json!({"topic": name(sent), "defaultTopic": "TBW102", "readQueueNums": count,
                "writeQueueNums": count, "perm": "6", "topicFilterType": "SINGLE_TAG",
                "topicSysFlag": "0", "order": "false"});
            client.send(17, &fields, &[]);
            sent += 1;
        }
        let (_, answer) = client.receive().expect("an answer");
        assert_eq!(answer.code, 0, "{answer:?}");
        answered += 1;
    }
}

/// Messages in the queues of topics, as the broker tells (30).
pub fn stored(client: &mut Client, topics: usize) -> usize {
    let mut count = 0;
    for topic in 0..topics {
        for queue in 0..QUEUES {
            let fields = json!({"topic": name(topic), "queueId": queue.to_string()});
            count += client.call(30, &fields, &[]).number("offset") as usize;
        }
    }
    count
}

/// One message after the other, each to the next topic: how long the answers took, sorted, in ns.
pub fn pauses(client: &mut Client, topics: usize, time: Duration) -> Vec<u64> {
    let start = Instant::now();
    let mut times = Vec::new();
    let (mut template, mut frame) = (Template::new(), Vec::new());
    let mut received = vec![0; 4096];
    while start.elapsed() < time {
        frame.clear();
        template.put(times.len() % topics, 0, &mut frame);
        let sent = Instant::now();
        client.stream.write_all(&frame).expect("the broker reads");
        let mut end = 0;
        while !is_whole(&received[..end]) {
            end += client.stream.read(&mut received[end..]).expect("an answer");
        }
        assert!(is_good(&received[..end]), "a send was refused");
        times.push(sent.elapsed().as_nanos() as u64);
        SENT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    times.sort_unstable();
    times
}

/// Messages that anything in here has sent.
static SENT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// A send to any queue: names and numbers have one width, so that one frame is patched into another.
struct Template {
    bytes: Vec<u8>,
    topic_at: usize,
    queue_at: usize,
}

impl Template {
    fn new() -> Self {
        const BODY: [u8; 1024] = [b'm'; 1024];
        let fields = kit::produce_fields(&name(0), 0, "");
        let bytes = kit::frame(310, 1, &fields, &BODY);
        let behind = |text: &str| {
            let found = bytes
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            found.expect("a field of the request") + text.len()
        };
        let (topic_at, queue_at) = (behind("many-"), behind("\"e\":\""));
        Self {
            bytes,
            topic_at,
            queue_at,
        }
    }

    fn put(&mut self, topic: usize, queue: usize, out: &mut Vec<u8>) {
        let mut left = topic;
        for at in (self.topic_at..self.topic_at + 5).rev() {
            self.bytes[at] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        self.bytes[self.queue_at] = b'0' + queue as u8;
        out.extend_from_slice(&self.bytes);
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && 4 + size_of(bytes) <= bytes.len()
}

fn size_of(bytes: &[u8]) -> usize {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

fn is_good(frame: &[u8]) -> bool {
    let good = b"\"code\":0,";
    frame.windows(good.len()).any(|window| window == good)
}

/// Connections with frames under way.
pub struct Load {
    streams: Vec<TcpStream>,
    prng: Prng,
}

impl Load {
    pub fn connect(port: u16) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
            stream.set_nodelay(true).expect("a TCP socket");
            let limit = Some(Duration::from_secs(60));
            stream.set_read_timeout(limit).expect("a time limit");
            stream
        };
        Self {
            streams: (0..CONNECTIONS).map(connect).collect(),
            prng: Prng::from_seed(7),
        }
    }

    pub fn sent(&self) -> usize {
        SENT.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Messages to random queues of the first `topics`.
    pub fn send(&mut self, topics: usize, messages: usize) {
        let queues = (topics * QUEUES) as u64;
        let mut prng = Prng::from_seed(self.prng.below(u64::MAX));
        self.send_to((0..messages).map(|_| prng.below(queues) as usize));
    }

    /// One message to each queue.
    pub fn send_one_each(&mut self, queues: usize) {
        self.send_to(0..queues);
    }

    fn send_to(&mut self, queues: impl Iterator<Item = usize>) {
        let mut template = Template::new();
        let mut queues = queues.peekable();
        let mut batch = Vec::new();
        let mut received = vec![0; 64 << 10];
        while queues.peek().is_some() {
            let mut counts = Vec::new();
            for stream in &mut self.streams {
                batch.clear();
                let mut count = 0;
                for queue in queues.by_ref().take(WINDOW) {
                    template.put(queue / QUEUES, queue % QUEUES, &mut batch);
                    count += 1;
                }
                stream.write_all(&batch).expect("the broker reads");
                counts.push(count);
            }
            for (stream, count) in self.streams.iter_mut().zip(counts) {
                take_answers(stream, count, &mut received);
                SENT.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}

fn take_answers(stream: &mut TcpStream, count: usize, received: &mut [u8]) {
    let (mut end, mut left) = (0, count);
    while 0 < left {
        let got = stream.read(&mut received[end..]).expect("an answer");
        assert!(0 < got, "the broker closed a connection");
        end += got;
        let mut at = 0;
        while is_whole(&received[at..end]) {
            let next = at + 4 + size_of(&received[at..]);
            assert!(is_good(&received[at..next]), "a send was refused");
            (at, left) = (next, left - 1);
        }
        received.copy_within(at..end, 0);
        end -= at;
    }
}

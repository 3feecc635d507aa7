//! The physical limit: one thread with epoll that takes frames apart and answers as RocketMQ
//! would, and of a broker's work does nothing, or one write a turn, or one write and one flush.

use crate::connection::{Connection, Poll};
use crate::wire::{self, Answers, SEND_BATCH_ITEM_HEAD};
use crate::{Outcome, clock, fail};
use nix::sys::uio::pwritev;
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Answer
    Echo,
    /// Write what a turn received, then answer
    Append,
    /// Write what a turn received into a zero-filled file, fdatasync, then answer
    Flush,
}

#[derive(clap::Args, Clone)]
pub struct Options {
    pub kind: Kind,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:27901", value_parser = crate::address)]
    pub addr: SocketAddr,
    /// CPU to pin the server on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Where append and flush write; the file must be new, and is gone when the server ends
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Size of the file, MiB; at its end the writes begin anew
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub file_mib: u64,
    /// End after that many seconds; 0 runs until a signal comes
    #[arg(long, default_value_t = 0.0)]
    pub duration: f64,
    /// Stand still for that many milliseconds once: a generator that does not show it is wrong
    #[arg(long, default_value_t = 0)]
    pub stall_ms: u64,
    /// The stall comes that many milliseconds after the first send request
    #[arg(long, default_value_t = 1000)]
    pub stall_after_ms: u64,
}

const LISTENER: usize = 0;
/// Most slices that one vectored write takes.
const SLICES_MAX: usize = 1024;
const CONNECTIONS_MAX: usize = 10_000;

/// The file of append and flush.
struct Store {
    file: File,
    size: u64,
    at: u64,
    syncs: bool,
}

fn zero_fill(file: &File, size: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    (0..size >> 20).try_for_each(|at| file.write_all_at(&zeros, at << 20))?;
    file.sync_all()
}

impl Store {
    fn open(path: &Path, size: u64, syncs: bool) -> Outcome<Store> {
        let opened = OpenOptions::new().write(true).create_new(true).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => return fail(format!("cannot create {}: {error}", path.display())),
        };
        // Without a name it cannot be left behind.
        std::fs::remove_file(path)?;
        if syncs {
            zero_fill(&file, size)?;
        }
        Ok(Store {
            file,
            size,
            at: 0,
            syncs,
        })
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Outcome<()> {
        for some in slices.chunks(SLICES_MAX) {
            let bytes: u64 = some.iter().map(|slice| slice.len() as u64).sum();
            if self.size < self.at + bytes {
                self.at = 0;
            }
            let written = pwritev(&self.file, some, self.at as i64)?;
            if written as u64 != bytes {
                return fail(format!(
                    "a write of {bytes} bytes took {written}: is the disk full?"
                ));
            }
            self.at += bytes;
        }
        if self.syncs {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Answers of the size that RocketMQ's have.
struct Answerer {
    answers: Answers,
    header: Vec<u8>,
    requests: u64,
}

const MESSAGE_ID: &str = "7F00000100002AF900000000000041AF";

impl Answerer {
    fn answer(&mut self, frame: &wire::Frame<'_>, out: &mut Vec<u8>) -> Outcome<()> {
        let (code, opaque) = self.answers.read(frame.header)?;
        let mut digits = itoa::Buffer::new();
        self.header.clear();
        match code {
            wire::SEND | wire::SEND_BATCH | 10 => {
                self.requests += 1;
                self.header.extend_from_slice(
                    b"{\"code\":0,\"extFields\":{\"queueId\":\"0\",\"transactionId\":\"FD0000000000000000000000000000021C4D4E0E2F2A685FFB920000\",\"msgId\":\"",
                );
                for index in 0..messages(code, frame.body) {
                    if 0 < index {
                        self.header.push(b',');
                    }
                    self.header.extend_from_slice(MESSAGE_ID.as_bytes());
                }
                self.header.extend_from_slice(
                    b"\",\"TRACE_ON\":\"true\",\"MSG_REGION\":\"DefaultRegion\",\"queueOffset\":\"1000000\"},\"flag\":1,\"language\":\"JAVA\",\"opaque\":",
                );
            }
            wire::CREATE_TOPIC => write!(
                self.header,
                "{{\"code\":0,\"flag\":1,\"language\":\"JAVA\",\"opaque\":"
            )?,
            _ => write!(
                self.header,
                "{{\"code\":3,\"remark\":\"the floor only takes messages\",\"flag\":1,\"language\":\"JAVA\",\"opaque\":"
            )?,
        }
        self.header
            .extend_from_slice(digits.format(opaque).as_bytes());
        self.header
            .extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}");
        wire::put_frame(out, &self.header, &[]);
        Ok(())
    }
}

/// Messages of a request: a batch is walked by the sizes of its items.
fn messages(code: i32, body: &[u8]) -> usize {
    if code != wire::SEND_BATCH {
        return 1;
    }
    let mut rest = body;
    let mut count = 0;
    while let Some(size) = rest.get(..4) {
        let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
        let Some(tail) = rest.get(size.max(SEND_BATCH_ITEM_HEAD)..) else {
            break;
        };
        rest = tail;
        count += 1;
    }
    count
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    /// By token − 1.
    connections: Vec<Option<Connection>>,
    store: Option<Store>,
    answerer: Answerer,
}

impl Floor {
    fn accept(&mut self) -> Outcome<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            let free = self
                .connections
                .iter()
                .position(Option::is_none)
                .unwrap_or(self.connections.len());
            if CONNECTIONS_MAX <= free {
                continue; // The socket closes here.
            }
            let connection = Connection::new(socket, &self.poll, free + 1)?;
            if free == self.connections.len() {
                self.connections.push(Some(connection));
            } else {
                self.connections[free] = Some(connection);
            }
        }
        Ok(())
    }

    /// Receives, writes, answers: each for all ready connections, then the next.
    fn turn(&mut self, ready: &[usize]) -> Outcome<()> {
        let mut received = Vec::with_capacity(ready.len());
        for token in ready {
            if *token == LISTENER {
                self.accept()?;
                continue;
            }
            let at = token - 1;
            let Some(connection) = &mut self.connections[at] else {
                continue;
            };
            match connection.receive() {
                Ok(Some(count)) => received.push((at, count)),
                // A generator that left is no reason to end.
                Ok(None) | Err(_) => self.connections[at] = None,
            }
        }
        if let Some(store) = &mut self.store {
            let slice = |(at, count): &(usize, usize)| {
                let connection = self.connections[*at].as_ref()?;
                (0 < *count).then(|| IoSlice::new(connection.last_received(*count)))
            };
            let slices: Vec<IoSlice<'_>> = received.iter().filter_map(slice).collect();
            if !slices.is_empty() {
                store.write(&slices)?;
            }
        }
        for (at, _) in received {
            if self.reply(at).is_err() {
                self.connections[at] = None;
            }
        }
        Ok(())
    }

    fn reply(&mut self, at: usize) -> Outcome<()> {
        let Some(connection) = &mut self.connections[at] else {
            return Ok(());
        };
        let mut out = std::mem::take(&mut connection.out);
        let mut outcome = Ok(());
        while let Some(frame) = connection.next_frame()? {
            outcome = self.answerer.answer(&frame, &mut out);
            if outcome.is_err() {
                break;
            }
        }
        connection.out = out;
        outcome?;
        connection.send(&self.poll)
    }
}

pub fn run(options: &Options) -> Outcome<()> {
    // Filled before it listens: who can connect is served.
    let store = match (&options.file, options.kind) {
        (_, Kind::Echo) => None,
        (Some(path), kind) => Some(Store::open(
            path,
            options.file_mib << 20,
            kind == Kind::Flush,
        )?),
        (None, _) => {
            return fail("append and flush need --file: a path on the file system to be measured");
        }
    };
    let listener = match TcpListener::bind(options.addr) {
        Ok(listener) => listener,
        Err(error) => return fail(format!("cannot listen on {}: {error}", options.addr)),
    };
    eprintln!(
        "floor {:?} on {}, process {}",
        options.kind,
        listener.local_addr()?,
        std::process::id()
    );
    serve(options, listener, store)
}

fn serve(options: &Options, listener: TcpListener, store: Option<Store>) -> Outcome<()> {
    listener.set_nonblocking(true)?;
    let poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;
    let answerer = Answerer {
        answers: Answers::new(),
        header: Vec::new(),
        requests: 0,
    };
    let mut floor = Floor {
        poll,
        listener,
        connections: Vec::new(),
        store,
        answerer,
    };
    let end_ns = if 0.0 < options.duration {
        clock::now_ns() + clock::seconds_ns(options.duration)
    } else {
        u64::MAX
    };
    let (mut first_ns, mut is_stalled) = (None, options.stall_ms == 0);
    let mut ready = Vec::new();
    while clock::now_ns() < end_ns {
        floor.poll.wait(100, &mut ready)?;
        floor.turn(&ready)?;
        if !is_stalled && 0 < floor.answerer.requests {
            let now_ns = clock::now_ns();
            let first_ns = *first_ns.get_or_insert(now_ns);
            if first_ns + options.stall_after_ms * 1_000_000 <= now_ns {
                is_stalled = true;
                std::thread::sleep(Duration::from_millis(options.stall_ms));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        load: crate::Load,
    }

    /// Runs a floor for `seconds` and gives its address.
    fn floor(
        kind: Kind,
        seconds: f64,
        stall_ms: u64,
        stall_after_ms: u64,
        file: Option<PathBuf>,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let options = Options {
            kind,
            addr,
            cpu: None,
            file,
            file_mib: 64,
            duration: seconds,
            stall_ms,
            stall_after_ms,
        };
        std::thread::spawn(move || {
            let store = options
                .file
                .as_ref()
                .map(|path| Store::open(path, 64 << 20, kind == Kind::Flush).unwrap());
            serve(&options, listener, store).unwrap();
        });
        addr
    }

    fn produce(addr: SocketAddr, words: &str) -> serde_json::Value {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("run.json");
        let line = format!("x --addr {addr} --json {} {words}", json.display());
        let load = Words::parse_from(line.split_whitespace()).load;
        crate::produce::run(&load, false).unwrap();
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
    }

    #[test]
    fn a_stall_is_seen_by_every_message_that_was_due_in_it() {
        let addr = floor(Kind::Echo, 20.0, 400, 1400, None);
        let words =
            "--connections 4 --in-flight 8 --rate 2000 --duration 1.5 --warmup 0.2 --size 64";
        let run = produce(addr, words);
        // The stall begins 300 ms before the window ends, so the answers to 600 of 3,000 messages
        // come late, some after the window's end, and each waits 100 to 400 ms.
        let number = |key: &str| run[key].as_f64().unwrap();
        assert!(2_990.0 < number("response_samples"), "{run}");
        assert!(350e6 < number("response_p99_ns"), "{run}");
        assert!(300e6 < number("response_max_ns"), "{run}");
        assert!(
            800.0 * 0.2e9 / 3000.0 * 0.7 < number("response_mean_ns"),
            "{run}"
        );
        assert_eq!(run["valid"], true, "{run}");
    }

    #[test]
    fn a_floor_that_appends_or_flushes_answers_every_batch() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Append, Kind::Flush] {
            let addr = floor(kind, 20.0, 0, 0, Some(folder.path().join("data")));
            let run = produce(
                addr,
                "--connections 3 --in-flight 4 --batch 7 --duration 0.3 --warmup 0 --size 64",
            );
            assert_eq!(run["valid"], true, "{run}");
            assert!(0.0 < run["messages_per_s"].as_f64().unwrap(), "{run}");
        }
    }

    #[test]
    fn without_a_server_there_is_no_run() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let line = format!("x --addr {addr}");
        let load = Words::parse_from(line.split_whitespace()).load;
        assert!(crate::produce::run(&load, false).is_err());
    }
}

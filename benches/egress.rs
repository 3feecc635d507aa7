//! What it costs to bring stored bytes to a socket: each way out with runs of 1 KiB to 1 MiB, 1 to 32 of them,
//! over loopback; and whether the automatic choice takes the cheapest.
//!
//! `cargo bench --bench egress`; with `SMOKE=1` a few deliveries only, to see that it works.

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use common::door::ring;
use common::{Study, folder, is_smoke, process_cpu_ns, show, smoke_passed, thread_cpu_ns, tiny_or};
use corelane::egress::{Delivery, Egress, Policy, Progress, Way};
use corelane::io::{
    Completion, FileId, Io, ListenerId, Op, OpenMode, Payload, SocketId, Span, Token, Uring, listen,
};
use nix::sys::socket::{setsockopt, sockopt};

const FILE_SIZE: u64 = 64 << 20;
/// Runs of one queue lie among those of so many others.
const STRIDE: u64 = 8;
/// Longer deliveries than clients ask for are left out.
const TOTAL_MAX: u64 = 4 << 20;
/// An answer's head.
const HEAD_SIZE: usize = 200;

const COUNTS: [u64; 6] = [1, 2, 4, 8, 16, 32];
const SIZES: [u64; 8] = [
    1 << 10,
    4 << 10,
    8 << 10,
    16 << 10,
    32 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
];

/// A way out is a row here.
const WAYS: [(&str, Way); 5] = [
    ("sendfile", Way::Sendfile),
    ("gather", Way::Gather),
    ("send-zc", Way::SendZc),
    ("copy", Way::Copy),
    ("splice", Way::Splice),
];

fn main() {
    let folder = folder();
    let path = folder.path().join("log");
    let bytes: Vec<u8> = (0..FILE_SIZE).map(|at| (at * 31 % 251) as u8).collect();
    std::fs::write(&path, &bytes).expect("the file can be written");
    let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    // What the peers of a shard use decides about more than the way does: bbr paces even loopback.
    let cubic = std::ffi::OsString::from("cubic");
    if setsockopt(&listener, sockopt::TcpCongestion, &cubic).is_err() {
        eprintln!("egress: no cubic here, measured with the machine's congestion control");
    }
    let address = listener.local_addr().expect("an address");
    let mut io = ring(vec![listener]);
    let peer = Peer::connect(address);
    let mut outlet = Outlet::open(&mut io, path, &peer);
    let cases: Vec<(u64, u64)> = COUNTS
        .into_iter()
        .flat_map(|count| SIZES.map(|size| (count, size)))
        .filter(|(count, size)| count * size <= TOTAL_MAX)
        .collect();
    let rows: Vec<String> = cases
        .iter()
        .map(|(count, size)| format!("{count} × {} KiB", size >> 10))
        .collect();
    let study = Study::measure(&rows, &WAYS.map(|(name, _)| name), |row, column| {
        outlet.sample(&mut io, cases[row], WAYS[column].1, &bytes)
    });
    let chosen = |row: usize| {
        let (count, size) = cases[row];
        Policy::Auto.choose(&spans(outlet.file, count, size, 0))
    };
    let cheapest = |row: usize| {
        let of = |column: &usize| study.median(row, *column, 0);
        let best = (0..WAYS.len()).min_by(|one, other| of(one).total_cmp(&of(other)));
        best.expect("there are ways")
    };
    study.print(
        "egress: CPU µs of the sender for 1 KiB, workers of the ring included",
        "runs",
        0,
        (&["cheapest", "auto takes", "auto costs"], |row| {
            let auto = WAYS.iter().position(|(_, way)| *way == chosen(row));
            let auto = auto.expect("the choice is one of the ways");
            let (best, taken) = (
                study.median(row, cheapest(row), 0),
                study.median(row, auto, 0),
            );
            vec![
                WAYS[cheapest(row)].0.to_owned(),
                WAYS[auto].0.to_owned(),
                format!("× {}", show(taken / best)),
            ]
        }),
    );
    study.print_plain("egress: wall µs a delivery", "runs", 1);
    if !is_smoke() {
        thresholds(&cases, &study);
    }
    smoke_passed("egress", "every way delivers the bytes of the file");
}

/// From which run on a sendfile costs less than a gather, by the number of runs.
fn thresholds(cases: &[(u64, u64)], study: &Study<2>) {
    println!("\nsendfile costs less than gather from runs of");
    for count in COUNTS {
        // The shortest run from which on it is never dearer again.
        let mut from = None;
        for (row, (_, size)) in cases.iter().enumerate().filter(|(_, case)| case.0 == count) {
            let cheaper = study.median(row, 0, 0) < study.median(row, 1, 0);
            from = if cheaper { from.or(Some(*size)) } else { None };
        }
        match from {
            Some(size) => println!("  {} KiB, where there are {count}", size >> 10),
            None => println!("  none that was tried, where there are {count}"),
        }
    }
}

fn spans(file: FileId, count: u64, size: u64, start: u64) -> Vec<Span> {
    let at = |run| (start + run * STRIDE * size) % (FILE_SIZE - size);
    let span = |run| Span {
        file,
        at: at(run),
        len: size as u32,
    };
    (0..count).map(span).collect()
}

/// The far side: takes everything and counts it; keeps it in a smoke run.
struct Peer {
    stream: TcpStream,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    received: AtomicU64,
    cpu_ns: AtomicU64,
    bytes: std::sync::Mutex<Vec<u8>>,
}

impl Peer {
    fn connect(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the ring listens");
        let mut reading = stream.try_clone().expect("a second handle");
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(count @ 1..) = reading.read(&mut buffer) {
                if is_smoke() {
                    let mut bytes = told.bytes.lock().expect("nobody panics with it");
                    bytes.extend_from_slice(&buffer[..count]);
                }
                told.cpu_ns.store(thread_cpu_ns() as u64, Ordering::Relaxed);
                told.received.fetch_add(count as u64, Ordering::Release);
            }
        });
        Self {
            stream,
            shared,
            thread: Some(thread),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// This side: one connection and one file.
struct Outlet {
    socket: SocketId,
    file: FileId,
    peer: Arc<Shared>,
    sent: u64,
    start: u64,
}

impl Outlet {
    fn open(io: &mut Uring, path: std::path::PathBuf, peer: &Peer) -> Self {
        let accept = Op::Accept {
            listener: ListenerId(0),
        };
        let Payload::Accepted(socket, _) = run(io, accept) else {
            panic!("the peer connects")
        };
        let mode = OpenMode::Read;
        let Payload::Opened(file, _) = run(io, Op::Open { path, mode }) else {
            panic!("the file is there")
        };
        Self {
            socket,
            file,
            peer: Arc::clone(&peer.shared),
            sent: 0,
            start: 0,
        }
    }

    /// CPU µs of the sender for 1 KiB, wall µs for a delivery.
    fn sample(
        &mut self,
        io: &mut Uring,
        (count, size): (u64, u64),
        way: Way,
        file: &[u8],
    ) -> [f64; 2] {
        let times = tiny_or(1, ((16 << 20) / (count * size)).clamp(4, 500));
        let mut egress = Egress::new(Policy::Fixed(way), 4);
        // The far side is idle before and after, so that what it used is known.
        let before = (process_cpu_ns(), self.peer.cpu_ns.load(Ordering::Relaxed));
        let start = std::time::Instant::now();
        let mut wanted = Vec::new();
        for _ in 0..times {
            self.start = (self.start + size) % (FILE_SIZE - size);
            let delivery = Delivery {
                head: vec![b'h'; HEAD_SIZE],
                spans: spans(self.file, count, size, self.start),
                hot: true,
                unsettled: None,
            };
            if is_smoke() {
                wanted.extend_from_slice(&delivery.head);
                for span in &delivery.spans {
                    let at = span.at as usize;
                    wanted.extend_from_slice(&file[at..at + span.len as usize]);
                }
            }
            self.deliver(io, &mut egress, delivery);
            self.sent += HEAD_SIZE as u64 + count * size;
        }
        let wall_ns = start.elapsed().as_nanos() as f64;
        while self.peer.received.load(Ordering::Acquire) < self.sent {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let far_ns = self.peer.cpu_ns.load(Ordering::Relaxed) - before.1;
        let cpu_ns = process_cpu_ns() - before.0 - far_ns as f64;
        if is_smoke() {
            let got = std::mem::take(&mut *self.peer.bytes.lock().expect("nobody panics with it"));
            let wrong = (0..wanted.len()).find(|at| got.get(*at) != Some(&wanted[*at]));
            assert_eq!(
                wrong, None,
                "first wrong byte of {count} × {size} by {way:?}"
            );
            assert_eq!(got.len(), wanted.len(), "{count} × {size} by {way:?}");
        }
        let kib = (times * count * size) as f64 / 1024.0;
        [cpu_ns / 1e3 / kib, wall_ns / 1e3 / times as f64]
    }

    fn deliver(&self, io: &mut Uring, egress: &mut Egress, delivery: Delivery) {
        egress.start(io, self.socket, delivery);
        let mut done: Vec<Completion> = Vec::new();
        // A send without copying is told twice: the next sample's deliveries must not hear of this one's.
        let mut lent = 0;
        while !egress.is_empty() || 0 < lent {
            io.turn(1_000_000_000, &mut done).expect("the ring works");
            for done in done.drain(..) {
                match done.more {
                    true => lent += 1,
                    false => lent -= i32::from(0 < lent),
                }
                let progress = egress.complete(io, done);
                assert!(
                    !matches!(progress, Some((_, Progress::Broken(_)))),
                    "{progress:?}"
                );
            }
        }
    }
}

fn run(io: &mut Uring, op: Op) -> Payload {
    const TOKEN: Token = Token(u64::MAX - 1);
    assert!(io.push(TOKEN, op).is_ok(), "the ring is empty");
    let mut done = Vec::new();
    loop {
        io.turn(1_000_000_000, &mut done).expect("the ring works");
        if let Some(at) = done.iter().position(|done| done.token == TOKEN) {
            let done = done.swap_remove(at);
            assert!(done.result.is_ok(), "{:?}", done.result);
            return done.payload;
        }
    }
}

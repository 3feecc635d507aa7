//! The seam means the same on both sides: every check runs on the kernel and on the simulator, and on the
//! kernel also without each of the features that a ring may lack, and without all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corelane::base::{Feature, Features};
use corelane::io::{
    Bell, Completion, End, Errno, FileId, Fill, Io, Lanes, ListenerId, Name, Op, OpenMode, Options,
    Pages, Payload, PipeId, Route, SocketId, Source, Space, Span, Token, Uring, listen, whole,
};
use corelane::sim::{Faults, PeerId, Sim};

/// A seam and the world on its other side.
trait World {
    type Door: Io;
    fn io(&mut self) -> &mut Self::Door;
    fn folder(&self) -> PathBuf;
    fn connect(&mut self) -> usize;
    fn peer_sends(&mut self, peer: usize, bytes: &[u8]);
    fn peer_finishes(&mut self, peer: usize);
    /// Exactly so many bytes that the peer got.
    fn peer_takes(&mut self, peer: usize, count: usize) -> Vec<u8>;
    /// The peer sees that the connection has ended.
    fn peer_sees_end(&mut self, peer: usize) -> bool;
    fn ring(&mut self);
}

struct Real {
    uring: Uring,
    bell: Bell,
    folder: tempfile::TempDir,
    peers: Vec<std::net::TcpStream>,
}

impl Real {
    fn without(masked: Features) -> Self {
        let listener = listen("127.0.0.1:0".parse().unwrap()).expect("a loopback port");
        let lanes = Lanes::start().expect("two threads");
        let options = Options::SMALL.without(masked);
        let uring = Uring::new(options, vec![listener], lanes);
        let uring = uring.expect("io_uring: without it nothing of this broker can be checked");
        Self {
            bell: uring.bell(),
            uring,
            folder: tempfile::tempdir().unwrap(),
            peers: Vec::new(),
        }
    }
}

impl World for Real {
    type Door = Uring;

    fn io(&mut self) -> &mut Uring {
        &mut self.uring
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn connect(&mut self) -> usize {
        let address = self.uring.listener_address(0).unwrap();
        let peer = std::net::TcpStream::connect(address).unwrap();
        let limit = Some(std::time::Duration::from_secs(10));
        peer.set_read_timeout(limit).unwrap();
        self.peers.push(peer);
        self.peers.len() - 1
    }

    fn peer_sends(&mut self, peer: usize, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.peers[peer], bytes).unwrap();
    }

    fn peer_finishes(&mut self, peer: usize) {
        let end = std::net::Shutdown::Write;
        self.peers[peer].shutdown(end).unwrap();
    }

    fn peer_takes(&mut self, peer: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        std::io::Read::read_exact(&mut self.peers[peer], &mut bytes).unwrap();
        bytes
    }

    fn peer_sees_end(&mut self, peer: usize) -> bool {
        matches!(std::io::Read::read(&mut self.peers[peer], &mut [0]), Ok(0))
    }

    fn ring(&mut self) {
        self.bell.ring();
    }
}

struct Simulated {
    sim: Sim,
    peers: Vec<(PeerId, Vec<u8>)>,
}

impl World for Simulated {
    type Door = Sim;

    fn io(&mut self) -> &mut Sim {
        &mut self.sim
    }

    fn folder(&self) -> PathBuf {
        PathBuf::from("/store")
    }

    fn connect(&mut self) -> usize {
        let peer = self.sim.connect(ListenerId(0));
        self.peers.push((peer, Vec::new()));
        self.peers.len() - 1
    }

    fn peer_sends(&mut self, peer: usize, bytes: &[u8]) {
        self.sim.peer_sends(self.peers[peer].0, bytes);
    }

    fn peer_finishes(&mut self, peer: usize) {
        self.sim.peer_finishes(self.peers[peer].0);
    }

    fn peer_takes(&mut self, peer: usize, count: usize) -> Vec<u8> {
        let (peer, got) = &mut self.peers[peer];
        got.extend(self.sim.peer_takes(*peer));
        got.drain(..count).collect()
    }

    fn peer_sees_end(&mut self, peer: usize) -> bool {
        self.sim.is_closed(self.peers[peer].0)
    }

    fn ring(&mut self) {
        self.sim.ring();
    }
}

/// Nothing, each feature alone, all.
fn masks() -> impl Iterator<Item = Features> {
    let alone = Feature::ALL
        .into_iter()
        .map(|it| [it].into_iter().collect());
    let ends = [Features::NONE, Features::all()];
    ends.into_iter().chain(alone)
}

/// Runs a check on the kernel and on several simulated worlds, which differ in order and time.
macro_rules! on_both {
    ($($name:ident: $body:ident;)*) => {$(
        #[test]
        fn $name() {
            for masked in masks() {
                eprintln!("without {masked}");
                $body(&mut Desk::new(Real::without(masked)));
            }
            for seed in 0..200 {
                let sim = Sim::with_faults(seed, Faults::none());
                $body(&mut Desk::new(Simulated { sim, peers: Vec::new() }));
            }
        }
    )*};
}

on_both! {
    files_are_made_written_and_read: files;
    writes_travel_by_each_route: routes;
    cold_reads_find_what_was_written: cold_reads;
    a_gather_without_copying_tells_twice: gathering_without_copying;
    what_is_missing_is_said: missing;
    pieces_are_put_got_and_synced: pieces;
    small_files_are_replaced_and_removed: replacing;
    ranges_are_prepared: preparing;
    a_peer_comes_talks_and_goes: talking;
    a_receive_is_stopped: stopping;
    a_receive_is_stopped_with_bytes_on_the_way: stopping_late;
    files_travel_to_peers: delivering;
    closed_sockets_are_named: closed;
    released_files_are_named: released;
    a_bell_wakes: ringing;
}

/// Gives out tokens and keeps completions until they are asked for.
struct Desk<W: World> {
    world: W,
    next: u64,
    kept: Vec<Completion>,
}

impl<W: World> Desk<W> {
    fn new(world: W) -> Self {
        Self {
            world,
            next: 1,
            kept: Vec::new(),
        }
    }

    fn push(&mut self, op: Op) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.world.io().push(token, op).expect("room for one more");
        token
    }

    /// The next completion of an operation; every wait is bounded.
    fn next_of(&mut self, token: Token) -> Completion {
        for _ in 0..1_000 {
            if let Some(at) = self.kept.iter().position(|done| done.token == token) {
                return self.kept.remove(at);
            }
            let io = self.world.io();
            io.turn(20_000_000, &mut self.kept).unwrap();
        }
        panic!("{token:?} did not complete");
    }

    fn run(&mut self, op: Op) -> Completion {
        let token = self.push(op);
        let done = self.next_of(token);
        assert!(!done.more, "{done:?} is the only one");
        done
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.folder().join(name)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> (FileId, u64) {
        let path = path.to_owned();
        match self.run(Op::Open { path, mode }) {
            Completion {
                result: Ok(0),
                payload: Payload::Opened(file, size),
                ..
            } => (file, size),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, file: FileId, at: u64, bytes: &[u8]) {
        let routes = [Route::Ring, Route::InPlace];
        for (durable, route) in [false, true].into_iter().zip(routes.into_iter().cycle()) {
            self.write_by(file, at, bytes, (durable, route));
        }
    }

    /// The same bytes in one piece, and with some of them set in.
    fn write_by(&mut self, file: FileId, at: u64, bytes: &[u8], (durable, route): (bool, Route)) {
        let (front, back) = (bytes.len() / 4, bytes.len() / 2);
        let elsewhere = Arc::new([b"not these", &bytes[front..back]].concat());
        let mut own = bytes.to_vec();
        own.drain(front..back);
        let mut pieces = Source::of(own);
        pieces.set_in(front, &elsewhere, 9..elsewhere.len());
        for from in [pieces, Source::of(bytes.to_vec())] {
            let buffer = from.buffer().to_vec();
            let done = self.run(Op::Write {
                file,
                at,
                from,
                durable,
                route,
            });
            assert_eq!(done.result, Ok(bytes.len() as u32), "{route:?}");
            assert!(matches!(done.payload, Payload::Buffer(back) if back == buffer));
            assert!(self.read(file, at, bytes.len()) == bytes, "{route:?}");
        }
    }

    /// What a cold read finds.
    fn read_cold(&mut self, file: FileId, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut into = Pages::new(len).unwrap();
        into.set_len(len);
        into.bytes_mut().fill(0xee);
        let done = self.run(Op::ReadCold { file, at, into });
        let Payload::Pages(pages) = done.payload else {
            panic!("a cold read gives its buffer back")
        };
        assert_eq!(pages.bytes().len(), len, "the buffer comes back whole");
        done.result
            .map(|count| pages.bytes()[..count as usize].to_vec())
    }

    /// Count and buffer of a read.
    fn read(&mut self, file: FileId, at: u64, len: usize) -> Vec<u8> {
        let into = vec![0xee; len];
        let done = self.run(Op::Read { file, at, into });
        let (Ok(count), Payload::Buffer(mut bytes)) = (done.result, done.payload) else {
            panic!("a read gives its buffer back")
        };
        assert_eq!(bytes.len(), len, "the buffer comes back whole");
        bytes.truncate(count as usize);
        bytes
    }

    fn get(&mut self, path: &Path, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let path = path.to_owned();
        let done = self.run(Op::Get { path, at, len });
        match (done.result, done.payload) {
            (Ok(count), Payload::Buffer(bytes)) => {
                assert_eq!(count as usize, bytes.len());
                Ok(bytes)
            }
            (Err(errno), _) => Err(errno),
            other => panic!("{other:?}"),
        }
    }

    fn names(&mut self, path: &Path) -> Vec<Name> {
        let path = path.to_owned();
        let done = self.run(Op::List { path });
        match (done.result, done.payload) {
            (Ok(count), Payload::Names(names)) if count as usize == names.len() => names,
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self, op: Op) {
        let what = format!("{op:?}");
        let done = self.run(op);
        assert_eq!(done.result, Ok(0), "{what}");
        assert!(matches!(done.payload, Payload::None), "{what}");
    }

    /// A connected peer, its socket, and the accept that goes on.
    fn pair(&mut self) -> (usize, SocketId, Token) {
        let listener = ListenerId(0);
        let accept = self.push(Op::Accept { listener });
        let (peer, socket) = self.another(accept);
        (peer, socket, accept)
    }

    fn another(&mut self, accept: Token) -> (usize, SocketId) {
        let peer = self.world.connect();
        let done = self.next_of(accept);
        assert!(done.result.is_ok() && done.more, "an accept goes on");
        match done.payload {
            Payload::Accepted(socket, address) => {
                assert!(address.is_ipv4() && address.ip().is_loopback());
                assert_ne!(address.port(), 0);
                (peer, socket)
            }
            other => panic!("{other:?}"),
        }
    }

    /// So many bytes of a receive that goes on.
    fn received(&mut self, receive: Token, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let done = self.next_of(receive);
            let Payload::Received(lease) = done.payload else {
                panic!("{:?} after {} bytes", done.result, bytes.len())
            };
            assert_eq!(done.result, Ok(lease.len() as u32));
            assert!(done.more, "a receive goes on");
            bytes.extend_from_slice(&lease);
        }
        bytes
    }
}

fn files<W: World>(desk: &mut Desk<W>) {
    let path = desk.path("log/deep/00000000000000000000");
    let (file, size) = desk.open(&path, OpenMode::Create { size: 10_000 });
    assert_eq!(size, 10_000);
    assert_eq!(desk.read(file, 0, 4), [0; 4], "grown, sparse");
    desk.write(file, 5_000, b"middle");
    desk.write(file, 9_998, b"beyond");
    assert_eq!(desk.read(file, 4_999, 8), b"\0middle\0");
    assert_eq!(desk.read(file, 9_998, 100), b"beyond", "short at the end");
    assert_eq!(desk.read(file, 20_000, 10), b"", "behind the end");
    let (at, len) = (0, 10_004);
    desk.done(Op::WriteBack { file, at, len });
    desk.done(Op::Sync { file });
    let (again, size) = desk.open(&path, OpenMode::Create { size: 100 });
    assert_eq!(size, 10_004, "a longer file stays as it is");
    desk.done(Op::Release { file: again });
    let (reader, size) = desk.open(&path, OpenMode::Read);
    assert_eq!(
        (size, desk.read(reader, 5_000, 6)),
        (10_004, b"middle".to_vec())
    );
    // An operation in flight keeps the file open.
    let read = desk.push(Op::Read {
        file: reader,
        at: 9_998,
        into: vec![0; 3],
    });
    desk.done(Op::Release { file: reader });
    let read = desk.next_of(read);
    assert!(matches!(read.payload, Payload::Buffer(bytes) if bytes == b"bey"));
    let (writer, _) = desk.open(&path, OpenMode::Write);
    desk.write(writer, 0, b"front");
    assert_eq!(desk.read(file, 0, 5), b"front", "one file, two ids");
    desk.done(Op::Release { file: writer });
    desk.done(Op::Release { file });
    let folder = desk.names(path.parent().unwrap());
    let seen: Vec<_> = folder.iter().map(|it| (it.size, it.is_folder)).collect();
    assert_eq!(seen, [(10_004, false)]);
    assert!(1_500_000_000_000 < folder[0].modified_ms);
    let above = desk.names(&desk.path("log"));
    assert_eq!((above[0].name.as_str(), above[0].is_folder), ("deep", true));
}

fn routes<W: World>(desk: &mut Desk<W>) {
    let (file, _) = desk.open(&desk.path("log/0"), OpenMode::Create { size: 40_960 });
    let page = |byte| vec![byte; 4096];
    for (index, route) in [Route::Ring, Route::InPlace, Route::Direct]
        .into_iter()
        .enumerate()
    {
        for durable in [false, true] {
            let at = (index as u64 * 2 + u64::from(durable)) * 4096;
            let byte = 1 + index as u8 * 2 + u8::from(durable);
            desk.write_by(file, at, &page(byte), (durable, route));
            // Whatever the page cache held of it before.
            assert_eq!(desk.read(file, at, 4096), page(byte), "{route:?}");
        }
    }
    // The last page once more, now that the cache holds it, and a read in between by the other way.
    desk.write_by(file, 5 * 4096, &page(9), (true, Route::Direct));
    assert_eq!(desk.read(file, 5 * 4096, 4096), page(9));
    desk.write_by(file, 5 * 4096, b"over", (false, Route::Ring));
    let mixed = desk.read_cold(file, 5 * 4096, 4096).unwrap();
    assert_eq!((&mixed[..4], &mixed[4..]), (&b"over"[..], &page(9)[4..]));
    for (at, len) in [(100, 4096), (4096, 100)] {
        let done = desk.run(Op::Write {
            file,
            at,
            from: Source::of(vec![1; len]),
            durable: false,
            route: Route::Direct,
        });
        assert_eq!(done.result, Err(Errno::EINVAL), "{len} bytes at {at}");
        assert!(matches!(done.payload, Payload::Buffer(back) if back.len() == len));
    }
    desk.done(Op::Release { file });
}

fn cold_reads<W: World>(desk: &mut Desk<W>) {
    let (file, _) = desk.open(&desk.path("log/0"), OpenMode::Create { size: 10_000 });
    let content: Vec<u8> = (0..10_000u32).map(|n| (n / 3) as u8).collect();
    desk.write(file, 0, &content);
    assert_eq!(desk.read_cold(file, 0, 8192).unwrap(), content[..8192]);
    assert_eq!(desk.read_cold(file, 4096, 8192).unwrap(), content[4096..]);
    assert_eq!(
        desk.read_cold(file, 12_288, 4096).unwrap(),
        b"",
        "behind the end"
    );
    // An operation in flight keeps the file open.
    let read = desk.push(Op::ReadCold {
        file,
        at: 0,
        into: Pages::new(4096).unwrap(),
    });
    desk.done(Op::Release { file });
    assert_eq!(desk.next_of(read).result, Ok(4096));
}

fn gathering_without_copying<W: World>(desk: &mut Desk<W>) {
    let (peer, socket, _accept) = desk.pair();
    let (file, _) = desk.open(&desk.path("log/0"), OpenMode::Create { size: 50_000 });
    let content: Vec<u8> = (0..50_000u32).map(|n| (n / 7) as u8).collect();
    desk.write(file, 0, &content);
    let spans = vec![
        Span {
            file,
            at: 10,
            len: 20_000,
        },
        Span {
            file,
            at: 40_000,
            len: 5,
        },
    ];
    let gather = desk.push(Op::Gather {
        socket,
        head: b"head".to_vec(),
        spans: spans.clone(),
        skip: 1,
        hot: true,
        zero_copy: true,
    });
    let first = desk.next_of(gather);
    assert_eq!(first.result, Ok(20_008));
    // A kernel before 6.1 copies, and tells once.
    let last = if first.more {
        desk.next_of(gather)
    } else {
        first
    };
    assert!(!last.more && last.result.is_ok());
    assert!(matches!(last.payload, Payload::Gathered(head, back)
        if head == b"head" && back == spans));
    let want = [b"ead", &content[10..20_010], &content[40_000..40_005]].concat();
    assert_eq!(desk.world.peer_takes(peer, 20_008), want);
    let refused = desk.run(Op::Gather {
        socket,
        head: Vec::new(),
        spans: vec![Span {
            file,
            at: 49_999,
            len: 2,
        }],
        skip: 0,
        hot: true,
        zero_copy: true,
    });
    assert_eq!(refused.result, Err(Errno::ERANGE), "a refusal comes once");
    desk.done(Op::Release { file });
    desk.done(Op::Close { socket });
}

fn missing<W: World>(desk: &mut Desk<W>) {
    let path = desk.path("nowhere/file");
    for mode in [OpenMode::Read, OpenMode::Write] {
        let path = path.clone();
        let done = desk.run(Op::Open { path, mode });
        assert_eq!(done.result, Err(Errno::ENOENT), "{mode:?}");
    }
    assert_eq!(desk.get(&path, 0, 10), Err(Errno::ENOENT));
    assert_eq!(
        desk.names(&desk.path("nowhere")),
        [],
        "a missing folder is empty"
    );
    let paths = [path.clone()].into();
    desk.done(Op::SyncPaths { paths });
    desk.done(Op::Remove { path });
}

fn pieces<W: World>(desk: &mut Desk<W>) {
    let path = desk.path("queues/topic/0/00000000000000000000");
    let put = |pieces| Op::Put {
        path: path.clone(),
        size: 60,
        pieces,
    };
    desk.done(put(vec![(20, b"second".to_vec()), (0, b"first".to_vec())]));
    assert_eq!(desk.get(&path, 0, 5), Ok(b"first".to_vec()));
    assert_eq!(desk.get(&path, 18, 9), Ok(b"\0\0second\0".to_vec()));
    assert_eq!(desk.get(&path, 55, 100), Ok(vec![0; 5]), "short at its end");
    assert_eq!(desk.get(&path, 100, 5), Ok(Vec::new()), "behind its end");
    desk.done(put(vec![(59, b"longer".to_vec())]));
    assert_eq!(desk.get(&path, 59, 100), Ok(b"longer".to_vec()));
    let others = ["queues/topic/1/a", "queues/b", "queues/none"];
    let mut paths: Vec<PathBuf> = others.iter().map(|name| desk.path(name)).collect();
    for path in paths[..2].iter().cloned() {
        let pieces = vec![(0, b"x".to_vec())];
        let size = 1;
        desk.done(Op::Put { path, size, pieces });
    }
    paths.push(path);
    let paths = paths.into_iter().collect();
    desk.done(Op::SyncPaths { paths });
    let names = desk.names(&desk.path("queues"));
    let names: Vec<_> = names.iter().map(|it| (it.name.as_str(), it.size)).collect();
    assert_eq!(names, [("b", 1), ("topic", 0)], "sorted");
}

fn replacing<W: World>(desk: &mut Desk<W>) {
    let (path, backup) = (
        desk.path("config/topics.json"),
        desk.path("config/topics.bak"),
    );
    let replace = |bytes: &[u8], backup: Option<&PathBuf>| Op::Replace {
        path: path.clone(),
        content: whole(bytes.to_vec()),
        backup: backup.cloned(),
    };
    // More pieces than the kernel takes with one call, empty ones among them and at the end.
    let mut content: Vec<Arc<Vec<u8>>> = (0..3000_u32)
        .map(|number| Arc::new(vec![number as u8; (number % 5) as usize]))
        .collect();
    content.push(Arc::default());
    let wanted = content.iter().flat_map(|piece| piece.to_vec());
    let wanted: Vec<u8> = wanted.collect();
    desk.done(Op::Replace {
        path: path.clone(),
        content,
        backup: None,
    });
    assert_eq!(desk.get(&path, 0, 10_000).unwrap(), wanted);
    desk.done(Op::Remove { path: path.clone() });
    desk.done(replace(b"one, long", Some(&backup)));
    assert_eq!(
        desk.get(&backup, 0, 9),
        Err(Errno::ENOENT),
        "nothing to keep"
    );
    desk.done(replace(b"two", Some(&backup)));
    desk.done(replace(b"three", Some(&backup)));
    assert_eq!(desk.get(&path, 0, 99), Ok(b"three".to_vec()));
    assert_eq!(desk.get(&backup, 0, 99), Ok(b"two".to_vec()));
    desk.done(replace(b"four", None));
    assert_eq!(desk.get(&path, 0, 99), Ok(b"four".to_vec()));
    assert_eq!(desk.get(&backup, 0, 99), Ok(b"two".to_vec()));
    let names = desk.names(&desk.path("config"));
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
    let Payload::Space(Space { total, available }) = desk
        .run(Op::Space {
            path: desk.path("config"),
        })
        .payload
    else {
        panic!("space answers with space")
    };
    assert!(0 < available && available <= total);
    desk.done(Op::Remove { path: backup });
    assert_eq!(desk.names(&desk.path("config")).len(), 1);
    let path = desk.path("config");
    desk.done(Op::Remove { path });
    assert_eq!(desk.names(&desk.path("config")), []);
}

fn preparing<W: World>(desk: &mut Desk<W>) {
    let path = desk.path("log/0");
    let (file, _) = desk.open(&path, OpenMode::Create { size: 100_000 });
    for fill in [Fill::Zeros, Fill::DirectZeros, Fill::Reserve] {
        desk.write(file, 0, &[7; 100_000]);
        let (at, len) = (1_000, 98_000);
        desk.done(Op::Prepare {
            file,
            at,
            len,
            fill,
        });
        let mut want = vec![7; 100_000];
        want[1_000..99_000].fill(0);
        assert_eq!(desk.read(file, 0, 100_000), want, "{fill:?}");
    }
    desk.done(Op::Release { file });
}

fn talking<W: World>(desk: &mut Desk<W>) {
    let (peer, socket, accept) = desk.pair();
    let (second, other) = desk.another(accept);
    assert_ne!(socket, other);
    let receive = desk.push(Op::Receive { socket });
    let deaf = desk.push(Op::Receive { socket: other });
    desk.world.peer_sends(peer, b"hello, ");
    assert_eq!(desk.received(receive, 7), b"hello, ");
    let much: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    desk.world.peer_sends(peer, &much);
    assert_eq!(desk.received(receive, much.len()), much);
    let send = |from: &[u8], skip, more| Op::Send {
        socket,
        from: from.to_vec(),
        skip,
        more,
    };
    let sent = desk.run(send(b"not this: answer", 10, true));
    assert_eq!(sent.result, Ok(6));
    assert!(matches!(sent.payload, Payload::Buffer(back) if back == b"not this: answer"));
    assert_eq!(desk.run(send(b" two", 0, false)).result, Ok(4));
    assert_eq!(desk.world.peer_takes(peer, 10), b"answer two");
    desk.world.peer_finishes(peer);
    let end = desk.next_of(receive);
    assert_eq!(
        (end.result, end.more),
        (Ok(0), false),
        "the peer has finished"
    );
    let sent = desk.run(send(b"still", 0, false));
    assert_eq!(sent.result, Ok(5), "a half-closed peer still listens");
    assert_eq!(desk.world.peer_takes(peer, 5), b"still");
    desk.done(Op::Close { socket });
    assert!(desk.world.peer_sees_end(peer));
    // The receive of a socket that is closed on this side ends too.
    desk.done(Op::Close { socket: other });
    assert!(!desk.next_of(deaf).more);
    assert!(desk.world.peer_sees_end(second));
}

fn stopping<W: World>(desk: &mut Desk<W>) {
    let (peer, socket, _accept) = desk.pair();
    let receive = desk.push(Op::Receive { socket });
    desk.world.peer_sends(peer, b"before");
    assert_eq!(desk.received(receive, 6), b"before");
    desk.done(Op::StopReceive { socket });
    let end = desk.next_of(receive);
    assert_eq!((end.result, end.more), (Err(Errno::ECANCELED), false));
    let again = desk.run(Op::StopReceive { socket });
    assert_eq!(again.result, Err(Errno::ENOENT), "nothing to stop");
    desk.world.peer_sends(peer, b"meanwhile");
    let receive = desk.push(Op::Receive { socket });
    assert_eq!(desk.received(receive, 9), b"meanwhile", "nothing was lost");
    desk.done(Op::Close { socket });
}

/// What came just before the stop is handed over before the end or stays for the next receive, and the end
/// comes although more is sent.
fn stopping_late<W: World>(desk: &mut Desk<W>) {
    let (peer, socket, _accept) = desk.pair();
    let receive = desk.push(Op::Receive { socket });
    desk.world.peer_sends(peer, b"first");
    assert_eq!(desk.received(receive, 5), b"first");
    desk.world.peer_sends(peer, b"second");
    let stop = desk.push(Op::StopReceive { socket });
    let mut bytes = Vec::new();
    loop {
        let done = desk.next_of(receive);
        if !done.more {
            assert_eq!(done.result, Err(Errno::ECANCELED));
            break;
        }
        let Payload::Received(lease) = done.payload else {
            panic!("{done:?}")
        };
        bytes.extend_from_slice(&lease);
    }
    assert!(matches!(
        desk.next_of(stop).result,
        Ok(0) | Err(Errno::ENOENT)
    ));
    desk.world.peer_sends(peer, b", third");
    let receive = desk.push(Op::Receive { socket });
    let left = b"second, third".len() - bytes.len();
    bytes.extend(desk.received(receive, left));
    assert_eq!(bytes, b"second, third", "nothing was lost");
    desk.done(Op::Close { socket });
}

fn delivering<W: World>(desk: &mut Desk<W>) {
    let (peer, socket, _accept) = desk.pair();
    let (file, _) = desk.open(&desk.path("log/0"), OpenMode::Create { size: 50_000 });
    let content: Vec<u8> = (0..50_000u32).map(|n| (n / 7) as u8).collect();
    desk.write(file, 0, &content);
    let span = |at: u64, len| Span { file, at, len };
    let sendfile = |at, len, hot| Op::SendFile {
        socket,
        span: span(at, len),
        hot,
    };
    assert_eq!(desk.run(sendfile(100, 20_000, true)).result, Ok(20_000));
    assert_eq!(desk.world.peer_takes(peer, 20_000), content[100..20_100]);
    assert_eq!(desk.run(sendfile(40_000, 10, false)).result, Ok(10));
    assert_eq!(desk.world.peer_takes(peer, 10), content[40_000..40_010]);
    let gather = |spans: Vec<Span>, skip| Op::Gather {
        socket,
        head: b"head".to_vec(),
        spans,
        skip,
        hot: true,
        zero_copy: false,
    };
    let spans = vec![span(10, 5), span(1_000, 3), span(49_990, 10)];
    let done = desk.run(gather(spans.clone(), 6));
    assert_eq!(done.result, Ok(16));
    assert!(matches!(done.payload, Payload::Gathered(head, back)
        if head == b"head" && back == spans));
    let want = [&content[12..15], &content[1_000..1_003], &content[49_990..]].concat();
    assert_eq!(desk.world.peer_takes(peer, 16), want);
    let done = desk.run(gather(vec![span(49_990, 11)], 0));
    assert_eq!(
        done.result,
        Err(Errno::ERANGE),
        "behind the end of the file"
    );
    let (pipe, mut at) = (End::Pipe(PipeId(0)), 3_000);
    let splice = |from, to, len| Op::Splice {
        from,
        to,
        len,
        more: false,
    };
    while at < 9_000 {
        let left = (9_000 - at) as u32;
        let into = desk
            .run(splice(End::File { file, at }, pipe, left))
            .result
            .unwrap();
        assert!(0 < into && into <= left);
        let mut rest = into;
        while 0 < rest {
            let out = desk
                .run(splice(pipe, End::Socket(socket), rest))
                .result
                .unwrap();
            assert!(0 < out && out <= rest);
            rest -= out;
        }
        at += u64::from(into);
    }
    assert_eq!(desk.world.peer_takes(peer, 6_000), content[3_000..9_000]);
    let moved = desk
        .run(splice(End::File { file, at: 0 }, pipe, 100))
        .result;
    assert!(0 < moved.unwrap());
    desk.done(Op::ClosePipe { pipe: PipeId(0) });
    let into = desk
        .run(splice(End::File { file, at: 500 }, pipe, 100))
        .result;
    let into = into.unwrap();
    let out = desk.run(splice(pipe, End::Socket(socket), into)).result;
    let out = out.unwrap() as usize;
    let sent = desk.world.peer_takes(peer, out);
    assert_eq!(sent, content[500..500 + out], "a closed pipe holds nothing");
    desk.done(Op::Release { file });
    desk.done(Op::Close { socket });
}

fn closed<W: World>(desk: &mut Desk<W>) {
    let (peer, socket, accept) = desk.pair();
    desk.done(Op::Close { socket });
    assert!(desk.world.peer_sees_end(peer));
    let (_, other) = desk.another(accept);
    assert_ne!(socket, other, "an id of a closed socket names nothing");
    let span = Span {
        file: FileId(0),
        at: 0,
        len: 1,
    };
    let hot = true;
    let ops = [
        Op::Receive { socket },
        Op::Close { socket },
        Op::Splice {
            from: End::Pipe(PipeId(0)),
            to: End::Socket(socket),
            len: 1,
            more: false,
        },
        Op::SendFile { socket, span, hot },
    ];
    for op in ops {
        let what = format!("{op:?}");
        assert_eq!(desk.run(op).result, Err(Errno::EBADF), "{what}");
    }
    let from = b"unsent".to_vec();
    let (skip, more) = (0, false);
    let done = desk.run(Op::Send {
        socket,
        from,
        skip,
        more,
    });
    assert_eq!(done.result, Err(Errno::EBADF));
    assert!(matches!(done.payload, Payload::Buffer(back) if back == b"unsent"));
    let done = desk.run(Op::Gather {
        socket,
        head: b"head".to_vec(),
        spans: Vec::new(),
        skip: 0,
        hot,
        zero_copy: false,
    });
    assert_eq!(done.result, Err(Errno::EBADF));
    assert!(matches!(done.payload, Payload::Gathered(head, _) if head == b"head"));
}

fn released<W: World>(desk: &mut Desk<W>) {
    let (_, socket, _accept) = desk.pair();
    let (file, _) = desk.open(&desk.path("log/0"), OpenMode::Create { size: 10_000 });
    desk.done(Op::Release { file });
    let (other, _) = desk.open(&desk.path("log/1"), OpenMode::Create { size: 10_000 });
    assert_ne!(file, other, "an id of a released file names nothing");
    let span = Span {
        file,
        at: 0,
        len: 1,
    };
    let (at, len) = (0, 4096);
    let (durable, route) = (false, Route::Direct);
    let ops = [
        Op::SendFile {
            socket,
            span,
            hot: true,
        },
        Op::Gather {
            socket,
            head: b"head".to_vec(),
            spans: vec![span],
            skip: 0,
            hot: true,
            zero_copy: true,
        },
        Op::Splice {
            from: End::File { file, at },
            to: End::Pipe(PipeId(0)),
            len: 1,
            more: false,
        },
        Op::Read {
            file,
            at,
            into: vec![0; 1],
        },
        Op::ReadCold {
            file,
            at,
            into: Pages::new(4096).unwrap(),
        },
        Op::Write {
            file,
            at,
            from: Source::of(vec![0; 4096]),
            durable,
            route,
        },
        Op::Sync { file },
        Op::WriteBack { file, at, len },
        Op::Prepare {
            file,
            at,
            len,
            fill: Fill::Reserve,
        },
        Op::Release { file },
    ];
    for op in ops {
        let what = format!("{op:?}");
        assert_eq!(desk.run(op).result, Err(Errno::EBADF), "{what}");
    }
    assert_eq!(desk.read(other, 0, 4), [0; 4], "the other is untouched");
}

fn ringing<W: World>(desk: &mut Desk<W>) {
    let bell = desk.push(Op::Bell);
    for _ in 0..3 {
        desk.world.ring();
        let done = desk.next_of(bell);
        assert_eq!((done.result, done.more), (Ok(0), true), "a bell goes on");
    }
    // A lane's answer is no ring at the door.
    assert_eq!(desk.names(&desk.path("empty")), []);
    let io = desk.world.io();
    let (before, wall) = (io.now_ns(), io.wall_ms());
    let mut done = Vec::new();
    for _ in 0..3 {
        io.turn(2_000_000, &mut done).unwrap();
    }
    assert!(done.is_empty(), "{done:?}");
    assert!(before + 2_000_000 <= io.now_ns(), "a turn waits");
    assert!(wall <= io.wall_ms());
}

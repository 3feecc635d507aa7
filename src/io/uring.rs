//! The real door: one io_uring of one shard. See kernel-notes/ring-setup.md.
#![allow(unsafe_code)]

mod arming;
mod closing;
pub(super) mod entering;
pub(super) mod features;
mod files;
mod options;
mod pipes;
pub(super) mod probe;
mod releasing;
mod sending;
mod spin;
mod waiting;

use std::collections::VecDeque;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::bell::Bell;
use super::buffers::BufferRing;
use super::clock::Clock;
use super::lane::{Finished, Inbox, Lanes, Outcome, Work};
use super::mapping::Mapped;
use super::pages::Pages;
use super::setup::SetupError;
use super::{
    Completion, FileId, FileTable, Io, ListenerId, Op, OwnCalls, Payload, SocketId, Token,
};
use crate::base::{Key, Slab};
use entering::Door;
use features::{AtOpen, InUse};
use files::{Apart, Bounce, ColdRead, Gathering, InPlace};
pub use options::Options;
use sending::Gather;
use spin::Spin;

/// `user_data` of the ring's own poll on its bell; no key has all bits set.
const BELL: u64 = u64::MAX;

/// One io_uring, its sockets and files, and everything that the kernel borrows.
pub struct Uring {
    door: Door,
    ring: IoUring,
    features: InUse,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Owns every buffer the kernel may touch. A flight leaves only when its last completion arrived.
    flights: Slab<Flight>,
    in_flight_max: usize,
    /// Operations that this thread runs itself, at the start of the next turn.
    direct: VecDeque<Key>,
    own_calls: OwnCalls,
    /// Completions that are not the kernel's.
    ready: Vec<Completion>,
    listeners: Vec<TcpListener>,
    sockets: Slab<Rc<Socket>>,
    files: FileTable<Rc<OpenFile>>,
    /// Released, and perhaps still in use.
    leaving: Vec<Rc<OpenFile>>,
    pipes: Vec<Option<(OwnedFd, OwnedFd)>>,
    buffers: Rc<BufferRing>,
    bounce: Bounce,
    lanes: Lanes,
    inbox: Inbox,
    finished: Vec<Finished>,
    bell: Bell,
    bell_flight: Option<Key>,
    clock: Clock,
    spin: Spin,
    /// When the last sleep began.
    slept_from_ns: u64,
    /// Operations in flight that another thread of this CPU may have to run: nobody spins in its way.
    elsewhere: usize,
    /// See [`Options::workers_first`].
    workers_first: bool,
    /// Everything is cancelled, nothing is armed again.
    closing: bool,
}

struct Socket {
    fd: OwnedFd,
    /// The receive in flight, for its cancellation.
    receiving: std::cell::Cell<Option<Key>>,
    /// It is being cancelled.
    stopping: std::cell::Cell<bool>,
}

struct OpenFile {
    file: Arc<File>,
    map: Mapped,
    apart: Apart,
}

struct Flight {
    token: Token,
    /// Keeps the descriptor open while the kernel uses it, even if it was closed meanwhile.
    _socket: Option<Rc<Socket>>,
    /// Likewise, and its map.
    _file: Vec<Rc<OpenFile>>,
    borrowed: Borrowed,
    /// Counted in [`Uring::elsewhere`].
    elsewhere: bool,
}

/// What an operation in flight owns.
enum Borrowed {
    Nothing,
    Accept(ListenerId),
    Receive(Rc<Socket>),
    Buffer(Vec<u8>),
    /// A write of several pieces.
    GatheredWrite(Box<Gathering>),
    /// A write past the page cache: the pages that travel, the buffer that comes back.
    DirectWrite(Pages, Vec<u8>),
    ColdRead(Box<ColdRead>),
    InPlace(Box<InPlace>),
    Gather(Box<Gather>),
    SendFile {
        socket: Rc<Socket>,
        file: Rc<OpenFile>,
        at: u64,
        left: u64,
        sent: u64,
        hot: bool,
    },
    Lane,
    Bell,
}

impl Uring {
    /// Opens a ring on the thread that will use it.
    pub fn new(
        options: Options,
        listeners: Vec<TcpListener>,
        lanes: Lanes,
    ) -> Result<Self, SetupError> {
        let allowed = probe::allowed(options.without)?;
        let (ring, door) = AtOpen::of(allowed)
            .open(options.entries)
            .map_err(|err| SetupError::of("set up io_uring", &err))?;
        let buffers = BufferRing::new(options.buffer_count, options.buffer_size)
            .map_err(|err| SetupError::of("take memory for receive buffers", &err))?;
        // SAFETY: the ring memory is owned by `buffers`, which this struct keeps until the ring,
        // declared before it, was dropped.
        let registered = unsafe { buffers.register(&ring) };
        registered.map_err(|err| SetupError::of("register receive buffers with io_uring", &err))?;
        let bell = Bell::new()
            .map_err(|errno| SetupError::of("make an eventfd", &std::io::Error::from(errno)))?;
        let mut uring = Self {
            door,
            ring,
            features: InUse::of(allowed),
            backlog: VecDeque::new(),
            flights: Slab::default(),
            in_flight_max: options.in_flight_max,
            direct: VecDeque::new(),
            ready: Vec::new(),
            listeners,
            sockets: Slab::default(),
            files: FileTable::default(),
            leaving: Vec::new(),
            own_calls: OwnCalls::default(),
            pipes: Vec::new(),
            buffers,
            bounce: Bounce::default(),
            lanes,
            inbox: Inbox::new(bell.clone()),
            finished: Vec::new(),
            bell,
            bell_flight: None,
            clock: Clock::start(),
            spin: Spin::new(options.spin_ns_max),
            slept_from_ns: 0,
            elsewhere: 0,
            workers_first: options.workers_first,
            closing: false,
        };
        uring.watch_bell();
        Ok(uring)
    }

    /// A handle for other threads.
    #[must_use]
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    fn watch_bell(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.bell.fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(BELL);
        self.backlog.push_back(entry);
    }

    fn socket(&self, socket: SocketId) -> Option<Rc<Socket>> {
        self.sockets.get(Key::from_u64(socket.0)).cloned()
    }

    fn file(&self, file: FileId) -> Option<Rc<OpenFile>> {
        self.files.get(file).cloned()
    }

    fn fail(&mut self, token: Token, errno: Errno, payload: Payload) {
        self.ready.push(Completion {
            token,
            result: Err(errno),
            more: false,
            payload,
        });
    }

    fn fly(&mut self, token: Token, borrowed: Borrowed) -> Key {
        self.flights.insert(Flight {
            token,
            _socket: None,
            _file: Vec::new(),
            borrowed,
            elsewhere: false,
        })
    }

    fn fly_elsewhere(&mut self, token: Token, borrowed: Borrowed) -> Key {
        let key = self.fly(token, borrowed);
        self.elsewhere += 1;
        self.flights
            .get_mut(key)
            .expect("was inserted just now")
            .elsewhere = true;
        key
    }

    fn end_flight(&mut self, key: Key) -> Flight {
        let flight = self.flights.remove(key).expect("a flight ends once");
        self.elsewhere -= usize::from(flight.elsewhere);
        flight
    }

    fn submit(&mut self, key: Key, entry: squeue::Entry) {
        self.backlog.push_back(entry.user_data(key.to_u64()));
    }

    fn push_socket(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept { listener } => self.push_accept(token, listener),
            Op::Receive { socket } => self.push_receive(token, socket),
            Op::StopReceive { socket } => self.push_stop_receive(token, socket),
            Op::Send {
                socket,
                from,
                skip,
                more,
            } => {
                let Some(open) = self.socket(socket) else {
                    return self.fail(token, Errno::EBADF, Payload::Buffer(from));
                };
                let fd = types::Fd(open.fd.as_raw_fd());
                let rest = &from[skip..];
                let flags =
                    libc::MSG_NOSIGNAL | libc::MSG_WAITALL | if more { libc::MSG_MORE } else { 0 };
                let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32)
                    .flags(flags)
                    .build();
                let key = self.fly(token, Borrowed::Buffer(from));
                self.keep_socket(key, open);
                self.submit(key, entry);
            }
            Op::Close { socket } => {
                let Some(open) = self.sockets.remove(Key::from_u64(socket.0)) else {
                    return self.fail(token, Errno::EBADF, Payload::None);
                };
                let fd = types::Fd(open.fd.as_raw_fd());
                let key = self.fly(token, Borrowed::Nothing);
                self.keep_socket(key, open);
                self.submit(key, opcode::Shutdown::new(fd, libc::SHUT_RDWR).build());
            }
            other => unreachable!("{other:?} is not of a socket"),
        }
    }

    fn keep_socket(&mut self, key: Key, socket: Rc<Socket>) {
        self.flights
            .get_mut(key)
            .expect("was inserted just now")
            ._socket = Some(socket);
    }

    fn keep_file(&mut self, key: Key, file: Rc<OpenFile>) {
        self.flights
            .get_mut(key)
            .expect("was inserted just now")
            ._file
            .push(file);
    }

    fn push_lane(&mut self, token: Token, work: Work) {
        let key = self.fly_elsewhere(token, Borrowed::Lane);
        self.lanes.send(key.to_u64(), work, &self.inbox);
    }

    /// What names a path and not an open file.
    fn push_path(&mut self, token: Token, op: Op) {
        match op {
            Op::List { path } => self.push_lane(token, Work::List { path }),
            Op::Get { path, at, len } => self.push_lane(token, Work::Get { path, at, len }),
            Op::Put { path, size, pieces } => {
                self.push_lane(token, Work::Put { path, size, pieces });
            }
            Op::SyncPaths { paths } => self.push_lane(token, Work::SyncPaths { paths }),
            Op::Replace {
                path,
                content,
                backup,
            } => {
                self.push_lane(
                    token,
                    Work::Replace {
                        path,
                        content,
                        backup,
                    },
                );
            }
            Op::Remove { path } => self.push_lane(token, Work::Remove { path }),
            Op::Space { path } => self.push_lane(token, Work::Space { path }),
            other => unreachable!("{other:?} names no path"),
        }
    }

    /// Ends a flight that has no completion of the kernel.
    fn land(&mut self, key: Key, result: Result<u32, Errno>) {
        let flight = self.end_flight(key);
        self.ready.push(Completion {
            token: flight.token,
            result,
            more: false,
            payload: Payload::None,
        });
    }

    fn answer_bell(&mut self, done: &mut Vec<Completion>) {
        let rung = self.bell.answer();
        let mut finished = std::mem::take(&mut self.finished);
        self.inbox.take(&mut finished);
        for (key, outcome) in finished.drain(..) {
            let flight = self.end_flight(Key::from_u64(key));
            let (result, payload) = match outcome {
                Err(errno) => (Err(errno), Payload::None),
                Ok(Outcome::Done) => (Ok(0), Payload::None),
                Ok(Outcome::File(file, size)) => match self.take_in_file(file) {
                    Some(file) => (Ok(0), Payload::Opened(file, size)),
                    None => (Err(Errno::EMFILE), Payload::None),
                },
                Ok(Outcome::Bytes(bytes)) => (Ok(bytes.len() as u32), Payload::Buffer(bytes)),
                Ok(Outcome::Names(names)) => (Ok(names.len() as u32), Payload::Names(names)),
                Ok(Outcome::Space(space)) => (Ok(0), Payload::Space(space)),
            };
            done.push(Completion {
                token: flight.token,
                result,
                more: false,
                payload,
            });
        }
        self.finished = finished;
        if rung && let Some(flight) = self.bell_flight.and_then(|key| self.flights.get(key)) {
            done.push(Completion {
                token: flight.token,
                result: Ok(0),
                more: true,
                payload: Payload::None,
            });
        }
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        let mut bell_rang = false;
        loop {
            let Some(entry) = self.ring.completion().next() else {
                break;
            };
            if entry.user_data() == BELL {
                bell_rang = true;
                if !cqueue::more(entry.flags()) && !self.closing {
                    self.watch_bell();
                }
                continue;
            }
            self.complete(&entry, done);
        }
        if bell_rang {
            self.answer_bell(done);
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry, done: &mut Vec<Completion>) {
        let key = Key::from_u64(entry.user_data());
        let result = u32::try_from(entry.result()).map_err(|_| Errno::from_raw(-entry.result()));
        let more = cqueue::more(entry.flags()) || self.arm_again(key, result);
        let flight = self
            .flights
            .get(key)
            .expect("a completion has an operation in flight");
        if matches!(flight.borrowed, Borrowed::SendFile { .. }) {
            self.direct.push_back(key); // The poll says that there is room, or an error to be met.
            return;
        }
        if more {
            let token = flight.token;
            let payload = match &flight.borrowed {
                Borrowed::Accept(_) => self.accepted(result),
                Borrowed::Receive(_) => {
                    self.spin.heard(key.to_u64());
                    self.received(entry, result)
                }
                _ => Payload::None,
            };
            done.push(Completion {
                token,
                result,
                more,
                payload,
            });
            return self.end_stopped(key);
        }
        if self.tries_again(key, result) {
            return;
        }
        let flight = self.end_flight(key);
        let payload = match flight.borrowed {
            Borrowed::Accept(_) => self.accepted(result),
            Borrowed::Receive(socket) => {
                socket.receiving.set(None);
                self.received(entry, result)
            }
            Borrowed::Buffer(buffer) => Payload::Buffer(buffer),
            Borrowed::GatheredWrite(write) => Payload::Buffer(write.from.into_buffer()),
            Borrowed::DirectWrite(pages, from) => {
                self.bounce.give_back(pages);
                Payload::Buffer(from)
            }
            Borrowed::ColdRead(read) => Payload::Pages(read.into),
            Borrowed::Gather(gather) => Payload::Gathered(gather.head, gather.spans),
            _ => Payload::None,
        };
        done.push(Completion {
            token: flight.token,
            result,
            more,
            payload,
        });
    }

    /// Where a listener really listens, for port 0.
    #[must_use]
    pub fn listener_address(&self, listener: usize) -> Option<SocketAddr> {
        self.listeners
            .get(listener)
            .and_then(|socket| socket.local_addr().ok())
    }
}

impl Io for Uring {
    fn push(&mut self, token: Token, op: Op) -> Result<(), Op> {
        if self.in_flight_max <= self.flights.len() {
            return Err(op);
        }
        match op {
            Op::Accept { .. }
            | Op::Receive { .. }
            | Op::StopReceive { .. }
            | Op::Send { .. }
            | Op::Close { .. } => self.push_socket(token, op),
            Op::Gather { .. } => self.push_gather(token, op),
            Op::SendFile { socket, span, hot } => self.push_sendfile(token, socket, span, hot),
            Op::Splice {
                from,
                to,
                len,
                more,
            } => self.push_splice(token, from, to, len, more),
            Op::Write {
                file,
                at,
                from,
                durable,
                route,
            } => self.push_write(token, (file, at), from, durable, route),
            Op::ReadCold { file, at, into } => self.push_cold_read(token, (file, at), into),
            Op::Read { .. } | Op::Sync { .. } | Op::WriteBack { .. } => {
                self.push_file(token, op);
            }
            Op::ClosePipe { pipe } => self.close_pipe(token, pipe),
            Op::Release { file } => self.release(token, file),
            Op::Open { path, mode } => self.push_lane(token, Work::Open { path, mode }),
            Op::Prepare {
                file,
                at,
                len,
                fill,
            } => {
                let Some(open) = self.file(file) else {
                    self.fail(token, Errno::EBADF, Payload::None);
                    return Ok(());
                };
                let file = Arc::clone(&open.file);
                let work = Work::Prepare {
                    file,
                    at,
                    len,
                    fill,
                };
                self.push_lane(token, work);
            }
            Op::Bell => {
                assert!(self.bell_flight.is_none(), "one bell a ring");
                self.bell_flight = Some(self.fly(token, Borrowed::Bell));
            }
            other => self.push_path(token, other),
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Errno> {
        self.fill_queue();
        self.enter(0, 0)
    }

    fn turn(&mut self, wait_ns: u64, done: &mut Vec<Completion>) -> Result<(), Errno> {
        self.run_direct();
        self.fill_queue();
        self.buffers.offer();
        let nothing_else =
            self.ready.is_empty() && self.direct.is_empty() && self.backlog.is_empty();
        self.wait(if nothing_else { wait_ns } else { 0 })?;
        self.clock.tick();
        self.reap(done);
        done.append(&mut self.ready);
        self.let_go();
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn look_ns(&self) -> u64 {
        self.clock.look_ns()
    }

    fn own_calls(&self) -> OwnCalls {
        self.own_calls
    }

    fn holds(&mut self, file: FileId, at: u64, len: u64) -> bool {
        self.is_in_cache(file, at, len)
    }

    fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}

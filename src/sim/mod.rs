//! The same seam as `io`, made of a seed: one seed, one history.
//!
//! Laws: a sync promises only what was complete when it was pushed; after a power cut each unsynced
//! sector survives or not, whole or torn, and unsynced names and sizes too; operations complete in any
//! order; after EIO on a sync pages may be lost though reads still show them. Nothing here depends on
//! a wall clock or on the order of hashes.

mod disk;
mod faults;
mod files;
mod inode;
mod net;
mod sockets;

use std::path::Path;

pub use faults::Faults;
pub use net::PeerId;

use crate::base::Prng;
use crate::io::{
    Completion, End, Errno, FileId, FileTable, Io, ListenerId, Op, OpenMode, OwnCalls, Payload,
    Token,
};
use disk::{Disk, PathsFlush};
use inode::Flush;
use net::Net;

/// Wall time of the start of every history: a day in November 2026.
const WALL_START_MS: u64 = 1_795_243_105_000;

/// A turn without an event ends after this long, however long it was told to wait.
const IDLE_NS_MAX: u64 = 1_000_000_000;

/// Operations in flight at most.
const IN_FLIGHT_MAX: usize = 1 << 16;

/// A kernel in memory, with files that outlive the process and faults that follow a seed.
#[derive(Debug)]
pub struct Sim {
    prng: Prng,
    faults: Faults,
    disk: Disk,
    net: Net,
    flights: Vec<Flight>,
    /// Completions of what never took off.
    ready: Vec<Completion>,
    files: FileTable<Handle>,
    rung: bool,
    now_ns: u64,
    wall_start_ms: u64,
    trace: u64,
}

#[derive(Debug, Clone, Copy)]
struct Handle {
    inode: usize,
    writable: bool,
}

#[derive(Debug)]
struct Flight {
    token: Token,
    op: Op,
    due_ns: u64,
    /// Files of the operation, in its order: it keeps them open.
    inodes: Vec<usize>,
    promise: Promise,
}

/// What a sync found complete when it was pushed.
#[derive(Debug)]
enum Promise {
    None,
    File(Flush),
    Paths(PathsFlush),
}

impl Sim {
    /// A history with the faults that its seed draws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut prng = Prng::from_seed(seed);
        let faults = Faults::drawn(&mut prng);
        Self::with_faults(prng.next_u64(), faults)
    }

    /// A history with these faults.
    #[must_use]
    pub fn with_faults(seed: u64, faults: Faults) -> Self {
        let mut sim = Self {
            prng: Prng::from_seed(seed),
            faults: Faults::none(),
            disk: Disk::default(),
            net: Net::default(),
            flights: Vec::new(),
            ready: Vec::new(),
            files: FileTable::default(),
            rung: false,
            now_ns: 1_000_000_000,
            wall_start_ms: WALL_START_MS,
            trace: 0,
        };
        sim.set_faults(faults);
        sim
    }

    /// From now on these faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.disk.capacity = faults.capacity;
        self.faults = faults;
    }

    /// The faults of now.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// A number that differs as soon as two histories differ.
    #[must_use]
    pub const fn trace(&self) -> u64 {
        self.trace
    }

    /// The process dies at this moment. Operations in flight are done, partly done or not; what was
    /// written is still in the page cache.
    pub fn kill(&mut self) {
        for mut flight in std::mem::take(&mut self.flights) {
            self.break_off(&mut flight);
        }
        self.ready.clear();
        self.files.clear();
        self.net.hang_up();
        self.rung = false;
        self.now_ns += 1_000_000;
    }

    /// The power goes at this moment.
    pub fn crash(&mut self) {
        self.kill();
        self.disk.crash(&mut self.prng);
    }

    /// One bit of a file rots on the disk.
    pub fn flip_bit(&mut self, path: &Path, at: u64, bit: u32) {
        self.disk.flip(path, at, bit % 8);
    }

    /// The wall clock jumps ahead, as after a machine was off.
    pub const fn jump_wall(&mut self, ms: u64) {
        self.wall_start_ms += ms;
    }

    /// A peer connects to a listener.
    pub fn connect(&mut self, listener: ListenerId) -> PeerId {
        self.net.connect(listener)
    }

    /// A peer sends bytes.
    pub fn peer_sends(&mut self, peer: PeerId, bytes: &[u8]) {
        self.net.peer_sends(peer, bytes);
    }

    /// A peer has nothing more to send.
    pub fn peer_finishes(&mut self, peer: PeerId) {
        self.net.peer_finishes(peer);
    }

    /// What a peer has received since it was last asked.
    pub fn peer_takes(&mut self, peer: PeerId) -> Vec<u8> {
        self.net.peer_takes(peer)
    }

    /// Whether the connection was closed on the broker's side.
    #[must_use]
    pub fn is_closed(&self, peer: PeerId) -> bool {
        self.net.is_closed(peer)
    }

    /// Another thread rings.
    pub const fn ring(&mut self) {
        self.rung = true;
    }

    /// Operations in flight that hold a buffer of the caller; 0 before the seam is dropped.
    #[must_use]
    pub fn lent(&self) -> usize {
        let lends = |flight: &&Flight| {
            matches!(
                flight.op,
                Op::Read { .. }
                    | Op::ReadCold { .. }
                    | Op::Write { .. }
                    | Op::Send { .. }
                    | Op::Gather { .. }
            )
        };
        self.flights.iter().filter(lends).count()
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        of_thousand != 0 && self.prng.chance(of_thousand, 1000)
    }

    /// Of a file that is open: what names others was refused.
    fn handle(&self, file: FileId) -> Handle {
        *self
            .files
            .get(file)
            .expect("an operation on a released file is refused")
    }

    /// A count as the kernel might give it.
    fn count(&mut self, all: usize) -> usize {
        if 1 < all && self.chance(self.faults.short) {
            1 + self.prng.below(all as u64 - 1) as usize
        } else {
            all
        }
    }

    /// Files that an operation uses, and what it may promise.
    fn hold(&self, op: &Op) -> (Vec<usize>, Promise) {
        let inode = |file: &FileId| self.handle(*file).inode;
        match op {
            Op::Sync { file } => {
                let inode = inode(file);
                (vec![inode], Promise::File(self.disk.inode(inode).flush()))
            }
            Op::SyncPaths { paths } => (Vec::new(), Promise::Paths(self.disk.paths_flush(paths))),
            Op::Read { file, .. }
            | Op::ReadCold { file, .. }
            | Op::Write { file, .. }
            | Op::WriteBack { file, .. }
            | Op::Prepare { file, .. } => (vec![inode(file)], Promise::None),
            Op::SendFile { span, .. } => (vec![inode(&span.file)], Promise::None),
            Op::Gather { spans, .. } => {
                let inodes = spans.iter().map(|span| inode(&span.file));
                (inodes.collect(), Promise::None)
            }
            Op::Splice { from, to, .. } => {
                let file = |end: &End| match end {
                    End::File { file, .. } => Some(inode(file)),
                    End::Pipe(_) | End::Socket(_) => None,
                };
                let inodes = [from, to].into_iter().filter_map(file);
                (inodes.collect(), Promise::None)
            }
            _ => (Vec::new(), Promise::None),
        }
    }

    /// The laws about what may be in flight together.
    fn assert_lawful(&self, op: &Op) {
        let twice = |same: &dyn Fn(&Op) -> bool| self.flights.iter().any(|it| same(&it.op));
        match op {
            Op::Accept { listener } => assert!(
                !twice(&|other| matches!(other, Op::Accept { listener: it } if it == listener)),
                "one accept a listener"
            ),
            Op::Receive { socket } => assert!(
                !twice(&|other| matches!(other, Op::Receive { socket: it } if it == socket)),
                "one receive a socket"
            ),
            Op::Bell => assert!(
                !twice(&|other| matches!(other, Op::Bell)),
                "one bell a ring"
            ),
            Op::Gather { spans, .. } => assert!(
                spans.len() <= crate::io::GATHER_SPANS_MAX,
                "a gather of {} spans",
                spans.len()
            ),
            Op::Write { file, .. } | Op::Prepare { file, .. } => assert!(
                self.handle(*file).writable,
                "a file that was opened for reading is not written"
            ),
            _ => (),
        }
    }

    fn opened(&mut self, inode: usize, mode: OpenMode) -> FileId {
        let handle = Handle {
            inode,
            writable: mode != OpenMode::Read,
        };
        self.files.insert(handle).expect("few files are open")
    }

    /// Whether an operation could complete now, time aside.
    fn is_able(&self, op: &Op) -> bool {
        match op {
            Op::Accept { listener } => self.net.is_waiting(*listener),
            Op::Receive { socket } => self.net.is_readable(*socket),
            Op::Bell => self.rung,
            Op::Splice { from, to, .. } => {
                let source = match from {
                    End::Pipe(pipe) => 0 < self.net.pipe_len(*pipe),
                    End::Socket(socket) => self.net.is_readable(*socket),
                    End::File { .. } => true,
                };
                source && !matches!(to, End::Pipe(pipe) if self.net.pipe_room(*pipe) == 0)
            }
            _ => true,
        }
    }

    /// Takes a flight that is due, any of them.
    fn take_due(&mut self) -> Option<Flight> {
        let due = |flight: &Flight| flight.due_ns <= self.now_ns && self.is_able(&flight.op);
        let able: Vec<usize> = (0..self.flights.len())
            .filter(|at| due(&self.flights[*at]))
            .collect();
        if able.is_empty() {
            return None;
        }
        let which = able[self.prng.below(able.len() as u64) as usize];
        Some(self.flights.swap_remove(which))
    }

    /// Nothing is due: the clock moves on to what comes next, or as far as the caller waits.
    fn wait(&mut self, wait_ns: u64) {
        let able = self.flights.iter().filter(|it| self.is_able(&it.op));
        let next_ns = able.map(|flight| flight.due_ns).min().unwrap_or(u64::MAX);
        let until_ns = self.now_ns + wait_ns.min(IDLE_NS_MAX);
        self.now_ns = self.now_ns.max(next_ns.min(until_ns));
    }

    fn latency_ns(&mut self) -> u64 {
        1 + self.prng.below(self.faults.latency_ns_max.max(1))
    }

    fn complete(&mut self, mut flight: Flight, done: &mut Vec<Completion>) {
        let op = std::mem::replace(&mut flight.op, Op::Bell);
        let (result, payload, again) = match op {
            op @ (Op::Accept { .. }
            | Op::Receive { .. }
            | Op::StopReceive { .. }
            | Op::Send { .. }
            | Op::SendFile { .. }
            | Op::Gather { .. }
            | Op::Splice { .. }
            | Op::Close { .. }) => self.run_socket(op, &flight.inodes),
            Op::Bell => {
                self.rung = false;
                (Ok(0), Payload::None, Some(Op::Bell))
            }
            op => {
                let (result, payload) = self.run_file(op, &flight.inodes, &flight.promise);
                (result, payload, None)
            }
        };
        self.note(flight.token, result);
        done.push(Completion {
            token: flight.token,
            result,
            more: again.is_some(),
            payload,
        });
        if let Some(op) = again {
            flight.op = op;
            flight.due_ns = self.now_ns + self.latency_ns();
            self.flights.push(flight);
        }
    }

    fn note(&mut self, token: Token, result: Result<u32, Errno>) {
        let result = match result {
            Ok(count) => u64::from(count),
            Err(errno) => u64::MAX - errno as u64,
        };
        for word in [token.0, result, self.now_ns] {
            self.trace = (self.trace ^ word)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(17);
        }
    }
}

impl Io for Sim {
    /// What is pushed is under way already.
    fn begin(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn push(&mut self, token: Token, op: Op) -> Result<(), Op> {
        if IN_FLIGHT_MAX <= self.flights.len() {
            return Err(op);
        }
        let op = match self.refuse(op) {
            Ok((errno, payload)) => {
                self.ready.push(Completion {
                    token,
                    result: Err(errno),
                    more: false,
                    payload,
                });
                return Ok(());
            }
            Err(op) => op,
        };
        self.assert_lawful(&op);
        match op {
            Op::Release { file } => {
                self.files.remove(file);
            }
            Op::ClosePipe { pipe } => self.net.pipe(pipe).clear(),
            _ => (),
        }
        let (inodes, promise) = self.hold(&op);
        let due_ns = self.now_ns + self.latency_ns();
        self.flights.push(Flight {
            token,
            op,
            due_ns,
            inodes,
            promise,
        });
        Ok(())
    }

    fn turn(&mut self, wait_ns: u64, done: &mut Vec<Completion>) -> Result<(), Errno> {
        self.now_ns += 1 + self.prng.below(2_000);
        if self.chance(self.faults.write_back) {
            self.disk.write_back(&mut self.prng);
        }
        let before = done.len();
        for round in 0..2 {
            self.disk.now_ms = self.wall_ms();
            // What a completion lets happen at once belongs to the next turn.
            for _ in 0..self.flights.len() {
                let Some(flight) = self.take_due() else { break };
                self.complete(flight, done);
            }
            done.append(&mut self.ready);
            if round == 0 && done.len() == before && 0 < wait_ns {
                self.wait(wait_ns);
            }
        }
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn look_ns(&self) -> u64 {
        self.now_ns
    }

    fn own_calls(&self) -> OwnCalls {
        OwnCalls::default()
    }

    fn holds(&mut self, _: FileId, _: u64, _: u64) -> bool {
        !self.chance(self.faults.cold)
    }

    fn wall_ms(&self) -> u64 {
        self.wall_start_ms + self.now_ns / 1_000_000
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // A test that fails in the middle says why itself.
        if self
            .flights
            .iter()
            .any(|flight| !matches!(flight.op, Op::Bell))
            && self.lent() != 0
        {
            tracing::error!(operations = self.lent(), "dropped with buffers lent");
            debug_assert!(std::thread::panicking(), "dropped with buffers lent");
        }
    }
}

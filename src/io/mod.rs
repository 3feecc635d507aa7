//! The only door to the kernel.
//!
//! [`Uring`] is the real door, `sim::Sim` the reproducible one. Everything above this room is written
//! against [`Io`], so the same broker runs on both.
//!
//! Laws, asserted on both sides:
//! 1. What the kernel borrows, the operation owns; it comes back once, in the completion.
//! 2. [`Completion::more`] = the kernel still holds something (multishot).
//! 3. Completions arrive in any order. Who needs order waits.
//! 4. The seam is never dropped with operations in flight.
//! 5. No default methods. A new operation enters the ring and the simulator in the same commit.

mod bell;
mod buffers;
mod clock;
mod direct;
mod file_table;
mod file_trial;
mod host;
mod lane;
mod lease;
mod mapping;
mod pages;
mod residency;
mod ring_trial;
mod setup;
mod source;
mod trial;
mod trial_file;
mod uring;

use std::collections::BTreeSet;
use std::net::SocketAddr;
pub use std::net::TcpListener;
use std::path::PathBuf;

pub use nix::errno::Errno;

pub use bell::Bell;
pub use clock::local_hour;
pub(crate) use file_table::FileTable;
pub use file_trial::{FileTrial, files_in_force, try_files};
pub use host::{Limit, Place, Tree, Unseen, clock_read_ns, limits, place};
pub use lane::{Lanes, read_small};
pub use lease::Lease;
pub use pages::{PAGE_SIZE, Pages};
pub use ring_trial::{RingTrial, in_force, try_rings};
pub use setup::{
    FolderLock, SetupError, allowed_cpus, device_of, listen, lock_folder, memory_size, pin,
    prove_writable, raise_file_limit, raise_priority, replace_small, ring_writes_at_once,
    take_short_turns,
};
pub use source::Source;
pub use trial::{DiskTrial, SYNC_SIZES, SyncWay, Times, TrialError, time_sync_ways, try_disk};
pub use uring::probe::{Found, RingNeed};
pub use uring::{Options, Uring};

/// Queue operations, then take a turn. `push` never enters the kernel; `turn` enters it once.
pub trait Io {
    /// Queues one operation, or gives it back when the bound of operations in flight is reached.
    fn push(&mut self, token: Token, op: Op) -> Result<(), Op>;

    /// Submits what is queued and does not wait: for what others wait for while this thread has work.
    fn begin(&mut self) -> Result<(), Errno>;

    /// Submits what is queued, waits at most `wait_ns` for the first completion, appends all that
    /// have arrived to `done`.
    fn turn(&mut self, wait_ns: u64, done: &mut Vec<Completion>) -> Result<(), Errno>;

    /// Nanoseconds since an arbitrary start, as of the last turn. The only clock that decides.
    fn now_ns(&self) -> u64;

    /// The same clock at this moment, for measuring what a turn does.
    fn look_ns(&self) -> u64;

    /// What this thread did itself in the last turn, before it waited: operations without a thread of the kernel.
    fn own_calls(&self) -> OwnCalls;

    /// Whether the page cache holds all of a range of a file at this moment; what nobody can say is a no. Neither
    /// waits nor reads.
    fn holds(&mut self, file: FileId, at: u64, len: u64) -> bool;

    /// Milliseconds since 1970, as of the last turn, for what the formats define in wall time. Never goes back.
    fn wall_ms(&self) -> u64;
}

/// Calls that hold a turn as long as the kernel takes for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnCalls {
    /// All of them together, nanoseconds.
    pub took_ns: u64,
    /// Writes in place ([`Route::InPlace`]).
    pub writes: u32,
    /// Sends from the page cache ([`Op::SendFile`]).
    pub sends: u32,
}

/// Names an operation in flight. Rooms give tokens a meaning; the seam only carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// A token of a room (one byte, see `broker/worker.rs`) with the room's own 56 bits.
    #[must_use]
    pub const fn of(room: u8, rest: u64) -> Self {
        assert!(rest < 1 << 56);
        Self(((room as u64) << 56) | rest)
    }

    /// Whose completion this is.
    #[must_use]
    pub const fn room(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The room's own bits.
    #[must_use]
    pub const fn rest(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }
}

/// An open file. After its [`Op::Release`] it names nothing: operations on it complete with EBADF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A listening socket, in the order in which they were given at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// A connected peer: slot and generation, so that an id of a closed socket names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A pipe of the shard, for splicing; made at first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeId(pub u32);

/// A part of a file. The shard answers with spans; only egress knows how their bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The segment.
    pub file: FileId,
    /// Byte position in it.
    pub at: u64,
    /// Bytes.
    pub len: u32,
}

/// One end of a splice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A byte position of a file.
    File {
        /// The segment.
        file: FileId,
        /// Byte position in it.
        at: u64,
    },
    /// A pipe of this shard.
    Pipe(PipeId),
    /// A connected peer.
    Socket(SocketId),
}

/// How a range comes to read as zeros; see kernel-notes/preallocation.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Zeros are written through the page cache, whatever is there.
    Zeros,
    /// Zeros are written past the page cache where the file system can: they cost neither memory nor much
    /// of a CPU. For a range that nobody has read or written. As with [`Self::Zeros`], a sync of what is
    /// later written over them commits no journal.
    DirectZeros,
    /// Blocks are reserved, which costs next to nothing; the sync that first covers what is written there
    /// commits the journal. Where the file system cannot, zeros are written.
    Reserve,
}

/// How the bytes of an [`Op::Write`] reach their file; see kernel-notes/write-and-sync.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Into the page cache, through the ring: the shard goes on meanwhile. ext4 hands each such write to a worker.
    Ring,
    /// Into the page cache, by a call of the shard's own thread at the start of the next turn: no worker, no
    /// switch, but the shard stands still as long as the kernel takes.
    InPlace,
    /// Past the page cache, through the ring. Position and length are multiples of [`PAGE_SIZE`]. Where
    /// the file system cannot: as [`Self::Ring`].
    Direct,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must be there; for reading only.
    Read,
    /// It must be there; for reading and writing.
    Write,
    /// Made if missing (its folders too, each made durable), and grown (sparse) to this many bytes.
    Create {
        /// Bytes; a file that is longer stays as it is.
        size: u64,
    },
}

/// A file's bytes in pieces, one behind the other. Who makes them may keep them too: what is large and replaced often is not copied
/// each time.
pub type Content = Vec<std::sync::Arc<Vec<u8>>>;

/// Bytes that are one piece.
#[must_use]
pub fn whole(bytes: Vec<u8>) -> Content {
    vec![std::sync::Arc::new(bytes)]
}

/// One request to the kernel. What it names is what the kernel borrows.
#[derive(Debug)]
pub enum Op {
    /// Multishot: one completion a peer, [`Payload::Accepted`].
    Accept {
        /// Where.
        listener: ListenerId,
    },
    /// Multishot: one completion a piece, [`Payload::Received`]; result 0 = the peer has finished.
    /// ENOBUFS ends it without loss: ask again.
    Receive {
        /// From whom.
        socket: SocketId,
    },
    /// Ends the [`Op::Receive`] of a socket, which then completes with ECANCELED.
    StopReceive {
        /// Of whom.
        socket: SocketId,
    },
    /// Sends `from[skip..]`; `more` holds the last piece of a segment back for what follows.
    Send {
        /// To whom.
        socket: SocketId,
        /// Comes back in the completion.
        from: Vec<u8>,
        /// Bytes at the front that were sent already.
        skip: usize,
        /// Something follows at once.
        more: bool,
    },
    /// Page cache to socket in the kernel (sendfile). EAGAIN: the range is not resident.
    SendFile {
        /// To whom.
        socket: SocketId,
        /// What.
        span: Span,
        /// Known to be in the page cache: residency is not asked for.
        hot: bool,
    },
    /// Sends `head[skip..]` and then the spans, gathered by the kernel from a read-only map
    /// (sendmsg). EAGAIN: something is not resident. `skip` counts over head and spans.
    Gather {
        /// To whom.
        socket: SocketId,
        /// Comes back in the completion.
        head: Vec<u8>,
        /// At most [`GATHER_SPANS_MAX`]; come back in the completion.
        spans: Vec<Span>,
        /// Bytes at the front that were sent already.
        skip: u64,
        /// Known to be in the page cache: residency is not asked for.
        hot: bool,
        /// The kernel sends the pages themselves where it can (since 6.1). A first completion with `more`
        /// says how many bytes went; what was borrowed comes with the last, whose count says nothing.
        zero_copy: bool,
    },
    /// Moves bytes without showing them to the broker (splice), through a worker of the kernel.
    Splice {
        /// Source.
        from: End,
        /// Target.
        to: End,
        /// Bytes at most.
        len: u32,
        /// Something follows at once.
        more: bool,
    },
    /// Forgets what a pipe holds; under its id a fresh one is used from then on. Nothing may be moved through it
    /// meanwhile.
    ClosePipe {
        /// Which.
        pipe: PipeId,
    },
    /// Shuts the connection down and forgets the socket. Its other operations complete with errors
    /// first or after; the id is worthless from the push on.
    Close {
        /// Whom.
        socket: SocketId,
    },
    /// Opens a file: [`Payload::Opened`].
    Open {
        /// Where.
        path: PathBuf,
        /// How.
        mode: OpenMode,
    },
    /// Closes a file once its operations in flight have completed.
    Release {
        /// Which.
        file: FileId,
    },
    /// Reads into the buffer; the result is the count, short at the end of the file.
    Read {
        /// Which.
        file: FileId,
        /// Byte position.
        at: u64,
        /// Its length says how much; comes back in the completion.
        into: Vec<u8>,
    },
    /// Writes bytes. A count below their length is a short write.
    Write {
        /// Which.
        file: FileId,
        /// Byte position.
        at: u64,
        /// Its own buffer comes back in the completion.
        from: Source,
        /// Complete only when what was written is durable (RWF_DSYNC). An error then says of the bytes
        /// what a failed [`Op::Sync`] says.
        durable: bool,
        /// How they travel.
        route: Route,
    },
    /// Reads without leaving anything in the page cache that was not there: past it where the file system
    /// can, else marked as used once (RWF_DONTCACHE), else plainly. The position is a multiple of [`PAGE_SIZE`]; short at
    /// the end of the file.
    ReadCold {
        /// Which.
        file: FileId,
        /// Byte position.
        at: u64,
        /// Its length says how much; comes back in the completion.
        into: Pages,
    },
    /// fdatasync: makes every write that is already complete durable.
    Sync {
        /// Which.
        file: FileId,
    },
    /// Starts write-back of a range without waiting for it (sync_file_range); promises nothing.
    WriteBack {
        /// Which.
        file: FileId,
        /// Byte position.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Makes a range read as zeros whatever was there, durably, off the shard's path.
    Prepare {
        /// Which.
        file: FileId,
        /// Byte position.
        at: u64,
        /// Bytes.
        len: u64,
        /// How.
        fill: Fill,
    },
    /// The names in a folder: [`Payload::Names`]; a missing folder is empty.
    List {
        /// Folder.
        path: PathBuf,
    },
    /// Part of a file that is not held open: [`Payload::Buffer`], short at its end; ENOENT if missing.
    Get {
        /// Where.
        path: PathBuf,
        /// Byte position.
        at: u64,
        /// Bytes at most.
        len: u64,
    },
    /// Writes pieces into a file that is not held open, made if missing (with its folders) and grown
    /// (sparse) to `size`. Not durable before an [`Op::SyncPaths`].
    Put {
        /// Where.
        path: PathBuf,
        /// Bytes that the file has at least.
        size: u64,
        /// Byte positions and what to write there; come back nowhere.
        pieces: Vec<(u64, Vec<u8>)>,
    },
    /// Makes files and the folders they stand in durable; missing ones are passed over.
    SyncPaths {
        /// Which.
        paths: BTreeSet<PathBuf>,
    },
    /// Replaces a small file: temp, fsync, rename, fsync of the folder. `backup` keeps the
    /// previous content under that name.
    Replace {
        /// Where.
        path: PathBuf,
        /// All of it.
        content: Content,
        /// Name for the previous content.
        backup: Option<PathBuf>,
    },
    /// Removes a file or a folder with all that is in it; a missing one is fine.
    Remove {
        /// Where.
        path: PathBuf,
    },
    /// How full the file system of a path is: [`Payload::Space`].
    Space {
        /// Where.
        path: PathBuf,
    },
    /// Completes (multishot) whenever another thread rings this seam's bell.
    Bell,
}

/// Spans that one [`Op::Gather`] may carry. The kernel takes 1,024 pieces at once (IOV_MAX), one of them the
/// head: with this many spans a gather may end short, as it may for any other reason.
pub const GATHER_SPANS_MAX: usize = 1024;

/// One answer from the kernel.
#[derive(Debug)]
pub struct Completion {
    /// The token of the operation.
    pub token: Token,
    /// Bytes moved, or why not.
    pub result: Result<u32, Errno>,
    /// The operation goes on: more completions with this token follow.
    pub more: bool,
    /// What comes with it.
    pub payload: Payload,
}

/// What a completion hands over.
#[derive(Debug)]
pub enum Payload {
    /// Nothing.
    None,
    /// The buffer of a read, write, send, get.
    Buffer(Vec<u8>),
    /// The buffer of a cold read.
    Pages(Pages),
    /// What a gather borrowed.
    Gathered(Vec<u8>, Vec<Span>),
    /// Bytes from a peer, in a buffer that goes back to the kernel when dropped.
    Received(Lease),
    /// A peer.
    Accepted(SocketId, SocketAddr),
    /// A file and its size in bytes.
    Opened(FileId, u64),
    /// Names in a folder, sorted.
    Names(Vec<Name>),
    /// A file system.
    Space(Space),
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Without its folder. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Bytes; 0 for a folder.
    pub size: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Last change, milliseconds since 1970.
    pub modified_ms: u64,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What is used and what an ordinary user may still take, as df counts.
    pub total: u64,
    /// What an ordinary user may still take.
    pub available: u64,
}

impl Space {
    /// Used part of what an ordinary user may use, from 0 to 1.
    #[must_use]
    pub fn used_ratio(&self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            1.0 - self.available as f64 / self.total as f64
        }
    }
}

//! Reads, writes and syncs of open files: through the ring, in place, or past the page cache.
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::super::mapping::Mapped;
use super::super::{Completion, FileId, Op, PAGE_SIZE, Pages, Payload, Route, Source, Token};
use super::features::{DirectIo, InUse, open_again};
use super::{Borrowed, OpenFile, Uring};
use crate::base::Key;

/// Buffers for direct writes that are kept: a log has one write in flight.
const BOUNCE_MAX: usize = 2;

/// What one file has beside its descriptor.
#[derive(Debug, Default)]
pub(super) struct Apart {
    direct: Direct,
    cold: ColdFile,
    is_delivered_from: Cell<bool>,
}

impl Apart {
    /// From now on what leaves the file has nothing read ahead of it into the page cache: who is behind would otherwise fill
    /// it with what only he wants, at the expense of those at the tail.
    pub(super) fn is_delivered_from(&self, file: &File) {
        if !self.is_delivered_from.replace(true) {
            // Advice: where it is not taken, more is read.
            let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        }
    }
}

/// The same file once more, past the page cache; opened at first use. `None`: its file system cannot.
#[derive(Debug, Default)]
struct Direct(OnceCell<Option<File>>);

impl Direct {
    fn get(&self, direct_io: Option<&DirectIo>, file: &File) -> Option<&File> {
        let open = || direct_io?.open(file, is_writable(file));
        self.0.get_or_init(open).as_ref()
    }
}

fn is_writable(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(file, FcntlArg::F_GETFL).unwrap_or(0);
    OFlag::from_bits_truncate(flags).contains(OFlag::O_RDWR)
}

/// Aligned memory for direct writes, used again and again.
#[derive(Debug, Default)]
pub(super) struct Bounce(Vec<Pages>);

impl Bounce {
    fn take(&mut self, size: usize) -> Result<Pages, Errno> {
        let fits = self.0.iter().position(|pages| size <= pages.capacity());
        let mut pages = match fits {
            Some(at) => self.0.swap_remove(at),
            None => Pages::new(size.next_power_of_two())?,
        };
        pages.set_len(size);
        Ok(pages)
    }

    pub(super) fn give_back(&mut self, pages: Pages) {
        if self.0.len() < BOUNCE_MAX {
            self.0.push(pages);
        }
    }
}

/// A write that the shard's own thread carries out.
pub(super) struct InPlace {
    file: Rc<OpenFile>,
    at: u64,
    from: Source,
    durable: bool,
}

/// The pieces of a write as the kernel takes them.
fn vectors(from: &Source) -> Vec<libc::iovec> {
    let vector = |piece: &[u8]| libc::iovec {
        iov_base: piece.as_ptr().cast_mut().cast(),
        iov_len: piece.len(),
    };
    from.pieces().map(vector).collect()
}

/// A write of several pieces in flight.
pub(super) struct Gathering {
    pub(super) from: Source,
    /// The kernel reads them when the write begins.
    _vectors: Vec<libc::iovec>,
}

impl InPlace {
    pub(super) fn run(&self) -> Result<u32, Errno> {
        let vectors = vectors(&self.from);
        let flags = rw_flags(self.durable);
        let fd = self.file.file.as_raw_fd();
        let (list, count) = (vectors.as_ptr(), vectors.len() as libc::c_int);
        // SAFETY: the vectors point to bytes that this struct owns and that are only read.
        let count = unsafe { libc::pwritev2(fd, list, count, self.at as libc::off_t, flags) };
        Errno::result(count).map(|count| count as u32)
    }
}

/// How a cold read leaves the page cache as it was, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ColdWay {
    #[default]
    Direct,
    Once,
    Plain,
}

/// What cold reads of one file have found.
#[derive(Debug, Default)]
struct ColdFile {
    /// The best way that it has not refused: each is refused once.
    way: Cell<ColdWay>,
    /// The same file once more, for reads through the page cache; opened at first use.
    alone: OnceCell<Option<File>>,
}

impl ColdFile {
    /// Of this descriptor nothing is read ahead: nobody would have those pages leave the page cache again.
    fn alone(&self, file: &File) -> Option<&File> {
        let open = || {
            let alone = open_again(file, false, 0)?;
            posix_fadvise(&alone, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).ok()?;
            Some(alone)
        };
        self.alone.get_or_init(open).as_ref()
    }
}

impl ColdWay {
    const fn next(self) -> Self {
        match self {
            Self::Direct => Self::Once,
            Self::Once | Self::Plain => Self::Plain,
        }
    }
}

/// A cold read in flight: all that is needed to try it in another way.
pub(super) struct ColdRead {
    file: Rc<OpenFile>,
    at: u64,
    pub(super) into: Pages,
    way: ColdWay,
}

impl ColdRead {
    fn entry(&mut self, features: &InUse) -> squeue::Entry {
        let direct = match self.way {
            ColdWay::Direct => self
                .file
                .apart
                .direct
                .get(features.direct_io.as_ref(), &self.file.file),
            ColdWay::Once | ColdWay::Plain => None,
        };
        if direct.is_none() && self.way == ColdWay::Direct {
            self.way = ColdWay::Once;
        }
        let flags = match &features.dontcache {
            Some(dontcache) if self.way == ColdWay::Once => dontcache.flag(),
            _ => 0,
        };
        if flags == 0 && self.way == ColdWay::Once {
            self.way = ColdWay::Plain;
        }
        let plain = &self.file.file;
        let through = || self.file.apart.cold.alone(plain).unwrap_or(plain);
        let fd = direct.unwrap_or_else(through).as_raw_fd();
        let len = self.into.bytes().len() as u32;
        let address = self.into.bytes_mut().as_mut_ptr();
        opcode::Read::new(types::Fd(fd), address, len)
            .offset(self.at)
            .rw_flags(flags)
            .build()
    }
}

const fn rw_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

impl Uring {
    pub(super) fn take_in_file(&mut self, file: File) -> Option<FileId> {
        self.files.insert(Rc::new(OpenFile {
            file: Arc::new(file),
            map: Mapped::default(),
            apart: Apart::default(),
        }))
    }

    pub(super) fn push_file(&mut self, token: Token, op: Op) {
        let (file, entry, borrowed) = match op {
            Op::Read { file, at, mut into } => {
                let Some(open) = self.file(file) else {
                    return self.fail(token, Errno::EBADF, Payload::Buffer(into));
                };
                let fd = types::Fd(open.file.as_raw_fd());
                let entry = opcode::Read::new(fd, into.as_mut_ptr(), into.len() as u32)
                    .offset(at)
                    .build();
                (open, entry, Borrowed::Buffer(into))
            }
            Op::Sync { file } => {
                let Some(open) = self.file(file) else {
                    return self.fail(token, Errno::EBADF, Payload::None);
                };
                let fd = types::Fd(open.file.as_raw_fd());
                let entry = opcode::Fsync::new(fd)
                    .flags(types::FsyncFlags::DATASYNC)
                    .build();
                (open, entry, Borrowed::Nothing)
            }
            Op::WriteBack { file, at, len } => {
                let Some(open) = self.file(file) else {
                    return self.fail(token, Errno::EBADF, Payload::None);
                };
                let fd = types::Fd(open.file.as_raw_fd());
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                let entry = opcode::SyncFileRange::new(fd, len)
                    .offset(at)
                    .flags(libc::SYNC_FILE_RANGE_WRITE)
                    .build();
                (open, entry, Borrowed::Nothing)
            }
            other => unreachable!("{other:?} is not of an open file"),
        };
        self.fly_with_file(token, file, entry, borrowed);
    }

    fn fly_with_file(
        &mut self,
        token: Token,
        file: Rc<OpenFile>,
        entry: squeue::Entry,
        borrowed: Borrowed,
    ) {
        let key = self.fly_elsewhere(token, borrowed);
        self.keep_file(key, file);
        self.submit(key, entry);
    }

    pub(super) fn push_write(
        &mut self,
        token: Token,
        (file, at): (FileId, u64),
        from: Source,
        durable: bool,
        route: Route,
    ) {
        let Some(open) = self.file(file) else {
            return self.fail(token, Errno::EBADF, Payload::Buffer(from.into_buffer()));
        };
        match route {
            Route::Ring if from.inset_count() == 0 => {
                let fd = types::Fd(open.file.as_raw_fd());
                let from = from.into_buffer();
                let entry = opcode::Write::new(fd, from.as_ptr(), from.len() as u32)
                    .offset(at)
                    .rw_flags(rw_flags(durable))
                    .build();
                self.fly_with_file(token, open, entry, Borrowed::Buffer(from));
            }
            Route::Ring => {
                let fd = types::Fd(open.file.as_raw_fd());
                let vectors = vectors(&from);
                let (list, count) = (vectors.as_ptr(), vectors.len() as u32);
                let entry = opcode::Writev::new(fd, list, count)
                    .offset(at)
                    .rw_flags(rw_flags(durable))
                    .build();
                let gathering = Box::new(Gathering {
                    from,
                    _vectors: vectors,
                });
                self.fly_with_file(token, open, entry, Borrowed::GatheredWrite(gathering));
            }
            Route::InPlace => {
                let write = InPlace {
                    file: open,
                    at,
                    from,
                    durable,
                };
                let key = self.fly(token, Borrowed::InPlace(Box::new(write)));
                self.direct.push_back(key);
            }
            Route::Direct => match self.direct_write(&open, at, &from, durable) {
                Ok(None) => self.push_write(token, (file, at), from, durable, Route::Ring),
                Ok(Some((pages, entry))) => {
                    let from = from.into_buffer();
                    self.fly_with_file(token, open, entry, Borrowed::DirectWrite(pages, from));
                }
                Err(errno) => self.fail(token, errno, Payload::Buffer(from.into_buffer())),
            },
        }
    }

    /// The bytes are copied once, into memory that the disk can take them from: a record's own buffer
    /// stands at no page's address. `None`: its file system cannot.
    fn direct_write(
        &mut self,
        open: &OpenFile,
        at: u64,
        from: &Source,
        durable: bool,
    ) -> Result<Option<(Pages, squeue::Entry)>, Errno> {
        if !at.is_multiple_of(PAGE_SIZE) || !(from.len() as u64).is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let direct_io = self.features.direct_io.as_ref();
        let Some(direct) = open.apart.direct.get(direct_io, &open.file) else {
            return Ok(None);
        };
        let mut pages = self.bounce.take(from.len())?;
        let mut rest = pages.bytes_mut();
        for piece in from.pieces() {
            let (place, behind) = rest.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            rest = behind;
        }
        let fd = types::Fd(direct.as_raw_fd());
        let entry = opcode::Write::new(fd, pages.bytes().as_ptr(), from.len() as u32)
            .offset(at)
            .rw_flags(rw_flags(durable))
            .build();
        Ok(Some((pages, entry)))
    }

    pub(super) fn push_cold_read(&mut self, token: Token, (file, at): (FileId, u64), into: Pages) {
        let Some(file) = self.file(file) else {
            return self.fail(token, Errno::EBADF, Payload::Pages(into));
        };
        let way = file.apart.cold.way.get();
        let read = ColdRead {
            file,
            at,
            into,
            way,
        };
        let key = self.fly_elsewhere(token, Borrowed::ColdRead(Box::new(read)));
        self.submit_cold_read(key);
    }

    fn submit_cold_read(&mut self, key: Key) {
        let flight = self.flights.get_mut(key).expect("is in flight");
        let Borrowed::ColdRead(read) = &mut flight.borrowed else {
            unreachable!("called for cold reads only")
        };
        let entry = read.entry(&self.features);
        self.submit(key, entry);
    }

    /// Whether a cold read that the file system refused is tried in the next way.
    pub(super) fn tries_again(&mut self, key: Key, result: Result<u32, Errno>) -> bool {
        let Some(flight) = self.flights.get_mut(key) else {
            return false;
        };
        let Borrowed::ColdRead(read) = &mut flight.borrowed else {
            return false;
        };
        let refused = matches!(result, Err(Errno::EINVAL | Errno::EOPNOTSUPP));
        if !refused || read.way == ColdWay::Plain {
            return false;
        }
        read.way = read.way.next();
        read.file.apart.cold.way.set(read.way);
        self.submit_cold_read(key);
        true
    }

    /// Ends a write in place.
    pub(super) fn land_write(&mut self, key: Key, result: Result<u32, Errno>) {
        let flight = self.end_flight(key);
        let Borrowed::InPlace(write) = flight.borrowed else {
            unreachable!("only a write in place lands so")
        };
        self.ready.push(Completion {
            token: flight.token,
            result,
            more: false,
            payload: Payload::Buffer(write.from.into_buffer()),
        });
    }
}

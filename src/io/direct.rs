//! Calls without an opcode, made so that they cannot block: sendfile and residency.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What a call that must not wait has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// This many bytes; 0 = the file ends here.
    Bytes(u64),
    /// The socket has no room now.
    NoRoom,
}

/// sendfile without waiting. The socket is non-blocking only for the call: io_uring completes
/// operations on a non-blocking socket with EAGAIN instead of waiting for it to become ready
/// (kernel-notes/splice-and-sendfile.md).
pub(super) fn send_file(socket: &OwnedFd, file: &File, at: u64, len: u64) -> Result<Moved, Errno> {
    fcntl(socket.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut from = at as libc::off_t;
    let sent = nix::sys::sendfile::sendfile(socket, file, Some(&mut from), len as usize);
    fcntl(socket.as_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
    match sent {
        Ok(count) => Ok(Moved::Bytes(count as u64)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Moved::NoRoom),
        Err(errno) => Err(errno),
    }
}

#[repr(C)]
#[derive(Default)]
struct CachestatRange {
    off: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// `cachestat(2)`, since 6.5; libc has no name for it.
const SYS_CACHESTAT: libc::c_long = 451;
const PAGE_SIZE: u64 = 4096;

/// Whether every page of a range is in the page cache now. It may leave before it is used: the
/// caller then waits for one page of the disk, which is rare and short.
pub(super) fn is_resident(file: &File, at: u64, len: u64) -> bool {
    let range = CachestatRange { off: at, len };
    let mut stat = Cachestat::default();
    let fd = file.as_raw_fd();
    // SAFETY: both structs are as the kernel declares them and outlive the call.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, fd, &raw const range, &raw mut stat, 0u32) };
    if done == 0 {
        let pages = (at + len).div_ceil(PAGE_SIZE) - at / PAGE_SIZE;
        return pages <= stat.nr_cache;
    }
    is_readable_at_once(file, at) && is_readable_at_once(file, at + len - 1)
}

/// Before 6.5: a read that refuses to wait tells about one page.
fn is_readable_at_once(file: &File, at: u64) -> bool {
    let mut byte = [0u8];
    let vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: one vector to one byte that outlives the call.
    let count = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const vector,
            1,
            at as libc::off_t,
            libc::RWF_NOWAIT,
        )
    };
    count == 1
}

/// An empty message header, to be filled in.
pub(super) fn no_message() -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr: no name, no vectors, no control data.
    unsafe { std::mem::zeroed() }
}

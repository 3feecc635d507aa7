//! Whether a range of a file is in the page cache: two questions, of which neither waits.
//! See kernel-notes/page-cache-and-cold-reads.md.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::pages::PAGE_SIZE;

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

/// `cachestat(2)`; libc has no name for it.
const SYS_CACHESTAT: libc::c_long = 451;

fn pages_of(at: u64, len: u64) -> u64 {
    (at + len).div_ceil(PAGE_SIZE) - at / PAGE_SIZE
}

/// Whether the page cache holds all of a range. The kernel counts.
pub(super) fn by_cachestat(file: &File, at: u64, len: u64) -> Result<bool, Errno> {
    let count = cachestat(file.as_fd(), at, len)?;
    Ok(pages_of(at, len) <= count)
}

fn cachestat(file: BorrowedFd<'_>, at: u64, len: u64) -> Result<u64, Errno> {
    let range = CachestatRange { off: at, len };
    let mut stat = Cachestat::default();
    let fd = file.as_raw_fd();
    // SAFETY: both structs are as the kernel declares them and outlive the call.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, fd, &raw const range, &raw mut stat, 0u32) };
    Errno::result(done).map(|_| stat.nr_cache)
}

/// Whether the kernel, and every filter before it, lets this process count pages.
pub(super) fn has_cachestat() -> bool {
    let Ok(file) = memfd_create(c"corelane", MFdFlags::MFD_CLOEXEC) else {
        return false;
    };
    nix::unistd::ftruncate(&file, PAGE_SIZE as i64).is_ok()
        && cachestat(file.as_fd(), 0, PAGE_SIZE).is_ok()
}

/// Before 6.5: a read that refuses to wait tells about one page, here about both ends.
pub(super) fn by_ends(file: &File, at: u64, len: u64) -> bool {
    is_readable_at_once(file, at) && is_readable_at_once(file, at + len - 1)
}

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

//! Room for what will be appended: zeros, through the page cache or past it, or blocks that are only reserved.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::Outcome;
use crate::io::Fill;

/// Zeros are written in pieces of this size: large enough for the page cache to use large folios
/// (kernel-notes/preallocation.md), small enough that other writers get their turn.
const ZEROS_SIZE: usize = 1 << 20;

/// Direct writes are aligned to this: no disk has larger logical blocks, and it is the page.
const DIRECT_ALIGNMENT: u64 = 4096;

/// Zeros that go past the page cache are written in pieces of this size: the file is locked for others as
/// long as one takes, and a sync waits for the disk behind it; each has its price whatever its size
/// (kernel-notes/preallocation.md).
const DIRECT_ZEROS_SIZE: usize = 512 << 10;

pub(in crate::io) fn prepare(
    file: &File,
    at: u64,
    len: u64,
    fill: Fill,
) -> std::io::Result<Outcome> {
    match fill {
        Fill::Zeros => write_zeros(file, at, len)?,
        Fill::DirectZeros => write_zeros_direct(file, at, len)?,
        Fill::Reserve => reserve(file, at, len)?,
    }
    file.sync_data()?;
    Ok(Outcome::Done)
}

fn reserve(file: &File, at: u64, len: u64) -> std::io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    match fallocate(file, flags, at as i64, len as i64) {
        // Of a file system that cannot.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => write_zeros(file, at, len),
        other => Ok(other?),
    }
}

fn write_zeros(file: &File, at: u64, len: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS_SIZE.min(len as usize)];
    let end = at + len;
    let mut next = at;
    while next < end {
        let count = (end - next).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..count], next)?;
        next += count as u64;
    }
    Ok(())
}

/// The blocks are reserved first: a direct write that allocates would hold up every append to the file for
/// as long as the disk takes.
fn write_zeros_direct(file: &File, at: u64, len: u64) -> std::io::Result<()> {
    let start = at.next_multiple_of(DIRECT_ALIGNMENT);
    let end = (at + len) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    let Ok(direct) = direct else {
        return write_zeros(file, at, len);
    };
    if end <= start {
        return write_zeros(file, at, len);
    }
    reserve(file, start, end - start)?;
    let memory = vec![0; DIRECT_ZEROS_SIZE + DIRECT_ALIGNMENT as usize];
    let skip = memory.as_ptr().align_offset(DIRECT_ALIGNMENT as usize);
    let zeros = &memory[skip..skip + DIRECT_ZEROS_SIZE];
    let mut next = start;
    while next < end {
        let count = (end - next).min(zeros.len() as u64) as usize;
        match direct.write_all_at(&zeros[..count], next) {
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
                write_zeros(file, next, end - next)?;
                break;
            }
            other => other?,
        }
        next += count as u64;
    }
    write_zeros(file, at, start - at)?;
    write_zeros(file, end, at + len - end)
}

//! A call without an opcode, made so that it cannot block: sendfile.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

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

/// An empty message header, to be filled in.
pub(super) fn no_message() -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr: no name, no vectors, no control data.
    unsafe { std::mem::zeroed() }
}

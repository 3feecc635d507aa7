//! Pipes, and what is moved through them without being looked at.

use std::os::fd::{AsRawFd, RawFd};

use io_uring::{opcode, types};
use nix::errno::Errno;

use super::super::{End, Payload, PipeId, Token};
use super::{Borrowed, Completion, Uring};

impl Uring {
    fn pipe(&mut self, index: u32) -> Result<(RawFd, RawFd), Errno> {
        let index = index as usize;
        if self.pipes.len() <= index {
            self.pipes.resize_with(index + 1, || None);
        }
        if self.pipes[index].is_none() {
            let pipe = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
            // A full page-run of a reply in one go; a refusal leaves the default of 64 KiB.
            let _ = nix::fcntl::fcntl(&pipe.1, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 18));
            self.pipes[index] = Some(pipe);
        }
        let (read, write) = self.pipes[index].as_ref().expect("was made just now");
        Ok((read.as_raw_fd(), write.as_raw_fd()))
    }

    pub(super) fn close_pipe(&mut self, token: Token, pipe: PipeId) {
        if let Some(open) = self.pipes.get_mut(pipe.0 as usize) {
            *open = None;
        }
        self.ready.push(Completion {
            token,
            result: Ok(0),
            more: false,
            payload: Payload::None,
        });
    }

    pub(super) fn push_splice(&mut self, token: Token, from: End, to: End, len: u32, more: bool) {
        let mut files = Vec::new();
        let mut sockets = Vec::new();
        let mut end = |uring: &mut Self, end: End, is_source: bool| match end {
            End::File { file, at } => {
                let file = uring.file(file).ok_or(Errno::EBADF)?;
                let fd = file.file.as_raw_fd();
                files.push(file);
                Ok((fd, at as i64))
            }
            End::Pipe(pipe) => {
                let (read, write) = uring.pipe(pipe.0)?;
                Ok((if is_source { read } else { write }, -1))
            }
            End::Socket(socket) => {
                let open = uring.socket(socket).ok_or(Errno::EBADF)?;
                let fd = open.fd.as_raw_fd();
                sockets.push(open);
                Ok((fd, -1))
            }
        };
        let ends = end(self, from, true).and_then(|from| Ok((from, end(self, to, false)?)));
        let (source, target) = match ends {
            Ok(ends) => ends,
            Err(errno) => return self.fail(token, errno, Payload::None),
        };
        let flags = if more { libc::SPLICE_F_MORE } else { 0 };
        let entry = opcode::Splice::new(
            types::Fd(source.0),
            source.1,
            types::Fd(target.0),
            target.1,
            len,
        )
        .flags(flags)
        .build();
        let key = self.fly_elsewhere(token, Borrowed::Nothing);
        for file in files {
            self.keep_file(key, file);
        }
        for socket in sockets {
            self.keep_socket(key, socket);
        }
        self.submit(key, entry);
    }
}

//! A non-blocking connection with bytes to send and bytes received, and the poll set it is in.

use crate::wire::{self, Frame};
use crate::{Outcome, fail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The kernel's poll set; a connection is known by its token.
pub struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    pub fn new() -> Outcome<Poll> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Poll {
            epoll,
            events: vec![EpollEvent::empty(); 512],
        })
    }

    /// Waits for readiness, at most `wait_ms`, and returns the tokens that have something.
    pub fn wait(&mut self, wait_ms: u8, ready: &mut Vec<usize>) -> Outcome<()> {
        ready.clear();
        let count = match self
            .epoll
            .wait(&mut self.events, EpollTimeout::from(wait_ms))
        {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return fail(format!("epoll_wait: {errno}")),
        };
        ready.extend(
            self.events[..count]
                .iter()
                .map(|event| event.data() as usize),
        );
        Ok(())
    }

    pub fn add(&self, fd: impl std::os::fd::AsFd, token: usize) -> Outcome<()> {
        Ok(self
            .epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token as u64))?)
    }

    fn set_writable(&self, socket: &TcpStream, token: usize, wanted: bool) -> Outcome<()> {
        let out = if wanted {
            EpollFlags::EPOLLOUT
        } else {
            EpollFlags::empty()
        };
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | out, token as u64);
        Ok(self.epoll.modify(socket, &mut event)?)
    }
}

pub struct Connection {
    pub socket: TcpStream,
    token: usize,
    /// Bytes to send; `out_at` of them are sent.
    pub out: Vec<u8>,
    out_at: usize,
    waits_writable: bool,
    input: Vec<u8>,
    input_end: usize,
    input_at: usize,
}

impl Connection {
    pub fn connect(addr: SocketAddr, poll: &Poll, token: usize) -> Outcome<Connection> {
        let socket = TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT);
        match socket {
            Ok(socket) => Connection::new(socket, poll, token),
            Err(error) => fail(format!(
                "cannot connect to {addr}: {error}; is the broker running?"
            )),
        }
    }

    pub fn new(socket: TcpStream, poll: &Poll, token: usize) -> Outcome<Connection> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        poll.add(&socket, token)?;
        Ok(Connection {
            socket,
            token,
            out: Vec::with_capacity(64 << 10),
            out_at: 0,
            waits_writable: false,
            input: vec![0; 64 << 10],
            input_end: 0,
            input_at: 0,
        })
    }

    /// One read: how many bytes came, or none when the other side closed.
    pub fn receive(&mut self) -> Outcome<Option<usize>> {
        self.make_room();
        match self.socket.read(&mut self.input[self.input_end..]) {
            Ok(0) => Ok(None),
            Ok(count) => {
                self.input_end += count;
                Ok(Some(count))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(Some(0))
            }
            Err(error) => fail(format!("a connection broke while reading: {error}")),
        }
    }

    /// The last `count` bytes received.
    pub fn last_received(&self, count: usize) -> &[u8] {
        &self.input[self.input_end - count..self.input_end]
    }

    /// Keeps at least half of the buffer free, moving or growing what is left over.
    fn make_room(&mut self) {
        self.input.copy_within(self.input_at..self.input_end, 0);
        self.input_end -= self.input_at;
        self.input_at = 0;
        if self.input.len() / 2 < self.input_end && self.input.len() < 2 * wire::FRAME_SIZE_MAX {
            self.input.resize(self.input.len() * 2, 0);
        }
    }

    /// The next whole frame; it is gone from the buffer at the next `receive`.
    pub fn next_frame(&mut self) -> Outcome<Option<Frame<'_>>> {
        let found = wire::frame(&self.input[self.input_at..self.input_end])?;
        if let Some(frame) = &found {
            self.input_at += frame.size;
        }
        Ok(found)
    }

    /// Sends what it can now; the rest goes when the socket is writable again.
    pub fn send(&mut self, poll: &Poll) -> Outcome<()> {
        while self.out_at < self.out.len() {
            match self.socket.write(&self.out[self.out_at..]) {
                Ok(count) => self.out_at += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return fail(format!("a connection broke while writing: {error}")),
            }
        }
        let is_done = self.out_at == self.out.len();
        if is_done {
            self.out.clear();
            self.out_at = 0;
        } else if 1 << 20 < self.out_at {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        if self.waits_writable == is_done {
            self.waits_writable = !is_done;
            poll.set_writable(&self.socket, self.token, !is_done)?;
        }
        Ok(())
    }
}

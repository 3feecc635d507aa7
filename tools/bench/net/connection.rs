//! One connection: bytes to send, bytes received, and the frames in them.

use crate::wire::{self, Frame};
use crate::{Failure, Outcome, fail};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

const BUFFER_SIZE: usize = 64 << 10;

pub struct Connection {
    pub(super) socket: TcpStream,
    /// The other side, for what is said when it is gone.
    peer: Option<SocketAddr>,
    /// Bytes to send; `out_at` of them are sent.
    pub out: Vec<u8>,
    pub(super) out_at: usize,
    /// With the ring: the bytes that the kernel is sending; they stay where they are meanwhile.
    pub(super) flight: Vec<u8>,
    pub(super) flight_at: usize,
    pub(super) is_sending: bool,
    /// With the ring: a receive waits for what comes.
    pub(super) is_receiving: bool,
    /// With the ring: what came since the last look.
    pub(super) came: usize,
    pub(super) is_closed: bool,
    pub(super) broken: Option<std::io::Error>,
    pub(super) waits_writable: bool,
    input: Vec<u8>,
    input_end: usize,
    input_at: usize,
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> Connection {
        Connection {
            peer: socket.peer_addr().ok(),
            socket,
            out: Vec::with_capacity(BUFFER_SIZE),
            out_at: 0,
            flight: Vec::new(),
            flight_at: 0,
            is_sending: false,
            is_receiving: false,
            came: 0,
            is_closed: false,
            broken: None,
            waits_writable: false,
            input: vec![0; BUFFER_SIZE],
            input_end: 0,
            input_at: 0,
        }
    }

    /// Who closed it, with what is known of that, and where to look.
    pub fn broken_words(&self, how: &str) -> String {
        format!(
            "{} closed a connection{how}; did it end? its log may say why",
            self.peer_name()
        )
    }

    fn peer_name(&self) -> String {
        let peer = self.peer.map(|peer| peer.to_string());
        peer.unwrap_or_else(|| "the server".to_owned())
    }

    /// One read of what is there: how many bytes came, or none when the other side closed.
    pub(super) fn read(&mut self) -> Outcome<Option<usize>> {
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
            Err(error) => fail(self.broken_words(&format!(", or it broke while reading: {error}"))),
        }
    }

    /// With the ring: what came since the last look, or none when the other side closed.
    pub(super) fn take_came(&mut self) -> Outcome<Option<usize>> {
        if let Some(error) = self.broken.take() {
            return fail(self.broken_words(&format!(", or it broke: {error}")));
        }
        let came = std::mem::take(&mut self.came);
        Ok((0 < came || !self.is_closed).then_some(came))
    }

    /// With the ring: takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.input.len() < self.input_end + bytes.len() {
            self.make_room();
            let least = self.input_end + bytes.len();
            if self.input.len() < least {
                self.input.resize(least.next_power_of_two(), 0);
            }
        }
        self.input[self.input_end..][..bytes.len()].copy_from_slice(bytes);
        self.input_end += bytes.len();
        self.came += bytes.len();
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

    /// The next whole frame; it is gone from the buffer when more is received.
    pub fn next_frame(&mut self) -> Outcome<Option<Frame<'_>>> {
        let found = wire::frame(&self.input[self.input_at..self.input_end])
            .or_else(|Failure(what)| fail(wire::no_answer(&self.peer_name(), &what)))?;
        if let Some(frame) = &found {
            self.input_at += frame.size;
        }
        Ok(found)
    }

    /// Writes what the socket takes now; says whether all is gone.
    pub(super) fn write(&mut self) -> Outcome<bool> {
        while self.out_at < self.out.len() {
            match self.socket.write(&self.out[self.out_at..]) {
                Ok(count) => self.out_at += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    return fail(
                        self.broken_words(&format!(", or it broke while writing: {error}")),
                    );
                }
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
        Ok(is_done)
    }
}

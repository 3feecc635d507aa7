//! How operations on sockets and pipes complete.

use super::Sim;
use crate::io::{End, Errno, FileId, Lease, Op, Payload, SocketId, Span};

/// Bytes of one receive buffer.
const BUFFER_SIZE: usize = 32 << 10;

/// Result, what comes with it, and the operation if it goes on.
type Answer = (Result<u32, Errno>, Payload, Option<Op>);

/// In place of bytes to skip: what a send without copying borrowed is to be given back, nothing else.
const LET_GO: u64 = u64::MAX;

impl Sim {
    /// What never takes off, because it names a socket that is closed or a file that was released: `Ok`
    /// with the error, `Err` gives the operation back.
    pub(super) fn refuse(&mut self, op: Op) -> Result<(Errno, Payload), Op> {
        match op {
            Op::Receive { socket } | Op::SendFile { socket, .. } if !self.net.is_open(socket) => {
                Ok((Errno::EBADF, Payload::None))
            }
            Op::Send { socket, from, .. } if !self.net.is_open(socket) => {
                Ok((Errno::EBADF, Payload::Buffer(from)))
            }
            Op::Gather {
                socket,
                head,
                spans,
                ..
            } if !self.net.is_open(socket) => Ok((Errno::EBADF, Payload::Gathered(head, spans))),
            Op::Gather { head, spans, .. }
                if spans.iter().any(|span| self.is_released(span.file)) =>
            {
                Ok((Errno::EBADF, Payload::Gathered(head, spans)))
            }
            Op::SendFile { span, .. } if self.is_released(span.file) => {
                Ok((Errno::EBADF, Payload::None))
            }
            Op::Read { file, into, .. } if self.is_released(file) => {
                Ok((Errno::EBADF, Payload::Buffer(into)))
            }
            Op::ReadCold { file, into, .. } if self.is_released(file) => {
                Ok((Errno::EBADF, Payload::Pages(into)))
            }
            Op::Write { file, from, .. } if self.is_released(file) => {
                Ok((Errno::EBADF, Payload::Buffer(from.into_buffer())))
            }
            Op::Sync { file }
            | Op::WriteBack { file, .. }
            | Op::Prepare { file, .. }
            | Op::Release { file }
                if self.is_released(file) =>
            {
                Ok((Errno::EBADF, Payload::None))
            }
            Op::Splice { from, to, .. } if self.is_shut(from) || self.is_shut(to) => {
                Ok((Errno::EBADF, Payload::None))
            }
            // The id is worthless from the push on.
            Op::Close { socket } if !self.net.close(socket) => Ok((Errno::EBADF, Payload::None)),
            Op::StopReceive { socket } if !self.is_receiving(socket) => {
                Ok((Errno::ENOENT, Payload::None))
            }
            other => Err(other),
        }
    }

    fn is_released(&self, file: FileId) -> bool {
        self.files.get(file).is_none()
    }

    fn is_shut(&self, end: End) -> bool {
        match end {
            End::Socket(socket) => !self.net.is_open(socket),
            End::File { file, .. } => self.is_released(file),
            End::Pipe(_) => false,
        }
    }

    fn is_receiving(&self, socket: SocketId) -> bool {
        let of = |op: &Op| matches!(op, Op::Receive { socket: it } if *it == socket);
        self.net.is_open(socket) && self.flights.iter().any(|flight| of(&flight.op))
    }

    pub(super) fn run_socket(&mut self, op: Op, inodes: &[usize]) -> Answer {
        match op {
            Op::Accept { listener } => {
                let (socket, address) = self.net.accept(listener);
                let payload = Payload::Accepted(socket, address);
                (Ok(socket.0 as u32), payload, Some(op))
            }
            Op::Receive { socket } => self.receive(socket),
            Op::StopReceive { socket } => self.stop_receive(socket),
            Op::Send {
                socket, from, skip, ..
            } => {
                let count = self.count(from.len() - skip);
                let result = self.send(socket, &from[skip..skip + count]);
                (result, Payload::Buffer(from), None)
            }
            Op::SendFile { socket, span, hot } => {
                let bytes = self.span(span, inodes[0]);
                let result = if !hot && self.chance(self.faults.cold) {
                    Err(Errno::EAGAIN)
                } else {
                    let count = self.count(bytes.len());
                    self.send(socket, &bytes[..count])
                };
                (result, Payload::None, None)
            }
            Op::Gather {
                socket,
                head,
                spans,
                skip,
                hot,
                zero_copy,
            } => {
                if skip == LET_GO {
                    return (Ok(0), Payload::Gathered(head, spans), None);
                }
                let result = self.gather(socket, &head, &spans, inodes, (skip, hot));
                if !zero_copy || result.is_err() {
                    return (result, Payload::Gathered(head, spans), None);
                }
                let again = Op::Gather {
                    socket,
                    head,
                    spans,
                    skip: LET_GO,
                    hot,
                    zero_copy,
                };
                (result, Payload::None, Some(again))
            }
            Op::Splice { from, to, len, .. } => {
                (self.splice(from, to, len, inodes), Payload::None, None)
            }
            _ => (Ok(0), Payload::None, None),
        }
    }

    fn receive(&mut self, socket: SocketId) -> Answer {
        let have = self.net.readable(socket);
        if have == 0 {
            return (Ok(0), Payload::None, None);
        }
        if self.chance(self.faults.no_buffers) {
            return (Err(Errno::ENOBUFS), Payload::None, None);
        }
        // A stream has no borders: any piece may arrive alone.
        let count = match self.prng.below(3) {
            0 => 1 + self.prng.below(have as u64) as usize,
            _ => have,
        };
        let bytes = self.net.take(socket, count.min(BUFFER_SIZE));
        let count = bytes.len() as u32;
        let payload = Payload::Received(Lease::of(bytes));
        (Ok(count), payload, Some(Op::Receive { socket }))
    }

    fn stop_receive(&mut self, socket: SocketId) -> Answer {
        let of = |op: &Op| matches!(op, Op::Receive { socket: it } if *it == socket);
        let Some(at) = self.flights.iter().position(|flight| of(&flight.op)) else {
            return (Err(Errno::ENOENT), Payload::None, None);
        };
        let receive = self.flights.swap_remove(at);
        self.ready.push(crate::io::Completion {
            token: receive.token,
            result: Err(Errno::ECANCELED),
            more: false,
            payload: Payload::None,
        });
        (Ok(0), Payload::None, None)
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> Result<u32, Errno> {
        if self.net.send(socket, bytes) {
            Ok(bytes.len() as u32)
        } else {
            Err(Errno::EPIPE)
        }
    }

    fn span(&self, span: Span, inode: usize) -> Vec<u8> {
        self.disk
            .inode(inode)
            .read(span.at, span.len as usize)
            .to_vec()
    }

    fn gather(
        &mut self,
        socket: SocketId,
        head: &[u8],
        spans: &[Span],
        inodes: &[usize],
        (skip, hot): (u64, bool),
    ) -> Result<u32, Errno> {
        if !hot && !spans.is_empty() && self.chance(self.faults.cold) {
            return Err(Errno::EAGAIN);
        }
        let mut all = head.to_vec();
        for (span, inode) in spans.iter().zip(inodes) {
            let bytes = self.span(*span, *inode);
            if bytes.len() < span.len as usize {
                return Err(Errno::ERANGE);
            }
            all.extend(bytes);
        }
        let rest = &all[skip as usize..];
        let count = self.count(rest.len());
        self.send(socket, &rest[..count])
    }

    fn splice(&mut self, from: End, to: End, len: u32, inodes: &[usize]) -> Result<u32, Errno> {
        let room = match to {
            End::Pipe(pipe) => self.net.pipe_room(pipe),
            End::File { .. } | End::Socket(_) => len as usize,
        };
        let len = self.count(room.min(len as usize));
        let bytes: Vec<u8> = match from {
            End::File { at, .. } => self.disk.inode(inodes[0]).read(at, len).to_vec(),
            End::Pipe(pipe) => {
                let count = len.min(self.net.pipe_len(pipe));
                self.net.pipe(pipe).drain(..count).collect()
            }
            End::Socket(socket) => {
                let count = len.min(self.net.readable(socket));
                self.net.take(socket, count)
            }
        };
        match to {
            End::Pipe(pipe) => self.net.pipe(pipe).extend(&bytes),
            End::Socket(socket) => return self.send(socket, &bytes),
            End::File { at, .. } => {
                let inode = *inodes.last().expect("a file is one end");
                let count = self.disk.write(inode, at, &bytes)?;
                return Ok(count as u32);
            }
        }
        Ok(bytes.len() as u32)
    }
}

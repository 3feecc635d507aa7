//! Accepts and receives that go on: armed once where the kernel keeps them so, and otherwise armed again
//! after each completion. See kernel-notes/accept-and-receive.md.
#![allow(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::{cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::super::buffers::GROUP;
use super::super::{ListenerId, Payload, SocketId, Token};
use super::{Borrowed, Flight, Socket, Uring};
use crate::base::Key;

impl Uring {
    pub(super) fn push_accept(&mut self, token: Token, listener: ListenerId) {
        let key = self.fly(token, Borrowed::Accept(listener));
        self.submit(key, self.accept_entry(listener));
    }

    fn accept_entry(&self, listener: ListenerId) -> squeue::Entry {
        let fd = types::Fd(self.listeners[listener.0 as usize].as_raw_fd());
        if let Some(multishot) = &self.features.multishot_accept {
            return multishot.entry(fd);
        }
        let (nobody, nothing) = (std::ptr::null_mut(), std::ptr::null_mut());
        let accept = opcode::Accept::new(fd, nobody, nothing);
        accept.flags(libc::SOCK_CLOEXEC).build()
    }

    pub(super) fn push_receive(&mut self, token: Token, socket: SocketId) {
        let Some(open) = self.socket(socket) else {
            return self.fail(token, Errno::EBADF, Payload::None);
        };
        let entry = self.receive_entry(&open);
        let key = self.fly(token, Borrowed::Receive(Rc::clone(&open)));
        open.receiving.set(Some(key));
        open.stopping.set(false);
        self.submit(key, entry);
    }

    fn receive_entry(&self, socket: &Socket) -> squeue::Entry {
        let fd = types::Fd(socket.fd.as_raw_fd());
        if let Some(multishot) = &self.features.multishot_receive {
            return multishot.entry(fd);
        }
        // Before 6.0 a length of 0 is not "as much as a buffer holds".
        let receive = opcode::Recv::new(fd, std::ptr::null_mut(), self.buffers.size());
        let receive = receive.buf_group(GROUP).build();
        receive.flags(squeue::Flags::BUFFER_SELECT)
    }

    pub(super) fn push_stop_receive(&mut self, token: Token, socket: SocketId) {
        let open = self.socket(socket);
        let Some((open, target)) = open.and_then(|open| {
            let target = open.receiving.get()?;
            Some((open, target))
        }) else {
            return self.fail(token, Errno::ENOENT, Payload::None);
        };
        open.stopping.set(true);
        let key = self.fly(token, Borrowed::Nothing);
        self.submit(key, opcode::AsyncCancel::new(target.to_u64()).build());
    }

    /// Arms what was meant to go on and was armed for one completion only, which has come. Answers
    /// whether it goes on.
    pub(super) fn arm_again(&mut self, key: Key, result: Result<u32, Errno>) -> bool {
        if self.closing {
            return false;
        }
        let entry = match (self.flights.get(key), result) {
            (
                Some(Flight {
                    borrowed: Borrowed::Accept(listener),
                    ..
                }),
                Ok(_),
            ) if self.features.multishot_accept.is_none() => self.accept_entry(*listener),
            (
                Some(Flight {
                    borrowed: Borrowed::Receive(socket),
                    ..
                }),
                Ok(1..),
            ) if self.features.multishot_receive.is_none() => {
                if socket.stopping.get() {
                    return true; // `end_stopped` has the last word.
                }
                self.receive_entry(socket)
            }
            _ => return false,
        };
        self.submit(key, entry);
        true
    }

    /// Ends a receive that was to stop when it had just completed, so that its cancellation found nothing.
    pub(super) fn end_stopped(&mut self, key: Key) {
        let Some(Flight {
            borrowed: Borrowed::Receive(socket),
            ..
        }) = self.flights.get(key)
        else {
            return;
        };
        if self.features.multishot_receive.is_none() && socket.stopping.get() {
            socket.receiving.set(None);
            self.land(key, Err(Errno::ECANCELED));
        }
    }

    pub(super) fn received(&self, entry: &cqueue::Entry, result: Result<u32, Errno>) -> Payload {
        match (cqueue::buffer_select(entry.flags()), result) {
            (Some(buffer), Ok(len)) => Payload::Received(self.buffers.lease(buffer, len as usize)),
            (_, Err(Errno::ENOBUFS)) => {
                self.buffers.ran_out();
                Payload::None
            }
            _ => Payload::None,
        }
    }

    pub(super) fn accepted(&mut self, result: Result<u32, Errno>) -> Payload {
        let Ok(fd) = result else { return Payload::None };
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let socket = socket2::Socket::from(fd);
        // Answers are small and must not wait for the peer's acknowledgement of the one before.
        let prepared = socket.set_tcp_nodelay(true);
        let peer = socket
            .peer_addr()
            .ok()
            .and_then(|address| address.as_socket());
        let (Ok(()), Some(peer)) = (prepared, peer) else {
            return Payload::None; // Gone already; the socket is closed here.
        };
        let fd = OwnedFd::from(socket);
        let key = self.sockets.insert(Rc::new(Socket {
            fd,
            receiving: std::cell::Cell::new(None),
            stopping: std::cell::Cell::new(false),
        }));
        Payload::Accepted(SocketId(key.to_u64()), canonical(peer))
    }
}

/// An IPv4 peer on a dual-stack socket is an IPv4 peer.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

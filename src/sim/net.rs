//! Simulated peers and pipes: what a peer sends is scripted, what it gets is kept.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use crate::base::{Key, Slab};
use crate::io::{ListenerId, PipeId, SocketId};

/// Bytes that a pipe holds.
const PIPE_SIZE: usize = 1 << 18;

/// A scripted peer, from its connect on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerId(usize);

#[derive(Debug, Default)]
struct Peer {
    /// On its way to the broker.
    sent: VecDeque<u8>,
    /// It will send no more.
    finished: bool,
    /// What the broker has sent.
    received: Vec<u8>,
    /// The broker has closed the connection.
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Net {
    peers: Vec<Peer>,
    sockets: Slab<usize>,
    waiting: VecDeque<(ListenerId, usize)>,
    pipes: Vec<VecDeque<u8>>,
}

impl Net {
    pub(super) fn connect(&mut self, listener: ListenerId) -> PeerId {
        self.peers.push(Peer::default());
        let peer = self.peers.len() - 1;
        self.waiting.push_back((listener, peer));
        PeerId(peer)
    }

    pub(super) fn peer_sends(&mut self, peer: PeerId, bytes: &[u8]) {
        self.peers[peer.0].sent.extend(bytes);
    }

    pub(super) fn peer_finishes(&mut self, peer: PeerId) {
        self.peers[peer.0].finished = true;
    }

    pub(super) fn peer_takes(&mut self, peer: PeerId) -> Vec<u8> {
        std::mem::take(&mut self.peers[peer.0].received)
    }

    pub(super) fn is_closed(&self, peer: PeerId) -> bool {
        self.peers[peer.0].closed
    }

    pub(super) fn is_waiting(&self, listener: ListenerId) -> bool {
        self.waiting.iter().any(|(at, _)| *at == listener)
    }

    pub(super) fn accept(&mut self, listener: ListenerId) -> (SocketId, SocketAddr) {
        let at = self.waiting.iter().position(|(at, _)| *at == listener);
        let (_, peer) = at
            .and_then(|at| self.waiting.remove(at))
            .expect("somebody waits");
        let port = 40_000 + (peer % 20_000) as u16;
        let key = self.sockets.insert(peer);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        (SocketId(key.to_u64()), address)
    }

    fn peer(&mut self, socket: SocketId) -> Option<&mut Peer> {
        let peer = *self.sockets.get(Key::from_u64(socket.0))?;
        self.peers.get_mut(peer)
    }

    pub(super) fn is_open(&self, socket: SocketId) -> bool {
        self.sockets.get(Key::from_u64(socket.0)).is_some()
    }

    pub(super) fn close(&mut self, socket: SocketId) -> bool {
        match self.sockets.remove(Key::from_u64(socket.0)) {
            Some(peer) => {
                self.peers[peer].closed = true;
                true
            }
            None => false,
        }
    }

    /// Whether a receive would complete: bytes, an end, or a socket that was closed meanwhile.
    pub(super) fn is_readable(&self, socket: SocketId) -> bool {
        match self.sockets.get(Key::from_u64(socket.0)) {
            Some(peer) => !self.peers[*peer].sent.is_empty() || self.peers[*peer].finished,
            None => true,
        }
    }

    pub(super) fn readable(&self, socket: SocketId) -> usize {
        let peer = self.sockets.get(Key::from_u64(socket.0));
        peer.map_or(0, |peer| self.peers[*peer].sent.len())
    }

    pub(super) fn take(&mut self, socket: SocketId, count: usize) -> Vec<u8> {
        self.peer(socket)
            .map_or_else(Vec::new, |peer| peer.sent.drain(..count).collect())
    }

    /// `false`: nobody is there any more.
    pub(super) fn send(&mut self, socket: SocketId, bytes: &[u8]) -> bool {
        match self.peer(socket) {
            Some(peer) => {
                peer.received.extend_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    pub(super) fn pipe(&mut self, pipe: PipeId) -> &mut VecDeque<u8> {
        let index = pipe.0 as usize;
        if self.pipes.len() <= index {
            self.pipes.resize_with(index + 1, VecDeque::new);
        }
        &mut self.pipes[index]
    }

    pub(super) fn pipe_len(&self, pipe: PipeId) -> usize {
        self.pipes.get(pipe.0 as usize).map_or(0, VecDeque::len)
    }

    pub(super) fn pipe_room(&self, pipe: PipeId) -> usize {
        PIPE_SIZE - self.pipe_len(pipe)
    }

    /// The process is gone, and with it every connection.
    pub(super) fn hang_up(&mut self) {
        for key in self.sockets.keys() {
            self.sockets.remove(key);
        }
        self.peers.iter_mut().for_each(|peer| peer.closed = true);
        self.waiting.clear();
        self.pipes.clear();
    }
}

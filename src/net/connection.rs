//! Connections of a shard: receiving with backpressure, sending in order, closing for a reason.

mod sending;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::ROOM;
use super::frames::{FrameSize, Frames};
use super::limits::Limits;
use crate::base::{Key, Latency, Quantiles, Slab};
use crate::egress::Delivery;
use crate::io::{Completion, Errno, Io, Lease, ListenerId, Op, Payload, SocketId, Token};

const ACCEPT: u64 = 1 << 52;
const RECEIVE: u64 = 2 << 52;
const SEND: u64 = 3 << 52;
const OTHER: u64 = 4 << 52;
const KIND: u64 = 7 << 52;

/// Something happened to a connection.
#[derive(Debug)]
pub enum Event {
    /// It is there.
    Opened(Key),
    /// Bytes came: [`Net::frames`].
    Received(Key, Lease),
    /// The peer sends nothing more. What came before it stands in front of this event and counts: close
    /// the connection when that was read.
    Ended(Key),
    /// It is gone; its key names nothing any more.
    Closed(Key),
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused at the bound.
    pub refused: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent, heads and small answers; bodies are counted by egress.
    pub sent_bytes: u64,
    /// Connections closed because of what they sent.
    pub broken_frames: u64,
}

enum Outgoing {
    Bytes(Vec<u8>),
    Delivery(Delivery),
}

struct Connection {
    socket: SocketId,
    peer: SocketAddr,
    carry: Vec<u8>,
    carry_since_ns: u64,
    receiving: bool,
    stopping: bool,
    queue: VecDeque<Outgoing>,
    /// Bytes of the deliveries in `queue`.
    unsent: usize,
    sending: bool,
    sending_since_ns: u64,
    /// A whole buffer went out and may be used again.
    spare: Vec<u8>,
    sent_of_buffer: usize,
    active_ns: u64,
    /// Nothing can be sent any more; what comes is still read.
    mute: bool,
    listed: bool,
    /// The turn in which it last had requests executed, bytes of those, and how long they took.
    turn: u64,
    taken: usize,
    taken_ns: u64,
    /// Something that came waits for the next turn.
    held: bool,
}

impl Connection {
    /// Its peer does not take its answers: nothing more is read from it until it has.
    fn is_behind(&self, limits: &Limits) -> bool {
        let answers = self.queue.iter().map(|item| match item {
            Outgoing::Bytes(bytes) => bytes.len(),
            Outgoing::Delivery(_) => 0,
        });
        limits.unsent_max <= self.unsent + answers.sum::<usize>()
    }

    /// Whether more may be read from its peer than is being read already.
    fn may_receive(&self, limits: &Limits) -> bool {
        !self.receiving && !self.held && !self.is_behind(limits)
    }
}

/// All connections of a ring.
pub struct Net {
    limits: Limits,
    frame_size: FrameSize,
    connections: Slab<Connection>,
    by_delivery: BTreeMap<Key, Key>,
    turn: u64,
    /// Connections with something new to send.
    dirty: Vec<Key>,
    /// Listeners that accept no more until there is room (EMFILE) or at all.
    accepting: bool,
    accept_again: Vec<ListenerId>,
    carry_total: usize,
    counters: NetCounters,
    /// From a send's start to the last byte that the kernel took of it.
    sent_times: Latency,
    /// The refusal was logged; again only after there was room.
    refusal_logged: bool,
}

impl Net {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: Limits, frame_size: FrameSize) -> Self {
        Self {
            limits,
            frame_size,
            connections: Slab::default(),
            by_delivery: BTreeMap::new(),
            turn: 0,
            dirty: Vec::new(),
            accepting: true,
            accept_again: Vec::new(),
            carry_total: 0,
            counters: NetCounters::default(),
            sent_times: Latency::default(),
            refusal_logged: false,
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> NetCounters {
        self.counters
    }

    /// Ends a period of what [`Self::sent_times`] tells.
    pub fn end_sent_period(&mut self) {
        self.sent_times.end_period();
    }

    /// Adds it up, which takes some ten microseconds. Who asks before that has it done then.
    pub fn add_up_sent_times(&mut self) {
        self.sent_times.add_up();
    }

    /// How long sends of the last whole period took, and those since the start.
    pub fn sent_times(&mut self) -> [Quantiles; 2] {
        [self.sent_times.recent(), self.sent_times.total()]
    }

    /// Connections that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Starts accepting on a listener.
    pub fn listen(&mut self, io: &mut impl Io, listener: ListenerId) {
        let token = Token::of(ROOM, ACCEPT | u64::from(listener.0));
        let pushed = io.push(token, Op::Accept { listener });
        assert!(pushed.is_ok(), "a ring has room for its listeners");
    }

    /// Takes no new connections from now on.
    pub const fn stop_accepting(&mut self) {
        self.accepting = false;
    }

    /// Address of a peer.
    #[must_use]
    pub fn peer(&self, key: Key) -> Option<SocketAddr> {
        self.connections.get(key).map(|connection| connection.peer)
    }

    /// Takes one answer of the kernel.
    pub fn complete(&mut self, io: &mut impl Io, done: Completion, events: &mut Vec<Event>) {
        let rest = done.token.rest();
        match rest & KIND {
            ACCEPT => self.complete_accept(io, done, events),
            RECEIVE => self.complete_receive(io, done, events),
            SEND => self.complete_send(io, done, events),
            _ => (),
        }
    }

    fn complete_accept(&mut self, io: &mut impl Io, done: Completion, events: &mut Vec<Event>) {
        if !done.more {
            self.accept_again.push(ListenerId(done.token.rest() as u32));
        }
        match (done.result, done.payload) {
            (Ok(_), Payload::Accepted(socket, peer)) => self.open(io, socket, peer, events),
            (Ok(_), _) | (Err(Errno::ECANCELED), _) => (),
            (Err(errno), _) => {
                tracing::warn!(%errno, "a connection could not be accepted; trying again");
            }
        }
    }

    fn open(
        &mut self,
        io: &mut impl Io,
        socket: SocketId,
        peer: SocketAddr,
        events: &mut Vec<Event>,
    ) {
        if !self.accepting || self.limits.connections_max <= self.connections.len() {
            self.counters.refused += 1;
            if self.accepting && !std::mem::replace(&mut self.refusal_logged, true) {
                tracing::warn!(
                    connections = self.connections.len(),
                    %peer,
                    "too many connections: new ones are closed; raise the limit of open files (ulimit -n)"
                );
            }
            self.push(io, OTHER, Key::default(), Op::Close { socket });
            return;
        }
        self.refusal_logged = false;
        self.counters.accepted += 1;
        let key = self.connections.insert(Connection {
            socket,
            peer,
            carry: Vec::new(),
            carry_since_ns: 0,
            receiving: false,
            stopping: false,
            queue: VecDeque::new(),
            unsent: 0,
            sending: false,
            sending_since_ns: 0,
            spare: Vec::new(),
            sent_of_buffer: 0,
            active_ns: io.now_ns(),
            mute: false,
            listed: false,
            turn: 0,
            taken: 0,
            taken_ns: 0,
            held: false,
        });
        events.push(Event::Opened(key));
        self.receive(io, key);
    }

    fn push(&self, io: &mut impl Io, kind: u64, key: Key, op: Op) {
        // 32 bits of slot and 20 of generation: enough for the life of an operation.
        let bits = u64::from(key.index) | (u64::from(key.generation & 0xf_ffff) << 32);
        let pushed = io.push(Token::of(ROOM, kind | bits), op);
        assert!(
            pushed.is_ok(),
            "the ring has room for three operations a connection"
        );
    }

    fn key_of(&self, token: Token) -> Option<Key> {
        let rest = token.rest() & !KIND;
        let index = rest as u32;
        let generation = (rest >> 32) as u32 & 0xf_ffff;
        let (key, _) = self.connections.at(index)?;
        (key.generation & 0xf_ffff == generation).then_some(key)
    }

    fn receive(&mut self, io: &mut impl Io, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.receiving {
            return;
        }
        connection.receiving = true;
        connection.stopping = false;
        let socket = connection.socket;
        self.push(io, RECEIVE, key, Op::Receive { socket });
    }

    fn complete_receive(&mut self, io: &mut impl Io, done: Completion, events: &mut Vec<Event>) {
        let Some(key) = self.key_of(done.token) else {
            return;
        };
        let now_ns = io.now_ns();
        let connection = self.connections.get_mut(key).expect("the key is of now");
        if !done.more {
            connection.receiving = false;
        }
        match (done.result, done.payload) {
            (Ok(count @ 1..), Payload::Received(lease)) => {
                connection.active_ns = now_ns;
                self.counters.received_bytes += u64::from(count);
                events.push(Event::Received(key, lease));
            }
            // The buffers ran out, or receiving was stopped: nothing is lost.
            (Err(Errno::ENOBUFS | Errno::ECANCELED), _) => (),
            _ => return events.push(Event::Ended(key)),
        }
        if connection.may_receive(&self.limits) {
            self.receive(io, key);
        }
    }

    /// A turn begins: each peer has its whole share again.
    pub const fn begin_turn(&mut self) {
        self.turn += 1;
    }

    /// Whether a piece may be executed in this turn. If not, keep it with what follows it from that peer, and
    /// hand it in again in the next: nothing more is read from the peer until then.
    pub fn may_go_on(&mut self, io: &mut impl Io, key: Key, len: usize) -> bool {
        let turn = self.turn;
        let Some(connection) = self.connections.get_mut(key) else {
            return true;
        };
        if connection.turn != turn {
            connection.turn = turn;
            connection.taken = 0;
            connection.taken_ns = 0;
            connection.held = false;
        }
        connection.held |= self.limits.turn_ns_max <= connection.taken_ns
            || 0 < connection.taken && self.limits.turn_max < connection.taken + len;
        if !connection.held {
            connection.taken += len;
            if connection.may_receive(&self.limits) {
                self.receive(io, key);
            }
            return true;
        }
        self.stop_receiving(io, key);
        false
    }

    /// The requests of a piece took so long.
    pub fn took(&mut self, key: Key, ns: u64) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.taken_ns += ns;
        }
    }

    /// Whether something of this peer waits for the next turn.
    #[must_use]
    pub fn is_held(&self, key: Key) -> bool {
        self.connections
            .get(key)
            .is_some_and(|connection| connection.held)
    }

    /// The frames in a piece that came. Give what is left back with [`Self::keep`].
    pub fn frames(&mut self, key: Key, piece: Lease) -> Option<Frames> {
        let connection = self.connections.get_mut(key)?;
        let carry = std::mem::take(&mut connection.carry);
        self.carry_total -= carry.len();
        Some(Frames::new(carry, piece, self.frame_size))
    }

    /// Keeps the beginning of a frame for the next piece. Closes the connection where all connections
    /// together hold too much.
    pub fn keep(
        &mut self,
        io: &mut impl Io,
        key: Key,
        frames: &mut Frames,
        events: &mut Vec<Event>,
    ) {
        let carry = frames.take_carry();
        let now_ns = io.now_ns();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !carry.is_empty() {
            connection.carry_since_ns = now_ns;
        }
        self.carry_total += carry.len();
        connection.carry = carry;
        if self.limits.carry_total_max < self.carry_total {
            tracing::warn!(
                peer = %connection.peer,
                bytes = self.carry_total,
                "unfinished requests fill the memory set aside for them: this connection is closed"
            );
            self.close(io, key, events);
        }
    }

    /// The peer sent what is no frame: says so once and closes.
    pub fn break_off(&mut self, io: &mut impl Io, key: Key, why: &str, events: &mut Vec<Event>) {
        if let Some(connection) = self.connections.get(key) {
            self.counters.broken_frames += 1;
            tracing::debug!(peer = %connection.peer, why, "connection closed");
        }
        self.close(io, key, events);
    }

    /// Stops reading from peers that do not take their answers.
    pub fn hold_back(&mut self, io: &mut impl Io, key: Key) {
        let is_behind = self
            .connections
            .get(key)
            .is_some_and(|connection| connection.is_behind(&self.limits));
        if is_behind {
            self.stop_receiving(io, key);
        }
    }

    fn stop_receiving(&mut self, io: &mut impl Io, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.receiving && !connection.stopping {
            connection.stopping = true;
            let socket = connection.socket;
            self.push(io, OTHER, key, Op::StopReceive { socket });
        }
    }

    /// Closes now; the answers that were not sent are lost with it.
    pub fn close(&mut self, io: &mut impl Io, key: Key, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        self.carry_total -= connection.carry.len();
        let socket = connection.socket;
        self.push(io, OTHER, key, Op::Close { socket });
        events.push(Event::Closed(key));
    }

    /// Closes what has been silent for too long. Called about once a second.
    pub fn sweep(&mut self, io: &mut impl Io, events: &mut Vec<Event>) {
        let now_ns = io.now_ns();
        let late: Vec<Key> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let idle = self.limits.idle_ns_max <= now_ns.saturating_sub(connection.active_ns);
                let begun = !connection.carry.is_empty();
                let since = now_ns.saturating_sub(connection.carry_since_ns);
                idle || (begun && self.limits.frame_ns_max <= since)
            })
            .map(|(key, _)| key)
            .collect();
        for key in late {
            if let Some(peer) = self.peer(key) {
                tracing::debug!(%peer, "connection closed: silent for too long");
            }
            self.close(io, key, events);
        }
    }

    /// Whether everything that was answered has been sent.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.connections
            .iter()
            .all(|(_, connection)| !connection.sending && connection.queue.is_empty())
    }

    /// Keys of all connections.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.connections.keys()
    }
}

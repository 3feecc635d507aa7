//! Sending of a connection: in order, one operation at a time, until the peer is gone.

use super::{Event, Net, Outgoing, SEND};
use crate::base::Key;
use crate::egress::{Delivery, Egress, Progress};
use crate::io::{Completion, Errno, Io, Op, Payload};

impl Net {
    /// Buffer to which small answers for a peer are appended. `None`: it is gone.
    pub fn reply(&mut self, key: Key) -> Option<&mut Vec<u8>> {
        let connection = self.connections.get_mut(key)?;
        if connection.mute {
            return None;
        }
        if !connection.listed {
            connection.listed = true;
            self.dirty.push(key);
        }
        // The front may be with the kernel; what is behind it may still grow.
        let can_grow = matches!(connection.queue.back(), Some(Outgoing::Bytes(_)));
        if !can_grow {
            let mut spare = std::mem::take(&mut connection.spare);
            spare.clear();
            connection.queue.push_back(Outgoing::Bytes(spare));
        }
        match connection.queue.back_mut() {
            Some(Outgoing::Bytes(bytes)) => Some(bytes),
            _ => unreachable!("was put there just now"),
        }
    }

    /// Queues a delivery behind what is queued.
    pub fn deliver(&mut self, key: Key, delivery: Delivery) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.mute {
            return;
        }
        if !connection.listed {
            connection.listed = true;
            self.dirty.push(key);
        }
        let spans: u64 = delivery.spans.iter().map(|span| u64::from(span.len)).sum();
        connection.unsent += delivery.head.len() + spans as usize;
        connection.queue.push_back(Outgoing::Delivery(delivery));
    }

    /// Sends what was queued in this turn, one operation a connection.
    pub fn flush(&mut self, io: &mut impl Io, egress: &mut Egress) {
        let dirty = std::mem::take(&mut self.dirty);
        for key in &dirty {
            if let Some(connection) = self.connections.get_mut(*key) {
                connection.listed = false;
            }
            self.send_next(io, egress, *key);
        }
        self.dirty = dirty;
        self.dirty.clear();
        for listener in std::mem::take(&mut self.accept_again) {
            if self.accepting {
                self.listen(io, listener);
            }
        }
    }

    fn send_next(&mut self, io: &mut impl Io, egress: &mut Egress, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.sending {
            return;
        }
        connection.sending_since_ns = io.now_ns();
        let socket = connection.socket;
        match connection.queue.pop_front() {
            None => (),
            Some(Outgoing::Bytes(from)) if from.is_empty() => {
                connection.spare = from;
                self.send_next(io, egress, key);
            }
            Some(Outgoing::Bytes(from)) => {
                connection.sending = true;
                connection.sent_of_buffer = 0;
                // A delivery behind these bytes follows at once: let both share their packets.
                let more = matches!(connection.queue.front(), Some(Outgoing::Delivery(_)));
                let op = Op::Send {
                    socket,
                    from,
                    skip: 0,
                    more,
                };
                self.push(io, SEND, key, op);
            }
            Some(Outgoing::Delivery(delivery)) => {
                connection.sending = true;
                let spans: u64 = delivery.spans.iter().map(|span| u64::from(span.len)).sum();
                connection.unsent -= delivery.head.len() + spans as usize;
                let under_way = egress.start(io, socket, delivery);
                self.by_delivery.insert(under_way, key);
            }
        }
    }

    pub(super) fn complete_send(
        &mut self,
        io: &mut impl Io,
        done: Completion,
        events: &mut Vec<Event>,
    ) {
        let Some(key) = self.key_of(done.token) else {
            return;
        };
        let Payload::Buffer(from) = done.payload else {
            unreachable!("a send gives its buffer back")
        };
        let count = match done.result {
            Ok(count) => count,
            Err(errno) => return self.stop_sending(io, key, errno, events),
        };
        self.counters.sent_bytes += u64::from(count);
        let now_ns = io.now_ns();
        let connection = self.connections.get_mut(key).expect("the key is of now");
        connection.active_ns = now_ns;
        connection.sent_of_buffer += count as usize;
        if connection.sent_of_buffer < from.len() {
            let (socket, skip) = (connection.socket, connection.sent_of_buffer);
            let op = Op::Send {
                socket,
                from,
                skip,
                more: false,
            };
            return self.push(io, SEND, key, op);
        }
        connection.sending = false;
        let took_ns = now_ns.saturating_sub(connection.sending_since_ns);
        self.sent_times.record(took_ns, 1);
        if from.capacity() <= 64 << 10 {
            connection.spare = from;
        }
        self.sent(io, key);
    }

    /// Nothing more can be sent. A peer that has closed with answers unread resets the connection, but what it
    /// sent before counts (a last commit, say): it is read up to its end, which closes.
    fn stop_sending(&mut self, io: &mut impl Io, key: Key, errno: Errno, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        tracing::debug!(peer = %connection.peer, %errno, "nothing more can be sent");
        let peer_is_gone = matches!(
            errno,
            Errno::EPIPE | Errno::ECONNRESET | Errno::ETIMEDOUT | Errno::ENOTCONN
        );
        if !peer_is_gone {
            return self.close(io, key, events);
        }
        connection.mute = true;
        connection.sending = false;
        connection.queue.clear();
        connection.unsent = 0;
        self.receive(io, key);
    }

    /// A delivery that egress reports on.
    pub fn delivered(
        &mut self,
        io: &mut impl Io,
        under_way: Key,
        progress: Progress,
        events: &mut Vec<Event>,
    ) {
        if progress == Progress::Busy {
            return;
        }
        let Some(key) = self.by_delivery.remove(&under_way) else {
            return;
        };
        let now_ns = io.now_ns();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.sending = false;
        connection.active_ns = now_ns;
        let took_ns = now_ns.saturating_sub(connection.sending_since_ns);
        self.sent_times.record(took_ns, 1);
        match progress {
            Progress::Broken(errno) => {
                self.stop_sending(io, key, errno, events);
            }
            _ => self.sent(io, key),
        }
    }

    fn sent(&mut self, io: &mut impl Io, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !connection.listed && !connection.queue.is_empty() {
            connection.listed = true;
            self.dirty.push(key);
        }
        if connection.may_receive(&self.limits) {
            self.receive(io, key);
        }
    }
}

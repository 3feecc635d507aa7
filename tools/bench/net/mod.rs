//! Connections of one thread, and the kernel interface that moves their bytes: an io_uring, or
//! epoll where there is none. A connection is known by its token, its index here.

mod connection;
mod poll;
mod ring;

pub use connection::Connection;
pub use poll::Poll;

use crate::{Outcome, fail};
use ring::Ring;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum EngineKind {
    /// What measured best with small messages over loopback: epoll
    Auto,
    /// io_uring: one call a turn for all connections (Linux 6.1)
    Ring,
    /// epoll, and a call for each receive and send
    Epoll,
}

/// How a turn waits when nothing is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Spin,
    Sleep { ns: u64 },
}

enum Engine {
    Ring(Box<Ring>),
    Epoll(Poll),
}

pub struct Net {
    engine: Engine,
    connections: Vec<Option<Connection>>,
}

/// The token of a listener.
pub const LISTENER: usize = usize::MAX >> 2;

impl Net {
    pub fn new(kind: EngineKind) -> Outcome<Net> {
        let ring = match kind {
            EngineKind::Epoll | EngineKind::Auto => None,
            EngineKind::Ring => Ring::new(),
        };
        let engine = match ring {
            Some(ring) => Engine::Ring(Box::new(ring)),
            None if kind == EngineKind::Ring => {
                return fail(
                    "this kernel gives no io_uring with DEFER_TASKRUN (Linux 6.1); use --engine epoll",
                );
            }
            None => Engine::Epoll(Poll::new()?),
        };
        Ok(Net {
            engine,
            connections: Vec::new(),
        })
    }

    pub fn engine_name(&self) -> &'static str {
        match self.engine {
            Engine::Ring(_) => "io_uring",
            Engine::Epoll(_) => "epoll",
        }
    }

    pub fn listen(&mut self, listener: &TcpListener) -> Outcome<()> {
        listener.set_nonblocking(true)?;
        match &mut self.engine {
            Engine::Ring(ring) => ring.listen(listener, LISTENER),
            Engine::Epoll(poll) => poll.add(listener, LISTENER),
        }
    }

    pub fn connect(&mut self, addr: SocketAddr) -> Outcome<usize> {
        match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            Ok(socket) => self.add(socket),
            Err(error) => fail(format!(
                "cannot connect to {addr}: {error}; is the broker running?"
            )),
        }
    }

    /// Takes a connected socket; gives its token.
    pub fn add(&mut self, socket: TcpStream) -> Outcome<usize> {
        socket.set_nodelay(true)?;
        let token = self
            .connections
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.connections.len());
        if token == self.connections.len() {
            self.connections.push(None);
        }
        let connection = self.connections[token].insert(Connection::new(socket));
        match &mut self.engine {
            Engine::Ring(ring) => {
                // On a non-blocking socket the kernel would say EAGAIN where it should wait.
                connection.socket.set_nonblocking(false)?;
                ring.receive(connection, token)?;
            }
            Engine::Epoll(poll) => {
                connection.socket.set_nonblocking(true)?;
                poll.add(&connection.socket, token)?;
            }
        }
        Ok(token)
    }

    /// The connection of a token that was given and not removed.
    pub fn connection(&mut self, token: usize) -> &mut Connection {
        self.connections[token]
            .as_mut()
            .expect("the connection was not removed")
    }

    /// The last `count` bytes that a connection received.
    pub fn last_received(&self, token: usize, count: usize) -> &[u8] {
        let connection = self.connections[token].as_ref();
        connection.map_or(&[], |connection| connection.last_received(count))
    }

    pub fn has(&self, token: usize) -> bool {
        self.connections.get(token).is_some_and(Option::is_some)
    }

    pub fn count(&self) -> usize {
        self.connections.iter().flatten().count()
    }

    /// Waits as told, and gives the tokens that have something.
    pub fn wait(&mut self, wait: Wait, ready: &mut Vec<usize>) -> Outcome<()> {
        ready.clear();
        match &mut self.engine {
            Engine::Ring(ring) => ring.wait(wait, &mut self.connections, ready),
            Engine::Epoll(poll) => {
                let wait_ms = match wait {
                    Wait::Spin => 0,
                    Wait::Sleep { ns } => (ns / 1_000_000).min(u64::from(u8::MAX)) as u8,
                };
                poll.wait(wait_ms, ready)
            }
        }
    }

    /// What came for a ready token: how many bytes, or none when the other side closed.
    pub fn receive(&mut self, token: usize) -> Outcome<Option<usize>> {
        match &self.engine {
            Engine::Ring(_) => self.connection(token).take_came(),
            Engine::Epoll(_) => self.connection(token).read(),
        }
    }

    /// Sends a connection's `out`, and is ready for more of its input: frames that were not
    /// taken out of it yet may move.
    pub fn send(&mut self, token: usize) -> Outcome<()> {
        let Some(connection) = self.connections[token].as_mut() else {
            return Ok(());
        };
        match &mut self.engine {
            Engine::Ring(ring) => {
                ring.send(connection, token)?;
                ring.receive(connection, token)
            }
            Engine::Epoll(poll) => {
                let is_done = connection.write()?;
                if connection.waits_writable == is_done {
                    connection.waits_writable = !is_done;
                    poll.set_writable(&connection.socket, token, !is_done)?;
                }
                Ok(())
            }
        }
    }

    /// Closes a connection; with the ring once the kernel has given its memory back.
    pub fn remove(&mut self, token: usize) {
        let Some(connection) = &mut self.connections[token] else {
            return;
        };
        if connection.is_receiving || connection.is_sending {
            connection.is_closed = true;
            let _ = connection.socket.shutdown(std::net::Shutdown::Both);
            return;
        }
        self.connections[token] = None;
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Engine::Ring(ring) = &mut self.engine
            && !ring.let_go(&mut self.connections)
        {
            // The kernel still has their memory: better lost than written to when it is another's.
            std::mem::forget(std::mem::take(&mut self.connections));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    /// Two connected ends, and frames larger than every buffer both ways.
    #[test]
    fn both_engines_move_large_frames_in_order_and_see_the_end() {
        for kind in [EngineKind::Ring, EngineKind::Epoll] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut net = Net::new(kind).unwrap();
            let near = net.connect(listener.local_addr().unwrap()).unwrap();
            let far = net.add(listener.accept().unwrap().0).unwrap();
            for index in 0..20_u8 {
                let body = vec![index; 300_000];
                wire::put_frame(&mut net.connection(near).out, b"{}", &body);
            }
            net.send(near).unwrap();
            let (mut ready, mut seen) = (Vec::new(), 0_u8);
            for _ in 0..10_000 {
                let wait = Wait::Sleep { ns: 10_000_000 };
                net.wait(wait, &mut ready).unwrap();
                for token in ready.clone() {
                    if token == far {
                        assert!(net.receive(token).unwrap().is_some());
                        while let Some(frame) = net.connection(token).next_frame().unwrap() {
                            assert!(frame.body.iter().all(|byte| *byte == seen), "{kind:?}");
                            seen += 1;
                        }
                    }
                    net.send(token).unwrap();
                }
                if seen == 20 {
                    break;
                }
            }
            assert_eq!(seen, 20, "{kind:?}");
            net.connections[near]
                .as_ref()
                .unwrap()
                .socket
                .shutdown(std::net::Shutdown::Write)
                .unwrap();
            let mut is_closed = false;
            for _ in 0..100 {
                net.wait(Wait::Sleep { ns: 10_000_000 }, &mut ready)
                    .unwrap();
                is_closed |= ready.contains(&far) && net.receive(far).unwrap().is_none();
                if is_closed {
                    break;
                }
            }
            assert!(is_closed, "{kind:?}");
        }
    }
}

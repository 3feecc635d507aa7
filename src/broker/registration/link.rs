//! The connections to one name server: blocking sockets with deadlines, one connection a broker.
//!
//! One a broker, because Apache's NameServer forgets only *one* broker when a connection closes: were
//! there one connection for all, a killed process would leave its other shards in every route for two
//! minutes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::command::{DataVersion, TopicConfig};
use crate::nameserver::body;
use crate::nameserver::requests::{INCREMENTAL, REGISTER_BROKER, UNREGISTER_BROKER};
use crate::protocol::rocketmq::frame::{
    FRAME_SIZE_MAX, HEADER_SIZE_MAX, HeaderKind, Scratch, decode, encode_request, frame_size,
};

use super::BrokerIdentity;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// How long a socket call may sleep before it is looked whether the broker stops.
const SLICE: Duration = Duration::from_millis(50);

/// Above this a body is packed: JSON of some 60,000 topics, for frames end at 16 MiB.
const PLAIN_SIZE_MAX: usize = 8 * 1024 * 1024;

/// Room for the header of a registration.
const BODY_SIZE_MAX: usize = FRAME_SIZE_MAX - HEADER_SIZE_MAX;

/// What one registration tells.
#[derive(Debug)]
pub(super) struct Encoded {
    body: Vec<u8>,
    compressed: bool,
    /// Only topics that have changed.
    is_part: bool,
}

impl Encoded {
    pub(super) fn new(
        topics: &[&TopicConfig],
        version: DataVersion,
        is_part: bool,
    ) -> Result<Self, String> {
        let plain = body::encode(topics, version);
        if plain.len() <= PLAIN_SIZE_MAX {
            return Ok(Self {
                body: plain,
                compressed: false,
                is_part,
            });
        }
        let packed = body::encode_compressed(topics, version);
        if BODY_SIZE_MAX < packed.len() {
            return Err(format!(
                "the {} topics of this broker have {} bytes packed, a registration has room for {BODY_SIZE_MAX}; delete topics",
                topics.len(),
                packed.len()
            ));
        }
        Ok(Self {
            body: packed,
            compressed: true,
            is_part,
        })
    }
}

/// Why a registration did not come about.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection, no answer, or no answer that is one.
    Unreachable(String),
    /// The name server answered, and said no; or there is nothing that could be sent.
    Refused(String),
}

/// The connections to one name server, one a broker.
pub(super) struct Link<'a> {
    address: &'a str,
    brokers: &'a [BrokerIdentity],
    stopping: &'a AtomicBool,
    connections: Vec<Option<Connection>>,
}

struct Connection {
    stream: TcpStream,
    /// What was received and is not used yet.
    received: Vec<u8>,
    /// Whether the name server knows the broker through this connection.
    registered: bool,
    opaque: i32,
}

impl<'a> Link<'a> {
    pub(super) fn new(
        address: &'a str,
        brokers: &'a [BrokerIdentity],
        stopping: &'a AtomicBool,
    ) -> Self {
        Self {
            address,
            brokers,
            stopping,
            connections: brokers.iter().map(|_| None).collect(),
        }
    }

    /// Registers one broker, over a new connection where there is none. `introduce` says that the broker
    /// has one topic only and may be unknown: name servers take that for a change of a broker they should
    /// know, and refuse it, unless the broker came without any topic before.
    pub(super) fn register(
        &mut self,
        shard: usize,
        encoded: &Encoded,
        introduce: bool,
    ) -> Result<(), Failure> {
        if self.connections[shard].is_none() {
            self.connections[shard] = Some(Connection::new(self.address)?);
        }
        if introduce {
            let nothing = Encoded {
                body: body::encode(&[] as &[TopicConfig], DataVersion::default()),
                compressed: false,
                is_part: true,
            };
            self.send_registration(shard, &nothing)?;
        }
        let result = self.send_registration(shard, encoded);
        if matches!(result, Err(Failure::Unreachable(_))) {
            // Half a frame may be on its way: nothing can follow it.
            self.connections[shard] = None;
        }
        result
    }

    fn send_registration(&mut self, shard: usize, encoded: &Encoded) -> Result<(), Failure> {
        let broker = &self.brokers[shard];
        let crc = body::crc_of(&encoded.body).to_string();
        let flag = |is: bool| if is { "true" } else { "false" };
        let fields = [
            ("bodyCrc32", crc.as_str()),
            ("brokerAddr", broker.address.as_str()),
            ("brokerId", "0"),
            ("brokerName", broker.name.as_str()),
            ("clusterName", broker.cluster.as_str()),
            ("compressed", flag(encoded.compressed)),
            ("enableActingMaster", "false"),
            ("haServerAddr", broker.ha_address.as_str()),
            (INCREMENTAL, flag(encoded.is_part)),
        ];
        let connection = self.connections[shard]
            .as_mut()
            .expect("it was connected just now");
        let until = Instant::now() + ANSWER_WITHIN;
        let stopping = self.stopping;
        let stop = || stopping.load(Ordering::Acquire);
        // From the first byte on the name server may know the broker.
        connection.registered = true;
        let opaque = connection.send(REGISTER_BROKER, &fields, &encoded.body, until, stop)?;
        connection.answer(opaque, until, stop)
    }

    /// Drops the connections that the name server closed, and says of which shards they were.
    pub(super) fn take_closed(&mut self) -> Vec<usize> {
        let mut closed = Vec::new();
        for (shard, connection) in self.connections.iter_mut().enumerate() {
            if connection.as_ref().is_some_and(Connection::is_closed) {
                *connection = None;
                closed.push(shard);
            }
        }
        closed
    }

    pub(super) fn close(&mut self) {
        self.connections.fill_with(|| None);
    }

    /// Tells of all brokers first and then reads the answers, so that many shards take no longer than one.
    pub(super) fn unregister_all(&mut self, until: Instant) {
        let mut asked = Vec::new();
        for (broker, connection) in self.brokers.iter().zip(&mut self.connections) {
            let Some(connection) = connection.as_mut().filter(|known| known.registered) else {
                continue;
            };
            let fields = [
                ("brokerAddr", broker.address.as_str()),
                ("brokerId", "0"),
                ("brokerName", broker.name.as_str()),
                ("clusterName", broker.cluster.as_str()),
            ];
            let sent = connection.send(UNREGISTER_BROKER, &fields, &[], until, || false);
            if let Ok(opaque) = sent {
                asked.push((connection, opaque));
            }
        }
        for (connection, opaque) in asked {
            // Nothing is left to do where this fails: the connection closes in a moment.
            let _ = connection.answer(opaque, until, || false);
        }
    }
}

impl Connection {
    fn new(address: &str) -> Result<Self, Failure> {
        let addresses = address
            .to_socket_addrs()
            .map_err(|error| unreachable(format!("its name cannot be resolved: {error}")))?;
        let mut failure = unreachable("its name has no address");
        let until = Instant::now() + CONNECT_WITHIN;
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let connected = TcpStream::connect_timeout(&address, left).and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SLICE))?;
                stream.set_write_timeout(Some(SLICE))?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => {
                    return Ok(Self {
                        stream,
                        received: Vec::new(),
                        registered: false,
                        opaque: 0,
                    });
                }
                Err(error) => failure = unreachable(format!("connecting to {address}: {error}")),
            }
        }
        Err(failure)
    }

    /// Sends a request whole, and returns its number.
    fn send(
        &mut self,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
        until: Instant,
        stop: impl Fn() -> bool,
    ) -> Result<i32, Failure> {
        self.opaque = self.opaque.wrapping_add(1);
        let mut bytes = Vec::with_capacity(body.len() + 1024);
        let opaque = self.opaque;
        encode_request(
            &mut bytes,
            HeaderKind::Json,
            code,
            opaque,
            false,
            fields,
            body,
        );
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(unreachable("the connection was closed")),
                Ok(count) => rest = &rest[count..],
                Err(error) => sleep_over(&error, until, &stop)?,
            }
        }
        Ok(opaque)
    }

    /// Reads up to the answer to that request; what the name server says besides is not for us.
    fn answer(
        &mut self,
        opaque: i32,
        until: Instant,
        stop: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let mut scratch = Scratch::default();
        loop {
            let no_frame = |error| unreachable(format!("it does not speak this protocol: {error}"));
            let size = frame_size(&self.received).map_err(no_frame)?;
            let Some(size) = size.filter(|size| *size <= self.received.len()) else {
                self.receive(until, &stop)?;
                continue;
            };
            let frame: Vec<u8> = self.received.drain(..size).collect();
            let answer = decode(&frame, &mut scratch).map_err(no_frame)?;
            if answer.is_response() && answer.opaque == opaque {
                if answer.code == 0 {
                    return Ok(());
                }
                let remark = answer.remark.unwrap_or("no reason given");
                return Err(Failure::Refused(format!("code {}: {remark}", answer.code)));
            }
        }
    }

    fn receive(&mut self, until: Instant, stop: &impl Fn() -> bool) -> Result<(), Failure> {
        // Also a name server that keeps sending other things is late.
        if until <= Instant::now() {
            return Err(unreachable("no answer in time"));
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(unreachable("the connection was closed")),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) => sleep_over(&error, until, stop),
        }
    }

    /// Whether the other side has closed; looks without waiting.
    fn is_closed(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let closed = match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !is_pause(&error),
        };
        closed || self.stream.set_nonblocking(false).is_err()
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// A socket call came back without bytes: goes on, unless it failed or the time is up.
fn sleep_over(
    error: &std::io::Error,
    until: Instant,
    stop: &impl Fn() -> bool,
) -> Result<(), Failure> {
    if !is_pause(error) {
        return Err(unreachable(error.to_string()));
    }
    if stop() {
        return Err(unreachable("this broker is stopping"));
    }
    if until <= Instant::now() {
        return Err(unreachable("no answer in time"));
    }
    Ok(())
}

fn unreachable(why: impl Into<String>) -> Failure {
    Failure::Unreachable(why.into())
}

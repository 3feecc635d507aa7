//! Connections of a replay: whatever arrives on any of them lands in one inbox.

use super::frame::Frame;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Arrival = (u32, Result<Frame, String>);

pub struct Connections {
    streams: HashMap<u32, (TcpStream, JoinHandle<()>)>,
    sender: Sender<Arrival>,
    receiver: Receiver<Arrival>,
    /// Frames that came and were not asked for yet.
    inbox: Vec<(u32, Frame)>,
    /// Why a connection ended, if the other side ended it.
    ended: HashMap<u32, String>,
}

impl Connections {
    pub fn new() -> Connections {
        let (sender, receiver) = channel();
        let (streams, ended) = (HashMap::new(), HashMap::new());
        Connections {
            streams,
            sender,
            receiver,
            inbox: Vec::new(),
            ended,
        }
    }

    pub fn is_open(&self, connection: u32) -> bool {
        self.streams.contains_key(&connection)
    }

    pub fn open(&mut self, connection: u32, address: SocketAddr) -> Result<(), String> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|cause| format!("connect to {address}: {cause}"))?;
        let mut reading = stream.try_clone().map_err(|cause| cause.to_string())?;
        // The number may have belonged to a connection that was closed.
        let earlier: Vec<Arrival> = self.receiver.try_iter().collect();
        earlier
            .into_iter()
            .for_each(|arrival| self.arrived(arrival));
        self.ended.remove(&connection);
        let sender = self.sender.clone();
        let reader = std::thread::spawn(move || {
            loop {
                let frame = read_frame(&mut reading);
                let ended = frame.is_err();
                if sender.send((connection, frame)).is_err() || ended {
                    return;
                }
            }
        });
        self.streams.insert(connection, (stream, reader));
        Ok(())
    }

    pub fn send(&mut self, connection: u32, bytes: &[u8]) -> Result<(), String> {
        let (stream, _) = self
            .streams
            .get_mut(&connection)
            .ok_or("no such connection")?;
        stream
            .write_all(bytes)
            .map_err(|cause| format!("send: {cause}"))
    }

    /// Closes a connection and waits for its reader, so that nothing of it comes later.
    pub fn close(&mut self, connection: u32) {
        if let Some((stream, reader)) = self.streams.remove(&connection) {
            // The other side may have closed it first.
            let _ = stream.shutdown(Shutdown::Both);
            reader
                .join()
                .expect("the reader ends when its connection does");
        }
    }

    /// Waits for the first frame of a connection that is `wanted`.
    pub fn wait(
        &mut self,
        connection: u32,
        time: Duration,
        wanted: impl Fn(&Frame) -> bool,
    ) -> Result<Frame, String> {
        let deadline = Instant::now() + time;
        loop {
            let found = |(from, frame): &(u32, Frame)| *from == connection && wanted(frame);
            if let Some(at) = self.inbox.iter().position(found) {
                return Ok(self.inbox.remove(at).1);
            }
            if let Some(cause) = self.ended.get(&connection) {
                return Err(format!("the connection ended: {cause}"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(arrival) => self.arrived(arrival),
                Err(RecvTimeoutError::Timeout) => return Err(format!("nothing within {time:?}")),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the sender lives in self"),
            }
        }
    }

    fn arrived(&mut self, (from, arrived): Arrival) {
        match arrived {
            Ok(frame) => self.inbox.push((from, frame)),
            Err(cause) => drop(self.ended.insert(from, cause)),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn call(
        &mut self,
        connection: u32,
        request: &Frame,
        time: Duration,
    ) -> Result<Frame, String> {
        self.send(connection, &request.encode())?;
        let opaque = request.opaque;
        self.wait(connection, time, |frame| {
            frame.is_answer() && frame.opaque == opaque
        })
    }

    /// What came and nobody asked for.
    pub fn rest(&mut self) -> Vec<(u32, Frame)> {
        let arrivals: Vec<Arrival> = self.receiver.try_iter().collect();
        arrivals
            .into_iter()
            .for_each(|arrival| self.arrived(arrival));
        std::mem::take(&mut self.inbox)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        let open: Vec<u32> = self.streams.keys().copied().collect();
        open.into_iter()
            .for_each(|connection| self.close(connection));
    }
}

fn read_frame(stream: &mut TcpStream) -> Result<Frame, String> {
    let mut bytes = vec![0; 4];
    stream
        .read_exact(&mut bytes)
        .map_err(|cause| cause.to_string())?;
    let len = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if 64 * 1024 * 1024 < len {
        return Err(format!("a frame of {len} bytes"));
    }
    bytes.resize(4 + len, 0);
    stream
        .read_exact(&mut bytes[4..])
        .map_err(|cause| cause.to_string())?;
    Frame::decode(&bytes)
}

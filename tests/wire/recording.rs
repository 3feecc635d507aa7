//! The recorded conversations of stock clients with Apache RocketMQ 5.5.0, read from their archive.

use super::frame::Frame;
use flate2::read::GzDecoder;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

const ARCHIVE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/wire/recordings.gz"
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// To whom a connection went. The recorder listened on two pairs of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    NameServer,
    Broker,
}

#[derive(Clone, Debug)]
pub struct Recorded {
    pub index: usize,
    pub connection: u32,
    pub peer: Peer,
    pub from: From,
    pub frame: Frame,
    pub bytes: Vec<u8>,
    /// For an answer: the index of its request. For a request: the index of its answer, if any.
    pub pair: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Recording {
    pub name: String,
    pub frames: Vec<Recorded>,
}

impl Recording {
    /// The request to which the frame at `index` is the answer.
    pub fn request_of(&self, answer: &Recorded) -> Option<&Recorded> {
        answer.pair.map(|index| &self.frames[index])
    }

    /// Every answer of the server with its request, in order of the answers.
    pub fn answers(&self) -> impl Iterator<Item = (&Recorded, &Recorded)> {
        let of_server = |frame: &&Recorded| frame.from == From::Server && frame.frame.is_answer();
        let answers = self.frames.iter().filter(of_server);
        answers.filter_map(|answer| Some((self.request_of(answer)?, answer)))
    }
}

/// All recordings of the archive, in its order.
///
/// The archive is a gzip stream of lines and frames: a line `{"recording":NAME}` begins a
/// recording, a line `{"n":…,"conn":…,"port":…,"from":…}` is followed by one frame as it was on
/// the wire.
pub fn all() -> Vec<Recording> {
    let file = File::open(ARCHIVE).unwrap_or_else(|cause| panic!("{ARCHIVE}: {cause}"));
    let mut bytes = Vec::new();
    GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .expect("the archive unpacks");
    let mut recordings: Vec<Recording> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let line_len = bytes[at..]
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a whole line");
        let line: Value = serde_json::from_slice(&bytes[at..at + line_len]).expect("a JSON line");
        at += line_len + 1;
        if let Some(name) = line["recording"].as_str() {
            recordings.push(Recording {
                name: name.to_owned(),
                frames: Vec::new(),
            });
            continue;
        }
        let len = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("a length")) as usize;
        let frame_bytes = bytes[at..at + 4 + len].to_vec();
        at += 4 + len;
        let recording = recordings.last_mut().expect("a recording has begun");
        let index = recording.frames.len();
        recording
            .frames
            .push(recorded(&recording.name, &line, index, frame_bytes));
    }
    recordings.iter_mut().for_each(pair_answers);
    recordings
}

fn recorded(name: &str, line: &Value, index: usize, bytes: Vec<u8>) -> Recorded {
    let frame = Frame::decode(&bytes).unwrap_or_else(|cause| panic!("{name} {line}: {cause}"));
    let peer = match line["port"].as_i64() {
        Some(9876 | 8876) => Peer::NameServer,
        Some(10911 | 10711) => Peer::Broker,
        _ => panic!("{name}: unknown port in {line}"),
    };
    let from = if line["from"] == "client" {
        From::Client
    } else {
        From::Server
    };
    let connection = line["conn"].as_u64().expect("a connection number") as u32;
    Recorded {
        index,
        connection,
        peer,
        from,
        frame,
        bytes,
        pair: None,
    }
}

fn pair_answers(recording: &mut Recording) {
    let mut open: HashMap<(u32, bool, i32), usize> = HashMap::new();
    for index in 0..recording.frames.len() {
        let recorded = &recording.frames[index];
        let from_client = recorded.from == From::Client;
        let (connection, opaque) = (recorded.connection, recorded.frame.opaque);
        if !recorded.frame.is_answer() {
            open.insert((connection, from_client, opaque), index);
        } else if let Some(request) = open.remove(&(connection, !from_client, opaque)) {
            recording.frames[index].pair = Some(request);
            recording.frames[request].pair = Some(index);
        }
    }
}

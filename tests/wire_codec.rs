//! The broker's codec reads every frame that stock clients, mqadmin and Apache RocketMQ exchanged,
//! in both kinds of header, and writes it back to equal fields.

// Parts of these serve the replay only.
#[allow(dead_code)]
mod wire {
    pub mod frame;
    pub mod recording;
}

use corelane::protocol::rocketmq::frame as ours;
use std::collections::BTreeMap;
use wire::frame::Frame;
use wire::recording;

/// A frame as its meaning, whatever way it is written. The version is not of it: what the broker
/// writes carries the broker's.
#[derive(Debug, PartialEq, Eq)]
struct Fields {
    header_kind: u8,
    code: i32,
    opaque: i32,
    flag: i32,
    /// Absent and empty are one: a ROCKETMQ header cannot tell them apart.
    remark: String,
    /// All values as text: some clients write raw numbers and booleans.
    ext: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A codec under test: reads a whole frame, writes what it read.
trait Codec {
    fn fields(&self, bytes: &[u8]) -> Result<Fields, String>;
    fn again(&self, bytes: &[u8]) -> Result<Vec<u8>, String>;
}

/// The tests' own codec, which tells what is right.
struct Reference;

impl Codec for Reference {
    fn fields(&self, bytes: &[u8]) -> Result<Fields, String> {
        let frame = Frame::decode(bytes)?;
        Ok(Fields {
            header_kind: frame.header_kind,
            code: frame.code,
            opaque: frame.opaque,
            flag: frame.flag,
            remark: frame.remark.clone().unwrap_or_default(),
            ext: frame.fields(),
            body: frame.body,
        })
    }

    fn again(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        Frame::decode(bytes).map(|frame| frame.encode())
    }
}

/// The broker's. It reads requests and answers; what it writes bears its own name and version, and
/// its requests have no remark.
struct Broker;

impl Codec for Broker {
    fn fields(&self, bytes: &[u8]) -> Result<Fields, String> {
        let mut scratch = ours::Scratch::default();
        let frame = ours::decode(bytes, &mut scratch).map_err(|cause| cause.to_string())?;
        let ext = frame
            .fields()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Fields {
            header_kind: u8::from(frame.kind == ours::HeaderKind::Binary),
            code: frame.code,
            opaque: frame.opaque,
            flag: frame.flag,
            remark: frame.remark.unwrap_or_default().to_owned(),
            ext: ext.collect(),
            body: frame.body.to_vec(),
        })
    }

    fn again(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut scratch = ours::Scratch::default();
        let frame = ours::decode(bytes, &mut scratch).map_err(|cause| cause.to_string())?;
        let fields: Vec<(&str, &str)> = frame.fields().collect();
        let mut out = Vec::new();
        if frame.is_response() {
            let (code, remark) = (frame.code, frame.remark);
            let size = frame.body.len();
            ours::encode_response(&mut out, frame.note(), code, remark, &fields, size);
            out.extend(frame.body);
        } else {
            let (kind, oneway) = (frame.kind, frame.is_oneway());
            let (code, opaque) = (frame.code, frame.opaque);
            ours::encode_request(&mut out, kind, code, opaque, oneway, &fields, frame.body);
        }
        Ok(out)
    }
}

/// Checks a codec on all frames; what differed, one line a frame.
fn faults_of(codec: &dyn Codec) -> Vec<String> {
    let mut faults = Vec::new();
    let mut kinds = [0; 2];
    for recording in recording::all() {
        for recorded in &recording.frames {
            kinds[usize::from(recorded.frame.header_kind)] += 1;
            let fault = fault_of(codec, &recorded.bytes);
            let place = format!("{} frame {}", recording.name, recorded.index + 1);
            faults.extend(fault.map(|fault| format!("{place}: {fault}")));
        }
    }
    assert!(
        6_000 < kinds[0] && 100 < kinds[1],
        "frames of both header kinds: {kinds:?}"
    );
    faults
}

fn fault_of(codec: &dyn Codec, bytes: &[u8]) -> Option<String> {
    let expected = Reference.fields(bytes).expect("a recorded frame");
    let check = || -> Result<(), String> {
        let fields = codec.fields(bytes)?;
        equal("read", &expected, &fields)?;
        let again = codec.again(bytes)?;
        equal("written and read", &expected, &Reference.fields(&again)?)
    };
    check().err()
}

fn equal(when: &str, expected: &Fields, got: &Fields) -> Result<(), String> {
    match expected == got {
        true => Ok(()),
        false => Err(format!("{when}, {got:?} is not {expected:?}")),
    }
}

#[test]
fn the_tests_codec_writes_back_what_it_read() {
    let faults = faults_of(&Reference);
    assert!(
        faults.is_empty(),
        "{} faults, the first: {}",
        faults.len(),
        faults[0]
    );
}

#[test]
fn the_brokers_codec_reads_every_recorded_frame_and_writes_it_back_to_equal_fields() {
    let faults = faults_of(&Broker);
    assert!(
        faults.is_empty(),
        "{} faults, the first: {}",
        faults.len(),
        faults[0]
    );
}

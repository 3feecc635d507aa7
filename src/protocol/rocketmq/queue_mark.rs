//! Which queue a send goes to, found without reading all of it: enough to put those of one queue together.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::codes::request;
use super::frame::{HEAD_SIZE, HeaderKind, Request, Scratch};
use super::header_binary;

/// What stands in a JSON header in front of its code, and of topic and queue of a send, with letters or names. A quote
/// inside of a text has a backslash before it, so that none of these can stand in one.
struct Finders {
    code: Finder<'static>,
    letters: [Finder<'static>; 2],
    names: [Finder<'static>; 2],
}

static FINDERS: LazyLock<Finders> = LazyLock::new(|| Finders {
    code: Finder::new("\"code\":"),
    letters: ["\"b\":", "\"e\":"].map(Finder::new),
    names: ["\"topic\":", "\"queueId\":"].map(Finder::new),
});

/// What topic and queue are called in a send; `None` for all that are none.
pub(super) const fn target_names(code: i32) -> Option<[&'static str; 2]> {
    match code {
        request::SEND_MESSAGE => Some(["topic", "queueId"]),
        request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => Some(["b", "e"]),
        _ => None,
    }
}

/// Whether requests of a code are sends.
#[must_use]
pub const fn is_send(code: i32) -> bool {
    target_names(code).is_some()
}

/// Where the last header of a length had what a first look looks for: its next one most often has it there too.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<[u32; 3]>);

/// Lengths that are told apart.
const LENGTHS: usize = 64;

impl Places {
    fn of(&mut self, header_size: usize) -> &mut [u32; 3] {
        self.0.resize(LENGTHS, [0; 3]);
        &mut self.0[header_size % LENGTHS]
    }
}

/// A mark of the queue that a request sends to: two with the same one most likely send to the same queue, and to the
/// same queue none has another. `None`: it is no send, or lacks one of them.
#[must_use]
pub fn queue_mark(request: &Request<'_>) -> Option<u32> {
    let [topic, queue] = target_names(request.code).filter(|_| !request.is_response())?;
    mark(request.field(topic)?.as_bytes(), request.field(queue)?)
}

/// The same from a first look at a frame, which most often finds it; `None` = decode it. What seems to be a send may
/// turn out to be none.
#[must_use]
pub fn peek_queue_mark(frame: &[u8], scratch: &mut Scratch) -> Option<u32> {
    let [kind, high, middle, low] = *frame.get(4..)?.first_chunk()?;
    let header_size = u32::from_be_bytes([0, high, middle, low]) as usize;
    let header = frame[HEAD_SIZE..].get(..header_size)?;
    let target = if kind == HeaderKind::Json.to_byte() {
        json_target(header, scratch.places.of(header_size))
    } else {
        header_binary::target(header)
    };
    let [topic, queue] = target?;
    mark(topic, std::str::from_utf8(queue).ok()?)
}

fn json_target<'a>(header: &'a [u8], places: &mut [u32; 3]) -> Option<[&'a [u8]; 2]> {
    let [code_at, topic_at, queue_at] = places;
    let code = std::str::from_utf8(behind(&FINDERS.code, code_at, header)?).ok()?;
    let [topic, queue] = match code.parse().ok()? {
        request::SEND_MESSAGE => &FINDERS.names,
        code => target_names(code).map(|_| &FINDERS.letters)?,
    };
    let topic = behind(topic, topic_at, header)?;
    Some([topic, behind(queue, queue_at, header)?])
}

/// The value behind a name: where it was in the last header, if the name stands there again, or where it is found.
fn behind<'a>(name: &Finder<'_>, at: &mut u32, header: &'a [u8]) -> Option<&'a [u8]> {
    let size = name.needle().len();
    let known = *at as usize;
    let before = known
        .checked_sub(size)
        .and_then(|start| header.get(start..known));
    if before != Some(name.needle()) {
        *at = (name.find(header)? + size) as u32;
    }
    value(&header[*at as usize..])
}

/// A text without escapes, or a number.
fn value(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, is_text) = match bytes {
        [b'"', text @ ..] => (text, true),
        number => (number, false),
    };
    let len = bytes
        .iter()
        .position(|byte| matches!(byte, b'"' | b',' | b'}' | b'\\' | b' '))?;
    let is_whole = 0 < len && (bytes[len] == b'"') == is_text && bytes[len] != b'\\';
    is_whole.then_some(&bytes[..len])
}

fn mark(topic: &[u8], queue: &str) -> Option<u32> {
    // By its number, however that is written.
    let queue: i32 = queue.parse().ok()?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(topic);
    hasher.update(&queue.to_le_bytes());
    Some(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::rocketmq::frame::{decode, encode_request};

    /// A send, with a name for its queue's number.
    fn sent(kind: HeaderKind, code: i32, topic: &str, queue: &str) -> Vec<u8> {
        let [topic_name, queue_name] = target_names(code).unwrap();
        let fields = [
            ("a", "PG"),
            (topic_name, topic),
            (queue_name, queue),
            ("i", "K\u{1}1\u{2}"),
        ];
        let mut frame = Vec::new();
        encode_request(&mut frame, kind, code, 7, false, &fields, b"body");
        frame
    }

    #[test]
    fn a_first_look_finds_what_decoding_does() {
        let mut scratch = Scratch::default();
        let mut seen = Vec::new();
        let ways = [HeaderKind::Json, HeaderKind::Binary]
            .map(|kind| [10, 310, 320].map(|code| (kind, code)));
        for (kind, code) in ways.into_iter().flatten() {
            for (topic, queue) in [
                ("A", "1"),
                ("A", "11"),
                ("A1", "1"),
                ("主", "12"),
                ("A", "1"),
            ] {
                let frame = sent(kind, code, topic, queue);
                let mark = queue_mark(&decode(&frame, &mut scratch).unwrap());
                assert!(mark.is_some());
                assert_eq!(
                    peek_queue_mark(&frame, &mut scratch),
                    mark,
                    "{topic} {queue}"
                );
                seen.push((topic, queue, mark));
            }
        }
        for (topic, queue, mark) in &seen {
            for (other_topic, other_queue, other) in &seen {
                let same = (topic, queue) == (other_topic, other_queue);
                assert_eq!(
                    mark == other,
                    same,
                    "{topic} {queue}, {other_topic} {other_queue}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_send_has_no_mark() {
        let mut scratch = Scratch::default();
        for kind in [HeaderKind::Json, HeaderKind::Binary] {
            for code in [11, 34, 36, 15] {
                let mut frame = Vec::new();
                let fields = [("topic", "A"), ("queueId", "1"), ("b", "A"), ("e", "1")];
                encode_request(&mut frame, kind, code, 7, false, &fields, &[]);
                assert_eq!(queue_mark(&decode(&frame, &mut scratch).unwrap()), None);
                assert_eq!(peek_queue_mark(&frame, &mut scratch), None);
            }
        }
        assert_eq!(peek_queue_mark(&[0, 0, 0, 4], &mut scratch), None);
    }

    /// A byte changed anywhere: a first look finds the queue that decoding finds, or none. A field may have become
    /// another of the same name then; no client sends such a header.
    #[test]
    fn a_first_look_is_never_wrong_about_the_queue() {
        for (kind, code) in [
            (HeaderKind::Json, 310),
            (HeaderKind::Json, 10),
            (HeaderKind::Binary, 320),
        ] {
            let frame = sent(kind, code, "Topic", "3");
            let mut found = 0;
            // It knows where things were in the header as it was.
            let mut scratch = Scratch::default();
            for at in HEAD_SIZE..frame.len() {
                for byte in *b"\"\\0219:abeijQ,{}[ \x00\x01\x7f" {
                    let mut other = frame.clone();
                    other[at] = byte;
                    assert!(peek_queue_mark(&frame, &mut scratch).is_some());
                    let peeked = peek_queue_mark(&other, &mut scratch);
                    let mut fresh = Scratch::default();
                    let Ok(request) = decode(&other, &mut fresh) else {
                        continue;
                    };
                    let names = request.fields().map(|(name, _)| name);
                    if names.collect::<BTreeSet<_>>().len() < request.fields().count() {
                        continue;
                    }
                    let mark = queue_mark(&request);
                    let cold = peek_queue_mark(&other, &mut Scratch::default());
                    assert_eq!(peeked, cold, "{byte} at {at}");
                    if let (Some(peeked), Some(mark)) = (peeked, mark) {
                        assert_eq!(peeked, mark, "{byte} at {at}");
                        found += 1;
                    }
                }
            }
            assert!(500 < found, "{found}");
        }
    }
}

//! Sending: 10, 310, 320 and their answer (P§2.1); a message sent back, 36 (P§2.7).

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::base::{PhysicalOffset, ShortText};
use crate::command::{Command, Produce, Produced, REGION, Refusal, RefusalKind};

use super::codes::{request, response};
use super::fields::{Number, is_true, missing, number};
use super::frame::{HeaderKind, Note, Piece, Request, enclose, encode_response};
use super::header_json;
use super::json_write::{put_number, put_text};

/// The fields of a send, in the order of their letters in 310 and 320.
const NAMES: [&str; 14] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
    "reconsumeTimes",
    "unitMode",
    "maxReconsumeTimes",
    "batch",
    "brokerName",
];

const LETTERS: [&str; 14] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n",
];

/// The fields of one send. The code says whether they have letters or names.
struct Fields<'a, 'b> {
    request: &'b Request<'a>,
    names: &'static [&'static str; 14],
    found: [Option<Piece>; 14],
}

impl<'a, 'b> Fields<'a, 'b> {
    fn of(request: &'b Request<'a>) -> Self {
        let mut found = [None; 14];
        let is_long = request.code == request::SEND_MESSAGE;
        for (name, value) in request.pieces() {
            let name = request.bytes_of(*name);
            if is_long {
                if let Some(index) = NAMES.iter().position(|known| known.as_bytes() == name) {
                    found[index] = Some(*value);
                }
            } else if let [letter @ b'a'..=b'n'] = name {
                found[usize::from(letter - b'a')] = Some(*value);
            }
        }
        Self {
            request,
            names: if is_long { &NAMES } else { &LETTERS },
            found,
        }
    }

    #[inline]
    fn piece(&self, index: usize) -> Result<Piece, Refusal> {
        self.found[index].ok_or_else(|| self.missing(index))
    }

    #[cold]
    fn missing(&self, index: usize) -> Refusal {
        let mut refusal = missing(self.request.code, self.names[index]);
        if self.names[index] != NAMES[index] {
            refusal.text.push_str(" (the ");
            refusal.text.push_str(NAMES[index]);
            refusal.text.push(')');
        }
        refusal
    }

    #[inline]
    fn text(&self, index: usize) -> Result<&'a str, Refusal> {
        Ok(self.request.text_of(self.piece(index)?))
    }

    #[inline]
    fn number<T: Number>(&self, index: usize) -> Result<T, Refusal> {
        let text = self.request.bytes_of(self.piece(index)?);
        number(self.request.code, self.names[index], text)
    }

    #[inline]
    fn number_if_any<T: Number>(&self, index: usize) -> Result<Option<T>, Refusal> {
        self.found[index]
            .filter(|piece| piece.len() != 0)
            .map(|piece| {
                let text = self.request.bytes_of(piece);
                number(self.request.code, self.names[index], text)
            })
            .transpose()
    }

    #[inline]
    fn flag(&self, index: usize) -> bool {
        self.found[index].is_some_and(|piece| is_true(self.request.bytes_of(piece)))
    }
}

/// 10, 310, 320. The code chooses the form of the fields; the field `batch`, not the code, makes a batch.
pub(super) fn produce<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let fields = Fields::of(request);
    Ok(Command::Produce(Produce {
        group: fields.text(0)?,
        topic: fields.text(1)?,
        default_topic: fields.text(2)?,
        default_queue_count: fields.number(3)?,
        queue_id: fields.number(4)?,
        sys_flag: fields.number(5)?,
        born_ms: fields.number(6)?,
        flag: fields.number(7)?,
        properties: fields.found[8].map_or("", |piece| request.text_of(piece)),
        reconsume_times: fields.number_if_any(9)?.unwrap_or(0),
        max_reconsume_times: fields.number_if_any(11)?,
        batch: fields.flag(12),
        body: request.body,
        held: None,
    }))
}

/// 36.
pub(super) fn send_back<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::SendBack {
        group: request.text("group")?,
        offset: request.number("offset")?,
        delay_level: request.number("delayLevel")?,
        origin_message_id: request.text_if_any("originMsgId"),
        origin_topic: request.text_if_any("originTopic"),
        max_reconsume_times: request.number_if_any("maxReconsumeTimes")?,
    })
}

/// Upper-case hexadecimal digits of an offset id: address, port, physical offset (P§3.5).
struct OffsetId {
    digits: [u8; 56],
    len: usize,
}

/// Two digits a byte.
const DIGITS: [[u8; 2]; 256] = {
    let digits = b"0123456789ABCDEF";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

impl OffsetId {
    /// That of the record at the very beginning.
    fn of(host: SocketAddr) -> Self {
        let mut id = Self {
            digits: [0; 56],
            len: 0,
        };
        match host.ip() {
            IpAddr::V4(address) => id.push(address.octets()),
            IpAddr::V6(address) => id.push(address.octets()),
        }
        id.push(u32::from(host.port()).to_be_bytes());
        id.push([0; 8]);
        id
    }

    /// Makes it that of another record.
    #[inline]
    fn go_to(&mut self, offset: PhysicalOffset) {
        self.len -= 16;
        self.push(offset.0.to_be_bytes());
    }

    #[inline]
    fn push<const LEN: usize>(&mut self, bytes: [u8; LEN]) {
        let room = &mut self.digits[self.len..self.len + 2 * LEN];
        for (room, byte) in room.as_chunks_mut().0.iter_mut().zip(bytes) {
            *room = DIGITS[usize::from(byte)];
        }
        self.len += 2 * LEN;
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

/// The ids of all messages, with commas between.
#[inline]
fn put_ids(host: SocketAddr, produced: &Produced, mut put: impl FnMut(&[u8])) {
    let mut id = OffsetId::of(host);
    for (at, offset) in produced.offsets.iter().enumerate() {
        if 0 < at {
            put(b",");
        }
        id.go_to(*offset);
        put(id.digits());
    }
}

/// The answer to a stored send. A batch has one id for each message. `host` is where clients reach the shard.
pub(super) fn produced(out: &mut Vec<u8>, note: u64, host: SocketAddr, produced: &Produced) {
    let code = if produced.flush_timed_out {
        response::FLUSH_DISK_TIMEOUT
    } else {
        response::SUCCESS
    };
    let about = Note::unpack(note);
    if about.kind == HeaderKind::Json && !about.oneway {
        return produced_json(out, about.opaque, code, host, produced);
    }
    let mut ids = SmallVec::<[u8; 64]>::new();
    put_ids(host, produced, |digits| ids.extend_from_slice(digits));
    let ids = std::str::from_utf8(&ids).expect("digits and commas are ASCII");
    let mut queue_id = itoa::Buffer::new();
    let mut queue_offset = itoa::Buffer::new();
    let fields = [
        ("queueId", queue_id.format(produced.queue_id)),
        ("msgId", ids),
        ("TRACE_ON", "true"),
        ("MSG_REGION", REGION),
        ("queueOffset", queue_offset.format(produced.queue_offset.0)),
        (
            "transactionId",
            produced
                .transaction_id
                .as_ref()
                .map_or("", ShortText::as_str),
        ),
    ];
    let count = match produced.transaction_id {
        Some(_) => fields.len(),
        None => fields.len() - 1,
    };
    encode_response(out, note, code, None, &fields[..count], 0);
}

/// The same fields in JSON, where nearly all of an answer is the same in each: one is written for every
/// message, and copying few long pieces takes half the time of many short ones.
fn produced_json(out: &mut Vec<u8>, opaque: i32, code: i32, host: SocketAddr, produced: &Produced) {
    enclose(out, HeaderKind::Json, 0, |out| {
        if code == response::SUCCESS {
            out.extend_from_slice(b"{\"code\":0,\"extFields\":{\"queueId\":\"");
        } else {
            out.extend_from_slice(b"{\"code\":");
            put_number(out, code);
            out.extend_from_slice(b",\"extFields\":{\"queueId\":\"");
        }
        put_number(out, produced.queue_id);
        out.extend_from_slice(b"\",\"msgId\":\"");
        put_ids(host, produced, |digits| out.extend_from_slice(digits));
        out.extend_from_slice(b"\",\"TRACE_ON\":\"true\",\"MSG_REGION\":");
        put_text(out, REGION);
        out.extend_from_slice(b",\"queueOffset\":\"");
        put_number(out, produced.queue_offset.0);
        out.push(b'"');
        if let Some(id) = &produced.transaction_id {
            out.extend_from_slice(b",\"transactionId\":");
            put_text(out, id.as_str());
        }
        out.push(b'}');
        header_json::put_tail(out, 1, opaque, None);
    });
}

/// What a refused send says beside code and remark. Exceptions and unknown codes say nothing.
pub(super) fn refusal_fields(refusal: &Refusal) -> &'static [(&'static str, &'static str)] {
    match refusal.kind {
        RefusalKind::SystemError | RefusalKind::RequestNotSupported => &[],
        _ => &[("TRACE_ON", "true"), ("MSG_REGION", REGION)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::QueueOffset;
    use crate::protocol::rocketmq::frame::{Scratch, decode, encode_request};

    fn sent(code: i32, fields: &[(&str, &str)], check: impl Fn(Result<Produce<'_>, Refusal>)) {
        for kind in [HeaderKind::Json, HeaderKind::Binary] {
            let mut frame = Vec::new();
            encode_request(&mut frame, kind, code, 1, false, fields, b"body");
            let mut scratch = Scratch::default();
            let request = decode(&frame, &mut scratch).unwrap();
            check(produce(&request).map(|command| match command {
                Command::Produce(produce) => produce,
                other => panic!("{other:?}"),
            }));
        }
    }

    const LETTERED: [(&str, &str); 14] = [
        ("a", "PG"),
        ("b", "T"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "-1"),
        ("f", "1"),
        ("g", "1700000000000"),
        ("h", "7"),
        ("i", "KEYS\u{1}k\u{2}"),
        ("j", "3"),
        ("k", "false"),
        ("l", "16"),
        ("m", "true"),
        ("n", "broker"),
    ];

    fn check_all(produce: &Produce<'_>) {
        assert_eq!((produce.group, produce.topic), ("PG", "T"));
        assert_eq!(
            (produce.default_topic, produce.default_queue_count),
            ("TBW102", 4)
        );
        assert_eq!(
            (produce.queue_id, produce.sys_flag, produce.flag),
            (-1, 1, 7)
        );
        assert_eq!(produce.born_ms, 1_700_000_000_000);
        assert_eq!(produce.properties, "KEYS\u{1}k\u{2}");
        assert_eq!(
            (produce.reconsume_times, produce.max_reconsume_times),
            (3, Some(16))
        );
        assert!(produce.batch);
        assert_eq!(produce.body, b"body");
    }

    #[test]
    fn the_code_chooses_letters_or_names() {
        sent(310, &LETTERED, |produce| check_all(&produce.unwrap()));
        sent(320, &LETTERED, |produce| check_all(&produce.unwrap()));
        let named: Vec<_> = NAMES
            .iter()
            .zip(LETTERED)
            .map(|(name, (_, value))| (*name, value))
            .collect();
        sent(10, &named, |produce| check_all(&produce.unwrap()));
        sent(10, &LETTERED, |produce| {
            assert_eq!(
                produce.unwrap_err().text,
                "request 10 has no field `producerGroup`: send one"
            );
        });
    }

    #[test]
    fn the_field_makes_the_batch_in_each_spelling() {
        for (spelling, batch) in [("1", true), ("0", false), ("true", true), ("false", false)] {
            let mut fields = LETTERED;
            fields[12].1 = spelling;
            sent(310, &fields, |produce| {
                assert_eq!(produce.unwrap().batch, batch)
            });
        }
        sent(320, &LETTERED[..12], |produce| {
            assert!(!produce.unwrap().batch)
        });
    }

    #[test]
    fn each_wrong_field_is_named_with_its_value() {
        sent(310, &LETTERED[..7], |produce| {
            let refusal = produce.unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::SystemError);
            assert_eq!(
                refusal.text,
                "request 310 has no field `h`: send one (the flag)"
            );
        });
        for (index, value) in [
            (3, "four"),
            (4, "99999999999"),
            (6, "-"),
            (9, "x"),
            (11, "1.5"),
        ] {
            let mut fields = LETTERED;
            fields[index].1 = value;
            sent(310, &fields, |produce| {
                let text = produce.unwrap_err().text;
                assert!(
                    text.contains(value) && text.contains(LETTERED[index].0),
                    "{text}"
                );
            });
        }
    }

    fn answered(produced_value: &Produced) -> Vec<(String, String)> {
        let note = Note {
            opaque: 1,
            kind: HeaderKind::Json,
            oneway: false,
            code: 310,
        };
        let mut out = Vec::new();
        let host = "127.0.0.1:10911".parse().unwrap();
        produced(&mut out, note.pack(), host, produced_value);
        let mut scratch = Scratch::default();
        let response = decode(&out, &mut scratch).unwrap();
        response
            .fields()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn an_offset_id_is_address_port_and_offset() {
        // Protocol reference, A.3.
        let host = "127.0.0.1:10911".parse().unwrap();
        let mut id = OffsetId::of(host);
        id.go_to(PhysicalOffset(u64::MAX));
        id.go_to(PhysicalOffset(4096));
        assert_eq!(id.digits(), b"7F00000100002A9F0000000000001000");
        let mut id = OffsetId::of("[::1]:10911".parse().unwrap());
        id.go_to(PhysicalOffset(u64::MAX));
        assert_eq!(
            id.digits(),
            b"0000000000000000000000000000000100002A9FFFFFFFFFFFFFFFFF"
        );
    }

    #[test]
    fn an_answer_in_json_is_what_its_fields_make_of_it() {
        let host = "127.0.0.1:10911".parse().unwrap();
        let mut value = Produced {
            flush_timed_out: false,
            offsets: [PhysicalOffset(4096)].into_iter().collect(),
            queue_id: -3,
            queue_offset: QueueOffset(u64::MAX),
            transaction_id: None,
        };
        for (flush_timed_out, code) in [(false, 0), (true, 10)] {
            for id in [None, Some("KEY"), Some("K\u{1}\"Y"), Some("")] {
                value.flush_timed_out = flush_timed_out;
                value.transaction_id = id.map(Into::into);
                let fields = [
                    ("queueId", "-3"),
                    ("msgId", "7F00000100002A9F0000000000001000"),
                    ("TRACE_ON", "true"),
                    ("MSG_REGION", REGION),
                    ("queueOffset", "18446744073709551615"),
                    ("transactionId", id.unwrap_or_default()),
                ];
                let fields = &fields[..5 + usize::from(id.is_some())];
                for bits in [0, 1 << 32, 1 << 33] {
                    let note = u64::from(-7i32 as u32) | bits;
                    let (mut expected, mut out) = (b"before".to_vec(), b"before".to_vec());
                    encode_response(&mut expected, note, code, None, fields, 0);
                    produced(&mut out, note, host, &value);
                    assert_eq!(
                        String::from_utf8_lossy(&out),
                        String::from_utf8_lossy(&expected)
                    );
                }
            }
        }
    }

    #[test]
    fn a_batch_is_answered_with_one_id_for_each_message() {
        let mut value = Produced {
            flush_timed_out: false,
            offsets: [PhysicalOffset(4096), PhysicalOffset(8192)]
                .into_iter()
                .collect(),
            queue_id: 3,
            queue_offset: QueueOffset(42),
            transaction_id: None,
        };
        let fields = answered(&value);
        assert!(fields.contains(&(
            "msgId".to_owned(),
            "7F00000100002A9F0000000000001000,7F00000100002A9F0000000000002000".to_owned()
        )));
        assert!(!fields.iter().any(|(name, _)| name == "transactionId"));
        value.transaction_id = Some("KEY".into());
        assert!(answered(&value).contains(&("transactionId".to_owned(), "KEY".to_owned())));
    }
}

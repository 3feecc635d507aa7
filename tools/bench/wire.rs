//! The protocol as far as load needs it: request frames that are copied and patched, and answers
//! of which only a few numbers are read. Frame: length 4, header kind 1, header length 3, JSON
//! header, body.

use crate::check::{self, FIELDS_SIZE};
use crate::{Outcome, fail};
use std::io::Write;

pub const SEND: i32 = 310;
pub const SEND_BATCH: i32 = 320;
pub const PULL: i32 = 11;
pub const CREATE_TOPIC: i32 = 17;
pub const MAX_OFFSET: i32 = 30;
pub const MIN_OFFSET: i32 = 31;
pub const SEND_BATCH_ITEM_HEAD: usize = 20; // size, magic, CRC, flag, body length

pub const FRAME_SIZE_MAX: usize = 16 << 20;

/// An opaque is always ten digits: 1, four of the slot, five of its generation, so that an
/// answer names its slot and an answer that comes twice is noticed.
pub const SLOTS_MAX: u32 = 10_000;
const GENERATIONS: u32 = 100_000;
const OPAQUE_BASE: u32 = 1_000_000_000;
const _: () =
    assert!(OPAQUE_BASE as u64 + SLOTS_MAX as u64 * GENERATIONS as u64 <= i32::MAX as u64);

pub fn opaque(slot: u32, generation: u32) -> u32 {
    OPAQUE_BASE + slot * GENERATIONS + generation % GENERATIONS
}

/// The slot of an opaque of ours, if it can be one.
pub fn slot_of(opaque: i64) -> Option<u32> {
    let rest = u32::try_from(opaque).ok()?.checked_sub(OPAQUE_BASE)?;
    Some(rest / GENERATIONS).filter(|slot| *slot < SLOTS_MAX)
}

/// Puts a whole frame behind what `out` holds.
pub fn put_frame(out: &mut Vec<u8>, header: &[u8], body: &[u8]) {
    assert!(header.len() < 1 << 24);
    out.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    out.extend_from_slice(&(header.len() as u32).to_be_bytes()); // kind 0 is JSON
    out.extend_from_slice(header);
    out.extend_from_slice(body);
}

fn put_digits(to: &mut [u8], mut number: u64) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn put_hex(to: &mut [u8], mut number: u64) {
    for digit in to.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(number & 15) as usize];
        number >>= 4;
    }
}

const UNIQUE_PLACE: &str = "SSSSSSNNNNNNNNNN"; // stream and sequence, hexadecimal
const OPAQUE_PLACE: &str = "OOOOOOOOOO";
const BORN_PLACE: &str = "BBBBBBBBBBBBB";

/// A send request of one queue, complete but for opaque, time, ids and sequences.
pub struct SendTemplate {
    bytes: Vec<u8>,
    opaque_at: usize,
    born_at: usize,
    unique_at: Vec<usize>,
    fields_at: Vec<usize>,
    padding_crc: u32,
}

/// Padding that no compressor on the way gets smaller.
fn padding(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..size).map(|_| step()).collect()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn find_all(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    bytes
        .windows(part.len())
        .enumerate()
        .filter(|(_, w)| *w == part)
        .map(|(at, _)| at)
        .collect()
}

impl SendTemplate {
    pub fn new(topic: &str, queue: u32, size: usize, batch: usize, run: u64) -> SendTemplate {
        assert!(FIELDS_SIZE <= size && 1 <= batch);
        let unique = format!("{run:016X}{UNIQUE_PLACE}");
        let code = if batch == 1 { SEND } else { SEND_BATCH };
        let header = format!(
            "{{\"code\":{code},\"extFields\":{{\"a\":\"BENCH_PRODUCER\",\"b\":\"{topic}\",\"c\":\"TBW102\",\
             \"d\":\"4\",\"e\":\"{queue}\",\"f\":\"0\",\"g\":\"{BORN_PLACE}\",\"h\":\"0\",\
             \"i\":\"UNIQ_KEY\\u0001{unique}\\u0002WAIT\\u0001true\\u0002\",\
             \"j\":\"0\",\"k\":\"false\",\"m\":\"{}\"}},\"flag\":0,\"language\":\"JAVA\",\
             \"opaque\":{OPAQUE_PLACE},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}}",
            1 < batch
        );
        let padding = padding(size - FIELDS_SIZE);
        let padding_crc = crc32fast::hash(&padding);
        let mut message = padding;
        message.extend_from_slice(&check::blank_fields(run));
        let mut body = Vec::new();
        let mut fields_in_body = Vec::new();
        if batch == 1 {
            fields_in_body.push(message.len() - FIELDS_SIZE);
            body = message;
        } else {
            let properties = format!("UNIQ_KEY\u{1}{unique}\u{2}WAIT\u{1}true\u{2}");
            let item_size = SEND_BATCH_ITEM_HEAD + message.len() + 2 + properties.len();
            for _ in 0..batch {
                body.extend_from_slice(&(item_size as u32).to_be_bytes());
                body.extend_from_slice(&[0; 12]);
                body.extend_from_slice(&(message.len() as u32).to_be_bytes());
                body.extend_from_slice(&message);
                fields_in_body.push(body.len() - FIELDS_SIZE);
                body.extend_from_slice(&(properties.len() as u16).to_be_bytes());
                body.extend_from_slice(properties.as_bytes());
            }
        }
        let mut bytes = Vec::new();
        put_frame(&mut bytes, header.as_bytes(), &body);
        let place = |part: &str| find(&bytes, part.as_bytes()).expect("the header holds it");
        SendTemplate {
            opaque_at: place(OPAQUE_PLACE),
            born_at: place(BORN_PLACE),
            unique_at: find_all(&bytes, UNIQUE_PLACE.as_bytes()),
            fields_at: fields_in_body
                .iter()
                .map(|at| 8 + header.len() + at)
                .collect(),
            bytes,
            padding_crc,
        }
    }

    /// Puts one request into `out`. The fields end a body, so its CRC goes on from the padding's.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        opaque: u32,
        born_ms: u64,
        stream: u32,
        first: u64,
        intended_ns: u64,
    ) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        put_digits(&mut frame[self.opaque_at..][..10], u64::from(opaque));
        put_digits(&mut frame[self.born_at..][..13], born_ms);
        let header_keys = self.unique_at.len()
            - if self.fields_at.len() == 1 {
                0
            } else {
                self.fields_at.len()
            };
        for (index, at) in self.unique_at.iter().enumerate() {
            put_hex(&mut frame[*at..][..6], u64::from(stream));
            put_hex(
                &mut frame[at + 6..][..10],
                first + index.saturating_sub(header_keys) as u64,
            );
        }
        for (index, at) in self.fields_at.iter().enumerate() {
            let fields = &mut frame[*at..][..FIELDS_SIZE];
            check::seal(
                fields,
                self.padding_crc,
                stream,
                first + index as u64,
                intended_ns,
            );
        }
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// What a pull asks for.
pub struct Pull<'a> {
    pub topic: &'a str,
    pub queue: u32,
    pub offset: u64,
    pub opaque: u32,
    /// Zero answers at once; else the broker may hold the pull that long.
    pub suspend_ms: u32,
}

const SUSPEND: u32 = 2;
const SUBSCRIPTION: u32 = 4;

impl Pull<'_> {
    pub fn put(&self, out: &mut Vec<u8>) {
        let sys_flag = SUBSCRIPTION | if 0 < self.suspend_ms { SUSPEND } else { 0 };
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        write!(
            out,
            "{{\"code\":{PULL},\"extFields\":{{\"consumerGroup\":\"BENCH_CONSUMER\",\"topic\":\"{}\",\
             \"queueId\":\"{}\",\"queueOffset\":\"{}\",\"maxMsgNums\":\"32\",\"sysFlag\":\"{sys_flag}\",\
             \"commitOffset\":\"0\",\"suspendTimeoutMillis\":\"{}\",\"subscription\":\"*\",\"subVersion\":\"0\",\
             \"expressionType\":\"TAG\"}},\"flag\":0,\"language\":\"JAVA\",\"opaque\":{},\
             \"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}}",
            self.topic, self.queue, self.offset, self.suspend_ms, self.opaque
        )
        .expect("a vector takes what is written");
        let header_size = (out.len() - start - 8) as u32;
        out[start..start + 4].copy_from_slice(&(4 + header_size).to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&header_size.to_be_bytes());
    }
}

pub struct Frame<'a> {
    pub header: &'a [u8],
    pub body: &'a [u8],
    pub size: usize,
}

/// The first frame of `bytes`, when it is there as a whole.
pub fn frame(bytes: &[u8]) -> Outcome<Option<Frame<'_>>> {
    let Some(head) = bytes.get(..8) else {
        return Ok(None);
    };
    let size = 4 + u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let kind = head[4];
    let header_size = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if size < 8 + header_size || FRAME_SIZE_MAX < size {
        return fail(format!(
            "an answer's lengths lie: frame {size}, header {header_size}"
        ));
    }
    if kind != 0 {
        return fail(format!(
            "an answer's header is of kind {kind}; the requests were JSON (0)"
        ));
    }
    Ok(bytes.get(8..size).map(|rest| {
        let (header, body) = rest.split_at(header_size);
        Frame { header, body, size }
    }))
}

/// Finds a number in a JSON header by its quoted key, first where the last header had it.
///
/// Header text cannot fool it: inside a string a quote is escaped, so `"key":` is always a key;
/// and no extension field of an answer is named like the keys looked for.
pub struct NumberKey {
    key: &'static [u8],
    from_start: usize,
    from_end: usize,
}

impl NumberKey {
    /// `key` with its quotes and colon.
    pub const fn new(key: &'static str) -> NumberKey {
        NumberKey {
            key: key.as_bytes(),
            from_start: 1,
            from_end: 0,
        }
    }

    pub fn read(&mut self, header: &[u8]) -> Option<i64> {
        let is_at = |at: usize| {
            header
                .get(at..)
                .is_some_and(|rest| rest.starts_with(self.key))
        };
        let at = if is_at(self.from_start) {
            self.from_start
        } else if self.from_end <= header.len() && is_at(header.len() - self.from_end) {
            header.len() - self.from_end
        } else {
            find(header, self.key)?
        };
        self.from_start = at;
        self.from_end = header.len() - at;
        number(&header[at + self.key.len()..])
    }
}

/// The number at the start of `text`, quoted or not.
fn number(text: &[u8]) -> Option<i64> {
    let mut rest = text;
    while let [b' ' | b'"', tail @ ..] = rest {
        rest = tail;
    }
    let negative = rest.first() == Some(&b'-');
    let digits = &rest[usize::from(negative)..];
    let count = digits.iter().take_while(|c| c.is_ascii_digit()).count();
    if count == 0 || 18 < count {
        return None;
    }
    let value = digits[..count]
        .iter()
        .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some(if negative { -value } else { value })
}

/// Code and opaque of answers.
pub struct Answers {
    code: NumberKey,
    opaque: NumberKey,
}

impl Answers {
    pub const fn new() -> Answers {
        Answers {
            code: NumberKey::new("\"code\":"),
            opaque: NumberKey::new("\"opaque\":"),
        }
    }

    pub fn read(&mut self, header: &[u8]) -> Outcome<(i32, i64)> {
        match (self.code.read(header), self.opaque.read(header)) {
            (Some(code), Some(opaque)) => Ok((code as i32, opaque)),
            _ => fail(format!(
                "an answer without code or opaque: {}",
                String::from_utf8_lossy(header)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Checker, Verdict};

    #[test]
    fn a_single_request_carries_what_was_put_in_and_a_body_that_checks() {
        let template = SendTemplate::new("t", 3, 100, 1, 7);
        let mut out = vec![1, 2, 3];
        template.put(&mut out, opaque(12, 34), 1_795_242_320_786, 5, 0, 99);
        let found = frame(&out[3..]).unwrap().unwrap();
        assert_eq!(found.size, out.len() - 3);
        let header: serde_json::Value = serde_json::from_slice(found.header).unwrap();
        assert_eq!(header["code"], 310);
        assert_eq!(header["opaque"], 1_001_200_034);
        assert_eq!(header["extFields"]["g"], "1795242320786");
        assert_eq!(header["extFields"]["e"], "3");
        let properties = header["extFields"]["i"].as_str().unwrap();
        assert_eq!(
            properties,
            "UNIQ_KEY\u{1}00000000000000070000050000000000\u{2}WAIT\u{1}true\u{2}"
        );
        assert_eq!(found.body.len(), 100);
        assert_eq!(
            Checker::new(false).body(found.body),
            Verdict::Good {
                run: 7,
                intended_ns: 99
            }
        );
    }

    #[test]
    fn a_batch_has_whole_items_with_sequences_and_keys_of_their_own() {
        let template = SendTemplate::new("t", 0, 64, 3, 7);
        let mut out = Vec::new();
        template.put(&mut out, opaque(0, 0), 0, 1, 40, 5);
        let found = frame(&out).unwrap().unwrap();
        let mut items = found.body;
        let mut checker = Checker::new(true);
        for sequence in 40..43 {
            let size = u32::from_be_bytes(items[..4].try_into().unwrap()) as usize;
            let body = &items[20..84];
            assert_eq!(check::sequence(body), sequence);
            assert_eq!(
                checker.body(body),
                Verdict::Good {
                    run: 7,
                    intended_ns: 5
                }
            );
            let key = format!("UNIQ_KEY\u{1}0000000000000007000001{sequence:010X}\u{2}WAIT");
            assert!(items[86..size].starts_with(key.as_bytes()));
            items = &items[size..];
        }
        assert!(items.is_empty());
    }

    #[test]
    fn numbers_are_found_wherever_a_server_puts_them() {
        let mut answers = Answers::new();
        let long =
            br#"{"code":0,"extFields":{"msgId":"AA"},"flag":1,"opaque":1000000007,"version":513}"#;
        let other = br#"{"version":513,"opaque":-7,"remark":"\"code\":9","code":14}"#;
        for _ in 0..2 {
            assert_eq!(answers.read(long).unwrap(), (0, 1_000_000_007));
            assert_eq!(answers.read(other).unwrap(), (14, -7));
        }
        assert!(answers.read(br#"{"code":0}"#).is_err());
    }

    #[test]
    fn an_opaque_names_its_slot() {
        assert_eq!(
            slot_of(i64::from(opaque(9_999, 4_000_000_123))),
            Some(9_999)
        );
        assert_eq!(slot_of(7), None);
        assert_eq!(slot_of(-1), None);
        assert_eq!(slot_of(i64::from(i32::MAX)), None);
    }

    #[test]
    fn a_frame_that_is_not_whole_waits_and_one_that_lies_is_refused() {
        let mut out = Vec::new();
        put_frame(&mut out, b"{}", b"body");
        for size in 0..out.len() {
            assert!(frame(&out[..size]).unwrap().is_none(), "{size} bytes");
        }
        assert_eq!(frame(&out).unwrap().unwrap().body, b"body");
        out[7] = 200;
        assert!(frame(&out).is_err());
    }
}

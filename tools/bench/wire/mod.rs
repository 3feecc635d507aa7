//! The protocol as far as load needs it: request frames that are copied and patched, and answers
//! of which only a few numbers are read. Frame: length 4, header kind 1, header length 3, JSON
//! header, body.

mod pull;
mod send;

pub use pull::Pull;
pub use send::{Request, SendTemplate, Style};

use crate::{Outcome, fail};
use std::net::SocketAddr;

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
            "its lengths lie: frame {size}, header {header_size}"
        ));
    }
    if kind != 0 {
        return fail(format!(
            "its header is of kind {kind}; the requests were JSON (0)"
        ));
    }
    Ok(bytes.get(8..size).map(|rest| {
        let (header, body) = rest.split_at(header_size);
        Frame { header, body, size }
    }))
}

/// Who answers so is no broker, or a broken one.
pub fn no_answer(from: &str, what: &str) -> String {
    format!(
        "{from} sent what is no answer ({what}); does a broker listen there (--addr) that speaks RocketMQ's remoting protocol?"
    )
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
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
    /// Who gives them, for what is said of one that cannot be read.
    from: Option<SocketAddr>,
    code: NumberKey,
    opaque: NumberKey,
}

impl Answers {
    pub const fn new(from: Option<SocketAddr>) -> Answers {
        Answers {
            from,
            code: NumberKey::new("\"code\":"),
            opaque: NumberKey::new("\"opaque\":"),
        }
    }

    pub fn read(&mut self, header: &[u8]) -> Outcome<(i32, i64)> {
        match (self.code.read(header), self.opaque.read(header)) {
            (Some(code), Some(opaque)) => Ok((code as i32, opaque)),
            _ => {
                let from = self.from.map(|from| from.to_string());
                let header = String::from_utf8_lossy(header);
                let what = format!("without code or opaque: {header}");
                fail(no_answer(from.as_deref().unwrap_or("a client"), &what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_wherever_a_server_puts_them() {
        let mut answers = Answers::new(None);
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

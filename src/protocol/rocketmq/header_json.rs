//! Reads a JSON header (P§1.3) without allocating: text that needs no rewriting stays where it is.
//!
//! A parser of our own, because this one sees every request: a general one allocates a buffer for every
//! header with an escape (each property string has some), and turns the numbers that C++ and Node send into
//! floats, whose text a signature would no longer match.

mod escapes;
mod forms;
mod skip;
mod write;

use smallvec::SmallVec;

use crate::base::Marks;

use super::arena::Arena;
use super::codes;
use super::frame::{FIELD_COUNT_MAX, FrameError, Header, Piece, Scratch};
use forms::{Copied, Found};

pub(super) use forms::Forms;
pub(super) use write::{put_tail, write};

/// Reads the header; extension fields go to `scratch`, which is empty but for what it remembers.
#[inline]
pub(super) fn read(text: &str, scratch: &mut Scratch) -> Result<Header, FrameError> {
    let bytes = text.as_bytes();
    let (fields, arena) = (&mut scratch.fields, &mut scratch.arena);
    if let Some(header) = scratch.forms.recall(bytes, fields, arena) {
        return Ok(header);
    }
    scratch.clear();
    read_anew(text, scratch)
}

/// Reads a header from its beginning, and keeps its form.
fn read_anew(text: &str, scratch: &mut Scratch) -> Result<Header, FrameError> {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
        marks: Marks::new(text.as_bytes()),
        opaque: None,
        copied: Some(SmallVec::new()),
    };
    let mut header = Header::default();
    scan.expect(b'{', "the JSON header must be an object")?;
    let mut first = true;
    while scan.next_member(&mut first)? {
        match scan.member(scratch)? {
            Member::Code => header.code = scan.number("code", scratch)?,
            Member::Version => header.version = scan.number("version", scratch)?,
            Member::Opaque => {
                let start = scan.at;
                header.opaque = scan.number("opaque", scratch)?;
                let digits = &scan.bytes[start..scan.at];
                let plain = digits.iter().all(u8::is_ascii_digit);
                scan.opaque = plain.then_some((start, scan.at));
            }
            Member::Flag => header.flag = scan.number("flag", scratch)?,
            Member::Language => {
                header.language = match scan.scalar("language", scratch)? {
                    Scalar::Text(piece) => Some(codes::language(scan.text(piece, &scratch.arena))),
                    Scalar::Bare(piece) => {
                        let number = scan.text(piece, &scratch.arena).parse().unwrap_or(-1);
                        Some(codes::language_name(number))
                    }
                    Scalar::Null => None,
                }
            }
            Member::Remark => {
                header.remark = match scan.scalar("remark", scratch)? {
                    Scalar::Text(piece) | Scalar::Bare(piece) => Some(piece),
                    Scalar::Null => None,
                }
            }
            Member::ExtFields => scan.fields(scratch)?,
            Member::Other => scan.skip()?,
        }
    }
    scan.end()?;
    let found = Found {
        opaque: scan.opaque,
        copied: scan.copied.as_deref(),
        fields: &scratch.fields,
        header,
    };
    scratch.forms.keep(scan.bytes, scratch.arena.len(), &found);
    Ok(header)
}

/// The members of a header that mean something.
enum Member {
    Code,
    Version,
    Opaque,
    Flag,
    Language,
    Remark,
    ExtFields,
    Other,
}

enum Scalar {
    Text(Piece),
    /// A number or a boolean, with the very characters that stand there.
    Bare(Piece),
    Null,
}

struct Scan<'a> {
    /// UTF-8, and so is every piece that ends where an ASCII character stands.
    bytes: &'a [u8],
    at: usize,
    marks: Marks<b'"', b'\\'>,
    /// Where the opaque stands, if it is made of digits.
    opaque: Option<(usize, usize)>,
    /// What went to the arena; `None` as soon as that was more than bytes of the header and separators.
    copied: Option<SmallVec<[Copied; 32]>>,
}

impl<'a> Scan<'a> {
    fn error(&self, what: impl Into<String>) -> FrameError {
        FrameError::header(self.at, what)
    }

    /// The next byte that is no white space; it stays unread.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// A piece that was just read.
    fn text<'b>(&self, piece: Piece, arena: &'b Arena) -> &'b str
    where
        'a: 'b,
    {
        std::str::from_utf8(piece.bytes(self.bytes, arena.bytes())).unwrap_or_default()
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), FrameError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.error(what))
    }

    fn colon(&mut self) -> Result<(), FrameError> {
        self.expect(b':', "expected `:` behind a name")
    }

    /// Moves to the next name of an object; false at its end.
    #[inline]
    fn next_member(&mut self, first: &mut bool) -> Result<bool, FrameError> {
        let is_first = std::mem::replace(first, false);
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.peek();
            }
            _ if is_first => {}
            _ => return Err(self.error("expected `,` or `}`")),
        }
        if self.bytes.get(self.at) == Some(&b'"') {
            return Ok(true);
        }
        Err(self.error("expected a name in quotes"))
    }

    /// The name of a member, and the colon behind it.
    #[inline]
    fn member(&mut self, scratch: &mut Scratch) -> Result<Member, FrameError> {
        if let Some((len, member)) = self.plain_member() {
            self.at += len;
            return Ok(member);
        }
        let name = self.string(scratch)?;
        self.colon()?;
        Ok(match name.bytes(self.bytes, scratch.arena.bytes()) {
            b"code" => Member::Code,
            b"version" => Member::Version,
            b"opaque" => Member::Opaque,
            b"flag" => Member::Flag,
            b"language" => Member::Language,
            b"remark" => Member::Remark,
            b"extFields" => Member::ExtFields,
            _ => Member::Other,
        })
    }

    /// A name that is written as nearly every client writes it, and how many bytes it has with its colon.
    #[inline]
    fn plain_member(&self) -> Option<(usize, Member)> {
        let rest = &self.bytes[self.at..];
        match rest.get(1)? {
            b'c' if rest.starts_with(b"\"code\":") => Some((7, Member::Code)),
            b'e' if rest.starts_with(b"\"extFields\":") => Some((12, Member::ExtFields)),
            b'f' if rest.starts_with(b"\"flag\":") => Some((7, Member::Flag)),
            b'l' if rest.starts_with(b"\"language\":") => Some((11, Member::Language)),
            b'o' if rest.starts_with(b"\"opaque\":") => Some((9, Member::Opaque)),
            b'v' if rest.starts_with(b"\"version\":") => Some((10, Member::Version)),
            _ => None,
        }
    }

    /// Nothing but white space may follow (C++ ends its header with a newline).
    fn end(&mut self) -> Result<(), FrameError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("something stands behind the JSON header")),
        }
    }

    /// A string, from its opening quote on.
    #[inline]
    fn string(&mut self, scratch: &mut Scratch) -> Result<Piece, FrameError> {
        let start = self.at + 1;
        let end = self.marks.next(self.bytes, start);
        if self.bytes.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Piece::of_header(start, end));
        }
        self.escaped_string(start, end, scratch)
    }

    /// Text, number, boolean or null.
    fn scalar(&mut self, name: &str, scratch: &mut Scratch) -> Result<Scalar, FrameError> {
        if self.peek() == Some(b'"') {
            return Ok(Scalar::Text(self.string(scratch)?));
        }
        let start = self.at;
        let is_bare =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let rest = &self.bytes[start..];
        let len = rest
            .iter()
            .position(|byte| !is_bare(byte))
            .unwrap_or(rest.len());
        let word = &rest[..len];
        if word == b"null" {
            self.at += len;
            return Ok(Scalar::Null);
        }
        let is_number = word
            .first()
            .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
        if word != b"true" && word != b"false" && !is_number {
            return Err(self.error(format!(
                "`{name}` is neither text nor number nor boolean nor null"
            )));
        }
        self.at += len;
        Ok(Scalar::Bare(Piece::of_header(start, self.at)))
    }

    /// A 32-bit number, in quotes or not. Null counts as absent, hence as 0.
    fn number(&mut self, name: &str, scratch: &mut Scratch) -> Result<i32, FrameError> {
        if let Some(number) = self.plain_number() {
            return Ok(number);
        }
        self.peek();
        let start = self.at;
        let piece = match self.scalar(name, scratch)? {
            Scalar::Text(piece) | Scalar::Bare(piece) => piece,
            Scalar::Null => return Ok(0),
        };
        let text = self.text(piece, &scratch.arena);
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(32).collect();
            FrameError::header(start, format!("`{name}` is {shown:?}, not a 32-bit number"))
        })
    }

    /// A number as clients write it: digits and nothing else up to the end of its member. Nothing is read
    /// where something else stands.
    #[inline]
    fn plain_number(&mut self) -> Option<i32> {
        let rest = self.bytes.get(self.at..)?;
        let sign = usize::from(rest.first() == Some(&b'-'));
        let mut number = 0i64;
        let mut len = sign;
        loop {
            let byte = *rest.get(len)?;
            let digit = byte.wrapping_sub(b'0');
            if 9 < digit {
                if len == sign || !matches!(byte, b',' | b'}') {
                    return None;
                }
                break;
            }
            number = number * 10 + i64::from(digit);
            len += 1;
            // Ten digits do not overflow, and no 32-bit number has more.
            if sign + 10 < len {
                return None;
            }
        }
        let number = i32::try_from(if sign == 0 { number } else { -number }).ok()?;
        self.at += len;
        Some(number)
    }

    /// The value of `extFields`. As the last of two such keys counts in Java, it begins anew.
    fn fields(&mut self, scratch: &mut Scratch) -> Result<(), FrameError> {
        scratch.fields.clear();
        if self.peek() == Some(b'n') {
            return match self.scalar("extFields", scratch)? {
                Scalar::Null => Ok(()),
                Scalar::Text(_) | Scalar::Bare(_) => Err(self.error("`extFields` is no object")),
            };
        }
        self.expect(b'{', "`extFields` is no object")?;
        let mut first = true;
        while self.next_member(&mut first)? {
            if self.plain_fields(scratch)? {
                continue;
            }
            let name = self.string(scratch)?;
            // Nearly all values are text.
            self.colon()?;
            let value = if self.peek() == Some(b'"') {
                self.string(scratch)?
            } else {
                match self.scalar("a field of extFields", scratch)? {
                    Scalar::Text(piece) | Scalar::Bare(piece) => piece,
                    Scalar::Null => continue,
                }
            };
            if scratch.fields.len() == FIELD_COUNT_MAX {
                return Err(self.error(format!("more than {FIELD_COUNT_MAX} extension fields")));
            }
            scratch.fields.push((name, value));
        }
        Ok(())
    }

    /// Fields as nearly every client writes them, text without white space between. Stops in front of what is
    /// written otherwise, the comma before it included; false where the first one is.
    #[inline]
    fn plain_fields(&mut self, scratch: &mut Scratch) -> Result<bool, FrameError> {
        let bytes = self.bytes;
        let mut marks = self.marks;
        let mut any = false;
        let mut quote = self.at;
        while scratch.fields.len() < FIELD_COUNT_MAX {
            let name_end = marks.next(bytes, quote + 1);
            if !starts_with(bytes, name_end, *b"\":\"") {
                break;
            }
            let start = name_end + 3;
            let end = marks.next(bytes, start);
            let value = match bytes.get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    Piece::of_header(start, end)
                }
                _ => {
                    self.at = start - 1;
                    self.marks = marks;
                    let piece = self.escaped_string(start, end, scratch)?;
                    marks = self.marks;
                    piece
                }
            };
            let name = Piece::of_header(quote + 1, name_end);
            scratch.fields.push((name, value));
            any = true;
            if !starts_with(bytes, self.at, *b",\"") {
                break;
            }
            quote = self.at + 1;
        }
        self.marks = marks;
        Ok(any)
    }
}

/// Whether these bytes stand there.
#[inline]
fn starts_with<const LEN: usize>(bytes: &[u8], at: usize, what: [u8; LEN]) -> bool {
    bytes.get(at..).and_then(|rest| rest.first_chunk()) == Some(&what)
}

#[cfg(test)]
mod tests;

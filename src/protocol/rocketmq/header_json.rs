//! Reads a JSON header (P§1.3) without allocating: text that needs no rewriting stays where it is.
//!
//! A parser of our own, because this one sees every request: a general one allocates a buffer for every
//! header with an escape (each property string has some), and turns the numbers that C++ and Node send into
//! floats, whose text a signature would no longer match.

mod marks;

use super::arena::Arena;
use super::codes;
use super::frame::{FIELD_COUNT_MAX, FrameError, Header, Piece, Scratch};
use marks::Marks;

/// Objects and arrays inside one another in what we skip.
const DEPTH_MAX: u32 = 32;

/// Reads the header; extension fields go to `scratch`.
pub(super) fn read(text: &str, scratch: &mut Scratch) -> Result<Header, FrameError> {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
        marks: Marks::default(),
    };
    let mut header = Header::default();
    scan.expect(b'{', "the JSON header must be an object")?;
    let mut first = true;
    while scan.next_member(&mut first)? {
        let name = scan.string(scratch)?;
        scan.colon()?;
        match name.bytes(scan.bytes, scratch.arena.bytes()) {
            b"code" => header.code = scan.number("code", scratch)?,
            b"version" => header.version = scan.number("version", scratch)?,
            b"opaque" => header.opaque = scan.number("opaque", scratch)?,
            b"flag" => header.flag = scan.number("flag", scratch)?,
            b"language" => {
                header.language = match scan.scalar("language", scratch)? {
                    Scalar::Text(piece) => Some(codes::language(scan.text(piece, &scratch.arena))),
                    Scalar::Bare(piece) => {
                        let number = scan.text(piece, &scratch.arena).parse().unwrap_or(-1);
                        Some(codes::language_name(number))
                    }
                    Scalar::Null => None,
                }
            }
            b"remark" => {
                header.remark = match scan.scalar("remark", scratch)? {
                    Scalar::Text(piece) | Scalar::Bare(piece) => Some(piece),
                    Scalar::Null => None,
                }
            }
            b"extFields" => scan.fields(scratch)?,
            _ => scan.skip()?,
        }
    }
    scan.end()?;
    Ok(header)
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
    marks: Marks,
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

    /// Whether the next two bytes are these: what nearly every client writes, without white space.
    #[inline]
    fn is_next(&self, both: [u8; 2]) -> bool {
        self.bytes.get(self.at..self.at + 2) == Some(&both)
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
        if !is_first && self.is_next(*b",\"") {
            self.at += 1;
            return Ok(true);
        }
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

    /// A string whose first backslash stands at `end`.
    #[inline(never)]
    fn escaped_string(
        &mut self,
        mut start: usize,
        mut end: usize,
        scratch: &mut Scratch,
    ) -> Result<Piece, FrameError> {
        // What an escape stands for is never longer than the escape.
        scratch.arena.reserve(self.bytes.len());
        let arena_start = scratch.arena.len();
        loop {
            scratch.arena.copy(self.bytes, start, end);
            match self.bytes.get(end) {
                Some(b'"') => break,
                Some(_) => {
                    self.at = end + 1;
                    if let Some(byte) = self.separator() {
                        scratch.arena.push(byte);
                    } else {
                        let character = self.escape()?;
                        scratch.arena.push_char(character);
                    }
                    start = self.at;
                    end = self.marks.next(self.bytes, start);
                }
                None => return Err(self.error("a string has no end")),
            }
        }
        self.at = end + 1;
        Ok(Piece::of_arena(arena_start, scratch.arena.len()))
    }

    /// What stands behind the backslash of `\u0001` and `\u0002`, of which a string of properties is full.
    #[inline]
    fn separator(&mut self) -> Option<u8> {
        let [u, a, b, c, digit] = *self.bytes.get(self.at..)?.first_chunk()?;
        let byte = digit.wrapping_sub(b'0');
        if [u, a, b, c] != *b"u000" || 9 < byte {
            return None;
        }
        self.at += 5;
        Some(byte)
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char, FrameError> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(self.error("a string has no end"));
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' | b'\'' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    // A lone low half is what Java writes as `?` when it makes bytes of it.
                    return Ok(char::from_u32(unit).unwrap_or('?'));
                }
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Ok('?');
                }
                let behind_high = self.at;
                self.at += 2;
                let low = self.hex4()?;
                if !(0xdc00..0xe000).contains(&low) {
                    self.at = behind_high;
                    return Ok('?');
                }
                let both = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                char::from_u32(both).unwrap_or('?')
            }
            _ => return Err(self.error("an unknown escape in a string")),
        })
    }

    fn hex4(&mut self) -> Result<u32, FrameError> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let number = digits.and_then(|digits| {
            digits.iter().try_fold(0, |number, digit| {
                (*digit as char)
                    .to_digit(16)
                    .map(|digit| number << 4 | digit)
            })
        });
        let Some(number) = number else {
            return Err(self.error("`\\u` without four hexadecimal digits"));
        };
        self.at += 4;
        Ok(number)
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
            let name = self.string(scratch)?;
            // Nearly all values are text.
            let value = if self.is_next(*b":\"") {
                self.at += 1;
                self.string(scratch)?
            } else {
                self.colon()?;
                self.peek();
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

    /// Passes over a value that nobody asked for. Only strings and brackets are looked at.
    fn skip(&mut self) -> Result<(), FrameError> {
        let mut depth = 0u32;
        loop {
            match self.peek() {
                Some(b'"') => self.skip_string()?,
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    if DEPTH_MAX < depth {
                        return Err(self.error(format!("more than {DEPTH_MAX} levels of JSON")));
                    }
                    continue;
                }
                Some(b'}' | b']') if 0 < depth => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if 0 < depth => {
                    self.at += 1;
                    continue;
                }
                Some(byte)
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') =>
                {
                    let rest = &self.bytes[self.at..];
                    let len = rest
                        .iter()
                        .position(|byte| {
                            matches!(
                                byte,
                                b',' | b':' | b'}' | b']' | b'"' | b' ' | b'\n' | b'\r' | b'\t'
                            )
                        })
                        .unwrap_or(rest.len());
                    self.at += len;
                }
                Some(_) => return Err(self.error("expected a value")),
                None => return Err(self.error("a value has no end")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), FrameError> {
        self.at += 1;
        loop {
            self.at = self.marks.next(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => self.at += 2,
                None => return Err(self.error("a string has no end")),
            }
        }
    }
}

#[cfg(test)]
mod tests;

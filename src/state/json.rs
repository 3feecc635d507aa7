//! JSON as Apache's broker writes it to disk: tabs, and integer keys without quotes.
//!
//! `serde_json` refuses `{0:5}`, and a text that is first repaired for it no longer has the positions
//! that an error must name. So this room has a reader and a writer of its own, for settings of a few
//! megabytes, never for requests.

use super::StateError;

/// Deeper than anything that a broker writes, and far from the end of the stack.
const DEPTH_MAX: usize = 64;

/// A value and where it began.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Byte position in its file; 0 for what was not read from one.
    pub at: usize,
    /// What is there.
    pub value: Value,
}

/// The place does not count: the same value read from two files is the same.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Node {}

/// Any JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it was spelled, so that what is only kept is not rounded.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
    /// The text of a table, brackets and all, as of a [`TableWriter`]; the reader makes none.
    Written(String),
}

/// The name of a field. A topic may be called `7`, so text and number are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Number(i64),
    Text(String),
}

impl Key {
    /// The name as text, quotes or not.
    pub fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl Node {
    pub fn new(value: Value) -> Self {
        Self { at: 0, value }
    }

    pub fn number(number: impl Into<i64>) -> Self {
        Self::new(Value::Number(number.into().to_string()))
    }

    pub fn text(text: &str) -> Self {
        Self::new(Value::Text(text.to_owned()))
    }

    pub fn table<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let fields = fields.into_iter();
        Self::new(Value::Table(
            fields
                .map(|(name, node)| (Key::Text(name.to_owned()), node))
                .collect(),
        ))
    }
}

/// A file that was read: makes errors that say where.
pub(super) struct Document<'a> {
    kind: &'static str,
    bytes: &'a [u8],
}

impl<'a> Document<'a> {
    pub fn new(kind: &'static str, bytes: &'a [u8]) -> Self {
        Self { kind, bytes }
    }

    /// The whole file as one value.
    pub fn parse(&self) -> Result<Node, StateError> {
        let text = std::str::from_utf8(self.bytes)
            .map_err(|error| self.fail(error.valid_up_to(), "bytes that are no UTF-8"))?;
        let mut parser = Parser {
            document: self,
            text,
            at: 0,
        };
        if text.starts_with('\u{feff}') {
            parser.at = '\u{feff}'.len_utf8();
        }
        parser.skip_blanks();
        if parser.at == text.len() {
            return Err(self.fail(parser.at, "the file is empty"));
        }
        let node = parser.value(0)?;
        parser.skip_blanks();
        if parser.at < text.len() {
            return Err(self.fail(parser.at, "something follows the end of the value"));
        }
        Ok(node)
    }

    /// An error at a byte of this file.
    pub fn fail(&self, at: usize, why: impl Into<String>) -> StateError {
        let before = &self.bytes[..at.min(self.bytes.len())];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let characters = before[line_start..]
            .iter()
            .filter(|byte| (**byte & 0xc0) != 0x80);
        StateError {
            file: self.kind,
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: characters.count() + 1,
            why: why.into(),
        }
    }
}

struct Parser<'a> {
    document: &'a Document<'a>,
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fail(&self, why: impl Into<String>) -> StateError {
        self.document.fail(self.at, why)
    }

    fn unexpected(&self, wanted: &str) -> StateError {
        match self.text[self.at..].chars().next() {
            Some(found) => self.fail(format!("expected {wanted}, found {found:?}")),
            None => self.fail(format!("the file ends where {wanted} was expected")),
        }
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes one byte of punctuation, if it is the next thing.
    fn take(&mut self, wanted: u8) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node, StateError> {
        if DEPTH_MAX < depth {
            return Err(self.fail(format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.skip_blanks();
        let at = self.at;
        let value = match self.peek() {
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, value })
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, StateError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn table(&mut self, depth: usize) -> Result<Value, StateError> {
        assert!(self.take(b'{'));
        let mut fields = Vec::new();
        if self.take(b'}') {
            return Ok(Value::Table(fields));
        }
        loop {
            let key = self.key()?;
            if !self.take(b':') {
                return Err(self.unexpected("':'"));
            }
            fields.push((key, self.value(depth + 1)?));
            if self.take(b'}') {
                return Ok(Value::Table(fields));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or '}'"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, StateError> {
        assert!(self.take(b'['));
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or ']'"));
            }
        }
    }

    fn key(&mut self) -> Result<Key, StateError> {
        self.skip_blanks();
        match self.peek() {
            Some(b'"') => Ok(Key::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => {
                let at = self.at;
                let digits = self.number()?;
                let number = digits.parse().map_err(|_| {
                    self.document
                        .fail(at, format!("the name {digits} is no whole number"))
                })?;
                Ok(Key::Number(number))
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn number(&mut self) -> Result<String, StateError> {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
        ) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if digits.parse::<f64>().is_err() {
            return Err(self.document.fail(start, format!("{digits} is no number")));
        }
        Ok(digits.to_owned())
    }

    fn string(&mut self) -> Result<String, StateError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find(['"', '\\']) else {
                return Err(self.document.fail(start, "a text without its closing '\"'"));
            };
            text.push_str(&rest[..end]);
            self.at += end + 1;
            if rest.as_bytes()[end] == b'"' {
                return Ok(text);
            }
            text.push(self.escape()?);
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char, StateError> {
        let Some(letter) = self.peek().filter(u8::is_ascii) else {
            return Err(self.unexpected("a letter behind '\\'"));
        };
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' | b'\'' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => {
                self.at -= 1;
                return Err(self.unexpected("one of \" \\ / b f n r t u behind '\\'"));
            }
        })
    }

    /// A character of the form `\u597d`, or two of them that make one.
    fn unicode(&mut self) -> Result<char, StateError> {
        let at = self.at;
        let first = self.hex()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            units.push(self.hex()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(self.document.fail(at, "half a surrogate pair")),
        }
    }

    fn hex(&mut self) -> Result<u16, StateError> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.unexpected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(unit)
    }
}

/// Writes a value as Apache's broker does: one field a line, tabs, integer keys without quotes.
pub(super) fn write(node: &Node) -> Vec<u8> {
    let mut out = String::new();
    write_value(node, 0, &mut out);
    out.into_bytes()
}

pub(super) fn write_value(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(digits) => out.push_str(digits),
        Value::Text(text) => write_text(text, out),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                next_line(index, depth, out);
                write_value(item, depth + 1, out);
            }
            close(items.is_empty(), depth, ']', out);
        }
        Value::Table(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                next_line(index, depth, out);
                match key {
                    Key::Number(number) => out.push_str(&number.to_string()),
                    Key::Text(text) => write_text(text, out),
                }
                out.push(':');
                write_value(value, depth + 1, out);
            }
            close(fields.is_empty(), depth, '}', out);
        }
        Value::Written(text) => out.push_str(text),
    }
}

/// Fields of a table that stands at a depth, without its brackets.
#[derive(Debug)]
pub(super) struct FieldsWriter {
    out: String,
    depth: usize,
    count: usize,
}

impl FieldsWriter {
    pub(super) fn new(depth: usize) -> Self {
        Self {
            out: String::new(),
            depth,
            count: 0,
        }
    }

    /// `put` writes a name, with [`write_name`] or as a number and ':', and a value.
    pub(super) fn put(&mut self, put: impl FnOnce(&mut String)) {
        next_line(self.count, self.depth, &mut self.out);
        put(&mut self.out);
        self.count += 1;
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes fields back: as it was when it had that many bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// A table that stands at a depth, written field by field: a tree of many thousand fields would cost several
/// times what their text does, and it is the shard that waits for it.
#[derive(Debug)]
pub(super) struct TableWriter(FieldsWriter);

impl TableWriter {
    pub(super) fn new(depth: usize) -> Self {
        let mut fields = FieldsWriter::new(depth);
        fields.out.push('{');
        Self(fields)
    }

    /// As [`FieldsWriter::put`].
    pub(super) fn put(&mut self, put: impl FnOnce(&mut String)) {
        self.0.put(put);
    }

    pub(super) fn finish(self) -> Node {
        let FieldsWriter {
            mut out,
            depth,
            count,
        } = self.0;
        close(count == 0, depth, '}', &mut out);
        Node::new(Value::Written(out))
    }
}

/// `put` writes a name, with [`write_name`] or as a number and ':', and a value.
pub(super) fn write_fields<T>(
    depth: usize,
    fields: impl Iterator<Item = T>,
    out: &mut String,
    mut put: impl FnMut(T, &mut String),
) {
    out.push('{');
    let mut empty = true;
    for (index, field) in fields.enumerate() {
        next_line(index, depth, out);
        put(field, out);
        empty = false;
    }
    close(empty, depth, '}', out);
}

pub(super) fn write_name(name: &str, out: &mut String) {
    write_text(name, out);
    out.push(':');
}

pub(super) fn write_number(number: i64, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number));
}

fn next_line(index: usize, depth: usize, out: &mut String) {
    out.push_str(if 0 < index { ",\n" } else { "\n" });
    out.extend(std::iter::repeat_n('\t', depth + 1));
}

pub(super) fn close(empty: bool, depth: usize, bracket: char, out: &mut String) {
    if !empty {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    }
    out.push(bracket);
}

pub(super) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let is_plain = |byte: u8| b' ' <= byte && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Node, StateError> {
        Document::new("test.json", text.as_bytes()).parse()
    }

    #[test]
    fn integer_names_need_no_quotes_and_keep_their_kind() {
        let node =
            parse("{0:5,\t-1 : [1.50, null, true],\"7\":\"\\u597d\\ud83d\\ude00\\n\"}").unwrap();
        let Value::Table(fields) = &node.value else {
            panic!("{node:?}")
        };
        assert_eq!(fields[0], (Key::Number(0), Node::number(5)));
        assert_eq!(fields[1].0, Key::Number(-1));
        assert_eq!(fields[2], (Key::Text("7".into()), Node::text("好😀\n")));
        let written = write(&node);
        let expected =
            "{\n\t0:5,\n\t-1:[\n\t\t1.50,\n\t\tnull,\n\t\ttrue\n\t],\n\t\"7\":\"好😀\\n\"\n}";
        assert_eq!(String::from_utf8(written.clone()).unwrap(), expected);
        assert_eq!(parse(expected).unwrap(), node, "and back");
    }

    #[test]
    fn errors_say_where_and_why() {
        let cases = [
            ("", "test.json, line 1, column 1: the file is empty"),
            (
                "{\n\t\"好\": x}",
                "test.json, line 2, column 7: expected a value, found 'x'",
            ),
            (
                "{\"a\":1",
                "test.json, line 1, column 7: the file ends where ',' or '}' was expected",
            ),
            (
                "{\"a\" 1}",
                "test.json, line 1, column 6: expected ':', found '1'",
            ),
            (
                "{1.5:1}",
                "test.json, line 1, column 2: the name 1.5 is no whole number",
            ),
            ("[1-]", "test.json, line 1, column 2: 1- is no number"),
            (
                "{} {}",
                "test.json, line 1, column 4: something follows the end of the value",
            ),
            (
                "[\"ab",
                "test.json, line 1, column 2: a text without its closing '\"'",
            ),
            (
                "\"\\ud800\"",
                "test.json, line 1, column 4: half a surrogate pair",
            ),
            (
                "\"\\u12é4\"",
                "test.json, line 1, column 4: expected four hexadecimal digits, found '1'",
            ),
            (
                "\"\\q\"",
                "test.json, line 1, column 3: expected one of \" \\ / b f n r t u behind '\\', found 'q'",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).unwrap_err().why.contains("levels deep"));
        let bytes = Document::new("test.json", b"{\"a\":\xff}").parse();
        assert_eq!(
            bytes.unwrap_err().to_string(),
            "test.json, line 1, column 6: bytes that are no UTF-8"
        );
    }

    #[test]
    fn every_prefix_is_an_error_and_nothing_panics() {
        let text = "{\"a\":{0:[1,\"\\u597d\\\"x\"],\"b\":null}}";
        for end in 0..text.len() {
            assert!(parse(&text[..end]).is_err(), "{}", &text[..end]);
        }
        assert!(parse(text).is_ok());
    }
}

//! The form of `broker.conf`: Java's properties.
//!
//! Two liberties: text is UTF-8 where it is valid UTF-8 (Java reads Latin-1, which is what else it is
//! taken for), and blanks behind a value do not count (in Java they make a number unreadable).

use std::borrow::Cow;

/// One setting of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    /// Where it begins, from 1.
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// A place that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// From 1.
    pub line: usize,
    pub why: String,
}

/// All settings, in the order of the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Property>, Malformed> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text.trim_start_matches('\u{feff}')),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    };
    let mut properties = Vec::new();
    for (line, text) in logical_lines(&text) {
        let (key, value) = split(&text);
        let malformed = |why| Malformed { line, why };
        let value = unescape(value).map_err(malformed)?.trim_end().to_owned();
        properties.push(Property {
            line,
            key: unescape(key).map_err(malformed)?,
            value,
        });
    }
    Ok(properties)
}

/// Lines that say something, with what continues them, and the number of their first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut natural = unified.split('\n').enumerate();
    while let Some((index, line)) = natural.next() {
        let mut whole = line.trim_start().to_owned();
        // A comment is not continued, whatever it ends with.
        if whole.is_empty() || whole.starts_with(['#', '!']) {
            continue;
        }
        while ends_in_continuation(&whole) {
            whole.pop();
            match natural.next() {
                Some((_, next)) => whole.push_str(next.trim_start()),
                None => break,
            }
        }
        lines.push((index + 1, whole));
    }
    lines
}

/// An odd number of backslashes at the end: the last one is not escaped itself.
fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Key and value are separated by `=`, `:` or blanks; the first that is not escaped counts.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\u{c}');
    let end = line.find(|c: char| {
        let ends = !escaped && (is_blank(c) || matches!(c, '=' | ':'));
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut units = Vec::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match rest.next() {
            Some('u') => {
                // Characters beyond 16 bits are written as two of these in a row.
                units.clear();
                units.push(unit(&mut rest)?);
                while rest.as_str().starts_with("\\u") {
                    rest = rest.as_str()[2..].chars();
                    units.push(unit(&mut rest)?);
                }
                let decoded = String::from_utf16(&units);
                out.push_str(&decoded.map_err(|_| "\\u… is half a surrogate pair".to_owned())?);
            }
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

fn unit(rest: &mut std::str::Chars<'_>) -> Result<u16, String> {
    let digits: String = rest.by_ref().take(4).collect();
    if digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(u16::from_str_radix(&digits, 16).unwrap_or_default())
    } else {
        Err(format!(
            "\\u{digits} is no character, four hexadecimal digits belong behind \\u"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[u8]) -> Vec<(usize, String, String)> {
        let properties = parse(text).unwrap().into_iter();
        properties
            .map(|property| (property.line, property.key, property.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let all = pairs(text.as_bytes());
        assert_eq!(all.len(), 1, "{text:?} gave {all:?}");
        (all[0].1.clone(), all[0].2.clone())
    }

    #[test]
    fn the_syntax_is_that_of_java() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(one("a=b"), pair("a", "b"));
        assert_eq!(one("  a \t=  b c  "), pair("a", "b c"));
        assert_eq!(one("a:b=c"), pair("a", "b=c"));
        assert_eq!(one("a b"), pair("a", "b"));
        assert_eq!(one("a = = b"), pair("a", "= b"));
        assert_eq!(one("a"), pair("a", ""));
        assert_eq!(one("a\\=b\\ c=d"), pair("a=b c", "d"));
        assert_eq!(one("a=b#c !d"), pair("a", "b#c !d"));
        assert_eq!(one("path=C\\:\\\\x\\ty\\z"), pair("path", "C:\\x\tyz"));
        assert_eq!(one("a=\\u597d\\ud83d\\ude00"), pair("a", "好😀"));
    }

    #[test]
    fn comments_continuations_and_line_numbers() {
        let text = b"# one \\\n! two\r\n\na=1,\\\n   2,\\\r\n\t3\nb=\\\\\nc=4\\";
        let expected = [(4, "a", "1,2,3"), (7, "b", "\\"), (8, "c", "4")];
        let expected = expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned()));
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn what_is_no_utf_8_is_latin_1() {
        assert_eq!(pairs(b"a=\xe9").first().unwrap().2, "\u{e9}");
        assert_eq!(one("\u{feff}a=好"), ("a".to_owned(), "好".to_owned()));
    }

    #[test]
    fn broken_escapes_name_their_line() {
        for (text, line) in [("a=1\nb=\\u12g4", 2), ("a=\\u12", 1), ("a=\\ud800", 1)] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().line, line, "{text}");
        }
    }
}

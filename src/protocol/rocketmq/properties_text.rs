//! Java's `.properties` text, the body of 25 and 26: `key=value` lines with their escapes.

use std::iter::Peekable;
use std::str::Chars;

/// Reads properties as `java.util.Properties.load` does; of several with one key the last counts.
pub(super) fn read(text: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for line in logical_lines(text) {
        let (key, value) = pair(&line);
        match pairs.iter_mut().find(|(known, _)| *known == key) {
            Some(known) => known.1 = value,
            None => pairs.push((key, value)),
        }
    }
    pairs
}

/// Writes one line a property, so that `Properties.load` reads it back.
pub(super) fn write(out: &mut Vec<u8>, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        put_escaped(out, key, true);
        out.push(b'=');
        put_escaped(out, value, false);
        out.push(b'\n');
    }
}

/// Java escapes `=`, `:`, `#`, `!` in values too, but `load` needs that in keys only; tools that print the
/// text as it is are better off without.
fn put_escaped(out: &mut Vec<u8>, text: &str, is_key: bool) {
    for (index, character) in text.chars().enumerate() {
        match character {
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            ' ' if is_key || index == 0 => out.extend_from_slice(b"\\ "),
            '=' | ':' | '#' | '!' if is_key => out.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => out.push(character as u8),
            // `load` takes bytes for Latin-1: everything else must be escaped.
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
                }
            }
        }
    }
}

const SPACE: [char; 3] = [' ', '\t', '\u{c}'];

/// Lines without comments and blank ones, those continued by a backslash joined.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.split(['\n', '\r']) {
        let line = line.trim_start_matches(SPACE);
        if open.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let mut joined = open.take().unwrap_or_default();
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            joined.push_str(&line[..line.len() - 1]);
            open = Some(joined);
        } else {
            joined.push_str(line);
            lines.push(joined);
        }
    }
    lines.extend(open);
    lines
}

fn pair(line: &str) -> (String, String) {
    let mut rest = line.chars().peekable();
    let mut key = String::new();
    while let Some(character) = rest.next_if(|next| !SPACE.contains(next) && !"=:".contains(*next))
    {
        key.extend(unescaped(character, &mut rest));
    }
    while rest.next_if(|next| SPACE.contains(next)).is_some() {}
    if rest.next_if(|next| "=:".contains(*next)).is_some() {
        while rest.next_if(|next| SPACE.contains(next)).is_some() {}
    }
    let mut value = String::new();
    while let Some(character) = rest.next() {
        value.extend(unescaped(character, &mut rest));
    }
    (key, value)
}

/// The character that `character` and perhaps some after it stand for.
fn unescaped(character: char, rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    if character != '\\' {
        return Some(character);
    }
    Some(match rest.next()? {
        't' => '\t',
        'n' => '\n',
        'r' => '\r',
        'f' => '\u{c}',
        'u' => {
            let unit = hex4(rest);
            if !(0xd800..0xdc00).contains(&unit) {
                return Some(char::from_u32(unit).unwrap_or('?'));
            }
            let mut ahead = rest.clone();
            if ahead.next() != Some('\\') || ahead.next() != Some('u') {
                return Some('?');
            }
            let low = hex4(&mut ahead);
            if !(0xdc00..0xe000).contains(&low) {
                return Some('?');
            }
            *rest = ahead;
            char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).unwrap_or('?')
        }
        other => other,
    })
}

/// Up to four hexadecimal digits.
fn hex4(rest: &mut Peekable<Chars<'_>>) -> u32 {
    let mut unit = 0;
    for _ in 0..4 {
        let Some(digit) = rest.next_if(char::is_ascii_hexdigit) else {
            break;
        };
        unit = unit << 4 | digit.to_digit(16).unwrap_or(0);
    }
    unit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_forms_of_java_are_read() {
        let text = "# comment\n! another\n\n brokerPermission=4\r\na : b\nc d\ne\nf=\n\
            long = one,\\\n   two\\\\\ng\\=h=\\u4e2d\\n\\ud83d\\ude00\na=last";
        assert_eq!(
            read(text),
            pairs(&[
                ("brokerPermission", "4"),
                ("a", "last"),
                ("c", "d"),
                ("e", ""),
                ("f", ""),
                ("long", "one,two\\"),
                ("g=h", "中\n😀"),
            ])
        );
        assert_eq!(read("a=\\"), pairs(&[("a", "")]));
        assert_eq!(read("a=\\u1"), pairs(&[("a", "\u{1}")]));
        assert_eq!(
            read("a=1\\\\\\\nb=2"),
            pairs(&[("a", "1\\b=2")]),
            "the third backslash continues the line"
        );
    }

    #[test]
    fn plain_values_are_written_plainly() {
        let mut out = Vec::new();
        write(
            &mut out,
            &pairs(&[
                ("namesrvAddr", "127.0.0.1:9876"),
                ("messageDelayLevel", "1s 5s"),
                ("x", " é\\"),
            ]),
        );
        assert_eq!(
            String::from_utf8_lossy(&out),
            "namesrvAddr=127.0.0.1:9876\nmessageDelayLevel=1s 5s\nx=\\ \\u00E9\\\\\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in proptest::collection::btree_map(".{1,9}", ".{0,20}", 0..9)) {
            let all: Vec<_> = all.into_iter().collect();
            let mut out = Vec::new();
            write(&mut out, &all);
            prop_assert_eq!(read(std::str::from_utf8(&out).unwrap()), all);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            read(&text);
        }
    }
}

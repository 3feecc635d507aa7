//! Reads JSON bodies as generously as Java does: every client writes its own.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::command::{Refusal, RefusalKind};

use super::frame::Request;

/// The largest JSON body of a request. The largest seen has some KiB; parsed, it takes a multiple of its size.
const BODY_SIZE_MAX: usize = 4 * 1024 * 1024;

/// The most entries that a list or a map of a request may have.
const ENTRY_COUNT_MAX: usize = 65_536;

/// The body of a request.
pub(super) fn body<T: DeserializeOwned>(request: &Request<'_>) -> Result<T, Refusal> {
    let size = request.body.len();
    if BODY_SIZE_MAX < size {
        return Err(refusal(
            request,
            format!("has {size} bytes, at most {BODY_SIZE_MAX} are allowed"),
        ));
    }
    parse(request.body).map_err(|error| {
        refusal(
            request,
            format!("is not the JSON that this request needs: {error}"),
        )
    })
}

/// The body of a request is wrong.
pub(super) fn refusal(request: &Request<'_>, what: impl fmt::Display) -> Refusal {
    Refusal::new(
        RefusalKind::SystemError,
        format!("the body of request {} {what}", request.code),
    )
}

/// Reads JSON, integer keys without quotes included.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let strict = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(strict);
    };
    match quote_integer_keys(text) {
        Cow::Borrowed(_) => Err(strict),
        Cow::Owned(quoted) => serde_json::from_str(&quoted),
    }
}

/// Java writes maps with numbers as keys as `{0:1}`: gives `{"0":1}`.
#[must_use]
pub fn quote_integer_keys(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at),
            b'{' | b',' => {
                let key = after_space(bytes, at + 1);
                let key_end = number_end(bytes, key);
                if key < key_end && bytes.get(after_space(bytes, key_end)) == Some(&b':') {
                    out.push_str(&text[copied..key]);
                    out.push('"');
                    out.push_str(&text[key..key_end]);
                    out.push('"');
                    copied = key_end;
                }
                at = key_end.max(at + 1);
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Index behind the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn after_space(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count()
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let sign = usize::from(rest.first() == Some(&b'-'));
    let digits = rest
        .iter()
        .skip(sign)
        .take_while(|byte| byte.is_ascii_digit());
    match digits.count() {
        0 => at,
        count => at + sign + count,
    }
}

/// What stands in JSON where text, a number or a boolean is expected; null is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scalar(Option<String>);

impl Scalar {
    /// As text.
    pub(super) fn text(self) -> Option<String> {
        self.0
    }

    /// As a number, if it is one.
    pub(super) fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.0.as_deref().and_then(|text| text.parse().ok())
    }

    /// As a boolean.
    pub(super) fn flag(&self) -> Option<bool> {
        self.0.as_deref().map(super::fields::is_true)
    }

    /// One of a list, by its name or by its place in the list.
    pub(super) fn choice<T: Copy>(
        &self,
        what: &str,
        all: &[(&str, T)],
        if_absent: T,
    ) -> Result<T, String> {
        let Some(text) = self.0.as_deref() else {
            return Ok(if_absent);
        };
        let by_place = text.parse::<usize>().ok().and_then(|place| all.get(place));
        let found = by_place.or_else(|| all.iter().find(|(name, _)| *name == text));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
            let shown: String = text.chars().take(64).collect();
            format!("has the {what} {shown:?}: known are {}", names.join(", "))
        })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("text, a number, a boolean or null")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(Some(text.to_owned())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(Some(number.to_string())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(Some(number.to_string())))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(Some(number.to_string())))
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar(Some(flag.to_string())))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(None))
            }
        }
        from.deserialize_any(ScalarVisitor)
    }
}

/// A list or a set; null is an empty one.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a list of at most {ENTRY_COUNT_MAX} entries")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<List<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = from.next_element()? {
                    if all.len() == ENTRY_COUNT_MAX {
                        return Err(serde::de::Error::invalid_length(ENTRY_COUNT_MAX + 1, &self));
                    }
                    all.push(entry);
                }
                Ok(List(all))
            }
            fn visit_unit<E>(self) -> Result<List<T>, E> {
                Ok(List(Vec::new()))
            }
        }
        from.deserialize_any(ListVisitor(PhantomData))
    }
}

/// A map of text to text, in the order in which it stands; null is an empty one.
#[derive(Debug, Default)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "an object of at most {ENTRY_COUNT_MAX} texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Pairs, A::Error> {
                let mut all = Vec::new();
                while let Some((name, value)) = from.next_entry::<String, Scalar>()? {
                    if all.len() == ENTRY_COUNT_MAX {
                        return Err(serde::de::Error::invalid_length(ENTRY_COUNT_MAX + 1, &self));
                    }
                    all.push((name, value.text().unwrap_or_default()));
                }
                Ok(Pairs(all))
            }
            fn visit_unit<E>(self) -> Result<Pairs, E> {
                Ok(Pairs(Vec::new()))
            }
        }
        from.deserialize_any(PairsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_keys_need_no_quotes() {
        for (loose, strict) in [
            ("{0:1}", r#"{"0":1}"#),
            (
                "{ 0 : 1 ,\n -2:{3:[]}}",
                r#"{ "0" : 1 ,
 "-2":{"3":[]}}"#,
            ),
            (r#"{"a{1:2":"{3:4",5:6}"#, r#"{"a{1:2":"{3:4","5":6}"#),
            (r#"{"a\"{1:":[1,2,3]}"#, r#"{"a\"{1:":[1,2,3]}"#),
        ] {
            assert_eq!(quote_integer_keys(loose), strict);
            parse::<serde_json::Value>(loose.as_bytes()).expect(loose);
        }
        assert!(parse::<serde_json::Value>(b"{0:").is_err());
        assert!(parse::<serde_json::Value>(b"{\"\\").is_err());
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "[".repeat(100_000);
        assert!(parse::<serde_json::Value>(deep.as_bytes()).is_err());
        assert!(parse::<List<Scalar>>(deep.as_bytes()).is_err());
        let long = format!("[{}0]", "0,".repeat(ENTRY_COUNT_MAX));
        let error = parse::<List<Scalar>>(long.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("at most 65536"), "{error}");
    }
}

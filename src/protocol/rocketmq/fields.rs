//! Reads extension fields as what they mean, and says which one is wrong.

use std::fmt::Display;
use std::str::FromStr;

use crate::command::{Refusal, RefusalKind};

use super::frame::Request;

/// A number that a field may hold.
pub(super) trait Number: FromStr + Display + TryFrom<i64> {
    /// What it is called in a refusal.
    const NAME: &'static str;
}

impl Number for i32 {
    const NAME: &'static str = "a 32-bit number";
}

impl Number for i64 {
    const NAME: &'static str = "a 64-bit number";
}

impl Number for u32 {
    const NAME: &'static str = "a number from 0 to 4294967295";
}

/// A field as a number.
#[inline]
pub(super) fn number<T: Number>(code: i32, name: &str, text: &[u8]) -> Result<T, Refusal> {
    match plain_number(text).map(T::try_from) {
        Some(Ok(number)) => Ok(number),
        _ => odd_number(code, name, text),
    }
}

/// One to eighteen digits, which do not overflow. Most numbers have one.
#[inline]
fn plain_number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || 18 < text.len() {
        return None;
    }
    let mut number = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if 9 < digit {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(number)
}

/// A number with a sign, with more digits, or none at all.
#[cold]
fn odd_number<T: Number>(code: i32, name: &str, text: &[u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Refusal::new(
            RefusalKind::SystemError,
            format!(
                "field `{name}` of request {code} is {shown:?}: it must be {}",
                T::NAME
            ),
        )
    })
}

/// A field that is not there.
#[cold]
pub(super) fn missing(code: i32, name: &str) -> Refusal {
    Refusal::new(
        RefusalKind::SystemError,
        format!("request {code} has no field `{name}`: send one"),
    )
}

/// Booleans as Java, Go and Rust write them, and as C++ does.
pub(super) fn is_true(text: impl AsRef<[u8]>) -> bool {
    let text = text.as_ref();
    text == b"1" || text.eq_ignore_ascii_case(b"true")
}

impl<'a> Request<'a> {
    /// A text that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, Refusal> {
        self.field(name).ok_or_else(|| missing(self.code, name))
    }

    /// A text that may be there. C++ writes an unused one as empty.
    pub(super) fn text_if_any(&self, name: &str) -> Option<&'a str> {
        self.field(name).filter(|text| !text.is_empty())
    }

    /// A number that must be there.
    pub(super) fn number<T: Number>(&self, name: &str) -> Result<T, Refusal> {
        number(self.code, name, self.text(name)?.as_bytes())
    }

    /// A number that may be there.
    pub(super) fn number_if_any<T: Number>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let text = self.text_if_any(name);
        text.map(|text| number(self.code, name, text.as_bytes()))
            .transpose()
    }

    /// A boolean; false where it is not there.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.field(name).is_some_and(is_true)
    }
}

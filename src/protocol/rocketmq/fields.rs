//! Reads extension fields as what they mean, and says which one is wrong.

use std::fmt::Display;
use std::str::FromStr;

use crate::command::{Refusal, RefusalKind};

use super::frame::Request;

/// A number that a field may hold.
pub(super) trait Number: FromStr + Display {
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
pub(super) fn number<T: Number>(code: i32, name: &str, text: &str) -> Result<T, Refusal> {
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
pub(super) fn missing(code: i32, name: &str) -> Refusal {
    Refusal::new(
        RefusalKind::SystemError,
        format!("request {code} has no field `{name}`: send one"),
    )
}

/// Booleans as Java, Go and Rust write them, and as C++ does.
pub(super) fn is_true(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("true")
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
        number(self.code, name, self.text(name)?)
    }

    /// A number that may be there.
    pub(super) fn number_if_any<T: Number>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let text = self.text_if_any(name);
        text.map(|text| number(self.code, name, text)).transpose()
    }

    /// A boolean; false where it is not there.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.field(name).is_some_and(is_true)
    }
}

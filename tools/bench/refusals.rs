//! Answers that say no: how many there were in the window, and when they make a run void.

use crate::report::grouped;
use std::collections::BTreeMap;

/// Where more than one of so many requests is refused, what is measured is how fast a server says no.
const GRANTED_PER_REFUSED_MIN: u64 = 100;

/// Requests that were answered in the window.
#[derive(Default)]
pub struct Refusals {
    pub granted: u64,
    by_code: BTreeMap<i32, u64>,
}

/// RocketMQ's name of a code, and what is to be done about it.
fn meaning(code: i32) -> (&'static str, &'static str) {
    match code {
        1 => ("SYSTEM_ERROR", "the server's log says why"),
        2 => (
            "SYSTEM_BUSY",
            "ask for less (--rate, --connections, --in-flight), or look into the server's log",
        ),
        3 => (
            "REQUEST_CODE_NOT_SUPPORTED",
            "the server cannot do this: is --addr that of a broker?",
        ),
        13 => ("MESSAGE_ILLEGAL", "lower --size or --batch"),
        14 => (
            "SERVICE_NOT_AVAILABLE",
            "is its disk full, or is it about to stop? Its log says",
        ),
        16 => (
            "NO_PERMISSION",
            "allow the topic or the broker to be written to and read",
        ),
        17 => (
            "TOPIC_NOT_EXIST",
            "create the topic, or name one that is there with --topic",
        ),
        21 => (
            "PULL_OFFSET_MOVED",
            "messages were removed before they were read: let the server keep them longer",
        ),
        _ => ("", "the server's log says why"),
    }
}

impl Refusals {
    pub fn refused(&mut self, code: i32) {
        *self.by_code.entry(code).or_default() += 1;
    }

    pub fn absorb(&mut self, other: Refusals) {
        self.granted += other.granted;
        for (code, count) in other.by_code {
            *self.by_code.entry(code).or_default() += count;
        }
    }

    /// Why a run proves nothing, if too many were refused; `what` they were.
    pub fn void_words(&self, what: &str) -> Option<String> {
        let refused: u64 = self.by_code.values().sum();
        let all = self.granted + refused;
        if refused * GRANTED_PER_REFUSED_MIN <= all {
            return None;
        }
        let codes: Vec<String> = self.by_code.keys().map(|code| told(*code)).collect();
        Some(format!(
            "{} of {} {what} in the window were refused, with code {}; \
             latencies are of those that were granted",
            grouped(refused as i64),
            grouped(all as i64),
            codes.join("; and with code ")
        ))
    }
}

fn told(code: i32) -> String {
    match meaning(code) {
        ("", advice) => format!("{code}: {advice}"),
        (name, advice) => format!("{code} ({name}): {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_may_be_refused_and_not_more() {
        let mut refusals = Refusals {
            granted: 99,
            ..Refusals::default()
        };
        assert_eq!(refusals.void_words("sends"), None);
        refusals.refused(2);
        assert_eq!(refusals.void_words("sends"), None);
        refusals.refused(14);
        let told = refusals.void_words("sends").unwrap();
        for words in [
            "2 of 101 sends",
            "code 2 (SYSTEM_BUSY)",
            "code 14 (",
            "--rate",
        ] {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(Refusals::default().void_words("sends"), None);
    }
}

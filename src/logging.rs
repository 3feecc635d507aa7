//! The log: one line an event on stderr, and no message more often than somebody can read it.
//!
//! A message that repeats is cut to [`LINES_MAX`] lines in [`WINDOW`]; its next line says how many were
//! left out. Errors count like all others: a disk that fails, fails a thousand times a second.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Lines of one message in one window.
const LINES_MAX: u64 = 50;
/// A window begins with the first line behind the last window.
const WINDOW: Duration = Duration::from_secs(10);

/// Begins to log at a level, or by directives, that the configuration has checked.
pub fn start(level: &str) {
    let filter = EnvFilter::builder().parse_lossy(level);
    let lines = Lines {
        started: Instant::now(),
        budgets: Mutex::default(),
    };
    // A second start finds the first one in force, and that is as good.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
}

struct Lines {
    started: Instant,
    budgets: Mutex<Budgets>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let message = event.metadata().callsite();
        let now = self.started.elapsed();
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = budgets.admit(message, now) else {
            return;
        };
        drop(budgets);
        let line = line(event, left_out);
        // A reader that went away is no reason to stop.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

fn line(event: &Event<'_>, left_out: u64) -> String {
    let metadata = event.metadata();
    let mut line = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    let _ = write!(
        line,
        " {:<5} {}:",
        metadata.level().as_str(),
        metadata.target()
    );
    event.record(&mut Fields { line: &mut line });
    if 0 < left_out {
        let _ = write!(line, " ({left_out} more of these were left out)");
    }
    line.push('\n');
    line
}

/// Appends the message and then the other fields as ` name=value`.
struct Fields<'a> {
    line: &'a mut String,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.line.push(' ');
        if field.name() != "message" {
            self.line.push_str(field.name());
            self.line.push('=');
        }
        let text = format!("{value:?}");
        // What clients say may be logged; it must not look like lines of ours.
        for character in text.chars() {
            if character.is_control() {
                self.line.extend(character.escape_default());
            } else {
                self.line.push(character);
            }
        }
    }
}

#[derive(Default)]
struct Budgets(HashMap<Identifier, Budget>);

struct Budget {
    since: Duration,
    lines: u64,
    left_out: u64,
}

impl Budgets {
    /// How many were left out before this line, or `None` if it is left out too.
    fn admit(&mut self, message: Identifier, now: Duration) -> Option<u64> {
        let fresh = |left_out| Budget {
            since: now,
            lines: 1,
            left_out,
        };
        let budget = match self.0.entry(message) {
            Entry::Vacant(entry) => {
                entry.insert(fresh(0));
                return Some(0);
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };
        if WINDOW <= now.saturating_sub(budget.since) {
            let left_out = std::mem::replace(budget, fresh(0)).left_out;
            return Some(left_out);
        }
        if budget.lines < LINES_MAX {
            budget.lines += 1;
            return Some(0);
        }
        budget.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_message_that_repeats_is_cut_and_counted() {
        let first =
            tracing::callsite!(name: "first", kind: tracing::metadata::Kind::EVENT, fields: x);
        let second =
            tracing::callsite!(name: "second", kind: tracing::metadata::Kind::EVENT, fields: x);
        let [first, second] = [first, second].map(tracing::Callsite::metadata);
        let [first, second] = [first.callsite(), second.callsite()];
        let mut budgets = Budgets::default();
        let seconds = Duration::from_secs;
        for _ in 0..LINES_MAX {
            assert_eq!(budgets.admit(first.clone(), seconds(1)), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(budgets.admit(first.clone(), seconds(10)), None);
        }
        assert_eq!(
            budgets.admit(second, seconds(10)),
            Some(0),
            "others are not cut"
        );
        assert_eq!(budgets.admit(first.clone(), seconds(11)), Some(7));
        assert_eq!(
            budgets.admit(first, seconds(11)),
            Some(0),
            "and are told once"
        );
    }

    #[test]
    fn an_event_is_one_line() {
        struct Taken(Arc<Mutex<String>>);
        impl<S: Subscriber> Layer<S> for Taken {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                *self.0.lock().unwrap() = line(event, 3);
            }
        }
        let taken = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Taken(Arc::clone(&taken)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(topic = "a\nb", count = 2, "cannot keep {}", "x\r\ny");
        });
        let line = taken.lock().unwrap().clone();
        let (_, text) = line.split_once(' ').unwrap();
        assert_eq!(
            text,
            "WARN  corelane::logging::tests: cannot keep x\\r\\ny topic=a\\nb count=2 (3 more of these were left out)\n"
        );
    }
}

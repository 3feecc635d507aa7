//! The differences from Apache's answers that are meant: the table in `tests/README.md`.

use super::compare::Difference;
use std::cell::Cell;

const README: &str = include_str!("../README.md");
const HEADING: &str = "## Differences from Apache's answers";

/// A row of the table. `*` in a cell stands for anything.
pub struct Allowed {
    pub recording: String,
    pub request: String,
    pub place: String,
    pub recorded: String,
    pub ours: String,
    pub seen: Cell<usize>,
}

/// The rows of the first table below the heading.
pub fn allowed() -> Vec<Allowed> {
    let (_, section) = README
        .split_once(HEADING)
        .expect("the heading in tests/README.md");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(row).collect()
}

fn row(line: &str) -> Allowed {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    assert_eq!(cells.len(), 6, "a row of six cells: {line}");
    let cell = |at: usize| cells[at].trim_matches('`').to_owned();
    assert!(!cell(5).is_empty(), "a row without a reason: {line}");
    Allowed {
        recording: cell(0),
        request: cell(1),
        place: cell(2),
        recorded: cell(3),
        ours: cell(4),
        seen: Cell::new(0),
    }
}

impl Allowed {
    pub fn matches(&self, difference: &Difference) -> bool {
        agrees(&self.recording, &difference.recording)
            && agrees(&self.request, &difference.code.to_string())
            && agrees(&self.place, &difference.place)
            && agrees(&self.recorded, &difference.recorded)
            && agrees(&self.ours, &difference.ours)
    }
}

/// Whether a pattern with `*` for any text fits the whole text.
pub fn agrees(pattern: &str, text: &str) -> bool {
    let text = text.replace('\n', " ");
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(begin) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(end)
}

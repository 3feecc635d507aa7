//! How a table is told: lines in the terminal, a table in Markdown, and JSON for scripts.

use super::found::{Found, Median, Verdict};
use super::rows::{Bound, Goal};
use crate::Outcome;
use crate::report::short;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// What a key's values are divided by, and their unit.
fn unit(key: &str) -> (f64, &'static str) {
    match key {
        "cpu_us_per_mb" => (1e3, " s/GB"),
        "server_rss_mib" => (1.0, " MiB"),
        key if key.ends_with("_ns") => (1e3, " µs"),
        key if key.ends_with("rss_bytes") || key.ends_with("anonymous_bytes") => {
            (f64::from(1 << 20), " MiB")
        }
        key if key.ends_with("bytes_per_s") => (1e6, " MB/s"),
        key if key.ends_with("us_per_message") => (1.0, " µs"),
        key if key.ends_with("_ms") => (1.0, " ms"),
        key if key.ends_with("per_s") => (1.0, "/s"),
        _ => (1.0, ""),
    }
}

fn shown(median: Option<Median>, key: &str) -> String {
    let (by, unit) = unit(key);
    let Some(Median {
        middle,
        least,
        most,
    }) = median
    else {
        return "–".to_owned();
    };
    if least == most {
        return format!("{}{unit}", short(middle / by));
    }
    let of = |value: f64| short(value / by);
    format!("{}{unit} ({}–{})", of(middle), of(least), of(most))
}

fn bound(goal: &Goal) -> String {
    let number = |value: f64| match value {
        value if value < 0.002 => "0".to_owned(),
        value if value < 0.45 => format!("1/{}", short_ratio(1.0 / value)),
        value => short_ratio(value),
    };
    match goal.bound {
        Bound::AtLeast(value) => format!("≥ {}", number(value)),
        Bound::AtMost(value) => format!("≤ {}", number(value)),
    }
}

/// Without zeros that say nothing.
fn short_ratio(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn reached(verdict: &Verdict<'_>) -> &'static str {
    match verdict.is_reached {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not measured",
    }
}

/// The cells of a goal's line.
fn cells(verdict: &Verdict<'_>) -> [String; 8] {
    let goal = verdict.goal;
    let by = goal.by.map_or("", |by| by.1.words());
    [
        goal.row.to_string(),
        goal.words.to_owned(),
        shown(verdict.ours, goal.ours.2),
        by.to_owned(),
        goal.by.map_or(String::new(), |at| shown(verdict.by, at.2)),
        verdict.ratio.map_or("–".to_owned(), |ratio| {
            if ratio < 0.1 {
                format!("{ratio:.3}")
            } else {
                format!("{ratio:.2}")
            }
        }),
        bound(goal),
        reached(verdict).to_owned(),
    ]
}

/// One line for the terminal.
pub fn line(verdict: &Verdict<'_>) -> String {
    let [row, words, ours, by, other, ratio, bound, reached] = cells(verdict);
    let mut text = format!("{row:>2}  {words}: {ours}");
    if !by.is_empty() {
        let _ = write!(text, "; {by} {other}; ratio {ratio}");
    }
    let _ = write!(text, "; goal {bound}: {reached}");
    text
}

fn markdown(found: &Found, goals: &[Goal], title: &str, command: &str) -> String {
    let mut text = format!("## {title}\n\n`{command}`\n\n");
    text += "| # | Figure | Ours | Beside | Its figure | Ratio | Goal | Reached |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for goal in goals {
        let cells = cells(&found.verdict(goal));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text += "\nMedians (least–most).";
    for (row, note) in &found.notes {
        let _ = write!(text, " Row {row}: {note}.");
    }
    text += "\n\n";
    text
}

fn number(median: Option<Median>) -> Value {
    median.map_or(
        Value::Null,
        |at| json!({"median": at.middle, "min": at.least, "max": at.most}),
    )
}

fn raw(found: &Found, goals: &[Goal], command: &str, environment: &Map<String, Value>) -> Value {
    let told = |goal: &Goal| {
        let verdict = found.verdict(goal);
        json!({
            "row": goal.row, "figure": goal.words, "key": goal.ours.2,
            "ours": number(verdict.ours), "by": goal.by.map(|by| by.1.words()),
            "other": number(verdict.by), "ratio": verdict.ratio, "goal": bound(goal),
            "reached": verdict.is_reached,
        })
    };
    let mut values = Map::new();
    for (test, who, key, list) in found.values() {
        let test = values.entry(test).or_insert_with(|| json!({}));
        test[who.words()][key] = json!(list);
    }
    json!({
        "command": command, "environment": environment,
        "goals": goals.iter().map(told).collect::<Vec<_>>(),
        "notes": found.notes, "values": values,
    })
}

/// Appends to the files of a folder what this session found.
pub fn append(
    folder: &Path,
    (found, goals): (&Found, &[Goal]),
    command: &str,
    environment: &Map<String, Value>,
) -> Outcome<()> {
    let text = |key: &str| environment.get(key).and_then(Value::as_str).unwrap_or("?");
    let title = format!(
        "{} · kernel {} · commit {}",
        text("cpu_model"),
        text("kernel"),
        text("commit_of_checkout")
    );
    let mut json = raw(found, goals, command, environment).to_string();
    json.push('\n');
    for (name, text) in [
        ("table.md", markdown(found, goals, &title, command)),
        ("table.jsonl", json),
    ] {
        let mut open = std::fs::OpenOptions::new();
        let mut file = open.create(true).append(true).open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Who, goals};
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_goal_and_says_what_was_not_measured() {
        let mut found = Found::default();
        found.put("1-64x1", Who::Ours, "messages_per_s", 150_000.0);
        found.put("1-64x1", Who::Apache, "messages_per_s", 30_000.0);
        found.put("7-sync-1x1", Who::Ours, "service_p50_ns", 300_000.0);
        let goals = goals();
        let text = markdown(&found, &goals, "here", "table 1");
        assert!(text.contains(
            "| 1 | messages/s, 64 × 1 | 150,000/s | RocketMQ | 30,000/s | 5.00 | ≥ 5 | yes |"
        ));
        assert!(text.contains(
            "| 1 | messages/s, 64 × 1 | 150,000/s | floor | – | – | ≥ 0.85 | not measured |"
        ));
        assert!(
            text.contains("300 µs | RocketMQ | – | – | ≤ 1/3 | not measured"),
            "{text}"
        );
        assert_eq!(
            text.lines().filter(|line| line.starts_with("| ")).count(),
            goals.len() + 1
        );
    }
}

//! The result of a run: a table for the eye, flat JSON for scripts, and whether the run is void.

use crate::check::Faults;
use crate::{Outcome, fail};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// 1 ns to 100 s, 3 digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("the bounds are sound")
}

const QUANTILES: [(&str, f64); 4] = [
    ("p50", 0.5),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];
/// A quantile with fewer samples above it says nothing.
const SAMPLES_ABOVE_MIN: f64 = 10.0;

pub struct Report {
    json: Map<String, Value>,
    title: String,
    lines: Vec<String>,
    latencies: Vec<String>,
    notes: Vec<String>,
    void: Vec<String>,
}

/// Three digits before the point need none behind it.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if 1000.0 <= v => return grouped(value.round() as i64),
        v if 100.0 <= v => 0,
        v if 10.0 <= v => 1,
        v if 1.0 <= v || v == 0.0 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

fn grouped(value: i64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Report {
    pub fn new(command: &str, title: &str) -> Report {
        let mut json = Map::new();
        json.insert("command".into(), json!(command));
        json.insert(
            "kernel".into(),
            json!(proc_line("/proc/sys/kernel/osrelease")),
        );
        json.insert(
            "tcp_congestion_control".into(),
            json!(proc_line("/proc/sys/net/ipv4/tcp_congestion_control")),
        );
        json.insert("cpu_model".into(), json!(cpu_model()));
        Report {
            json,
            title: format!("{command} · {title}"),
            lines: Vec::new(),
            latencies: Vec::new(),
            notes: Vec::new(),
            void: Vec::new(),
        }
    }

    /// Into the JSON only.
    pub fn value(&mut self, key: &str, value: Value) {
        self.json.insert(key.into(), value);
    }

    /// Into the table only.
    pub fn line(&mut self, value: f64, words: &str) {
        self.lines.push(format!("  {:>14}  {words}", short(value)));
    }

    pub fn figure(&mut self, key: &str, value: f64, words: &str) {
        // Five digits behind the point are more than any of these figures is true to.
        self.value(key, json!((value * 1e5).round() / 1e5));
        self.line(value, words);
    }

    pub fn note(&mut self, words: impl Into<String>) {
        self.notes.push(words.into());
    }

    /// Says why the run proves nothing.
    pub fn void(&mut self, words: impl Into<String>) {
        self.void.push(words.into());
    }

    pub fn latency(&mut self, name: &str, words: &str, histogram: &Histogram<u64>) {
        let samples = histogram.len();
        self.value(&format!("{name}_samples"), json!(samples));
        if samples == 0 {
            return;
        }
        let mut row = String::new();
        for (suffix, quantile) in QUANTILES {
            let is_told = SAMPLES_ABOVE_MIN <= samples as f64 * (1.0 - quantile) + 1e-6;
            let ns = histogram.value_at_quantile(quantile);
            self.value(
                &format!("{name}_{suffix}_ns"),
                if is_told { json!(ns) } else { Value::Null },
            );
            row += &format!(
                "{:>11}",
                if is_told {
                    short(ns as f64 / 1e3)
                } else {
                    "-".into()
                }
            );
        }
        self.value(&format!("{name}_max_ns"), json!(histogram.max()));
        self.value(&format!("{name}_mean_ns"), json!(histogram.mean().round()));
        row += &format!("{:>11}", short(histogram.max() as f64 / 1e3));
        self.latencies.push(format!(
            "  {name:<10}{row}{:>13}  {words}",
            grouped(samples as i64)
        ));
    }

    pub fn errors(&mut self, key: &str, errors: &BTreeMap<i32, u64>) {
        let named: Map<String, Value> = errors
            .iter()
            .map(|(code, count)| (code.to_string(), json!(count)))
            .collect();
        self.value(key, Value::Object(named));
        self.value(&format!("{key}_count"), json!(errors.values().sum::<u64>()));
        for (code, count) in errors {
            self.note(format!(
                "{} requests were answered with code {code}",
                grouped(*count as i64)
            ));
        }
    }

    pub fn unexpected(&mut self, key: &str, count: u64) {
        self.value(key, json!(count));
        if 0 < count {
            self.void(format!(
                "{count} answers had no request, or had been given before"
            ));
        }
    }

    pub fn faults(&mut self, faults: Faults) {
        self.value("lost", json!(faults.lost));
        self.value("duplicated", json!(faults.duplicated));
        self.value("reordered", json!(faults.reordered));
        self.value("corrupted", json!(faults.corrupted));
        if !faults.is_clean() {
            self.void(format!(
                "messages: {} lost, {} duplicated, {} reordered, {} corrupted",
                faults.lost, faults.duplicated, faults.reordered, faults.corrupted
            ));
        }
    }

    /// Prints, writes the JSON, and tells whether the run is valid.
    pub fn finish(mut self, path: Option<&Path>) -> Outcome<bool> {
        let is_valid = self.void.is_empty();
        self.value("valid", json!(is_valid));
        self.value("void_because", json!(self.void));
        self.value("notes", json!(self.notes));
        println!("{}", self.title);
        for line in &self.lines {
            println!("{line}");
        }
        if !self.latencies.is_empty() {
            println!(
                "  {:<10}{:>11}{:>11}{:>11}{:>11}{:>11}{:>13}",
                "µs", "p50", "p99", "p99.9", "p99.99", "max", "samples"
            );
        }
        for line in &self.latencies {
            println!("{line}");
        }
        for note in &self.notes {
            println!("  note: {note}");
        }
        for reason in &self.void {
            println!("  VOID: {reason}");
        }
        if let Some(path) = path {
            let text = serde_json::to_string_pretty(&Value::Object(self.json))?;
            if let Err(error) = std::fs::write(path, text + "\n") {
                return fail(format!("cannot write {}: {error}", path.display()));
            }
        }
        Ok(is_valid)
    }
}

fn proc_line(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_string()
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with("model name"))
        .unwrap_or("");
    line.split(':').nth(1).unwrap_or("").trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_grouped() {
        assert_eq!(short(1234567.4), "1,234,567");
        assert_eq!(short(123.4), "123");
        assert_eq!(short(12.34), "12.3");
        assert_eq!(short(0.0123), "0.0123");
        assert_eq!(short(0.0), "0.00");
    }

    #[test]
    fn a_quantile_with_too_few_samples_is_not_told() {
        let mut histogram = histogram();
        for value in 1..=1000 {
            histogram.record(value).unwrap();
        }
        let mut report = Report::new("x", "y");
        report.latency("service", "", &histogram);
        assert_eq!(report.json["service_p99_ns"], 990);
        assert_eq!(report.json["service_p999_ns"], Value::Null);
    }

    #[test]
    fn faults_make_a_run_void() {
        let mut report = Report::new("x", "y");
        report.faults(Faults::default());
        assert!(report.void.is_empty());
        report.faults(Faults {
            lost: 1,
            ..Faults::default()
        });
        assert!(!report.finish(None).unwrap());
    }
}

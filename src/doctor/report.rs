//! What the doctor says: entries with a verdict each, as text for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::io::Unseen;

/// What an entry means for the broker, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// Nothing to do.
    #[serde(rename = "ok")]
    Ok,
    /// It runs, and would run better.
    #[serde(rename = "advice")]
    Advice,
    /// It does not run here.
    #[serde(rename = "cannot run")]
    CannotRun,
}

impl Verdict {
    /// Of the process.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Advice => 1,
            Self::CannotRun => 2,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "ADVICE",
            Self::CannotRun => "CANNOT RUN",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// What it means.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// A command for a shell; what no command can do stands behind `#`. None for what is in order. Each part that
    /// only root may do has its own `sudo`: a file is written by `| sudo tee`, since `sudo` does not reach behind `>`.
    pub fix: Option<String>,
    /// The numbers behind the value, where it was measured. Times are nanoseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, u64>,
}

impl Entry {
    fn new(
        name: &'static str,
        value: impl Into<String>,
        verdict: Verdict,
        reason: impl Into<String>,
        fix: Option<String>,
    ) -> Self {
        Self {
            name,
            value: value.into(),
            verdict,
            reason: reason.into(),
            fix,
            numbers: BTreeMap::new(),
        }
    }

    /// Nothing to do.
    pub(super) fn ok(
        name: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(name, value, Verdict::Ok, reason, None)
    }

    /// Better otherwise.
    pub(super) fn advice(
        name: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(name, value, Verdict::Advice, reason, Some(fix.into()))
    }

    /// The broker would not run.
    pub(super) fn cannot_run(
        name: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(name, value, Verdict::CannotRun, reason, Some(fix.into()))
    }

    /// Could not be looked at. That is no reason to change the host.
    pub(super) fn unseen(name: &'static str, why: &Unseen) -> Self {
        let reason = match why {
            Unseen::Forbidden(_) => format!("{why}; run this once more as root to see it"),
            _ => format!("{why}; a container, or a kernel without it, may hide it"),
        };
        Self::ok(name, NOT_SEEN, reason)
    }
}

/// The value of what could not be looked at.
pub(super) const NOT_SEEN: &str = "not seen";

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The store that was asked about.
    pub store: String,
    /// The folder that was measured, if one was.
    pub measured_in: Option<String>,
    /// In the order in which they are shown.
    pub entries: Vec<Entry>,
}

impl Report {
    /// The worst of all.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.entries.iter().map(|entry| entry.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        let said = Json {
            version: env!("CARGO_PKG_VERSION"),
            store: &self.store,
            measured_in: self.measured_in.as_deref(),
            verdict: self.verdict(),
            exit_code: self.verdict().exit_code(),
            entries: &self.entries,
        };
        let text = serde_json::to_string_pretty(&said);
        text.expect("texts and numbers are JSON") + "\n"
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for entry in &self.entries {
            let word = entry.verdict.word();
            let mut value = wrapped(&entry.value, TEXT_WIDTH - NAME_WIDTH).into_iter();
            let first = value.next().unwrap_or_default();
            let _ = writeln!(out, "{word:<10}  {:<NAME_WIDTH$}{first}", entry.name);
            for line in value {
                let _ = writeln!(out, "{:1$}{line}", "", INDENT + NAME_WIDTH);
            }
            for line in wrapped(&entry.reason, TEXT_WIDTH) {
                let _ = writeln!(out, "{:INDENT$}{line}", "");
            }
            if let Some(fix) = &entry.fix {
                let _ = writeln!(out, "{:INDENT$}→ {fix}", "");
            }
        }
        let count = |verdict| {
            let of_verdict = self.entries.iter().filter(|entry| entry.verdict == verdict);
            of_verdict.count()
        };
        let (ok, advice) = (count(Verdict::Ok), count(Verdict::Advice));
        let cannot = count(Verdict::CannotRun);
        let _ = writeln!(out, "\n{ok} ok, {advice} advice, {cannot} cannot run");
        if 0 < advice + cannot {
            let lasting = "What sysctl and tee set is gone after a restart; /etc/sysctl.d and units of \
                systemd keep it.";
            let _ = writeln!(out, "{lasting}");
        }
        out
    }
}

/// The report with what follows from it, in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'report> {
    version: &'static str,
    store: &'report str,
    measured_in: Option<&'report str>,
    verdict: Verdict,
    exit_code: u8,
    entries: &'report [Entry],
}

/// Columns before reasons and fixes.
const INDENT: usize = 12;
/// Columns of names.
const NAME_WIDTH: usize = 20;
/// Columns of reasons.
const TEXT_WIDTH: usize = 96;

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Nanoseconds, to be read.
pub(super) fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..10_000 => format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100),
        10_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..10_000_000 => format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

/// Bytes, to be read.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match UNITS.into_iter().find(|(size, _)| *size <= count) {
        Some((size, unit)) if count / size < 10 && !count.is_multiple_of(size) => {
            format!("{}.{} {unit}", count / size, count % size * 10 / size)
        }
        Some((size, unit)) => format!("{} {unit}", count / size),
        None => format!("{count} B"),
    }
}

/// A word that a shell takes as it is.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            store: "/data".into(),
            measured_in: None,
            entries: vec![
                Entry::ok("kernel", "6.18", "new enough"),
                Entry::advice(
                    "swapping",
                    "60",
                    "it may wait",
                    "sudo sysctl -w vm.swappiness=1",
                ),
            ],
        }
    }

    #[test]
    fn the_worst_verdict_decides() {
        let mut report = report();
        assert_eq!(report.verdict().exit_code(), 1);
        let bad = Entry::cannot_run("io_uring", "forbidden", "why", "allow it");
        report.entries.insert(0, bad);
        assert_eq!(report.verdict().exit_code(), 2);
        report.entries.clear();
        assert_eq!(report.verdict().exit_code(), 0);
    }

    #[test]
    fn text_and_json_say_the_same() {
        let text = report().text();
        let line = "ADVICE      swapping            60\n            it may wait\n            \
            → sudo sysctl -w vm.swappiness=1\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("1 ok, 1 advice, 0 cannot run"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["exitCode"], 1);
        assert_eq!(json["entries"][1]["verdict"], "advice");
        assert_eq!(json["entries"][1]["fix"], "sudo sysctl -w vm.swappiness=1");
        assert!(json["entries"][0]["fix"].is_null());
    }

    /// What of a remedy only root may do and is not done with `sudo`.
    fn without_sudo(fix: &str) -> Vec<String> {
        /// Ends in a blank where the word is one of plain language too.
        const OF_ROOT: &[&str] = &[
            "sysctl -w ",
            "mount -o ",
            "tee /",
            "tee {",
            "chown ",
            "cpupower ",
            "dmesg",
            "prlimit ",
            "systemctl ",
            " > /",
            " > {",
        ];
        let places = OF_ROOT.iter().flat_map(|word| fix.match_indices(word));
        let bare = places.filter(|(at, _)| !fix[..*at].ends_with("sudo "));
        bare.map(|(at, word)| {
            let start = fix[..at].rfind('"').unwrap_or_default();
            format!("{word:?} in {}…", &fix[start..at + word.len()])
        })
        .collect()
    }

    /// Read from the sources, so that no advice escapes it.
    #[test]
    fn all_that_only_root_may_do_is_done_with_sudo() {
        assert_eq!(without_sudo("sudo sysctl -w a=1 && sysctl -w b=2").len(), 1);
        assert_eq!(without_sudo("sudo echo none > /sys/block/vda").len(), 1);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctor");
        let mut bare = Vec::new();
        let mut with_sudo = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let code: Vec<_> = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            let code = code.join("\n");
            with_sudo += code.matches("sudo ").count();
            let of_file = without_sudo(&code).into_iter();
            bare.extend(of_file.map(|fault| format!("{}: {fault}", path.display())));
        }
        assert!(10 < with_sudo, "remedies were looked at: {with_sudo}");
        assert!(bare.is_empty(), "{}", bare.join("\n"));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(duration(42), "42 ns");
        assert_eq!(duration(2_460), "2.4 µs");
        assert_eq!(duration(142_000), "142 µs");
        assert_eq!(duration(3_050_000), "3.0 ms");
        assert_eq!(duration(12_345_678), "12 ms");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(2 << 30), "2 GiB");
        assert_eq!(bytes((2 << 30) + (1 << 29)), "2.5 GiB");
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("/data/store"), "/data/store");
        assert_eq!(quoted("/my data"), "'/my data'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

    #[test]
    fn long_reasons_are_wrapped() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    }
}

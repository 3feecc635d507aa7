//! What the disk can do, by fio.

use super::Table;
use crate::{Outcome, fail};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);

pub fn is_there() -> bool {
    let found = std::process::Command::new("fio").arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

/// Bytes a second that fio reports for `reads` or writes.
fn bytes_per_s(text: &str, reads: bool) -> Option<f64> {
    // It may say something before its JSON.
    let json: Value = serde_json::from_str(&text[text.find('{')?..]).ok()?;
    let job = &json["jobs"][0][if reads { "read" } else { "write" }];
    job["bw_bytes"].as_f64().filter(|rate| 0.0 < *rate)
}

impl Table {
    /// Sequential access in pieces of 1 MiB, 8 at a time, past the page cache.
    pub fn fio(&self, reads: bool, bytes: u64, group: Option<&Path>) -> Outcome<f64> {
        let bench = &self.session.bench;
        let kind = if reads { "read" } else { "write" };
        let file = bench.options.work.join("fio.data");
        let out = bench.runs.join(format!("fio-{kind}.json"));
        let _ = std::fs::remove_file(&out);
        let mut words = vec!["hold".to_owned(), "--cpu".to_owned()];
        words.push(bench.options.server_cpu.to_string());
        if let Some(group) = group {
            words.extend(["--group".to_owned(), group.display().to_string()]);
        }
        words.extend(["--", "fio", "--output-format=json", "--name=table"].map(str::to_owned));
        words.extend([
            format!("--rw={kind}"),
            format!("--filename={}", file.display()),
            format!("--size={bytes}"),
            format!("--output={}", out.display()),
        ]);
        let ways = ["--bs=1M", "--direct=1", "--ioengine=libaio", "--iodepth=8"];
        words.extend(ways.map(str::to_owned));
        let log = bench.runs.join(format!("fio-{kind}.log"));
        let status = bench.generate(&words, &log, LIMIT);
        let _ = std::fs::remove_file(&file);
        let status = status?;
        let told = std::fs::read_to_string(&out).unwrap_or_default();
        match bytes_per_s(&told, reads) {
            Some(rate) if status.success() => Ok(rate),
            _ => fail(format!("fio could not {kind}; see {}", log.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bandwidth_is_found_behind_what_fio_says_first() {
        let text = "note: both iodepth >= 1\n{\"jobs\":[{\"read\":{\"bw_bytes\":5},\"write\":{\"bw_bytes\":0}}]}";
        assert_eq!(bytes_per_s(text, true), Some(5.0));
        assert_eq!(bytes_per_s(text, false), None);
        assert_eq!(bytes_per_s("", true), None);
    }
}

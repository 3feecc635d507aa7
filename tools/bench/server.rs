//! What a run costs: CPU time, memory and context switches of the server, from /proc, and
//! whether the machine was quiet meanwhile.

use crate::report::Report;
use crate::{Outcome, clock, fail};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time in ticks at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at_ns: u64,
    server: u64,
    generator: u64,
    generator_thread_ns: u64,
    machine_busy: u64,
    machine_stolen: u64,
}

pub struct Meter {
    pid: Option<u32>,
    switches_before: u64,
    begin: Option<Sample>,
    end: Option<Sample>,
}

fn read(path: &str) -> Outcome<String> {
    fs::read_to_string(path).or_else(|error| {
        fail(format!(
            "cannot read {path}: {error}; is the server's process gone?"
        ))
    })
}

/// User and system ticks of a process. The name before them may hold blanks and parentheses.
fn process_ticks(path: &str) -> Outcome<u64> {
    let text = read(path)?;
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let field = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    match (field(11), field(12)) {
        (Some(user), Some(system)) => Ok(user + system),
        _ => fail(format!("{path} has another form than Linux gives it")),
    }
}

/// A number of a `name: value` file.
fn status_value(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Voluntary switches of all threads that live now.
fn voluntary_switches(pid: u32) -> Outcome<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        sum += status_value(&text, "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(sum)
}

fn sample(pid: Option<u32>) -> Outcome<Sample> {
    let stat = read("/proc/stat")?;
    let all: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    let all = |index: usize| all.get(index).copied().unwrap_or(0);
    Ok(Sample {
        at_ns: clock::now_ns(),
        server: pid.map_or(Ok(0), |pid| process_ticks(&format!("/proc/{pid}/stat")))?,
        generator: process_ticks("/proc/self/stat")?,
        generator_thread_ns: clock::thread_cpu_ns(),
        // user, nice, system, irq, softirq; not idle and iowait
        machine_busy: all(0) + all(1) + all(2) + all(5) + all(6),
        machine_stolen: all(7),
    })
}

fn tick_ns() -> u64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .unwrap_or(100);
    clock::SECOND_NS / per_second as u64
}

impl Meter {
    /// Before the load starts.
    pub fn new(pid: Option<u32>) -> Outcome<Meter> {
        let switches_before = pid.map_or(Ok(0), voluntary_switches)?;
        Ok(Meter {
            pid,
            switches_before,
            begin: None,
            end: None,
        })
    }

    pub fn begin(&mut self) -> Outcome<()> {
        self.begin = Some(sample(self.pid)?);
        Ok(())
    }

    pub fn end(&mut self) -> Outcome<()> {
        self.end = Some(sample(self.pid)?);
        Ok(())
    }

    /// Puts the cost of `messages` (between begin and end) into the report; switches are of the
    /// whole run and its `messages_all`, because counting them takes too long for the window.
    pub fn report(
        &self,
        report: &mut Report,
        messages: u64,
        messages_all: u64,
        waits_asleep: bool,
    ) -> Outcome<()> {
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return fail("the run ended before its window did");
        };
        let wall_ns = (end.at_ns - begin.at_ns) as f64;
        let percent = |ticks: u64| 100.0 * (ticks * tick_ns()) as f64 / wall_ns;
        let server_ticks = end.server - begin.server;
        if let Some(pid) = self.pid {
            let cpu_us = (server_ticks * tick_ns()) as f64 / 1e3;
            report.figure(
                "server_cpu_us_per_message",
                cpu_us / messages.max(1) as f64,
                "µs CPU a message, server",
            );
            report.figure("server_cpu_percent", percent(server_ticks), "% CPU, server");
            let per_cpu_second = messages as f64 / (cpu_us / 1e6);
            report.figure(
                "messages_per_server_cpu_s",
                if per_cpu_second.is_finite() {
                    per_cpu_second
                } else {
                    0.0
                },
                "messages a CPU second, server",
            );
            memory(report, pid)?;
            let switches = voluntary_switches(pid)?.saturating_sub(self.switches_before);
            report.value("server_voluntary_switches", json!(switches));
            let per_message = switches as f64 / messages_all.max(1) as f64;
            report.figure(
                "server_voluntary_switches_per_message",
                per_message,
                "voluntary switches a message, server (warm-up included)",
            );
        }
        let generator =
            100.0 * (end.generator_thread_ns - begin.generator_thread_ns) as f64 / wall_ns;
        report.figure("generator_cpu_percent", generator, "% CPU, generator");
        if waits_asleep && 97.0 < generator {
            report.note("the generator's CPU was full: the rate is a lower bound of the server's");
        }
        if self.pid.is_some() {
            let known = server_ticks + end.generator - begin.generator;
            let others = percent((end.machine_busy - begin.machine_busy).saturating_sub(known));
            report.figure(
                "others_cpu_percent",
                others,
                "% CPU, everything else on this machine",
            );
            if 4.0 < others {
                report.note("the machine was not quiet: only orderings count");
            }
        }
        report.figure(
            "steal_percent",
            percent(end.machine_stolen - begin.machine_stolen),
            "% CPU, stolen by the hypervisor",
        );
        Ok(())
    }
}

fn memory(report: &mut Report, pid: u32) -> Outcome<()> {
    let status = read(&format!("/proc/{pid}/status"))?;
    for (key, name, words) in [
        ("server_rss_bytes", "VmRSS", "MiB resident, server"),
        (
            "server_rss_anonymous_bytes",
            "RssAnon",
            "MiB resident and anonymous, server",
        ),
    ] {
        let bytes = status_value(&status, name).unwrap_or(0) * 1024;
        report.value(key, json!(bytes));
        report.line(bytes as f64 / f64::from(1 << 20), words);
    }
    Ok(())
}

/// The `idle` command.
pub fn idle(pid: u32, seconds: f64, json: Option<&Path>) -> Outcome<bool> {
    if !(0.1..=86_400.0).contains(&seconds) {
        return fail("--duration is 0.1 to 86400 seconds");
    }
    let before = process_ticks(&format!("/proc/{pid}/stat"))?;
    let switches_before = voluntary_switches(pid)?;
    let start_ns = clock::now_ns();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let ticks = process_ticks(&format!("/proc/{pid}/stat"))? - before;
    let passed_ns = (clock::now_ns() - start_ns) as f64;
    let mut report = Report::new("idle", &format!("process {pid}, {seconds} s"));
    report.figure(
        "server_cpu_percent",
        100.0 * (ticks * tick_ns()) as f64 / passed_ns,
        "% CPU, server",
    );
    memory(&mut report, pid)?;
    let switches = voluntary_switches(pid)?.saturating_sub(switches_before);
    report.figure(
        "server_voluntary_switches_per_s",
        switches as f64 / passed_ns * 1e9,
        "voluntary switches a second, server",
    );
    report.finish(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_there() {
        assert!(process_ticks("/proc/self/stat").is_ok());
        assert!(process_ticks("/proc/no-such-process/stat").is_err());
        assert!(0 < voluntary_switches(std::process::id()).unwrap());
        assert_eq!(status_value("VmRSS:\t  12 kB\n", "VmRSS"), Some(12));
    }
}

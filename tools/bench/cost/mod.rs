//! What a run costs the server: CPU time, system calls, flushes, bytes on the device, memory and
//! context switches; and whether generator and machine were quiet meanwhile.

mod cgroup;
mod disk;
mod process;
mod trace;

use crate::drive::Counts;
use crate::environment::{Place, unknown_disk};
use crate::latency::files;
use crate::report::Report;
use crate::{Load, Outcome, clock, fail};
use cgroup::Cgroup;
use disk::Disk;
pub use process::run_queue_wait_of;
use process::{Switches, Ticks};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trace::Trace;

/// One moment.
#[derive(Clone, Copy)]
struct Sample {
    at_ns: u64,
    server: Ticks,
    generator: Ticks,
    machine_busy: u64,
    machine_stolen: u64,
    written_bytes: Option<u64>,
    disk: Option<disk::Counts>,
    cgroup: Option<cgroup::Counts>,
}

/// What a thread of the generator used, and how long it was ready to run and did not.
#[derive(Clone, Copy, Default)]
struct Own {
    at_ns: u64,
    cpu_ns: u64,
    wait_ns: Option<u64>,
}

impl Own {
    fn now() -> Own {
        Own {
            at_ns: clock::now_ns(),
            cpu_ns: clock::thread_cpu_ns(),
            wait_ns: process::run_queue_wait_ns(),
        }
    }

    fn since(self, before: Own) -> Own {
        let wait = self.wait_ns.zip(before.wait_ns);
        Own {
            at_ns: self.at_ns - before.at_ns,
            cpu_ns: self.cpu_ns - before.cpu_ns,
            wait_ns: wait.map(|(now, before)| now.saturating_sub(before)),
        }
    }

    /// Of one CPU's time.
    fn percent(self, ns: u64) -> f64 {
        100.0 * ns as f64 / self.at_ns.max(1) as f64
    }
}

#[derive(Default)]
pub struct Meter {
    /// Whether it looks at the server and the machine, or only at its thread.
    is_whole: bool,
    own_begin: Own,
    /// One of each thread of the generator.
    own: Vec<Own>,
    /// /proc/PID/status at the end of the window: what is left when all have hung up says less.
    status: Option<String>,
    pid: Option<u32>,
    disk: Option<Disk>,
    cgroup: Option<Cgroup>,
    switches_before: Switches,
    messages: Arc<AtomicU64>,
    trace: Option<Result<Trace, String>>,
    begin: Option<Sample>,
    end: Option<Sample>,
}

fn tick_us() -> f64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .unwrap_or(100);
    1e6 / per_second as f64
}

impl Meter {
    /// Before the load starts.
    pub fn new(load: &Load) -> Outcome<Meter> {
        let pid = load.server_pid.or_else(|| process::listening_on(load.addr));
        Ok(Meter {
            is_whole: true,
            own_begin: Own::default(),
            own: Vec::new(),
            status: None,
            pid,
            disk: pid.and_then(Disk::under),
            cgroup: pid.map(Cgroup::of),
            switches_before: pid.map_or(Ok(Switches::default()), process::switches)?,
            messages: Arc::default(),
            trace: None,
            begin: None,
            end: None,
        })
    }

    /// For the further threads of a generator.
    pub fn of_thread() -> Meter {
        Meter::default()
    }

    /// When the warm-up begins.
    pub fn warm_up(&mut self, warm_up_ns: u64) {
        self.trace = self
            .pid
            .map(|pid| Trace::start(pid, warm_up_ns, self.messages.clone()));
    }

    /// How many messages the run has done; asked for by the thread that counts system calls.
    pub fn tell_messages(&self, messages: impl FnOnce() -> u64) {
        if self.is_whole {
            self.messages.store(messages(), Ordering::Relaxed);
        }
    }

    pub fn begin(&mut self) -> Outcome<()> {
        if self.is_whole {
            self.begin = Some(self.sample()?);
        }
        self.own_begin = Own::now();
        Ok(())
    }

    pub fn end(&mut self) -> Outcome<()> {
        self.own.push(Own::now().since(self.own_begin));
        if self.is_whole {
            self.end = Some(self.sample()?);
            let status = |pid| process::read(&format!("/proc/{pid}/status"));
            self.status = self.pid.map(status).transpose()?;
        }
        Ok(())
    }

    /// Takes over what another thread of the generator used.
    pub fn absorb(&mut self, other: Meter) {
        self.own.extend(other.own);
    }

    fn sample(&self) -> Outcome<Sample> {
        let stat = process::read("/proc/stat")?;
        let all: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or("")
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let all = |index: usize| all.get(index).copied().unwrap_or(0);
        let server = |pid| process::ticks(&format!("/proc/{pid}/stat"));
        Ok(Sample {
            at_ns: clock::now_ns(),
            server: self.pid.map_or(Ok(Ticks::default()), server)?,
            generator: process::ticks("/proc/self/stat")?,
            // user, nice, system, irq, softirq; not idle and iowait
            machine_busy: all(0) + all(1) + all(2) + all(5) + all(6),
            machine_stolen: all(7),
            written_bytes: self.pid.and_then(process::written_bytes),
            disk: self.disk.as_ref().and_then(Disk::counts),
            cgroup: self.cgroup.as_ref().map(Cgroup::counts),
        })
    }

    /// Puts the cost of what was done between begin and end into the report. Switches are of the
    /// whole run and its `messages_all`: counting them takes too long for the window.
    pub fn report(&mut self, report: &mut Report, done: Counts, messages_all: u64) -> Outcome<()> {
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return fail("the run ended before its window did");
        };
        let mut cost = Map::new();
        let mut unknown = Map::new();
        match self.pid {
            Some(pid) => {
                cost.insert("server_pid".into(), json!(pid));
                cpu(report, &mut cost, &begin, &end, done);
                memory(report, &mut cost, self.status.as_deref().unwrap_or(""));
                self.switches(report, &mut cost, pid, messages_all)?;
                self.calls(report, &mut cost, &mut unknown);
                self.writes(report, &mut cost, &mut unknown, (&begin, &end), done);
                let counts = begin.cgroup.zip(end.cgroup);
                let counts = counts.map(|(before, after)| (before, after, done));
                let group = self.cgroup.as_ref().map(|it| it.describe(counts));
                cost.insert("cgroup".into(), json!(group));
                about(report, pid);
            }
            None => {
                report.environment(unknown_disk("the server's process is not known"));
                let why = "no process of this machine that may be looked at listens there; give --server-pid";
                unknown.insert("server".into(), json!(why));
                report.note(format!("the server's cost is unknown: {why}"));
            }
        }
        cost.insert("unknown".into(), Value::Object(unknown));
        report.value("cost", Value::Object(cost));
        self.quiet(report, &begin, &end);
        Ok(())
    }

    fn switches(
        &self,
        report: &mut Report,
        cost: &mut Map<String, Value>,
        pid: u32,
        messages_all: u64,
    ) -> Outcome<()> {
        let now = process::switches(pid)?;
        let all = messages_all.max(1) as f64;
        let voluntary = now.voluntary.saturating_sub(self.switches_before.voluntary);
        let forced = now
            .involuntary
            .saturating_sub(self.switches_before.involuntary);
        report.value("server_voluntary_switches", json!(voluntary));
        report.figure(
            "server_voluntary_switches_per_message",
            voluntary as f64 / all,
            "voluntary switches a message, server (warm-up included)",
        );
        cost.insert(
            "voluntary_switches_per_message".into(),
            json!(voluntary as f64 / all),
        );
        cost.insert(
            "involuntary_switches_per_message".into(),
            json!(forced as f64 / all),
        );
        Ok(())
    }

    /// System calls and flushes by trace points.
    fn calls(
        &mut self,
        report: &mut Report,
        cost: &mut Map<String, Value>,
        unknown: &mut Map<String, Value>,
    ) {
        let told = match self.trace.take() {
            Some(Ok(trace)) => trace.end(),
            Some(Err(why)) => Err(why),
            None => Err("no warm-up".into()),
        };
        match told {
            Ok(traced) if 0 < traced.messages => {
                let each = |count: u64| count as f64 / traced.messages as f64;
                let (calls, syncs) = (each(traced.syscalls), each(traced.syncs));
                cost.insert("syscalls_per_message".into(), json!(calls));
                cost.insert("fdatasyncs_per_message".into(), json!(syncs));
                report.line(
                    calls,
                    "system calls a message, server (part of the warm-up)",
                );
                report.line(syncs, "fdatasyncs a message, server (part of the warm-up)");
                cost.insert("futexes_per_message".into(), json!(each(traced.futexes)));
                let wakeups = traced.wakeups.map(each);
                cost.insert("own_wakeups_per_message".into(), json!(wakeups));
            }
            told => {
                let why = told
                    .err()
                    .unwrap_or("no message in the part of the warm-up that counts".into());
                for key in ["syscalls_per_message", "fdatasyncs_per_message"] {
                    cost.insert(key.into(), Value::Null);
                    unknown.insert(key.into(), json!(why));
                }
                report.note(format!(
                    "system calls and fdatasyncs of the server are unknown: {why}"
                ));
            }
        }
    }

    fn writes(
        &self,
        report: &mut Report,
        cost: &mut Map<String, Value>,
        unknown: &mut Map<String, Value>,
        (begin, end): (&Sample, &Sample),
        done: Counts,
    ) {
        let payload = done.bytes.max(1) as f64;
        let own = begin.written_bytes.zip(end.written_bytes);
        let own = own.map(|(before, after)| after.saturating_sub(before) as f64 / payload);
        cost.insert("written_bytes_per_payload_byte".into(), json!(own));
        match own {
            Some(own) => report.line(own, "bytes written a payload byte, server (/proc/PID/io)"),
            None => {
                let why = "/proc/PID/io of the server may not be read";
                unknown.insert("written_bytes_per_payload_byte".into(), json!(why));
            }
        }
        let device = begin.disk.zip(end.disk).zip(self.disk.as_ref());
        let Some(((before, after), disk)) = device else {
            let why = "the server has no file open for writing on a block device";
            unknown.insert("device".into(), json!(why));
            return;
        };
        let written = after.written_bytes.saturating_sub(before.written_bytes) as f64 / payload;
        let flushes = after.flushes.saturating_sub(before.flushes) as f64;
        let flushes = flushes / done.messages.max(1) as f64;
        cost.insert("device".into(), json!(disk.name));
        cost.insert(
            "device_written_bytes_per_payload_byte".into(),
            json!(written),
        );
        cost.insert("device_flushes_per_message".into(), json!(flushes));
        let of = |what: &str| format!("{what}, device {} (all processes)", disk.name);
        report.line(written, &of("bytes written a payload byte"));
        report.line(flushes, &of("cache flushes a message"));
    }

    /// What else took CPU time: then figures are not the server's alone.
    fn quiet(&self, report: &mut Report, begin: &Sample, end: &Sample) {
        let wall_us = (end.at_ns - begin.at_ns).max(1) as f64 / 1e3;
        let percent = |ticks: u64| 100.0 * ticks as f64 * tick_us() / wall_us;
        let each: Vec<f64> = self.own.iter().map(|own| own.percent(own.cpu_ns)).collect();
        let generator: f64 = each.iter().sum();
        report.figure("generator_cpu_percent", generator, "% CPU, generator");
        let waits = self.own.iter().map(|own| Some(own.percent(own.wait_ns?)));
        let waits: Option<Vec<f64>> = waits.collect();
        report.generator("cpu_percent", json!(generator));
        report.generator(
            "cpu_wait_percent",
            json!(waits.map(|waits| waits.iter().sum::<f64>())),
        );
        if 1 < each.len() {
            report.generator("cpu_percent_of_threads", json!(each));
        }
        if self.pid.is_some() {
            let server = end.server.since(begin.server).sum();
            let known = server + end.generator.since(begin.generator).sum();
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
    }

    /// Whether a thread of the generator used its CPU up.
    pub fn generator_was_full(&self) -> bool {
        let mut own = self.own.iter();
        own.any(|own| 97.0 < own.percent(own.cpu_ns))
    }
}

fn cpu(
    report: &mut Report,
    cost: &mut Map<String, Value>,
    begin: &Sample,
    end: &Sample,
    done: Counts,
) {
    let ticks = end.server.since(begin.server);
    let us = |ticks: u64| ticks as f64 * tick_us();
    let messages = done.messages.max(1) as f64;
    let megabytes = done.bytes.max(1) as f64 / 1e6;
    let wall_us = (end.at_ns - begin.at_ns).max(1) as f64 / 1e3;
    let all = us(ticks.sum());
    report.figure(
        "server_cpu_us_per_message",
        all / messages,
        "µs CPU a message, server",
    );
    let parts = [
        ("", ticks.sum()),
        ("user_", ticks.user),
        ("system_", ticks.system),
    ];
    for (part, ticks) in parts {
        cost.insert(
            format!("cpu_{part}us_per_message"),
            json!(us(ticks) / messages),
        );
        cost.insert(format!("cpu_{part}us_per_mb"), json!(us(ticks) / megabytes));
        if !part.is_empty() {
            let words = format!("µs CPU a message, server, {}", part.trim_end_matches('_'));
            report.line(us(ticks) / messages, &words);
        }
    }
    report.line(all / megabytes, "µs CPU a MB of bodies, server");
    report.figure("server_cpu_percent", 100.0 * all / wall_us, "% CPU, server");
    let per_cpu_second = if 0.0 < all {
        done.messages as f64 / (all / 1e6)
    } else {
        0.0
    };
    // No rate, and so none of the totals and without their `_per_s`: its seconds are those of the
    // server's CPU, the inverse of the cost above. Rates of runs beside one another add up, and a
    // longer wait makes them smaller; neither is so of this.
    report.figure(
        "messages_per_server_cpu_s",
        per_cpu_second,
        "messages a CPU second, server",
    );
}

/// What the server is and where it writes, for who wants to repeat the run.
fn about(report: &mut Report, pid: u32) {
    report.value("server_command_line", json!(process::command_line(pid)));
    let place = Place::written_by(pid);
    let why = "the server has no file open for writing, or none that may be seen";
    report.environment(place.map_or_else(|| unknown_disk(why), |place| place.describe()));
}

fn memory(report: &mut Report, cost: &mut Map<String, Value>, status: &str) {
    for (key, name, words) in [
        ("rss_bytes", "VmRSS", "MiB resident, server"),
        (
            "rss_anonymous_bytes",
            "RssAnon",
            "MiB resident and anonymous, server",
        ),
        ("rss_peak_bytes", "VmHWM", ""),
    ] {
        let bytes = process::value(status, name).unwrap_or(0) * 1024;
        cost.insert(key.into(), json!(bytes));
        if !words.is_empty() {
            report.value(&format!("server_{key}"), json!(bytes));
            report.line(bytes as f64 / f64::from(1 << 20), words);
        }
    }
}

/// The `idle` command.
pub fn idle(pid: u32, seconds: f64, json: Option<&Path>) -> Outcome<bool> {
    if !(0.1..=86_400.0).contains(&seconds) {
        return fail("--duration is 0.1 to 86400 seconds");
    }
    if let Some(path) = json {
        files::check_writable(path)?;
    }
    let stat = format!("/proc/{pid}/stat");
    let before = process::ticks(&stat)?;
    let switches_before = process::switches(pid)?.voluntary;
    let start_ns = clock::now_ns();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let ticks = process::ticks(&stat)?.since(before);
    let passed_s = (clock::now_ns() - start_ns) as f64 / 1e9;
    let mut report = Report::new("idle", &format!("process {pid}, {seconds} s"));
    report.value("args", json!({"server_pid": pid, "duration_s": seconds}));
    about(&mut report, pid);
    report.figure(
        "server_cpu_percent",
        100.0 * ticks.sum() as f64 * tick_us() / 1e6 / passed_s,
        "% CPU, server",
    );
    let mut cost = Map::new();
    let status = process::read(&format!("/proc/{pid}/status"))?;
    memory(&mut report, &mut cost, &status);
    cost.insert("cgroup".into(), Cgroup::of(pid).describe(None));
    report.value("cost", Value::Object(cost));
    let switches = process::switches(pid)?
        .voluntary
        .saturating_sub(switches_before);
    report.rate(
        "server_voluntary_switches_per_s",
        switches as f64 / passed_s,
        "voluntary switches a second, server",
    );
    report.finish(json)
}

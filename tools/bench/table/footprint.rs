//! Row 14: memory of an idle broker, of one with many topics and connections, and how soon a broker
//! that was killed acknowledges again.

use super::Table;
use super::rows::Who;
use crate::bed::{Work, reason, tail};
use crate::{Outcome, fail};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Creating ten thousand topics takes RocketMQ minutes: it writes all of them down for each.
const MANY_S: f64 = 1800.0;
const FILL: Duration = Duration::from_secs(600);

/// A number of a JSON file.
fn number(path: &Path, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let json: Value = serde_json::from_str(&text).ok()?;
    json[key].as_f64()
}

impl Table {
    pub fn footprint(&mut self) -> Outcome<()> {
        self.idle()?;
        self.many()?;
        self.start_after_kill()
    }

    fn idle(&mut self) -> Outcome<()> {
        let ours = self.ours("async", &[]);
        let at = self.session.entry(&ours)?;
        let seconds = self.scale.idle_s();
        for repetition in 1..=self.options.bed.repetitions {
            self.session.bench.stop.check()?;
            self.session.start(at)?;
            let Some(server) = self.session.server(at) else {
                continue;
            };
            server.go_on();
            std::thread::sleep(Duration::from_secs_f64(seconds));
            let bench = &self.session.bench;
            let json = bench.runs.join(format!("14-idle.{repetition}.json"));
            let words = format!(
                "idle --server-pid {} --duration {seconds} --json {}",
                server.pid,
                json.display()
            );
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            let log = bench.runs.join("14-idle.log");
            bench.generate(&words, &log, Duration::from_secs(60))?;
            let bytes = number(&json, "server_rss_bytes");
            let percent = number(&json, "server_cpu_percent");
            self.session.end(|contender| !contender.is_peer);
            let Some((bytes, percent)) = bytes.zip(percent) else {
                return fail(format!("no look at an idle broker; see {}", log.display()));
            };
            let mib = bytes / f64::from(1 << 20);
            let (test, who) = ("14-idle", Who::Ours);
            self.found.put(test, who, "server_rss_mib", mib);
            self.found.put(test, who, "server_cpu_percent", percent);
        }
        Ok(())
    }

    fn many(&mut self) -> Outcome<()> {
        let (topics, connections) = self.scale.many();
        let load = format!(
            "produce --topics {topics} --queues 8 --connections {connections} --read-back none --own-delay tell"
        );
        let mut work = self.work("14-many", &load)?;
        work.limit_s = MANY_S;
        let mut whom = vec![(Who::Ours, self.ours("async", &[]))];
        // Its topics stay with it: one of its own.
        let setting = "accessMessageInMemoryMaxRatio=40";
        if let Some(apache) = self.apache("async", &[setting])? {
            whom.push((Who::Apache, apache));
        }
        self.compare(&work, &whom, 1)?;
        self.session
            .end(|contender| contender.name.ends_with(setting));
        Ok(())
    }

    fn start_after_kill(&mut self) -> Outcome<()> {
        let ours = self.ours("async", &[]);
        let at = self.session.entry(&ours)?;
        let bytes = self.scale.log_bytes(self.options.log_gib);
        let count = bytes / 1024;
        let fill = format!(
            "produce --connections 4 --in-flight 4 --batch 62 --count {count} --duration 600 --warmup 0 --read-back none"
        );
        let more =
            "produce --connections 16 --in-flight 4 --duration 1 --warmup 0 --read-back none";
        let mut is_cold = false;
        for repetition in 1..=self.options.bed.repetitions {
            self.session.bench.stop.check()?;
            self.session.start_on(at, 1 < repetition)?;
            let load = if repetition == 1 { &fill } else { more };
            let work = self.work("14-start", load)?;
            self.fill_and_kill(at, &work)?;
            is_cold = self.drop_caches();
            let ms = self.start_once(at, repetition)?;
            let key = "start_to_first_ack_ms";
            self.found.put("14-start", Who::Ours, key, ms);
        }
        // What is left of the store goes with a last server.
        self.session.start_on(at, true)?;
        self.session.end(|contender| !contender.is_peer);
        let cold = if is_cold {
            "was emptied"
        } else {
            "was not emptied"
        };
        let gib = bytes as f64 / f64::from(1 << 30);
        self.note(14, format!("a log of {gib:.1} GiB; the page cache {cold}"));
        Ok(())
    }

    /// Sends, and kills the server when that is done.
    fn fill_and_kill(&mut self, at: usize, work: &Work) -> Outcome<()> {
        let Some(server) = self.session.take_server(at) else {
            return Ok(());
        };
        server.go_on();
        let bench = &self.session.bench;
        let log = bench.runs.join("14-start.log");
        let mut words = bench.words(&server, work, None);
        // The scale's own word on the duration is for windows.
        if let Some(duration) = work.words.iter().position(|word| word == "--duration") {
            words.extend(work.words[duration..duration + 2].iter().cloned());
        }
        let status = bench.generate(&words, &log, FILL)?;
        server.kill()?;
        match reason(status, &log) {
            None => Ok(()),
            Some(why) => fail(format!("the log could not be written: {why}")),
        }
    }

    /// Whether the page cache could be emptied: then nothing of the log is in memory.
    fn drop_caches(&self) -> bool {
        if !self.scale.drops_caches() {
            return false;
        }
        nix::unistd::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
    }

    fn start_once(&self, at: usize, repetition: u32) -> Outcome<f64> {
        let bench = &self.session.bench;
        let json = bench.runs.join(format!("14-start.{repetition}.json"));
        let log = bench.runs.join("14-start.log");
        let contender = self.session.contender(at);
        let port = self.session.port(at);
        let store = bench.store_of(contender);
        let mut words = format!(
            "hold --cpu {} -- {} start --kill --addr 127.0.0.1:{port} --json {} --",
            bench.options.server_cpu,
            std::env::current_exe()?.display(),
            json.display()
        )
        .split_whitespace()
        .map(str::to_owned)
        .collect::<Vec<_>>();
        words.extend(contender.filled_at(&store, port));
        let status = bench.generate(&words, &log, Duration::from_secs(120))?;
        let told = number(&json, "start_to_first_ack_ms");
        told.filter(|_| status.success())
            .map_or_else(|| fail(format!("no start; it said\n{}", tail(&log))), Ok)
    }
}

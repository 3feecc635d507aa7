//! Row 15: the same work through one shard and through two, and what two shards have to do with each
//! other.

use super::Table;
use super::rows::Who;
use crate::Outcome;
use crate::bed::{Contender, Server, Which, Work, reason};
use crate::{Cpus, fail};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Ports from one shard to the next.
const SHARD_PORTS: u16 = 10;
const MORE: Duration = Duration::from_secs(60);

/// Of two generators that each see the whole server but only their own messages: per message of both.
fn of_both(one: f64, two: f64) -> f64 {
    if one <= 0.0 || two <= 0.0 {
        return 0.0;
    }
    1.0 / (1.0 / one + 1.0 / two)
}

impl Table {
    pub fn shards(&mut self) -> Outcome<()> {
        let bed = &self.options.bed;
        let Cpus(mut cpus) = bed.server_cpu.clone();
        let first = cpus[0];
        cpus.extend(bed.load_cpu.0.iter().filter(|cpu| **cpu != first));
        cpus.truncate(2);
        let whom = [
            ("15-one-shard", self.with_shards(1, vec![first])),
            ("15-two-shards", self.with_shards(2, cpus)),
        ];
        if std::thread::available_parallelism().is_ok_and(|count| count.get() < 4) {
            self.note(15, "the generators share a CPU with the second shard");
        }
        for (_, contender) in &whom {
            let at = self.session.entry(contender)?;
            self.session.start(at)?;
        }
        for repetition in 1..=self.options.bed.repetitions {
            for (name, contender) in &whom {
                self.session.bench.stop.check()?;
                let at = self.session.entry(contender)?;
                self.through(name, at, repetition)?;
            }
        }
        self.session.end(|contender| !contender.is_peer);
        Ok(())
    }

    fn with_shards(&self, count: usize, cpus: Vec<usize>) -> Contender {
        let mut contender = self.ours("async", &[]);
        contender.name += &format!(" {count} shards");
        let words = &mut contender.words;
        if let Some(at) = words.iter().position(|word| word == "--shards") {
            words.drain(at..words.len().min(at + 2));
        }
        words.extend(["--shards".to_owned(), count.to_string()]);
        contender.cpus = Some(Cpus(cpus));
        contender
    }

    /// Two generators at once, each with half of the rate: at two shards, or both at the only one.
    fn through(&mut self, name: &'static str, at: usize, repetition: u32) -> Outcome<()> {
        let step = if name == "15-two-shards" {
            SHARD_PORTS
        } else {
            0
        };
        let rate = self.scale.shards_rate() / 2;
        let mut runs = Vec::new();
        for half in ["a", "b"] {
            let load = format!(
                "produce --connections 16 --in-flight 4 --rate {rate} --wait sleep --own-delay tell --read-back none"
            );
            runs.push(self.work(&format!("{name}-{half}"), &load)?);
        }
        let Some(server) = self.session.server(at) else {
            return Ok(());
        };
        self.session.bench.sync()?;
        server.go_on();
        let told = self.both(server, (&runs, step), at, repetition);
        server.halt();
        let files = told?;
        let number = |file: &PathBuf, key: &str| -> Option<f64> {
            let json: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
            json[key].as_f64().or_else(|| json["cost"][key].as_f64())
        };
        for key in [
            "server_cpu_us_per_message",
            "futexes_per_message",
            "own_wakeups_per_message",
            "syscalls_per_message",
        ] {
            let (one, two) = (number(&files[0], key), number(&files[1], key));
            if let Some((one, two)) = one.zip(two) {
                self.found.put(name, Who::Ours, key, of_both(one, two));
            }
        }
        let rate = |file| number(file, "messages_per_s").unwrap_or(0.0);
        let rates: f64 = files.iter().map(rate).sum();
        self.found.put(name, Who::Ours, "messages_per_s", rates);
        Ok(())
    }

    /// Runs both to their end; gives their JSON files.
    fn both(
        &self,
        server: &Server,
        (works, step): (&[Work], u16),
        at: usize,
        repetition: u32,
    ) -> Outcome<Vec<PathBuf>> {
        let bench = &self.session.bench;
        let mut running = Vec::new();
        for (half, work) in works.iter().enumerate() {
            let which = Which {
                contender: self.session.contender(at),
                work,
                repetition,
            };
            let (json, log) = (bench.file(&which, "json"), bench.file(&which, "log"));
            let mut words = bench.words(server, work, Some(&json));
            let port = server.addr.port() + step * half as u16;
            words.extend(["--addr".to_owned(), format!("127.0.0.1:{port}")]);
            running.push((bench.spawn(&words, &log)?, json, log));
        }
        let limit = Duration::from_secs_f64(bench.expected_s(&works[0])) + MORE;
        let end = Instant::now() + limit;
        let mut files = Vec::new();
        for (mut child, json, log) in running {
            let left = end.saturating_duration_since(Instant::now());
            let status = bench.stop.wait(left, || Ok(child.try_wait()?));
            if !matches!(status, Ok(Some(_))) {
                let _ = child.kill();
                let _ = child.wait();
            }
            let Some(status) = status? else {
                return fail(format!("a generator did not end; see {}", log.display()));
            };
            if let Some(why) = reason(status, &log) {
                return fail(format!("a generator of row 15 failed: {why}"));
            }
            files.push(json);
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_generators_see_is_divided_by_the_messages_of_both() {
        // 60 µs in all, 20 messages and 10: 3 µs and 6 µs are seen, 2 µs are true.
        assert!((of_both(3.0, 6.0) - 2.0).abs() < 1e-9);
        assert_eq!(of_both(0.0, 6.0), 0.0);
    }
}

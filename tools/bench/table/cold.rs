//! Rows 12 and 13: what is larger than memory, read and written, in a control group with little of it.

use super::group::MemoryGroup;
use super::rows::Who;
use super::{Table, fio};
use crate::Outcome;
use crate::bed::{Contender, Which, Work};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// What a stored message of 1 KiB takes, roughly.
const RECORD_SIZE: u64 = 1200;
const MORE_S: f64 = 300.0;

impl Table {
    /// The group of rows 12 and 13, and its memory in bytes; none where there can be none.
    fn little_memory(&mut self, row: u8) -> Option<(MemoryGroup, u64)> {
        let bytes = self.scale.memory_mib(self.options.memory_mib) << 20;
        match MemoryGroup::make(bytes) {
            Ok(group) => {
                let (mib, version) = (bytes >> 20, group.version);
                self.note(
                    row,
                    format!("in a control group (v{version}) with {mib} MiB"),
                );
                Some((group, bytes))
            }
            Err(why) => {
                self.note(row, format!("not measured: {why}"));
                None
            }
        }
    }

    fn ours_in(&self, group: &MemoryGroup) -> Contender {
        let mut contender = self.ours("async", &[]);
        contender.name += " with little memory";
        contender.group = Some(group.folder.clone());
        contender
    }

    /// One run of ours, then fio, as often as asked for; `after` looks at each run of ours.
    fn beside_fio(
        &mut self,
        work: &Work,
        (ours, reads, bytes): (&Contender, bool, u64),
        after: impl Fn(&mut Table, usize, &Map<String, Value>) -> Outcome<()>,
    ) -> Outcome<()> {
        let at = self.session.entry(ours)?;
        let key = if reads { "read" } else { "write" };
        let has_fio = fio::is_there();
        if !has_fio {
            self.note(12 + u8::from(!reads), "without fio, which is not installed");
        }
        for repetition in 1..=self.options.bed.repetitions {
            self.session.bench.stop.check()?;
            self.session.start(at)?;
            let first = self.session.ran.len();
            self.session.measure_one(at, work, repetition)?;
            self.take(first, work, &[(Who::Ours, ours.clone())])?;
            let last = self.session.ran.last();
            if let Some(json) = last
                .filter(|ran| ran.void.is_none())
                .map(|ran| ran.json.clone())
            {
                after(self, at, &json)?;
            }
            if has_fio {
                let group: Option<&Path> = ours.group.as_deref();
                let rate = self.fio(reads, bytes, group)?;
                let key = format!("{key}_bytes_per_s");
                self.found.put(&work.name, Who::Fio, &key, rate);
            }
        }
        self.session.end(|contender| !contender.is_peer);
        Ok(())
    }

    /// Row 12: a backlog larger than memory is read while a producer sends. One CPU drives both:
    /// what that costs is in the figure, and the less it has to look at what it reads, the smaller
    /// it is.
    pub fn drain(&mut self) -> Outcome<()> {
        let Some((group, memory)) = self.little_memory(12) else {
            return Ok(());
        };
        let (backlog, rate) = (3 * memory / RECORD_SIZE, self.scale.drain_rate());
        let (alone, beside) = self.scale.drain_s();
        let load = format!(
            "mixed --groups 1 --connections 16 --in-flight 16 --rate {rate} --backlog {backlog} --pull-messages 128 --pull-bytes 262144 --check sizes --own-delay tell"
        );
        let mut work = self.work("12-drain", &load)?;
        work.words.extend([
            "--alone".to_owned(),
            alone.to_string(),
            "--duration".to_owned(),
            (alone + beside).to_string(),
        ]);
        work.limit_s = MORE_S;
        let ours = self.ours_in(&group);
        self.beside_fio(&work, (&ours, true, 2 * memory), |_, _, _| Ok(()))
    }

    /// Row 13: three times the memory is written at full speed.
    pub fn write_past_memory(&mut self) -> Outcome<()> {
        let Some((group, memory)) = self.little_memory(13) else {
            return Ok(());
        };
        let count = 3 * memory / 1024;
        let load = format!(
            "produce --connections 4 --in-flight 4 --batch 62 --count {count} --read-back none"
        );
        let mut work = self.work("13-write", &load)?;
        work.words
            .extend(["--duration".to_owned(), "300".to_owned()]);
        work.limit_s = MORE_S;
        let ours = self.ours_in(&group);
        let after = |table: &mut Table, at: usize, json: &Map<String, Value>| {
            let record = table.record_bytes(at, &work)?;
            let rate = json.get("messages_per_s").and_then(Value::as_f64);
            let rate = rate.unwrap_or(0.0) * record;
            let (test, who) = ("13-write", Who::Ours);
            table.found.put(test, who, "log_bytes_per_s", rate);
            if let Some(ratio) = worst_by_mean(json) {
                table.found.put(test, who, "worst_second_ratio", ratio);
            }
            Ok(())
        };
        self.beside_fio(&work, (&ours, false, 3 * memory), after)
    }

    /// Bytes of a stored message, from a look at some of them.
    fn record_bytes(&self, at: usize, work: &Work) -> Outcome<f64> {
        let look = self.work(
            "13-look",
            "consume --duration 0.5 --warmup 0 --own-delay tell",
        )?;
        let Some(server) = self.session.server(at) else {
            return Ok(0.0);
        };
        let which = Which {
            contender: self.session.contender(at),
            work: &look,
            repetition: 1,
        };
        let bench = &self.session.bench;
        let (json, log) = (bench.file(&which, "json"), bench.file(&which, "log"));
        let mut words = bench.words(server, &look, Some(&json));
        words.extend(["--topic".to_owned(), work.topic()]);
        server.go_on();
        bench.generate(&words, &log, Duration::from_secs(60))?;
        server.halt();
        let told = std::fs::read_to_string(&json).unwrap_or_default();
        let told: Value = serde_json::from_str(&told).unwrap_or_default();
        let number = |key: &str| told[key].as_f64().unwrap_or(0.0);
        Ok(number("record_bytes_per_s") / number("messages_per_s").max(1.0))
    }
}

/// Messages of the worst whole second by those of a mean one.
fn worst_by_mean(json: &Map<String, Value>) -> Option<f64> {
    let series = json.get("series")?.as_array()?;
    let messages = series.iter().filter_map(|at| at["messages"].as_f64());
    let mut whole: Vec<f64> = messages.collect();
    // The last one ended when the count was reached.
    whole.pop();
    let mean = whole.iter().sum::<f64>() / whole.len() as f64;
    let least = whole.iter().copied().reduce(f64::min)?;
    (0.0 < mean).then(|| least / mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worst_second_is_a_whole_one() {
        let run = |messages: &[u64]| {
            let series: Vec<Value> = messages.iter().map(|it| json!({"messages": it})).collect();
            worst_by_mean(json!({"series": series}).as_object().unwrap())
        };
        assert_eq!(run(&[100, 50, 150, 3]), Some(0.5));
        assert_eq!(run(&[3]), None);
        assert_eq!(run(&[]), None);
    }
}

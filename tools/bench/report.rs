//! The result of a run: a table for the eye, JSON for scripts, and whether the run is void.

use crate::check::Faults;
use crate::latency::{self, QUANTILES, Recorder, Upto, files, is_told};
use crate::own_delay::{Latency, Own};
use crate::ran::Ran;
use crate::{Load, Outcome, environment, signals};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// How the JSON's keys are meant.
pub const SCHEMA: &str = "corelane-bench/1";
/// Quantiles' names in the flat keys, which are older than the objects.
const FLAT_NAMES: [&str; 5] = ["p50", "p90", "p99", "p999", "p9999"];

/// A latency of the run.
struct Told {
    name: String,
    words: String,
    histogram: Histogram<u64>,
    /// Those of the window that it is of.
    seconds: Range<u32>,
    upto: Upto,
}

impl Told {
    /// Its line of the table.
    fn row(&self) -> String {
        let cell = |ns: Option<u64>, is_spoiled: bool| {
            let words = if is_spoiled { "spoiled" } else { "-" };
            let cell = ns.map_or(words.into(), |ns| short(ns as f64 / 1e3));
            format!("{cell:>11}")
        };
        let samples = self.histogram.len();
        let mut row = format!("  {:<10}", self.name);
        for (_, _, quantile) in QUANTILES {
            let is_spoiled = is_told(samples, quantile) && !self.upto.has(quantile);
            row += &cell(self.at(quantile), is_spoiled);
        }
        let is_spoiled = !self.upto.has_max();
        let max = (!is_spoiled).then(|| self.histogram.max());
        row += &cell(max, is_spoiled);
        row + &format!("{:>13}  {}", grouped(samples as i64), self.words)
    }

    fn at(&self, quantile: f64) -> Option<u64> {
        let is_told = is_told(self.histogram.len(), quantile) && self.upto.has(quantile);
        is_told.then(|| self.histogram.value_at_quantile(quantile))
    }

    /// Its flat keys, and its object.
    fn values(&self) -> Vec<(String, Value)> {
        let (name, histogram) = (&self.name, &self.histogram);
        let mut values = vec![
            (format!("{name}_samples"), json!(histogram.len())),
            (name.clone(), latency::object(histogram, self.upto)),
        ];
        if histogram.is_empty() {
            return values;
        }
        for ((_, _, quantile), flat) in QUANTILES.into_iter().zip(FLAT_NAMES) {
            values.push((format!("{name}_{flat}_ns"), json!(self.at(quantile))));
        }
        let max = self.upto.has_max().then(|| histogram.max());
        let mean = self.upto.has_mean().then(|| histogram.mean().round());
        values.push((format!("{name}_max_ns"), json!(max)));
        values.push((format!("{name}_mean_ns"), json!(mean)));
        values
    }
}

pub struct Report {
    json: Map<String, Value>,
    args: Map<String, Value>,
    totals: Map<String, Value>,
    checks: Map<String, Value>,
    generator: Map<String, Value>,
    title: String,
    lines: Vec<String>,
    latencies: Vec<Told>,
    notes: Vec<String>,
    void: Vec<String>,
}

/// Three digits before the point need none behind it.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if 1000.0 <= v => return grouped(value.round() as i64),
        v if 100.0 <= v => 0,
        v if 10.0 <= v => 1,
        v if 1.0 <= v || v == 0.0 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

pub fn grouped(value: i64) -> String {
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

/// Five digits behind the point are more than any of these figures is true to.
fn rounded(value: f64) -> Value {
    json!((value * 1e5).round() / 1e5)
}

impl Report {
    pub fn new(command: &str, title: &str) -> Report {
        let environment = environment::machine();
        let mut json = Map::new();
        json.insert("schema".into(), json!(SCHEMA));
        json.insert("command".into(), json!(command));
        let words: Vec<String> = std::env::args().skip(1).collect();
        json.insert("command_line".into(), json!(words));
        // These stood alone before there was an environment.
        json.insert("kernel".into(), environment["kernel"].clone());
        let congestion = environment["tcp_congestion_control"].clone();
        json.insert("tcp_congestion_control".into(), congestion);
        json.insert("cpu_model".into(), environment["cpu_model"].clone());
        json.insert("environment".into(), Value::Object(environment));
        Report {
            json,
            args: Map::new(),
            totals: Map::new(),
            checks: Map::new(),
            generator: Map::new(),
            title: format!("{command} · {title}"),
            lines: Vec::new(),
            latencies: Vec::new(),
            notes: Vec::new(),
            void: Vec::new(),
        }
    }

    /// What the run was asked for, and how it moved bytes.
    pub fn describe(&mut self, load: &Load, ran: &Ran) {
        if let Value::Object(args) = load.describe() {
            self.args.extend(args);
        }
        self.value("addr", json!(load.addr.to_string()));
        self.value("topic", json!(load.topic));
        self.value("connections", json!(load.connections));
        self.value("in_flight", json!(load.in_flight));
        self.value("size_bytes", json!(load.size.to_string()));
        if let crate::load::Sizes::Fixed(size) = load.size {
            self.value("size_bytes", json!(size));
        }
        self.value("batch", json!(load.batch));
        self.value("queues", json!(load.queues));
        self.value("rate_intended_per_s", json!(load.rate));
        // A count may end the window before its time.
        let seconds = ran.window.seconds();
        self.value("duration_s", rounded(seconds));
        if 0 < load.count {
            self.line(seconds, "seconds long was the window");
        }
        let sent = ran.producer.as_ref().filter(|_| !signals::is_told());
        let sent = sent.map(|it| it.acknowledged);
        if let Some(sent) = sent.filter(|sent| *sent < load.count) {
            self.note(format!(
                "--duration ended it before --count was reached: {} of {} messages",
                grouped(sent as i64),
                grouped(load.count as i64)
            ));
        }
        self.value("warmup_s", json!(load.warmup()));
        self.generator("engine", json!(ran.engine));
        self.generator("cpu", load.cpus_told());
    }

    pub fn arg(&mut self, key: &str, value: Value) {
        self.args.insert(key.into(), value);
    }

    /// What the machine has that only one of its servers leads to.
    pub fn environment(&mut self, facts: Map<String, Value>) {
        if let Some(Value::Object(known)) = self.json.get_mut("environment") {
            known.extend(facts);
        }
    }

    /// What is known of the generator itself.
    pub fn generator(&mut self, key: &str, value: Value) {
        self.generator.insert(key.into(), value);
    }

    pub fn check(&mut self, key: &str, value: Value) {
        self.checks.insert(key.into(), value);
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
        self.value(key, rounded(value));
        self.line(value, words);
    }

    /// A figure that is one of the totals; its name ends with `_per_s`.
    pub fn rate(&mut self, key: &str, value: f64, words: &str) {
        self.totals.insert(key.into(), rounded(value));
        self.figure(key, value, words);
    }

    pub fn note(&mut self, words: impl Into<String>) {
        self.notes.push(words.into());
    }

    /// Says why the run proves nothing.
    pub fn void(&mut self, words: impl Into<String>) {
        self.void.push(words.into());
    }

    pub fn latency(&mut self, name: &str, words: &str, recorder: &Recorder) {
        if 0 < recorder.above {
            self.note(format!(
                "{} samples of {name} were above 60 s and count as 60 s",
                grouped(recorder.above as i64)
            ));
        }
        self.histogram(name, words, recorder.histogram());
    }

    pub fn histogram(&mut self, name: &str, words: &str, histogram: Histogram<u64>) {
        self.histogram_of(name, words, histogram, 0..u32::MAX);
    }

    /// Of a part of the window.
    pub fn histogram_of(
        &mut self,
        name: &str,
        words: &str,
        histogram: Histogram<u64>,
        seconds: Range<u32>,
    ) {
        let told = Told {
            name: name.to_owned(),
            words: words.to_owned(),
            histogram,
            seconds,
            upto: Upto::default(),
        };
        self.json.extend(told.values());
        if !told.histogram.is_empty() {
            self.latencies.push(told);
        }
    }

    pub fn errors(&mut self, key: &str, errors: &BTreeMap<i32, u64>) {
        let named: Map<String, Value> = errors
            .iter()
            .map(|(code, count)| (code.to_string(), json!(count)))
            .collect();
        self.value(key, Value::Object(named));
        let sum = errors.values().sum::<u64>();
        self.value(&format!("{key}_count"), json!(sum));
        self.check(&format!("{key}_count"), json!(sum));
        for (code, count) in errors {
            self.note(format!(
                "{} requests were answered with code {code}",
                grouped(*count as i64)
            ));
        }
    }

    pub fn unexpected(&mut self, key: &str, count: u64) {
        self.value(key, json!(count));
        self.check(key, json!(count));
        if 0 < count {
            self.void(format!(
                "{count} answers had no request, or had been given before"
            ));
        }
    }

    pub fn faults(&mut self, faults: Faults) {
        for (key, count) in [
            ("lost", faults.lost),
            ("duplicated", faults.duplicated),
            ("reordered", faults.reordered),
            ("corrupted", faults.corrupted),
        ] {
            self.value(key, json!(count));
            self.check(key, json!(count));
        }
        if !faults.is_clean() {
            self.void(format!(
                "messages: {} lost, {} duplicated, {} reordered, {} corrupted",
                faults.lost, faults.duplicated, faults.reordered, faults.corrupted
            ));
        }
    }

    /// What a sending run did: rates, latencies, requests that came to nothing.
    pub fn sent(&mut self, load: &Load, ran: &Ran) {
        let Some(producer) = &ran.producer else {
            return;
        };
        let seconds = producer.window().seconds();
        let rate = |count: u64| count as f64 / seconds;
        let words = "messages a second, acknowledged";
        self.rate("messages_per_s", rate(producer.in_window), words);
        let requests = rate(producer.refusals.granted).round();
        self.value("requests_per_s", json!(requests));
        self.totals.insert("requests_per_s".into(), json!(requests));
        let bytes = rate(producer.bytes_in_window);
        self.rate("body_bytes_per_s", bytes, "bytes of bodies a second");
        let request_bytes = producer.request_bytes().round() as u64;
        self.value("request_bytes", json!(request_bytes));
        self.value("acknowledged", json!(producer.acknowledged));
        self.latency("service", "a request, sent to answered", &producer.service);
        if producer.is_open_loop() {
            let words = "a request, intended to answered";
            self.latency("response", words, &producer.response);
            let words = "the generator's own part: intended to sent, with a slot free";
            self.latency("lateness", words, &producer.lateness);
        }
        self.errors("errors", &producer.errors);
        self.void.extend(producer.refusals.void_words("sends"));
        let unanswered = producer.outstanding as u64;
        let unsent = producer.unsent_requests;
        self.value("unanswered", json!(unanswered));
        self.value("unsent", json!(unsent));
        self.check("unanswered", json!(unanswered));
        self.check("unsent", json!(unsent));
        self.unexpected("unexpected_answers", producer.unexpected);
        if 0 < unanswered {
            self.void(format!(
                "{unanswered} requests had no answer {} s after the end",
                crate::drive::DRAIN_NS / crate::clock::SECOND_NS
            ));
        }
        self.void.extend(ran.unsent_words(load));
        self.generator("busy_percent", rounded(100.0 * ran.busy(load.threads)));
        if producer.in_window == 0 {
            self.void("no message was acknowledged in the window");
        }
    }

    /// Whether the generator itself was late, and what that means for the percentiles.
    fn own_delay(&mut self, load: &Load, ran: &Ran) {
        let pickup = ran.pickup.histogram();
        self.generator("pickup", latency::object(&pickup, Upto::default()));
        let lateness = ran.producer.as_ref().map(|p| p.lateness.histogram());
        let lateness = lateness.unwrap_or_else(latency::histogram);
        self.generator("delay", latency::object(&lateness, Upto::default()));
        self.generator("outstanding_most_of_a_thread", json!(ran.at_once));
        let own = Own::of(ran);
        let mut spoiled = Map::new();
        for told in &mut self.latencies {
            let latency = Latency {
                name: &told.name,
                histogram: &told.histogram,
                seconds: &told.seconds,
            };
            let Some(found) = own.judge(&latency, load) else {
                continue;
            };
            if found.is_withheld {
                told.upto = Upto::below(found.quantile);
                self.json.extend(told.values());
            }
            spoiled.insert(told.name.clone(), json!(found.from));
            match found.is_void {
                true => self.void.push(found.words),
                false => self.notes.push(found.words),
            }
        }
        self.generator("spoiled", Value::Object(spoiled));
        let away = ran.kept_away();
        self.generator("kept_away_percent", rounded(100.0 * away));
        if let Some(away) = ran.was_kept_away(load) {
            self.void(format!(
                "the generator was kept off its CPU for {:.0} % of the window: what was measured is its own; give it a CPU of its own (--cpu)",
                100.0 * away
            ));
        }
        if ran.meter.generator_was_full() && !load.is_open_loop() && !ran.spun {
            self.note("the generator's CPU was full: the rate is a lower bound of the server's");
        }
    }

    /// The end of a report on a run: what every command tells alike. `check` gives what was
    /// wrong with the messages, or none where the server cannot tell what it holds.
    pub fn finish_run(
        mut self,
        ran: &mut Ran,
        load: &Load,
        check: impl FnOnce(&mut Report, &mut Ran) -> Outcome<Option<Faults>>,
    ) -> Outcome<bool> {
        self.conclude(ran, load, check)?;
        self.finish_files(ran, load)
    }

    /// What is to be told of a run that just ended, before anything else is done to the server.
    pub fn conclude(
        &mut self,
        ran: &mut Ran,
        load: &Load,
        check: impl FnOnce(&mut Report, &mut Ran) -> Outcome<Option<Faults>>,
    ) -> Outcome<()> {
        let (done, all) = (ran.between(), ran.messages_all());
        let mut meter = std::mem::take(&mut ran.meter);
        meter.report(self, done, all)?;
        ran.meter = meter;
        self.own_delay(load, ran);
        let primary = ran.primary().map(|(name, _)| name);
        let told = self.latencies.iter().find(|it| Some(&*it.name) == primary);
        let upto = told.map_or(Upto::default(), |told| told.upto);
        self.value("series", ran.series(upto));
        match check(self, ran)? {
            Some(faults) => self.faults(faults),
            None if signals::is_told() => {
                self.note("a signal ended the run: what the server stored was not checked");
            }
            None => {
                self.note("the server cannot tell its offsets: what it stored was not checked");
            }
        }
        Ok(())
    }

    /// Prints, writes all files that were asked for, and tells whether the run is valid.
    pub fn finish_files(mut self, ran: &Ran, load: &Load) -> Outcome<bool> {
        if signals::is_told() {
            self.void(signals::VOID);
        }
        self.print();
        // One that cannot be written does not take the other along.
        let files = self.write_files(load, ran);
        let is_valid = self.write_json(load.json.as_deref())?;
        files.map(|()| is_valid)
    }

    fn write_files(&self, load: &Load, ran: &Ran) -> Outcome<()> {
        if let Some(path) = &load.hgrm {
            for told in &self.latencies {
                let text = files::spectrum(&told.histogram, told.upto);
                files::write(&files::spectrum_path(path, &told.name), text.as_bytes())?;
            }
        }
        let Some(path) = &load.hlog else {
            return Ok(());
        };
        let mut seconds = Vec::new();
        if let Some(producer) = &ran.producer {
            seconds.push(("service", &producer.service));
            seconds.push(("response", &producer.response));
            seconds.push(("lateness", &producer.lateness));
        }
        seconds.push(("e2e", &ran.e2e));
        let names = ["pull", "behind_pull"];
        let pulls = names.into_iter().zip(&ran.readers);
        seconds.extend(pulls.map(|(name, readers)| (name, &readers.service)));
        let spoiled = self.latencies.iter().filter_map(|told| {
            let from = told.upto.from()?;
            Some(format!(
                "{} is spoiled from quantile {from} on by the generator's own delay",
                told.name
            ))
        });
        let comments: Vec<String> = spoiled.collect();
        let log = files::interval_log(
            ran.window_wall(),
            |at| ran.length_s(at),
            &seconds,
            &comments,
        )?;
        files::write(path, &log)
    }

    /// Prints, writes the JSON, and tells whether the run is valid.
    pub fn finish(mut self, path: Option<&Path>) -> Outcome<bool> {
        self.print();
        self.write_json(path)
    }

    fn print(&self) {
        let mut all = vec![self.title.clone()];
        all.extend(self.lines.iter().cloned());
        if !self.latencies.is_empty() {
            let names: String = QUANTILES
                .iter()
                .map(|(name, _, _)| format!("{name:>11}"))
                .collect();
            all.push(format!(
                "  {:<10}{names}{:>11}{:>13}",
                "µs", "max", "samples"
            ));
        }
        all.extend(self.latencies.iter().map(Told::row));
        all.extend(self.notes.iter().map(|note| format!("  note: {note}")));
        all.extend(self.void.iter().map(|reason| format!("  VOID: {reason}")));
        crate::say(all.join("\n"));
    }

    fn write_json(&mut self, path: Option<&Path>) -> Outcome<bool> {
        let is_valid = self.void.is_empty();
        for (key, map) in [
            ("args", &mut self.args),
            ("totals", &mut self.totals),
            ("checks", &mut self.checks),
            ("generator", &mut self.generator),
        ] {
            let map = Value::Object(std::mem::take(map));
            self.json.entry(key).or_insert(map);
        }
        self.value("valid", json!(is_valid));
        self.value("void_because", json!(self.void));
        self.value("notes", json!(self.notes));
        if let Some(path) = path {
            let text =
                serde_json::to_string_pretty(&Value::Object(std::mem::take(&mut self.json)))?;
            files::write(path, (text + "\n").as_bytes())?;
        }
        Ok(is_valid)
    }
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
        let mut recorder = Recorder::default();
        (1..=1000).for_each(|value| recorder.record(value));
        recorder.close(0);
        let mut report = Report::new("x", "y");
        report.latency("service", "", &recorder);
        assert_eq!(report.json["service_p99_ns"], 990);
        assert_eq!(report.json["service_p999_ns"], Value::Null);
        let object = &report.json["service"];
        assert_eq!(
            (&object["count"], &object["p99_ns"]),
            (&json!(1000), &json!(990))
        );
        assert_eq!(object["p99_9_ns"], Value::Null);
        assert_eq!(
            (&object["min_ns"], &object["max_ns"]),
            (&json!(1), &json!(1000))
        );
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

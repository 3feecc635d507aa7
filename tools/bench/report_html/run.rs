//! One run of the generator, read from its JSON, whichever version of the generator wrote it.

use crate::latency::Upto;
use crate::{Outcome, fail};
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Latencies a run may have: service (sent to answer), response (intended to answer), e2e (intended
/// to delivered), lateness (intended to sent), a consumer's requests under both their names, and
/// what others got before and while a group far behind was reading.
pub const LATENCIES: [&str; 13] = [
    "service",
    "response",
    "e2e",
    "service_alone",
    "service_beside",
    "response_alone",
    "response_beside",
    "e2e_alone",
    "e2e_beside",
    "pull",
    "pull_service",
    "behind_pull",
    "lateness",
];

/// The flat names of quantiles, as they end a key, and what they stand for.
pub const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];
/// A quantile with fewer samples above it says nothing.
const SAMPLES_ABOVE_MIN: f64 = 10.0;

/// Parts that are no figures of the run.
const NO_FIGURES: [&str; 10] = [
    "args",
    "compare",
    "environment",
    "errors",
    "hgrm",
    "notes",
    "schema",
    "series",
    "spoiled_from",
    "void_because",
];
/// Objects whose members stand for themselves: their names say enough.
const TRANSPARENT: [&str; 3] = ["totals", "cost", "checks"];

/// One second of a run; counts are those of a whole one where it was cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Second {
    pub second: f64,
    pub messages: f64,
    pub p99_ns: Option<f64>,
    pub behind_bytes: Option<f64>,
}

pub struct Run {
    /// Who was measured.
    pub contender: String,
    /// Under which load.
    pub work: String,
    pub is_peer: bool,
    /// Flush mode family: only like is compared with like.
    pub flush: String,
    /// File it came from, for people.
    pub file: String,
    /// Why it proves nothing; empty for a run that counts.
    pub void: Vec<String>,
    /// All numbers under flat names: `messages_per_s`, `service_p99_ns`.
    pub figures: BTreeMap<String, f64>,
    /// Figures that say what the run cost.
    pub cost_keys: Vec<String>,
    pub series: Vec<Second>,
    pub json: Map<String, Value>,
}

impl Run {
    pub fn read(path: &Path, label: Option<&str>) -> Outcome<Run> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return fail(format!("cannot read {}: {error}", path.display())),
        };
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(json)) => {
                let run = Run::from_json(json, &name, label)?;
                if run.figures.is_empty() && run.is_valid() {
                    return fail(format!(
                        "{} holds no figures: no run's JSON",
                        path.display()
                    ));
                }
                Ok(run)
            }
            Ok(_) => fail(format!("{} holds no object: no run's JSON", path.display())),
            Err(error) => fail(format!("{} is no run's JSON: {error}", path.display())),
        }
    }

    pub fn from_json(json: Map<String, Value>, file: &str, label: Option<&str>) -> Outcome<Run> {
        let told = |key: &str| json.get("compare").and_then(|compare| compare.get(key));
        let text = |key: &str| told(key).and_then(Value::as_str).map(str::to_owned);
        let contender = label
            .map(str::to_owned)
            .or_else(|| text("contender"))
            .unwrap_or_else(|| stem(file));
        let (figures, cost_keys) = figures_of(&json);
        let mut run = Run {
            contender,
            work: text("work").unwrap_or_else(|| work_of(&json)),
            is_peer: told("peer").and_then(Value::as_bool).unwrap_or(false),
            flush: text("flush_family").unwrap_or_default(),
            file: file.to_owned(),
            void: void_of(&json),
            figures,
            cost_keys,
            series: series_of(&json),
            json,
        };
        run.read_histograms()?;
        Ok(run)
    }

    pub fn is_valid(&self) -> bool {
        self.void.is_empty()
    }

    /// All that are there can be read, and fill what the JSON leaves out.
    fn read_histograms(&mut self) -> Outcome<()> {
        for name in LATENCIES {
            if let Some(histogram) = self.read_histogram(name)? {
                self.fill_quantiles(name, &histogram);
            }
        }
        Ok(())
    }

    fn read_histogram(&self, name: &str) -> Outcome<Option<Histogram<u64>>> {
        let told = self.json.get(name).and_then(|latency| latency.get("hgrm"));
        let Some(text) = told.and_then(Value::as_str) else {
            return Ok(None);
        };
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        let read = bytes.map_err(|error| error.to_string()).and_then(|bytes| {
            Deserializer::new()
                .deserialize::<u64, _>(&mut bytes.as_slice())
                .map_err(|error| error.to_string())
        });
        match read {
            Ok(histogram) => Ok(Some(histogram)),
            Err(error) => fail(format!(
                "{}: {name}.hgrm is no histogram in base64: {error}",
                self.file
            )),
        }
    }

    /// It is decoded when it is wanted: a fifth of a MiB each, of thousands of runs.
    pub fn histogram(&self, name: &str) -> Option<Histogram<u64>> {
        self.read_histogram(name).ok().flatten()
    }

    /// What the run tells of a latency that the generator's own delay shows in.
    pub fn upto(&self, name: &str) -> Upto {
        let told = self.json.get(name).and_then(|it| it.get("spoiled_from"));
        let from = told.and_then(Value::as_f64);
        from.map_or(Upto::default(), Upto::below)
    }

    /// Quantiles that the JSON leaves out but its histogram knows.
    fn fill_quantiles(&mut self, name: &str, histogram: &Histogram<u64>) {
        let upto = self.upto(name);
        for (suffix, quantile) in QUANTILES {
            let above = histogram.len() as f64 * (1.0 - quantile) + 1e-6;
            if SAMPLES_ABOVE_MIN <= above && upto.has(quantile) {
                self.figures
                    .entry(format!("{name}_{suffix}_ns"))
                    .or_insert(histogram.value_at_quantile(quantile) as f64);
            }
        }
    }
}

/// All numbers under flat names, and which of them say what the run cost.
pub fn figures_of(json: &Map<String, Value>) -> (BTreeMap<String, f64>, Vec<String>) {
    let (mut figures, mut cost_keys) = (BTreeMap::new(), Vec::new());
    flatten(json, "", false, &mut figures, &mut cost_keys);
    // What stands flat too, under the name that says whose cost it is, stands there only.
    cost_keys.retain(|key| {
        let is_twice = figures.contains_key(&format!("server_{key}"));
        if is_twice {
            figures.remove(key);
        }
        !is_twice
    });
    (figures, cost_keys)
}

/// `async-64x8.corelane.3.json` and `async-64x8.corelane.4.json` are two runs of one contender.
fn stem(file: &str) -> String {
    let name = file.strip_suffix(".json").unwrap_or(file);
    match name.rsplit_once('.') {
        Some((front, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            front.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// What loads the server, in words, for a file that does not say it.
fn work_of(json: &Map<String, Value>) -> String {
    let number = |key: &str| {
        let args = json.get("args").and_then(|args| args.get(key));
        json.get(key).or(args).and_then(Value::as_f64)
    };
    let mut words = json
        .get("command")
        .and_then(Value::as_str)
        .unwrap_or("run")
        .to_owned();
    if let (Some(connections), Some(in_flight)) = (number("connections"), number("in_flight")) {
        words += &format!(" {connections}×{in_flight}");
    }
    if let Some(batch) = number("batch").filter(|batch| 1.0 < *batch) {
        words += &format!(" {batch} ×");
    }
    if let Some(size) = number("size_bytes").or(number("size")) {
        words += &format!(" {size} B");
    }
    if let Some(rate) = number("rate_intended_per_s").filter(|rate| 0.0 < *rate) {
        words += &format!(" at {rate}/s");
    }
    words
}

fn void_of(json: &Map<String, Value>) -> Vec<String> {
    let reasons = json.get("void_because").and_then(Value::as_array);
    let mut void: Vec<String> = reasons
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if void.is_empty() && json.get("valid") == Some(&Value::Bool(false)) {
        void.push("the run says that it is not valid".to_owned());
    }
    void
}

const LENGTH_S_MIN: f64 = 0.2;

fn series_of(json: &Map<String, Value>) -> Vec<Second> {
    let told = json.get("series").and_then(Value::as_array);
    told.into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, second)| {
            let number = |key: &str| second.get(key).and_then(Value::as_f64);
            let length_s = number("length_s").unwrap_or(1.0);
            // What is left of a window is a rate too; of a moment it is none.
            if length_s < LENGTH_S_MIN {
                return None;
            }
            Some(Second {
                second: number("second").unwrap_or(index as f64),
                messages: number("messages")? / length_s,
                p99_ns: number("p99_ns").filter(|ns| 0.0 < *ns),
                behind_bytes: number("behind_bytes").map(|bytes| bytes / length_s),
            })
        })
        .collect()
}

/// `p99_9_ns` of `service` is `service_p999_ns`: the name that flat files have always had.
fn flat_name(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        return key.to_owned();
    }
    let key = match key {
        "count" => "samples",
        "p99_9_ns" => "p999_ns",
        "p99_99_ns" => "p9999_ns",
        other => other,
    };
    format!("{prefix}_{key}")
}

fn flatten(
    json: &Map<String, Value>,
    prefix: &str,
    is_cost: bool,
    figures: &mut BTreeMap<String, f64>,
    cost_keys: &mut Vec<String>,
) {
    for (key, value) in json {
        if NO_FIGURES.contains(&key.as_str()) {
            continue;
        }
        let name = flat_name(prefix, key);
        match value {
            Value::Object(inner) => {
                let is_transparent = prefix.is_empty() && TRANSPARENT.contains(&key.as_str());
                let prefix = if is_transparent { "" } else { &name };
                flatten(inner, prefix, is_cost || key == "cost", figures, cost_keys);
            }
            _ => {
                if let Some(number) = value.as_f64().filter(|number| number.is_finite()) {
                    if is_cost && !cost_keys.contains(&name) {
                        cost_keys.push(name.clone());
                    }
                    figures.entry(name).or_insert(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer, V2Serializer};
    use serde_json::json;

    fn run(json: Value) -> Run {
        let Value::Object(json) = json else {
            panic!("an object")
        };
        Run::from_json(json, "some.thing.2.json", None).unwrap()
    }

    #[test]
    fn nested_and_flat_figures_have_one_name() {
        let nested = run(json!({
            "schema": "corelane-bench/1", "command": "produce",
            "totals": {"messages_per_s": 5.0},
            "service": {"count": 7, "p99_9_ns": 9, "p50_ns": 3},
            "cost": {"fdatasyncs_per_message": 0.5, "rss_bytes": 9},
            "server_rss_bytes": 9,
            "generator": {"cpu_percent": 80.0},
            "series": [{"second": 0, "messages": 4, "p99_ns": 2}],
        }));
        let flat = run(json!({
            "command": "produce", "messages_per_s": 5.0, "service_samples": 7,
            "service_p999_ns": 9, "service_p50_ns": 3, "service_p9999_ns": null,
            "server_rss_bytes": 9,
        }));
        for (key, value) in &flat.figures {
            assert_eq!(nested.figures.get(key), Some(value), "{key}");
        }
        assert_eq!(nested.figures["generator_cpu_percent"], 80.0);
        assert_eq!(nested.cost_keys, ["fdatasyncs_per_message"]);
        assert!(!nested.figures.contains_key("rss_bytes"));
        assert_eq!(nested.series.len(), 1);
        assert!(!flat.figures.contains_key("service_p9999_ns"));
        assert_eq!(flat.contender, "some.thing");
    }

    #[test]
    fn a_histogram_fills_in_what_was_not_told_and_what_it_may_tell() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=1000).for_each(|value| histogram.record(value).unwrap());
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&histogram, &mut bytes)
            .unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let run = run(json!({"service": {"p50_ns": 4, "hgrm": text}}));
        assert_eq!(run.figures["service_p50_ns"], 4.0);
        assert_eq!(run.figures["service_p99_ns"], 990.0);
        // One sample lies above it.
        assert!(!run.figures.contains_key("service_p999_ns"));
        assert_eq!(run.histogram("service").unwrap().len(), 1000);
    }

    #[test]
    fn what_is_spoiled_is_not_filled_in() {
        let mut histogram = crate::latency::histogram();
        (1..=1000).for_each(|value| histogram.record(value).unwrap());
        let run = run(json!({"service": crate::latency::object(&histogram, Upto::below(0.99))}));
        assert_eq!(run.figures["service_p90_ns"], 900.0);
        for key in ["service_p99_ns", "service_max_ns"] {
            assert!(!run.figures.contains_key(key), "{key}");
        }
        assert!(!run.figures.contains_key("service_spoiled_from"));
        assert_eq!(run.upto("service").from(), Some(0.99));
    }

    #[test]
    fn a_broken_histogram_is_named() {
        let Value::Object(json) = json!({"e2e": {"hgrm": "AAAA"}}) else {
            panic!("an object")
        };
        let Err(crate::Failure(words)) = Run::from_json(json, "x.json", None) else {
            panic!("read");
        };
        assert!(words.contains("x.json: e2e.hgrm"), "{words}");
    }

    #[test]
    fn what_is_void_says_so_even_without_a_reason() {
        assert!(!run(json!({"valid": false})).is_valid());
        assert!(run(json!({"valid": true})).is_valid());
        assert!(run(json!({})).is_valid());
    }

    #[test]
    fn a_second_that_was_cut_is_no_fall() {
        let row =
            |length_s: f64, messages: u64| json!({"messages": messages, "length_s": length_s});
        let series = |last: Value| {
            let json = json!({"series": [row(1.0, 100), last]});
            let seconds = series_of(json.as_object().unwrap());
            seconds.iter().map(|at| at.messages).collect::<Vec<_>>()
        };
        assert_eq!(series(row(0.5, 50)), [100.0, 100.0]);
        assert_eq!(series(row(0.01, 1)), [100.0]);
        assert_eq!(series(json!({"messages": 90})), [100.0, 90.0]);
    }
}

//! Histograms as files: the percentile spectrum (.hgrm) and the log of seconds (.hlog), both as
//! HdrHistogram's own tools read and write them.

use super::{Recorder, Upto};
use crate::{Outcome, fail};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const TICKS_PER_HALF: u32 = 5;
const US: f64 = 1000.0;

/// The spectrum in microseconds, up to where it is spoiled.
pub fn spectrum(histogram: &Histogram<u64>, upto: Upto) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        let value = step.value_iterated_to() as f64 / US;
        let quantile = step.quantile_iterated_to();
        if !upto.has(quantile) {
            break;
        }
        count += step.count_since_last_iteration();
        let _ = write!(text, "{value:12.3} {quantile:2.12} {count:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    // Not a number where it is spoiled.
    let of = |value: f64, is_told: bool| if is_told { value / US } else { f64::NAN };
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]\n",
        of(histogram.mean(), upto.has_mean()),
        of(histogram.stdev(), upto.has_max()),
        of(histogram.max() as f64, upto.has_max()),
        histogram.len(),
        histogram.buckets(),
        2048
    );
    if let Some(from) = upto.from() {
        let _ = writeln!(
            text,
            "#[Spoiled = {from:12.4} and above, by the generator's own delay]"
        );
    }
    text
}

/// `PATH.NAME.hgrm`
pub fn spectrum_path(path: &Path, name: &str) -> PathBuf {
    let mut file = path.as_os_str().to_owned();
    file.push(format!(".{name}.hgrm"));
    PathBuf::from(file)
}

pub fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    std::fs::write(path, bytes)
        .or_else(|error| fail(format!("cannot write {}: {error}", path.display())))
}

/// Says now, before anything is measured, that a file cannot be written. It leaves nothing behind.
pub fn check_writable(path: &Path) -> Outcome<()> {
    let is_new = !path.exists();
    let opened = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = opened {
        let advice = match error.kind() {
            ErrorKind::NotFound => "make its folder first (mkdir -p), or choose another one",
            _ => "choose another place",
        };
        return fail(format!(
            "cannot write {}: {error}; {advice}",
            path.display()
        ));
    }
    if is_new {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The log of seconds: one line for each second and latency, which is the line's tag. Values are
/// nanoseconds; the column of maxima is in milliseconds, as in Java's log writer. `length_s` is how
/// long a second of the window was: the last may be cut.
pub fn interval_log(
    start: SystemTime,
    length_s: impl Fn(u32) -> f64,
    latencies: &[(&str, &Recorder)],
    comments: &[String],
) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let wrong = |error: String| format!("cannot write an interval log: {error}");
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("corelane-bench: latencies in nanoseconds, maxima in milliseconds")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1e6);
    for comment in comments {
        builder.add_comment(comment.as_str());
    }
    let begun = builder.begin_log_with(&mut bytes, &mut serializer);
    let mut log = match begun {
        Ok(log) => log,
        Err(error) => return fail(wrong(error.to_string())),
    };
    // By time; of one second in the order given, what several threads counted in one line.
    let mut lines = BTreeMap::new();
    for (rank, (_, recorder)) in latencies.iter().enumerate() {
        for interval in recorder.intervals() {
            let sum = lines.entry((interval.second, rank));
            interval.add_to(sum.or_insert_with(super::histogram));
        }
    }
    for ((second, rank), histogram) in lines {
        let told = log.write_histogram(
            &histogram,
            Duration::from_secs(u64::from(second)),
            Duration::from_secs_f64(length_s(second)),
            Tag::new(latencies[rank].0),
        );
        if let Err(error) = told {
            return fail(wrong(error.to_string()));
        }
    }
    bytes.flush()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_spectrum_rises_to_the_maximum_and_counts_all_samples() {
        let mut sum = super::super::histogram();
        for value in 1..=10_000 {
            sum.record(value * 1000).unwrap();
        }
        let text = spectrum(&sum, Upto::default());
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let numbers = line.split_whitespace();
                numbers.map(|number| number.parse().unwrap()).collect()
            })
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0]));
        assert!(rows.windows(2).all(|pair| pair[0][1] <= pair[1][1]));
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 10_000.0, 3));
        let median = rows.iter().find(|row| 0.5 <= row[1]).unwrap();
        assert!((4_990.0..5_010.0).contains(&median[0]), "{median:?}");
        assert!(text.contains("#[Mean    =     "), "{text}");
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }

    #[test]
    fn a_spectrum_ends_where_it_is_spoiled() {
        let mut sum = super::super::histogram();
        sum.record_n(1_000, 9_900).unwrap();
        sum.record_n(7_777_000, 100).unwrap();
        let text = spectrum(&sum, Upto::below(0.99));
        assert!(text.contains("\n       1.000 0."), "{text}");
        assert!(!text.contains("7778") && !text.contains("7777"), "{text}");
        assert!(text.contains("#[Max     =          NaN"), "{text}");
        assert!(
            text.contains("#[Spoiled =       0.9900 and above"),
            "{text}"
        );
    }

    #[test]
    fn a_log_of_seconds_can_be_read_again() {
        let mut service = Recorder::default();
        let mut response = Recorder::default();
        for second in 0..3 {
            service.record(1_000_000);
            response.record(u64::from(second + 1) * 2_000_000);
            service.close(second);
            response.close(second);
        }
        // Of another thread.
        let mut other = Recorder::default();
        other.record(1_000_000);
        other.close(1);
        service.absorb(other);
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let latencies = [("service", &service), ("response", &response)];
        let length_s = |second| if second == 2 { 0.25 } else { 1.0 };
        let bytes = interval_log(start, length_s, &latencies, &["p99 is spoiled".into()]).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("#corelane-bench"));
        assert!(text.contains("\n#p99 is spoiled\n"), "{text}");
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                let text = line.encoded_histogram();
                let raw = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text);
                let read: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut &raw.unwrap()[..])
                    .unwrap();
                let tag = line.tag().unwrap().as_str().to_string();
                found.push((
                    tag,
                    line.start_timestamp().as_secs(),
                    read.max() / 1_000_000,
                    read.len(),
                    line.duration().as_millis(),
                ));
            }
        }
        let wanted = [
            ("service", 0, 1, 1, 1000),
            ("response", 0, 2, 1, 1000),
            ("service", 1, 1, 2, 1000),
            ("response", 1, 4, 1, 1000),
            ("service", 2, 1, 1, 250),
            ("response", 2, 6, 1, 250),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|at| (at.0.as_str(), at.1, at.2, at.3, at.4))
            .collect();
        assert_eq!(found, wanted);
    }
}

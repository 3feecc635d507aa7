//! Figures over several runs: medians, extremes and ratios, and how each is written.

use std::cmp::Ordering;

/// What several runs say about one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

impl Spread {
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        let count = sorted.len();
        if count == 0 {
            return None;
        }
        Some(Spread {
            median: f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
            min: sorted[0],
            max: sorted[count - 1],
            count,
        })
    }

    /// How many times the other's median this one's is.
    pub fn ratio(&self, reference: &Spread) -> Option<f64> {
        let ratio = self.median / reference.median;
        (0.0 < reference.median.abs() && ratio.is_finite()).then_some(ratio)
    }

    /// Whether no run of one lies between runs of the other. With fewer than two runs each nothing
    /// is known about the spread.
    pub fn is_apart(&self, other: &Spread) -> bool {
        2 <= self.count.min(other.count) && (self.max < other.min || other.max < self.min)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
    /// Neither is good in itself.
    Unknown,
}

/// Settings of a run and counts that follow from its length: nothing to compare.
const SETTINGS: [&str; 12] = [
    "addr",
    "batch",
    "connections",
    "count",
    "cpu",
    "duration_s",
    "in_flight",
    "queues",
    "rate_intended_per_s",
    "size_bytes",
    "server_pid",
    "warmup_s",
];

pub fn is_setting(key: &str) -> bool {
    SETTINGS.contains(&key)
}

pub fn better(key: &str) -> Better {
    let is_rate = key.ends_with("_per_s") || key.ends_with("_per_server_cpu_s");
    if key.starts_with("generator_") || key.ends_with("_samples") || is_setting(key) {
        return Better::Unknown;
    }
    if is_rate && !key.starts_with("server_") && !key.contains("switches") {
        return Better::Higher;
    }
    let ends = ["_ns", "_us", "_ms", "_percent", "_per_message", "_per_mb"];
    let is_cost = key.starts_with("server_") || ends.iter().any(|end| key.ends_with(end));
    let is_fault = ["lost", "duplicated", "reordered", "corrupted"].contains(&key);
    if is_cost || is_fault || key.contains("errors") || key.contains("per_payload_byte") {
        Better::Lower
    } else {
        Better::Unknown
    }
}

/// What a figure is divided by to be read, and its unit then.
pub fn unit(key: &str) -> (f64, &'static str) {
    const MIB: f64 = (1 << 20) as f64;
    match key {
        _ if key.ends_with("bytes_per_s") => (MIB, "MiB/s"),
        _ if key.ends_with("_per_server_cpu_s") => (1.0, ""),
        _ if key.ends_with("_per_s") => (1.0, "/s"),
        _ if key.ends_with("_ns") => (1e3, "µs"),
        _ if key.ends_with("_ms") => (1.0, "ms"),
        _ if key.ends_with("_percent") => (1.0, "%"),
        _ if key.split('_').any(|word| word == "us") => (1.0, "µs"),
        _ if key.ends_with("_bytes") => (MIB, "MiB"),
        _ => (1.0, ""),
    }
}

/// The figure's name without what the unit says.
pub fn name(key: &str) -> String {
    if let Some(front) = key.strip_suffix("_per_server_cpu_s") {
        return format!("{} per CPU second of the server", front.replace('_', " "));
    }
    let ends = ["_per_s", "_ns", "_ms", "_percent", "_bytes"];
    let bare = ends.iter().find_map(|end| key.strip_suffix(end));
    let words = bare
        .unwrap_or(key)
        .split('_')
        .filter_map(|word| match word {
            "p9999" => Some("p99.99"),
            "p999" => Some("p99.9"),
            // The unit says it.
            "us" => None,
            "cpu" => Some("CPU"),
            "rss" => Some("RSS"),
            "mb" => Some("MB"),
            word => Some(word),
        });
    words.collect::<Vec<_>>().join(" ")
}

/// Three digits before the point need none behind it.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if 1000.0 <= v => return grouped(value.round()),
        v if 100.0 <= v || v == 0.0 => 0,
        v if 10.0 <= v => 1,
        v if 1.0 <= v => 2,
        v if 0.001 <= v => 4,
        // Rounded to four digits nothing would be left of it.
        _ => return format!("{value:.1e}"),
    };
    format!("{value:.digits$}")
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "median (min–max)" in the figure's unit.
pub fn show(key: &str, spread: &Spread) -> String {
    let (divisor, _) = unit(key);
    let median = short(spread.median / divisor);
    if spread.count == 1 {
        return median;
    }
    format!(
        "{median} ({}–{})",
        short(spread.min / divisor),
        short(spread.max / divisor)
    )
}

/// A time with a unit that suits it.
pub fn show_ns(ns: f64) -> String {
    let (divisor, unit) = match ns {
        ns if ns < 1e3 => (1.0, "ns"),
        ns if ns < 1e6 => (1e3, "µs"),
        ns if ns < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = format!("{:.3}", ns / divisor);
    let value = value.trim_end_matches('0').trim_end_matches('.');
    format!("{value} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let odd = Spread::of(&[3.0, 100.0, 1.0]).unwrap();
        assert_eq!(
            (odd.median, odd.min, odd.max, odd.count),
            (3.0, 1.0, 100.0, 3)
        );
        let even = Spread::of(&[4.0, 1.0, 3.0, 100.0]).unwrap();
        assert_eq!((even.median, even.min, even.max), (3.5, 1.0, 100.0));
        assert_eq!(Spread::of(&[7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN, 2.0]).unwrap().count, 1);
    }

    #[test]
    fn a_ratio_divides_medians_and_never_by_nothing() {
        let six = Spread::of(&[5.0, 6.0, 90.0]).unwrap();
        let two = Spread::of(&[2.0, 1.0, 3.0]).unwrap();
        assert_eq!(six.ratio(&two), Some(3.0));
        assert_eq!(two.ratio(&six), Some(1.0 / 3.0));
        assert_eq!(six.ratio(&Spread::of(&[0.0]).unwrap()), None);
    }

    #[test]
    fn runs_are_apart_only_when_none_lies_between_the_others() {
        let spread = |values: &[f64]| Spread::of(values).unwrap();
        assert!(spread(&[1.0, 2.0]).is_apart(&spread(&[3.0, 4.0])));
        assert!(spread(&[3.0, 4.0]).is_apart(&spread(&[1.0, 2.0])));
        assert!(!spread(&[1.0, 3.0]).is_apart(&spread(&[2.0, 4.0])));
        assert!(!spread(&[1.0]).is_apart(&spread(&[9.0])));
    }

    #[test]
    fn each_figure_knows_what_is_better() {
        for (key, wanted) in [
            ("messages_per_s", Better::Higher),
            ("messages_per_server_cpu_s", Better::Higher),
            ("service_p99_ns", Better::Lower),
            ("server_cpu_us_per_message", Better::Lower),
            ("server_voluntary_switches_per_s", Better::Lower),
            ("server_rss_bytes", Better::Lower),
            ("generator_cpu_percent", Better::Unknown),
            ("connections", Better::Unknown),
        ] {
            assert_eq!(better(key), wanted, "{key}");
        }
    }

    #[test]
    fn figures_are_written_in_their_units() {
        let spread = Spread::of(&[1_500.0, 2_000.0, 12_345_678.0]).unwrap();
        assert_eq!(show("service_p99_ns", &spread), "2.00 (1.50–12,346)");
        assert_eq!(name("service_p9999_ns"), "service p99.99");
        assert_eq!(name("service_p999_ns"), "service p99.9");
        for (key, words) in [
            ("server_cpu_us_per_message", "server CPU per message"),
            ("cpu_user_us_per_mb", "CPU user per MB"),
        ] {
            assert_eq!((name(key).as_str(), unit(key).1), (words, "µs"));
        }
        assert_eq!(show_ns(1e6), "1 ms");
        assert_eq!(show_ns(2_500.0), "2.5 µs");
    }
}

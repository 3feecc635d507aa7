//! Which charts a load gets: rates, percentile curves, histograms, time series, cost.

use super::chart::{Axis, Bar, Chart, Line, Shape};
use super::figures::{self, show_ns};
use super::run::{LATENCIES, QUANTILES};
use super::study::{Contender, Work};
use crate::latency::Upto;
use hdrhistogram::Histogram;

/// Classes of a latency histogram in each power of ten.
const CLASSES_PER_DECADE: f64 = 20.0;

type Found = Option<(String, Shape)>;

fn chart(work: &Work<'_>, (file, name): (&str, &str), (title, shape): (String, Shape)) -> Chart {
    let of = if work.part.is_empty() {
        work.name.to_owned()
    } else {
        format!("{} · {}", work.name, work.part)
    };
    Chart {
        file: format!("{file}-{name}"),
        title: format!("{of} · {title}"),
        shape,
    }
}

/// Bars for all contenders, however many.
pub fn bars_of(work: &Work<'_>, file: &str) -> Vec<Chart> {
    let cost = "the server's CPU time a message";
    let found = [
        ("rate", bars(work, "messages_per_s", "messages a second")),
        ("cost", bars(work, "server_cpu_us_per_message", cost)),
    ];
    let drawn = found
        .into_iter()
        .filter_map(|(name, found)| Some(chart(work, (file, name), found?)));
    drawn.collect()
}

/// Lines for those of one panel.
pub fn lines_of(panel: &Work<'_>, file: &str) -> Vec<Chart> {
    let mut charts = Vec::new();
    let mut add =
        |name: &str, found: Found| charts.extend(found.map(|it| chart(panel, (file, name), it)));
    for latency in LATENCIES {
        let words = latency_words(latency);
        add(
            &format!("{latency}-percentiles"),
            percentiles(panel, latency, words),
        );
        add(
            &format!("{latency}-histogram"),
            histogram(panel, latency, words),
        );
    }
    add("series", series(panel));
    add("series-p99", series_p99(panel));
    add("series-behind", series_behind(panel));
    charts
}

fn latency_words(latency: &str) -> &'static str {
    match latency {
        "service" => "service time, sent to answered",
        "response" => "response time, intended to answered",
        "e2e" => "end to end, intended to delivered",
        "lateness" => "the generator's own delay, intended to sent",
        "service_alone" => "service time while nobody was behind",
        "service_beside" => "service time beside a group that catches up",
        "response_alone" => "response time while nobody was behind",
        "response_beside" => "response time beside a group that catches up",
        "e2e_alone" => "end to end while nobody was behind",
        "e2e_beside" => "end to end beside a group that catches up",
        "behind_pull" => "a pull of the group behind, sent to answered",
        _ => "a pull, sent to answered",
    }
}

fn bars(work: &Work<'_>, key: &str, words: &str) -> Found {
    let (divisor, unit) = figures::unit(key);
    let bar = |contender: &Contender<'_>| {
        let spread = contender.spread(key)?;
        Some(Bar {
            name: contender.name.to_owned(),
            colour: contender.index,
            median: spread.median / divisor,
            min: spread.min / divisor,
            max: spread.max / divisor,
            words: figures::short(spread.median / divisor),
        })
    };
    let bars: Vec<Bar> = work.contenders.iter().filter_map(bar).collect();
    let most = bars.iter().map(|bar| bar.max).fold(0.0, f64::max);
    (0.0 < most).then(|| {
        let title = format!("{words}: median, least and most ({unit})");
        // Room for the words behind the longest bar.
        let x = linear(unit, most * 1.12);
        (title, Shape::Bars { x, bars })
    })
}

/// From 0 to `most`, with about six ticks at round numbers.
fn linear(title: &str, most: f64) -> Axis {
    let raw = most / 6.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| raw <= *step)
        .unwrap_or(raw);
    let ticks: Vec<f64> = (0..=6)
        .map(|at| f64::from(at) * step)
        .filter(|tick| *tick <= most)
        .collect();
    Axis {
        title: title.to_owned(),
        low: 0.0,
        high: most,
        ticks,
        light: Vec::new(),
        label: short_number,
    }
}

fn short_number(value: f64) -> String {
    let (divisor, unit) = match value.abs() {
        v if 1e6 <= v => (1e6, " M"),
        v if 1e4 <= v => (1e3, " k"),
        _ => (1.0, ""),
    };
    let text = format!("{:.4}", value / divisor);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// Nanoseconds as powers of ten.
fn time_label(power: f64) -> String {
    show_ns((10f64.powf(power)).round())
}

/// A time axis by powers of ten around all that is shown.
fn times(title: &str, low_ns: f64, high_ns: f64) -> Axis {
    let low = low_ns.max(1.0).log10() - 0.05;
    let high = (high_ns.max(1.0).log10() + 0.05).max(low + 0.3);
    let is_wide = 2.0 < high - low;
    let (mut ticks, mut light) = (Vec::new(), Vec::new());
    for decade in (low.floor() as i32)..=(high.ceil() as i32) {
        for digit in 1..10 {
            let at = f64::from(decade) + f64::from(digit).log10();
            if at < low || high < at {
                continue;
            }
            let is_tick = digit == 1 || (!is_wide && matches!(digit, 2 | 3 | 5 | 7));
            if is_tick { &mut ticks } else { &mut light }.push(at);
        }
    }
    Axis {
        title: title.to_owned(),
        low,
        high,
        ticks,
        light,
        label: time_label,
    }
}

/// Where a quantile lies on an axis by powers of ten of what is left above it.
fn rank(quantile: f64) -> f64 {
    // 99 % shall lie on its own grid line: 1 - 0.99 is not quite 0.01.
    (-(1.0 - quantile).log10() * 1e9).round() / 1e9
}

fn rank_label(rank: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-rank));
    let digits = (rank.round() as usize).saturating_sub(2);
    format!("{percent:.digits$} %")
}

fn curve(histogram: &Histogram<u64>, upto: Upto) -> Vec<(f64, f64)> {
    let end = 1.0 - 1.0 / histogram.len() as f64;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for value in histogram.iter_quantiles(12) {
        let quantile = value.quantile_iterated_to().min(end);
        if !upto.has(quantile) {
            break;
        }
        let ns = value.value_iterated_to().max(1);
        points.push((rank(quantile), (ns as f64).log10()));
        if end <= quantile {
            break;
        }
    }
    points
}

/// Without a histogram: through the medians of the quantiles that the runs tell.
fn curve_of_medians(contender: &Contender<'_>, latency: &str) -> Vec<(f64, f64)> {
    let point = |(suffix, quantile): &(&str, f64)| {
        let spread = contender.spread(&format!("{latency}_{suffix}_ns"))?;
        Some((rank(*quantile), spread.median.max(1.0).log10()))
    };
    QUANTILES.iter().filter_map(point).collect()
}

fn extent(lines: &[Line], of: fn(&(f64, f64)) -> f64) -> Option<(f64, f64)> {
    let values = || lines.iter().flat_map(|line| line.points.iter().map(of));
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    (low <= high).then_some((low, high))
}

fn percentiles(work: &Work<'_>, latency: &str, words: &str) -> Found {
    let line = |contender: &Contender<'_>| {
        let points = match contender.histogram(latency) {
            Some(histogram) => curve(&histogram, contender.upto(latency)),
            None => curve_of_medians(contender, latency),
        };
        (1 < points.len()).then(|| Line {
            name: contender.name.to_owned(),
            colour: contender.index,
            points,
            is_filled: false,
        })
    };
    let lines: Vec<Line> = work.contenders.iter().filter_map(line).collect();
    let (low, high) = extent(&lines, |point| point.1)?;
    let (_, rank_high) = extent(&lines, |point| point.0)?;
    let decades = (1..=rank_high.ceil() as i32).map(f64::from);
    let x = Axis {
        title: "percentile (log axis of what lies above it)".to_owned(),
        low: 0.0,
        high: rank_high.max(1.0),
        ticks: [0.0, rank(0.5)]
            .into_iter()
            .chain(decades)
            .filter(|tick| *tick <= rank_high.max(1.0))
            .collect(),
        light: Vec::new(),
        label: rank_label,
    };
    let y = times("latency (log)", 10f64.powf(low), 10f64.powf(high));
    let title = format!("{words}: percentiles");
    Some((title, Shape::Lines { x, y, lines }))
}

/// Share of the messages in each class, as steps; up to where it is spoiled.
fn steps(histogram: &Histogram<u64>, upto: Upto) -> Vec<(f64, f64)> {
    let mut classes = std::collections::BTreeMap::<i64, u64>::new();
    for value in histogram.iter_recorded() {
        if !upto.has(value.quantile()) {
            break;
        }
        let ns = value.value_iterated_to().max(1) as f64;
        let class = (ns.log10() * CLASSES_PER_DECADE).floor() as i64;
        *classes.entry(class).or_default() += value.count_at_value();
    }
    let (Some(first), Some(last)) = (classes.keys().next(), classes.keys().next_back()) else {
        return Vec::new();
    };
    let mut points = Vec::new();
    let at = |class: i64| class as f64 / CLASSES_PER_DECADE;
    points.push((at(*first), 0.0));
    for class in *first..=*last {
        let count = classes.get(&class).copied().unwrap_or(0);
        let share = 100.0 * count as f64 / histogram.len() as f64;
        points.push((at(class), share));
        points.push((at(class + 1), share));
    }
    points.push((at(*last + 1), 0.0));
    points
}

fn histogram(work: &Work<'_>, latency: &str, words: &str) -> Found {
    let line = |contender: &Contender<'_>| {
        let histogram = contender.histogram(latency)?;
        Some(Line {
            name: contender.name.to_owned(),
            colour: contender.index,
            points: steps(&histogram, contender.upto(latency)),
            is_filled: true,
        })
    };
    let lines: Vec<Line> = work.contenders.iter().filter_map(line).collect();
    let (low, high) = extent(&lines, |point| point.0)?;
    let (_, most) = extent(&lines, |point| point.1)?;
    let x = times("latency (log)", 10f64.powf(low), 10f64.powf(high));
    let y = linear("% of the messages", most.max(1e-6) * 1.08);
    let title = format!("{words}: histogram");
    Some((title, Shape::Lines { x, y, lines }))
}

/// The second itself, a whole number.
fn seconds(lines: &[Line]) -> Option<Axis> {
    let (_, high) = extent(lines, |point| point.0)?;
    let high = high.max(1.0);
    let mut axis = linear("second of the run", high);
    axis.ticks.retain(|tick| tick.fract() == 0.0);
    axis.high = high;
    Some(axis)
}

fn series_lines(work: &Work<'_>, value: fn(&super::run::Second) -> Option<f64>) -> Vec<Line> {
    let mut lines = Vec::new();
    for contender in &work.contenders {
        for run in &contender.runs {
            let points: Vec<(f64, f64)> = run
                .series
                .iter()
                .filter_map(|second| Some((second.second, value(second)?)))
                .collect();
            if 1 < points.len() {
                lines.push(Line {
                    name: contender.name.to_owned(),
                    colour: contender.index,
                    points,
                    is_filled: false,
                });
            }
        }
    }
    lines
}

fn series(work: &Work<'_>) -> Found {
    let lines = series_lines(work, |second| Some(second.messages));
    let x = seconds(&lines)?;
    let (_, most) = extent(&lines, |point| point.1)?;
    let y = linear("messages in the second", most.max(1.0) * 1.08);
    let title = "messages each second, a line for each run".to_owned();
    Some((title, Shape::Lines { x, y, lines }))
}

fn series_p99(work: &Work<'_>) -> Found {
    let lines = series_lines(work, |second| second.p99_ns.map(f64::log10));
    let x = seconds(&lines)?;
    let (low, high) = extent(&lines, |point| point.1)?;
    let y = times("p99 of the second (log)", 10f64.powf(low), 10f64.powf(high));
    let title = "p99 each second, a line for each run".to_owned();
    Some((title, Shape::Lines { x, y, lines }))
}

/// What a group far behind got, where there is one.
fn series_behind(work: &Work<'_>) -> Found {
    let lines = series_lines(work, |second| second.behind_bytes);
    let x = seconds(&lines)?;
    let (_, most) = extent(&lines, |point| point.1)?;
    let y = linear("bytes in the second", most.max(1.0) * 1.08);
    let title = "bytes each second to the group behind, a line for each run".to_owned();
    Some((title, Shape::Lines { x, y, lines }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_a_decade_apart() {
        assert_eq!(rank(0.9).round(), 1.0);
        assert_eq!(rank_label(rank(0.5)), "50 %");
        assert_eq!(rank_label(1.0), "90 %");
        assert_eq!(rank_label(3.0), "99.9 %");
        assert_eq!(rank_label(4.0), "99.99 %");
    }

    #[test]
    fn all_of_a_histogram_is_in_its_steps() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for value in [1_000, 1_000, 50_000, 2_000_000] {
            histogram.record(value).unwrap();
        }
        let points = steps(&histogram, Upto::default());
        let sum: f64 = points.iter().map(|point| point.1).sum();
        // Every class has two points.
        assert!((sum - 200.0).abs() < 1e-9, "{sum}");
        // The last of four is not shown.
        let shown = steps(&histogram, Upto::below(0.99));
        let sum: f64 = shown.iter().map(|point| point.1).sum();
        assert!((sum - 150.0).abs() < 1e-9, "{sum}");
        let end_of = |upto| curve(&histogram, upto).last().unwrap().0;
        assert!((end_of(Upto::default()) - rank(0.75)).abs() < 1e-9);
        assert!(end_of(Upto::below(0.75)) < rank(0.75));
    }

    #[test]
    fn ticks_are_round_and_within() {
        let axis = linear("x", 350_000.0);
        assert!(axis.ticks.contains(&100_000.0), "{:?}", axis.ticks);
        assert!(axis.ticks.iter().all(|tick| *tick <= axis.high));
        assert_eq!(short_number(100_000.0), "100 k");
        let axis = times("t", 900.0, 2_000_000.0);
        assert!(axis.ticks.contains(&3.0) && axis.ticks.contains(&6.0));
        assert_eq!(time_label(3.0), "1 µs");
    }
}

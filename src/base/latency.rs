//! Times as histograms: of the last ten seconds or so, and since the start.

use hdrhistogram::Histogram;

/// Longer times count as this.
const NS_MAX: u64 = 60_000_000_000;

/// Significant digits: a thousandth of error. A histogram then has 221 KB, and there are three of each.
const DIGITS: u8 = 3;

/// How long something took, again and again.
#[derive(Debug)]
pub struct Latency {
    current: Histogram<u64>,
    /// The last whole period, until it is added up; empty after that.
    ended: Histogram<u64>,
    /// Up to where `ended` begins.
    before: Histogram<u64>,
    /// What the last whole period said.
    recent: Quantiles,
    is_added_up: bool,
}

/// What a histogram says, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// How many times.
    pub count: u64,
    /// Half were not longer.
    pub p50_ns: u64,
    /// 99 % were not longer.
    pub p99_ns: u64,
    /// 99.9 % were not longer.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let empty = Histogram::new_with_max(NS_MAX, DIGITS).expect("bounds that a histogram takes");
        Self {
            current: empty.clone(),
            ended: empty.clone(),
            before: empty,
            recent: Quantiles::default(),
            is_added_up: true,
        }
    }
}

impl Latency {
    /// `count` times it took this long.
    pub fn record(&mut self, ns: u64, count: u64) {
        self.current.saturating_record_n(ns, count);
    }

    /// A period ends, and another begins. That costs nothing, so that those of several can end at one moment;
    /// [`Self::add_up`] is to follow.
    pub fn end_period(&mut self) {
        self.add_up();
        std::mem::swap(&mut self.current, &mut self.ended);
        self.is_added_up = false;
    }

    /// What the period that has ended says: some ten microseconds of work.
    pub fn add_up(&mut self) {
        if std::mem::replace(&mut self.is_added_up, true) {
            return;
        }
        self.recent = quantiles(&self.ended);
        if !self.ended.is_empty() {
            self.before
                .add(&self.ended)
                .expect("both have the same bounds");
            self.ended.reset();
        }
    }

    /// Of the last whole period.
    pub fn recent(&mut self) -> Quantiles {
        self.add_up();
        self.recent
    }

    /// Since the start.
    pub fn total(&mut self) -> Quantiles {
        self.add_up();
        if self.current.is_empty() {
            return quantiles(&self.before);
        }
        let mut all = self.before.clone();
        all.add(&self.current).expect("both have the same bounds");
        quantiles(&all)
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    if histogram.is_empty() {
        // Nothing would be found in all of its cells.
        return Quantiles::default();
    }
    Quantiles {
        count: histogram.len(),
        p50_ns: histogram.value_at_quantile(0.5),
        p99_ns: histogram.value_at_quantile(0.99),
        p999_ns: histogram.value_at_quantile(0.999),
        max_ns: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_told_after_its_end_and_the_total_at_once() {
        let mut latency = Latency::default();
        latency.record(1_000, 99);
        latency.record(90_000_000_000, 1);
        assert_eq!(latency.recent(), Quantiles::default());
        assert_eq!(latency.total().count, 100);
        latency.end_period();
        latency.record(5, 7);
        let first = latency.recent();
        assert_eq!((first.count, first.p50_ns), (100, 1_000));
        assert!(NS_MAX <= first.max_ns, "{first:?}");
        assert!(first.max_ns - NS_MAX <= NS_MAX / 1_000, "{first:?}");
        latency.end_period();
        assert_eq!(latency.recent().count, 7, "of the next period");
        latency.record(123_456, 1);
        latency.end_period();
        latency.add_up();
        let second = latency.recent();
        assert_eq!(second.count, 1);
        assert!((123_456..123_580).contains(&second.p50_ns), "{second:?}");
        assert_eq!(latency.total().count, 108);
        latency.end_period();
        assert_eq!(latency.recent(), Quantiles::default());
    }
}

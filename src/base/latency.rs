//! Times as histograms: of the last ten seconds or so, and since the start.

use hdrhistogram::Histogram;

/// Longer times count as this.
const NS_MAX: u64 = 60_000_000_000;

/// Significant digits: a percent of error, 30 KB a histogram.
const DIGITS: u8 = 2;

/// How long something took, again and again.
#[derive(Debug)]
pub struct Latency {
    current: Histogram<u64>,
    last: Histogram<u64>,
    total: Histogram<u64>,
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
            last: empty.clone(),
            total: empty,
        }
    }
}

impl Latency {
    /// `count` times it took this long.
    pub fn record(&mut self, ns: u64, count: u64) {
        self.current.saturating_record_n(ns, count);
    }

    /// What was recorded since the last call becomes what [`Self::recent`] tells.
    pub fn rotate(&mut self) {
        std::mem::swap(&mut self.current, &mut self.last);
        self.current.reset();
        self.total
            .add(&self.last)
            .expect("all three have the same bounds");
    }

    /// Of the last whole period.
    #[must_use]
    pub fn recent(&self) -> Quantiles {
        quantiles(&self.last)
    }

    /// Since the start.
    #[must_use]
    pub fn total(&self) -> Quantiles {
        let mut all = self.total.clone();
        all.add(&self.current)
            .expect("all three have the same bounds");
        quantiles(&all)
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
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
        latency.rotate();
        let first = latency.recent();
        assert_eq!((first.count, first.p50_ns), (100, 1_003));
        assert!(NS_MAX <= first.max_ns, "{first:?}");
        latency.record(5_000, 1);
        latency.rotate();
        assert_eq!(latency.recent().count, 1);
        assert_eq!(latency.total().count, 101);
        latency.rotate();
        assert_eq!(latency.recent(), Quantiles::default());
    }
}

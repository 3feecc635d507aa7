//! Latencies: counted with 3 digits from 1 ns to 60 s, as a whole and second by second.
//!
//! Counting costs a few nanoseconds a sample; everything dear (histograms, quantiles, files) is
//! made of the counts after the run, so that it cannot delay a message.

pub mod files;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use serde_json::{Map, Value, json};

pub const NS_MAX: u64 = 60_000_000_000;
/// 2,048 steps from 0, then 1,024 to each doubling: HdrHistogram's own steps at 3 digits.
const HALF: u64 = 1024;
const HALF_BITS: u32 = 10;

fn index_of(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    let shift = bits.saturating_sub(HALF_BITS + 1);
    ((u64::from(shift) << HALF_BITS) + (ns >> shift)) as usize
}

/// The least value of a step.
fn value_of(index: u32) -> u64 {
    let index = u64::from(index);
    if index < 2 * HALF {
        return index;
    }
    let shift = (index >> HALF_BITS) - 1;
    (index - (shift << HALF_BITS)) << shift
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NS_MAX, 3).expect("the bounds are sound")
}

/// HdrHistogram's V2 encoding in base64.
pub fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a vector takes what is written");
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

/// The samples of one second, as steps and counts.
pub struct Interval {
    pub second: u32,
    steps: Vec<(u32, u32)>,
}

impl Interval {
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = histogram();
        self.add_to(&mut histogram);
        histogram
    }

    fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (index, count) in &self.steps {
            let told = histogram.record_n(value_of(*index).max(1), u64::from(*count));
            told.expect("every step is within the bounds");
        }
    }
}

pub struct Recorder {
    counts: Vec<u32>,
    /// Steps whose count is not zero.
    touched: Vec<u32>,
    intervals: Vec<Interval>,
    /// Samples above 60 s; they count as 60 s.
    pub above: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            counts: vec![0; index_of(NS_MAX) + 1],
            touched: Vec::with_capacity(4096),
            intervals: Vec::new(),
            above: 0,
        }
    }
}

impl Recorder {
    #[inline]
    pub fn record(&mut self, ns: u64) {
        let mut ns = ns.max(1);
        if NS_MAX < ns {
            self.above += 1;
            ns = NS_MAX;
        }
        let index = index_of(ns);
        if self.counts[index] == 0 {
            self.touched.push(index as u32);
        }
        self.counts[index] += 1;
    }

    /// Puts what was counted since the last call into this second of the run.
    pub fn close(&mut self, second: u32) {
        if self.touched.is_empty() {
            return;
        }
        self.touched.sort_unstable();
        let counts = &mut self.counts;
        let steps = self
            .touched
            .drain(..)
            .map(|index| (index, std::mem::take(&mut counts[index as usize])))
            .collect();
        self.intervals.push(Interval { second, steps });
    }

    /// All samples that were closed.
    pub fn histogram(&self) -> Histogram<u64> {
        self.histogram_of(|_| true)
    }

    /// The samples of some seconds.
    pub fn histogram_of(&self, seconds: impl Fn(u32) -> bool) -> Histogram<u64> {
        let mut sum = histogram();
        let some = self.intervals.iter().filter(|at| seconds(at.second));
        some.for_each(|interval| interval.add_to(&mut sum));
        sum
    }

    /// Takes over what another thread counted and closed.
    pub fn absorb(&mut self, other: Recorder) {
        self.above += other.above;
        self.intervals.extend(other.intervals);
        self.intervals.sort_by_key(|interval| interval.second);
    }

    /// In the order of their seconds; a second may have several.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// A quantile of the last closed second, without making a histogram.
    pub fn last_quantile(&self, quantile: f64) -> Option<u64> {
        let steps = &self.intervals.last()?.steps;
        let total: u64 = steps.iter().map(|step| u64::from(step.1)).sum();
        let wanted = (total as f64 * quantile).ceil() as u64;
        let mut sum = 0;
        for (index, count) in steps {
            sum += u64::from(*count);
            if wanted <= sum {
                return Some(value_of(*index));
            }
        }
        None
    }
}

/// Quantiles that are told, with their names in the table and in the JSON's objects.
pub const QUANTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50_ns", 0.5),
    ("p90", "p90_ns", 0.9),
    ("p99", "p99_ns", 0.99),
    ("p99.9", "p99_9_ns", 0.999),
    ("p99.99", "p99_99_ns", 0.9999),
];
/// A quantile with fewer samples above it says nothing.
const SAMPLES_ABOVE_MIN: f64 = 10.0;

pub fn is_told(samples: u64, quantile: f64) -> bool {
    SAMPLES_ABOVE_MIN <= samples as f64 * (1.0 - quantile) + 1e-6
}

/// The least quantile that is told of which the generator's own delay is more than a tenth: its
/// name, and the quantile.
pub fn spoiled_from(latency: &Histogram<u64>, own: &Histogram<u64>) -> Option<(&'static str, f64)> {
    // Less than this is the cost of looking at the clock twice and of the read between.
    const NOTHING_NS: u64 = 1_000;
    if latency.is_empty() || own.is_empty() {
        return None;
    }
    let found = QUANTILES.iter().find(|(_, _, quantile)| {
        let own_ns = own.value_at_quantile(*quantile);
        is_told(latency.len(), *quantile)
            && NOTHING_NS < own_ns
            && latency.value_at_quantile(*quantile) < own_ns.saturating_mul(10)
    });
    found.map(|(name, _, quantile)| (*name, *quantile))
}

/// What is told of a latency whose quantiles are spoiled from one on, if any is.
#[derive(Clone, Copy, Default)]
pub struct Upto(Option<f64>);

impl Upto {
    pub fn below(quantile: f64) -> Upto {
        Upto(Some(quantile))
    }

    pub fn has(self, quantile: f64) -> bool {
        self.0.is_none_or(|from| quantile < from)
    }

    /// The largest of all samples is one of those that are spoiled first.
    pub fn has_max(self) -> bool {
        self.0.is_none()
    }

    /// Half of all samples make the most of a mean.
    pub fn has_mean(self) -> bool {
        self.has(0.5)
    }

    pub fn from(self) -> Option<f64> {
        self.0
    }
}

/// All that is known of a latency; a quantile with too few samples above it is null, and so is what
/// is spoiled.
pub fn object(histogram: &Histogram<u64>, upto: Upto) -> Value {
    let count = histogram.len();
    let mut told = Map::new();
    told.insert("count".into(), json!(count));
    let some = |is_told: bool, value: Value| {
        if count == 0 || !is_told {
            Value::Null
        } else {
            value
        }
    };
    told.insert("min_ns".into(), some(true, json!(histogram.min())));
    let mean = json!(histogram.mean().round());
    told.insert("mean_ns".into(), some(upto.has_mean(), mean));
    for (_, key, quantile) in QUANTILES {
        let is_told = is_told(count, quantile) && upto.has(quantile);
        let ns = is_told.then(|| histogram.value_at_quantile(quantile));
        told.insert(key.into(), json!(ns));
    }
    let max = json!(histogram.max());
    told.insert("max_ns".into(), some(upto.has_max(), max));
    if let Some(from) = upto.from() {
        told.insert("spoiled_from".into(), json!(from));
    }
    told.insert("hgrm".into(), json!(encoded(histogram)));
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn every_step_is_as_wide_as_the_histograms() {
        let reference = histogram();
        let mut ns = 1_u64;
        while ns < NS_MAX {
            for value in [ns, ns + 1, ns * 3 / 2, (ns * 2 - 1).min(NS_MAX)] {
                let least = value_of(index_of(value) as u32);
                assert_eq!(least, reference.lowest_equivalent(value), "{value}");
            }
            ns *= 2;
        }
    }

    #[test]
    fn counts_of_seconds_add_up_to_what_a_histogram_holds() {
        let mut recorder = Recorder::default();
        let mut reference = histogram();
        let mut random = crate::load::Random::new(3);
        for second in 0..3 {
            for _ in 0..1000 {
                let bits = random.below(36);
                let ns = 1 + random.below(1 << bits);
                recorder.record(ns);
                reference.record(ns).unwrap();
            }
            recorder.close(second);
        }
        let sum = recorder.histogram();
        assert_eq!(sum.len(), 3000);
        for (_, _, quantile) in QUANTILES {
            assert_eq!(
                sum.value_at_quantile(quantile),
                reference.value_at_quantile(quantile)
            );
        }
        assert_eq!(recorder.intervals().len(), 3);
        let last = recorder.intervals()[2].histogram();
        let told = recorder.last_quantile(0.5).unwrap();
        assert_eq!(told, last.lowest_equivalent(last.value_at_quantile(0.5)));
    }

    #[test]
    fn what_two_threads_counted_is_one_sum_second_by_second() {
        let (mut one, mut two) = (Recorder::default(), Recorder::default());
        for second in 0..3 {
            one.record(1000);
            two.record(2000 + u64::from(second));
            one.close(second);
            two.close(second);
        }
        one.absorb(two);
        assert_eq!(one.histogram().len(), 6);
        assert_eq!(one.histogram_of(|second| second < 1).len(), 2);
        assert_eq!(one.histogram_of(|second| 1 <= second).max(), 2002);
        let seconds: Vec<u32> = one.intervals().iter().map(|at| at.second).collect();
        assert_eq!(seconds, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn what_is_above_a_minute_counts_as_a_minute() {
        let mut recorder = Recorder::default();
        recorder.record(NS_MAX * 2);
        recorder.close(0);
        assert_eq!((recorder.above, recorder.histogram().len()), (1, 1));
    }

    #[test]
    fn an_encoded_histogram_can_be_read_again() {
        let mut sum = histogram();
        sum.record_n(12_345, 7).unwrap();
        let text = encoded(&sum);
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        assert_eq!(read, sum);
    }

    #[test]
    fn own_delay_spoils_every_percentile_from_the_one_it_reaches_on() {
        let (mut latency, mut own) = (histogram(), histogram());
        let from = |latency: &_, own: &_| spoiled_from(latency, own).map(|(name, _)| name);
        latency.record_n(24_000, 99_000).unwrap();
        latency.record_n(1_000_000, 1_000).unwrap();
        own.record_n(1_000, 99_950).unwrap();
        assert_eq!(from(&latency, &own), None);
        own.record_n(500_000, 50).unwrap();
        assert_eq!(from(&latency, &own), Some("p99.99"));
        own.record_n(3_000, 200_000).unwrap();
        assert_eq!(from(&latency, &own), Some("p50"));
    }
}

//! What was found: the figures of all runs, their medians, and ours divided by the others'.

use super::rows::{Figure, Goal, Who};
use crate::report_html::{LATENCIES, Run};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

type Place = (String, Who);

#[derive(Default)]
pub struct Found {
    values: BTreeMap<(String, Who, String), Vec<f64>>,
    /// Of all runs together, for quantiles that one run has too few samples for.
    histograms: BTreeMap<(Place, &'static str), Histogram<u64>>,
    /// What a reader has to know of a row, by its number.
    pub notes: Vec<(u8, String)>,
}

/// Median with least and most.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Median {
    pub middle: f64,
    pub least: f64,
    pub most: f64,
}

impl Median {
    fn of(values: &[f64]) -> Option<Median> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Median {
            middle,
            least,
            most,
        })
    }
}

/// One goal and what became of it.
pub struct Verdict<'a> {
    pub goal: &'a Goal,
    pub ours: Option<Median>,
    pub by: Option<Median>,
    pub ratio: Option<f64>,
    /// None where it was not measured.
    pub is_reached: Option<bool>,
}

impl Found {
    pub fn put(&mut self, test: &str, who: Who, key: &str, value: f64) {
        let place = (test.to_owned(), who, key.to_owned());
        self.values.entry(place).or_default().push(value);
    }

    /// A run that counts.
    pub fn take(&mut self, test: &str, who: Who, run: &Run) {
        for (key, value) in &run.figures {
            self.put(test, who, key, *value);
        }
        for name in LATENCIES {
            let Some(histogram) = run.histogram(name) else {
                continue;
            };
            // What a run does not tell is not told by all of them together.
            if run.upto(name).from().is_some() {
                continue;
            }
            let sum = self
                .histograms
                .entry(((test.to_owned(), who), name))
                .or_insert_with(crate::latency::histogram);
            sum.add(histogram)
                .expect("all of the generator's histograms have the same bounds");
        }
    }

    pub fn median(&self, (test, who, key): (&str, Who, &str)) -> Option<Median> {
        let values = self.values.get(&(test.to_owned(), who, key.to_owned()));
        let told = values.and_then(|values| Median::of(values));
        told.or_else(|| self.pooled(test, who, key))
    }

    fn pooled(&self, test: &str, who: Who, key: &str) -> Option<Median> {
        let (name, quantile) = match key.strip_suffix("_p9999_ns") {
            Some(name) => (name, 0.9999),
            None => (key.strip_suffix("_p999_ns")?, 0.999),
        };
        let place = (test.to_owned(), who);
        let mut all = self.histograms.iter();
        let (_, sum) = all.find(|((at, latency), _)| *at == place && *latency == name)?;
        let is_enough = crate::latency::is_told(sum.len(), quantile);
        let value = sum.value_at_quantile(quantile) as f64;
        is_enough.then_some(Median {
            middle: value,
            least: value,
            most: value,
        })
    }

    pub fn verdict<'a>(&self, goal: &'a Goal) -> Verdict<'a> {
        let ours = self.median(goal.ours);
        let by = goal.by.and_then(|by: Figure| self.median(by));
        let ratio = match (goal.by, ours, by) {
            (Some(_), Some(ours), Some(by)) if 0.0 < by.middle => Some(ours.middle / by.middle),
            _ => None,
        };
        let value = match goal.by {
            Some(_) => ratio,
            None => ours.map(|ours| ours.middle),
        };
        Verdict {
            goal,
            ours,
            by,
            ratio,
            is_reached: value.map(|value| goal.bound.holds(value)),
        }
    }

    /// Every value, for the file that scripts read.
    pub fn values(&self) -> impl Iterator<Item = (&str, Who, &str, &[f64])> {
        self.values
            .iter()
            .map(|((test, who, key), values)| (test.as_str(), *who, key.as_str(), &values[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Bound;
    use super::*;
    use crate::latency::Upto;

    fn goal(by: Option<Figure>, bound: Bound) -> Goal {
        Goal {
            row: 1,
            words: "",
            ours: ("a", Who::Ours, "x"),
            by,
            bound,
        }
    }

    #[test]
    fn medians_are_divided_and_what_was_not_measured_is_no_failure() {
        let mut found = Found::default();
        for value in [9.0, 1.0, 8.0, 7.0] {
            found.put("a", Who::Ours, "x", value);
        }
        let by = Some(("a", Who::Floor, "x"));
        let wanted = goal(by, Bound::AtLeast(2.5));
        assert_eq!(found.verdict(&wanted).is_reached, None);
        found.put("a", Who::Floor, "x", 3.0);
        let verdict = found.verdict(&wanted);
        assert_eq!((verdict.ratio, verdict.is_reached), (Some(2.5), Some(true)));
        let ours = verdict.ours.unwrap();
        assert_eq!((ours.least, ours.middle, ours.most), (1.0, 7.5, 9.0));
        let alone = goal(None, Bound::AtMost(7.4));
        assert_eq!(found.verdict(&alone).is_reached, Some(false));
    }

    #[test]
    fn a_quantile_that_no_run_can_tell_comes_of_all_runs_together() {
        let mut found = Found::default();
        let of = |count: u64, upto: Upto| {
            let mut histogram = crate::latency::histogram();
            histogram.record_n(1000, count).unwrap();
            let object = crate::latency::object(&histogram, upto);
            let run = serde_json::json!({"service": object, "valid": true});
            Run::from_json(run.as_object().unwrap().clone(), "a.json", None).unwrap()
        };
        let figure = ("a", Who::Ours, "service_p9999_ns");
        let (all, some) = (Upto::default(), Upto::below(0.9999));
        found.take("a", Who::Ours, &of(60_000, all));
        assert_eq!(found.median(figure), None);
        // What is spoiled is not pooled.
        found.take("a", Who::Ours, &of(60_000, some));
        assert_eq!(found.median(figure), None);
        found.take("a", Who::Ours, &of(60_000, all));
        assert_eq!(found.median(figure).unwrap().middle, 1000.0);
    }
}

//! Runs sorted by load and contender, and who is compared with whom.

use super::figures::Spread;
use super::run::Run;
use hdrhistogram::Histogram;
use std::collections::BTreeSet;

/// The valid runs of one contender under one load.
pub struct Contender<'a> {
    pub name: &'a str,
    /// Its place among all contenders of the report: its colour.
    pub index: usize,
    pub is_peer: bool,
    pub flush: &'a str,
    pub runs: Vec<&'a Run>,
}

impl Contender<'_> {
    pub fn spread(&self, key: &str) -> Option<Spread> {
        let values: Vec<f64> = self
            .runs
            .iter()
            .filter_map(|run| run.figures.get(key).copied())
            .collect();
        Spread::of(&values)
    }

    /// The histograms of all its runs as one.
    pub fn histogram(&self, latency: &str) -> Option<Histogram<u64>> {
        let mut all: Option<Histogram<u64>> = None;
        for histogram in self
            .runs
            .iter()
            .filter_map(|run| run.histograms.get(latency))
        {
            match &mut all {
                None => {
                    let mut first = histogram.clone();
                    first.auto(true);
                    all = Some(first);
                }
                // One that grows by itself takes every value.
                Some(all) => all.add(histogram).expect("the histogram grows"),
            }
        }
        all.filter(|histogram| !histogram.is_empty())
    }
}

/// What was measured under one load.
pub struct Work<'a> {
    pub name: &'a str,
    pub contenders: Vec<Contender<'a>>,
}

impl Work<'_> {
    /// Names of those the others are divided by: the peers, or without peers the first contender.
    pub fn references(&self) -> Vec<String> {
        let peers: BTreeSet<String> = self
            .contenders
            .iter()
            .filter(|contender| contender.is_peer)
            .map(|contender| peer_name(contender).to_owned())
            .collect();
        if !peers.is_empty() {
            return peers.into_iter().collect();
        }
        let first = self.contenders.first();
        first
            .map(|first| first.name.to_owned())
            .into_iter()
            .collect()
    }

    /// Whom `contender` is compared with under that name: a peer that flushes as it does.
    pub fn reference(&self, contender: &Contender<'_>, name: &str) -> Option<&Contender<'_>> {
        self.contenders.iter().find(|other| {
            if other.is_peer {
                let is_like = other.flush.is_empty() || other.flush == contender.flush;
                peer_name(other) == name && is_like
            } else {
                other.name == name
            }
        })
    }

    pub fn figure_keys(&self) -> BTreeSet<&str> {
        let runs = self.contenders.iter().flat_map(|contender| &contender.runs);
        runs.flat_map(|run| run.figures.keys().map(String::as_str))
            .collect()
    }
}

/// A peer is one peer in each flush mode.
fn peer_name<'a>(contender: &Contender<'a>) -> &'a str {
    let name = contender.name;
    name.strip_suffix(contender.flush)
        .map_or(name, |bare| bare.trim_end())
}

/// Loads and contenders in the order in which they came, peers last.
pub fn works(runs: &[Run]) -> Vec<Work<'_>> {
    let mut names: Vec<&str> = Vec::new();
    let mut works: Vec<Work<'_>> = Vec::new();
    for run in runs {
        let index = names.iter().position(|name| *name == run.contender);
        let index = index.unwrap_or_else(|| {
            names.push(&run.contender);
            names.len() - 1
        });
        let at = works.iter().position(|work| work.name == run.work);
        let at = at.unwrap_or_else(|| {
            works.push(Work {
                name: &run.work,
                contenders: Vec::new(),
            });
            works.len() - 1
        });
        let contenders = &mut works[at].contenders;
        let at = contenders.iter().position(|known| known.index == index);
        let at = at.unwrap_or_else(|| {
            contenders.push(Contender {
                name: &run.contender,
                index,
                is_peer: run.is_peer,
                flush: &run.flush,
                runs: Vec::new(),
            });
            contenders.len() - 1
        });
        if run.is_valid() {
            contenders[at].runs.push(run);
        }
    }
    for work in &mut works {
        work.contenders.sort_by_key(|contender| contender.is_peer);
    }
    works
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(contender: &str, rate: f64, compare: Value, is_valid: bool) -> Run {
        let json = json!({"messages_per_s": rate, "compare": compare, "valid": is_valid});
        let Value::Object(json) = json else {
            panic!("an object")
        };
        Run::from_json(json, "file.json", Some(contender)).unwrap()
    }

    #[test]
    fn void_runs_are_listed_but_do_not_count() {
        let none = json!({"work": "w"});
        let runs = [
            run("a", 1.0, none.clone(), true),
            run("a", 1000.0, none.clone(), false),
            run("b", 8.0, none.clone(), true),
            run("a", 3.0, none, true),
        ];
        let works = works(&runs);
        assert_eq!(works.len(), 1);
        let work = &works[0];
        let spread = work.contenders[0].spread("messages_per_s").unwrap();
        assert_eq!((spread.median, spread.max, spread.count), (2.0, 3.0, 2));
        assert_eq!(work.references(), ["a"]);
        let reference = work.reference(&work.contenders[1], "a").unwrap();
        assert_eq!(reference.name, "a");
    }

    #[test]
    fn like_is_compared_with_like() {
        let told =
            |flush: &str, peer: bool| json!({"work": "w", "flush_family": flush, "peer": peer});
        let runs = [
            run("corelane async", 1.0, told("async", false), true),
            run("corelane sync-dsync", 1.0, told("sync", false), true),
            run("apache async", 1.0, told("async", true), true),
            run("apache sync", 1.0, told("sync", true), true),
        ];
        let works = works(&runs);
        let work = &works[0];
        assert_eq!(work.references(), ["apache"]);
        for (at, wanted) in [(0, "apache async"), (1, "apache sync")] {
            let found = work.reference(&work.contenders[at], "apache").unwrap();
            assert_eq!(found.name, wanted);
        }
    }
}

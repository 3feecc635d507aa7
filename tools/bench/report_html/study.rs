//! Runs sorted by load and contender, and who is compared with whom.

use super::figures::Spread;
use super::run::Run;
use crate::latency::Upto;
use hdrhistogram::Histogram;
use std::collections::BTreeSet;

/// Lines of a picture and columns of a table that the eye still keeps apart: one for each colour.
pub const PANEL_MAX: usize = 8;

/// The valid runs of one contender under one load.
#[derive(Clone)]
pub struct Contender<'a> {
    pub name: &'a str,
    /// Its place among all contenders of the report, or of a panel: its colour.
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

    /// What all of its runs tell of a latency.
    pub fn upto(&self, latency: &str) -> Upto {
        let from = self.runs.iter().filter_map(|run| run.upto(latency).from());
        let least = from.min_by(f64::total_cmp);
        least.map_or(Upto::default(), Upto::below)
    }

    /// The histograms of all its runs as one.
    pub fn histogram(&self, latency: &str) -> Option<Histogram<u64>> {
        let mut all: Option<Histogram<u64>> = None;
        for mut histogram in self.runs.iter().filter_map(|run| run.histogram(latency)) {
            match &mut all {
                None => {
                    histogram.auto(true);
                    all = Some(histogram);
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
    /// What its contenders have in common, where they are not all of them.
    pub part: String,
}

impl<'a> Work<'a> {
    /// Itself, or where there are many contenders some at a time: those whose names differ in the
    /// last word together, and with them those they are divided by.
    pub fn panels(&self) -> Vec<Work<'a>> {
        let all = &self.contenders;
        let max = match all.len() {
            count if count <= PANEL_MAX => count,
            _ => PANEL_MAX.saturating_sub(self.references().len()).max(2),
        };
        let mut parts: Vec<Vec<Contender<'a>>> = Vec::new();
        for group in all.chunk_by(|one, other| front(one.name) == front(other.name)) {
            for group in group.chunks(max.max(1)) {
                match parts.last_mut() {
                    Some(last) if last.len() + group.len() <= max => last.extend_from_slice(group),
                    _ => parts.push(group.to_vec()),
                }
            }
        }
        let count = parts.len();
        let panel = |(at, contenders)| self.panel(contenders, (at + 1, count));
        parts.into_iter().enumerate().map(panel).collect()
    }

    fn panel(&self, contenders: Vec<Contender<'a>>, (number, count): (usize, usize)) -> Work<'a> {
        let part = match common(&contenders) {
            _ if count == 1 => String::new(),
            front if front.is_empty() => format!("part {number} of {count}"),
            front => front,
        };
        let mut with: Vec<Contender<'a>> = Vec::new();
        for name in self.references() {
            for contender in &contenders {
                let reference = self.reference(contender, &name);
                let is_there = |other: &Contender<'_>| {
                    reference.is_some_and(|reference| reference.name == other.name)
                };
                if !with.iter().chain(&contenders).any(is_there) {
                    with.extend(reference.cloned());
                }
            }
        }
        with.extend(contenders);
        if 1 < count {
            let places = with.iter_mut().enumerate();
            places.for_each(|(at, contender)| contender.index = at);
        }
        Work {
            name: self.name,
            contenders: with,
            part,
        }
    }

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
    pub fn reference(&self, contender: &Contender<'_>, name: &str) -> Option<&Contender<'a>> {
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

/// All words of a name but the last.
fn front(name: &str) -> &str {
    name.rsplit_once(' ').map_or("", |(front, _)| front)
}

/// The words with which all of them begin.
fn common(contenders: &[Contender<'_>]) -> String {
    let mut names = contenders.iter().map(|contender| contender.name);
    let mut common: Vec<&str> = names.next().unwrap_or("").split(' ').collect();
    for name in names {
        let alike = common.iter().zip(name.split(' '));
        let count = alike.take_while(|(one, other)| **one == *other).count();
        common.truncate(count);
    }
    common.join(" ")
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
                part: String::new(),
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

    #[test]
    fn a_matrix_is_shown_in_panels_and_each_has_what_it_is_divided_by() {
        let told = json!({"work": "w"});
        let mut runs = Vec::new();
        for flush in ["async", "sync"] {
            for append in ["auto", "ring", "inline"] {
                for egress in ["auto", "copy", "gather", "splice"] {
                    let name = format!("b {flush} {append} {egress}");
                    runs.push(run(&name, 1.0, told.clone(), true));
                }
            }
        }
        let works = works(&runs);
        let panels = works[0].panels();
        let parts: Vec<&str> = panels.iter().map(|panel| panel.part.as_str()).collect();
        let wanted = ["async auto", "async ring", "async inline"];
        assert_eq!(parts[..3], wanted.map(|part| format!("b {part}")));
        assert_eq!(parts.len(), 6);
        for (at, panel) in panels.iter().enumerate() {
            assert_eq!(panel.contenders[0].name, "b async auto auto");
            assert_eq!(panel.contenders.len(), if at == 0 { 4 } else { 5 });
            assert_eq!(panel.references(), ["b async auto auto"]);
            let places: Vec<usize> = panel.contenders.iter().map(|it| it.index).collect();
            assert_eq!(places, (0..panel.contenders.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn few_are_one_panel_and_names_of_one_word_are_filled_in() {
        let told = json!({"work": "w"});
        let runs = |count: usize| -> Vec<Run> {
            let name = |at| format!("broker-{at}");
            (0..count)
                .map(|at| run(&name(at), 1.0, told.clone(), true))
                .collect()
        };
        let few = runs(8);
        let panels = works(&few)[0].panels();
        assert_eq!((panels.len(), panels[0].part.as_str()), (1, ""));
        let many = runs(20);
        let panels = works(&many)[0].panels();
        let counts: Vec<usize> = panels.iter().map(|panel| panel.contenders.len()).collect();
        assert_eq!(counts, [7, 8, 7]);
        assert_eq!(panels[1].part, "part 2 of 3");
    }

    #[test]
    fn a_panel_has_the_peers_that_flush_as_its_contenders_do() {
        let told =
            |flush: &str, peer: bool| json!({"work": "w", "flush_family": flush, "peer": peer});
        let mut runs = Vec::new();
        for flush in ["async", "sync"] {
            for at in 0..6 {
                let name = format!("b {flush} {at}");
                runs.push(run(&name, 1.0, told(flush, false), true));
            }
        }
        runs.push(run("p async", 1.0, told("async", true), true));
        runs.push(run("p sync", 1.0, told("sync", true), true));
        let works = works(&runs);
        let panels = works[0].panels();
        let firsts: Vec<&str> = panels
            .iter()
            .map(|panel| panel.contenders[0].name)
            .collect();
        assert_eq!(firsts, ["p async", "p sync", "p async"]);
    }
}

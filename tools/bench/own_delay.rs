//! The generator's own delay: in which latencies it shows, what is not told because of it, and
//! whether it makes a run void.

use crate::Load;
use crate::latency::{self, Recorder};
use crate::load::OwnDelay;
use crate::ran::Ran;
use hdrhistogram::Histogram;
use std::ops::Range;

/// What the generator itself took, second by second.
pub struct Own<'a> {
    /// How long answers that were there waited for it.
    pickup: &'a Recorder,
    /// How late it sent what was due, in an open loop.
    lateness: Option<&'a Recorder>,
    /// Most requests that one of its threads has outstanding.
    at_once: usize,
    sends: bool,
}

/// A latency that is told, and the seconds of the window that it is of.
pub struct Latency<'a> {
    pub name: &'a str,
    pub histogram: &'a Histogram<u64>,
    pub seconds: &'a Range<u32>,
}

/// From which quantile on a latency is spoiled, and what to say of it.
#[derive(Debug, PartialEq)]
pub struct Spoiled {
    pub from: &'static str,
    pub quantile: f64,
    /// Whether nothing is told from there on.
    pub is_withheld: bool,
    pub is_void: bool,
    pub words: String,
}

impl<'a> Own<'a> {
    pub fn of(ran: &'a Ran) -> Own<'a> {
        Own {
            pickup: &ran.pickup,
            lateness: ran.producer.as_ref().map(|producer| &producer.lateness),
            at_once: ran.at_once,
            sends: ran.producer.is_some(),
        }
    }

    pub fn judge(&self, latency: &Latency<'_>, load: &Load) -> Option<Spoiled> {
        let name = latency.name;
        if name == "lateness" {
            return None;
        }
        let is_from_intended = ["response", "e2e"].iter().any(|of| name.starts_with(of));
        let by = |own: &Recorder| {
            let own = own.histogram_of(|second| latency.seconds.contains(&second));
            latency::spoiled_from(latency.histogram, &own)
        };
        let lateness = self.lateness.filter(|_| is_from_intended).and_then(by);
        let both = lateness.into_iter().chain(by(self.pickup));
        let (from, quantile) = both.min_by(|one, other| one.1.total_cmp(&other.1))?;
        let percentile = load.percentile();
        let is_wanted = quantile * 100.0 <= percentile + 1e-9;
        let is_judged = match load.own_delay {
            OwnDelay::Auto => self.measures_latency(load),
            OwnDelay::Fail => true,
            OwnDelay::Withhold | OwnDelay::Tell => false,
        };
        let is_void = self.is_measured(name) && is_wanted && is_judged;
        let is_withheld = load.own_delay != OwnDelay::Tell;
        let why = match load.own_delay {
            _ if is_void => "; give it a CPU of its own (--cpu), or less to do".to_owned(),
            _ if !self.is_measured(name) => String::new(),
            OwnDelay::Withhold | OwnDelay::Tell => String::new(),
            _ if is_judged => format!("; --percentile {percentile} is judged, and the run counts"),
            _ => format!(
                "; a closed loop with {} requests outstanding measures a rate, which counts: its \
                 answers wait for one another in the generator (--percentile judges one)",
                self.at_once
            ),
        };
        let told = if is_withheld {
            "not told"
        } else {
            "told all the same"
        };
        Some(Spoiled {
            from,
            quantile,
            is_withheld,
            is_void,
            words: format!(
                "the generator's own delay is more than a tenth of {name} at {from}: from there on it is {told}{why}"
            ),
        })
    }

    /// Pulls beside a producer wait for messages, or are those of a group that reads as fast as it
    /// can: neither is a latency that the run is about.
    fn is_measured(&self, name: &str) -> bool {
        let is_of_a_message = ["service", "response", "e2e"];
        is_of_a_message.iter().any(|of| name.starts_with(of)) || !self.sends && name == "pull"
    }

    /// A closed loop with several requests outstanding measures a rate. Its latency is what is
    /// outstanding divided by that rate, whoever lets it wait, and with a generator that has one
    /// CPU beside a server that has one the answers of a turn wait for those that are taken first:
    /// on such a machine that is more than a tenth of p90 or p99 in every run beside a fast server
    /// or a floor (64 × 1 and 64 × 8, 20 of 20 runs), and with one outstanding in none of 40.
    fn measures_latency(&self, load: &Load) -> bool {
        load.is_open_loop() || self.at_once <= 1 || load.percentile.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_of;

    fn recorder(seconds: &[u64]) -> Recorder {
        let mut recorder = Recorder::default();
        for (second, ns) in seconds.iter().enumerate() {
            (0..20_000).for_each(|_| recorder.record(*ns));
            recorder.close(second as u32);
        }
        recorder
    }

    /// What is said of a latency of 100 µs beside answers that waited for 20 µs.
    fn said(name: &str, (at_once, sends): (usize, bool), words: &str) -> Spoiled {
        let (pickup, told) = (recorder(&[20_000]), recorder(&[100_000]).histogram());
        let own = Own {
            pickup: &pickup,
            lateness: None,
            at_once,
            sends,
        };
        let latency = Latency {
            name,
            histogram: &told,
            seconds: &(0..u32::MAX),
        };
        let load = load_of(&format!("--addr 127.0.0.1:1 {words}"));
        own.judge(&latency, &load).expect("it is spoiled")
    }

    #[test]
    fn a_closed_loop_is_void_where_it_measures_a_latency() {
        let alone = said("service", (1, true), "");
        assert!(alone.is_void && alone.from == "p50", "{alone:?}");
        let many = said("service", (512, true), "");
        assert!(!many.is_void, "{many:?}");
        assert!(many.words.contains("512 requests outstanding"), "{many:?}");
        for words in ["--own-delay fail", "--rate 5", "--percentile 99"] {
            assert!(said("service", (512, true), words).is_void, "{words}");
        }
        for words in ["--own-delay tell", "--own-delay withhold"] {
            assert!(!said("service", (1, true), words).is_void, "{words}");
        }
        assert!(said("pull", (1, false), "").is_void);
        assert!(!said("pull", (8, false), "").is_void);
    }

    #[test]
    fn what_is_spoiled_is_told_only_to_who_asks_for_it() {
        for (at_once, words) in [(1, ""), (512, ""), (1, "--own-delay withhold")] {
            let spoiled = said("service", (at_once, true), words);
            assert!(spoiled.is_withheld, "{spoiled:?}");
            assert!(spoiled.words.contains("it is not told"), "{spoiled:?}");
        }
        let told = said("service", (1, true), "--own-delay tell");
        assert!(!told.is_withheld, "{told:?}");
        assert!(told.words.contains("told all the same"), "{told:?}");
    }

    #[test]
    fn a_percentile_above_the_wanted_one_is_said_to_be_spoiled_and_voids_nothing() {
        let mut pickup = recorder(&[1]);
        (0..1000).for_each(|_| pickup.record(50_000));
        pickup.close(0);
        let told = recorder(&[100_000, 100_000]).histogram();
        let own = Own {
            pickup: &pickup,
            lateness: None,
            at_once: 1,
            sends: true,
        };
        let latency = Latency {
            name: "service",
            histogram: &told,
            seconds: &(0..u32::MAX),
        };
        let judge = |words: &str| {
            let load = load_of(&format!("--addr 127.0.0.1:1 {words}"));
            let spoiled = own.judge(&latency, &load).expect("it is spoiled");
            (spoiled.from, spoiled.is_void)
        };
        assert_eq!(judge("--percentile 90"), ("p99", false));
        assert_eq!(judge("--percentile 99"), ("p99", true));
    }

    #[test]
    fn pulls_beside_a_producer_are_not_judged() {
        for name in ["pull", "behind_pull"] {
            assert!(!said(name, (1, true), "--rate 5").is_void, "{name}");
            assert!(!said(name, (1, true), "--own-delay fail").is_void, "{name}");
        }
    }

    #[test]
    fn latencies_of_a_part_of_the_window_are_judged_by_the_delay_of_that_part() {
        let (pickup, lateness) = (recorder(&[1, 1]), recorder(&[1, 50_000]));
        let told = recorder(&[100_000]).histogram();
        let own = Own {
            pickup: &pickup,
            lateness: Some(&lateness),
            at_once: 8,
            sends: true,
        };
        let load = load_of("--addr 127.0.0.1:1 --rate 5");
        let is_void = |name: &str, seconds: Range<u32>| {
            let latency = Latency {
                name,
                histogram: &told,
                seconds: &seconds,
            };
            own.judge(&latency, &load).map(|spoiled| spoiled.is_void)
        };
        for of in ["response", "e2e"] {
            assert_eq!(is_void(&format!("{of}_alone"), 0..1), None);
            assert_eq!(is_void(&format!("{of}_beside"), 1..u32::MAX), Some(true));
        }
        // Sent to answered has nothing of what was sent late.
        assert_eq!(is_void("service_beside", 1..u32::MAX), None);
    }
}

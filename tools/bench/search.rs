//! `produce --search`: the highest rate of an open loop at which a percentile of the response stays
//! below a bound.

use crate::consume::ReadBack;
use crate::latency::is_told;
use crate::own_delay::{Latency, Own};
use crate::produce::Sent;
use crate::ran::Ran;
use crate::report::{Report, short};
use crate::{Load, Outcome, fail, signals};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub quantile: f64,
    pub ns: u64,
    text: String,
}

impl Bound {
    /// Such as p99.9
    fn name(&self) -> &str {
        self.text.split('=').next().unwrap_or("")
    }
}

pub fn parse(text: &str) -> Result<Bound, String> {
    let words = "write pPERCENTILE=TIME, such as p99=5ms, p99.9=800us or p50=1s";
    let (percentile, time) = text
        .strip_prefix('p')
        .and_then(|rest| rest.split_once('='))
        .ok_or(words)?;
    let percentile: f64 = percentile.parse().map_err(|_| words)?;
    let unit_at = time.find(|c: char| c.is_ascii_alphabetic()).ok_or(words)?;
    let factor = match &time[unit_at..] {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return Err(words.into()),
    };
    let number: f64 = time[..unit_at].parse().map_err(|_| words)?;
    let ns = number * factor;
    if !(50.0..100.0).contains(&percentile) || !(1e3..=60e9).contains(&ns) {
        return Err("a percentile is 50 or more and below 100, a time 1us to 60s".into());
    }
    Ok(Bound {
        quantile: percentile / 100.0,
        ns: ns as u64,
        text: text.to_string(),
    })
}

/// Rates at most; the range halves with each after the first few.
const RATES_MAX: usize = 16;
/// The answer is as close as this.
const STEP: f64 = 1.03;
/// From here upwards, doubling, until a rate does not hold; the first is --rate, if told.
const RATE_FIRST: f64 = 1000.0;

/// What a trial says of its rate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Holds,
    Fails,
    /// Not enough messages to tell; at a higher rate there may be.
    TooFew,
    /// The generator itself was too late to tell.
    Spoiled,
}

/// Between which rates the highest one is that holds.
struct Range {
    /// The highest that held, or had too few messages to tell.
    low: f64,
    /// The lowest that did not hold, or that the generator could not tell.
    high: f64,
    /// Whether the generator is what limits the range: the server may hold more.
    is_own: bool,
    /// Whether the last trial was spoiled, and is repeated.
    is_again: bool,
}

impl Range {
    fn new() -> Range {
        Range {
            low: 0.0,
            high: f64::INFINITY,
            is_own: false,
            is_again: false,
        }
    }

    /// The rate to try next; none when no rate is left between.
    fn next(&mut self, rate: f64, verdict: Verdict) -> Option<f64> {
        let was_again = std::mem::take(&mut self.is_again);
        match verdict {
            Verdict::Holds | Verdict::TooFew => self.low = rate,
            Verdict::Fails => (self.high, self.is_own) = (rate, false),
            // Once may be a neighbour's doing.
            Verdict::Spoiled if !was_again => {
                self.is_again = true;
                return Some(rate);
            }
            Verdict::Spoiled => (self.high, self.is_own) = (rate, true),
        }
        let is_closed = self.high.is_finite() && (self.high / STEP <= self.low || self.high < 10.0);
        (!is_closed).then(|| next_rate(self.low, self.high))
    }
}

/// A trial at which the bound held: its report, made when it ended.
struct Held {
    rate: f64,
    report: Report,
    ran: Ran,
}

/// Tries a rate; what came of it is the second, for the list of trials.
fn try_rate(
    load: &Load,
    bound: &Bound,
    depth: ReadBack,
) -> Outcome<(Verdict, Value, Option<Held>)> {
    // Far behind is far enough to know.
    let sent = Sent::run(load, (bound.ns * 10).max(500_000_000))?;
    let mut report = Report::new("produce", &format!("{} · {}", bound.text, load.title()));
    let words = format!(
        "messages a second: the highest rate found at which {} holds",
        bound.text
    );
    report.rate("rate_found_per_s", load.rate, &words);
    let (ran, faults) = sent.conclude(&mut report, load, depth)?;
    if let Some(faults) = faults.filter(|faults| !faults.is_clean()) {
        return fail(format!(
            "at {}/s messages were wrong: {faults:?}; a search is for servers that lose nothing",
            load.rate
        ));
    }
    let producer = ran.producer.as_ref().expect("it sent");
    let response = producer.response.histogram();
    let lateness = producer.lateness.histogram();
    let ns = response.value_at_quantile(bound.quantile);
    let own_ns = lateness.value_at_quantile(bound.quantile);
    let reached = producer.in_window as f64 / load.duration;
    let (unsent, errors) = (
        producer.unsent_requests,
        producer.errors.values().sum::<u64>(),
    );
    let is_answered = unsent == 0 && producer.outstanding == 0 && errors == 0;
    // What was refused has no latency, and tells that the rate does not hold.
    let is_enough = !is_answered || is_told(response.len(), bound.quantile);
    let service = producer.service.histogram();
    let judge = |(name, histogram)| {
        let seconds = &(0..u32::MAX);
        let latency = Latency {
            name,
            histogram,
            seconds,
        };
        Own::of(&ran).judge(&latency, load)
    };
    let spoiled = judge(("response", &response)).or_else(|| judge(("service", &service)));
    let verdict = match spoiled.as_ref() {
        Some(spoiled) if spoiled.is_void => Verdict::Spoiled,
        _ if ran.was_kept_away(load).is_some() => Verdict::Spoiled,
        _ if !is_enough => Verdict::TooFew,
        _ if ns <= bound.ns && is_answered => Verdict::Holds,
        _ => Verdict::Fails,
    };
    let holds = verdict == Verdict::Holds;
    let told = json!({
        "rate_per_s": load.rate, "messages_per_s": reached, "response_ns": ns, "own_delay_ns": own_ns,
        "unsent": unsent, "errors": errors, "enough_samples": is_enough, "holds": holds,
        "spoiled": spoiled.map(|spoiled| spoiled.from),
    });
    eprintln!(
        "  {:>12}/s: {} {} µs, {}",
        short(load.rate),
        bound.name(),
        short(ns as f64 / 1e3),
        match verdict {
            Verdict::Spoiled => "not the server's: the generator's own delay shows in it",
            Verdict::Holds => "holds",
            Verdict::Fails => "does not hold",
            Verdict::TooFew => "too few messages to tell",
        }
    );
    let rate = load.rate;
    let held = holds.then_some(Held { rate, report, ran });
    Ok((verdict, told, held))
}

pub fn run(load: &Load, bound: &Bound, depth: ReadBack) -> Outcome<bool> {
    if 0 < load.count {
        return fail("--search needs whole windows: leave --count out");
    }
    let mut load = load.clone();
    // Own delay is judged where the bound is.
    load.percentile = Some(bound.quantile * 100.0);
    if !load.is_open_loop() {
        load.rate = RATE_FIRST;
    }
    let (mut range, mut rates) = (Range::new(), 0);
    let mut trials = Vec::new();
    let (mut rate_least, mut rate_most) = (load.rate, load.rate);
    let mut best: Option<Held> = None;
    while rates < RATES_MAX {
        let (verdict, told, held) = try_rate(&load, bound, depth)?;
        // What was cut short tells nothing of its rate.
        if signals::is_told() {
            break;
        }
        trials.push(told);
        best = held.or(best);
        let Some(next) = range.next(load.rate, verdict) else {
            break;
        };
        rates += usize::from(!range.is_again);
        load.rate = next;
        rate_least = rate_least.min(load.rate);
        rate_most = rate_most.max(load.rate);
    }
    let Some(Held {
        rate,
        mut report,
        ran,
    }) = best
    else {
        if signals::is_told() {
            return fail("ended by a signal before a rate was found");
        }
        if range.is_own {
            return fail(own_limit_words(bound, range.high, None));
        }
        return fail(format!(
            "{} holds at no rate that was tried, from {}/s to {}/s; where messages were too few, give a longer --duration",
            bound.text,
            short(rate_least),
            short(rate_most)
        ));
    };
    let is_bracketed = range.high.is_finite() && !range.is_own;
    report.value(
        "search",
        json!({"bound": bound.text, "trials": trials, "is_bracketed": is_bracketed, "rate_per_s": rate}),
    );
    if range.is_own {
        report.note(own_limit_words(bound, range.high, Some(rate)));
    } else if !is_bracketed && !signals::is_told() {
        report.note("every rate that was tried held: the true one is higher");
    }
    report.finish_files(&ran, &load)
}

/// From which rate on the generator could not tell, above the one that was found.
fn own_limit_words(bound: &Bound, from: f64, found: Option<f64>) -> String {
    let what = match found {
        Some(found) => format!("rates above {}/s were not the server's limit", short(found)),
        None => "no rate that was tried tells of the server".to_owned(),
    };
    format!(
        "from {}/s on the generator's own delay shows in {}, twice at each rate: {what}, and it may hold more; \
         give the generator a CPU of its own (--cpu), or more of them (--threads)",
        short(from),
        bound.name()
    )
}

/// Doubles until a rate fails, then halves what is between.
fn next_rate(low: f64, high: f64) -> f64 {
    let next = match (low, high) {
        (_, high) if high.is_infinite() => low * 2.0,
        (0.0, high) => high / 4.0,
        (low, high) => (low * high).sqrt(),
    };
    next.round().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_nonsense_is_refused() {
        let bound = parse("p99.9=800us").unwrap();
        assert!((bound.quantile - 0.999).abs() < 1e-9);
        assert_eq!(bound.ns, 800_000);
        assert_eq!(parse("p50=1.5s").unwrap().ns, 1_500_000_000);
        for text in [
            "", "p99", "99=5ms", "p99=5", "p10=5ms", "p100=5ms", "p99=0ms", "p99=5h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_range_closes_in_on_a_limit_wherever_it_is() {
        for limit in [30.0, 900.0, 1_000.0, 47_000.0, 2_000_000.0] {
            let range = searched(|rate| match rate <= limit {
                true => Verdict::Holds,
                false => Verdict::Fails,
            });
            let (low, high) = (range.low, range.high);
            assert!(
                limit / 1.08 <= low && low <= limit,
                "{limit}: {low} to {high}"
            );
            assert!(!range.is_own);
        }
    }

    fn searched(verdict: impl Fn(f64) -> Verdict) -> Range {
        let (mut range, mut rate, mut rates) = (Range::new(), RATE_FIRST, 0);
        while rates < RATES_MAX {
            match range.next(rate, verdict(rate)) {
                Some(next) => rate = next,
                None => break,
            }
            rates += usize::from(!range.is_again);
        }
        range
    }

    #[test]
    fn below_a_rate_that_the_generator_cannot_offer_lower_ones_are_tried() {
        for (own, limit) in [
            (47_000.0, f64::INFINITY),
            (400.0, 900.0),
            (47_000.0, 9_000.0),
        ] {
            let range = searched(|rate| match rate {
                _ if own < rate => Verdict::Spoiled,
                _ if limit < rate => Verdict::Fails,
                _ => Verdict::Holds,
            });
            let least = limit.min(own);
            assert!(
                least / 1.08 <= range.low && range.low <= least,
                "{least}: {} to {}",
                range.low,
                range.high
            );
            // Whose limit it was.
            assert_eq!(range.is_own, own < limit, "{own} {limit}");
        }
        let never = searched(|_| Verdict::Spoiled);
        assert!(never.low == 0.0 && never.high < 10.0 && never.is_own);
    }

    #[test]
    fn one_spoiled_trial_is_tried_again_and_limits_nothing() {
        let mut range = Range::new();
        assert_eq!(range.next(500.0, Verdict::Spoiled), Some(500.0));
        assert_eq!(range.next(500.0, Verdict::Holds), Some(1_000.0));
        assert_eq!(range.next(1_000.0, Verdict::Spoiled), Some(1_000.0));
        assert_eq!((range.is_own, range.low), (false, 500.0));
        assert!(
            range
                .next(1_000.0, Verdict::Spoiled)
                .is_some_and(|rate| rate < 1_000.0)
        );
        assert!(range.is_own);
    }
}

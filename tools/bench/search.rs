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

/// Trials at most; the range halves with each after the first few.
const TRIALS_MAX: usize = 16;
/// The answer is as close as this.
const STEP: f64 = 1.03;
/// From here upwards, doubling, until a rate does not hold; the first is --rate, if told.
const RATE_FIRST: f64 = 1000.0;

/// One rate, tried.
struct Trial {
    rate: f64,
    holds: bool,
    /// Whether there were enough messages to tell.
    is_enough: bool,
    /// Whether the generator itself was too late to tell.
    is_spoiled: bool,
    told: Value,
}

/// A trial at which the bound held: its report, made when it ended.
struct Held {
    rate: f64,
    report: Report,
    ran: Ran,
}

fn try_rate(load: &Load, bound: &Bound, depth: ReadBack) -> Outcome<(Trial, Option<Held>)> {
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
    let is_spoiled = spoiled.as_ref().is_some_and(|spoiled| spoiled.is_void);
    let holds = is_enough && ns <= bound.ns && is_answered && !is_spoiled;
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
        match (holds, is_enough) {
            _ if is_spoiled => "not the server's: the generator's own delay shows in it",
            (true, _) => "holds",
            (false, true) => "does not hold",
            (false, false) => "too few messages to tell",
        }
    );
    let trial = Trial {
        rate: load.rate,
        holds,
        is_enough,
        is_spoiled,
        told,
    };
    let rate = load.rate;
    Ok((trial, holds.then_some(Held { rate, report, ran })))
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
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut trials = Vec::new();
    let (mut rate_least, mut rate_most) = (load.rate, load.rate);
    let mut best: Option<Held> = None;
    // Why it ended at a rate that the generator could not offer.
    let mut own_limit = None;
    let mut is_again = false;
    while trials.len() < TRIALS_MAX {
        let (trial, held) = try_rate(&load, bound, depth)?;
        // What was cut short tells nothing of its rate.
        if signals::is_told() {
            break;
        }
        if trial.is_spoiled {
            trials.push(trial.told);
            // Once may be a neighbour's doing.
            if is_again {
                own_limit = Some(own_limit_words(bound, trial.rate));
                break;
            }
            is_again = true;
            continue;
        }
        is_again = false;
        // At a rate too low to tell, a higher one may tell.
        if trial.holds || !trial.is_enough {
            low = trial.rate;
        } else {
            high = trial.rate;
        }
        trials.push(trial.told);
        best = held.or(best);
        if high.is_finite() && (high / STEP <= low || high < 10.0) {
            break;
        }
        load.rate = next_rate(low, high);
        rate_least = rate_least.min(load.rate);
        rate_most = rate_most.max(load.rate);
    }
    let Some(Held {
        rate,
        mut report,
        ran,
    }) = best
    else {
        if let Some(words) = own_limit {
            return fail(words);
        }
        if signals::is_told() {
            return fail("ended by a signal before a rate was found");
        }
        return fail(format!(
            "{} holds at no rate that was tried, from {}/s to {}/s; where messages were too few, give a longer --duration",
            bound.text,
            short(rate_least),
            short(rate_most)
        ));
    };
    let is_bracketed = high.is_finite() && own_limit.is_none();
    report.value(
        "search",
        json!({"bound": bound.text, "trials": trials, "is_bracketed": is_bracketed, "rate_per_s": rate}),
    );
    if let Some(words) = own_limit {
        report.note(words);
    } else if !is_bracketed && !signals::is_told() {
        report.note("every rate that was tried held: the true one is higher");
    }
    report.finish_files(&ran, &load)
}

fn own_limit_words(bound: &Bound, rate: f64) -> String {
    format!(
        "at {}/s the generator's own delay shows in {}, twice: the search ended, and the server may hold more; \
         give the generator a CPU of its own (--cpu), or more of them (--threads)",
        short(rate),
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
            let (mut low, mut high, mut rate) = (0.0, f64::INFINITY, RATE_FIRST);
            let mut count = 0;
            while count < TRIALS_MAX && (high.is_infinite() || low < high / STEP) {
                if rate <= limit {
                    low = rate;
                } else {
                    high = rate;
                }
                rate = next_rate(low, high);
                count += 1;
            }
            assert!(
                limit / 1.08 <= low && low <= limit,
                "{limit}: {low} to {high}"
            );
        }
    }
}

//! When requests of an open loop are due, whatever the server does: constant, Poisson, ramp, burst.

use super::Random;
use crate::clock::SECOND_NS;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Arrival {
    /// One after another, always the same time apart.
    Constant,
    /// Independent of each other, as many users' are: exponential gaps.
    Poisson,
    /// The rate rises or falls in a line from this one (messages a second) to that of `--rate`.
    Ramp { from_per_s: f64 },
    /// So many requests at one moment, then none until the mean rate is met.
    Burst { requests: u32 },
}

pub fn parse(text: &str) -> Result<Arrival, String> {
    let (name, number) = text.split_once(':').unwrap_or((text, ""));
    match (name, number) {
        ("constant", "") => Ok(Arrival::Constant),
        ("poisson", "") => Ok(Arrival::Poisson),
        ("ramp", from) => match from.parse::<f64>() {
            Ok(from_per_s) if (0.0..=100e6).contains(&from_per_s) => {
                Ok(Arrival::Ramp { from_per_s })
            }
            _ => Err("write ramp:FROM, the rate it begins with, in messages a second".into()),
        },
        ("burst", count) => match count.parse() {
            Ok(requests @ 1..=1_000_000) => Ok(Arrival::Burst { requests }),
            _ => Err("write burst:COUNT, 1 to 1000000 requests at once".into()),
        },
        _ => Err("write constant, poisson, ramp:FROM or burst:COUNT".into()),
    }
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arrival::Constant => write!(f, "constant"),
            Arrival::Poisson => write!(f, "poisson"),
            Arrival::Ramp { from_per_s } => write!(f, "ramp:{from_per_s}"),
            Arrival::Burst { requests } => write!(f, "burst:{requests}"),
        }
    }
}

/// The due times of requests, one after another, none before its predecessor.
pub struct Schedule {
    arrival: Arrival,
    start_ns: u64,
    /// Where a ramp begins and how long it takes: the measured window.
    ramp_ns: (f64, f64),
    /// Requests a nanosecond.
    rate: f64,
    from_rate: f64,
    /// Part of a gap by which constant arrivals come later than those of another thread.
    phase: f64,
    index: u64,
    /// Of the Poisson process: kept as a fraction, so that rounding does not shift the rate.
    at_ns: f64,
    random: Random,
    due_ns: u64,
}

impl Schedule {
    /// `rate_per_s` and a ramp's are in messages, `batch` of which are a request.
    pub fn new(arrival: Arrival, rate_per_s: f64, batch: u32, seed: u64) -> Schedule {
        let of = |per_s: f64| per_s / f64::from(batch) / SECOND_NS as f64;
        let from_rate = match arrival {
            Arrival::Ramp { from_per_s } => of(from_per_s),
            _ => 0.0,
        };
        Schedule {
            arrival,
            start_ns: 0,
            ramp_ns: (0.0, 1.0),
            rate: of(rate_per_s),
            from_rate,
            phase: 0.0,
            index: 0,
            at_ns: 0.0,
            random: Random::new(seed),
            due_ns: 0,
        }
    }

    /// Constant arrivals of several threads shall not come all at once.
    pub fn with_phase(mut self, phase: f64) -> Schedule {
        self.phase = phase;
        self
    }

    /// Begins now; a ramp rises from `window_start_ns` to `window_end_ns`.
    pub fn start(&mut self, now_ns: u64, window_start_ns: u64, window_end_ns: u64) {
        self.start_ns = now_ns;
        self.ramp_ns = (
            (window_start_ns - now_ns) as f64,
            (window_end_ns - window_start_ns) as f64,
        );
        self.due_ns = self.start_ns + self.after_ns() as u64;
    }

    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    pub fn advance(&mut self) {
        self.index += 1;
        self.due_ns = self.start_ns + self.after_ns() as u64;
    }

    /// Time from the start to request `index`.
    fn after_ns(&mut self) -> f64 {
        let index = self.index as f64;
        match self.arrival {
            Arrival::Constant => (index + self.phase) / self.rate,
            Arrival::Poisson => {
                self.at_ns += -self.random.unit_above_zero().ln() / self.rate;
                self.at_ns
            }
            Arrival::Burst { requests } => {
                let burst = self.index / u64::from(requests);
                burst as f64 * f64::from(requests) / self.rate
            }
            Arrival::Ramp { .. } => self.ramp_after_ns(index),
        }
    }

    /// The inverse of how many requests are due until a time: a line, a parabola, a line.
    fn ramp_after_ns(&self, index: f64) -> f64 {
        let (before_ns, ramp_ns) = self.ramp_ns;
        let (from, to) = (self.from_rate, self.rate);
        let in_warmup = from * before_ns;
        if index < in_warmup {
            return index / from;
        }
        let rest = index - in_warmup;
        let in_ramp = (from + to) / 2.0 * ramp_ns;
        if in_ramp <= rest {
            return before_ns + ramp_ns + (rest - in_ramp) / to.max(1e-12);
        }
        let slope = (to - from) / ramp_ns;
        if slope.abs() < 1e-24 {
            return before_ns + rest / to;
        }
        // rest = from·t + slope·t²/2
        let root = (from * from + 2.0 * slope * rest).max(0.0).sqrt();
        before_ns + (root - from) / slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Due times until `end_ns`, from a start at 5 s, with a window from 6 s to 10 s.
    fn due(arrival: Arrival, rate: f64, batch: u32) -> Vec<u64> {
        let mut schedule = Schedule::new(arrival, rate, batch, 7);
        schedule.start(5 * SECOND_NS, 6 * SECOND_NS, 10 * SECOND_NS);
        let mut times = Vec::new();
        while schedule.due_ns() < 10 * SECOND_NS {
            times.push(schedule.due_ns());
            schedule.advance();
        }
        assert!(times.is_sorted(), "{arrival}");
        assert!(times.iter().all(|at| 5 * SECOND_NS <= *at), "{arrival}");
        times
    }

    #[test]
    fn constant_gaps_are_all_the_same_and_a_batch_makes_them_longer() {
        let times = due(Arrival::Constant, 1000.0, 10);
        assert_eq!(times.len(), 500);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 10_000_000));
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let times = due(Arrival::Poisson, 20_000.0, 1);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((48_500.0..51_500.0).contains(&mean), "{mean}");
        let spread = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&spread), "{spread}");
        let short = gaps.iter().filter(|gap| **gap < 50_000.0).count();
        let share = short as f64 / gaps.len() as f64;
        assert!((0.61..0.65).contains(&share), "1 − 1/e, not {share}");
    }

    #[test]
    fn a_ramp_goes_from_one_rate_to_the_other_within_the_window() {
        for (from, to) in [
            (1000.0, 9000.0),
            (9000.0, 1000.0),
            (0.0, 8000.0),
            (500.0, 500.0),
        ] {
            let times = due(Arrival::Ramp { from_per_s: from }, to, 1);
            let within = |begin_ms: u64, end_ms: u64| {
                let range = begin_ms * 1_000_000..end_ms * 1_000_000;
                times.iter().filter(|at| range.contains(at)).count() as f64
            };
            let near = |count: f64, wanted: f64| (count - wanted).abs() <= 2.0 + wanted * 0.01;
            assert!(near(within(5000, 6000), from), "{from}→{to}: warm-up");
            assert!(near(within(6000, 10_000), (from + to) * 2.0), "{from}→{to}");
            let last = to + (from - to) / 16.0;
            assert!(near(within(9500, 10_000), last / 2.0), "{from}→{to}: end");
        }
    }

    #[test]
    fn bursts_come_together_and_keep_the_mean() {
        let times = due(Arrival::Burst { requests: 50 }, 1000.0, 1);
        assert_eq!(times.len(), 5000);
        for burst in times.chunks(50) {
            assert!(burst.iter().all(|at| *at == burst[0]));
        }
        assert_eq!(times[50] - times[0], 50_000_000);
    }

    #[test]
    fn words_for_arrivals_go_both_ways_and_nonsense_is_refused() {
        for text in ["constant", "poisson", "ramp:100", "burst:64"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "ramp",
            "ramp:x",
            "burst:0",
            "burst",
            "poisson:3",
            "steady",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

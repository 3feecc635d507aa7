//! What went in and out, by topic and group: sums since the start and over windows.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Included, Unbounded};

use crate::command::Rate;

/// A sample every ten seconds gives the last minute, one a minute the hour, one an hour the day.
const WINDOWS: [(u64, usize); 3] = [(10_000, 7), (60_000, 61), (3_600_000, 25)];

/// A sum with its past.
#[derive(Debug, Default)]
struct Item {
    sum: u64,
    /// How often something was added: sums are averaged over it.
    times: u64,
    /// (wall milliseconds, sum, times) at the samples of each window, oldest first: the first is what stood at its
    /// beginning. What has not changed since the last one is not kept again, so that ten thousand topics to which
    /// nobody sends cost a sample each and not a day of them.
    samples: [VecDeque<(u64, u64, u64)>; 3],
}

/// Names whose turn it is at once; of more the same share comes each time, so that all have had it after 25 times: every five
/// seconds. With ten thousand topics all of them would take a shard some milliseconds.
const TURN_MIN: usize = 256;
const TURNS: usize = 25;

/// How long a window is, milliseconds.
const fn span_ms((period_ms, count): (u64, usize)) -> u64 {
    period_ms * (count as u64 - 1)
}

impl Item {
    fn add(&mut self, value: u64) {
        self.sum += value;
        self.times += 1;
    }

    fn sample(&mut self, now_ms: u64) {
        for (window, samples) in WINDOWS.into_iter().zip(&mut self.samples) {
            let (period_ms, _) = window;
            match samples.back() {
                // What was added before its first turn counts too.
                None => samples.push_back((now_ms, 0, 0)),
                Some((at, sum, times)) => {
                    if at + period_ms <= now_ms && (*sum, *times) != (self.sum, self.times) {
                        samples.push_back((now_ms, self.sum, self.times));
                    }
                }
            }
            let start_ms = now_ms.saturating_sub(span_ms(window));
            while samples.get(1).is_some_and(|(at, _, _)| *at <= start_ms) {
                samples.pop_front();
                if samples.len() * 4 < samples.capacity() {
                    samples.shrink_to(samples.len() * 2);
                }
            }
        }
    }

    fn rate(&self, window: usize, now_ms: u64) -> Rate {
        let (since_ms, sum, times) = self.samples[window]
            .front()
            .copied()
            .unwrap_or((now_ms, self.sum, self.times));
        let since_ms = since_ms.max(now_ms.saturating_sub(span_ms(WINDOWS[window])));
        let seconds = (now_ms.saturating_sub(since_ms) as f64 / 1000.0).max(1.0);
        let (sum, times) = (self.sum - sum, self.times - times);
        Rate {
            sum: sum as i64,
            tps: sum as f64 / seconds,
            average: if times == 0 {
                0.0
            } else {
                sum as f64 / times as f64
            },
        }
    }
}

type Items = BTreeMap<String, Item>;

fn add(items: &mut Items, key: &str, value: u64) {
    match items.get_mut(key) {
        Some(item) => item.add(value),
        None => items.entry(key.to_owned()).or_default().add(value),
    }
}

/// All sums of a shard. Names are RocketMQ's (P§2.10, 315).
#[derive(Debug, Default)]
pub struct Statistics {
    /// By topic: how many, and their bytes.
    put: BTreeMap<String, (Item, Item)>,
    /// By topic and group; joined as `topic@group` only when somebody asks.
    got: BTreeMap<String, BTreeMap<String, (Item, Item)>>,
    sent_back: Items,
    all_put: Item,
    all_got: Item,
    fetches_found: Item,
    fetches_missed: Item,
    /// From which name on samples are taken next, of each table.
    next: [String; 3],
}

/// Those of a table whose turn it is.
fn take_turn<V>(table: &mut BTreeMap<String, V>, next: &mut String, mut visit: impl FnMut(&mut V)) {
    let count = TURN_MIN.max(table.len() / TURNS);
    let mut rest = table.range_mut::<str, _>((Included(next.as_str()), Unbounded));
    rest.by_ref()
        .take(count)
        .for_each(|(_, value)| visit(value));
    *next = rest
        .next()
        .map_or_else(String::new, |(name, _)| name.clone());
}

impl Statistics {
    /// Messages were stored together, `size` bytes in all.
    pub(super) fn put(&mut self, topic: &str, count: u64, size: u64) {
        let (numbers, sizes) = match self.put.get_mut(topic) {
            Some(items) => items,
            None => self.put.entry(topic.to_owned()).or_default(),
        };
        numbers.add(count);
        sizes.add(size);
        self.all_put.add(count);
    }

    /// Messages were handed out.
    pub(super) fn got(&mut self, group: &str, topic: &str, count: u32, size: u64) {
        let groups = match self.got.get_mut(topic) {
            Some(groups) => groups,
            None => self.got.entry(topic.to_owned()).or_default(),
        };
        let (numbers, sizes) = match groups.get_mut(group) {
            Some(items) => items,
            None => groups.entry(group.to_owned()).or_default(),
        };
        numbers.add(u64::from(count));
        sizes.add(size);
        self.all_got.add(u64::from(count));
    }

    /// A message was sent back by a group.
    pub(super) fn sent_back(&mut self, topic: &str, group: &str) {
        add(&mut self.sent_back, &format!("{topic}@{group}"), 1);
    }

    /// Pulls so far that found something, and that did not.
    pub(super) const fn count_fetches(&mut self, found: u64, missed: u64) {
        self.fetches_found.sum = found;
        self.fetches_missed.sum = missed;
    }

    /// Takes samples where they are due. Called a few times a second.
    pub fn sample(&mut self, now_ms: u64) {
        let of_pair = |(numbers, sizes): &mut (Item, Item)| {
            numbers.sample(now_ms);
            sizes.sample(now_ms);
        };
        let [put, got, sent_back] = &mut self.next;
        take_turn(&mut self.put, put, of_pair);
        take_turn(&mut self.got, got, |groups| {
            groups.values_mut().for_each(of_pair);
        });
        take_turn(&mut self.sent_back, sent_back, |item| item.sample(now_ms));
        let of_all = [&mut self.all_put, &mut self.all_got];
        let of_fetches = [&mut self.fetches_found, &mut self.fetches_missed];
        for item in of_all.into_iter().chain(of_fetches) {
            item.sample(now_ms);
        }
    }

    fn item(&self, name: &str, key: &str) -> Option<&Item> {
        let of_group = || {
            let (topic, group) = key.rsplit_once('@')?;
            self.got.get(topic)?.get(group)
        };
        match name {
            "TOPIC_PUT_NUMS" => self.put.get(key).map(|(numbers, _)| numbers),
            "TOPIC_PUT_SIZE" => self.put.get(key).map(|(_, sizes)| sizes),
            "GROUP_GET_NUMS" => of_group().map(|(numbers, _)| numbers),
            "GROUP_GET_SIZE" => of_group().map(|(_, sizes)| sizes),
            "SNDBCK_PUT_NUMS" => self.sent_back.get(key),
            "BROKER_PUT_NUMS" => Some(&self.all_put),
            "BROKER_GET_NUMS" => Some(&self.all_got),
            _ => None,
        }
    }

    /// Rates over the last minute, hour and day; `None` for what was never counted.
    #[must_use]
    pub fn rates(&self, name: &str, key: &str, now_ms: u64) -> Option<[Rate; 3]> {
        let item = self.item(name, key)?;
        Some([0, 1, 2].map(|window| item.rate(window, now_ms)))
    }

    /// Messages per second a group takes from all its topics.
    #[must_use]
    pub fn consume_tps(&self, group: &str, topics: &[String], now_ms: u64) -> f64 {
        topics
            .iter()
            .filter_map(|topic| self.got.get(topic)?.get(group))
            .map(|(numbers, _)| numbers.rate(0, now_ms).tps)
            .sum()
    }

    /// Messages per second stored and handed out, over about 10 s, a minute and an hour.
    #[must_use]
    pub fn broker_tps(&self, now_ms: u64) -> [[f64; 3]; 2] {
        Self::tps_of([&self.all_put, &self.all_got], now_ms)
    }

    /// Pulls per second that found something and that did not, over the same times.
    pub(super) fn fetch_tps(&self, now_ms: u64) -> [[f64; 3]; 2] {
        Self::tps_of([&self.fetches_found, &self.fetches_missed], now_ms)
    }

    fn tps_of(items: [&Item; 2], now_ms: u64) -> [[f64; 3]; 2] {
        items.map(|item| [0, 1, 2].map(|window| item.rate(window, now_ms).tps))
    }

    /// Forgets a topic.
    pub fn remove_topic(&mut self, topic: &str) {
        self.put.remove(topic);
        self.got.remove(topic);
        self.sent_back
            .retain(|key, _| key.rsplit_once('@').is_none_or(|(of, _)| of != topic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_window_and_unknown_names_are_unknown() {
        let mut statistics = Statistics::default();
        statistics.sample(0);
        for second in 0..100u64 {
            statistics.put("t", 1, 100);
            statistics.got("g", "t", 2, 200);
            statistics.sample(second * 1000);
        }
        let [minute, hour, _] = statistics
            .rates("TOPIC_PUT_NUMS", "t", 99_000)
            .expect("counted");
        assert!((55..=70).contains(&minute.sum), "{minute:?}");
        assert_eq!(hour.sum, 100, "the first one too: {hour:?}");
        let [minute, ..] = statistics
            .rates("GROUP_GET_SIZE", "t@g", 99_000)
            .expect("counted");
        assert!((minute.average - 200.0).abs() < 1e-9);
        assert_eq!(statistics.rates("TOPIC_PUT_NUMS", "other", 0), None);
        assert_eq!(statistics.rates("NOTHING", "t", 0), None);
    }

    #[test]
    fn a_topic_to_which_nobody_sends_keeps_one_sample_a_window_and_its_rates_go_to_zero() {
        let mut statistics = Statistics::default();
        let mut seconds = 0..;
        let mut pass = |statistics: &mut Statistics, count: usize, sends: bool| {
            for second in seconds.by_ref().take(count) {
                if sends {
                    statistics.put("t", 1, 100);
                }
                statistics.sample(second * 1000);
            }
        };
        let sums = |statistics: &Statistics, second: u64| {
            let rates = statistics.rates("TOPIC_PUT_NUMS", "t", second * 1000);
            rates.expect("counted").map(|rate| rate.sum)
        };
        pass(&mut statistics, 100, true);
        pass(&mut statistics, 30, false);
        let [minute, hour, day] = sums(&statistics, 129);
        assert!(
            (25..=45).contains(&minute),
            "half of the last minute: {minute}"
        );
        assert_eq!((hour, day), (100, 100));
        pass(&mut statistics, 100, false);
        assert_eq!(sums(&statistics, 229), [0, 100, 100]);
        pass(&mut statistics, 3_600, false);
        assert_eq!(sums(&statistics, 3_829), [0, 0, 100]);
        pass(&mut statistics, 90_000, false);
        assert_eq!(sums(&statistics, 93_829), [0; 3]);
        let (numbers, sizes) = &statistics.put["t"];
        for samples in numbers.samples.iter().chain(&sizes.samples) {
            assert_eq!(samples.len(), 1);
            assert!(samples.capacity() <= 4, "{}", samples.capacity());
        }
        // And as soon as somebody sends, the rate is that of the window and not of the pause.
        pass(&mut statistics, 30, true);
        let rates = statistics.rates("TOPIC_PUT_NUMS", "t", 93_859_000);
        let [minute, ..] = rates.expect("counted");
        assert!((25..=30).contains(&minute.sum), "{minute:?}");
        assert!((0.4..=0.5).contains(&minute.tps), "{minute:?}");
    }

    #[test]
    fn of_many_topics_each_has_its_turn_within_five_seconds() {
        const COUNT: usize = 10_000;
        let mut statistics = Statistics::default();
        let sampled = |statistics: &Statistics| {
            let items = statistics.put.values();
            let sampled = items.filter(|(numbers, _)| !numbers.samples[0].is_empty());
            sampled.count()
        };
        for number in 0..COUNT {
            statistics.put(&format!("t{number:05}"), 1, 100);
        }
        statistics.sample(0);
        assert_eq!(sampled(&statistics), COUNT / TURNS, "one turn");
        for tick in 1..TURNS as u64 {
            statistics.sample(tick * 200);
        }
        assert_eq!(sampled(&statistics), COUNT);
        // For a hundred seconds one message a second to each.
        for tick in 25..525 {
            if tick % 5 == 0 {
                for number in 0..COUNT {
                    statistics.put(&format!("t{number:05}"), 1, 100);
                }
            }
            statistics.sample(tick * 200);
        }
        for number in [0, 1, COUNT / 2, COUNT - 1] {
            let rates = statistics.rates("TOPIC_PUT_NUMS", &format!("t{number:05}"), 105_000);
            let [minute, ..] = rates.expect("counted");
            assert!((0.9..=1.1).contains(&minute.tps), "{number}: {minute:?}");
        }
    }
}

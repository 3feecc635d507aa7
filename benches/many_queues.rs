//! What thousands of topics and idle connections cost one shard: time to make them, rate, memory, pauses,
//! and the time of a start.
//!
//! `cargo bench --bench many_queues -- --topics 10000 --connections 5000`; with `SMOKE=1` a few of each.

mod common;
#[path = "../tests/kit/mod.rs"]
mod kit;
#[path = "many_queues/load.rs"]
mod load;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Parser;
use common::{is_smoke, right, show, smoke_passed, table, tiny_or};
use kit::Broker;
use load::{Load, QUEUES, make_topics, pauses};

/// Words behind `cargo bench --bench many_queues --`.
#[derive(Parser)]
struct Words {
    /// Topics of 8 queues each
    #[arg(long, default_value_t = 10_000)]
    topics: usize,
    /// Idle connections
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Messages of each round
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Rounds; the loads take turns in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for which one message after the other is timed
    #[arg(long, default_value_t = 35)]
    seconds: u64,
    /// Flags of the broker
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    broker: String,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Words {
    fn tiny() -> Self {
        Self {
            topics: 20,
            connections: 10,
            messages: 400,
            rounds: 1,
            seconds: 1,
            broker: String::new(),
            bench: false,
        }
    }
}

fn main() {
    let words = if is_smoke() {
        Words::tiny()
    } else {
        Words::parse()
    };
    // As many descriptors for this side's ends.
    corelane::io::raise_file_limit();
    let folder = common::folder();
    let flags: Vec<&str> = words.broker.split_whitespace().collect();
    let broker = Broker::start(folder.path(), &flags);
    let mut report = Report::default();
    report.memory(&broker, "fresh");
    make_topics(&mut broker.client(), 0..1);
    let mut load = Load::connect(broker.port);
    load.send(1, words.messages);
    report.memory(&broker, "one topic");
    pauses_of(&mut report, &broker, 1, words.seconds.min(10), "one topic");
    make_all(&mut report, &broker, words.topics);
    report.memory(&broker, "topics made");
    let queues = words.topics * QUEUES;
    let (took, rate) = time(|| load.send_one_each(queues), queues);
    report.line(
        "first message of each queue",
        &format!("{rate:.0} messages/s, {took:.1} s"),
    );
    report.memory(&broker, "a message in each queue");
    compare(&mut report, &broker, &mut load, &words);
    report.memory(&broker, "after the rounds");
    let (took, idle) = timed(|| connect(broker.port, words.connections));
    report.line("idle connections made in", &format!("{took:.2} s"));
    report.memory(&broker, "with idle connections");
    pauses_of(
        &mut report,
        &broker,
        words.topics,
        words.seconds,
        "all topics",
    );
    report.memory(&broker, "at the end");
    drop(idle);
    let last = load.sent();
    drop(load);
    starts(&mut report, broker, words.topics, last);
    report.print();
    smoke_passed("many_queues", "topics, rounds, pauses and starts run");
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let value = work();
    (start.elapsed().as_secs_f64(), value)
}

fn time(work: impl FnOnce(), count: usize) -> (f64, f64) {
    let (took, ()) = timed(work);
    (took, count as f64 / took)
}

/// In tenths, so that what grows with what is there already shows.
fn make_all(report: &mut Report, broker: &Broker, topics: usize) {
    let mut client = broker.client();
    let step = (topics / 10).max(1);
    let mut each = Vec::new();
    for start in (1..topics).step_by(step) {
        let end = (start + step).min(topics);
        let cpu = cpu_ns(broker);
        let (took, ()) = timed(|| make_topics(&mut client, start..end));
        let count = (end - start) as f64;
        each.push((took * 1e6 / count, (cpu_ns(broker) - cpu) / 1e3 / count));
    }
    let list = |pick: fn(&(f64, f64)) -> f64| {
        let parts: Vec<String> = each.iter().map(|part| show(pick(part))).collect();
        parts.join(" ")
    };
    report.line("µs for a topic, by tenths", &list(|part| part.0));
    report.line("µs of the server's CPU for it", &list(|part| part.1));
}

/// One topic and all of them in turn: messages/s and the server's µs a message.
fn compare(report: &mut Report, broker: &Broker, load: &mut Load, words: &Words) {
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..words.rounds {
        for (which, topics) in [1, words.topics].into_iter().enumerate() {
            let cpu = cpu_ns(broker);
            let (_, rate) = time(|| load.send(topics, words.messages), words.messages);
            figures[which].push((rate, (cpu_ns(broker) - cpu) / 1e3 / words.messages as f64));
        }
    }
    let mut medians = Vec::new();
    for (name, mut figures) in ["one topic", "all topics"].into_iter().zip(figures) {
        figures.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (least, median) = (figures[0].0, figures[figures.len() / 2]);
        let greatest = figures[figures.len() - 1].0;
        report.line(
            &format!("{name}: messages/s"),
            &format!(
                "{:.0} ({least:.0}–{greatest:.0}), {} µs of CPU each",
                median.0,
                show(median.1)
            ),
        );
        medians.push(median);
    }
    let rates = medians[1].0 / medians[0].0;
    let costs = medians[1].1 / medians[0].1;
    report.line(
        "all topics to one",
        &format!("rate × {rates:.2}, CPU × {costs:.2}"),
    );
}

fn pauses_of(report: &mut Report, broker: &Broker, topics: usize, seconds: u64, what: &str) {
    let times = pauses(&mut broker.client(), topics, Duration::from_secs(seconds));
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    report.line(
        &format!("{what}: one after the other"),
        &format!(
            "p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs of {}",
            show(at(0.5)),
            show(at(0.99)),
            show(at(0.999)),
            show(at(1.0)),
            times.len()
        ),
    );
}

fn connect(port: u16, count: usize) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
    (0..count).map(connect).collect()
}

/// Time from exec to an acknowledgement, after kill -9 and after a stop in order.
fn starts(report: &mut Report, mut broker: Broker, topics: usize, sent: usize) {
    for stop in ["kill -9", "a stop"] {
        let (stopping, ()) = timed(|| {
            if stop == "a stop" {
                assert_eq!(broker.stop(), Some(0), "{}", broker.log());
            }
        });
        let started = Instant::now();
        broker = broker.start_again();
        let ready = started.elapsed().as_secs_f64() * 1e3;
        let topic = load::name(topics - 1);
        assert_eq!(broker.client().produce(&topic, 0, b"x").code, 0);
        let acknowledged = started.elapsed().as_secs_f64() * 1e3;
        report.line(
            &format!("start after {stop}"),
            &format!("ready {ready:.0} ms, first answer {acknowledged:.0} ms; the stop took {stopping:.2} s"),
        );
        report.memory(&broker, &format!("started after {stop}"));
    }
    let kept = load::stored(&mut broker.client(), topics);
    // One message of each start is not of the load.
    assert_eq!(kept, sent + 2, "every message is in its queue");
}

/// Nanoseconds that all threads of the broker have run.
fn cpu_ns(broker: &Broker) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("it runs");
    let ran = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    ran.sum()
}

/// Lines for the end.
#[derive(Default)]
struct Report(Vec<(String, String)>);

impl Report {
    fn line(&mut self, what: &str, says: &str) {
        if !is_smoke() {
            eprintln!("{what}: {says}");
        }
        self.0.push((what.to_owned(), says.to_owned()));
    }

    fn memory(&mut self, broker: &Broker, when: &str) {
        std::thread::sleep(Duration::from_millis(tiny_or(0, 500)));
        let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
        let status = status.expect("it runs");
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(f64::NAN)
        };
        let says = format!(
            "{} MiB, of which anonymous {} MiB",
            show(kib("VmRSS") / 1024.0),
            show(kib("RssAnon") / 1024.0)
        );
        self.line(&format!("memory, {when}"), &says);
    }

    fn print(&self) {
        if is_smoke() {
            return;
        }
        let mut table = table(["what", "measured"].into_iter());
        for (what, says) in &self.0 {
            table.add_row(right(vec![what.clone(), says.clone()]));
        }
        println!("{table}");
    }
}

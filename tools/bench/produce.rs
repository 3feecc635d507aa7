//! The `produce` command, and what it shares with the others: window, marks, words.

use crate::check::Faults;
use crate::connection::Poll;
use crate::control::Control;
use crate::producer::Producer;
use crate::report::Report;
use crate::server::Meter;
use crate::{Load, Outcome, clock, consume};
use serde_json::json;
use std::time::Duration;

/// How long the last answers may take.
pub const DRAIN_NS: u64 = 10 * clock::SECOND_NS;
/// The measured part of a run.
#[derive(Clone, Copy)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub fn after(now_ns: u64, load: &Load) -> Window {
        let start_ns = now_ns + clock::seconds_ns(load.warmup);
        Window {
            start_ns,
            end_ns: start_ns + clock::seconds_ns(load.duration),
        }
    }

    pub fn has(&self, at_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&at_ns)
    }

    pub fn seconds(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / clock::SECOND_NS as f64
    }
}

/// Words that head a report.
pub fn title(load: &Load) -> String {
    let way = if 0.0 < load.rate {
        format!("open loop at {}/s", load.rate)
    } else {
        "closed loop".to_string()
    };
    let batch = if 1 < load.batch {
        format!("{} × ", load.batch)
    } else {
        String::new()
    };
    format!(
        "{} · {} · {} connections × {} in flight · {batch}{} B · {} queues · {way} · {} s after {} s of warm-up",
        load.addr,
        load.topic,
        load.connections,
        load.in_flight,
        load.size,
        load.queues,
        load.duration,
        load.warmup
    )
}

pub fn describe(report: &mut Report, load: &Load) {
    report.value("addr", json!(load.addr.to_string()));
    report.value("topic", json!(load.topic));
    report.value("connections", json!(load.connections));
    report.value("in_flight", json!(load.in_flight));
    report.value("size_bytes", json!(load.size));
    report.value("batch", json!(load.batch));
    report.value("queues", json!(load.queues));
    report.value("rate_intended_per_s", json!(load.rate));
    report.value("duration_s", json!(load.duration));
    report.value("warmup_s", json!(load.warmup));
}

/// Compares what the queues grew by with what was acknowledged.
fn check_stored(
    control: &mut Control,
    load: &Load,
    before: &[u64],
    producer: &Producer,
) -> Outcome<(Faults, Vec<u64>)> {
    let give_up_ns = clock::now_ns() + DRAIN_NS;
    let unsure = producer.unsure();
    loop {
        let ends = control.ends(&load.topic, load.queues)?.unwrap_or_default();
        let stored: u64 = ends
            .iter()
            .zip(before)
            .map(|(end, start)| end.saturating_sub(*start))
            .sum();
        // A broker may index a message a little after it acknowledged it.
        if producer.acknowledged <= stored || give_up_ns < clock::now_ns() {
            let faults = Faults {
                lost: producer.acknowledged.saturating_sub(stored),
                duplicated: stored.saturating_sub(producer.acknowledged + unsure),
                ..Faults::default()
            };
            return Ok((faults, ends));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn run(load: &Load, read_back: bool) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    control.create_topic(&load.topic, load.queues)?;
    let before = control.ends(&load.topic, load.queues)?;
    let mut poll = Poll::new()?;
    let mut producer = Producer::connect(load, &poll, 0)?;
    let mut meter = Meter::new(load.server_pid)?;
    let window = Window::after(clock::now_ns(), load);
    producer.start(&poll, window)?;
    let mut marks = Marks::default();
    let wait_ms = if producer.is_open_loop() { 0 } else { 10 };
    let mut ready = Vec::new();
    loop {
        poll.wait(wait_ms, &mut ready)?;
        for token in &ready {
            producer.on_ready(&poll, *token)?;
        }
        producer.issue_due(&poll)?;
        let now_ns = clock::now_ns();
        let window = producer.end_at_count(now_ns);
        marks.pass(now_ns, window, &mut meter, producer.acknowledged)?;
        if producer.is_drained(now_ns) || window.end_ns + DRAIN_NS < now_ns {
            break;
        }
    }
    let mut report = Report::new("produce", &title(load));
    describe(&mut report, load);
    producer.report(&mut report, load);
    meter.report(
        &mut report,
        marks.between(),
        producer.acknowledged,
        !producer.is_open_loop(),
    )?;
    match before {
        None => report.note("the server cannot tell its offsets: what it stored was not counted"),
        Some(before) => {
            let (mut faults, ends) = check_stored(&mut control, load, &before, &producer)?;
            if read_back {
                faults.add(consume::read_back(load, &before, &ends, &producer)?);
                report.note(format!(
                    "read back and checked: {} messages",
                    producer.acknowledged
                ));
            }
            report.faults(faults);
        }
    }
    report.finish(load.json.as_deref())
}

/// Takes the meter's readings when the window begins and ends, with the messages counted then.
#[derive(Default)]
pub struct Marks {
    begun: Option<u64>,
    ended: Option<u64>,
}

impl Marks {
    pub fn pass(
        &mut self,
        now_ns: u64,
        window: Window,
        meter: &mut Meter,
        messages: u64,
    ) -> Outcome<()> {
        if self.begun.is_none() && window.start_ns <= now_ns {
            self.begun = Some(messages);
            meter.begin()?;
        }
        if self.ended.is_none() && window.end_ns <= now_ns {
            self.ended = Some(messages);
            meter.end()?;
        }
        Ok(())
    }

    /// Messages between the meter's readings.
    pub fn between(&self) -> u64 {
        self.ended
            .unwrap_or(0)
            .saturating_sub(self.begun.unwrap_or(0))
    }
}

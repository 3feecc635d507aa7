//! End to end: one generator sends and receives, so both ends read the same clock.

use crate::connection::Poll;
use crate::consume::{Depth, Readers, Ways};
use crate::control::Control;
use crate::produce::{DRAIN_NS, Marks, Window, describe, title};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::report::{Report, histogram};
use crate::server::Meter;
use crate::{Load, Outcome, clock, fail};

/// What Java's push consumer asks for.
const SUSPEND_MS: u32 = 15_000;

pub fn run(load: &Load) -> Outcome<bool> {
    let mut control = Control::connect(load.addr)?;
    control.create_topic(&load.topic, load.queues)?;
    let Some(ends) = control.ends(&load.topic, load.queues)? else {
        return fail(format!(
            "{} cannot tell its offsets; e2e needs code 30",
            load.addr
        ));
    };
    let mut poll = Poll::new()?;
    let mut producer = Producer::connect(load, &poll, 0)?;
    let first_token = load.connections as usize;
    let readers = ends
        .iter()
        .enumerate()
        .map(|(queue, end)| Reader::new(queue, queue as u32, *end, None, false))
        .collect();
    let ways = Ways {
        depth: Depth::Every,
        suspend_ms: SUSPEND_MS,
        repeats: false,
    };
    let mut readers = Readers::connect(load, &poll, first_token, readers, ways)?;
    let mut meter = Meter::new(load.server_pid)?;
    readers.start(&poll)?;
    let window = Window::after(clock::now_ns(), load);
    producer.start(&poll, window)?;
    let mut marks = Marks::default();
    let mut latency = histogram();
    let (run, mut received) = (producer.run, 0);
    let wait_ms = if producer.is_open_loop() { 0 } else { 10 };
    let mut ready = Vec::new();
    loop {
        poll.wait(wait_ms, &mut ready)?;
        for token in &ready {
            if *token < first_token {
                producer.on_ready(&poll, *token)?;
                continue;
            }
            readers.on_ready(&poll, *token, window, |of_run, intended_ns, now_ns| {
                if of_run == run {
                    received += 1;
                    if window.has(intended_ns) {
                        latency.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
                    }
                }
            })?;
        }
        producer.issue_due(&poll)?;
        let now_ns = clock::now_ns();
        let window = producer.end_at_count(now_ns);
        marks.pass(now_ns, window, &mut meter, producer.acknowledged)?;
        let is_done = producer.is_drained(now_ns) && producer.acknowledged <= received;
        if is_done || window.end_ns + DRAIN_NS < now_ns {
            break;
        }
    }
    let mut report = Report::new("e2e", &title(load));
    describe(&mut report, load);
    producer.report(&mut report, load);
    report.latency("e2e", "a message, intended to received", &latency);
    let mut faults = readers.faults();
    for (queue, stream, next) in producer.streams() {
        let came = readers.readers[queue as usize]
            .checker
            .next_sequence(run, stream);
        faults.lost += next.saturating_sub(came);
    }
    report.value("received", serde_json::json!(received));
    readers.report(&mut report, "pull_");
    meter.report(
        &mut report,
        marks.between(),
        producer.acknowledged,
        !producer.is_open_loop(),
    )?;
    report.faults(faults);
    report.finish(load.json.as_deref())
}

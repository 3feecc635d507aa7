//! Every recorded conversation of a stock client with Apache RocketMQ, repeated on a fresh broker of
//! ours, is answered as Apache answered it, but for the differences listed in `tests/README.md`.

mod wire;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use wire::broker::{Broker, is_reference};
use wire::compare::Difference;
use wire::recording::Recording;
use wire::replay::Outcome;
use wire::{codes, differences, prepare, recording, replay};

const THREADS: usize = 3;

/// `CORELANE_WIRE_ONLY` (a part of a name) narrows the replay to some recordings.
fn chosen() -> (Vec<Recording>, bool) {
    let only = std::env::var("CORELANE_WIRE_ONLY").unwrap_or_default();
    let mut recordings = recording::all();
    recordings.retain(|recording| codes::is_replayed(&recording.name));
    recordings.retain(|recording| recording.name.contains(&only));
    assert!(!recordings.is_empty(), "no recording has {only:?} in its name");
    (recordings, only.is_empty())
}

#[test]
fn recorded_conversations_are_answered_as_apache_answered_them() {
    let (mut recordings, is_all) = chosen();
    recordings.sort_by_key(|recording| prepare::settings(&recording.name, is_reference()));
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Difference>> = Mutex::new(Vec::new());
    let answers = AtomicUsize::new(0);
    let threads = if is_reference() { 1 } else { THREADS };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut broker = None;
                while let Some(recording) = recordings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let settings = prepare::settings(&recording.name, is_reference());
                    let fresh = Broker::fresh(settings, broker.take());
                    let outcome = replayed(recording, &fresh);
                    broker = Some(fresh);
                    answers.fetch_add(outcome.answer_count, Ordering::Relaxed);
                    found.lock().expect("the list").extend(outcome.differences);
                }
            });
        }
    });
    let found = found.into_inner().expect("the list");
    let answers = answers.into_inner();
    eprintln!("{} recordings, {answers} answers, {} differences", recordings.len(), found.len());
    judge(found, is_all);
}

fn replayed(recording: &Recording, broker: &Broker) -> Outcome {
    let table = table();
    let is_known =
        |difference: &Difference| table.iter().any(|allowed| allowed.matches(difference));
    let begin = Instant::now();
    let outcome = replay::replay(recording, broker, &is_known);
    let count = outcome.differences.iter().filter(|found| !is_known(found)).count();
    let (answers, time) = (outcome.answer_count, begin.elapsed().as_millis());
    eprintln!("{}: {answers} answers, {count} differences, {time} ms", recording.name);
    if 0 < count && !is_reference() {
        eprintln!("log of {}:\n{}", recording.name, broker.log_tail());
    }
    outcome
}

/// The reference is compared with itself: nothing is allowed to it.
fn table() -> Vec<differences::Allowed> {
    if is_reference() { Vec::new() } else { differences::allowed() }
}

fn judge(found: Vec<Difference>, is_all: bool) {
    let table = table();
    type Key = (i32, String, String, String);
    let mut surprises: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for difference in found {
        let rows: Vec<_> = table.iter().filter(|allowed| allowed.matches(&difference)).collect();
        rows.iter().for_each(|allowed| allowed.seen.set(allowed.seen.get() + 1));
        if rows.is_empty() {
            let place = format!("{}:{}", difference.recording, difference.index + 1);
            let Difference { code, place: field, recorded, ours, .. } = difference;
            surprises.entry((code, field, recorded, ours)).or_default().push(place);
        }
    }
    let mut report = String::new();
    for ((code, place, recorded, ours), at) in &surprises {
        report += &format!(
            "request {code}, {place}\n  Apache: {recorded}\n  ours:   {ours}\n  at {}\n",
            at[..at.len().min(6)].join(", ")
        );
    }
    let stale = table.iter().filter(|allowed| is_all && allowed.seen.get() == 0);
    for allowed in stale {
        let (request, place) = (&allowed.request, &allowed.place);
        report += &format!("listed in tests/README.md, but not seen: request {request}, {place}\n");
    }
    assert!(report.is_empty(), "{} differences not listed:\n{report}", surprises.len());
}

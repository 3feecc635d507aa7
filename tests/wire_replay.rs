//! Every recorded conversation of a stock client with Apache RocketMQ, repeated on a fresh broker,
//! is answered as Apache answered it, but for the differences listed in `tests/README.md`.

mod wire;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use wire::broker::{Broker, is_reference};
use wire::compare::{Comparison, Difference};
use wire::frame::Frame;
use wire::learned::Learned;
use wire::recording::Recording;
use wire::replay::Outcome;
use wire::{codes, differences, prepare, recording, replay};

const THREADS: usize = 3;

/// `CORELANE_WIRE_ONLY` (parts of names, with commas) narrows the replay to some recordings.
fn chosen() -> (Vec<Recording>, bool) {
    let only = std::env::var("CORELANE_WIRE_ONLY").unwrap_or_default();
    let mut recordings = recording::all();
    recordings.retain(|recording| codes::is_replayed(&recording.name));
    recordings.retain(|recording| only.split(',').any(|part| recording.name.contains(part)));
    assert!(
        !recordings.is_empty(),
        "no recording has {only:?} in its name"
    );
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
                    let requests = recording.frames.iter().map(|frame| frame.frame.code);
                    let is_alone = requests.into_iter().any(codes::needs_own_server);
                    let settings = prepare::settings(&recording.name, is_reference());
                    let fresh = Broker::fresh(settings, broker.take().filter(|_| !is_alone));
                    let outcome = replayed(recording, &fresh);
                    broker = Some(fresh).filter(|_| !is_alone);
                    answers.fetch_add(outcome.answer_count, Ordering::Relaxed);
                    found.lock().expect("the list").extend(outcome.differences);
                }
            });
        }
    });
    let found = found.into_inner().expect("the list");
    let answers = answers.into_inner();
    eprintln!(
        "{} recordings, {answers} answers, {} differences",
        recordings.len(),
        found.len()
    );
    judge(found, is_all);
}

fn replayed(recording: &Recording, broker: &Broker) -> Outcome {
    let table = table();
    let is_known =
        |difference: &Difference| table.iter().any(|allowed| allowed.matches(difference));
    let begin = Instant::now();
    let outcome = replay::replay(recording, broker, &is_known);
    let count = outcome
        .differences
        .iter()
        .filter(|found| !is_known(found))
        .count();
    let (answers, time) = (outcome.answer_count, begin.elapsed().as_millis());
    eprintln!(
        "{}: {answers} answers, {count} differences, {time} ms",
        recording.name
    );
    if 0 < count && !is_reference() {
        eprintln!("log of {}:\n{}", recording.name, broker.log_tail());
    }
    outcome
}

/// The reference is compared with itself: nothing is allowed to it.
fn table() -> Vec<differences::Allowed> {
    if is_reference() {
        Vec::new()
    } else {
        differences::allowed()
    }
}

fn judge(found: Vec<Difference>, is_all: bool) {
    let table = table();
    type Key = (i32, String, String, String);
    let mut surprises: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for difference in found {
        let rows: Vec<_> = table
            .iter()
            .filter(|allowed| allowed.matches(&difference))
            .collect();
        rows.iter()
            .for_each(|allowed| allowed.seen.set(allowed.seen.get() + 1));
        if rows.is_empty() {
            let place = format!("{}:{}", difference.recording, difference.index + 1);
            let Difference {
                code,
                place: field,
                recorded,
                ours,
                ..
            } = difference;
            surprises
                .entry((code, field, recorded, ours))
                .or_default()
                .push(place);
        }
    }
    let mut report = String::new();
    for ((code, place, recorded, ours), at) in &surprises {
        report += &format!(
            "request {code}, {place}\n  Apache: {recorded}\n  ours:   {ours}\n  at {}\n",
            at[..at.len().min(6)].join(", ")
        );
    }
    let stale = table
        .iter()
        .filter(|allowed| is_all && allowed.seen.get() == 0);
    for allowed in stale {
        let (request, place) = (&allowed.request, &allowed.place);
        report += &format!("listed in tests/README.md, but not seen: request {request}, {place}\n");
    }
    assert!(
        report.is_empty(),
        "{} differences not listed:\n{report}",
        surprises.len()
    );
}

/// Every fault planted into Apache's own answers is found: the comparison is not blind.
#[test]
fn a_planted_fault_in_an_answer_is_seen() {
    let mut planted_count = 0;
    for recording in recording::all() {
        let learned = Learned::new(&recording, "apache".to_owned());
        for (request, answer) in recording.answers() {
            let (request, recorded) = (&request.frame, &answer.frame);
            let places = |ours: &Frame| -> Vec<String> {
                let learned = &learned;
                let comparison = Comparison {
                    request,
                    recorded,
                    ours,
                    learned,
                    may_have_more: false,
                };
                comparison
                    .differences()
                    .into_iter()
                    .map(|(place, _, _)| place)
                    .collect()
            };
            let at = format!("{} frame {}", recording.name, answer.index + 1);
            assert_eq!(
                places(recorded),
                Vec::<String>::new(),
                "{at}: equal to itself"
            );
            for (place, ours) in planted(request, recorded) {
                let seen = places(&ours);
                assert!(
                    seen.iter().any(|s| s.starts_with(&place)),
                    "{at}: {place} is not seen"
                );
                planted_count += 1;
            }
        }
    }
    assert!(
        10_000 < planted_count,
        "only {planted_count} faults were planted"
    );
}

/// Wrong forms of an answer, each with the place where the fault must be seen.
fn planted(request: &Frame, recorded: &Frame) -> Vec<(String, Frame)> {
    let mut planted = Vec::new();
    let mut plant = |place: &str, change: &dyn Fn(&mut Frame)| {
        let mut ours = recorded.clone();
        change(&mut ours);
        planted.push((place.to_owned(), ours));
    };
    plant("code", &|ours| ours.code += 1);
    plant("remark", &|ours| {
        ours.remark = Some("another remark".to_owned())
    });
    for name in recorded.fields().keys() {
        let place = format!("ext.{name}");
        plant(&place, &|ours| {
            drop(ours.ext.as_mut().and_then(|ext| ext.remove(name)))
        });
        plant(&place, &|ours| ours.set_field(name, "another kind"));
    }
    plant("ext.more", &|ours| {
        ours.ext
            .get_or_insert_default()
            .insert("more".into(), "1".into());
    });
    if recorded.code != 0 || recorded.body.is_empty() {
        plant("body", &|ours| ours.body = b"{}".to_vec());
        return planted;
    }
    plant("body", &|ours| ours.body.clear());
    if recorded.body.starts_with(b"{") {
        plant("body", &|ours| {
            // Another name for the first key.
            let at = ours.body.iter().position(|byte| *byte == b'"').unwrap_or(0);
            ours.body.insert(at + 1, b'X');
        });
    }
    let records = prepare::records_of(request, recorded);
    if let Some(first) = records.first() {
        let body_at = 84 + host_growth(first.sys_flag);
        plant("record.queue id", &|ours| ours.body[15] ^= 1);
        plant("record.flag", &|ours| ours.body[19] ^= 1);
        plant("record.sys flag", &|ours| ours.body[39] ^= 1);
        plant("record.reconsume times", &|ours| {
            ours.body[body_at - 9] ^= 1
        });
        if !first.body.is_empty() {
            plant("record.body", &|ours| ours.body[body_at + 4] ^= 1);
        }
        let size = u32::from_be_bytes(recorded.body[..4].try_into().expect("four bytes")) as usize;
        plant(
            if 1 < records.len() { "records" } else { "body" },
            &|ours| {
                ours.body.drain(..size);
            },
        );
        plant("body", &|ours| ours.body.truncate(size - 1));
    }
    planted
}

/// How many bytes more than two IPv4 addresses the hosts of a record take.
fn host_growth(sys_flag: i32) -> usize {
    12 * (usize::from(sys_flag & 0x10 != 0) + usize::from(sys_flag & 0x20 != 0))
}

//! The generator beside a broker that does wrong: each wrong is seen and named.

mod server;

use crate::{Load, consume, e2e, load_of, mixed, produce};
use clap::Parser;
use serde_json::Value;
use server::{Wrong, broker};
use std::net::SocketAddr;

/// A command's options from words.
#[derive(Parser)]
struct Words<A: clap::Args> {
    #[command(flatten)]
    options: A,
}

fn options<A: clap::Args>(words: &str) -> A {
    let words = std::iter::once("x").chain(words.split_whitespace());
    Words::parse_from(words).options
}

/// Runs something with a load and gives its JSON.
fn run(addr: SocketAddr, words: &str, command: impl Fn(&Load) -> crate::Outcome<bool>) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let size = if words.contains("--size") {
        ""
    } else {
        "--size 100"
    };
    // Tests share CPUs: who spins takes the server's.
    let wait = if words.contains("--wait") {
        ""
    } else {
        "--wait sleep"
    };
    let load = load_of(&format!(
        "--addr {addr} --queues 2 {size} --warmup 0 --own-delay tell {wait} --json {} {words}",
        path.display()
    ));
    load.check().unwrap();
    let told = command(&load).unwrap();
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(json["valid"], told, "{json}");
    json
}

const COUNT: &str = "--connections 3 --in-flight 4 --count 2000 --duration 30";
const BRIEFLY: &str = "--connections 3 --in-flight 4 --duration 1";

fn produce_all(load: &Load) -> crate::Outcome<bool> {
    produce::run(load, &options(""))
}

fn produce_unread(load: &Load) -> crate::Outcome<bool> {
    produce::run(load, &options("--read-back none"))
}

fn end_to_end(load: &Load) -> crate::Outcome<bool> {
    e2e::run(load, options(""))
}

fn produce(wrong: Wrong) -> Value {
    run(broker(wrong), COUNT, produce_all)
}

#[test]
fn a_right_broker_is_valid_whichever_way_it_is_loaded() {
    let addr = broker(Wrong::Nothing);
    let json = run(addr, COUNT, produce_all);
    assert_eq!(json["valid"], true, "{json}");
    assert_eq!(json["acknowledged"], 2000);
    assert_eq!(json["checks"]["messages_read_back"], 2000);
    let json = run(addr, "--connections 3 --duration 2", |load| {
        consume::run(load, &options("--groups 2"))
    });
    assert_eq!(json["valid"], true, "{json}");
    assert_eq!(json["topic_messages"], 2000);
    assert!(1 <= json["passes"].as_u64().unwrap(), "{json}");
    for rate in [
        "--rate 1000",
        "",
        "--rate 2000 --arrival poisson",
        "--rate 900 --arrival burst:30",
    ] {
        let json = run(addr, &format!("--topic live {BRIEFLY} {rate}"), end_to_end);
        assert_eq!(json["valid"], true, "{json}");
        assert_eq!(json["received"], json["acknowledged"]);
        assert!(100 < json["e2e_samples"].as_u64().unwrap(), "{json}");
    }
}

#[test]
fn every_shape_of_load_is_stored_as_it_was_sent() {
    for words in [
        "--size 40-3000 --topics 3",
        "--size exp:300 --batch 5",
        "--keys 10 --tags a,bb,ccc",
        "--engine epoll --batch 3 --keys 2",
        "--wait spin --size 64:9,2000:1",
    ] {
        let json = run(
            broker(Wrong::Nothing),
            &format!("{COUNT} {words}"),
            produce_all,
        );
        assert_eq!(json["valid"], true, "{words}: {json}");
        // Batches end a little above the count.
        let acknowledged = json["acknowledged"].as_u64().unwrap();
        assert!((2000..2060).contains(&acknowledged), "{words}: {json}");
    }
}

#[test]
fn a_count_is_kept_by_more_threads_than_it_has_messages_and_said_where_it_is_not_reached() {
    let words = "--threads 2 --connections 2 --count 1 --duration 1";
    let json = run(broker(Wrong::Nothing), words, produce_all);
    assert_eq!(json["acknowledged"], 1, "{json}");
    let words = "--count 100000000 --duration 0.2";
    let json = run(broker(Wrong::Nothing), words, produce_unread);
    let notes = json["notes"].as_array().unwrap();
    let is_said = |note: &Value| note.as_str().is_some_and(|note| note.contains("--count"));
    assert!(notes.iter().any(is_said), "{json}");
}

#[test]
fn every_wrong_that_a_broker_does_is_named() {
    for (wrong, key) in [
        (Wrong::Lose, "lost"),
        (Wrong::LoseRest, "lost"),
        (Wrong::Repeat, "duplicated"),
        (Wrong::Swap, "reordered"),
        (Wrong::Flip, "corrupted"),
        (Wrong::Cut, "corrupted"),
        (Wrong::Misplace, "corrupted"),
        (Wrong::Echo, "unexpected_answers"),
        (Wrong::Jump, "lost"),
    ] {
        let json = produce(wrong);
        assert_eq!(json["valid"], false, "{wrong:?}: {json}");
        assert!(0 < json[key].as_u64().unwrap(), "{wrong:?}: {json}");
        assert_eq!(json["checks"][key], json[key], "{wrong:?}");
    }
}

#[test]
fn end_to_end_and_mixed_name_them_too() {
    let mut runs = Vec::new();
    for (wrong, key) in [
        (Wrong::Lose, "lost"),
        (Wrong::LoseRest, "lost"),
        (Wrong::Repeat, "duplicated"),
        (Wrong::Flip, "corrupted"),
        (Wrong::Misplace, "corrupted"),
        (Wrong::Echo, "unexpected_answers"),
    ] {
        // Not Swap: what was stored before is read before, and cannot change places any more.
        runs.push(std::thread::spawn(move || {
            let words = format!("{BRIEFLY} --rate 1000");
            for json in [
                run(broker(wrong), &words, end_to_end),
                run(broker(wrong), &words, |load| {
                    mixed::run(load, &options("--groups 2 --backlog 0"))
                }),
            ] {
                assert_eq!(json["valid"], false, "{wrong:?}: {json}");
                assert!(0 < json[key].as_u64().unwrap(), "{wrong:?}: {json}");
            }
        }));
    }
    runs.into_iter().for_each(|run| run.join().unwrap());
}

#[test]
fn groups_that_follow_get_all_and_the_one_behind_reads_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let json = run(
        broker(Wrong::Nothing),
        &format!("{BRIEFLY} --rate 500"),
        |load| {
            let mut load = load.clone();
            load.hlog = Some(log.clone());
            mixed::run(&load, &options("--groups 2 --backlog 3000"))
        },
    );
    assert_eq!(json["valid"], true, "{json}");
    let text = std::fs::read_to_string(&log).unwrap();
    for name in ["pull", "behind_pull"] {
        assert!(text.contains(&format!("Tag={name},")), "{name}: {text}");
    }
    let acknowledged = json["acknowledged"].as_u64().unwrap();
    assert_eq!(json["received"], acknowledged * 2);
    assert_eq!(json["backlog_messages"], 3000);
    assert!(
        0.0 < json["behind_messages_per_s"].as_f64().unwrap(),
        "{json}"
    );
}

/// Two generators that run on one topic at the same time; their JSON.
fn beside(wrong: Wrong, command: fn(&Load) -> crate::Outcome<bool>) -> [Value; 2] {
    let addr = broker(wrong);
    let words = "--connections 3 --in-flight 4 --rate 500 --duration";
    let other = std::thread::spawn(move || run(addr, &format!("{words} 1.5"), produce_all));
    std::thread::sleep(std::time::Duration::from_millis(400));
    let own = run(addr, &format!("{words} 0.8"), command);
    [own, other.join().unwrap()]
}

#[test]
fn two_generators_on_one_topic_pass_over_what_the_other_one_sent() {
    for command in [produce_all, produce_unread, end_to_end] {
        for json in beside(Wrong::Nothing, command) {
            assert_eq!(json["valid"], true, "{json}");
            assert!(0 < json["foreign_messages"].as_u64().unwrap(), "{json}");
            assert_eq!(json["checks"]["foreign_messages"], json["foreign_messages"]);
        }
    }
    let alone = run(broker(Wrong::Nothing), COUNT, produce_all);
    assert_eq!(alone["foreign_messages"], 0, "{alone}");
}

#[test]
fn what_a_broker_does_to_an_own_message_is_seen_among_those_of_others() {
    for (wrong, key) in [(Wrong::Repeat, "duplicated"), (Wrong::Lose, "lost")] {
        // Whose message it was is chance; it is one of the two runs.
        let count = |json: &Value| json[key].as_u64().unwrap();
        let [own, other] = beside(wrong, produce_all);
        assert_eq!(count(&own) + count(&other), 1, "{own} {other}");
        assert_eq!(count(&own) == 0, own["valid"] == true, "{own}");
    }
}

#[test]
fn a_loss_is_seen_without_reading_back() {
    let json = run(broker(Wrong::Lose), COUNT, produce_unread);
    assert_eq!(json["lost"], 1, "{json}");
}

#[test]
fn a_refused_message_is_an_error_and_not_a_loss() {
    let json = produce(Wrong::Refuse);
    assert_eq!(json["valid"], true, "{json}");
    assert_eq!(json["errors"]["2"], 1, "{json}");
    assert_eq!(json["acknowledged"], 2000);
}

#[test]
fn a_run_of_refusals_is_void_and_its_latencies_are_of_what_was_granted() {
    let json = run(broker(Wrong::RefuseRest), BRIEFLY, produce_all);
    assert_eq!(json["valid"], false, "{json}");
    let void = json["void_because"].to_string();
    for words in ["refused", "code 2 (SYSTEM_BUSY)", "--in-flight"] {
        assert!(void.contains(words), "{words}: {void}");
    }
    let granted = json["acknowledged"].as_u64().unwrap();
    assert!(json["service_samples"].as_u64().unwrap() <= granted);
    assert!(granted < json["errors"]["2"].as_u64().unwrap(), "{json}");
}

#[test]
fn pulls_that_are_refused_void_a_run_that_reads() {
    let addr = broker(Wrong::RefusePulls);
    run(addr, COUNT, produce_unread);
    let json = run(addr, "--duration 1", |load| {
        consume::run(load, &options(""))
    });
    assert_eq!(json["valid"], false, "{json}");
    let void = json["void_because"].to_string();
    assert!(void.contains("refused, with code 2"), "{void}");
    // Every second one was.
    let (granted, refused) = (&json["pull_samples"], &json["errors"]["2"]);
    let more = granted
        .as_u64()
        .unwrap()
        .abs_diff(refused.as_u64().unwrap());
    assert!(more < 100, "{granted} {refused}");
}

#[test]
fn a_request_without_answer_voids_the_run() {
    let json = run(broker(Wrong::Silence), BRIEFLY, produce_unread);
    assert_eq!(json["valid"], false, "{json}");
    assert_eq!(json["unanswered"], 1, "{json}");
    assert_eq!(json["duplicated"], 0, "{json}");
}

#[test]
fn what_had_no_answer_is_said_beside_what_was_never_sent() {
    let words = "--rate 2000 --duration 0.5";
    let json = run(broker(Wrong::Silence), words, produce_unread);
    assert_eq!(json["unanswered"], 1, "{json}");
    assert!(0 < json["unsent"].as_u64().unwrap(), "{json}");
    let void = json["void_because"].to_string();
    assert!(void.contains("had no answer"), "{void}");
    assert!(void.contains("the server's limit"), "{void}");
    let busy = json["generator"]["busy_percent"].as_f64().unwrap();
    assert!(busy < 60.0, "it only waits: {json}");
}

#[test]
fn a_closed_connection_ends_the_run() {
    // Of several threads it is the one whose connection it was that tells.
    for threads in ["", "--threads 3"] {
        let addr = broker(Wrong::Close);
        let load = load_of(&format!("--addr {addr} {BRIEFLY} {threads}"));
        let told = produce_all(&load).err().unwrap();
        assert!(told.0.contains("closed"), "{}", told.0);
        assert!(told.0.contains(&addr.to_string()), "{}", told.0);
    }
}

#[test]
fn a_search_finds_a_rate_that_holds() {
    let addr = broker(Wrong::Nothing);
    let words = "--connections 4 --in-flight 4 --duration 0.3 --rate 1000";
    let json = run(addr, words, |load| {
        produce::run(load, &options("--search p50=50ms"))
    });
    let found = json["rate_found_per_s"].as_f64().unwrap();
    assert!(1000.0 <= found, "{json}");
    let trials = json["search"]["trials"].as_array().unwrap();
    let held = trials.iter().filter(|trial| trial["holds"] == true);
    assert!(
        held.map(|t| t["rate_per_s"].as_f64().unwrap())
            .any(|rate| rate == found)
    );
    assert!(1.0 < json["response"]["p50_ns"].as_f64().unwrap(), "{json}");
}

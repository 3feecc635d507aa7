//! The floors as servers of the generator.

use super::*;
use crate::{consume, load_of, produce};
use clap::Parser;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    options: Options,
}

/// Runs a floor and gives its address.
fn floor(words: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let words = format!("x {words} --duration 20 --file-mib 8 --queues 3 --size 500");
    let options = Words::parse_from(words.split_whitespace()).options;
    std::thread::spawn(move || {
        let path = options.file.clone();
        match options.kind {
            Kind::Echo => serve(&options, listener, None).unwrap(),
            Kind::Append | Kind::Flush => {
                let store = Store::open(&path.unwrap(), 8 << 20, options.way()).unwrap();
                serve(&options, listener, Some(store)).unwrap();
            }
            Kind::Sendfile | Kind::Gather => {
                let records = deliver::Records::write(&options, &path.unwrap()).unwrap();
                deliver::serve(&options, listener, &records).unwrap();
            }
        }
    });
    addr
}

fn run(addr: SocketAddr, words: &str, command: impl Fn(&crate::Load) -> bool) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let words = format!(
        "--addr {addr} --own-delay tell --json {} {words}",
        json.display()
    );
    let is_valid = command(&load_of(&words));
    let told: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(told["valid"], is_valid);
    told
}

#[derive(Parser)]
struct ProduceWords {
    #[command(flatten)]
    options: produce::Options,
}

#[derive(Parser)]
struct ConsumeWords {
    #[command(flatten)]
    options: consume::Options,
}

fn sends(load: &crate::Load) -> bool {
    let options = ProduceWords::parse_from(["x"]).options;
    produce::run(load, &options).unwrap()
}

#[test]
fn a_stall_is_seen_by_every_message_that_was_due_in_it() {
    for engine in ["ring", "epoll"] {
        let addr = floor("echo --stall-ms 400 --stall-after-ms 1400");
        let words = format!(
            "--connections 4 --in-flight 8 --rate 2000 --duration 1.5 --warmup 0.2 --size 64 --engine {engine}"
        );
        let run = run(addr, &words, sends);
        // The stall begins 300 ms before the window ends, so the answers to 600 of 3,000 messages
        // come late, some after the window's end, and each waits 100 to 400 ms.
        let number = |key: &str| run[key].as_f64().unwrap();
        assert!(2_990.0 < number("response_samples"), "{run}");
        assert!(350e6 < number("response_p99_ns"), "{run}");
        assert!(300e6 < number("response_max_ns"), "{run}");
        assert!(
            800.0 * 0.2e9 / 3000.0 * 0.7 < number("response_mean_ns"),
            "{run}"
        );
        // The service time of most of them hides it: they were sent when it was over.
        assert!(
            number("service_mean_ns") < number("response_mean_ns") * 0.5,
            "{run}"
        );
        assert_eq!(run["valid"], true, "{run}");
    }
}

#[test]
fn a_floor_that_appends_or_flushes_answers_every_batch() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["append", "flush --engine epoll", "flush --fresh"] {
        let addr = floor(&format!("{kind} --file {}/data", folder.path().display()));
        let run = run(
            addr,
            "--connections 3 --in-flight 4 --batch 7 --duration 0.3 --warmup 0 --size 64",
            sends,
        );
        assert_eq!(run["valid"], true, "{run}");
        assert!(0.0 < run["messages_per_s"].as_f64().unwrap(), "{run}");
    }
}

#[test]
fn a_floor_that_delivers_is_read_to_its_end_by_several_groups_without_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["sendfile", "gather"] {
        let addr = floor(&format!("{kind} --file {}/data", folder.path().display()));
        let words = "--connections 4 --queues 3 --duration 3 --warmup 0";
        let run = run(addr, words, |load| {
            let words = [
                "x",
                "--groups",
                "2",
                "--pull-messages",
                "200",
                "--pull-bytes",
                "100000",
            ];
            let options = ConsumeWords::parse_from(words).options;
            consume::run(load, &options).unwrap()
        });
        assert_eq!(run["valid"], true, "{run}");
        assert!(1 <= run["passes"].as_u64().unwrap(), "{kind}: {run}");
        let each = run["messages_per_pull"].as_f64().unwrap();
        assert!(
            (100.0..200.0).contains(&each),
            "100,000 bytes a pull: {each}"
        );
    }
}

#[test]
fn without_a_server_there_is_no_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let load = load_of(&format!("--addr {addr}"));
    let options = ProduceWords::parse_from(["x"]).options;
    assert!(produce::run(&load, &options).is_err());
}

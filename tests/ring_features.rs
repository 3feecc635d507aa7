//! A broker serves without the optional features of a kernel, and says with which it runs.

mod kit;

use corelane::base::{Feature, Features};
use kit::{Broker, bodies, command};

/// The one line that begins so: what is used, and without what.
fn line_about(what: &str, log: &str) -> (String, String) {
    let found: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once(what))
        .collect();
    assert_eq!(found.len(), 1, "{log}");
    let (used, without) = found[0].1.split_once("; without: ").unwrap();
    (used.to_owned(), without.to_owned())
}

/// More than a receive buffer holds, so that receiving goes on; and answers on two connections.
fn serves(broker: &Broker) {
    let (mut producer, mut consumer) = (broker.client(), broker.client());
    producer.make_topic("masked", 1);
    let large: Vec<u8> = (0..100_000u32).map(|n| (n / 3) as u8).collect();
    for body in [&b"small"[..], &large] {
        let answer = producer.produce("masked", 0, body);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    let answer = consumer.fetch("masked", 0, 0, 32);
    assert_eq!(answer.code, 0, "{answer:?}");
    let got = bodies(&answer.body);
    let sizes: Vec<_> = got.iter().map(Vec::len).collect();
    assert_eq!(sizes, [5, 100_000]);
    assert!(got[0] == b"small" && got[1] == large);
}

#[test]
fn a_broker_serves_with_everything_masked() {
    let folder = tempfile::tempdir().unwrap();
    let all = Features::all().to_string().replace(' ', "");
    let mut broker = Broker::start(folder.path(), &["--without", &all, "--flush", "sync"]);
    serves(&broker);
    let log = broker.log();
    let of = [
        ("ring: ", &Feature::OF_RING[..]),
        ("files: ", &Feature::OF_FILES),
    ];
    for (what, features) in of {
        let (used, without) = line_about(what, &log);
        assert_eq!(used, "nothing");
        let masked: Vec<_> = features
            .iter()
            .map(|feature| format!("{} (masked)", feature.name()))
            .collect();
        assert_eq!(without, masked.join(", "));
    }
    let warning = "read through the page cache, where they may take the place";
    assert!(log.contains(warning), "{log}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_broker_says_what_its_ring_has() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(
        folder.path(),
        &[
            "--without",
            "worker-bound",
            "--without",
            "send-zc,no-sqarray",
        ],
    );
    serves(&broker);
    let (used, without) = line_about("ring: ", &broker.log());
    for name in ["worker-bound", "send-zc", "no-sqarray"] {
        assert!(!used.contains(name), "{used}; {without}");
        assert!(
            without.contains(&format!("{name} (masked)")),
            "{used}; {without}"
        );
    }
    assert_eq!(without.matches("(masked)").count(), 3, "{used}; {without}");
}

#[test]
fn what_goes_only_with_something_else_is_not_said_to_be_used_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &["--without", "single-issuer"]);
    serves(&broker);
    let (used, without) = line_about("ring: ", &broker.log());
    assert!(!used.contains("defer-taskrun"), "{used}; {without}");
    assert!(without.contains("single-issuer (masked)"), "{without}");
    assert!(
        without.contains("defer-taskrun (wants single-issuer)"),
        "{without}"
    );
}

#[test]
fn a_broker_says_what_its_files_have() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &["--without", "cachestat,send-zc"]);
    serves(&broker);
    let (used, without) = line_about("files: ", &broker.log());
    assert!(used.contains("direct-io"), "{used}; {without}");
    assert!(!used.contains("cachestat"), "{used}; {without}");
    assert!(without.contains("cachestat (masked)"), "{used}; {without}");
    assert!(
        !without.contains("send-zc"),
        "that is of the ring: {without}"
    );
}

#[test]
fn a_name_that_is_no_feature_ends_the_start_with_all_names() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--without", "send-zc,multishot"];
    let output = command(10_000, folder.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("'multishot' is no optional feature"),
        "{stderr}"
    );
    for feature in Feature::ALL {
        assert!(stderr.contains(feature.name()), "{stderr}");
    }
}

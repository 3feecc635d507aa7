//! A broker serves without the optional features of a ring, and says with which it runs.

mod kit;

use corelane::base::{RingFeature, RingFeatures};
use kit::{Broker, bodies, command};

/// The one line about the ring.
fn ring_line(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| line.contains("ring: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    lines[0].split_once("ring: ").unwrap().1.to_owned()
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
    let all = RingFeatures::all().to_string().replace(' ', "");
    let mut broker = Broker::start(folder.path(), &["--without", &all, "--flush", "sync"]);
    serves(&broker);
    let line = ring_line(&broker.log());
    let (used, without) = line.split_once("; without: ").unwrap();
    assert_eq!(used, "nothing");
    for feature in RingFeature::ALL {
        let masked = format!("{} (masked)", feature.name());
        assert!(without.contains(&masked), "{masked} is not in {line}");
    }
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
    let line = ring_line(&broker.log());
    let (used, without) = line.split_once("; without: ").unwrap();
    for name in ["worker-bound", "send-zc", "no-sqarray"] {
        assert!(!used.contains(name), "{line}");
        assert!(without.contains(&format!("{name} (masked)")), "{line}");
    }
    assert_eq!(without.matches("(masked)").count(), 3, "{line}");
}

#[test]
fn a_name_that_is_no_feature_ends_the_start_with_all_names() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--without", "send-zc,multishot"];
    let output = command(10_000, folder.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("'multishot' is no feature of a ring"),
        "{stderr}"
    );
    for feature in RingFeature::ALL {
        assert!(stderr.contains(feature.name()), "{stderr}");
    }
}

//! However groups are written and flushed, what was acknowledged is there after a kill, and nothing else.

mod kit;

use kit::{Broker, Client, bodies};

/// Sizes around those of pages, so that groups begin and end anywhere.
const SIZES: [usize; 7] = [1, 100, 1_024, 3_900, 4_096, 9_000, 70_000];

fn body(index: usize) -> Vec<u8> {
    let size = SIZES[index % SIZES.len()];
    (0..size).map(|at| (at * 5 + index * 31) as u8).collect()
}

fn produce(client: &mut Client, from: usize, to: usize) {
    for index in from..to {
        let answer = client.produce("T", 0, &body(index));
        assert_eq!(answer.code, 0, "{}", answer.remark);
        assert_eq!(answer.number("queueOffset"), index as i64);
    }
}

fn read_all(client: &mut Client, count: usize) {
    let mut index = 0;
    while index < count {
        let answer = client.fetch("T", 0, index as i64, 32);
        assert_eq!(answer.code, 0, "message {index}: {}", answer.remark);
        let got = bodies(&answer.body);
        assert!(!got.is_empty());
        for got in got {
            assert!(got == body(index), "message {index}");
            index += 1;
        }
    }
    assert_eq!(index, count);
}

/// Written, read while it is the end of the log, killed, read again, and written on.
fn survives(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [arguments, &["--set", "mappedFileSizeCommitLog=1048576"]].concat();
    let mut broker = Broker::start(folder.path(), &arguments);
    let mut client = broker.client();
    client.make_topic("T", 1);
    produce(&mut client, 0, 150);
    read_all(&mut client, 150);
    broker.kill();
    let mut broker = broker.start_again();
    let mut client = broker.client();
    read_all(&mut client, 150);
    produce(&mut client, 150, 300);
    read_all(&mut client, 300);
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    broker.log()
}

#[test]
fn asynchronously_by_each_append_mode() {
    for mode in ["auto", "ring", "inline", "direct"] {
        survives(&["--append", mode]);
    }
}

#[test]
fn synchronously_by_each_method() {
    for method in ["fdatasync", "dsync", "direct"] {
        survives(&["--flush", "sync", "--flush-method", method]);
    }
    survives(&["--flush", "sync", "--append", "direct"]);
}

#[test]
fn synchronously_without_direct_writes() {
    let masked = ["--flush", "sync", "--without", "direct-io"];
    let log = survives(&masked);
    assert!(log.contains("direct=cannot"), "not even tried: {log}");
    for log in [
        log,
        survives(&[&masked[..], &["--flush-method", "dsync"]].concat()),
    ] {
        assert!(!log.contains("O_DIRECT"), "{log}");
        assert!(log.contains("fill=Zeros"), "{log}");
    }
}

#[test]
fn left_to_the_kernel() {
    survives(&["--flush", "none"]);
}

#[test]
fn the_method_is_measured_and_told() {
    let log = survives(&["--flush", "sync"]);
    assert!(
        log.contains("synced writes of 4 and 64 KiB on this disk"),
        "{log}"
    );
    assert!(
        log.contains("how logs are written flush=synchronous, "),
        "{log}"
    );
}

#[test]
fn an_append_mode_that_has_no_meaning_is_warned_about_once() {
    for (method, append, used) in [
        ("dsync", "inline", "ring"),
        ("direct", "ring", "direct"),
        ("direct", "inline", "direct"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(
            folder.path(),
            &[
                "--flush",
                "sync",
                "--flush-method",
                method,
                "--append",
                append,
            ],
        );
        let log = broker.log();
        let warning = format!(
            "appendMode={append} (--append) has no meaning with flushMethod={method} (--flush-method): {used} is used; \
             set flushMethod=fdatasync"
        );
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&warning)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("WARN"), "{}", lines[0]);
    }
    let folder = tempfile::tempdir().unwrap();
    let meant = [
        "--flush",
        "sync",
        "--flush-method",
        "dsync",
        "--append",
        "ring",
    ];
    let log = Broker::start(folder.path(), &meant).log();
    assert!(!log.contains("has no meaning"), "{log}");
}

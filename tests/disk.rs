//! Full disks, old segments and disks that fail: who is refused, who goes on, when the broker ends itself.

mod faults;
mod kit;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use faults::{
    Disk, Ramfs, SMALL_INDEX, Told, all_there, body, pipeline, queue_bound, read_all, start_again,
    wait_for,
};
use kit::{Answer, Broker, Client, command, free_ports};
use serde_json::json;

const TOPIC: &str = "orders";
const SERVICE_NOT_AVAILABLE: i64 = 14;
const OFFSET_MOVED: i64 = 21;
const FOREVER: usize = usize::MAX;

/// One message; a fresh log keeps it waiting until it is prepared.
fn send(client: &mut Client, body: &[u8]) -> Answer {
    client.produce(TOPIC, 0, body)
}

/// Waits until sends are taken again, and answers the first that was, and how long it took.
fn send_until_taken(client: &mut Client, seconds: u64, body: &[u8]) -> (i64, Duration) {
    let since = Instant::now();
    let mut offset = None;
    wait_for("sends work again by themselves", seconds, || {
        let answer = send(client, body);
        assert!(
            matches!(answer.code, 0 | SERVICE_NOT_AVAILABLE),
            "{answer:?}"
        );
        offset = (answer.code == 0).then(|| answer.number("queueOffset"));
        offset.is_some()
    });
    (offset.unwrap(), since.elapsed())
}

#[test]
fn a_full_disk_refuses_producers_until_there_is_room() {
    let disk = Disk::ext4(200);
    // Nothing but the full disk itself may refuse, and nothing may make room.
    let arguments = [
        "--set",
        "mappedFileSizeCommitLog=8388608",
        "--set",
        "diskSpaceWarningLevelRatio=99",
        "--set",
        "diskMaxUsedSpaceRatio=95",
        "--set",
        "cleanFileForciblyEnable=false",
        "--set",
        "deleteWhen=04",
    ];
    let mut broker = Broker::start(&disk.folder, &[&arguments[..], &SMALL_INDEX].concat());
    let mut client = broker.client();
    client.make_topic(TOPIC, 1);
    let mut acknowledged = pipeline(broker.port, TOPIC, 1, "before", (20, 1000, 4)).acknowledged;
    assert_eq!(acknowledged.len(), 20);
    wait_until_prepared(&disk);
    let (_, free) = disk.space();
    let filler = disk.fill(free - (3 << 20));

    let told = pipeline(broker.port, TOPIC, 1, "full", (FOREVER, 60_000, 16));
    assert!(!told.refused.is_empty(), "the connection stays");
    for (code, remark) in &told.refused {
        assert_eq!(*code, SERVICE_NOT_AVAILABLE, "{remark}");
    }
    let log = broker.log();
    assert!(
        log.contains("producers are refused") && log.contains("ENOSPC"),
        "{log}"
    );
    faults::merge(&mut acknowledged, told.acknowledged);
    // Consumers go on, and see every message that was acknowledged.
    all_there(&acknowledged, &read_all(&mut client, TOPIC, 1));
    assert_eq!(broker.child.try_wait().unwrap(), None, "it lives");

    std::fs::remove_file(filler).unwrap();
    let (offset, took) = send_until_taken(&mut client, 10, b"there is room");
    assert!(took < Duration::from_secs(6), "{took:?}");
    acknowledged.insert((0, offset), b"there is room".to_vec());
    let found = read_all(&mut client, TOPIC, 1);
    all_there(&acknowledged, &found);
    // What was refused is nowhere.
    assert_eq!(found.len(), acknowledged.len());
    broker.kill();
    let mut broker = broker.start_again();
    all_there(&acknowledged, &read_all(&mut broker.client(), TOPIC, 1));
    broker.kill();
}

#[test]
fn producers_are_refused_before_the_disk_is_full() {
    let disk = Disk::ext4(200);
    let arguments = [
        "--set",
        "mappedFileSizeCommitLog=8388608",
        "--set",
        "diskSpaceWarningLevelRatio=80",
        "--set",
        "cleanFileForciblyEnable=false",
    ];
    let mut broker = Broker::start(&disk.folder, &[&arguments[..], &SMALL_INDEX].concat());
    let mut client = broker.client();
    client.make_topic(TOPIC, 1);
    assert_eq!(send(&mut client, b"early").code, 0);
    wait_until_prepared(&disk);
    let (used, free) = disk.space();
    let total = free as f64 / (100.0 - used) * 100.0;
    let filler = disk.fill(((88.0 - used) / 100.0 * total) as u64);
    let mut refusal = None;
    wait_for("sends are refused", 20, || {
        let answer = send(&mut client, b"meanwhile");
        refusal = (answer.code != 0).then_some(answer);
        refusal.is_some()
    });
    let refusal = refusal.unwrap();
    assert_eq!(refusal.code, SERVICE_NOT_AVAILABLE, "{refusal:?}");
    assert!(disk.space().0 < 99.0, "there was room left");
    assert_eq!(client.fetch(TOPIC, 0, 0, 1).code, 0, "consumers go on");
    std::fs::remove_file(filler).unwrap();
    let (_, took) = send_until_taken(&mut client, 10, b"late");
    assert!(took < Duration::from_secs(4), "{took:?}");
    broker.kill();
}

fn segments(broker: &Broker) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(broker.store.join("0/commitlog")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn old_segments_go_and_consumers_at_the_end_do_not_notice() {
    let folder = tempfile::tempdir().unwrap();
    let hours: Vec<String> = (0..24).map(|hour| format!("{hour:02}")).collect();
    let delete_when = format!("deleteWhen={}", hours.join(";"));
    let arguments = [
        "--set",
        "mappedFileSizeCommitLog=1048576",
        "--set",
        "fileReservedTime=1",
        "--set",
        &delete_when,
        "--set",
        "cleanFileForciblyEnable=false",
    ];
    let mut broker = Broker::start(folder.path(), &[&arguments[..], &SMALL_INDEX].concat());
    broker.client().make_topic(TOPIC, 2);
    let told = pipeline(broker.port, TOPIC, 2, "kept", (600, 20_000, 16));
    assert_eq!(told.acknowledged.len(), 600);
    assert_eq!(broker.stop(), Some(0));
    let before = segments(&broker);
    // Of two hours ago: the first five, of which none may stay.
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    for path in &before[..5] {
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let (mut broker, _) = start_again(broker);
    wait_for("old segments go", 20, || {
        segments(&broker).first() == before.get(5)
    });
    let mut client = broker.client();
    // Records lie one after another, so both queues lose the same.
    wait_for("the queues begin later", 10, || {
        0 < queue_bound(&mut client, 31, TOPIC, 1)
    });
    for queue in 0..2 {
        let min = queue_bound(&mut client, 31, TOPIC, queue);
        assert!((100..150).contains(&min), "{min}");
        assert_eq!(queue_bound(&mut client, 30, TOPIC, queue), 300);
        let answer = client.fetch(TOPIC, queue, 0, 32);
        assert_eq!(answer.code, OFFSET_MOVED, "{answer:?}");
        assert_eq!(answer.number("nextBeginOffset"), min);
        assert_eq!(answer.number("minOffset"), min);
        // Somebody who reads there already goes on.
        let answer = client.fetch(TOPIC, queue, 290, 32);
        assert_eq!(
            kit::bodies(&answer.body)[0],
            body("kept", 580 + queue as usize, 20_000)
        );
    }
    let found = read_all(&mut client, TOPIC, 2);
    let mut kept = told.acknowledged;
    kept.retain(|place, _| found.contains_key(place));
    assert_eq!(kept, found, "what is left is right");
    assert!(300 < found.len(), "{}", found.len());
    assert_eq!(client.produce(TOPIC, 0, b"on").number("queueOffset"), 300);
    // The next start sees the same.
    assert_eq!(broker.stop(), Some(0));
    let broker = broker.start_again();
    let again = read_all(&mut broker.client(), TOPIC, 2);
    assert_eq!(again.len(), found.len() + 1);
}

#[test]
fn a_disk_that_is_too_full_lets_segments_go_before_their_time() {
    let disk = Disk::ext4(300);
    let arguments = [
        "--set",
        "mappedFileSizeCommitLog=1048576",
        "--set",
        "diskSpaceCleanForciblyRatio=99",
    ];
    let mut broker = Broker::start(&disk.folder, &[&arguments[..], &SMALL_INDEX].concat());
    let mut client = broker.client();
    client.make_topic(TOPIC, 1);
    let told = pipeline(broker.port, TOPIC, 1, "kept", (400, 20_000, 16));
    assert_eq!(told.acknowledged.len(), 400);
    // Only durable segments go.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(queue_bound(&mut client, 31, TOPIC, 0), 0);
    let change = client.call(25, &json!({}), b"diskSpaceCleanForciblyRatio=10");
    assert_eq!(change.code, 0, "{change:?}");
    wait_for("segments go", 20, || {
        300 < queue_bound(&mut client, 31, TOPIC, 0)
    });
    assert_eq!(client.fetch(TOPIC, 0, 0, 32).code, OFFSET_MOVED);
    assert_eq!(client.fetch(TOPIC, 0, 399, 32).code, 0);
    assert_eq!(send(&mut client, b"on").number("queueOffset"), 400);
    broker.kill();
}

/// A name server of its own, to see who is registered.
struct NameServer {
    child: Child,
    port: u16,
}

impl NameServer {
    fn start() -> Self {
        let port = free_ports() + 60;
        let child = Command::new(env!("CARGO_BIN_EXE_corelane"))
            .args(["nameserver", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        wait_for("the name server", 10, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }

    fn knows(&self, topic: &str) -> bool {
        let answer = Client::connect(self.port).call(105, &json!({"topic": topic}), &[]);
        answer.code == 0
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn starts_with_a_name_server(folder: &Path, flush: &str) -> (Broker, NameServer) {
    let names = NameServer::start();
    let nameserver = format!("127.0.0.1:{}", names.port);
    let arguments = [
        "--flush",
        flush,
        "--nameserver",
        &nameserver,
        "--set",
        "mappedFileSizeCommitLog=33554432",
    ];
    let broker = Broker::start(folder, &[&arguments[..], &SMALL_INDEX].concat());
    broker.client().make_topic(TOPIC, 4);
    assert!(names.knows(TOPIC));
    (broker, names)
}

fn a_failing_disk_ends_the_broker(flush: &str, doing: &[&str]) -> (Told, Disk, Broker) {
    let disk = Disk::xfs();
    let (mut broker, names) = starts_with_a_name_server(&disk.folder, flush);
    let port = broker.port;
    let mut told = pipeline(port, TOPIC, 4, "first", (4, 700, 1));
    let producer = std::thread::spawn(move || pipeline(port, TOPIC, 4, "on", (FOREVER, 700, 64)));
    std::thread::sleep(Duration::from_millis(700));
    disk.cut_power();
    let since = Instant::now();
    let code = broker.wait(Duration::from_secs(10));
    let took = since.elapsed();
    let log = broker.log();
    assert_eq!(code, Some(3), "{log}");
    assert!(took < Duration::from_secs(2), "it ended after {took:?}");
    let error = log
        .lines()
        .find(|line| line.contains("a shard has failed"))
        .unwrap_or_else(|| panic!("no reason in {log}"));
    assert!(doing.iter().any(|doing| error.contains(doing)), "{error}");
    assert!(error.contains("EIO"), "{error}");
    assert!(!names.knows(TOPIC), "clients are not sent here any more");
    let more = producer.join().unwrap();
    assert!(!more.acknowledged.is_empty(), "it did something");
    // One that was under way at the moment of the failure may still be told.
    let late = more.last.unwrap().saturating_duration_since(since);
    assert!(
        late < Duration::from_millis(300),
        "acknowledged {late:?} after the failure"
    );
    faults::merge(&mut told.acknowledged, more.acknowledged);
    (told, disk, broker)
}

#[test]
fn a_disk_that_fails_ends_the_broker_that_syncs() {
    let (told, mut disk, broker) =
        a_failing_disk_ends_the_broker("sync", &["fdatasync", "write", "prepare"]);
    disk.unmount();
    disk.mount();
    let mut broker = broker.start_again();
    let found = read_all(&mut broker.client(), TOPIC, 4);
    all_there(&told.acknowledged, &found);
    broker.kill();
}

#[test]
fn a_disk_that_fails_ends_the_broker_that_only_writes() {
    let (_, mut disk, broker) =
        a_failing_disk_ends_the_broker("async", &["fdatasync", "write", "prepare"]);
    // What was not yet synced may be gone; the store is whole all the same.
    disk.unmount();
    disk.mount();
    let mut broker = broker.start_again();
    let end = queue_bound(&mut broker.client(), 30, TOPIC, 1);
    let found = read_all(&mut broker.client(), TOPIC, 4);
    assert!((0..end).all(|offset| found.contains_key(&(1, offset))));
    assert_eq!(
        broker
            .client()
            .produce(TOPIC, 1, b"on")
            .number("queueOffset"),
        end
    );
    broker.kill();
}

#[test]
fn a_disk_that_becomes_read_only_refuses_producers() {
    let mut disk = Disk::ext4(300);
    let arguments = [
        "--flush",
        "sync",
        "--set",
        "mappedFileSizeCommitLog=33554432",
    ];
    let mut broker = Broker::start(&disk.folder, &[&arguments[..], &SMALL_INDEX].concat());
    let mut client = broker.client();
    client.make_topic(TOPIC, 1);
    let told = pipeline(broker.port, TOPIC, 1, "before", (200, 700, 16));
    assert_eq!(told.acknowledged.len(), 200);
    // Everything that is written ahead has been: the next write is a message's.
    wait_until_prepared(&disk);
    disk.meet_inconsistency();
    for _ in 0..3 {
        let answer = send(&mut client, b"refused");
        assert_eq!(
            answer.code,
            SERVICE_NOT_AVAILABLE,
            "{answer:?} {}",
            broker.log()
        );
        std::thread::sleep(Duration::from_millis(400));
    }
    all_there(&told.acknowledged, &read_all(&mut client, TOPIC, 1));
    assert_eq!(broker.child.try_wait().unwrap(), None, "it lives");
    broker.kill();
    // ext4 stays read-only until it is mounted anew.
    disk.unmount();
    disk.mount();
    let mut broker = broker.start_again();
    let found = read_all(&mut broker.client(), TOPIC, 1);
    assert_eq!(found, told.acknowledged, "no more and no less");
    assert_eq!(send(&mut broker.client(), b"on").number("queueOffset"), 200);
    broker.kill();
}

/// The log takes its 64 MB ahead, step by step; after that a quiet broker writes nothing large.
fn wait_until_prepared(disk: &Disk) {
    let mut last = (u64::MAX, Instant::now());
    wait_for("the log is prepared", 20, || {
        let (_, free) = disk.space();
        if free != last.0 {
            last = (free, Instant::now());
        }
        Duration::from_millis(1500) < last.1.elapsed()
    });
}

#[test]
fn direct_writes_on_a_file_system_without_them_end_the_start() {
    let ramfs = Ramfs::mount();
    let ways = [
        (
            &["--flush", "sync", "--flush-method", "direct"][..],
            "flushMethod=direct",
        ),
        (&["--append", "direct"], "appendMode=direct"),
    ];
    for (way, asked) in ways {
        let store = ramfs.0.path().join("store");
        let output = command(free_ports(), &store, way).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for part in [asked, "EINVAL", "a file system with direct I/O (ext4, XFS)"] {
            assert!(stderr.contains(part), "{part} is not in {stderr}");
        }
    }
}

#[test]
fn a_file_system_without_direct_writes_is_written_and_read_without_them() {
    let ramfs = Ramfs::mount();
    let mut broker = Broker::start(ramfs.0.path(), &["--flush", "sync"]);
    let mut client = broker.client();
    client.make_topic(TOPIC, 1);
    let acknowledged = pipeline(broker.port, TOPIC, 1, "kept", (50, 60_000, 4)).acknowledged;
    assert_eq!(acknowledged.len(), 50);
    all_there(&acknowledged, &read_all(&mut client, TOPIC, 1));
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let mut broker = broker.start_again();
    all_there(&acknowledged, &read_all(&mut broker.client(), TOPIC, 1));
    let log = broker.log();
    assert!(
        log.contains("direct-io (EINVAL)") && log.contains("through the page cache"),
        "{log}"
    );
    assert_eq!(broker.stop(), Some(0));
}

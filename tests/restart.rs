//! What was acknowledged is there after a kill, a power cut, a stop, lost indexes and bit rot.

mod faults;
mod kit;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use corelane::state::checkpoint;
use faults::{
    Disk, Messages, SMALL_INDEX, all_there, body, commit_offset, committed_offset, merge, pipeline,
    read_all, start_again, wait_for,
};
use kit::{Broker, Client, produce_fields};
use serde_json::json;

const TOPIC: &str = "orders";
const QUEUES: i64 = 4;
const FOREVER: usize = usize::MAX;

/// The shard's folder.
fn shard(broker: &Broker) -> std::path::PathBuf {
    broker.store.join("0")
}

fn kill_again_and_again(flush: &str) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--flush", flush, "--set", "mappedFileSizeCommitLog=8388608"];
    let mut broker = Broker::start(folder.path(), &[&arguments[..], &SMALL_INDEX].concat());
    broker.client().make_topic(TOPIC, QUEUES as u32);
    let mut acknowledged = Messages::new();
    for round in 0..5 {
        let port = broker.port;
        let producer = std::thread::spawn(move || {
            let name = format!("round {round}");
            pipeline(port, TOPIC, QUEUES, &name, (FOREVER, 700, 64))
        });
        std::thread::sleep(Duration::from_millis(250 + round * 130));
        broker.kill();
        let told = producer.join().unwrap();
        assert!(told.refused.is_empty(), "{:?}", told.refused);
        assert!(!told.acknowledged.is_empty(), "round {round} did something");
        merge(&mut acknowledged, told.acknowledged);
        let log;
        (broker, log) = start_again(broker);
        assert!(log.contains("the last stop was not clean"), "{log}");
        all_there(
            &acknowledged,
            &read_all(&mut broker.client(), TOPIC, QUEUES),
        );
    }
}

#[test]
fn kills_lose_nothing_that_was_acknowledged_after_the_write() {
    kill_again_and_again("async");
}

#[test]
fn kills_lose_nothing_that_was_acknowledged_after_the_sync() {
    kill_again_and_again("sync");
}

#[test]
fn a_clean_stop_leaves_nothing_to_do_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &SMALL_INDEX);
    let mut client = broker.client();
    client.make_topic(TOPIC, QUEUES as u32);
    let told = pipeline(broker.port, TOPIC, QUEUES, "kept", (400, 300, 32));
    assert_eq!(told.acknowledged.len(), 400);
    // A group is made by its first fetch.
    assert_eq!(client.fetch(TOPIC, 2, 0, 32).code, 0);
    commit_offset(&mut client, TOPIC, 2, 17);
    // One delayed message is delivered before the stop, one after it; none twice.
    client.make_topic("later", 1);
    for (level, text) in [("1", b"first"), ("2", b"other")] {
        let properties = format!("DELAY\u{1}{level}\u{2}");
        let fields = produce_fields("later", 0, &properties);
        assert_eq!(client.call(310, &fields, text).code, 0);
    }
    wait_for("the first delayed message", 10, || {
        !read_all(&mut client, "later", 1).is_empty()
    });
    let since = Instant::now();
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "the stop took {took:?}");
    assert!(!shard(&broker).join("abort").exists());
    let config = shard(&broker).join("config/delayOffset.json");
    let delays = std::fs::read_to_string(config).unwrap();
    let delays: String = delays.split_whitespace().collect();
    assert!(delays.contains("\"offsetTable\":{1:1"), "{delays}");

    let (broker, log) = start_again(broker);
    assert!(shard(&broker).join("abort").exists());
    assert!(!log.contains("walked") && !log.contains("WARN"), "{log}");
    let mut client = broker.client();
    let found = read_all(&mut client, TOPIC, QUEUES);
    assert_eq!(found, told.acknowledged, "no more and no less");
    assert_eq!(committed_offset(&mut client, TOPIC, 2), 17);
    wait_for("the other delayed message", 10, || {
        2 <= read_all(&mut client, "later", 1).len()
    });
    std::thread::sleep(Duration::from_millis(500));
    let later: Vec<Vec<u8>> = read_all(&mut client, "later", 1).into_values().collect();
    assert_eq!(later, [b"first".to_vec(), b"other".to_vec()]);
}

/// Physical offsets of the messages with this key.
fn query(client: &mut Client, key: &str) -> Vec<u8> {
    let fields = json!({"topic": TOPIC, "key": key, "maxNum": "32", "beginTimestamp": "0",
        "endTimestamp": "9223372036854775807"});
    client.call(12, &fields, &[]).body
}

#[test]
fn indexes_that_were_deleted_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &SMALL_INDEX);
    let mut client = broker.client();
    client.make_topic(TOPIC, QUEUES as u32);
    let told = pipeline(broker.port, TOPIC, QUEUES, "kept", (300, 300, 32));
    let fields = produce_fields(TOPIC, 1, "KEYS\u{1}needle\u{2}");
    let mut acknowledged = told.acknowledged;
    for _ in 0..3 {
        let answer = client.call(310, &fields, b"with a key");
        acknowledged.insert((1, answer.number("queueOffset")), b"with a key".to_vec());
    }
    wait_for("the key", 10, || !query(&mut client, "needle").is_empty());
    let by_key = query(&mut client, "needle");
    let deletions: [&[&str]; 5] = [
        &["consumequeue", "index"],
        &["consumequeue/orders/2"],
        &["consumequeue/orders"],
        &["index"],
        &["consumequeue"],
    ];
    for (number, folders) in deletions.into_iter().enumerate() {
        // A clean stop and a kill: the checkpoint says other things.
        if number == 4 {
            broker.kill();
        } else {
            assert_eq!(broker.stop(), Some(0));
        }
        for folder in folders {
            std::fs::remove_dir_all(shard(&broker).join(folder)).unwrap();
        }
        broker = broker.start_again();
        let mut client = broker.client();
        let found = read_all(&mut client, TOPIC, QUEUES);
        assert_eq!(found.len(), acknowledged.len(), "without {folders:?}");
        assert!(found == acknowledged, "without {folders:?}");
        assert!(
            query(&mut client, "needle") == by_key,
            "the key, without {folders:?}"
        );
        // New ones go on behind the old ones.
        let answer = client.produce(TOPIC, 2, b"more");
        let place = (2, answer.number("queueOffset"));
        merge(&mut acknowledged, [(place, b"more".to_vec())].into());
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged_after_the_sync() {
    let mut disk = Disk::xfs();
    let mut acknowledged = Messages::new();
    let arguments = [
        "--flush",
        "sync",
        "--set",
        "mappedFileSizeCommitLog=33554432",
    ];
    let mut broker = Broker::start(&disk.folder, &[&arguments[..], &SMALL_INDEX].concat());
    broker.client().make_topic(TOPIC, QUEUES as u32);
    for round in 0..3 {
        let port = broker.port;
        // A fresh log is prepared first, which takes a slow disk a moment.
        let first = pipeline(port, TOPIC, QUEUES, &format!("first {round}"), (1, 700, 1));
        merge(&mut acknowledged, first.acknowledged);
        let producer = std::thread::spawn(move || {
            let name = format!("round {round}");
            pipeline(port, TOPIC, QUEUES, &name, (FOREVER, 700, 64))
        });
        std::thread::sleep(Duration::from_millis(500 + round * 200));
        disk.cut_power();
        broker.kill();
        let told = producer.join().unwrap();
        assert!(!told.acknowledged.is_empty(), "round {round} did something");
        merge(&mut acknowledged, told.acknowledged);
        disk.unmount();
        disk.mount();
        broker = broker.start_again();
        let found = read_all(&mut broker.client(), TOPIC, QUEUES);
        all_there(&acknowledged, &found);
    }
    broker.kill();
}

/// How far the checkpoint says that the log is durable, and that the indexes are.
fn marks(shard: &Path) -> (u64, u64) {
    let bytes = std::fs::read(shard.join("checkpoint")).unwrap_or_default();
    checkpoint::decode(&bytes)
        .ok()
        .and_then(|checkpoint| checkpoint.ours)
        .map_or((0, 0), |ours| (ours.synced, ours.dispatched))
}

/// Flips a bit in the middle of the message with this body, wherever it lies; the physical offset of it.
fn rot(shard: &Path, body: &[u8], below: u64) -> (String, u64) {
    let mut paths: Vec<_> = std::fs::read_dir(shard.join("commitlog"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let mut bytes = std::fs::read(&path).unwrap();
        let Some(at) = memchr::memmem::find(&bytes, body) else {
            continue;
        };
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let start = name.parse::<u64>().unwrap() + at as u64 - 88;
        assert!(start + 1000 < below, "{start} is durable below {below}");
        bytes[at + body.len() / 2] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        return (name, start);
    }
    panic!("the message is not in the log");
}

#[test]
fn bit_rot_is_named_and_costs_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--set", "mappedFileSizeCommitLog=4194304"];
    let mut broker = Broker::start(folder.path(), &[&arguments[..], &SMALL_INDEX].concat());
    broker.client().make_topic(TOPIC, QUEUES as u32);
    let told = pipeline(broker.port, TOPIC, QUEUES, "kept", (3000, 4000, 64));
    assert_eq!(told.acknowledged.len(), 3000);
    let mut acknowledged = told.acknowledged;
    assert_eq!(broker.stop(), Some(0));
    let shard = shard(&broker);
    let (synced, _) = marks(&shard);
    let (segment, offset) = rot(&shard, &body("kept", 1500, 4000), synced);
    // The walk from the beginning meets it.
    std::fs::remove_dir_all(shard.join("consumequeue")).unwrap();
    let (mut broker, log) = start_again(broker);
    for word in [&segment, &offset.to_string()] {
        assert!(log.contains(word), "{word} is not in {log}");
    }
    let place = (1500 % QUEUES, 1500 / QUEUES);
    acknowledged.remove(&place).expect("it was acknowledged");
    let found = read_all(&mut broker.client(), TOPIC, QUEUES);
    all_there(&acknowledged, &found);
    assert!(!found.contains_key(&place), "the damaged one is not served");
    // What comes now goes behind the rest, and all of it stays through the next start.
    let answer = broker.client().produce(TOPIC, place.0, b"more");
    assert_eq!(answer.number("queueOffset"), 750);
    acknowledged.insert((place.0, 750), b"more".to_vec());
    assert_eq!(broker.stop(), Some(0));
    let broker = broker.start_again();
    let found = read_all(&mut broker.client(), TOPIC, QUEUES);
    all_there(&acknowledged, &found);
}

/// Makes nothing of one unit of a ConsumeQueue.
fn wipe_unit(shard: &Path, queue: &str, at: u64) {
    let folder = shard.join("consumequeue").join(queue);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.join("0".repeat(20)));
    file.unwrap().write_all_at(&[0; 20], at * 20).unwrap();
}

#[test]
fn a_unit_that_is_none_is_made_again_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &SMALL_INDEX);
    let mut client = broker.client();
    client.make_topic(TOPIC, QUEUES as u32);
    client.make_topic("later", 1);
    let told = pipeline(broker.port, TOPIC, QUEUES, "kept", (400, 300, 32));
    let mut wanted = told.acknowledged;
    for text in ["first", "rotten", "third"] {
        let fields = produce_fields("later", 0, "DELAY\u{1}2\u{2}");
        assert_eq!(client.call(310, &fields, text.as_bytes()).code, 0);
    }
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    wipe_unit(&shard(&broker), "orders/2", 40);
    wipe_unit(&shard(&broker), "SCHEDULE_TOPIC_XXXX/1", 1);

    let (mut broker, log) = start_again(broker);
    assert!(log.contains("a unit in the middle"), "{log}");
    let mut client = broker.client();
    let places = |messages: &Messages| messages.keys().copied().collect::<Vec<_>>();
    let found = read_all(&mut client, TOPIC, QUEUES);
    assert_eq!(places(&found), places(&wanted));
    assert!(found == wanted);
    wait_for("the delayed messages", 15, || {
        3 <= read_all(&mut client, "later", 1).len()
    });
    let later: Vec<Vec<u8>> = read_all(&mut client, "later", 1).into_values().collect();
    assert_eq!(
        later,
        [b"first".to_vec(), b"rotten".to_vec(), b"third".to_vec()]
    );

    // Until then it costs its message, and no other.
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let (broker, log) = start_again(broker);
    assert!(!log.contains("WARN"), "{log}");
    wipe_unit(&shard(&broker), "orders/2", 41);
    let found = read_all(&mut broker.client(), TOPIC, QUEUES);
    assert!(wanted.remove(&(2, 41)).is_some());
    assert_eq!(places(&found), places(&wanted));
}

#[test]
fn messages_over_many_segments_are_fetched_back() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--set", "mappedFileSizeCommitLog=1048576"];
    let mut broker = Broker::start(folder.path(), &[&arguments[..], &SMALL_INDEX].concat());
    broker.client().make_topic(TOPIC, QUEUES as u32);
    let told = pipeline(broker.port, TOPIC, QUEUES, "kept", (2000, 20_000, 32));
    assert_eq!(told.acknowledged.len(), 2000, "{:?}", told.refused);
    let segments = std::fs::read_dir(shard(&broker).join("commitlog")).unwrap();
    assert!(39 <= segments.count());
    assert!(read_all(&mut broker.client(), TOPIC, QUEUES) == told.acknowledged);
    assert_eq!(broker.stop(), Some(0));
    let mut broker = broker.start_again();
    assert!(read_all(&mut broker.client(), TOPIC, QUEUES) == told.acknowledged);
    broker.kill();
    let broker = broker.start_again();
    assert!(read_all(&mut broker.client(), TOPIC, QUEUES) == told.acknowledged);
}

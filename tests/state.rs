//! What Apache's broker wrote is read, and written again line by line as it was.

use corelane::command::GroupConfig;
use corelane::state::{checkpoint, delay, groups, offsets, topics};

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/state/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Java writes tables in the order of its hashes, so only the lines can be compared, without commas.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect();
    lines.sort();
    lines
}

fn assert_same_lines(golden: &[u8], ours: &[u8]) {
    let (golden, ours) = (lines(golden), lines(ours));
    let wrong = golden.iter().zip(&ours).find(|(left, right)| left != right);
    assert_eq!(wrong, None, "first line that differs: Apache's, ours");
    assert_eq!(golden.len(), ours.len());
}

#[test]
fn topics_of_apache_come_back() {
    let bytes = golden("topics.json");
    let read = topics::decode(&bytes).unwrap();
    assert_eq!(read.table.len(), 160);
    assert_eq!(read.version.counter, 146);
    assert_eq!(read.table["CapONodePush"].write_queue_count, 4);
    assert_eq!(read.table["SCHEDULE_TOPIC_XXXX"].read_queue_count, 18);
    assert!(read.kept.is_empty() && read.kept_of_topic.is_empty());
    let written = topics::encode(&read);
    assert_same_lines(&bytes, &written);
    assert_eq!(topics::decode(&written).unwrap(), read);
}

#[test]
fn groups_of_apache_come_back() {
    let bytes = golden("subscriptionGroup.json");
    let read = groups::decode(&bytes).unwrap();
    assert_eq!(read.table.len(), 82);
    assert_eq!(read.table["JV_FSQL"], GroupConfig::with_defaults("JV_FSQL"));
    let written = groups::encode(&read);
    assert_same_lines(&bytes, &written);
    assert_eq!(groups::decode(&written).unwrap(), read);
}

#[test]
fn offsets_of_apache_come_back() {
    let bytes = golden("consumerOffset.json");
    let read = offsets::decode(&bytes).unwrap();
    let reader = offsets::Reader {
        topic: "JVB_A_ADM".into(),
        group: "JVB_PUSH".into(),
    };
    assert_eq!(read.table[&reader], offsets::Queues::from([(0, 2), (1, 7)]));
    assert_eq!(
        read.topics_of_group["CG_go_rpc"],
        ["CapOGoRpc", "%RETRY%CG_go_rpc"]
    );
    let written = offsets::encode(&read);
    assert_same_lines(&bytes, &written);
    assert_eq!(offsets::decode(&written).unwrap(), read);
}

#[test]
fn delay_offsets_of_apache_come_back_byte_for_byte() {
    let bytes = golden("delayOffset.json");
    let read = delay::decode(&bytes).unwrap();
    assert_eq!(
        read.table.into_iter().collect::<Vec<_>>(),
        [(1, 10), (2, 6), (3, 9), (18, 0)]
    );
    let read = delay::decode(&bytes).unwrap();
    assert_eq!(
        String::from_utf8(delay::encode(&read)),
        String::from_utf8(bytes)
    );
}

#[test]
fn a_checkpoint_of_apache_has_nothing_of_ours() {
    let bytes = golden("checkpoint");
    let read = checkpoint::decode(&bytes).unwrap();
    assert_eq!(read.physic_msg_ms, 0x01a1_fcd4_ce1c);
    assert_eq!(read.logics_physical_offset, 0x0002_3e75);
    assert_eq!(read.ours, None);
    assert_eq!(
        checkpoint::encode(&read),
        bytes,
        "and is written again as it was"
    );
}

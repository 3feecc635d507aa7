//! How much a pull gets: what its client asks for, and less only where somebody has said so.

mod kit;

use kit::{Broker, Client, bodies, fetch_fields};
use serde_json::json;

const SIZE: usize = 1_000;

/// Messages that lie in two queues by turns, so that no two of a queue are neighbours in the log: one is sent when the
/// one before is answered.
fn fill(client: &mut Client, count: i64) {
    client.make_topic("T", 2);
    for index in 0..count * 2 {
        let body = vec![(index / 2 % 251) as u8; SIZE];
        assert_eq!(client.produce("T", index % 2, &body).code, 0);
    }
}

/// How many messages come at once, in order and as they were sent.
fn pull(client: &mut Client, count: i64, bytes: Option<usize>) -> usize {
    let mut fields = fetch_fields("T", 0, 0, count);
    match bytes {
        Some(bytes) => fields["maxMsgBytes"] = json!(bytes.to_string()),
        None => drop(fields.as_object_mut().unwrap().remove("maxMsgBytes")),
    }
    let answer = client.call(11, &fields, &[]);
    assert_eq!(answer.code, 0, "{}", answer.remark);
    let got = bodies(&answer.body);
    for (index, body) in got.iter().enumerate() {
        assert!(*body == vec![(index % 251) as u8; SIZE], "message {index}");
    }
    assert_eq!(answer.number("nextBeginOffset"), got.len() as i64);
    got.len()
}

#[test]
fn a_pull_gets_as_much_as_it_asks_for() {
    for way in ["auto", "gather", "send-zc", "sendfile", "copy"] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(folder.path(), &["--egress", way]);
        let mut client = broker.client();
        fill(&mut client, 1_100);
        for (count, bytes, want) in [
            (1_024, None, 1_024),
            (1_024, Some(4 << 20), 1_024),
            (2_000, Some(4 << 20), 1_024),
            (1_000, None, 1_000),
            (700, Some(4 << 20), 700),
            (700, Some(1), 1),
        ] {
            let got = pull(&mut client, count, bytes);
            assert_eq!(got, want, "{way}: {count} messages, {bytes:?} bytes");
        }
        let got = pull(&mut client, 1_024, Some(100 << 10));
        assert!((80..100).contains(&got), "{way}: {got} in 100 KiB");
    }
}

#[test]
fn a_pull_gets_no_more_than_the_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let set = [
        "--set",
        "maxTransferCountOnMessageInMemory=6",
        "--set",
        "maxTransferCountOnMessageInDisk=3",
    ];
    let mut broker = Broker::start(folder.path(), &set);
    let mut client = broker.client();
    fill(&mut client, 50);
    assert_eq!(pull(&mut client, 32, None), 6);
    assert_eq!(pull(&mut client, 5, None), 5);
    // From before the start: not known to be in memory.
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let broker = broker.start_again();
    let mut client = broker.client();
    assert_eq!(pull(&mut client, 32, None), 3);
    assert_eq!(pull(&mut client, 2, None), 2);
    assert_eq!(pull(&mut client, 32, Some(2_500)), 2);
}

#[test]
fn the_same_in_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let set = [
        "--set",
        "maxTransferBytesOnMessageInMemory=8000",
        "--set",
        "maxTransferBytesOnMessageInDisk=1",
    ];
    let mut broker = Broker::start(folder.path(), &set);
    let mut client = broker.client();
    fill(&mut client, 50);
    let got = pull(&mut client, 32, None);
    assert!((5..8).contains(&got), "{got} in 8,000 bytes");
    assert_eq!(pull(&mut client, 32, Some(2_500)), 2);
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let broker = broker.start_again();
    // One message always, or its reader would stand still.
    assert_eq!(pull(&mut broker.client(), 32, None), 1);
}

#[test]
fn the_settings_may_change_while_the_broker_runs() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    fill(&mut client, 50);
    assert_eq!(pull(&mut client, 32, None), 32);
    let change = b"maxTransferCountOnMessageInMemory=7\n";
    let answer = client.call(25, &json!({}), change);
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert_eq!(pull(&mut client, 32, None), 7);
    let change = b"maxTransferBytesOnMessageInMemory=2500\n";
    assert_eq!(client.call(25, &json!({}), change).code, 0);
    assert_eq!(pull(&mut client, 32, None), 2);
}

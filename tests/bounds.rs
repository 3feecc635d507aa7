//! What one client can take of a shard: its answers wait for it within a bound, and so do its pulls.

mod kit;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use kit::{Broker, Client, fetch_fields, frame};
use serde_json::{Value, json};

/// Sends as fast as it goes, and reads nothing. How many bytes of requests the broker and the kernel took.
fn ask_without_reading(client: &mut Client, requests: &[u8], most: usize) -> usize {
    client
        .stream
        .set_write_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    let mut taken = 0;
    while taken < most {
        match client.stream.write(&requests[taken % requests.len()..]) {
            Ok(count) => taken += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return taken;
            }
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

#[test]
fn who_does_not_read_its_answers_is_not_read_from() {
    const MOST: usize = 256 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", 1);
    let place = json!({"topic": "T", "queueId": "0"});
    for code in [30, 28] {
        let fields = if code == 30 { &place } else { &Value::Null };
        let requests: Vec<u8> = (0..500)
            .flat_map(|opaque| frame(code, opaque, fields, &[]))
            .collect();
        let mut greedy = broker.client();
        let taken = ask_without_reading(&mut greedy, &requests, MOST);
        assert!(taken < MOST, "{code}: {taken} bytes of requests were taken");
        // It is served again when it reads.
        for _ in 0..1_000 {
            greedy.receive().unwrap();
        }
    }
    assert_eq!(client.call(30, &place, &[]).number("offset"), 0);
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

fn long_poll(topic: &str) -> Value {
    let mut fields = fetch_fields(topic, 0, 0, 1);
    fields["sysFlag"] = json!("6");
    fields["suspendTimeoutMillis"] = json!("20000");
    fields
}

/// More than one turn answers; none is forgotten, and others are served in between.
#[test]
fn however_many_pulls_wait_a_message_wakes_all() {
    const EACH: i64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", 1);
    let fields = long_poll("T");
    let pulls: Vec<u8> = (0..EACH)
        .flat_map(|opaque| frame(11, opaque, &fields, &[]))
        .collect();
    let mut readers: Vec<Client> = (0..3).map(|_| broker.client()).collect();
    for reader in &mut readers {
        reader.stream.write_all(&pulls).unwrap();
    }
    // Those that come behind the message are answered too.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(client.produce("T", 0, b"body").code, 0);
    for reader in &mut readers {
        for opaque in 0..EACH {
            let (answered, answer) = reader.receive().unwrap();
            assert_eq!((answered, answer.code), (opaque, 0), "{}", answer.remark);
        }
    }
}

#[test]
fn too_many_pulls_of_one_client_are_told_so() {
    const PARKED_MAX: i64 = 1_024;
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", 1);
    let mut greedy = broker.client();
    let fields = long_poll("T");
    for _ in 0..PARKED_MAX {
        greedy.send(11, &fields, &[]);
    }
    let answer = greedy.call(11, &fields, &[]);
    assert_eq!(answer.code, 2, "{}", answer.remark);
    assert!(
        answer.remark.contains("1024 pulls of this connection"),
        "{}",
        answer.remark
    );
    // Others may wait for the same queue, and are woken.
    let opaque = client.send(11, &fields, &[]);
    assert_eq!(broker.client().produce("T", 0, b"body").code, 0);
    let (answered, answer) = client.receive().unwrap();
    assert_eq!((answered, answer.code), (opaque, 0), "{}", answer.remark);
}

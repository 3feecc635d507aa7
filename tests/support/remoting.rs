//! A few requests sent straight to a broker: what a test prepares, and what it compares a client with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub struct Answer {
    pub code: i64,
    pub remark: String,
    pub fields: Map<String, Value>,
    pub body: Vec<u8>,
}

/// One request on a connection of its own, with a JSON header; every field is a string, as Java sends it.
pub fn request(address: &str, code: i64, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    ask(address, code, fields, body)
        .unwrap_or_else(|cause| panic!("request {code} to {address} was not answered: {cause}"))
}

fn ask(address: &str, code: i64, fields: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut fields_json = Map::new();
    for (name, value) in fields {
        fields_json.insert((*name).to_owned(), json!(value));
    }
    let header = json!({
        "code": code, "language": "JAVA", "version": 479, "opaque": 1, "flag": 0,
        "extFields": fields_json, "serializeTypeCurrentRPC": "JSON",
    })
    .to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut frame = Vec::new();
    frame.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame)?;

    let mut word = [0; 4];
    stream.read_exact(&mut word)?;
    let mut rest = vec![0; u32::from_be_bytes(word) as usize];
    stream.read_exact(&mut rest)?;
    let header_size = (u32::from_be_bytes(rest[..4].try_into().unwrap()) & 0xff_ffff) as usize;
    let header: Value = serde_json::from_slice(&rest[4..4 + header_size])?;
    Ok(Answer {
        code: header["code"].as_i64().unwrap_or(-1),
        remark: header["remark"].as_str().unwrap_or("").to_owned(),
        fields: header["extFields"].as_object().cloned().unwrap_or_default(),
        body: rest[4 + header_size..].to_vec(),
    })
}

impl Answer {
    pub fn number(&self, field: &str) -> u64 {
        self.fields[field]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{field} is no number in {:?}", self.fields))
    }
}

const PULL: i64 = 11;
const QUERY_CONSUMER_OFFSET: i64 = 14;
const UPDATE_TOPIC: i64 = 17;
const QUERY_NOT_FOUND: i64 = 22;
const MAX_OFFSET: i64 = 30;
const ROUTE: i64 = 105;
const UPDATE_GROUP: i64 = 200;

pub fn create_topic(address: &str, topic: &str, queue_count: u32) {
    let queues = queue_count.to_string();
    let answer = request(
        address,
        UPDATE_TOPIC,
        &[
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ],
        b"",
    );
    assert_eq!(
        answer.code, 0,
        "{address} refused topic {topic}: {}",
        answer.remark
    );
}

/// The number of brokers that the NameServer names for a topic.
pub fn route_broker_count(namesrv: &str, topic: &str) -> usize {
    // A broker's ids may be the unquoted keys of an illegal JSON object, so the names are counted as text.
    let answer = request(
        namesrv,
        ROUTE,
        &[("topic", topic), ("acceptStandardJsonOnly", "true")],
        b"",
    );
    String::from_utf8_lossy(&answer.body)
        .matches("\"brokerAddrs\"")
        .count()
}

/// The name of the broker that is registered with this address.
pub fn broker_name(namesrv: &str, address: &str) -> String {
    let answer = request(
        namesrv,
        ROUTE,
        &[("topic", "TBW102"), ("acceptStandardJsonOnly", "true")],
        b"",
    );
    let route: Value =
        serde_json::from_slice(&answer.body).expect("standard JSON, as was asked for");
    let brokers = route["brokerDatas"].as_array().expect("an array");
    let found = brokers
        .iter()
        .find(|broker| broker["brokerAddrs"]["0"] == address);
    let found = found.unwrap_or_else(|| panic!("no broker {address} in {route}"));
    found["brokerName"].as_str().expect("a text").to_owned()
}

pub fn create_group(address: &str, group: &str, retry_max: u32) {
    let body = json!({
        "groupName": group, "consumeEnable": true, "consumeFromMinEnable": true,
        "consumeBroadcastEnable": true, "retryQueueNums": 1, "retryMaxTimes": retry_max, "brokerId": 0,
        "whichBrokerWhenConsumeSlowly": 1, "notifyConsumerIdsChangedEnable": true,
    });
    let answer = request(address, UPDATE_GROUP, &[], body.to_string().as_bytes());
    assert_eq!(
        answer.code, 0,
        "{address} refused group {group}: {}",
        answer.remark
    );
}

pub fn max_offset(address: &str, topic: &str, queue: u32) -> u64 {
    let answer = request(
        address,
        MAX_OFFSET,
        &[("topic", topic), ("queueId", &queue.to_string())],
        b"",
    );
    assert_eq!(
        answer.code, 0,
        "{address} does not tell the end of {topic} {queue}: {}",
        answer.remark
    );
    answer.number("offset")
}

/// What a group has committed; 0 when it has committed nothing.
pub fn committed_offset(address: &str, group: &str, topic: &str, queue: u32) -> u64 {
    let queue = queue.to_string();
    // Without setZeroIfNotFound the broker says 0 for a young queue, which means the same here.
    let fields = [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", &queue),
    ];
    let answer = request(address, QUERY_CONSUMER_OFFSET, &fields, b"");
    if answer.code == QUERY_NOT_FOUND {
        return 0;
    }
    assert_eq!(
        answer.code, 0,
        "{address} does not tell the offset of {group}: {}",
        answer.remark
    );
    answer.number("offset")
}

/// The stored records from an offset on that a subscription wants, as a pull hands them out.
pub fn pull(address: &str, topic: &str, queue: u32, offset: u64, subscription: &str) -> Vec<u8> {
    let answer = request(
        address,
        PULL,
        &[
            ("consumerGroup", "CID_test_reader"),
            ("topic", topic),
            ("queueId", &queue.to_string()),
            ("queueOffset", &offset.to_string()),
            ("maxMsgNums", "32"),
            // Bit 2: the request brings its own subscription.
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", subscription),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ],
        b"",
    );
    assert_eq!(
        answer.code, 0,
        "{address} gives nothing at {topic} {queue} {offset}: {}",
        answer.remark
    );
    answer.body
}

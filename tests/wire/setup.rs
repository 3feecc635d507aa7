//! Brings a fresh server into the state that a recording began with.

use super::broker::Broker;
use super::codes;
use super::connection::Connections;
use super::frame::Frame;
use super::learned::Learned;
use super::loose::Json;
use super::prepare::{Group, Needs, Queue, Topic, is_system};
use super::record::{Record, encode_batch_item};
use serde_json::json;
use std::time::{Duration, Instant};

/// Connections of the set-up have numbers that no recording has.
pub const NAMESERVER: u32 = 1_000_000;
pub const BROKER: u32 = 1_000_001;
const VISITOR: u32 = 1_000_002;
const CLIENTS: u32 = 1_000_100;

const TIME: Duration = Duration::from_secs(10);
/// A registration that failed is repeated after half a minute.
const REGISTRATION_TIME: Duration = Duration::from_secs(45);

pub struct Setup<'a> {
    pub connections: &'a mut Connections,
    pub learned: &'a mut Learned,
    pub broker: std::net::SocketAddr,
    pub opaque: i32,
}

type Outcome = Result<(), String>;

impl Setup<'_> {
    pub fn make(&mut self, needs: &Needs) -> Outcome {
        for group in &needs.groups {
            self.group(group)?;
        }
        for topic in &needs.topics {
            self.topic(topic)?;
        }
        for (queue, offset, record) in in_log_order(needs) {
            self.message(queue.clone(), offset, record)?;
            self.wait_for_messages(&queue.0, queue.1, offset + 1)?;
        }
        for (group, (topic, queue), offset) in &needs.offsets {
            self.broker(
                codes::UPDATE_CONSUMER_OFFSET,
                &[
                    ("consumerGroup", group.clone()),
                    ("topic", topic.clone()),
                    ("queueId", queue.to_string()),
                    ("commitOffset", offset.to_string()),
                ],
            )?;
        }
        for (group, topic) in &needs.pulls {
            self.pull(group, topic)?;
        }
        for (index, body) in needs.heartbeats.iter().enumerate() {
            let connection = CLIENTS + index as u32;
            self.connections.open(connection, self.broker)?;
            self.call(connection, codes::HEARTBEAT, &[], body.clone().into_bytes())?;
        }
        Ok(())
    }

    /// One request of the set-up; its answer must be 0.
    fn call(
        &mut self,
        connection: u32,
        code: i32,
        ext: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Frame, String> {
        self.opaque += 1;
        let request = Frame::request(code, self.opaque, ext, body);
        let answer = self.connections.call(connection, &request, TIME);
        let answer = answer.map_err(|cause| format!("set-up request {code} {ext:?}: {cause}"))?;
        match answer.code {
            0 => Ok(answer),
            code => Err(format!(
                "set-up request {} {ext:?} was answered with {code}: {:?}",
                request.code, answer.remark
            )),
        }
    }

    fn broker(&mut self, code: i32, ext: &[(&str, String)]) -> Result<Frame, String> {
        self.call(BROKER, code, ext, Vec::new())
    }

    /// A group whose retry topic exists: a consumer of it was connected once.
    fn group(&mut self, group: &Group) -> Outcome {
        let name = &group.name;
        let config = json!({
            "groupName": name,
            "consumeEnable": group.consume_enable,
            "consumeFromMinEnable": true,
            "consumeBroadcastEnable": true,
            "consumeMessageOrderly": false,
            "consumeTimeoutMinute": 15,
            "retryQueueNums": 1,
            "retryMaxTimes": 16,
            "brokerId": 0,
            "whichBrokerWhenConsumeSlowly": 1,
            "notifyConsumerIdsChangedEnable": true,
            "groupSysFlag": 0,
        })
        .to_string();
        let code = codes::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        self.call(BROKER, code, &[], config.into_bytes())?;
        if !group.has_route {
            return Ok(());
        }
        let consumer = json!({
            "groupName": name,
            "consumeType": "CONSUME_PASSIVELY",
            "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
            "subscriptionDataSet": [],
            "unitMode": false,
        });
        let heartbeat = json!({
            "clientID": "visitor",
            "consumerDataSet": [consumer],
            "producerDataSet": [],
            "heartbeatFingerprint": 0,
            "withoutSub": false,
        })
        .to_string();
        self.connections.open(VISITOR, self.broker)?;
        self.call(VISITOR, codes::HEARTBEAT, &[], heartbeat.into_bytes())?;
        let leave = [
            ("clientID", "visitor".to_owned()),
            ("consumerGroup", name.clone()),
        ];
        self.call(VISITOR, codes::UNREGISTER_CLIENT, &leave, Vec::new())?;
        self.connections.close(VISITOR);
        self.wait_for_route(&format!("%RETRY%{name}"))
    }

    fn topic(&mut self, topic: &Topic) -> Outcome {
        self.broker(
            codes::UPDATE_AND_CREATE_TOPIC,
            &[
                ("topic", topic.name.clone()),
                ("defaultTopic", "TBW102".to_owned()),
                ("readQueueNums", topic.read_queue_count.to_string()),
                ("writeQueueNums", topic.write_queue_count.to_string()),
                ("perm", topic.perm.to_string()),
                ("topicFilterType", "SINGLE_TAG".to_owned()),
                ("topicSysFlag", "0".to_owned()),
                ("order", topic.order.to_string()),
                ("attributes", String::new()),
            ],
        )?;
        self.wait_for_route(&topic.name)
    }

    fn wait_for_route(&mut self, topic: &str) -> Outcome {
        let code = codes::GET_ROUTEINFO_BY_TOPIC;
        let ext = [("topic", topic.to_owned())];
        let deadline = Instant::now() + TIME;
        loop {
            match self.call(NAMESERVER, code, &ext, Vec::new()) {
                Ok(_) => return Ok(()),
                Err(cause) if deadline < Instant::now() => return Err(cause),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Puts back a message as the recording shows it, or one to keep its place.
    fn message(&mut self, queue: Queue, offset: u64, record: Option<&Record>) -> Outcome {
        // A batch of one stores properties as they are; retry topics take no batches.
        let is_retry = queue.0.starts_with("%RETRY%");
        let properties = record.map_or("", |record| record.properties_text.as_str());
        let body = record.map_or(b"a message before".as_slice(), |record| &record.body);
        let flag = record.map_or(0, |record| record.flag);
        let born = record.map_or(0, |record| record.born_timestamp);
        // Neither the address family of hosts nor a transaction's end are the producer's to say.
        let sys_flag = record.map_or(0, |record| record.sys_flag & !0x3C);
        let times = record.map_or(0, |record| record.reconsume_times);
        let group = queue
            .0
            .strip_prefix("%RETRY%")
            .unwrap_or("before")
            .to_owned();
        let kept = if is_retry {
            of_producer(record)
        } else {
            String::new()
        };
        let is_delayed = kept.contains("DELAY\u{1}");
        let ext = [
            ("a", group),
            ("b", queue.0.clone()),
            ("c", "TBW102".to_owned()),
            ("d", "4".to_owned()),
            ("e", queue.1.to_string()),
            ("f", sys_flag.to_string()),
            ("g", born.to_string()),
            ("h", flag.to_string()),
            ("i", kept),
            ("j", times.to_string()),
            ("k", "false".to_owned()),
            ("l", "10000".to_owned()),
            ("m", (!is_retry).to_string()),
        ];
        let answer = match is_retry {
            true => self.call(BROKER, codes::SEND_V2, &ext, body.to_vec())?,
            false => {
                let item = encode_batch_item(flag, body, properties);
                self.call(BROKER, codes::SEND_BATCH, &ext, item)?
            }
        };
        if answer.number("queueOffset") != Some(offset as i64) && !is_delayed {
            let got = answer.field("queueOffset");
            return Err(format!(
                "set-up message {offset} of {queue:?} came to {got:?}"
            ));
        }
        if let (Some(record), Some(ours), false) = (record, answer.field("msgId"), is_delayed) {
            self.learned.offset_ids(&record.offset_id(), &ours);
        }
        Ok(())
    }

    fn pull(&mut self, group: &str, topic: &str) -> Outcome {
        self.broker(
            codes::PULL,
            &[
                ("consumerGroup", group.to_owned()),
                ("topic", topic.to_owned()),
                ("queueId", "0".to_owned()),
                ("queueOffset", "0".to_owned()),
                ("maxMsgNums", "1".to_owned()),
                ("sysFlag", "4".to_owned()),
                ("commitOffset", "0".to_owned()),
                ("suspendTimeoutMillis", "0".to_owned()),
                ("subscription", "*".to_owned()),
                ("subVersion", "0".to_owned()),
            ],
        )?;
        Ok(())
    }

    fn wait_for_messages(&mut self, topic: &str, queue: u32, count: u64) -> Outcome {
        let ext = [("topic", topic.to_owned()), ("queueId", queue.to_string())];
        let deadline = Instant::now() + TIME;
        loop {
            let answer = self.broker(codes::GET_MAX_OFFSET, &ext)?;
            if answer.number("offset") == Some(count as i64) {
                return Ok(());
            }
            if deadline < Instant::now() {
                let got = answer.field("offset");
                return Err(format!(
                    "set-up: {topic} {queue} ends at {got:?}, not at {count}"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The messages in the order of their physical offsets, which is the order of queries by key. What
/// no answer shows comes before the next one of its queue that an answer shows.
fn in_log_order(needs: &Needs) -> Vec<(&Queue, u64, Option<&Record>)> {
    let mut places = Vec::new();
    for (queue, (count, records)) in &needs.messages {
        for offset in 0..*count {
            let next = records
                .range(offset..)
                .next()
                .map(|(_, record)| record.physical_offset);
            places.push((
                next.unwrap_or(u64::MAX),
                queue,
                offset,
                records.get(&offset),
            ));
        }
    }
    places.sort_by_key(|(physical, queue, offset, _)| (*physical, *queue, *offset));
    places
        .into_iter()
        .map(|(_, queue, offset, record)| (queue, offset, record))
        .collect()
}

/// The properties of a retried message but for those that the broker sets anew. With its delay it
/// takes the way through a delay level again.
fn of_producer(record: Option<&Record>) -> String {
    let properties = record.map(Record::properties).unwrap_or_default();
    let of_broker = [
        "MSG_REGION",
        "TRACE_ON",
        "CLUSTER",
        "REAL_TOPIC",
        "REAL_QID",
    ];
    let kept = properties
        .iter()
        .filter(|(name, _)| !of_broker.contains(&name.as_str()));
    kept.map(|(name, value)| format!("{name}\u{1}{value}\u{2}"))
        .collect()
}

/// The name under which the only broker registered.
pub fn broker_name(connections: &mut Connections) -> Result<String, String> {
    let request = Frame::request(codes::GET_BROKER_CLUSTER_INFO, -1, &[], Vec::new());
    let deadline = Instant::now() + REGISTRATION_TIME;
    loop {
        let answer = connections.call(NAMESERVER, &request, TIME)?;
        let body = Json::parse(&String::from_utf8_lossy(&answer.body))?;
        let table = body
            .get("brokerAddrTable")
            .map(Json::pairs)
            .unwrap_or_default();
        if let Some((name, _)) = table.first() {
            return name
                .text()
                .map(str::to_owned)
                .ok_or("a broker without name".to_owned());
        }
        if deadline < Instant::now() {
            return Err(format!("no broker registered within {REGISTRATION_TIME:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deletes the topics and groups of a replay, so that the server can serve another one.
pub fn wipe(broker: &Broker) -> Result<(), String> {
    let mut connections = Connections::new();
    connections.open(NAMESERVER, broker.nameserver)?;
    connections.open(BROKER, broker.broker)?;
    let mut opaque = 0;
    let mut call = |connection, code, key: &str, value: &str| {
        opaque += 1;
        let ext = [(key, value.to_owned()), ("cleanOffset", "true".to_owned())];
        connections.call(
            connection,
            &Frame::request(code, opaque, &ext, Vec::new()),
            TIME,
        )
    };
    let list = call(NAMESERVER, codes::GET_ALL_TOPIC_LIST, "", "")?;
    let list = Json::parse(&String::from_utf8_lossy(&list.body))?;
    let topics = list.get("topicList").map(Json::items).unwrap_or_default();
    for topic in topics
        .iter()
        .filter_map(Json::text)
        .filter(|topic| !is_system(topic))
    {
        if let Some(group) = topic.strip_prefix("%RETRY%") {
            call(BROKER, codes::DELETE_SUBSCRIPTIONGROUP, "groupName", group)?;
        }
        call(BROKER, codes::DELETE_TOPIC_IN_BROKER, "topic", topic)?;
        call(NAMESERVER, codes::DELETE_TOPIC_IN_NAMESRV, "topic", topic)?;
    }
    Ok(())
}

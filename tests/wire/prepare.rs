//! What a recording takes for granted: topics, messages, offsets and clients that were there before
//! its first frame. Found from Apache's answers and made on the fresh server before the replay.

use super::broker::Settings;
use super::codes;
use super::frame::Frame;
use super::learned::RECORDED_BROKER;
use super::loose::Json;
use super::record::{self, Record};
use super::recording::{Peer, Recorded, Recording};
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub type Queue = (String, u32);

#[derive(Debug, Default)]
pub struct Needs {
    pub topics: Vec<Topic>,
    /// Groups whose retry topics have routes.
    pub groups: Vec<Group>,
    /// Queues that hold messages: how many, and those of them that the recording shows.
    pub messages: BTreeMap<Queue, (u64, BTreeMap<u64, Record>)>,
    /// Group, queue, offset.
    pub offsets: Vec<(String, Queue, i64)>,
    /// Heartbeats of clients that were connected all the time.
    pub heartbeats: Vec<String>,
    /// Group and topic: pulls whose statistics the recording asks for.
    pub pulls: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Topic {
    pub name: String,
    pub read_queue_count: i64,
    pub write_queue_count: i64,
    pub perm: i64,
    pub order: bool,
}

#[derive(Debug)]
pub struct Group {
    pub name: String,
    pub consume_enable: bool,
    pub has_route: bool,
}

/// Configuration lines that a recording was made with.
pub fn settings(recording: &str, is_reference: bool) -> Settings {
    // Every delay level is one second: a replay need not wait as long as a recording did.
    const LEVELS: &str = "1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s";
    let mut settings = vec![
        ("messageDelayLevel", LEVELS),
        ("defaultTopicQueueNums", "4"),
    ];
    if is_reference {
        // The recorded broker filtered by SQL92; ours refuses that.
        settings.push(("enablePropertyFilter", "true"));
    }
    match recording {
        "java-5.5.0-errors" => settings.push(("maxMessageSize", "65536")),
        "java-5.5.0-errors-strict-broker" => settings.extend([
            ("autoCreateTopicEnable", "false"),
            ("autoCreateSubscriptionGroup", "false"),
            ("rejectTransactionMessage", "true"),
        ]),
        "java-5.5.0-admin-to-client" if is_reference => {
            settings.push(("useServerSideResetOffset", "false"));
        }
        _ => {}
    }
    settings
}

/// Topics and groups made by requests that went past the recorder.
fn unrecorded(recording: &str) -> (Vec<Topic>, Vec<Group>) {
    let topic = |name: &str, perm, order| Topic {
        name: name.to_owned(),
        read_queue_count: 2,
        write_queue_count: 2,
        perm,
        order,
    };
    let group = |name: &str, consume_enable| Group {
        name: name.to_owned(),
        consume_enable,
        has_route: true,
    };
    match recording {
        "java-5.5.0-errors" => (
            vec![topic("JV_PERM2", 2, false)],
            vec![group("JV_DISABLED", false)],
        ),
        "java-5.5.0-errors-strict-broker" => {
            (vec![topic("JVS_ORDT", 6, true)], vec![group("JVS_G", true)])
        }
        "mqadmin-5.5.0-deleteTopic" => (vec![topic("JVADM_NEW", 6, false)], Vec::new()),
        _ => (Vec::new(), Vec::new()),
    }
}

pub fn needs(recording: &Recording) -> Needs {
    let (topics, unrecorded_groups) = unrecorded(&recording.name);
    let mut needs = Needs {
        topics,
        groups: unrecorded_groups,
        ..Needs::default()
    };
    routes(recording, &mut needs);
    groups(recording, &mut needs);
    messages(recording, &mut needs);
    offsets(recording, &mut needs);
    clients(recording, &mut needs);
    statistics(recording, &mut needs);
    needs
}

/// A topic existed if the first question for its route was answered.
fn routes(recording: &Recording, needs: &mut Needs) {
    let mut seen = HashSet::new();
    for (request, answer) in recording.answers() {
        let topic = request.frame.field("topic").unwrap_or_default();
        let is_route = request.frame.code == codes::GET_ROUTEINFO_BY_TOPIC;
        if !is_route || !seen.insert(topic.clone()) || answer.frame.code != 0 || is_system(&topic) {
            continue;
        }
        if let Some(group) = topic.strip_prefix("%RETRY%") {
            let name = group.to_owned();
            if needs.groups.iter().all(|group| group.name != name) {
                needs.groups.push(Group {
                    name,
                    consume_enable: true,
                    has_route: true,
                });
            }
            continue;
        }
        let body = Json::parse(&String::from_utf8_lossy(&answer.frame.body)).expect("a route");
        let queues = &body.get("queueDatas").expect("queueDatas").items()[0];
        let number = |key: &str| queues.get(key).and_then(Json::number).expect("a number");
        needs.topics.push(Topic {
            name: topic,
            read_queue_count: number("readQueueNums"),
            write_queue_count: number("writeQueueNums"),
            perm: number("perm"),
            order: false,
        });
    }
}

/// A group existed if its offsets were changed though no consumer of it was recorded.
fn groups(recording: &Recording, needs: &mut Needs) {
    for (request, answer) in recording.answers() {
        let group = match request.frame.code {
            codes::UPDATE_CONSUMER_OFFSET => request.frame.field("consumerGroup"),
            codes::INVOKE_BROKER_TO_RESET_OFFSET => request.frame.field("group"),
            _ => None,
        };
        let Some(name) = group.filter(|_| answer.frame.code == 0) else {
            continue;
        };
        let is_known = needs.groups.iter().any(|group| group.name == name);
        if !is_known && !heartbeats(recording).any(|body| body.contains(&format!("\"{name}\""))) {
            needs.groups.push(Group {
                name,
                consume_enable: true,
                has_route: false,
            });
        }
    }
}

fn heartbeats(recording: &Recording) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
    let is_heartbeat = |frame: &&Recorded| {
        frame.peer == Peer::Broker && frame.frame.code == codes::HEARTBEAT && frame.frame.flag == 0
    };
    let heartbeats = recording.frames.iter().filter(is_heartbeat);
    heartbeats.map(|frame| String::from_utf8_lossy(&frame.frame.body))
}

/// Statistics exist of what was sent and pulled.
fn statistics(recording: &Recording, needs: &mut Needs) {
    for (request, answer) in recording.answers() {
        let key = request.frame.field("statsKey").unwrap_or_default();
        if request.frame.code != codes::VIEW_BROKER_STATS_DATA
            || answer.frame.code != 0
            || is_system(&key)
        {
            continue;
        }
        match (
            request.frame.field("statsName").as_deref(),
            key.split_once('@'),
        ) {
            (Some("GROUP_GET_NUMS"), Some((topic, group))) => {
                needs.pulls.push((group.to_owned(), topic.to_owned()));
            }
            (Some("TOPIC_PUT_NUMS"), _) => {
                needs
                    .messages
                    .entry((key, 0))
                    .or_insert((1, BTreeMap::new()));
            }
            _ => {}
        }
    }
}

/// Topics that every broker makes for itself.
pub fn is_system(topic: &str) -> bool {
    const NAMES: &[&str] = &[
        "TBW102",
        "SELF_TEST_TOPIC",
        "BenchmarkTest",
        "OFFSET_MOVED_EVENT",
        "SCHEDULE_TOPIC_XXXX",
        "DefaultCluster",
        RECORDED_BROKER,
    ];
    let lower = topic.to_ascii_lowercase();
    NAMES.contains(&topic) || lower.starts_with("rmq_sys_") || topic.ends_with("_REPLY_TOPIC")
}

/// What a recording itself put into queues, found while reading its frames in order.
#[derive(Default)]
struct Produced {
    keys: HashSet<String>,
    /// Queue offset of the first message that the recording put there.
    first: BTreeMap<Queue, u64>,
    delayed_topics: HashSet<String>,
    sent_back: HashSet<String>,
}

impl Produced {
    fn request(&mut self, frame: &Frame) {
        if frame.code == codes::CONSUMER_SEND_MSG_BACK {
            let group = frame.field("group").unwrap_or_default();
            self.sent_back.insert(format!("%RETRY%{group}"));
        }
        if codes::is_send(frame.code) {
            let properties = send_properties(frame);
            self.keys.extend(properties.get("UNIQ_KEY").cloned());
            if properties.contains_key("DELAY") {
                self.delayed_topics
                    .extend(frame.field(codes::topic_key(frame.code)));
            }
        }
    }

    fn answer(&mut self, request: &Frame, answer: &Frame) {
        if !codes::is_send(request.code) || answer.code != 0 {
            return;
        }
        self.keys.extend(answer.field("transactionId"));
        let topic = request
            .field(codes::topic_key(request.code))
            .expect("a topic");
        let numbers = (answer.number("queueId"), answer.number("queueOffset"));
        let is_delayed = send_properties(request).contains_key("DELAY");
        if let ((Some(queue), Some(offset)), false) = (numbers, is_delayed) {
            self.saw((topic, queue as u32), offset as u64);
        }
    }

    fn saw(&mut self, queue: Queue, offset: u64) {
        let first = self.first.entry(queue).or_insert(offset);
        *first = offset.min(*first);
    }

    fn made(&self, record: &Record) -> bool {
        let queue = (record.topic.clone(), record.queue_id);
        let is_behind_first = self
            .first
            .get(&queue)
            .is_some_and(|o| *o <= record.queue_offset);
        let is_known = record
            .unique_key()
            .is_some_and(|key| self.keys.contains(&key));
        is_behind_first || is_known || self.sent_back.contains(&record.topic)
    }

    /// Whether messages may have come into this topic out of sight.
    fn is_blurred(&self, topic: &str) -> bool {
        self.delayed_topics.contains(topic) || self.sent_back.contains(topic)
    }
}

/// The properties of a message in a send request; of any other request none.
pub fn send_properties(frame: &Frame) -> BTreeMap<String, String> {
    let key = if frame.code == codes::SEND {
        "properties"
    } else {
        "i"
    };
    if !codes::is_send(frame.code) {
        return BTreeMap::new();
    }
    let text = frame.field(key).unwrap_or_default();
    let split = |pair: &str| {
        pair.split_once('\u{1}')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    text.split('\u{2}').filter_map(split).collect()
}

fn messages(recording: &Recording, needs: &mut Needs) {
    // First all sends: an offset that a send was given bounds what was there before.
    let mut sends = Produced::default();
    for (request, answer) in recording.answers() {
        sends.request(&request.frame);
        sends.answer(&request.frame, &answer.frame);
    }
    let mut produced = Produced {
        first: sends.first,
        ..Produced::default()
    };
    let mut known: BTreeMap<Queue, BTreeMap<u64, Record>> = BTreeMap::new();
    let mut counts: BTreeMap<Queue, u64> = BTreeMap::new();
    for recorded in &recording.frames {
        let Some((request, answer)) = as_answer(recording, recorded) else {
            produced.request(&recorded.frame);
            continue;
        };
        produced.answer(request, answer);
        for record in records_of(request, answer) {
            let queue = (record.topic.clone(), record.queue_id);
            if produced.made(&record) {
                produced.saw(queue, record.queue_offset);
            } else {
                known
                    .entry(queue)
                    .or_default()
                    .insert(record.queue_offset, record);
            }
        }
        for (queue, count) in counts_of(request, answer) {
            if !produced.is_blurred(&queue.0) {
                counts.entry(queue).or_insert(count);
            }
        }
    }
    let queues: BTreeSet<Queue> = known
        .keys()
        .chain(counts.keys())
        .chain(produced.first.keys())
        .cloned()
        .collect();
    for queue in queues {
        let records = known.remove(&queue).unwrap_or_default();
        let behind_known = records.keys().next_back().map_or(0, |offset| offset + 1);
        let count = produced
            .first
            .get(&queue)
            .or_else(|| counts.get(&queue))
            .copied();
        let count = count.unwrap_or(behind_known).max(behind_known);
        assert!(
            count < 10_000,
            "{}: {queue:?} held {count} messages",
            recording.name
        );
        if 0 < count && !is_system(&queue.0) {
            needs.messages.insert(queue, (count, records));
        }
    }
}

fn as_answer<'a>(
    recording: &'a Recording,
    recorded: &'a Recorded,
) -> Option<(&'a Frame, &'a Frame)> {
    if !recorded.frame.is_answer() {
        return None;
    }
    recording
        .request_of(recorded)
        .map(|request| (&request.frame, &recorded.frame))
}

pub fn records_of(request: &Frame, answer: &Frame) -> Vec<Record> {
    let carries_records = codes::is_pull(request.code)
        || [codes::QUERY_MESSAGE, codes::VIEW_MESSAGE_BY_ID].contains(&request.code);
    if !carries_records || answer.code != 0 {
        return Vec::new();
    }
    record::decode_all(&answer.body).unwrap_or_default()
}

/// How many messages an answer says a queue holds.
fn counts_of(request: &Frame, answer: &Frame) -> Vec<(Queue, u64)> {
    let queue = || Some((request.field("topic")?, request.number("queueId")? as u32));
    let end = match request.code {
        codes::GET_MAX_OFFSET => answer.number("offset"),
        code if codes::is_pull(code) => answer.number("maxOffset"),
        codes::GET_CONSUME_STATS => return stats_of(answer, "brokerOffset"),
        202 => return stats_of(answer, "maxOffset"),
        codes::INVOKE_BROKER_TO_RESET_OFFSET => return stats_of(answer, ""),
        _ => None,
    };
    let end = end.filter(|_| answer.code == 0 || codes::is_pull(request.code));
    queue().zip(end.map(|end| end as u64)).into_iter().collect()
}

/// Entries of an `offsetTable` keyed by queues.
fn stats_of(answer: &Frame, key: &str) -> Vec<(Queue, u64)> {
    let body = Json::parse(&String::from_utf8_lossy(&answer.body));
    let table = body.ok().and_then(|body| body.get("offsetTable").cloned());
    let entries = table.iter().flat_map(|table| table.pairs());
    let entry = |(queue, value): &(Json, Json)| {
        let topic = queue.get("topic")?.text()?.to_owned();
        let id = queue.get("queueId")?.number()? as u32;
        let value = if key.is_empty() {
            Some(value)
        } else {
            value.get(key)
        };
        Some(((topic, id), value?.number()? as u64))
    };
    entries.filter_map(entry).collect()
}

/// The first answer about a group's offset tells what was stored before.
fn offsets(recording: &Recording, needs: &mut Needs) {
    let mut decided: HashSet<(String, Queue)> = HashSet::new();
    let mut produced = Produced::default();
    for recorded in &recording.frames {
        let frame = &recorded.frame;
        let Some((request, answer)) = as_answer(recording, recorded) else {
            let commits = frame.code == codes::UPDATE_CONSUMER_OFFSET
                || codes::is_pull(frame.code) && frame.number("sysFlag").unwrap_or(0) & 1 != 0;
            decided.extend(offset_key(frame).filter(|_| commits));
            produced.request(frame);
            continue;
        };
        produced.answer(request, answer);
        if request.code == codes::GET_CONSUME_STATS && answer.code == 0 {
            let group = request.field("consumerGroup").unwrap_or_default();
            for (queue, offset) in stats_of(answer, "consumerOffset") {
                if decided.insert((group.clone(), queue.clone())) && 0 < offset {
                    needs.offsets.push((group.clone(), queue, offset as i64));
                }
            }
        }
        if request.code != codes::QUERY_CONSUMER_OFFSET {
            continue;
        }
        let Some(key) = offset_key(request) else {
            continue;
        };
        let offset = answer.number("offset").filter(|_| answer.code == 0);
        let is_new = decided.insert(key.clone());
        if let (Some(offset), true) = (offset, is_new) {
            // Offset 0 of a queue with messages is what a group without any offset is told.
            let has_messages = needs.messages.contains_key(&key.1)
                || produced.first.contains_key(&key.1)
                || produced.is_blurred(&key.1.0);
            if 0 < offset || !has_messages {
                needs.offsets.push((key.0, key.1, offset));
            }
        }
    }
}

fn offset_key(request: &Frame) -> Option<(String, Queue)> {
    let queue = (request.field("topic")?, request.number("queueId")? as u32);
    Some((request.field("consumerGroup")?, queue))
}

/// Clients that a listing shows, though no heartbeat of theirs was recorded.
fn clients(recording: &Recording, needs: &mut Needs) {
    let own: Vec<_> = heartbeats(recording).collect();
    let mut seen = HashSet::new();
    for (request, answer) in recording.answers() {
        let key = match request.frame.code {
            codes::GET_CONSUMER_CONNECTION_LIST => "consumerGroup",
            codes::GET_PRODUCER_CONNECTION_LIST => "producerGroup",
            _ => continue,
        };
        let group = request.frame.field(key).unwrap_or_default();
        let is_own = own
            .iter()
            .any(|body| body.contains(&format!("\"{group}\"")));
        if answer.frame.code != 0 || is_own || !seen.insert(group.clone()) {
            continue;
        }
        let text = String::from_utf8_lossy(&answer.frame.body).into_owned();
        needs.heartbeats.push(heartbeat(&group, &text));
    }
}

fn heartbeat(group: &str, listing: &str) -> String {
    let listing: serde_json::Value = serde_json::from_str(listing).expect("a listing is JSON");
    let subscriptions = listing["subscriptionTable"].as_object();
    let subscriptions: Vec<_> = subscriptions
        .into_iter()
        .flatten()
        .map(|pair| pair.1)
        .collect();
    let is_consumer = listing["subscriptionTable"].is_object();
    let consumer = serde_json::json!({
        "groupName": group,
        "consumeType": listing["consumeType"],
        "messageModel": listing["messageModel"],
        "consumeFromWhere": listing["consumeFromWhere"],
        "subscriptionDataSet": subscriptions,
        "unitMode": false,
    });
    let producer = serde_json::json!({"groupName": group});
    serde_json::json!({
        "clientID": listing["connectionSet"][0]["clientId"],
        "consumerDataSet": if is_consumer { vec![consumer] } else { Vec::new() },
        "producerDataSet": if is_consumer { Vec::new() } else { vec![producer] },
        "heartbeatFingerprint": 0,
        "withoutSub": false,
    })
    .to_string()
}

//! Clients and their groups: 34, 35, 38, 41, 42, 46, and 40 towards them (P§2.6, §2.8).

use serde::Deserialize;

use crate::command::{
    Command, ConsumeFrom, ConsumeType, ConsumerData, Heartbeat, MessageModel, QueueName, Refusal,
    Subscription,
};

use super::codes::request;
use super::frame::Request;
use super::json_read::{self, List, Scalar};
use super::json_write::{Object, put_list, put_queue};

/// In the order of their ordinals.
pub(super) const CONSUME_TYPES: [(&str, ConsumeType); 3] = [
    ("CONSUME_ACTIVELY", ConsumeType::Actively),
    ("CONSUME_PASSIVELY", ConsumeType::Passively),
    ("CONSUME_POP", ConsumeType::Pop),
];

/// In the order of their ordinals.
pub(super) const MESSAGE_MODELS: [(&str, MessageModel); 2] = [
    ("BROADCASTING", MessageModel::Broadcasting),
    ("CLUSTERING", MessageModel::Clustering),
];

/// In the order of their ordinals.
pub(super) const CONSUME_FROMS: [(&str, ConsumeFrom); 6] = [
    ("CONSUME_FROM_LAST_OFFSET", ConsumeFrom::LastOffset),
    (
        "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        ConsumeFrom::LastOffsetAndMinAtFirstBoot,
    ),
    ("CONSUME_FROM_MIN_OFFSET", ConsumeFrom::MinOffset),
    ("CONSUME_FROM_MAX_OFFSET", ConsumeFrom::MaxOffset),
    ("CONSUME_FROM_FIRST_OFFSET", ConsumeFrom::FirstOffset),
    ("CONSUME_FROM_TIMESTAMP", ConsumeFrom::Timestamp),
];

/// Name of a value in one of the tables above.
pub(super) fn name_of<T: PartialEq + Copy>(all: &[(&'static str, T)], value: T) -> &'static str {
    let found = all.iter().find(|(_, known)| *known == value);
    found.map_or("", |(name, _)| *name)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeartbeatBody {
    #[serde(rename = "clientID")]
    client_id: String,
    #[serde(default)]
    producer_data_set: List<ProducerBody>,
    #[serde(default)]
    consumer_data_set: List<ConsumerBody>,
    #[serde(default)]
    heartbeat_fingerprint: Scalar,
    #[serde(default)]
    without_sub: Scalar,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProducerBody {
    group_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerBody {
    group_name: String,
    #[serde(default)]
    consume_type: Scalar,
    #[serde(default)]
    message_model: Scalar,
    #[serde(default)]
    consume_from_where: Scalar,
    #[serde(default)]
    unit_mode: Scalar,
    #[serde(default)]
    subscription_data_set: List<SubscriptionBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionBody {
    topic: String,
    #[serde(default)]
    sub_string: Option<String>,
    #[serde(default)]
    expression_type: Option<String>,
    #[serde(default)]
    sub_version: Scalar,
    #[serde(default)]
    tags_set: List<String>,
    #[serde(default)]
    code_set: List<Scalar>,
    #[serde(default)]
    class_filter_mode: Scalar,
}

impl From<SubscriptionBody> for Subscription {
    fn from(body: SubscriptionBody) -> Self {
        let codes = body.code_set.0.iter().filter_map(Scalar::number);
        Self {
            topic: body.topic,
            expression: body.sub_string.unwrap_or_else(|| "*".to_owned()),
            expression_type: body
                .expression_type
                .filter(|kind| !kind.is_empty())
                .unwrap_or_else(|| "TAG".to_owned()),
            version: body.sub_version.number().unwrap_or(0),
            tags: body.tags_set.0,
            codes: codes.collect(),
            class_filter: body.class_filter_mode.flag().unwrap_or(false),
        }
    }
}

fn consumer_data(body: ConsumerBody) -> Result<ConsumerData, String> {
    let subscriptions = body.subscription_data_set.0;
    let in_group = |what: String| format!("{what}, in group {:?}", body.group_name);
    Ok(ConsumerData {
        consume_type: body
            .consume_type
            .choice("consumeType", &CONSUME_TYPES, ConsumeType::Passively)
            .map_err(in_group)?,
        message_model: body
            .message_model
            .choice("messageModel", &MESSAGE_MODELS, MessageModel::Clustering)
            .map_err(in_group)?,
        consume_from: body
            .consume_from_where
            .choice("consumeFromWhere", &CONSUME_FROMS, ConsumeFrom::LastOffset)
            .map_err(in_group)?,
        unit_mode: body.unit_mode.flag().unwrap_or(false),
        subscriptions: subscriptions.into_iter().map(Subscription::from).collect(),
        group: body.group_name,
    })
}

/// 34.
pub(super) fn heartbeat<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let body: HeartbeatBody = json_read::body(request)?;
    let producers = body.producer_data_set.0.into_iter();
    let consumers = body.consumer_data_set.0.into_iter();
    Ok(Command::Heartbeat(Heartbeat {
        client_id: body.client_id,
        producers: producers.map(|producer| producer.group_name).collect(),
        consumers: consumers
            .map(consumer_data)
            .collect::<Result<_, _>>()
            .map_err(|what| json_read::refusal(request, what))?,
        fingerprint: body.heartbeat_fingerprint.number().unwrap_or(0),
        without_subscriptions: body.without_sub.flag().unwrap_or(false),
    }))
}

/// To 34: the second field is for clients of heartbeat V2, and old ones get it too.
pub(super) const fn heartbeat_fields(changed: bool) -> [(&'static str, &'static str); 2] {
    let changed = if changed { "true" } else { "false" };
    [
        ("IS_SUPPORT_HEART_BEAT_V2", "true"),
        ("IS_SUB_CHANGE", changed),
    ]
}

/// 35. C++ sends both groups, the unused one empty.
pub(super) fn unregister<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::Unregister {
        client_id: request.text("clientID")?,
        producer_group: request.text_if_any("producerGroup"),
        consumer_group: request.text_if_any("consumerGroup"),
    })
}

/// To 38.
pub(super) fn members(body: &mut Vec<u8>, members: &[String]) {
    let mut object = Object::begin(body);
    object.texts("consumerIdList", members);
    object.end();
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LockBody {
    consumer_group: String,
    client_id: String,
    #[serde(default)]
    mq_set: List<QueueBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueBody {
    topic: String,
    broker_name: String,
    queue_id: Scalar,
}

/// 41, 42.
pub(super) fn locks<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let body: LockBody = json_read::body(request)?;
    let (group, client_id) = (body.consumer_group, body.client_id);
    let mut queues = Vec::with_capacity(body.mq_set.0.len());
    for queue in body.mq_set.0 {
        let Some(queue_id) = queue.queue_id.number() else {
            let what = format!("names a queue of topic {:?} without a number", queue.topic);
            return Err(json_read::refusal(request, what));
        };
        queues.push(QueueName {
            topic: queue.topic,
            broker: queue.broker_name,
            queue_id,
        });
    }
    Ok(if request.code == request::LOCK_BATCH_MQ {
        Command::Lock {
            group,
            client_id,
            queues,
        }
    } else {
        Command::Unlock {
            group,
            client_id,
            queues,
        }
    })
}

/// To 41: never null, and each queue exactly as it was sent.
pub(super) fn locked(body: &mut Vec<u8>, queues: &[QueueName]) {
    let mut object = Object::begin(body);
    put_list(object.name("lockOKMQSet"), queues, put_queue);
    object.end();
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckBody {
    client_id: String,
    group: String,
    subscription_data: SubscriptionBody,
}

/// 46.
pub(super) fn check<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let body: CheckBody = json_read::body(request)?;
    Ok(Command::CheckClient {
        client_id: body.client_id,
        group: body.group,
        subscription: body.subscription_data.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::rocketmq::frame::{HeaderKind, Scratch, decode, encode_request};

    fn beaten(body: &str) -> Result<Heartbeat, Refusal> {
        let mut frame = Vec::new();
        encode_request(
            &mut frame,
            HeaderKind::Json,
            34,
            1,
            false,
            &[],
            body.as_bytes(),
        );
        let mut scratch = Scratch::default();
        let request = decode(&frame, &mut scratch).unwrap();
        heartbeat(&request).map(|command| match command {
            Command::Heartbeat(heartbeat) => heartbeat,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn heartbeats_of_all_clients_mean_the_same() {
        let cpp = "{\"clientID\":\"c\",\"consumerDataSet\":[{\"consumeFromWhere\":4,\"consumeType\":1,\"groupName\":\"G\",\"messageModel\":1,\"subscriptionDataSet\":[{\"codeSet\":[0,2598919],\"subString\":\"TagA || 标签\",\"subVersion\":\"1795242509537\",\"tagsSet\":[\"TagA\",\"标签\"],\"topic\":\"T\"}]}],\"producerDataSet\":[{\"groupName\":\"P\"}]}\n";
        let go = r#"{"clientID":"c","producerDataSet":[{"groupName":"P"}],"consumerDataSet":[{"groupName":"G","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{"classFilterMode":false,"topic":"T","subString":"TagA || 标签","tagsSet":["TagA","标签"],"codeSet":["0","2598919"],"subVersion":1795242509537,"expressionType":"TAG"}],"unitMode":false}]}"#;
        let pretty =
            serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(go).unwrap())
                .unwrap();
        let one = beaten(cpp).unwrap();
        assert_eq!(one, beaten(go).unwrap());
        assert_eq!(one, beaten(&pretty).unwrap());
        assert_eq!(one.producers, ["P"]);
        let consumer = &one.consumers[0];
        assert_eq!(consumer.consume_from, ConsumeFrom::FirstOffset);
        assert_eq!(consumer.message_model, MessageModel::Clustering);
        let subscription = &consumer.subscriptions[0];
        assert_eq!(subscription.version, 1_795_242_509_537);
        assert_eq!(subscription.codes, [0, 2_598_919]);
        assert_eq!(subscription.tags, ["TagA", "标签"]);
        assert_eq!(subscription.expression_type, "TAG");
    }

    #[test]
    fn everything_but_names_may_be_absent_or_null() {
        let heartbeat = beaten(r#"{"clientID":"c","consumerDataSet":null}"#).unwrap();
        assert_eq!(
            heartbeat,
            Heartbeat {
                client_id: "c".to_owned(),
                ..Heartbeat::default()
            }
        );
        let heartbeat = beaten(
            r#"{"clientID":"c","heartbeatFingerprint":-7,"withoutSub":true,"consumerDataSet":[{"groupName":"G","subscriptionDataSet":[],"new":[{}]}]}"#,
        )
        .unwrap();
        assert!(heartbeat.without_subscriptions);
        assert_eq!(heartbeat.fingerprint, -7);
        assert_eq!(heartbeat.consumers[0].consume_type, ConsumeType::Passively);
    }

    #[test]
    fn wrong_heartbeats_say_what_is_wrong() {
        for (body, part) in [
            ("", "the body of request 34 is not the JSON"),
            ("{}", "missing field `clientID`"),
            ("[]", "invalid length"),
            (
                r#"{"clientID":"c","consumerDataSet":[{}]}"#,
                "missing field `groupName`",
            ),
            (r#"{"clientID":"c","consumerDataSet":{}}"#, "a list"),
            (
                r#"{"clientID":"c","consumerDataSet":[{"groupName":"G","messageModel":"BROADCAST"}]}"#,
                "has the messageModel \"BROADCAST\": known are BROADCASTING, CLUSTERING, in group \"G\"",
            ),
            (
                r#"{"clientID":"c","consumerDataSet":[{"groupName":"G","consumeType":9}]}"#,
                "has the consumeType \"9\"",
            ),
        ] {
            let text = beaten(body).unwrap_err().text;
            assert!(text.contains(part), "{body}: {text}");
        }
    }
}

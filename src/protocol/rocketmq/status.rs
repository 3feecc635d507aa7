//! What administrators ask about: 28, 202 to 204, 208, 300, 303, 315, 321, 328, 343; settings 25, 26 (P§2.10).

use crate::base::string_hash;
use crate::command::{
    ClientConnection, Command, ConsumeStats, ConsumerConnections, DataVersion, ProducerInfo,
    QueueName, QueueStats, Rate, Refusal, Subscription, TimeSpan, Unit,
};

use super::clients::{CONSUME_FROMS, CONSUME_TYPES, MESSAGE_MODELS, name_of};
use super::frame::Request;
use super::json_read;
use super::json_write::{
    Object, put_data_version, put_list, put_number, put_queue, put_subscription,
};
use super::properties_text;

/// 208. Topic names hold neither of the two separators.
pub(super) fn consume_stats<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let one = request.text_if_any("topic");
    let list = request.text_if_any("topicList").unwrap_or_default();
    let topics = one.into_iter().chain(list.split([';', ',']));
    let topics = topics.map(str::trim).filter(|topic| !topic.is_empty());
    Ok(Command::ConsumeStats {
        group: request.text("consumerGroup")?,
        topics: topics.map(str::to_owned).collect(),
    })
}

/// 303.
pub(super) fn time_span<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::ConsumeTimeSpan {
        topic: request.text("topic")?,
        group: request.text("group")?,
    })
}

/// 321.
pub(super) fn units<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::QueueUnits {
        topic: request.text("topic")?,
        queue_id: request.number("queueId")?,
        from: request.number("index")?,
        count: request.number("count")?,
        group: request.text_if_any("consumerGroup"),
    })
}

/// 315.
pub(super) fn statistics<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::Statistics {
        name: request.text("statsName")?,
        key: request.text("statsKey")?,
    })
}

/// 25.
pub(super) fn config_update<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let text = std::str::from_utf8(request.body)
        .map_err(|error| json_read::refusal(request, format_args!("is not text: {error}")))?;
    Ok(Command::ConfigUpdate {
        properties: properties_text::read(text),
    })
}

/// To 26.
pub(super) fn config(
    out: &mut Vec<u8>,
    note: u64,
    properties: &[(String, String)],
    version: DataVersion,
) {
    let mut body = Vec::new();
    properties_text::write(&mut body, properties);
    let mut version_text = Vec::new();
    put_data_version(&mut version_text, version);
    let version_text = String::from_utf8_lossy(&version_text);
    super::whole(out, note, &[("version", version_text.as_ref())], &body);
}

/// To 28.
pub(super) fn put_runtime(body: &mut Vec<u8>, table: &[(String, String)]) {
    let mut object = Object::begin(body);
    object.pairs("table", table);
    object.end();
}

/// To 202.
pub(super) fn put_topic_stats(
    body: &mut Vec<u8>,
    queues: &[(QueueName, QueueStats)],
    put_tps: f64,
) {
    let mut object = Object::begin(body);
    object.queues("offsetTable", queues, |out, stats| {
        let mut object = Object::begin(out);
        object.number("lastUpdateTimestamp", stats.last_update_ms);
        object.number("maxOffset", stats.max);
        object.number("minOffset", stats.min);
        object.end();
    });
    object.float("topicPutTps", put_tps);
    object.end();
}

/// To 208.
pub(super) fn put_consume_stats(
    body: &mut Vec<u8>,
    queues: &[(QueueName, ConsumeStats)],
    tps: f64,
) {
    let mut object = Object::begin(body);
    object.float("consumeTps", tps);
    object.queues("offsetTable", queues, |out, stats| {
        let mut object = Object::begin(out);
        object.number("brokerOffset", stats.broker_offset);
        object.number("consumerOffset", stats.consumer_offset);
        object.number("lastTimestamp", stats.last_ms);
        object.number("pullOffset", stats.pull_offset);
        object.end();
    });
    object.end();
}

fn put_connection(out: &mut Vec<u8>, connection: &ClientConnection) {
    let mut object = Object::begin(out);
    object.text("clientAddr", &connection.address.to_string());
    object.text("clientId", &connection.client_id);
    object.text("language", super::codes::language(&connection.language));
    object.number("version", connection.version);
    object.end();
}

/// To 203.
pub(super) fn put_consumers(body: &mut Vec<u8>, consumers: &ConsumerConnections) {
    let mut object = Object::begin(body);
    let connections = &consumers.connections;
    put_list(object.name("connectionSet"), connections, put_connection);
    object.text(
        "consumeFromWhere",
        name_of(&CONSUME_FROMS, consumers.consume_from),
    );
    object.text(
        "consumeType",
        name_of(&CONSUME_TYPES, consumers.consume_type),
    );
    object.text(
        "messageModel",
        name_of(&MESSAGE_MODELS, consumers.message_model),
    );
    let mut table = Object::begin(object.name("subscriptionTable"));
    for subscription in &consumers.subscriptions {
        put_subscription(table.name(&subscription.topic), subscription);
    }
    table.end();
    object.end();
}

/// To 204.
pub(super) fn put_producers(body: &mut Vec<u8>, connections: &[ClientConnection]) {
    let mut object = Object::begin(body);
    put_list(object.name("connectionSet"), connections, put_connection);
    object.end();
}

/// To 328. The address has a slash here, and only here.
pub(super) fn put_all_producers(body: &mut Vec<u8>, groups: &[(String, Vec<ProducerInfo>)]) {
    let mut object = Object::begin(body);
    let mut data = Object::begin(object.name("data"));
    for (group, producers) in groups {
        put_list(data.name(group), producers, |out, producer| {
            let connection = &producer.connection;
            let mut object = Object::begin(out);
            object.text("clientId", &connection.client_id);
            object.text("language", super::codes::language(&connection.language));
            object.number("lastUpdateTimestamp", producer.last_update_ms);
            object.text("remoteIP", &format!("/{}", connection.address));
            object.number("version", connection.version);
            object.end();
        });
    }
    data.end();
    object.end();
}

/// To 300.
pub(super) fn put_groups(body: &mut Vec<u8>, names: &[String]) {
    let mut object = Object::begin(body);
    object.texts("groupList", names);
    object.end();
}

/// To 303.
pub(super) fn put_time_spans(body: &mut Vec<u8>, spans: &[TimeSpan]) {
    let mut object = Object::begin(body);
    put_list(object.name("consumeTimeSpanSet"), spans, |out, span| {
        let mut object = Object::begin(out);
        object.number("consumeTimeStamp", span.consume_ms);
        object.number("delayTime", span.delay_ms);
        object.number("maxTimeStamp", span.max_ms);
        put_queue(object.name("messageQueue"), &span.queue);
        object.number("minTimeStamp", span.min_ms);
        object.end();
    });
    object.end();
}

/// Whether a unit is for a group, judged by its tags code as the ConsumeQueue is filtered.
fn is_wanted(subscription: &Subscription, tags_code: i64) -> bool {
    subscription.tags.is_empty()
        || subscription
            .tags
            .iter()
            .any(|tag| i64::from(string_hash(tag)) == tags_code)
}

/// To 321.
pub(super) fn put_units(
    body: &mut Vec<u8>,
    units: &[Unit],
    min: i64,
    max: i64,
    subscription: Option<&Subscription>,
) {
    let mut object = Object::begin(body);
    object.number("maxQueueIndex", max);
    object.number("minQueueIndex", min);
    put_list(object.name("queueData"), units, |out, unit| {
        let wanted = subscription.is_some_and(|wanted| is_wanted(wanted, unit.tags_code));
        let mut object = Object::begin(out);
        object.flag("eval", wanted);
        object.number("physicOffset", unit.offset.0 as i64);
        object.number("physicSize", unit.size);
        object.number("tagsCode", unit.tags_code);
        object.end();
    });
    if let Some(subscription) = subscription {
        put_subscription(object.name("subscriptionData"), subscription);
    }
    object.end();
}

/// To 315.
pub(super) fn put_statistics(body: &mut Vec<u8>, minute: Rate, hour: Rate, day: Rate) {
    let mut object = Object::begin(body);
    for (name, rate) in [
        ("statsDay", day),
        ("statsHour", hour),
        ("statsMinute", minute),
    ] {
        let mut window = Object::begin(object.name(name));
        window.float("avgpt", rate.average);
        put_number(window.name("sum"), rate.sum);
        window.float("tps", rate.tps);
        window.end();
    }
    object.end();
}

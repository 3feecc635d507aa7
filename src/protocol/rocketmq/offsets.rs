//! Offsets: 14, 15, 29 to 32, 43, 45, 222 (P§2.5, §2.10).

use crate::command::{Command, DataVersion, QueueName, Refusal};

use super::codes::{request, response};
use super::frame::{Request, encode_response};
use super::json_write::{Object, put_number};

/// 14. Only a field that says "no" forbids the answer 0 for a young queue.
pub(super) fn query<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let zero = request.text_if_any("setZeroIfNotFound");
    Ok(Command::OffsetQuery {
        group: request.text("consumerGroup")?,
        topic: request.text("topic")?,
        queue_id: request.number("queueId")?,
        zero_if_missing: zero.is_none_or(super::fields::is_true),
    })
}

/// 15. A missing queue or offset has a refusal of its own (29), which the shard gives.
pub(super) fn commit<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::OffsetCommit {
        group: request.text("consumerGroup")?,
        topic: request.text("topic")?,
        queue_id: request.number_if_any("queueId")?,
        offset: request.number_if_any("commitOffset")?,
    })
}

/// 29.
pub(super) fn by_time<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let boundary = request.text_if_any("boundaryType");
    Ok(Command::OffsetByTime {
        topic: request.text("topic")?,
        queue_id: request.number("queueId")?,
        timestamp_ms: request.number("timestamp")?,
        upper: boundary.is_some_and(|boundary| boundary.eq_ignore_ascii_case("upper")),
    })
}

/// 30, 31, 32.
pub(super) fn bound<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let topic = request.text("topic")?;
    let queue_id = request.number("queueId")?;
    Ok(match request.code {
        request::GET_MAX_OFFSET => Command::OffsetMax { topic, queue_id },
        request::GET_MIN_OFFSET => Command::OffsetMin { topic, queue_id },
        _ => Command::EarliestStoreTime { topic, queue_id },
    })
}

/// 222. Tools write "no offset" as −1.
pub(super) fn reset<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let offset: Option<i64> = request.number_if_any("offset")?;
    Ok(Command::OffsetReset {
        topic: request.text("topic")?,
        group: request.text("group")?,
        timestamp_ms: request.number("timestamp")?,
        force: request.flag("isForce"),
        queue_id: request.number_if_any("queueId")?.unwrap_or(-1),
        offset: offset.filter(|offset| 0 <= *offset),
    })
}

/// To 14, 29, 30, 31 with `offset`, to 32 with `timestamp`.
pub(super) fn number(out: &mut Vec<u8>, note: u64, name: &str, value: i64, remark: Option<&str>) {
    let mut buffer = itoa::Buffer::new();
    let fields = [(name, buffer.format(value))];
    encode_response(out, note, response::SUCCESS, remark, &fields, 0);
}

/// To 222.
pub(super) fn resets(body: &mut Vec<u8>, queues: &[(QueueName, i64)]) {
    let mut object = Object::begin(body);
    object.queues("offsetTable", queues, |out, offset| {
        put_number(out, *offset)
    });
    object.end();
}

/// To 43: what stands in consumerOffset.json.
pub(super) fn all(
    body: &mut Vec<u8>,
    offsets: &[(String, String, i32, i64)],
    version: DataVersion,
) {
    let mut sorted: Vec<_> = offsets.iter().collect();
    sorted.sort();
    let mut object = Object::begin(body);
    object.data_version("dataVersion", version);
    let mut table = Object::begin(object.name("offsetTable"));
    for queues in sorted.chunk_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1)) {
        let (topic, group, ..) = queues[0];
        let mut queue_table = Object::begin(table.name(&format!("{topic}@{group}")));
        for (_, _, queue_id, offset) in queues {
            queue_table.number(itoa::Buffer::new().format(*queue_id), *offset);
        }
        queue_table.end();
    }
    table.end();
    object.end();
}

/// To 45: what stands in delayOffset.json.
pub(super) fn all_delays(body: &mut Vec<u8>, offsets: &[(i32, i64)], version: DataVersion) {
    let mut object = Object::begin(body);
    object.data_version("dataVersion", version);
    let mut table = Object::begin(object.name("offsetTable"));
    for (level, offset) in offsets {
        table.number(itoa::Buffer::new().format(*level), *offset);
    }
    table.end();
    object.end();
}

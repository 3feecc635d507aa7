//! RocketMQ remoting: frames, headers, one file per family of requests. Pure functions.

mod arena;
mod clients;
pub mod codes;
mod fields;
pub mod frame;
mod groups;
mod header_binary;
mod header_json;
mod json_read;
mod json_write;
mod note;
mod offsets;
mod properties_text;
mod pull;
mod query;
mod queue_mark;
mod send;
mod status;
mod topics;

pub use frame::{
    FRAME_SIZE_MAX, FrameError, HeaderKind, Note, Request, Scratch, decode, encode_request,
    encode_response, frame_size,
};
pub use json_read::{parse as parse_json, quote_integer_keys};
pub use queue_mark::{is_send, peek_queue_mark, queue_mark};

use std::net::SocketAddr;

use crate::command::{Answer, Command, Notice, Refusal, RefusalKind};

use codes::{request, response};

/// What a request asks for. What it lacks, or has wrong, is refused by name.
pub fn command<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    match request.code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            send::produce(request)
        }
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => pull::fetch(request),
        request::UPDATE_CONSUMER_OFFSET => offsets::commit(request),
        request::QUERY_CONSUMER_OFFSET => offsets::query(request),
        request::HEART_BEAT => clients::heartbeat(request),
        request::UNREGISTER_CLIENT => clients::unregister(request),
        request::GET_CONSUMER_LIST_BY_GROUP => Ok(Command::GroupMembers {
            group: request.text("consumerGroup")?,
        }),
        request::LOCK_BATCH_MQ | request::UNLOCK_BATCH_MQ => clients::locks(request),
        request::CHECK_CLIENT_CONFIG => clients::check(request),
        request::SEARCH_OFFSET_BY_TIMESTAMP => offsets::by_time(request),
        request::GET_MAX_OFFSET | request::GET_MIN_OFFSET | request::GET_EARLIEST_MSG_STORETIME => {
            offsets::bound(request)
        }
        request::CONSUMER_SEND_MSG_BACK => send::send_back(request),
        request::VIEW_MESSAGE_BY_ID => query::by_id(request),
        request::QUERY_MESSAGE => query::by_key(request),
        _ => administration(request),
    }
}

/// What tools ask for.
fn administration<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    match request.code {
        request::UPDATE_AND_CREATE_TOPIC => topics::save_one(request),
        request::UPDATE_AND_CREATE_TOPIC_LIST => topics::save_list(request),
        request::DELETE_TOPIC_IN_BROKER => Ok(Command::TopicDelete {
            topic: request.text("topic")?,
        }),
        request::GET_ALL_TOPIC_CONFIG => topics::all(request),
        request::GET_TOPIC_CONFIG => Ok(Command::TopicOne {
            topic: request.text("topic")?,
        }),
        request::GET_TOPIC_STATS_INFO => Ok(Command::TopicStats {
            topic: request.text("topic")?,
        }),
        request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => Ok(Command::SystemTopics),
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
        | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => groups::save(request),
        request::DELETE_SUBSCRIPTIONGROUP => groups::delete(request),
        request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all(request),
        request::GET_SUBSCRIPTIONGROUP_CONFIG => Ok(Command::GroupOne {
            group: request.text("group")?,
        }),
        request::GET_CONSUME_STATS => status::consume_stats(request),
        request::GET_CONSUMER_CONNECTION_LIST => Ok(Command::ConsumerConnections {
            group: request.text("consumerGroup")?,
        }),
        request::GET_PRODUCER_CONNECTION_LIST => Ok(Command::ProducerConnections {
            group: request.text("producerGroup")?,
        }),
        request::GET_ALL_PRODUCER_INFO => Ok(Command::AllProducers),
        request::QUERY_TOPIC_CONSUME_BY_WHO => Ok(Command::GroupsOfTopic {
            topic: request.text("topic")?,
        }),
        request::QUERY_TOPICS_BY_CONSUMER => Ok(Command::TopicsOfGroup {
            group: request.text("group")?,
        }),
        request::QUERY_CONSUME_TIME_SPAN => status::time_span(request),
        request::QUERY_CONSUME_QUEUE => status::units(request),
        request::VIEW_BROKER_STATS_DATA => status::statistics(request),
        request::GET_BROKER_RUNTIME_INFO => Ok(Command::RuntimeInfo),
        request::GET_BROKER_CONFIG => Ok(Command::ConfigRead),
        request::UPDATE_BROKER_CONFIG => status::config_update(request),
        request::INVOKE_BROKER_TO_RESET_OFFSET => offsets::reset(request),
        request::GET_ALL_CONSUMER_OFFSET => Ok(Command::AllOffsets),
        request::GET_ALL_DELAY_OFFSET => Ok(Command::AllDelayOffsets),
        code => Err(Refusal::new(
            RefusalKind::RequestNotSupported,
            // Apache's own words, with its leading blank: people search for them.
            format!(" request type {code} not supported"),
        )),
    }
}

/// Appends the whole frame of an answer; of a fetched one everything but its body, which comes from
/// elsewhere and is counted. Appends nothing for a oneway request. `host` is where clients reach the shard.
pub fn answer(out: &mut Vec<u8>, note: u64, host: SocketAddr, answer: &Answer) {
    let about = Note::unpack(note);
    if about.oneway {
        return;
    }
    let done = |out: &mut Vec<u8>, fields: &[(&str, &str)]| {
        encode_response(
            out,
            note,
            response::SUCCESS,
            remark_of_success(about.code),
            fields,
            0,
        );
    };
    match answer {
        Answer::Produced(produced) => send::produced(out, note, host, produced),
        Answer::Fetched(fetched) => pull::fetched(out, note, fetched),
        Answer::Refused(refusal) => refused(out, note, refusal),
        Answer::Done => done(out, &[]),
        Answer::DoneWithRemark(remark) => {
            encode_response(out, note, response::SUCCESS, Some(remark), &[], 0);
        }
        Answer::Heartbeat {
            subscription_changed,
        } => done(out, &clients::heartbeat_fields(*subscription_changed)),
        Answer::Offset(offset) => {
            offsets::number(out, note, "offset", *offset, remark_of_success(about.code));
        }
        Answer::Timestamp(ms) => offsets::number(out, note, "timestamp", *ms, None),
        Answer::Record(record) => whole(out, note, &[], record),
        Answer::Records {
            bytes,
            index_last_ms,
            index_last_offset,
        } => query::records(out, note, bytes, *index_last_ms, *index_last_offset),
        Answer::Config {
            properties,
            version,
        } => status::config(out, note, properties, *version),
        Answer::Topics { total, .. } => {
            let mut buffer = itoa::Buffer::new();
            let fields = [("totalTopicNum", buffer.format(*total))];
            whole(out, note, &fields, &body_of(answer));
        }
        Answer::Groups { total, .. } => {
            let mut buffer = itoa::Buffer::new();
            let fields = [("totalGroupNum", buffer.format(*total))];
            whole(out, note, &fields, &body_of(answer));
        }
        _ => whole(out, note, &[], &body_of(answer)),
    }
}

/// The JSON body of an answer that has one.
fn body_of(answer: &Answer) -> Vec<u8> {
    let mut body = Vec::new();
    let out = &mut body;
    match answer {
        Answer::Members(members) => clients::members(out, members),
        Answer::Locked(queues) => clients::locked(out, queues),
        Answer::Topics { table, version, .. } => topics::put_all(out, table, *version),
        Answer::Topic(topic) => topics::put(out, topic),
        Answer::TopicStats { queues, put_tps } => status::put_topic_stats(out, queues, *put_tps),
        Answer::TopicNames(names) => topics::put_names(out, names),
        Answer::Groups { table, version, .. } => groups::put_all(out, table, *version),
        Answer::Group(group) => groups::put(out, group),
        Answer::ConsumeStats { queues, tps } => status::put_consume_stats(out, queues, *tps),
        Answer::ConsumerConnections(consumers) => status::put_consumers(out, consumers),
        Answer::ProducerConnections(connections) => status::put_producers(out, connections),
        Answer::AllProducers(producers) => status::put_all_producers(out, producers),
        Answer::GroupNames(names) => status::put_groups(out, names),
        Answer::TimeSpans(spans) => status::put_time_spans(out, spans),
        Answer::QueueUnits {
            units,
            min,
            max,
            subscription,
        } => status::put_units(out, units, *min, *max, subscription.as_ref()),
        Answer::Statistics { minute, hour, day } => {
            status::put_statistics(out, *minute, *hour, *day);
        }
        Answer::Runtime(table) => status::put_runtime(out, table),
        Answer::Resets(queues) => offsets::resets(out, queues),
        Answer::AllOffsets { offsets, version } => offsets::all(out, offsets, *version),
        Answer::AllDelayOffsets { offsets, version } => {
            offsets::all_delays(out, offsets, *version);
        }
        Answer::Done
        | Answer::DoneWithRemark(_)
        | Answer::Refused(_)
        | Answer::Produced(_)
        | Answer::Fetched(_)
        | Answer::Heartbeat { .. }
        | Answer::Offset(_)
        | Answer::Timestamp(_)
        | Answer::Record(_)
        | Answer::Records { .. }
        | Answer::Config { .. } => {}
    }
    body
}

/// Remarks that Apache's broker leaves on some successes (P§1.5).
const fn remark_of_success(request_code: i32) -> Option<&'static str> {
    match request_code {
        request::UPDATE_AND_CREATE_TOPIC | request::QUERY_CONSUME_QUEUE => {
            Some("not set any response code")
        }
        request::GET_MIN_OFFSET => Some(""),
        _ => None,
    }
}

/// Appends a frame with a body.
fn whole(out: &mut Vec<u8>, note: u64, fields: &[(&str, &str)], body: &[u8]) {
    let about = Note::unpack(note);
    // Room for the header, whose fields are few and short here.
    let size_max = FRAME_SIZE_MAX - 4096;
    if size_max < body.len() {
        let text = format!(
            "the answer to request {} has {} bytes, a frame has room for {size_max}: ask for less",
            about.code,
            body.len()
        );
        return refused(out, note, &Refusal::new(RefusalKind::SystemError, text));
    }
    let remark = remark_of_success(about.code);
    encode_response(out, note, response::SUCCESS, remark, fields, body.len());
    if !about.oneway {
        out.extend_from_slice(body);
    }
}

/// Appends a refusal, with what its request's answers carry even then.
fn refused(out: &mut Vec<u8>, note: u64, refusal: &Refusal) {
    let code = codes::of_refusal(refusal.kind);
    let fields: &[_] = match Note::unpack(note).code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            send::refusal_fields(refusal)
        }
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => {
            return pull::refused(out, note, code, refusal);
        }
        request::QUERY_MESSAGE if code == response::QUERY_NOT_FOUND => {
            return query::none(out, note, code, &refusal.text);
        }
        _ => &[],
    };
    encode_response(out, note, code, Some(&refusal.text), fields, 0);
}

/// Appends a whole request of ours to a client; nobody answers it.
pub fn notice(out: &mut Vec<u8>, kind: HeaderKind, opaque: i32, notice: &Notice) {
    match notice {
        Notice::MembersChanged { group } => encode_request(
            out,
            kind,
            request::NOTIFY_CONSUMER_IDS_CHANGED,
            opaque,
            true,
            &[("consumerGroup", group)],
            &[],
        ),
    }
}

//! Settings of topics: 17, 18, 21, 215, 305, 351 (P§2.10).

use serde::Deserialize;

use crate::command::{Command, DataVersion, Refusal, RefusalKind, TopicConfig};

use super::frame::Request;
use super::json_read::{self, List, Pairs, Scalar};
use super::json_write::Object;

const MULTI_TAG: &str = "MULTI_TAG";

/// 17.
pub(super) fn save_one<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let attributes = request.text_if_any("attributes").unwrap_or_default();
    let topic = TopicConfig {
        name: request.text("topic")?.to_owned(),
        read_queue_count: request.number("readQueueNums")?,
        write_queue_count: request.number("writeQueueNums")?,
        perm: request.number("perm")?,
        multi_tag: request.field("topicFilterType") == Some(MULTI_TAG),
        sys_flag: request.number_if_any("topicSysFlag")?.unwrap_or(0),
        order: request.flag("order"),
        attributes: attribute_changes(attributes)?,
    };
    Ok(Command::TopicsSave {
        topics: vec![topic],
    })
}

/// `+key=value,-key`: gives the keys with their signs.
fn attribute_changes(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = |change: &str| {
        Refusal::new(
            RefusalKind::SystemError,
            format!("attribute {change:?} is neither `+key=value` nor `-key`"),
        )
    };
    let mut changes: Vec<(String, String)> = Vec::new();
    for change in text
        .split(',')
        .map(str::trim)
        .filter(|change| !change.is_empty())
    {
        let (key, value) = match change.split_once('=') {
            Some((key, value)) if key.starts_with('+') => (key, value),
            None if change.starts_with('-') => (change, ""),
            _ => return Err(wrong(change)),
        };
        if key.len() < 2 || changes.iter().any(|(known, _)| known == key) {
            return Err(wrong(change));
        }
        changes.push((key.to_owned(), value.to_owned()));
    }
    Ok(changes)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopicsBody {
    topic_config_list: List<TopicBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopicBody {
    topic_name: String,
    #[serde(default)]
    read_queue_nums: Scalar,
    #[serde(default)]
    write_queue_nums: Scalar,
    #[serde(default)]
    perm: Scalar,
    #[serde(default)]
    topic_filter_type: Scalar,
    #[serde(default)]
    topic_sys_flag: Scalar,
    #[serde(default)]
    order: Scalar,
    #[serde(default)]
    attributes: Pairs,
}

/// 18. What is absent is what Java's TopicConfig begins with.
pub(super) fn save_list<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let body: TopicsBody = json_read::body(request)?;
    let mut topics = Vec::with_capacity(body.topic_config_list.0.len());
    for topic in body.topic_config_list.0 {
        let number = |name: &str, value: Scalar, if_absent: u32| {
            let found = value.number();
            match value.text() {
                Some(text) => found.ok_or_else(|| {
                    let what = format!("gives topic {:?} the {name} {text:?}", topic.topic_name);
                    json_read::refusal(request, what)
                }),
                None => Ok(if_absent),
            }
        };
        topics.push(TopicConfig {
            read_queue_count: number("readQueueNums", topic.read_queue_nums, 16)?,
            write_queue_count: number("writeQueueNums", topic.write_queue_nums, 16)?,
            perm: number("perm", topic.perm, 6)?,
            sys_flag: number("topicSysFlag", topic.topic_sys_flag, 0)?,
            multi_tag: topic.topic_filter_type.text().as_deref() == Some(MULTI_TAG),
            order: topic.order.flag().unwrap_or(false),
            attributes: topic.attributes.0,
            name: topic.topic_name,
        });
    }
    Ok(Command::TopicsSave { topics })
}

/// 21. Only who names a first topic gets a part of them.
pub(super) fn all<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::TopicsAll {
        from: request.number_if_any("topicSeq")?,
        count_max: request.number_if_any("maxTopicNum")?,
    })
}

/// Java's TopicConfig, also to 351.
pub(super) fn put(out: &mut Vec<u8>, topic: &TopicConfig) {
    let filter_type = if topic.multi_tag {
        MULTI_TAG
    } else {
        "SINGLE_TAG"
    };
    let mut object = Object::begin(out);
    object.pairs("attributes", &topic.attributes);
    object.flag("order", topic.order);
    object.number("perm", topic.perm);
    object.number("readQueueNums", topic.read_queue_count);
    object.text("topicFilterType", filter_type);
    object.text("topicName", &topic.name);
    object.number("topicSysFlag", topic.sys_flag);
    object.number("writeQueueNums", topic.write_queue_count);
    object.end();
}

/// To 21. There are no static topics here, so their tables are empty.
pub(super) fn put_all(body: &mut Vec<u8>, table: &[TopicConfig], version: DataVersion) {
    let mut object = Object::begin(body);
    object.data_version("dataVersion", version);
    object.data_version("mappingDataVersion", DataVersion::default());
    let mut topics = Object::begin(object.name("topicConfigTable"));
    for topic in table {
        put(topics.name(&topic.name), topic);
    }
    topics.end();
    object.pairs("topicQueueMappingDetailMap", &[]);
    object.pairs("topicQueueMappingInfoMap", &[]);
    object.end();
}

/// Java's TopicList: to 305 and 343.
pub(super) fn put_names(body: &mut Vec<u8>, names: &[String]) {
    let mut object = Object::begin(body);
    object.texts("topicList", names);
    object.end();
}

#[cfg(test)]
mod tests {
    use super::attribute_changes;

    #[test]
    fn attributes_keep_their_signs() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        assert_eq!(attribute_changes("").unwrap(), []);
        assert_eq!(
            attribute_changes("+message.type=NORMAL, -queue.type,+a=b=c").unwrap(),
            owned(&[
                ("+message.type", "NORMAL"),
                ("-queue.type", ""),
                ("+a", "b=c")
            ])
        );
        for wrong in ["a=b", "-a=b", "+a", "+", "-", "+=1", "+a=1,+a=2"] {
            assert!(attribute_changes(wrong).is_err(), "{wrong}");
        }
    }
}

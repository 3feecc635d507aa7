//! `topics.json`: the topics of a shard.

use std::collections::BTreeMap;

use super::fields::{Fields, integer, texts_node, version_node};
use super::json::{Document, Node, Value, write};
use super::{Kept, StateError};
use crate::command::{DataVersion, TopicConfig};

const FILE: &str = "topics.json";

/// What Apache's broker takes where a file names none.
const QUEUE_COUNT: u32 = 16;
const PERM_READ_WRITE: u32 = 6;

/// Everything in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topics {
    /// Grows with each change.
    pub version: DataVersion,
    /// By name.
    pub table: BTreeMap<String, TopicConfig>,
    /// Records of these topics below these physical offsets were deleted with their topic, though the log
    /// still has them. Apache's broker passes this table over.
    pub deleted: BTreeMap<String, u64>,
    /// Fields of a topic that this broker does not know, by its name.
    pub kept_of_topic: BTreeMap<String, Kept>,
    /// Tables that this broker does not know.
    pub kept: Kept,
}

/// Reads the file.
pub fn decode(bytes: &[u8]) -> Result<Topics, StateError> {
    let document = Document::new(FILE, bytes);
    let mut fields = Fields::of(&document, "the file", document.parse()?)?;
    let mut topics = Topics {
        version: fields.version()?,
        ..Topics::default()
    };
    for (key, node) in fields.table("topicConfigTable")?.rest() {
        let name = key.into_text();
        let (config, kept) = decode_topic(&document, &name, node)?;
        if !kept.is_empty() {
            topics.kept_of_topic.insert(name.clone(), kept);
        }
        topics.table.insert(name, config);
    }
    for (key, node) in fields.table("deletedTopics")?.rest() {
        let name = key.into_text();
        let end: i64 = integer(&document, "the end of a deleted topic", &node)?;
        topics.deleted.insert(name, u64::try_from(end).unwrap_or(0));
    }
    topics.kept = Kept::new(fields.rest());
    Ok(topics)
}

fn decode_topic(
    document: &Document<'_>,
    name: &str,
    node: Node,
) -> Result<(TopicConfig, Kept), StateError> {
    let mut fields = Fields::of(document, name, node)?;
    // The name in the table is the one that Apache's broker looks topics up by.
    fields.text("topicName")?;
    let multi_tag = match fields.text("topicFilterType")? {
        None => false,
        Some((_, kind)) if kind == "SINGLE_TAG" => false,
        Some((_, kind)) if kind == "MULTI_TAG" => true,
        Some((at, kind)) => {
            let why = format!("topicFilterType is neither SINGLE_TAG nor MULTI_TAG: {kind}");
            return Err(document.fail(at, why));
        }
    };
    let config = TopicConfig {
        name: name.to_owned(),
        read_queue_count: fields.integer("readQueueNums", QUEUE_COUNT)?,
        write_queue_count: fields.integer("writeQueueNums", QUEUE_COUNT)?,
        perm: fields.integer("perm", PERM_READ_WRITE)?,
        multi_tag,
        sys_flag: fields.integer("topicSysFlag", 0)?,
        order: fields.boolean("order", false)?,
        attributes: fields.texts("attributes")?,
    };
    Ok((config, Kept::new(fields.rest())))
}

/// Writes the file.
#[must_use]
pub fn encode(topics: &Topics) -> Vec<u8> {
    let nothing = Kept::default();
    let table = topics.table.iter().map(|(name, config)| {
        let kept = topics.kept_of_topic.get(name).unwrap_or(&nothing);
        (name.as_str(), encode_topic(config, kept))
    });
    let mut known = vec![
        ("dataVersion", version_node(topics.version)),
        ("topicConfigTable", Node::table(table)),
    ];
    if !topics.deleted.is_empty() {
        let deleted = topics.deleted.iter();
        let deleted = deleted.map(|(name, end)| (name.as_str(), Node::number(*end as i64)));
        known.push(("deletedTopics", Node::table(deleted)));
    }
    write(&topics.kept.join(known))
}

fn encode_topic(config: &TopicConfig, kept: &Kept) -> Node {
    let filter = if config.multi_tag {
        "MULTI_TAG"
    } else {
        "SINGLE_TAG"
    };
    kept.join(vec![
        ("attributes", texts_node(&config.attributes)),
        ("order", Node::new(Value::Bool(config.order))),
        ("perm", Node::number(config.perm)),
        ("readQueueNums", Node::number(config.read_queue_count)),
        ("topicFilterType", Node::text(filter)),
        ("topicName", Node::text(&config.name)),
        ("topicSysFlag", Node::number(config.sys_flag)),
        ("writeQueueNums", Node::number(config.write_queue_count)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_thin_file_gets_the_defaults_of_apache() {
        let topics = decode(br#"{"topicConfigTable":{"a":{"perm":2,"attributes":null}}}"#).unwrap();
        let topic = &topics.table["a"];
        assert_eq!(
            (topic.perm, topic.read_queue_count, topic.write_queue_count),
            (2, 16, 16)
        );
        assert_eq!(topics.version, DataVersion::default());
        assert_eq!(decode(b"{}").unwrap(), Topics::default());
        assert_eq!(
            decode(br#"{"topicConfigTable":null}"#).unwrap(),
            Topics::default()
        );
    }

    #[test]
    fn what_a_newer_broker_wrote_is_written_again() {
        let text = r#"{"mappingTable":{1:[2]},"topicConfigTable":{"a":{"liteTtl":7}}}"#;
        let topics = decode(text.as_bytes()).unwrap();
        let written = String::from_utf8(encode(&topics)).unwrap();
        assert!(written.contains("\"liteTtl\":7"), "{written}");
        assert!(
            written.contains("\"mappingTable\":{\n\t\t1:[\n\t\t\t2\n\t\t]\n\t}"),
            "{written}"
        );
        assert_eq!(decode(written.as_bytes()).unwrap(), topics);
    }

    #[test]
    fn deleted_topics_come_back() {
        let deleted = [("gone".to_owned(), 4096), ("gone too".to_owned(), 0)];
        let topics = Topics {
            deleted: deleted.into(),
            ..Topics::default()
        };
        assert_eq!(decode(&encode(&topics)).unwrap(), topics);
    }

    #[test]
    fn wrong_values_name_their_place() {
        let cases = [
            (
                "[]",
                "topics.json, line 1, column 1: the file is no table {…}",
            ),
            (
                "{\"topicConfigTable\":{\n\"a\":{\"perm\":-1}}}",
                "topics.json, line 2, column 13: perm is out of range: -1",
            ),
            (
                "{\"topicConfigTable\":{\"a\":{\"order\":1}}}",
                "topics.json, line 1, column 35: order is neither true nor false",
            ),
            (
                "{\"topicConfigTable\":{\"a\":{\"topicFilterType\":\"X\"}}}",
                "topics.json, line 1, column 45: topicFilterType is neither SINGLE_TAG nor MULTI_TAG: X",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text.as_bytes()).unwrap_err().to_string(), expected);
        }
    }
}

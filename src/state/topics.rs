//! `topics.json`: the topics of a shard.

use std::collections::BTreeMap;

use super::fields::{Fields, integer, texts_node, version_node};
use super::json::{
    Document, Node, TableWriter, Value, write, write_fields, write_name, write_number, write_text,
    write_value,
};
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
    let mut writer = Writer::default();
    for config in topics.table.values() {
        writer.put(topics, config);
    }
    writer.finish(topics)
}

/// Writes the file topic by topic, for who has not the time for all of them at once.
#[derive(Debug)]
pub struct Writer(TableWriter);

impl Default for Writer {
    fn default() -> Self {
        Self(TableWriter::new(1))
    }
}

impl Writer {
    /// The next topic; they come sorted by name.
    pub fn put(&mut self, topics: &Topics, config: &TopicConfig) {
        self.0.put(|out| {
            write_name(&config.name, out);
            match topics.kept_of_topic.get(&config.name) {
                None => write_topic(config, out),
                Some(kept) => write_value(&encode_topic(config, kept), 2, out),
            }
        });
    }

    /// The file, with these topics for those of `topics`.
    #[must_use]
    pub fn finish(self, topics: &Topics) -> Vec<u8> {
        encode_with(topics, self.0.finish())
    }
}

fn encode_with(topics: &Topics, table: Node) -> Vec<u8> {
    let mut known = vec![
        ("dataVersion", version_node(topics.version)),
        ("topicConfigTable", table),
    ];
    if !topics.deleted.is_empty() {
        let deleted = topics.deleted.iter();
        let deleted = deleted.map(|(name, end)| (name.as_str(), Node::number(*end as i64)));
        known.push(("deletedTopics", Node::table(deleted)));
    }
    write(&topics.kept.join(known))
}

const fn filter_type(config: &TopicConfig) -> &'static str {
    if config.multi_tag {
        "MULTI_TAG"
    } else {
        "SINGLE_TAG"
    }
}

/// As [`encode_topic`] of a topic without kept fields, which are nearly all.
fn write_topic(config: &TopicConfig, out: &mut String) {
    enum Field<'a> {
        Texts(&'a [(String, String)]),
        Flag(bool),
        Number(u32),
        Text(&'a str),
    }
    let fields = [
        ("attributes", Field::Texts(&config.attributes)),
        ("order", Field::Flag(config.order)),
        ("perm", Field::Number(config.perm)),
        ("readQueueNums", Field::Number(config.read_queue_count)),
        ("topicFilterType", Field::Text(filter_type(config))),
        ("topicName", Field::Text(&config.name)),
        ("topicSysFlag", Field::Number(config.sys_flag)),
        ("writeQueueNums", Field::Number(config.write_queue_count)),
    ];
    write_fields(2, fields.into_iter(), out, |(name, value), out| {
        write_name(name, out);
        match value {
            Field::Texts(texts) => write_fields(3, texts.iter(), out, |(name, text), out| {
                write_name(name, out);
                write_text(text, out);
            }),
            Field::Flag(flag) => out.push_str(if flag { "true" } else { "false" }),
            Field::Number(number) => write_number(i64::from(number), out),
            Field::Text(text) => write_text(text, out),
        }
    });
}

fn encode_topic(config: &TopicConfig, kept: &Kept) -> Node {
    kept.join(vec![
        ("attributes", texts_node(&config.attributes)),
        ("order", Node::new(Value::Bool(config.order))),
        ("perm", Node::number(config.perm)),
        ("readQueueNums", Node::number(config.read_queue_count)),
        ("topicFilterType", Node::text(filter_type(config))),
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
    fn a_topic_is_written_alike_with_and_without_kept_fields() {
        let config = TopicConfig {
            name: "a \"好\"\n".to_owned(),
            read_queue_count: 3,
            write_queue_count: 4,
            perm: 6,
            multi_tag: true,
            sys_flag: 2,
            order: true,
            attributes: vec![
                ("+k".to_owned(), "v\\".to_owned()),
                ("l".to_owned(), String::new()),
            ],
        };
        for attribute_count in 0..=2 {
            let mut config = config.clone();
            config.attributes.truncate(attribute_count);
            let (mut one, mut other) = (String::new(), String::new());
            write_topic(&config, &mut one);
            write_value(&encode_topic(&config, &Kept::default()), 2, &mut other);
            assert_eq!(one, other);
        }
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

//! `consumerOffset.json`: how far each group has read each queue.

use std::collections::BTreeMap;

use super::delay::decode_numbers;
use super::fields::{Fields, version_node};
use super::json::{
    Document, Node, TableWriter, Value, write, write_fields, write_name, write_number,
};
use super::{Kept, StateError};
use crate::command::DataVersion;

const FILE: &str = "consumerOffset.json";

/// Whose offsets: written `topic@group`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reader {
    /// What is read.
    pub topic: String,
    /// Who reads.
    pub group: String,
}

/// Queue → next offset to read.
pub type Queues = BTreeMap<i32, i64>;

/// Everything in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offsets {
    /// Grows now and then.
    pub version: DataVersion,
    /// Committed offsets.
    pub table: BTreeMap<Reader, Queues>,
    /// How far pulls have gone, where the file says so.
    pub pull_table: BTreeMap<Reader, Queues>,
    /// Topics that each group has read, where the file says so.
    pub topics_of_group: BTreeMap<String, Vec<String>>,
    /// Tables that this broker does not know.
    pub kept: Kept,
}

/// Reads the file.
pub fn decode(bytes: &[u8]) -> Result<Offsets, StateError> {
    let document = Document::new(FILE, bytes);
    let mut fields = Fields::of(&document, "the file", document.parse()?)?;
    Ok(Offsets {
        version: fields.version()?,
        table: decode_table(&document, fields.table("offsetTable")?)?,
        pull_table: decode_table(&document, fields.table("pullOffsetTable")?)?,
        topics_of_group: decode_topics(&document, fields.table("groupTopicMap")?)?,
        kept: Kept::new(fields.rest()),
    })
}

fn decode_table(
    document: &Document<'_>,
    fields: Fields<'_>,
) -> Result<BTreeMap<Reader, Queues>, StateError> {
    let mut table = BTreeMap::new();
    for (key, node) in fields.rest() {
        let name = key.into_text();
        let Some((topic, group)) = name.split_once('@') else {
            return Err(document.fail(node.at, format!("{name} is not of the form topic@group")));
        };
        let reader = Reader {
            topic: topic.to_owned(),
            group: group.to_owned(),
        };
        table.insert(reader, decode_numbers(document, &name, node)?);
    }
    Ok(table)
}

fn decode_topics(
    document: &Document<'_>,
    fields: Fields<'_>,
) -> Result<BTreeMap<String, Vec<String>>, StateError> {
    let mut groups = BTreeMap::new();
    for (key, node) in fields.rest() {
        let Value::List(items) = node.value else {
            return Err(document.fail(node.at, "the topics of a group are no list […]"));
        };
        let mut topics = Vec::new();
        for item in items {
            match item.value {
                Value::Text(topic) => topics.push(topic),
                _ => return Err(document.fail(item.at, "a topic of a group is no text")),
            }
        }
        groups.insert(key.into_text(), topics);
    }
    Ok(groups)
}

/// Writes the file.
#[must_use]
pub fn encode(offsets: &Offsets) -> Vec<u8> {
    encode_with(offsets, encode_table(&offsets.table))
}

/// Writes the file reader by reader, for who has not the time for all of them at once.
#[derive(Debug)]
pub struct Writer {
    table: TableWriter,
    name: String,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            table: TableWriter::new(1),
            name: String::new(),
        }
    }
}

impl Writer {
    /// The next reader, whichever that is.
    pub fn put(&mut self, topic: &str, group: &str, queues: &Queues) {
        let name = &mut self.name;
        name.clear();
        name.push_str(topic);
        name.push('@');
        name.push_str(group);
        self.table.put(|out| {
            write_name(name, out);
            write_fields(2, queues.iter(), out, |(queue_id, offset), out| {
                write_number(i64::from(*queue_id), out);
                out.push(':');
                write_number(*offset, out);
            });
        });
    }

    /// The file, with these readers for those of `offsets`.
    #[must_use]
    pub fn finish(self, offsets: &Offsets) -> Vec<u8> {
        encode_with(offsets, self.table.finish())
    }
}

/// Tables that Apache's older brokers do not write are left out while they are empty.
fn encode_with(offsets: &Offsets, table: Node) -> Vec<u8> {
    let mut known = vec![
        ("dataVersion", version_node(offsets.version)),
        ("offsetTable", table),
    ];
    if !offsets.pull_table.is_empty() {
        known.push(("pullOffsetTable", encode_table(&offsets.pull_table)));
    }
    if !offsets.topics_of_group.is_empty() {
        let groups = offsets.topics_of_group.iter().map(|(group, topics)| {
            let topics = topics.iter().map(|topic| Node::text(topic)).collect();
            (group.as_str(), Node::new(Value::List(topics)))
        });
        known.push(("groupTopicMap", Node::table(groups)));
    }
    write(&offsets.kept.join(known))
}

fn encode_table(table: &BTreeMap<Reader, Queues>) -> Node {
    let mut writer = Writer::default();
    for (reader, queues) in table {
        writer.put(&reader.topic, &reader.group, queues);
    }
    writer.table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_with_and_without_quotes_are_the_same() {
        let plain = decode(b"{\"offsetTable\":{\"t@g\":{0:5,\"1\":\"7\"}}}").unwrap();
        let reader = Reader {
            topic: "t".into(),
            group: "g".into(),
        };
        assert_eq!(plain.table[&reader], Queues::from([(0, 5), (1, 7)]));
        let written = encode(&plain);
        let expected = "{\n\t\"dataVersion\":{\n\t\t\"counter\":0,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":0\n\
            \t},\n\t\"offsetTable\":{\n\t\t\"t@g\":{\n\t\t\t0:5,\n\t\t\t1:7\n\t\t}\n\t}\n}";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn retry_topics_and_the_table_of_pulls_come_back() {
        let text = "{\"offsetTable\":{\"%RETRY%g@g\":{0:1}},\"pullOffsetTable\":{\"t@g\":{3:9}},\
            \"groupTopicMap\":{\"g\":[\"t\",\"%RETRY%g\"]},\"later\":{}}";
        let offsets = decode(text.as_bytes()).unwrap();
        assert_eq!(offsets.pull_table.len(), 1);
        assert_eq!(offsets.topics_of_group["g"], ["t", "%RETRY%g"]);
        assert!(!offsets.kept.is_empty());
        assert_eq!(decode(&encode(&offsets)).unwrap(), offsets);
    }

    #[test]
    fn wrong_values_name_their_place() {
        let cases = [
            (
                "{\"offsetTable\":{\"t\":{}}}",
                "column 21: t is not of the form topic@group",
            ),
            (
                "{\"offsetTable\":{\"t@g\":{\"x\":1}}}",
                "column 28: x in t@g is no whole number",
            ),
            (
                "{\"offsetTable\":{\"t@g\":{0:1.5}}}",
                "column 26: 0 in t@g is no whole number: 1.5",
            ),
            (
                "{\"groupTopicMap\":{\"g\":1}}",
                "column 23: the topics of a group are no list […]",
            ),
        ];
        for (text, expected) in cases {
            let error = decode(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("consumerOffset.json, line 1, {expected}"));
        }
    }
}

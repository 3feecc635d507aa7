//! `topics.json`: the topics of a shard.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::fields::{Fields, integer, texts_node, version_node};
use super::json::{
    Document, FieldsWriter, Node, TableWriter, Value, close, write, write_fields, write_name,
    write_number, write_text, write_value,
};
use super::{Kept, StateError};
use crate::command::{DataVersion, TopicConfig};

const FILE: &str = "topics.json";

/// Where the table stands in the file.
const DEPTH: usize = 1;

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
    let mut table = TableWriter::new(DEPTH);
    for config in topics.table.values() {
        table.put(|out| write_entry(topics, config, out));
    }
    encode_with(topics, table.finish())
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

fn write_entry(topics: &Topics, config: &TopicConfig, out: &mut String) {
    write_name(&config.name, out);
    match topics.kept_of_topic.get(&config.name) {
        None => write_topic(config, out),
        Some(kept) => write_value(&encode_topic(config, kept), DEPTH + 1, out),
    }
}

/// Topics whose text is one piece: of more, two are made.
const PIECE_MAX: usize = 128;

/// The text of the table in pieces by name, which are kept: a change makes one of them anew, whatever their number.
#[derive(Debug)]
pub struct Pieces {
    /// By the least name that may be in it, up to that of the next; the first begins with no name at all.
    table: BTreeMap<String, Arc<Vec<u8>>>,
    /// Those that are not as the topics are.
    stale: BTreeSet<String>,
}

impl Default for Pieces {
    fn default() -> Self {
        Self {
            table: BTreeMap::from([(String::new(), Arc::default())]),
            stale: BTreeSet::from([String::new()]),
        }
    }
}

impl Pieces {
    /// A topic is new, has changed or has gone.
    pub fn touch(&mut self, name: &str) {
        let (first, _) = self.at(name);
        if !self.stale.contains(first) {
            let first = first.clone();
            self.stale.insert(first);
        }
    }

    fn at(&self, name: &str) -> (&String, &Arc<Vec<u8>>) {
        let mut upto = self.table.range::<str, _>((Unbounded, Included(name)));
        upto.next_back()
            .expect("the first piece begins with no name")
    }

    /// The name with which a piece begins that is to be made; [`Self::make`] wants the topics from there on.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.stale.first().map(String::as_str)
    }

    /// Makes that piece, or the first half of it and leaves the rest for the next call. `topics`: from its name on, sorted.
    pub fn make<'a>(&mut self, loaded: &Topics, topics: impl Iterator<Item = &'a TopicConfig>) {
        let Some(first) = self.stale.pop_first() else {
            return;
        };
        let mut after = self
            .table
            .range::<str, _>((Excluded(first.as_str()), Unbounded));
        let end = after.next().map(|(name, _)| name.clone());
        let is_within = |config: &&TopicConfig| end.as_ref().is_none_or(|end| config.name < *end);
        let mut piece = FieldsWriter::new(DEPTH);
        let mut half = (0, String::new());
        for (count, config) in topics.take_while(is_within).enumerate() {
            if count == PIECE_MAX / 2 {
                half = (piece.len(), config.name.clone());
            }
            if count == PIECE_MAX {
                let (len, name) = half;
                piece.truncate(len);
                self.table.insert(name.clone(), Arc::default());
                self.stale.insert(name);
                break;
            }
            piece.put(|out| write_entry(loaded, config, out));
        }
        let text = piece.finish();
        if text.is_empty() && !first.is_empty() {
            self.table.remove(&first);
        } else {
            self.table.insert(first, Arc::new(text.into_bytes()));
        }
    }

    /// The file, with these topics for those of `loaded`.
    #[must_use]
    pub fn file(&self, loaded: &Topics) -> Vec<Arc<Vec<u8>>> {
        // No text of a file has this: the bytes below a blank are escaped.
        const MARK: &str = "\0";
        let around = encode_with(loaded, Node::new(Value::Written(MARK.to_owned())));
        let at = around
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(around.len());
        let (before, after) = (&around[..at], &around[around.len().min(at + 1)..]);
        let (mut file, comma) = (Vec::new(), Arc::new(b",".to_vec()));
        let mut texts = self
            .table
            .values()
            .filter(|text| !text.is_empty())
            .peekable();
        let is_empty = texts.peek().is_none();
        file.push(Arc::new([before, b"{"].concat()));
        while let Some(text) = texts.next() {
            file.push(Arc::clone(text));
            if texts.peek().is_some() {
                file.push(Arc::clone(&comma));
            }
        }
        let mut end = String::new();
        close(is_empty, DEPTH, '}', &mut end);
        file.push(Arc::new([end.as_bytes(), after].concat()));
        file
    }
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

    fn config(name: &str, read_queue_count: u32) -> TopicConfig {
        TopicConfig {
            name: name.to_owned(),
            read_queue_count,
            write_queue_count: 8,
            perm: 6,
            multi_tag: false,
            sys_flag: 0,
            order: false,
            attributes: Vec::new(),
        }
    }

    /// Makes what is stale, and says how many pieces that took.
    fn make_all(pieces: &mut Pieces, topics: &Topics) -> usize {
        let mut count = 0;
        while let Some(first) = pieces.next().map(ToOwned::to_owned) {
            let range = topics
                .table
                .range::<str, _>((Included(first.as_str()), Unbounded));
            pieces.make(topics, range.map(|(_, config)| config));
            count += 1;
        }
        count
    }

    fn file(pieces: &Pieces, topics: &Topics) -> String {
        let file = pieces.file(topics);
        let bytes = file.iter().flat_map(|piece| piece.to_vec());
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn pieces_are_the_file_whatever_comes_and_goes() {
        let kept = r#"{"mappingTable":{1:[2]},"topicConfigTable":{"T00100":{"liteTtl":7}}}"#;
        for seed in 0..4 {
            let mut prng = crate::base::Prng::from_seed(seed);
            let mut topics = decode(kept.as_bytes()).unwrap();
            let mut pieces = Pieces::default();
            assert_eq!(make_all(&mut pieces, &topics), 1);
            for round in 0..60 {
                // Many come at first, most of them go at last.
                let (count, come) = if round < 40 { (40, 4) } else { (150, 1) };
                for _ in 0..prng.below(count) {
                    let name = format!("T{:05}", prng.below(3000));
                    if prng.chance(come, 5) {
                        topics.table.insert(name.clone(), config(&name, round));
                    } else {
                        topics.table.remove(&name);
                    }
                    pieces.touch(&name);
                }
                topics.version.counter += 1;
                make_all(&mut pieces, &topics);
                let wanted = String::from_utf8(encode(&topics)).unwrap();
                assert!(
                    file(&pieces, &topics) == wanted,
                    "seed {seed}, round {round}"
                );
            }
            topics.table.keys().for_each(|name| pieces.touch(name));
            topics.table.clear();
            make_all(&mut pieces, &topics);
            assert_eq!(file(&pieces, &topics).as_bytes(), encode(&topics));
            assert_eq!(pieces.table.len(), 1, "nothing is left of the others");
        }
    }

    #[test]
    fn a_topic_that_is_new_makes_one_piece_anew() {
        let mut topics = Topics::default();
        let mut pieces = Pieces::default();
        for number in 0..10_000 {
            let name = format!("T{number:05}");
            topics.table.insert(name.clone(), config(&name, 1));
            pieces.touch(&name);
            let made = make_all(&mut pieces, &topics);
            // Two where one has become too large.
            assert!(made <= 2, "{made} for {name}");
        }
        let largest = pieces.table.values().map(|text| text.len()).max().unwrap();
        let average = encode(&topics).len() / topics.table.len();
        assert!(largest <= average * (PIECE_MAX + 1), "{largest} bytes");
        assert!(
            pieces.table.len() <= 10_000 / (PIECE_MAX / 2),
            "{}",
            pieces.table.len()
        );
    }
}

//! `delayOffset.json`: how far each delay level has been delivered.

use std::collections::BTreeMap;

use super::fields::{Fields, integer, version_node};
use super::json::{Document, Key, Node, Value, write};
use super::{Kept, StateError};
use crate::command::DataVersion;

const FILE: &str = "delayOffset.json";

/// Everything in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DelayOffsets {
    /// Grows now and then.
    pub version: DataVersion,
    /// Level, from 1 → next queue offset to deliver. Only levels that were ever used.
    pub table: BTreeMap<i32, i64>,
    /// Tables that this broker does not know.
    pub kept: Kept,
}

/// Reads the file.
pub fn decode(bytes: &[u8]) -> Result<DelayOffsets, StateError> {
    let document = Document::new(FILE, bytes);
    let mut fields = Fields::of(&document, "the file", document.parse()?)?;
    let version = fields.version()?;
    let table = Node::new(Value::Table(fields.table("offsetTable")?.rest()));
    Ok(DelayOffsets {
        version,
        table: decode_numbers(&document, "offsetTable", table)?,
        kept: Kept::new(fields.rest()),
    })
}

/// Writes the file.
#[must_use]
pub fn encode(offsets: &DelayOffsets) -> Vec<u8> {
    write(&offsets.kept.join(vec![
        ("dataVersion", version_node(offsets.version)),
        ("offsetTable", encode_numbers(&offsets.table)),
    ]))
}

/// A table of whole numbers by whole numbers, whose names may stand in quotes or not.
pub(super) fn decode_numbers(
    document: &Document<'_>,
    name: &str,
    node: Node,
) -> Result<BTreeMap<i32, i64>, StateError> {
    let mut numbers = BTreeMap::new();
    for (key, node) in Fields::of(document, name, node)?.rest() {
        let key = key.into_text();
        let Ok(index) = key.parse() else {
            return Err(document.fail(node.at, format!("{key} in {name} is no whole number")));
        };
        numbers.insert(
            index,
            integer(document, &format!("{key} in {name}"), &node)?,
        );
    }
    Ok(numbers)
}

pub(super) fn encode_numbers(numbers: &BTreeMap<i32, i64>) -> Node {
    let fields = numbers.iter();
    let fields = fields.map(|(key, value)| (Key::Number(i64::from(*key)), Node::number(*value)));
    Node::new(Value::Table(fields.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_table_is_empty() {
        assert_eq!(decode(b"{}").unwrap(), DelayOffsets::default());
    }

    #[test]
    fn wrong_values_name_their_place() {
        assert_eq!(
            decode(b"{\"offsetTable\":{3:true}}")
                .unwrap_err()
                .to_string(),
            "delayOffset.json, line 1, column 19: 3 in offsetTable is no whole number"
        );
    }
}

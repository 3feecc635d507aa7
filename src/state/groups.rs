//! `subscriptionGroup.json`: the consumer groups of a shard.

use std::collections::BTreeMap;

use super::fields::{Fields, integer, texts_node, version_node};
use super::json::{Document, Node, Value, write};
use super::{Kept, StateError};
use crate::command::{DataVersion, GroupConfig};

const FILE: &str = "subscriptionGroup.json";

/// Everything in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// Grows with each change.
    pub version: DataVersion,
    /// By name.
    pub table: BTreeMap<String, GroupConfig>,
    /// Group → topic → bits of what is forbidden there.
    pub forbidden: BTreeMap<String, BTreeMap<String, i32>>,
    /// Fields of a group that this broker does not know, by its name.
    pub kept_of_group: BTreeMap<String, Kept>,
    /// Tables that this broker does not know.
    pub kept: Kept,
}

/// Reads the file.
pub fn decode(bytes: &[u8]) -> Result<Groups, StateError> {
    let document = Document::new(FILE, bytes);
    let mut fields = Fields::of(&document, "the file", document.parse()?)?;
    let mut groups = Groups {
        version: fields.version()?,
        ..Groups::default()
    };
    for (key, node) in fields.table("subscriptionGroupTable")?.rest() {
        let name = key.into_text();
        let (config, kept) = decode_group(&document, &name, node)?;
        if !kept.is_empty() {
            groups.kept_of_group.insert(name.clone(), kept);
        }
        groups.table.insert(name, config);
    }
    for (key, node) in fields.table("forbiddenTable")?.rest() {
        let group = key.into_text();
        let mut topics = BTreeMap::new();
        for (key, node) in Fields::of(&document, &group, node)?.rest() {
            topics.insert(
                key.into_text(),
                integer(&document, "what is forbidden", &node)?,
            );
        }
        groups.forbidden.insert(group, topics);
    }
    groups.kept = Kept::new(fields.rest());
    Ok(groups)
}

fn decode_group(
    document: &Document<'_>,
    name: &str,
    node: Node,
) -> Result<(GroupConfig, Kept), StateError> {
    let mut fields = Fields::of(document, name, node)?;
    // The name in the table is the one that Apache's broker looks groups up by.
    fields.text("groupName")?;
    let default = GroupConfig::with_defaults(name);
    let config = GroupConfig {
        name: default.name,
        consume_enable: fields.boolean("consumeEnable", default.consume_enable)?,
        consume_from_min_enable: fields
            .boolean("consumeFromMinEnable", default.consume_from_min_enable)?,
        consume_broadcast_enable: fields
            .boolean("consumeBroadcastEnable", default.consume_broadcast_enable)?,
        consume_message_orderly: fields
            .boolean("consumeMessageOrderly", default.consume_message_orderly)?,
        retry_queue_count: fields.integer("retryQueueNums", default.retry_queue_count)?,
        retry_max_times: fields.integer("retryMaxTimes", default.retry_max_times)?,
        broker_id: fields.integer("brokerId", default.broker_id)?,
        which_broker_when_slow: fields.integer(
            "whichBrokerWhenConsumeSlowly",
            default.which_broker_when_slow,
        )?,
        notify_ids_changed: fields
            .boolean("notifyConsumerIdsChangedEnable", default.notify_ids_changed)?,
        sys_flag: fields.integer("groupSysFlag", default.sys_flag)?,
        consume_timeout_minute: fields
            .integer("consumeTimeoutMinute", default.consume_timeout_minute)?,
        attributes: fields.texts("attributes")?,
    };
    Ok((config, Kept::new(fields.rest())))
}

/// Writes the file.
#[must_use]
pub fn encode(groups: &Groups) -> Vec<u8> {
    let nothing = Kept::default();
    let table = groups.table.iter().map(|(name, config)| {
        let kept = groups.kept_of_group.get(name).unwrap_or(&nothing);
        (name.as_str(), encode_group(config, kept))
    });
    let forbidden = groups.forbidden.iter().map(|(group, topics)| {
        let topics = topics
            .iter()
            .map(|(topic, bits)| (topic.as_str(), Node::number(*bits)));
        (group.as_str(), Node::table(topics))
    });
    write(&groups.kept.join(vec![
        ("dataVersion", version_node(groups.version)),
        ("forbiddenTable", Node::table(forbidden)),
        ("subscriptionGroupTable", Node::table(table)),
    ]))
}

fn encode_group(config: &GroupConfig, kept: &Kept) -> Node {
    let boolean = |value| Node::new(Value::Bool(value));
    let mut known = vec![
        ("attributes", texts_node(&config.attributes)),
        ("brokerId", Node::number(config.broker_id)),
        (
            "consumeBroadcastEnable",
            boolean(config.consume_broadcast_enable),
        ),
        ("consumeEnable", boolean(config.consume_enable)),
        (
            "consumeFromMinEnable",
            boolean(config.consume_from_min_enable),
        ),
        (
            "consumeMessageOrderly",
            boolean(config.consume_message_orderly),
        ),
        (
            "consumeTimeoutMinute",
            Node::number(config.consume_timeout_minute),
        ),
        ("groupName", Node::text(&config.name)),
        ("groupSysFlag", Node::number(config.sys_flag)),
        (
            "notifyConsumerIdsChangedEnable",
            boolean(config.notify_ids_changed),
        ),
        ("retryMaxTimes", Node::number(config.retry_max_times)),
        ("retryQueueNums", Node::number(config.retry_queue_count)),
        (
            "whichBrokerWhenConsumeSlowly",
            Node::number(config.which_broker_when_slow),
        ),
    ];
    // Apache's broker writes this one always; the retry delays it means are those of the levels.
    if !kept.has("groupRetryPolicy") {
        known.push((
            "groupRetryPolicy",
            Node::table([("type", Node::text("CUSTOMIZED"))]),
        ));
    }
    kept.join(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thin_file_gets_the_defaults_of_apache() {
        let groups = decode(br#"{"subscriptionGroupTable":{"g":{"retryMaxTimes":3}}}"#).unwrap();
        let expected = GroupConfig {
            retry_max_times: 3,
            ..GroupConfig::with_defaults("g")
        };
        assert_eq!(groups.table["g"], expected);
        assert_eq!(decode(b"{}").unwrap(), Groups::default());
    }

    #[test]
    fn forbidden_topics_and_a_retry_policy_survive() {
        let text = r#"{"forbiddenTable":{"g":{"t":1}},"subscriptionGroupTable":{"g":{
            "groupRetryPolicy":{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5}}}}}"#;
        let groups = decode(text.as_bytes()).unwrap();
        assert_eq!(groups.forbidden["g"]["t"], 1);
        let written = encode(&groups);
        assert_eq!(decode(&written).unwrap(), groups);
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written.matches("groupRetryPolicy").count(), 1, "{written}");
        assert!(written.contains("\"type\":\"EXPONENTIAL\""), "{written}");
    }

    #[test]
    fn wrong_values_name_their_place() {
        let error = decode(b"{\"subscriptionGroupTable\":{\"g\":{\"retryMaxTimes\":4294967296}}}");
        assert_eq!(
            error.unwrap_err().to_string(),
            "subscriptionGroup.json, line 1, column 49: retryMaxTimes is out of range: 4294967296"
        );
    }
}

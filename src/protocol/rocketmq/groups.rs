//! Settings of consumer groups: 200, 201, 207, 225, 352 (P§2.10).

use serde::Deserialize;

use crate::command::{Command, DataVersion, GroupConfig, Refusal};

use super::codes::request;
use super::frame::Request;
use super::json_read::{self, List, Pairs, Scalar};
use super::json_write::Object;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupBody {
    group_name: String,
    #[serde(default)]
    consume_enable: Scalar,
    #[serde(default)]
    consume_from_min_enable: Scalar,
    #[serde(default)]
    consume_broadcast_enable: Scalar,
    #[serde(default)]
    consume_message_orderly: Scalar,
    #[serde(default)]
    retry_queue_nums: Scalar,
    #[serde(default)]
    retry_max_times: Scalar,
    #[serde(default)]
    broker_id: Scalar,
    #[serde(default)]
    which_broker_when_consume_slowly: Scalar,
    #[serde(default)]
    notify_consumer_ids_changed_enable: Scalar,
    #[serde(default)]
    group_sys_flag: Scalar,
    #[serde(default)]
    consume_timeout_minute: Scalar,
    #[serde(default)]
    attributes: Pairs,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupsBody {
    group_config_list: List<GroupBody>,
}

impl GroupBody {
    /// What is absent keeps its default.
    fn config(self) -> Result<GroupConfig, String> {
        let mut config = GroupConfig::with_defaults(&self.group_name);
        let flags = [
            (&self.consume_enable, &mut config.consume_enable),
            (
                &self.consume_from_min_enable,
                &mut config.consume_from_min_enable,
            ),
            (
                &self.consume_broadcast_enable,
                &mut config.consume_broadcast_enable,
            ),
            (
                &self.consume_message_orderly,
                &mut config.consume_message_orderly,
            ),
            (
                &self.notify_consumer_ids_changed_enable,
                &mut config.notify_ids_changed,
            ),
        ];
        for (given, value) in flags {
            *value = given.flag().unwrap_or(*value);
        }
        let name = &self.group_name;
        set(
            name,
            "retryQueueNums",
            self.retry_queue_nums,
            &mut config.retry_queue_count,
        )?;
        set(
            name,
            "retryMaxTimes",
            self.retry_max_times,
            &mut config.retry_max_times,
        )?;
        set(name, "brokerId", self.broker_id, &mut config.broker_id)?;
        set(
            name,
            "whichBrokerWhenConsumeSlowly",
            self.which_broker_when_consume_slowly,
            &mut config.which_broker_when_slow,
        )?;
        set(
            name,
            "groupSysFlag",
            self.group_sys_flag,
            &mut config.sys_flag,
        )?;
        set(
            name,
            "consumeTimeoutMinute",
            self.consume_timeout_minute,
            &mut config.consume_timeout_minute,
        )?;
        config.attributes = self.attributes.0;
        Ok(config)
    }
}

/// Takes a number over, if there is one.
fn set<T: std::str::FromStr>(
    group: &str,
    name: &str,
    given: Scalar,
    value: &mut T,
) -> Result<(), String> {
    let number = given.number();
    if let Some(text) = given.text() {
        *value = number.ok_or_else(|| format!("gives group {group:?} the {name} {text:?}"))?;
    }
    Ok(())
}

/// 200, 225.
pub(super) fn save<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let bodies = if request.code == request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP {
        vec![json_read::body::<GroupBody>(request)?]
    } else {
        json_read::body::<GroupsBody>(request)?.group_config_list.0
    };
    let groups = bodies.into_iter().map(GroupBody::config);
    Ok(Command::GroupsSave {
        groups: groups
            .collect::<Result<_, _>>()
            .map_err(|what| json_read::refusal(request, what))?,
    })
}

/// 201. Only who names a first group gets a part of them.
pub(super) fn all<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::GroupsAll {
        from: request.number_if_any("groupSeq")?,
        count_max: request.number_if_any("maxGroupNum")?,
    })
}

/// 207.
pub(super) fn delete<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::GroupDelete {
        group: request.text("groupName")?,
        clean_offsets: request.flag("cleanOffset"),
    })
}

/// Java's SubscriptionGroupConfig, also to 352.
pub(super) fn put(out: &mut Vec<u8>, group: &GroupConfig) {
    let mut object = Object::begin(out);
    object.pairs("attributes", &group.attributes);
    object.number("brokerId", group.broker_id);
    object.flag("consumeBroadcastEnable", group.consume_broadcast_enable);
    object.flag("consumeEnable", group.consume_enable);
    object.flag("consumeFromMinEnable", group.consume_from_min_enable);
    object.flag("consumeMessageOrderly", group.consume_message_orderly);
    object.number("consumeTimeoutMinute", group.consume_timeout_minute);
    object.text("groupName", &group.name);
    let mut policy = Object::begin(object.name("groupRetryPolicy"));
    policy.text("type", "CUSTOMIZED");
    policy.end();
    object.number("groupSysFlag", group.sys_flag);
    object.flag("notifyConsumerIdsChangedEnable", group.notify_ids_changed);
    object.number("retryMaxTimes", group.retry_max_times);
    object.number("retryQueueNums", group.retry_queue_count);
    object.number("whichBrokerWhenConsumeSlowly", group.which_broker_when_slow);
    object.end();
}

/// To 201.
pub(super) fn put_all(body: &mut Vec<u8>, table: &[GroupConfig], version: DataVersion) {
    let mut object = Object::begin(body);
    object.data_version("dataVersion", version);
    object.pairs("forbiddenTable", &[]);
    let mut groups = Object::begin(object.name("subscriptionGroupTable"));
    for group in table {
        put(groups.name(&group.name), group);
    }
    groups.end();
    object.end();
}

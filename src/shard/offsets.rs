//! How far groups have read each queue, and resets that wait to be told (P§4.5).

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};
use std::rc::Rc;

use super::{Reply, Shard};
use crate::base::QueueId;
use crate::command::{Answer, DataVersion, RefusalKind};

type ByQueue = BTreeMap<i32, i64>;
type ByTopic = BTreeMap<Rc<str>, ByQueue>;

/// Offsets of all groups.
#[derive(Debug, Default)]
pub struct Offsets {
    table: BTreeMap<Rc<str>, ByTopic>,
    /// Offsets that an administrator has set: the next pull is told, commits before it are ignored.
    resets: BTreeMap<Rc<str>, ByTopic>,
    names: BTreeMap<Rc<str>, ()>,
    version: DataVersion,
    changes: u64,
}

impl Offsets {
    /// What was stored: (topic, group, queue, offset).
    #[must_use]
    pub fn load(stored: Vec<(String, String, i32, i64)>, version: DataVersion) -> Self {
        let mut offsets = Self {
            version,
            ..Self::default()
        };
        for (topic, group, queue_id, offset) in stored {
            offsets.put(&group, &topic, queue_id, offset);
        }
        offsets.changes = 0;
        offsets
    }

    /// One copy of a name, however often it is used.
    pub(super) fn name(&mut self, name: &str) -> Rc<str> {
        if let Some((known, ())) = self.names.get_key_value(name) {
            return Rc::clone(known);
        }
        let fresh: Rc<str> = Rc::from(name);
        self.names.insert(Rc::clone(&fresh), ());
        fresh
    }

    fn put(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        if let Some(topics) = self.table.get_mut(group)
            && let Some(queues) = topics.get_mut(topic)
        {
            queues.insert(queue_id, offset);
        } else {
            let (group, topic) = (self.name(group), self.name(topic));
            self.table
                .entry(group)
                .or_default()
                .entry(topic)
                .or_default()
                .insert(queue_id, offset);
        }
        self.changes += 1;
    }

    /// Sets an offset, whatever it was before: the last writer wins (P§2.5). Ignored (`false`) while a reset
    /// waits to be told.
    pub fn commit(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) -> bool {
        if self.reset_of(group, topic, queue_id).is_some() {
            return false;
        }
        self.put(group, topic, queue_id, offset);
        true
    }

    /// The offset of a group, the pending reset first; `None` for "never consumed".
    #[must_use]
    pub fn get(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let stored = || self.table.get(group)?.get(topic)?.get(&queue_id).copied();
        self.reset_of(group, topic, queue_id)
            .or_else(stored)
            .filter(|offset| 0 <= *offset)
    }

    fn reset_of(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        if self.resets.is_empty() {
            return None;
        }
        self.resets.get(group)?.get(topic)?.get(&queue_id).copied()
    }

    /// Sets an offset and lets the next pull of the queue be told.
    pub fn reset(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.put(group, topic, queue_id, offset);
        let (group, topic) = (self.name(group), self.name(topic));
        self.resets
            .entry(group)
            .or_default()
            .entry(topic)
            .or_default()
            .insert(queue_id, offset);
    }

    /// The reset that the next pull of a queue must be told, once.
    pub(super) fn take_reset(&mut self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        if self.resets.is_empty() {
            return None;
        }
        let topics = self.resets.get_mut(group)?;
        let queues = topics.get_mut(topic)?;
        let offset = queues.remove(&queue_id)?;
        if queues.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.resets.remove(group);
        }
        Some(offset)
    }

    /// Lowers every offset of a queue that lies above its end: a power cut took what was there. Answers
    /// what was lowered: (group, offset before).
    pub fn lower_to(&mut self, topic: &str, queue_id: QueueId, end: u64) -> Vec<(String, i64)> {
        let mut lowered = Vec::new();
        for (group, topics) in &mut self.table {
            let Some(offset) = topics
                .get_mut(topic)
                .and_then(|queues| queues.get_mut(&(queue_id.0 as i32)))
            else {
                continue;
            };
            if end as i64 <= *offset && *offset != end as i64 {
                lowered.push((group.to_string(), *offset));
                *offset = end as i64;
                self.changes += 1;
            }
        }
        lowered
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: &str) {
        self.resets.remove(group);
        if self.table.remove(group).is_some() {
            self.changes += 1;
        }
    }

    /// Forgets a topic in all groups.
    pub fn remove_topic(&mut self, topic: &str) {
        for table in [&mut self.table, &mut self.resets] {
            for topics in table.values_mut() {
                if topics.remove(topic).is_some() {
                    self.changes += 1;
                }
            }
            table.retain(|_, topics| !topics.is_empty());
        }
    }

    /// Topics that a group has offsets of.
    #[must_use]
    pub fn topics_of(&self, group: &str) -> Vec<String> {
        let topics = self.table.get(group);
        topics
            .into_iter()
            .flat_map(BTreeMap::keys)
            .map(ToString::to_string)
            .collect()
    }

    /// Groups that have offsets of a topic.
    #[must_use]
    pub fn groups_of(&self, topic: &str) -> Vec<String> {
        self.table
            .iter()
            .filter(|(_, topics)| topics.contains_key(topic))
            .map(|(group, _)| group.to_string())
            .collect()
    }

    /// Those from a group's topic on, by group and topic; the first of all from `("", "")` on.
    pub fn from<'a>(
        &'a self,
        group: &'a str,
        topic: &'a str,
    ) -> impl Iterator<Item = (&'a Rc<str>, &'a Rc<str>, &'a BTreeMap<i32, i64>)> {
        let groups = self.table.range::<str, _>((Included(group), Unbounded));
        groups.flat_map(move |(of, topics)| {
            let first = if **of == *group { topic } else { "" };
            let topics = topics.range::<str, _>((Included(first), Unbounded));
            topics.map(move |(topic, queues)| (of, topic, queues))
        })
    }

    /// All: (topic, group, queue, offset).
    #[must_use]
    pub fn all(&self) -> Vec<(String, String, i32, i64)> {
        let queues = |(group, topic, queues): (&Rc<str>, &Rc<str>, &ByQueue)| {
            let (group, topic) = (String::from(&**group), String::from(&**topic));
            let all = queues.clone().into_iter();
            all.map(move |(queue_id, offset)| (topic.clone(), group.clone(), queue_id, offset))
        };
        self.from("", "").flat_map(queues).collect()
    }

    /// As clients see it.
    #[must_use]
    pub const fn version(&self) -> DataVersion {
        self.version
    }

    /// Number of changes since start.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Counts a stored state.
    pub const fn stored(&mut self, now_ms: u64) -> DataVersion {
        self.version.counter += 1;
        self.version.timestamp_ms = now_ms as i64;
        self.version
    }
}

impl Shard {
    pub(super) fn offset_commit(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: Option<i32>,
        offset: Option<i64>,
    ) -> Reply {
        if self.topics.get(topic).is_none() {
            return Self::refuse(
                RefusalKind::TopicNotExist,
                format!("Topic {topic} not exist!"),
            );
        }
        if self.groups.get(group).is_none() {
            return Self::refuse(
                RefusalKind::GroupNotExist,
                format!("Group {group} not exist!"),
            );
        }
        let (Some(queue_id), Some(offset)) = (queue_id, offset) else {
            return Self::refuse(
                RefusalKind::InvalidParameter,
                "QueueId is null, or offset is null: both are needed to commit an offset",
            );
        };
        let committed = self.offsets.commit(group, topic, queue_id, offset);
        Reply::Now(if committed {
            Answer::Done
        } else {
            Answer::DoneWithRemark("Offset has been previously reset")
        })
    }

    pub(super) fn offset_query(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: i32,
        zero_if_missing: bool,
    ) -> Reply {
        if let Some(offset) = self.offsets.get(group, topic, queue_id) {
            return Reply::Now(Answer::Offset(offset));
        }
        if zero_if_missing && self.is_young(topic, queue_id) {
            return Reply::Now(Answer::Offset(0));
        }
        Self::refuse(
            RefusalKind::QueryNotFound,
            "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        )
    }

    /// A queue whose first message is still there and recent: a new group starts with it even if it asks
    /// for the last offset (P§2.5).
    fn is_young(&self, topic: &str, queue_id: i32) -> bool {
        let Ok(id) = u32::try_from(queue_id) else {
            return false;
        };
        let Some(index) = self.queues.find(topic, QueueId(id)) else {
            return false;
        };
        let queue = self.queues.queue(index);
        let log_size = self.log.appended() - self.log.first_offset();
        queue.min() == 0 && 0 < queue.max() && log_size <= self.settings.young_log_size
    }

    pub(super) fn offset_max(&self, topic: &str, queue_id: i32) -> Reply {
        let found = u32::try_from(queue_id)
            .ok()
            .and_then(|id| self.queues.find(topic, QueueId(id)));
        let max = found.map_or(0, |index| self.queues.queue(index).max());
        Reply::Now(Answer::Offset(max as i64))
    }

    pub(super) fn offset_min(&self, topic: &str, queue_id: i32) -> Reply {
        let found = u32::try_from(queue_id)
            .ok()
            .and_then(|id| self.queues.find(topic, QueueId(id)));
        let min = found.map_or(0, |index| self.queues.queue(index).min());
        Reply::Now(Answer::Offset(min as i64))
    }
}

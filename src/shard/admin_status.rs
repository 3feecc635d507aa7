//! How far groups have come, what stands in queues, how much goes through: what administrators look at
//! (P§2.10), and setting offsets.

use super::query::{Question, Range, Search, SearchFor, Target, Times, TimesFor, Units};
use super::{Reply, Shard};
use crate::command::{Answer, ConsumeStats, DataVersion, RefusalKind};
use crate::index::QueueIndex;

impl Shard {
    /// 208. Topics that an online group does not subscribe to any more are left out.
    pub(super) fn consume_stats(&self, now_ms: u64, group: &str, asked: Vec<String>) -> Question {
        let mut topics = if asked.is_empty() {
            self.offsets.topics_of(group)
        } else {
            asked
        };
        let online = self.clients.group(group);
        topics.retain(|topic| {
            online.is_none_or(|group| group.subscriptions.contains_key(topic))
                && self.topics.get(topic).is_some()
        });
        let (mut queues, mut targets) = (Vec::new(), Vec::new());
        for name in &topics {
            let Some(topic) = self.topics.get(name) else {
                continue;
            };
            for queue_id in 0..topic.config.read_queue_count {
                let index = self.find_queue(name, queue_id as i32);
                let offset = self.offsets.get(group, name, queue_id as i32).unwrap_or(0);
                let stats = ConsumeStats {
                    broker_offset: index.map_or(0, |index| self.queues.queue(index).max() as i64),
                    consumer_offset: offset,
                    pull_offset: offset,
                    last_ms: 0,
                };
                queues.push((self.queue_name(name, queue_id), stats));
                targets.push(target(index, offset - 1));
            }
        }
        let tps = self.statistics.consume_tps(group, &topics, now_ms);
        Question::Times(Times::new(TimesFor::ConsumeStats { queues, tps }, targets))
    }

    /// 303.
    pub(super) fn time_spans(&self, name: &str, group: &str) -> Result<Question, Reply> {
        let Some(topic) = self.topics.get(name) else {
            let text = format!("topic[{name}] not exist");
            return Err(Self::refuse(RefusalKind::TopicNotExist, text));
        };
        let (mut queues, mut targets) = (Vec::new(), Vec::new());
        for queue_id in 0..topic.config.write_queue_count {
            let index = self.find_queue(name, queue_id as i32);
            let consumed = self.offsets.get(group, name, queue_id as i32).unwrap_or(0);
            let (min, max) = index.map_or((0, 0), |index| {
                let queue = self.queues.queue(index);
                (queue.min() as i64, queue.max() as i64)
            });
            queues.push(self.queue_name(name, queue_id));
            for offset in [min, max - 1, consumed - 1, consumed] {
                targets.push(target(index, offset));
            }
        }
        Ok(Question::Times(Times::new(
            TimesFor::TimeSpans(queues),
            targets,
        )))
    }

    /// 321.
    pub(super) fn queue_units(
        &self,
        (topic, queue_id): (&str, i32),
        (from, count): (i64, i32),
        group: Option<&str>,
    ) -> Result<Question, Reply> {
        let Some(queue) = self.find_queue(topic, queue_id) else {
            let text = format!("{queue_id}@{topic} is not exist!");
            return Err(Self::refuse(RefusalKind::SystemError, text));
        };
        let known = group
            .and_then(|group| self.clients.group(group))
            .and_then(|group| group.subscriptions.get(topic));
        let subscription = known.map(|known| known.subscription.clone());
        let range = Range { from, count };
        Ok(Question::Units(Units::new(queue, range, subscription)))
    }

    /// 315.
    pub(super) fn rates_of(&self, now_ms: u64, name: &str, key: &str) -> Reply {
        match self.statistics.rates(name, key, now_ms) {
            Some([minute, hour, day]) => Reply::Now(Answer::Statistics { minute, hour, day }),
            None => Self::refuse(
                RefusalKind::SystemError,
                format!("The stats <{name}> <{key}> not exist"),
            ),
        }
    }

    /// 45.
    pub(super) fn all_delay_offsets(&self) -> Reply {
        Reply::Now(Answer::AllDelayOffsets {
            offsets: self.delay.all(),
            version: DataVersion {
                counter: self.delay.changes() as i64,
                ..DataVersion::default()
            },
        })
    }

    /// 222.
    pub(super) fn offset_reset(
        &mut self,
        (group, name): (&str, &str),
        timestamp_ms: i64,
        queue_id: i32,
        offset: Option<i64>,
    ) -> Result<Question, Reply> {
        let Some(topic) = self.topics.get(name) else {
            let text = format!("Topic {name} does not exist");
            return Err(Self::refuse(RefusalKind::TopicNotExist, text));
        };
        if self.groups.get(group).is_none() {
            let text = format!("Group {group} does not exist");
            return Err(Self::refuse(RefusalKind::GroupNotExist, text));
        }
        let queue_count = topic.config.read_queue_count as i32;
        let queue_ids: Vec<i32> = match queue_id {
            0.. if queue_count <= queue_id => {
                let text = format!(
                    "queueId[{queue_id}] is illegal, topic[{name}] has {queue_count} queues to read"
                );
                return Err(Self::refuse(RefusalKind::SystemError, text));
            }
            0.. => vec![queue_id],
            _ => (0..queue_count).collect(),
        };
        let bounds = |queue_id: i32| {
            self.find_queue(name, queue_id).map_or((0, 0), |index| {
                let queue = self.queues.queue(index);
                (queue.min() as i64, queue.max() as i64)
            })
        };
        // One offset for all queues would mean something else in each of them.
        if let (Some(offset), 0..) = (offset, queue_id) {
            let (min, max) = bounds(queue_id);
            if offset < min || max + 1 < offset {
                let text =
                    format!("Target offset {offset} not in consume queue range [{min}-{max}]");
                return Err(Self::refuse(RefusalKind::SystemError, text));
            }
            let answer = self.set_offsets(group, name, &[(queue_id, offset)]);
            return Err(Reply::Now(answer));
        }
        if timestamp_ms < 0 {
            let ends: Vec<(i32, i64)> = queue_ids.iter().map(|id| (*id, bounds(*id).1)).collect();
            let answer = self.set_offsets(group, name, &ends);
            return Err(Reply::Now(answer));
        }
        let queues: Vec<(i32, Option<QueueIndex>)> = queue_ids
            .into_iter()
            .map(|id| (id, self.find_queue(name, id)))
            .collect();
        let purpose = SearchFor::Reset {
            group: group.to_owned(),
            topic: name.to_owned(),
        };
        Ok(Question::Search(Search::new(
            purpose,
            timestamp_ms,
            false,
            queues,
        )))
    }

    /// Sets offsets of a group; its next pulls are told.
    pub(super) fn set_offsets(
        &mut self,
        group: &str,
        topic: &str,
        offsets: &[(i32, i64)],
    ) -> Answer {
        let mut resets = Vec::new();
        for (queue_id, offset) in offsets {
            self.offsets.reset(group, topic, *queue_id, *offset);
            resets.push((self.queue_name(topic, queue_id.unsigned_abs()), *offset));
        }
        tracing::info!(
            group,
            topic,
            ?offsets,
            "offsets were set by an administrator"
        );
        Answer::Resets(resets)
    }
}

fn target(queue: Option<QueueIndex>, offset: i64) -> Target {
    match (queue, u64::try_from(offset)) {
        (Some(queue), Ok(offset)) => Target::Queue(queue, offset),
        _ => Target::Nothing,
    }
}

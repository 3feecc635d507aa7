//! What administrators ask for and clients rarely do: who answers which request.

use super::query::{Keys, Question, Record, Search, SearchFor, Target, Times, TimesFor};
use super::{Outbound, Reply, Shard, fetch};
use crate::command::{Answer, Command, RefusalKind, Ticket};
use crate::io::Io;

/// Keys of the configuration that nobody may change from outside.
const CONFIG_BLACK_LIST: [&str; 3] = ["brokerConfigPath", "rocketmqHome", "configBlackList"];

/// Topics or groups in a part of their table (RocketMQ's splitMetadataSize).
const PART_COUNT_MAX: usize = 2000;

impl Shard {
    pub(super) fn administer(
        &mut self,
        io: &mut impl Io,
        ticket: Ticket,
        command: Command<'_>,
    ) -> Reply {
        let now_ms = io.wall_ms();
        match command {
            Command::TopicsSave { topics } => self.topics_save(now_ms, ticket, topics),
            Command::TopicDelete { topic } => self.topic_delete(now_ms, ticket, topic),
            Command::TopicsAll { from, count_max } => self.topics_all(from, count_max),
            Command::TopicOne { topic } => self.topic_one(topic),
            Command::SystemTopics => self.system_topics(),
            Command::GroupsSave { groups } => self.groups_save(now_ms, ticket, groups),
            Command::GroupDelete {
                group,
                clean_offsets,
            } => self.group_delete(now_ms, ticket, group, clean_offsets),
            Command::GroupsAll { from, count_max } => self.groups_all(from, count_max),
            Command::GroupOne { group } => self.group_one(group),
            Command::ConsumerConnections { group } => self.consumer_connections(group),
            Command::ProducerConnections { group } => self.producer_connections(group),
            Command::AllProducers => self.all_producers(),
            Command::GroupsOfTopic { topic } => self.groups_of_topic(topic),
            Command::TopicsOfGroup { group } => {
                Reply::Now(Answer::TopicNames(self.offsets.topics_of(group)))
            }
            Command::Statistics { name, key } => self.rates_of(now_ms, name, key),
            Command::ConfigRead => self.config_read(),
            Command::ConfigUpdate { properties } => self.config_update(ticket, properties),
            Command::AllOffsets => Reply::Now(Answer::AllOffsets {
                offsets: self.offsets.all(),
                version: self.offsets.version(),
            }),
            Command::AllDelayOffsets => self.all_delay_offsets(),
            Command::CheckClient { subscription, .. } => {
                Self::check_client(&subscription.expression_type)
            }
            other => self.inquire(io, ticket, other),
        }
    }

    /// What may have to be read from the store first.
    fn inquire(&mut self, io: &mut impl Io, ticket: Ticket, command: Command<'_>) -> Reply {
        let now_ms = io.wall_ms();
        let question = match command {
            Command::TopicStats { topic } => self.topic_stats(now_ms, topic),
            Command::ConsumeStats { group, topics } => {
                Ok(self.consume_stats(now_ms, group, topics))
            }
            Command::ConsumeTimeSpan { topic, group } => self.time_spans(topic, group),
            Command::RuntimeInfo => Ok(Question::Times(Times::new(
                TimesFor::Runtime,
                vec![Target::Log(self.log.first_offset())],
            ))),
            Command::OffsetReset {
                topic,
                group,
                timestamp_ms,
                queue_id,
                offset,
                ..
            } => self.offset_reset((group, topic), timestamp_ms, queue_id, offset),
            other => self.look_up(other),
        };
        match question {
            Ok(question) => self.ask(io, ticket, question),
            Err(reply) => reply,
        }
    }

    /// Messages, and places in queues.
    fn look_up(&self, command: Command<'_>) -> Result<Question, Reply> {
        match command {
            Command::MessageById { offset } => Ok(Question::Record(Record::new(offset))),
            Command::MessagesByKey {
                topic,
                key,
                count_max,
                begin_ms,
                end_ms,
                unique,
            } => {
                let count_max = if unique {
                    self.settings.query_count_max
                } else {
                    usize::try_from(count_max).unwrap_or(0)
                };
                Ok(Question::Keys(Keys::new(
                    topic,
                    key,
                    (begin_ms, end_ms),
                    count_max,
                )))
            }
            Command::OffsetByTime {
                topic,
                queue_id,
                timestamp_ms,
                upper,
            } => {
                let queues = vec![(queue_id, self.find_queue(topic, queue_id))];
                Ok(Question::Search(Search::new(
                    SearchFor::Offset,
                    timestamp_ms,
                    upper,
                    queues,
                )))
            }
            Command::EarliestStoreTime { topic, queue_id } => {
                let queue = self.find_queue(topic, queue_id);
                let target = queue.map_or(Target::Nothing, |queue| {
                    Target::Queue(queue, self.queues.queue(queue).min())
                });
                Ok(Question::Times(Times::new(
                    TimesFor::Earliest,
                    vec![target],
                )))
            }
            Command::QueueUnits {
                topic,
                queue_id,
                from,
                count,
                group,
            } => self.queue_units((topic, queue_id), (from, count), group),
            other => {
                let text = format!(" request {other:?} not supported");
                Err(Self::refuse(RefusalKind::RequestNotSupported, text))
            }
        }
    }

    fn check_client(expression_type: &str) -> Reply {
        if fetch::is_tag(expression_type) {
            return Reply::Now(Answer::Done);
        }
        let text =
            format!("The broker does not support consumer to filter message by {expression_type}");
        Self::refuse(RefusalKind::SystemError, text)
    }

    fn config_read(&self) -> Reply {
        Reply::Now(Answer::Config {
            properties: self.properties(),
            version: self.settings.version,
        })
    }

    /// The configuration is the process's: whoever started the shards knows its keys, and all of them follow.
    fn config_update(&mut self, ticket: Ticket, properties: Vec<(String, String)>) -> Reply {
        let listed = |(key, _): &(String, String)| CONFIG_BLACK_LIST.contains(&key.as_str());
        if properties.iter().any(listed) {
            let text = "Can not update config in black list.";
            return Self::refuse(RefusalKind::NoPermission, text);
        }
        self.outbox
            .push(Outbound::ChangeSettings(ticket, properties));
        Reply::Later
    }

    /// What is in force, with this shard's own names and numbers.
    fn properties(&self) -> Vec<(String, String)> {
        let own = |key: &str| match key {
            "brokerName" => Some(self.settings.broker_name.clone()),
            "listenPort" => Some(self.settings.store_host.port().to_string()),
            _ => None,
        };
        let properties = self.settings.properties.iter();
        let mut properties: Vec<(String, String)> = properties
            .map(|(key, value)| (key.clone(), own(key).unwrap_or_else(|| value.clone())))
            .collect();
        properties.sort_unstable();
        properties
    }
}

/// The part of a table that is asked for: all of it unless somebody names where to begin.
pub(super) fn part<T>(
    all: impl ExactSizeIterator<Item = T>,
    from: Option<i32>,
    count_max: Option<i32>,
) -> Vec<T> {
    let Some(from) = from else {
        return all.collect();
    };
    let count_max = count_max.and_then(|count| usize::try_from(count).ok());
    let count_max = count_max.unwrap_or(PART_COUNT_MAX).clamp(1, PART_COUNT_MAX);
    all.skip(usize::try_from(from).unwrap_or(0))
        .take(count_max)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_whole_or_in_parts() {
        let part = |from, count| part(0..5000, from, count);
        assert_eq!(
            part(None, Some(3)).len(),
            5000,
            "older callers name no place"
        );
        assert_eq!(part(Some(0), Some(2)), [0, 1]);
        assert_eq!(part(Some(4999), Some(2)), [4999]);
        assert_eq!(part(Some(5000), Some(2)), [0; 0]);
        assert_eq!(part(Some(-1), Some(-1)).len(), PART_COUNT_MAX);
        assert_eq!(part(Some(1), Some(i32::MAX)).len(), PART_COUNT_MAX);
    }
}

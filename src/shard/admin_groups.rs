//! Making, changing, showing and deleting consumer groups, and who is connected (P§2.10).

use std::collections::BTreeSet;

use super::admin::part;
use super::{Reply, Shard, Touched, attributes, topics};
use crate::command::{
    Answer, ConsumerConnections, GroupConfig, ProducerInfo, Refusal, RefusalKind, Ticket,
};

/// Queues of a retry topic at most.
const RETRY_QUEUE_COUNT_MAX: i32 = 1024;

impl Shard {
    fn check_group_config(&self, mut config: GroupConfig) -> Result<GroupConfig, Refusal> {
        let invalid = |text: String| Refusal::new(RefusalKind::InvalidParameter, text);
        topics::check_group_name(&config.name).map_err(invalid)?;
        if RETRY_QUEUE_COUNT_MAX < config.retry_queue_count {
            return Err(invalid(format!(
                "group [{}] cannot have {} retry queues, {RETRY_QUEUE_COUNT_MAX} are allowed",
                config.name, config.retry_queue_count
            )));
        }
        let current = self.groups.get(&config.name);
        let current = current.map(|known| &known.attributes);
        config.attributes = attributes::of_group(current, &config.attributes)
            .map_err(|why| Refusal::new(RefusalKind::SystemError, why))?;
        Ok(config)
    }

    pub(super) fn groups_save(
        &mut self,
        now_ms: u64,
        ticket: Ticket,
        asked: Vec<GroupConfig>,
    ) -> Reply {
        let checked: Result<Vec<GroupConfig>, Refusal> = asked
            .into_iter()
            .map(|config| self.check_group_config(config))
            .collect();
        let configs = match checked {
            Ok(configs) => configs,
            Err(refusal) => return Reply::Now(Answer::Refused(refusal)),
        };
        let mut names = Vec::new();
        for config in configs {
            // Tools find a group's brokers by the route of its retry topic.
            names.push(topics::retry_topic(&config.name));
            self.make_retry_topic(&config.name, config.retry_queue_count, now_ms);
            if self.groups.get(&config.name) != Some(&config) {
                self.groups.put(config, now_ms);
            }
        }
        let touched = Touched::Topics(names);
        self.begin_change(Vec::new(), touched, Some((ticket, Answer::Done)));
        Reply::Later
    }

    /// An unknown group is gone already.
    pub(super) fn group_delete(
        &mut self,
        now_ms: u64,
        ticket: Ticket,
        name: &str,
        clean_offsets: bool,
    ) -> Reply {
        if clean_offsets {
            self.offsets.remove_group(name);
        }
        if !self.groups.remove(name, now_ms) {
            return Reply::Now(Answer::Done);
        }
        self.begin_removal(None, None, (ticket, Answer::Done));
        Reply::Later
    }

    pub(super) fn groups_all(&self, from: Option<i32>, count_max: Option<i32>) -> Reply {
        let configs: Vec<&GroupConfig> = self.groups.iter().collect();
        let total = configs.len();
        let table = part(configs.into_iter(), from, count_max);
        Reply::Now(Answer::Groups {
            table: table.into_iter().cloned().collect(),
            version: self.groups.version(),
            total,
        })
    }

    pub(super) fn group_one(&self, name: &str) -> Reply {
        match self.groups.get(name) {
            Some(config) => Reply::Now(Answer::Group(config.clone())),
            None => Self::refuse(
                RefusalKind::GroupNotExist,
                format!("No group in this broker. group: {name}"),
            ),
        }
    }

    pub(super) fn consumer_connections(&self, name: &str) -> Reply {
        let Some(group) = self.clients.group(name) else {
            let text = format!("the consumer group[{name}] not online");
            return Self::refuse(RefusalKind::ConsumerNotOnline, text);
        };
        let subscriptions = group.subscriptions.values();
        let connections = group.members.values().map(|member| member.connection());
        Reply::Now(Answer::ConsumerConnections(ConsumerConnections {
            connections: connections.collect(),
            subscriptions: subscriptions
                .map(|known| known.subscription.clone())
                .collect(),
            consume_type: group.consume_type,
            message_model: group.message_model,
            consume_from: group.consume_from,
        }))
    }

    pub(super) fn producer_connections(&self, name: &str) -> Reply {
        let Some(members) = self.clients.producers(name) else {
            let text = format!("the producer group[{name}] not exist");
            return Self::refuse(RefusalKind::SystemError, text);
        };
        let connections = members.values().map(|member| member.connection());
        Reply::Now(Answer::ProducerConnections(connections.collect()))
    }

    pub(super) fn all_producers(&self) -> Reply {
        let groups = self.clients.producer_groups().map(|(name, members)| {
            let producers = members.values().map(|member| ProducerInfo {
                connection: member.connection(),
                last_update_ms: member.seen_ms as i64,
            });
            (name.clone(), producers.collect())
        });
        Reply::Now(Answer::AllProducers(groups.collect()))
    }

    /// Groups that subscribe to a topic now, and groups that have read it.
    pub(super) fn groups_of_topic(&self, topic: &str) -> Reply {
        let online = self.clients.consumer_groups();
        let online = online.filter(|(_, group)| group.subscriptions.contains_key(topic));
        let mut names: BTreeSet<String> = online.map(|(name, _)| name.clone()).collect();
        names.extend(self.offsets.groups_of(topic));
        Reply::Now(Answer::GroupNames(names.into_iter().collect()))
    }
}

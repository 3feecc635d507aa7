//! Making, changing, showing and deleting topics (P§2.10).

use super::admin::part;
use super::query::{Question, Target, Times, TimesFor};
use super::topics::{self, PERM_INHERIT, PERM_READ, PERM_WRITE};
use super::{Condition, Reply, Shard, Touched, attributes};
use crate::command::{Answer, QueueName, QueueStats, Refusal, RefusalKind, Ticket, TopicConfig};

/// Queues of a topic at most: routes and statistics name each of them.
const QUEUE_COUNT_MAX: u32 = 16_384;

impl Shard {
    /// Whether a topic is one of the broker's own.
    fn is_own_topic(&self, name: &str) -> bool {
        topics::is_system(name)
            || name == self.settings.cluster
            || name == self.settings.broker_name
            || name.strip_suffix("_REPLY_TOPIC") == Some(self.settings.cluster.as_str())
    }

    fn check_changeable(&self, name: &str) -> Result<(), Refusal> {
        let invalid = |text: String| Refusal::new(RefusalKind::InvalidParameter, text);
        topics::check_name(name).map_err(invalid)?;
        if self.is_own_topic(name) {
            let text = format!("The topic[{name}] is conflict with system topic.");
            return Err(invalid(text));
        }
        Ok(())
    }

    /// Settings as they will be stored.
    fn check_topic_config(&self, mut config: TopicConfig) -> Result<TopicConfig, Refusal> {
        let invalid = |text: String| Refusal::new(RefusalKind::InvalidParameter, text);
        self.check_changeable(&config.name)?;
        for (what, count) in [
            ("read", config.read_queue_count),
            ("write", config.write_queue_count),
        ] {
            if QUEUE_COUNT_MAX < count {
                return Err(invalid(format!(
                    "topic [{}] cannot have {count} {what} queues, {QUEUE_COUNT_MAX} are allowed",
                    config.name
                )));
            }
        }
        if PERM_READ | PERM_WRITE | PERM_INHERIT < config.perm {
            return Err(invalid(format!(
                "perm {} of topic [{}] is not a sum of 4 (read), 2 (write) and 1 (inherit)",
                config.perm, config.name
            )));
        }
        let known = self.topics.get(&config.name);
        let current = known.map(|topic| &topic.config.attributes);
        config.attributes = attributes::of_topic(current, &config.attributes)
            .map_err(|why| Refusal::new(RefusalKind::SystemError, why))?;
        let mixed = |(key, value): &(String, String)| key == "message.type" && value == "MIXED";
        if config.attributes.iter().any(mixed) {
            let text = "MIXED message type is not supported.".to_owned();
            return Err(invalid(text));
        }
        Ok(config)
    }

    pub(super) fn topics_save(
        &mut self,
        now_ms: u64,
        ticket: Ticket,
        asked: Vec<TopicConfig>,
    ) -> Reply {
        let changing = asked.iter().find_map(|one| self.change_of_topic(&one.name));
        if let Some(number) = changing {
            return Reply::Again(Condition::Change(number));
        }
        // All or none: a list with one wrong topic changes nothing.
        let checked: Result<Vec<TopicConfig>, Refusal> = asked
            .into_iter()
            .map(|config| self.check_topic_config(config))
            .collect();
        let configs = match checked {
            Ok(configs) => configs,
            Err(refusal) => return Reply::Now(Answer::Refused(refusal)),
        };
        let mut names = Vec::new();
        for config in configs {
            names.push(config.name.clone());
            let known = self.topics.get(&config.name);
            if known.is_none_or(|topic| topic.config != config) {
                self.topics.put(config, now_ms);
            }
        }
        // Also where nothing has changed: the change that made it so may still be under way.
        let touched = Touched::Topics(names);
        self.begin_change(Vec::new(), touched, Some((ticket, Answer::Done)));
        Reply::Later
    }

    pub(super) fn topic_delete(&mut self, now_ms: u64, ticket: Ticket, name: &str) -> Reply {
        if let Err(refusal) = self.check_changeable(name) {
            return Reply::Now(Answer::Refused(refusal));
        }
        if let Some(number) = self.change_of_topic(name) {
            return Reply::Again(Condition::Change(number));
        }
        let folder = self.queues.remove_topic(name);
        if self.topics.get(name).is_none() && folder.is_none() {
            return Reply::Now(Answer::Done);
        }
        let records = (self.log.first_offset(), self.log.appended());
        self.topics.remove(name, records, now_ms);
        self.offsets.remove_topic(name);
        self.statistics.remove_topic(name);
        self.begin_removal(Some(name), folder, (ticket, Answer::Done));
        Reply::Later
    }

    pub(super) fn topics_all(&self, from: Option<i32>, count_max: Option<i32>) -> Reply {
        let configs: Vec<&TopicConfig> = self.topics.iter().map(|topic| &topic.config).collect();
        let total = configs.len();
        let table = part(configs.into_iter(), from, count_max);
        Reply::Now(Answer::Topics {
            table: table.into_iter().cloned().collect(),
            version: self.topics.version(),
            total,
        })
    }

    pub(super) fn topic_one(&self, name: &str) -> Reply {
        match self.topics.get(name) {
            Some(topic) => Reply::Now(Answer::Topic(topic.config.clone())),
            None => Self::refuse(
                RefusalKind::TopicNotExist,
                format!("No topic in this broker. topic: {name}"),
            ),
        }
    }

    pub(super) fn system_topics(&self) -> Reply {
        let names = self.topics.iter().map(|topic| &topic.config.name);
        let own = names.filter(|name| self.is_own_topic(name));
        Reply::Now(Answer::TopicNames(own.cloned().collect()))
    }

    pub(super) fn queue_name(&self, topic: &str, queue_id: u32) -> QueueName {
        QueueName {
            topic: topic.to_owned(),
            broker: self.settings.broker_name.clone(),
            queue_id: queue_id as i32,
        }
    }

    pub(super) fn topic_stats(&self, now_ms: u64, name: &str) -> Result<Question, Reply> {
        let Some(topic) = self.topics.get(name) else {
            let text = format!("topic[{name}] not exist");
            return Err(Self::refuse(RefusalKind::TopicNotExist, text));
        };
        let config = &topic.config;
        let count = config.read_queue_count.max(config.write_queue_count);
        let (mut queues, mut targets) = (Vec::new(), Vec::new());
        for queue_id in 0..count {
            let mut stats = QueueStats {
                min: 0,
                max: 0,
                last_update_ms: 0,
            };
            let mut target = Target::Nothing;
            if let Some(index) = self.find_queue(name, queue_id as i32) {
                let queue = self.queues.queue(index);
                stats.min = queue.min() as i64;
                stats.max = queue.max() as i64;
                if let Some(last) = queue.max().checked_sub(1) {
                    target = Target::Queue(index, last);
                }
            }
            queues.push((self.queue_name(name, queue_id), stats));
            targets.push(target);
        }
        let rates = self.statistics.rates("TOPIC_PUT_NUMS", name, now_ms);
        let put_tps = rates.map_or(0.0, |[minute, ..]| minute.tps);
        let purpose = TimesFor::TopicStats { queues, put_tps };
        Ok(Question::Times(Times::new(purpose, targets)))
    }

    /// All topics as name servers are told of them.
    #[must_use]
    pub fn advertised_topics(&self) -> Vec<TopicConfig> {
        let topics = self.topics.iter();
        topics.map(|topic| self.advertise(&topic.config)).collect()
    }

    /// Some of them; a topic that has gone meanwhile is passed over.
    #[must_use]
    pub fn advertised(&self, names: &[String]) -> Vec<TopicConfig> {
        let topics = names.iter().filter_map(|name| self.topics.get(name));
        topics.map(|topic| self.advertise(&topic.config)).collect()
    }

    /// What the broker forbids, no route allows.
    fn advertise(&self, config: &TopicConfig) -> TopicConfig {
        let allowed = if self.settings.perm == PERM_READ | PERM_WRITE {
            u32::MAX
        } else {
            self.settings.perm
        };
        TopicConfig {
            perm: config.perm & allowed,
            ..config.clone()
        }
    }
}

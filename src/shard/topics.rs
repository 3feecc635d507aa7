//! Topics of a shard: their settings, their queues, which names are allowed, which are the system's.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};

use super::Settings;
use crate::base::{Key, QueueId, Slab};
use crate::command::{DataVersion, TopicConfig};
use crate::index::index_file::topic_prefix;
use crate::index::{QueueIndex, Queues};

/// Reading is allowed.
pub const PERM_READ: u32 = 4;
/// Writing is allowed.
pub const PERM_WRITE: u32 = 2;
/// Topics made out of this one inherit its settings.
pub const PERM_INHERIT: u32 = 1;

/// The topic whose settings unknown topics inherit.
pub const DEFAULT_TOPIC: &str = "TBW102";
/// Where delayed messages wait, one queue a level.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Prefix of the topic that a group's failed messages come back through.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic that a group's hopeless messages end in.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

/// Longest topic name, and longest name of a retry or dead-letter topic (P§4.16).
const NAME_SIZE_MAX: usize = 127;
const RETRY_NAME_SIZE_MAX: usize = 255;

/// Topics that clients may not send to (P§4.16).
const FORBIDDEN_TO_SEND: [&str; 6] = [
    SCHEDULE_TOPIC,
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

/// Topics of the broker itself besides those above.
const SYSTEM: [&str; 4] = [
    DEFAULT_TOPIC,
    "BenchmarkTest",
    "RMQ_SYS_TRACE_TOPIC",
    "CHECKPOINT_TOPIC",
];

/// The topic through which a group's failed messages come back.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// A topic of this shard.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its settings.
    pub config: TopicConfig,
    /// Queues that were looked up before, by number.
    queues: Vec<Option<QueueIndex>>,
    /// Hash of `topic#`, with which the hash of every key begins.
    pub key_prefix_hash: i32,
}

impl Topic {
    fn new(config: TopicConfig) -> Self {
        let key_prefix_hash = topic_prefix(&config.name);
        Self {
            config,
            queues: Vec::new(),
            key_prefix_hash,
        }
    }

    /// A queue of this topic, made if missing.
    pub fn queue(&mut self, queues: &mut Queues, queue_id: QueueId) -> QueueIndex {
        let at = queue_id.0 as usize;
        if let Some(Some(index)) = self.queues.get(at) {
            return *index;
        }
        let index = queues.find_or_make(&self.config.name, queue_id);
        if self.queues.len() <= at {
            self.queues.resize(at + 1, None);
        }
        self.queues[at] = Some(index);
        index
    }
}

/// All topics, and how often they have changed.
#[derive(Debug, Default)]
pub struct Topics {
    table: BTreeMap<String, Key>,
    topics: Slab<Topic>,
    /// The topic that was looked up last: a send asks for its own again and again.
    recent: Cell<Key>,
    version: DataVersion,
    /// Counts changes, for whoever stores them.
    changes: u64,
    /// Names that are new, have changed or have gone since [`Self::take_touched`].
    touched: BTreeSet<String>,
    /// Records of these topics below these physical offsets went with their topic.
    deleted: BTreeMap<String, u64>,
}

impl Topics {
    /// What was stored.
    #[must_use]
    pub fn load(configs: Vec<TopicConfig>, version: DataVersion) -> Self {
        let mut all = Self {
            version,
            ..Self::default()
        };
        for config in configs {
            all.take(config);
        }
        all
    }

    /// Topics that were deleted before, and where their records end.
    #[must_use]
    pub fn with_deleted(mut self, deleted: BTreeMap<String, u64>) -> Self {
        self.deleted = deleted;
        self
    }

    /// Topics whose records below an offset no longer count, also when the log is walked again.
    #[must_use]
    pub const fn deleted(&self) -> &BTreeMap<String, u64> {
        &self.deleted
    }

    /// Adds the topics that every broker has (P§3.11).
    pub fn add_system(&mut self, settings: &Settings, now_ms: u64) {
        let level_count = settings.delay_levels.len() as u32;
        let mut wanted = vec![
            ("SELF_TEST_TOPIC".to_owned(), 1, 6),
            ("BenchmarkTest".to_owned(), 1024, 6),
            ("OFFSET_MOVED_EVENT".to_owned(), 1, 6),
            (SCHEDULE_TOPIC.to_owned(), level_count, 6),
            (
                settings.cluster.clone(),
                16,
                if settings.cluster_topic { 7 } else { 1 },
            ),
            (
                settings.broker_name.clone(),
                1,
                if settings.broker_topic { 7 } else { 1 },
            ),
            (format!("{}_REPLY_TOPIC", settings.cluster), 1, 6),
        ];
        if settings.auto_create_topics {
            wanted.push((DEFAULT_TOPIC.to_owned(), settings.default_queue_count, 7));
        }
        if settings.trace_topic {
            wanted.push(("RMQ_SYS_TRACE_TOPIC".to_owned(), 1, 6));
        }
        for (name, queue_count, perm) in wanted {
            if !self.table.contains_key(&name) {
                self.put(plain(&name, queue_count, perm), now_ms);
            }
        }
    }

    /// A topic.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.key(name)?)
    }

    /// A topic.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.topics.get_mut(self.key(name)?)
    }

    fn key(&self, name: &str) -> Option<Key> {
        let recent = self.recent.get();
        if let Some(topic) = self.topics.get(recent)
            && topic.config.name == name
        {
            return Some(recent);
        }
        let key = *self.table.get(name)?;
        self.recent.set(key);
        Some(key)
    }

    /// Settings of a new name, or in the place of others of the same name. Queues stay.
    fn take(&mut self, config: TopicConfig) {
        match self.get_mut(&config.name) {
            Some(topic) => topic.config = config,
            None => {
                let name = config.name.clone();
                let key = self.topics.insert(Topic::new(config));
                self.table.insert(name, key);
            }
        }
    }

    /// Takes settings in, new or changed. Queues stay.
    pub fn put(&mut self, config: TopicConfig, now_ms: u64) {
        if !self.touched.contains(&config.name) {
            self.touched.insert(config.name.clone());
        }
        self.take(config);
        self.changed(now_ms);
    }

    /// Forgets a topic whose records lie in `begin..end` of the log.
    pub fn remove(&mut self, name: &str, (begin, end): (u64, u64), now_ms: u64) {
        if let Some(key) = self.table.remove(name) {
            self.topics.remove(key);
            self.touched.insert(name.to_owned());
        }
        // What the log has no more, nobody has to pass over.
        self.deleted.retain(|_, end| begin < *end);
        if begin < end {
            self.deleted.insert(name.to_owned(), end);
        }
        self.changed(now_ms);
    }

    /// Makes name servers and tools take the table anew, though no topic has changed.
    pub(super) fn touch(&mut self, now_ms: u64) {
        self.changed(now_ms);
    }

    fn changed(&mut self, now_ms: u64) {
        self.version.counter += 1;
        self.version.timestamp_ms = now_ms as i64;
        self.changes += 1;
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        let topic = move |key: &Key| self.topics.get(*key).expect("a name has a topic");
        self.table.values().map(topic)
    }

    /// Those from a name on, by name.
    pub fn from<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Topic> {
        let topic = move |key: &Key| self.topics.get(*key).expect("a name has a topic");
        let range = self.table.range::<str, _>((Included(name), Unbounded));
        range.map(move |(_, key)| topic(key))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// As clients see it.
    #[must_use]
    pub const fn version(&self) -> DataVersion {
        self.version
    }

    /// Topics that were put or removed since the last call, by name.
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }

    /// Number of changes since start.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }
}

/// Settings with equal numbers of queues and nothing special.
#[must_use]
pub fn plain(name: &str, queue_count: u32, perm: u32) -> TopicConfig {
    TopicConfig {
        name: name.to_owned(),
        read_queue_count: queue_count,
        write_queue_count: queue_count,
        perm,
        multi_tag: false,
        sys_flag: 0,
        order: false,
        attributes: Vec::new(),
    }
}

/// Whether clients may not send to a topic.
#[must_use]
pub fn is_forbidden_to_send(name: &str) -> bool {
    FORBIDDEN_TO_SEND.contains(&name)
}

/// Whether a topic belongs to the broker.
#[must_use]
pub fn is_system(name: &str) -> bool {
    is_forbidden_to_send(name) || SYSTEM.contains(&name) || name.starts_with("rmq_sys_")
}

/// Whether a topic is the retry topic of a group.
#[must_use]
pub fn is_retry(name: &str) -> bool {
    name.starts_with(RETRY_PREFIX)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_')
}

/// Whether a topic may have this name; the reason if not (P§4.16). Everything a file system or a
/// protocol could misread is left out by an allow-list.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("The specified topic is blank.".to_owned());
    }
    if !name.bytes().all(is_name_byte) {
        return Err(format!(
            "The specified topic[{}] contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$",
            shorten(name)
        ));
    }
    let long = is_retry(name) || name.starts_with(DEAD_LETTER_PREFIX);
    let size_max = if long {
        RETRY_NAME_SIZE_MAX
    } else {
        NAME_SIZE_MAX
    };
    if size_max < name.len() {
        return Err(format!(
            "The specified topic is longer than topic max length {size_max}."
        ));
    }
    Ok(())
}

/// Whether a group may have this name.
pub fn check_group_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("The specified group is blank.".to_owned());
    }
    // The names of its retry and dead-letter topics must be legal too.
    if RETRY_NAME_SIZE_MAX - RETRY_PREFIX.len() < name.len() {
        return Err(format!(
            "The specified group is longer than group max length {}.",
            RETRY_NAME_SIZE_MAX - RETRY_PREFIX.len()
        ));
    }
    if !name.bytes().all(is_name_byte) {
        return Err(format!(
            "The specified group[{}] contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$",
            shorten(name)
        ));
    }
    Ok(())
}

/// The front of a text that a peer made, fit for an error.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_that_was_asked_for_last_is_no_other() {
        let mut topics = Topics::load(
            vec![plain("a", 1, 6), plain("b", 2, 6), plain("a", 3, 6)],
            DataVersion::default(),
        );
        let count = |topics: &Topics, name: &str| {
            topics.get(name).map(|topic| topic.config.read_queue_count)
        };
        assert_eq!(
            (count(&topics, "a"), count(&topics, "b")),
            (Some(3), Some(2))
        );
        assert_eq!((count(&topics, "b"), count(&topics, "c")), (Some(2), None));
        topics.remove("b", (0, 1), 1);
        assert_eq!(count(&topics, "b"), None, "it went while it was the last");
        topics.put(plain("c", 4, 6), 2);
        assert_eq!((count(&topics, "b"), count(&topics, "c")), (None, Some(4)));
        topics.put(plain("c", 5, 6), 3);
        assert_eq!(
            topics
                .get_mut("c")
                .map(|topic| topic.config.read_queue_count),
            Some(5)
        );
        let names: Vec<_> = topics
            .iter()
            .map(|topic| topic.config.name.as_str())
            .collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn names_are_held_to_the_list_of_allowed_characters() {
        assert_eq!(check_name("%RETRY%group-1_a|b"), Ok(()));
        for bad in ["", " ", "../x", "a/b", "a.b", "a b", "主题", "a\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&"a".repeat(127)).is_ok());
        assert!(check_name(&"a".repeat(128)).is_err());
        assert!(check_name(&format!("%RETRY%{}", "a".repeat(248))).is_ok());
        assert!(check_group_name(&"a".repeat(249)).is_err());
    }
}

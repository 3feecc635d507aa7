//! What the shards have, as a name server's thread knows it, and what of it that name server does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::News;
use super::link::Encoded;
use crate::command::{DataVersion, TopicConfig};

/// What a name server's thread has not taken yet of what a shard told.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Of the last update; 0 = there was none.
    pub(super) generation: u64,
    version: DataVersion,
    all: Option<Arc<Vec<TopicConfig>>>,
    /// What came after `all`, by name: for one that is away it grows no further than the topics do.
    changed: BTreeMap<String, TopicConfig>,
}

impl Inbox {
    pub(super) fn put(&mut self, news: &News, version: DataVersion, generation: u64) {
        (self.version, self.generation) = (version, generation);
        match news {
            News::All(topics) => {
                self.all = Some(Arc::clone(topics));
                self.changed.clear();
            }
            News::Changed(topics) => {
                let named = topics
                    .iter()
                    .map(|topic| (topic.name.clone(), topic.clone()));
                self.changed.extend(named);
            }
        }
    }

    pub(super) fn take(&mut self) -> Self {
        Self {
            all: self.all.take(),
            changed: std::mem::take(&mut self.changed),
            ..*self
        }
    }
}

/// A shard, as a name server's thread knows it.
pub(super) struct ShardProgress {
    /// Whether the name server knows the broker, as far as is known here.
    is_known: bool,
    /// Topics that it does not know as they are; `None`: it is to be told of all.
    changed: Option<BTreeSet<String>>,
    topics: BTreeMap<String, TopicConfig>,
    version: DataVersion,
    /// Generation of those.
    taken: u64,
    /// Generation that was registered, or refused, last.
    tried: u64,
    /// When all of it is told again.
    again_at: Instant,
}

impl ShardProgress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_known: false,
            changed: None,
            topics: BTreeMap::new(),
            version: DataVersion::default(),
            taken: 0,
            tried: 0,
            again_at: now,
        }
    }

    /// The name server does not know the broker, or not any more.
    pub(super) fn forget(&mut self, now: Instant) {
        (self.is_known, self.changed, self.tried) = (false, None, 0);
        self.again_at = now;
    }

    pub(super) fn take(&mut self, inbox: Inbox) {
        (self.version, self.taken) = (inbox.version, inbox.generation);
        if let Some(all) = inbox.all {
            let named = all.iter().map(|topic| (topic.name.clone(), topic.clone()));
            self.topics = named.collect();
            self.changed = None;
        }
        if let Some(changed) = &mut self.changed {
            changed.extend(inbox.changed.keys().cloned());
        }
        self.topics.extend(inbox.changed);
    }

    /// What the name server is told next, and whether that is only a part.
    pub(super) fn encoded(&self, whole: bool, now: Instant) -> (Result<Encoded, String>, bool) {
        let is_due = self.again_at <= now;
        let changed = self.changed.as_ref();
        let part = changed.filter(|names| self.is_known && !whole && !is_due && !names.is_empty());
        let is_part = part.is_some();
        let topics: Vec<&TopicConfig> = match part {
            Some(names) => names
                .iter()
                .filter_map(|name| self.topics.get(name))
                .collect(),
            None => self.topics.values().collect(),
        };
        (Encoded::new(&topics, self.version, is_part), is_part)
    }

    /// Whether something is to be told; `news` is the generation of the last update.
    pub(super) fn is_due(&self, news: u64, now: Instant) -> bool {
        0 < news && (self.tried < news || self.again_at <= now)
    }

    /// Whether it is to be told of an empty broker first, see [`super::link::Link::register`].
    pub(super) fn is_to_introduce(&self) -> bool {
        !self.is_known && self.topics.len() == 1
    }

    /// The name server took it, or refused it; gives the generation.
    pub(super) fn told(&mut self, is_known: bool, is_part: bool, again_at: Instant) -> u64 {
        self.is_known = is_known;
        self.changed = is_known.then(BTreeSet::new);
        self.tried = self.taken;
        // What was told in part is told whole when that was due.
        if !(is_part && is_known) {
            self.again_at = again_at;
        }
        self.taken
    }
}

//! Changes of topics and groups that must be durable, on all shards and known to the name servers before
//! anybody is told that they were made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Condition, Outbound, Shard};
use crate::command::{Answer, Ticket, TopicConfig};

/// Names a change of this shard.
pub type ChangeNumber = u64;

/// Topics that name servers are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// These are new or have changed.
    Topics(Vec<String>),
    /// Any may have changed, or gone.
    All,
}

impl Touched {
    /// One topic.
    #[must_use]
    pub fn topic(name: &str) -> Self {
        Self::Topics(vec![name.to_owned()])
    }
}

/// A change under way.
#[derive(Debug)]
pub struct Change {
    /// Topics must have been stored in this state or a later one.
    topics_changes: u64,
    /// Groups likewise.
    groups_changes: u64,
    /// Consumer offsets likewise, where they are part of it.
    offsets_changes: u64,
    /// Files are being removed.
    removing: bool,
    /// Other shards that have not said yet that they have it.
    sharing: u32,
    /// The name servers have not answered yet.
    registering: bool,
    /// Who is told when it is complete.
    waiting: Vec<(Ticket, Answer)>,
    /// Topics that it makes or deletes, so that a second send finds it.
    topics: Vec<String>,
}

/// All changes under way.
#[derive(Debug, Default)]
pub struct Changes {
    next: ChangeNumber,
    table: BTreeMap<ChangeNumber, Change>,
    /// States that are durable.
    topics_saved: u64,
    groups_saved: u64,
    offsets_saved: u64,
}

impl Shard {
    /// Begins a change whose settings are in the tables already.
    pub(super) fn begin_change(
        &mut self,
        share: Vec<TopicConfig>,
        touched: impl Into<Option<Touched>>,
        waiting: Option<(Ticket, Answer)>,
    ) -> ChangeNumber {
        let touched = touched.into();
        let number = self.changes.next;
        self.changes.next += 1;
        let others = self.settings.shard_count - 1;
        let sharing = if share.is_empty() { 0 } else { others };
        let change = Change {
            topics_changes: self.topics.changes(),
            groups_changes: self.groups.changes(),
            offsets_changes: 0,
            removing: false,
            sharing,
            registering: touched.is_some(),
            waiting: waiting.into_iter().collect(),
            topics: share.iter().map(|config| config.name.clone()).collect(),
        };
        self.changes.table.insert(number, change);
        if 0 < sharing {
            self.outbox.push(Outbound::ShareTopics(number, share));
        }
        if let Some(touched) = touched {
            // Of this change: name servers pass over what comes again with a version they have.
            let version = self.topics.version();
            self.outbox
                .push(Outbound::Register(number, touched, version));
        }
        number
    }

    /// Begins the change that makes a topic of this shard alone, which is in the table already; what waits for it.
    pub(super) fn begin_making(&mut self, topic: &str) -> Condition {
        Condition::Change(self.begin_change(Vec::new(), Touched::topic(topic), None))
    }

    /// Begins a change of settings that every shard takes over; this one has them already. Others say so
    /// as they do for topics.
    pub fn begin_settings_change(&mut self, ticket: Ticket) -> ChangeNumber {
        let number = self.begin_change(Vec::new(), Touched::All, Some((ticket, Answer::Done)));
        if let Some(change) = self.changes.table.get_mut(&number) {
            change.sharing = self.settings.shard_count - 1;
        }
        number
    }

    /// Begins the end of a topic or group: over when nothing of it is on disk any more, so that one of the
    /// same name, which waits for that, begins anew.
    pub(super) fn begin_removal(
        &mut self,
        topic: Option<&str>,
        folder: Option<PathBuf>,
        waiting: (Ticket, Answer),
    ) {
        let touched = topic.map(|_| Touched::All);
        let number = self.begin_change(Vec::new(), touched, Some(waiting));
        if let Some(change) = self.changes.table.get_mut(&number) {
            change.offsets_changes = self.offsets.changes();
            change.removing = folder.is_some();
            change.topics.extend(topic.map(ToOwned::to_owned));
        }
        if let Some(folder) = folder {
            self.outbox.push(Outbound::RemoveFiles(number, folder));
        }
    }

    /// The files of a change are gone.
    pub fn files_removed(&mut self, number: ChangeNumber) {
        if let Some(change) = self.changes.table.get_mut(&number) {
            change.removing = false;
        }
        self.complete_changes();
    }

    /// Takes settings in whose values were checked.
    pub fn change_settings(&mut self, settings: &[(String, String)], now_ms: u64) {
        for (key, value) in settings {
            self.settings.change(key, value, now_ms);
            if key == "brokerPermission" {
                // Routes say what the broker allows.
                self.topics.touch(now_ms);
            }
        }
    }

    /// The change that makes a topic, while it is under way.
    pub(super) fn change_of_topic(&self, topic: &str) -> Option<ChangeNumber> {
        self.changes
            .table
            .iter()
            .find(|(_, change)| change.topics.iter().any(|name| name == topic))
            .map(|(number, _)| *number)
    }

    /// Another shard has stored the topics of a change.
    pub fn topics_taken(&mut self, number: ChangeNumber) {
        if let Some(change) = self.changes.table.get_mut(&number) {
            change.sharing = change.sharing.saturating_sub(1);
        }
        self.complete_changes();
    }

    /// The name servers that can be reached know the topics of a change.
    pub fn change_registered(&mut self, number: ChangeNumber) {
        if let Some(change) = self.changes.table.get_mut(&number) {
            change.registering = false;
        }
        self.complete_changes();
    }

    /// These states of the tables are durable.
    pub fn tables_saved(&mut self, topics_changes: u64, groups_changes: u64, offsets_changes: u64) {
        self.changes.topics_saved = self.changes.topics_saved.max(topics_changes);
        self.changes.groups_saved = self.changes.groups_saved.max(groups_changes);
        self.changes.offsets_saved = self.changes.offsets_saved.max(offsets_changes);
        self.complete_changes();
    }

    /// Topics that another shard has made: taken over unless known, and durable before `number` is met.
    pub fn take_over_topics(&mut self, topics: Vec<TopicConfig>, now_ms: u64) -> ChangeNumber {
        let names = topics.iter().map(|config| config.name.clone()).collect();
        for config in topics {
            if self.topics.get(&config.name).is_none() {
                self.topics.put(config, now_ms);
            }
        }
        self.begin_change(Vec::new(), Touched::Topics(names), None)
    }

    /// Settings that another shard has changed are in force here; `number` is met when name servers know.
    pub fn take_over_settings(&mut self) -> ChangeNumber {
        self.begin_change(Vec::new(), Touched::All, None)
    }

    fn complete_changes(&mut self) {
        let saved = &self.changes;
        let complete: Vec<ChangeNumber> = self
            .changes
            .table
            .iter()
            .filter(|(_, change)| {
                let durable = change.topics_changes <= saved.topics_saved
                    && change.groups_changes <= saved.groups_saved
                    && change.offsets_changes <= saved.offsets_saved;
                durable && change.sharing == 0 && !change.registering && !change.removing
            })
            .map(|(number, _)| *number)
            .collect();
        for number in complete {
            let change = self.changes.table.remove(&number);
            for (ticket, answer) in change.into_iter().flat_map(|change| change.waiting) {
                self.outbox.push(Outbound::Answer(ticket, answer));
            }
            self.met.push(Condition::Change(number));
        }
    }

    /// Whether a change is under way.
    #[must_use]
    pub fn is_changing(&self, number: ChangeNumber) -> bool {
        self.changes.table.contains_key(&number)
    }
}

//! One core's messaging state machine: a command goes in, an answer comes out, now or later.
//!
//! One file per concern. Nothing here knows a frame, JSON, a request code or a protocol's text.

mod admin;
mod admin_groups;
mod admin_runtime;
mod admin_status;
mod admin_topics;
mod attributes;
mod changes;
mod clients;
mod delay;
mod fetch;
mod filter;
mod groups;
mod locks;
mod offsets;
mod pending;
mod produce;
mod query;
mod retry;
mod settings;
mod stages;
mod statistics;
mod topics;
mod wakeups;

use crate::command::{
    Answer, Command, ConnectionId, DataVersion, GroupConfig, Notice, Peer, REGION, Refusal,
    RefusalKind, Ticket, TopicConfig,
};
use crate::index::{Index, Queues};
use crate::io::{Completion, Io, Space};
use crate::log::CommitLog;

pub use changes::{Change, ChangeNumber, Touched};
pub use clients::Clients;
pub use delay::Delay;
pub use fetch::ROOM;
pub use groups::Groups;
pub use locks::Locks;
pub use offsets::Offsets;
pub use pending::Pending;
pub use settings::{DELAY_LEVELS_DEFAULT, FetchBounds, Settings};
pub use stages::{Stage, Stages, Stall};
pub use statistics::Statistics;
pub use topics::{Topic, Topics, plain as plain_topic};

/// How a command was met.
#[derive(Debug)]
pub enum Reply {
    /// Answered.
    Now(Answer),
    /// The answer comes through [`Shard::swap_outbox`] with the ticket.
    Later,
    /// Not yet: give the same command in again when the condition holds.
    Again(Condition),
}

/// What a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The log has room again (or will never have).
    Room,
    /// A change of topics or groups is complete everywhere.
    Change(ChangeNumber),
}

/// What a shard wants done outside of itself.
#[derive(Debug)]
pub enum Outbound {
    /// An answer to an earlier command.
    Answer(Ticket, Answer),
    /// A word to a client that did not ask.
    Notice(ConnectionId, Notice),
    /// Tell the other shards about topics; each says when it has them: [`Shard::topics_taken`].
    ShareTopics(ChangeNumber, Vec<TopicConfig>),
    /// Tell the name servers about this shard's topics: [`Shard::change_registered`].
    Register(ChangeNumber, Touched, DataVersion),
    /// Remove a topic's queue files: [`Shard::files_removed`].
    RemoveFiles(ChangeNumber, std::path::PathBuf),
    /// Change the process's settings, on all shards: [`Shard::begin_settings_change`].
    ChangeSettings(Ticket, Vec<(String, String)>),
}

/// What was counted since the start; one plain value, taken as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages stored for producers.
    pub produced: u64,
    /// Bytes of their records.
    pub produced_bytes: u64,
    /// Sends that were refused.
    pub produce_refused: u64,
    /// Messages handed to consumers.
    pub fetched: u64,
    /// Bytes of their records.
    pub fetched_bytes: u64,
    /// Pulls that found something.
    pub fetches_found: u64,
    /// Pulls that found nothing.
    pub fetches_missed: u64,
    /// Pulls that were parked.
    pub fetches_parked: u64,
}

/// An opened store, as recovery found it.
pub struct Store {
    /// The truth.
    pub log: CommitLog,
    /// Where queues find their records.
    pub queues: Queues,
    /// Where keys find their records.
    pub index: Index,
    /// Settings of topics.
    pub topics: Topics,
    /// Settings of groups.
    pub groups: Groups,
    /// How far groups have read.
    pub offsets: Offsets,
    /// How far the delay levels have been delivered.
    pub delay: Delay,
}

/// One core's queues, log and indexes, and everything that it knows of clients.
pub struct Shard {
    /// What was configured.
    pub settings: Settings,
    /// The truth.
    pub log: CommitLog,
    /// Where queues find their records.
    pub queues: Queues,
    /// Where keys find their records.
    pub index: Index,
    /// What is known of topics.
    pub topics: Topics,
    /// What is known of groups.
    pub groups: Groups,
    /// How far groups have read.
    pub offsets: Offsets,
    /// How far the delay levels have been delivered.
    pub delay: Delay,
    /// Who is connected.
    pub clients: Clients,
    /// Who consumes which queue in order.
    pub locks: Locks,
    /// What was counted.
    pub counters: Counters,
    /// Bytes of bodies that left, by way; whoever delivers tells.
    pub egress_bytes: [(&'static str, u64); 6],
    /// What was counted, by topic and group.
    pub statistics: Statistics,
    /// How long the stages of a message take.
    pub stages: Stages,
    /// What held a turn for too long; whoever turns tells.
    pub stalls: Vec<Stall>,
    reading: fetch::Reading,
    returns: retry::Returns,
    queries: query::Queries,
    days: admin_runtime::Days,
    filters: filter::Filters,
    /// Properties that every message gets, encoded.
    added_always: Vec<u8>,
    /// Scratch of a send.
    added: Vec<u8>,
    /// Made so far.
    unique_keys: u64,
    pending: Pending,
    wakeups: wakeups::Wakeups,
    changes: changes::Changes,
    outbox: Vec<Outbound>,
    /// Conditions that hold since they were last asked for.
    met: Vec<Condition>,
    /// Producers are refused because the disk is nearly full.
    pub disk_full: bool,
    /// Room on the log's file system when it was last looked at.
    pub space: Option<Space>,
    prng: crate::base::Prng,
}

impl Shard {
    /// A shard over an opened store.
    #[must_use]
    pub fn new(settings: Settings, store: Store, seed: u64) -> Self {
        let mut added_always = Vec::new();
        let cluster = settings.cluster.as_str();
        for (name, value) in [
            ("MSG_REGION", REGION),
            ("TRACE_ON", "true"),
            ("CLUSTER", cluster),
        ] {
            crate::log::record::put_property(&mut added_always, name, value);
        }
        let visible = store.log.synced();
        let mut shard = Self {
            settings,
            log: store.log,
            queues: store.queues,
            index: store.index,
            topics: store.topics,
            groups: store.groups,
            offsets: store.offsets,
            delay: store.delay,
            clients: Clients::default(),
            locks: Locks::default(),
            counters: Counters::default(),
            egress_bytes: [("", 0); 6],
            statistics: Statistics::default(),
            stages: Stages::default(),
            stalls: Vec::new(),
            reading: fetch::Reading::default(),
            returns: retry::Returns::default(),
            queries: query::Queries::default(),
            days: admin_runtime::Days::default(),
            filters: filter::Filters::default(),
            added_always,
            added: Vec::new(),
            unique_keys: 0,
            pending: Pending::default(),
            wakeups: wakeups::Wakeups::default(),
            changes: changes::Changes::default(),
            outbox: Vec::new(),
            met: Vec::new(),
            disk_full: false,
            space: None,
            prng: crate::base::Prng::from_seed(seed),
        };
        shard.starts_visible_at(visible);
        shard
    }

    /// Takes an answer of the kernel to something that a shard itself asked for.
    pub fn complete(&mut self, io: &mut impl Io, done: Completion) {
        let rest = done.token.rest();
        let number = rest & 0xffff_ffff;
        match rest & (0xff << 48) {
            fetch::UNITS => self.units_read(io, number, done.result, done.payload),
            retry::RECORD => self.returning_read(io, number, done.result, done.payload),
            query::QUERY => self.query_read(io, number, done.result, done.payload),
            _ => self.delay_read(io, rest, done.result, done.payload),
        }
    }

    /// Meets one command.
    pub fn execute(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        command: Command<'_>,
    ) -> Reply {
        match command {
            Command::Produce(produce) => self.produce(io, peer, ticket, &produce),
            Command::Fetch(fetch) => self.fetch(io, peer, ticket, &fetch),
            Command::Heartbeat(heartbeat) => self.heartbeat(io, peer, ticket, heartbeat),
            Command::Lock {
                group,
                client_id,
                queues,
            } => self.lock(io.now_ns(), group, &client_id, queues),
            Command::Unlock {
                group,
                client_id,
                queues,
            } => self.unlock(&group, &client_id, &queues),
            Command::Unregister {
                client_id,
                producer_group,
                consumer_group,
            } => self.unregister(peer, client_id, producer_group, consumer_group),
            Command::GroupMembers { group } => self.group_members(group),
            Command::OffsetQuery {
                group,
                topic,
                queue_id,
                zero_if_missing,
            } => self.offset_query(group, topic, queue_id, zero_if_missing),
            Command::OffsetCommit {
                group,
                topic,
                queue_id,
                offset,
            } => self.offset_commit(group, topic, queue_id, offset),
            Command::SendBack {
                group,
                offset,
                delay_level,
                max_reconsume_times,
                ..
            } => {
                let back = retry::SendBack {
                    group,
                    offset,
                    delay_level,
                    max_reconsume_times,
                };
                self.send_back(io, peer, ticket, &back)
            }
            Command::OffsetMax { topic, queue_id } => self.offset_max(topic, queue_id),
            Command::OffsetMin { topic, queue_id } => self.offset_min(topic, queue_id),
            other => self.administer(io, ticket, other),
        }
    }

    /// What is to be done outside since the last time, in order, into a list that is empty. `false`: nothing.
    pub fn swap_outbox(&mut self, outbox: &mut Vec<Outbound>) -> bool {
        debug_assert!(outbox.is_empty(), "what was not done would be lost");
        std::mem::swap(&mut self.outbox, outbox);
        !outbox.is_empty()
    }

    /// Conditions under which commands wait and that hold now.
    pub fn take_met(&mut self) -> Vec<Condition> {
        std::mem::take(&mut self.met)
    }

    /// Something holds now, or still does.
    pub fn meet(&mut self, condition: Condition) {
        self.met.push(condition);
    }

    /// Whether something holds that somebody may wait for.
    #[must_use]
    pub const fn has_met(&self) -> bool {
        !self.met.is_empty()
    }

    /// The settings of a group; made with defaults where that is allowed.
    fn group_or_default(&mut self, group: &str, now_ms: u64) -> Option<GroupConfig> {
        if let Some(config) = self.groups.get(group) {
            return Some(config.clone());
        }
        if !self.settings.auto_create_groups || topics::check_group_name(group).is_err() {
            return None;
        }
        let config = GroupConfig::with_defaults(group);
        self.groups.put(config.clone(), now_ms);
        Some(config)
    }

    fn refuse(kind: RefusalKind, text: impl Into<String>) -> Reply {
        Reply::Now(Answer::Refused(Refusal::new(kind, text)))
    }
}

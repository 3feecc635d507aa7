//! The narrow waist: what a client may ask of a shard, and what a shard may say.
//!
//! Nothing here names a frame, JSON, a request code or a socket address in text: a protocol turns its
//! frames into [`Command`]s and [`Answer`]s into its frames. A second protocol is a sibling of the first.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::base::{Held, Key, PhysicalOffset, QueueOffset, ShortText};

/// A connection of this shard, as net names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub Key);

/// Where an answer goes: given with the command, handed back with the answer, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Whose.
    pub connection: ConnectionId,
    /// The protocol's own note about the request (its number, its header kind, whether it wants an answer).
    pub note: u64,
}

/// Who sent a command.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its address.
    pub address: SocketAddr,
    /// Name of its language as the protocol spells it, e.g. `JAVA`.
    pub language: &'a str,
    /// Version number that it reports (P§1.6).
    pub version: i32,
}

/// One request, proven: every field was asked for once, at the door.
#[derive(Debug)]
#[allow(missing_docs)] // The fields of each request are those of the protocol reference, §2.
pub enum Command<'a> {
    /// 10, 310, 320.
    Produce(Produce<'a>),
    /// 11, 361.
    Fetch(Fetch<'a>),
    /// 34.
    Heartbeat(Heartbeat),
    /// 35.
    Unregister {
        client_id: &'a str,
        producer_group: Option<&'a str>,
        consumer_group: Option<&'a str>,
    },
    /// 38.
    GroupMembers { group: &'a str },
    /// 14.
    OffsetQuery {
        group: &'a str,
        topic: &'a str,
        queue_id: i32,
        zero_if_missing: bool,
    },
    /// 15.
    OffsetCommit {
        group: &'a str,
        topic: &'a str,
        queue_id: Option<i32>,
        offset: Option<i64>,
    },
    /// 29.
    OffsetByTime {
        topic: &'a str,
        queue_id: i32,
        timestamp_ms: i64,
        upper: bool,
    },
    /// 30.
    OffsetMax { topic: &'a str, queue_id: i32 },
    /// 31.
    OffsetMin { topic: &'a str, queue_id: i32 },
    /// 32.
    EarliestStoreTime { topic: &'a str, queue_id: i32 },
    /// 36.
    SendBack {
        group: &'a str,
        offset: i64,
        delay_level: i32,
        origin_message_id: Option<&'a str>,
        origin_topic: Option<&'a str>,
        max_reconsume_times: Option<i32>,
    },
    /// 41.
    Lock {
        group: String,
        client_id: String,
        queues: Vec<QueueName>,
    },
    /// 42.
    Unlock {
        group: String,
        client_id: String,
        queues: Vec<QueueName>,
    },
    /// 46.
    CheckClient {
        client_id: String,
        group: String,
        subscription: Subscription,
    },
    /// 33.
    MessageById { offset: i64 },
    /// 12. `unique` = the key is a message's unique key.
    MessagesByKey {
        topic: &'a str,
        key: &'a str,
        count_max: i32,
        begin_ms: i64,
        end_ms: i64,
        unique: bool,
    },
    /// 17, 18.
    TopicsSave { topics: Vec<TopicConfig> },
    /// 215.
    TopicDelete { topic: &'a str },
    /// 21.
    TopicsAll {
        from: Option<i32>,
        count_max: Option<i32>,
    },
    /// 351.
    TopicOne { topic: &'a str },
    /// 202.
    TopicStats { topic: &'a str },
    /// 305.
    SystemTopics,
    /// 200, 225.
    GroupsSave { groups: Vec<GroupConfig> },
    /// 207.
    GroupDelete { group: &'a str, clean_offsets: bool },
    /// 201.
    GroupsAll {
        from: Option<i32>,
        count_max: Option<i32>,
    },
    /// 352.
    GroupOne { group: &'a str },
    /// 208. Empty `topics` = all topics the group has offsets for.
    ConsumeStats { group: &'a str, topics: Vec<String> },
    /// 203.
    ConsumerConnections { group: &'a str },
    /// 204.
    ProducerConnections { group: &'a str },
    /// 328.
    AllProducers,
    /// 300.
    GroupsOfTopic { topic: &'a str },
    /// 343.
    TopicsOfGroup { group: &'a str },
    /// 303.
    ConsumeTimeSpan { topic: &'a str, group: &'a str },
    /// 321.
    QueueUnits {
        topic: &'a str,
        queue_id: i32,
        from: i64,
        count: i32,
        group: Option<&'a str>,
    },
    /// 315.
    Statistics { name: &'a str, key: &'a str },
    /// 28.
    RuntimeInfo,
    /// 26.
    ConfigRead,
    /// 25.
    ConfigUpdate { properties: Vec<(String, String)> },
    /// 222.
    OffsetReset {
        topic: &'a str,
        group: &'a str,
        timestamp_ms: i64,
        force: bool,
        queue_id: i32,
        offset: Option<i64>,
    },
    /// 43.
    AllOffsets,
    /// 45.
    AllDelayOffsets,
}

/// A send, of one message or of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Produce<'a> {
    /// Producer group.
    pub group: &'a str,
    /// Target.
    pub topic: &'a str,
    /// Topic whose settings a missing topic inherits, normally `TBW102`.
    pub default_topic: &'a str,
    /// Queues that a missing topic is made with, at most.
    pub default_queue_count: i32,
    /// Negative = the shard chooses.
    pub queue_id: i32,
    /// P§3.2.
    pub sys_flag: i32,
    /// Client's clock, milliseconds.
    pub born_ms: i64,
    /// User flag, stored as it is.
    pub flag: i32,
    /// `name \u0001 value \u0002` repeated (P§3.3).
    pub properties: &'a str,
    /// As sent; 0 when absent.
    pub reconsume_times: i32,
    /// Only looked at for `%RETRY%` topics, and only from clients that may say it.
    pub max_reconsume_times: Option<i32>,
    /// The body is a batch (P§3.6).
    pub batch: bool,
    /// As sent; empty is refused.
    pub body: &'a [u8],
    /// Where the body lies, if that memory outlives the request.
    pub held: Option<Held<'a>>,
}

/// A pull.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    /// Consumer group.
    pub group: &'a str,
    /// Source.
    pub topic: &'a str,
    /// Source.
    pub queue_id: i32,
    /// First wanted.
    pub from: i64,
    /// Messages at most, as sent.
    pub count_max: i32,
    /// Bytes at most, as sent; `None` where the client names none.
    pub bytes_max: Option<i32>,
    /// Offset to commit on the way.
    pub commit: Option<i64>,
    /// Hold the request this long when nothing is there.
    pub suspend_ms: Option<u64>,
    /// Expression that comes with the pull; `None` = what the group's heartbeat said.
    pub subscription: Option<&'a str>,
    /// `None` = TAG.
    pub expression_type: Option<&'a str>,
    /// Version of the subscription the client means.
    pub subscription_version: i64,
    /// 361.
    pub lite: bool,
}

/// A client's groups (P§2.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// Free text, compared byte for byte.
    pub client_id: String,
    /// Producer groups.
    pub producers: Vec<String>,
    /// Consumer groups.
    pub consumers: Vec<ConsumerData>,
    /// 0 = a client that knows nothing of heartbeat V2.
    pub fingerprint: i32,
    /// V2's short form: subscriptions were left out and must not be erased.
    pub without_subscriptions: bool,
}

/// One consumer group of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsumerData {
    pub group: String,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from: ConsumeFrom,
    pub unit_mode: bool,
    pub subscriptions: Vec<Subscription>,
}

/// What a group wants of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    /// Of which topic.
    pub topic: String,
    /// As the client wrote it: `*`, `a || b`, SQL92.
    pub expression: String,
    /// `TAG` where absent.
    pub expression_type: String,
    /// Grows with each change.
    pub version: i64,
    /// Tags, as the client lists them.
    pub tags: Vec<String>,
    /// Hashes as the client lists them: for display only, never for filtering (P§6 gotcha 46).
    pub codes: Vec<i32>,
    /// Historic.
    pub class_filter: bool,
}

/// P§2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ConsumeType {
    Actively,
    Passively,
    Pop,
}

/// P§2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum MessageModel {
    Broadcasting,
    Clustering,
}

/// P§2.6, the numbers are RocketMQ's ordinals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ConsumeFrom {
    LastOffset = 0,
    LastOffsetAndMinAtFirstBoot = 1,
    MinOffset = 2,
    MaxOffset = 3,
    FirstOffset = 4,
    Timestamp = 5,
}

/// A queue as clients name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct QueueName {
    pub topic: String,
    pub broker: String,
    pub queue_id: i32,
}

/// Settings of a topic (P§2.9 TopicConfig).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TopicConfig {
    pub name: String,
    pub read_queue_count: u32,
    pub write_queue_count: u32,
    /// 4 read, 2 write, 1 inherit.
    pub perm: u32,
    pub multi_tag: bool,
    pub sys_flag: u32,
    pub order: bool,
    /// Stored without the sign of P§2.10's attribute syntax; as asked (with signs) in a save command.
    pub attributes: Vec<(String, String)>,
}

/// Settings of a consumer group (P§2.10 SubscriptionGroupConfig).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GroupConfig {
    pub name: String,
    pub consume_enable: bool,
    pub consume_from_min_enable: bool,
    pub consume_broadcast_enable: bool,
    pub consume_message_orderly: bool,
    pub retry_queue_count: i32,
    pub retry_max_times: i32,
    pub broker_id: i64,
    pub which_broker_when_slow: i64,
    pub notify_ids_changed: bool,
    pub sys_flag: i32,
    pub consume_timeout_minute: i32,
    pub attributes: Vec<(String, String)>,
}

impl GroupConfig {
    /// What Apache's broker makes of a group it sees for the first time.
    #[must_use]
    pub fn with_defaults(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queue_count: 1,
            retry_max_times: 16,
            broker_id: 0,
            which_broker_when_slow: 1,
            notify_ids_changed: true,
            sys_flag: 0,
            consume_timeout_minute: 15,
            attributes: Vec::new(),
        }
    }
}

/// Counts changes of a table (P§3.10 DataVersion).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DataVersion {
    pub counter: i64,
    pub state_version: i64,
    pub timestamp_ms: i64,
}

/// What a shard says.
#[derive(Debug)]
#[allow(missing_docs)] // Each names the request that it answers; fields as in the protocol reference.
pub enum Answer {
    /// Code 0 and nothing else.
    Done,
    /// Code 0 with a remark that Apache gives there.
    DoneWithRemark(&'static str),
    Refused(Refusal),
    Produced(Produced),
    Fetched(Fetched),
    Heartbeat {
        subscription_changed: bool,
    },
    Members(Vec<String>),
    /// 14, 29, 30, 31.
    Offset(i64),
    /// 32; −1 = none.
    Timestamp(i64),
    Locked(Vec<QueueName>),
    /// 33: one stored record.
    Record(Vec<u8>),
    /// 12: stored records one after another; none = code 22.
    Records {
        bytes: Vec<u8>,
        index_last_ms: i64,
        index_last_offset: i64,
    },
    Topics {
        table: Vec<TopicConfig>,
        version: DataVersion,
        total: usize,
    },
    Topic(TopicConfig),
    TopicStats {
        queues: Vec<(QueueName, QueueStats)>,
        put_tps: f64,
    },
    TopicNames(Vec<String>),
    Groups {
        table: Vec<GroupConfig>,
        version: DataVersion,
        total: usize,
    },
    Group(GroupConfig),
    ConsumeStats {
        queues: Vec<(QueueName, ConsumeStats)>,
        tps: f64,
    },
    ConsumerConnections(ConsumerConnections),
    ProducerConnections(Vec<ClientConnection>),
    AllProducers(Vec<(String, Vec<ProducerInfo>)>),
    GroupNames(Vec<String>),
    TimeSpans(Vec<TimeSpan>),
    QueueUnits {
        units: Vec<Unit>,
        min: i64,
        max: i64,
        subscription: Option<Subscription>,
    },
    Statistics {
        minute: Rate,
        hour: Rate,
        day: Rate,
    },
    /// 28.
    Runtime(Vec<(String, String)>),
    /// 26.
    Config {
        properties: Vec<(String, String)>,
        version: DataVersion,
    },
    Resets(Vec<(QueueName, i64)>),
    /// 43: (topic, group, queue, offset).
    AllOffsets {
        offsets: Vec<(String, String, i32, i64)>,
        version: DataVersion,
    },
    /// 45: (level, offset).
    AllDelayOffsets {
        offsets: Vec<(i32, i64)>,
        version: DataVersion,
    },
}

/// `MSG_REGION` of every message and of the answers to sends.
pub const REGION: &str = "DefaultRegion";

/// A stored send. One for each message on its way to durability: kept small, because it is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// 0, or stored but not flushed in time: 10.
    pub flush_timed_out: bool,
    /// Physical offsets of the records, in order: the protocol makes offset ids of them and of the shard's
    /// address.
    pub offsets: SmallVec<[PhysicalOffset; 1]>,
    /// The queue that was chosen in the real topic.
    pub queue_id: i32,
    /// Of the first record.
    pub queue_offset: QueueOffset,
    /// The unique key, where there is one.
    pub transaction_id: Option<ShortText>,
}

/// The outcome of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What happened.
    pub status: FetchStatus,
    /// The offset that was asked for: an empty queue is no error to who asks for its beginning.
    pub from: i64,
    /// Where to go on.
    pub next: i64,
    /// First offset of the queue.
    pub min: i64,
    /// One behind its last.
    pub max: i64,
    /// Where the records are: parts of the CommitLog, in order, neighbours merged.
    pub spans: Vec<LogSpan>,
    /// Records in them.
    pub count: u32,
}

/// A part of the CommitLog by position; who delivers it asks the log where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSpan {
    /// First byte.
    pub offset: PhysicalOffset,
    /// Bytes.
    pub len: u32,
}

/// P§2.2, the table of nextBeginOffset rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FetchStatus {
    Found,
    NoMatchedMessage,
    MessageWasRemoving,
    OffsetFoundNull,
    OffsetOverflowBadly,
    OffsetOverflowOne,
    OffsetTooSmall,
    NoMatchedLogicQueue,
    NoMessageInQueue,
    OffsetReset,
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// What, where, why, what to do.
    pub text: String,
    /// 16 to a pull: what forbids it (P§2.2 forbiddenType).
    pub forbidden_by: Option<i32>,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            forbidden_by: None,
        }
    }
}

/// Kinds of refusals, named after the response codes of P§1.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum RefusalKind {
    SystemError,
    SystemBusy,
    RequestNotSupported,
    MessageIllegal,
    ServiceNotAvailable,
    NoPermission,
    TopicNotExist,
    PullRetryImmediately,
    QueryNotFound,
    SubscriptionParseFailed,
    SubscriptionNotExist,
    SubscriptionNotLatest,
    GroupNotExist,
    InvalidParameter,
    ConsumerNotOnline,
    FlowControl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct QueueStats {
    pub min: i64,
    pub max: i64,
    pub last_update_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsumeStats {
    pub broker_offset: i64,
    pub consumer_offset: i64,
    pub pull_offset: i64,
    pub last_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ClientConnection {
    pub client_id: String,
    pub address: SocketAddr,
    pub language: String,
    pub version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsumerConnections {
    pub connections: Vec<ClientConnection>,
    pub subscriptions: Vec<Subscription>,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from: ConsumeFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProducerInfo {
    pub connection: ClientConnection,
    pub last_update_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TimeSpan {
    pub queue: QueueName,
    pub min_ms: i64,
    pub max_ms: i64,
    pub consume_ms: i64,
    pub delay_ms: i64,
}

/// One entry of a ConsumeQueue, 20 bytes on disk (P§3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unit {
    pub offset: PhysicalOffset,
    pub size: u32,
    pub tags_code: i64,
}

/// Sum and rate over a window (P§2.10, 315).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)]
pub struct Rate {
    pub sum: i64,
    pub tps: f64,
    pub average: f64,
}

/// What a shard says to a client unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// 40: the members of a group have changed.
    MembersChanged {
        /// Which.
        group: String,
    },
}

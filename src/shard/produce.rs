//! Sends: every check in RocketMQ's order (P§2.1), the record, and who waits for it.

mod keys;

use std::borrow::Cow;
use std::net::SocketAddr;

use smallvec::SmallVec;

use super::pending::{After, Appended};
use super::topics::{
    self, DEAD_LETTER_PREFIX, DEFAULT_TOPIC, PERM_INHERIT, PERM_READ, PERM_WRITE, RETRY_PREFIX,
    SCHEDULE_TOPIC,
};
use super::{Condition, Reply, Shard};
use crate::base::{PhysicalOffset, QueueId, QueueOffset, Reader, string_hash};
use crate::command::{Answer, Peer, Produce, Produced, Refusal, RefusalKind, Ticket};
use crate::index::Unit;
use crate::io::Io;
use crate::log::NoRoom;
use crate::log::record::{
    self, Draft, PROPERTIES_SIZE_MAX, Properties, TRAILER_SIZE, pairs, put_property, sys_flag,
};
use keys::{absolute, continue_hash};

/// `MSG_REGION` of every message.
pub(super) const REGION: &str = "DefaultRegion";

/// Clients from V3_4_9 on say themselves how often a message may be retried (P§1.6).
const VERSION_WITH_MAX_RECONSUME: i32 = 121;

/// Keys of one message that are indexed; more than 255 words in KEYS are nobody's keys.
const KEYS_MAX: usize = 255;

const FAQ: &str = "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// A message on its way into the log, from a client or from the shard itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    pub(super) queue_id: QueueId,
    pub(super) flag: i32,
    pub(super) sys_flag: i32,
    pub(super) born_ms: i64,
    pub(super) born_host: SocketAddr,
    pub(super) reconsume_times: i32,
    pub(super) body: &'a [u8],
    /// As stored, but for what `added` brings.
    pub(super) properties: Properties<'a>,
    /// In the ConsumeQueue; `None` = the hash of TAGS.
    pub(super) due_ms: Option<u64>,
    /// WAIT=false: the answer need not wait for durability.
    pub(super) at_write: bool,
}

/// What a look through the properties has found.
#[derive(Debug, Default)]
struct Seen<'a> {
    unique_key: Option<&'a str>,
    delay_level: Option<i64>,
    at_write: bool,
    transaction: bool,
    timer: bool,
    /// Something that the broker writes itself, or must not store, is there.
    to_strip: bool,
}

/// Names that the broker writes itself, or must not store as the client sent them.
const STRIPPED: [&str; 4] = ["POP_CK", "MSG_REGION", "TRACE_ON", "CLUSTER"];

fn see(properties: &str) -> Seen<'_> {
    let mut seen = Seen::default();
    for (name, value) in pairs(properties) {
        let text = || std::str::from_utf8(value).unwrap_or("");
        match name {
            b"UNIQ_KEY" => seen.unique_key = Some(text()),
            b"DELAY" => seen.delay_level = Some(text().parse().unwrap_or(0)),
            b"WAIT" => seen.at_write = value.eq_ignore_ascii_case(b"false"),
            b"TRAN_MSG" => seen.transaction = value.eq_ignore_ascii_case(b"true"),
            b"TIMER_DELAY_SEC" | b"TIMER_DELAY_MS" | b"TIMER_DELIVER_MS" => seen.timer = true,
            b"POP_CK" | b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER" => seen.to_strip = true,
            _ => (),
        }
    }
    seen
}

/// Where a checked send goes.
struct Target<'a> {
    topic: Cow<'a, str>,
    queue_id: QueueId,
    /// The topic takes messages with several tags.
    multi_tag: bool,
    /// It was sent to a group's retry topic too often.
    dead: bool,
}

impl Target<'_> {
    const fn sys_flag(&self, produce: &Produce<'_>) -> i32 {
        if self.multi_tag {
            produce.sys_flag | sys_flag::MULTI_TAGS
        } else {
            produce.sys_flag
        }
    }
}

impl Shard {
    pub(super) fn produce(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        produce: &Produce<'_>,
    ) -> Reply {
        let reply = self.try_produce(io, peer, ticket, produce);
        if let Reply::Now(Answer::Refused(_)) = reply {
            self.counters.produce_refused += 1;
        }
        reply
    }

    fn try_produce(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        produce: &Produce<'_>,
    ) -> Reply {
        if produce.body.is_empty() {
            return Self::refuse(
                RefusalKind::SystemError,
                "the message has no body: send at least one byte",
            );
        }
        if let Err(refusal) = self.check_topic(produce) {
            return Reply::Now(Answer::Refused(refusal));
        }
        if let Some(number) = self.change_of_topic(produce.topic) {
            return Reply::Again(Condition::Change(number));
        }
        if self.topics.get(produce.topic).is_none() {
            return match self.create_topic(io.wall_ms(), produce) {
                Ok(number) => Reply::Again(Condition::Change(number)),
                Err(refusal) => Reply::Now(Answer::Refused(refusal)),
            };
        }
        let target = match self.target(io, peer, produce) {
            Ok(Ok(target)) => target,
            Ok(Err(condition)) => return Reply::Again(condition),
            Err(refusal) => return Reply::Now(Answer::Refused(refusal)),
        };
        if self.disk_full {
            return Self::refuse(
                RefusalKind::ServiceNotAvailable,
                self.no_service("the disk is full"),
            );
        }
        if produce.batch {
            return self.produce_batch(io, peer, ticket, produce, &target);
        }
        self.produce_one(io, peer, ticket, produce, &target)
    }

    fn no_service(&self, why: &str) -> String {
        format!(
            "service not available now. It may be caused by one of the following reasons: {why} \
             [shard {}]; producers may send again later",
            self.settings.shard
        )
    }

    /// Checks 2 to 4 of P§2.1.
    fn check_topic(&self, produce: &Produce<'_>) -> Result<(), Refusal> {
        let is_order = |topic: &topics::Topic| topic.config.order;
        if self.settings.perm & PERM_WRITE == 0
            && self.topics.get(produce.topic).is_some_and(is_order)
        {
            let ip = self.settings.store_host.ip();
            return Err(Refusal::new(
                RefusalKind::NoPermission,
                format!("the broker[{ip}] sending message is forbidden"),
            ));
        }
        topics::check_name(produce.topic)
            .map_err(|why| Refusal::new(RefusalKind::InvalidParameter, why))?;
        if topics::is_forbidden_to_send(produce.topic) {
            return Err(Refusal::new(
                RefusalKind::NoPermission,
                format!("Sending message to topic[{}] is forbidden.", produce.topic),
            ));
        }
        Ok(())
    }

    /// Check 5: a topic that nobody made is made out of the one named beside it (P§4.2).
    fn create_topic(&mut self, now_ms: u64, produce: &Produce<'_>) -> Result<u64, Refusal> {
        let config = if topics::is_retry(produce.topic) {
            topics::plain(produce.topic, 1, PERM_READ | PERM_WRITE)
        } else {
            let default = self.topics.get(produce.default_topic);
            let may = produce.default_topic != DEFAULT_TOPIC || self.settings.auto_create_topics;
            let inherited = default.filter(|topic| may && topic.config.perm & PERM_INHERIT != 0);
            let Some(default) = inherited else {
                return Err(Refusal::new(
                    RefusalKind::TopicNotExist,
                    format!(
                        "topic[{}] not exist, apply first please!\n{FAQ}",
                        produce.topic
                    ),
                ));
            };
            let wished = u32::try_from(produce.default_queue_count).unwrap_or(0);
            let queue_count = wished.min(default.config.write_queue_count);
            let mut config = topics::plain(
                produce.topic,
                queue_count,
                default.config.perm & !PERM_INHERIT,
            );
            config.multi_tag = default.config.multi_tag;
            config
        };
        tracing::info!(
            topic = config.name,
            queues = config.write_queue_count,
            "topic made by a send"
        );
        self.topics.put(config.clone(), now_ms);
        // A retry topic belongs to this shard's group; the others make theirs at their heartbeat.
        let share = if topics::is_retry(&config.name) {
            Vec::new()
        } else {
            vec![config]
        };
        let alone = share.is_empty();
        let number = self.begin_change(share, true, None);
        if alone {
            tracing::debug!(number, "a retry topic is made on this shard only");
        }
        Ok(number)
    }

    /// Checks 6 and 7, and the way of a message that was retried too often.
    fn target<'a>(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        produce: &Produce<'a>,
    ) -> Result<Result<Target<'a>, Condition>, Refusal> {
        let config = &self.topics.get(produce.topic).expect("was made").config;
        let queue_count = config.read_queue_count.max(config.write_queue_count);
        let write_queue_count = config.write_queue_count.max(1);
        let multi_tag = config.multi_tag;
        let chosen = u32::try_from(produce.queue_id);
        if let Ok(queue_id) = chosen
            && queue_count <= queue_id
        {
            let filter = if multi_tag { "MULTI_TAG" } else { "SINGLE_TAG" };
            return Err(Refusal::new(
                RefusalKind::InvalidParameter,
                format!(
                    "request queueId[{queue_id}] is illegal, TopicConfig [topicName={}, \
                     readQueueNums={}, writeQueueNums={}, perm={}, topicFilterType={filter}, \
                     topicSysFlag={}, order={}, attributes={{}}] Producer: {}",
                    config.name,
                    config.read_queue_count,
                    config.write_queue_count,
                    perm_text(config.perm),
                    config.sys_flag,
                    config.order,
                    peer.address
                ),
            ));
        }
        let queue_id =
            chosen.unwrap_or_else(|_| self.prng.below(u64::from(write_queue_count)) as u32);
        let target = Target {
            topic: Cow::Borrowed(produce.topic),
            queue_id: QueueId(queue_id),
            multi_tag,
            dead: false,
        };
        match produce.topic.strip_prefix(RETRY_PREFIX) {
            None => Ok(Ok(target)),
            Some(group) => self.retry_target(io, peer, produce, group, target),
        }
    }

    fn retry_target<'a>(
        &mut self,
        io: &impl Io,
        peer: &Peer<'_>,
        produce: &Produce<'_>,
        group: &str,
        target: Target<'a>,
    ) -> Result<Result<Target<'a>, Condition>, Refusal> {
        let Some(config) = self.groups.get(group) else {
            return Err(Refusal::new(
                RefusalKind::GroupNotExist,
                format!("subscription group not exist, {group}"),
            ));
        };
        let reconsume_max = match produce.max_reconsume_times {
            Some(max) if VERSION_WITH_MAX_RECONSUME <= peer.version => max,
            _ => config.retry_max_times,
        };
        let ordered = 0 < produce.reconsume_times && self.locks.is_any_held(group, io.now_ns());
        if produce.reconsume_times <= reconsume_max && !ordered {
            return Ok(Ok(target));
        }
        match self.dead_letter_topic(group, io.wall_ms()) {
            Ok(topic) => Ok(Ok(Target {
                topic: Cow::Owned(topic),
                queue_id: QueueId(0),
                multi_tag: target.multi_tag,
                dead: true,
            })),
            Err(condition) => Ok(Err(condition)),
        }
    }

    /// The topic in which a group's hopeless messages end, made if missing.
    pub(super) fn dead_letter_topic(
        &mut self,
        group: &str,
        now_ms: u64,
    ) -> Result<String, Condition> {
        let name = format!("{DEAD_LETTER_PREFIX}{group}");
        if let Some(number) = self.change_of_topic(&name) {
            return Err(Condition::Change(number));
        }
        if self.topics.get(&name).is_none() {
            self.topics
                .put(topics::plain(&name, 1, PERM_READ | PERM_WRITE), now_ms);
            return Err(Condition::Change(self.begin_change(Vec::new(), true, None)));
        }
        Ok(name)
    }

    fn illegal(&self) -> Refusal {
        Refusal::new(
            RefusalKind::MessageIllegal,
            format!(
                "the message is illegal, maybe msg body or properties length not matched. msg body \
                 length limit {}B, msg properties length limit 32KB.",
                self.settings.message_size_max
            ),
        )
    }

    fn produce_one(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        produce: &Produce<'_>,
        target: &Target<'_>,
    ) -> Reply {
        let seen = see(produce.properties);
        if seen.transaction {
            return Self::refuse(
                RefusalKind::NoPermission,
                format!(
                    "the broker[{}] sending transaction message is forbidden",
                    self.settings.store_host.ip()
                ),
            );
        }
        if seen.timer && seen.delay_level.is_none_or(|level| level <= 0) {
            return Self::refuse(
                RefusalKind::SystemError,
                "timer message is not enabled: this broker delays by DELAY levels only",
            );
        }
        if self.settings.message_size_max < produce.body.len() {
            return Reply::Now(Answer::Refused(self.illegal()));
        }
        let mut stripped = None;
        if seen.to_strip || target.dead {
            let mut names = STRIPPED.to_vec();
            if target.dead {
                names.push("DELAY");
            }
            stripped = Some(record::without(produce.properties, &names).into_owned());
        }
        let sent = stripped.as_deref().unwrap_or(produce.properties);
        let mut added = std::mem::take(&mut self.added);
        added.clear();
        added.extend_from_slice(&self.added_always);
        let made_key = seen.unique_key.is_none().then(|| self.make_unique_key());
        if let Some(key) = &made_key {
            put_property(&mut added, "UNIQ_KEY", key);
        }
        if target.dead {
            put_property(&mut added, "DELAY", "0");
        }
        let unique_key = seen.unique_key.or(made_key.as_deref()).unwrap_or("");
        let delay = seen.delay_level.filter(|level| 0 < *level && !target.dead);
        let message = Message {
            topic: &target.topic,
            queue_id: target.queue_id,
            flag: produce.flag,
            sys_flag: target.sys_flag(produce),
            born_ms: produce.born_ms,
            born_host: peer.address,
            reconsume_times: produce.reconsume_times,
            body: produce.body,
            properties: Properties::new(sent, &[]),
            due_ms: None,
            at_write: seen.at_write,
        };
        let mut produced = self.produced(target, 1);
        produced.transaction_id = Some(unique_key.into());
        let stored = match delay {
            Some(level) => self.store_delayed(io, message, level, &added, |placed| {
                produced.note(placed);
                After::Produced(ticket, produced)
            }),
            None => {
                let pieces = [added.as_slice()];
                let message = Message {
                    properties: Properties::new(sent, &pieces),
                    ..message
                };
                self.store(io, message, |placed| {
                    produced.note(placed);
                    After::Produced(ticket, produced)
                })
            }
        };
        self.added = added;
        match stored {
            Ok(()) => Reply::Later,
            Err(refused) => self.meet_no_room(refused),
        }
    }

    pub(super) fn meet_no_room(&self, why: Unstored) -> Reply {
        match why {
            Unstored::NoRoom(NoRoom::Soon) => Reply::Again(Condition::Room),
            Unstored::NoRoom(NoRoom::Weather(errno)) => Self::refuse(
                RefusalKind::ServiceNotAvailable,
                self.no_service(&format!("the log cannot grow ({errno})")),
            ),
            Unstored::NoRoom(NoRoom::Failed(failed)) => Self::refuse(
                RefusalKind::ServiceNotAvailable,
                self.no_service(&format!(
                    "the disk has failed ({} at {}: {})",
                    failed.doing, failed.offset, failed.errno
                )),
            ),
            Unstored::NoRoom(NoRoom::TooLarge) | Unstored::PropertiesTooLarge => {
                Reply::Now(Answer::Refused(self.illegal()))
            }
        }
    }

    fn produced(&self, target: &Target<'_>, count: usize) -> Produced {
        Produced {
            flush_timed_out: false,
            offsets: SmallVec::with_capacity(count),
            store_host: self.settings.store_host,
            queue_id: target.queue_id.0 as i32,
            queue_offset: QueueOffset(0),
            transaction_id: None,
            region: REGION,
        }
    }

    /// A message of a delay level waits in the schedule topic until its time has come (P§4.8).
    pub(super) fn store_delayed(
        &mut self,
        io: &mut impl Io,
        message: Message<'_>,
        level: i64,
        added: &[u8],
        after: impl FnOnce(&Placed) -> After,
    ) -> Result<(), Unstored> {
        let level_max = self.settings.delay_levels.len() as i64;
        let level = level.min(level_max);
        let delay_ms = self.settings.delay_levels[level as usize - 1];
        let sent = std::str::from_utf8(message.properties.sent).unwrap_or("");
        let kept = record::without(sent, &["DELAY", "REAL_TOPIC", "REAL_QID"]);
        let mut more = added.to_vec();
        put_property(&mut more, "DELAY", &level.to_string());
        put_property(&mut more, "REAL_TOPIC", message.topic);
        put_property(&mut more, "REAL_QID", &message.queue_id.to_string());
        let pieces = [more.as_slice()];
        let delayed = Message {
            topic: SCHEDULE_TOPIC,
            queue_id: QueueId(level as u32 - 1),
            properties: Properties::new(&*kept, &pieces),
            due_ms: Some(delay_ms),
            ..message
        };
        self.store(io, delayed, after)
    }

    /// Appends one message. `due_ms` of a message counts from its store time here.
    pub(super) fn store(
        &mut self,
        io: &mut impl Io,
        message: Message<'_>,
        after: impl FnOnce(&Placed) -> After,
    ) -> Result<(), Unstored> {
        let (now_ns, store_ms) = (io.now_ns(), io.wall_ms());
        let topic = self
            .topics
            .get_mut(message.topic)
            .expect("the topic was checked or made");
        let key_prefix_hash = topic.key_prefix_hash;
        let queue = topic.queue(&mut self.queues, message.queue_id);
        let mut draft = self.draft(&message, store_ms);
        if PROPERTIES_SIZE_MAX < draft.properties.size() + TRAILER_SIZE {
            return Err(Unstored::PropertiesTooLarge);
        }
        let size = draft.size();
        self.log.reserve(size as u64).map_err(Unstored::NoRoom)?;
        let queue_offset = self.queues.queue_mut(queue).assign(1);
        draft.queue_offset = queue_offset.0;
        let offset = self
            .log
            .append(size, now_ns, |offset, out| draft.encode(offset, out))
            .expect("the place was reserved a line ago");
        let placed = Placed {
            offset,
            queue_offset,
        };
        let mut keys = std::mem::take(&mut self.keys);
        let tag = self.collect_keys(&message, key_prefix_hash, &mut keys);
        let appended = Appended {
            end: offset.0 + size as u64,
            queue,
            queue_offset,
            unit: Unit {
                offset,
                size: size as u32,
                tags_code: message
                    .due_ms
                    .map_or(tag, |delay| (store_ms + delay) as i64),
            },
            store_ms,
            at_write: message.at_write,
        };
        let after = after(&placed);
        self.pending.push(now_ns, &appended, &keys, after);
        self.keys = keys;
        self.counters.produced += 1;
        self.counters.produced_bytes += size as u64;
        self.statistics.put(message.topic, size as u64);
        Ok(())
    }

    fn draft<'a>(&self, message: &Message<'a>, store_ms: u64) -> Draft<'a> {
        Draft {
            queue_id: message.queue_id.0 as i32,
            flag: message.flag,
            queue_offset: 0,
            sys_flag: message.sys_flag,
            born_ms: message.born_ms,
            born_host: message.born_host,
            store_ms: store_ms as i64,
            store_host: self.settings.store_host,
            reconsume_times: message.reconsume_times,
            prepared_offset: 0,
            body: message.body,
            topic: message.topic,
            properties: message.properties,
        }
    }

    /// Hashes under which a record is found again: unique key, each word of KEYS, the tag (P§3.8). Answers
    /// the tag's code for the ConsumeQueue.
    fn collect_keys(&self, message: &Message<'_>, prefix_hash: i32, keys: &mut Vec<u32>) -> i64 {
        keys.clear();
        let mut tags_code = 0;
        let (mut unique, mut words, mut tag) = (None, None, None);
        let pieces = std::iter::once(message.properties.sent)
            .chain(message.properties.added.iter().copied());
        for (name, value) in pieces.flat_map(pairs) {
            let found = match name {
                b"UNIQ_KEY" => &mut unique,
                b"KEYS" => &mut words,
                b"TAGS" => &mut tag,
                _ => continue,
            };
            if let Ok(value) = std::str::from_utf8(value) {
                *found = Some(value);
            }
        }
        let hash_of = |text: &str| absolute(continue_hash(prefix_hash, text));
        if self.settings.index_keys {
            keys.extend(unique.map(hash_of));
            let words = words.into_iter().flat_map(|words| words.split(' '));
            let words = words.filter(|word| !word.is_empty()).map(hash_of);
            keys.extend(words.take(KEYS_MAX - 2));
        }
        if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
            tags_code = i64::from(string_hash(tag));
            if self.settings.index_keys {
                let hash = continue_hash(continue_hash(prefix_hash, "T#"), tag);
                keys.push(absolute(hash));
            }
        }
        tags_code
    }

    /// A key like the clients' own (P§3.5), for messages that come without one.
    fn make_unique_key(&mut self) -> String {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&self.prng.next_u64().to_be_bytes());
        self.unique_keys += 1;
        bytes[8..].copy_from_slice(&self.unique_keys.to_be_bytes());
        if let std::net::IpAddr::V4(ip) = self.settings.store_host.ip() {
            bytes[..4].copy_from_slice(&ip.octets());
        }
        bytes[8..12].copy_from_slice(&(self.settings.boot_ms as u32).to_be_bytes());
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    fn produce_batch(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        produce: &Produce<'_>,
        target: &Target<'_>,
    ) -> Reply {
        let header = see(produce.properties);
        let transaction = produce.sys_flag & sys_flag::TRANSACTION_MASK != 0;
        let delayed = header.delay_level.is_some_and(|level| 0 < level);
        if 127 < produce.topic.len()
            || topics::is_retry(produce.topic)
            || transaction
            || delayed
            || self.settings.message_size_max < produce.body.len()
        {
            return Reply::Now(Answer::Refused(self.illegal()));
        }
        let Some(items) = split_batch(produce.body) else {
            return Self::refuse(
                RefusalKind::MessageIllegal,
                "the batch is illegal: its items' lengths do not fit its body",
            );
        };
        let made: Vec<Vec<u8>> = items
            .iter()
            .map(|item| {
                let mut added = Vec::new();
                if record::property(item.properties, "UNIQ_KEY").is_none() {
                    let key = self.make_unique_key();
                    put_property(&mut added, "UNIQ_KEY", &key);
                }
                added
            })
            .collect();
        let batch = BatchHead {
            topic: produce.topic,
            queue_id: target.queue_id,
            sys_flag: target.sys_flag(produce),
            born_ms: produce.born_ms,
            born_host: peer.address,
            reconsume_times: produce.reconsume_times,
            at_write: header.at_write,
        };
        let mut total = 0;
        for (item, added) in items.iter().zip(&made) {
            let pieces = [added.as_slice()];
            let draft = self.draft(&batch.message(item, &pieces), 0);
            if PROPERTIES_SIZE_MAX < draft.properties.size() + TRAILER_SIZE {
                return Reply::Now(Answer::Refused(self.illegal()));
            }
            total += draft.size();
        }
        if let Err(why) = self.log.begin_batch(total) {
            return self.meet_no_room(Unstored::NoRoom(why));
        }
        let mut produced = self.produced(target, items.len());
        produced.transaction_id = header.unique_key.map(Into::into);
        let last = items.len() - 1;
        for (index, (item, added)) in items.iter().zip(&made).enumerate() {
            let pieces = [added.as_slice()];
            let mut taken = None;
            let stored = self.store(io, batch.message(item, &pieces), |placed| {
                if index == 0 {
                    produced.queue_offset = placed.queue_offset;
                }
                produced.offsets.push(placed.offset);
                if index == last {
                    taken = Some(std::mem::replace(&mut produced, Produced::empty()));
                }
                taken
                    .take()
                    .map_or(After::Nothing, |done| After::Produced(ticket, done))
            });
            assert!(stored.is_ok(), "the places of a batch were made sure of");
        }
        Reply::Later
    }
}

/// Where a record went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) offset: PhysicalOffset,
    pub(super) queue_offset: QueueOffset,
}

/// Why a message was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unstored {
    NoRoom(NoRoom),
    PropertiesTooLarge,
}

impl Produced {
    fn empty() -> Self {
        Self {
            flush_timed_out: false,
            offsets: SmallVec::new(),
            store_host: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
            queue_id: 0,
            queue_offset: QueueOffset(0),
            transaction_id: None,
            region: REGION,
        }
    }

    fn note(&mut self, placed: &Placed) {
        self.offsets.push(placed.offset);
        self.queue_offset = placed.queue_offset;
    }
}

/// What all messages of a batch share.
struct BatchHead<'a> {
    topic: &'a str,
    queue_id: QueueId,
    sys_flag: i32,
    born_ms: i64,
    born_host: SocketAddr,
    reconsume_times: i32,
    at_write: bool,
}

impl<'a> BatchHead<'a> {
    fn message<'b>(&self, item: &Item<'b>, added: &'b [&'b [u8]]) -> Message<'b>
    where
        'a: 'b,
    {
        Message {
            topic: self.topic,
            queue_id: self.queue_id,
            flag: item.flag,
            sys_flag: self.sys_flag,
            born_ms: self.born_ms,
            born_host: self.born_host,
            reconsume_times: self.reconsume_times,
            body: item.body,
            properties: Properties {
                sent: item.properties,
                added,
            },
            due_ms: None,
            at_write: self.at_write,
        }
    }
}

/// One message of a batch (P§3.6).
struct Item<'a> {
    flag: i32,
    body: &'a [u8],
    properties: &'a [u8],
}

/// `None` where the lengths do not fit, or nothing is in it.
fn split_batch(body: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut items = Vec::new();
    let mut rest = Reader::new(body);
    while !rest.rest().is_empty() {
        let size = usize::try_from(rest.i32()?).ok()?;
        let mut item = Reader::new(rest.bytes(size.checked_sub(4)?)?);
        let (_magic, _crc) = (item.i32()?, item.i32()?);
        let flag = item.i32()?;
        let body_size = usize::try_from(item.i32()?).ok()?;
        let body = item.bytes(body_size)?;
        let properties_size = usize::try_from(item.i16()?).ok()?;
        let properties = item.bytes(properties_size)?;
        items.push(Item {
            flag,
            body,
            properties,
        });
    }
    (!items.is_empty()).then_some(items)
}

/// As Apache writes permissions in its remarks.
fn perm_text(perm: u32) -> String {
    let bit = |mask: u32, sign: char| if perm & mask == mask { sign } else { '-' };
    [
        bit(PERM_READ, 'R'),
        bit(PERM_WRITE, 'W'),
        bit(PERM_INHERIT, 'X'),
    ]
    .iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_into_its_items() {
        // Protocol reference, appendix A.5.
        let hex = "0000002100000000000000000000000000000001610\
                   00a5441475301546167410200000018000000000000000000000000000000026263 0000";
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let body: Vec<u8> = digits
            .chunks(2)
            .map(|pair| {
                u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")
            })
            .collect();
        let items = split_batch(&body).expect("two items");
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].body, b"a");
        assert_eq!(items[0].properties, b"TAGS\x01TagA\x02");
        assert_eq!(items[1].body, b"bc");
        for cut in 1..body.len() {
            if cut != 0x21 {
                assert!(split_batch(&body[..cut]).is_none(), "cut at {cut}");
            }
        }
        assert!(split_batch(&[]).is_none());
    }
}

//! Sends: every check in RocketMQ's order (P§2.1), the record, and who waits for it.

mod batch;

use std::borrow::Cow;
use std::net::SocketAddr;

use smallvec::SmallVec;

use super::pending::{After, Appended};
use super::topics::{
    self, DEAD_LETTER_PREFIX, DEFAULT_TOPIC, PERM_INHERIT, PERM_READ, PERM_WRITE, RETRY_PREFIX,
    SCHEDULE_TOPIC,
};
use super::{Condition, Reply, Shard, Touched};
use crate::base::{Held, PhysicalOffset, QueueId, QueueOffset};
use crate::command::{Answer, Peer, Produce, Produced, Refusal, RefusalKind, Ticket};
use crate::index::{Names, Unit};
use crate::io::{Io, Source};
use crate::log::NoRoom;
use crate::log::record::{
    self, Draft, PROPERTIES_SIZE_MAX, Properties, TRAILER_SIZE, pairs, put_property, sys_flag,
};

/// Clients from V3_4_9 on say themselves how often a message may be retried (P§1.6).
const VERSION_WITH_MAX_RECONSUME: i32 = 121;

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
    pub(super) held: Option<Held<'a>>,
    /// As stored, but for what `added` brings.
    pub(super) properties: Properties<'a>,
    pub(super) names: Names<'a>,
    /// In the ConsumeQueue; `None` = the hash of TAGS.
    pub(super) due_ms: Option<u64>,
    /// WAIT=false: the answer need not wait for durability.
    pub(super) at_write: bool,
}

/// What a look through the properties has found.
#[derive(Debug, Default)]
struct Seen<'a> {
    names: Names<'a>,
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
            b"DELAY" => seen.delay_level = Some(text().parse().unwrap_or(0)),
            b"WAIT" => seen.at_write = value.eq_ignore_ascii_case(b"false"),
            b"TRAN_MSG" => seen.transaction = value.eq_ignore_ascii_case(b"true"),
            b"TIMER_DELAY_SEC" | b"TIMER_DELAY_MS" | b"TIMER_DELIVER_MS" => seen.timer = true,
            b"POP_CK" | b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER" => seen.to_strip = true,
            _ => seen.names.note(name, value),
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
        let number = self.begin_change(share, Touched::topic(produce.topic), None);
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
            return Err(self.begin_making(&name));
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
        let mut names = seen.names;
        let made_key = names.unique.is_none().then(|| self.make_unique_key());
        if let Some(key) = &made_key {
            put_property(&mut added, "UNIQ_KEY", key);
        }
        if target.dead {
            put_property(&mut added, "DELAY", "0");
        }
        names.unique = names.unique.or(made_key.as_deref());
        let unique_key = names.unique.unwrap_or("");
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
            held: produce.held,
            properties: Properties::new(sent, &[]),
            names,
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
            queue_id: target.queue_id.0 as i32,
            queue_offset: QueueOffset(0),
            transaction_id: None,
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
        let held = message.held.filter(|_| self.log.takes_insets());
        let offset = self
            .log
            .append(size, now_ns, |offset, out| {
                encode(&draft, held, offset, out)
            })
            .expect("the place was reserved a line ago");
        let unit = Unit {
            offset,
            size: size as u32,
            tags_code: message.due_ms.map_or_else(
                || message.names.tags_code(),
                |delay| (store_ms + delay) as i64,
            ),
        };
        self.note_record(unit, &message.names, key_prefix_hash);
        let appended = Appended {
            queue,
            queue_offset,
            store_ms,
            at_write: message.at_write,
        };
        let after = after(&Placed {
            offset,
            queue_offset,
        });
        self.pending.push(now_ns, &appended, after);
        self.count_stored(message.topic, 1, size as u64);
        Ok(())
    }

    fn note_record(&mut self, unit: Unit, names: &Names<'_>, key_prefix_hash: i32) {
        let indexed = self.settings.index_keys;
        self.pending.note(unit, |keys| {
            if indexed {
                names.hashes(key_prefix_hash, |hash| keys.push_back(hash));
            }
        });
    }

    fn count_stored(&mut self, topic: &str, count: u64, size: u64) {
        self.counters.produced += count;
        self.counters.produced_bytes += size;
        self.statistics.put(topic, count, size);
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
}

/// A body that can be held on to is written from where it lies.
fn encode(draft: &Draft<'_>, held: Option<Held<'_>>, offset: PhysicalOffset, out: &mut Source) {
    let Some(Held { frame, body_at }) = held else {
        return draft.encode(offset, out.buffer_mut());
    };
    let at = draft.encode_around_body(offset, out.buffer_mut());
    out.set_in(at, frame, body_at..body_at + draft.body.len());
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
    fn note(&mut self, placed: &Placed) {
        self.offsets.push(placed.offset);
        self.queue_offset = placed.queue_offset;
    }
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

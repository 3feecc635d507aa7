//! Pulls: who may read, where a queue's records are, and waiting where there are none (P§2.2).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::filter::Filter;
use super::settings::FetchBounds;
use super::topics::PERM_READ;
use super::wakeups::Parked;
use super::{Reply, Shard};
use crate::base::{PhysicalOffset, QueueId, QueueOffset};
use crate::command::{
    Answer, ConnectionId, Fetch, FetchStatus, Fetched, LogSpan, MessageModel, Peer, Refusal,
    RefusalKind, Ticket,
};
use crate::index::{Look, QueueIndex, UNIT_SIZE, Unit};
use crate::io::{Errno, GATHER_SPANS_MAX, Io, Op, Payload, Token};

/// This room's byte in tokens.
pub const ROOM: u8 = 5;
/// Units that were read back for a pull.
pub(super) const UNITS: u64 = 1 << 48;

/// Records in one answer at most: what RocketMQ's clients may ask for. One gather takes as many spans.
pub const COUNT_MAX: usize = 1024;
const _: () = assert!(COUNT_MAX <= GATHER_SPANS_MAX);
/// Bytes in one answer at most, well below the largest frame.
pub const BYTES_MAX: u64 = 8 << 20;
/// Units that one pull looks at, at least (16,000 bytes of a ConsumeQueue).
const SCAN_UNITS: usize = 800;
/// Places are made for so many runs at once: what clients ask for that do not say how much they want.
const SPANS_EXPECTED: usize = 32;
/// Longest time a pull is held: below the clients' request timeout of 30 s.
const SUSPEND_MS_MAX: u64 = 28_000;
/// Pulls that wait for units from a file at most; above it clients are told to come back.
const READING_MAX: usize = 4096;

const FAQ: &str = "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// A pull that has passed its checks.
#[derive(Debug, Clone)]
pub(super) struct FetchPlan {
    pub(super) queue: QueueIndex,
    pub(super) from: i64,
    /// What its client asked for.
    pub(super) asked: FetchBounds,
    pub(super) filter: Rc<Filter>,
    /// Hold it this long if nothing is there; only at its first run.
    pub(super) suspend_ns: Option<u64>,
    /// For the offset reset that may be pending.
    pub(super) group: Rc<str>,
    pub(super) topic: Rc<str>,
    pub(super) queue_id: i32,
}

/// Pulls that wait for units from a file.
#[derive(Debug, Default)]
pub(super) struct Reading {
    next: u64,
    table: BTreeMap<u64, (Ticket, FetchPlan, QueueOffset)>,
}

enum Outcome {
    Answer(Fetched),
    Read(crate::index::Wanted),
}

impl Shard {
    pub(super) fn fetch(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        fetch: &Fetch<'_>,
    ) -> Reply {
        let filter = match self.check_fetch(io.wall_ms(), peer, fetch) {
            Ok(filter) => filter,
            Err(refusal) => return Reply::Now(Answer::Refused(refusal)),
        };
        if let Some(offset) = fetch.commit
            && self.clients.message_model(fetch.group) != Some(MessageModel::Broadcasting)
            && 0 <= offset
        {
            self.offsets
                .commit(fetch.group, fetch.topic, fetch.queue_id, offset);
        }
        let topic = self.topics.get_mut(fetch.topic).expect("was checked");
        let queue = topic.queue(&mut self.queues, QueueId(fetch.queue_id as u32));
        let suspend_ns = fetch.suspend_ms.map(|wished| {
            let ms = if self.settings.long_polling {
                wished.min(SUSPEND_MS_MAX)
            } else {
                self.settings.short_polling_ms
            };
            ms * 1_000_000
        });
        let bytes_max = match fetch.bytes_max {
            Some(bytes) if 0 < bytes => u64::from(bytes.unsigned_abs()),
            _ => BYTES_MAX,
        };
        let plan = FetchPlan {
            queue,
            from: fetch.from,
            asked: FetchBounds {
                count_max: usize::try_from(fetch.count_max)
                    .unwrap_or(0)
                    .clamp(1, COUNT_MAX),
                bytes_max: bytes_max.min(BYTES_MAX),
            },
            filter,
            suspend_ns,
            group: self.offsets.name(fetch.group),
            topic: Rc::clone(self.queues.queue(queue).topic()),
            queue_id: fetch.queue_id,
        };
        match self.try_fetch(io, ticket, plan) {
            Some(answer) => Reply::Now(answer),
            None => Reply::Later,
        }
    }

    /// Runs a pull again that was parked, or whose units have been read.
    pub(super) fn start_fetch(&mut self, io: &mut impl Io, ticket: Ticket, mut plan: FetchPlan) {
        plan.suspend_ns = None;
        if let Some(answer) = self.try_fetch(io, ticket, plan) {
            self.answer_later(ticket, answer);
        }
    }

    /// `None`: the answer comes later.
    fn try_fetch(&mut self, io: &mut impl Io, ticket: Ticket, plan: FetchPlan) -> Option<Answer> {
        match self.look(&plan) {
            Outcome::Read(wanted) => {
                if READING_MAX <= self.reading.table.len() {
                    let text = "[TIMEOUT_CLEAN_QUEUE]broker busy, too many pulls wait for ConsumeQueue \
                                units from the disk; try again";
                    return Some(Answer::Refused(Refusal::new(RefusalKind::SystemBusy, text)));
                }
                let number = self.reading.next;
                self.reading.next = (number + 1) & 0xffff_ffff;
                let op = Op::Get {
                    path: wanted.path,
                    at: wanted.at,
                    len: wanted.len,
                };
                let pushed = io.push(Token::of(ROOM, UNITS | number), op);
                assert!(pushed.is_ok(), "pulls that read are bounded");
                self.reading
                    .table
                    .insert(number, (ticket, plan, wanted.start));
                None
            }
            Outcome::Answer(fetched) => {
                let nothing = matches!(
                    fetched.status,
                    FetchStatus::OffsetOverflowOne
                        | FetchStatus::NoMessageInQueue
                        | FetchStatus::NoMatchedLogicQueue
                ) && fetched.next == plan.from;
                if let Some(suspend_ns) = plan.suspend_ns
                    && nothing
                    && 0 < suspend_ns
                {
                    let deadline_ns = io.now_ns() + suspend_ns;
                    return self.park(Parked {
                        ticket,
                        plan,
                        deadline_ns,
                    });
                }
                if fetched.status == FetchStatus::Found {
                    self.counters.fetches_found += 1;
                    self.counters.fetched += u64::from(fetched.count);
                    let bytes: u64 = fetched.spans.iter().map(|span| u64::from(span.len)).sum();
                    self.counters.fetched_bytes += bytes;
                    self.statistics
                        .got(&plan.group, &plan.topic, fetched.count, bytes);
                } else {
                    self.counters.fetches_missed += 1;
                }
                Some(Answer::Fetched(fetched))
            }
        }
    }

    /// Units have been read back.
    pub(super) fn units_read(
        &mut self,
        io: &mut impl Io,
        number: u64,
        result: Result<u32, Errno>,
        payload: Payload,
    ) {
        let Some((ticket, plan, start)) = self.reading.table.remove(&number) else {
            return;
        };
        let got = match (result, payload) {
            (Ok(_), Payload::Buffer(bytes)) if !bytes.is_empty() => Ok(bytes),
            (Err(errno), _) => Err(errno),
            _ => Err(Errno::ENODATA),
        };
        match got {
            Ok(bytes) => self.queues.fill(plan.queue, start, bytes),
            Err(errno) => {
                let queue = self.queues.queue(plan.queue);
                let text = format!(
                    "the ConsumeQueue in {} cannot be read at offset {start}: {errno}; stop the broker, \
                     remove that folder and start again: it is rebuilt from the CommitLog",
                    queue.folder().display()
                );
                tracing::error!("{text}");
                let refusal = Refusal::new(RefusalKind::SystemError, text);
                return self.answer_later(ticket, Answer::Refused(refusal));
            }
        }
        // Once: what is not in its file would be asked for without end.
        match self.look(&plan) {
            Outcome::Answer(_) => self.start_fetch(io, ticket, plan),
            Outcome::Read(_) => {
                let queue = self.queues.queue(plan.queue);
                let fetched = Fetched {
                    status: FetchStatus::OffsetFoundNull,
                    from: plan.from,
                    next: plan.from + 1,
                    min: queue.min() as i64,
                    max: queue.max() as i64,
                    spans: Vec::new(),
                    count: 0,
                };
                self.answer_later(ticket, Answer::Fetched(fetched));
            }
        }
    }

    /// P§2.2, the table of nextBeginOffset rules.
    fn look(&mut self, plan: &FetchPlan) -> Outcome {
        let queue = self.queues.queue(plan.queue);
        let (min, max) = (queue.min() as i64, queue.max() as i64);
        let nothing = |status, next| {
            Outcome::Answer(Fetched {
                status,
                from: plan.from,
                next,
                min,
                max,
                spans: Vec::new(),
                count: 0,
            })
        };
        if let Some(offset) = self
            .offsets
            .take_reset(&plan.group, &plan.topic, plan.queue_id)
        {
            return nothing(FetchStatus::OffsetReset, offset);
        }
        if max == 0 {
            return nothing(FetchStatus::NoMessageInQueue, 0);
        }
        if plan.from < min {
            return nothing(FetchStatus::OffsetTooSmall, min);
        }
        if plan.from == max {
            return nothing(FetchStatus::OffsetOverflowOne, plan.from);
        }
        if max < plan.from {
            return nothing(FetchStatus::OffsetOverflowBadly, max);
        }
        let first = self.log.first_offset();
        let warm_from = self.warm_from();
        let mut runs = Runs::new(plan.asked);
        let mut next = plan.from as u64;
        let mut gone = false;
        let scan_max = SCAN_UNITS.max(plan.asked.count_max);
        let mut scanned = 0;
        'scan: while scanned < scan_max {
            let units = match self.queues.look(plan.queue, QueueOffset(next)) {
                Look::Units(units) => units,
                Look::Nothing => break,
                Look::Miss(wanted) if scanned == 0 => return Outcome::Read(wanted),
                Look::Miss(_) => break,
            };
            for unit in units.chunks_exact(UNIT_SIZE as usize) {
                if scan_max <= scanned || runs.bounds.count_max <= runs.count {
                    break 'scan;
                }
                let unit = Unit::decode(unit).unwrap_or(Unit::HOLE);
                let wanted = !unit.is_hole() && plan.filter.matches(unit.tags_code);
                if wanted && unit.offset.0 < first {
                    gone = true;
                } else if wanted {
                    if runs.count == 0 {
                        let bounds = self.settings.fetch_bounds(warm_from <= unit.offset.0);
                        runs.bounds = plan.asked.within(bounds);
                    }
                    if !runs.take(unit) {
                        break 'scan;
                    }
                }
                scanned += 1;
                next += 1;
            }
        }
        if runs.count == 0 {
            let status = if gone {
                FetchStatus::MessageWasRemoving
            } else {
                FetchStatus::NoMatchedMessage
            };
            return nothing(status, next as i64);
        }
        Outcome::Answer(Fetched {
            status: FetchStatus::Found,
            from: plan.from,
            next: next as i64,
            min,
            max,
            spans: runs.spans,
            count: runs.count as u32,
        })
    }

    /// From here on the log counts as in memory for the bounds of pulls: RocketMQ's rule, that it is not
    /// further back than a part of the memory, and what was there at the start may not be.
    fn warm_from(&self) -> u64 {
        let young_from = self
            .log
            .appended()
            .saturating_sub(self.settings.young_log_size);
        self.log.warm_from().max(young_from)
    }

    /// P§2.2, in its order. The filter where the pull may go on.
    fn check_fetch(
        &mut self,
        now_ms: u64,
        peer: &Peer<'_>,
        fetch: &Fetch<'_>,
    ) -> Result<Rc<Filter>, Refusal> {
        let refuse = |kind, text: String| Err(Refusal::new(kind, text));
        let forbid = |by, text: String| {
            Err(Refusal {
                kind: RefusalKind::NoPermission,
                text,
                forbidden_by: Some(by),
            })
        };
        if self.settings.perm & PERM_READ == 0 {
            let ip = self.settings.store_host.ip();
            return forbid(1, format!("the broker[{ip}] pulling message is forbidden"));
        }
        let Some(group) = self.group_or_default(fetch.group, now_ms) else {
            let text = format!(
                "subscription group [{}] does not exist, \n{FAQ}",
                fetch.group
            );
            return refuse(RefusalKind::GroupNotExist, text);
        };
        if !group.consume_enable {
            return forbid(
                2,
                format!("subscription group no permission, {}", fetch.group),
            );
        }
        let Some(topic) = self.topics.get(fetch.topic) else {
            let text = format!(
                "topic[{}] not exist, apply first please! \n{FAQ}",
                fetch.topic
            );
            return refuse(RefusalKind::TopicNotExist, text);
        };
        if topic.config.perm & PERM_READ == 0 {
            return forbid(
                3,
                format!("the topic[{}] pulling message is forbidden", fetch.topic),
            );
        }
        let read_queue_count = topic.config.read_queue_count;
        if u32::try_from(fetch.queue_id).is_err() || read_queue_count <= fetch.queue_id as u32 {
            let text = format!(
                "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{read_queue_count}] \
                 consumer:[/{}]",
                fetch.queue_id, fetch.topic, peer.address
            );
            return refuse(RefusalKind::InvalidParameter, text);
        }
        if let Some(kind) = fetch.expression_type
            && fetch.subscription.is_some()
            && !is_tag(kind)
        {
            return Err(self.no_property_filter());
        }
        match fetch.subscription {
            Some(expression) => Ok(self.filters.of(expression)),
            None => self.registered_filter(&group, fetch),
        }
    }

    fn no_property_filter(&self) -> Refusal {
        let text = "The broker does not support consumer to filter message by SQL92";
        Refusal::new(RefusalKind::SystemError, text)
    }

    fn registered_filter(
        &self,
        group: &crate::command::GroupConfig,
        fetch: &Fetch<'_>,
    ) -> Result<Rc<Filter>, Refusal> {
        let refuse = |kind, text: String| Err(Refusal::new(kind, text));
        let Some(consumers) = self.clients.group(fetch.group) else {
            let text = format!("the consumer's group info not exist\n{FAQ}");
            return refuse(RefusalKind::SubscriptionNotExist, text);
        };
        if !group.consume_broadcast_enable && consumers.message_model == MessageModel::Broadcasting
        {
            return Err(Refusal {
                kind: RefusalKind::NoPermission,
                text: format!(
                    "the consumer group[{}] can not consume by broadcast way",
                    fetch.group
                ),
                forbidden_by: Some(4),
            });
        }
        let Some(known) = consumers.subscriptions.get(fetch.topic) else {
            let text = format!("the consumer's subscription not exist\n{FAQ}");
            return refuse(RefusalKind::SubscriptionNotExist, text);
        };
        if known.subscription.version < fetch.subscription_version {
            let text = "the consumer's subscription not latest".to_owned();
            return refuse(RefusalKind::SubscriptionNotLatest, text);
        }
        if !is_tag(&known.subscription.expression_type) {
            return Err(self.no_property_filter());
        }
        Ok(Rc::clone(&known.filter))
    }

    /// Drops pulls of a connection that is gone.
    pub(super) fn forget_fetches(&mut self, connection: ConnectionId) {
        self.forget_parked(connection);
        self.reading
            .table
            .retain(|_, (ticket, _, _)| ticket.connection != connection);
    }
}

/// Whether an expression is of tags; absent means so.
pub(super) fn is_tag(kind: &str) -> bool {
    kind.is_empty() || kind == "TAG"
}

/// What goes into an answer: adjacent records merged.
struct Runs {
    spans: Vec<LogSpan>,
    count: usize,
    bytes: u64,
    bounds: FetchBounds,
}

impl Runs {
    fn new(bounds: FetchBounds) -> Self {
        Self {
            spans: Vec::with_capacity(bounds.count_max.min(SPANS_EXPECTED)),
            count: 0,
            bytes: 0,
            bounds,
        }
    }

    /// Takes one more record; false if it is too much. The first one never is: who asks for less than one
    /// message would stand still.
    fn take(&mut self, unit: Unit) -> bool {
        let bytes = self.bytes + u64::from(unit.size);
        if 0 < self.count && self.bounds.bytes_max < bytes {
            return false;
        }
        self.bytes = bytes;
        self.count += 1;
        if let Some(last) = self.spans.last_mut()
            && last.offset.0 + u64::from(last.len) == unit.offset.0
        {
            last.len += unit.size;
        } else {
            self.spans.push(LogSpan {
                offset: PhysicalOffset(unit.offset.0),
                len: unit.size,
            });
        }
        true
    }
}

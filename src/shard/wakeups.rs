//! Pulls that found nothing and wait: until a record they want arrives, or their time is up.

use std::collections::{BTreeMap, BTreeSet};

use super::fetch::FetchPlan;
use super::{Outbound, Shard};
use crate::command::{Answer, ConnectionId, Ticket};
use crate::index::QueueIndex;
use crate::io::Io;

/// Pulls whose filter wants nothing of what came are looked at again after this long, so that their
/// offset moves on (RocketMQ's PullRequestHoldService does so every 5 s).
const RECHECK_NS: u64 = 5_000_000_000;

/// A pull that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) ticket: Ticket,
    pub(super) plan: FetchPlan,
    pub(super) deadline_ns: u64,
}

/// All pulls that wait.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    parked: BTreeMap<QueueIndex, Vec<Parked>>,
    count: usize,
    woken: BTreeSet<QueueIndex>,
    rechecked_ns: u64,
    /// No pull is due before.
    next_deadline_ns: u64,
}

impl Wakeups {
    pub(super) fn park(&mut self, queue: QueueIndex, parked: Parked) {
        self.next_deadline_ns = if self.count == 0 {
            parked.deadline_ns
        } else {
            self.next_deadline_ns.min(parked.deadline_ns)
        };
        self.count += 1;
        self.parked.entry(queue).or_default().push(parked);
    }

    /// A record of a queue is visible.
    pub(super) fn arrived(&mut self, queue: QueueIndex, tags_code: i64) {
        if self.count == 0 || self.woken.contains(&queue) {
            return;
        }
        if let Some(parked) = self.parked.get(&queue)
            && parked.iter().any(|one| one.plan.filter.matches(tags_code))
        {
            self.woken.insert(queue);
        }
    }

    /// How many pulls wait.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    fn take(&mut self, queue: QueueIndex) -> Vec<Parked> {
        let taken = self.parked.remove(&queue).unwrap_or_default();
        self.count -= taken.len();
        taken
    }

    /// Takes out what satisfies `which`, in queue order.
    fn take_if(&mut self, mut which: impl FnMut(&Parked) -> bool) -> Vec<(QueueIndex, Parked)> {
        let mut taken = Vec::new();
        self.parked.retain(|queue, list| {
            taken.extend(
                list.extract_if(.., |parked| which(parked))
                    .map(|parked| (*queue, parked)),
            );
            !list.is_empty()
        });
        self.count -= taken.len();
        taken
    }
}

impl Shard {
    /// Answers pulls for which a record has come.
    pub(super) fn run_woken(&mut self, io: &mut impl Io) {
        while let Some(queue) = self.wakeups.woken.pop_first() {
            for parked in self.wakeups.take(queue) {
                self.run_parked(io, queue, parked, false);
            }
        }
    }

    fn run_parked(&mut self, io: &mut impl Io, queue: QueueIndex, parked: Parked, last: bool) {
        let Parked {
            ticket,
            plan,
            deadline_ns,
        } = parked;
        let found = self.queues.queue(queue).max() as i64 > plan.from;
        if !found && !last {
            let parked = Parked {
                ticket,
                plan,
                deadline_ns,
            };
            return self.wakeups.park(queue, parked);
        }
        self.start_fetch(io, ticket, plan);
    }

    /// Answers pulls whose time is up, and moves those on that want nothing of what came. Answers when to
    /// ask again, in nanoseconds of the clock that decides.
    pub fn expire_parked(&mut self, io: &mut impl Io) -> u64 {
        if self.wakeups.len() == 0 {
            return u64::MAX;
        }
        let now_ns = io.now_ns();
        if self.wakeups.next_deadline_ns <= now_ns {
            for (queue, parked) in self.wakeups.take_if(|parked| parked.deadline_ns <= now_ns) {
                self.run_parked(io, queue, parked, true);
            }
            let deadlines = self
                .wakeups
                .parked
                .values()
                .flatten()
                .map(|one| one.deadline_ns);
            self.wakeups.next_deadline_ns = deadlines.min().unwrap_or(u64::MAX);
        }
        if self.wakeups.rechecked_ns + RECHECK_NS <= now_ns {
            self.wakeups.rechecked_ns = now_ns;
            let queues: Vec<QueueIndex> = self.wakeups.parked.keys().copied().collect();
            for queue in queues {
                for parked in self.wakeups.take(queue) {
                    self.run_parked(io, queue, parked, false);
                }
            }
        }
        self.wakeups.next_deadline_ns
    }

    /// Drops the pulls of a connection that is gone.
    pub(super) fn forget_parked(&mut self, connection: ConnectionId) {
        self.wakeups
            .take_if(|parked| parked.ticket.connection == connection);
    }

    /// Answers every pull that waits, with what there is: the shard stops.
    pub fn answer_all_parked(&mut self, io: &mut impl Io) {
        for (queue, parked) in self.wakeups.take_if(|_| true) {
            self.run_parked(io, queue, parked, true);
        }
    }

    /// How many pulls wait.
    #[must_use]
    pub const fn parked_count(&self) -> usize {
        self.wakeups.len()
    }

    pub(super) fn answer_later(&mut self, ticket: Ticket, answer: Answer) {
        self.outbox.push(Outbound::Answer(ticket, answer));
    }
}

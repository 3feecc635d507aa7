//! Pulls that found nothing and wait: until a record they want arrives, or their time is up.
//!
//! However many wait, a turn answers some of them, and the next turn goes on where it ended.

use std::collections::{BTreeMap, VecDeque};

use super::fetch::FetchPlan;
use super::{Outbound, Shard};
use crate::command::{Answer, ConnectionId, Refusal, RefusalKind, Ticket};
use crate::index::QueueIndex;
use crate::io::Io;

/// Pulls whose filter wants nothing of what came are looked at again after this long, so that their
/// offset moves on (RocketMQ's PullRequestHoldService does so every 5 s).
const RECHECK_NS: u64 = 5_000_000_000;

/// Pulls that a turn answers because a record has come, because their time is up, and because they are looked at again:
/// less than half a millisecond's each.
const TURN_MAX: usize = 256;

/// Queues that a turn looks at again.
const RECHECK_MAX: usize = 512;

/// Pulls that wait on a shard at most: some hundred bytes each. A consumer has one for each queue.
const PARKED_MAX: usize = 1 << 19;

/// Pulls of one connection that wait for one queue at most: those of all groups of a process.
const PARKED_OF_QUEUE_MAX: u32 = 1024;

/// Pulls are told that their time is up so much too late at most.
const DUE_STEP_NS: u64 = 10_000_000;

/// A pull that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) ticket: Ticket,
    pub(super) plan: FetchPlan,
    pub(super) deadline_ns: u64,
}

/// All pulls that wait.
#[derive(Debug)]
pub(super) struct Wakeups {
    /// Pulls that wait at most.
    parked_max: usize,
    parked: BTreeMap<QueueIndex, VecDeque<Parked>>,
    count: usize,
    /// For which queues pulls of each connection wait, and how many.
    of_connection: BTreeMap<ConnectionId, BTreeMap<QueueIndex, u32>>,
    /// Queues that a record has come for, and how many of their pulls, from the front, were not looked at since.
    woken: BTreeMap<QueueIndex, usize>,
    /// Queues for which pulls are due by the end of a step. They may have been answered meanwhile.
    due: BTreeMap<u64, Vec<QueueIndex>>,
    rechecked_ns: u64,
    /// The queue that is looked at again next, while that is going on.
    recheck_next: Option<QueueIndex>,
}

impl Default for Wakeups {
    fn default() -> Self {
        Self::with_room_for(PARKED_MAX)
    }
}

impl Wakeups {
    fn with_room_for(parked_max: usize) -> Self {
        Self {
            parked_max,
            parked: BTreeMap::new(),
            count: 0,
            of_connection: BTreeMap::new(),
            woken: BTreeMap::new(),
            due: BTreeMap::new(),
            rechecked_ns: 0,
            recheck_next: None,
        }
    }

    /// Whether another pull may wait; or why not.
    pub(super) fn room_for(&self, queue: QueueIndex, ticket: Ticket) -> Result<(), String> {
        if self.parked_max <= self.count {
            return Err(format!("{} pulls wait on this shard", self.parked_max));
        }
        let of_connection = self.of_connection.get(&ticket.connection);
        let of_queue = of_connection.and_then(|queues| queues.get(&queue));
        if of_queue.is_some_and(|count| PARKED_OF_QUEUE_MAX <= *count) {
            return Err(format!(
                "{PARKED_OF_QUEUE_MAX} pulls of this connection wait for this queue"
            ));
        }
        Ok(())
    }

    pub(super) fn park(&mut self, queue: QueueIndex, parked: Parked) {
        let due = self
            .due
            .entry(parked.deadline_ns.div_ceil(DUE_STEP_NS))
            .or_default();
        if due.last() != Some(&queue) {
            due.push(queue);
        }
        let of_connection = self.of_connection.entry(parked.ticket.connection);
        *of_connection.or_default().entry(queue).or_default() += 1;
        self.count += 1;
        self.parked.entry(queue).or_default().push_back(parked);
    }

    /// A record of a queue is visible.
    pub(super) fn arrived(&mut self, queue: QueueIndex, tags_code: i64) {
        if self.count == 0 {
            return;
        }
        if let Some(parked) = self.parked.get(&queue)
            && self.woken.get(&queue) != Some(&parked.len())
            && parked.iter().any(|one| one.plan.filter.matches(tags_code))
        {
            self.woken.insert(queue, parked.len());
        }
    }

    /// How many pulls wait.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// A pull of a queue waits no more.
    fn left(&mut self, queue: QueueIndex, connection: ConnectionId) {
        self.count -= 1;
        let Some(queues) = self.of_connection.get_mut(&connection) else {
            return;
        };
        if let Some(count) = queues.get_mut(&queue) {
            *count -= 1;
            if *count == 0 {
                queues.remove(&queue);
            }
        }
        if queues.is_empty() {
            self.of_connection.remove(&connection);
        }
    }

    /// Takes out one that a record has come for. Who waits again meanwhile is behind them, and not looked at.
    fn take_woken(&mut self) -> Option<(QueueIndex, Parked)> {
        loop {
            let mut first = self.woken.first_entry()?;
            let queue = *first.key();
            *first.get_mut() -= 1;
            if *first.get() == 0 {
                first.remove();
            }
            // Their connections may have gone.
            match self.take_first(queue) {
                Some(parked) => return Some((queue, parked)),
                None => _ = self.woken.remove(&queue),
            }
        }
    }

    /// Takes out the first of a queue.
    fn take_first(&mut self, queue: QueueIndex) -> Option<Parked> {
        let list = self.parked.get_mut(&queue)?;
        let parked = list.pop_front()?;
        if list.is_empty() {
            self.parked.remove(&queue);
        }
        self.left(queue, parked.ticket.connection);
        Some(parked)
    }

    /// Takes out those of a queue that satisfy `which`.
    fn take_if(&mut self, queue: QueueIndex, which: impl Fn(&Parked) -> bool) -> Vec<Parked> {
        self.take_some(queue, usize::MAX, which)
    }

    /// Takes out the first so many of a queue that satisfy `which`.
    fn take_some(
        &mut self,
        queue: QueueIndex,
        count_max: usize,
        which: impl Fn(&Parked) -> bool,
    ) -> Vec<Parked> {
        let Some(list) = self.parked.get_mut(&queue) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        // Who has waited longest is most often who is looked for: the others are left where they lie.
        while taken.len() < count_max && list.front().is_some_and(&which) {
            taken.extend(list.pop_front());
        }
        if taken.len() < count_max && list.iter().any(&which) {
            let all = std::mem::take(list);
            let mut left = count_max - taken.len();
            let (more, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(|parked| {
                let is_taken = 0 < left && which(parked);
                left -= usize::from(is_taken);
                is_taken
            });
            taken.extend(more);
            *list = stay.into();
        }
        if list.is_empty() {
            self.parked.remove(&queue);
        }
        for parked in &taken {
            self.left(queue, parked.ticket.connection);
        }
        taken
    }

    /// A queue for which pulls are due, each once.
    fn take_due(&mut self, now_ns: u64) -> Option<QueueIndex> {
        let mut first = self.due.first_entry()?;
        if now_ns < first.key() * DUE_STEP_NS {
            return None;
        }
        let queue = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        queue
    }

    /// More pulls of a queue may be due than were taken out.
    fn due_again(&mut self, queue: QueueIndex) {
        self.due.entry(0).or_default().push(queue);
    }

    /// When to ask again, in nanoseconds of the clock that decides.
    fn next_ns(&self, now_ns: u64) -> u64 {
        if !self.woken.is_empty() || self.recheck_next.is_some() {
            return now_ns;
        }
        let due = self.due.first_key_value();
        due.map_or(u64::MAX, |(step, _)| step * DUE_STEP_NS)
    }
}

impl Shard {
    /// Lets a pull wait; answers it at once where too many do.
    pub(super) fn park(&mut self, parked: Parked) -> Option<Answer> {
        let queue = parked.plan.queue;
        if let Err(why) = self.wakeups.room_for(queue, parked.ticket) {
            let text = format!(
                "[TIMEOUT_CLEAN_QUEUE]broker busy, {why} [shard {}]; pull again later",
                self.settings.shard
            );
            return Some(Answer::Refused(Refusal::new(RefusalKind::SystemBusy, text)));
        }
        self.counters.fetches_parked += 1;
        self.wakeups.park(queue, parked);
        None
    }

    /// Answers pulls for which a record has come.
    pub(super) fn run_woken(&mut self, io: &mut impl Io) {
        for _ in 0..TURN_MAX {
            let Some((queue, parked)) = self.wakeups.take_woken() else {
                break;
            };
            if self.queues.queue(queue).max() as i64 > parked.plan.from {
                self.start_fetch(io, parked.ticket, parked.plan);
            } else {
                self.wakeups.park(queue, parked);
            }
        }
    }

    /// Answers pulls whose time is up, and moves those on that want nothing of what came. Answers when to
    /// ask again, in nanoseconds of the clock that decides.
    pub fn expire_parked(&mut self, io: &mut impl Io) -> u64 {
        let now_ns = io.now_ns();
        let mut left = TURN_MAX;
        while 0 < left
            && let Some(queue) = self.wakeups.take_due(now_ns)
        {
            let is_due = |parked: &Parked| parked.deadline_ns <= now_ns;
            let due = self.wakeups.take_some(queue, left, is_due);
            if due.len() == left {
                self.wakeups.due_again(queue);
            }
            left -= due.len().max(1);
            for parked in due {
                self.start_fetch(io, parked.ticket, parked.plan);
            }
        }
        self.recheck_parked(io, now_ns);
        self.wakeups.next_ns(now_ns)
    }

    fn recheck_parked(&mut self, io: &mut impl Io, now_ns: u64) {
        if self.wakeups.recheck_next.is_none() {
            if self.wakeups.count == 0 || now_ns < self.wakeups.rechecked_ns + RECHECK_NS {
                return;
            }
            self.wakeups.rechecked_ns = now_ns;
            self.wakeups.recheck_next = Some(QueueIndex(0));
        }
        let first = self.wakeups.recheck_next.take().unwrap_or(QueueIndex(0));
        let queues = self.wakeups.parked.range(first..).map(|(queue, _)| *queue);
        let queues: Vec<QueueIndex> = queues.take(RECHECK_MAX).collect();
        if queues.len() == RECHECK_MAX {
            self.wakeups.recheck_next = queues.last().map(|queue| QueueIndex(queue.0 + 1));
        }
        let mut left = TURN_MAX;
        for queue in queues {
            let end = self.queues.queue(queue).max() as i64;
            let is_behind = |parked: &Parked| parked.plan.from < end;
            let behind = self.wakeups.take_some(queue, left, is_behind);
            left -= behind.len();
            for parked in behind {
                self.start_fetch(io, parked.ticket, parked.plan);
            }
            if left == 0 {
                self.wakeups.recheck_next = Some(queue);
                break;
            }
        }
    }

    /// Drops the pulls of a connection that is gone.
    pub(super) fn forget_parked(&mut self, connection: ConnectionId) {
        let queues = self.wakeups.of_connection.get(&connection);
        let queues: Vec<QueueIndex> = queues
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        for queue in queues {
            self.wakeups
                .take_if(queue, |parked| parked.ticket.connection == connection);
        }
    }

    /// Answers every pull that waits, with what there is: the shard stops.
    pub fn answer_all_parked(&mut self, io: &mut impl Io) {
        while let Some((queue, _)) = self.wakeups.parked.first_key_value() {
            let queue = *queue;
            for parked in self.wakeups.take_if(queue, |_| true) {
                self.start_fetch(io, parked.ticket, parked.plan);
            }
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::filter::Filter;
    use super::super::settings::FetchBounds;
    use super::*;
    use crate::base::Key;

    fn parked(queue: QueueIndex, connection: u32, from: i64, deadline_ns: u64) -> Parked {
        let connection = ConnectionId(Key {
            index: connection,
            generation: 0,
        });
        Parked {
            ticket: Ticket {
                connection,
                note: 0,
            },
            plan: FetchPlan {
                queue,
                from,
                asked: FetchBounds {
                    count_max: 1,
                    bytes_max: 1,
                },
                filter: Rc::new(Filter::All),
                suspend_ns: None,
                group: Rc::from("G"),
                topic: Rc::from("T"),
                queue_id: 0,
            },
            deadline_ns,
        }
    }

    #[test]
    fn each_that_waits_is_woken_once_however_few_are_taken_at_a_time() {
        let mut wakeups = Wakeups::default();
        let queue = QueueIndex(3);
        for from in 0..10 {
            wakeups.park(queue, parked(queue, from as u32 % 2, from, u64::MAX / 2));
        }
        wakeups.arrived(QueueIndex(4), 0);
        assert!(wakeups.take_woken().is_none());
        wakeups.arrived(queue, 0);
        let mut seen = Vec::new();
        while let Some((_, parked)) = wakeups.take_woken() {
            seen.push(parked.plan.from);
            assert_eq!(wakeups.next_ns(7) == 7, seen.len() < 10, "{seen:?}");
            // It waits again, and another comes behind the record.
            wakeups.park(queue, parked);
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(wakeups.len(), 10);
        // A record that comes meanwhile is for all of them.
        wakeups.arrived(queue, 0);
        wakeups.take_woken().unwrap();
        wakeups.arrived(queue, 0);
        assert_eq!(std::iter::from_fn(|| wakeups.take_woken()).count(), 9);
        assert!(wakeups.of_connection.is_empty() && wakeups.len() == 0);
    }

    #[test]
    fn pulls_are_due_not_before_their_time_and_hardly_later() {
        let mut wakeups = Wakeups::default();
        let ms = 1_000_000;
        for (queue, deadline_ms) in [(1, 15), (2, 21), (4, 20), (1, 16), (3, 500)] {
            let queue = QueueIndex(queue);
            wakeups.park(queue, parked(queue, 0, 0, deadline_ms * ms));
        }
        assert_eq!(wakeups.next_ns(0), 20 * ms);
        assert_eq!(wakeups.take_due(20 * ms - 1), None);
        let mut told = Vec::new();
        while let Some(queue) = wakeups.take_due(20 * ms) {
            let due = wakeups.take_if(queue, |one| one.deadline_ns <= 20 * ms);
            told.extend(due.iter().map(|one| (queue.0, one.deadline_ns / ms)));
        }
        told.sort_unstable();
        assert_eq!(told, [(1, 15), (1, 16), (4, 20)]);
        assert_eq!((wakeups.next_ns(20 * ms), wakeups.len()), (30 * ms, 2));
    }

    #[test]
    fn so_many_of_a_queue_are_taken_and_the_others_stay_in_their_order() {
        let queue = QueueIndex(0);
        for (which, expected) in [
            // The first ones, those behind others, and some of both.
            ([0, 1, 2, 3], [0, 1, 2].as_slice()),
            ([4, 6, 8, 9], &[4, 6, 8]),
            ([0, 1, 5, 7], &[0, 1, 5]),
            ([9, 9, 9, 9], &[9]),
        ] {
            let mut wakeups = Wakeups::default();
            for from in 0..10 {
                wakeups.park(queue, parked(queue, 1, from, 0));
            }
            let froms = |list: Vec<Parked>| -> Vec<i64> {
                list.into_iter().map(|parked| parked.plan.from).collect()
            };
            let is_wanted = |parked: &Parked| which.contains(&parked.plan.from);
            assert_eq!(froms(wakeups.take_some(queue, 3, is_wanted)), expected);
            assert_eq!(wakeups.len(), 10 - expected.len());
            let others: Vec<_> = (0..10).filter(|from| !expected.contains(from)).collect();
            assert_eq!(froms(wakeups.take_if(queue, |_| true)), others);
            assert!(wakeups.parked.is_empty() && wakeups.of_connection.is_empty());
        }
    }

    #[test]
    fn a_connection_may_have_so_many_for_a_queue() {
        let mut wakeups = Wakeups::default();
        let queue = QueueIndex(0);
        for _ in 0..PARKED_OF_QUEUE_MAX {
            let one = parked(queue, 1, 0, 1);
            wakeups.room_for(queue, one.ticket).unwrap();
            wakeups.park(queue, one);
        }
        let one = parked(queue, 1, 0, 1);
        assert!(wakeups.room_for(queue, one.ticket).is_err());
        wakeups.room_for(QueueIndex(1), one.ticket).unwrap();
        wakeups
            .room_for(queue, parked(queue, 2, 0, 1).ticket)
            .unwrap();
        wakeups.take_first(queue);
        wakeups.room_for(queue, one.ticket).unwrap();
    }

    /// Whoever they are of: each has a place of its own here.
    #[test]
    fn a_shard_may_have_so_many_and_each_that_leaves_makes_room() {
        const MOST: usize = 12;
        let mut wakeups = Wakeups::with_room_for(MOST);
        let place = |at: usize| (QueueIndex(at as u32), at as u32, at as u64);
        let one = |at: usize| {
            let (queue, connection, deadline_ns) = place(at);
            parked(queue, connection, 0, deadline_ns)
        };
        for at in 0..MOST {
            wakeups.room_for(place(at).0, one(at).ticket).unwrap();
            wakeups.park(place(at).0, one(at));
        }
        let next = one(MOST);
        let leave = |wakeups: &mut Wakeups, what: &str, take: &dyn Fn(&mut Wakeups) -> bool| {
            let why = wakeups.room_for(next.plan.queue, next.ticket);
            assert_eq!(why, Err("12 pulls wait on this shard".to_owned()), "{what}");
            assert!(take(wakeups), "{what}");
            assert_eq!(wakeups.room_for(next.plan.queue, next.ticket), Ok(()));
            wakeups.park(next.plan.queue, one(MOST));
        };
        leave(&mut wakeups, "woken", &|wakeups| {
            wakeups.arrived(place(1).0, 0);
            wakeups.take_woken().is_some()
        });
        leave(&mut wakeups, "the first of its queue", &|wakeups| {
            wakeups.take_first(place(2).0).is_some()
        });
        leave(&mut wakeups, "due", &|wakeups| {
            wakeups.take_if(place(3).0, |_| true).len() == 1
        });
    }
}

//! Who may consume a queue in order: leases of 60 s, in memory only (P§2.6).

use std::collections::BTreeMap;

use super::{Reply, Shard};
use crate::command::{Answer, QueueName};

/// A lock that was not renewed for this long is free.
const LEASE_NS: u64 = 60_000_000_000;

#[derive(Debug)]
struct Held {
    client_id: String,
    renewed_ns: u64,
}

/// Locks of all groups.
#[derive(Debug, Default)]
pub struct Locks {
    table: BTreeMap<String, BTreeMap<QueueName, Held>>,
}

impl Locks {
    /// Takes or renews locks; answers those that the client holds now, as it named them.
    fn lock(
        &mut self,
        group: String,
        client_id: &str,
        queues: Vec<QueueName>,
        now_ns: u64,
    ) -> Vec<QueueName> {
        let held = self.table.entry(group).or_default();
        let mut granted = Vec::new();
        for queue in queues {
            let free = held.get(&queue).is_none_or(|lock| {
                lock.client_id == client_id || lock.renewed_ns + LEASE_NS <= now_ns
            });
            if free {
                let lock = Held {
                    client_id: client_id.to_owned(),
                    renewed_ns: now_ns,
                };
                held.insert(queue.clone(), lock);
                granted.push(queue);
            }
        }
        granted
    }

    fn unlock(&mut self, group: &str, client_id: &str, queues: &[QueueName]) {
        let Some(held) = self.table.get_mut(group) else {
            return;
        };
        for queue in queues {
            if held
                .get(queue)
                .is_some_and(|lock| lock.client_id == client_id)
            {
                held.remove(queue);
            }
        }
        if held.is_empty() {
            self.table.remove(group);
        }
    }

    /// Whether somebody of a group holds a lock that has not run out: the group consumes in order.
    #[must_use]
    pub fn is_any_held(&self, group: &str, now_ns: u64) -> bool {
        self.table.get(group).is_some_and(|held| {
            held.values()
                .any(|lock| now_ns < lock.renewed_ns + LEASE_NS)
        })
    }

    /// Forgets locks that have run out.
    pub fn sweep(&mut self, now_ns: u64) {
        for held in self.table.values_mut() {
            held.retain(|_, lock| now_ns < lock.renewed_ns + LEASE_NS);
        }
        self.table.retain(|_, held| !held.is_empty());
    }
}

impl Shard {
    pub(super) fn lock(
        &mut self,
        now_ns: u64,
        group: String,
        client_id: &str,
        queues: Vec<QueueName>,
    ) -> Reply {
        Reply::Now(Answer::Locked(
            self.locks.lock(group, client_id, queues, now_ns),
        ))
    }

    pub(super) fn unlock(&mut self, group: &str, client_id: &str, queues: &[QueueName]) -> Reply {
        self.locks.unlock(group, client_id, queues);
        Reply::Now(Answer::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> QueueName {
        QueueName {
            topic: "t".to_owned(),
            broker: "b".to_owned(),
            queue_id,
        }
    }

    #[test]
    fn a_queue_has_one_owner_until_its_lease_runs_out() {
        let mut locks = Locks::default();
        let group = || "g".to_owned();
        assert_eq!(
            locks.lock(group(), "a", vec![queue(0), queue(1)], 0).len(),
            2
        );
        assert_eq!(
            locks.lock(group(), "b", vec![queue(0), queue(2)], 1),
            [queue(2)]
        );
        assert_eq!(
            locks.lock(group(), "b", vec![queue(0)], LEASE_NS),
            [queue(0)]
        );
        locks.unlock("g", "a", &[queue(0)]);
        assert!(
            locks.is_any_held("g", LEASE_NS),
            "an old owner frees nothing"
        );
        locks.unlock("g", "b", &[queue(0), queue(2)]);
        assert!(
            !locks.is_any_held("g", LEASE_NS),
            "what is left has run out"
        );
    }
}

//! When to sync. A policy looks at numbers and answers; it does no I/O.

/// What a policy may look at.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    /// Bytes written but not yet durable.
    pub unsynced_bytes: u64,
    /// Producers that wait for durability.
    pub waiters: u64,
    /// Age of the oldest byte that is not durable.
    pub oldest_ns: u64,
}

/// What a policy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Sync in this turn.
    Sync,
    /// Nothing now; ask again after this long.
    AskAgain {
        /// Nanoseconds.
        after_ns: u64,
    },
}

/// Chooses the moment of the next sync. At most one sync is in flight per log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushPolicy {
    /// SYNC_FLUSH: sync as soon as anything is written; whoever comes meanwhile shares the next one.
    GroupCommit,
    /// SYNC_FLUSH without syncs: each group's write is complete only when it is durable (RWF_DSYNC);
    /// whoever comes meanwhile shares the next one.
    DurableWrites,
    /// ASYNC_FLUSH: sync by age or by size, whichever is first.
    Interval {
        /// Longest time a byte may stay volatile.
        age_ns_max: u64,
        /// Most bytes that may stay volatile.
        unsynced_bytes_max: u64,
    },
}

impl FlushPolicy {
    /// Pure: the same pressure gives the same answer.
    #[must_use]
    pub const fn decide(&self, pressure: Pressure) -> Decision {
        match *self {
            Self::GroupCommit if 0 < pressure.unsynced_bytes => Decision::Sync,
            Self::GroupCommit | Self::DurableWrites => Decision::AskAgain { after_ns: u64::MAX },
            Self::Interval {
                age_ns_max,
                unsynced_bytes_max,
            } => {
                if pressure.unsynced_bytes == 0 {
                    return Decision::AskAgain { after_ns: u64::MAX };
                }
                let too_old = age_ns_max <= pressure.oldest_ns;
                let too_much = unsynced_bytes_max <= pressure.unsynced_bytes;
                if too_old || too_much {
                    return Decision::Sync;
                }
                Decision::AskAgain {
                    after_ns: age_ns_max - pressure.oldest_ns,
                }
            }
        }
    }

    /// Whether producers wait for durability.
    #[must_use]
    pub const fn is_sync(&self) -> bool {
        matches!(self, Self::GroupCommit | Self::DurableWrites)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_decide() {
        let idle = Pressure {
            unsynced_bytes: 0,
            waiters: 0,
            oldest_ns: 0,
        };
        let fresh = Pressure {
            unsynced_bytes: 20,
            waiters: 1,
            oldest_ns: 1,
        };
        let aged = Pressure {
            unsynced_bytes: 20,
            waiters: 0,
            oldest_ns: 500,
        };
        let much = Pressure {
            unsynced_bytes: 4096,
            waiters: 0,
            oldest_ns: 0,
        };
        let interval = FlushPolicy::Interval {
            age_ns_max: 500,
            unsynced_bytes_max: 4096,
        };
        let cases = [
            (
                FlushPolicy::GroupCommit,
                idle,
                Decision::AskAgain { after_ns: u64::MAX },
            ),
            (FlushPolicy::GroupCommit, fresh, Decision::Sync),
            (interval, idle, Decision::AskAgain { after_ns: u64::MAX }),
            (interval, fresh, Decision::AskAgain { after_ns: 499 }),
            (interval, aged, Decision::Sync),
            (interval, much, Decision::Sync),
        ];
        for (policy, pressure, want) in cases {
            assert_eq!(policy.decide(pressure), want, "{pressure:?}");
        }
    }
}

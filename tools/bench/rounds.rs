//! Which lanes each slot of a connection sends to, and in which order.

/// Up to so many sequences every slot sends to every lane; above it each has lanes of its own.
const SEQUENCES_SHARED_MAX: usize = 1 << 20;

/// Which lanes a slot sends to, one after another. Slots of all threads are numbered through.
#[derive(Clone, Copy)]
pub struct Rounds {
    first: usize,
    slots: usize,
    lanes: usize,
    is_shared: bool,
}

impl Rounds {
    /// `first` is the number of this thread's slot 0, `slots` how many all threads have.
    pub fn new(first: usize, slots: usize, lanes: usize) -> Rounds {
        let is_shared = slots * lanes <= SEQUENCES_SHARED_MAX;
        Rounds {
            first,
            slots,
            lanes,
            is_shared,
        }
    }

    /// The number of this thread's slot 0.
    pub fn first(self) -> usize {
        self.first
    }

    /// Most lanes of one slot.
    pub fn width(self) -> usize {
        if self.is_shared {
            self.lanes
        } else {
            self.lanes.div_ceil(self.slots)
        }
    }

    pub fn lanes_of(self, slot: usize) -> usize {
        if self.is_shared {
            return self.lanes;
        }
        let slot = self.first + slot;
        self.lanes.saturating_sub(slot).div_ceil(self.slots).max(1)
    }

    pub fn lane(self, slot: usize, rank: usize) -> usize {
        if self.is_shared {
            rank
        } else {
            (self.first + slot + rank * self.slots) % self.lanes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_is_sent_to_by_some_slot_whether_lanes_are_shared_or_not() {
        for (slots, lanes) in [(4, 8), (3, 2), (512, 80_000), (2_000, 600), (2_000, 2_000)] {
            let mut is_sent_to = vec![false; lanes];
            let rounds = Rounds::new(0, slots, lanes);
            // The last third is another thread's.
            let cut = slots - slots / 3;
            let parts = [(rounds, cut), (Rounds::new(cut, slots, lanes), slots - cut)];
            for (rounds, count) in parts {
                for slot in 0..count {
                    assert!(rounds.lanes_of(slot) <= rounds.width());
                    for rank in 0..rounds.lanes_of(slot) {
                        is_sent_to[rounds.lane(slot, rank)] = true;
                    }
                }
            }
            assert!(is_sent_to.iter().all(|sent| *sent), "{slots} × {lanes}");
            assert!(slots * rounds.width() <= 1 << 21, "{slots} × {lanes}");
        }
    }
}

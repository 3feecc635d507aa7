//! How much of everything: as the goals want it, or just enough to see that it works.

use crate::bed;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    is_smoke: bool,
}

impl Scale {
    pub fn of(is_smoke: bool) -> Scale {
        Scale { is_smoke }
    }

    fn pick<T>(self, whole: T, smoke: T) -> T {
        if self.is_smoke { smoke } else { whole }
    }

    pub fn shrink(self, bed: &mut bed::Options) {
        bed.warm_peers_by(self.pick(180.0, 1.0));
        if self.is_smoke {
            bed.repetitions = 1;
            bed.duration = 1.0;
            bed.warmup = 0.3;
            bed.prepare = 2_000;
            bed.room_gib = 1;
        }
    }

    /// A generator and a server that share a CPU, built without optimization, still have to come
    /// to an end.
    pub fn shrink_load(self, kind: &str, words: &mut Vec<String>) {
        if !self.is_smoke {
            return;
        }
        let mut add = |option: &str, value: &str| {
            words.extend([option.to_owned(), value.to_owned()]);
        };
        add("--own-delay", "tell");
        add("--wait", "sleep");
        add("--duration", "1");
        if kind == "e2e" {
            add("--connections", "4");
            add("--rate", "300");
        }
    }

    pub fn floor_mib(self) -> Option<u64> {
        self.pick(None, Some(16))
    }

    /// Window of row 9, seconds.
    pub fn steady_s(self, told: f64) -> f64 {
        self.pick(told, 3.0)
    }

    pub fn steady_rate_most(self) -> f64 {
        self.pick(f64::INFINITY, 1_000.0)
    }

    /// A run of row 9 takes so long that two have to do.
    pub fn steady_repetitions(self, told: u32) -> u32 {
        told.min(2)
    }

    /// Size of a segment in row 9: small, so that there are many of them in ten minutes.
    pub fn segment_size(self) -> u64 {
        self.pick(256 << 20, 1 << 20)
    }

    /// Part of the memory that rows 12 and 13 work with.
    pub fn memory_mib(self, told: u64) -> u64 {
        self.pick(told, 64)
    }

    /// Rate of row 12's producer.
    pub fn drain_rate(self) -> u64 {
        self.pick(10_000, 200)
    }

    /// Row 12: seconds without and with the drain.
    pub fn drain_s(self) -> (u32, u32) {
        self.pick((20, 20), (1, 1))
    }

    /// Row 14: topics and connections.
    pub fn many(self) -> (u32, u32) {
        self.pick((10_000, 5_000), (20, 30))
    }

    /// Row 14: the log that is there when the broker is killed.
    pub fn log_bytes(self, told_gib: u64) -> u64 {
        self.pick(told_gib << 30, 8 << 20)
    }

    /// Row 14: whether the machine's page cache is emptied, which others feel.
    pub fn drops_caches(self) -> bool {
        !self.is_smoke
    }

    /// Row 14: how long a server that idles is left alone before it is looked at.
    pub fn idle_s(self) -> f64 {
        self.pick(5.0, 0.3)
    }

    /// Row 15: messages a second through all shards.
    pub fn shards_rate(self) -> u64 {
        self.pick(20_000, 400)
    }
}

//! What goes wrong in a history and how often; each seed draws its own mix.

use crate::base::Prng;

/// Chances out of 1,000 for each operation, unless said otherwise. All zero: a kind world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// A read, write or send moves fewer bytes than asked for.
    pub short: u64,
    /// A read answers EIO.
    pub read_error: u64,
    /// A write answers EIO; a front part of it may be in the page cache.
    pub write_error: u64,
    /// A sync answers EIO: pages may be lost though reads still show them.
    pub sync_error: u64,
    /// What a lane does breaks off between two of its steps with EIO.
    pub lane_error: u64,
    /// In each turn: some dirty sectors reach the disk by themselves.
    pub write_back: u64,
    /// A range is not in the page cache: sendfile and gather of it answer EAGAIN.
    pub cold: u64,
    /// A receive ends with ENOBUFS.
    pub no_buffers: u64,
    /// The slowest operation takes this long.
    pub latency_ns_max: u64,
    /// Bytes that the file system holds; what is beyond answers ENOSPC.
    pub capacity: Option<u64>,
}

impl Faults {
    /// Nothing goes wrong; operations still complete in any order.
    #[must_use]
    pub fn none() -> Self {
        Self {
            latency_ns_max: 1_000_000,
            ..Self::default()
        }
    }

    /// A mix, or none at all for a quarter of the seeds. A device that fails is rarer than one that is
    /// only slow, or most histories would be over before anything was appended.
    pub fn drawn(prng: &mut Prng) -> Self {
        let mut faults = Self::none();
        faults.latency_ns_max = 1_000 << prng.below(14);
        if prng.chance(1, 4) {
            return faults;
        }
        let mut draw = |often: u64, chance: u64| {
            if prng.chance(often, 100) {
                1 + prng.below(chance)
            } else {
                0
            }
        };
        faults.short = draw(30, 40);
        faults.read_error = draw(5, 3);
        faults.write_error = draw(15, 20);
        faults.sync_error = draw(25, 60);
        faults.lane_error = draw(15, 30);
        faults.write_back = draw(60, 300);
        faults.cold = draw(30, 300);
        faults.no_buffers = draw(30, 100);
        faults
    }
}

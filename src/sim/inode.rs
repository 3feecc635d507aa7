//! One simulated file: what reads show, what a power cut leaves, and the sectors in which they differ.

use std::collections::BTreeSet;

use crate::base::Prng;

/// What a disk writes as a whole, if it does not tear it.
pub(super) const SECTOR: usize = 512;

/// When a sector was last written, and which of these writes is on the disk.
#[derive(Debug, Clone, Copy, Default)]
struct Sector {
    live: u64,
    durable: u64,
    /// Takes room on the disk.
    allocated: bool,
}

/// What a sync that was pushed at some moment promises.
#[derive(Debug)]
pub(super) struct Flush {
    size: u64,
    sectors: Vec<(u32, u64, [u8; SECTOR])>,
}

#[derive(Debug, Default)]
pub(super) struct Inode {
    pub(super) size: u64,
    pub(super) modified_ms: u64,
    /// Both are padded with zeros to whole sectors, and of one length.
    live: Vec<u8>,
    disk: Vec<u8>,
    disk_size: u64,
    sectors: Vec<Sector>,
    /// Sectors that a sync must still write. One that a failed sync has lost is not among them.
    dirty: BTreeSet<u32>,
}

fn range(sector: u32) -> std::ops::Range<usize> {
    let at = sector as usize * SECTOR;
    at..at + SECTOR
}

impl Inode {
    pub(super) fn grow(&mut self, size: u64) {
        if self.size < size {
            self.size = size;
            let count = (size as usize).div_ceil(SECTOR).max(self.sectors.len());
            self.sectors.resize(count, Sector::default());
            self.live.resize(count * SECTOR, 0);
            self.disk.resize(count * SECTOR, 0);
        }
    }

    pub(super) fn read(&self, at: u64, len: usize) -> &[u8] {
        let start = at.min(self.size) as usize;
        let end = (start + len).min(self.size as usize);
        &self.live[start..end]
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8], version: u64) {
        if bytes.is_empty() {
            return;
        }
        self.grow(at + bytes.len() as u64);
        let at = at as usize;
        self.live[at..at + bytes.len()].copy_from_slice(bytes);
        for sector in at / SECTOR..=(at + bytes.len() - 1) / SECTOR {
            self.sectors[sector].live = version;
            self.sectors[sector].allocated = true;
            self.dirty.insert(sector as u32);
        }
    }

    /// Sectors that a write would have to take from the free ones, in order, with the byte position
    /// at which each begins.
    pub(super) fn unallocated(&self, at: u64, len: usize) -> impl Iterator<Item = u64> + '_ {
        let last = (at as usize + len.max(1) - 1) / SECTOR;
        (at as usize / SECTOR..=last)
            .filter(|sector| !self.sectors.get(*sector).is_some_and(|it| it.allocated))
            .map(|sector| (sector * SECTOR) as u64)
    }

    pub(super) fn allocated(&self) -> u64 {
        self.sectors.iter().filter(|it| it.allocated).count() as u64
    }

    pub(super) fn dirty(&self) -> Vec<u32> {
        self.dirty.iter().copied().collect()
    }

    /// What a sync covers that is pushed now.
    pub(super) fn flush(&self) -> Flush {
        let copy = |sector: &u32| {
            let mut bytes = [0; SECTOR];
            bytes.copy_from_slice(&self.live[range(*sector)]);
            (*sector, self.sectors[*sector as usize].live, bytes)
        };
        Flush {
            size: self.size,
            sectors: self.dirty.iter().map(copy).collect(),
        }
    }

    /// The disk has one sector as it was when the sync was pushed; what was written since is still dirty.
    fn settle(&mut self, sector: u32, version: u64, bytes: &[u8; SECTOR]) {
        let state = &mut self.sectors[sector as usize];
        if state.durable < version {
            state.durable = version;
            self.disk[range(sector)].copy_from_slice(bytes);
        }
        if state.live == state.durable {
            self.dirty.remove(&sector);
        }
    }

    pub(super) fn flushed(&mut self, flush: &Flush) {
        self.disk_size = self.disk_size.max(flush.size);
        for (sector, version, bytes) in &flush.sectors {
            self.settle(*sector, *version, bytes);
        }
    }

    /// A sync that failed, or one that the cut came before: some of it is done. After a failure the
    /// kernel takes pages for clean that never reached the disk; reads still show them.
    pub(super) fn flushed_partly(&mut self, flush: &Flush, may_lose: bool, prng: &mut Prng) {
        let lossy = may_lose && prng.chance(3, 4);
        if prng.chance(1, 2) {
            self.disk_size = self.disk_size.max(flush.size);
        }
        for (sector, version, bytes) in &flush.sectors {
            match prng.below(3) {
                0 => self.settle(*sector, *version, bytes),
                _ if lossy => {
                    self.dirty.remove(sector);
                }
                _ => (),
            }
        }
    }

    /// One sector reaches the disk by itself.
    pub(super) fn write_back(&mut self, sector: u32) {
        let mut bytes = [0; SECTOR];
        bytes.copy_from_slice(&self.live[range(sector)]);
        let version = self.sectors[sector as usize].live;
        self.settle(sector, version, &bytes);
    }

    /// The power is gone: each dirty sector is there or not, `keep` of 4 times, or torn.
    pub(super) fn crash(&mut self, keep: u64, prng: &mut Prng) {
        for sector in std::mem::take(&mut self.dirty) {
            let span = range(sector);
            if prng.chance(1, 16) {
                let cut = span.start + 1 + prng.below(SECTOR as u64 - 1) as usize;
                let part = if prng.chance(3, 4) {
                    span.start..cut
                } else {
                    cut..span.end
                };
                self.disk[part.clone()].copy_from_slice(&self.live[part]);
            } else if prng.chance(keep, 4) {
                self.disk[span.clone()].copy_from_slice(&self.live[span]);
            }
        }
        if self.size != self.disk_size && !prng.chance(keep, 4) {
            self.size = self.disk_size;
            let end = self.size as usize;
            self.disk[end..].fill(0);
        }
        self.disk_size = self.size;
        self.live.copy_from_slice(&self.disk);
        for sector in &mut self.sectors {
            sector.durable = sector.live;
        }
    }

    /// A bit changes on the disk and, as nobody holds it in memory, for readers.
    pub(super) fn flip(&mut self, at: u64, bit: u32) {
        if at < self.size {
            self.live[at as usize] ^= 1 << bit;
            self.disk[at as usize] ^= 1 << bit;
        }
    }
}

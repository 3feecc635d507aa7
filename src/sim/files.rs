//! How operations on files complete, fail, and break off.

use super::disk::Steps;
use super::{Flight, Promise, Sim};
use crate::io::{Errno, Op, PAGE_SIZE, Pages, Payload, Route, Source};

type Answer = (Result<u32, Errno>, Payload);

impl Sim {
    pub(super) fn run_file(&mut self, op: Op, inodes: &[usize], promise: &Promise) -> Answer {
        match op {
            Op::Read { at, into, .. } => self.read(inodes[0], at, into),
            Op::Write {
                at,
                from,
                durable,
                route,
                ..
            } => self.write(inodes[0], at, from, (durable, route)),
            Op::ReadCold { at, into, .. } => self.read_cold(inodes[0], at, into),
            Op::Sync { .. } => (self.sync(inodes, promise), Payload::None),
            Op::SyncPaths { .. } => (self.sync(inodes, promise), Payload::None),
            Op::WriteBack { at, len, .. } => {
                self.write_back(inodes[0], at, len);
                (Ok(0), Payload::None)
            }
            Op::Release { .. } | Op::ClosePipe { .. } => (Ok(0), Payload::None),
            Op::Get { path, at, len } => {
                if self.chance(self.faults.read_error) {
                    return (Err(Errno::EIO), Payload::None);
                }
                match self.disk.get(&path, at, len) {
                    Ok(bytes) => (Ok(bytes.len() as u32), Payload::Buffer(bytes)),
                    Err(errno) => (Err(errno), Payload::None),
                }
            }
            Op::List { path } => {
                let names = self.disk.list(&path);
                (Ok(names.len() as u32), Payload::Names(names))
            }
            Op::Space { .. } => (Ok(0), Payload::Space(self.disk.space())),
            op => {
                let steps = if self.chance(self.faults.lane_error) {
                    Steps(Some(self.prng.below(8)))
                } else {
                    Steps(None)
                };
                self.run_steps(op, inodes, steps)
            }
        }
    }

    /// What a lane does in several steps.
    fn run_steps(&mut self, op: Op, inodes: &[usize], steps: Steps) -> Answer {
        let done = match op {
            Op::Open { path, mode } => {
                return match self.disk.open(&path, mode, steps) {
                    Ok((inode, size)) => {
                        let file = self.opened(inode, mode);
                        (Ok(0), Payload::Opened(file, size))
                    }
                    Err(errno) => (Err(errno), Payload::None),
                };
            }
            Op::Prepare { at, len, .. } => self.disk.prepare(inodes[0], at, len, steps),
            Op::Put { path, size, pieces } => self.disk.put(&path, size, &pieces, steps),
            Op::Replace {
                path,
                content,
                backup,
            } => {
                let bytes = content.iter().flat_map(|piece| piece.iter().copied());
                let bytes: Vec<u8> = bytes.collect();
                self.disk.replace(&path, &bytes, backup.as_deref(), steps)
            }
            Op::Remove { path } => self.disk.remove(&path, steps),
            other => unreachable!("{other:?} has no steps"),
        };
        (done.map(|()| 0), Payload::None)
    }

    fn read(&mut self, inode: usize, at: u64, mut into: Vec<u8>) -> Answer {
        if self.chance(self.faults.read_error) {
            return (Err(Errno::EIO), Payload::Buffer(into));
        }
        let have = self.disk.inode(inode).read(at, into.len()).len();
        let count = self.count(have);
        into[..count].copy_from_slice(self.disk.inode(inode).read(at, count));
        (Ok(count as u32), Payload::Buffer(into))
    }

    fn read_cold(&mut self, inode: usize, at: u64, mut into: Pages) -> Answer {
        let refused = if !at.is_multiple_of(PAGE_SIZE) {
            Some(Errno::EINVAL)
        } else if self.chance(self.faults.read_error) {
            Some(Errno::EIO)
        } else {
            None
        };
        if let Some(errno) = refused {
            return (Err(errno), Payload::Pages(into));
        }
        let have = self.disk.inode(inode).read(at, into.bytes().len()).len();
        let count = self.count(have);
        into.bytes_mut()[..count].copy_from_slice(self.disk.inode(inode).read(at, count));
        (Ok(count as u32), Payload::Pages(into))
    }

    fn write(
        &mut self,
        inode: usize,
        at: u64,
        source: Source,
        (durable, route): (bool, Route),
    ) -> Answer {
        let (from, buffer) = (source.to_vec(), source.into_buffer());
        let whole = at.is_multiple_of(PAGE_SIZE) && (from.len() as u64).is_multiple_of(PAGE_SIZE);
        if route == Route::Direct && !whole {
            return (Err(Errno::EINVAL), Payload::Buffer(buffer));
        }
        let count = self.count(from.len());
        if self.chance(self.faults.write_error) {
            let part = self.prng.below(from.len() as u64 + 1) as usize;
            let _ = self.disk.write(inode, at, &from[..part]);
            return (Err(Errno::EIO), Payload::Buffer(buffer));
        }
        let result = self.disk.write(inode, at, &from[..count]);
        if durable && result.is_ok() {
            let fails = self.chance(self.faults.sync_error);
            let inode = self.disk.inode_mut(inode);
            let flush = inode.flush();
            if fails {
                inode.flushed_partly(&flush, true, &mut self.prng);
                return (Err(Errno::EIO), Payload::Buffer(buffer));
            }
            inode.flushed(&flush);
        }
        (result.map(|count| count as u32), Payload::Buffer(buffer))
    }

    fn sync(&mut self, inodes: &[usize], promise: &Promise) -> Result<u32, Errno> {
        let fails = self.chance(self.faults.sync_error);
        match promise {
            Promise::File(flush) if fails => {
                let inode = self.disk.inode_mut(inodes[0]);
                inode.flushed_partly(flush, true, &mut self.prng);
            }
            Promise::Paths(flush) if fails => {
                self.disk.paths_flushed_partly(flush, true, &mut self.prng);
            }
            Promise::File(flush) => self.disk.inode_mut(inodes[0]).flushed(flush),
            Promise::Paths(flush) => self.disk.paths_flushed(flush),
            Promise::None => unreachable!("a sync promises something"),
        }
        if fails { Err(Errno::EIO) } else { Ok(0) }
    }

    fn write_back(&mut self, inode: usize, at: u64, len: u64) {
        let sectors = at / 512..(at + len).div_ceil(512);
        for sector in self.disk.inode(inode).dirty() {
            if sectors.contains(&u64::from(sector)) && self.prng.chance(1, 2) {
                self.disk.inode_mut(inode).write_back(sector);
            }
        }
    }

    /// The process dies with this in flight: it is done, partly done, or was never begun.
    pub(super) fn break_off(&mut self, flight: &mut Flight) {
        let op = std::mem::replace(&mut flight.op, Op::Bell);
        match (op, &flight.promise) {
            (Op::Write { at, from, .. }, _) => {
                let from = from.to_vec();
                let part = match self.prng.below(3) {
                    0 => from.len(),
                    1 => self.prng.below(from.len() as u64 + 1) as usize,
                    _ => 0,
                };
                let _ = self.disk.write(flight.inodes[0], at, &from[..part]);
            }
            (_, Promise::File(flush)) => {
                let inode = self.disk.inode_mut(flight.inodes[0]);
                inode.flushed_partly(flush, false, &mut self.prng);
            }
            (_, Promise::Paths(flush)) => {
                self.disk.paths_flushed_partly(flush, false, &mut self.prng);
            }
            (
                op @ (Op::Open { .. }
                | Op::Prepare { .. }
                | Op::Put { .. }
                | Op::Replace { .. }
                | Op::Remove { .. }),
                _,
            ) => {
                let steps = Steps(Some(self.prng.below(10)));
                let _ = self.run_steps(op, &flight.inodes, steps);
            }
            _ => (),
        }
    }
}

//! The simulated file system: names, what of them a power cut leaves, and what the lanes do in steps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::inode::{Flush, Inode, SECTOR};
use crate::base::Prng;
use crate::io::{Errno, Name, OpenMode, Space};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Folder,
    File(usize),
}

/// How many steps of its work a lane gets to do: all, or so many before it breaks off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps(pub(super) Option<u64>);

impl Steps {
    fn take(&mut self) -> Result<(), Errno> {
        match &mut self.0 {
            None => Ok(()),
            Some(0) => Err(Errno::EIO),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

/// What a [`crate::io::Op::SyncPaths`] promises that was pushed at some moment.
#[derive(Debug)]
pub(super) struct PathsFlush {
    files: Vec<(usize, Flush)>,
    names: Vec<(PathBuf, Entry)>,
    folders: Vec<PathBuf>,
}

/// Making a folder is one step with making it durable: stores make their folders once, at their start.
#[derive(Debug, Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Entry>,
    disk_names: BTreeMap<PathBuf, Entry>,
    versions: u64,
    pub(super) capacity: Option<u64>,
    used: u64,
    pub(super) now_ms: u64,
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Disk {
    pub(super) fn inode(&self, index: usize) -> &Inode {
        &self.inodes[index]
    }

    pub(super) fn inode_mut(&mut self, index: usize) -> &mut Inode {
        &mut self.inodes[index]
    }

    pub(super) fn entry(&self, path: &Path) -> Option<Entry> {
        if path.parent().is_none() {
            return Some(Entry::Folder);
        }
        self.names.get(path).copied()
    }

    fn file(&self, path: &Path) -> Result<usize, Errno> {
        match self.entry(path) {
            Some(Entry::File(index)) => Ok(index),
            Some(Entry::Folder) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn make_folders(&mut self, folder: &Path) -> Result<(), Errno> {
        match self.entry(folder) {
            Some(Entry::Folder) => return Ok(()),
            Some(Entry::File(_)) => return Err(Errno::ENOTDIR),
            None => self.make_folders(parent(folder))?,
        }
        self.names.insert(folder.to_owned(), Entry::Folder);
        self.disk_names.insert(folder.to_owned(), Entry::Folder);
        Ok(())
    }

    fn make_file(&mut self, path: &Path) -> usize {
        let mut inode = Inode::default();
        inode.modified_ms = self.now_ms;
        self.inodes.push(inode);
        let index = self.inodes.len() - 1;
        if let Some(Entry::File(old)) = self.names.insert(path.to_owned(), Entry::File(index)) {
            self.used -= self.inodes[old].allocated();
        }
        index
    }

    /// Writes as much as there is room for and answers how much that was.
    pub(super) fn write(&mut self, index: usize, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let free = self.capacity.map_or(u64::MAX, |capacity| {
            (capacity / SECTOR as u64).saturating_sub(self.used)
        });
        let inode = &mut self.inodes[index];
        let beyond = inode
            .unallocated(at, bytes.len())
            .nth(usize::try_from(free).unwrap_or(usize::MAX));
        let count = match beyond {
            Some(first) if first <= at && !bytes.is_empty() => return Err(Errno::ENOSPC),
            Some(first) => (first - at) as usize,
            None => bytes.len(),
        };
        self.used += inode.unallocated(at, count).count() as u64;
        self.versions += 1;
        inode.write(at, &bytes[..count], self.versions);
        inode.modified_ms = self.now_ms;
        Ok(count)
    }

    fn write_all(&mut self, index: usize, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        match self.write(index, at, bytes)? {
            count if count == bytes.len() => Ok(()),
            _ => Err(Errno::ENOSPC),
        }
    }

    fn sync_file(&mut self, index: usize) {
        let flush = self.inodes[index].flush();
        self.inodes[index].flushed(&flush);
    }

    fn sync_folder(&mut self, folder: &Path) {
        let below = |path: &Path| parent(path) == folder;
        self.disk_names
            .retain(|path, _| !below(path) || self.names.contains_key(path));
        for (path, entry) in self.names.iter().filter(|(path, _)| below(path)) {
            self.disk_names.insert(path.clone(), *entry);
        }
    }

    pub(super) fn open(
        &mut self,
        path: &Path,
        mode: OpenMode,
        mut steps: Steps,
    ) -> Result<(usize, u64), Errno> {
        let index = match mode {
            OpenMode::Read | OpenMode::Write => {
                steps.take()?;
                self.file(path)?
            }
            OpenMode::Create { size } => {
                self.make_folders(parent(path))?;
                steps.take()?;
                let index = match self.file(path) {
                    Err(Errno::ENOENT) => self.make_file(path),
                    other => other?,
                };
                steps.take()?;
                self.inodes[index].grow(size);
                steps.take()?;
                self.sync_file(index);
                steps.take()?;
                self.sync_folder(parent(path));
                index
            }
        };
        Ok((index, self.inodes[index].size))
    }

    pub(super) fn list(&self, folder: &Path) -> Vec<Name> {
        let below = self
            .names
            .iter()
            .filter(|(path, _)| parent(path) == folder && !path.as_os_str().is_empty());
        let mut names: Vec<Name> = below
            .filter_map(|(path, entry)| {
                let name = path.file_name()?.to_str()?.to_owned();
                let (size, is_folder, modified_ms) = match entry {
                    Entry::Folder => (0, true, 0),
                    Entry::File(index) => {
                        let inode = &self.inodes[*index];
                        (inode.size, false, inode.modified_ms)
                    }
                };
                Some(Name {
                    name,
                    size,
                    is_folder,
                    modified_ms,
                })
            })
            .collect();
        names.sort();
        names
    }

    pub(super) fn get(&self, path: &Path, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let inode = &self.inodes[self.file(path)?];
        let len = len.min(inode.size) as usize;
        Ok(inode.read(at, len).to_vec())
    }

    pub(super) fn put(
        &mut self,
        path: &Path,
        size: u64,
        pieces: &[(u64, Vec<u8>)],
        mut steps: Steps,
    ) -> Result<(), Errno> {
        steps.take()?;
        self.make_folders(parent(path))?;
        let index = match self.file(path) {
            Err(Errno::ENOENT) => self.make_file(path),
            other => other?,
        };
        steps.take()?;
        self.inodes[index].grow(size);
        for (at, bytes) in pieces {
            steps.take()?;
            self.write_all(index, *at, bytes)?;
        }
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        path: &Path,
        bytes: &[u8],
        backup: Option<&Path>,
        mut steps: Steps,
    ) -> Result<(), Errno> {
        self.make_folders(parent(path))?;
        steps.take()?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let index = self.make_file(&temporary);
        steps.take()?;
        self.write_all(index, 0, bytes)?;
        steps.take()?;
        self.sync_file(index);
        if let Some(backup) = backup
            && let Some(entry) = self.entry(path)
        {
            steps.take()?;
            self.names.remove(backup);
            steps.take()?;
            self.names.insert(backup.to_owned(), entry);
        }
        steps.take()?;
        self.names.remove(&temporary);
        self.names.insert(path.to_owned(), Entry::File(index));
        steps.take()?;
        self.sync_folder(parent(path));
        self.count_used();
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, mut steps: Steps) -> Result<(), Errno> {
        let inside: Vec<PathBuf> = self
            .names
            .keys()
            .rev()
            .filter(|name| name.starts_with(path))
            .cloned()
            .collect();
        for name in &inside {
            steps.take()?;
            self.names.remove(name);
        }
        self.count_used();
        if !inside.is_empty() {
            steps.take()?;
            self.sync_folder(parent(path));
        }
        Ok(())
    }

    pub(super) fn prepare(
        &mut self,
        index: usize,
        at: u64,
        len: u64,
        mut steps: Steps,
    ) -> Result<(), Errno> {
        let piece = (len / 4).max(SECTOR as u64);
        let zeros = vec![0; piece.min(len) as usize];
        let mut next = at;
        while next < at + len {
            steps.take()?;
            let count = piece.min(at + len - next);
            self.write_all(index, next, &zeros[..count as usize])?;
            next += count;
        }
        steps.take()?;
        self.sync_file(index);
        Ok(())
    }

    pub(super) fn space(&self) -> Space {
        let total = self.capacity.unwrap_or(1 << 40);
        Space {
            total,
            available: total.saturating_sub(self.used * SECTOR as u64),
        }
    }

    fn count_used(&mut self) {
        let mut files: Vec<usize> = self.names.values().filter_map(file_of).collect();
        files.sort_unstable();
        files.dedup();
        self.used = files
            .into_iter()
            .map(|index| self.inodes[index].allocated())
            .sum();
    }

    pub(super) fn paths_flush(&self, paths: &BTreeSet<PathBuf>) -> PathsFlush {
        let files: Vec<usize> = paths
            .iter()
            .filter_map(|path| self.file(path).ok())
            .collect();
        let there = paths.iter().filter(|path| self.entry(path).is_some());
        let mut folders: Vec<PathBuf> = there.map(|path| parent(path).to_owned()).collect();
        folders.sort();
        folders.dedup();
        let names = self
            .names
            .iter()
            .filter(|(path, _)| folders.iter().any(|folder| parent(path) == folder));
        PathsFlush {
            names: names.map(|(path, entry)| (path.clone(), *entry)).collect(),
            files: files
                .into_iter()
                .map(|index| (index, self.inodes[index].flush()))
                .collect(),
            folders,
        }
    }

    pub(super) fn paths_flushed(&mut self, flush: &PathsFlush) {
        for (index, flush) in &flush.files {
            self.inodes[*index].flushed(flush);
        }
        // Names that changed since the push wait for the next sync.
        for (path, entry) in &flush.names {
            if self.names.get(path) == Some(entry) {
                self.disk_names.insert(path.clone(), *entry);
            }
        }
        let names = &self.names;
        self.disk_names.retain(|path, _| {
            let covered = flush.folders.iter().any(|folder| parent(path) == folder);
            !covered || names.contains_key(path)
        });
    }

    pub(super) fn paths_flushed_partly(&mut self, flush: &PathsFlush, lose: bool, prng: &mut Prng) {
        for (index, flush) in &flush.files {
            self.inodes[*index].flushed_partly(flush, lose, prng);
        }
    }

    /// Some dirty sectors of all files reach the disk.
    pub(super) fn write_back(&mut self, prng: &mut Prng) {
        for inode in &mut self.inodes {
            for sector in inode.dirty() {
                if prng.chance(1, 4) {
                    inode.write_back(sector);
                }
            }
        }
    }

    /// The power is gone: what was not synced survives or not.
    pub(super) fn crash(&mut self, prng: &mut Prng) {
        let keep = [0, 2, 2, 4][prng.below(4) as usize];
        for inode in &mut self.inodes {
            inode.crash(keep, prng);
        }
        let mut paths: Vec<PathBuf> = self.names.keys().cloned().collect();
        paths.extend(self.disk_names.keys().cloned());
        paths.sort();
        paths.dedup();
        let mut after = BTreeMap::new();
        for path in paths {
            let (live, disk) = (self.names.get(&path), self.disk_names.get(&path));
            let entry = if live != disk && prng.chance(keep, 4) {
                live
            } else {
                disk
            };
            // A parent comes before what is in it.
            let above = parent(&path);
            if let Some(entry) = entry
                && (above.parent().is_none() || after.contains_key(above))
            {
                after.insert(path.clone(), *entry);
            }
        }
        self.names.clone_from(&after);
        self.disk_names = after;
        self.count_used();
    }

    pub(super) fn flip(&mut self, path: &Path, at: u64, bit: u32) {
        if let Ok(index) = self.file(path) {
            self.inodes[index].flip(at, bit);
        }
    }
}

const fn file_of(entry: &Entry) -> Option<usize> {
    match entry {
        Entry::Folder => None,
        Entry::File(index) => Some(*index),
    }
}

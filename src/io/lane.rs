//! Ordinary threads for what can only block: opening, listing, replacing, zero-filling, unlinking.
//! Quick work has a thread of its own, so that a topic's settings never wait behind a zero-fill; so have reads of units for
//! who is behind, so that no checkpoint waits for a cold disk, and what frees blocks, so that no producer waits for room
//! behind gigabytes that go (kernel-notes/preallocation.md). Names go where units are written: nothing that was written
//! before a name went makes it again.

mod room;

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use nix::errno::Errno;

use super::bell::Bell;
use super::{Content, Fill, Name, OpenMode, Space};
pub(super) use room::prepare;

/// Files above this number are made durable by one syncfs instead of one fdatasync each.
const SYNC_ONE_BY_ONE_MAX: usize = 64;

/// Work for a lane.
#[derive(Debug)]
pub(super) enum Work {
    Open {
        path: PathBuf,
        mode: OpenMode,
    },
    List {
        path: PathBuf,
    },
    Get {
        path: PathBuf,
        at: u64,
        len: u64,
    },
    Put {
        path: PathBuf,
        size: u64,
        pieces: Vec<(u64, Vec<u8>)>,
    },
    SyncPaths {
        paths: BTreeSet<PathBuf>,
    },
    Replace {
        path: PathBuf,
        content: Content,
        backup: Option<PathBuf>,
    },
    Remove {
        path: PathBuf,
    },
    Space {
        path: PathBuf,
    },
    Prepare {
        file: Arc<File>,
        at: u64,
        len: u64,
        fill: Fill,
    },
}

/// What a lane brings back.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    File(File, u64),
    Bytes(Vec<u8>),
    Names(Vec<Name>),
    Space(Space),
}

pub(super) type Finished = (u64, Result<Outcome, Errno>);

enum Job {
    Work {
        key: u64,
        work: Work,
        inbox: Inbox,
    },
    /// What takes a while to be dropped. Nobody waits for it.
    Drop(Box<dyn Any + Send>),
}

impl Job {
    /// Blocks are freed by a lane of its own, behind the names that went before. How full a disk is, is seen behind
    /// that: who removes because it is too full should not count twice what is on its way.
    const fn is_for_freeing(&self) -> bool {
        matches!(
            self,
            Self::Drop(_)
                | Self::Work {
                    work: Work::Space { .. },
                    ..
                }
        )
    }
}

/// Where finished work of one ring arrives.
#[derive(Clone)]
pub(super) struct Inbox {
    finished: Arc<Mutex<Vec<Finished>>>,
    bell: Bell,
}

impl Inbox {
    pub(super) fn new(bell: Bell) -> Self {
        Self {
            finished: Arc::default(),
            bell,
        }
    }

    pub(super) fn take(&self, into: &mut Vec<Finished>) {
        into.append(&mut self.finished.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The lanes of a process, shared by its rings.
#[derive(Clone)]
pub struct Lanes {
    quick: Sender<Job>,
    reads: Sender<Job>,
    /// Hands on to the freeing lane what is for that.
    bulk: Sender<Job>,
}

impl Lanes {
    /// Starts the threads; they end when the last ring that knows them is gone.
    pub fn start() -> std::io::Result<Self> {
        let freeing = spawn("lane-freeing", None)?;
        Ok(Self {
            quick: spawn("lane-quick", None)?,
            reads: spawn("lane-reads", None)?,
            bulk: spawn("lane-bulk", Some(freeing))?,
        })
    }

    pub(super) fn send(&self, key: u64, work: Work, inbox: &Inbox) {
        let lane = match work {
            Work::Prepare { .. }
            | Work::Put { .. }
            | Work::SyncPaths { .. }
            | Work::Remove { .. }
            | Work::Space { .. } => &self.bulk,
            Work::Get { .. } => &self.reads,
            _ => &self.quick,
        };
        let sent = lane.send(Job::Work {
            key,
            work,
            inbox: inbox.clone(),
        });
        assert!(sent.is_ok(), "a lane lives as long as its senders");
    }

    /// Drops something elsewhere, behind what is to be removed: to unmap and close a file of a GiB takes milliseconds.
    pub(super) fn drop_elsewhere(&self, thing: impl Any + Send) {
        let sent = self.bulk.send(Job::Drop(Box::new(thing)));
        assert!(sent.is_ok(), "a lane lives as long as its senders");
    }
}

fn spawn(name: &str, freeing: Option<Sender<Job>>) -> std::io::Result<Sender<Job>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(&receiver, freeing.as_ref()))?;
    Ok(sender)
}

fn run(jobs: &Receiver<Job>, freeing: Option<&Sender<Job>>) {
    while let Ok(job) = jobs.recv() {
        if let Some(freeing) = freeing.filter(|_| job.is_for_freeing()) {
            let sent = freeing.send(job);
            assert!(sent.is_ok(), "a lane lives as long as its senders");
            continue;
        }
        let (key, work, inbox) = match job {
            Job::Work { key, work, inbox } => (key, work, inbox),
            Job::Drop(thing) => {
                drop(thing);
                continue;
            }
        };
        let outcome = work
            .run()
            .map_err(|err| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
        inbox
            .finished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((key, outcome));
        inbox.bell.ring_internal();
    }
}

impl Work {
    fn run(self) -> std::io::Result<Outcome> {
        match self {
            Self::Open { path, mode } => open(&path, mode),
            Self::List { path } => list(&path).map(Outcome::Names),
            Self::Get { path, at, len } => get(&path, at, len).map(Outcome::Bytes),
            Self::Put { path, size, pieces } => put(&path, size, &pieces),
            Self::SyncPaths { paths } => sync_paths(&paths),
            Self::Replace {
                path,
                content,
                backup,
            } => replace(&path, &content, backup.as_deref()),
            Self::Remove { path } => remove(&path),
            Self::Space { path } => space(&path),
            Self::Prepare {
                file,
                at,
                len,
                fill,
            } => prepare(&file, at, len, fill),
        }
    }
}

fn open(path: &Path, mode: OpenMode) -> std::io::Result<Outcome> {
    let mut options = OpenOptions::new();
    options.read(true);
    let file = match mode {
        OpenMode::Read => options.open(path)?,
        OpenMode::Write => options.write(true).open(path)?,
        OpenMode::Create { size } => {
            let folder = parent(path);
            create_folders(folder)?;
            let file = options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o640)
                .open(path)?;
            if file.metadata()?.len() < size {
                file.set_len(size)?;
            }
            // Also of a file that was there: a process that was killed may have made it and not come
            // to this, and no later sync of the file makes its name durable.
            file.sync_all()?;
            sync_folder(folder)?;
            file
        }
    };
    let size = file.metadata()?.len();
    Ok(Outcome::File(file, size))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes missing folders, each durable in the one above it.
pub(super) fn create_folders(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder);
    create_folders(above)?;
    match fs::create_dir(folder) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(err),
        Ok(()) => sync_folder(above),
    }
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn list(path: &Path) -> std::io::Result<Vec<Name>> {
    let entries = match fs::read_dir(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let meta = entry.metadata()?;
        let modified = meta
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        names.push(Name {
            name,
            size: if meta.is_dir() { 0 } else { meta.len() },
            is_folder: meta.is_dir(),
            modified_ms: modified.map_or(0, |since| since.as_millis() as u64),
        });
    }
    names.sort();
    Ok(names)
}

fn get(path: &Path, at: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let len = len.min(size.saturating_sub(at)) as usize;
    let mut bytes = vec![0; len];
    let mut count = 0;
    while count < len {
        match file.read_at(&mut bytes[count..], at + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => (),
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(count);
    Ok(bytes)
}

fn put(path: &Path, size: u64, pieces: &[(u64, Vec<u8>)]) -> std::io::Result<Outcome> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)
    };
    let file = match open() {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            create_folders(parent(path))?;
            open()?
        }
        other => other?,
    };
    if file.metadata()?.len() < size {
        file.set_len(size)?;
    }
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at)?;
    }
    Ok(Outcome::Done)
}

fn sync_paths(paths: &BTreeSet<PathBuf>) -> std::io::Result<Outcome> {
    let mut folders: Vec<&Path> = Vec::new();
    let mut are_synced = false;
    if SYNC_ONE_BY_ONE_MAX < paths.len()
        && let Some(file) = paths.iter().find_map(|path| File::open(path).ok())
    {
        nix::unistd::syncfs(&file)?;
        are_synced = true;
    }
    for path in paths.iter().filter(|_| !are_synced) {
        match File::open(path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?.sync_data()?,
        }
        if folders.last() != Some(&parent(path)) {
            folders.push(parent(path));
        }
    }
    folders.sort_unstable();
    folders.dedup();
    folders.into_iter().try_for_each(sync_folder)?;
    Ok(Outcome::Done)
}

pub(super) fn replace(
    path: &Path,
    content: &[Arc<Vec<u8>>],
    backup: Option<&Path>,
) -> std::io::Result<Outcome> {
    let folder = parent(path);
    create_folders(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&temporary)?;
    write_pieces(&mut file, content)?;
    file.sync_all()?;
    drop(file);
    if let Some(backup) = backup
        && path.exists()
    {
        // A link and not a rename: at no time may there be neither of the two names.
        match fs::remove_file(backup) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
            _ => fs::hard_link(path, backup)?,
        }
    }
    fs::rename(&temporary, path)?;
    sync_folder(folder)?;
    Ok(Outcome::Done)
}

/// Slices in one call, as Linux has it (UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// As many pieces with one call as the kernel takes.
fn write_pieces(file: &mut File, content: &[Arc<Vec<u8>>]) -> std::io::Result<()> {
    for pieces in content.chunks(PIECES_MAX) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        // Empty ones at the end are passed over with the last that is not.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<Outcome> {
    let removed = match fs::symlink_metadata(path) {
        Err(err) => Err(err),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Outcome::Done),
        Err(err) => Err(err),
        Ok(()) => {
            sync_folder(parent(path))?;
            Ok(Outcome::Done)
        }
    }
}

fn space(path: &Path) -> std::io::Result<Outcome> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let block = stat.fragment_size();
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    let available = stat.blocks_available() * block;
    Ok(Outcome::Space(Space {
        total: used * block + available,
        available,
    }))
}

/// Reads a small file at start, when nothing is served yet; `None` if there is none.
pub fn read_small(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => {
            other?.read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
    }
}

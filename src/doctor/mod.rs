//! `corelane doctor`: what this host offers, what of it is in the way, and the command that helps.
//!
//! Each family of checks has a file. In each, what was read or measured (by [`crate::io`]) becomes plain
//! values first, and a pure function judges those; so every verdict is tested without the machine.

mod cpus;
mod disk;
mod interrupts;
mod kernel;
mod limits;
mod measured;
mod memory;
mod network;
mod reads;
mod report;
mod shards;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::io::{self, SyncWay, Tree, TrialError};

pub use report::{Entry, Report, Verdict};
pub use shards::Shards;

/// The disk is measured for about so long.
const BUDGET: Duration = Duration::from_millis(2500);

/// A disk that does not answer within this is given up.
const PATIENCE: Duration = Duration::from_secs(8);

/// Nothing is tried where less is free: the few MiB of the trial may be what a broker needs there.
const SPARE: u64 = 64 << 20;

/// Rings that are tried at once; more say nothing new.
const SHARDS_MAX: usize = 64;

/// What the doctor is asked about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The store, absolute.
    pub store: PathBuf,
    /// Where the CommitLog would be, if it is not below the store.
    pub log: Option<PathBuf>,
    /// Those that shards write to, there or not yet.
    pub folders: Vec<PathBuf>,
    /// Those that would be started.
    pub shards: Shards,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Per cent of the disk from which sends are refused.
    pub refuse_from_percent: u8,
    /// Whether the broker acknowledges only what is durable.
    pub sync: bool,
    /// Whether the broker has a name server, which has a ring too.
    pub has_names: bool,
}

/// Looks at this host.
#[must_use]
pub fn examine(subject: &Subject) -> Report {
    let tree = Tree::this();
    let mut entries = Vec::new();
    // As it was given; everything else is tried with what the broker would have.
    let limits = io::limits();
    io::raise_file_limit();
    let shards = subject.shards.count;
    let rings = (shards as usize).min(SHARDS_MAX);
    let trial = io::try_rings(rings, subject.has_names);
    entries.extend(kernel::check(&tree, &trial, rings));
    entries.extend(limits::check(&tree, limits, shards));
    let (measured_in, of_store) = check_store(&tree, subject);
    entries.extend(of_store);
    entries.push(subject.shards.entry());
    entries.extend(memory::check(&tree));
    entries.extend(cpus::check(&tree, shards, io::clock_read_ns()));
    entries.extend(network::check(&tree));
    Report {
        store: subject.store.display().to_string(),
        measured_in,
        entries,
    }
}

/// The store, the log where it is elsewhere, and the folders of shards.
fn check_store(tree: &Tree, subject: &Subject) -> (Option<String>, Vec<Entry>) {
    let mut entries = Vec::new();
    let (role, path) = match &subject.log {
        None => (store::STORE, &subject.store),
        Some(log) => {
            entries.extend(check_beside_log(tree, subject));
            (store::LOG, log)
        }
    };
    let (measured_in, of_log) = check_log(tree, subject, role, path);
    entries.extend(of_log);
    if store::is_usable(&entries) {
        entries.push(store::shard_folders(
            &subject.folders,
            &subject.store,
            make_file,
        ));
    }
    (measured_in, entries)
}

/// Makes an empty file, which is gone when this returns.
fn make_file(folder: &Path) -> Result<(), TrialError> {
    let made = io::time_sync_ways(folder, &[SyncWay::Growing], &[], Duration::ZERO, PATIENCE);
    made.map(drop)
}

/// The store without its log: what the broker wants to keep there must find room, but nobody waits for its disk.
fn check_beside_log(tree: &Tree, subject: &Subject) -> Vec<Entry> {
    let (role, path) = (store::STORE, &subject.store);
    let place = match io::place(path) {
        Ok(place) => place,
        Err(err) => return vec![store::out_of_reach(role, path, &err.to_string())],
    };
    let mount = store::mount_of(tree, &place.folder);
    let of_files = store::file_system(role, mount.as_ref(), &place, false);
    let is_store = of_files.verdict != Verdict::CannotRun && place.is_folder;
    let made = is_store.then(|| make_file(&place.folder));
    let made = made.as_ref().map(|made| made.as_ref().copied());
    vec![
        store::folder(role, path, &place, made),
        of_files,
        store::space(role, mount.as_ref(), &place, subject, false),
    ]
}

/// The folder of the log, its file system, what it did when it was tried, and the disk below it.
fn check_log(
    tree: &Tree,
    subject: &Subject,
    role: store::Role,
    path: &Path,
) -> (Option<String>, Vec<Entry>) {
    let place = match io::place(path) {
        Ok(place) => place,
        Err(err) => {
            let entry = store::out_of_reach(role, path, &err.to_string());
            let not_measured = measured::not_measured("its folder cannot be looked at");
            return (None, vec![entry, not_measured]);
        }
    };
    let mount = store::mount_of(tree, &place.folder);
    let mut entries = vec![store::file_system(
        role,
        mount.as_ref(),
        &place,
        subject.sync,
    )];
    let has_room = SPARE <= place.available;
    let is_store = entries[0].verdict != Verdict::CannotRun && place.is_folder;
    let trial = (is_store && has_room).then(|| io::try_disk(&place.folder, BUDGET, PATIENCE));
    let measured_in = matches!(trial, Some(Ok(_))).then(|| place.folder.display().to_string());
    let made = trial.as_ref().map(|trial| trial.as_ref().map(drop));
    entries.insert(0, store::folder(role, path, &place, made));
    entries.push(store::space(role, mount.as_ref(), &place, subject, true));
    match &trial {
        Some(Ok(trial)) => {
            entries.extend(measured::check(trial, subject.sync));
            entries.push(reads::check(io::try_files(&place.folder)));
        }
        Some(Err(error)) => entries.push(measured::not_measured(&error.to_string())),
        None if is_store => entries.push(measured::not_measured("it is full but for a few MiB")),
        None => entries.push(measured::not_measured("nothing can be stored there")),
    }
    let disk = disk::below(tree, place.device, mount.as_ref());
    entries.extend(disk::check(tree, disk.as_deref()));
    entries.push(interrupts::of_disk(tree, disk.as_deref()));
    (measured_in, entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container that shows nothing at all.
    #[test]
    fn a_host_that_hides_everything_is_still_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::at(folder.path());
        let mut entries = kernel::check(&tree, &Err(io::Errno::EPERM), 1);
        assert!(
            entries
                .iter()
                .any(|entry| entry.verdict == Verdict::CannotRun)
        );
        entries.clear();
        entries.extend(limits::check(&tree, Err(io::Errno::EPERM), 1));
        entries.extend(memory::check(&tree));
        entries.extend(cpus::check(&tree, 1, 30));
        entries.extend(network::check(&tree));
        entries.extend(disk::check(&tree, None));
        entries.push(interrupts::of_disk(&tree, None));
        assert!(12 < entries.len());
        for entry in &entries {
            assert_eq!(entry.verdict, Verdict::Ok, "{entry:?}");
            assert!(!entry.reason.is_empty(), "{entry:?}");
        }
    }

    #[test]
    fn a_folder_of_the_kernel_is_no_store_and_is_not_tried() {
        let subject = Subject {
            store: "/proc".into(),
            log: None,
            folders: Vec::new(),
            shards: Shards::of("/proc".as_ref(), None, 1, false),
            segment_size: 1 << 30,
            refuse_from_percent: 90,
            sync: false,
            has_names: true,
        };
        let (measured_in, entries) = check_store(&Tree::this(), &subject);
        assert_eq!(measured_in, None);
        assert!(
            entries
                .iter()
                .any(|entry| entry.verdict == Verdict::CannotRun)
        );
    }
}

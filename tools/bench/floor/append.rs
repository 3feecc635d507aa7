//! Where `floor append` and `floor flush` write.
//!
//! Append prepares files as a broker prepares segments: each is reserved (fallocate) by a thread
//! of its own before it is needed, every byte goes to a page that was not written before, and the
//! last few files are kept, so that the kernel writes back what it would for a broker. Flush
//! overwrites one file that was filled with zeros and synced, so that fdatasync has no metadata
//! to commit: what a broker with recycled or zeroed segments can reach at best. What that leaves out
//! is the price of making zeros, for a log that never overwrites: with `--fresh` each byte is written
//! once, into files that the other thread fills with zeros and syncs.

use super::unmade;
use crate::{Outcome, fail};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::uio::pwritev;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

/// Most slices that one vectored write takes.
const SLICES_MAX: usize = 1024;
/// Files that stay until they are deleted, the oldest first.
const KEPT: usize = 3;

pub struct Store {
    file: File,
    size: u64,
    at: u64,
    syncs: bool,
    /// Files that are ready; none where one file is written again and again.
    ahead: Option<Ahead>,
}

struct Ahead {
    path: PathBuf,
    ready: Receiver<std::io::Result<File>>,
    used: SyncSender<File>,
}

fn create(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    // Without a name it cannot be left behind.
    std::fs::remove_file(path)?;
    Ok(file)
}

fn reserve(path: &Path, size: u64) -> std::io::Result<File> {
    let file = create(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, size as i64)?;
    Ok(file)
}

fn zero_fill(file: &File, size: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    (0..size >> 20).try_for_each(|at| file.write_all_at(&zeros, at << 20))?;
    file.sync_all()
}

fn zeroed(path: &Path, size: u64) -> std::io::Result<File> {
    let file = create(path)?;
    zero_fill(&file, size).map(|()| file)
}

/// Fills in steps and rests as long as a step took: in one go it would hold up the flushes of the
/// file before it.
fn zeroed_slowly(path: &Path, size: u64) -> std::io::Result<File> {
    const STEP_SIZE: u64 = 8 << 20;
    let file = create(path)?;
    let zeros = vec![0; STEP_SIZE as usize];
    let mut at = 0;
    while at < size {
        let begun = Instant::now();
        let rest = (size - at).min(STEP_SIZE) as usize;
        file.write_all_at(&zeros[..rest], at)?;
        file.sync_all()?;
        at += rest as u64;
        std::thread::sleep(begun.elapsed());
    }
    Ok(file)
}

/// How the thread that is ahead makes a file.
type Make = fn(&Path, u64) -> std::io::Result<File>;

impl Ahead {
    fn start(path: PathBuf, size: u64, make: Make) -> Ahead {
        let (give, ready) = sync_channel(1);
        let (used, take) = sync_channel::<File>(16);
        let shown = path.clone();
        std::thread::spawn(move || {
            let mut kept = VecDeque::new();
            while give.send(make(&path, size)).is_ok() {
                kept.extend(take.try_iter());
                while KEPT < kept.len() {
                    kept.pop_front();
                }
            }
        });
        Ahead {
            path: shown,
            ready,
            used,
        }
    }

    fn next(&self) -> Outcome<File> {
        match self.ready.recv() {
            Ok(Ok(file)) => Ok(file),
            Ok(Err(error)) => fail(unmade(&self.path, &error)),
            Err(_) => fail("the thread that prepares files ended"),
        }
    }
}

/// What is written to, and when it is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Fresh, reserved files, no sync.
    Append,
    /// One zeroed file again and again, synced after each write.
    Flush,
    /// Fresh, zeroed files, synced after each write.
    FlushFresh,
}

impl Store {
    pub fn open(path: &Path, size: u64, way: Way) -> Outcome<Store> {
        let (file, ahead) = match way {
            Way::Flush => match zeroed(path, size) {
                Ok(file) => (file, None),
                Err(error) => return fail(unmade(path, &error)),
            },
            Way::Append | Way::FlushFresh => {
                let make: Make = match way {
                    Way::Append => reserve,
                    _ => zeroed_slowly,
                };
                let ahead = Ahead::start(path.to_path_buf(), size, make);
                (ahead.next()?, Some(ahead))
            }
        };
        Ok(Store {
            file,
            size,
            at: 0,
            syncs: way != Way::Append,
            ahead,
        })
    }

    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> Outcome<()> {
        for some in slices.chunks(SLICES_MAX) {
            let bytes: u64 = some.iter().map(|slice| slice.len() as u64).sum();
            if self.size < self.at + bytes {
                self.roll()?;
            }
            let written = pwritev(&self.file, some, self.at as i64)?;
            if written as u64 != bytes {
                return fail(format!(
                    "a write of {bytes} bytes took {written}: is the disk full?"
                ));
            }
            self.at += bytes;
        }
        if self.syncs {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn roll(&mut self) -> Outcome<()> {
        self.at = 0;
        if let Some(ahead) = &self.ahead {
            if self.syncs {
                self.file.sync_data()?;
            }
            let full = std::mem::replace(&mut self.file, ahead.next()?);
            // Who keeps files may be behind; then this one goes now, here.
            drop(ahead.used.try_send(full));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        for way in [Way::Append, Way::Flush, Way::FlushFresh] {
            let told = Store::open(Path::new("/nonexistent/f"), 1 << 20, way);
            let told = told.err().unwrap().0;
            assert!(told.contains("/nonexistent/f"), "{way:?}: {told}");
        }
    }

    #[test]
    fn append_rolls_into_another_file_and_flush_begins_its_own_anew_unless_it_shall_be_fresh() {
        let folder = tempfile::tempdir().unwrap();
        for way in [Way::Append, Way::Flush, Way::FlushFresh] {
            let path = folder.path().join(format!("{way:?}"));
            let mut store = Store::open(&path, 1 << 20, way).unwrap();
            let first = store.file.metadata().unwrap();
            assert_eq!((first.size(), (first.blocks() * 512) >> 20), (1 << 20, 1));
            // The thread of the others may be making the next file.
            assert!(way != Way::Flush || !path.exists());
            let bytes = vec![1; 700 << 10];
            store.write(&[IoSlice::new(&bytes)]).unwrap();
            store.write(&[IoSlice::new(&bytes)]).unwrap();
            assert_eq!(store.at, 700 << 10);
            let second = store.file.metadata().unwrap();
            assert_eq!(second.ino() == first.ino(), way == Way::Flush);
        }
    }
}

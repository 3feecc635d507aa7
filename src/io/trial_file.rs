//! The files of a disk's trial: without a name where that is possible, and gone when the trial is over.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};

use super::trial::errno_of;

/// All trial files are named so, where they need a name for a moment.
const NAME: &str = ".corelane-doctor-";

/// A file of this name and age was left by a doctor that was killed: a trial is over much sooner.
const LEFT_BEHIND: Duration = Duration::from_secs(120);

/// Whether a sync needs a file with a name to do anything.
pub(super) fn keeps_names(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|stat| stat.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// A file that nobody else sees, or that is removed when it is dropped.
pub(super) struct TrialFile {
    pub(super) file: File,
    named: Option<PathBuf>,
}

impl TrialFile {
    /// Without a name from the beginning, so that not even a kill leaves it behind. Where the file system
    /// cannot, the name is taken away at once; btrfs keeps it until the end, because a sync of a file
    /// without a name does nothing there.
    pub(super) fn new(folder: &Path) -> std::io::Result<Self> {
        let keeps_name = keeps_names(folder);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        if !keeps_name {
            let mut nameless = options.clone();
            match nameless.custom_flags(libc::O_TMPFILE).open(folder) {
                Ok(file) => return Ok(Self { file, named: None }),
                // Of a file system that has no such files, and of one too old to know the flag.
                Err(err) if matches!(errno_of(&err), Errno::EOPNOTSUPP | Errno::EISDIR) => {}
                Err(err) => return Err(err),
            }
        }
        for number in 0..100 {
            let path = folder.join(format!("{NAME}{}-{number}", std::process::id()));
            let file = match options.create_new(true).open(&path) {
                Err(err) if err.kind() == ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            let named = Self {
                file,
                named: Some(path),
            };
            return Ok(if keeps_name { named } else { named.unnamed() });
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn unnamed(mut self) -> Self {
        if let Some(path) = self.named.take()
            && fs::remove_file(&path).is_err()
        {
            self.named = Some(path);
        }
        self
    }

    /// Opens it again, past the page cache.
    pub(super) fn direct(&self) -> Result<File, Errno> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
            .map_err(|err| errno_of(&err))
    }
}

impl Drop for TrialFile {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes what a doctor that was killed has left.
pub(super) fn remove_left_behind(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(NAME));
        let modified = || entry.metadata().and_then(|meta| meta.modified()).ok();
        if is_ours
            && let Some(modified) = modified()
            && SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| LEFT_BEHIND < age)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_trial_file_goes_when_it_is_dropped_and_an_old_one_at_the_next_trial() {
        let folder = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let path = folder.path().join(format!("{NAME}1-1"));
        let file = File::create(&path).unwrap();
        let named = TrialFile {
            file,
            named: Some(path.clone()),
        };
        assert_eq!(names(), 1);
        drop(named);
        assert_eq!(names(), 0);
        let left = File::create(&path).unwrap();
        remove_left_behind(folder.path());
        assert_eq!(names(), 1, "another doctor may be at work");
        let long_ago = SystemTime::now() - 2 * LEFT_BEHIND;
        left.set_modified(long_ago).unwrap();
        File::create(folder.path().join("kept"))
            .and_then(|kept| kept.set_modified(long_ago))
            .unwrap();
        remove_left_behind(folder.path());
        assert_eq!(names(), 1, "only what is ours is removed");
    }
}

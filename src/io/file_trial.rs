//! Which of the optional features of files there are in a folder: whether the page cache can be asked about, and
//! gone past. See kernel-notes/page-cache-and-cold-reads.md.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;

use super::pages::{PAGE_SIZE, Pages};
use super::residency;
use super::trial::errno_of;
use super::trial_file::TrialFile;
use crate::base::{Feature, Features};

/// What reads of a folder's files can do; an error is what the call answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileTrial {
    /// Counting pages in the page cache (`cachestat`).
    pub cachestat: Result<(), Errno>,
    /// Reading past it (`O_DIRECT`).
    pub direct_io: Result<(), Errno>,
    /// Reading without leaving anything in it (`RWF_DONTCACHE`).
    pub dontcache: Result<(), Errno>,
}

impl FileTrial {
    /// What was answered about a feature; `None` for one of a ring.
    #[must_use]
    pub const fn answer(&self, feature: Feature) -> Option<Result<(), Errno>> {
        match feature {
            Feature::Cachestat => Some(self.cachestat),
            Feature::DirectIo => Some(self.direct_io),
            Feature::Dontcache => Some(self.dontcache),
            _ => None,
        }
    }

    /// Those that there are.
    #[must_use]
    pub fn features(&self) -> Features {
        let has = |feature: &Feature| matches!(self.answer(*feature), Some(Ok(())));
        Feature::OF_FILES.into_iter().filter(has).collect()
    }
}

/// Tries them with a file of one page that is a hole: no disk is waited for. Nothing stays behind.
///
/// # Errors
/// There can be no file in that folder.
pub fn try_files(folder: &Path) -> Result<FileTrial, Errno> {
    let trial = TrialFile::new(folder).map_err(|err| errno_of(&err))?;
    trial
        .file
        .set_len(PAGE_SIZE)
        .map_err(|err| errno_of(&err))?;
    let mut page = Pages::new(PAGE_SIZE as usize)?;
    page.set_len(PAGE_SIZE as usize);
    let mut read = |file: &File, flags| read_page(file, &mut page, flags);
    Ok(FileTrial {
        cachestat: residency::by_cachestat(&trial.file, 0, PAGE_SIZE).map(|_| ()),
        direct_io: trial.direct().and_then(|direct| read(&direct, 0)),
        dontcache: read(&trial.file, libc::RWF_DONTCACHE),
    })
}

fn read_page(file: &File, page: &mut Pages, flags: i32) -> Result<(), Errno> {
    let vector = libc::iovec {
        iov_base: page.bytes_mut().as_mut_ptr().cast(),
        iov_len: page.bytes().len(),
    };
    // SAFETY: one vector to a page that outlives the call.
    let count = unsafe { libc::preadv2(file.as_raw_fd(), &raw const vector, 1, 0, flags) };
    Errno::result(count).map(|_| ())
}

/// One line for the log, of what was found in `folder` less what is masked; and what is used.
#[must_use]
pub fn files_in_force(trial: &FileTrial, masked: Features) -> (String, Features) {
    let used = trial.features().without(masked);
    let missing: Vec<_> = Feature::OF_FILES
        .into_iter()
        .filter_map(|feature| match trial.answer(feature)? {
            _ if masked.has(feature) => Some(format!("{} (masked)", feature.name())),
            Err(errno) => Some(format!("{} ({errno:?})", feature.name())),
            Ok(()) => None,
        })
        .collect();
    let without = if missing.is_empty() {
        "nothing".to_owned()
    } else {
        missing.join(", ")
    };
    (format!("files: {used}; without: {without}"), used)
}

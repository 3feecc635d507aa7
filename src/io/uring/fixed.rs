//! The ring's own table of files: an operation that names a place in it looks no descriptor up.
//! See kernel-notes/registered-resources.md.

use io_uring::IoUring;

/// A table of so many places, empty at first. It goes with its ring.
pub(super) struct FixedFiles;

impl FixedFiles {
    pub(super) fn new(ring: &IoUring, count: u32) -> Option<Self> {
        ring.submitter().register_files_sparse(count).ok()?;
        Some(Self)
    }
}

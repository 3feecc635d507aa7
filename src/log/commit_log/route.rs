//! Which way a group gets into its file.

use super::CommitLog;
use crate::io::Route;
use crate::log::group::Group;
use crate::log::options::Append;

/// A group up to this size is copied in less time than a worker takes to wake up and to be heard
/// (kernel-notes/write-and-sync.md).
const IN_PLACE_SIZE_MAX: usize = 64 << 10;
/// Where producers wait for a sync it can begin at once behind a write in place; a worker is first to be heard.
const IN_PLACE_SYNC_SIZE_MAX: usize = 1 << 20;

impl CommitLog {
    pub(super) fn route(&self, group: &Group) -> Route {
        match self.options.append {
            Append::Ring => Route::Ring,
            Append::InPlace => Route::InPlace,
            Append::Mixed if self.is_held(group.start) => Route::Ring,
            Append::Mixed if group.size() <= self.in_place_max() => Route::InPlace,
            Append::Mixed => Route::Ring,
            // The first group after a start begins inside a page whose other bytes are not at hand.
            Append::Direct if group.is_whole() => Route::Direct,
            Append::Direct => Route::Ring,
        }
    }

    const fn in_place_max(&self) -> usize {
        if self.options.flush.is_sync() {
            IN_PLACE_SYNC_SIZE_MAX
        } else {
            IN_PLACE_SIZE_MAX
        }
    }
}

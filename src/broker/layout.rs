//! The shape of a store: locked, with so many shards, or one of Apache's opened where it is.

use std::path::Path;

use crate::config::{Settings, StartError};
use crate::io::{FolderLock, lock_folder, prove_writable, read_small};
use crate::state::shards;

/// The store's shape.
pub(super) struct Layout {
    pub(super) shard_count: u32,
    /// Apache's store, opened where it is.
    pub(super) in_place: bool,
    _lock: FolderLock,
}

/// Locks the store and finds out how many shards it has.
pub(super) fn lay_out(settings: &Settings) -> Result<Layout, StartError> {
    let root = &settings.store.root;
    let lock = lock_folder(root).map_err(super::start::not_had)?;
    prove_writable(root).map_err(super::start::not_had)?;
    let path = root.join("shards.json");
    let stored = read_small(&path)
        .map_err(|error| {
            StartError::new(
                "read",
                path.display(),
                error,
                "make the file readable for this user",
            )
        })?
        .map(|bytes| shards::decode(&bytes))
        .transpose()
        .map_err(|error| {
            let remedy =
                "put the count of the folders 0, 1, … into it: {\"version\":1,\"count\":N}";
            StartError::new("read", path.display(), error, remedy)
        })?;
    if stored.is_none() && settings.store.paths(None).commit_log.is_dir() {
        let wanted = settings.shard_count.unwrap_or(1);
        if 1 < wanted {
            return Err(StartError::new(
                "open the store in",
                root.display(),
                format!("it is a store of one broker, and {wanted} shards were asked for"),
                format!(
                    "leave --shards out, or make it the first of several with: mkdir {0}/0 && mv \
                     {0}/commitlog {0}/consumequeue {0}/index {0}/config {0}/checkpoint {0}/0/",
                    root.display()
                ),
            ));
        }
        return Ok(Layout {
            shard_count: 1,
            in_place: true,
            _lock: lock,
        });
    }
    let wanted = settings.shard_count;
    let shard_count = match (stored, wanted) {
        (Some(stored), Some(wanted)) if wanted < stored => {
            return Err(StartError::new(
                "open the store in",
                root.display(),
                format!("it has {stored} shards, and {wanted} were asked for"),
                format!(
                    "start with --shards {stored} (or without --shards); messages of the shards left \
                     out could not be reached"
                ),
            ));
        }
        (Some(stored), wanted) => wanted.unwrap_or(stored),
        (None, wanted) => wanted.unwrap_or(settings.shard_count_default),
    };
    let shard_count = shard_count.clamp(1, shards::COUNT_MAX - 1);
    if stored != Some(shard_count) {
        replace_small(&path, shards::encode(shard_count))?;
    }
    Ok(Layout {
        shard_count,
        in_place: false,
        _lock: lock,
    })
}

fn replace_small(path: &Path, bytes: Vec<u8>) -> Result<(), StartError> {
    crate::io::replace_small(path, &bytes).map_err(|error| {
        StartError::new(
            "write",
            path.display(),
            error,
            "make room, or make the store writable",
        )
    })
}

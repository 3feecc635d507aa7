//! How many shards a store has, and whether those that are asked for can be started in it.

use std::io::ErrorKind;
use std::path::Path;

use super::report::{Entry, quoted};
use crate::io;
use crate::state::shards;

/// The shards of a store, as `serve` would find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// Would be started.
    pub count: u32,
    /// It is a store of Apache's broker, opened where it is.
    pub in_place: bool,
    /// Why none would be started, and what helps.
    refused: Option<(String, String)>,
}

impl Shards {
    /// `asked` is the count that was said, `default` that of a new store. `has_log`: a CommitLog is where a store of
    /// one broker has it.
    #[must_use]
    pub fn of(store: &Path, asked: Option<u32>, default: u32, has_log: bool) -> Self {
        let path = store.join("shards.json");
        let stored = match io::read_small(&path) {
            // A store that is a file is refused as a folder.
            Err(err) if err.kind() == ErrorKind::NotADirectory => Ok(None),
            // So is one that this user cannot reach; nobody knows what is in it.
            Err(err) if err.kind() == ErrorKind::PermissionDenied && io::place(store).is_err() => {
                Ok(None)
            }
            Err(err) => Err((
                format!("{} cannot be read: {err}", path.display()),
                "# make the file readable for this user".to_owned(),
            )),
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => shards::decode(&bytes).map(Some).map_err(|err| {
                let fix =
                    "# put the count of the folders 0, 1, … into it: {\"version\":1,\"count\":N}";
                (format!("{}: {err}", path.display()), fix.to_owned())
            }),
        };
        match stored {
            Ok(stored) => Self::judge(store, stored, asked, default, has_log),
            Err(refused) => Self {
                count: asked.unwrap_or(default),
                in_place: false,
                refused: Some(refused),
            },
        }
    }

    fn judge(
        store: &Path,
        stored: Option<u32>,
        asked: Option<u32>,
        default: u32,
        has_log: bool,
    ) -> Self {
        let in_place = stored.is_none() && has_log;
        let known = if in_place { Some(1) } else { stored };
        let refused = match asked {
            Some(asked) if in_place && 1 < asked => {
                let store = quoted(&store.display().to_string());
                let why = format!("it is a store of one broker, and {asked} shards are asked for");
                let fix = format!(
                    "mkdir {store}/0 && mv {store}/commitlog {store}/consumequeue {store}/index {store}/config \
                     {store}/checkpoint {store}/0/  # or leave --shards out"
                );
                Some((why, fix))
            }
            Some(asked) if stored.is_some_and(|stored| asked < stored) => {
                let stored = stored.unwrap_or_default();
                let why = format!(
                    "it has {stored} shards, and {asked} are asked for: messages of the others could not be reached"
                );
                Some((
                    why,
                    format!("# start with --shards {stored}, or without --shards"),
                ))
            }
            _ => None,
        };
        Self {
            count: asked.or(known).unwrap_or(default),
            in_place,
            refused,
        }
    }

    pub(super) fn entry(&self) -> Entry {
        const NAME: &str = "shards";
        let value = self.count.to_string();
        match &self.refused {
            Some((why, fix)) => Entry::cannot_run(NAME, value, why, fix),
            None if self.in_place => Entry::ok(
                NAME,
                value,
                "a CommitLog is there and no shards.json: a store of one broker, opened where it is",
            ),
            None => Entry::ok(NAME, value, "so many would be started in this store"),
        }
    }
}

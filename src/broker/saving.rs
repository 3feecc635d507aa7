//! The state files of a shard: read at start, rewritten whole when their tables have changed.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::worker::{ROOM, SAVE};
use crate::config::StartError;
use crate::io::{Errno, Io, Op, Payload, Token};
use crate::log::run_one;
use crate::shard::Shard;
use crate::state::{self, StateError};

/// Offsets reach the disk within this time (house rule: within 1 s).
const OFFSETS_PERIOD_NS: u64 = 500_000_000;

const RETRY_NS: u64 = 1_000_000_000;

/// A turn makes this much of a large table's text; the rest comes in the turns that follow.
const SLICE_NS: u64 = 300_000;
/// The clock is asked after so many entries.
const SLICE_COUNT: usize = 32;

const TOPICS: usize = 0;
const GROUPS: usize = 1;
const OFFSETS: usize = 2;
const DELAY: usize = 3;
const NAMES: [&str; 4] = [
    "topics.json",
    "subscriptionGroup.json",
    "consumerOffset.json",
    "delayOffset.json",
];

/// The tables as they were found, with what this broker does not know of them.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) topics: state::topics::Topics,
    pub(super) groups: state::groups::Groups,
    pub(super) offsets: state::offsets::Offsets,
    pub(super) delay: state::delay::DelayOffsets,
}

impl Loaded {
    /// Reads all files; a file that is broken is replaced by its backup, if that one is whole.
    pub(super) fn read(
        io: &mut impl Io,
        folder: &Path,
        inherit_from: Option<&Path>,
    ) -> Result<Self, StartError> {
        let mut loaded = Self {
            topics: read_one(io, folder, TOPICS, state::topics::decode)?.unwrap_or_default(),
            groups: read_one(io, folder, GROUPS, state::groups::decode)?.unwrap_or_default(),
            offsets: read_one(io, folder, OFFSETS, state::offsets::decode)?.unwrap_or_default(),
            delay: read_one(io, folder, DELAY, state::delay::decode)?.unwrap_or_default(),
        };
        if let Some(other) = inherit_from
            && loaded.topics.table.is_empty()
        {
            loaded.topics = read_one(io, other, TOPICS, state::topics::decode)?.unwrap_or_default();
            loaded.groups = read_one(io, other, GROUPS, state::groups::decode)?.unwrap_or_default();
        }
        Ok(loaded)
    }
}

fn read_one<T>(
    io: &mut impl Io,
    folder: &Path,
    which: usize,
    decode: impl Fn(&[u8]) -> Result<T, StateError>,
) -> Result<Option<T>, StartError> {
    let path = folder.join(NAMES[which]);
    let backup = folder.join(format!("{}.bak", NAMES[which]));
    let mut first_error = None;
    for path in [&path, &backup] {
        let got = run_one(
            io,
            Op::Get {
                path: path.clone(),
                at: 0,
                len: u64::from(u32::MAX),
            },
        );
        let bytes = match (got.result, got.payload) {
            (Ok(_), Payload::Buffer(bytes)) => bytes,
            (Err(Errno::ENOENT), _) => continue,
            (result, _) => {
                let errno = result.err().unwrap_or(Errno::EIO);
                let remedy = "make the store readable for this user";
                return Err(StartError::new("read", path.display(), errno, remedy));
            }
        };
        match decode(&bytes) {
            Ok(value) => {
                if let Some(error) = &first_error {
                    tracing::warn!(path = %path.display(), %error, "a state file is broken; its backup is used");
                }
                return Ok(Some(value));
            }
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        None => Ok(None),
        Some(error) => Err(StartError::new(
            "read",
            path.display(),
            error,
            "repair the file, put a backup back, or remove it to begin with an empty table",
        )),
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct File {
    /// State of the table that is on disk.
    saved: u64,
    /// State that is being written.
    saving: Option<u64>,
    last_ns: u64,
    retry_ns: u64,
}

/// A large table on its way to text, and the name of what comes next. What is changed meanwhile is as it was or as it
/// is then: each entry stands by itself, and none is older than when this began.
#[derive(Debug)]
enum Making {
    Topics(state::topics::Writer, String),
    Offsets(state::offsets::Writer, [Rc<str>; 2]),
}

/// Keeps the files of one shard.
#[derive(Debug)]
pub(super) struct Saving {
    folder: PathBuf,
    loaded: Loaded,
    files: [File; 4],
    making: Option<Making>,
}

impl Saving {
    pub(super) fn new(folder: PathBuf, loaded: Loaded) -> Self {
        Self {
            folder,
            loaded,
            files: [File::default(); 4],
            making: None,
        }
    }

    /// A text is not whole yet: call [`Self::pump`] again soon.
    pub(super) const fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// Starts the rewrites that are due; of all changed tables if `now`. Answers whether there were any.
    pub(super) fn pump(&mut self, io: &mut impl Io, shard: &mut Shard, now: bool) -> bool {
        let mut any = self.go_on(io, shard, now);
        let states = states(shard);
        let now_ns = io.now_ns();
        for which in [TOPICS, GROUPS, OFFSETS, DELAY] {
            // One at a time is made in slices.
            if self.making.is_some() && matches!(which, TOPICS | OFFSETS) {
                continue;
            }
            let file = &mut self.files[which];
            if file.saving.is_some() || states[which] == file.saved || now_ns < file.retry_ns {
                continue;
            }
            let patient = matches!(which, OFFSETS | DELAY);
            if patient && !now && now_ns < file.last_ns + OFFSETS_PERIOD_NS {
                continue;
            }
            file.saving = Some(states[which]);
            file.last_ns = now_ns;
            any = true;
            match self.encode(io, shard, which) {
                Some(bytes) => self.write(io, which, bytes),
                None => _ = self.go_on(io, shard, now),
            }
        }
        any
    }

    fn write(&self, io: &mut impl Io, which: usize, bytes: Vec<u8>) {
        let path = self.folder.join(NAMES[which]);
        let backup = Some(self.folder.join(format!("{}.bak", NAMES[which])));
        let op = Op::Replace {
            path,
            bytes,
            backup,
        };
        let pushed = io.push(Token::of(ROOM, SAVE | which as u64), op);
        assert!(pushed.is_ok(), "the ring has room for four files");
    }

    /// Makes the next slice of a text, or all that is left; it is written when it is whole. Answers whether there was
    /// one to be made.
    fn go_on(&mut self, io: &mut impl Io, shard: &Shard, all: bool) -> bool {
        let begun_ns = io.look_ns();
        let is_over = |count: usize, io: &dyn Fn() -> u64| {
            !all && count.is_multiple_of(SLICE_COUNT) && begun_ns + SLICE_NS <= io()
        };
        let look = || io.look_ns();
        let (which, bytes) = match self.making.take() {
            None => return false,
            Some(Making::Topics(mut writer, next)) => {
                for (count, topic) in (1..).zip(shard.topics.from(&next)) {
                    if is_over(count, &look) {
                        let next = topic.config.name.clone();
                        self.making = Some(Making::Topics(writer, next));
                        return true;
                    }
                    writer.put(&self.loaded.topics, &topic.config);
                }
                (TOPICS, writer.finish(&self.loaded.topics))
            }
            Some(Making::Offsets(mut writer, [group, topic])) => {
                for (count, (group, topic, queues)) in (1..).zip(shard.offsets.from(&group, &topic))
                {
                    if is_over(count, &look) {
                        let next = [Rc::clone(group), Rc::clone(topic)];
                        self.making = Some(Making::Offsets(writer, next));
                        return true;
                    }
                    writer.put(topic, group, queues);
                }
                (OFFSETS, writer.finish(&self.loaded.offsets))
            }
        };
        self.write(io, which, bytes);
        true
    }

    /// The text of a file; `None` = [`Self::go_on`] makes it.
    fn encode(&mut self, io: &impl Io, shard: &mut Shard, which: usize) -> Option<Vec<u8>> {
        let loaded = &mut self.loaded;
        Some(match which {
            TOPICS => {
                loaded.topics.version = shard.topics.version();
                loaded.topics.deleted.clone_from(shard.topics.deleted());
                let writer = state::topics::Writer::default();
                self.making = Some(Making::Topics(writer, String::new()));
                return None;
            }
            GROUPS => {
                loaded.groups.version = shard.groups.version();
                let configs = shard.groups.iter().cloned();
                loaded.groups.table = configs
                    .map(|config| (config.name.clone(), config))
                    .collect();
                state::groups::encode(&loaded.groups)
            }
            OFFSETS => {
                loaded.offsets.version = shard.offsets.stored(io.wall_ms());
                loaded.offsets.table.clear();
                let writer = state::offsets::Writer::default();
                self.making = Some(Making::Offsets(writer, [Rc::from(""), Rc::from("")]));
                return None;
            }
            _ => {
                loaded.delay.version.counter += 1;
                loaded.delay.version.timestamp_ms = io.wall_ms() as i64;
                loaded.delay.table = shard.delay.all().into_iter().collect();
                state::delay::encode(&loaded.delay)
            }
        })
    }

    /// A rewrite has ended.
    pub(super) fn complete(
        &mut self,
        io: &impl Io,
        shard: &mut Shard,
        which: usize,
        result: Result<u32, Errno>,
    ) {
        let file = &mut self.files[which];
        let saving = file.saving.take().expect("a rewrite was under way");
        match result {
            Ok(_) => file.saved = saving,
            Err(errno) => {
                let path = self.folder.join(NAMES[which]);
                tracing::error!(path = %path.display(), %errno, "a state file could not be written; trying again");
                file.retry_ns = io.now_ns() + RETRY_NS;
            }
        }
        let [topics, groups, offsets, _] = self.files.map(|file| file.saved);
        shard.tables_saved(topics, groups, offsets);
    }

    /// Whether everything is on disk.
    pub(super) fn is_done(&self, shard: &Shard) -> bool {
        let states = states(shard);
        self.files
            .iter()
            .zip(states)
            .all(|(file, state)| file.saving.is_none() && file.saved == state)
    }
}

fn states(shard: &Shard) -> [u64; 4] {
    [
        shard.topics.changes(),
        shard.groups.changes(),
        shard.offsets.changes(),
        shard.delay.changes(),
    ]
}

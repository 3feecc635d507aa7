//! The state files of a shard: read at start, rewritten whole when their tables have changed.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::worker::{ROOM, SAVE};
use crate::config::StartError;
use crate::io::{Content, Errno, Io, Op, Payload, Token, whole};
use crate::log::run_one;
use crate::shard::Shard;
use crate::state::{self, StateError};

/// Offsets begin their way to the disk within this time, and are there within a second.
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
    Topics,
    Offsets(state::offsets::Writer, [Rc<str>; 2]),
}

/// Keeps the files of one shard.
#[derive(Debug)]
pub(super) struct Saving {
    folder: PathBuf,
    loaded: Loaded,
    /// The text of all topics, which costs too much to be made for each that is new.
    topics: state::topics::Pieces,
    files: [File; 4],
    making: Option<Making>,
}

impl Saving {
    pub(super) fn new(folder: PathBuf, loaded: Loaded) -> Self {
        Self {
            folder,
            loaded,
            topics: state::topics::Pieces::default(),
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
                Some(bytes) => self.write(io, which, whole(bytes)),
                None => _ = self.go_on(io, shard, now),
            }
        }
        any
    }

    fn write(&self, io: &mut impl Io, which: usize, content: Content) {
        let path = self.folder.join(NAMES[which]);
        let backup = Some(self.folder.join(format!("{}.bak", NAMES[which])));
        let op = Op::Replace {
            path,
            content,
            backup,
        };
        let pushed = io.push(Token::of(ROOM, SAVE | which as u64), op);
        assert!(pushed.is_ok(), "the ring has room for four files");
    }

    /// Makes the next slice of a text, or all that is left; it is written when it is whole. Answers whether there was
    /// one to be made.
    fn go_on(&mut self, io: &mut impl Io, shard: &Shard, all: bool) -> bool {
        let begun_ns = io.look_ns();
        let look = || io.look_ns();
        let is_late = |io: &dyn Fn() -> u64| !all && begun_ns + SLICE_NS <= io();
        let is_over =
            |count: usize, io: &dyn Fn() -> u64| count.is_multiple_of(SLICE_COUNT) && is_late(io);
        let (which, content) = match self.making.take() {
            None => return false,
            Some(Making::Topics) => {
                while let Some(first) = self.topics.next().map(ToOwned::to_owned) {
                    let topics = shard.topics.from(&first);
                    let configs = topics.map(|topic| &topic.config);
                    self.topics.make(&self.loaded.topics, configs);
                    if is_late(&look) {
                        self.making = Some(Making::Topics);
                        return true;
                    }
                }
                (TOPICS, self.topics.file(&self.loaded.topics))
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
                (OFFSETS, whole(writer.finish(&self.loaded.offsets)))
            }
        };
        self.write(io, which, content);
        true
    }

    /// The text of a file; `None` = [`Self::go_on`] makes it.
    fn encode(&mut self, io: &impl Io, shard: &mut Shard, which: usize) -> Option<Vec<u8>> {
        let loaded = &mut self.loaded;
        Some(match which {
            TOPICS => {
                loaded.topics.version = shard.topics.version();
                loaded.topics.deleted.clone_from(shard.topics.deleted());
                let touched = shard.topics.take_touched();
                touched.iter().for_each(|name| self.topics.touch(name));
                self.making = Some(Making::Topics);
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::open::tests::opened;
    use super::*;
    use crate::base::Prng;
    use crate::io::{Completion, FileId, OwnCalls};
    use crate::shard::plain_topic;
    use crate::sim::{Faults, Sim};
    use crate::state::offsets::Reader;

    /// A kernel whose clock goes on by so much each time it is looked at.
    struct Slow {
        sim: Sim,
        look_ns: Cell<u64>,
        step_ns: u64,
    }

    impl Io for Slow {
        fn push(&mut self, token: Token, op: Op) -> Result<(), Op> {
            self.sim.push(token, op)
        }

        fn begin(&mut self) -> Result<(), Errno> {
            self.sim.begin()
        }

        fn turn(&mut self, wait_ns: u64, done: &mut Vec<Completion>) -> Result<(), Errno> {
            self.sim.turn(wait_ns, done)
        }

        fn now_ns(&self) -> u64 {
            self.sim.now_ns()
        }

        fn look_ns(&self) -> u64 {
            self.look_ns.set(self.look_ns.get() + self.step_ns);
            self.look_ns.get()
        }

        fn own_calls(&self) -> OwnCalls {
            self.sim.own_calls()
        }

        fn holds(&mut self, file: FileId, at: u64, len: u64) -> bool {
            self.sim.holds(file, at, len)
        }

        fn wall_ms(&self) -> u64 {
            self.sim.wall_ms()
        }
    }

    /// A shard whose tables are saved in slices.
    struct Desk {
        io: Slow,
        shard: Shard,
        saving: Saving,
        /// How often something was left to be made.
        slices: usize,
    }

    fn folder() -> PathBuf {
        PathBuf::from("/store/config")
    }

    impl Desk {
        fn new(step_ns: u64) -> Self {
            let mut io = Slow {
                sim: Sim::with_faults(1, Faults::none()),
                look_ns: Cell::new(0),
                step_ns,
            };
            let (mut shard, loaded, _) = opened(&mut io, Path::new("/store"));
            shard.offsets.commit("readers", "T", 3, 1);
            let saving = Saving::new(folder(), loaded);
            let mut desk = Self {
                io,
                shard,
                saving,
                slices: 0,
            };
            desk.finish();
            desk
        }

        /// A turn's part of the work.
        fn pump(&mut self) {
            self.saving.pump(&mut self.io, &mut self.shard, false);
            self.slices += usize::from(self.saving.is_making());
        }

        fn wait(&mut self) {
            let mut done = Vec::new();
            self.io.turn(1_000_000_000, &mut done).unwrap();
            for done in done {
                let which = (done.token.rest() & 0xff) as usize;
                let Self {
                    io, shard, saving, ..
                } = self;
                saving.complete(io, shard, which, done.result);
            }
        }

        /// Until nothing is left to be saved.
        fn finish(&mut self) {
            let mut turns = 0;
            while !self.saving.is_done(&self.shard) {
                turns += 1;
                assert!(turns < 10_000, "saving comes to no end");
                self.pump();
                self.wait();
            }
        }

        fn bytes(&mut self, which: usize) -> Vec<u8> {
            let path = folder().join(NAMES[which]);
            let (at, len) = (0, u64::from(u32::MAX));
            match run_one(&mut self.io, Op::Get { path, at, len }).payload {
                Payload::Buffer(bytes) => bytes,
                other => panic!("{other:?}"),
            }
        }

        fn assert_saved(&mut self) {
            let topics = self.bytes(TOPICS);
            let stored = state::topics::decode(&topics).unwrap();
            let configs = self.shard.topics.iter().map(|topic| &topic.config);
            assert!(stored.table.values().eq(configs), "topics");
            assert_eq!(stored.version, self.shard.topics.version());
            assert!(
                state::topics::encode(&stored) == topics,
                "each stands there once"
            );
            let offsets = self.bytes(OFFSETS);
            let stored = state::offsets::decode(&offsets).unwrap();
            assert_eq!(state::offsets::encode(&stored).len(), offsets.len());
            let mut all = self.shard.offsets.all();
            all.sort_unstable();
            let queues = stored.table.into_iter().flat_map(|(reader, queues)| {
                queues.into_iter().map(move |(queue_id, offset)| {
                    let Reader { topic, group } = reader.clone();
                    (topic, group, queue_id, offset)
                })
            });
            assert!(queues.eq(all), "offsets");
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            self.io.sim.kill();
        }
    }

    const COUNT: usize = 10_000;
    const OF_GROUP: usize = 50;

    fn topic(number: usize) -> String {
        format!("T{number:05}")
    }

    fn group(number: usize) -> String {
        format!("G{:03}", number / OF_GROUP)
    }

    /// The entries of a table by their numbers, which are in its order.
    trait Entries {
        const WHICH: usize;
        fn put(shard: &mut Shard, number: usize, value: u32);
        /// All that stand there together.
        fn remove(shard: &mut Shard, number: usize) -> std::ops::Range<usize>;
        /// In the file.
        fn stored(bytes: &[u8]) -> Vec<Option<u32>>;
        /// The number of the one that comes next.
        fn next(saving: &Saving) -> Option<usize>;
    }

    fn by_number(entries: impl Iterator<Item = (String, u32)>) -> Vec<Option<u32>> {
        let mut values = vec![None; COUNT];
        for (name, value) in entries {
            if let Some(number) = number(&name) {
                values[number] = Some(value);
            }
        }
        values
    }

    fn number(topic: &str) -> Option<usize> {
        topic.strip_prefix('T')?.parse().ok()
    }

    struct OfTopics;

    impl Entries for OfTopics {
        const WHICH: usize = TOPICS;

        fn put(shard: &mut Shard, number: usize, value: u32) {
            shard.topics.put(plain_topic(&topic(number), value, 6), 1);
        }

        fn remove(shard: &mut Shard, number: usize) -> std::ops::Range<usize> {
            shard.topics.remove(&topic(number), (0, 0), 1);
            number..number + 1
        }

        fn stored(bytes: &[u8]) -> Vec<Option<u32>> {
            let topics = state::topics::decode(bytes).unwrap().table.into_iter();
            by_number(topics.map(|(name, config)| (name, config.read_queue_count)))
        }

        fn next(saving: &Saving) -> Option<usize> {
            let next = saving.topics.next();
            saving
                .is_making()
                .then(|| next.and_then(number).unwrap_or(0))
        }
    }

    struct OfOffsets;

    impl Entries for OfOffsets {
        const WHICH: usize = OFFSETS;

        fn put(shard: &mut Shard, number: usize, value: u32) {
            let (group, topic) = (group(number), topic(number));
            shard.offsets.commit(&group, &topic, 3, i64::from(value));
        }

        /// A whole group now and then.
        fn remove(shard: &mut Shard, number: usize) -> std::ops::Range<usize> {
            if number.is_multiple_of(3) {
                shard.offsets.remove_group(&group(number));
                let first = number - number % OF_GROUP;
                return first..first + OF_GROUP;
            }
            shard.offsets.remove_topic(&topic(number));
            number..number + 1
        }

        fn stored(bytes: &[u8]) -> Vec<Option<u32>> {
            let readers = state::offsets::decode(bytes).unwrap().table.into_iter();
            by_number(readers.map(|(reader, queues)| (reader.topic, queues[&3] as u32)))
        }

        fn next(saving: &Saving) -> Option<usize> {
            match &saving.making {
                None => None,
                Some(Making::Offsets(_, [_, topic])) => Some(number(topic).unwrap_or(0)),
                Some(other @ Making::Topics) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn tables_that_are_saved_in_slices_are_on_disk_as_they_are() {
        let mut desk = Desk::new(SLICE_NS);
        for number in 0..COUNT {
            OfTopics::put(&mut desk.shard, number, 1 + number as u32);
            OfOffsets::put(&mut desk.shard, number, number as u32);
        }
        desk.finish();
        // Of topics a slice is half a piece.
        let least = COUNT / SLICE_COUNT + COUNT / 64;
        assert!(least < desk.slices, "{}", desk.slices);
        desk.assert_saved();
    }

    /// Entries change, come and go: at the place to which the text has come, close by, and anywhere. Each is on the
    /// disk as it was or as it was then, and what became of it is saved next.
    fn what_changes_between_slices_is_saved<E: Entries>(seed: u64) {
        let mut prng = Prng::from_seed(seed);
        let mut desk = Desk::new(SLICE_NS / 2);
        let mut values = vec![None; COUNT];
        for number in (0..COUNT).filter(|number| number % 4 != 0) {
            E::put(&mut desk.shard, number, 1);
            values[number] = Some(1);
        }
        desk.wait();
        desk.pump();
        // What each has been since the text was begun.
        let mut seen: Vec<Vec<Option<u32>>> = values.iter().map(|value| vec![*value]).collect();
        while let Some(next) = E::next(&desk.saving) {
            for value in 2..6 {
                let number = match prng.below(4) {
                    0 => next,
                    1 | 2 => (next + prng.below(80) as usize).saturating_sub(40),
                    _ => prng.below(COUNT as u64) as usize,
                };
                let number = number.min(COUNT - 1);
                if prng.chance(1, 2) {
                    E::put(&mut desk.shard, number, value);
                    values[number] = Some(value);
                    seen[number].push(Some(value));
                } else {
                    for number in E::remove(&mut desk.shard, number) {
                        values[number] = None;
                        seen[number].push(None);
                    }
                }
            }
            desk.pump();
        }
        let least = COUNT / 2 / 128;
        assert!(least < desk.slices, "seed {seed}: {}", desk.slices);
        desk.wait();
        let stored = E::stored(&desk.bytes(E::WHICH));
        let wrong = (0..COUNT).find(|number| !seen[*number].contains(&stored[*number]));
        if let Some(number) = wrong {
            let (found, seen) = (stored[number], &seen[number]);
            panic!("seed {seed}, entry {number}: {found:?} is stored, it was {seen:?}");
        }
        assert!(stored != values, "seed {seed}: something had gone past");
        desk.finish();
        let stored = E::stored(&desk.bytes(E::WHICH));
        let wrong = (0..COUNT).find(|number| stored[*number] != values[*number]);
        assert_eq!(wrong, None, "seed {seed}: first wrong entry");
        desk.assert_saved();
    }

    #[test]
    fn topics_that_change_between_slices_are_saved() {
        for seed in 0..4 {
            what_changes_between_slices_is_saved::<OfTopics>(seed);
        }
    }

    #[test]
    fn offsets_that_change_between_slices_are_saved() {
        for seed in 0..4 {
            what_changes_between_slices_is_saved::<OfOffsets>(seed);
        }
    }
}

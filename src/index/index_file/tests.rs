//! IndexFiles against a model: what was put is found, whatever is written, lost or damaged.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::Prng;
use crate::io::Name;

const SLOTS: u32 = 2_500; // three pages, the last one not full
const ENTRIES: u32 = 1_200;
const WALL_MS: u64 = 1_700_000_000_000;

fn options() -> Options {
    Options {
        folder: PathBuf::from("index"),
        slot_count: SLOTS,
        entry_count: ENTRIES,
    }
}

/// Files as the kernel has them.
#[derive(Clone, Default)]
struct Disk(BTreeMap<PathBuf, Vec<u8>>);

impl Disk {
    fn put(&mut self, op: Op) {
        let Op::Put { path, size, pieces } = op else {
            panic!("an index only puts: {op:?}");
        };
        let file = self.0.entry(path).or_default();
        file.resize(file.len().max(size as usize), 0);
        for (at, piece) in pieces {
            file[at as usize..at as usize + piece.len()].copy_from_slice(&piece);
        }
    }

    fn get(&self, path: &Path, at: u64, len: u64) -> &[u8] {
        let Some(bytes) = self.0.get(path) else {
            return &[];
        };
        let end = bytes.len().min((at + len) as usize);
        &bytes[end.min(at as usize)..end]
    }

    fn names(&self) -> Vec<Name> {
        let name = |path: &Path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .map(str::to_owned)
        };
        let names = self.0.iter().map(|(path, bytes)| Name {
            name: name(path).expect("UTF-8"),
            size: bytes.len() as u64,
            is_folder: false,
            modified_ms: 0,
        });
        names.collect()
    }

    fn flush(&mut self, index: &mut Index, bytes_max: usize) {
        for _ in 0..10_000 {
            let Some(op) = index.flush(bytes_max) else {
                return;
            };
            self.put(op);
            index.flushed(true);
        }
        panic!("flushing does not end");
    }

    fn load(&mut self, dispatched: PhysicalOffset, clean: bool) -> Loaded {
        let (mut load, mut step) = Load::start(options(), &self.names(), dispatched, clean);
        for _ in 0..1_000 {
            match step {
                LoadStep::Get { path, at, len } => step = load.resume(self.get(&path, at, len)),
                LoadStep::Done(loaded) => {
                    loaded
                        .remove
                        .iter()
                        .for_each(|path| drop(self.0.remove(path)));
                    return *loaded;
                }
            }
        }
        panic!("loading does not end");
    }

    fn ask(&self, index: &mut Index, want: Want) -> Vec<PhysicalOffset> {
        let (mut query, mut step) = Query::start(index, want);
        for _ in 0..100_000 {
            match step {
                Step::Get { path, at, len } => step = query.resume(index, self.get(&path, at, len)),
                Step::Done(found) => return found,
            }
        }
        panic!("the search does not end");
    }
}

fn any_time(hash: u32) -> Want {
    Want {
        hash,
        begin_ms: 0,
        end_ms: i64::MAX,
        count_max: usize::MAX,
        walk_max: u32::MAX,
    }
}

/// A history of records with keys.
struct History {
    prng: Prng,
    /// Hashes of each record.
    records: BTreeMap<PhysicalOffset, Vec<u32>>,
    end: u64,
}

impl History {
    fn from_seed(seed: u64) -> Self {
        Self {
            prng: Prng::from_seed(seed),
            records: BTreeMap::new(),
            end: 0,
        }
    }

    /// Most are few, so that chains and collisions are common; some are rare, so that slots are used up
    /// slowly.
    fn hash(&mut self) -> u32 {
        if self.prng.chance(1, 4) {
            return self.prng.below(u64::from(3 * SLOTS)) as u32;
        }
        let collides = self.prng.below(3) as u32;
        self.prng.below(40) as u32 * 37 + collides * SLOTS
    }

    fn store_ms(offset: PhysicalOffset) -> i64 {
        WALL_MS as i64 + offset.0 as i64 * 3
    }

    /// Appends records and dispatches what the index does not know yet, as the broker would.
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let hashes = (0..self.prng.below(4)).map(|_| self.hash()).collect();
            self.records.insert(PhysicalOffset(self.end), hashes);
            self.end += 100 + self.prng.below(1_000);
        }
    }

    fn dispatch(&self, index: &mut Index) {
        for (offset, hashes) in self.records.range(index.dispatched..) {
            for hash in hashes {
                index.put(*hash, *offset, Self::store_ms(*offset), WALL_MS);
            }
        }
        index.dispatched = PhysicalOffset(self.end);
    }

    fn wanted(&self, hash: u32) -> Vec<PhysicalOffset> {
        let having = self
            .records
            .iter()
            .rev()
            .filter(|(_, hashes)| hashes.contains(&hash));
        having.map(|(offset, _)| *offset).collect()
    }

    fn compare(&self, index: &mut Index, disk: &Disk, seed: u64) {
        assert_eq!(self.chance_finds(index, disk, seed), 0, "seed {seed}");
    }

    /// All that is wanted is found, newest first; tells how much is found that is not.
    fn chance_finds(&self, index: &mut Index, disk: &Disk, seed: u64) -> usize {
        let all: BTreeSet<u32> = self.records.values().flatten().copied().collect();
        let mut count = 0;
        for hash in all {
            let wanted = self.wanted(hash);
            let mut found = disk.ask(index, any_time(hash));
            count += found.len() - wanted.len().min(found.len());
            found.retain(|offset| wanted.contains(offset));
            assert_eq!(found, wanted, "seed {seed}, hash {hash}");
        }
        count
    }
}

#[test]
fn what_was_put_is_found_before_while_and_after_it_is_written() {
    let (mut behind, mut file_count) = (0, 0);
    for seed in 0..8 {
        let mut history = History::from_seed(seed);
        let mut disk = Disk::default();
        let mut index = Index::new(options(), PhysicalOffset(0));
        let mut waiting = None;
        for _ in 0..60 {
            let count = history.prng.below(100) as usize;
            history.append(count);
            history.dispatch(&mut index);
            match waiting.take() {
                None => waiting = index.flush(4096 + history.prng.below(8192) as usize),
                Some(_lost) if history.prng.chance(1, 4) => index.flushed(false),
                Some(op) => {
                    disk.put(op);
                    index.flushed(true);
                }
            }
        }
        file_count += index.files.len();
        history.compare(&mut index, &disk, seed);
        if let Some(op) = waiting {
            disk.put(op);
            index.flushed(true);
        }
        behind += usize::from(index.written() < index.dispatched());
        disk.flush(&mut index, 4096);
        assert_eq!(index.written(), index.dispatched());
        assert_eq!(index.held_size(), 0);
        let tables = index
            .files
            .iter()
            .filter(|file| file.table.is_some())
            .count();
        assert_eq!(tables, 1, "only the last file is in memory");
        history.compare(&mut index, &disk, seed);
        let mut loaded = disk.load(index.dispatched(), true);
        assert_eq!(
            (loaded.remove.len(), loaded.ignored.len()),
            (0, 0),
            "seed {seed}"
        );
        history.compare(&mut loaded.index, &disk, seed);
    }
    assert!(
        2 < behind && 16 < file_count,
        "{behind} behind, {file_count} files"
    );
}

/// Every write since the last sync survives or not, page by page, whatever page it is.
fn after_power_cut(synced: &Disk, written: &Disk, prng: &mut Prng) -> Disk {
    let mut survived = Disk::default();
    for (path, bytes) in &written.0 {
        let Some(old) = synced.0.get(path).cloned().or_else(|| {
            // A new file: not there, empty, or with its size.
            let len = if prng.chance(1, 2) { bytes.len() } else { 0 };
            prng.chance(2, 3).then(|| vec![0; len])
        }) else {
            continue;
        };
        let mut image = old;
        if image.len() == bytes.len() {
            for (to, from) in image.chunks_mut(512).zip(bytes.chunks(512)) {
                if prng.chance(1, 2) {
                    to.copy_from_slice(from);
                }
            }
        }
        survived.0.insert(path.clone(), image);
    }
    survived
}

#[test]
fn after_power_cuts_all_is_found_and_hardly_anything_else() {
    let (mut cuts, mut shortened, mut lowered, mut chance_finds) = (0, 0, 0, 0);
    for seed in 100..112 {
        let mut history = History::from_seed(seed);
        let mut disk = Disk::default();
        let mut index = Index::new(options(), PhysicalOffset(0));
        for _ in 0..12 {
            // Synced up to here …
            disk.flush(&mut index, usize::MAX >> 1);
            let (mut synced, mut mark) = (disk.clone(), index.written());
            // … and on from here.
            for _ in 0..history.prng.below(6) {
                let count = history.prng.below(150) as usize;
                history.append(count);
                history.dispatch(&mut index);
                for _ in 0..history.prng.below(4) {
                    if let Some(op) = index.flush(4096) {
                        disk.put(op);
                        index.flushed(true);
                    }
                }
                // A mark is taken between any two writes.
                if history.prng.chance(1, 3) {
                    (synced, mark) = (disk.clone(), index.written());
                }
            }
            let prng = &mut history.prng;
            disk = if prng.chance(1, 3) {
                disk
            } else {
                after_power_cut(&synced, &disk, prng)
            };
            // The log, too, loses a suffix, whose offsets are given again to other records.
            let log_end = history.records.range(mark..).map(|(offset, _)| *offset);
            let log_end = log_end.take(history.prng.below(40) as usize).last();
            let log_end = log_end.unwrap_or(PhysicalOffset(history.end.min(mark.0)));
            history.records.retain(|offset, _| *offset < log_end);
            history.end = log_end.0.max(mark.0);
            let loaded = disk.load(mark, false);
            index = loaded.index;
            assert!(index.dispatched() <= mark, "seed {seed}");
            // A file whose header did not survive held nothing below the mark, but that cannot be known.
            lowered += usize::from(index.dispatched() < mark && loaded.remove.is_empty());
            let last = index.files.last().and_then(|file| file.table.as_ref());
            shortened += usize::from(last.is_some_and(|table| table.header_changed));
            cuts += 1;
            history.dispatch(&mut index);
            chance_finds += history.chance_finds(&mut index, &disk, seed);
        }
        disk.flush(&mut index, 4096);
        let mut index = disk.load(index.dispatched(), true).index;
        chance_finds += history.chance_finds(&mut index, &disk, seed);
        let mut index = disk.load(index.dispatched(), false).index;
        chance_finds += history.chance_finds(&mut index, &disk, seed);
    }
    assert!(
        100 < cuts && 20 < shortened,
        "{cuts} cuts, {shortened} shortened a file"
    );
    assert!(
        lowered * 50 < cuts,
        "{lowered} of {cuts} cuts were taken for damage"
    );
    assert!(
        chance_finds < cuts,
        "{chance_finds} chance finds in {cuts} cuts"
    );
}

#[test]
fn damage_costs_a_second_dispatch_and_never_a_wrong_answer_or_a_circle() {
    let (mut lowered, mut removed) = (0, 0);
    for seed in 200..300 {
        let mut history = History::from_seed(seed);
        let mut disk = Disk::default();
        let mut index = Index::new(options(), PhysicalOffset(0));
        history.append(300 + (seed as usize % 7) * 200);
        history.dispatch(&mut index);
        disk.flush(&mut index, 1 << 20);
        let count = disk.0.len() as u64;
        let victim = history.prng.below(count) as usize;
        let bytes = disk.0.values_mut().nth(victim).expect("a file");
        let flips = 1 + history.prng.below(3) as usize;
        for _ in 0..flips {
            let region = [40, bytes.len() as u64][history.prng.below(2) as usize];
            let at = history.prng.below(region) as usize;
            bytes[at] ^= 1 << history.prng.below(8);
        }
        // A search in what is damaged ends, whatever it finds.
        for hash in 0..60 {
            let _ = disk.ask(&mut index, any_time(hash * 37));
        }
        let mut loaded = disk.load(index.dispatched(), false);
        lowered += usize::from(loaded.index.dispatched() < index.dispatched());
        removed += usize::from(!loaded.remove.is_empty());
        history.dispatch(&mut loaded.index);
        // Times in a header are believed; what is asked for here is not a question of time.
        for file in &mut loaded.index.files {
            (file.header.begin_ms, file.header.end_ms) = (0, i64::MAX);
        }
        // A file that is full and has a successor is believed, like each entry whose chain is whole:
        // entries have no checksum. So a flipped bit may cost an entry, but no more than its own.
        let rebuilt = victim as u64 + 1 == count || !loaded.remove.is_empty();
        let all: BTreeSet<u32> = history.records.values().flatten().copied().collect();
        let missing = |hash: u32| {
            let found = disk.ask(&mut loaded.index, any_time(hash));
            history
                .wanted(hash)
                .into_iter()
                .filter(|offset| !found.contains(offset))
                .count()
        };
        let missing: usize = all.into_iter().map(missing).sum();
        assert!(
            !rebuilt || missing <= flips,
            "seed {seed}: {missing} missing after {flips} flips"
        );
    }
    assert!(
        10 < lowered && 3 < removed,
        "{lowered} lowered, {removed} removed"
    );
}

#[test]
fn a_search_keeps_to_its_times_and_bounds() {
    let mut index = Index::new(options(), PhysicalOffset(0));
    for second in 0..10 {
        let at = PhysicalOffset(1000 * second);
        index.put(7, at, 5_000 + 1_000 * second as i64, WALL_MS);
        index.put(7 + SLOTS, at, 5_000 + 1_000 * second as i64, WALL_MS);
        index.put(7, at, 5_000 + 1_000 * second as i64, WALL_MS);
    }
    let disk = Disk::default();
    let mut ask = |begin_ms, end_ms, count_max, walk_max| {
        let want = Want {
            hash: 7,
            begin_ms,
            end_ms,
            count_max,
            walk_max,
        };
        let found = disk.ask(&mut index, want);
        found
            .iter()
            .map(|offset| offset.0 / 1000)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ask(0, i64::MAX, 100, 100),
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        "newest first"
    );
    assert_eq!(ask(7_000, 9_000, 100, 100), [4, 3, 2]);
    assert_eq!(
        ask(7_999, 9_000, 100, 100),
        [4, 3, 2],
        "within a second nothing is left out"
    );
    assert_eq!(ask(8_000, 8_999, 100, 100), [3]);
    assert_eq!(
        ask(14_001, i64::MAX, 100, 100),
        [0; 0],
        "the file ends before"
    );
    assert_eq!(
        ask(i64::MIN, 4_999, 100, 100),
        [0; 0],
        "the file begins later"
    );
    assert_eq!(ask(0, i64::MAX, 3, 100), [9, 8, 7]);
    assert_eq!(ask(0, i64::MAX, 100, 4), [9, 8]);
    assert_eq!(index.last(), Some((14_000, PhysicalOffset(9_000))));
}

#[test]
fn files_go_when_all_their_records_are_gone_but_the_last_one_stays() {
    let mut history = History::from_seed(1);
    let mut disk = Disk::default();
    let mut index = Index::new(options(), PhysicalOffset(0));
    assert!(
        index.flush(4096).is_none() && index.files().count() == 0,
        "nothing is made ahead"
    );
    history.append(3_000);
    history.dispatch(&mut index);
    disk.flush(&mut index, 1 << 20);
    let paths: Vec<_> = index.files().map(|file| file.path).collect();
    assert_eq!(paths, disk.0.keys().cloned().collect::<Vec<_>>());
    assert_eq!(paths[0], Path::new("index/20231114221320000"));
    assert_eq!(
        paths[1],
        Path::new("index/20231114221320001"),
        "no name twice"
    );
    assert_eq!(index.take_unsynced(), paths);
    assert_eq!(index.take_unsynced(), paths[..0]);
    let ends: Vec<_> = index.files().map(|file| file.end_offset).collect();
    assert_eq!(
        index.expire(ends[0]),
        paths[..0],
        "its last record is still there"
    );
    let busy = index.flush(4096);
    assert!(busy.is_none());
    assert_eq!(index.expire(PhysicalOffset(ends[1].0 + 1)), paths[..2]);
    assert_eq!(
        index.expire(PhysicalOffset(u64::MAX)),
        paths[2..paths.len() - 1]
    );
    assert_eq!(index.files().count(), 1);
}

#[test]
fn strangers_in_the_folder_are_left_alone_and_their_names_are_not_used() {
    let mut disk = Disk::default();
    for (name, len) in [
        ("20231114221320000", 7_000),
        ("20991231235959999", 0),
        ("notes.txt", 3),
    ] {
        disk.0
            .insert(PathBuf::from("index").join(name), vec![0; len]);
    }
    let mut loaded = disk.load(PhysicalOffset(5), true);
    assert_eq!(loaded.ignored, [PathBuf::from("index/20231114221320000")]);
    assert_eq!(loaded.remove, [PathBuf::from("index/20991231235959999")]);
    assert_eq!(loaded.index.dispatched(), PhysicalOffset(5));
    loaded.index.put(1, PhysicalOffset(5), 1, WALL_MS);
    let path = loaded.index.files().next().map(|file| file.path);
    assert_eq!(path, Some(PathBuf::from("index/20991231235960000")));
}

#[test]
fn a_header_tells_of_no_more_than_what_is_written_with_it() {
    let mut disk = Disk::default();
    let mut index = Index::new(options(), PhysicalOffset(0));
    for number in 0..1_000 {
        // A slot for each, so that there are more of them than entries in the first write.
        index.put(number, PhysicalOffset(u64::from(number)), 1, WALL_MS);
    }
    index.dispatched = PhysicalOffset(1_000);
    disk.put(index.flush(4096).expect("there is something to write"));
    index.flushed(true);
    let mark = index.written();
    assert_eq!(
        mark,
        PhysicalOffset(204),
        "as many entries as a page has room for"
    );
    let loaded = disk.load(mark, false);
    assert_eq!(loaded.index.dispatched(), mark);
    assert_eq!(
        loaded
            .index
            .files()
            .map(|file| file.entry_count)
            .collect::<Vec<_>>(),
        [204]
    );
}

#[test]
fn a_file_ends_with_its_room_and_a_large_one_when_its_slots_are_used() {
    let last_of = |slot_count, entry_count| {
        let options = Options {
            slot_count,
            entry_count,
            ..options()
        };
        let is_full = |used: &u32| {
            let next_number = used + 1;
            options.is_full(&Header {
                next_number,
                ..Header::EMPTY
            })
        };
        let all: Vec<u32> = (0..32).map(|bit| 1u32 << bit).collect();
        let near = all.iter().flat_map(|used| [used - 1, *used]);
        let more = [1_199, 1_200, 4_999_999, 5_000_000];
        let mut tried: Vec<u32> = near.chain(more).collect();
        tried.sort_unstable();
        let full: Vec<bool> = tried.iter().map(is_full).collect();
        assert!(full.is_sorted(), "a file that is full stays so");
        tried[full.iter().position(|full| *full).expect("once full")]
    };
    assert_eq!(last_of(5_000_000, 20_000_000), 5_000_000, "as it is set up");
    assert_eq!(last_of(2_500, 1_200), 1_199, "entry 0 is never used");
    assert_eq!(last_of(100, 20_000_000), 1 << 20);
}

#[test]
fn a_file_that_is_full_is_kept_until_its_last_write_has_succeeded() {
    let mut disk = Disk::default();
    let mut index = Index::new(options(), PhysicalOffset(0));
    for number in 1..ENTRIES {
        index.put(number * 2, PhysicalOffset(u64::from(number)), 1, WALL_MS);
    }
    // Room for entries only, so that slots remain when all entries are written.
    while 0 < index.held_size() {
        disk.put(index.flush(4100).expect("entries wait"));
        index.flushed(true);
    }
    let lost = index.flush(4100);
    assert!(lost.is_some(), "slots remain");
    index.put(0, PhysicalOffset(u64::from(ENTRIES)), 1, WALL_MS);
    index.flushed(false);
    disk.flush(&mut index, 4100);
    for number in 1..ENTRIES {
        let found = disk.ask(&mut index, any_time(number * 2));
        assert_eq!(found, [PhysicalOffset(u64::from(number))]);
    }
}

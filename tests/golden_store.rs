//! The promise: what Apache RocketMQ 5.5.0 has stored, we read, and from the same log we make its IndexFile.
//!
//! The store is one that a stock broker wrote for clients of six kinds: batches, tags, keys, compressed
//! bodies, delays, transactions, retries, POP. `tar` and `xz` unpack it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use corelane::base::PhysicalOffset;
use corelane::index::index_file::{
    Index, Load, LoadStep, Options, Query, Step, Want, key_hash, tag_hash,
};
use corelane::io::{Name, Op};
use corelane::log::record::{Draft, Properties, Record, Verdict, check, parse, sys_flag};

const SEGMENT_SIZE: u64 = 16 << 20;
const UNIT_SIZE: usize = 20;
/// The broker's `messageDelayLevel`, in seconds.
const DELAY_SECONDS: [i64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

struct Store {
    folder: tempfile::TempDir,
    segments: BTreeMap<u64, Vec<u8>>,
}

fn store() -> Store {
    let archive = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/store-apache-5.5.0.tar.xz"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unpacked = Command::new("tar")
        .arg("-xJf")
        .arg(archive)
        .arg("-C")
        .arg(folder.path())
        .status();
    let unpacked = unpacked.expect("the program tar is needed (and xz behind it)");
    assert!(
        unpacked.success(),
        "tar cannot unpack {archive}; is xz installed?"
    );
    let mut segments = BTreeMap::new();
    for path in paths_in(&folder.path().join("commitlog")) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let bytes = fs::read(&path).expect("a segment");
        assert_eq!(bytes.len() as u64, SEGMENT_SIZE);
        segments.insert(name.parse().expect("a number"), bytes);
    }
    Store { folder, segments }
}

fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

impl Store {
    /// Every record of the log, in order.
    fn records(&self) -> Vec<(Record<'_>, &[u8])> {
        let mut records = Vec::new();
        for (start, bytes) in &self.segments {
            let mut at = 0;
            while at < bytes.len() {
                let offset = PhysicalOffset(start + at as u64);
                match check(&bytes[at..], offset, false) {
                    Verdict::Record(record) => {
                        let end = at + record.size as usize;
                        records.push((record, &bytes[at..end]));
                        at = end;
                    }
                    Verdict::Blank { len } => at += len as usize,
                    Verdict::End => break,
                    other => panic!("at {offset}: {other:?}"),
                }
            }
            let rest = bytes[at..].iter().position(|byte| *byte != 0);
            assert_eq!(
                rest, None,
                "something lies behind the end at {start} + {at}"
            );
        }
        records
    }

    fn record_at(&self, offset: u64) -> Record<'_> {
        let (start, bytes) = self
            .segments
            .range(..=offset)
            .next_back()
            .expect("a segment");
        parse(&bytes[(offset - start) as usize..]).expect("a record")
    }
}

#[test]
fn every_record_of_apaches_log_is_read_and_checked() {
    let store = store();
    let records = store.records();
    assert!(300 < records.len(), "only {} records", records.len());
    let mut kinds = BTreeMap::<i32, usize>::new();
    for (record, _) in &records {
        *kinds.entry(record.transaction_type()).or_default() += 1;
    }
    assert!(
        kinds.contains_key(&sys_flag::TRANSACTION_COMMIT),
        "{kinds:?}"
    );
    assert!(
        records
            .iter()
            .any(|(record, _)| record.sys_flag & sys_flag::COMPRESSED != 0)
    );
    assert!(
        records
            .iter()
            .any(|(record, _)| record.topic == "SCHEDULE_TOPIC_XXXX")
    );
}

#[test]
fn what_apache_has_stored_we_store_alike_but_for_the_trailer() {
    let store = store();
    for (record, stored) in store.records() {
        let draft = Draft {
            queue_id: record.queue_id,
            flag: record.flag,
            queue_offset: record.queue_offset,
            sys_flag: record.sys_flag,
            born_ms: record.born_ms,
            born_host: record.born_host,
            store_ms: record.store_ms,
            store_host: record.store_host,
            reconsume_times: record.reconsume_times,
            prepared_offset: record.prepared_offset,
            body: record.body,
            topic: record.topic,
            properties: Properties::new(record.properties, &[]),
        };
        let mut bytes = Vec::new();
        draft.encode(record.physical_offset, &mut bytes);
        let properties_at = stored.len() - record.properties.len();
        let same = (4..properties_at - 2).chain(properties_at..stored.len());
        let wrong = same.into_iter().find(|at| bytes[*at] != stored[*at]);
        assert_eq!(
            wrong, None,
            "first wrong byte of the record at {}",
            record.physical_offset
        );
        let verdict = check(&bytes, record.physical_offset, true);
        assert!(matches!(verdict, Verdict::Record(_)), "{verdict:?}");
    }
}

#[test]
fn every_unit_of_a_consume_queue_names_its_record() {
    let store = store();
    let mut units = BTreeMap::<(String, i32, u64), u64>::new();
    for topic in paths_in(&store.folder.path().join("consumequeue")) {
        for queue in paths_in(&topic) {
            for file in paths_in(&queue) {
                read_units(&store, &topic, &queue, &file, &mut units);
            }
        }
    }
    let mut dispatched = 0;
    for (record, _) in store.records() {
        let kind = record.transaction_type();
        if kind == sys_flag::TRANSACTION_PREPARED || kind == sys_flag::TRANSACTION_ROLLBACK {
            continue;
        }
        dispatched += 1;
        let key = (
            record.topic.to_owned(),
            record.queue_id,
            record.queue_offset,
        );
        assert_eq!(
            units.remove(&key),
            Some(record.physical_offset.0),
            "no unit for {key:?}"
        );
    }
    assert_eq!(units, BTreeMap::new(), "units without a record");
    assert!(300 < dispatched);
}

fn read_units(
    store: &Store,
    topic: &Path,
    queue: &Path,
    file: &Path,
    units: &mut BTreeMap<(String, i32, u64), u64>,
) {
    let name = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .expect("UTF-8")
            .to_owned()
    };
    let queue_id: i32 = name(queue).parse().expect("a queue");
    let start: u64 = name(file).parse().expect("a number");
    let bytes = fs::read(file).expect("a ConsumeQueue");
    for (index, unit) in bytes.chunks_exact(UNIT_SIZE).enumerate() {
        let offset = u64::from_be_bytes(unit[..8].try_into().expect("8 bytes"));
        let size = u32::from_be_bytes(unit[8..12].try_into().expect("4 bytes"));
        let tags_code = i64::from_be_bytes(unit[12..].try_into().expect("8 bytes"));
        if size == 0 || size == i32::MAX as u32 {
            continue;
        }
        let record = store.record_at(offset);
        let queue_offset = start / UNIT_SIZE as u64 + index as u64;
        assert_eq!(
            (record.size, record.queue_offset),
            (size, queue_offset),
            "{}",
            file.display()
        );
        assert_eq!(
            (record.topic, record.queue_id),
            (name(topic).as_str(), queue_id)
        );
        let wanted = if record.topic == "SCHEDULE_TOPIC_XXXX" {
            record.store_ms + 1000 * DELAY_SECONDS[queue_id as usize]
        } else {
            record.tags_code()
        };
        assert_eq!(
            tags_code,
            wanted,
            "tags code in {} at {queue_offset}",
            file.display()
        );
        let twice = units.insert((record.topic.to_owned(), queue_id, queue_offset), offset);
        assert_eq!(twice, None);
    }
}

fn options(folder: &Path) -> Options {
    Options {
        folder: folder.to_owned(),
        slot_count: 1_000,
        entry_count: 4_000,
    }
}

/// Puts a write into a folder as the seam would.
fn put(op: Op) -> PathBuf {
    let Op::Put { path, size, pieces } = op else {
        panic!("an index only puts: {op:?}");
    };
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let mut bytes = fs::read(&path).unwrap_or_default();
    bytes.resize(bytes.len().max(size as usize), 0);
    for (at, piece) in pieces {
        bytes[at as usize..at as usize + piece.len()].copy_from_slice(&piece);
    }
    fs::write(&path, bytes).expect("written");
    path
}

fn get(path: &Path, at: u64, len: u64) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_default();
    let end = bytes.len().min((at + len) as usize);
    bytes[end.min(at as usize)..end].to_vec()
}

fn load(folder: &Path, dispatched: u64, clean: bool) -> corelane::index::index_file::Loaded {
    let names: Vec<Name> = paths_in(folder)
        .iter()
        .map(|path| Name {
            name: path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("UTF-8")
                .to_owned(),
            size: fs::metadata(path).expect("a file").len(),
            is_folder: false,
            modified_ms: 0,
        })
        .collect();
    let (mut load, mut step) =
        Load::start(options(folder), &names, PhysicalOffset(dispatched), clean);
    for _ in 0..100 {
        match step {
            LoadStep::Get { path, at, len } => step = load.resume(&get(&path, at, len)),
            LoadStep::Done(loaded) => return *loaded,
        }
    }
    panic!("loading does not end");
}

fn ask(index: &mut Index, want: Want) -> Vec<PhysicalOffset> {
    let (mut query, mut step) = Query::start(index, want);
    for _ in 0..10_000 {
        match step {
            Step::Get { path, at, len } => step = query.resume(index, &get(&path, at, len)),
            Step::Done(found) => return found,
        }
    }
    panic!("the search does not end");
}

fn first_difference(ours: &[u8], apaches: &[u8]) -> Option<usize> {
    assert_eq!(ours.len(), apaches.len());
    (0..ours.len()).find(|at| ours[*at] != apaches[*at])
}

#[test]
fn the_index_file_made_from_the_log_is_apaches_to_the_byte() {
    let store = store();
    let apaches = paths_in(&store.folder.path().join("index"));
    assert_eq!(apaches.len(), 1);
    let apaches = fs::read(&apaches[0]).expect("an IndexFile");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut index = Index::new(options(folder.path()), PhysicalOffset(0));
    let mut paths = Vec::new();
    for (count, (record, _)) in store.records().iter().enumerate() {
        index.dispatch(record, 1_800_000_000_000);
        // Now and then, so that pages are written more than once.
        if count % 100 == 0 {
            paths.extend(index.flush(4096).map(put));
            index.flushed(true);
        }
    }
    while let Some(op) = index.flush(4096) {
        paths.push(put(op));
        index.flushed(true);
    }
    paths.dedup();
    assert_eq!(paths.len(), 1, "one file holds all");
    let ours = fs::read(&paths[0]).expect("our IndexFile");
    assert_eq!(first_difference(&ours, &apaches), None, "first wrong byte");
}

#[test]
fn apaches_index_file_is_taken_over_cut_back_and_made_whole_again() {
    let store = store();
    let folder = store.folder.path().join("index");
    let path = paths_in(&folder).remove(0);
    let apaches = fs::read(&path).expect("an IndexFile");
    let records = store.records();
    let (last, _) = records.last().expect("records");
    let end = last.physical_offset.0 + u64::from(last.size);

    let loaded = load(&folder, end, true);
    assert_eq!((loaded.remove.len(), loaded.ignored.len()), (0, 0));
    let mut index = loaded.index;
    assert!(
        index.flush(1 << 20).is_none(),
        "nothing is to be changed after a clean stop"
    );

    for half in [records.len() / 2, records.len() - 1, 7] {
        let mark = records[half].0.physical_offset;
        index = load(&folder, mark.0, false).index;
        assert_eq!(index.dispatched(), mark, "nothing below the mark is lost");
        while let Some(op) = index.flush(1 << 20) {
            put(op);
            index.flushed(true);
        }
        let known = index.files().next().expect("one file");
        assert!(known.end_offset < mark);
        for (record, _) in &records {
            index.dispatch(record, 0);
        }
        while let Some(op) = index.flush(1 << 20) {
            assert_eq!(put(op), path, "the same file goes on");
            index.flushed(true);
        }
        let ours = fs::read(&path).expect("our IndexFile");
        assert_eq!(
            first_difference(&ours, &apaches),
            None,
            "first wrong byte after a cut at {mark}"
        );
    }
}

#[test]
fn every_key_leads_to_its_record() {
    let store = store();
    let mut loaded = load(&store.folder.path().join("index"), u64::MAX, true);
    let mut asked = 0;
    for (record, _) in store.records() {
        if record.transaction_type() == sys_flag::TRANSACTION_ROLLBACK {
            continue;
        }
        let keys = record
            .property("KEYS")
            .unwrap_or_default()
            .split(' ')
            .filter(|key| !key.is_empty());
        let keys = keys
            .chain(record.property("UNIQ_KEY"))
            .map(|key| key_hash(record.topic, key));
        let tag = record
            .property("TAGS")
            .map(|tag| tag_hash(record.topic, tag));
        for hash in keys.chain(tag) {
            let want = Want {
                hash,
                begin_ms: record.store_ms,
                end_ms: record.store_ms,
                count_max: 10_000,
                walk_max: 10_000,
            };
            let found = ask(&mut loaded.index, want);
            assert!(
                found.contains(&record.physical_offset),
                "{} {hash}",
                record.physical_offset
            );
            asked += 1;
        }
    }
    assert!(1_000 < asked, "only {asked} keys");
}

//! What IndexFiles cost: an entry put, written, and looked up, in a fresh file and in one that is nearly full.
//!
//! `cargo bench --bench index`; with `SMOKE=1` small files only, to see that it works.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::door::ring;
use common::{Study, cost, folder, smoke_passed, tiny_or};
use corelane::base::{PhysicalOffset, Prng};
use corelane::index::Index;
use corelane::index::index_file::{Options, Query, Step, Want, key_hash};
use corelane::io::{Completion, Io, Op, Payload, Token, Uring};

/// Bytes of entries that wait at most, and of one write: as the broker has them.
const PIECE: usize = 1 << 20;

/// Entries of a round.
const ROUND: usize = 50_000;

fn main() {
    let folder = folder();
    let mut io = ring(Vec::new());
    let options = |name: &str| {
        let apache = Options::new(folder.path().join(name));
        Options {
            slot_count: tiny_or(500, apache.slot_count),
            entry_count: tiny_or(2_500, apache.entry_count),
            ..apache
        }
    };
    // Room for the rounds is left, so that the full file stays the last one.
    let full_count = tiny_or(
        2_000,
        (options("").entry_count as usize).saturating_sub(12 * ROUND),
    );
    let mut full = World::new(options("full"));
    full.fill(&mut io, full_count);
    let rows = [
        "fresh file".to_owned(),
        format!("file with {full_count} entries"),
    ];
    let mut round = 0;
    let study = Study::measure(&rows, &["a round"], |row, _| {
        if row == 1 {
            return full.sample(&mut io);
        }
        round += 1;
        let options = options(&format!("fresh-{round}"));
        let folder = options.folder.clone();
        let figures = World::new(options).sample(&mut io);
        remove(&folder);
        figures
    });
    study.print_plain("index: ns to put an entry", "into", 0);
    study.print_plain("index: wall µs to write an entry in its turn", "of", 1);
    study.print_plain("index: µs to look a key up that one record has", "in", 2);
    study.print_plain("index: reads of the file for it", "in", 3);
    smoke_passed(
        "index",
        "what was put is found, in a fresh file and in one that is nearly full",
    );
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("the files can be removed");
}

struct World {
    index: Index,
    count: u64,
    prng: Prng,
}

impl World {
    fn new(options: Options) -> Self {
        Self {
            index: Index::new(options, PhysicalOffset(0)),
            count: 0,
            prng: Prng::from_seed(3),
        }
    }

    /// Keys are numbers, a record each.
    fn hash(number: u64) -> u32 {
        key_hash("topic", &format!("order-{number}"))
    }

    fn put(&mut self, count: usize) {
        for _ in 0..count {
            let offset = PhysicalOffset(self.count * 100);
            self.index.put(
                Self::hash(self.count),
                offset,
                1_700_000_000_000,
                1_700_000_000_000,
            );
            self.count += 1;
        }
    }

    fn write(&mut self, io: &mut Uring) {
        while let Some(op) = self.index.flush(PIECE) {
            let result = run(io, op).result;
            self.index.flushed(result.is_ok());
            assert!(result.is_ok(), "{result:?}");
        }
    }

    fn fill(&mut self, io: &mut Uring, count: usize) {
        while (self.count as usize) < count {
            self.put((count - self.count as usize).min(500_000));
            self.write(io);
        }
    }

    fn sample(&mut self, io: &mut Uring) -> [f64; 4] {
        let count = tiny_or(20, ROUND);
        // Hashing the key is not of the index.
        let hashes: Vec<u32> = (self.count..).take(count).map(Self::hash).collect();
        let first = self.count;
        let put = cost(|| {
            for hash in hashes {
                let offset = PhysicalOffset(self.count * 100);
                self.index
                    .put(hash, offset, 1_700_000_000_000, 1_700_000_000_000);
                self.count += 1;
            }
        });
        let written = cost(|| self.write(io));
        let times = tiny_or(20, 1_000);
        let mut reads = 0;
        let mut seen = BTreeSet::new();
        let looked = cost(|| {
            for _ in 0..times {
                let number = self.prng.below(self.count);
                let found = self.look_up(io, number, &mut reads);
                assert!(
                    found.contains(&PhysicalOffset(number * 100)),
                    "key {number}"
                );
                seen.insert(number);
            }
        });
        assert!(seen.iter().any(|number| first <= *number) || times < self.count as usize);
        [
            put.each(count).wall_ns,
            written.each(count).wall_ns / 1e3,
            looked.each(times).wall_ns / 1e3,
            f64::from(reads) / times as f64,
        ]
    }

    fn look_up(&mut self, io: &mut Uring, number: u64, reads: &mut u32) -> Vec<PhysicalOffset> {
        let want = Want {
            hash: Self::hash(number),
            begin_ms: 0,
            end_ms: i64::MAX,
            count_max: 64,
            walk_max: 1_000_000,
        };
        let (mut query, mut step) = Query::start(&mut self.index, want);
        loop {
            match step {
                Step::Done(found) => return found,
                Step::Get { path, at, len } => {
                    *reads += 1;
                    let Payload::Buffer(bytes) = run(io, Op::Get { path, at, len }).payload else {
                        panic!("a get brings bytes")
                    };
                    step = query.resume(&self.index, &bytes);
                }
            }
        }
    }
}

fn run(io: &mut Uring, op: Op) -> Completion {
    assert!(io.push(Token(1), op).is_ok(), "the ring is empty");
    let mut done = Vec::new();
    while done.is_empty() {
        io.turn(1_000_000_000, &mut done).expect("the ring works");
    }
    done.remove(0)
}

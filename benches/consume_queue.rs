//! What ConsumeQueues cost, by their number: memory, a unit put, a range looked up, the files of a
//! checkpoint, and finding all of it again at the next start.
//!
//! `cargo bench --bench consume_queue`; with `SMOKE=1` few queues only, to see that it works.

mod common;

use std::path::{Path, PathBuf};

use common::allocations::{Counting, live_bytes};
use common::door::ring;
use common::{Study, cost, folder, is_smoke, right, show, smoke_passed, table, tiny_or};
use corelane::base::{PhysicalOffset, Prng, QueueId, QueueOffset};
use corelane::index::{Look, QueueIndex, Queues, Unit};
use corelane::io::{Completion, Io, Op, Token, Uring};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const QUEUES_PER_TOPIC: u32 = 8;
/// Bytes of a file: Apache's 300,000 units.
const FILE_SIZE: u64 = 6_000_000;
const RECORD_SIZE: u64 = 1024;

fn main() {
    let counts: &[u32] = tiny_or(&[8, 80], &[8, 1_000, 80_000]);
    let folder = folder();
    let mut io = ring(Vec::new());
    let mut worlds: Vec<World> = counts
        .iter()
        .map(|count| World::new(&folder.path().join(count.to_string()), *count))
        .collect();
    let rows: Vec<String> = counts
        .iter()
        .map(|count| format!("{count} queues"))
        .collect();
    let study = Study::measure(&rows, &["ns"], |row, _| worlds[row].sample());
    study.print_plain("consume_queue: to find a queue by its name", "of", 0);
    study.print_plain(
        "consume_queue: to put one unit into a random queue",
        "of",
        1,
    );
    study.print_plain(
        "consume_queue: to look up the last 32 units of a random queue",
        "of",
        2,
    );
    let mut lines = table(
        [
            "queues",
            "bytes each, empty",
            "with a unit",
            "with all the units put here",
            "µs a queue, first files",
            "next checkpoint",
            "start",
        ]
        .into_iter(),
    );
    for world in &mut worlds {
        lines.add_row(right(world.life(&mut io)));
    }
    if !is_smoke() {
        println!("\nconsume_queue: memory and files\n{lines}");
    }
    smoke_passed(
        "consume_queue",
        "units are found in memory, in files and after a start",
    );
}

/// Queues, and what is in them.
struct World {
    folder: PathBuf,
    queues: Queues,
    indexes: Vec<QueueIndex>,
    names: Vec<String>,
    prng: Prng,
    end: u64,
    bytes_empty: u64,
    bytes_one: u64,
    before: u64,
}

impl World {
    fn new(folder: &Path, count: u32) -> Self {
        let names: Vec<String> = (0..count / QUEUES_PER_TOPIC)
            .map(|topic| format!("topic-{topic:05}"))
            .collect();
        let before = live_bytes();
        let mut queues = Queues::new(folder, FILE_SIZE);
        let mut indexes = Vec::with_capacity(count as usize);
        let listed = indexes.capacity() * size_of::<QueueIndex>();
        for name in &names {
            let make = |queue| queues.find_or_make(name, QueueId(queue));
            indexes.extend((0..QUEUES_PER_TOPIC).map(make));
        }
        let mut world = Self {
            folder: folder.to_owned(),
            queues,
            indexes,
            names,
            prng: Prng::from_seed(1),
            end: 0,
            bytes_empty: live_bytes() - before - listed as u64,
            bytes_one: 0,
            before: before + listed as u64,
        };
        for index in world.indexes.clone() {
            world.put(index);
        }
        world.bytes_one = live_bytes() - world.before;
        world
    }

    fn put(&mut self, index: QueueIndex) {
        let unit = Unit {
            offset: PhysicalOffset(self.end),
            size: RECORD_SIZE as u32,
            tags_code: 7,
        };
        self.end += RECORD_SIZE;
        self.queues.queue_mut(index).assign(1);
        self.queues.push(index, unit, 1);
    }

    fn random(&mut self) -> QueueIndex {
        let at = self.prng.below(self.indexes.len() as u64);
        self.indexes[at as usize]
    }

    fn sample(&mut self) -> [f64; 3] {
        let times = tiny_or(100, 20_000);
        let found = cost(|| {
            for _ in 0..times {
                let at = self.prng.below(self.indexes.len() as u64) as usize;
                let (topic, queue) = (at / QUEUES_PER_TOPIC as usize, at as u32 % QUEUES_PER_TOPIC);
                let index = self.queues.find(&self.names[topic], QueueId(queue));
                assert_eq!(index, Some(self.indexes[at]));
            }
        });
        let put = cost(|| {
            for _ in 0..times {
                let index = self.random();
                self.put(index);
            }
        });
        let looked = cost(|| {
            for _ in 0..times {
                let index = self.random();
                let from = self.queues.queue(index).max().saturating_sub(32);
                let Look::Units(units) = self.queues.look(index, QueueOffset(from)) else {
                    panic!("the newest units are in memory")
                };
                assert!(Unit::decode(units).is_some());
            }
        });
        [found, put, looked].map(|cost| cost.each(times).wall_ns)
    }

    /// What it takes in memory, and its way to the disk and back.
    fn life(&mut self, io: &mut Uring) -> Vec<String> {
        let count = self.indexes.len();
        let bytes = [self.bytes_empty, self.bytes_one, live_bytes() - self.before];
        let mut line = vec![count.to_string()];
        line.extend(bytes.map(|bytes| show(bytes as f64 / count as f64)));
        let first = cost(|| self.flush_all(io));
        for index in self.indexes.clone() {
            self.put(index);
        }
        let next = cost(|| self.flush_all(io));
        let mut loaded = Queues::new(&self.folder, FILE_SIZE);
        let start = cost(|| {
            let damaged = loaded.load(io, self.end, 0).expect("the files can be read");
            assert_eq!(damaged, None);
        });
        self.check(&loaded);
        line.extend([first, next, start].map(|cost| show(cost.each(count).wall_ns / 1e3)));
        line
    }

    /// As a checkpoint does it.
    fn flush_all(&mut self, io: &mut Uring) {
        let mut done: Vec<Completion> = Vec::new();
        while !self.queues.unflushed(QueueIndex(0), 1).0.is_empty() {
            self.queues.flush(io, true, 32);
            while 0 < self.queues.in_flight() {
                io.turn(1_000_000_000, &mut done).expect("the ring works");
                for done in done.drain(..) {
                    self.queues.flushed(done.token, done.result);
                }
                self.queues.flush(io, true, 32);
            }
        }
        let paths = self.queues.take_unsynced();
        assert!(io.push(Token(1), Op::SyncPaths { paths }).is_ok());
        while done.is_empty() {
            io.turn(1_000_000_000, &mut done).expect("the ring works");
        }
        assert!(done[0].result.is_ok(), "{:?}", done[0].result);
    }

    fn check(&self, loaded: &Queues) {
        for (at, name) in self.names.iter().enumerate() {
            for queue in 0..QUEUES_PER_TOPIC {
                let index = self.indexes[at * QUEUES_PER_TOPIC as usize + queue as usize];
                let found = loaded
                    .find(name, QueueId(queue))
                    .expect("every queue is found");
                let (mine, found) = (self.queues.queue(index), loaded.queue(found));
                assert_eq!(
                    (mine.min(), mine.max()),
                    (found.min(), found.max()),
                    "{name} {queue}"
                );
            }
        }
    }
}

//! Finding the ConsumeQueues of a shard on disk. Many searches are under way at once, and most end with their
//! first read: a start with 80,000 queues should take seconds and not a minute.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::{Queues, ROOM};
use crate::base::QueueId;
use crate::index::consume_queue::{UNIT_SIZE, Unit};
use crate::io::{Completion, Errno, Io, Op, Payload, Token};
use crate::log::{file_name, parse_file_name};

/// Operations under way at once: enough that the thread which carries them out never waits for the next.
const UNDER_WAY_MAX: usize = 256;

/// Units that are read at once: a page of the file.
const WINDOW: u64 = 4096 / UNIT_SIZE;

/// What failed and where.
type Fault = (PathBuf, Errno);

impl Queues {
    /// Finds the queues on disk and cuts each back to units of records before `end`. Answers the folder of one
    /// that is damaged: where it was cut, such units follow. They are all in the files, up to there.
    ///
    /// # Errors
    /// A folder or file that cannot be read, with its path.
    pub fn load(
        &mut self,
        io: &mut impl Io,
        end: u64,
        first: u64,
    ) -> Result<Option<PathBuf>, (PathBuf, Errno)> {
        let mut root = vec![Listing::new(self.folder.clone())];
        run_all(io, &mut root)?;
        let topics = std::mem::take(&mut root[0].names);
        let folder = |topic: &String| Listing::new(self.folder.join(topic));
        let mut queues: Vec<Listing> = topics.iter().map(folder).collect();
        run_all(io, &mut queues)?;
        let mut searches = Vec::new();
        for (topic, queues) in topics.iter().zip(queues) {
            for name in queues.names {
                let Ok(queue_id) = name.parse::<u32>() else {
                    continue;
                };
                let folder = queues.folder.join(&name);
                let search = Search::new(folder, self.file_size, (end, first));
                searches.push((topic, QueueId(queue_id), search));
            }
        }
        run_all(io, &mut searches)?;
        let mut damaged = None;
        for (topic, queue_id, search) in searches {
            if let Some((min, max)) = search.found {
                self.make(topic, queue_id, min, max);
            }
            if search.is_damaged {
                damaged = Some(search.folder);
            }
        }
        Ok(damaged)
    }
}

/// Something that asks for one operation after another.
trait Asking {
    /// The next operation; `None` at the end.
    fn next(&self) -> Option<Op>;

    /// What came of it.
    fn take(&mut self, result: Result<Payload, Errno>) -> Result<(), Fault>;
}

/// Runs all to their ends, some at a time. After a fault nothing new is begun.
fn run_all<A: Asking>(io: &mut impl Io, all: &mut [A]) -> Result<(), Fault> {
    let mut waiting: VecDeque<usize> = (0..all.len()).collect();
    let mut under_way = 0;
    let mut fault = None;
    let mut done: Vec<Completion> = Vec::new();
    loop {
        while under_way < UNDER_WAY_MAX && fault.is_none() {
            let Some(at) = waiting.pop_front() else { break };
            let Some(op) = all[at].next() else { continue };
            let pushed = io.push(Token::of(ROOM, at as u64), op);
            assert!(pushed.is_ok(), "the ring is empty while a store is opened");
            under_way += 1;
        }
        if under_way == 0 {
            return fault.map_or(Ok(()), Err);
        }
        // An interrupted turn is no reason to give up; the operations complete in a later one.
        let _ = io.turn(1_000_000_000, &mut done);
        for done in done.drain(..) {
            let at = done.token.rest() as usize;
            under_way -= 1;
            match all[at].take(done.result.map(|_| done.payload)) {
                Ok(()) => waiting.push_front(at),
                Err(why) => fault = fault.or(Some(why)),
            }
        }
    }
}

/// The names in a folder.
struct Listing {
    folder: PathBuf,
    asked: bool,
    names: Vec<String>,
}

impl Listing {
    const fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            asked: false,
            names: Vec::new(),
        }
    }
}

impl Asking for Listing {
    fn next(&self) -> Option<Op> {
        let path = self.folder.clone();
        (!self.asked).then_some(Op::List { path })
    }

    fn take(&mut self, result: Result<Payload, Errno>) -> Result<(), Fault> {
        self.asked = true;
        self.names = names(result, &self.folder)?;
        Ok(())
    }
}

fn names(result: Result<Payload, Errno>, folder: &Path) -> Result<Vec<String>, Fault> {
    match result {
        Ok(Payload::Names(names)) => Ok(names.into_iter().map(|name| name.name).collect()),
        result => Err((folder.to_owned(), result.err().unwrap_or(Errno::EIO))),
    }
}

/// The search for where one queue begins and ends: `min..max` in units.
///
/// Units are written in order, so "is there, and before the end of the log" holds for a front part only; and
/// "its record is gone" holds for a front part of that.
struct Search {
    folder: PathBuf,
    file_size: u64,
    /// End of the log, and its first byte.
    log: (u64, u64),
    stage: Stage,
    /// What is searched lies in `low..=high`.
    low: u64,
    high: u64,
    /// First unit of the lowest file.
    lowest: u64,
    /// Known from the first window, if it lies in there.
    min: Option<u64>,
    found: Option<(u64, u64)>,
    /// Behind what was found there is more.
    is_damaged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The front of a file: of the first that a queue ever has, or of the lowest that it has.
    Front,
    /// Which files there are: to find the lowest, or the highest when a queue is longer than a window.
    Files {
        front_read: bool,
    },
    /// Halving.
    Max,
    Min {
        max: u64,
    },
    /// What stands behind the end of a queue that is longer than a window.
    Behind {
        max: u64,
    },
    Done,
}

impl Search {
    const fn new(folder: PathBuf, file_size: u64, log: (u64, u64)) -> Self {
        Self {
            folder,
            file_size,
            log,
            stage: Stage::Front,
            low: 0,
            high: 0,
            lowest: 0,
            min: None,
            found: None,
            is_damaged: false,
        }
    }

    fn is_before_end(&self, unit: Option<Unit>) -> bool {
        unit.is_some_and(|unit| unit.offset.0 < self.log.0)
    }

    /// A hole of ours has the physical offset of what follows and keeps the order; what Apache's broker puts
    /// in front of a queue that starts late has 0.
    fn is_gone(&self, unit: Option<Unit>) -> bool {
        let first = self.log.1;
        unit.is_none_or(|unit| unit.offset.0 < first || unit.is_hole() && unit.offset.0 == 0)
    }

    fn path_of(&self, unit: u64) -> (PathBuf, u64) {
        let at = unit * UNIT_SIZE;
        let file = at - at % self.file_size;
        (self.folder.join(file_name(file)), at - file)
    }

    /// The unit that is looked at next.
    const fn asked(&self) -> u64 {
        match self.stage {
            Stage::Front => self.lowest,
            Stage::Behind { max } => max,
            _ => self.low + (self.high - self.low) / 2,
        }
    }

    /// Units of the first read: no more than a file has.
    fn window(&self) -> u64 {
        WINDOW.min(self.file_size / UNIT_SIZE)
    }

    fn take_front(&mut self, bytes: &[u8]) {
        let units = bytes.chunks_exact(UNIT_SIZE as usize).map(Unit::decode);
        let mut units: Vec<Option<Unit>> = units.collect();
        let count = units.iter().take_while(|unit| self.is_before_end(**unit));
        let count = count.count();
        self.look_behind(&units[count..]);
        units.truncate(count);
        let gone = units.iter().take_while(|unit| self.is_gone(**unit)).count();
        let max = self.lowest + units.len() as u64;
        self.min = (gone < units.len()).then_some(self.lowest + gone as u64);
        self.low = max;
        if units.len() as u64 == self.window() {
            self.stage = Stage::Files { front_read: true };
        } else {
            self.end(self.min.unwrap_or(max), max);
        }
    }

    /// Units are written in order: where one is none, no other follows.
    fn look_behind(&mut self, units: &[Option<Unit>]) {
        self.is_damaged |= units.iter().any(|unit| self.is_before_end(*unit));
    }

    fn take_files(&mut self, names: &[String], front_read: bool) {
        let mut bases = names.iter().filter_map(|name| parse_file_name(name));
        let Some(lowest) = bases.next() else {
            // A folder without files is no queue.
            self.stage = Stage::Done;
            return;
        };
        let highest = bases.next_back().unwrap_or(lowest);
        if front_read {
            self.high = (highest + self.file_size) / UNIT_SIZE;
            self.stage = Stage::Max;
            self.look_if_halved();
        } else {
            self.lowest = lowest / UNIT_SIZE;
            self.stage = Stage::Front;
        }
    }

    fn take_unit(&mut self, unit: Option<Unit>) {
        let is_front = match self.stage {
            Stage::Max => self.is_before_end(unit),
            _ => self.is_gone(unit),
        };
        let middle = self.asked();
        if is_front {
            self.low = middle + 1;
        } else {
            self.high = middle;
        }
        self.look_if_halved();
    }

    /// Goes on where nothing is left to halve.
    fn look_if_halved(&mut self) {
        if self.low < self.high {
            return;
        }
        match (self.stage, self.min) {
            (Stage::Min { max }, _) => self.end(self.low, max),
            (_, Some(min)) => self.end(min, self.low),
            // Everything in the first window is gone.
            (_, None) => {
                let max = self.low;
                self.low = (self.lowest + self.window()).min(max);
                self.high = max;
                self.stage = Stage::Min { max };
                self.look_if_halved();
            }
        }
    }

    const fn end(&mut self, min: u64, max: u64) {
        self.found = Some((min, max));
        self.stage = match self.stage {
            Stage::Front => Stage::Done,
            _ => Stage::Behind { max },
        };
    }
}

impl<T> Asking for (T, QueueId, Search) {
    fn next(&self) -> Option<Op> {
        let search = &self.2;
        let len = match search.stage {
            Stage::Done => return None,
            Stage::Files { .. } => {
                let path = search.folder.clone();
                return Some(Op::List { path });
            }
            Stage::Front => search.window() * UNIT_SIZE,
            Stage::Max | Stage::Min { .. } => UNIT_SIZE,
            Stage::Behind { .. } => WINDOW * UNIT_SIZE,
        };
        let (path, at) = search.path_of(search.asked());
        let len = len.min(search.file_size - at);
        Some(Op::Get { path, at, len })
    }

    fn take(&mut self, result: Result<Payload, Errno>) -> Result<(), Fault> {
        let search = &mut self.2;
        if let Stage::Files { front_read } = search.stage {
            let names = names(result, &search.folder)?;
            search.take_files(&names, front_read);
            return Ok(());
        }
        let bytes = match result {
            Ok(Payload::Buffer(bytes)) => Some(bytes),
            Err(Errno::ENOENT) => None,
            result => {
                let (path, _) = search.path_of(search.asked());
                return Err((path, result.err().unwrap_or(Errno::EIO)));
            }
        };
        match (search.stage, bytes) {
            (Stage::Front, Some(bytes)) => search.take_front(&bytes),
            // Old files have gone, or there never was one.
            (Stage::Front, None) => search.stage = Stage::Files { front_read: false },
            (Stage::Behind { .. }, bytes) => {
                let bytes = bytes.unwrap_or_default();
                let units = bytes.chunks_exact(UNIT_SIZE as usize).map(Unit::decode);
                search.look_behind(&units.collect::<Vec<_>>());
                search.stage = Stage::Done;
            }
            (_, bytes) => search.take_unit(bytes.and_then(|bytes| Unit::decode(&bytes))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PhysicalOffset, Prng};
    use crate::log::run_one;
    use crate::sim::{Faults, Sim};

    /// Units of a file: more than a window, and less.
    const PER_FILE: [u64; 2] = [700, 10];

    fn put(io: &mut Sim, folder: &str, (per_file, file): (u64, u64), units: &[Unit]) {
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.encode()).collect();
        let size = per_file * UNIT_SIZE;
        let path = Path::new("/cq").join(folder).join(file_name(file * size));
        let op = Op::Put {
            path,
            size,
            pieces: vec![(0, bytes)],
        };
        assert!(run_one(io, op).result.is_ok());
    }

    /// A queue whose units lie 100 bytes apart in the log, from its lowest file on.
    fn put_queue(io: &mut Sim, folder: &str, per_file: u64, lowest_file: u64, max: u64) {
        for file in lowest_file..=max.saturating_sub(1) / per_file {
            let units = file * per_file..max.min((file + 1) * per_file);
            let units: Vec<Unit> = units
                .map(|at| Unit {
                    offset: PhysicalOffset(at * 100),
                    size: 100,
                    tags_code: 0,
                })
                .collect();
            put(io, folder, (per_file, file), &units);
        }
    }

    fn ends(seed: u64, per_file: u64) {
        let mut io = Sim::with_faults(seed, Faults::none());
        let mut prng = Prng::from_seed(seed);
        let mut wanted = Vec::new();
        let (first, end) = (prng.below(90_000), 90_000 + prng.below(90_000));
        for queue in 0..20 {
            let window = WINDOW.min(per_file);
            let lengths = [
                0,
                1,
                window - 1,
                window,
                window + 1,
                per_file - 1,
                per_file,
                per_file + 1,
            ];
            let max = match prng.below(9) as usize {
                8 => prng.below(2_500),
                at => lengths[at],
            };
            let lowest_file = prng.below(3).min(max.saturating_sub(1) / per_file);
            let folder = format!("t-{}/{queue}", queue % 7);
            put_queue(&mut io, &folder, per_file, lowest_file, max);
            let lowest = lowest_file * per_file;
            let max = max.min(end.div_ceil(100)).max(lowest);
            let min = first.div_ceil(100).clamp(lowest, max);
            wanted.push((format!("t-{}", queue % 7), QueueId(queue), min, max));
        }
        put(&mut io, "t-0/not a queue", (per_file, 0), &[]);
        let mut queues = Queues::new(Path::new("/cq"), per_file * UNIT_SIZE);
        let damaged = queues.load(&mut io, end, first).expect("all can be read");
        assert_eq!(damaged, None);
        assert_eq!(queues.iter().count(), wanted.len(), "seed {seed}");
        for (topic, queue_id, min, max) in wanted {
            let index = queues.find(&topic, queue_id).expect("a queue with a file");
            let found = (queues.queue(index).min(), queues.queue(index).max());
            assert_eq!(
                found,
                (min, max),
                "seed {seed}, {per_file} a file, {topic} {queue_id}"
            );
        }
    }

    #[test]
    fn queues_of_every_length_are_found_between_the_log_s_ends() {
        for seed in 0..20 {
            PER_FILE
                .into_iter()
                .for_each(|per_file| ends(seed, per_file));
        }
    }

    #[test]
    fn a_queue_that_goes_on_behind_a_unit_that_is_none_is_damaged() {
        // In the first window, behind it where halving begins, and at the end, where nothing follows.
        for (max, bad, damaged) in [(100, 40, true), (600, 452, true), (100, 99, false)] {
            let mut io = Sim::with_faults(1, Faults::none());
            put_queue(&mut io, "rot/3", PER_FILE[0], 0, max);
            let piece = (bad * UNIT_SIZE, vec![0; UNIT_SIZE as usize]);
            let op = Op::Put {
                path: Path::new("/cq/rot/3").join(file_name(0)),
                size: PER_FILE[0] * UNIT_SIZE,
                pieces: vec![piece],
            };
            assert!(run_one(&mut io, op).result.is_ok());
            let mut queues = Queues::new(Path::new("/cq"), PER_FILE[0] * UNIT_SIZE);
            let found = queues.load(&mut io, 1_000_000, 0).expect("all can be read");
            let folder = Path::new("/cq/rot/3").to_owned();
            assert_eq!(found, damaged.then_some(folder), "unit {bad} of {max}");
        }
    }

    #[test]
    fn what_apache_puts_in_front_of_a_late_queue_is_passed_over() {
        let mut io = Sim::with_faults(1, Faults::none());
        let hole = Unit {
            offset: PhysicalOffset(0),
            size: crate::index::HOLE_SIZE,
            tags_code: 0,
        };
        for (queue, holes) in [(0, 3), (1, 400)] {
            let mut units = vec![hole; holes];
            units.extend((0..50).map(|at| Unit {
                offset: PhysicalOffset(at * 100),
                size: 100,
                tags_code: 0,
            }));
            put(&mut io, &format!("late/{queue}"), (PER_FILE[0], 0), &units);
        }
        let mut queues = Queues::new(Path::new("/cq"), PER_FILE[0] * UNIT_SIZE);
        queues.load(&mut io, 1_000_000, 0).expect("all can be read");
        for (queue, holes) in [(0, 3), (1, 400)] {
            let index = queues.find("late", QueueId(queue)).expect("it is there");
            let found = (queues.queue(index).min(), queues.queue(index).max());
            assert_eq!(found, (holes, holes + 50));
        }
    }
}

//! One queue being read: where its reader is, and whether each record is the one that follows.

use crate::Load;
use crate::check::{self, Checker, Faults, Verdict};

/// Size of a record without body, topic and properties, both hosts IPv4.
const RECORD_SIZE_MIN: usize = 91;
const RECORD_MAGIC: [u32; 2] = [0xDAA3_20A7, 0xDAA3_20AB];
const BODY_SIZE_AT: usize = 84;

/// One queue being read.
pub struct Reader {
    /// Which of the readers' connections.
    pub connection: usize,
    pub group: u32,
    pub lane: u32,
    pub queue: u32,
    pub begin: u64,
    /// Where a pass ends; none follows the queue for ever.
    pub end: Option<u64>,
    pub offset: u64,
    pub generation: u32,
    pub opaque: u32,
    pub asked_ns: u64,
    /// When it may ask next.
    pub due_ns: u64,
    pub passes: u64,
    pub checker: Checker,
    faults: Faults,
}

impl Reader {
    /// Reads a lane of a load for a group, from one offset to another.
    pub fn new(
        load: &Load,
        group: u32,
        lane: u32,
        (begin, end): (u64, Option<u64>),
        joins_late: bool,
    ) -> Reader {
        let (topic, queue) = load.lane(lane);
        let place = check::place(&topic, queue);
        Reader {
            connection: 0,
            group,
            lane,
            queue,
            begin,
            end,
            offset: begin,
            generation: 0,
            opaque: 0,
            asked_ns: 0,
            due_ns: 0,
            passes: 0,
            checker: Checker::new(place, joins_late),
            faults: Faults::default(),
        }
    }

    /// Checks only messages of this run: others may send to the queue too.
    pub fn of_run(self, run: u64) -> Reader {
        Reader {
            checker: self.checker.of_run(run),
            ..self
        }
    }

    /// Walks the records of one answer; `seen` is told the run and intended time of good bodies.
    /// Returns their count.
    pub fn walk(
        &mut self,
        bytes: &[u8],
        looks_at_bodies: bool,
        seen: &mut impl FnMut(u64, u64),
    ) -> u64 {
        let mut rest = bytes;
        let mut count = 0;
        while !rest.is_empty() {
            let size = rest.get(..4).map_or(0, |size| {
                u32::from_be_bytes(size.try_into().expect("four bytes")) as usize
            });
            if size < RECORD_SIZE_MIN || rest.len() < size {
                // Where the next record begins is not known: the rest of the answer is lost to us.
                self.faults.corrupted += 1;
                break;
            }
            let (record, tail) = rest.split_at(size);
            self.place(record);
            // An answer may go on behind the end: what came there since is not of this pass.
            let is_within = self.end.is_none_or(|end| self.offset <= end);
            if looks_at_bodies && is_within {
                self.record(record, seen);
            }
            rest = tail;
            count += 1;
        }
        count
    }

    /// Checks that the record is the one that follows.
    fn place(&mut self, record: &[u8]) {
        let offset = u64::from_be_bytes(record[20..28].try_into().expect("eight bytes"));
        if offset < self.offset {
            self.faults.duplicated += 1;
            return;
        }
        // The next offset is what a reader goes on from, so a jump is a loss.
        self.faults.lost += (offset - self.offset).min(u64::from(u32::MAX));
        self.offset = offset.saturating_add(1);
    }

    fn record(&mut self, record: &[u8], seen: &mut impl FnMut(u64, u64)) {
        let word =
            |at: usize| u32::from_be_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let sys_flag = word(36);
        let body_size_at =
            BODY_SIZE_AT + 12 * (sys_flag >> 4 & 1) as usize + 12 * (sys_flag >> 5 & 1) as usize;
        let body = (body_size_at + 4 <= record.len())
            .then(|| {
                record
                    .get(body_size_at + 4..)?
                    .get(..word(body_size_at) as usize)
            })
            .flatten();
        let Some(body) = body.filter(|_| RECORD_MAGIC.contains(&word(4)) && word(12) == self.queue)
        else {
            self.faults.corrupted += 1;
            return;
        };
        if let Verdict::Good { run, intended_ns } = self.checker.body(body) {
            seen(run, intended_ns);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.begin)
    }

    pub fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| end <= self.offset)
    }

    /// Back to the first offset, all of a pass having been seen.
    pub fn begin_anew(&mut self, checks_bodies: bool) {
        self.offset = self.begin;
        if checks_bodies {
            let anew = self.checker.anew();
            let done = std::mem::replace(&mut self.checker, anew);
            self.faults.add(done.faults);
        }
    }

    pub fn faults(&self) -> Faults {
        let mut faults = self.faults;
        faults.add(self.checker.faults);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::FIELDS_SIZE;

    /// A record as a broker stores it, with a body of the generator's.
    fn record(queue: u32, offset: u64, stream: u32, sequence: u64) -> Vec<u8> {
        let padding = b"padding of a body";
        let mut body = padding.to_vec();
        let mut fields: [u8; FIELDS_SIZE] = check::blank_fields(7, check::place("bench", queue));
        check::seal(&mut fields, crc32fast::hash(padding), stream, sequence, 5);
        body.extend_from_slice(&fields);
        let mut record = vec![0; 88];
        record[4..8].copy_from_slice(&RECORD_MAGIC[0].to_be_bytes());
        record[12..16].copy_from_slice(&queue.to_be_bytes());
        record[20..28].copy_from_slice(&offset.to_be_bytes());
        record[84..88].copy_from_slice(&(body.len() as u32).to_be_bytes());
        record.extend_from_slice(&body);
        record.extend_from_slice(&[1, b't', 0, 0]);
        let size = record.len() as u32;
        record[..4].copy_from_slice(&size.to_be_bytes());
        record
    }

    fn faults_of(records: &[Vec<u8>]) -> (Faults, u64) {
        let load = crate::load_of("--addr 127.0.0.1:1");
        let mut reader = Reader::new(&load, 0, 3, (10, None), false);
        let mut good = 0;
        reader.walk(&records.concat(), true, &mut |run, intended| {
            assert_eq!((run, intended), (7, 5));
            good += 1;
        });
        (reader.faults(), good)
    }

    #[test]
    fn records_in_order_are_clean() {
        let records: Vec<_> = (0..4).map(|i| record(3, 10 + i, 1, i)).collect();
        assert_eq!(faults_of(&records), (Faults::default(), 4));
    }

    #[test]
    fn a_jump_of_the_queue_offset_and_of_the_sequence_are_losses() {
        let records = [record(3, 10, 1, 0), record(3, 12, 1, 1)];
        assert_eq!(
            faults_of(&records).0,
            Faults {
                lost: 1,
                ..Faults::default()
            }
        );
        let records = [record(3, 10, 1, 0), record(3, 11, 1, 2)];
        assert_eq!(
            faults_of(&records).0,
            Faults {
                lost: 1,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn a_repeated_offset_and_a_repeated_sequence_are_duplicates() {
        let records = [record(3, 10, 1, 0), record(3, 10, 1, 1)];
        assert_eq!(
            faults_of(&records).0,
            Faults {
                duplicated: 1,
                ..Faults::default()
            }
        );
        let records = [record(3, 10, 1, 0), record(3, 11, 1, 0)];
        assert_eq!(
            faults_of(&records).0,
            Faults {
                duplicated: 1,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn a_foreign_queue_a_bad_magic_a_flipped_body_and_a_lying_size_are_corruption() {
        let corrupted = Faults {
            corrupted: 1,
            ..Faults::default()
        };
        assert_eq!(faults_of(&[record(2, 10, 1, 0)]), (corrupted, 0));
        for at in [5, 100] {
            let mut bad = record(3, 10, 1, 0);
            bad[at] ^= 1;
            assert_eq!(faults_of(&[bad]), (corrupted, 0), "byte {at}");
        }
        for size in [0, 90, 1 << 20, u32::MAX] {
            let mut bad = record(3, 10, 1, 0);
            bad[..4].copy_from_slice(&size.to_be_bytes());
            assert_eq!(faults_of(&[bad]), (corrupted, 0), "size {size}");
        }
        let mut bad = record(3, 10, 1, 0);
        bad[84..88].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(faults_of(&[bad]), (corrupted, 0));
    }
}

//! What every message body carries so that a run can check itself, and the check.
//!
//! A body is padding, then these big-endian fields at its end: magic 4, run 8, stream 4,
//! sequence 8, intended send time 8 (CLOCK_MONOTONIC, ns), place 4 (of its topic and queue),
//! CRC-32 of all before 4.
//!
//! A stream is what one slot of a connection sends to one queue. A slot sends its next request only when the
//! last one was answered, so within a stream any right broker stores sequences in order, however
//! many threads it has, and a gap, a repeat or a step back is the broker's fault.

use std::collections::BTreeSet;

pub const FIELDS_SIZE: usize = 4 + 8 + 4 + 8 + 8 + 4 + 4;
const MAGIC: u32 = 0x4C4F_4145;
const STREAMS_MAX: u32 = 1 << 24;
/// Late sequences are told from repeats as long as no more than this many are missing.
const MISSING_MAX: usize = 1 << 20;

/// Where a message belongs: it is wrong on any other queue.
pub fn place(topic: &str, queue: u32) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(topic.as_bytes());
    crc.update(&queue.to_be_bytes());
    crc.finalize()
}

pub fn blank_fields(run: u64, place: u32) -> [u8; FIELDS_SIZE] {
    let mut fields = [0; FIELDS_SIZE];
    fields[..4].copy_from_slice(&MAGIC.to_be_bytes());
    fields[4..12].copy_from_slice(&run.to_be_bytes());
    fields[32..36].copy_from_slice(&place.to_be_bytes());
    fields
}

pub fn seal(
    fields: &mut [u8; FIELDS_SIZE],
    padding_crc: u32,
    stream: u32,
    sequence: u64,
    intended_ns: u64,
) {
    fields[12..16].copy_from_slice(&stream.to_be_bytes());
    fields[16..24].copy_from_slice(&sequence.to_be_bytes());
    fields[24..32].copy_from_slice(&intended_ns.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(padding_crc);
    crc.update(&fields[..36]);
    fields[36..40].copy_from_slice(&crc.finalize().to_be_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
pub fn sequence(body: &[u8]) -> u64 {
    u64_at(body, body.len() - FIELDS_SIZE + 16)
}

/// What is wrong with the messages read so far. All zero is the only good result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
}

impl Faults {
    pub fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
    }

    pub fn is_clean(&self) -> bool {
        *self == Faults::default()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Good {
        run: u64,
        intended_ns: u64,
    },
    /// Of another run, whose messages are not ours to judge; counted.
    Foreign,
    /// Not a body of ours, or not as it was sent; counted.
    Corrupted,
}

#[derive(Default)]
struct Stream {
    next: Option<u64>,
    missing: BTreeSet<u64>,
}

/// Follows the streams of one queue.
pub struct Checker {
    place: u32,
    /// Whether a stream may begin in its middle, because the reader does.
    joins_late: bool,
    /// The run whose messages are checked; none checks those of every run.
    only: Option<u64>,
    runs: Vec<(u64, Vec<Stream>)>,
    /// Messages of other runs than the only one.
    pub foreign: u64,
    pub faults: Faults,
}

impl Checker {
    pub fn new(place: u32, joins_late: bool) -> Checker {
        Checker {
            place,
            joins_late,
            only: None,
            runs: Vec::new(),
            foreign: 0,
            faults: Faults::default(),
        }
    }

    /// Checks only the messages of this run. Others may send to the same queue meanwhile: their
    /// streams begin before the reader does, and are theirs to check.
    pub fn of_run(self, run: u64) -> Checker {
        Checker {
            only: Some(run),
            ..self
        }
    }

    /// One that has seen nothing yet.
    pub fn anew(&self) -> Checker {
        Checker {
            only: self.only,
            ..Checker::new(self.place, self.joins_late)
        }
    }

    /// Checks one body.
    pub fn body(&mut self, body: &[u8]) -> Verdict {
        let intact = FIELDS_SIZE <= body.len()
            && crc32fast::hash(&body[..body.len() - 4]) == u32_at(body, body.len() - 4);
        let fields = &body[body.len().saturating_sub(FIELDS_SIZE)..];
        if !intact || u32_at(fields, 0) != MAGIC {
            self.faults.corrupted += 1;
            return Verdict::Corrupted;
        }
        let run = u64_at(fields, 4);
        if self.only.is_some_and(|only| only != run) {
            self.foreign += 1;
            return Verdict::Foreign;
        }
        if STREAMS_MAX <= u32_at(fields, 12) || u32_at(fields, 32) != self.place {
            self.faults.corrupted += 1;
            return Verdict::Corrupted;
        }
        self.advance(run, u32_at(fields, 12), u64_at(fields, 16));
        Verdict::Good {
            run,
            intended_ns: u64_at(fields, 24),
        }
    }

    fn stream(&mut self, run: u64, stream: u32) -> &mut Stream {
        let known = self.runs.iter().rposition(|(id, _)| *id == run);
        let at = known.unwrap_or_else(|| {
            self.runs.push((run, Vec::new()));
            self.runs.len() - 1
        });
        let streams = &mut self.runs[at].1;
        if streams.len() <= stream as usize {
            streams.resize_with(stream as usize + 1, Stream::default);
        }
        &mut streams[stream as usize]
    }

    fn advance(&mut self, run: u64, stream: u32, sequence: u64) {
        let joins_late = self.joins_late;
        let stream = self.stream(run, stream);
        let next = stream.next.unwrap_or(if joins_late { sequence } else { 0 });
        stream.next = Some(next.max(sequence + 1));
        if sequence < next {
            if stream.missing.remove(&sequence) {
                self.faults.lost -= 1;
                self.faults.reordered += 1;
            } else {
                self.faults.duplicated += 1;
            }
        } else if next < sequence {
            let room = MISSING_MAX.saturating_sub(stream.missing.len());
            stream.missing.extend((next..sequence).take(room));
            self.faults.lost += sequence - next;
        }
    }

    /// Messages of `run` that came, told by their streams: the next sequence of each.
    pub fn next_sequence(&mut self, run: u64, stream: u32) -> u64 {
        self.stream(run, stream).next.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(stream: u32, sequence: u64) -> Vec<u8> {
        message_of(1, stream, sequence)
    }

    fn message_of(run: u64, stream: u32, sequence: u64) -> Vec<u8> {
        let mut body = b"some padding".to_vec();
        let crc = crc32fast::hash(&body);
        let mut fields = blank_fields(run, 3);
        seal(&mut fields, crc, stream, sequence, 0);
        body.extend_from_slice(&fields);
        body
    }

    fn faults_of(sequences: &[u64]) -> Faults {
        let mut checker = Checker::new(3, false);
        for sequence in sequences {
            checker.body(&message(9, *sequence));
        }
        checker.faults
    }

    #[test]
    fn order_is_clean() {
        assert_eq!(faults_of(&[0, 1, 2, 3]), Faults::default());
    }

    #[test]
    fn a_gap_is_a_loss_at_the_front_too() {
        assert_eq!(
            faults_of(&[0, 1, 4]),
            Faults {
                lost: 2,
                ..Faults::default()
            }
        );
        assert_eq!(
            faults_of(&[3]),
            Faults {
                lost: 3,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn a_repeat_is_a_duplicate() {
        assert_eq!(
            faults_of(&[0, 1, 1, 0, 2]),
            Faults {
                duplicated: 2,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn what_comes_late_is_reordered_and_not_lost() {
        assert_eq!(
            faults_of(&[0, 2, 1, 3]),
            Faults {
                reordered: 1,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn each_flipped_bit_is_corruption() {
        let good = message(0, 0);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let mut checker = Checker::new(3, false);
            assert_eq!(checker.body(&bad), Verdict::Corrupted, "byte {at}");
            assert_eq!(checker.faults.corrupted, 1);
        }
        assert_eq!(Checker::new(3, false).body(&good[..20]), Verdict::Corrupted);
    }

    #[test]
    fn messages_of_another_run_are_passed_over_and_own_ones_judged() {
        let mut checker = Checker::new(3, false).of_run(1);
        assert_eq!(checker.body(&message_of(2, 9, 70)), Verdict::Foreign);
        for sequence in [0, 1, 1, 3] {
            checker.body(&message(9, sequence));
            checker.body(&message_of(2, 9, 70));
        }
        let wanted = Faults {
            lost: 1,
            duplicated: 1,
            ..Faults::default()
        };
        assert_eq!((checker.faults, checker.foreign), (wanted, 5));
        assert_eq!(checker.anew().body(&message_of(2, 9, 7)), Verdict::Foreign);
    }

    #[test]
    fn a_late_reader_takes_the_first_sequence_it_sees() {
        let mut checker = Checker::new(3, true);
        for sequence in [7, 8, 10] {
            checker.body(&message(0, sequence));
        }
        assert_eq!(
            checker.faults,
            Faults {
                lost: 1,
                ..Faults::default()
            }
        );
    }
}

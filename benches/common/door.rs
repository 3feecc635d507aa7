//! The real ring, and a CommitLog on it that a bench drives by itself.

use std::path::{Path, PathBuf};

use corelane::io::{Completion, Io, Lanes, Options as RingOptions, TcpListener, Uring};
use corelane::log::{CommitLog, NoRoom, Options, Segments, file_name};

/// A ring as a shard has it.
pub fn ring(listeners: Vec<TcpListener>) -> Uring {
    let lanes = Lanes::start().expect("two threads");
    Uring::new(RingOptions::SHARD, listeners, lanes).expect("io_uring is there")
}

/// A log that is appended to, and what its owner does for it: turns, and a horizon that counts as durable.
pub struct Driven {
    pub log: CommitLog,
    folder: PathBuf,
    done: Vec<Completion>,
}

impl Driven {
    /// A fresh log, prepared as far as its options say.
    pub fn open(io: &mut Uring, folder: &Path, options: Options) -> Self {
        let segments = Segments::new(folder.to_owned(), options.segment_size);
        let mut driven = Self {
            log: CommitLog::open(options, segments, 0, 0),
            folder: folder.to_owned(),
            done: Vec::new(),
        };
        driven.settle(io);
        driven
    }

    /// Pushes what is due and takes what has come; waits for it if `wait`.
    pub fn turn(&mut self, io: &mut Uring, wait: bool) {
        self.log.pump(io);
        let wait_ns = if wait { 1_000_000_000 } else { 0 };
        io.turn(wait_ns, &mut self.done).expect("the ring works");
        for done in self.done.drain(..) {
            self.log.complete(io, done);
        }
        assert_eq!(self.log.failed(), None);
        let horizon = self.log.horizon_next();
        self.log.horizon_is_durable(horizon);
    }

    /// Turns until nothing is under way.
    pub fn settle(&mut self, io: &mut Uring) {
        self.turn(io, false);
        self.log.pump(io);
        while 0 < self.log.in_flight() {
            self.turn(io, true);
            self.log.pump(io);
        }
    }

    /// Appends one record; waits where the log needs room.
    pub fn append(&mut self, io: &mut Uring, record: &[u8]) {
        loop {
            let now_ns = io.now_ns();
            let appended = self.log.append(record.len(), now_ns, |_, out| {
                out.buffer_mut().extend_from_slice(record)
            });
            match appended {
                Ok(_) => return,
                Err(NoRoom::Soon) => self.turn(io, true),
                Err(why) => panic!("{why:?}"),
            }
        }
    }

    /// Turns until what was appended up to `end` is written, or synced.
    pub fn wait(&mut self, io: &mut Uring, end: u64, synced: bool) {
        loop {
            let reached = if synced {
                self.log.synced()
            } else {
                self.log.written()
            };
            if end <= reached {
                return;
            }
            self.turn(io, true);
        }
    }

    /// The bytes of the first segment's file.
    pub fn first_file(&self) -> Vec<u8> {
        std::fs::read(self.folder.join(file_name(0))).expect("the segment is there")
    }
}

/// `count` records of about 1 KiB, one after another, told apart by their first bytes.
pub fn record(number: usize) -> Vec<u8> {
    let mut record = vec![number as u8; 1024];
    record[..8].copy_from_slice(&(number as u64).to_be_bytes());
    record
}

/// Checks that a file holds records `0..count` from its front on.
pub fn check_records(file: &[u8], count: usize) {
    for number in 0..count {
        let at = number * 1024;
        assert!(
            file[at..at + 1024] == record(number),
            "record {number} is not as it was appended"
        );
    }
}

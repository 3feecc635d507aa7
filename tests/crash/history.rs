//! One history: a workload over a log, the ends of its lives, and what is asserted after each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corelane::base::{PhysicalOffset, Prng};
use corelane::io::{Completion, Errno, Io, Op, Payload, Token, whole};
use corelane::log::record::{Draft, Properties, Record, TRAILER_SIZE};
use corelane::log::{
    self, Append, CommitLog, FlushPolicy, Found, Mark, Mutant, NoRoom, Options, Segments,
    open_segments, recover_mutant, run_one,
};
use corelane::sim::{Faults, Sim};
use corelane::state::checkpoint::{Checkpoint, Ours, decode, encode};

const FOLDER: &str = "/store/commitlog";
const CHECKPOINT: &str = "/store/checkpoint";
const SEGMENT_SIZE: u64 = 16 << 10;
const ROOM_OF_CHECKPOINT: u8 = 200;

/// What a history came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The promise that was broken.
    pub broken: Option<String>,
    pub trace: u64,
    pub cuts: u64,
    pub kills: u64,
    pub acknowledged: u64,
    /// Logs that an error stopped.
    pub failed_logs: u64,
    /// Records that were refused after their write had failed.
    pub refused: u64,
    /// Histories in which bits were flipped.
    pub rotten: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.failed_logs += other.failed_logs;
        self.refused += other.refused;
        self.rotten += other.rotten;
    }
}

/// A record that was appended in this history. Its id is in its body.
struct Sent {
    id: u64,
    bytes: Vec<u8>,
    /// Its producer was told that it is stored, in a life that still counts on the page cache.
    acknowledged: bool,
    /// It is durable for sure.
    durable: bool,
}

struct History {
    sim: Sim,
    prng: Prng,
    options: Options,
    /// What the log should hold, by physical offset.
    records: BTreeMap<u64, Sent>,
    /// Records whose write has failed: until the log goes on, nobody knows whether they are there.
    refused: BTreeMap<u64, Sent>,
    next_id: u64,
    equal_size: Option<usize>,
    faults: Faults,
    /// A bit was flipped behind this since the last recovery.
    rot: Option<u64>,
    generation: u64,
    outcome: Outcome,
}

/// One life: an opened log and the checkpoint as the broker keeps it.
struct Life {
    log: CommitLog,
    /// What the checkpoint under way says.
    writing: Option<u64>,
    last_synced: u64,
}

type Check<T = ()> = Result<T, String>;

/// Runs the history of a seed.
pub fn run(seed: u64, mutant: Mutant) -> Outcome {
    let mut history = History::new(seed, mutant);
    if let Err(broken) = history.live() {
        history.outcome.broken = Some(broken);
    }
    history.outcome.trace = history.sim.trace();
    // What is in flight at the end of a test belongs to nobody.
    history.sim.kill();
    history.outcome
}

impl History {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let mut prng = Prng::from_seed(seed ^ 0x5eed);
        let flush = match prng.below(6) {
            0..=2 => FlushPolicy::GroupCommit,
            3 => FlushPolicy::DurableWrites,
            _ => FlushPolicy::Interval {
                age_ns_max: 1 + prng.below(5_000_000),
                unsynced_bytes_max: 512 + prng.below(20_000),
            },
        };
        let append = match prng.below(4) {
            0 => Append::Ring,
            1 => Append::InPlace,
            2 => Append::Mixed,
            _ => Append::Direct,
        };
        let step = 2_048 << prng.below(3);
        let sim = Sim::new(seed);
        Self {
            faults: sim.faults().clone(),
            sim,
            options: Options {
                prepare_step: step,
                horizon_ahead_max: 4 * step,
                prepare_ahead_max: (4 << prng.below(3)) * step,
                append,
                write_back_stride: [u64::MAX, 4_096, 20_000][prng.below(3) as usize],
                mutant,
                ..Options::new(SEGMENT_SIZE, flush)
            },
            records: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_id: 1,
            // With records of one size a later log joins up with the remains of an earlier one.
            equal_size: prng
                .chance(1, 3)
                .then(|| [400, 437, 512][prng.below(3) as usize]),
            prng,
            rot: None,
            generation: 0,
            outcome: Outcome::default(),
        }
    }

    fn live(&mut self) -> Check {
        let lives = 2 + self.prng.below(5);
        for _ in 0..lives {
            let Some(mut life) = self.begin()? else {
                self.end();
                continue;
            };
            let turns = 5 + self.prng.below(50);
            for _ in 0..turns {
                if self.turn(&mut life)? {
                    self.outcome.failed_logs += 1;
                    break;
                }
            }
            self.settle_acknowledged(&life.log);
            self.end();
        }
        // At last without faults: whatever happened, a store opens and holds what it promised.
        self.sim.set_faults(Faults::none());
        self.faults = Faults::none();
        match self.begin()? {
            Some(life) => self.settle_acknowledged(&life.log),
            None => return Err("a store does not open though nothing fails".to_owned()),
        }
        self.sim.crash();
        self.after_cut();
        self.begin().map(|_| ())
    }

    /// The end of a life: usually the power, sometimes the process only.
    fn end(&mut self) {
        if self.prng.chance(2, 5) {
            self.sim.kill();
            self.outcome.kills += 1;
        } else {
            self.sim.crash();
            self.after_cut();
            self.outcome.cuts += 1;
        }
    }

    /// Without power only what is durable must be there; the rest may be.
    fn after_cut(&mut self) {
        for sent in self.records.values_mut() {
            sent.acknowledged = sent.durable;
        }
        self.flip_a_bit();
    }

    /// A bit behind everything that is durable is other than it was written: a sector torn in the worst
    /// place.
    fn flip_a_bit(&mut self) {
        self.rot = None;
        let volatile = self.records.iter().filter(|(_, sent)| !sent.durable);
        let volatile: Vec<(u64, usize)> = volatile.map(|(at, it)| (*at, it.bytes.len())).collect();
        if volatile.is_empty() || !self.prng.chance(1, 4) {
            return;
        }
        let (offset, len) = volatile[self.prng.below(volatile.len() as u64) as usize];
        let at = offset + self.prng.below(len as u64);
        let path = Path::new(FOLDER).join(log::file_name(at - at % SEGMENT_SIZE));
        let bit = self.prng.below(8) as u32;
        self.sim.flip_bit(&path, at % SEGMENT_SIZE, bit);
        self.rot = Some(offset);
        self.outcome.rotten += 1;
    }

    /// Opens the store; `None`: an injected error came before the log was open, and a next life tries.
    fn begin(&mut self) -> Check<Option<Life>> {
        // Half of the starts meet no faults, or a bad device would never come to append.
        let kind = self.prng.chance(1, 2);
        self.sim.set_faults(if kind {
            Faults::none()
        } else {
            self.faults.clone()
        });
        let opened = self.open();
        let opened = match opened? {
            Some((segments, mark, end)) => {
                self.check_walk(&segments, mark, end)?;
                let horizon = if mark.known {
                    mark.horizon.max(end)
                } else {
                    end
                };
                Some(CommitLog::open(self.options, segments, end, horizon))
            }
            None => None,
        };
        self.sim.set_faults(self.faults.clone());
        Ok(opened.map(|log| Life {
            last_synced: log.synced(),
            log,
            writing: None,
        }))
    }

    fn read_mark(&mut self) -> Option<Result<Mark, Errno>> {
        let path = PathBuf::from(CHECKPOINT);
        let (at, len) = (0, 4_096);
        let got = run_one(&mut self.sim, Op::Get { path, at, len });
        match (got.result, got.payload) {
            (Ok(_), Payload::Buffer(bytes)) => {
                let ours = decode(&bytes).ok()?.ours?;
                self.generation = ours.generation + 1;
                Some(Ok(Mark {
                    from: ours.dispatched,
                    synced: ours.synced,
                    horizon: ours.horizon,
                    takeover: 0,
                    clean: false,
                    known: true,
                }))
            }
            (result, _) => result.err().map(Err),
        }
    }

    /// Segments, mark and end as the broker's start finds them.
    fn open(&mut self) -> Check<Option<(Segments, Mark, u64)>> {
        let mark = match self.read_mark() {
            Some(Ok(mark)) => mark,
            Some(Err(Errno::ENOENT)) => Mark {
                from: 0,
                synced: 0,
                horizon: 0,
                takeover: 0,
                clean: false,
                known: false,
            },
            Some(Err(_)) => return Ok(None),
            None => return Err("the checkpoint is torn".to_owned()),
        };
        let opened = open_segments(&mut self.sim, Path::new(FOLDER), SEGMENT_SIZE);
        let segments = match opened {
            Ok(segments) => segments,
            Err(log::RecoveryError::Io { .. }) => return Ok(None),
            Err(error) => return Err(format!("the store does not open: {error}")),
        };
        // Without a checkpoint the horizon is unknown: everything behind the end is wiped.
        let mark = Mark {
            horizon: if mark.known {
                mark.horizon
            } else {
                segments.end_offset()
            },
            ..mark
        };
        let mut found = BTreeMap::new();
        let end = self.walk(&segments, mark, &mut found)?;
        let Some(end) = end else { return Ok(None) };
        self.take_found(&found, mark.from, end)?;
        Ok(Some((segments, mark, end)))
    }

    /// Walks from the mark; `None` after an injected error.
    fn walk(
        &mut self,
        segments: &Segments,
        mark: Mark,
        found: &mut BTreeMap<u64, Vec<u8>>,
    ) -> Check<Option<u64>> {
        let (mut rot, mut strange) = (None, None);
        let mutant = self.options.mutant;
        let end = recover_mutant(&mut self.sim, segments, mark, mutant, |it| match it {
            Found::Record(record) => {
                if !is_as_sent(record) {
                    strange = Some(format!("a record that nobody sent is served: {record:?}"));
                }
                let body = record.body.to_vec();
                found.insert(record.physical_offset.0, body);
            }
            Found::Rot { from, to, why } => rot = Some(format!("{from}..{to} is lost: {why}")),
        });
        if let Some(strange) = strange {
            return Err(strange);
        }
        match (end, rot) {
            (_, Some(rot)) => Err(format!("below the mark {mark:?} {rot}")),
            (Ok(end), None) => Ok(Some(end)),
            (Err(log::RecoveryError::Io { .. }), None) => Ok(None),
            (Err(error), None) => Err(format!("the log is not recovered: {error}")),
        }
    }

    /// Compares what was found with what was sent, and forgets what is behind the end.
    fn take_found(&mut self, found: &BTreeMap<u64, Vec<u8>>, from: u64, end: u64) -> Check {
        for (offset, mut sent) in std::mem::take(&mut self.refused) {
            if found.contains_key(&offset) {
                sent.acknowledged = false;
                self.records.insert(offset, sent);
            }
        }
        for (offset, body) in found {
            match self.records.get(offset) {
                Some(sent) if sent.bytes == *body => (),
                Some(sent) => {
                    return Err(format!("at {offset} is not record {} but another", sent.id));
                }
                None => {
                    return Err(format!(
                        "at {offset} is a record that the log does not have"
                    ));
                }
            }
        }
        for (offset, sent) in &self.records {
            let there = *offset < from || found.contains_key(offset);
            if sent.acknowledged && !there {
                return Err(format!(
                    "record {} at {offset} is lost, the log ends at {end}",
                    sent.id
                ));
            }
            if !there && *offset < end {
                return Err(format!(
                    "record {} at {offset} is missing before the end {end}",
                    sent.id
                ));
            }
        }
        // What is behind the end must never be seen again.
        self.records.split_off(&end);
        // Recovery made durable what it found: a later cut must not take it away.
        for sent in self.records.values_mut() {
            sent.durable = true;
            sent.acknowledged = true;
        }
        Ok(())
    }

    /// A second walk, from the start, finds the same end and every record.
    fn check_walk(&mut self, segments: &Segments, mark: Mark, end: u64) -> Check {
        let before = self.sim.faults().clone();
        self.sim.set_faults(Faults::none());
        let mut found = BTreeMap::new();
        let mark = Mark {
            from: segments.first_offset(),
            ..mark
        };
        let again = self.walk(segments, mark, &mut found)?;
        self.sim.set_faults(before);
        if again != Some(end) {
            return Err(format!("the log ended at {end} and now at {again:?}"));
        }
        self.take_found(&found, 0, end)
    }

    /// One turn of a shard. `true`: the log has failed.
    fn turn(&mut self, life: &mut Life) -> Check<bool> {
        // Before the records of the turn, as the worker does.
        if life.log.begin_sync(&mut self.sim) {
            let _ = self.sim.begin();
        }
        for _ in 0..self.prng.below(4) {
            if !self.append(life)? {
                break;
            }
        }
        let wait_ns = life.log.pump(&mut self.sim);
        self.pump_checkpoint(life);
        let mut done = Vec::new();
        let wait_ns = wait_ns.min(1 + self.prng.below(2_000_000));
        let _ = self.sim.turn(wait_ns, &mut done);
        for completion in done {
            self.complete(life, completion)?;
        }
        if let Some(from) = life.log.take_rejected() {
            let refused = self.records.split_off(&from);
            if refused.values().any(|sent| sent.acknowledged) {
                return Err(format!(
                    "records from {from} on were acknowledged, then refused"
                ));
            }
            self.outcome.refused += refused.len() as u64;
            self.refused = refused;
        }
        self.settle_acknowledged(&life.log);
        Ok(life.log.failed().is_some())
    }

    fn complete(&mut self, life: &mut Life, completion: Completion) -> Check {
        if completion.token.room() == ROOM_OF_CHECKPOINT {
            let horizon = life.writing.take().expect("a checkpoint is under way");
            if completion.result.is_ok() {
                life.log.horizon_is_durable(horizon);
            }
            return Ok(());
        }
        // What a write has failed for does not touch what a sync in flight covers; a failed sync does.
        let failed = life.log.failed().is_some_and(|it| it.doing == "fdatasync");
        life.log.complete(&self.sim, completion);
        if failed && life.last_synced < life.log.synced() {
            return Err("a log that has failed went on to promise".to_owned());
        }
        life.last_synced = life.log.synced();
        Ok(())
    }

    /// What the log promises now.
    fn settle_acknowledged(&mut self, log: &CommitLog) {
        let promised = if log.is_sync() {
            log.synced()
        } else {
            log.written()
        };
        if log.failed().is_some() {
            return;
        }
        for (offset, sent) in self.records.iter_mut().rev() {
            let end = offset + size_of(&sent.bytes) as u64;
            if sent.durable {
                break;
            }
            sent.durable = end <= log.synced();
            if end <= promised && !sent.acknowledged {
                sent.acknowledged = true;
                self.outcome.acknowledged += 1;
            }
        }
    }

    fn append(&mut self, life: &mut Life) -> Check<bool> {
        let id = self.next_id;
        let len = match self.equal_size {
            Some(len) => len,
            None => 8 + self.prng.below(1_500) as usize,
        };
        let mut body = id.to_be_bytes().to_vec();
        let mut filler = Prng::from_seed(id);
        body.resize_with(len, || filler.next_u64() as u8);
        let size = draft(&body, 0).size();
        let inset = life.log.takes_insets() && self.prng.below(4) == 0;
        let appended = life.log.append(size, self.sim.now_ns(), |at, out| {
            let draft = draft(&body, at.0);
            if !inset {
                return draft.encode(at, out.buffer_mut());
            }
            let held = std::sync::Arc::new([&[7; 3], body.as_slice()].concat());
            let place = draft.encode_around_body(at, out.buffer_mut());
            out.set_in(place, &held, 3..held.len());
        });
        match appended {
            Ok(PhysicalOffset(offset)) => {
                // The log wiped what it refused before it went on.
                self.refused.clear();
                self.next_id += 1;
                let sent = Sent {
                    id,
                    bytes: body,
                    acknowledged: false,
                    durable: false,
                };
                if let Some(old) = self.records.insert(offset, sent) {
                    return Err(format!(
                        "{offset} was given to record {} and to {id}",
                        old.id
                    ));
                }
                Ok(true)
            }
            Err(NoRoom::TooLarge) => Err(format!("{size} bytes are too large for a segment")),
            Err(NoRoom::Soon | NoRoom::Weather(_) | NoRoom::Failed(_)) => Ok(false),
        }
    }

    /// As the broker does it: the horizon counts when the checkpoint that names it is durable.
    fn pump_checkpoint(&mut self, life: &mut Life) {
        let horizon = life.log.horizon_next();
        let allowed = life.log.synced() + self.options.horizon_ahead_max;
        assert!(
            horizon <= allowed.max(life.log.horizon()),
            "a horizon of {horizon}, with {allowed} allowed: a recovery would wipe too much"
        );
        let due = life.log.horizon() < horizon || self.prng.chance(1, 20);
        if life.writing.is_some() || !due {
            return;
        }
        let synced = life.log.synced();
        // The indexes are somewhere behind, at the start of a record.
        let dispatched = self
            .records
            .range(..synced)
            .next_back()
            .map_or(0, |(at, _)| *at);
        let ours = Ours {
            queue_count: 0,
            index_count: 0,
            synced,
            horizon,
            dispatched: if self.prng.chance(1, 2) {
                dispatched
            } else {
                0
            },
            takeover: 0,
            generation: self.generation,
            clean: false,
        };
        let bytes = encode(&Checkpoint {
            ours: Some(ours),
            ..Checkpoint::default()
        });
        life.writing = Some(horizon);
        let op = Op::Replace {
            path: PathBuf::from(CHECKPOINT),
            content: whole(bytes),
            backup: None,
        };
        let pushed = self.sim.push(Token::of(ROOM_OF_CHECKPOINT, 0), op);
        assert!(pushed.is_ok(), "the ring has room");
    }
}

fn draft(body: &[u8], queue_offset: u64) -> Draft<'_> {
    let host = std::net::SocketAddr::from(([127, 0, 0, 1], 10_911));
    Draft {
        queue_id: 0,
        flag: 0,
        queue_offset,
        sys_flag: 0,
        born_ms: 1,
        born_host: host,
        store_ms: 2,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        topic: "history",
        properties: Properties::default(),
    }
}

fn size_of(body: &[u8]) -> usize {
    draft(body, 0).size()
}

/// Everything but the body, which is compared with the one that was sent.
fn is_as_sent(record: &Record<'_>) -> bool {
    let want = draft(record.body, record.physical_offset.0);
    record.size as usize == want.size()
        && record.queue_offset == want.queue_offset
        && (record.queue_id, record.flag, record.sys_flag) == (0, 0, 0)
        && (record.born_ms, record.store_ms) == (want.born_ms, want.store_ms)
        && (record.born_host, record.store_host) == (want.born_host, want.store_host)
        && (record.reconsume_times, record.prepared_offset) == (0, 0)
        && record.topic == want.topic
        && record.properties.len() == TRAILER_SIZE
}

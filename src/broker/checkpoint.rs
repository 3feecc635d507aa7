//! The checkpoint of a shard: how far its log is durable, how far appends may go, how far the indexes are on
//! disk. Rewritten whole each time, so that it is never torn.

use std::path::PathBuf;

use super::worker::{CHECKPOINT, INDEX_FLUSH, INDEX_SYNC, ROOM};
use crate::index::{Index, QueueIndex, Queues};
use crate::io::{Errno, Io, Op, Token, whole};
use crate::shard::Shard;
use crate::state::checkpoint::{Checkpoint, Ours, encode};

/// The indexes are brought to disk this often, or whenever the log has grown by `STRIDE`: that bounds what
/// the next start has to walk.
const PERIOD_NS: u64 = 5_000_000_000;
const STRIDE: u64 = 64 << 20;

/// Files that went are looked for this often: that takes all queues.
const COUNT_PERIOD_NS: u64 = 1_000_000_000;

/// Bytes of an IndexFile written at once.
const INDEX_PIECE: usize = 1 << 20;

/// Batches of ConsumeQueues under way at once.
const BATCHES_MAX: u32 = 32;

/// Queues that a turn looks at: with many, each is a place in memory that no cache has.
const LOOK_MAX: usize = 1024;

#[derive(Debug)]
enum Stage {
    Idle,
    /// Units and entries of all records below `target` go to their files. Queues that are done leave from
    /// the end.
    Flushing {
        target: u64,
        queues: Vec<(QueueIndex, u64)>,
        /// Those from here on are to be looked at. What a queue gets until then is written too.
        next: Option<QueueIndex>,
    },
    Syncing {
        target: u64,
        file_count: usize,
        counts: (u32, u32),
    },
}

/// Keeps the checkpoint of one shard.
#[derive(Debug)]
pub(super) struct CheckpointState {
    path: PathBuf,
    /// The indexes are durable up to here.
    dispatched: u64,
    /// ConsumeQueues and IndexFiles that hold what is below that.
    counts: (u32, u32),
    takeover: u64,
    generation: u64,
    stage: Stage,
    index_flushing: bool,
    /// How a sync has failed.
    broken: Option<Errno>,
    /// Queues are left that a turn could look at.
    has_more: bool,
    /// What the rewrite under way says.
    writing: Option<(u64, u64)>,
    /// What the last rewrite said.
    written_dispatched: u64,
    written_counts: (u32, u32),
    counted_ns: u64,
    last_ns: u64,
    last_record_ms: u64,
    retry_ns: u64,
}

impl CheckpointState {
    pub(super) fn new(
        dispatched: u64,
        counts: (u32, u32),
        takeover: u64,
        generation: u64,
        last_record_ms: u64,
    ) -> Self {
        Self {
            path: PathBuf::new(),
            dispatched,
            counts,
            takeover,
            generation,
            stage: Stage::Idle,
            index_flushing: false,
            broken: None,
            has_more: false,
            writing: None,
            written_dispatched: u64::MAX,
            written_counts: counts,
            counted_ns: 0,
            last_ns: 0,
            last_record_ms,
            retry_ns: 0,
        }
    }

    pub(super) fn place(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Starts what is due. Answers whether there was anything to do.
    pub(super) fn pump(&mut self, io: &mut impl Io, shard: &mut Shard) -> bool {
        let now_ns = io.now_ns();
        if now_ns < self.retry_ns {
            return false;
        }
        let reached = shard.log.synced().min(shard.visible());
        let idle = matches!(self.stage, Stage::Idle);
        let due = self.last_ns + PERIOD_NS <= now_ns || self.dispatched + STRIDE <= reached;
        if idle && self.dispatched < reached && due {
            self.begin(now_ns, reached);
        }
        let mut any = !matches!(self.stage, Stage::Idle);
        self.go_on(io, shard);
        let horizon = shard.log.horizon_next();
        if self.counted_ns + COUNT_PERIOD_NS <= now_ns {
            // Deleted topics and expired IndexFiles must not look like lost ones after the next start.
            self.counted_ns = now_ns;
            any = true;
            let (queue_count, index_count) = counts(&shard.queues, &shard.index, self.dispatched);
            self.counts.0 = self.counts.0.min(queue_count);
            self.counts.1 = self.counts.1.min(index_count);
        }
        let news = shard.log.horizon() < horizon
            || self.written_dispatched != self.dispatched
            || self.written_counts != self.counts;
        if self.writing.is_none() && news {
            self.write(io, shard, horizon, false);
            any = true;
        }
        any
    }

    /// Brings everything to disk now, whatever the time: the shard stops.
    pub(super) fn begin_now(&mut self, now_ns: u64, shard: &mut Shard) {
        let reached = shard.log.synced().min(shard.visible());
        if matches!(self.stage, Stage::Idle) && self.dispatched < reached {
            self.begin(now_ns, reached);
        }
    }

    fn begin(&mut self, now_ns: u64, target: u64) {
        self.last_ns = now_ns;
        self.stage = Stage::Flushing {
            target,
            queues: Vec::new(),
            next: Some(QueueIndex(0)),
        };
    }

    fn go_on(&mut self, io: &mut impl Io, shard: &mut Shard) {
        self.has_more = false;
        let Stage::Flushing {
            target,
            queues,
            next,
        } = &mut self.stage
        else {
            return;
        };
        let target = *target;
        if let Some(from) = *next {
            let (some, more) = shard.queues.unflushed(from, LOOK_MAX);
            queues.extend(some);
            *next = more;
        }
        shard.queues.flush(io, true, BATCHES_MAX);
        let waits = |(index, end): &(QueueIndex, u64)| {
            shard.queues.is_known(*index) && shard.queues.queue(*index).flushed() < *end
        };
        let mut looks = 0..LOOK_MAX;
        while looks.next().is_some() && queues.pop_if(|last| !waits(last)).is_some() {}
        self.has_more = next.is_some() || (looks.is_empty() && !queues.is_empty());
        let queues_done = queues.is_empty() && next.is_none();
        let index_done = target <= shard.index.written().0;
        if !self.index_flushing && !index_done {
            match shard.index.flush(INDEX_PIECE) {
                Some(op) => {
                    self.index_flushing = true;
                    push(io, INDEX_FLUSH, op);
                }
                // Nothing left to write: what the mark lacks is records without keys.
                None => return self.end_flushing(io, shard, target, queues_done),
            }
        }
        if index_done {
            self.end_flushing(io, shard, target, queues_done);
        }
    }

    fn end_flushing(&mut self, io: &mut impl Io, shard: &mut Shard, target: u64, done: bool) {
        if !done || self.index_flushing {
            return;
        }
        let counts = counts(&shard.queues, &shard.index, target);
        let mut paths = shard.queues.take_unsynced();
        paths.extend(shard.index.take_unsynced());
        self.stage = Stage::Syncing {
            target,
            file_count: paths.len(),
            counts,
        };
        push(io, INDEX_SYNC, Op::SyncPaths { paths });
    }

    fn write(&mut self, io: &mut impl Io, shard: &Shard, horizon: u64, clean: bool) {
        self.last_record_ms = self.last_record_ms.max(shard.last_record_ms());
        let last_ms = self.last_record_ms as i64;
        let checkpoint = Checkpoint {
            physic_msg_ms: last_ms,
            logics_msg_ms: last_ms,
            index_msg_ms: 0,
            master_flushed: 0,
            confirm: 0,
            logics_physical_offset: shard.last_record_offset() as i64,
            ours: Some(Ours {
                synced: shard.log.synced(),
                horizon,
                dispatched: self.dispatched,
                takeover: self.takeover,
                generation: self.generation,
                queue_count: self.counts.0,
                index_count: self.counts.1,
                clean,
            }),
        };
        self.written_counts = self.counts;
        self.writing = Some((horizon, self.dispatched));
        let bytes = encode(&checkpoint);
        push(
            io,
            CHECKPOINT,
            Op::Replace {
                path: self.path.clone(),
                content: whole(bytes),
                backup: None,
            },
        );
    }

    /// A sync of the indexes that has failed. What it left on disk is unknown, and a later one does not tell: the kernel takes
    /// pages that it could not write for clean (kernel-notes/fsync-errors.md). The start that follows makes the indexes again from
    /// the mark, which is as old as the last round.
    pub(super) const fn failed(&self) -> Option<Errno> {
        self.broken
    }

    /// A round goes on in the next turn: call [`Self::pump`] again soon.
    pub(super) const fn has_more(&self) -> bool {
        self.has_more
    }

    /// Writes the last checkpoint of a clean stop.
    pub(super) fn write_clean(&mut self, io: &mut impl Io, shard: &Shard) {
        self.write(io, shard, shard.log.horizon_next(), true);
    }

    /// Whether the indexes are on disk as far as the log goes, and nothing is under way.
    pub(super) fn is_done(&self, shard: &Shard) -> bool {
        let reached = shard.log.synced().min(shard.visible());
        matches!(self.stage, Stage::Idle) && self.writing.is_none() && reached <= self.dispatched
    }

    /// Whether a rewrite is under way.
    pub(super) const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Takes an answer of the kernel.
    pub(super) fn complete(
        &mut self,
        io: &impl Io,
        shard: &mut Shard,
        what: u64,
        result: Result<u32, Errno>,
    ) {
        if let Err(errno) = result {
            self.retry_ns = io.now_ns() + 1_000_000_000;
            tracing::error!(%errno, path = %self.path.display(), "the checkpoint or an index could not be written; trying again");
        }
        match what {
            INDEX_FLUSH => {
                self.index_flushing = false;
                shard.index.flushed(result.is_ok());
            }
            INDEX_SYNC => self.complete_sync(io, result),
            _ => {
                let (horizon, dispatched) = self.writing.take().expect("a rewrite was under way");
                if result.is_ok() {
                    self.written_dispatched = dispatched;
                    shard.log.horizon_is_durable(horizon);
                }
            }
        }
    }

    fn complete_sync(&mut self, io: &impl Io, result: Result<u32, Errno>) {
        let Stage::Syncing {
            target,
            file_count,
            counts,
        } = std::mem::replace(&mut self.stage, Stage::Idle)
        else {
            unreachable!("a sync belongs to its stage")
        };
        match result {
            Ok(_) => (self.dispatched, self.counts) = (target, counts),
            Err(errno) => {
                tracing::error!(%errno, files = file_count, "indexes may not be on disk");
                self.broken = Some(errno);
                self.last_ns = io.now_ns();
            }
        }
    }
}

/// How many ConsumeQueues are in files, and how many IndexFiles begin below a mark.
pub(super) fn counts(queues: &Queues, index: &Index, dispatched: u64) -> (u32, u32) {
    let files = index
        .files()
        .filter(|file| 0 < file.entry_count && file.begin_offset.0 < dispatched);
    (queues.written_count(), files.count() as u32)
}

fn push(io: &mut impl Io, what: u64, op: Op) {
    let pushed = io.push(Token::of(ROOM, what), op);
    assert!(pushed.is_ok(), "the ring has room for the checkpoint");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::open::tests::opened;
    use super::*;
    use crate::base::{PhysicalOffset, QueueId};
    use crate::index::Unit;
    use crate::io::Completion;
    use crate::sim::{Faults, Sim};

    struct Desk {
        io: Sim,
        shard: Shard,
        checkpoint: CheckpointState,
    }

    impl Desk {
        fn new() -> Self {
            let mut io = Sim::with_faults(1, Faults::none());
            let (shard, _, checkpoint) = opened(&mut io, Path::new("/store"));
            Self {
                io,
                shard,
                checkpoint,
            }
        }

        /// A unit more in each of so many queues.
        fn push(&mut self, queue_count: u32) {
            for queue_id in 0..queue_count {
                let queues = &mut self.shard.queues;
                let index = queues.find_or_make("T", QueueId(queue_id));
                let unit = Unit {
                    offset: PhysicalOffset(u64::from(queue_id)),
                    size: 100,
                    tags_code: 0,
                };
                queues.push(index, unit, 1);
            }
        }

        /// How many turns the indexes take to be in their files, whose sync ends like this.
        fn round(&mut self, target: u64, sync: Result<u32, Errno>) -> usize {
            self.checkpoint.begin(0, target);
            let mut turns = 0;
            while !matches!(self.checkpoint.stage, Stage::Idle) {
                turns += 1;
                self.checkpoint.go_on(&mut self.io, &mut self.shard);
                if self.checkpoint.has_more() {
                    continue;
                }
                if let Stage::Flushing { queues, .. } = &self.checkpoint.stage {
                    assert!(queues.len() <= turns * LOOK_MAX, "turn {turns}");
                }
                let mut done: Vec<Completion> = Vec::new();
                self.io.turn(1_000_000_000, &mut done).unwrap();
                for done in done {
                    if done.token.room() == ROOM {
                        let (io, shard) = (&self.io, &mut self.shard);
                        let result = done.result.and(sync);
                        self.checkpoint.complete(io, shard, INDEX_SYNC, result);
                    } else {
                        self.shard.queues.flushed(done.token, done.result);
                    }
                }
            }
            turns
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            self.io.kill();
        }
    }

    #[test]
    fn a_turn_looks_at_some_of_many_queues() {
        const COUNT: u32 = 2_500;
        let mut desk = Desk::new();
        desk.push(COUNT);
        let turns = desk.round(10, Ok(0));
        assert!(COUNT as usize / LOOK_MAX < turns, "{turns}");
        assert_eq!(desk.checkpoint.dispatched, 10);
        let flushed =
            |queues: &Queues| queues.iter().map(|(_, queue)| queue.flushed()).sum::<u64>();
        assert_eq!(flushed(&desk.shard.queues), u64::from(COUNT));
        assert_eq!(desk.checkpoint.counts.0, COUNT);
    }

    #[test]
    fn a_sync_that_failed_moves_no_mark_and_is_not_forgotten() {
        let mut desk = Desk::new();
        desk.push(3);
        desk.round(10, Ok(0));
        assert_eq!(desk.checkpoint.failed(), None);
        desk.push(3);
        desk.round(20, Err(Errno::EIO));
        assert_eq!(desk.checkpoint.dispatched, 10);
        assert_eq!(desk.checkpoint.failed(), Some(Errno::EIO));
    }
}

//! Opening the ConsumeQueues and IndexFiles of a shard, and noticing those that are gone.

use std::path::Path;

use super::checkpoint;
use super::open::Plan;
use crate::base::PhysicalOffset;
use crate::config::StartError;
use crate::index::index_file::{Load, LoadStep};
use crate::index::{Index, Queues};
use crate::io::{Errno, Io, Op, Payload};
use crate::log::{Mark, Segments, run_one};
use crate::state::checkpoint::Ours;

/// What opening the indexes tells about those that are not there.
struct Lost {
    /// The queues' files count at all.
    queues_loaded: bool,
    /// IndexFiles of another size, left alone.
    ignored_count: u32,
    /// IndexFiles or ConsumeQueues are damaged below the checkpoint's mark.
    damaged: bool,
}

impl Lost {
    /// Whether there is less than the checkpoint says.
    fn says(&self, ours: &Ours, queues: &Queues, index: &Index) -> bool {
        let (queue_count, index_count) = checkpoint::counts(queues, index, ours.dispatched);
        let queues_lost = self.queues_loaded && queue_count < ours.queue_count;
        let files_lost = index_count + self.ignored_count < ours.index_count;
        queues_lost || files_lost || self.damaged
    }
}

/// The indexes, and from where the log is walked into them: the mark, or its beginning if there is less than
/// the checkpoint says. Nothing of what is there is given up then: a queue whose records have all expired is
/// in no log any more.
pub(super) fn open(
    io: &mut impl Io,
    plan: &Plan<'_>,
    segments: &Segments,
    mark: Mark,
    clean: bool,
    ours: Option<&Ours>,
) -> Result<(Queues, Index, u64), StartError> {
    let (queues, index, lost) = load(io, plan, segments, mark, clean)?;
    if ours.is_some_and(|ours| lost.says(ours, &queues, &index)) {
        tracing::warn!(
            "ConsumeQueues or IndexFiles are missing or damaged: they are made again from the log"
        );
        let first = segments.first_offset();
        let (index, _) = open_index(io, plan, first, false)?;
        return Ok((queues, index, first));
    }
    Ok((queues, index, mark.from))
}

fn load(
    io: &mut impl Io,
    plan: &Plan<'_>,
    segments: &Segments,
    mark: Mark,
    clean: bool,
) -> Result<(Queues, Index, Lost), StartError> {
    let mut queues = Queues::new(&plan.paths.consume_queue, plan.queue_file_size);
    // Without a checkpoint of ours nobody knows how far the queues' files can be trusted.
    let queues_loaded = mark.known && mark.from > segments.first_offset();
    let mut damaged = false;
    if queues_loaded {
        let cut = queues
            .load(io, mark.from, segments.first_offset())
            .map_err(|(path, errno)| {
                StartError::new(
                    "read the ConsumeQueues in",
                    path.display(),
                    errno,
                    "make the folder readable, or remove it: it is rebuilt from the CommitLog",
                )
            })?;
        if let Some(folder) = cut {
            tracing::warn!(
                folder = %folder.display(),
                "a unit in the middle of a ConsumeQueue is none: see whether the disk is failing; no message is lost by it"
            );
            damaged = true;
        }
    }
    let from = if mark.known {
        mark.from
    } else {
        segments.first_offset()
    };
    let (index, ignored_count) = open_index(io, plan, from, clean)?;
    let lost = Lost {
        queues_loaded,
        ignored_count,
        damaged: damaged || index.dispatched().0 < from,
    };
    Ok((queues, index, lost))
}

/// The IndexFiles up to `from`, and how many were left alone.
fn open_index(
    io: &mut impl Io,
    plan: &Plan<'_>,
    from: u64,
    clean: bool,
) -> Result<(Index, u32), StartError> {
    let names = list(io, &plan.index.folder)?;
    let from = PhysicalOffset(from);
    let (mut load, mut step) = Load::start(plan.index.clone(), &names, from, clean);
    loop {
        match step {
            LoadStep::Done(loaded) => {
                for path in loaded.remove {
                    run_one(io, Op::Remove { path });
                }
                let ignored_count = loaded.ignored.len() as u32;
                for path in loaded.ignored {
                    tracing::warn!(
                        path = %path.display(),
                        "an IndexFile of another size is left alone: maxHashSlotNum or maxIndexNum was changed"
                    );
                }
                return Ok((loaded.index, ignored_count));
            }
            LoadStep::Get { path, at, len } => {
                let got = run_one(io, Op::Get { path, at, len });
                let bytes = match got.payload {
                    Payload::Buffer(bytes) => bytes,
                    _ => Vec::new(),
                };
                step = load.resume(&bytes);
            }
        }
    }
}

fn list(io: &mut impl Io, folder: &Path) -> Result<Vec<crate::io::Name>, StartError> {
    let listed = run_one(
        io,
        Op::List {
            path: folder.to_owned(),
        },
    );
    match (listed.result, listed.payload) {
        (Ok(_), Payload::Names(names)) => Ok(names),
        (result, _) => Err(StartError::new(
            "list",
            folder.display(),
            result.err().unwrap_or(Errno::EIO),
            "make the folder readable for this user",
        )),
    }
}

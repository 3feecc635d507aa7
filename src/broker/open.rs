//! Opening a shard's store: state files, segments, indexes, and the walk from the checkpoint to the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checkpoint::{self, CheckpointState};
use super::indexes;
use super::saving::Loaded;
use crate::base::{QueueId, QueueOffset};
use crate::config::{self, StartError};
use crate::index::index_file::Options as IndexOptions;
use crate::index::{Index, Queues, Unit};
use crate::io::{Errno, Io, Op, Payload};
use crate::log::record::{Record, sys_flag};
use crate::log::{
    CommitLog, Found, Mark, Options, RecoveryError, Segments, open_segments, recover, run_one,
};
use crate::shard::{Delay, Groups, Offsets, Settings, Store, Topics, plain_topic};
use crate::state;
use crate::state::checkpoint::{Checkpoint, Ours};

/// What opening a store needs to know.
pub(super) struct Plan<'a> {
    pub(super) paths: &'a config::Paths,
    pub(super) log: Options,
    pub(super) queue_file_size: u64,
    pub(super) index: IndexOptions,
    pub(super) settings: &'a Settings,
    /// Topics and groups of shard 0, for a shard that is new in an old store.
    pub(super) inherit_from: Option<PathBuf>,
}

/// An opened store and what its keeper must remember.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) loaded: Loaded,
    pub(super) checkpoint: CheckpointState,
}

/// Opens everything. Nothing is changed in a store that cannot be opened.
pub(super) fn open(io: &mut impl Io, plan: &Plan<'_>) -> Result<Opened, StartError> {
    let checkpoint = read_checkpoint(io, &plan.paths.checkpoint)?;
    let abort = exists(io, &plan.paths.abort)?;
    let loaded = Loaded::read(io, &plan.paths.config, plan.inherit_from.as_deref())?;
    let segments = open_segments(io, &plan.paths.commit_log, plan.log.segment_size)
        .map_err(|error| log_error(&plan.paths.commit_log, error))?;
    let ours = checkpoint.as_ref().and_then(|checkpoint| checkpoint.ours);
    let known = ours.is_some();
    let clean = !abort && ours.is_some_and(|ours| ours.clean);
    let taken_over = !known && !segments.is_empty();
    let mut mark = mark_of(ours, &segments, clean);
    let (mut queues, mut index, from) =
        indexes::open(io, plan, &segments, mark, clean, ours.as_ref())?;
    mark.from = from;
    let rules = (plan, &loaded.topics.deleted);
    let all = taken_over || mark.from == segments.first_offset();
    let mut walk = Walk::run(io, &segments, mark, &mut queues, &mut index, rules, all)?;
    if walk.gap {
        // Units in front of the checkpoint's mark are missing: somebody deleted an index.
        tracing::warn!(
            "ConsumeQueues are missing in front of the checkpoint: all are rebuilt from the log"
        );
        mark.from = segments.first_offset();
        (queues, index, _) = indexes::open(io, plan, &segments, mark, false, None)?;
        walk = Walk::run(io, &segments, mark, &mut queues, &mut index, rules, true)?;
    }
    let end = walk.end;
    if known && !clean {
        tracing::info!(
            end,
            records = walk.records,
            "the last stop was not clean; the log was walked to its end"
        );
    }
    let takeover = takeover_mark(ours, taken_over, &walk);
    let generation = ours.map_or(0, |ours| ours.generation) + u64::from(!clean);
    let mut store = assemble(plan, segments, &loaded, queues, index, (end, mark));
    lower_offsets(&mut store);
    remove_unknown_topics(io, &mut store);
    let dispatched = mark.from.min(end);
    let counts = checkpoint::counts(&store.queues, &store.index, dispatched);
    let keeper = CheckpointState::new(dispatched, counts, takeover, generation, walk.last_ms);
    Ok(Opened {
        store,
        loaded,
        checkpoint: keeper,
    })
}

/// What is known of the log before it is walked.
fn mark_of(ours: Option<Ours>, segments: &Segments, clean: bool) -> Mark {
    match ours {
        Some(ours) => Mark {
            from: ours.dispatched,
            synced: ours.synced,
            horizon: ours.horizon,
            takeover: ours.takeover,
            clean,
            known: true,
        },
        // Apache's store, or one whose checkpoint is lost: everything is walked, nothing is known.
        None => Mark {
            from: segments.first_offset(),
            synced: 0,
            horizon: segments.end_offset(),
            takeover: u64::MAX,
            clean: false,
            known: false,
        },
    }
}

/// Below this another broker wrote.
fn takeover_mark(ours: Option<Ours>, taken_over: bool, walk: &Walk) -> u64 {
    match ours {
        Some(ours) => ours.takeover,
        None if taken_over => {
            tracing::info!(
                end = walk.end,
                records = walk.records,
                "a store of another broker was taken over"
            );
            walk.end
        }
        None => 0,
    }
}

fn assemble(
    plan: &Plan<'_>,
    segments: Segments,
    loaded: &Loaded,
    queues: Queues,
    index: Index,
    (end, mark): (u64, Mark),
) -> Store {
    let now_ms = plan.settings.boot_ms;
    let mut topics = Topics::load(
        loaded.topics.table.values().cloned().collect(),
        loaded.topics.version,
    )
    .with_deleted(loaded.topics.deleted.clone());
    if loaded.topics.table.is_empty() {
        // The settings are lost, the messages are not: topics are made as their queues show them.
        for (_, queue) in queues.iter() {
            let count = queue.queue_id().0 + 1;
            let known = topics
                .get(queue.topic())
                .map_or(0, |topic| topic.config.read_queue_count);
            if known < count {
                tracing::warn!(topic = %queue.topic(), "a topic without settings was found in the log");
                topics.put(plain_topic(queue.topic(), count, 6), now_ms);
            }
        }
    }
    topics.add_system(plan.settings, now_ms);
    let mut groups = Groups::load(
        loaded.groups.table.values().cloned().collect(),
        loaded.groups.version,
    );
    groups.add_system(now_ms);
    let offsets = loaded.offsets.table.iter().flat_map(|(reader, queues)| {
        queues.iter().map(|(queue_id, offset)| {
            (
                reader.topic.clone(),
                reader.group.clone(),
                *queue_id,
                *offset,
            )
        })
    });
    let offsets = Offsets::load(offsets.collect(), loaded.offsets.version);
    let delays: Vec<(i32, i64)> = loaded
        .delay
        .table
        .iter()
        .map(|(level, offset)| (*level, *offset))
        .collect();
    // What was wiped or is zero by nature may be appended to without another step.
    let horizon = if mark.known {
        mark.horizon.max(end)
    } else {
        end
    };
    Store {
        log: CommitLog::open(plan.log, segments, end, horizon),
        queues,
        index,
        topics,
        groups,
        offsets,
        delay: Delay::load(plan.settings.delay_levels.len(), &delays),
    }
}

/// What a walk goes by: the plan, and where the records of deleted topics end.
type Rules<'a> = (&'a Plan<'a>, &'a BTreeMap<String, u64>);

struct Walk {
    end: u64,
    records: u64,
    last_ms: u64,
    gap: bool,
}

impl Walk {
    fn run(
        io: &mut impl Io,
        segments: &Segments,
        mark: Mark,
        queues: &mut Queues,
        index: &mut Index,
        rules: Rules<'_>,
        rebuilding: bool,
    ) -> Result<Self, StartError> {
        let mut walk = Self {
            end: 0,
            records: 0,
            last_ms: 0,
            gap: false,
        };
        let end = recover(io, segments, mark, |found| match found {
            Found::Record(record) => walk.take(record, queues, index, rules, rebuilding),
            Found::Rot { from, to, why } => tracing::error!(
                from,
                to,
                %why,
                file = %segments.path(from - from % segments.size()).display(),
                "bytes of the log are damaged that were durable; they are stepped over and kept as they are"
            ),
        });
        walk.end = end.map_err(|error| log_error(segments.folder(), error))?;
        Ok(walk)
    }

    fn take(
        &mut self,
        record: &Record<'_>,
        queues: &mut Queues,
        index: &mut Index,
        (plan, deleted): Rules<'_>,
        rebuilding: bool,
    ) {
        self.records += 1;
        self.last_ms = u64::try_from(record.store_ms).unwrap_or(0);
        let dispatched = matches!(
            record.transaction_type(),
            sys_flag::TRANSACTION_NONE | sys_flag::TRANSACTION_COMMIT
        );
        let gone = deleted
            .get(record.topic)
            .is_some_and(|end| record.physical_offset.0 < *end);
        if dispatched
            && !gone
            && let Ok(queue_id) = u32::try_from(record.queue_id)
        {
            let unit = Unit {
                offset: record.physical_offset,
                size: record.size,
                tags_code: tags_code(record, plan.settings),
            };
            let offset = QueueOffset(record.queue_offset);
            let in_order = queues.replay(
                record.topic,
                QueueId(queue_id),
                offset,
                unit,
                self.last_ms,
                rebuilding,
            );
            self.gap |= !in_order;
        }
        if plan.settings.index_keys {
            index.dispatch(record, self.last_ms);
        }
    }
}

/// In the schedule topic a unit says when its message is due.
fn tags_code(record: &Record<'_>, settings: &Settings) -> i64 {
    if record.topic != "SCHEDULE_TOPIC_XXXX" {
        return record.tags_code();
    }
    let level = record
        .property("DELAY")
        .and_then(|text| text.parse::<usize>().ok());
    let delay = level.and_then(|level| settings.delay_levels.get(level.wrapping_sub(1)));
    record.store_ms + delay.copied().unwrap_or(0) as i64
}

fn exists(io: &mut impl Io, path: &Path) -> Result<bool, StartError> {
    let got = run_one(
        io,
        Op::Get {
            path: path.to_owned(),
            at: 0,
            len: 1,
        },
    );
    match got.result {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(StartError::new(
            "look for",
            path.display(),
            errno,
            "make the store readable for this user",
        )),
    }
}

fn read_checkpoint(io: &mut impl Io, path: &Path) -> Result<Option<Checkpoint>, StartError> {
    let got = run_one(
        io,
        Op::Get {
            path: path.to_owned(),
            at: 0,
            len: 4096,
        },
    );
    match (got.result, got.payload) {
        (Ok(_), Payload::Buffer(bytes)) => Ok(state::checkpoint::decode(&bytes)
            .map_err(|error| {
                tracing::warn!(path = %path.display(), %error, "the checkpoint is not used");
            })
            .ok()),
        (Err(Errno::ENOENT), _) => Ok(None),
        (result, _) => Err(StartError::new(
            "read",
            path.display(),
            result.err().unwrap_or(Errno::EIO),
            "make the store readable for this user",
        )),
    }
}

fn log_error(folder: &Path, error: RecoveryError) -> StartError {
    let remedy = match &error {
        RecoveryError::Io { .. } => "look at the disk (dmesg); run as the owner of the folder",
        RecoveryError::Missing { .. } => {
            "put the missing file back from a backup; to give up what is before it, move the older segments away"
        }
        RecoveryError::Size { .. } => {
            "set mappedFileSizeCommitLog to the size that the store was made with, or put the whole file back"
        }
        RecoveryError::Shorter { .. } => {
            "put the missing segments back; the store was changed while no broker ran"
        }
        RecoveryError::Damaged { .. } => {
            "put the file back from a backup; nothing behind the damage was touched"
        }
    };
    StartError::new("open the log in", folder.display(), error, remedy)
}

/// A power cut takes the end of queues; nobody may stand behind it.
fn lower_offsets(store: &mut Store) {
    let ends: Vec<(String, QueueId, u64)> = store
        .queues
        .iter()
        .map(|(_, queue)| (queue.topic().to_string(), queue.queue_id(), queue.max()))
        .collect();
    for (topic, queue_id, end) in ends {
        for (group, offset) in store.offsets.lower_to(&topic, queue_id, end) {
            tracing::warn!(
                group,
                topic,
                %queue_id,
                offset,
                end,
                "a group's offset stood behind the end of its queue and was lowered to it"
            );
        }
    }
}

/// Queues of topics that were deleted, but whose folder was not gone yet.
fn remove_unknown_topics(io: &mut impl Io, store: &mut Store) {
    let unknown: Vec<String> = store
        .queues
        .topics()
        .filter(|topic| store.topics.get(topic).is_none())
        .map(ToString::to_string)
        .collect();
    for topic in unknown {
        tracing::info!(
            topic,
            "queues of a topic that is no longer there are removed"
        );
        if let Some(path) = store.queues.remove_topic(&topic) {
            run_one(io, Op::Remove { path });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::log::FlushPolicy;
    use crate::shard::Shard;

    /// A shard over the store in a folder, and what its keepers begin with.
    pub(in crate::broker) fn opened(
        io: &mut impl Io,
        root: &Path,
    ) -> (Shard, Loaded, CheckpointState) {
        let mut settings = Settings::plain("127.0.0.1:10911".parse().unwrap());
        settings.boot_ms = io.wall_ms();
        let below = |name: &str| root.join(name);
        let paths = config::Paths {
            root: root.to_owned(),
            commit_log: below("commitlog"),
            consume_queue: below("consumequeue"),
            index: below("index"),
            config: below("config"),
            checkpoint: below("checkpoint"),
            abort: below("abort"),
        };
        let flush = FlushPolicy::Interval {
            age_ns_max: 500_000_000,
            unsynced_bytes_max: 1 << 20,
        };
        let plan = Plan {
            paths: &paths,
            log: Options {
                prepare_step: 64 << 10,
                horizon_ahead_max: 256 << 10,
                prepare_ahead_max: 256 << 10,
                ..Options::new(1 << 20, flush)
            },
            queue_file_size: 100 * crate::index::UNIT_SIZE,
            index: IndexOptions {
                folder: paths.index.clone(),
                slot_count: 100,
                entry_count: 400,
            },
            settings: &settings,
            inherit_from: None,
        };
        let opened = open(io, &plan).expect("a store that can be opened");
        let mut checkpoint = opened.checkpoint;
        checkpoint.place(paths.checkpoint.clone());
        let shard = Shard::new(settings.clone(), opened.store, 1);
        (shard, opened.loaded, checkpoint)
    }
}

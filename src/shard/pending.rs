//! Records on their way to being visible, and who waits for them.
//!
//! In the order of the log: a record becomes visible in the turn in which its write (async flush) or the sync
//! that covers it (sync flush) completes, and not before everything in front of it.

use std::collections::VecDeque;

use super::{Condition, Outbound, Shard, Stage};
use crate::base::QueueOffset;
use crate::command::{Answer, Produced, Refusal, RefusalKind, Ticket};
use crate::index::{QueueIndex, Unit};
use crate::io::Io;

/// What happens when a record is safe.
#[derive(Debug)]
pub(super) enum After {
    /// Nobody waits.
    Nothing,
    /// A producer waits.
    Produced(Ticket, Produced),
    /// A client waits for a plain yes.
    Done(Ticket),
    /// A delay level may go on behind this offset of its queue.
    Delayed { level: u32, next: u64 },
}

/// The records of one request: one, or those of a batch.
#[derive(Debug)]
struct Entry {
    /// One behind the last record.
    end: u64,
    /// Records.
    count: u32,
    queue: QueueIndex,
    /// Of the first record.
    queue_offset: QueueOffset,
    store_ms: u64,
    since_ns: u64,
    /// The answer need not wait for durability (WAIT=false).
    at_write: bool,
    after: After,
}

/// Records that are appended and not visible yet.
#[derive(Debug, Default)]
pub struct Pending {
    entries: VecDeque<Entry>,
    /// The records of the entries, each with how many keys it has.
    records: VecDeque<(Unit, u16)>,
    /// Key hashes of the records, one after another.
    keys: VecDeque<u32>,
    /// Records that were noted and belong to no entry yet.
    noted: u32,
    /// Entries at the front that were looked at when their write completed.
    written_count: usize,
    /// End of the last record that became visible.
    visible: u64,
    /// Of that record.
    last_offset: u64,
    last_ms: u64,
    /// What became visible in this turn: since when it was on its way, how many records.
    shown: Vec<(u64, u64)>,
}

/// Records that have just got their places.
pub(super) struct Appended {
    pub(super) queue: QueueIndex,
    /// Of the first of them.
    pub(super) queue_offset: QueueOffset,
    pub(super) store_ms: u64,
    pub(super) at_write: bool,
}

impl Pending {
    /// How many records wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a record in, with the hashes of its keys; [`Pending::push`] says whose it is.
    pub(super) fn note(&mut self, unit: Unit, put_keys: impl FnOnce(&mut VecDeque<u32>)) {
        let before = self.keys.len();
        put_keys(&mut self.keys);
        self.records
            .push_back((unit, (self.keys.len() - before) as u16));
        self.noted += 1;
    }

    /// The records noted since the last time came with one request.
    pub(super) fn push(&mut self, now_ns: u64, appended: &Appended, after: After) {
        let (last, _) = self.records.back().expect("a record was noted before");
        self.entries.push_back(Entry {
            end: end_of(last),
            count: std::mem::take(&mut self.noted),
            queue: appended.queue,
            queue_offset: appended.queue_offset,
            store_ms: appended.store_ms,
            since_ns: now_ns,
            at_write: appended.at_write,
            after,
        });
    }

    /// Drops the records of the last entry that end behind `from`, and answers what is left of it.
    fn cut_last(&mut self, from: u64) -> Option<&mut Entry> {
        let entry = self.entries.back_mut()?;
        while let Some((unit, key_count)) = self.records.back()
            && 0 < entry.count
            && from < end_of(unit)
        {
            self.keys
                .truncate(self.keys.len() - usize::from(*key_count));
            self.records.pop_back();
            entry.count -= 1;
        }
        if let Some((unit, _)) = self.records.back() {
            entry.end = entry.end.min(end_of(unit));
        }
        Some(entry)
    }
}

/// One behind a record.
const fn end_of(unit: &Unit) -> u64 {
    unit.offset.0 + unit.size as u64
}

impl Shard {
    /// One behind the last byte whose records consumers see.
    #[must_use]
    pub const fn visible(&self) -> u64 {
        self.pending.visible
    }

    /// Start of the last visible record.
    #[must_use]
    pub const fn last_record_offset(&self) -> u64 {
        self.pending.last_offset
    }

    /// Store time of the last visible record, wall milliseconds; 0 if there was none since start.
    #[must_use]
    pub const fn last_record_ms(&self) -> u64 {
        self.pending.last_ms
    }

    /// Says where the visible part ends when a store was opened.
    pub const fn starts_visible_at(&mut self, offset: u64) {
        self.pending.visible = offset;
    }

    /// Sees whether who waits for room in the log may go on. Asked before anything new is executed, so that
    /// nobody overtakes them.
    pub fn look_for_room(&mut self) {
        if self.log.room_grew() || self.log.weather().is_some() {
            self.met.push(Condition::Room);
        }
    }

    /// Takes note of how far the log has come: answers, units, keys, wake-ups. Once a turn, after the
    /// completions of the turn.
    pub fn advance(&mut self, io: &mut impl Io) {
        if let Some(from) = self.log.take_rejected() {
            self.reject_from(from);
        }
        if let Some(failed) = self.log.failed() {
            // Nothing is acknowledged any more; whoever waits will see the connection close.
            tracing::debug!(?failed, "nothing becomes visible any more");
            return;
        }
        let now_ns = io.now_ns();
        self.answer_written(now_ns);
        let end = if self.log.is_sync() {
            self.log.synced()
        } else {
            self.log.written()
        };
        let ready = |entry: &Entry| entry.end <= end;
        while self.pending.entries.front().is_some_and(ready) {
            self.make_visible(now_ns);
        }
        self.run_woken(io);
    }

    /// The records of the oldest entry.
    fn make_visible(&mut self, now_ns: u64) {
        let entry = self.pending.entries.pop_front();
        let entry = entry.expect("there is one");
        self.pending.written_count = self.pending.written_count.saturating_sub(1);
        let took_ns = now_ns.saturating_sub(entry.since_ns);
        let arrival = if self.log.is_sync() {
            Stage::Durable
        } else {
            Stage::Written
        };
        let count = u64::from(entry.count);
        self.stages.record(arrival, took_ns, count);
        match self.pending.shown.last_mut() {
            Some((since_ns, sum)) if *since_ns == entry.since_ns => *sum += count,
            _ => self.pending.shown.push((entry.since_ns, count)),
        }
        self.pending.visible = entry.end;
        self.pending.last_ms = entry.store_ms;
        for (unit, key_count) in self.pending.records.drain(..entry.count as usize) {
            self.pending.last_offset = unit.offset.0;
            self.queues.push(entry.queue, unit, entry.store_ms);
            for hash in self.pending.keys.drain(..usize::from(key_count)) {
                let store_ms = entry.store_ms as i64;
                self.index.put(hash, unit.offset, store_ms, entry.store_ms);
            }
            self.wakeups.arrived(entry.queue, unit.tags_code);
        }
        self.finish(entry.after);
    }

    /// What became visible in this turn is so by now, and its answers are made.
    pub fn note_visible(&mut self, now_ns: u64) {
        for (since_ns, count) in self.pending.shown.drain(..) {
            let took_ns = now_ns.saturating_sub(since_ns);
            self.stages.record(Stage::Visible, took_ns, count);
        }
    }

    fn finish(&mut self, after: After) {
        let (ticket, answer) = match after {
            After::Nothing => return,
            After::Produced(ticket, produced) => (ticket, Answer::Produced(produced)),
            After::Done(ticket) => (ticket, Answer::Done),
            After::Delayed { level, next } => return self.delay.delivered(level, next),
        };
        self.outbox.push(Outbound::Answer(ticket, answer));
    }

    /// Producers that do not wait for the sync are answered when their write has completed.
    fn answer_written(&mut self, now_ns: u64) {
        if !self.log.is_sync() {
            return;
        }
        let written = self.log.written();
        while let Some(entry) = self.pending.entries.get_mut(self.pending.written_count) {
            if written < entry.end {
                return;
            }
            self.pending.written_count += 1;
            let took_ns = now_ns.saturating_sub(entry.since_ns);
            self.stages
                .record(Stage::Written, took_ns, u64::from(entry.count));
            if entry.at_write
                && let After::Produced(..) = entry.after
            {
                let after = std::mem::replace(&mut entry.after, After::Nothing);
                self.finish(after);
            }
        }
    }

    /// Records from this physical offset on were not written: refuse them and give their places in the
    /// queues back.
    fn reject_from(&mut self, from: u64) {
        let reason = self.log.weather();
        while self
            .pending
            .entries
            .back()
            .is_some_and(|entry| from < entry.end)
        {
            let entry = self.pending.cut_last(from).expect("was there a line ago");
            // What is left of a batch lies in front of the cut: it is in the log, though its sender is refused.
            let after = std::mem::replace(&mut entry.after, After::Nothing);
            let unassign_from = QueueOffset(entry.queue_offset.0 + u64::from(entry.count));
            let (queue, is_empty) = (entry.queue, entry.count == 0);
            self.queues.queue_mut(queue).unassign(unassign_from);
            if is_empty {
                self.pending.entries.pop_back();
            }
            let (After::Produced(ticket, _) | After::Done(ticket)) = after else {
                if let After::Delayed { level, .. } = after {
                    self.delay.rejected(level);
                }
                continue;
            };
            let reason = reason.map_or_else(String::new, |errno| format!(": {errno}"));
            let refusal = Refusal::new(
                RefusalKind::ServiceNotAvailable,
                format!(
                    "service not available now, the message could not be written{reason}; send it again later"
                ),
            );
            self.counters.produce_refused += 1;
            self.outbox
                .push(Outbound::Answer(ticket, Answer::Refused(refusal)));
        }
        self.pending.written_count = self.pending.written_count.min(self.pending.entries.len());
    }

    /// Tells producers whose flush takes too long that their message is stored but not durable yet.
    pub fn answer_late_flushes(&mut self, now_ns: u64) {
        let patience_ns = self.settings.sync_flush_timeout_ms * 1_000_000;
        let written = self.log.written();
        for entry in &mut self.pending.entries {
            if now_ns.saturating_sub(entry.since_ns) < patience_ns || written < entry.end {
                break;
            }
            if let After::Produced(ticket, mut produced) =
                std::mem::replace(&mut entry.after, After::Nothing)
            {
                produced.flush_timed_out = true;
                self.outbox
                    .push(Outbound::Answer(ticket, Answer::Produced(produced)));
            }
        }
    }

    /// Whether every record that was taken is visible and answered.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PhysicalOffset;

    #[test]
    fn a_batch_is_cut_where_its_records_were_refused() {
        let mut pending = Pending::default();
        let note = |pending: &mut Pending, offset: u64, keys: &[u32]| {
            let unit = Unit {
                offset: PhysicalOffset(offset),
                size: 10,
                tags_code: 0,
            };
            pending.note(unit, |list| list.extend(keys));
        };
        let appended = |first| Appended {
            queue: QueueIndex(0),
            queue_offset: QueueOffset(first),
            store_ms: 0,
            at_write: false,
        };
        note(&mut pending, 100, &[1]);
        pending.push(0, &appended(7), After::Nothing);
        for at in 0..4u32 {
            note(&mut pending, 110 + 10 * u64::from(at), &[10 + at, 20 + at]);
        }
        pending.push(0, &appended(8), After::Nothing);
        let ends: Vec<_> = pending.entries.iter().map(|entry| entry.end).collect();
        assert_eq!((ends, pending.len()), (vec![110, 150], 5));

        let left = pending.cut_last(130).expect("two of four");
        assert_eq!((left.count, left.end), (2, 130));
        assert_eq!((pending.len(), pending.keys.len()), (3, 5));
        let left = pending.cut_last(110).expect("an empty one");
        assert_eq!(left.count, 0);
        pending.entries.pop_back();
        let left = pending.cut_last(110).expect("the one before");
        assert_eq!((left.count, left.end, pending.len()), (1, 110, 1));
        assert_eq!(pending.keys, [1]);
    }
}

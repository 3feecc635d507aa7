//! What a shard does beside its requests: deadlines, saving, checkpoints, retention, and its stop, step by step.

use super::{ABORT, Parts, ROOM, Stop, Worker};
use crate::broker::stalls::Step;
use crate::egress;
use crate::io::{Io, Op, Token};
use crate::shard::Stages;

/// Housekeeping is looked after this often.
const TICK_NS: u64 = 200_000_000;

/// Times of stages are told for periods of so many ticks: ten seconds.
const PERIOD_TICKS: usize = 50;
const _: () = assert!(Stages::COUNT + 1 < PERIOD_TICKS);

/// A stop that takes longer than this is ended all the same (the promise is 5 s).
const STOP_NS_MAX: u64 = 4_500_000_000;

impl<I: Io> Worker<I> {
    pub(super) fn tick(&mut self) {
        let Parts { io, shard, .. } = &mut self.parts;
        let now_ns = io.now_ns();
        let mut wait_ns = shard.run_delays(io);
        let deadline_ns = shard.expire_parked(io);
        wait_ns = wait_ns.min(deadline_ns.saturating_sub(now_ns));
        self.did("delays and parked pulls");
        if self.next_tick_ns <= now_ns {
            self.next_tick_ns = now_ns + TICK_NS;
            self.look_around(now_ns);
        }
        let Parts {
            io, shard, saving, ..
        } = &mut self.parts;
        if saving.pump(io, shard, self.stop != Stop::No) {
            self.did("saving");
        }
        if self.parts.saving.is_making() {
            wait_ns = 0;
        }
        let Parts {
            io,
            shard,
            checkpoint,
            ..
        } = &mut self.parts;
        let any = checkpoint.pump(io, shard);
        if checkpoint.has_more() {
            wait_ns = 0;
        }
        if any {
            self.did("checkpoint");
        }
        self.wait_ns = wait_ns.min(self.next_tick_ns.saturating_sub(now_ns));
        self.go_on_stopping(now_ns);
    }

    /// What is looked after a few times a second.
    fn look_around(&mut self, now_ns: u64) {
        let Parts {
            io, net, egress, ..
        } = &mut self.parts;
        net.sweep(io, &mut self.events);
        egress.rest(io);
        self.did("silent connections");
        let Parts {
            io,
            net,
            egress,
            shard,
            ..
        } = &mut self.parts;
        shard.answer_late_flushes(now_ns);
        shard.note_time(io.wall_ms());
        for (index, way) in egress::WAYS.into_iter().enumerate() {
            shard.egress_bytes[index] = (way, egress.bytes()[index]);
        }
        self.period_tick = (self.period_tick + 1) % PERIOD_TICKS;
        match self.period_tick.checked_sub(1) {
            None => {
                shard.stages.end_period();
                net.end_sent_period();
            }
            Some(Stages::COUNT) => net.add_up_sent_times(),
            Some(number) => shard.stages.add_up(number),
        }
        self.did("statistics");
        let Parts {
            io,
            net,
            shard,
            keeper,
            ..
        } = &mut self.parts;
        shard.locks.sweep(now_ns);
        for connection in shard.silent_clients(now_ns) {
            net.close(io, connection.0, &mut self.events);
        }
        keeper.pump(io, shard);
        self.did("locks, silent clients, retention");
    }

    /// A task of housekeeping has ended. Who had nothing to do is not measured: the clock costs more.
    fn did(&mut self, task: &'static str) {
        self.mark_by(Step::Housekeeping, || task.to_owned());
    }

    pub(super) fn begin_stop(&mut self) {
        if self.stop != Stop::No {
            return;
        }
        let Parts { io, net, shard, .. } = &mut self.parts;
        self.stop = Stop::Settling {
            since_ns: io.now_ns(),
        };
        net.stop_accepting();
        shard.answer_all_parked(io);
    }

    fn go_on_stopping(&mut self, now_ns: u64) {
        let Parts {
            io,
            net,
            shard,
            saving,
            checkpoint,
            abort,
            ..
        } = &mut self.parts;
        match self.stop {
            Stop::No | Stop::Done | Stop::Unmarking => (),
            Stop::Settling { since_ns } => {
                self.wait_ns = self.wait_ns.min(10_000_000);
                shard.log.sync_now(io);
                checkpoint.begin_now(now_ns, shard);
                let settled = shard.is_quiet()
                    && shard.log.is_quiet()
                    && net.is_quiet()
                    && saving.is_done(shard)
                    && checkpoint.is_done(shard);
                if settled {
                    checkpoint.write_clean(io, shard);
                    self.stop = Stop::Sealing;
                } else if since_ns + STOP_NS_MAX <= now_ns {
                    tracing::warn!(
                        "not everything could be settled in time; the next start walks the log"
                    );
                    self.stop = Stop::Done;
                }
            }
            Stop::Sealing => {
                if !checkpoint.is_writing() {
                    let op = Op::Remove {
                        path: abort.clone(),
                    };
                    let pushed = io.push(Token::of(ROOM, ABORT), op);
                    assert!(pushed.is_ok(), "the ring is nearly empty");
                    self.stop = Stop::Unmarking;
                }
            }
        }
    }
}

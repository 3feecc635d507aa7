//! How long a thread was kept from answers that may have waited for it: ready to run and without a
//! CPU, or stopped.
//!
//! Neither is seen by looking at the clock around a turn: who sleeps in the kernel is woken by an
//! answer, and may get its CPU long after. The scheduler counts the first (`run_delay`: nothing
//! for a wake-up on a CPU that is free), and a continued process gets a signal. What a hypervisor
//! takes from the whole machine stays unseen.

use crate::latency::Recorder;
use crate::{Outcome, cost};
use signal_hook::SigId;
use signal_hook::consts::SIGCONT;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who has several requests outstanding asks the scheduler no more often than this: asking takes
/// 0.6 us of a CPU that may be full. With one outstanding it asks in every turn, when the next
/// request has left and there is nothing else to do.
const ASK_NS: u64 = 100_000;
/// Who spins does not hide more than this in a turn that took less.
const SPIN_NS: u64 = 10_000;

pub struct Absence {
    /// None where the kernel does not count.
    schedstat: Option<File>,
    was_continued: Arc<AtomicBool>,
    signal: SigId,
    spins: bool,
    ask_ns: u64,
    /// How long it had waited for a CPU when it last asked, and when that was.
    waited_ns: u64,
    asked_ns: u64,
    /// When the last turn ended, and how long it took.
    ended_ns: u64,
    turn_ns: u64,
    /// Of a turn in which nothing came: what came meanwhile is seen in the next.
    carried_ns: u64,
    /// How long each answer of this turn waited for those taken before it.
    pickups: Vec<u64>,
}

impl Absence {
    /// Of the calling thread.
    pub fn of_thread(spins: bool) -> Outcome<Absence> {
        let was_continued = Arc::new(AtomicBool::new(false));
        Ok(Absence {
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            signal: signal_hook::flag::register(SIGCONT, was_continued.clone())?,
            was_continued,
            spins,
            ask_ns: ASK_NS,
            waited_ns: 0,
            asked_ns: 0,
            ended_ns: 0,
            turn_ns: 0,
            carried_ns: 0,
            pickups: Vec::new(),
        })
    }

    /// Before the first turn of a thread with so many requests outstanding: what was before it
    /// delayed no answer.
    pub fn begin(&mut self, now_ns: u64, at_once: usize) {
        self.ask_ns = if at_once <= 1 && !self.spins {
            0
        } else {
            ASK_NS
        };
        self.was_continued.store(false, Ordering::Relaxed);
        self.waited_ns = self.run_queue_wait_ns();
        self.asked_ns = now_ns;
        self.ended_ns = now_ns;
    }

    /// An answer was taken that long after its turn began.
    pub fn took(&mut self, pickup_ns: u64) {
        self.pickups.push(pickup_ns);
    }

    /// After each turn: counts how long each of its answers may have waited, and tells how long
    /// the thread was kept away since it last asked.
    pub fn end_turn(&mut self, now_ns: u64, pickup: &mut Recorder) -> u64 {
        let before_ns = self.turn_ns;
        self.turn_ns = now_ns.saturating_sub(self.ended_ns);
        self.ended_ns = now_ns;
        let mut away_ns = 0;
        if self.is_to_ask(now_ns) {
            let waited_ns = self.run_queue_wait_ns();
            away_ns = waited_ns.saturating_sub(self.waited_ns);
            self.waited_ns = waited_ns;
            self.asked_ns = now_ns;
        }
        if self.was_continued.load(Ordering::Relaxed) {
            self.was_continued.store(false, Ordering::Relaxed);
            // Since when it stood is not known: at most since the turn before, for the signal may
            // have come to another thread first.
            away_ns = away_ns.max(self.turn_ns).max(before_ns);
        }
        let waited_ns = away_ns.max(self.carried_ns);
        self.carried_ns = if self.pickups.is_empty() { away_ns } else { 0 };
        for pickup_ns in self.pickups.drain(..) {
            pickup.record(pickup_ns.max(waited_ns));
        }
        away_ns
    }

    fn is_to_ask(&self, now_ns: u64) -> bool {
        let is_long = self.spins && SPIN_NS <= self.turn_ns;
        is_long || self.ask_ns <= now_ns.saturating_sub(self.asked_ns)
    }

    fn run_queue_wait_ns(&self) -> u64 {
        let mut bytes = [0; 96];
        let read = self.schedstat.as_ref().map(|it| it.read_at(&mut bytes, 0));
        let Some(Ok(size)) = read else {
            return 0;
        };
        cost::run_queue_wait_of(&bytes[..size]).unwrap_or(0)
    }
}

impl Drop for Absence {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A thread whose waits for a CPU are not looked at; ends of turns are told in milliseconds.
    fn blind() -> (Absence, impl Fn(&mut Absence, u64) -> Vec<u64>) {
        let mut absence = Absence::of_thread(false).unwrap();
        absence.schedstat = None;
        absence.begin(0, 1);
        let end_turn = |absence: &mut Absence, at_ms: u64| {
            let mut pickup = Recorder::default();
            absence.end_turn(at_ms * 1_000_000, &mut pickup);
            pickup.close(0);
            let histogram = pickup.histogram();
            let recorded = histogram.iter_recorded();
            recorded
                .map(|at| at.value_iterated_to() / 1_000_000)
                .collect()
        };
        (absence, end_turn)
    }

    #[test]
    fn a_stop_counts_for_the_answers_of_its_turn_or_of_the_next() {
        let (mut absence, end_turn) = blind();
        absence.took(1);
        assert_eq!(end_turn(&mut absence, 10), [0]);
        absence.was_continued.store(true, Ordering::Relaxed);
        absence.took(1);
        assert_eq!(end_turn(&mut absence, 30), [20]);
        absence.took(1);
        assert_eq!(end_turn(&mut absence, 40), [0]);
        // The wait was interrupted, and what came meanwhile is there at once.
        absence.was_continued.store(true, Ordering::Relaxed);
        assert!(end_turn(&mut absence, 90).is_empty());
        absence.took(1);
        assert_eq!(end_turn(&mut absence, 91), [50]);
        // What was not there at once was not kept waiting.
        absence.was_continued.store(true, Ordering::Relaxed);
        assert!(end_turn(&mut absence, 120).is_empty());
        assert!(end_turn(&mut absence, 121).is_empty());
        absence.took(1);
        assert_eq!(end_turn(&mut absence, 122), [0]);
    }

    #[test]
    fn a_thread_that_shares_its_cpu_knows_how_long_it_waited() {
        let cpu = core_affinity::get_core_ids().unwrap()[0].id;
        let pin = move || crate::pin(Some(&crate::Cpus(vec![cpu]))).unwrap();
        let told = std::thread::spawn(move || {
            pin();
            let is_over = Arc::new(AtomicBool::new(false));
            let seen = is_over.clone();
            let other = std::thread::spawn(move || {
                pin();
                while !seen.load(Ordering::Relaxed) {}
            });
            let mut absence = Absence::of_thread(false).unwrap();
            let mut pickup = Recorder::default();
            absence.begin(clock::now_ns(), 8);
            let end_ns = clock::now_ns() + 300_000_000;
            while clock::now_ns() < end_ns {
                absence.took(1);
                absence.end_turn(clock::now_ns(), &mut pickup);
            }
            is_over.store(true, Ordering::Relaxed);
            other.join().unwrap();
            pickup.close(0);
            pickup.histogram().max()
        });
        let most_ns = told.join().unwrap();
        assert!(500_000 < most_ns, "{most_ns} ns");
    }
}

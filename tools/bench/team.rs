//! The threads of a run: each with its connections and its own ring or epoll, all with one window.

use crate::drive::Drive;
use crate::load::Share;
use crate::ran::Ran;
use crate::{Load, Outcome, clock, fail, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};

/// How far a thread is. A cache line (two, as CPUs fetch them) of its own, for it is written to in
/// every turn.
#[derive(Default)]
#[repr(align(128))]
struct Mark {
    messages: AtomicU64,
    acknowledged: AtomicU64,
    received: AtomicU64,
    is_drained: AtomicBool,
    has_its_count: AtomicBool,
}

/// What a thread tells the others.
#[derive(Clone, Copy)]
pub struct Told {
    pub messages: u64,
    pub acknowledged: u64,
    pub received: u64,
    pub is_drained: bool,
    pub has_its_count: bool,
}

pub struct Team {
    marks: Vec<Mark>,
    start_ns: AtomicU64,
    failure: Mutex<Option<String>>,
    has_failed: AtomicBool,
    barrier: Barrier,
}

impl Team {
    fn new(threads: usize) -> Team {
        Team {
            marks: (0..threads).map(|_| Mark::default()).collect(),
            start_ns: AtomicU64::new(0),
            failure: Mutex::new(None),
            has_failed: AtomicBool::new(false),
            barrier: Barrier::new(threads),
        }
    }

    /// The moment at which the run begins: that of the thread which asks first.
    pub fn start_ns(&self) -> u64 {
        let now_ns = clock::now_ns();
        let (set, read) = (Ordering::AcqRel, Ordering::Acquire);
        match self.start_ns.compare_exchange(0, now_ns, set, read) {
            Ok(_) => now_ns,
            Err(first_ns) => first_ns,
        }
    }

    pub fn tell(&self, thread: usize, told: Told) {
        let mark = &self.marks[thread];
        mark.messages.store(told.messages, Ordering::Relaxed);
        mark.received.store(told.received, Ordering::Relaxed);
        mark.acknowledged
            .store(told.acknowledged, Ordering::Relaxed);
        mark.has_its_count
            .store(told.has_its_count, Ordering::Relaxed);
        // Who sees this sees the final counts too.
        mark.is_drained.store(told.is_drained, Ordering::Release);
    }

    fn sum(&self, of: impl Fn(&Mark) -> &AtomicU64) -> u64 {
        self.marks
            .iter()
            .map(|mark| of(mark).load(Ordering::Relaxed))
            .sum()
    }

    pub fn messages(&self) -> u64 {
        self.sum(|mark| &mark.messages)
    }

    pub fn acknowledged(&self) -> u64 {
        self.sum(|mark| &mark.acknowledged)
    }

    pub fn received(&self) -> u64 {
        self.sum(|mark| &mark.received)
    }

    pub fn all_drained(&self) -> bool {
        let mut marks = self.marks.iter();
        marks.all(|mark| mark.is_drained.load(Ordering::Acquire))
    }

    pub fn all_have_their_count(&self) -> bool {
        let mut marks = self.marks.iter();
        marks.all(|mark| mark.has_its_count.load(Ordering::Relaxed))
    }

    /// An error of any thread ends all of them.
    pub fn check(&self) -> Outcome<()> {
        if self.has_failed.load(Ordering::Relaxed) {
            return fail("another thread of the generator failed");
        }
        Ok(())
    }

    fn note_failure(&self, told: &Outcome<Ran>) {
        let Err(error) = told else { return };
        // The first is the cause; the others follow from it.
        if let Ok(mut known) = self.failure.lock()
            && known.is_none()
        {
            *known = Some(error.0.clone());
        }
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// One thread's part, from its connections to its last answer. What it leaves holds nothing
    /// that belongs to the thread.
    fn work(
        &self,
        load: &Load,
        share: &Share,
        fill: &impl Fn(&Share, &mut Drive) -> Outcome<()>,
    ) -> Outcome<Ran> {
        let made = pin(share.load.cpu.as_ref()).and_then(|()| {
            let mut drive = Drive::new(load, share)?;
            fill(share, &mut drive)?;
            Ok(drive)
        });
        if let Err(error) = made {
            let told = Err(error);
            self.note_failure(&told);
            self.barrier.wait();
            return told;
        }
        self.barrier.wait();
        let told = made.and_then(|drive| {
            self.check()?;
            drive.run(load, self)
        });
        self.note_failure(&told);
        told
    }
}

/// Runs a load with its threads; `fill` connects what each of them drives.
pub fn run(load: &Load, fill: impl Fn(&Share, &mut Drive) -> Outcome<()> + Sync) -> Outcome<Ran> {
    let shares = Share::of(load);
    let team = Team::new(shares.len());
    let (team, fill) = (&team, &fill);
    let told = std::thread::scope(|scope| {
        let work = |share| move || team.work(load, share, fill);
        let others: Vec<_> = shares[1..]
            .iter()
            .map(|share| scope.spawn(work(share)))
            .collect();
        let mut all = work(&shares[0])();
        for other in others {
            let told = other
                .join()
                .unwrap_or_else(|_| fail("a thread of the generator panicked"));
            all = all.and_then(|mut all| {
                all.absorb(told?);
                Ok(all)
            });
        }
        all
    });
    match team.failure.lock() {
        Ok(mut failure) if failure.is_some() => fail(failure.take().unwrap_or_default()),
        _ => told,
    }
}

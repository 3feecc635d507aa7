//! One thread of a run: its turns, the measured window, its seconds, and who takes what came on
//! which connection.

use crate::absence::Absence;
use crate::consume::Readers;
use crate::cost::Meter;
use crate::latency::Recorder;
use crate::load::{Load, Share, WaitKind};
use crate::net::{Net, Wait};
use crate::producer::Producer;
use crate::progress::Progress;
use crate::ran::{Both, Ran};
use crate::team::{Team, Told};
use crate::{Outcome, clock, fail, signals};

/// How long the last answers may take.
pub const DRAIN_NS: u64 = 10 * clock::SECOND_NS;
/// What is not delivered when nothing came for so long does not come.
const QUIET_NS: u64 = 3 * clock::SECOND_NS;
/// A turn in which a thread that spins finds nothing takes less: it was kept off its CPU for what is
/// above that, and had no time to spare.
const SPIN_NS: u64 = 10_000;
const SLEEP_NS: u64 = 10_000_000;
/// A run of a day and more is told without its later seconds.
const SECONDS_MAX: usize = 100_000;

/// The measured part of a run.
#[derive(Clone, Copy, Default)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub fn after(now_ns: u64, load: &Load) -> Window {
        let start_ns = now_ns + clock::seconds_ns(load.warmup());
        Window {
            start_ns,
            end_ns: start_ns + clock::seconds_ns(load.duration),
        }
    }

    /// Ends it now, if it is not over; one that has not begun is nothing then.
    pub fn cut(&mut self, now_ns: u64) {
        self.end_ns = self.end_ns.min(now_ns);
        self.start_ns = self.start_ns.min(self.end_ns);
    }

    pub fn has(&self, at_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&at_ns)
    }

    pub fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns).max(1) as f64 / clock::SECOND_NS as f64
    }
}

/// Messages and bytes so far, or of a second.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub messages: u64,
    pub bytes: u64,
}

impl Counts {
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            messages: self.messages.saturating_sub(before.messages),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }

    pub fn add(&mut self, other: Counts) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// A thread's run in progress.
pub struct Drive {
    pub net: Net,
    pub ran: Ran,
    /// How many groups of `readers[0]` get every message.
    pub groups: u64,
    /// Stops sending when the oldest due message waited so long.
    pub backlog_ns_max: u64,
    thread: usize,
    /// How much all threads received, and when that was seen first.
    progress_at: (u64, u64),
    wait: Wait,
    absence: Absence,
    /// The first thread's shows what all of them do.
    progress: Progress,
    messages_shown: u64,
    /// When its last turn ended.
    turned_ns: u64,
}

/// Whose a connection is.
#[derive(Clone, Copy)]
enum Owner {
    Producer(usize),
    Readers(usize, usize),
}

impl Drive {
    pub fn new(load: &Load, share: &Share) -> Outcome<Drive> {
        let spins = match load.wait {
            WaitKind::Auto => load.is_open_loop(),
            WaitKind::Spin => true,
            WaitKind::Sleep => false,
        };
        let net = Net::new(load.engine)?;
        let is_first = share.thread == 0;
        let meter = if is_first {
            Meter::new(load)?
        } else {
            Meter::of_thread()
        };
        let ran = Ran {
            producer: None,
            readers: Vec::new(),
            meter,
            window: Window::default(),
            e2e: Recorder::default(),
            pickup: Recorder::default(),
            kept_away_ns: 0,
            received: 0,
            received_in_window: 0,
            started_wall: std::time::SystemTime::now(),
            warm_up_ns: 0,
            engine: net.engine_name(),
            at_once: 0,
            spun: spins,
            idle_ns: 0,
            seconds: Vec::new(),
            begun: None,
            ended: None,
        };
        Ok(Drive {
            net,
            ran,
            groups: 1,
            backlog_ns_max: u64::MAX,
            thread: share.thread,
            progress_at: (0, 0),
            wait: if spins {
                Wait::Spin
            } else {
                Wait::Sleep { ns: SLEEP_NS }
            },
            absence: Absence::of_thread(spins)?,
            progress: Progress::new(load, is_first),
            messages_shown: 0,
            turned_ns: 0,
        })
    }

    /// Connects this thread's part of what is sent.
    pub fn send(&mut self, share: &Share) -> Outcome<()> {
        self.ran.producer = Some(Producer::connect(share, &mut self.net)?);
        Ok(())
    }

    fn owners(&self) -> Vec<Option<Owner>> {
        let mut owners = Vec::new();
        let mut set = |token: usize, owner| {
            if owners.len() <= token {
                owners.resize(token + 1, None);
            }
            owners[token] = Some(owner);
        };
        let producer = self.ran.producer.iter().flat_map(Producer::tokens);
        for (index, token) in producer.enumerate() {
            set(*token, Owner::Producer(index));
        }
        for (who, readers) in self.ran.readers.iter().enumerate() {
            for (index, token) in readers.tokens().iter().enumerate() {
                set(*token, Owner::Readers(who, index));
            }
        }
        owners
    }

    /// Runs from warm-up to the last answer.
    pub fn run(mut self, load: &Load, team: &Team) -> Outcome<Ran> {
        let owners = self.owners();
        let run = self.ran.producer.as_ref().map_or(0, |it| it.run);
        let senders = self.ran.producer.as_ref().map(Producer::slots_count);
        let readers = self.ran.readers.first().map(|it| it.readers.len());
        self.ran.at_once = senders.or(readers).unwrap_or(0);
        let now_ns = team.start_ns();
        self.absence.begin(now_ns, self.ran.at_once);
        self.ran.started_wall = std::time::SystemTime::now();
        let window = Window::after(now_ns, load);
        self.ran.window = window;
        self.ran.warm_up_ns = window.start_ns - now_ns;
        self.ran.meter.warm_up(self.ran.warm_up_ns);
        for readers in &mut self.ran.readers {
            readers.start(&mut self.net, window)?;
        }
        if let Some(producer) = &mut self.ran.producer {
            producer.start(&mut self.net, window, now_ns)?;
        }
        let mut ready = Vec::new();
        loop {
            let wait = self.turn_wait();
            self.net.wait(wait, &mut ready)?;
            let begun_ns = self.turned_ns;
            if wait != Wait::Spin {
                self.count_idle(clock::now_ns().saturating_sub(begun_ns));
            }
            let before = self.outstanding();
            if !ready.is_empty() {
                self.take(&ready, &owners, run)?;
            }
            if let Some(producer) = &mut self.ran.producer {
                producer.issue_due(&mut self.net)?;
            }
            for readers in &mut self.ran.readers {
                readers.ask_due(&mut self.net)?;
            }
            let is_over = self.is_over(team)?;
            if wait == Wait::Spin && ready.is_empty() && before == self.outstanding() {
                self.count_idle(self.turned_ns.saturating_sub(begun_ns).min(SPIN_NS));
            }
            if is_over {
                break;
            }
        }
        self.progress.end();
        self.ran.close_all();
        Ok(self.ran)
    }

    fn outstanding(&self) -> usize {
        self.ran.producer.as_ref().map_or(0, |it| it.outstanding)
    }

    /// The thread slept for so long, or found nothing to do in a turn that took that.
    fn count_idle(&mut self, ns: u64) {
        if self.ran.window.has(self.turned_ns) {
            self.ran.idle_ns += ns;
        }
    }

    /// Sleeps no longer than until the next message or pull is due.
    fn turn_wait(&self) -> Wait {
        let Wait::Sleep { ns } = self.wait else {
            return Wait::Spin;
        };
        let producer = self.ran.producer.iter().filter_map(Producer::due_ns);
        let readers = self.ran.readers.iter().filter_map(Readers::due_ns);
        let due_ns = producer.chain(readers).min();
        match due_ns.map(|due_ns| due_ns.saturating_sub(clock::now_ns())) {
            None => self.wait,
            Some(0) => Wait::Spin,
            Some(left_ns) => Wait::Sleep {
                ns: left_ns.min(ns),
            },
        }
    }

    /// Takes what came.
    fn take(&mut self, ready: &[usize], owners: &[Option<Owner>], run: u64) -> Outcome<()> {
        let turn_ns = clock::now_ns();
        for token in ready {
            let Some(owner) = owners.get(*token).copied().flatten() else {
                continue;
            };
            let ran = &mut self.ran;
            if self.net.receive(*token)?.is_none() {
                let left = ran.producer.as_ref().map_or(0, |it| it.outstanding);
                let how = format!(", with {left} send requests unanswered in all");
                return fail(self.net.connection(*token).broken_words(&how));
            }
            let now_ns = clock::now_ns();
            if ran.window.has(now_ns) {
                self.absence.took(now_ns - turn_ns);
            }
            match owner {
                Owner::Producer(index) => {
                    let producer = ran.producer.as_mut().expect("it owns a connection");
                    producer.on_ready(&mut self.net, index, now_ns)?;
                }
                Owner::Readers(who, index) => {
                    let (window, e2e) = (ran.window, &mut ran.e2e);
                    let (all, in_window) = (&mut ran.received, &mut ran.received_in_window);
                    let is_in_window = window.has(now_ns);
                    let seen = |of_run: u64, intended_ns: u64| {
                        if of_run == run && who == 0 {
                            *all += 1;
                            *in_window += u64::from(is_in_window);
                            if window.has(intended_ns) {
                                e2e.record(now_ns.saturating_sub(intended_ns));
                            }
                        }
                    };
                    ran.readers[who].on_ready(&mut self.net, index, now_ns, window, seen)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at the clock: seconds, window, end.
    fn is_over(&mut self, team: &Team) -> Outcome<bool> {
        team.check()?;
        let now_ns = clock::now_ns();
        let away_ns = self.absence.end_turn(now_ns, &mut self.ran.pickup);
        if self.ran.begun.is_some() && self.ran.ended.is_none() {
            self.ran.kept_away_ns += away_ns;
        }
        self.turned_ns = now_ns;
        let counts = self.ran.counts();
        let mut is_drained = false;
        let is_told = signals::is_told();
        if is_told {
            self.ran.window.cut(now_ns);
        }
        if let Some(producer) = &mut self.ran.producer {
            let is_behind = self.backlog_ns_max < producer.backlog_ns(now_ns);
            // A count is reached when all threads have theirs: they end together.
            let is_enough = producer.has_its_count() && team.all_have_their_count();
            if is_behind || is_enough || is_told {
                producer.give_up(now_ns);
            }
            self.ran.window = producer.window();
            is_drained = producer.is_drained(now_ns);
        }
        let (producer, window) = (self.ran.producer.as_ref(), self.ran.window);
        let told = Told {
            messages: counts.main.messages,
            acknowledged: producer.map_or(0, |it| it.acknowledged),
            received: self.ran.received,
            is_drained,
            has_its_count: producer.is_some_and(Producer::has_its_count),
        };
        team.tell(self.thread, told);
        self.ran.meter.tell_messages(|| team.messages());
        if self.ran.begun.is_none() && window.start_ns <= now_ns {
            self.ran.begun = Some(counts);
            self.ran.meter.begin()?;
        }
        if self.ran.ended.is_none() && window.end_ns <= now_ns {
            self.ran.ended = Some(counts);
            self.ran.meter.end()?;
        }
        self.look_at_second(now_ns, counts, team);
        let is_done = match self.ran.producer {
            Some(_) => team.all_drained() && self.is_all_received(now_ns, team),
            None => window.end_ns <= now_ns,
        };
        Ok(is_done || window.end_ns + DRAIN_NS < now_ns)
    }

    /// Whether the readers have all that was acknowledged, or nothing comes any more.
    fn is_all_received(&mut self, now_ns: u64, team: &Team) -> bool {
        if self.ran.readers.is_empty() {
            return true;
        }
        let received = team.received();
        if received != self.progress_at.0 {
            self.progress_at = (received, now_ns);
        }
        let since_ns = self.progress_at.1.max(self.ran.window.end_ns);
        team.acknowledged() * self.groups <= received || since_ns + QUIET_NS < now_ns
    }

    fn look_at_second(&mut self, now_ns: u64, counts: Both, team: &Team) {
        let Some(begun) = self.ran.begun else {
            self.progress.warm_up(now_ns, || team.messages());
            return;
        };
        let seconds = self.ran.seconds.len();
        let next_ns = self.ran.window.start_ns + (seconds as u64 + 1) * clock::SECOND_NS;
        // What comes after the window belongs to its last second.
        let most = SECONDS_MAX.min(self.ran.window.seconds().ceil() as usize);
        if now_ns < next_ns || most <= seconds {
            return;
        }
        self.ran.close_second(counts.since(begun));
        let primary = self.ran.primary();
        let p99_ns = primary.and_then(|(_, recorder)| recorder.last_quantile(0.99));
        let messages = team.messages();
        let shown = messages.saturating_sub(self.messages_shown);
        self.messages_shown = messages;
        self.progress.second(seconds + 1, shown, p99_ns);
    }
}

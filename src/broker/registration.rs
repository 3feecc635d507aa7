//! Keeps this process's brokers registered with its name servers (103 every 30 s, 104 at the end).
//!
//! A topic that is new or changed is told alone, as RocketMQ does it, to a name server that knows the rest. What is made of all
//! topics of a shard would take its turn from everybody else.
//!
//! **Ordinary threads and blocking `std::net` sockets**, off every shard's path: one thread a name server,
//! because a name may take long to resolve and a server long to answer, and one that watches deadlines.
//! A name server that cannot be reached delays nobody: what waits for it gives up after 3 s, and while it
//! is known to be away nobody waits for it at all.

mod link;
mod told;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::{Prng, ShardId};
use crate::command::{DataVersion, TopicConfig};

use link::{Failure, Link};
use told::{Inbox, ShardProgress};

/// An update's `done` is called within this time, whatever the name servers do.
const DONE_WITHIN: Duration = Duration::from_secs(3);

/// Unregistering may take this long.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Registrations are repeated after 27 to 30 s, so that the brokers of many hosts spread out.
const PERIOD_MS: u64 = 30_000;
const JITTER_MS: u64 = 3_000;

/// A connection that a name server closed is noticed within this time, and made anew.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a name server is told about one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerIdentity {
    /// `brokerClusterName`.
    pub cluster: String,
    /// `brokerName`.
    pub name: String,
    /// `host:port` that clients reach.
    pub address: String,
    /// `host:port` of replication.
    pub ha_address: String,
}

/// How an update ended: see [`Registrar::update`].
pub type Done = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What an update tells of a shard's topics.
#[derive(Debug, Clone)]
pub enum News {
    /// This is all it has.
    All(Arc<Vec<TopicConfig>>),
    /// These are new or have changed.
    Changed(Vec<TopicConfig>),
}

/// See the top of the file.
pub struct Registrar {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Registrar")
            .field("name_servers", &self.shared.addresses)
            .field("brokers", &self.shared.brokers)
            .finish_non_exhaustive()
    }
}

impl Registrar {
    /// Starts a thread for each name server (`host:port`, resolved anew at every connect). A broker, one a
    /// shard in the order of shards, is registered as soon as its first [`Self::update`] says what it has.
    ///
    /// `whole`: what has changed is never told alone (`enableSingleTopicRegister`).
    #[must_use]
    pub fn start(addresses: Vec<String>, brokers: Vec<BrokerIdentity>, whole: bool) -> Self {
        let inboxes = || brokers.iter().map(|_| Inbox::default()).collect();
        let state = State {
            inboxes: addresses.iter().map(|_| inboxes()).collect(),
            away: addresses.iter().map(|_| None).collect(),
            running: vec![true; addresses.len()],
            ..State::default()
        };
        let shared = Arc::new(Shared {
            addresses,
            brokers,
            whole,
            state: Mutex::new(state),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        for server in 0..shared.addresses.len() {
            let shared = Arc::clone(&shared);
            spawn(format!("register-{server}"), move || {
                shared.keep_registered(server);
            });
        }
        let watcher = Arc::clone(&shared);
        spawn("register-watch".to_owned(), move || {
            watcher.watch_deadlines();
        });
        Self { shared }
    }

    /// Registers a shard's broker with these topics, now and every 30 s from now on; its first update tells
    /// all of them. The version must differ whenever the topics do: name servers look only at it.
    ///
    /// `done` is called once, on another thread, within 3 s: with `Ok` when every name server that can be
    /// reached has taken the registration and there is at least one; otherwise with the name servers that
    /// did not, and why. It must not block.
    pub fn update(&self, shard: ShardId, news: &News, version: DataVersion, done: Option<Done>) {
        let shard = usize::from(shard.0);
        assert!(
            shard < self.shared.brokers.len(),
            "shard {shard} of {}",
            self.shared.brokers.len()
        );
        let mut state = self.shared.lock();
        state.generation += 1;
        let generation = state.generation;
        for inboxes in &mut state.inboxes {
            inboxes[shard].put(news, version, generation);
        }
        if let Some(done) = done {
            let outcomes = if state.stop_at.is_some() {
                let why = "this broker is stopping".to_owned();
                vec![Some(Outcome::Refused(why)); self.shared.addresses.len()]
            } else {
                state.away.clone()
            };
            state.waiters.push(Waiter {
                shard,
                generation,
                deadline: Instant::now() + DONE_WITHIN,
                outcomes,
                done,
            });
        }
        // The watcher calls what is decided already: `done` may take locks that this caller holds.
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Unregisters all brokers everywhere, within 1 s; what cannot be told in time is noticed by the name
    /// servers when the connections close. Nothing is registered from now on.
    pub fn stop(&self) {
        let shared = &self.shared;
        let mut state = shared.lock();
        let stop_at = *state
            .stop_at
            .get_or_insert_with(|| Instant::now() + STOP_WITHIN);
        for waiter in &mut state.waiters {
            let why = "this broker is stopping";
            for outcome in &mut waiter.outcomes {
                outcome.get_or_insert_with(|| Outcome::Refused(why.to_owned()));
            }
        }
        shared.stopping.store(true, Ordering::Release);
        shared.changed.notify_all();
        while state.is_unregistering() {
            let left = stop_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = shared.wait(state, left);
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.stop();
        self.shared.lock().dropped = true;
        self.shared.changed.notify_all();
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(name).spawn(run);
    drop(thread.expect("the system gives a thread at start"));
}

/// What became of an update at one name server.
#[derive(Debug, Clone)]
enum Outcome {
    Registered,
    Unreachable(String),
    Refused(String),
}

/// An update whose caller waits.
struct Waiter {
    shard: usize,
    generation: u64,
    deadline: Instant,
    /// By name server; `None` = not known yet.
    outcomes: Vec<Option<Outcome>>,
    done: Done,
}

impl Waiter {
    fn is_decided(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    fn finish(self, addresses: &[String]) {
        let mut registered = addresses.is_empty();
        let mut refused = false;
        let mut reasons = Vec::new();
        for (address, outcome) in addresses.iter().zip(self.outcomes) {
            match outcome {
                Some(Outcome::Registered) => registered = true,
                Some(Outcome::Unreachable(why)) => reasons.push(format!("{address}: {why}")),
                Some(Outcome::Refused(why)) => {
                    refused = true;
                    reasons.push(format!("{address}: {why}"));
                }
                None => {}
            }
        }
        let result = if registered && !refused {
            Ok(())
        } else {
            Err(format!("not registered with {}", reasons.join("; ")))
        };
        (self.done)(result);
    }
}

#[derive(Default)]
struct State {
    /// Grows with each update of any shard; 0 = none yet.
    generation: u64,
    /// By name server, by shard.
    inboxes: Vec<Vec<Inbox>>,
    waiters: Vec<Waiter>,
    /// By name server: why it is known not to be there.
    away: Vec<Option<Outcome>>,
    /// By name server: whether its thread runs.
    running: Vec<bool>,
    stop_at: Option<Instant>,
    /// There will be no update any more.
    dropped: bool,
}

impl State {
    /// Notes an outcome for the waiters of one name server that `concerns` picks.
    fn note(&mut self, server: usize, outcome: &Outcome, concerns: impl Fn(&Waiter) -> bool) {
        for waiter in self.waiters.iter_mut().filter(|waiter| concerns(waiter)) {
            waiter.outcomes[server].get_or_insert_with(|| outcome.clone());
        }
    }

    /// Whether a name server may still know a broker. Those that are away know none, and their threads
    /// may sit in a connect for longer than anybody wants to wait.
    fn is_unregistering(&self) -> bool {
        let mut threads = self.running.iter().zip(&self.away);
        threads.any(|(running, away)| *running && away.is_none())
    }

    fn take_decided(&mut self) -> Vec<Waiter> {
        let waiters = std::mem::take(&mut self.waiters);
        let (decided, open) = waiters.into_iter().partition(Waiter::is_decided);
        self.waiters = open;
        decided
    }
}

struct Shared {
    addresses: Vec<String>,
    brokers: Vec<BrokerIdentity>,
    /// All topics are told each time.
    whole: bool,
    state: Mutex<State>,
    /// Something in `state` is new: an update, an outcome, the end.
    changed: Condvar,
    /// As `stop_at`, for loops that hold no lock.
    stopping: AtomicBool,
}

/// What a name server's thread is to do next.
enum Work {
    /// Shards, and what came of them.
    Register(Vec<(usize, Inbox)>),
    /// Nothing is due: look whether the connections still stand.
    Probe,
    Stop {
        until: Instant,
    },
}

/// What a name server's thread knows.
struct Progress {
    /// By shard.
    shards: Vec<ShardProgress>,
    /// Not before this time: the name server was away.
    retry_at: Option<Instant>,
    backoff: Duration,
    standing: Standing,
    prng: Prng,
}

/// For the log: one line a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unknown,
    Registered,
    Refused,
    Away,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The life of one name server's thread.
    fn keep_registered(&self, server: usize) {
        let seed = std::collections::hash_map::RandomState::new();
        let seed = std::hash::BuildHasher::hash_one(&seed, server);
        let mut link = Link::new(&self.addresses[server], &self.brokers, &self.stopping);
        let mut progress = Progress {
            shards: self
                .brokers
                .iter()
                .map(|_| ShardProgress::new(Instant::now()))
                .collect(),
            retry_at: None,
            backoff: BACKOFF_MIN,
            standing: Standing::Unknown,
            prng: Prng::from_seed(seed),
        };
        loop {
            match self.next_work(server, &progress) {
                Work::Register(work) => self.register_all(server, &mut link, &mut progress, work),
                Work::Probe => {
                    for shard in link.take_closed() {
                        progress.shards[shard].forget(Instant::now());
                    }
                }
                Work::Stop { until } => {
                    link.unregister_all(until);
                    break;
                }
            }
        }
        self.lock().running[server] = false;
        self.changed.notify_all();
    }

    fn next_work(&self, server: usize, progress: &Progress) -> Work {
        let mut state = self.lock();
        let mut probe = false;
        loop {
            if let Some(until) = state.stop_at {
                return Work::Stop { until };
            }
            let now = Instant::now();
            if let Some(retry_at) = progress.retry_at.filter(|retry_at| now < *retry_at) {
                state = self.wait(state, retry_at - now);
                continue;
            }
            let due: Vec<_> = progress
                .shards
                .iter()
                .zip(&mut state.inboxes[server])
                .enumerate()
                .filter_map(|(shard, (known, inbox))| {
                    let due = known.is_due(inbox.generation, now);
                    due.then(|| (shard, inbox.take()))
                })
                .collect();
            if !due.is_empty() {
                return Work::Register(due);
            }
            if probe {
                return Work::Probe;
            }
            let asleep = Instant::now();
            state = self.wait(state, PROBE_INTERVAL);
            probe = PROBE_INTERVAL <= asleep.elapsed();
        }
    }

    fn register_all(
        &self,
        server: usize,
        link: &mut Link<'_>,
        progress: &mut Progress,
        work: Vec<(usize, Inbox)>,
    ) {
        let shards: Vec<usize> = work.iter().map(|(shard, _)| *shard).collect();
        for (shard, inbox) in work {
            progress.shards[shard].take(inbox);
        }
        let mut refusal = None;
        for shard in shards {
            let known = &progress.shards[shard];
            let introduce = known.is_to_introduce();
            let (encoded, is_part) = known.encoded(self.whole, Instant::now());
            let result = encoded
                .map_err(Failure::Refused)
                .and_then(|encoded| link.register(shard, &encoded, introduce));
            let (wait, outcome) = match result {
                Ok(()) => {
                    let wait_ms = PERIOD_MS - progress.prng.below(JITTER_MS);
                    (Duration::from_millis(wait_ms), Outcome::Registered)
                }
                Err(Failure::Refused(why)) => {
                    refusal = Some(why.clone());
                    (progress.backoff, Outcome::Refused(why))
                }
                Err(Failure::Unreachable(why)) => {
                    self.went_away(server, link, progress, why);
                    return;
                }
            };
            let known = &mut progress.shards[shard];
            let is_known = matches!(outcome, Outcome::Registered);
            let generation = known.told(is_known, is_part, Instant::now() + wait);
            let mut state = self.lock();
            state.away[server] = None;
            state.note(server, &outcome, |waiter| {
                waiter.shard == shard && waiter.generation <= generation
            });
            drop(state);
            self.changed.notify_all();
        }
        progress.retry_at = None;
        match refusal {
            None => {
                progress.backoff = BACKOFF_MIN;
                self.log(server, progress, Standing::Registered, "");
            }
            Some(why) => {
                progress.lengthen_backoff();
                self.log(server, progress, Standing::Refused, &why);
            }
        }
    }

    /// Nobody waits for a name server that is away; all brokers register anew once it is back.
    fn went_away(&self, server: usize, link: &mut Link<'_>, progress: &mut Progress, why: String) {
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        link.close();
        let now = Instant::now();
        let shards = progress.shards.iter_mut();
        shards.for_each(|shard| shard.forget(now));
        progress.retry_at = Some(Instant::now() + progress.backoff);
        progress.lengthen_backoff();
        self.log(server, progress, Standing::Away, &why);
        let outcome = Outcome::Unreachable(why);
        let mut state = self.lock();
        state.note(server, &outcome, |_| true);
        state.away[server] = Some(outcome);
        drop(state);
        self.changed.notify_all();
    }

    fn log(&self, server: usize, progress: &mut Progress, standing: Standing, why: &str) {
        let before = std::mem::replace(&mut progress.standing, standing);
        if before == standing {
            return;
        }
        let name_server = &self.addresses[server];
        match standing {
            Standing::Unknown => {}
            Standing::Registered if before == Standing::Unknown => {
                tracing::info!("registered with name server {name_server}");
            }
            Standing::Registered => {
                tracing::warn!("registered with name server {name_server} again")
            }
            Standing::Refused => tracing::warn!(
                "name server {name_server} refuses to register this broker: {why}; trying again every {} s",
                BACKOFF_MAX.as_secs()
            ),
            Standing::Away => tracing::warn!(
                "name server {name_server} cannot be reached: {why}; clients that ask it do not find this broker; trying again every {} s",
                BACKOFF_MAX.as_secs()
            ),
        }
    }

    /// Ends the wait of updates whose time is up, and calls everybody whose update is decided.
    fn watch_deadlines(&self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            for waiter in &mut state.waiters {
                if waiter.deadline <= now {
                    for outcome in &mut waiter.outcomes {
                        outcome.get_or_insert_with(|| {
                            Outcome::Unreachable(format!(
                                "no answer within {} s",
                                DONE_WITHIN.as_secs()
                            ))
                        });
                    }
                }
            }
            let decided = state.take_decided();
            if !decided.is_empty() {
                drop(state);
                for waiter in decided {
                    waiter.finish(&self.addresses);
                }
                state = self.lock();
                continue;
            }
            if state.dropped && state.waiters.is_empty() {
                return;
            }
            let next = state.waiters.iter().map(|waiter| waiter.deadline).min();
            let time = next.map_or(DONE_WITHIN, |next| next.saturating_duration_since(now));
            state = self.wait(state, time);
        }
    }
}

impl Progress {
    fn lengthen_backoff(&mut self) {
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }
}

//! Launching the threads of shards: a store opened, a ring, listeners, and everything a worker is made of.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use super::control::{Mailbox, Report};
use super::layout::Layout;
use super::open::{self, Opened, Plan};
use super::registration::{BrokerIdentity, News, Registrar};
use super::retention::Keeper;
use super::saving::Saving;
use super::start::{frame_size, not_had};
use super::worker::{Parts, Worker};
use crate::base::ShardId;
use crate::config::{self, Settings, StartError};
use crate::egress::{Egress, Policy, Way};
use crate::index::UNIT_SIZE;
use crate::index::index_file::Options as IndexOptions;
use crate::io::{
    Io, Lanes, ListenerId, Op, Options, TcpListener, Uring, allowed_cpus, device_of, listen, pin,
    raise_priority, take_short_turns, whole,
};
use crate::log::{Options as LogOptions, run_one};
use crate::net::{Limits, Net};
use crate::shard::{self, Shard};

pub(super) fn store_host(settings: &Settings, shard: ShardId) -> SocketAddr {
    let ports = settings
        .addresses
        .ports(shard)
        .expect("the ports were checked");
    SocketAddr::new(settings.addresses.advertised, ports.listen)
}

pub(super) fn identity(settings: &Settings, layout: &Layout, shard: ShardId) -> BrokerIdentity {
    let ports = settings
        .addresses
        .ports(shard)
        .expect("the ports were checked");
    let ip = settings.addresses.advertised;
    BrokerIdentity {
        cluster: settings.cluster.clone(),
        name: settings.broker_name(shard, layout.in_place),
        address: SocketAddr::new(ip, ports.listen).to_string(),
        ha_address: SocketAddr::new(ip, ports.replication).to_string(),
    }
}

/// Reads past the page cache that a disk is given at once: enough to keep it busy, few enough that a sync
/// never waits behind a crowd. Shards whose logs lie on one disk share them
/// (kernel-notes/page-cache-and-cold-reads.md).
const COLD_READS_MAX: u32 = 4;

/// What all shards start with.
pub(super) struct Starting<'a> {
    pub(super) settings: &'a Settings,
    pub(super) layout: &'a Layout,
    pub(super) lanes: &'a Lanes,
    pub(super) mailboxes: &'a [Mailbox],
    pub(super) registrar: &'a Arc<Registrar>,
    pub(super) reports: &'a Sender<Report>,
    pub(super) connections_max: usize,
}

impl Starting<'_> {
    /// Starts every shard and waits until all serve and are registered, or one says why it cannot.
    pub(super) fn start(
        &self,
        shards: &[ShardId],
        inbox: &Receiver<Report>,
    ) -> Result<(), StartError> {
        // All ports first: a port that is taken should stop the start before any store is opened.
        let mut listeners = Vec::new();
        for shard in shards {
            let ports = self
                .settings
                .addresses
                .ports(*shard)
                .expect("the ports were checked");
            let ip = self.settings.addresses.bind;
            listeners.push(vec![
                listen(SocketAddr::new(ip, ports.listen)).map_err(not_had)?,
                listen(SocketAddr::new(ip, ports.vip)).map_err(not_had)?,
            ]);
        }
        let cpus = allowed_cpus();
        let spin_us_max = self.spin_us_max(&cpus);
        let log = super::writing::options(self.settings)?;
        let disks: Vec<_> = shards.iter().map(|shard| self.disk_of(*shard)).collect();
        for ((shard, listeners), disk) in shards.iter().zip(listeners).zip(&disks) {
            let sharers = disks.iter().filter(|other| *other == disk).count() as u32;
            let cpu = cpus[usize::from(shard.0) % cpus.len()];
            let cold_reads_max = COLD_READS_MAX / sharers;
            self.spawn(
                *shard,
                listeners,
                log,
                Share {
                    cpu,
                    spin_us_max,
                    cold_reads_max,
                },
            )?;
        }
        // Clients that are told "ready" should find the routes, so registration is waited for too; the
        // registrar answers within 3 s whether or not a name server is there.
        let (mut serving, mut registered) = (0, 0);
        while serving < shards.len() || registered < shards.len() {
            match inbox.recv().expect("this side holds a sender too") {
                Report::Ready => serving += 1,
                Report::Registered => registered += 1,
                Report::NotStarted(error) => return Err(error),
                Report::Failed { shard, why } => {
                    let what = format!("shard {shard}");
                    return Err(StartError::new(
                        "start",
                        what,
                        why,
                        "look at the disk (dmesg)",
                    ));
                }
                Report::Signal(_) => {
                    return Err(StartError::new(
                        "start",
                        "the broker",
                        "it was asked to stop while it started",
                        "start it again",
                    ));
                }
                Report::Stopped => (),
            }
        }
        Ok(())
    }

    /// Shards that share a CPU would stay awake in each other's way. To be asked before a shard is pinned:
    /// afterwards its thread knows of one CPU only.
    fn spin_us_max(&self, cpus: &[usize]) -> u64 {
        let shard_count = self.layout.shard_count as usize;
        if shard_count <= cpus.len() {
            return self.settings.scheduling.spin_us_max;
        }
        tracing::info!(
            "{shard_count} shards share {} CPUs: they sleep whenever they have nothing to do (spinMaxMicros \
             has no effect), and one that works makes others wait",
            cpus.len()
        );
        0
    }

    fn disk_of(&self, shard: ShardId) -> Option<u64> {
        let store = &self.settings.store;
        let paths = store.paths((!self.layout.in_place).then_some(shard));
        device_of(&paths.commit_log)
    }

    fn spawn(
        &self,
        shard: ShardId,
        listeners: Vec<TcpListener>,
        log: LogOptions,
        share: Share,
    ) -> Result<(), StartError> {
        let name = self.settings.broker_name(shard, self.layout.in_place);
        let plan = ShardPlan {
            settings: self.settings.clone(),
            log,
            share,
            in_place: self.layout.in_place,
            shard_settings: shard_settings(self.settings, self.layout, shard, name),
            shard,
            lanes: self.lanes.clone(),
            mailboxes: self.mailboxes.to_vec(),
            registrar: Arc::clone(self.registrar),
            reports: self.reports.clone(),
            connections_max: self.connections_max,
        };
        let spawned = std::thread::Builder::new()
            .name(format!("shard-{shard}"))
            .spawn(move || plan.run(listeners));
        spawned.map(|_| ()).map_err(|error| {
            StartError::new(
                "start",
                "a shard's thread",
                error,
                "raise the limit of processes",
            )
        })
    }
}

fn shard_settings(
    settings: &Settings,
    layout: &Layout,
    shard: ShardId,
    broker_name: String,
) -> shard::Settings {
    let messages = &settings.messages;
    let memory = crate::io::memory_size();
    shard::Settings {
        shard,
        shard_count: layout.shard_count,
        broker_name,
        cluster: settings.cluster.clone(),
        store_host: store_host(settings, shard),
        perm: messages.permission,
        message_size_max: messages.body_size_max as usize,
        auto_create_topics: messages.create_topics,
        auto_create_groups: messages.create_groups,
        default_queue_count: messages
            .queue_count_default
            .div_ceil(layout.shard_count)
            .max(1),
        cluster_topic: messages.cluster_topic,
        broker_topic: messages.broker_topic,
        trace_topic: messages.trace_topic.is_some(),
        delay_levels: messages.delay_levels_ms.clone(),
        long_polling: settings.pulls.long_polling,
        short_polling_ms: settings.pulls.short_polling_ms,
        hot_fetch: shard::FetchBounds {
            count_max: settings.pulls.hot_count_max as usize,
            bytes_max: u64::from(settings.pulls.hot_bytes_max),
        },
        cold_fetch: shard::FetchBounds {
            count_max: settings.pulls.cold_count_max as usize,
            bytes_max: u64::from(settings.pulls.cold_bytes_max),
        },
        notify_members_changed: messages.notify_members,
        sync_flush_timeout_ms: settings.flush.timeout_ms,
        young_log_size: memory / 10 * 4,
        index_keys: settings.store.index_enabled,
        query_count_max: messages.query_count_max as usize,
        boot_ms: 0,
        version: crate::command::DataVersion::default(),
        properties: settings
            .entries
            .iter()
            .map(|entry| (entry.key.to_string(), entry.value.clone()))
            .collect(),
    }
}

/// What a shard has of the machine.
#[derive(Debug, Clone, Copy)]
struct Share {
    cpu: usize,
    /// Microseconds that it may stay awake for what comes next.
    spin_us_max: u64,
    /// Reads past the page cache at once.
    cold_reads_max: u32,
}

/// What one shard's thread needs to start.
struct ShardPlan {
    settings: Settings,
    log: LogOptions,
    share: Share,
    in_place: bool,
    shard_settings: shard::Settings,
    shard: ShardId,
    lanes: Lanes,
    mailboxes: Vec<Mailbox>,
    registrar: Arc<Registrar>,
    reports: Sender<Report>,
    connections_max: usize,
}

impl ShardPlan {
    fn run(self, listeners: Vec<TcpListener>) {
        let cpu = self.share.cpu;
        if !pin(cpu) {
            tracing::warn!(cpu, "a shard could not be pinned to its CPU");
        }
        if self.settings.scheduling.high_priority && !raise_priority() {
            tracing::warn!(
                "shardPriority=high was refused: give this process CAP_SYS_NICE, or LimitNICE=-10 in its unit"
            );
        }
        // Under synchronous flush the shard gives its CPU to its workers of its own accord.
        if !self.log.flush.is_sync() {
            take_short_turns();
        }
        let reports = self.reports.clone();
        match self.open(listeners) {
            Err(error) => {
                let _ = reports.send(Report::NotStarted(error));
            }
            Ok(worker) => worker.run(),
        }
    }

    fn ring(&self) -> Options {
        let Share {
            cpu, spin_us_max, ..
        } = self.share;
        tracing::debug!(
            "shard {} is on CPU {cpu} and stays awake for {spin_us_max} us",
            self.shard
        );
        Options {
            spin_ns_max: spin_us_max * 1000,
            workers_first: self.log.flush.is_sync(),
            ..Options::SHARD.without(self.settings.without)
        }
    }

    fn open(mut self, listeners: Vec<TcpListener>) -> Result<Worker<Uring>, StartError> {
        let paths = self
            .settings
            .store
            .paths((!self.in_place).then_some(self.shard));
        let listener_count = listeners.len() as u32;
        let mut io = Uring::new(self.ring(), listeners, self.lanes.clone()).map_err(not_had)?;
        self.shard_settings.boot_ms = io.wall_ms();
        let plan = Plan {
            paths: &paths,
            log: self.log,
            queue_file_size: self.settings.store.queue_file_unit_count * UNIT_SIZE,
            index: IndexOptions {
                folder: paths.index.clone(),
                slot_count: self.settings.store.index_slot_count,
                entry_count: self.settings.store.index_entry_count,
            },
            settings: &self.shard_settings,
            inherit_from: self.inherit_from(),
        };
        let Opened {
            store,
            loaded,
            mut checkpoint,
        } = open::open(&mut io, &plan)?;
        write_abort(&mut io, &paths.abort)?;
        checkpoint.place(paths.checkpoint.clone());
        let seed = self.shard_settings.boot_ms ^ (u64::from(self.shard.0) << 56);
        let mut shard = Shard::new(self.shard_settings.clone(), store, seed);
        let mut net = Net::new(Limits::for_connections(self.connections_max), frame_size);
        for listener in 0..listener_count {
            net.listen(&mut io, ListenerId(listener));
        }
        let mailbox = self.mailboxes[usize::from(self.shard.0)].clone();
        mailbox.connect(io.bell());
        let news = News::All(Arc::new(shard.advertised_topics()));
        let version = shard.topics.version();
        let reports = self.reports.clone();
        let done: super::registration::Done = Box::new(move |result| {
            if let Err(why) = result {
                tracing::warn!(
                    why,
                    "clients cannot find this broker yet; registration goes on"
                );
            }
            let _ = reports.send(Report::Registered);
        });
        self.registrar
            .update(self.shard, &news, version, Some(done));
        shard.note_time(io.wall_ms());
        let parts = Parts {
            io,
            id: self.shard,
            net,
            egress: Egress::new(policy(self.settings.egress), self.share.cold_reads_max),
            shard,
            saving: Saving::new(paths.config.clone(), loaded),
            checkpoint,
            keeper: Keeper::new(self.settings.retention.clone(), paths.root.clone()),
            mailbox,
            mailboxes: self.mailboxes,
            registrar: Some(self.registrar),
            reports: self.reports.clone(),
            abort: paths.abort,
        };
        let _ = self.reports.send(Report::Ready);
        Ok(Worker::new(parts))
    }

    /// A shard that is new in an old store begins with the topics and groups of the first.
    fn inherit_from(&self) -> Option<PathBuf> {
        (0 < self.shard.0).then(|| self.settings.store.paths(Some(ShardId(0))).config)
    }
}

fn write_abort(io: &mut Uring, path: &Path) -> Result<(), StartError> {
    let bytes = std::process::id().to_string().into_bytes();
    let op = Op::Replace {
        path: path.to_owned(),
        content: whole(bytes),
        backup: None,
    };
    run_one(io, op).result.map(|_| ()).map_err(|errno| {
        StartError::new(
            "write",
            path.display(),
            errno,
            "make room, or make the store writable",
        )
    })
}

const fn policy(egress: config::Egress) -> Policy {
    match egress {
        config::Egress::Auto => Policy::Auto,
        config::Egress::SendFile => Policy::Fixed(Way::Sendfile),
        config::Egress::Splice => Policy::Fixed(Way::Splice),
        config::Egress::Gather => Policy::Fixed(Way::Gather),
        config::Egress::SendZc => Policy::Fixed(Way::SendZc),
        config::Egress::Copy => Policy::Fixed(Way::Copy),
    }
}

//! Starting a process of shards in order, and stopping it in order.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::control::{Control, Mailbox, Report};
use super::names;
use super::open::{self, Opened, Plan};
use super::registration::{BrokerIdentity, Registrar};
use super::retention::Keeper;
use super::saving::Saving;
use super::worker::{Parts, Worker};
use crate::base::ShardId;
use crate::config::{self, NameServers, Settings, StartError};
use crate::egress::{Egress, Policy, Way};
use crate::index::UNIT_SIZE;
use crate::index::index_file::Options as IndexOptions;
use crate::io::{
    FolderLock, Io, Lanes, ListenerId, Op, Options, Uring, allowed_cpus, listen, lock_folder, pin,
    prove_writable, raise_file_limit, read_small,
};
use crate::log::{Options as LogOptions, run_one};
use crate::net::{Limits, Net};
use crate::protocol::rocketmq::frame;
use crate::shard::{self, Shard};
use crate::state::shards;

/// Descriptors besides connections: segments, rings, listeners, what others open.
const FILES_RESERVED: u64 = 1024;

/// A stop in order takes at most this long.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Exit code after a storage error.
const EXIT_FAILED: u8 = 3;
/// Exit code after a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// The store's shape.
struct Layout {
    shard_count: u32,
    /// Apache's store, opened where it is.
    in_place: bool,
    _lock: FolderLock,
}

/// Says how long a frame is, for net.
pub(super) fn frame_size(bytes: &[u8]) -> Result<Option<usize>, String> {
    frame::frame_size(bytes).map_err(|error| error.to_string())
}

/// Watches for SIGTERM and SIGINT.
pub(super) fn signals() -> Result<Signals, StartError> {
    Signals::new([SIGTERM, SIGINT])
        .map_err(|error| StartError::new("watch for", "signals", error, "see the cause"))
}

/// Runs the broker until it is stopped.
///
/// # Errors
/// It could not start; nothing runs any more then.
pub fn serve(settings: Settings) -> Result<ExitCode, StartError> {
    let file_limit = raise_file_limit();
    let layout = lay_out(&settings)?;
    settings.check_ports(layout.shard_count)?;
    let lanes = Lanes::start().map_err(|error| {
        StartError::new(
            "start",
            "helper threads",
            error,
            "raise the limit of processes",
        )
    })?;
    let (reports, inbox) = channel();
    forward_signals(reports.clone())?;
    let bind = settings.addresses.bind;
    let (names_handle, addresses) = match &settings.name_servers {
        NameServers::Embedded { port } => {
            let address = SocketAddr::new(bind, *port);
            let handle = start_names(&settings, address, &lanes)?;
            // The embedded name server is reached where it listens.
            let ip = if bind.is_unspecified() {
                settings.addresses.advertised
            } else {
                bind
            };
            (Some(handle), vec![SocketAddr::new(ip, *port).to_string()])
        }
        NameServers::List(list) => (None, list.clone()),
    };
    let shards: Vec<ShardId> = (0..layout.shard_count)
        .map(|shard| ShardId(shard as u8))
        .collect();
    let identities = shards
        .iter()
        .map(|shard| identity(&settings, &layout, *shard))
        .collect();
    let registrar = Arc::new(Registrar::start(addresses.clone(), identities));
    let mailboxes: Vec<Mailbox> = shards.iter().map(|_| Mailbox::default()).collect();
    let connections_max =
        (file_limit.saturating_sub(FILES_RESERVED) / u64::from(layout.shard_count + 1)).max(64);
    let started = Starting {
        settings: &settings,
        layout: &layout,
        lanes: &lanes,
        mailboxes: &mailboxes,
        registrar: &registrar,
        reports: &reports,
        connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
    }
    .start(&shards, &inbox);
    if let Err(error) = started {
        registrar.stop();
        return Err(error);
    }
    let nameserver = addresses.join(";");
    let brokers: Vec<String> = shards
        .iter()
        .map(|shard| store_host(&settings, *shard).to_string())
        .collect();
    println!(
        "corelane is ready: name server {nameserver}, brokers {}",
        brokers.join(" ")
    );
    let code = supervise(&inbox, &mailboxes, &registrar);
    if let Some(handle) = names_handle {
        handle.stop();
    }
    Ok(code)
}

fn forward_signals(reports: Sender<Report>) -> Result<(), StartError> {
    let mut signals = signals()?;
    let spawned = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                if 0 < count {
                    // Somebody is in a hurry; the next start walks the log.
                    std::process::exit(EXIT_AT_ONCE);
                }
                let _ = reports.send(Report::Signal(signal));
            }
        });
    spawned.map(|_| ()).map_err(|error| {
        StartError::new(
            "start",
            "the signal thread",
            error,
            "raise the limit of processes",
        )
    })
}

fn start_names(
    settings: &Settings,
    address: SocketAddr,
    lanes: &Lanes,
) -> Result<names::Handle, StartError> {
    let listener = listen(address)?;
    let plan = names::Plan {
        settings: crate::nameserver::Settings {
            bind_address: address.ip().to_string(),
            port: address.port(),
            ..crate::nameserver::Settings::default()
        },
        kv_path: Some(settings.store.root.join("kvConfig.json")),
    };
    names::start(plan, listener, lanes.clone())
}

fn store_host(settings: &Settings, shard: ShardId) -> SocketAddr {
    let ports = settings
        .addresses
        .ports(shard)
        .expect("the ports were checked");
    SocketAddr::new(settings.addresses.advertised, ports.listen)
}

fn identity(settings: &Settings, layout: &Layout, shard: ShardId) -> BrokerIdentity {
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

/// Locks the store and finds out how many shards it has (house rules of shards as a whole, README).
fn lay_out(settings: &Settings) -> Result<Layout, StartError> {
    let root = &settings.store.root;
    let lock = lock_folder(root)?;
    prove_writable(root)?;
    let path = root.join("shards.json");
    let stored = read_small(&path)
        .map_err(|error| {
            StartError::new(
                "read",
                path.display(),
                error,
                "make the file readable for this user",
            )
        })?
        .map(|bytes| shards::decode(&bytes))
        .transpose()
        .map_err(|error| {
            let remedy =
                "put the count of the folders 0, 1, … into it: {\"version\":1,\"count\":N}";
            StartError::new("read", path.display(), error, remedy)
        })?;
    if stored.is_none() && settings.store.paths(None).commit_log.is_dir() {
        let wanted = settings.shard_count.unwrap_or(1);
        if 1 < wanted {
            return Err(StartError::new(
                "open the store in",
                root.display(),
                format!("it is a store of one broker, and {wanted} shards were asked for"),
                format!(
                    "leave --shards out, or make it the first of several with: mkdir {0}/0 && mv \
                     {0}/commitlog {0}/consumequeue {0}/index {0}/config {0}/checkpoint {0}/0/",
                    root.display()
                ),
            ));
        }
        return Ok(Layout {
            shard_count: 1,
            in_place: true,
            _lock: lock,
        });
    }
    let wanted = settings.shard_count;
    let shard_count = match (stored, wanted) {
        (Some(stored), Some(wanted)) if wanted < stored => {
            return Err(StartError::new(
                "open the store in",
                root.display(),
                format!("it has {stored} shards, and {wanted} were asked for"),
                format!(
                    "start with --shards {stored} (or without --shards); messages of the shards left \
                     out could not be reached"
                ),
            ));
        }
        (Some(stored), wanted) => wanted.unwrap_or(stored),
        (None, wanted) => wanted.unwrap_or(settings.shard_count_default),
    };
    let shard_count = shard_count.clamp(1, shards::COUNT_MAX - 1);
    if stored != Some(shard_count) {
        replace_small(&path, shards::encode(shard_count))?;
    }
    Ok(Layout {
        shard_count,
        in_place: false,
        _lock: lock,
    })
}

fn replace_small(path: &Path, bytes: Vec<u8>) -> Result<(), StartError> {
    crate::io::replace_small(path, &bytes).map_err(|error| {
        StartError::new(
            "write",
            path.display(),
            error,
            "make room, or make the store writable",
        )
    })
}

/// What all shards start with.
struct Starting<'a> {
    settings: &'a Settings,
    layout: &'a Layout,
    lanes: &'a Lanes,
    mailboxes: &'a [Mailbox],
    registrar: &'a Arc<Registrar>,
    reports: &'a Sender<Report>,
    connections_max: usize,
}

impl Starting<'_> {
    /// Starts every shard and waits until all serve and are registered, or one says why it cannot.
    fn start(&self, shards: &[ShardId], inbox: &Receiver<Report>) -> Result<(), StartError> {
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
                listen(SocketAddr::new(ip, ports.listen))?,
                listen(SocketAddr::new(ip, ports.vip))?,
            ]);
        }
        for (shard, listeners) in shards.iter().zip(listeners) {
            self.spawn(*shard, listeners)?;
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

    fn spawn(&self, shard: ShardId, listeners: Vec<TcpListener>) -> Result<(), StartError> {
        let cpus = allowed_cpus();
        let cpu = cpus[usize::from(shard.0) % cpus.len()];
        let name = self.settings.broker_name(shard, self.layout.in_place);
        let plan = ShardPlan {
            settings: self.settings.clone(),
            in_place: self.layout.in_place,
            shard_settings: shard_settings(self.settings, self.layout, shard, name),
            shard,
            cpu,
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

/// What one shard's thread needs to start.
struct ShardPlan {
    settings: Settings,
    in_place: bool,
    shard_settings: shard::Settings,
    shard: ShardId,
    cpu: usize,
    lanes: Lanes,
    mailboxes: Vec<Mailbox>,
    registrar: Arc<Registrar>,
    reports: Sender<Report>,
    connections_max: usize,
}

impl ShardPlan {
    fn run(self, listeners: Vec<TcpListener>) {
        if !pin(self.cpu) {
            tracing::warn!(cpu = self.cpu, "a shard could not be pinned to its CPU");
        }
        let reports = self.reports.clone();
        match self.open(listeners) {
            Err(error) => {
                let _ = reports.send(Report::NotStarted(error));
            }
            Ok(worker) => worker.run(),
        }
    }

    fn open(mut self, listeners: Vec<TcpListener>) -> Result<Worker<Uring>, StartError> {
        let paths = self
            .settings
            .store
            .paths((!self.in_place).then_some(self.shard));
        let listener_count = listeners.len() as u32;
        let mut io = Uring::new(Options::SHARD, listeners, self.lanes.clone())?;
        self.shard_settings.boot_ms = io.wall_ms();
        let plan = Plan {
            paths: &paths,
            log: LogOptions {
                segment_size: self.settings.store.segment_size,
                flush: Plan::policy(&self.settings.flush),
            },
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
        let topics = shard.advertised_topics();
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
            .update(self.shard, Arc::new(topics), version, Some(done));
        shard.note_time(io.wall_ms());
        let parts = Parts {
            io,
            id: self.shard,
            net,
            egress: Egress::new(policy(self.settings.egress)),
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
        bytes,
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
        config::Egress::Copy => Policy::Fixed(Way::Copy),
    }
}

/// Waits for a signal or a failure and ends the shards.
fn supervise(inbox: &Receiver<Report>, mailboxes: &[Mailbox], registrar: &Registrar) -> ExitCode {
    let mut stopped = 0;
    let mut deadline: Option<Instant> = None;
    loop {
        let report = match deadline {
            None => inbox.recv().ok(),
            Some(deadline) => inbox
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .ok(),
        };
        match report {
            None => {
                tracing::warn!("not every shard has stopped in time");
                return ExitCode::SUCCESS;
            }
            Some(Report::Signal(signal)) => {
                tracing::info!(signal, "stopping");
                deadline = Some(Instant::now() + STOP_MAX);
                registrar.stop();
                mailboxes
                    .iter()
                    .for_each(|mailbox| mailbox.post(Control::Stop));
            }
            Some(Report::Failed { shard, why }) => {
                tracing::error!(
                    %shard,
                    why,
                    "the storage of a shard has failed: nothing is acknowledged any more, the process ends; \
                     look at the disk (dmesg) before it is started again"
                );
                registrar.stop();
                return ExitCode::from(EXIT_FAILED);
            }
            Some(Report::Stopped) => {
                stopped += 1;
                if stopped == mailboxes.len() {
                    tracing::info!("stopped");
                    return ExitCode::SUCCESS;
                }
            }
            Some(Report::Ready | Report::Registered | Report::NotStarted(_)) => (),
        }
    }
}

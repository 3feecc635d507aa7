//! Everything in force, as typed values: what the broker is built from.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::StartError;
use super::values::{Entry, Note};
use crate::base::{Features, ShardId};

/// What `corelane serve` runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the broker; of several shards each adds its number.
    pub broker: String,
    /// Asked for. `None`: as many as the store has, or [`Settings::shard_count_default`] for a new one.
    pub shard_count: Option<u32>,
    /// CPUs that this process may use.
    pub shard_count_default: u32,
    /// Where to listen and what to tell clients.
    pub addresses: Addresses,
    /// Whom to register with.
    pub name_servers: NameServers,
    /// Files, their places and sizes.
    pub store: Store,
    /// When to sync.
    pub flush: Flush,
    /// When to delete.
    pub retention: Retention,
    /// What is accepted and what is made on the way.
    pub messages: Messages,
    /// How pulls are answered.
    pub pulls: Pulls,
    /// How bytes leave.
    pub egress: Egress,
    /// How shards share their CPUs with others.
    pub scheduling: Scheduling,
    /// Name servers are told of all topics when one has changed.
    pub registers_all: bool,
    /// What is not asked of the kernel.
    pub without: Features,
    /// Level or directives.
    pub log: String,
    /// Every key with its value and origin, in the order of the table.
    pub entries: Vec<Entry>,
    /// To log once.
    pub notes: Vec<Note>,
}

/// Where to listen and what to tell clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Bound.
    pub bind: IpAddr,
    /// Told to clients, and part of message ids.
    pub advertised: IpAddr,
    /// Of shard 0.
    pub listen_port: u16,
}

/// The ports of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Everything.
    pub listen: u16,
    /// The same without pulls, for clients that ask for a fast way in.
    pub vip: u16,
    /// Told to name servers; nothing listens there yet.
    pub replication: u16,
}

/// Whom to register with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameServers {
    /// A thread of this process.
    Embedded {
        /// Where it listens, on the broker's bound address.
        port: u16,
    },
    /// Others: `host:port` each.
    List(Vec<String>),
}

/// What `corelane nameserver` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServerSettings {
    /// Bound.
    pub bind: IpAddr,
    /// Bound.
    pub port: u16,
    /// Level or directives.
    pub log: String,
}

/// Files, their places and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Absolute.
    pub root: PathBuf,
    pub(super) commit_log: Option<PathBuf>,
    pub(super) consume_queue: Option<PathBuf>,
    pub(super) index: Option<PathBuf>,
    pub(super) checkpoint: Option<PathBuf>,
    pub(super) abort: Option<PathBuf>,
    /// Bytes of a CommitLog segment.
    pub segment_size: u64,
    /// Units of a ConsumeQueue file.
    pub queue_file_unit_count: u64,
    /// Whether keys are indexed.
    pub index_enabled: bool,
    /// Slots of an IndexFile.
    pub index_slot_count: u32,
    /// Entries of an IndexFile.
    pub index_entry_count: u32,
}

/// The files of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Paths {
    pub root: PathBuf,
    pub commit_log: PathBuf,
    pub consume_queue: PathBuf,
    pub index: PathBuf,
    pub config: PathBuf,
    pub checkpoint: PathBuf,
    pub abort: PathBuf,
}

/// When a message is acknowledged, and what brings it to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// When it is written; synced soon.
    Async,
    /// When it is durable.
    Sync,
    /// When it is written; the kernel writes it back when it sees fit.
    None,
}

/// How a group becomes durable that producers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMethod {
    /// The one that is fastest on the store's disk at start.
    Auto,
    /// A write and an fdatasync.
    Fdatasync,
    /// A write that is its own sync (RWF_DSYNC).
    Dsync,
    /// Likewise, past the page cache (O_DIRECT).
    Direct,
}

/// How groups are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendMode {
    /// By their size and by what the file system does with writes of a ring.
    Auto,
    /// Through the ring.
    Ring,
    /// By the shard's own thread.
    Inline,
    /// Past the page cache.
    Direct,
}

/// When to sync, and how to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    /// When a message is acknowledged.
    pub mode: FlushMode,
    /// Synchronous: how a group becomes durable.
    pub method: FlushMethod,
    /// How groups are written.
    pub append: AppendMode,
    /// Asynchronous: age of the oldest record that is not durable.
    pub interval_ms: u64,
    /// Asynchronous: bytes that are not durable.
    pub bytes: u64,
    /// Synchronous: how long a send may wait.
    pub timeout_ms: u64,
}

/// How shards share their CPUs with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    /// Microseconds that a shard may stay awake before it sleeps.
    pub spin_us_max: u64,
    /// Shards run before other programs.
    pub high_priority: bool,
}

/// When to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Messages are kept this long.
    pub reserved_hours: u64,
    /// Hours of the day in which segments older than that go.
    pub delete_hours: Vec<u8>,
    /// Above this part of the disk they go at any hour.
    pub delete_from_percent: u8,
    /// Above this part of the disk younger ones go too.
    pub force_from_percent: u8,
    /// Whether younger ones may go.
    pub force: bool,
    /// Above this part of the disk sends are refused.
    pub refuse_from_percent: u8,
}

/// What is accepted and what is made on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Each is a switch of broker.conf.
pub struct Messages {
    /// Bytes of a body.
    pub body_size_max: u32,
    /// A send to a missing topic makes it.
    pub create_topics: bool,
    /// An unknown consumer group is made.
    pub create_groups: bool,
    /// Queues of such a topic over all shards.
    pub queue_count_default: u32,
    /// There is a topic named like the cluster that others may be made from.
    pub cluster_topic: bool,
    /// There is a topic named like the broker that others may be made from.
    pub broker_topic: bool,
    /// There is a topic for traces.
    pub trace_topic: Option<String>,
    /// Producers are told to trace.
    pub trace_on: bool,
    /// Producers are told this region.
    pub region: String,
    /// Milliseconds of each delay level, from level 1.
    pub delay_levels_ms: Vec<u64>,
    /// 2 = write, 4 = read, 6 = both.
    pub permission: u32,
    /// Transactional sends are refused.
    pub reject_transactions: bool,
    /// Consumers are told when their group changes.
    pub notify_members: bool,
    /// Messages of a query by key.
    pub query_count_max: u32,
}

/// How pulls are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulls {
    /// A pull that finds nothing waits as long as it asks.
    pub long_polling: bool,
    /// Otherwise it waits this long.
    pub short_polling_ms: u64,
    /// Of a pull that begins in what counts as in memory.
    pub hot_bytes_max: u32,
    /// Likewise.
    pub hot_count_max: u32,
    /// Of a pull that begins far behind.
    pub cold_bytes_max: u32,
    /// Likewise.
    pub cold_count_max: u32,
}

/// How bytes leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Egress {
    Auto,
    SendFile,
    Splice,
    Gather,
    SendZc,
    Copy,
}

/// Bytes of a ConsumeQueue unit.
pub(super) const UNIT_SIZE: u64 = 20;

/// From one shard's port to the next one's.
const PORT_STEP: u32 = 10;

impl Addresses {
    /// The ports of a shard; `None` where there are no such ports.
    #[must_use]
    pub fn ports(&self, shard: ShardId) -> Option<Ports> {
        let listen = u32::from(self.listen_port) + PORT_STEP * u32::from(shard.0);
        Some(Ports {
            listen: u16::try_from(listen).ok()?,
            vip: u16::try_from(listen.checked_sub(2)?).ok()?,
            replication: u16::try_from(listen + 1).ok()?,
        })
    }
}

impl Store {
    /// Where the files of a shard are. `None`: a store of Apache's broker, opened where it is.
    ///
    /// A path of the file that lies under `storePathRootDir` lies there under `<root>/<shard>`; another
    /// folder gets `/<shard>` behind it, another file a folder `<shard>` around it.
    #[must_use]
    pub fn paths(&self, shard: Option<ShardId>) -> Paths {
        let Some(shard) = shard else {
            return self.place(&self.root, |path| path.to_owned(), |path| path.to_owned());
        };
        let number = shard.to_string();
        let root = self.root.join(&number);
        let under_root = |path: &Path| {
            let rest = path.strip_prefix(&self.root).ok()?;
            (!rest.as_os_str().is_empty()).then(|| root.join(rest))
        };
        let folder = |path: &Path| under_root(path).unwrap_or_else(|| path.join(&number));
        let file = |path: &Path| {
            under_root(path).unwrap_or_else(|| match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => parent.join(&number).join(name),
                _ => path.join(&number),
            })
        };
        self.place(&root, folder, file)
    }

    /// The folders that so many shards write to. `None`: a store of Apache's broker, opened where it is.
    #[must_use]
    pub fn folders(&self, shard_count: Option<u32>) -> Vec<PathBuf> {
        let shards: Vec<_> = match shard_count {
            Some(count) => (0..count)
                .filter_map(|number| Some(Some(ShardId(u8::try_from(number).ok()?))))
                .collect(),
            None => vec![None],
        };
        let mut folders = Vec::new();
        for shard in shards {
            let paths = self.paths(shard);
            let files = [&paths.checkpoint, &paths.abort];
            folders.extend([
                paths.root.clone(),
                paths.commit_log.clone(),
                paths.consume_queue.clone(),
                paths.index.clone(),
                paths.config.clone(),
            ]);
            folders.extend(
                files
                    .into_iter()
                    .filter_map(|file| Some(file.parent()?.to_owned())),
            );
        }
        folders.dedup();
        folders
    }

    /// The folder of the CommitLog where the file puts it outside of the store.
    #[must_use]
    pub fn log_elsewhere(&self) -> Option<PathBuf> {
        let folder = self.commit_log.as_ref()?;
        (!folder.starts_with(&self.root)).then(|| folder.clone())
    }

    fn place(
        &self,
        root: &Path,
        folder: impl Fn(&Path) -> PathBuf,
        file: impl Fn(&Path) -> PathBuf,
    ) -> Paths {
        let folder = |given: &Option<PathBuf>, name| match given {
            Some(path) => folder(path),
            None => root.join(name),
        };
        let file = |given: &Option<PathBuf>, name| match given {
            Some(path) => file(path),
            None => root.join(name),
        };
        Paths {
            root: root.to_owned(),
            commit_log: folder(&self.commit_log, "commitlog"),
            consume_queue: folder(&self.consume_queue, "consumequeue"),
            index: folder(&self.index, "index"),
            config: root.join("config"),
            checkpoint: file(&self.checkpoint, "checkpoint"),
            abort: file(&self.abort, "abort"),
        }
    }
}

impl Settings {
    /// The name that a shard registers under; one shard alone has the plain name.
    #[must_use]
    pub fn broker_name(&self, shard: ShardId, in_place: bool) -> String {
        if in_place {
            self.broker.clone()
        } else {
            format!("{}-{shard}", self.broker)
        }
    }

    /// Whether this many shards find their ports, and none is the name server's.
    pub fn check_ports(&self, shard_count: u32) -> Result<(), StartError> {
        let first = self.addresses.listen_port;
        let taken = match self.name_servers {
            NameServers::Embedded { port } => Some(port),
            NameServers::List(_) => None,
        };
        for shard in 0..shard_count {
            let shard = ShardId(u8::try_from(shard).unwrap_or(u8::MAX));
            let Some(ports) = self.addresses.ports(shard) else {
                return Err(StartError::new(
                    "give ports to",
                    format!("{shard_count} shards from listenPort={first} on"),
                    format!("shard {shard} would get a port above 65535"),
                    "choose a lower listenPort or fewer shards",
                ));
            };
            if let Some(port) = taken
                && [ports.vip, ports.listen, ports.replication].contains(&port)
            {
                return Err(StartError::new(
                    "give ports to",
                    format!("{shard_count} shards from listenPort={first} on"),
                    format!("{port} is a port of shard {shard} and of the embedded name server"),
                    "choose another listenPort or nameserverPort",
                ));
            }
        }
        Ok(())
    }

    /// `key=value` with its origin, as messages quote it.
    #[must_use]
    pub fn quote(&self, key: &str) -> String {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let entry = entry.unwrap_or_else(|| panic!("{key} is not in the table"));
        format!("{key}={} ({})", entry.value, entry.origin)
    }

    /// What `--print-config` shows: every key, its value, where it came from.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::new();
        for entry in &self.entries {
            let _ = writeln!(out, "{}={}  # {}", entry.key, entry.value, entry.origin);
        }
        out
    }
}

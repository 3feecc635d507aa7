//! A freshly started broker: this one, or Apache's when CORELANE_REFERENCE=apache asks for the reference.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{Process, tail};
use super::{remoting, wait_until};

pub const SHARD_COUNT: u32 = 2;
/// Shard i listens on the first port plus this times i.
const PORT_STEP: u16 = 10;
/// How far from the first port the NameServer's port lies, beyond all ports of the shards.
const NAMESRV_PORT_STEP: u16 = 30;
/// Ports taken from one another by clusters of this process.
const CLUSTER_PORT_STEP: u32 = 40;
const START_LIMIT: Duration = Duration::from_secs(90);

pub struct Cluster {
    folder: TempDir,
    port: u16,
    server: Mutex<Option<Process>>,
}

/// A queue of a topic in the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    pub shard: u32,
    pub queue: u32,
}

pub fn is_reference() -> bool {
    match std::env::var("CORELANE_REFERENCE").as_deref() {
        Ok("apache") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("CORELANE_REFERENCE={other}: only `apache` is known"),
    }
}

impl Cluster {
    /// A broker with two shards and a NameServer on an empty store.
    pub fn start() -> Cluster {
        let folder =
            TempDir::with_prefix("corelane-clients-").expect("a folder for temporary files");
        let cluster = Cluster {
            folder,
            port: free_port(),
            server: Mutex::new(None),
        };
        cluster.start_server();
        cluster
    }

    /// The broker that all tests of one name share while any of them runs.
    pub fn shared(name: &str) -> Arc<Cluster> {
        static CLUSTERS: OnceLock<Mutex<HashMap<String, Weak<Cluster>>>> = OnceLock::new();
        // Apache's servers take long to start, and the reference needs no proof of freshness.
        let name = if is_reference() { "reference" } else { name };
        let clusters = CLUSTERS.get_or_init(Mutex::default);
        // A start that failed in one test shall not hide behind a poisoned lock in the others.
        let mut clusters = clusters
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(cluster) = clusters.get(name).and_then(Weak::upgrade) {
            return cluster;
        }
        let cluster = Arc::new(Cluster::start());
        clusters.insert(name.to_owned(), Arc::downgrade(&cluster));
        cluster
    }

    pub fn namesrv(&self) -> String {
        format!("127.0.0.1:{}", self.port + NAMESRV_PORT_STEP)
    }

    pub fn address(&self, shard: u32) -> String {
        format!("127.0.0.1:{}", self.port + PORT_STEP * shard as u16)
    }

    pub fn addresses(&self) -> impl Iterator<Item = String> {
        (0..SHARD_COUNT).map(|shard| self.address(shard))
    }

    /// The name under which a shard is registered.
    pub fn name(&self, shard: u32) -> String {
        remoting::broker_name(&self.namesrv(), &self.address(shard))
    }

    /// The shard that a library means by a broker's name or address; none when it tells neither.
    pub fn shard_of(&self, broker: &str) -> Option<u32> {
        let shard = match broker.rsplit_once(':') {
            Some((_, port)) => {
                let port: u16 = port
                    .parse()
                    .unwrap_or_else(|_| panic!("{broker} is no address"));
                u32::from(port.checked_sub(self.port).expect("a port of this broker") / PORT_STEP)
            }
            None if broker.is_empty() => return None,
            None => broker
                .rsplit_once('-')
                .and_then(|(_, shard)| shard.parse().ok())
                .unwrap_or_else(|| panic!("{broker} is not the name of a shard")),
        };
        assert!(
            shard < SHARD_COUNT,
            "{broker} is not one of the {SHARD_COUNT} shards"
        );
        Some(shard)
    }

    /// Creates a topic on every shard and waits until the NameServer knows it.
    pub fn create_topic(&self, topic: &str, queue_count: u32) {
        for address in self.addresses() {
            remoting::create_topic(&address, topic, queue_count);
        }
        let known = || remoting::route_broker_count(&self.namesrv(), topic) == SHARD_COUNT as usize;
        assert!(
            wait_until(Duration::from_secs(20), known),
            "the NameServer does not know {topic} on all shards after 20 s; {}",
            self.log_tail()
        );
    }

    pub fn create_group(&self, group: &str, retry_max: u32) {
        for address in self.addresses() {
            remoting::create_group(&address, group, retry_max);
        }
    }

    /// The end of every queue of a topic that has `queue_count` of them on each shard.
    pub fn max_offsets(&self, topic: &str, queue_count: u32) -> HashMap<Queue, u64> {
        self.queues(queue_count)
            .map(|at| {
                (
                    at,
                    remoting::max_offset(&self.address(at.shard), topic, at.queue),
                )
            })
            .collect()
    }

    /// The same for a topic that may not exist yet, which has no end anywhere.
    pub fn existing_max_offsets(&self, topic: &str, queue_count: u32) -> HashMap<Queue, u64> {
        if remoting::route_broker_count(&self.namesrv(), topic) == 0 {
            return HashMap::new();
        }
        self.max_offsets(topic, queue_count)
    }

    pub fn committed_offsets(
        &self,
        group: &str,
        topic: &str,
        queue_count: u32,
    ) -> HashMap<Queue, u64> {
        self.queues(queue_count)
            .map(|at| {
                (
                    at,
                    remoting::committed_offset(&self.address(at.shard), group, topic, at.queue),
                )
            })
            .collect()
    }

    fn queues(&self, queue_count: u32) -> impl Iterator<Item = Queue> {
        (0..SHARD_COUNT)
            .flat_map(move |shard| (0..queue_count).map(move |queue| Queue { shard, queue }))
    }

    /// Ends the broker with SIGTERM, which must succeed, and starts it on the same store.
    pub fn restart(&self) {
        let mut server = self.server.lock().unwrap();
        match server.take() {
            None => self.apache("stop"),
            Some(mut process) => {
                process.signal(Signal::SIGTERM);
                let status = process.exit_status(Duration::from_secs(10));
                let code = status.and_then(|status| status.code());
                assert_eq!(
                    code,
                    Some(0),
                    "the broker's end after SIGTERM: {status:?}; {}",
                    self.log_tail()
                );
            }
        }
        drop(server);
        self.start_server();
    }

    /// Ends the broker with SIGKILL and starts it on the same store.
    pub fn kill_and_restart(&self) {
        let process = self.server.lock().unwrap().take();
        match process {
            None => self.apache("kill"),
            Some(process) => drop(process),
        }
        self.start_server();
    }

    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        for log in ["broker.log", "apache/broker-0/out", "apache/broker-1/out"] {
            let path = self.folder.path().join(log);
            if path.exists() {
                // Apache's brokers say little of interest there.
                let size = if is_reference() { 300 } else { 3000 };
                text += &format!("the end of the broker's {log}:\n{}\n", tail(&path, size));
            }
        }
        text
    }

    fn start_server(&self) {
        if is_reference() {
            self.apache("start");
        } else {
            *self.server.lock().unwrap() = Some(self.start_corelane());
        }
    }

    fn start_corelane(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command
            .args(["serve", "--bind", "127.0.0.1", "--store"])
            .arg(self.folder.path().join("store"))
            .args(["--port", &self.port.to_string()])
            .args(["--shards", &SHARD_COUNT.to_string()])
            .args([
                "--nameserver-port",
                &(self.port + NAMESRV_PORT_STEP).to_string(),
            ]);
        let process = Process::start(command, self.folder.path().join("broker.log"));
        let said = process.wait_for_line(0, Instant::now() + START_LIMIT);
        let first = process
            .lines(0)
            .into_iter()
            .next()
            .map(|(_, line)| line)
            .unwrap_or_default();
        assert!(
            said && first.starts_with("corelane is ready"),
            "the broker did not say that it is ready, but {first:?}; its stderr:\n{}",
            process.stderr_tail()
        );
        process
    }

    fn apache(&self, verb: &str) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/apache");
        let output = Command::new(&script)
            .arg(verb)
            .arg(self.folder.path().join("apache"))
            .env("BROKER_PORT", self.port.to_string())
            .env("NAMESRV_PORT", (self.port + NAMESRV_PORT_STEP).to_string())
            .env("BROKERS", SHARD_COUNT.to_string())
            .output()
            .unwrap_or_else(|cause| panic!("cannot run {}: {cause}", script.display()));
        assert!(
            output.status.success(),
            "{} {verb} failed: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        if verb == "start" {
            // The ports are open before the brokers are registered.
            let registered =
                || remoting::route_broker_count(&self.namesrv(), "TBW102") == SHARD_COUNT as usize;
            assert!(
                wait_until(START_LIMIT, registered),
                "Apache's brokers did not register"
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match self.server.get_mut() {
            Ok(Some(process)) => {
                process.signal(Signal::SIGTERM);
                process.exit_status(Duration::from_secs(10));
            }
            // A panic here while a test fails would end the whole run.
            _ if is_reference() && !std::thread::panicking() => self.apache("stop"),
            _ if is_reference() => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(
                || self.apache("stop"),
            ))),
            _ => {}
        }
    }
}

/// A first port such that all ports of a cluster are free, below the range that Linux gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + ((std::process::id() * 7 + step) % 450) * CLUSTER_PORT_STEP;
        let port = port as u16;
        // Beside the main port of a shard: VIP (−2) and replication (+1).
        let mut wanted = vec![port + NAMESRV_PORT_STEP];
        for shard in 0..SHARD_COUNT as u16 {
            wanted.extend([
                port + PORT_STEP * shard - 2,
                port + PORT_STEP * shard,
                port + PORT_STEP * shard + 1,
            ]);
        }
        if wanted
            .iter()
            .all(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        {
            return port;
        }
    }
    panic!("no free ports for a broker between 12000 and 30000");
}

//! The client programs of tests/clients: built once, started with a verb, read line by line.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::broker::{Cluster, Queue};
use super::process::Process;

/// What a program exits with when its library has no such feature.
pub const EXIT_UNSUPPORTED: i32 = 3;

/// One client library as the tests see it.
pub struct Program {
    pub name: &'static str,
    /// Its folder below tests/clients, with `build` in it.
    pub folder: &'static str,
    pub run: &'static str,
    pub environment: &'static [(&'static str, &'static str)],
    /// Verbs with a flag that the library has no feature for, e.g. `pull --kind lite`; and after a colon
    /// what it does differently without a flag that asks for it.
    pub lacks: &'static [&'static str],
}

/// A program at work.
pub struct Run {
    process: Process,
    what: String,
    parsed: Mutex<Parsed>,
}

#[derive(Default)]
struct Parsed {
    lines: usize,
    deliveries: Vec<Delivery>,
}

/// What a consumer said about one message.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Instant,
    pub index: Option<u64>,
    /// None where the library does not tell the broker.
    pub queue: Option<Queue>,
    pub offset: u64,
    pub tag: String,
    pub body: String,
    pub keys: String,
    pub city: String,
    pub reconsume: u64,
    pub topic: String,
    pub ok: Option<bool>,
}

/// What a producer said about one message.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    pub index: u64,
    pub queue: Option<Queue>,
    pub offset: Option<u64>,
}

impl Program {
    pub fn lacks(&self, feature: &str) -> bool {
        self.lacks.contains(&feature)
    }

    /// Starts a verb; flags are given as `--name value` in one text, values without spaces.
    pub fn start(&self, cluster: &Cluster, topic: &str, command: &str) -> Run {
        self.start_with(
            cluster,
            topic,
            &command.split_whitespace().collect::<Vec<_>>(),
        )
    }

    pub fn start_with(&self, cluster: &Cluster, topic: &str, arguments: &[&str]) -> Run {
        build(self.folder);
        let folder = folder_of(self.folder);
        let mut command = Command::new(folder.join(self.run));
        command
            .arg(arguments[0])
            .args(["--namesrv", &cluster.namesrv(), "--topic", topic])
            .args(&arguments[1..])
            .env("HOME", home())
            .envs(self.environment.iter().copied());
        let what = format!("{} {} --topic {topic}", self.name, arguments.join(" "));
        let number = next_number();
        let stderr = home().join(format!("{}-{}-{number}.stderr", self.name, arguments[0]));
        Run {
            process: Process::start(command, stderr),
            what,
            parsed: Mutex::default(),
        }
    }

    /// Runs a verb to its end, which must be a success, and gives its lines.
    pub fn run(&self, cluster: &Cluster, topic: &str, command: &str) -> Vec<Value> {
        self.start(cluster, topic, command)
            .finish(cluster, Duration::from_secs(120))
    }

    /// Sends messages and expects that all are sent.
    pub fn produce(&self, cluster: &Cluster, topic: &str, flags: &str) -> Vec<Acknowledgement> {
        self.start(
            cluster,
            topic,
            &format!("produce --group P-{topic} --timeout 110 {flags}"),
        )
        .produced(cluster)
    }

    /// Starts a consumer and waits until it is ready.
    pub fn consumer(&self, cluster: &Cluster, topic: &str, flags: &str) -> Run {
        let number = next_number();
        let command = format!("consume --instance I{number} --timeout 280 {flags}");
        let run = self.start(cluster, topic, &command);
        let ready = run
            .process
            .wait_for_line(0, Instant::now() + Duration::from_secs(60));
        assert!(
            ready,
            "{} is not ready after 60 s; {}",
            run.what,
            run.stderr_tail()
        );
        run
    }
}

impl Run {
    /// What the program said so far.
    pub fn values(&self) -> Vec<Value> {
        let lines = self.process.lines(0);
        lines.iter().map(|(_, line)| self.parse(line)).collect()
    }

    fn parse(&self, line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|cause| {
            panic!(
                "{} printed a line that is no JSON ({cause}): {line}",
                self.what
            )
        })
    }

    /// What was delivered so far. Tests ask for it again and again, so each line is parsed once.
    pub fn deliveries(&self, cluster: &Cluster) -> Vec<Delivery> {
        let mut parsed = self.parsed.lock().unwrap();
        for (at, line) in self.process.lines(parsed.lines) {
            parsed.lines += 1;
            let value = self.parse(&line);
            if value.get("offset").is_some() {
                parsed.deliveries.push(delivery(cluster, at, &value));
            }
        }
        parsed.deliveries.clone()
    }

    pub fn close_stdin(&mut self) {
        self.process.close_stdin();
    }

    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.exit_status(Duration::from_secs(10));
    }

    /// Lets a consumer end, which must be a success, and gives all that was delivered to it.
    pub fn end(mut self, cluster: &Cluster) -> Vec<Delivery> {
        self.close_stdin();
        let deadline = Duration::from_secs(60);
        let status = self.process.exit_status(deadline);
        self.expect_success(cluster, status.and_then(|status| status.code()));
        self.deliveries(cluster)
    }

    /// Waits for the end, which must be a success.
    pub fn finish(mut self, cluster: &Cluster, limit: Duration) -> Vec<Value> {
        let status = self.process.exit_status(limit);
        self.expect_success(cluster, status.and_then(|status| status.code()));
        self.values()
    }

    /// The exit code of a program that need not succeed.
    pub fn exit_code(mut self) -> Option<i32> {
        self.process
            .exit_status(Duration::from_secs(60))
            .and_then(|status| status.code())
    }

    /// Waits for a producer's end and checks what it says of itself.
    pub fn produced(self, cluster: &Cluster) -> Vec<Acknowledgement> {
        let what = self.what.clone();
        let values = self.finish(cluster, Duration::from_secs(120));
        let last = values
            .last()
            .unwrap_or_else(|| panic!("{what} said nothing"));
        let acknowledged: Vec<_> = values
            .iter()
            .filter(|value| value.get("index").is_some())
            .map(|value| acknowledgement(cluster, value))
            .collect();
        assert_eq!(last["failed"], 0, "{what}: {last}");
        assert_eq!(
            last["sent"],
            acknowledged.len(),
            "{what}: {last}, and a line for each message"
        );
        acknowledged
    }

    fn expect_success(&self, cluster: &Cluster, code: Option<i32>) {
        assert!(
            code == Some(0),
            "{} ended with {code:?} (none: not in time)\n{}\n{}",
            self.what,
            self.stderr_tail(),
            cluster.log_tail()
        );
    }

    fn stderr_tail(&self) -> String {
        format!("the end of its stderr:\n{}", self.process.stderr_tail())
    }
}

fn delivery(cluster: &Cluster, at: Instant, value: &Value) -> Delivery {
    let text = |field: &str| value[field].as_str().unwrap_or("").to_owned();
    Delivery {
        at,
        // Programs say null or −1 for a message without the property.
        index: value["index"].as_u64(),
        queue: queue(cluster, value),
        offset: value["offset"]
            .as_u64()
            .unwrap_or_else(|| panic!("no offset in {value}")),
        tag: text("tag"),
        body: text("body"),
        keys: text("keys"),
        city: text("city"),
        reconsume: value["reconsume"]
            .as_u64()
            .unwrap_or_else(|| panic!("no reconsume in {value}")),
        topic: text("topic"),
        ok: value["ok"].as_bool(),
    }
}

fn acknowledgement(cluster: &Cluster, value: &Value) -> Acknowledgement {
    Acknowledgement {
        index: value["index"]
            .as_u64()
            .unwrap_or_else(|| panic!("no index in {value}")),
        queue: queue(cluster, value),
        offset: value["offset"].as_u64(),
    }
}

fn queue(cluster: &Cluster, value: &Value) -> Option<Queue> {
    let shard = cluster.shard_of(value["broker"].as_str().unwrap_or(""))?;
    // −1 where the library tells no queue.
    Some(Queue {
        shard,
        queue: u32::try_from(value["queue"].as_i64()?).ok()?,
    })
}

/// Builds a folder of tests/clients, once for all tests of this process.
pub fn build(folder: &str) {
    type Built = Arc<OnceLock<Result<(), String>>>;
    static BUILT: OnceLock<Mutex<HashMap<String, Built>>> = OnceLock::new();
    let built = Arc::clone(
        BUILT
            .get_or_init(Mutex::default)
            .lock()
            .unwrap()
            .entry(folder.to_owned())
            .or_default(),
    );
    let result = built.get_or_init(|| {
        let script = folder_of(folder).join("build");
        match Command::new(&script).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!(
                "{} failed:\n{}{}",
                script.display(),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(cause) => Err(format!("cannot run {}: {cause}", script.display())),
        }
    });
    if let Err(reason) = result {
        panic!("{reason}");
    }
}

pub fn folder_of(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(folder)
}

/// The home folder of all client programs, so that their logs and offset files stay out of the user's.
/// It remains below the target folder for who wants to read the logs of a failed run.
pub fn home() -> PathBuf {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        TempDir::with_prefix_in("clients-", root)
            .expect("a folder below target")
            .keep()
    })
    .clone()
}

fn next_number() -> u64 {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

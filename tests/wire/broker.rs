//! Starts a fresh server for one replay and stops it: ours, or the reference if one is named.
//!
//! `CORELANE_REFERENCE` names a program that runs Apache RocketMQ: called as
//! `PROGRAM start DIR KEY=VALUE…` with `NAMESRV_PORT` and `BROKER_PORT` in its environment it
//! returns when both servers listen, called as `PROGRAM stop DIR` it stops them.

use super::setup;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Lines of a configuration file: key and value.
pub type Settings = Vec<(&'static str, &'static str)>;

pub struct Broker {
    pub nameserver: SocketAddr,
    pub broker: SocketAddr,
    settings: Settings,
    folder: TempDir,
    process: Process,
}

enum Process {
    Ours(Child),
    Reference(OsString),
}

pub fn is_reference() -> bool {
    std::env::var_os("CORELANE_REFERENCE").is_some()
}

impl Broker {
    /// A broker with an empty store. The reference takes long to start, so that an earlier one with
    /// the same settings is emptied and used again.
    pub fn fresh(settings: Settings, earlier: Option<Broker>) -> Broker {
        let same = |broker: &Broker| is_reference() && broker.settings == settings;
        if let Some(broker) = earlier.filter(same) {
            let wiped = setup::wipe(&broker);
            wiped.unwrap_or_else(|cause| panic!("the reference could not be emptied: {cause}"));
            return broker;
        }
        Broker::start(settings)
    }

    fn start(settings: Settings) -> Broker {
        let folder = TempDir::new().expect("a folder for the store");
        let (nameserver_port, broker_port) = free_ports();
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = match std::env::var_os("CORELANE_REFERENCE") {
            Some(program) => start_reference(
                program,
                folder.path(),
                &settings,
                nameserver_port,
                broker_port,
            ),
            None => start_ours(folder.path(), &settings, nameserver_port, broker_port),
        };
        let (nameserver, broker) = (address(nameserver_port), address(broker_port));
        Broker {
            nameserver,
            broker,
            settings,
            folder,
            process,
        }
    }

    /// The end of what the server logged, for a failed replay.
    pub fn log_tail(&self) -> String {
        let name = if is_reference() {
            "broker.out"
        } else {
            "stderr"
        };
        let log = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        match &mut self.process {
            Process::Ours(child) => {
                // It may have ended by itself; either way its end is awaited.
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Reference(program) => {
                let mut command = Command::new(program);
                command
                    .arg("stop")
                    .arg(self.folder.path())
                    .stdout(Stdio::null());
                let stopped = command.status().is_ok_and(|status| status.success());
                if !stopped {
                    eprintln!("the reference did not stop cleanly");
                }
            }
        }
    }
}

fn start_ours(
    folder: &Path,
    settings: &[(&str, &str)],
    nameserver_port: u16,
    broker_port: u16,
) -> Process {
    let config = folder.join("broker.conf");
    let mut lines = String::from("brokerName=apache\nmappedFileSizeCommitLog=16777216\n");
    for (key, value) in settings {
        lines += &format!("{key}={value}\n");
    }
    fs::write(&config, lines).expect("write the configuration");
    let log = File::create(folder.join("stderr")).expect("create the log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_corelane"))
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .arg("--store")
        .arg(folder.join("store"))
        .args(["--bind", "127.0.0.1", "--shards", "1"])
        .args(["--port", &broker_port.to_string()])
        .args(["--nameserver-port", &nameserver_port.to_string()])
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("start corelane");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines();
    let is_ready = lines.any(|line| line.is_ok_and(|line| line.starts_with("corelane is ready")));
    if !is_ready {
        let _ = child.wait();
        let log = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
        panic!("corelane did not become ready: {log}");
    }
    // Reading on keeps the pipe open; the thread ends with the process.
    std::thread::spawn(move || lines.for_each(drop));
    Process::Ours(child)
}

fn start_reference(
    program: OsString,
    folder: &Path,
    settings: &[(&str, &str)],
    nameserver_port: u16,
    broker_port: u16,
) -> Process {
    const ATTEMPTS: usize = 3;
    let mut command = Command::new(&program);
    command
        .arg("start")
        .arg(folder)
        .arg("mappedFileSizeCommitLog=16777216");
    command.args(settings.iter().map(|(key, value)| format!("{key}={value}")));
    command.env("NAMESRV_PORT", nameserver_port.to_string());
    command.env("BROKER_PORT", broker_port.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    for _ in 0..ATTEMPTS {
        if command
            .status()
            .expect("run the reference's program")
            .success()
        {
            return Process::Reference(program);
        }
        let stopped = Command::new(&program).arg("stop").arg(folder).status();
        assert!(
            stopped.is_ok_and(|status| status.success()),
            "the reference cannot be stopped"
        );
    }
    panic!("the reference did not start in {ATTEMPTS} attempts");
}

/// Two free ports: a NameServer's, and a broker's with its neighbours free (−2 is the VIP port,
/// +1 Apache's replication port).
fn free_ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 22_000 + (std::process::id() % 400) as u16 * 20;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let at = begin + NEXT.fetch_add(1, Ordering::Relaxed) % 400 * 20;
        let all_free = [0, 8, 10, 11].iter().all(|by| {
            let address = (Ipv4Addr::LOCALHOST, at + by);
            TcpListener::bind(address).is_ok()
        });
        if all_free {
            return (at, at + 10);
        }
    }
    panic!("no free ports for a broker within 10 s");
}

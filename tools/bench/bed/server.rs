//! A server under measurement: started on one CPU with a fresh store, halted while another is
//! measured, and ended whatever happens.

use super::contender::Contender;
use super::group::{self, Group};
use super::stop::Stop;
use super::version;
use crate::{Cpus, Outcome, fail};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A JVM with a large heap takes its time.
const START_MAX: Duration = Duration::from_secs(90);
const KILL_MAX: Duration = Duration::from_secs(5);
/// How long the listener of a server that is gone may stay.
pub const PORT_FREE_MAX: Duration = Duration::from_secs(5);
/// The end of a server's log that is shown when it fails.
const TAIL_LINES: usize = 6;

pub struct Server {
    pub addr: SocketAddr,
    /// Who listens; with a script as command that is not who was started.
    pub pid: u32,
    /// Its command line, as it was run.
    pub command: String,
    /// What it says it was built from.
    pub version: Option<String>,
    child: Child,
    group: Group,
    pub store: PathBuf,
    log: PathBuf,
    is_store_kept: bool,
    /// Between SIGTERM and SIGKILL.
    grace: Duration,
}

/// Where and how a server is started.
pub struct Place<'a> {
    pub work: &'a Path,
    pub port: u16,
    pub cpus: Cpus,
    pub grace: Duration,
    /// Whether it finds the store that another one of the same name left.
    pub keeps_store: bool,
}

pub fn listens(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, Duration::from_millis(500)).is_ok()
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

pub fn store(work: &Path, contender: &Contender) -> PathBuf {
    let name = crate::report_html::file_name(&contender.name);
    work.join("stores").join(name)
}

/// How a child ended, if it did. It is not waited for: see [`Server`]'s end.
fn how_it_ended(pid: u32) -> WaitStatus {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let told = waitid(Id::Pid(Pid::from_raw(pid as i32)), look);
    told.unwrap_or(WaitStatus::StillAlive)
}

/// The same in words. A server behind a script is the script's child, and known to that.
fn ended(status: WaitStatus, is_child: bool) -> String {
    let when = "during the comparison";
    match (status, is_child) {
        (WaitStatus::Exited(_, code), true) => format!("ended {when}, with exit code {code}"),
        (WaitStatus::Signaled(_, Signal::SIGKILL, _), true) => {
            format!("was ended by SIGKILL {when} (no memory left? `dmesg` says)")
        }
        (WaitStatus::Signaled(_, signal, _), true) => format!("was ended by {signal} {when}"),
        (WaitStatus::Exited(_, code), false) => {
            format!("ended {when}, and its command with exit code {code}")
        }
        (WaitStatus::Signaled(_, signal, _), false) => {
            format!("ended {when}, and its command was ended by {signal}")
        }
        _ => format!("ended {when}, how is known to its command alone"),
    }
}

/// The command line that starts it by hand where it runs here.
fn by_hand(words: &[String], cpus: &Cpus) -> Outcome<String> {
    let cpus = cpus.to_string();
    let pinned = ["taskset", "-c", &cpus].into_iter();
    Ok(shlex::try_join(
        pinned.chain(words.iter().map(String::as_str)),
    )?)
}

impl Server {
    pub fn start(contender: &Contender, place: &Place<'_>, stop: &Stop) -> Outcome<Server> {
        let addr = SocketAddr::from(([127, 0, 0, 1], place.port));
        // The listener of a broker that was killed outlives it for a moment: a ring with an accept in
        // flight is taken down by the kernel behind the process's back.
        let free = stop.wait(PORT_FREE_MAX, || Ok((!listens(addr)).then_some(())))?;
        if free.is_none() {
            return fail(format!(
                "something listens on {addr} already; choose another port with --port"
            ));
        }
        let name = crate::report_html::file_name(&contender.name);
        let store = store(place.work, contender);
        let log = place.work.join("logs").join(format!("{name}.log"));
        if !place.keeps_store {
            let _ = fs::remove_dir_all(&store);
        }
        fs::create_dir_all(&store)?;
        fs::create_dir_all(place.work.join("logs"))?;
        let words = contender.filled_at(&store, place.port);
        let out = File::create(&log)?;
        let mut hold = Command::new(std::env::current_exe()?);
        hold.args(["hold", "--cpu", &place.cpus.to_string()]);
        if let Some(group) = &contender.group {
            hold.arg("--group").arg(group);
        }
        let child = hold
            .arg("--")
            .args(&words)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // A group of its own: Ctrl-C is for this program, which then ends its servers.
            .process_group(0)
            .spawn()?;
        let group = Group(child.id());
        let mut server = Server {
            addr,
            pid: child.id(),
            command: by_hand(&words, &place.cpus)?,
            version: version::of(contender),
            child,
            group,
            store,
            log,
            grace: place.grace,
            is_store_kept: false,
        };
        server.wait_until_it_listens(&contender.name, stop)?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self, name: &str, stop: &Stop) -> Outcome<()> {
        let found = stop.wait(START_MAX, || {
            if let Some(pid) = self.group.listener(self.addr)
                && listens(self.addr)
            {
                return Ok(Some(Some(pid)));
            }
            Ok(self.group.members().is_empty().then_some(None))
        })?;
        match found {
            Some(Some(pid)) => {
                self.pid = pid;
                Ok(())
            }
            Some(None) => fail(format!(
                "'{name}' ended before it listened on {}; its command was\n  {}\nand it said\n{}",
                self.addr,
                self.command,
                tail(&self.log)
            )),
            None => fail(format!(
                "'{name}' does not listen on {} after {} s; see {}",
                self.addr,
                START_MAX.as_secs(),
                self.log.display()
            )),
        }
    }

    pub fn is_alive(&self) -> bool {
        group::is_alive(self.pid)
    }

    /// Why it is gone, for a run that is void because of it.
    pub fn last_words(&self) -> String {
        let tail = tail(&self.log);
        let last = tail.lines().last().unwrap_or("nothing");
        let how = ended(how_it_ended(self.child.id()), self.pid == self.child.id());
        format!("the server {how}; its last words: {last}")
    }

    /// It costs nothing until it goes on.
    pub fn halt(&self) {
        self.group.tell(Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.group.tell(Signal::SIGCONT);
    }

    /// Tells it to end, and does not wait.
    pub fn tell_end(&self) {
        self.go_on();
        self.group.tell(Signal::SIGTERM);
    }

    /// Ends it as a power cut would end the process, and leaves its store.
    pub fn kill(mut self) -> Outcome<()> {
        self.is_store_kept = true;
        self.group.tell(Signal::SIGKILL);
        if self.is_gone_within(KILL_MAX) {
            return Ok(());
        }
        fail(format!("process {} did not end after SIGKILL", self.pid))
    }

    fn is_gone_within(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.group.members().is_empty() {
            if end < Instant::now() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Server {
    /// SIGTERM, then SIGKILL. The child is waited for last: until then no other process can get the
    /// number of its group.
    fn drop(&mut self) {
        self.tell_end();
        let mut is_gone = self.is_gone_within(self.grace);
        if !is_gone {
            self.group.tell(Signal::SIGKILL);
            is_gone = self.is_gone_within(KILL_MAX);
        }
        if is_gone {
            let _ = self.child.wait();
        } else {
            eprintln!(
                "corelane-bench: process {} did not end after SIGKILL; is it stuck in the kernel?",
                self.pid
            );
        }
        if !self.is_store_kept {
            let _ = fs::remove_dir_all(&self.store);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_server_ended_is_known_and_asked_without_waiting_for_it() {
        for (script, wanted) in [
            ("exit 3", "ended during the comparison, with exit code 3"),
            ("kill -9 $$", "was ended by SIGKILL during the comparison"),
            ("kill -11 $$", "was ended by SIGSEGV during the comparison"),
        ] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let end = Instant::now() + Duration::from_secs(10);
            while group::is_alive(child.id()) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            for _ in 0..2 {
                let told = ended(how_it_ended(child.id()), true);
                assert!(told.starts_with(wanted), "{script}: {told}");
            }
            child.wait().unwrap();
        }
        let told = ended(WaitStatus::StillAlive, false);
        assert!(told.contains("known to its command"), "{told}");
    }
}

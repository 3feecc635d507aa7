//! Child processes that cannot outlive the tests, and the lines that they print.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running child: its stdout line by line with the time each line came, its stderr in a file.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    printed: Arc<Printed>,
    pub stderr_path: PathBuf,
}

#[derive(Default)]
struct Printed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<(Instant, String)>,
    closed: bool,
}

impl Process {
    pub fn start(mut command: Command, stderr_path: PathBuf) -> Process {
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&stderr_path)
            .unwrap_or_else(|cause| panic!("cannot write {}: {cause}", stderr_path.display()));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = spawn(command);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let printed = Arc::new(Printed::default());
        let reader = Arc::clone(&printed);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                reader
                    .state
                    .lock()
                    .unwrap()
                    .lines
                    .push((Instant::now(), line));
                reader.changed.notify_all();
            }
            reader.state.lock().unwrap().closed = true;
            reader.changed.notify_all();
        });
        Process {
            child,
            stdin,
            printed,
            stderr_path,
        }
    }

    /// The lines so far from number `from` on.
    pub fn lines(&self, from: usize) -> Vec<(Instant, String)> {
        self.printed
            .state
            .lock()
            .unwrap()
            .lines
            .iter()
            .skip(from)
            .cloned()
            .collect()
    }

    /// Waits until there are more than `count` lines; false when stdout was closed or the time is up.
    pub fn wait_for_line(&self, count: usize, end: Instant) -> bool {
        let mut state = self.printed.state.lock().unwrap();
        while state.lines.len() <= count {
            let left = end.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return false;
            }
            state = self.printed.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        // An ended child is reaped only by `exit_status`, so the pid cannot be another's.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// The exit status once the child has ended; none when it still runs after `limit`.
    pub fn exit_status(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                // The reader needs a moment for the last lines; a grandchild may hold the pipe open.
                let printed = self.printed.state.lock().unwrap();
                let wait = Duration::from_secs(5);
                drop(
                    self.printed
                        .changed
                        .wait_timeout_while(printed, wait, |state| !state.closed),
                );
                return Some(status);
            }
            if end < Instant::now() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stderr_tail(&self) -> String {
        tail(&self.stderr_path, 3000)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last `size` bytes of a file, as text.
pub fn tail(path: &Path, size: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(size)..]).into_owned()
}

/// Linux kills a child with its parent (PR_SET_PDEATHSIG) when the *thread* that started it ends, and a
/// test's thread ends before those who share its broker. So one thread, which never ends, starts all.
#[allow(unsafe_code)] // Only here: what a child does between fork and exec.
fn spawn(mut command: Command) -> Child {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, receiver) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    let program = command.get_program().to_owned();
    let (answer, child) = channel();
    starter
        .lock()
        .unwrap()
        .send((command, answer))
        .expect("the starter thread never ends");
    child
        .recv()
        .expect("the starter thread never ends")
        .unwrap_or_else(|cause| panic!("cannot start {}: {cause}", program.display()))
}

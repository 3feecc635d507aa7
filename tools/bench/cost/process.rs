//! What Linux tells of a process: CPU time, memory, context switches, bytes written, and
//! which process listens on a port. All of /proc, so a JVM tells as much as a native server.

use crate::{Outcome, fail};
use std::fs;
use std::net::SocketAddr;

pub fn read(path: &str) -> Outcome<String> {
    fs::read_to_string(path).or_else(|error| {
        fail(format!(
            "cannot read {path}: {error}; is the server's process gone?"
        ))
    })
}

/// Ticks of CPU time of all threads, also of those that have ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ticks {
    pub user: u64,
    pub system: u64,
}

impl Ticks {
    pub fn sum(self) -> u64 {
        self.user + self.system
    }

    pub fn since(self, before: Ticks) -> Ticks {
        Ticks {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// The name before the numbers may hold blanks and parentheses.
pub fn ticks(path: &str) -> Outcome<Ticks> {
    let text = read(path)?;
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let field = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
    match (field(11), field(12)) {
        (Some(user), Some(system)) => Ok(Ticks { user, system }),
        _ => fail(format!("{path} has another form than Linux gives it")),
    }
}

/// A number of a `name: value` file.
pub fn value(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[derive(Clone, Copy, Default)]
pub struct Switches {
    pub voluntary: u64,
    pub involuntary: u64,
}

/// Switches of all threads that live now.
pub fn switches(pid: u32) -> Outcome<Switches> {
    let mut sum = Switches::default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).or_else(|error| {
        fail(format!(
            "there is no process {pid} to look at ({error}); without --server-pid it is the one that listens on --addr"
        ))
    });
    for task in tasks? {
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        sum.voluntary += value(&text, "voluntary_ctxt_switches").unwrap_or(0);
        sum.involuntary += value(&text, "nonvoluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(sum)
}

/// Bytes that the process caused to be written, less what was deleted before it was written.
pub fn written_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    Some(value(&text, "write_bytes")?.saturating_sub(value(&text, "cancelled_write_bytes")?))
}

/// The words a process was started with; none where they cannot be seen.
pub fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut words: Vec<String> = words.map(|word| word.into_owned()).collect();
    // What ends each word begins none after the last.
    words.pop();
    (!words.is_empty()).then_some(words)
}

/// Nanoseconds that the calling thread was ready to run and did not.
pub fn run_queue_wait_ns() -> Option<u64> {
    run_queue_wait_of(&fs::read("/proc/thread-self/schedstat").ok()?)
}

/// The same, of what a thread's schedstat holds.
pub fn run_queue_wait_of(schedstat: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(schedstat).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The process that listens on an address of this machine.
pub fn listening_on(addr: SocketAddr) -> Option<u32> {
    let port = format!(":{:04X}", addr.port());
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_listening = fields.get(3) == Some(&"0A");
            if is_listening && fields.get(1).is_some_and(|local| local.ends_with(&port)) {
                sockets.extend(fields.get(9).map(|inode| format!("socket:[{inode}]")));
            }
        }
    }
    if sockets.is_empty() || !is_of_this_machine(addr) {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Another user's files cannot be seen: that server's cost stays unknown.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = |file: fs::DirEntry| {
            fs::read_link(file.path())
                .is_ok_and(|to| sockets.iter().any(|it| to.as_os_str() == it.as_str()))
        };
        if files.flatten().any(holds) {
            return Some(pid);
        }
    }
    None
}

/// Whether a socket of ours could have this address.
fn is_of_this_machine(addr: SocketAddr) -> bool {
    std::net::UdpSocket::bind((addr.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_there() {
        assert!(ticks("/proc/self/stat").is_ok());
        assert!(ticks("/proc/no-such-process/stat").is_err());
        assert!(0 < switches(std::process::id()).unwrap().voluntary);
        let told = switches(u32::MAX).err().unwrap().0;
        assert!(told.contains("--server-pid"), "{told}");
        assert_eq!(value("VmRSS:\t  12 kB\n", "VmRSS"), Some(12));
        assert!(run_queue_wait_ns().is_some());
        let words: Vec<String> = std::env::args().collect();
        assert_eq!(command_line(std::process::id()), Some(words));
    }

    #[test]
    fn the_server_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(listening_on(addr), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_on(addr), None);
        let elsewhere = "192.0.2.1:80".parse().unwrap();
        assert_eq!(listening_on(elsewhere), None);
    }
}

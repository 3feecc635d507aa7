//! A process group as /proc shows it: who of it lives, and who of it listens.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs;
use std::net::SocketAddr;

/// All processes that a command started and that did not leave its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(pub u32);

/// State and group of a process. The name before them may hold blanks and parentheses.
fn state_and_group(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

pub fn is_alive(pid: u32) -> bool {
    state_and_group(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

impl Group {
    /// Living members; one that has ended and was not waited for is none.
    pub fn members(self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            state_and_group(*pid)
                .is_some_and(|(state, group)| group == self.0 && !matches!(state, 'Z' | 'X'))
        })
        .collect()
    }

    /// An error means that nobody is left to be told.
    pub fn tell(self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.0 as i32), signal);
    }

    /// The member that listens at `addr`, once it does.
    pub fn listener(self, addr: SocketAddr) -> Option<u32> {
        let inodes = listening(addr.port());
        let has = |pid: &u32| {
            let links = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            let mut links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
            links.any(|link| {
                inodes
                    .iter()
                    .any(|inode| link.as_os_str() == inode.as_str())
            })
        };
        self.members().into_iter().find(has)
    }
}

/// What the descriptors of listening sockets at that port are called.
fn listening(port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let end = format!(":{port:04X}");
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..]
                && local.ends_with(&end)
            {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn this_process_listens_where_it_does() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = std::process::id();
        let group = Group(state_and_group(own).unwrap().1);
        assert!(group.members().contains(&own));
        assert_eq!(group.listener(listener.local_addr().unwrap()), Some(own));
    }

    #[test]
    fn who_has_ended_is_no_member() {
        let mut child = Command::new("true").process_group(0).spawn().unwrap();
        let group = Group(child.id());
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !group.members().is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(group.members().is_empty());
        assert!(!is_alive(child.id()));
        child.wait().unwrap();
    }
}

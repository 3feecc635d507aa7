//! What the defaults ask of the host.

use std::net::IpAddr;
use std::path::PathBuf;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, gethostname};

/// A host, or what a test takes for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name; characters that a broker's name cannot have are `-`.
    pub name: String,
    /// Of the interfaces that are up, in their order.
    pub addresses: Vec<IpAddr>,
    /// That this process may use.
    pub cpu_count: u32,
    /// Where relative paths begin.
    pub folder: PathBuf,
}

impl Host {
    /// This host. What it does not tell has an ordinary value.
    #[must_use]
    pub fn this() -> Self {
        let name = gethostname().ok().and_then(|name| name.into_string().ok());
        Self {
            name: broker_name(&name.unwrap_or_default()),
            addresses: addresses(),
            cpu_count: cpu_count(),
            folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }
}

fn broker_name(host: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "_-.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = host.chars().map(allowed).take(100).collect();
    if name.trim_matches('.').is_empty() {
        "corelane".to_owned()
    } else {
        name
    }
}

fn addresses() -> Vec<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let up = interfaces.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let addresses = up.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    });
    addresses.collect()
}

/// Respects cpusets: what the scheduler would let this process run on.
fn cpu_count() -> u32 {
    let set = sched_getaffinity(Pid::from_raw(0)).ok();
    let count = set.map_or(1, |set| {
        (0..CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .count()
    });
    u32::try_from(count.max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_a_cpu_and_an_address() {
        let host = Host::this();
        assert!(!host.name.is_empty());
        assert!(0 < host.cpu_count);
        assert!(host.addresses.iter().any(IpAddr::is_loopback), "{host:?}");
        assert!(host.folder.is_absolute());
    }

    #[test]
    fn a_strange_name_becomes_one_that_a_broker_may_have() {
        assert_eq!(broker_name("node-1.example.com"), "node-1.example.com");
        assert_eq!(broker_name("näme/x"), "n-me-x");
        assert_eq!(broker_name(".."), "corelane");
        assert_eq!(broker_name(""), "corelane");
    }
}

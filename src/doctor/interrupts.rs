//! Which CPUs are interrupted for the store's disk and for network cards, and how queues are shared out.

use std::fmt::Write;

use super::cpus::parse_list;
use super::disk;
use super::report::{Entry, NOT_SEEN};
use crate::io::Tree;

const PAGE: &str = "kernel-notes/cores.md";

/// Interrupts of a device that say something about its state and carry no requests.
const NO_REQUESTS: &[&str] = &["config", "event", "stats", "async"];

/// A device whose interrupts were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    name: String,
    queues: usize,
    /// The CPUs that each interrupt goes to now.
    interrupts: Vec<(u32, Vec<u32>)>,
}

/// Interrupts of the device that a path of `/sys` leads to: its own, or those of the bus it hangs on.
fn interrupts(tree: &Tree, device: &str) -> Vec<(u32, Vec<u32>)> {
    let mut folder = tree.real(device).unwrap_or_default();
    while !folder.is_empty() {
        let numbers = tree.names(&format!("{folder}/msi_irqs"));
        if !numbers.is_empty() {
            let numbers = numbers.iter().filter_map(|name| name.parse().ok());
            let mut found: Vec<_> = numbers
                .filter_map(|number| interrupt(tree, number))
                .collect();
            found.sort_unstable();
            return found;
        }
        folder = folder
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent)
            .to_owned();
    }
    Vec::new()
}

fn interrupt(tree: &Tree, number: u32) -> Option<(u32, Vec<u32>)> {
    let folder = format!("/proc/irq/{number}");
    let names = tree.names(&folder);
    // What asked for it has a folder there.
    let is_idle = |name: &String| {
        NO_REQUESTS
            .iter()
            .any(|word| name.ends_with(&format!("-{word}")))
    };
    if names.iter().any(is_idle) {
        return None;
    }
    let cpus = tree
        .text(&format!("{folder}/effective_affinity_list"))
        .or_else(|_| tree.text(&format!("{folder}/smp_affinity_list")))
        .ok()?;
    Some((number, parse_list(&cpus)))
}

pub(super) fn of_disk(tree: &Tree, disk: Option<&str>) -> Entry {
    const NAME: &str = "disk interrupts";
    let Some(disk) = disk else {
        return Entry::ok(NAME, NOT_SEEN, "the disk of the store is not shown here");
    };
    let device = Device {
        name: disk::name(disk).to_owned(),
        queues: tree.names(&format!("{disk}/mq")).len(),
        interrupts: interrupts(tree, disk),
    };
    let affinity = tree.text(&format!("{disk}/queue/rq_affinity")).ok();
    let mut entry = judge(NAME, &device, &online(tree), "the disk");
    if let Some(affinity) = &affinity {
        let _ = write!(entry.value, ", rq_affinity {affinity}");
    }
    if affinity.as_deref() == Some("0") {
        let reason =
            "a request ends on the CPU that is interrupted and not on the one that waits for it";
        let fix = format!(
            "echo 1 | sudo tee /sys/block/{}/queue/rq_affinity",
            device.name
        );
        return Entry::advice(NAME, entry.value, reason, fix);
    }
    entry
}

/// One entry for each network card that is up; the loopback interface has no interrupts.
pub(super) fn of_network(tree: &Tree) -> Vec<Entry> {
    const NAME: &str = "network interrupts";
    const FOLDER: &str = "/sys/class/net";
    /// More would hide the rest of the report.
    const CARDS_MAX: usize = 8;
    let mut entries = Vec::new();
    for name in tree.names(FOLDER) {
        let folder = format!("{FOLDER}/{name}");
        let is_up = tree
            .text(&format!("{folder}/operstate"))
            .is_ok_and(|state| state == "up");
        let device = format!("{folder}/device");
        if !is_up || tree.real(&device).is_none() || CARDS_MAX <= entries.len() {
            continue;
        }
        let queues = tree.names(&format!("{folder}/queues"));
        let receiving: Vec<_> = queues
            .iter()
            .filter(|queue| queue.starts_with("rx-"))
            .collect();
        let card = Device {
            name,
            queues: receiving.len(),
            interrupts: interrupts(tree, &device),
        };
        let steered = receiving.iter().any(|queue| {
            tree.text(&format!("{folder}/queues/{queue}/rps_cpus"))
                .is_ok_and(|mask| mask.chars().any(|digit| !matches!(digit, '0' | ',')))
        });
        let mut entry = judge(NAME, &card, &online(tree), "the network card");
        if steered {
            entry.value.push_str(", packets are steered on (RPS)");
        }
        entries.push(entry);
    }
    if entries.is_empty() {
        let reason =
            "no network card with a device of its own is up here: loopback, or a container's link";
        entries.push(Entry::ok(NAME, NOT_SEEN, reason));
    }
    entries
}

/// The numbers of the CPUs, which may have holes.
fn online(tree: &Tree) -> Vec<u32> {
    let list = tree.text("/sys/devices/system/cpu/online");
    parse_list(&list.unwrap_or_default())
}

fn judge(name: &'static str, device: &Device, online: &[u32], what: &str) -> Entry {
    let cpu_count = online.len();
    let mut cpus: Vec<u32> = device
        .interrupts
        .iter()
        .flat_map(|(_, cpus)| cpus)
        .copied()
        .collect();
    cpus.sort_unstable();
    cpus.dedup();
    let queues = match device.queues {
        1 => "1 queue".to_owned(),
        count => format!("{count} queues"),
    };
    if cpus.is_empty() {
        let reason = "its interrupts are not shown; a virtual device has none of its own";
        return Entry::ok(name, format!("{}: {queues}", device.name), reason);
    }
    let list: Vec<_> = cpus.iter().map(u32::to_string).collect();
    let list = list.join(",");
    let value = format!("{}: {queues}, CPU {list}", device.name);
    // Each queue has one interrupt, or one for each direction.
    if 1 < device.queues && cpus.len() == 1 && 1 < cpu_count {
        let reason = format!(
            "CPU {list} is interrupted for every queue, and the shard there has less time than the others ({PAGE})"
        );
        let spread = device.interrupts.iter().zip(online);
        let commands: Vec<_> = spread
            .map(|((number, _), cpu)| {
                format!("echo {cpu} | sudo tee /proc/irq/{number}/smp_affinity_list")
            })
            .collect();
        let fix = format!(
            "{}  # or: sudo systemctl start irqbalance",
            commands.join(" && ")
        );
        return Entry::advice(name, value, reason, fix);
    }
    let reason = if cpus.len() == 1 && 1 < cpu_count {
        format!(
            "one queue has one CPU: a shard on CPU {list} gives some of its time to {what} ({PAGE})"
        )
    } else {
        format!(
            "shared out over {} of {cpu_count} CPUs ({PAGE})",
            cpus.len()
        )
    };
    Entry::ok(name, value, reason)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn queues_share_cpus_or_crowd_one() {
        let judge_on = |queues: usize, cpus: &[u32], online: &[u32]| {
            let interrupts = cpus
                .iter()
                .zip(40..)
                .map(|(cpu, number)| (number, vec![*cpu]));
            let device = Device {
                name: "eth0".into(),
                queues,
                interrupts: interrupts.collect(),
            };
            super::judge("network interrupts", &device, online, "the network card")
        };
        let judge = |queues, cpus: &[u32], cpu_count| {
            let online: Vec<u32> = (0..cpu_count).collect();
            judge_on(queues, cpus, &online)
        };
        assert_eq!(judge(1, &[1, 1], 4).verdict, Verdict::Ok);
        assert_eq!(judge(2, &[0, 1], 2).verdict, Verdict::Ok);
        assert_eq!(judge(2, &[0, 0], 1).verdict, Verdict::Ok);
        assert_eq!(judge(2, &[], 4).verdict, Verdict::Ok);
        let crowded = judge(2, &[0, 0], 2);
        assert_eq!(crowded.verdict, Verdict::Advice);
        let fix = crowded.fix.unwrap();
        assert!(
            fix.starts_with("echo 0 | sudo tee /proc/irq/40/smp_affinity_list && echo 1 | sudo tee /proc/irq/41/"),
            "{fix}"
        );
        let holes = judge_on(3, &[4, 4, 4], &[0, 2, 4]).fix.unwrap();
        let last =
            "echo 2 | sudo tee /proc/irq/41/smp_affinity_list && echo 4 | sudo tee /proc/irq/42/";
        assert!(holes.contains(last), "{holes}");
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn where_a_request_ends_is_shown_and_judged() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::at(folder.path());
        let disk = "sys/devices/virtual/block/vda";
        let judge = |affinity: &str| {
            put(
                folder.path(),
                &format!("{disk}/queue/rq_affinity"),
                affinity,
            );
            of_disk(&tree, Some(&format!("/{disk}")))
        };
        assert_eq!(judge("0").verdict, Verdict::Advice);
        let usual = judge("1");
        assert_eq!(usual.verdict, Verdict::Ok);
        assert!(usual.value.ends_with(", rq_affinity 1"), "{}", usual.value);
    }

    #[test]
    fn the_interrupts_of_a_device_are_those_of_its_bus() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let card = "sys/devices/pci0/0000:00:03.0";
        for number in ["37", "38", "39"] {
            put(root, &format!("{card}/msi_irqs/{number}"), "msix");
        }
        put(root, "proc/irq/37/virtio2-config/x", "");
        put(root, "proc/irq/37/effective_affinity_list", "3");
        put(root, "proc/irq/38/virtio2-input.0/x", "");
        put(root, "proc/irq/38/effective_affinity_list", "1");
        put(root, "proc/irq/39/smp_affinity_list", "0-1");
        put(root, &format!("{card}/virtio2/net/eth0/operstate"), "up");
        for queue in ["rx-0", "rx-1", "tx-0"] {
            put(
                root,
                &format!("{card}/virtio2/net/eth0/queues/{queue}/rps_cpus"),
                "0",
            );
        }
        symlink("../..", root.join(card).join("virtio2/net/eth0/device")).unwrap();
        fs::create_dir_all(root.join("sys/class/net/lo")).unwrap();
        put(root, "sys/class/net/lo/operstate", "up");
        symlink(
            root.join(card).join("virtio2/net/eth0"),
            root.join("sys/class/net/eth0"),
        )
        .unwrap();
        put(root, "sys/devices/system/cpu/online", "0-3");
        let tree = Tree::at(root);
        let found = interrupts(&tree, "/sys/class/net/eth0/device");
        assert_eq!(found, [(38, vec![1]), (39, vec![0, 1])]);
        let entries = of_network(&tree);
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0].value, "eth0: 2 queues, CPU 0,1");
        assert_eq!(entries[0].verdict, Verdict::Ok);
    }
}

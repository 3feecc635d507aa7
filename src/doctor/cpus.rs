//! The CPUs: which of them, how much of them, how fast, how far from their memory, and their clock.

use super::kernel::field;
use super::report::{Entry, duration};
use crate::io::{Tree, Unseen};

const PAGE: &str = "kernel-notes/cores.md";

pub(super) fn check(tree: &Tree, shards: u32, clock_read_ns: u64) -> Vec<Entry> {
    let status = tree.text("/proc/self/status");
    let allowed = status
        .as_ref()
        .ok()
        .and_then(|text| field(text, "Cpus_allowed_list:"));
    let online = tree.text("/sys/devices/system/cpu/online");
    let of_cpus = match (&status, allowed) {
        (Err(why), _) => Entry::unseen(CPUS, why),
        (Ok(_), None) => Entry::unseen(CPUS, &Unseen::Missing("Cpus_allowed_list".into())),
        (Ok(_), Some(allowed)) => {
            cpus(allowed, online.as_deref().ok(), quota_percent(tree), shards)
        }
    };
    vec![
        of_cpus,
        governor(&governors(tree)),
        numa(
            &nodes(tree),
            &parse_list(allowed.unwrap_or_default()),
            tree.text("/proc/sys/vm/zone_reclaim_mode").ok().as_deref(),
        ),
        {
            const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
            let available = tree.text(&format!("{FOLDER}/available_clocksource"));
            let current = tree.text(&format!("{FOLDER}/current_clocksource"));
            clock(
                current.as_deref(),
                available.as_deref().unwrap_or_default(),
                clock_read_ns,
            )
        },
    ]
}

/// The numbers of `0-3,8`; empty for what is no list.
pub(super) fn parse_list(text: &str) -> Vec<u32> {
    /// No machine has more; a list that says so is not believed.
    const CPU_MAX: u32 = 1 << 16;
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
            && last < CPU_MAX
        {
            numbers.extend(first..=last);
        }
    }
    numbers
}

/// Numbers in order, as the kernel lists them.
fn list_of(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|before, next| before + 1 == *next);
    let words: Vec<_> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => unreachable!("a run has a number"),
        })
        .collect();
    words.join(",")
}

const CPUS: &str = "CPUs";

fn cpus(allowed: &str, online: Option<&str>, quota_percent: Option<u64>, shards: u32) -> Entry {
    let count = parse_list(allowed).len();
    let of = online.map_or_else(String::new, |online| format!(" of {online}"));
    let value = match quota_percent {
        Some(percent) => format!("{allowed}{of}, at most {percent} % of one CPU"),
        None => format!("{allowed}{of}, no quota"),
    };
    if let Some(percent) = quota_percent {
        // A quota that all CPUs together cannot reach is none.
        if percent < count as u64 * 100 {
            let reason = format!(
                "who has used up a quota stands still, for up to 100 ms at a time; a set of CPUs does not do \
                 that ({PAGE})"
            );
            let fix = format!(
                "docker run --cpuset-cpus={allowed} …  # instead of --cpus; in systemd AllowedCPUs={allowed} instead \
                 of CPUQuota="
            );
            return Entry::advice(CPUS, value, reason, fix);
        }
    }
    if count < shards as usize {
        let reason = format!(
            "{shards} shards, which share {count} and so never stay awake for a moment ({PAGE})"
        );
        let online = online.map(parse_list).unwrap_or_default();
        let fix = match online.get(..shards as usize) {
            Some(enough) => format!(
                "docker run --cpuset-cpus={} …  # AllowedCPUs= in systemd; or begin a new store with --shards {count}",
                list_of(enough)
            ),
            None => format!("# begin a new store with --shards {count}"),
        };
        return Entry::advice(CPUS, value, reason, fix);
    }
    let reason = if count <= 1 {
        format!(
            "one shard, which shares its CPU with the kernel's threads and with clients on this host ({PAGE})"
        )
    } else if shards == 1 {
        format!("one shard, pinned to one of them ({PAGE})")
    } else {
        format!("{shards} shards, each pinned to one ({PAGE})")
    };
    Entry::ok(CPUS, value, reason)
}

/// The smallest quota of the control groups around this process, in per cent of one CPU.
fn quota_percent(tree: &Tree) -> Option<u64> {
    let groups = tree.text("/proc/self/cgroup").ok()?;
    let mut quotas = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers) = (fields.next(), fields.next().unwrap_or_default());
        let path = fields.next().unwrap_or_default();
        if controllers.is_empty() {
            for group in ancestors(path) {
                let text = tree.text(&format!("/sys/fs/cgroup{group}/cpu.max"));
                quotas.extend(text.ok().and_then(|text| parse_cpu_max(&text)));
            }
        } else if controllers.split(',').any(|name| name == "cpu") {
            for group in ancestors(path) {
                let folder = format!("/sys/fs/cgroup/{controllers}{group}");
                let number = |name: &str| -> Option<u64> {
                    tree.text(&format!("{folder}/{name}")).ok()?.parse().ok()
                };
                let (quota, period) = (number("cpu.cfs_quota_us"), number("cpu.cfs_period_us"));
                quotas.extend(
                    quota
                        .zip(period)
                        .and_then(|(quota, period)| percent(quota, period)),
                );
            }
        }
    }
    quotas.into_iter().min()
}

/// `/a/b` is in `/a/b`, `/a` and the root, which is empty.
fn ancestors(path: &str) -> Vec<&str> {
    let mut rest = path.trim_end_matches('/');
    let mut all = vec![rest];
    while let Some((parent, _)) = rest.rsplit_once('/') {
        rest = parent;
        all.push(rest);
    }
    all
}

/// `max 100000`, or `50000 100000`.
fn parse_cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.split_once(' ')?;
    percent(quota.parse().ok()?, period.parse().ok()?)
}

fn percent(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(100)?.checked_div(period)
}

/// The governors in use and the driver, each once.
fn governors(tree: &Tree) -> Vec<String> {
    const FOLDER: &str = "/sys/devices/system/cpu/cpufreq";
    let policies = tree.names(FOLDER).into_iter();
    let mut found: Vec<String> = policies
        .filter(|name| name.starts_with("policy"))
        .filter_map(|name| tree.text(&format!("{FOLDER}/{name}/scaling_governor")).ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn governor(governors: &[String]) -> Entry {
    const NAME: &str = "CPU frequency";
    let value = governors.join(", ");
    if governors.is_empty() {
        let reason =
            "no governor is shown: the firmware, or the host of a virtual machine, decides";
        return Entry::ok(NAME, "not governed here", reason);
    }
    if governors.iter().all(|governor| governor == "performance") {
        return Entry::ok(NAME, value, "a CPU that wakes runs at full speed");
    }
    let reason = format!(
        "a CPU that was idle runs slowly at first, and a request at a low rate wakes one ({PAGE})"
    );
    Entry::advice(
        NAME,
        value,
        reason,
        "sudo cpupower frequency-set -g performance",
    )
}

/// The nodes and their CPUs.
fn nodes(tree: &Tree) -> Vec<(u32, Vec<u32>)> {
    const FOLDER: &str = "/sys/devices/system/node";
    let online = tree.text(&format!("{FOLDER}/online")).unwrap_or_default();
    let nodes = parse_list(&online).into_iter();
    let cpus = |node: u32| {
        tree.text(&format!("{FOLDER}/node{node}/cpulist"))
            .unwrap_or_default()
    };
    nodes.map(|node| (node, parse_list(&cpus(node)))).collect()
}

fn numa(nodes: &[(u32, Vec<u32>)], allowed: &[u32], zone_reclaim: Option<&str>) -> Entry {
    const NAME: &str = "NUMA";
    let used: Vec<u32> = nodes
        .iter()
        .filter(|(_, cpus)| cpus.iter().any(|cpu| allowed.contains(cpu)))
        .map(|(node, _)| *node)
        .collect();
    let value = match nodes.len() {
        0 => "no nodes shown".to_owned(),
        1 => "one node".to_owned(),
        count => format!("{count} nodes, {} in use", used.len()),
    };
    if 1 < nodes.len() && zone_reclaim.is_some_and(|mode| mode != "0") {
        let reason = "zone_reclaim_mode empties the page cache of a node while others have room";
        return Entry::advice(NAME, value, reason, "sudo sysctl -w vm.zone_reclaim_mode=0");
    }
    if 1 < used.len() {
        let reason = format!(
            "shards on both sides share memory and disk over the link between them; a broker for each node does not ({PAGE})"
        );
        let fix = format!(
            "numactl --cpunodebind={0} --membind={0} corelane serve …",
            used[0]
        );
        return Entry::advice(NAME, value, reason, fix);
    }
    let reason = if nodes.is_empty() {
        "how near memory is to a CPU is not told here"
    } else {
        "memory is equally near for every CPU in use"
    };
    Entry::ok(NAME, value, reason)
}

/// A look at the clock that takes longer is a system call, or a device.
const CLOCK_SLOW_NS: u64 = 300;

fn clock(current: Result<&str, &Unseen>, available: &str, read_ns: u64) -> Entry {
    const NAME: &str = "clock source";
    let current = current.unwrap_or(super::report::NOT_SEEN);
    let value = format!("{current}, {} a look", duration(read_ns));
    let is_device = matches!(
        current,
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "pit"
    );
    let mut entry = if CLOCK_SLOW_NS < read_ns || is_device {
        let reason = "each look at the clock leaves the process; a turn of a shard takes one";
        let fix = if available.split_whitespace().any(|name| name == "tsc") && current != "tsc" {
            "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource"
        } else {
            "# boot with tsc=reliable where the host keeps the counters of its CPUs in step (sudo dmesg | grep -i tsc)"
        };
        Entry::advice(NAME, value, reason, fix)
    } else {
        Entry::ok(NAME, value, "a look at the clock stays in the process")
    };
    entry.numbers.insert("readNs".to_owned(), read_ns);
    entry
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_list("0-2,5, 7"), [0, 1, 2, 5, 7]);
        assert_eq!(parse_list("x,3-1,0-4294967295"), [0u32; 0]);
        assert_eq!(parse_list(""), [0u32; 0]);
    }

    #[test]
    fn a_quota_below_the_cpus_stops_them() {
        let judge = |allowed, quota| cpus(allowed, Some("0-7"), quota, 1).verdict;
        assert_eq!(judge("0-1", None), Verdict::Ok);
        assert_eq!(judge("0", None), Verdict::Ok);
        assert_eq!(judge("0-1", Some(200)), Verdict::Ok);
        assert_eq!(judge("0-1", Some(150)), Verdict::Advice);
    }

    #[test]
    fn shards_have_a_cpu_each_or_share_them() {
        let judge = |shards| cpus("0-3", None, None, shards).reason;
        assert!(judge(1).starts_with("one shard, pinned"));
        assert!(judge(2).starts_with("2 shards, each pinned"));
        assert!(judge(5).starts_with("5 shards, which share 4"));
        let fix = |online| {
            let shared = cpus("0-3", online, None, 5);
            assert_eq!(shared.verdict, Verdict::Advice);
            shared.fix.unwrap()
        };
        assert!(fix(Some("0-7")).contains("--cpuset-cpus=0-4 "));
        let holes = fix(Some("0,2,4-6,8"));
        assert!(holes.contains("--cpuset-cpus=0,2,4-6 "), "{holes}");
        for too_few in [Some("0-3"), None] {
            assert_eq!(fix(too_few), "# begin a new store with --shards 4");
        }
    }

    #[test]
    fn quotas_of_both_kinds_of_groups_are_found_and_the_smallest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let tree = Tree::at(folder.path());
        assert_eq!(quota_percent(&tree), None);
        put("proc/self/cgroup", "0::/a/b\n");
        put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(quota_percent(&tree), None);
        put("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        assert_eq!(quota_percent(&tree), Some(150));
        put("proc/self/cgroup", "4:cpu,cpuacct:/docker/x\n0::/\n");
        put(
            "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us",
            "-1\n",
        );
        put(
            "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us",
            "100000\n",
        );
        assert_eq!(quota_percent(&tree), None);
        put(
            "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us",
            "50000\n",
        );
        assert_eq!(quota_percent(&tree), Some(50));
    }

    #[test]
    fn governors_run_at_full_speed_or_not() {
        let judge = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            governor(&words).verdict
        };
        assert_eq!(judge(&[]), Verdict::Ok);
        assert_eq!(judge(&["performance"]), Verdict::Ok);
        assert_eq!(judge(&["performance", "powersave"]), Verdict::Advice);
        assert_eq!(judge(&["schedutil"]), Verdict::Advice);
    }

    #[test]
    fn nodes_in_use_are_one_or_more() {
        let two = [(0, vec![0, 1]), (1, vec![2, 3])];
        let judge =
            |nodes: &[(u32, Vec<u32>)], allowed: &[u32], zone| numa(nodes, allowed, zone).verdict;
        assert_eq!(judge(&two[..1], &[0, 1], Some("1")), Verdict::Ok);
        assert_eq!(judge(&two, &[0, 1], Some("0")), Verdict::Ok);
        assert_eq!(judge(&two, &[0, 2], Some("0")), Verdict::Advice);
        assert_eq!(judge(&two, &[0, 1], Some("1")), Verdict::Advice);
        assert_eq!(judge(&[], &[0, 1], None), Verdict::Ok);
        let reason = numa(&[], &[0, 1], None).reason;
        assert!(reason.contains("not told"), "{reason}");
    }

    #[test]
    fn a_clock_is_near_or_far() {
        let judge = |name, ns| clock(Ok(name), "tsc hpet", ns);
        assert_eq!(judge("tsc", 25).verdict, Verdict::Ok);
        assert_eq!(judge("kvm-clock", 40).verdict, Verdict::Ok);
        assert_eq!(judge("xen", 900).verdict, Verdict::Advice);
        assert!(
            judge("hpet", 900)
                .fix
                .unwrap()
                .starts_with("echo tsc | sudo tee")
        );
        assert!(judge("tsc", 900).fix.unwrap().starts_with("# boot"));
    }
}

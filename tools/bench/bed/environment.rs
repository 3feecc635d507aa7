//! The machine on which something was measured: what a reader needs to know before he believes it.

use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The value of `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines();
    let line = lines.find(|line| line.split(':').next().unwrap_or("").trim() == name)?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The one in brackets of `always [madvise] never`.
fn chosen(text: &str) -> String {
    let inner = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or_else(|| text.to_owned(), |(word, _)| word.to_owned())
}

pub fn of(store: &Path) -> Map<String, Value> {
    let mut found = Map::new();
    let mut put = |key: &str, value: Option<String>| {
        found.insert(
            key.to_owned(),
            json!(value.unwrap_or_else(|| "unknown".to_owned())),
        );
    };
    put("kernel", line("/proc/sys/kernel/osrelease"));
    put("kernel_command_line", line("/proc/cmdline"));
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    put("cpu_model", field(&cpu, "model name"));
    let cpus = std::thread::available_parallelism().map(|count| count.to_string());
    put("cpus_allowed", cpus.ok());
    put("mitigations", mitigations());
    let governor = line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    put(
        "governor",
        Some(governor.unwrap_or_else(|| "none: the kernel sets no frequency here".into())),
    );
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    put("memory", field(&memory, "MemTotal"));
    put("swap", field(&memory, "SwapTotal"));
    put(
        "tcp_congestion_control",
        line("/proc/sys/net/ipv4/tcp_congestion_control"),
    );
    let huge = line("/sys/kernel/mm/transparent_hugepage/enabled");
    put("transparent_huge_pages", huge.map(|text| chosen(&text)));
    put("damon", Some(damon()));
    let clock = line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    put("clocksource", clock);
    for name in ["swappiness", "dirty_ratio", "dirty_background_ratio"] {
        put(name, line(format!("/proc/sys/vm/{name}")));
    }
    put("load_average_before", line("/proc/loadavg"));
    put("git_commit", commit());
    put("version", Some(env!("CARGO_PKG_VERSION").to_owned()));
    for (key, value) in disk(store) {
        put(&key, Some(value));
    }
    found
}

fn mitigations() -> Option<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities")
        .ok()?
        .flatten()
    {
        let state = line(entry.path()).unwrap_or_default();
        // What this CPU has not needs no mitigation and no line.
        if state != "Not affected" {
            lines.push(format!("{}: {state}", entry.file_name().to_string_lossy()));
        }
    }
    lines.sort();
    Some(if lines.is_empty() {
        "not affected".to_owned()
    } else {
        lines.join("; ")
    })
}

fn damon() -> String {
    let mut running = Vec::new();
    for module in ["damon_reclaim", "damon_lru_sort"] {
        if line(format!("/sys/module/{module}/parameters/enabled")).as_deref() == Some("Y") {
            running.push(module.to_owned());
        }
    }
    let admin = "/sys/kernel/mm/damon/admin/kdamonds";
    let count = line(format!("{admin}/nr_kdamonds")).and_then(|text| text.parse::<u32>().ok());
    for index in 0..count.unwrap_or(0) {
        if line(format!("{admin}/{index}/state")).as_deref() == Some("on") {
            running.push(format!("kdamond {index}"));
        }
    }
    if running.is_empty() {
        "off".to_owned()
    } else {
        running.join(", ")
    }
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Of the checkout in which the comparison was started.
fn commit() -> Option<String> {
    let commit = git(&[
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty",
        "--exclude=*",
    ]);
    commit.or_else(|| Some("not started in a git checkout".to_owned()))
}

/// File system and block device below a folder.
fn disk(store: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Ok(place) = store.canonicalize() else {
        return found;
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = mount_of(&mounts, &place) else {
        return found;
    };
    found.push(("file_system".to_owned(), mount.0));
    found.push(("mount_options".to_owned(), mount.1));
    let Some(queue) = queue(&place) else {
        return found;
    };
    for (key, name) in [
        ("io_scheduler", "scheduler"),
        ("disk_write_cache", "write_cache"),
        ("disk_fua", "fua"),
        ("disk_rotational", "rotational"),
        ("disk_wbt_lat_us", "wbt_lat_usec"),
    ] {
        if let Some(value) = line(queue.join(name)) {
            found.push((key.to_owned(), chosen(&value)));
        }
    }
    let device = queue.parent().and_then(Path::file_name);
    let device = device.map(|name| name.to_string_lossy().into_owned());
    found.extend(device.map(|name| ("disk_device".to_owned(), name)));
    found
}

/// Type and options of the mount that holds `place`: the one with the longest path.
fn mount_of(mounts: &str, place: &Path) -> Option<(String, String)> {
    let mut best: Option<(usize, String, String)> = None;
    for line in mounts.lines() {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let (Some(point), Some(options)) = (front.get(4), front.get(5)) else {
            continue;
        };
        let length = point.len();
        let is_longer = best.as_ref().is_none_or(|(known, _, _)| *known <= length);
        if place.starts_with(point) && is_longer {
            let more = back.get(2).copied().unwrap_or("");
            best = Some((length, back[0].to_owned(), format!("{options} {more}")));
        }
    }
    best.map(|(_, kind, options)| (kind, options))
}

/// The folder of the disk's queue; a partition has that of its disk.
fn queue(place: &Path) -> Option<PathBuf> {
    let device = fs::metadata(place).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let own = folder.join("queue");
    if own.exists() {
        return Some(own);
    }
    folder
        .parent()
        .map(|disk| disk.join("queue"))
        .filter(|queue| queue.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let found = of(&std::env::temp_dir());
        for key in [
            "kernel",
            "cpu_model",
            "mitigations",
            "damon",
            "file_system",
            "git_commit",
        ] {
            assert!(found.contains_key(key), "{key}: {found:?}");
        }
    }

    #[test]
    fn the_mount_with_the_longest_path_holds_a_folder() {
        let mounts =
            "1 0 8:1 / / rw - ext4 /dev/a rw,data\n2 1 8:2 / /data rw,noatime - xfs /dev/b rw\n";
        let found = mount_of(mounts, Path::new("/data/store")).unwrap();
        assert_eq!(found, ("xfs".to_owned(), "rw,noatime rw".to_owned()));
        assert_eq!(mount_of(mounts, Path::new("/database")).unwrap().0, "ext4");
        assert_eq!(chosen("always [madvise] never"), "madvise");
    }
}

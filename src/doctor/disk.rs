//! The disk below the store: its cache, what makes a sync durable there, and its I/O scheduler.

use super::report::{Entry, NOT_SEEN};
use super::store::Mount;
use crate::io::Tree;

/// A stack of mapped devices is followed so deep.
const DEPTH_MAX: usize = 8;

/// The folder of `/sys` of the disk that a file system lies on: the disk, not the partition, and below
/// mapped devices the first of the real ones. `None`: it has none (memory, a network), or it is hidden.
pub(super) fn below(tree: &Tree, device: (u64, u64), mount: Option<&Mount>) -> Option<String> {
    let of_number = || tree.real(&format!("/sys/dev/block/{}:{}", device.0, device.1));
    // btrfs and others have a number of their own; what is mounted has a name.
    let of_source = || {
        let real = tree.real(&mount?.source)?;
        let name = real.strip_prefix("/dev/")?;
        tree.real(&format!("/sys/class/block/{}", name.replace('/', "!")))
    };
    let mut disk = if device.0 == 0 {
        of_source()
    } else {
        of_number().or_else(of_source)
    }?;
    for _ in 0..DEPTH_MAX {
        if tree.text(&format!("{disk}/partition")).is_ok() {
            disk = disk.rsplit_once('/')?.0.to_owned();
            continue;
        }
        let slaves = tree.names(&format!("{disk}/slaves"));
        let first = slaves.first();
        match first.and_then(|slave| tree.real(&format!("{disk}/slaves/{slave}"))) {
            Some(real) => disk = real,
            None => break,
        }
    }
    Some(disk)
}

pub(super) fn name(disk: &str) -> &str {
    disk.rsplit('/').next().unwrap_or(disk)
}

pub(super) fn check(tree: &Tree, disk: Option<&str>) -> Vec<Entry> {
    let Some(disk) = disk else {
        let reason = "the file system of the store has no disk of its own, or this container does not show it";
        return ["disk cache", "I/O scheduler"]
            .map(|name| Entry::ok(name, NOT_SEEN, reason))
            .into();
    };
    let read = |file: &str| tree.text(&format!("{disk}/queue/{file}"));
    // A virtual disk, or a file in its place, says that it turns unless it was told to say otherwise.
    let is_virtual = ["vd", "xvd", "loop", "dm-", "md"]
        .iter()
        .any(|prefix| name(disk).starts_with(prefix));
    let is_rotational = !is_virtual && read("rotational").is_ok_and(|text| text == "1");
    vec![
        match read("write_cache") {
            Ok(mode) => cache(name(disk), &mode, read("fua").ok().as_deref()),
            Err(why) => Entry::unseen("disk cache", &why),
        },
        match read("scheduler") {
            Ok(list) => scheduler(name(disk), &list, is_rotational),
            Err(why) => Entry::unseen("I/O scheduler", &why),
        },
    ]
}

fn cache(disk: &str, mode: &str, fua: Option<&str>) -> Entry {
    const NAME: &str = "disk cache";
    let has_fua = fua == Some("1");
    let word = if has_fua { "FUA" } else { "no FUA" };
    let value = format!("{disk}: {mode}, {word}");
    let reason = match (mode, has_fua) {
        ("write through", _) => {
            "the disk says that what it answered is durable, so a sync sends no flush; true of a cache with \
             its own power, of a virtual disk only as far as its host is"
        }
        (_, true) => {
            "a sync is a write and a flush; a direct write that is its own sync takes FUA instead, and which is \
             faster is measured above (kernel-notes/write-and-sync.md)"
        }
        _ => {
            "every sync is a write and a flush of the whole cache; groups share it \
             (kernel-notes/write-and-sync.md)"
        }
    };
    Entry::ok(NAME, value, reason)
}

/// `list` is as the kernel shows it: `none [mq-deadline] kyber`.
fn scheduler(disk: &str, list: &str, is_rotational: bool) -> Entry {
    const NAME: &str = "I/O scheduler";
    let chosen = list
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
        .unwrap_or(list);
    let value = format!("{disk}: {chosen}");
    let choose = |word: &str| format!("echo {word} | sudo tee /sys/block/{disk}/queue/scheduler");
    match chosen {
        "bfq" | "cfq" => {
            let reason = "it shares the disk fairly and makes a sync wait for others to idle";
            let better = if is_rotational { "mq-deadline" } else { "none" };
            Entry::advice(NAME, value, reason, choose(better))
        }
        "none" if is_rotational => {
            let reason = "a disk that turns needs its requests in order";
            Entry::advice(NAME, value, reason, choose("mq-deadline"))
        }
        "kyber" => {
            let reason = "it holds writes back for the sake of reads, and a log is writes";
            Entry::advice(NAME, value, reason, choose("none"))
        }
        "mq-deadline" if !is_rotational => {
            let reason =
                "bounds every wait; 'none' saves a little CPU on a disk that does not turn";
            Entry::ok(NAME, value, reason)
        }
        _ => Entry::ok(
            NAME,
            value,
            "requests go to the disk as they come, or in its order",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn a_scheduler_suits_its_disk_or_does_not() {
        for (list, is_rotational, verdict) in [
            ("[none] mq-deadline bfq", false, Verdict::Ok),
            ("none [mq-deadline] bfq", false, Verdict::Ok),
            ("none [mq-deadline] bfq", true, Verdict::Ok),
            ("none", false, Verdict::Ok),
            ("none mq-deadline [bfq]", false, Verdict::Advice),
            ("none [kyber]", false, Verdict::Advice),
            ("[none] mq-deadline", true, Verdict::Advice),
        ] {
            let entry = scheduler("vda", list, is_rotational);
            assert_eq!(entry.verdict, verdict, "{list}");
        }
        assert_eq!(
            scheduler("vda", "none [bfq]", false).fix.unwrap(),
            "echo none | sudo tee /sys/block/vda/queue/scheduler"
        );
    }

    #[test]
    fn a_cache_is_described() {
        assert_eq!(
            cache("vda", "write back", Some("0")).value,
            "vda: write back, no FUA"
        );
        assert!(
            cache("vda", "write back", Some("0"))
                .reason
                .contains("flush of the whole")
        );
        assert!(cache("vda", "write back", Some("1")).reason.contains("FUA"));
        assert!(
            cache("vda", "write through", None)
                .reason
                .contains("no flush")
        );
    }

    #[test]
    fn the_disk_is_found_below_partitions_and_mapped_devices() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path().join("sys");
        let disk = sys.join("devices/pci0/block/sda");
        fs::create_dir_all(disk.join("sda1")).unwrap();
        fs::write(disk.join("sda1/partition"), "1").unwrap();
        let mapped = sys.join("devices/virtual/block/dm-0");
        fs::create_dir_all(mapped.join("slaves")).unwrap();
        symlink(disk.join("sda1"), mapped.join("slaves/sda1")).unwrap();
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        symlink(&mapped, sys.join("dev/block/253:0")).unwrap();
        let tree = Tree::at(folder.path());
        let found = below(&tree, (253, 0), None).unwrap();
        assert_eq!(found, "/sys/devices/pci0/block/sda");
        assert_eq!(name(&found), "sda");
        assert_eq!(below(&tree, (0, 40), None), None);
    }
}

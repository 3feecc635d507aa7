//! The folder of the store: whether files can be made there, on which file system, with how much room.

use std::path::Path;

use super::Subject;
use super::report::{Entry, bytes, quoted};
use crate::io::{DiskTrial, Errno, Place, Tree, TrialError};
use crate::log::{self, FlushPolicy};

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    point: String,
    pub(super) kind: String,
    /// What is mounted: a device, or a word.
    pub(super) source: String,
    options: Vec<String>,
}

/// Without files that stay: nothing of the kernel's own is a store.
const OF_THE_KERNEL: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "devpts",
    "bpf",
    "pstore",
    "configfs",
    "mqueue",
    "hugetlbfs",
    "efivarfs",
    "autofs",
];

pub(super) fn mount_of(tree: &Tree, folder: &Path) -> Option<Mount> {
    find_mount(&tree.text("/proc/self/mountinfo").ok()?, folder)
}

/// The mount that a folder lies in: the longest mount point, and of two the later, which hides the other.
fn find_mount(mountinfo: &str, folder: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse_mount);
    mounts
        .filter(|mount| folder.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.len())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (of_mount, of_kind) = line.split_once(" - ")?;
    let mut fields = of_mount.split(' ').skip(4);
    let point = unescaped(fields.next()?);
    let options = fields.next()?;
    let mut fields = of_kind.split(' ');
    let (kind, source) = (fields.next()?, unescaped(fields.next()?));
    let of_super = fields.next().unwrap_or_default();
    let options = options.split(',').chain(of_super.split(','));
    Some(Mount {
        point,
        kind: kind.to_owned(),
        source,
        options: options.map(str::to_owned).collect(),
    })
}

/// Blanks and the like stand as `\040` there.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &behind[3..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const FOLDER: &str = "store folder";

/// Nobody may look there.
pub(super) fn out_of_reach(path: &Path, why: &str) -> Entry {
    let reason = format!("it cannot be looked at: {why}");
    Entry::cannot_run(
        FOLDER,
        path.display().to_string(),
        reason,
        "# choose a folder of this user with --store, or run as the owner of that one",
    )
}

pub(super) fn folder(
    path: &Path,
    place: &Place,
    trial: Option<&Result<DiskTrial, TrialError>>,
) -> Entry {
    let value = if place.exists {
        path.display().to_string()
    } else {
        let nearest = place.folder.display();
        format!("{} (not there yet; {nearest} is)", path.display())
    };
    if !place.is_folder {
        let reason = format!("{} is a file", place.folder.display());
        return Entry::cannot_run(FOLDER, value, reason, "# choose a folder with --store");
    }
    let Some(trial) = trial else {
        let reason = "no file was made there to try it: see the file system and the disk space";
        return Entry::ok(FOLDER, value, reason);
    };
    let errno = match trial {
        Ok(_) if place.exists => return Entry::ok(FOLDER, value, "files can be made there"),
        Ok(_) => {
            let reason = "the broker makes it; what was measured was measured in the nearest folder that is there";
            return Entry::ok(FOLDER, value, reason);
        }
        Err(TrialError::NoAnswer(_)) => {
            let reason = "a few small writes did not come to an end there";
            let fix = "dmesg | tail  # and: iostat -x 1";
            return Entry::advice(FOLDER, value, reason, fix);
        }
        Err(TrialError::NoFile(errno)) => *errno,
    };
    let shell_path = quoted(&path.display().to_string());
    let fix = match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            "# make room, raise the quota, or choose another --store".to_owned()
        }
        Errno::EROFS => "# mount it for writing, or choose another --store".to_owned(),
        Errno::EMFILE | Errno::ENFILE => {
            "ulimit -n 65536  # LimitNOFILE=65536 in a unit of systemd".to_owned()
        }
        _ => format!("sudo mkdir -p {shell_path} && sudo chown \"$(id -un)\" {shell_path}"),
    };
    let reason = format!(
        "this user cannot make a file in {}: {}",
        place.folder.display(),
        errno.desc()
    );
    Entry::cannot_run(FOLDER, value, reason, fix)
}

const FILE_SYSTEM: &str = "file system";

pub(super) fn file_system(mount: Option<&Mount>, place: &Place, sync: bool) -> Entry {
    let Some(mount) = mount else {
        let reason =
            "/proc/self/mountinfo does not tell what is mounted there; what it does was measured";
        return Entry::ok(FILE_SYSTEM, super::report::NOT_SEEN, reason);
    };
    let value = format!("{} at {}", mount.kind, mount.point);
    let elsewhere = "# put the store on ext4 or XFS on a local disk (--store)";
    let kind = mount.kind.as_str();
    if OF_THE_KERNEL.contains(&kind) {
        let reason = "the kernel's own files are there, no others";
        return Entry::cannot_run(FILE_SYSTEM, value, reason, elsewhere);
    }
    if place.read_only || mount.options.iter().any(|option| option == "ro") {
        let fix = format!("mount -o remount,rw {}", quoted(&mount.point));
        return Entry::cannot_run(FILE_SYSTEM, value, "it is mounted read-only", fix);
    }
    match kind {
        "ext4" | "xfs" => local(mount, value, sync),
        "tmpfs" | "ramfs" | "devtmpfs" => {
            let reason = "it is memory: nothing in it survives a restart, whatever was synced";
            Entry::advice(FILE_SYSTEM, value, reason, elsewhere)
        }
        "overlay" | "aufs" => {
            let reason =
                "the layer of a container goes with it, and the first write to a file copies it";
            let fix = "docker run -v /data:/data …  # and --store /data/corelane";
            Entry::advice(FILE_SYSTEM, value, reason, fix)
        }
        "btrfs" | "zfs" | "bcachefs" => {
            let reason = "it writes copies and not in place, so preparing zeros buys nothing and each sync \
                 writes more (kernel-notes/preallocation.md)";
            Entry::advice(FILE_SYSTEM, value, reason, elsewhere)
        }
        _ if is_remote(kind) => {
            let reason = "others decide there when bytes are durable, and a wait for them is a wait of the log";
            Entry::advice(FILE_SYSTEM, value, reason, elsewhere)
        }
        _ => Entry::ok(
            FILE_SYSTEM,
            value,
            "nothing is known against it; what it does was measured",
        ),
    }
}

fn is_remote(kind: &str) -> bool {
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "ceph",
        "glusterfs",
        "virtiofs",
        "lustre",
    ]
    .contains(&kind)
        || kind.starts_with("fuse")
}

/// ext4 and XFS, unless somebody has mounted them against us.
fn local(mount: &Mount, value: String, sync: bool) -> Entry {
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let remount = |options: &str| format!("mount -o remount,{options} {}", quoted(&mount.point));
    if has("nobarrier") || has("barrier=0") {
        let reason = "without barriers a sync does not reach the disk, and a power cut loses what was acknowledged";
        return Entry::advice(FILE_SYSTEM, value, reason, remount("barrier=1"));
    }
    if has("data=journal") {
        let reason = "data=journal writes every byte twice";
        let fix = "# mount it with data=ordered (in /etc/fstab; it takes an unmount)";
        return Entry::advice(FILE_SYSTEM, value, reason, fix);
    }
    if has("sync") {
        let reason = "mounted with sync, every write waits for the disk";
        return Entry::advice(FILE_SYSTEM, value, reason, remount("async"));
    }
    let reason = if sync {
        "overwrites in place, so a sync of prepared blocks leaves the journal alone (kernel-notes/preallocation.md)"
    } else {
        "overwrites in place (kernel-notes/preallocation.md)"
    };
    Entry::ok(FILE_SYSTEM, value, reason)
}

pub(super) fn space(place: &Place, subject: &Subject) -> Entry {
    const NAME: &str = "disk space";
    let total = place.used + place.available;
    let percent = (place.used * 100).checked_div(total).unwrap_or(100);
    let value = format!("{} free, {percent} % used", bytes(place.available),);
    let fix = format!(
        "# make room, or choose another --store; du -xh --max-depth=1 {} | sort -h",
        quoted(&place.folder.display().to_string())
    );
    let log = log::Options::new(subject.segment_size, FlushPolicy::GroupCommit);
    let first_step = log.prepare_step.min(subject.segment_size);
    if place.available < first_step {
        let step = bytes(first_step);
        let reason = format!(
            "a segment is prepared {step} at a time, the first before anything is acknowledged \
             (kernel-notes/preallocation.md)"
        );
        return Entry::cannot_run(NAME, value, reason, fix);
    }
    if u64::from(subject.refuse_from_percent) <= percent {
        let refuse = subject.refuse_from_percent;
        let reason =
            format!("from {refuse} % on producers are refused (diskSpaceWarningLevelRatio)");
        return Entry::advice(NAME, value, reason, fix);
    }
    if place.available < 2 * subject.segment_size {
        let reason = format!("less than two segments of {}", bytes(subject.segment_size));
        return Entry::advice(NAME, value, reason, fix);
    }
    Entry::ok(NAME, value, "room for the next segments")
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    const MOUNTINFO: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,relatime - proc proc rw
40 27 0:50 / /my\\040data rw shared:7 - xfs /dev/mapper/a rw,noquota
41 27 0:51 / /mnt ro - ext4 /dev/sdb ro
42 27 0:52 / /mnt rw - btrfs /dev/sdc rw";

    fn mount(path: &str) -> Mount {
        find_mount(MOUNTINFO, Path::new(path)).unwrap()
    }

    fn place() -> Place {
        Place {
            folder: "/data".into(),
            exists: true,
            is_folder: true,
            device: (254, 0),
            read_only: false,
            used: 10 << 30,
            available: 90 << 30,
        }
    }

    fn subject() -> Subject {
        Subject {
            store: "/data".into(),
            log: None,
            segment_size: 1 << 30,
            refuse_from_percent: 90,
            sync: true,
        }
    }

    #[test]
    fn a_folder_lies_in_the_longest_mount_point() {
        assert_eq!(mount("/data/x").kind, "ext4");
        assert_eq!(mount("/my data/x").source, "/dev/mapper/a");
        assert_eq!(mount("/mnt/x").kind, "btrfs", "the later hides the other");
        assert_eq!(mount("/mntx").kind, "ext4");
        assert_eq!(mount("/proc/1").kind, "proc");
    }

    #[test]
    fn file_systems_are_told_apart() {
        let judge = |kind: &str, options: &str| {
            let line = format!("1 0 8:1 / / rw - {kind} /dev/sda1 {options}");
            let mount = parse_mount(&line).unwrap();
            file_system(Some(&mount), &place(), true).verdict
        };
        for (kind, options, verdict) in [
            ("ext4", "rw", Verdict::Ok),
            ("xfs", "rw", Verdict::Ok),
            ("f2fs", "rw", Verdict::Ok),
            ("ext4", "rw,nobarrier", Verdict::Advice),
            ("ext4", "rw,data=journal", Verdict::Advice),
            ("ext4", "rw,sync", Verdict::Advice),
            ("btrfs", "rw", Verdict::Advice),
            ("tmpfs", "rw", Verdict::Advice),
            ("overlay", "rw", Verdict::Advice),
            ("nfs4", "rw", Verdict::Advice),
            ("fuse.sshfs", "rw", Verdict::Advice),
            ("ext4", "ro", Verdict::CannotRun),
            ("cgroup2", "rw", Verdict::CannotRun),
        ] {
            assert_eq!(judge(kind, options), verdict, "{kind} {options}");
        }
        assert_eq!(file_system(None, &place(), true).verdict, Verdict::Ok);
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_how_to_get_one() {
        let path = Path::new("/data/my store");
        let absent = Place {
            exists: false,
            ..place()
        };
        let refused = |errno| folder(path, &absent, Some(&Err(TrialError::NoFile(errno))));
        let denied = refused(Errno::EACCES);
        assert_eq!(denied.verdict, Verdict::CannotRun);
        assert!(denied.fix.unwrap().contains("mkdir -p '/data/my store'"));
        assert!(denied.value.contains("not there yet"));
        assert!(refused(Errno::EMFILE).fix.unwrap().contains("ulimit -n"));
        assert!(refused(Errno::ENOSPC).fix.unwrap().contains("make room"));
        let hangs = folder(path, &place(), Some(&Err(TrialError::NoAnswer(8))));
        assert_eq!(hangs.verdict, Verdict::Advice);
        let file = Place {
            is_folder: false,
            ..place()
        };
        assert_eq!(folder(path, &file, None).verdict, Verdict::CannotRun);
    }

    #[test]
    fn room_is_judged_by_segments_and_by_the_brokers_own_limit() {
        let judge = |used: u64, available: u64| {
            let place = Place {
                used,
                available,
                ..place()
            };
            space(&place, &subject()).verdict
        };
        assert_eq!(judge(10 << 30, 90 << 30), Verdict::Ok);
        assert_eq!(judge(91 << 30, 9 << 30), Verdict::Advice);
        assert_eq!(judge(1 << 20, 1 << 30), Verdict::Advice);
        assert_eq!(judge(1 << 20, 1 << 20), Verdict::CannotRun);
        assert_eq!(judge(0, 0), Verdict::CannotRun);
    }
}

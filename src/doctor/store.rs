//! The folder of the store: whether files can be made there, on which file system, with how much room.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Subject;
use super::limits::MORE_FILES;
use super::report::{Entry, NOT_SEEN, Verdict, bytes, quoted};
use crate::io::{self, Errno, Place, Tree, TrialError};
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
    "binfmt_misc",
    "cpuset",
    "fusectl",
    "nsfs",
    "resctrl",
    "rpc_pipefs",
    "selinuxfs",
    "smackfs",
];

impl Mount {
    /// Whether only the kernel's own files are there.
    fn is_of_the_kernel(&self) -> bool {
        OF_THE_KERNEL.contains(&self.kind.as_str())
    }
}

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

/// What the entries of a folder are called, and what chooses another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    folder: &'static str,
    file_system: &'static str,
    space: &'static str,
    by: &'static str,
}

pub(super) const STORE: Role = Role {
    folder: "store folder",
    file_system: "file system",
    space: "disk space",
    by: "--store",
};

/// Where the CommitLog is not below the store.
pub(super) const LOG: Role = Role {
    folder: "log folder",
    file_system: "log file system",
    space: "log disk space",
    by: "storePathCommitLog",
};

/// Nobody may look there.
pub(super) fn out_of_reach(role: Role, path: &Path, why: &str) -> Entry {
    let reason = format!("it cannot be looked at: {why}");
    let fix = format!(
        "# choose a folder of this user with {}, or run as the owner of that one",
        role.by
    );
    Entry::cannot_run(role.folder, path.display().to_string(), reason, fix)
}

pub(super) fn folder(
    role: Role,
    path: &Path,
    place: &Place,
    trial: Option<Result<(), &TrialError>>,
) -> Entry {
    let name = role.folder;
    let value = if place.exists {
        path.display().to_string()
    } else {
        let nearest = place.folder.display();
        format!("{} (not there yet; {nearest} is)", path.display())
    };
    if !place.is_folder {
        let reason = format!("{} is a file", place.folder.display());
        let fix = format!("# choose a folder with {}", role.by);
        return Entry::cannot_run(name, value, reason, fix);
    }
    let Some(trial) = trial else {
        let reason = "no file was made there to try it: see the file system and the disk space";
        return Entry::ok(name, value, reason);
    };
    match trial {
        Ok(()) if place.exists => Entry::ok(name, value, "files can be made there"),
        Ok(()) => {
            let reason =
                "the broker makes it; the nearest folder that is there was tried in its place";
            Entry::ok(name, value, reason)
        }
        Err(error) => refused(name, value, &place.folder, error, (path, role.by)),
    }
}

/// No file could be made in a folder. `owned` is what this user should own, and what chooses another.
fn refused(
    name: &'static str,
    value: String,
    folder: &Path,
    error: &TrialError,
    owned: (&Path, &str),
) -> Entry {
    let (path, by) = owned;
    let errno = match error {
        TrialError::NoAnswer(_) => {
            let reason = "a few small writes did not come to an end there";
            let fix = "sudo dmesg | tail  # and: iostat -x 1";
            return Entry::advice(name, value, reason, fix);
        }
        TrialError::NoFile(errno) => *errno,
    };
    let path = quoted(&path.display().to_string());
    let fix = match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            format!("# make room, raise the quota, or choose another {by}")
        }
        Errno::EROFS => format!("# mount it for writing, or choose another {by}"),
        Errno::EMFILE | Errno::ENFILE => MORE_FILES.to_owned(),
        _ => format!(
            "sudo mkdir -p {path} && sudo chown -R \"$(id -un)\" {path} && chmod -R u+rwX {path}"
        ),
    };
    let reason = format!(
        "this user cannot make a file in {}: {}",
        folder.display(),
        errno.desc()
    );
    Entry::cannot_run(name, value, reason, fix)
}

/// Whether it is worth while to try more folders: where the store itself is refused, so is all that is in it, and
/// a disk that does not answer is waited for once.
pub(super) fn is_usable(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| match entry.verdict {
        Verdict::Ok => true,
        Verdict::Advice => ![STORE.folder, LOG.folder].contains(&entry.name),
        Verdict::CannotRun => false,
    })
}

/// The folders that shards write to. Who owns the store need not own what another user's broker made in it.
pub(super) fn shard_folders(
    folders: &[PathBuf],
    store: &Path,
    mut make_file: impl FnMut(&Path) -> Result<(), TrialError>,
) -> Entry {
    const NAME: &str = "shard folders";
    let mut tried = BTreeSet::new();
    let mut there = 0;
    for folder in folders {
        // Of a folder of the store the whole store is given to this user: the next one would be refused too.
        let owned = if folder.starts_with(store) {
            (store, STORE.by)
        } else {
            (folder.as_path(), LOG.by)
        };
        let value = folder.display().to_string();
        let place = match io::place(folder) {
            Ok(place) => place,
            Err(err) => {
                let errno = Errno::from_raw(err.raw_os_error().unwrap_or_default());
                return refused(NAME, value, folder, &TrialError::NoFile(errno), owned);
            }
        };
        if !place.is_folder {
            let reason = format!(
                "{} is a file, and a folder is wanted there",
                place.folder.display()
            );
            return Entry::cannot_run(NAME, value, reason, "# move that file away");
        }
        there += usize::from(place.exists);
        if tried.insert(place.folder.clone())
            && let Err(error) = make_file(&place.folder)
        {
            return refused(NAME, value, &place.folder, &error, owned);
        }
    }
    let value = format!("{there} of {} are there", folders.len());
    Entry::ok(
        NAME,
        value,
        "files can be made in each, or where it will be",
    )
}

pub(super) fn file_system(role: Role, mount: Option<&Mount>, place: &Place, sync: bool) -> Entry {
    let name = role.file_system;
    let Some(mount) = mount else {
        let reason =
            "/proc/self/mountinfo does not tell what is mounted there; what it does was measured";
        return Entry::ok(name, NOT_SEEN, reason);
    };
    let value = format!("{} at {}", mount.kind, mount.point);
    let elsewhere = "# put the store on ext4 or XFS on a local disk (--store)";
    let kind = mount.kind.as_str();
    if mount.is_of_the_kernel() {
        let reason = "the kernel's own files are there, no others";
        return Entry::cannot_run(name, value, reason, elsewhere);
    }
    if place.read_only || mount.options.iter().any(|option| option == "ro") {
        let fix = format!("sudo mount -o remount,rw {}", quoted(&mount.point));
        return Entry::cannot_run(name, value, "it is mounted read-only", fix);
    }
    match kind {
        "ext4" | "xfs" => local(name, mount, value, sync),
        "tmpfs" | "ramfs" | "devtmpfs" => {
            let reason = "it is memory: nothing in it survives a restart, whatever was synced";
            Entry::advice(name, value, reason, elsewhere)
        }
        "overlay" | "aufs" => {
            let reason =
                "the layer of a container goes with it, and the first write to a file copies it";
            let fix = "docker run -v /data:/data …  # and --store /data/corelane";
            Entry::advice(name, value, reason, fix)
        }
        "btrfs" | "zfs" | "bcachefs" => {
            let reason = "it writes copies and not in place, so preparing zeros buys nothing and each sync \
                 writes more (kernel-notes/preallocation.md)";
            Entry::advice(name, value, reason, elsewhere)
        }
        _ if is_remote(kind) => {
            let reason = "others decide there when bytes are durable, and a wait for them is a wait of the log";
            Entry::advice(name, value, reason, elsewhere)
        }
        _ => Entry::ok(
            name,
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
fn local(name: &'static str, mount: &Mount, value: String, sync: bool) -> Entry {
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let remount =
        |options: &str| format!("sudo mount -o remount,{options} {}", quoted(&mount.point));
    if has("nobarrier") || has("barrier=0") {
        let reason = "without barriers a sync does not reach the disk, and a power cut loses what was acknowledged";
        return Entry::advice(name, value, reason, remount("barrier=1"));
    }
    if has("data=journal") {
        let reason = "data=journal writes every byte twice";
        let fix = "# mount it with data=ordered (in /etc/fstab; it takes an unmount)";
        return Entry::advice(name, value, reason, fix);
    }
    if has("sync") {
        let reason = "mounted with sync, every write waits for the disk";
        return Entry::advice(name, value, reason, remount("async"));
    }
    let reason = if sync {
        "overwrites in place, so a sync of prepared blocks leaves the journal alone (kernel-notes/preallocation.md)"
    } else {
        "overwrites in place (kernel-notes/preallocation.md)"
    };
    Entry::ok(name, value, reason)
}

/// Where the log is elsewhere: some files of ConsumeQueues and one IndexFile of the usual size.
const BESIDE_LOG: u64 = 512 << 20;

/// `holds_log`: whether the CommitLog's segments go there.
pub(super) fn space(
    role: Role,
    mount: Option<&Mount>,
    place: &Place,
    subject: &Subject,
    holds_log: bool,
) -> Entry {
    let name = role.space;
    let total = place.used + place.available;
    if mount.is_some_and(Mount::is_of_the_kernel) {
        // It has no blocks. To make room there would be a second remedy, and none.
        let reason = format!("nothing takes room there: see the {}", role.file_system);
        return Entry::ok(name, NOT_SEEN, reason);
    }
    let percent = (place.used * 100).checked_div(total).unwrap_or(100);
    let value = format!("{} free, {percent} % used", bytes(place.available),);
    let fix = format!(
        "# make room, or choose another {}; du -xh --max-depth=1 {} | sort -h",
        role.by,
        quoted(&place.folder.display().to_string())
    );
    if !holds_log {
        return if place.available < BESIDE_LOG {
            let reason = "ConsumeQueues, indexes and settings grow there with the log";
            Entry::advice(name, value, reason, fix)
        } else {
            Entry::ok(name, value, "room for ConsumeQueues, indexes and settings")
        };
    }
    let log = log::Options::new(subject.segment_size, FlushPolicy::GroupCommit);
    let first_step = log.prepare_step.min(subject.segment_size);
    if place.available < first_step {
        let step = bytes(first_step);
        let reason = format!(
            "a segment is prepared {step} at a time, the first before anything is acknowledged \
             (kernel-notes/preallocation.md)"
        );
        return Entry::cannot_run(name, value, reason, fix);
    }
    if u64::from(subject.refuse_from_percent) <= percent {
        let refuse = subject.refuse_from_percent;
        let reason =
            format!("from {refuse} % on producers are refused (diskSpaceWarningLevelRatio)");
        return Entry::advice(name, value, reason, fix);
    }
    if place.available < 2 * subject.segment_size {
        let reason = format!("less than two segments of {}", bytes(subject.segment_size));
        return Entry::advice(name, value, reason, fix);
    }
    Entry::ok(name, value, "room for the next segments")
}

#[cfg(test)]
mod tests {
    use super::super::Shards;
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
            folders: Vec::new(),
            shards: Shards::of("/data".as_ref(), None, 1, false),
            segment_size: 1 << 30,
            refuse_from_percent: 90,
            sync: true,
            has_names: true,
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
            file_system(STORE, Some(&mount), &place(), true).verdict
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
        assert_eq!(
            file_system(STORE, None, &place(), true).verdict,
            Verdict::Ok
        );
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_how_to_get_one() {
        let path = Path::new("/data/my store");
        let absent = Place {
            exists: false,
            ..place()
        };
        let refused = |errno| folder(STORE, path, &absent, Some(Err(&TrialError::NoFile(errno))));
        let denied = refused(Errno::EACCES);
        assert_eq!(denied.verdict, Verdict::CannotRun);
        let fix = denied.fix.unwrap();
        assert!(fix.contains("mkdir -p '/data/my store'"), "{fix}");
        assert!(fix.ends_with("chmod -R u+rwX '/data/my store'"), "{fix}");
        assert!(denied.value.contains("not there yet"));
        assert!(refused(Errno::EMFILE).fix.unwrap().contains("--nofile"));
        assert!(refused(Errno::ENOSPC).fix.unwrap().contains("make room"));
        let hangs = folder(STORE, path, &place(), Some(Err(&TrialError::NoAnswer(8))));
        assert_eq!(hangs.verdict, Verdict::Advice);
        let file = Place {
            is_folder: false,
            ..place()
        };
        assert_eq!(folder(STORE, path, &file, None).verdict, Verdict::CannotRun);
    }

    #[test]
    fn room_is_judged_by_segments_and_by_the_brokers_own_limit() {
        let judge = |used: u64, available: u64| {
            let place = Place {
                used,
                available,
                ..place()
            };
            space(STORE, Some(&mount("/data")), &place, &subject(), true).verdict
        };
        assert_eq!(judge(10 << 30, 90 << 30), Verdict::Ok);
        assert_eq!(judge(91 << 30, 9 << 30), Verdict::Advice);
        assert_eq!(judge(1 << 20, 1 << 30), Verdict::Advice);
        assert_eq!(judge(1 << 20, 1 << 20), Verdict::CannotRun);
        assert_eq!(judge(0, 0), Verdict::CannotRun);
    }
}

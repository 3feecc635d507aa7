//! Where a server keeps its files: the file system, and the block device below it.

use super::{chosen, line};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is told of a disk, by the names that the kernel has for it.
const FACTS: [(&str, &str); 5] = [
    ("io_scheduler", "scheduler"),
    ("disk_write_cache", "write_cache"),
    ("disk_fua", "fua"),
    ("disk_rotational", "rotational"),
    ("disk_wbt_lat_us", "wbt_lat_usec"),
];

pub struct Place {
    path: PathBuf,
    device: u64,
    /// As the process sees them whose path it is.
    mounts: String,
}

/// The same facts of a store that nobody can find.
pub fn unknown_disk(why: &str) -> Map<String, Value> {
    let names = FACTS.iter().map(|(key, _)| *key);
    ["file_system", "disk_device"]
        .into_iter()
        .chain(names)
        .map(|key| (key.to_owned(), json!(format!("unknown: {why}"))))
        .collect()
}

impl Place {
    pub fn of_folder(folder: &Path) -> Option<Place> {
        let path = folder.canonicalize().ok()?;
        Some(Place {
            device: fs::metadata(&path).ok()?.dev(),
            mounts: fs::read_to_string("/proc/self/mountinfo").ok()?,
            path,
        })
    }

    /// Where most of the files are that a process has open for writing.
    pub fn written_by(pid: u32) -> Option<Place> {
        let mut found: BTreeMap<u64, (usize, PathBuf)> = BTreeMap::new();
        let folder = PathBuf::from(format!("/proc/{pid}/fd"));
        for file in fs::read_dir(&folder).ok()?.flatten() {
            let info = PathBuf::from(format!("/proc/{pid}/fdinfo")).join(file.file_name());
            let flags = fs::read_to_string(info).unwrap_or_default();
            let flags = flags
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
            let is_written = flags.is_some_and(|flags| flags & 3 != 0);
            let (Ok(target), Ok(path)) = (fs::metadata(file.path()), fs::read_link(file.path()))
            else {
                continue;
            };
            if is_written && target.is_file() {
                found.entry(target.dev()).or_insert((0, path)).0 += 1;
            }
        }
        // On a tie the first: logs and stores of a server stand on one device as a rule.
        let most = found.values().map(|(count, _)| *count).max()?;
        let (device, (_, path)) = found.into_iter().find(|(_, (count, _))| *count == most)?;
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
        Some(Place {
            path,
            device,
            mounts,
        })
    }

    /// The disk's folder in /sys; a partition has that of its disk, which counts flushes and has the
    /// queue. None for memory and network file systems and those that hide their devices.
    pub fn disk(&self) -> Option<PathBuf> {
        let (major, minor) = (
            nix::sys::stat::major(self.device),
            nix::sys::stat::minor(self.device),
        );
        let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        match folder.join("partition").exists() {
            true => folder.parent().map(Path::to_path_buf),
            false => Some(folder),
        }
    }

    /// File system and disk, for people.
    pub fn describe(&self) -> Map<String, Value> {
        let mut found = unknown_disk("no block device can be seen below the file system");
        let mut put = |key: &str, value: String| found.insert(key.to_owned(), json!(value));
        if let Some(mount) = mount_of(&self.mounts, &self.path) {
            put("file_system", mount.kind);
            put("mount_options", mount.options);
            put("mount_point", mount.point);
        }
        let Some(disk) = self.disk() else {
            return found;
        };
        if let Some(name) = disk.file_name() {
            put("disk_device", name.to_string_lossy().into_owned());
        }
        for (key, name) in FACTS {
            let value = line(disk.join("queue").join(name));
            put(key, value.map_or("unknown".into(), |value| chosen(&value)));
        }
        found
    }
}

#[derive(Debug, PartialEq)]
struct Mount {
    point: String,
    kind: String,
    options: String,
}

/// The mount that holds `place`: the one with the longest path.
fn mount_of(mounts: &str, place: &Path) -> Option<Mount> {
    let mut best: Option<Mount> = None;
    for line in mounts.lines() {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let (Some(point), Some(options)) = (front.get(4), front.get(5)) else {
            continue;
        };
        let is_longer = best
            .as_ref()
            .is_none_or(|known| known.point.len() <= point.len());
        if place.starts_with(point) && is_longer {
            let more = back.get(2).copied().unwrap_or("");
            best = Some(Mount {
                point: (*point).to_owned(),
                kind: back[0].to_owned(),
                options: format!("{options} {more}"),
            });
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_with_the_longest_path_holds_a_folder() {
        let mounts =
            "1 0 8:1 / / rw - ext4 /dev/a rw,data\n2 1 8:2 / /data rw,noatime - xfs /dev/b rw\n";
        let found = mount_of(mounts, Path::new("/data/store")).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.options.as_str()),
            ("xfs", "rw,noatime rw")
        );
        let other = mount_of(mounts, Path::new("/database")).unwrap();
        assert_eq!((other.kind.as_str(), other.point.as_str()), ("ext4", "/"));
    }

    #[test]
    fn a_place_is_that_of_the_files_that_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..20)
            .map(|at| fs::File::create(folder.path().join(at.to_string())).unwrap())
            .collect();
        let known = Place::of_folder(folder.path()).unwrap();
        let found = Place::written_by(std::process::id()).unwrap();
        assert_eq!(found.device, known.device);
        assert_eq!(found.describe(), known.describe());
        drop(files);
    }
}

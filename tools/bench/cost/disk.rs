//! The block device under a server's files, and what the kernel counts of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const SECTOR_SIZE: u64 = 512;

pub struct Disk {
    pub name: String,
    stat: PathBuf,
}

#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub written_bytes: u64,
    /// Flushes of the device's cache; none where the kernel does not count them.
    pub flushes: u64,
}

/// Device numbers of the files that a process has open for writing, the most frequent one.
fn device_of(pid: u32) -> Option<u64> {
    let mut found: BTreeMap<u64, usize> = BTreeMap::new();
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    for file in fs::read_dir(&folder).ok()?.flatten() {
        let number = file.file_name();
        let info = PathBuf::from(format!("/proc/{pid}/fdinfo")).join(&number);
        let flags = fs::read_to_string(info).unwrap_or_default();
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        let is_written = flags.is_some_and(|flags| flags & 3 != 0);
        let Ok(target) = fs::metadata(file.path()) else {
            continue;
        };
        if is_written && target.is_file() {
            *found.entry(target.dev()).or_default() += 1;
        }
    }
    // On a tie the first: logs and stores of a server stand on one device as a rule.
    let most = found.values().copied().max()?;
    found
        .into_iter()
        .find(|(_, count)| *count == most)
        .map(|at| at.0)
}

impl Disk {
    /// None for memory file systems, network file systems and those that hide their devices.
    pub fn under(pid: u32) -> Option<Disk> {
        let device = device_of(pid)?;
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // A partition's own counters leave out flushes: its disk has them.
        let disk = if folder.join("partition").exists() {
            folder.parent()?.to_path_buf()
        } else {
            folder
        };
        let stat = disk.join("stat");
        let name = disk.file_name()?.to_string_lossy().into_owned();
        stat.exists().then_some(Disk { name, stat })
    }

    pub fn counts(&self) -> Option<Counts> {
        counts(&fs::read_to_string(&self.stat).ok()?)
    }
}

/// Fields of a stat file: 7 is sectors written, 16 flushes (since Linux 5.5).
fn counts(text: &str) -> Option<Counts> {
    let fields: Vec<u64> = text
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Some(Counts {
        written_bytes: fields.get(6)? * SECTOR_SIZE,
        flushes: *fields.get(15)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_by_its_places() {
        let text = " 4749323 146489 182420234 6950875 3522920 505700 1322500392 4315643 0 1049988 11703956 549696 110 865118000 198217 1018700 239220\n";
        let read = counts(text).unwrap();
        assert_eq!(read.written_bytes, 1_322_500_392 * 512);
        assert_eq!(read.flushes, 1_018_700);
        assert!(counts("1 2 3").is_none());
    }

    #[test]
    fn a_disk_is_that_of_the_files_that_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..20)
            .map(|at| fs::File::create(folder.path().join(at.to_string())).unwrap())
            .collect();
        let device = fs::metadata(folder.path()).unwrap().dev();
        assert_eq!(device_of(std::process::id()), Some(device));
        drop(files);
    }
}

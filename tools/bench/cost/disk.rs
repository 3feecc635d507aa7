//! The block device under a server's files, and what the kernel counts of it.

use crate::environment::Place;
use std::fs;
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

impl Disk {
    pub fn under(pid: u32) -> Option<Disk> {
        let disk = Place::written_by(pid)?.disk()?;
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
}

//! What a host says of itself: small files of `/proc` and `/sys`, the file system behind a path, limits.
//! Read by `corelane doctor`; nothing that serves comes here.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};

/// No file that is read here is longer; what is longer is cut.
const TEXT_SIZE_MAX: u64 = 256 << 10;

/// Why something could not be seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// The kernel, or the container, does not show it.
    #[error("there is no {0} here")]
    Missing(String),
    /// It is for others.
    #[error("only root may read {0}")]
    Forbidden(String),
    /// Anything else that the kernel said.
    #[error("{0} cannot be read: {1}")]
    Other(String, String),
}

/// The files of a host, or of a folder that a test has filled like one.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// This host.
    #[must_use]
    pub fn this() -> Self {
        Self::at(Path::new("/"))
    }

    /// A folder that holds `proc` and `sys`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a small file, without blanks around it.
    ///
    /// # Errors
    /// Why it was not seen.
    pub fn text(&self, path: &str) -> Result<String, Unseen> {
        let mut bytes = Vec::new();
        let read = File::open(self.path(path))
            .and_then(|file| file.take(TEXT_SIZE_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(err) => Err(match err.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Unseen::Missing(path.to_owned()),
                ErrorKind::PermissionDenied => Unseen::Forbidden(path.to_owned()),
                _ => Unseen::Other(path.to_owned(), err.to_string()),
            }),
        }
    }

    /// The names in a folder, sorted; none where there is no such folder or it may not be read.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// Where a path leads when its links are followed; `None` where it leads nowhere.
    #[must_use]
    pub fn real(&self, path: &str) -> Option<String> {
        let real = fs::canonicalize(self.path(path)).ok()?;
        let root = fs::canonicalize(&self.root).ok()?;
        let inside = real.strip_prefix(root).ok()?;
        Some(format!("/{}", inside.to_str()?))
    }
}

/// The nearest folder to a path that exists, and the file system it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path itself, or the nearest of its parents that exists, links followed.
    pub folder: PathBuf,
    /// Whether it is the path itself.
    pub exists: bool,
    /// Whether it is a folder and not a file.
    pub is_folder: bool,
    /// Number of the device, major and minor; major 0 is a file system without a disk of its own.
    pub device: (u64, u64),
    /// Mounted read-only.
    pub read_only: bool,
    /// Bytes in use, and bytes that this user could still take.
    pub used: u64,
    /// See `used`.
    pub available: u64,
}

/// Looks at a path or, where it does not exist, at the nearest parent that does.
///
/// # Errors
/// A parent may not be looked into, or the file system does not answer.
pub fn place(path: &Path) -> std::io::Result<Place> {
    let mut exists = true;
    for nearest in path.ancestors() {
        let meta = match fs::metadata(nearest) {
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                exists = false;
                continue;
            }
            other => other?,
        };
        let stat = statvfs(nearest)?;
        let block = stat.fragment_size();
        let device = std::os::unix::fs::MetadataExt::dev(&meta);
        return Ok(Place {
            folder: fs::canonicalize(nearest)?,
            exists,
            is_folder: meta.is_dir(),
            device: (nix::sys::stat::major(device), nix::sys::stat::minor(device)),
            read_only: stat.flags().contains(FsFlags::ST_RDONLY),
            used: stat.blocks().saturating_sub(stat.blocks_free()) * block,
            available: stat.blocks_available() * block,
        });
    }
    Err(ErrorKind::NotFound.into())
}

/// Soft and hard limit of this process; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// In force now.
    pub soft: u64,
    /// As far as the soft one can be raised without a privilege.
    pub hard: u64,
}

/// The limits of open files and of locked memory.
///
/// # Errors
/// The kernel's.
pub fn limits() -> Result<(Limit, Limit), Errno> {
    let of = |what| getrlimit(what).map(|(soft, hard)| Limit { soft, hard });
    Ok((of(Resource::RLIMIT_NOFILE)?, of(Resource::RLIMIT_MEMLOCK)?))
}

/// Nanoseconds that one look at the monotonic clock takes, the mean of the best of some rounds.
#[must_use]
pub fn clock_read_ns() -> u64 {
    const READS: u32 = 500;
    let round = || {
        let started = Instant::now();
        for _ in 0..READS {
            std::hint::black_box(Instant::now());
        }
        started.elapsed() / READS
    };
    let best = (0..8).map(|_| round()).min().unwrap_or_default();
    best.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_says_what_it_does_not_show() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("sys/b")).unwrap();
        fs::write(folder.path().join("sys/a"), " x\n").unwrap();
        std::os::unix::fs::symlink("b", folder.path().join("sys/link")).unwrap();
        let tree = Tree::at(folder.path());
        assert_eq!(tree.text("/sys/a").unwrap(), "x");
        assert_eq!(
            tree.text("/sys/c").unwrap_err().to_string(),
            "there is no /sys/c here"
        );
        assert!(matches!(tree.text("/sys/b"), Err(Unseen::Other(_, _))));
        assert_eq!(tree.names("/sys"), ["a", "b", "link"]);
        assert!(tree.names("/proc").is_empty());
        assert_eq!(tree.real("/sys/link").as_deref(), Some("/sys/b"));
        assert_eq!(tree.real("/sys/nowhere"), None);
    }

    #[test]
    fn the_nearest_folder_that_exists_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        let here = place(folder.path()).unwrap();
        assert!(here.exists && here.is_folder && !here.read_only, "{here:?}");
        assert!(0 < here.available);
        let below = place(&folder.path().join("x/y")).unwrap();
        assert_eq!((below.exists, &below.folder), (false, &real));
        fs::write(folder.path().join("file"), "").unwrap();
        let file = place(&folder.path().join("file")).unwrap();
        assert!(file.exists && !file.is_folder);
        let below_file = place(&folder.path().join("file/x")).unwrap();
        assert!(!below_file.exists && !below_file.is_folder);
    }

    #[test]
    fn limits_and_the_clock_have_values() {
        let (files, memory) = limits().unwrap();
        assert!(0 < files.soft && files.soft <= files.hard);
        assert!(memory.soft <= memory.hard);
        assert!(clock_read_ns() < 1_000_000);
    }
}

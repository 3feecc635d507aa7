//! What a folder's disk does with the writes of a log, tried with small files that are gone afterwards:
//! which calls its file system knows, and what a write costs that must be durable. See
//! kernel-notes/preallocation.md and kernel-notes/write-and-sync.md.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::Fill;
use super::lane;
use super::trial_file::{TrialFile, keeps_names, remove_left_behind};
use crate::base::Prng;

/// Bytes of each trial file; there is one for each [`SyncWay`] at a time.
const FILE_SIZE: u64 = 2 << 20;

/// Bytes of a write whose sync is timed.
pub const SYNC_SIZES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];

/// Synced writes of each way: enough for a p99 of small ones, a few MiB each of large ones.
const SYNC_COUNTS: [usize; 3] = [256, 128, 48];

/// Writes of one way before the others get their turn, so that what disturbs one disturbs all.
const TURN: usize = 4;

/// Bytes of the buffered writes that nobody syncs.
const BUFFERED_SIZE: u64 = 64 << 10;
const BUFFERED_COUNT: usize = 128;

/// Direct writes of this alignment suit every disk, and it is the page.
const ALIGNMENT: usize = 4096;

/// The kernel's number for it; nix has no name yet (since 6.17).
const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;

/// What lies where a synced write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncWay {
    /// Zeros that were written before, as the broker prepares them for synchronous flush.
    Zeroed,
    /// The same, and the write is its own sync (RWF_DSYNC).
    ZeroedOwnSync,
    /// As the first, and the write goes past the page cache.
    ZeroedDirect,
    /// The same, and the write is its own sync: the only way that uses FUA, where the disk has it.
    ZeroedDirectOwnSync,
    /// Blocks that are reserved only.
    Unwritten,
    /// The end of the file.
    Growing,
}

impl SyncWay {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Zeroed,
        Self::ZeroedOwnSync,
        Self::ZeroedDirect,
        Self::ZeroedDirectOwnSync,
        Self::Unwritten,
        Self::Growing,
    ];
}

/// Durations of one kind of call, sorted; not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times(Vec<u64>);

impl Times {
    /// Of nanoseconds in any order; `None` for none.
    #[must_use]
    pub fn of(mut ns: Vec<u64>) -> Option<Self> {
        ns.sort_unstable();
        (!ns.is_empty()).then_some(Self(ns))
    }

    /// How many.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// That many per cent took at most so long, in nanoseconds; with few samples p99 is the longest.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank.min(self.0.len()) - 1]
    }
}

/// What a disk did. A duration is nanoseconds; an error is what the call answered.
#[derive(Debug, Clone)]
pub struct DiskTrial {
    /// Writes of 64 KiB into the page cache over blocks that are there.
    pub buffered: Result<Times, Errno>,
    /// The smallest direct write that was taken, in bytes.
    pub direct: Result<u64, Errno>,
    /// What statx says of direct I/O: alignment of memory and of offsets; zeros where there is none.
    pub direct_alignment: Option<(u32, u32)>,
    /// A buffered write that must not wait (`RWF_NOWAIT`).
    pub no_wait: Result<(), Errno>,
    /// A write that is its own sync (`RWF_DSYNC`).
    pub own_sync: Result<(), Errno>,
    /// A write that leaves the page cache when it is on disk (`RWF_DONTCACHE`).
    pub uncached: Result<(), Errno>,
    /// Reserving 2 MiB (`fallocate`).
    pub reserve: Result<u64, Errno>,
    /// Making them read as zeros without writing them (`FALLOC_FL_ZERO_RANGE`).
    pub zero_range: Result<u64, Errno>,
    /// Having the disk write zeros by itself (`FALLOC_FL_WRITE_ZEROES`).
    pub write_zeroes: Result<u64, Errno>,
    /// Write and fdatasync: for each of [`SYNC_SIZES`] each of [`SyncWay::ALL`].
    pub syncs: Vec<(u64, SyncWay, Result<Times, Errno>)>,
}

/// Why a disk was not tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// No file could be made.
    #[error("no file can be made there: {0}")]
    NoFile(Errno),
    /// It took too long; the thread that waits for it is left behind.
    #[error("it did not answer within {0} s")]
    NoAnswer(u64),
}

/// Tries a folder for about `budget`. One whose disk hangs is given up after `patience`.
///
/// # Errors
/// Why it was not tried. A call that fails is part of the answer and no error.
pub fn try_disk(
    folder: &Path,
    budget: Duration,
    patience: Duration,
) -> Result<DiskTrial, TrialError> {
    let folder = folder.to_owned();
    patiently(patience, move || run(&folder, budget))
}

/// Times for each size of `sizes` one write of each of `ways`, in turn, so often that it takes about
/// `budget`: for a broker that chooses at its start. All writes go over zeros.
///
/// # Errors
/// As [`try_disk`].
pub fn time_sync_ways(
    folder: &Path,
    ways: &'static [SyncWay],
    sizes: &'static [u64],
    budget: Duration,
    patience: Duration,
) -> Result<Vec<(u64, SyncWay, Result<Times, Errno>)>, TrialError> {
    let folder = folder.to_owned();
    patiently(patience, move || {
        let data = data();
        let sites: Result<Vec<_>, _> = ways.iter().map(|way| Site::new(&folder, *way)).collect();
        let mut sites = sites?;
        let mut all = Vec::new();
        for size in sizes {
            let share = budget / sizes.len() as u32;
            let no_signal = AtomicUsize::new(0);
            let times = time_syncs(
                &mut sites,
                data.of_size(*size),
                SYNC_COUNTS[0],
                share,
                &no_signal,
            );
            all.extend(
                ways.iter()
                    .zip(times)
                    .map(|(way, times)| (*size, *way, times)),
            );
        }
        Ok(all)
    })
}

fn patiently<T: Send + 'static>(
    patience: Duration,
    trial: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> Result<T, TrialError> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("disk-trial".to_owned());
    let spawned = thread.spawn(move || {
        let _ = sender.send(trial());
    });
    spawned.map_err(|err| TrialError::NoFile(errno_of(&err)))?;
    receiver
        .recv_timeout(patience)
        .map_err(|_| TrialError::NoAnswer(patience.as_secs()))?
        .map_err(TrialError::NoFile)
}

/// Files with a name go before the process does: a signal ends the trial, and then the process.
fn run(folder: &Path, budget: Duration) -> Result<DiskTrial, Errno> {
    let signal = Arc::new(AtomicUsize::new(0));
    if keeps_names(folder) {
        for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let flag = Arc::clone(&signal);
            let _ = signal_hook::flag::register_usize(number, flag, number as usize);
        }
    }
    let trial = run_until(folder, budget, &signal);
    let number = signal.load(Ordering::Relaxed);
    if number != 0 {
        let _ = signal_hook::low_level::emulate_default_handler(number as i32);
    }
    trial
}

fn run_until(folder: &Path, budget: Duration, signal: &AtomicUsize) -> Result<DiskTrial, Errno> {
    remove_left_behind(folder);
    let data = data();
    let mut sites = SyncWay::ALL
        .into_iter()
        .map(|way| Site::new(folder, way))
        .collect::<Result<Vec<_>, _>>()?;
    let plain = TrialFile::new(folder).map_err(|err| errno_of(&err))?;
    let fill = |flags| timed(|| fallocate(&plain.file, flags, 0, FILE_SIZE as i64));
    let reserve = fill(FallocateFlags::empty());
    let zero_range = fill(FallocateFlags::FALLOC_FL_ZERO_RANGE);
    let write_zeroes = fill(FallocateFlags::from_bits_retain(FALLOC_FL_WRITE_ZEROES));
    let zeros = lane::prepare(&plain.file, 0, FILE_SIZE, Fill::Zeros);
    let buffered = zeros
        .map_err(|err| errno_of(&err))
        .and_then(|_| write_buffered(&plain.file, data.bytes()));
    let flagged = |flags| write_flagged(&plain.file, data.of_size(4096), 0, flags);
    let (no_wait, own_sync) = (flagged(libc::RWF_NOWAIT), flagged(libc::RWF_DSYNC));
    let uncached = flagged(libc::RWF_DONTCACHE);
    let direct = smallest_direct(&plain, &data);
    let direct_alignment = direct_alignment(&plain.file);
    drop(plain);
    let mut syncs = Vec::new();
    for (index, size) in SYNC_SIZES.into_iter().enumerate() {
        let share = budget / SYNC_SIZES.len() as u32;
        let bytes = data.of_size(size);
        let times = time_syncs(&mut sites, bytes, SYNC_COUNTS[index], share, signal);
        for (site, times) in sites.iter().zip(times) {
            syncs.push((size, site.way, times));
        }
    }
    Ok(DiskTrial {
        buffered,
        direct,
        direct_alignment,
        no_wait,
        own_sync,
        uncached,
        reserve,
        zero_range,
        write_zeroes,
        syncs,
    })
}

/// Every way in turn, until each has its count or the time is over; each is measured once at least.
fn time_syncs(
    sites: &mut [Site],
    bytes: &[u8],
    count: usize,
    budget: Duration,
    signal: &AtomicUsize,
) -> Vec<Result<Times, Errno>> {
    let begun = Instant::now();
    let is_over = || budget <= begun.elapsed() || signal.load(Ordering::Relaxed) != 0;
    let mut all: Vec<Result<Vec<u64>, Errno>> = sites.iter().map(|_| Ok(Vec::new())).collect();
    let mut done = 0;
    while done < count && (done == 0 || !is_over()) {
        for (site, times) in sites.iter_mut().zip(&mut all) {
            for turn in 0..TURN.min(count - done) {
                let Ok(taken) = times else { break };
                if 0 < done + turn && is_over() {
                    break;
                }
                match site.write(bytes) {
                    Ok(ns) => taken.push(ns),
                    Err(errno) => *times = Err(errno),
                }
            }
        }
        done += TURN;
    }
    all.into_iter()
        .map(|times| times.and_then(|ns| Times::of(ns).ok_or(Errno::ETIME)))
        .collect()
}

/// A file that one way of synced writes goes to, round and round.
struct Site {
    way: SyncWay,
    file: TrialFile,
    /// The file again, for writes that go past the page cache.
    direct: Option<Result<File, Errno>>,
    at: u64,
    is_fresh: bool,
}

impl Site {
    fn new(folder: &Path, way: SyncWay) -> Result<Self, Errno> {
        let file = TrialFile::new(folder).map_err(|err| errno_of(&err))?;
        let goes_past = matches!(way, SyncWay::ZeroedDirect | SyncWay::ZeroedDirectOwnSync);
        let direct = goes_past.then(|| file.direct());
        Ok(Self {
            way,
            file,
            direct,
            at: 0,
            is_fresh: false,
        })
    }

    /// Nanoseconds of one write and its sync. Making room before it is not counted.
    fn write(&mut self, bytes: &[u8]) -> Result<u64, Errno> {
        if !self.is_fresh || FILE_SIZE < self.at + bytes.len() as u64 {
            self.prepare().map_err(|err| errno_of(&err))?;
        }
        let target = match &self.direct {
            Some(direct) => direct.as_ref().map_err(|errno| *errno)?,
            None => &self.file.file,
        };
        let begun = Instant::now();
        if matches!(
            self.way,
            SyncWay::ZeroedOwnSync | SyncWay::ZeroedDirectOwnSync
        ) {
            write_flagged(target, bytes, self.at, libc::RWF_DSYNC)?;
        } else {
            let written = target
                .write_all_at(bytes, self.at)
                .and_then(|()| target.sync_data());
            written.map_err(|err| errno_of(&err))?;
        }
        self.at += bytes.len() as u64;
        Ok(begun.elapsed().as_nanos() as u64)
    }

    fn prepare(&mut self) -> std::io::Result<()> {
        self.at = 0;
        let file = &self.file.file;
        match self.way {
            SyncWay::Unwritten => {
                file.set_len(0)?;
                fallocate(file, FallocateFlags::empty(), 0, FILE_SIZE as i64)?;
                file.sync_data()?;
            }
            SyncWay::Growing => {
                file.set_len(0)?;
                file.sync_data()?;
            }
            // Once: what is written over stays written.
            _ if self.is_fresh => {}
            _ => drop(lane::prepare(file, 0, FILE_SIZE, Fill::DirectZeros)?),
        }
        self.is_fresh = true;
        Ok(())
    }
}

/// Bytes to write, at an address that direct I/O takes.
struct Data {
    memory: Vec<u8>,
    skip: usize,
}

impl Data {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.skip..self.skip + SYNC_SIZES[2] as usize]
    }

    fn of_size(&self, size: u64) -> &[u8] {
        &self.bytes()[..size as usize]
    }
}

/// Not zeros: some disks do not store those.
fn data() -> Data {
    let mut seed = Prng::from_seed(1);
    let size = SYNC_SIZES[2] as usize + ALIGNMENT;
    let memory: Vec<u8> = (0..size / 8)
        .flat_map(|_| seed.next_u64().to_ne_bytes())
        .collect();
    let skip = memory.as_ptr().align_offset(ALIGNMENT);
    Data { memory, skip }
}

fn timed<T>(call: impl FnOnce() -> nix::Result<T>) -> Result<u64, Errno> {
    let begun = Instant::now();
    call().map(|_| begun.elapsed().as_nanos() as u64)
}

fn write_buffered(file: &File, bytes: &[u8]) -> Result<Times, Errno> {
    let bytes = &bytes[..BUFFERED_SIZE as usize];
    let mut times = Vec::new();
    for write in 0..BUFFERED_COUNT as u64 {
        let at = write * BUFFERED_SIZE % FILE_SIZE;
        let begun = Instant::now();
        file.write_all_at(bytes, at).map_err(|err| errno_of(&err))?;
        times.push(begun.elapsed().as_nanos() as u64);
    }
    Times::of(times).ok_or(Errno::ETIME)
}

/// One write with flags of `pwritev2`. A short one is an error: the disk is full.
fn write_flagged(file: &File, bytes: &[u8], at: u64, flags: i32) -> Result<(), Errno> {
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let at = at as libc::off_t;
    // SAFETY: one vector over bytes that outlive the call and are only read.
    let count = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const vector, 1, at, flags) };
    if Errno::result(count)? as usize == bytes.len() {
        Ok(())
    } else {
        Err(Errno::ENOSPC)
    }
}

/// Tries direct writes from one sector up to a page.
fn smallest_direct(file: &TrialFile, data: &Data) -> Result<u64, Errno> {
    let direct = file.direct()?;
    let mut refused = Errno::EINVAL;
    for size in [512, 1024, 2048, 4096] {
        match direct.write_all_at(data.of_size(size), size) {
            Ok(()) => return Ok(size),
            Err(err) => refused = errno_of(&err),
        }
    }
    Err(refused)
}

/// `None`: the kernel or the file system does not say (since 6.1).
fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    // SAFETY: all zeros is a valid statx: it holds numbers only.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is empty and ends with a zero, the buffer outlives the call.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    (done == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0)
        .then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

pub(super) fn errno_of(err: &std::io::Error) -> Errno {
    Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_sorted_times_and_p99_of_few_is_the_longest() {
        let times = Times::of((1..=200).rev().collect()).unwrap();
        assert_eq!((times.percentile(50), times.percentile(99)), (100, 198));
        let few = Times::of(vec![3, 1, 2]).unwrap();
        assert_eq!((few.percentile(50), few.percentile(99)), (2, 3));
        assert_eq!((few.count(), few.percentile(0)), (3, 1));
        assert_eq!(Times::of(Vec::new()), None);
    }

    #[test]
    fn a_trial_answers_for_every_way_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let budget = Duration::from_millis(300);
        let trial = try_disk(folder.path(), budget, Duration::from_secs(60)).unwrap();
        assert_eq!(trial.syncs.len(), SYNC_SIZES.len() * SyncWay::ALL.len());
        for (size, way, times) in &trial.syncs {
            if matches!(way, SyncWay::Growing | SyncWay::Zeroed) {
                assert!(times.is_ok(), "{size} {way:?}: {times:?}");
            }
        }
        assert!(trial.buffered.is_ok(), "{:?}", trial.buffered);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_without_files_says_why() {
        let nowhere = Path::new("/proc/self");
        let tried = try_disk(nowhere, Duration::from_secs(1), Duration::from_secs(60));
        assert!(matches!(tried, Err(TrialError::NoFile(_))), "{tried:?}");
    }
}

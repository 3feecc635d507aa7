//! Whether a range of a file is in the page cache: two questions, of which neither waits nor reads anything.
//! See kernel-notes/page-cache-and-cold-reads.md.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::pages::PAGE_SIZE;

#[repr(C)]
#[derive(Default)]
struct CachestatRange {
    off: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// `cachestat(2)`; libc has no name for it.
const SYS_CACHESTAT: libc::c_long = 451;

/// Pages that one `mincore` is asked about.
const PAGES_AT_ONCE: usize = 1024;

fn pages_of(at: u64, len: u64) -> u64 {
    (at + len).div_ceil(PAGE_SIZE) - at / PAGE_SIZE
}

/// Whether the page cache holds all of a range. The kernel counts.
pub(super) fn by_cachestat(file: &File, at: u64, len: u64) -> Result<bool, Errno> {
    let count = cachestat(file.as_fd(), at, len)?;
    Ok(pages_of(at, len) <= count)
}

fn cachestat(file: BorrowedFd<'_>, at: u64, len: u64) -> Result<u64, Errno> {
    let range = CachestatRange { off: at, len };
    let mut stat = Cachestat::default();
    let fd = file.as_raw_fd();
    // SAFETY: both structs are as the kernel declares them and outlive the call.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, fd, &raw const range, &raw mut stat, 0u32) };
    Errno::result(done).map(|_| stat.nr_cache)
}

/// Whether the kernel, and every filter before it, lets this process count pages.
pub(super) fn has_cachestat() -> bool {
    let Ok(file) = memfd_create(c"corelane", MFdFlags::MFD_CLOEXEC) else {
        return false;
    };
    nix::unistd::ftruncate(&file, PAGE_SIZE as i64).is_ok()
        && cachestat(file.as_fd(), 0, PAGE_SIZE).is_ok()
}

/// The same of a range of a map: one byte for each page. Every kernel has it. Of files that the process may neither
/// write nor owns it says that all is there; a store is neither.
///
/// The bytes at `start` are not touched, and need not be there.
pub(super) fn by_mincore(start: *const u8, len: u64) -> bool {
    let skip = start.addr() as u64 % PAGE_SIZE;
    let mut left = pages_of(skip, len) as usize;
    let mut from = start.wrapping_sub(skip as usize);
    let mut there = [0u8; PAGES_AT_ONCE];
    while 0 < left {
        let count = left.min(PAGES_AT_ONCE);
        let size = count * PAGE_SIZE as usize;
        // SAFETY: `there` has a byte for each page, and the range is only asked about: one that is no map is
        // answered with ENOMEM.
        let done =
            unsafe { libc::mincore(from.cast_mut().cast(), size, there.as_mut_ptr().cast()) };
        if done != 0 || there[..count].iter().any(|page| page & 1 == 0) {
            return false;
        }
        left -= count;
        from = from.wrapping_add(size);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

    use super::super::mapping::Mapped;
    use super::*;
    use crate::base::Prng;

    const PAGES: u64 = 3000;

    /// A file of which the page cache holds nothing, and a map of it.
    fn cold_file() -> (File, Mapped) {
        let file = tempfile::tempfile().unwrap();
        let zeros = vec![7; (PAGES * PAGE_SIZE) as usize];
        file.write_all_at(&zeros, 0).unwrap();
        file.sync_all().unwrap();
        // No reading ahead: what a test reads is what it warms.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        (file, Mapped::default())
    }

    fn warm(file: &File, page: u64) {
        file.read_exact_at(&mut [0], page * PAGE_SIZE + 5).unwrap();
    }

    fn asked(file: &File, map: &Mapped, at: u64, len: u64) -> bool {
        by_mincore(map.address(file, at, len).unwrap(), len)
    }

    #[test]
    fn a_range_with_warm_ends_and_a_cold_middle_is_cold() {
        let (file, map) = cold_file();
        for pages in [3, 100, 1024, 1025, 2500] {
            let (first, last) = (10, 10 + pages - 1);
            warm(&file, first);
            warm(&file, last);
            let (at, len) = (first * PAGE_SIZE + 4000, (pages - 2) * PAGE_SIZE + 200);
            assert!(!asked(&file, &map, at, len), "{pages} pages");
        }
    }

    /// More pages than are asked about at once.
    #[test]
    fn one_cold_page_anywhere_makes_a_range_cold() {
        for cold in [0, 1023, 1024, 2047, 2048, 2499] {
            let (file, map) = cold_file();
            for page in (0..2500).filter(|page| *page != cold) {
                warm(&file, page);
            }
            assert!(!asked(&file, &map, 0, 2500 * PAGE_SIZE), "page {cold}");
            warm(&file, cold);
            assert!(asked(&file, &map, 0, 2500 * PAGE_SIZE), "page {cold}");
        }
    }

    #[test]
    fn asking_brings_nothing_into_the_page_cache() {
        let (file, map) = cold_file();
        for page in 0..PAGES {
            assert!(!asked(&file, &map, page * PAGE_SIZE, 1), "page {page}");
        }
        assert_eq!(cachestat(file.as_fd(), 0, PAGES * PAGE_SIZE), Ok(0));
    }

    #[test]
    fn both_questions_have_the_same_answer() {
        assert!(has_cachestat(), "the kernel of this test is 6.5 or newer");
        let (file, map) = cold_file();
        let seed = 0x5eed;
        let mut prng = Prng::from_seed(seed);
        let mut there = vec![false; PAGES as usize];
        let mut yes = 0;
        for round in 0..400 {
            // Runs, so that there are ranges that are there as a whole.
            let (start, len) = (prng.below(PAGES), 1 + prng.below(40));
            for page in start..(start + len).min(PAGES) {
                warm(&file, page);
                there[page as usize] = true;
            }
            for _ in 0..20 {
                let at = prng.below(PAGES * PAGE_SIZE - 1);
                let len = 1 + prng.below((PAGES * PAGE_SIZE - at).min(30 * PAGE_SIZE));
                let pages = at / PAGE_SIZE..=(at + len - 1) / PAGE_SIZE;
                let want = pages.clone().all(|page| there[page as usize]);
                let got = (by_cachestat(&file, at, len), asked(&file, &map, at, len));
                assert_eq!(
                    got,
                    (Ok(want), want),
                    "seed {seed}, round {round}: {pages:?}"
                );
                yes += u32::from(want);
            }
        }
        assert!((100..7_900).contains(&yes), "{yes} of 8000 were there");
    }
}

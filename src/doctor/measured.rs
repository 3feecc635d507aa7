//! What the store's disk did when it was tried: buffered and direct writes, reserving, and what a write
//! costs that must be durable.

use std::collections::BTreeMap;

use super::report::{Entry, bytes, duration};
use crate::io::{DiskTrial, Errno, SYNC_SIZES, SyncWay, Times};

const WRITE_PAGE: &str = "kernel-notes/write-and-sync.md";
const PREPARE_PAGE: &str = "kernel-notes/preallocation.md";

/// A sync that takes longer is one of a disk that turns, or of one behind a network: 10 ms, and the bytes at
/// 50 MB/s.
const fn slow_ns(size: u64) -> u64 {
    10_000_000 + size * 20
}

/// Bytes of one buffered write of the trial.
const BUFFERED_SIZE: u64 = 64 << 10;

pub(super) const ELSEWHERE: &str = "# put the store on ext4 or XFS on a local SSD (--store)";

pub(super) fn not_measured(why: &str) -> Entry {
    let reason = format!("the disk of the store was not measured: {why}");
    Entry::ok("disk trial", super::report::NOT_SEEN, reason)
}

pub(super) fn check(trial: &DiskTrial, sync: bool) -> Vec<Entry> {
    let mut entries = vec![
        buffered(&trial.buffered, trial.no_wait),
        direct(trial.direct, trial.direct_alignment, sync),
        flags(trial),
        reserving(trial.reserve, trial.zero_range, trial.write_zeroes, sync),
    ];
    for (size, name) in
        SYNC_SIZES
            .into_iter()
            .zip(["sync of 4 KiB", "sync of 64 KiB", "sync of 1 MiB"])
    {
        let of_size = trial.syncs.iter().filter(|(other, _, _)| *other == size);
        let ways: Vec<_> = of_size.map(|(_, way, times)| (*way, times)).collect();
        entries.push(synced(name, size, &ways, sync));
    }
    entries
}

fn buffered(times: &Result<Times, Errno>, no_wait: Result<(), Errno>) -> Entry {
    const NAME: &str = "buffered write";
    let times = match times {
        Ok(times) => times,
        Err(errno) => {
            let reason = "a write into the page cache failed";
            return Entry::cannot_run(NAME, errno.desc(), reason, "sudo dmesg | tail");
        }
    };
    let (p50, p99) = (times.percentile(50), times.percentile(99));
    let per_second = BUFFERED_SIZE.saturating_mul(1_000_000_000) / p50.max(1);
    let value = format!(
        "64 KiB in {}, p99 {}, {}/s",
        duration(p50),
        duration(p99),
        bytes(per_second)
    );
    let reason = if no_wait.is_ok() {
        format!("a ring writes here in place ({WRITE_PAGE})")
    } else {
        format!(
            "a ring hands every buffered write here to a worker thread, so appendMode=auto writes groups up to \
             64 KiB (synchronous flush: 1 MiB) itself ({WRITE_PAGE})"
        )
    };
    let mut entry = Entry::ok(NAME, value, reason);
    entry.numbers = BTreeMap::from([
        ("p50Ns".to_owned(), p50),
        ("p99Ns".to_owned(), p99),
        ("count".to_owned(), times.count() as u64),
    ]);
    entry
}

fn direct(smallest: Result<u64, Errno>, alignment: Option<(u32, u32)>, sync: bool) -> Entry {
    const NAME: &str = "direct I/O";
    let said = match alignment {
        Some((0, _)) => "statx: none".to_owned(),
        Some((memory, offset)) => {
            format!("statx: memory to {memory} B, offsets to {offset} B")
        }
        None => "statx does not say".to_owned(),
    };
    match smallest {
        Ok(size) => {
            let mut entry = Entry::ok(
                NAME,
                format!("from {size} B on; {said}"),
                format!(
                    "zeros are prepared past the page cache for synchronous flush ({PREPARE_PAGE})"
                ),
            );
            entry.numbers.insert("smallestBytes".to_owned(), size);
            entry
        }
        Err(errno) => {
            let value = format!("refused ({errno:?}); {said}");
            let reason = format!(
                "zeros for synchronous flush go through the page cache, and appends wait behind them \
                 ({PREPARE_PAGE})"
            );
            if sync {
                Entry::advice(NAME, value, reason, ELSEWHERE)
            } else {
                let reason = format!("{reason}; asynchronous flush does not need it");
                Entry::ok(NAME, value, reason)
            }
        }
    }
}

fn flags(trial: &DiskTrial) -> Entry {
    let word = |name: &str, taken: Result<(), Errno>| match taken {
        Ok(()) => format!("{name} yes"),
        Err(_) => format!("{name} no"),
    };
    let value = [
        word("RWF_DSYNC", trial.own_sync),
        word("RWF_NOWAIT", trial.no_wait),
        word("RWF_DONTCACHE", trial.uncached),
    ];
    let reason = format!(
        "a write that is its own sync, one that must not wait, one that leaves the page cache ({WRITE_PAGE})"
    );
    Entry::ok("write flags", value.join(", "), reason)
}

fn reserving(
    reserve: Result<u64, Errno>,
    zero_range: Result<u64, Errno>,
    write_zeroes: Result<u64, Errno>,
    sync: bool,
) -> Entry {
    const NAME: &str = "fallocate";
    let word = |name: &str, took: Result<u64, Errno>| match took {
        Ok(ns) => format!("{name} {}", duration(ns)),
        Err(errno) => format!("{name} no ({errno:?})"),
    };
    let value = [
        word("2 MiB reserved in", reserve),
        word("ZERO_RANGE", zero_range),
        word("WRITE_ZEROES", write_zeroes),
    ]
    .join(", ")
    .replace("reserved in no", "reserved: no");
    match zero_range {
        _ if sync => Entry::ok(
            NAME,
            value,
            format!(
                "under synchronous flush zeros are written ahead of the log, so that a sync finds its blocks; every \
                 byte goes to the disk twice ({PREPARE_PAGE})"
            ),
        ),
        Ok(_) => Entry::ok(
            NAME,
            value,
            format!("segments are prepared without writing them ({PREPARE_PAGE})"),
        ),
        Err(_) => {
            let reason = format!(
                "without ZERO_RANGE segments are prepared by writing zeros: every byte goes to the disk twice \
                 ({PREPARE_PAGE})"
            );
            Entry::advice(NAME, value, reason, ELSEWHERE)
        }
    }
}

/// In the names of numbers.
const fn word(way: SyncWay) -> &'static str {
    match way {
        SyncWay::Zeroed => "zeroed",
        SyncWay::ZeroedOwnSync => "dsync",
        SyncWay::ZeroedDirect => "direct",
        SyncWay::ZeroedDirectOwnSync => "directDsync",
        SyncWay::Unwritten => "unwritten",
        SyncWay::Growing => "growing",
    }
}

/// For people.
const fn shown(way: SyncWay) -> &'static str {
    match way {
        SyncWay::ZeroedDirectOwnSync => "direct + RWF_DSYNC",
        other => word(other),
    }
}

fn synced(
    name: &'static str,
    size: u64,
    ways: &[(SyncWay, &Result<Times, Errno>)],
    sync: bool,
) -> Entry {
    let mut numbers = BTreeMap::new();
    let mut words = Vec::new();
    for (way, times) in ways {
        let word = word(*way);
        let shown = shown(*way);
        match times {
            Ok(times) => {
                let (p50, p99) = (times.percentile(50), times.percentile(99));
                words.push(format!("{shown} {} / {}", duration(p50), duration(p99)));
                numbers.insert(format!("{word}P50Ns"), p50);
                numbers.insert(format!("{word}P99Ns"), p99);
                numbers.insert(format!("{word}Count"), times.count() as u64);
            }
            Err(errno) => words.push(format!("{shown} no ({errno:?})")),
        }
    }
    let value = words.join(", ");
    let p50 = |way: SyncWay| numbers.get(&format!("{}P50Ns", word(way))).copied();
    let (Some(zeroed), Some(_)) = (p50(SyncWay::Zeroed), p50(SyncWay::Growing)) else {
        let reason = "write and fdatasync failed there";
        return Entry::cannot_run(name, value, reason, "sudo dmesg | tail");
    };
    let fastest = SyncWay::ALL
        .into_iter()
        .filter_map(|way| Some((p50(way)?, shown(way))))
        .min()
        .map_or("none", |(_, word)| word);
    let what = format!("write + fdatasync, p50 / p99; fastest: {fastest}");
    let mut entry = if slow_ns(size) < zeroed {
        let reason = format!(
            "{what}. With synchronous flush each acknowledgement waits that long{} ({WRITE_PAGE})",
            if sync {
                ""
            } else {
                "; asynchronous flush does not wait"
            }
        );
        Entry::advice(
            name,
            value,
            reason,
            "# put the store on an SSD, best one whose cache has its own power",
        )
    } else {
        Entry::ok(name, value, format!("{what} ({PREPARE_PAGE})"))
    };
    entry.numbers = numbers;
    entry
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn times(ns: u64) -> Result<Times, Errno> {
        Ok(Times::of(vec![ns; 4]).unwrap())
    }

    #[test]
    fn a_sync_is_fast_slow_or_fails() {
        let judge = |zeroed: &Result<Times, Errno>, growing: &Result<Times, Errno>| {
            let ways = [(SyncWay::Zeroed, zeroed), (SyncWay::Growing, growing)];
            synced("sync of 4 KiB", 4096, &ways, true)
        };
        let fast = judge(&times(140_000), &times(200_000));
        assert_eq!(fast.verdict, Verdict::Ok);
        assert_eq!(
            fast.value,
            "zeroed 140 µs / 140 µs, growing 200 µs / 200 µs"
        );
        assert!(fast.reason.contains("fastest: zeroed"), "{fast:?}");
        assert_eq!(fast.numbers["growingP50Ns"], 200_000);
        assert_eq!(
            judge(&times(12_000_000), &times(1)).verdict,
            Verdict::Advice
        );
        let large = times(12_000_000);
        let ways = [(SyncWay::Zeroed, &large), (SyncWay::Growing, &large)];
        let of_large = synced("sync of 1 MiB", 1 << 20, &ways, true);
        assert_eq!(of_large.verdict, Verdict::Ok);
        let failing = judge(&Err(Errno::EIO), &times(1));
        assert_eq!(failing.verdict, Verdict::CannotRun);
        let direct = Err(Errno::EINVAL);
        let ways = [
            (SyncWay::Zeroed, &times(1)),
            (SyncWay::ZeroedDirect, &direct),
            (SyncWay::Growing, &times(2)),
        ];
        assert_eq!(
            synced("sync of 4 KiB", 4096, &ways, true).verdict,
            Verdict::Ok
        );
    }

    #[test]
    fn a_buffered_write_is_taken_or_fails() {
        let here = buffered(&times(16_000), Ok(()));
        assert_eq!(here.verdict, Verdict::Ok);
        assert!(here.reason.contains("in place"));
        assert!(here.value.contains("3.8 GiB/s"), "{}", here.value);
        let by_worker = buffered(&times(16_000), Err(Errno::EOPNOTSUPP));
        assert!(by_worker.reason.contains("worker"));
        let failing = buffered(&Err(Errno::EIO), Ok(()));
        assert_eq!(failing.verdict, Verdict::CannotRun);
    }

    #[test]
    fn direct_writes_matter_to_synchronous_flush() {
        let refused = Err(Errno::EINVAL);
        assert_eq!(direct(Ok(512), Some((4, 512)), true).verdict, Verdict::Ok);
        assert_eq!(direct(refused, Some((0, 0)), true).verdict, Verdict::Advice);
        assert_eq!(direct(refused, None, false).verdict, Verdict::Ok);
    }

    #[test]
    fn reserving_works_or_zeros_are_written() {
        let refused = Err(Errno::EOPNOTSUPP);
        let good = reserving(Ok(10_000), Ok(20_000), refused, false);
        assert_eq!(good.verdict, Verdict::Ok);
        assert!(
            good.value
                .starts_with("2 MiB reserved in 10 µs, ZERO_RANGE 20 µs")
        );
        let sync = reserving(Ok(1), refused, refused, true);
        assert_eq!(sync.verdict, Verdict::Ok);
        assert!(
            sync.reason.contains("zeros are written ahead"),
            "{}",
            sync.reason
        );
        let without = reserving(Ok(1), refused, refused, false);
        assert_eq!(without.verdict, Verdict::Advice);
    }
}

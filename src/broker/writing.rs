//! How logs are written and flushed: what was asked for, or what the store's own disk does fastest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::start::not_had;
use crate::base::{Feature, ShardId};
use crate::config::{AppendMode, FlushMethod, FlushMode, Settings, StartError};
use crate::io::{Fill, PAGE_SIZE, SetupError, SyncWay, Times, ring_writes_at_once, time_sync_ways};
use crate::log::{Append, FlushPolicy, Options};

/// Ways to make a group durable, in the order in which they are tried. These and the numbers below, down to the
/// ratios: kernel-notes/write-and-sync.md.
const WAYS: [SyncWay; 3] = [
    SyncWay::Zeroed,
    SyncWay::ZeroedOwnSync,
    SyncWay::ZeroedDirectOwnSync,
];
/// Bytes of the groups that are timed: a lone message, and what many producers send meanwhile.
const SIZES: [u64; 2] = [4 << 10, 64 << 10];
/// A start may take this much longer for it.
const BUDGET: Duration = Duration::from_millis(60);
/// A disk that does not answer for so long is not chosen for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What else runs on the machine can only make a write slower: the quick ones tell what the disk does.
const QUICK: usize = 10;

/// Another way than fdatasync must be so much faster: less is noise, and then the way is preferred in which
/// an error is told by a call of its own.
const OWN_SYNC_RATIO: f64 = 0.85;
/// Past the page cache even more: consumers then read each message from the disk.
const DIRECT_RATIO: f64 = 0.6;

/// Nobody syncs for producers, but what may have to be wiped after a crash stays bounded by this
/// (kernel-notes/preallocation.md).
const NONE_HORIZON: u64 = 1 << 30;
/// Reserving costs next to nothing, but its sync takes along what was written meanwhile
/// (kernel-notes/preallocation.md).
const NONE_STEP: u64 = 256 << 20;

/// The options of all shards' logs. What was measured and chosen is logged once.
///
/// # Errors
/// Something was asked for that this disk cannot, or that does not fit the segments.
pub(super) fn options(settings: &Settings) -> Result<Options, StartError> {
    let folder = existing(&settings.store.paths(Some(ShardId(0))).commit_log);
    let flush = settings.flush;
    let mut method = flush.method;
    if flush.mode == FlushMode::Sync && method == FlushMethod::Auto {
        let may_be_direct = !settings.without.has(Feature::DirectIo)
            && settings.store.segment_size.is_multiple_of(PAGE_SIZE);
        method = measured(&folder, may_be_direct);
    }
    let policy = match (flush.mode, method) {
        (FlushMode::Sync, FlushMethod::Dsync | FlushMethod::Direct) => FlushPolicy::DurableWrites,
        (FlushMode::Sync, _) => FlushPolicy::GroupCommit,
        (FlushMode::Async, _) => FlushPolicy::Interval {
            age_ns_max: flush.interval_ms * 1_000_000,
            unsynced_bytes_max: flush.bytes,
        },
        (FlushMode::None, _) => FlushPolicy::Interval {
            age_ns_max: u64::MAX,
            unsynced_bytes_max: NONE_HORIZON / 2,
        },
    };
    let mut options = Options::new(settings.store.segment_size, policy);
    if flush.mode == FlushMode::None {
        options.horizon_ahead_max = NONE_HORIZON;
        options.prepare_ahead_max = NONE_HORIZON;
        options.write_back_stride = u64::MAX;
        options.prepare_step = NONE_STEP.min(options.segment_size);
    }
    let direct = flush.mode == FlushMode::Sync && method == FlushMethod::Direct;
    options.append = match flush.append {
        _ if direct => Append::Direct,
        AppendMode::Direct => Append::Direct,
        AppendMode::Ring => Append::Ring,
        // A write that is its own sync would hold up the shard for as long as the disk takes.
        AppendMode::Inline if policy == FlushPolicy::DurableWrites => Append::Ring,
        AppendMode::Inline => Append::InPlace,
        AppendMode::Auto if policy == FlushPolicy::DurableWrites => Append::Ring,
        AppendMode::Auto if ring_writes_at_once(&folder) => Append::Ring,
        AppendMode::Auto => Append::Mixed,
    };
    if let Some(text) = overruled(settings, method, options.append) {
        tracing::warn!("{text}");
    }
    if settings.without.has(Feature::DirectIo) && options.fill == Fill::DirectZeros {
        options.fill = Fill::Zeros;
    }
    if options.append == Append::Direct {
        check_direct(settings, &folder)?;
    }
    tracing::info!(
        flush = name_of(flush.mode, method),
        append = ?options.append,
        fill = ?options.fill,
        "how logs are written"
    );
    Ok(options)
}

/// That the flush method leaves no choice of how to append, where another way was asked for; and how to have that.
fn overruled(settings: &Settings, method: FlushMethod, used: Append) -> Option<String> {
    let asked = match settings.flush.append {
        AppendMode::Auto => return None,
        AppendMode::Ring => Append::Ring,
        AppendMode::Inline => Append::InPlace,
        AppendMode::Direct => Append::Direct,
    };
    if asked == used {
        return None;
    }
    let used = match used {
        Append::Ring => "ring",
        Append::InPlace => "inline",
        Append::Direct => "direct",
        Append::Mixed => "auto",
    };
    let of_disk = match (settings.flush.method, method) {
        (FlushMethod::Auto, FlushMethod::Dsync) => ", which is dsync on this disk",
        (FlushMethod::Auto, FlushMethod::Direct) => ", which is direct on this disk",
        _ => "",
    };
    Some(format!(
        "{} has no meaning with {}{of_disk}: {used} is used; set flushMethod=fdatasync to append as asked, or \
         appendMode=auto to leave it to the method",
        settings.quote("appendMode"),
        settings.quote("flushMethod")
    ))
}

const fn name_of(mode: FlushMode, method: FlushMethod) -> &'static str {
    match (mode, method) {
        (FlushMode::Async, _) => "asynchronous, fdatasync",
        (FlushMode::None, _) => "left to the kernel",
        (FlushMode::Sync, FlushMethod::Dsync) => "synchronous, RWF_DSYNC",
        (FlushMode::Sync, FlushMethod::Direct) => "synchronous, O_DIRECT and RWF_DSYNC",
        (FlushMode::Sync, _) => "synchronous, fdatasync",
    }
}

/// The folder itself or the nearest one above it that is there: of the same disk, as stores are laid out.
pub(super) fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|folder| folder.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn measured(folder: &Path, may_be_direct: bool) -> FlushMethod {
    let ways = if may_be_direct { &WAYS[..] } else { &WAYS[..2] };
    let times = match time_sync_ways(folder, ways, &SIZES, BUDGET, PATIENCE) {
        Ok(times) => times,
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "the disk could not be timed: fdatasync is used");
            return FlushMethod::Fdatasync;
        }
    };
    let quick_us = |way: SyncWay| -> Option<[f64; 2]> {
        let of = |size: u64| {
            let (_, _, times) = times
                .iter()
                .find(|(timed, it, _)| *timed == size && *it == way)?;
            let times: &Times = times.as_ref().ok()?;
            Some(times.percentile(QUICK) as f64 / 1000.0)
        };
        Some([of(SIZES[0])?, of(SIZES[1])?])
    };
    let all = WAYS.map(quick_us);
    let method = choose(all, may_be_direct);
    let shown = |us: Option<[f64; 2]>| {
        us.map_or_else(
            || "cannot".to_owned(),
            |[small, large]| format!("{small:.0} and {large:.0} us"),
        )
    };
    tracing::info!(
        fdatasync = shown(all[0]),
        dsync = shown(all[1]),
        direct = shown(all[2]),
        chosen = ?method,
        "synced writes of 4 and 64 KiB on this disk, one in ten is faster"
    );
    method
}

/// The fastest by the sum over both sizes, if it is so much faster that it is worth what it costs elsewhere.
fn choose(quick_us: [Option<[f64; 2]>; 3], may_be_direct: bool) -> FlushMethod {
    let [sync, own, direct] = quick_us.map(|us| us.map(|[small, large]| small + large));
    let Some(sync) = sync else {
        return FlushMethod::Fdatasync;
    };
    let own_wins = own.is_some_and(|own| own <= OWN_SYNC_RATIO * sync);
    let best = own.filter(|_| own_wins).unwrap_or(sync);
    if may_be_direct && direct.is_some_and(|direct| direct <= DIRECT_RATIO * best) {
        FlushMethod::Direct
    } else if own_wins {
        FlushMethod::Dsync
    } else {
        FlushMethod::Fdatasync
    }
}

/// Direct writes need whole pages and a file system that takes them.
fn check_direct(settings: &Settings, folder: &Path) -> Result<(), StartError> {
    let asked = if settings.flush.append == AppendMode::Direct {
        "appendMode=direct"
    } else {
        "flushMethod=direct"
    };
    let size = settings.store.segment_size;
    if !size.is_multiple_of(PAGE_SIZE) {
        return Err(StartError::new(
            "use",
            asked,
            format!("mappedFileSizeCommitLog={size} is not a multiple of {PAGE_SIZE}"),
            "choose such a size for a new store, or another way to write",
        ));
    }
    if settings.without.has(Feature::DirectIo) {
        return Err(StartError::new(
            "use",
            asked,
            "direct-io is masked (--without, kernelWithout)",
            "take direct-io out of the mask, or choose another way to write",
        ));
    }
    let ways = &[SyncWay::ZeroedDirect];
    let tried = time_sync_ways(folder, ways, &SIZES, Duration::ZERO, PATIENCE);
    let errno = match &tried {
        Ok(times) => times.iter().find_map(|(_, _, times)| times.as_ref().err()),
        Err(_) => None,
    };
    let cause = match (&tried, errno) {
        (Ok(_), None) => return Ok(()),
        (Ok(_), Some(errno)) => format!("a direct write in {} failed: {errno}", folder.display()),
        (Err(error), _) => format!("{}: {error}", folder.display()),
    };
    let error = SetupError {
        doing: format!("use {asked}"),
        cause,
        remedy: "put the store on a file system with direct I/O (ext4, XFS), or choose another way to write".to_owned(),
    };
    Err(not_had(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Host, load};

    #[test]
    fn an_append_mode_that_the_flush_method_overrules_is_told() {
        let told = |asked: &str, method: &str, measured, used| {
            let flag = |flag: &str, key: &str, value: &str| Flag {
                flag: flag.to_owned(),
                key: key.to_owned(),
                value: value.to_owned(),
            };
            let flags = [
                flag("--append", "appendMode", asked),
                flag("--flush-method", "flushMethod", method),
            ];
            let host = Host {
                name: "h".to_owned(),
                addresses: vec![[127, 0, 0, 1].into()],
                cpu_count: 1,
                folder: "/f".into(),
            };
            let settings = load(None, &flags, &host).expect("they go together");
            overruled(&settings, measured, used).unwrap_or_default()
        };
        let dsync = told("inline", "dsync", FlushMethod::Dsync, Append::Ring);
        assert_eq!(
            dsync,
            "appendMode=inline (--append) has no meaning with flushMethod=dsync (--flush-method): ring is used; set \
             flushMethod=fdatasync to append as asked, or appendMode=auto to leave it to the method"
        );
        let direct = told("ring", "direct", FlushMethod::Direct, Append::Direct);
        assert!(direct.contains("flushMethod=direct (--flush-method): direct is used"));
        let measured = told("ring", "auto", FlushMethod::Direct, Append::Direct);
        assert!(
            measured.contains("which is direct on this disk: direct is used"),
            "{measured}"
        );
        for (asked, method, used) in [
            ("auto", FlushMethod::Direct, Append::Direct),
            ("auto", FlushMethod::Fdatasync, Append::Mixed),
            ("inline", FlushMethod::Fdatasync, Append::InPlace),
            ("ring", FlushMethod::Dsync, Append::Ring),
            ("direct", FlushMethod::Dsync, Append::Direct),
        ] {
            let word = told(asked, "auto", method, used);
            assert_eq!(word, "", "{asked} {method:?}");
        }
    }

    #[test]
    fn another_way_than_fdatasync_must_be_clearly_faster() {
        let of = |us: f64| Some([us, us * 2.0]);
        let cases = [
            ([of(100.0), of(95.0), of(90.0)], FlushMethod::Fdatasync),
            ([of(100.0), of(80.0), of(79.0)], FlushMethod::Dsync),
            ([of(100.0), of(95.0), of(55.0)], FlushMethod::Direct),
            // Direct must be that much faster than the best of the others.
            ([of(100.0), of(70.0), of(55.0)], FlushMethod::Dsync),
            ([of(100.0), None, None], FlushMethod::Fdatasync),
            ([None, of(10.0), of(10.0)], FlushMethod::Fdatasync),
        ];
        for (medians, want) in cases {
            assert_eq!(choose(medians, true), want, "{medians:?}");
        }
        let odd_segments = choose([of(100.0), of(95.0), of(55.0)], false);
        assert_eq!(odd_segments, FlushMethod::Fdatasync);
    }
}

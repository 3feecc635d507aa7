//! The kernel: its version, whether it lets this process have an io_uring, and what that ring can do.

use std::fmt::Write;

use super::limits::{MORE_FILES, MORE_LOCKED};
use super::report::{Entry, NOT_SEEN};
use crate::base::Feature;
use crate::io::{Errno, Found, RingNeed, RingTrial, Tree, Unseen};

const PAGE: &str = "kernel-notes/ring-setup.md";

/// What was found out about rings.
struct Ring<'host> {
    tried: &'host Result<RingTrial, Errno>,
    /// `kernel.io_uring_disabled`, since 6.6.
    disabled: Option<String>,
    /// `Seccomp:` of this process: 2 is a filter.
    seccomp: Option<String>,
}

pub(super) fn check(tree: &Tree, tried: &Result<RingTrial, Errno>, shards: usize) -> Vec<Entry> {
    let status = tree.text("/proc/self/status").unwrap_or_default();
    let ring = Ring {
        tried,
        disabled: tree.text("/proc/sys/kernel/io_uring_disabled").ok(),
        seccomp: field(&status, "Seccomp:").map(str::to_owned),
    };
    let mut entries = vec![
        release(tree.text("/proc/sys/kernel/osrelease").as_deref()),
        allowed(&ring),
    ];
    if let Ok(trial) = tried {
        let running = tree.text("/proc/sys/kernel/osrelease").ok();
        let running = running.as_deref().and_then(version);
        entries.push(features(&trial.found, running));
        entries.push(rings(trial, shards));
    }
    entries
}

/// The value of a line of `/proc/self/status`.
pub(super) fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line[name.len()..].trim())
}

/// Major and minor of `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn release(release: Result<&str, &Unseen>) -> Entry {
    const NAME: &str = "kernel";
    let release = match release {
        Ok(release) => release,
        Err(why) => return Entry::unseen(NAME, why),
    };
    let Some(version) = version(release) else {
        return Entry::ok(
            NAME,
            release,
            "a version that cannot be read; what the ring can do is below",
        );
    };
    let upgrade = "# boot Linux 6.1 or newer (uname -r says what runs)";
    if version < (5, 19) {
        let reason = format!("the ring needs Linux 5.19 or newer ({PAGE})");
        Entry::cannot_run(NAME, release, reason, upgrade)
    } else if version < (6, 1) {
        let reason = format!("from 6.1 on a ring batches its work (DEFER_TASKRUN, {PAGE})");
        Entry::advice(NAME, release, reason, upgrade)
    } else if version < (6, 5) {
        let reason = "from 6.5 on one call says what is in memory (kernel-notes/page-cache-and-cold-reads.md)";
        Entry::ok(NAME, release, reason)
    } else {
        Entry::ok(
            NAME,
            release,
            format!("new enough; what newer ones add is told below ({PAGE})"),
        )
    }
}

fn allowed(ring: &Ring<'_>) -> Entry {
    const NAME: &str = "io_uring";
    let errno = match ring.tried {
        Ok(_) => return Entry::ok(NAME, "allowed", format!("a ring was opened ({PAGE})")),
        Err(errno) => *errno,
    };
    let disabled = ring.disabled.as_deref();
    let (reason, fix) = match errno {
        Errno::EPERM | Errno::EACCES if matches!(disabled, Some("1" | "2")) => (
            format!(
                "the sysctl kernel.io_uring_disabled is {}",
                disabled.unwrap_or_default()
            ),
            "sudo sysctl -w kernel.io_uring_disabled=0",
        ),
        Errno::EPERM | Errno::EACCES => {
            let by = match ring.seccomp.as_deref() {
                Some("2") => "a seccomp filter of this process (as Docker and containerd set it)",
                _ => "a security module or a limit of this container",
            };
            (
                format!("{by} forbids io_uring_setup"),
                "docker run --security-opt seccomp=unconfined …  # or the default profile plus io_uring_setup, \
                 io_uring_enter, io_uring_register",
            )
        }
        Errno::ENOSYS => (
            "this kernel has no io_uring, or it is hidden".to_owned(),
            "# boot Linux 6.1 or newer with CONFIG_IO_URING; gVisor and WSL 1 have none",
        ),
        Errno::ENOMEM => (
            "no memory for a ring: a limit of locked memory or of the memory cgroup".to_owned(),
            MORE_LOCKED,
        ),
        Errno::EMFILE | Errno::ENFILE => ("no file descriptor is left".to_owned(), MORE_FILES),
        _ => (
            "the kernel refuses a plain ring".to_owned(),
            "sudo dmesg | tail",
        ),
    };
    Entry::cannot_run(
        NAME,
        format!("refused: {errno:?}"),
        format!("{reason} ({PAGE})"),
        fix,
    )
}

/// Whether each shard gets its ring.
fn rings(trial: &RingTrial, shards: usize) -> Entry {
    const NAME: &str = "io_uring limits";
    let workers = trial
        .workers
        .map_or_else(String::new, |(blocking, endless)| {
            format!("; {blocking} and {endless} worker threads for each")
        });
    let opened = trial.shard_rings;
    let value = format!("{opened} of {shards} rings of a shard{workers}");
    let Some(errno) = trial.refused else {
        let reason = format!("one for each shard was opened with its buffers ({PAGE})");
        return Entry::ok(NAME, value, reason);
    };
    let reason = format!("the next one was refused: {errno:?} ({PAGE})");
    let fix = match errno {
        Errno::EMFILE | Errno::ENFILE => MORE_FILES,
        _ => MORE_LOCKED,
    };
    // The broker starts with all of its shards or not at all.
    let reason = match opened {
        0 => reason,
        _ => format!("{reason}; until then a new store can be served with --shards {opened}"),
    };
    Entry::cannot_run(NAME, value, reason, fix)
}

/// What stands in where a feature is missing, if that is worth a newer kernel.
const fn stands_in(feature: Feature) -> Option<&'static str> {
    match feature {
        Feature::DeferTaskrun => {
            Some("COOP_TASKRUN stands in, and its work comes in the middle of other calls")
        }
        Feature::MultishotReceive => Some("each receive is armed again"),
        _ => None,
    }
}

fn features(found: &Found, running: Option<(u32, u32)>) -> Entry {
    const NAME: &str = "io_uring features";
    let needs = RingNeed::ALL.into_iter();
    let of_ring = Feature::OF_RING;
    let has: Vec<_> = needs
        .filter(|need| !found.lacks.contains(need))
        .map(|need| need.name().to_owned())
        .chain(
            of_ring
                .iter()
                .filter(|it| found.features.has(**it))
                .copied()
                .map(named),
        )
        .chain(found.unused.iter().map(|name| (*name).to_owned()))
        .collect();
    let value = if has.is_empty() {
        NOT_SEEN.to_owned()
    } else {
        has.join(", ")
    };
    if !found.lacks.is_empty() {
        let lacks: Vec<_> = found.lacks.iter().map(|need| need.name()).collect();
        let reason = format!("without {} nothing is served ({PAGE})", lacks.join(", "));
        return Entry::cannot_run(NAME, value, reason, "# boot Linux 6.1 or newer");
    }
    let missing: Vec<_> = of_ring
        .into_iter()
        .filter(|feature| !found.features.has(*feature))
        .collect();
    // Who has booted this kernel cannot have them by booting another.
    let (refused, newer): (Vec<_>, Vec<_>) = missing
        .iter()
        .copied()
        .partition(|feature| running.is_some() && version(feature.since()) <= running);
    let slower: Vec<_> = missing
        .iter()
        .filter_map(|feature| {
            Some(format!(
                "{} is missing: {}",
                named(*feature),
                stands_in(*feature)?
            ))
        })
        .collect();
    if !slower.is_empty() {
        if refused.iter().any(|feature| stands_in(*feature).is_some()) {
            let reason = format!("{}; {REFUSED}", slower.join("; "));
            return Entry::advice(NAME, value, format!("{reason} ({PAGE})"), MORE_LOCKED);
        }
        let reason = format!("{} ({PAGE})", slower.join("; "));
        return Entry::advice(NAME, value, reason, "# boot Linux 6.1 or newer");
    }
    let names = |features: Vec<Feature>| {
        let names: Vec<_> = features.into_iter().map(named).collect();
        names.join(", ")
    };
    let mut reason = "tried on a ring".to_owned();
    if missing.is_empty() {
        reason.push_str("; nothing is missing");
    }
    if !newer.is_empty() {
        let _ = write!(reason, "; newer kernels add {}", names(newer));
    }
    if !refused.is_empty() {
        let _ = write!(reason, "; {}: {REFUSED}", names(refused));
    }
    Entry::ok(NAME, value, format!("{reason} ({PAGE})"))
}

const REFUSED: &str = "refused although this kernel has it: a limit of locked memory, or a filter";

fn named(feature: Feature) -> String {
    format!("{} ({})", feature.name(), feature.since())
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use crate::base::Features;

    #[test]
    fn the_kernel_is_old_or_new_enough() {
        for (text, verdict) in [
            ("5.15.0-91-generic", Verdict::CannotRun),
            ("5.19.0", Verdict::Advice),
            ("6.1.0-18-amd64", Verdict::Ok),
            ("6.18.44", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("strange", Verdict::Ok),
        ] {
            assert_eq!(release(Ok(text)).verdict, verdict, "{text}");
        }
    }

    fn found(lacks: Vec<RingNeed>, features: Features) -> Found {
        Found {
            lacks,
            features,
            unused: Vec::new(),
        }
    }

    fn trial(shard_rings: usize, refused: Option<Errno>) -> RingTrial {
        RingTrial {
            found: found(Vec::new(), Features::NONE),
            shard_rings,
            refused,
            workers: Some((16, 256)),
        }
    }

    #[test]
    fn every_shard_gets_a_ring_or_some_or_none() {
        let judge = |opened, refused| rings(&trial(opened, refused), 2);
        assert_eq!(judge(2, None).verdict, Verdict::Ok);
        let one = judge(1, Some(Errno::ENOMEM));
        assert_eq!(one.verdict, Verdict::CannotRun, "all shards start, or none");
        assert!(one.reason.contains("--shards 1"), "{one:?}");
        let none = judge(0, Some(Errno::EMFILE));
        assert_eq!(none.verdict, Verdict::CannotRun);
        assert!(none.fix.unwrap().contains("--nofile"));
    }

    fn refused(errno: Errno, disabled: Option<&str>, seccomp: Option<&str>) -> Entry {
        allowed(&Ring {
            tried: &Err(errno),
            disabled: disabled.map(str::to_owned),
            seccomp: seccomp.map(str::to_owned),
        })
    }

    #[test]
    fn a_refused_ring_names_who_refused_it() {
        let by_sysctl = refused(Errno::EPERM, Some("2"), Some("2"));
        assert_eq!(by_sysctl.verdict, Verdict::CannotRun);
        assert_eq!(
            by_sysctl.fix.as_deref(),
            Some("sudo sysctl -w kernel.io_uring_disabled=0")
        );
        let by_seccomp = refused(Errno::EPERM, Some("0"), Some("2"));
        assert!(by_seccomp.reason.contains("seccomp"), "{by_seccomp:?}");
        assert!(
            refused(Errno::EPERM, None, Some("0"))
                .reason
                .contains("security module")
        );
        assert!(
            refused(Errno::ENOSYS, None, None)
                .reason
                .contains("no io_uring")
        );
        assert!(
            refused(Errno::ENOMEM, None, None)
                .fix
                .unwrap()
                .contains("--memlock")
        );
        let had = Ok(trial(2, None));
        let ring = Ring {
            tried: &had,
            disabled: None,
            seccomp: None,
        };
        assert_eq!(allowed(&ring).verdict, Verdict::Ok);
    }

    #[test]
    fn what_a_ring_lacks_is_judged_by_need() {
        let without = |lacks: &[Feature]| {
            let lacks: Features = lacks.iter().copied().collect();
            features(
                &found(Vec::new(), Features::all().without(lacks)),
                Some((6, 0)),
            )
        };
        assert_eq!(without(&[]).verdict, Verdict::Ok);
        let newer = without(&[Feature::NoIowait]);
        assert_eq!(newer.verdict, Verdict::Ok);
        assert!(newer.reason.contains("no-iowait (6.15)"), "{newer:?}");
        let old = without(&[Feature::DeferTaskrun, Feature::MultishotReceive]);
        assert_eq!(old.verdict, Verdict::Advice);
        assert!(old.reason.contains("multishot-receive"), "{old:?}");
        assert!(
            old.reason.contains("although this kernel has it"),
            "{old:?}"
        );
        let old = without(&[Feature::DeferTaskrun]);
        assert!(old.fix.unwrap().contains("6.1 or newer"));
        let refused = without(&[Feature::RegisteredRing, Feature::NoIowait]);
        assert_eq!(refused.verdict, Verdict::Ok);
        let said = "newer kernels add no-iowait (6.15); registered-ring (5.18): refused although";
        assert!(refused.reason.contains(said), "{refused:?}");
        let too_old = features(&found(vec![RingNeed::BufferRings], Features::all()), None);
        assert_eq!(too_old.verdict, Verdict::CannotRun);
        assert!(too_old.reason.contains("buffer rings"), "{too_old:?}");
        let nothing = features(&found(RingNeed::ALL.to_vec(), Features::NONE), None);
        assert_eq!(nothing.verdict, Verdict::CannotRun);
        assert_eq!(nothing.value, NOT_SEEN);
    }
}

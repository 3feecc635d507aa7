//! The limits of this process: open files and locked memory.

use super::kernel::field;
use super::report::{self, Entry};
use crate::io::{Errno, Limit, Tree, Unseen};

/// Each connection takes one, and so does each file of a queue that is in use.
const FILES_WANTED: u64 = 65_536;

/// A shard's ring with its buffers takes 204 KiB, and more than as much again is room for what `--egress send-zc` sends
/// (kernel-notes/registered-resources.md).
const LOCKED_PER_SHARD: u64 = 512 << 10;

/// More of both than any shard here wants.
pub(super) const MORE_LOCKED: &str = "sudo prlimit --pid $$ --memlock=67108864:67108864  # LimitMEMLOCK=64M in a unit of \
     systemd, docker run --ulimit memlock=67108864";

/// The broker raises its own limit as far as it may: what is short is the hard one.
pub(super) const MORE_FILES: &str = "sudo prlimit --pid $$ --nofile=1048576:1048576  # LimitNOFILE=1048576 in a unit of \
     systemd, docker run --ulimit nofile=1048576";

const PAGE: &str = "kernel-notes/registered-resources.md";

/// Bit of the capability that knows no limit of locked memory.
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn check(tree: &Tree, limits: Result<(Limit, Limit), Errno>, shards: u32) -> Vec<Entry> {
    let (files, locked) = match limits {
        Ok(limits) => limits,
        Err(errno) => {
            let why = Unseen::Other("the limits of this process".into(), errno.to_string());
            return vec![
                Entry::unseen("open files", &why),
                Entry::unseen("locked memory", &why),
            ];
        }
    };
    let status = tree.text("/proc/self/status").unwrap_or_default();
    let capabilities = field(&status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let is_privileged = capabilities.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1);
    let of_host = tree.text("/proc/sys/fs/file-max").ok();
    let of_host = of_host.and_then(|text| text.parse().ok());
    vec![
        open_files(files, of_host),
        locked_memory(locked, is_privileged, shards),
    ]
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX {
        "unlimited".to_owned()
    } else {
        limit.to_string()
    }
}

fn open_files(limit: Limit, of_host: Option<u64>) -> Entry {
    const NAME: &str = "open files";
    let value = format!("{} now, up to {}", shown(limit.soft), shown(limit.hard));
    if let Some(of_host) = of_host
        && of_host < FILES_WANTED
    {
        let reason =
            format!("the whole host may open {of_host} files; each connection and queue takes one");
        return Entry::advice(NAME, value, reason, "sudo sysctl -w fs.file-max=1048576");
    }
    if limit.hard < FILES_WANTED {
        let reason = format!(
            "each connection and each file of a queue in use takes one; the broker raises its limit itself, \
             but only to {}",
            limit.hard
        );
        return Entry::advice(NAME, value, reason, MORE_FILES);
    }
    Entry::ok(
        NAME,
        value,
        "the broker raises the first to the second when it starts",
    )
}

fn locked_memory(limit: Limit, is_privileged: bool, shards: u32) -> Entry {
    const NAME: &str = "locked memory";
    if is_privileged {
        let reason = "this user may lock memory without a limit (CAP_IPC_LOCK); an ordinary one has this limit";
        return Entry::ok(NAME, bytes_or_unlimited(limit.soft), reason);
    }
    let value = bytes_or_unlimited(limit.soft);
    if limit.soft < u64::from(shards) * LOCKED_PER_SHARD {
        let reason = format!(
            "a ring with its buffers takes some 204 KiB of it, for each of {shards} shards, and pages that \
             --egress send-zc sends count too ({PAGE})"
        );
        return Entry::advice(NAME, value, reason, MORE_LOCKED);
    }
    Entry::ok(
        NAME,
        value,
        format!("room for the rings and their buffers ({PAGE})"),
    )
}

fn bytes_or_unlimited(limit: u64) -> String {
    if limit == u64::MAX {
        "unlimited".to_owned()
    } else {
        report::bytes(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    const fn limit(soft: u64, hard: u64) -> Limit {
        Limit { soft, hard }
    }

    #[test]
    fn only_the_hard_limit_of_files_counts_and_that_of_the_host() {
        let judge = |soft, hard, host| open_files(limit(soft, hard), host).verdict;
        assert_eq!(judge(1024, 1 << 20, Some(1 << 20)), Verdict::Ok);
        assert_eq!(judge(1024, u64::MAX, None), Verdict::Ok);
        assert_eq!(judge(4096, 4096, None), Verdict::Advice);
        assert_eq!(judge(1024, 1 << 20, Some(8192)), Verdict::Advice);
    }

    #[test]
    fn locked_memory_is_enough_unlimited_or_too_little() {
        let judge = |soft, is_privileged, shards| {
            locked_memory(limit(soft, soft), is_privileged, shards).verdict
        };
        assert_eq!(judge(8 << 20, false, 2), Verdict::Ok);
        assert_eq!(judge(u64::MAX, false, 64), Verdict::Ok);
        assert_eq!(judge(8 << 20, false, 32), Verdict::Advice);
        assert_eq!(judge(64 << 10, false, 1), Verdict::Advice);
        assert_eq!(judge(64 << 10, true, 1), Verdict::Ok);
    }
}

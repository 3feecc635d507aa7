//! Every key that means something here: what it may be, what it is unless said otherwise, what it does.

use super::kinds::MINUTE_MS;

pub use super::kinds::Kind;

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it stands in `broker.conf`.
    pub name: &'static str,
    /// Another name for the same.
    pub alias: Option<&'static str>,
    /// What may stand there.
    pub kind: Kind,
    /// Empty: worked out from the host and the other settings.
    pub default: &'static str,
    /// What it does, for the configuration table.
    pub about: &'static str,
}

/// Sizes of files are Java ints in the formats.
const FILE_SIZE_MAX: u64 = i32::MAX as u64;

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key {
        name,
        alias: None,
        kind,
        default,
        about,
    }
}

const fn known_as(key: Key, alias: &'static str) -> Key {
    Key {
        alias: Some(alias),
        ..key
    }
}

use Kind::{Address, Bool, Choice, Features, Hours, Levels, Log, Name, NameServers, Number, Path};

/// All of them, in the order of `--print-config`.
pub const KEYS: &[Key] = &[
    key(
        "brokerClusterName",
        Name(100),
        "DefaultCluster",
        "name of the cluster",
    ),
    key(
        "brokerName",
        Name(100),
        "",
        "name of the broker; shard i registers as brokerName-i",
    ),
    key("brokerId", Number(0, 0), "0", "0 = master"),
    key(
        "brokerRole",
        Choice(&[("ASYNC_MASTER", "")]),
        "ASYNC_MASTER",
        "role in a replicated group",
    ),
    known_as(
        key("bindAddress", Address, "127.0.0.1", "address to listen on"),
        "bind",
    ),
    key(
        "brokerIP1",
        Address,
        "",
        "address that clients are told; must lead to bindAddress",
    ),
    key(
        "listenPort",
        Number(3, 65_534),
        "10911",
        "port of shard 0; shard i listens on + 10 x i",
    ),
    key(
        "insecure",
        Bool,
        "false",
        "allow to listen beyond this host without authentication",
    ),
    known_as(
        key(
            "namesrvAddr",
            NameServers,
            "embedded",
            "name servers to register with, or embedded",
        ),
        "nameserver",
    ),
    key(
        "nameserverPort",
        Number(1, 65_535),
        "9876",
        "port of the embedded name server",
    ),
    key(
        "shards",
        Number(1, 256),
        "",
        "cores that are brokers; the store keeps its count",
    ),
    key("storePathRootDir", Path, "", "folder of the store"),
    key("storePathCommitLog", Path, "", "folder of the CommitLog"),
    key(
        "storePathConsumeQueue",
        Path,
        "",
        "folder of the ConsumeQueues",
    ),
    key("storePathIndex", Path, "", "folder of the IndexFiles"),
    key("storeCheckpoint", Path, "", "the checkpoint"),
    key(
        "abortFile",
        Path,
        "",
        "file that exists while the broker runs",
    ),
    key(
        "mappedFileSizeCommitLog",
        Number(65_536, FILE_SIZE_MAX),
        "1073741824",
        "bytes of a CommitLog segment",
    ),
    key(
        "mappedFileSizeConsumeQueue",
        Number(20, FILE_SIZE_MAX),
        "6000000",
        "bytes of a ConsumeQueue file, 20 a message, rounded up to whole units",
    ),
    key(
        "messageIndexEnable",
        Bool,
        "true",
        "index messages by their keys",
    ),
    key(
        "maxHashSlotNum",
        Number(1, 100_000_000),
        "5000000",
        "slots of an IndexFile",
    ),
    key(
        "maxIndexNum",
        Number(2, 100_000_000),
        "20000000",
        "room for entries in an IndexFile; it takes one a slot, or a million if that is more, to bound what a start after a crash reads",
    ),
    known_as(
        key(
            "flushDiskType",
            Choice(&[
                ("ASYNC_FLUSH", "async"),
                ("SYNC_FLUSH", "sync"),
                ("NO_FLUSH", "none"),
            ]),
            "ASYNC_FLUSH",
            "acknowledge after the write, or when a sync covers it; NO_FLUSH leaves the disk to the kernel",
        ),
        "flush",
    ),
    key(
        "flushMethod",
        Choice(&[
            ("auto", ""),
            ("fdatasync", ""),
            ("dsync", ""),
            ("direct", ""),
        ]),
        "auto",
        "how SYNC_FLUSH makes a group durable: write and fdatasync, RWF_DSYNC, or that past the page cache; auto measures the disk at start",
    ),
    known_as(
        key(
            "appendMode",
            Choice(&[("auto", ""), ("ring", ""), ("inline", ""), ("direct", "")]),
            "auto",
            "how groups are written: through io_uring, by the shard's own thread, or past the page cache; auto goes by size and file system",
        ),
        "append",
    ),
    // This and the next: kernel-notes/write-and-sync.md.
    key(
        "flushIntervalCommitLog",
        Number(1, MINUTE_MS),
        "500",
        "asynchronous flush: sync what is this old, in ms",
    ),
    key(
        "flushBytes",
        Number(4096, 64 << 20),
        "16777216",
        "asynchronous flush: sync when this much is not yet durable",
    ),
    key(
        "syncFlushTimeout",
        Number(1, 10 * MINUTE_MS),
        "5000",
        "ms a synchronous send waits",
    ),
    key(
        "fileReservedTime",
        Number(1, 876_000),
        "72",
        "hours that messages are kept",
    ),
    key(
        "deleteWhen",
        Hours,
        "04",
        "hours of the day in which old segments are deleted",
    ),
    key(
        "diskMaxUsedSpaceRatio",
        Number(10, 95),
        "75",
        "per cent of the disk from which old segments are deleted at any hour",
    ),
    key(
        "diskSpaceCleanForciblyRatio",
        Number(10, 99),
        "85",
        "per cent of the disk from which segments are deleted before their time",
    ),
    key(
        "diskSpaceWarningLevelRatio",
        Number(10, 99),
        "90",
        "per cent of the disk from which sends are refused",
    ),
    key(
        "cleanFileForciblyEnable",
        Bool,
        "true",
        "whether segments may go before their time",
    ),
    key(
        "maxMessageSize",
        Number(1, 16_711_680),
        "4194304",
        "bytes of a message's body",
    ),
    key(
        "autoCreateTopicEnable",
        Bool,
        "true",
        "a send to a missing topic makes it",
    ),
    key(
        "autoCreateSubscriptionGroup",
        Bool,
        "true",
        "an unknown consumer group is made",
    ),
    key(
        "defaultTopicQueueNums",
        Number(1, 1024),
        "8",
        "queues of such a topic, over all shards",
    ),
    key(
        "clusterTopicEnable",
        Bool,
        "true",
        "topic named like the cluster",
    ),
    key(
        "brokerTopicEnable",
        Bool,
        "true",
        "topic named like the broker",
    ),
    key(
        "enableSingleTopicRegister",
        Bool,
        "false",
        "tell name servers of all topics when one has changed: for those that forget what a registration does not name",
    ),
    key(
        "traceTopicEnable",
        Bool,
        "false",
        "topic for message traces",
    ),
    key(
        "msgTraceTopicName",
        Name(127),
        "RMQ_SYS_TRACE_TOPIC",
        "name of that topic",
    ),
    key(
        "traceOn",
        Bool,
        "true",
        "tell producers that traces are wanted",
    ),
    key(
        "regionId",
        Name(100),
        "DefaultRegion",
        "region that producers are told",
    ),
    key(
        "messageDelayLevel",
        Levels,
        "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
        "the delay levels, from 1",
    ),
    key(
        "brokerPermission",
        Choice(&[("2", ""), ("4", ""), ("6", "")]),
        "6",
        "2 = write only, 4 = read only, 6 = both",
    ),
    key(
        "rejectTransactionMessage",
        Bool,
        "false",
        "refuse transactional sends",
    ),
    key(
        "enablePropertyFilter",
        Choice(&[("false", "")]),
        "false",
        "SQL92 filters",
    ),
    key(
        "longPollingEnable",
        Bool,
        "true",
        "hold a pull that finds nothing as long as it asks",
    ),
    key(
        "shortPollingTimeMills",
        Number(1, MINUTE_MS),
        "1000",
        "ms to hold it otherwise",
    ),
    key(
        "maxTransferBytesOnMessageInMemory",
        Number(1, 64 << 20),
        "8388608",
        "bytes that a pull gets at most, however many it asks for; never more than 8 MiB, and one message at least",
    ),
    key(
        "maxTransferCountOnMessageInMemory",
        Number(1, 10_000),
        "1024",
        "messages that a pull gets at most, however many it asks for; never more than 1,024",
    ),
    key(
        "maxTransferBytesOnMessageInDisk",
        Number(1, 64 << 20),
        "8388608",
        "the same where it begins far behind: more than 40 % of memory, or before the last start",
    ),
    key(
        "maxTransferCountOnMessageInDisk",
        Number(1, 10_000),
        "1024",
        "the same where it begins far behind",
    ),
    key(
        "defaultQueryMaxNum",
        Number(1, 10_000),
        "32",
        "messages of a query by key",
    ),
    key(
        "notifyConsumerIdsChangedEnable",
        Bool,
        "true",
        "tell consumers when their group changes",
    ),
    key(
        "egress",
        Choice(&[
            ("auto", ""),
            ("sendfile", ""),
            ("splice", ""),
            ("gather", ""),
            ("send-zc", ""),
            ("copy", ""),
        ]),
        "auto",
        "how messages leave the page cache; auto goes by the length of runs",
    ),
    // See kernel-notes/cores.md.
    key(
        "spinMaxMicros",
        Number(0, 1000),
        "50",
        "us that a shard stays awake before it sleeps, where that pays and nobody else wants its CPU; 0 = never",
    ),
    key(
        "shardPriority",
        Choice(&[("normal", ""), ("high", "")]),
        "normal",
        "high: shards run before other programs of their CPU (nice -10; needs the right to)",
    ),
    known_as(
        key(
            "kernelWithout",
            Features,
            "",
            "what is not asked of the kernel even where it is there, to measure or to get around it",
        ),
        "without",
    ),
    key(
        "log",
        Log,
        "info",
        "what is logged: error, warn, info, debug or trace",
    ),
];

/// The key of this name, if it means something here.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.name == name || key.alias == Some(name))
}

impl Key {
    /// The value as it is kept, or why it cannot be: also for changes while the broker runs.
    pub fn check(&self, value: &str) -> Result<String, String> {
        self.kind.check(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_every_name_is_there_once() {
        let mut names = std::collections::BTreeSet::new();
        for key in KEYS {
            if !key.default.is_empty() {
                assert_eq!(
                    key.check(key.default).as_deref(),
                    Ok(key.default),
                    "{}",
                    key.name
                );
            }
            for name in std::iter::once(key.name).chain(key.alias) {
                assert!(names.insert(name), "{name} is there twice");
            }
        }
    }
}

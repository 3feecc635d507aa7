//! Settings that ask for what this broker does not have.
//!
//! A protection or a role that is asked for and missing stops the start: an open master in place of a
//! replica or a guarded broker is worse than none. A missing feature is only warned about, because what
//! needs it fails with an answer of its own.

/// Values that ask for something.
#[derive(Debug, Clone, Copy)]
enum When {
    /// This word, in any case.
    Is(&'static str),
    /// Any other word than these.
    IsNot(&'static [&'static str]),
    /// A number above this.
    Above(i64),
    /// Anything.
    Set,
}

/// One setting that asks for too much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    key: &'static str,
    when: When,
    /// What it asks for, to be read behind "it asks for".
    pub asks_for: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Whether the start ends.
    pub stops: bool,
}

const REPLICATION: &str = "replication, which this broker does not have";
const ALONE: &str = "remove it to run a master without replicas";
const ACCESS: &str = "protection against strangers, which this broker does not have";
const OPEN: &str = "remove it only if everybody who reaches the ports may do everything";
const TLS: &str = "encrypted connections, which this broker does not have";
const PLAIN: &str = "remove it only if the network may see everything";
const ROCKSDB: &str = "a store in RocksDB, which this broker cannot read";
const FILES: &str = "remove it, and use a store of ConsumeQueue files or an empty folder";

const fn stop(
    key: &'static str,
    when: When,
    asks_for: &'static str,
    remedy: &'static str,
) -> Demand {
    Demand {
        key,
        when,
        asks_for,
        remedy,
        stops: true,
    }
}

const fn lack(key: &'static str, when: When, asks_for: &'static str) -> Demand {
    Demand {
        key,
        when,
        asks_for,
        remedy: "",
        stops: false,
    }
}

use When::{Above, Is, IsNot, Set};

const DEMANDS: &[Demand] = &[
    stop(
        "brokerRole",
        Is("SLAVE"),
        REPLICATION,
        "set brokerRole=ASYNC_MASTER to run a master",
    ),
    stop(
        "brokerRole",
        Is("SYNC_MASTER"),
        "a replica behind each acknowledgement, and this broker has no replication",
        "set brokerRole=ASYNC_MASTER, and flushDiskType=SYNC_FLUSH where an acknowledged message \
         must survive a power cut",
    ),
    stop(
        "brokerId",
        Above(0),
        "the place of a replica, and this broker has no replication",
        ALONE,
    ),
    stop("enableControllerMode", Is("true"), REPLICATION, ALONE),
    stop("enableDLegerCommitLog", Is("true"), REPLICATION, ALONE),
    stop("duplicationEnable", Is("true"), REPLICATION, ALONE),
    stop("enableSlaveActingMaster", Is("true"), REPLICATION, ALONE),
    stop("totalReplicas", Above(1), REPLICATION, ALONE),
    stop("inSyncReplicas", Above(1), REPLICATION, ALONE),
    stop("minInSyncReplicas", Above(1), REPLICATION, ALONE),
    stop("allAckInSyncStateSet", Is("true"), REPLICATION, ALONE),
    stop("asyncLearner", Is("true"), REPLICATION, ALONE),
    stop("haMasterAddress", Set, REPLICATION, ALONE),
    stop("aclEnable", Is("true"), ACCESS, OPEN),
    stop("authenticationEnabled", Is("true"), ACCESS, OPEN),
    stop("authorizationEnabled", Is("true"), ACCESS, OPEN),
    stop("migrateAuthFromV1Enabled", Is("true"), ACCESS, OPEN),
    stop("useTLS", Is("true"), TLS, PLAIN),
    stop("tlsEnable", Is("true"), TLS, PLAIN),
    stop("tls.enable", Is("true"), TLS, PLAIN),
    stop("tlsMode", IsNot(&["disabled", "permissive"]), TLS, PLAIN),
    stop(
        "tls.server.mode",
        IsNot(&["disabled", "permissive"]),
        TLS,
        PLAIN,
    ),
    stop(
        "tls.server.need.client.auth",
        IsNot(&["none", "optional"]),
        TLS,
        PLAIN,
    ),
    stop("tls.server.authClient", Is("true"), TLS, PLAIN),
    stop("storeType", IsNot(&["default"]), ROCKSDB, FILES),
    stop("transRocksDBEnable", Is("true"), ROCKSDB, FILES),
    stop("timerRocksDBEnable", Is("true"), ROCKSDB, FILES),
    stop(
        "messageStorePlugIn",
        Set,
        "a store made of Java classes, which this broker cannot load",
        "remove it",
    ),
    stop(
        "readOnlyCommitLogStorePaths",
        Set,
        "a CommitLog spread over several folders, which this broker cannot read",
        "move the segments into storePathCommitLog and remove it",
    ),
    stop(
        "fetchNamesrvAddrByAddressServer",
        Is("true"),
        "name servers from an address server, which this broker cannot ask",
        "name them in namesrvAddr and remove it",
    ),
    lack("indexRocksDBEnable", Is("true"), "an index in RocksDB"),
    lack(
        "rocksdbCQDoubleWriteEnable",
        Is("true"),
        "ConsumeQueues in RocksDB",
    ),
    lack(
        "enableConsumeQueueExt",
        Is("true"),
        "ConsumeQueue extension files",
    ),
    lack("enableLmq", Is("true"), "light message queues"),
    lack(
        "enableMultiDispatch",
        Is("true"),
        "dispatch into several queues",
    ),
    lack("isBrokerContainer", Is("true"), "a container of brokers"),
    lack("isInBrokerContainer", Is("true"), "a container of brokers"),
    lack(
        "enableRetryTopicV2",
        Is("true"),
        "retry topics of version 2",
    ),
];

/// What a setting asks for and this broker lacks.
pub(super) fn find(key: &str, value: &str) -> Option<&'static Demand> {
    DEMANDS
        .iter()
        .find(|demand| demand.key == key && demand.when.holds(value))
}

/// Keys that are known for what they may ask for.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DEMANDS.iter().map(|demand| demand.key)
}

impl When {
    fn holds(self, value: &str) -> bool {
        match self {
            Is(word) => value.eq_ignore_ascii_case(word),
            IsNot(words) => {
                !value.is_empty() && !words.iter().any(|word| value.eq_ignore_ascii_case(word))
            }
            Above(bound) => value.parse::<i64>().is_ok_and(|number| bound < number),
            Set => !value.is_empty(),
        }
    }
}

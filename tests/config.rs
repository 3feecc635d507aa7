//! Files and flags in, settings or the exact words about a mistake out.

use std::path::{Path, PathBuf};

use corelane::base::ShardId;
use corelane::config::{
    Egress, Flag, FlushMode, Host, NameServers, Note, Origin, Settings, StartError, keys, load,
};

fn host() -> Host {
    Host {
        name: "node7".into(),
        addresses: ["127.0.0.1", "10.0.0.5", "10.1.0.5"]
            .map(|a| a.parse().unwrap())
            .to_vec(),
        cpu_count: 4,
        folder: "/work-folder".into(),
    }
}

fn read(file: &str, flags: &[(&str, &str, &str)]) -> Result<Settings, StartError> {
    let flags: Vec<_> = flags
        .iter()
        .map(|(flag, key, value)| Flag {
            flag: (*flag).into(),
            key: (*key).into(),
            value: (*value).into(),
        })
        .collect();
    load(
        Some((Path::new("broker.conf"), file.as_bytes())),
        &flags,
        &host(),
    )
}

fn settings(file: &str) -> Settings {
    read(file, &[]).unwrap()
}

fn error(file: &str) -> String {
    read(file, &[]).unwrap_err().to_string()
}

fn warnings(file: &str) -> Vec<String> {
    let notes = settings(file).notes.into_iter();
    notes
        .filter_map(|note| match note {
            Note::Warning(text) => Some(text),
            Note::Info(_) => None,
        })
        .collect()
}

#[test]
fn without_a_file_the_defaults_are_those_of_rocketmq_on_this_host() {
    let settings = load(None, &[], &host()).unwrap();
    assert_eq!(settings.cluster, "DefaultCluster");
    assert_eq!(settings.broker, "node7");
    assert_eq!(
        (settings.shard_count, settings.shard_count_default),
        (None, 4)
    );
    assert_eq!(settings.addresses.bind.to_string(), "127.0.0.1");
    assert_eq!(settings.addresses.advertised.to_string(), "127.0.0.1");
    assert_eq!(settings.name_servers, NameServers::Embedded { port: 9876 });
    assert_eq!(settings.store.root, PathBuf::from("/work-folder/store"));
    assert_eq!(settings.store.segment_size, 1 << 30);
    assert_eq!(settings.store.queue_file_unit_count, 300_000);
    assert_eq!(
        (
            settings.store.index_slot_count,
            settings.store.index_entry_count
        ),
        (5_000_000, 20_000_000)
    );
    assert_eq!(settings.flush.mode, FlushMode::Async);
    assert_eq!(settings.flush.interval_ms, 500);
    assert_eq!(
        (
            settings.retention.reserved_hours,
            settings.retention.delete_hours.clone()
        ),
        (72, vec![4])
    );
    assert_eq!(settings.messages.body_size_max, 4 << 20);
    assert_eq!(settings.messages.delay_levels_ms.len(), 18);
    assert_eq!(settings.messages.delay_levels_ms[17], 7_200_000);
    assert_eq!(settings.messages.trace_topic, None);
    assert_eq!(settings.egress, Egress::Auto);
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
    let ports = settings.addresses.ports(ShardId(3)).unwrap();
    assert_eq!(
        (ports.vip, ports.listen, ports.replication),
        (10939, 10941, 10942)
    );
    assert_eq!(settings.broker_name(ShardId(3), false), "node7-3");
    assert_eq!(settings.broker_name(ShardId(0), true), "node7");
}

/// The keys that files of RocketMQ's users usually have, with its sample values.
const ORDINARY: &str = "\
# of a user\n\
brokerClusterName = rocketmq-cluster\n\
brokerName=broker-a\n\
brokerId=0\n\
namesrvAddr=10.0.0.1:9876;ns2.example.com:9876\n\
defaultTopicQueueNums=4\n\
autoCreateTopicEnable=true\n\
autoCreateSubscriptionGroup=true\n\
listenPort=10911\n\
haListenPort=10912\n\
deleteWhen=04\n\
fileReservedTime=120\n\
mappedFileSizeCommitLog=1073741824\n\
mappedFileSizeConsumeQueue=300000\n\
diskMaxUsedSpaceRatio=88\n\
storePathRootDir=/data/rocketmq/store\n\
storePathCommitLog=/data/rocketmq/store/commitlog\n\
storePathConsumeQueue=/fast/consumequeue\n\
storePathIndex=/data/rocketmq/store/index\n\
storeCheckpoint=/data/rocketmq/store/checkpoint\n\
abortFile=/elsewhere/abort\n\
maxMessageSize=65536\n\
flushCommitLogLeastPages=4\n\
flushConsumeQueueLeastPages=2\n\
brokerRole=ASYNC_MASTER\n\
flushDiskType=SYNC_FLUSH\n\
sendMessageThreadPoolNums=128\n\
pullMessageThreadPoolNums=128\n\
aclEnable=false\n";

#[test]
fn an_existing_file_of_a_rocketmq_user_starts_this_broker() {
    let settings = settings(ORDINARY);
    assert_eq!(
        (settings.cluster.as_str(), settings.broker.as_str()),
        ("rocketmq-cluster", "broker-a")
    );
    let servers = ["10.0.0.1:9876", "ns2.example.com:9876"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(settings.name_servers, NameServers::List(servers));
    assert_eq!(settings.flush.mode, FlushMode::Sync);
    assert_eq!(settings.store.queue_file_unit_count, 15_000);
    assert_eq!(settings.retention.delete_from_percent, 88);
    let note = "without effect here: haListenPort, flushCommitLogLeastPages, \
        flushConsumeQueueLeastPages, sendMessageThreadPoolNums, pullMessageThreadPoolNums, aclEnable";
    assert_eq!(settings.notes, [Note::Info(note.into())]);
}

#[test]
fn paths_lie_under_their_shard() {
    let store = settings(ORDINARY).store;
    let paths = store.paths(Some(ShardId(2)));
    assert_eq!(paths.root, PathBuf::from("/data/rocketmq/store/2"));
    assert_eq!(
        paths.commit_log,
        PathBuf::from("/data/rocketmq/store/2/commitlog")
    );
    assert_eq!(paths.consume_queue, PathBuf::from("/fast/consumequeue/2"));
    assert_eq!(paths.index, PathBuf::from("/data/rocketmq/store/2/index"));
    assert_eq!(paths.config, PathBuf::from("/data/rocketmq/store/2/config"));
    assert_eq!(
        paths.checkpoint,
        PathBuf::from("/data/rocketmq/store/2/checkpoint")
    );
    assert_eq!(paths.abort, PathBuf::from("/elsewhere/2/abort"));
    let in_place = store.paths(None);
    assert_eq!(
        in_place.commit_log,
        PathBuf::from("/data/rocketmq/store/commitlog")
    );
    assert_eq!(in_place.consume_queue, PathBuf::from("/fast/consumequeue"));
    assert_eq!(in_place.abort, PathBuf::from("/elsewhere/abort"));
    let plain = settings("storePathRootDir=relative\n")
        .store
        .paths(Some(ShardId(0)));
    assert_eq!(
        plain.commit_log,
        PathBuf::from("/work-folder/relative/0/commitlog")
    );
}

#[test]
fn an_unknown_key_is_named_with_its_neighbour() {
    assert_eq!(
        warnings("listenport=1\n\nflushDiscType=SYNC_FLUSH\n"),
        [
            "listenport (broker.conf:1) is not a known key and has no effect; the nearest known key is listenPort",
            "flushDiscType (broker.conf:3) is not a known key and has no effect; the nearest known key is flushDiskType",
        ]
    );
}

#[test]
fn a_key_that_is_set_twice_and_a_small_segment_are_warned_about() {
    assert_eq!(
        warnings("listenPort=1000\nlistenPort=2000\nmappedFileSizeCommitLog=1048576\n"),
        [
            "listenPort is set twice (broker.conf:1 and broker.conf:2); the last one counts",
            "mappedFileSizeCommitLog=1048576 (broker.conf:3) holds no message of maxMessageSize=4194304 (default): \
             larger ones than a segment will be refused",
        ]
    );
    assert_eq!(
        settings("listenPort=1000\nlistenPort=2000\n")
            .addresses
            .listen_port,
        2000
    );
}

#[test]
fn a_missing_feature_is_warned_about() {
    assert_eq!(
        warnings("enableLmq=true\n"),
        [
            "enableLmq=true (broker.conf:1) asks for light message queues, which this broker does not have"
        ]
    );
    assert_eq!(warnings("enableLmq=false\n"), [""; 0]);
}

#[test]
fn a_bad_value_names_file_line_key_value_and_what_is_allowed() {
    let cases = [
        (
            "\nlistenPort=high\n",
            "cannot use listenPort=high (broker.conf:2): it is not a whole number; \
             allowed is a whole number from 3 to 65534",
        ),
        (
            "flushDiskType=SYNC\n",
            "cannot use flushDiskType=SYNC (broker.conf:1): it is not one of the known words; \
             allowed is ASYNC_FLUSH (async) or SYNC_FLUSH (sync) or NO_FLUSH (none)",
        ),
        (
            "autoCreateTopicEnable=1\n",
            "cannot use autoCreateTopicEnable=1 (broker.conf:1): it is neither true nor false; \
             allowed is true or false",
        ),
        (
            "diskMaxUsedSpaceRatio=0.75\n",
            "cannot use diskMaxUsedSpaceRatio=0.75 (broker.conf:1): it is not a whole number; \
             allowed is a whole number from 10 to 95",
        ),
        (
            "enablePropertyFilter=true\n",
            "cannot use enablePropertyFilter=true (broker.conf:1): it is not one of the known words; \
             allowed is false",
        ),
        (
            "listenPort=\n",
            "cannot use listenPort= (broker.conf:1): it is not a whole number; \
             allowed is a whole number from 3 to 65534",
        ),
        (
            "brokerId=-1\n",
            "cannot use brokerId=-1 (broker.conf:1): it is not a whole number; allowed is 0",
        ),
        (
            "a=1\nb=\\u00\n",
            "cannot read broker.conf:2: \\u00 is no character, four hexadecimal digits belong behind \\u; \
             correct the line",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(error(file), expected);
    }
    let flag = read("", &[("--port", "listenPort", "70000")]).unwrap_err();
    assert_eq!(
        flag.to_string(),
        "cannot use listenPort=70000 (--port): it is too large; allowed is a whole number from 3 to 65534"
    );
}

#[test]
fn a_role_or_a_protection_that_is_missing_stops_the_start() {
    let cases = [
        (
            "brokerRole=SLAVE\n",
            "cannot start with brokerRole=SLAVE (broker.conf:1): it asks for replication, which this \
             broker does not have; set brokerRole=ASYNC_MASTER to run a master",
        ),
        (
            "brokerRole=SYNC_MASTER\n",
            "cannot start with brokerRole=SYNC_MASTER (broker.conf:1): it asks for a replica behind each \
             acknowledgement, and this broker has no replication; set brokerRole=ASYNC_MASTER, and \
             flushDiskType=SYNC_FLUSH where an acknowledged message must survive a power cut",
        ),
        (
            "brokerId=1\n",
            "cannot start with brokerId=1 (broker.conf:1): it asks for the place of a replica, and this \
             broker has no replication; remove it to run a master without replicas",
        ),
        (
            "aclEnable=true\n",
            "cannot start with aclEnable=true (broker.conf:1): it asks for protection against strangers, \
             which this broker does not have; remove it only if everybody who reaches the ports may do \
             everything",
        ),
        (
            "tls.server.mode=enforcing\n",
            "cannot start with tls.server.mode=enforcing (broker.conf:1): it asks for encrypted \
             connections, which this broker does not have; remove it only if the network may see everything",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(error(file), expected);
    }
    let others = "enableControllerMode=true\nenableDLegerCommitLog=TRUE\nduplicationEnable=true\n\
        enableSlaveActingMaster=true\ninSyncReplicas=2\nminInSyncReplicas=2\ntotalReplicas=3\n\
        haMasterAddress=10.0.0.1:10912\nauthenticationEnabled=true\nauthorizationEnabled=true\n\
        useTLS=true\ntlsEnable=true\ntlsMode=enforcing\nstoreType=defaultRocksDB\n\
        fetchNamesrvAddrByAddressServer=true";
    for line in others.lines() {
        let text = error(line);
        assert!(
            text.starts_with(&format!("cannot start with {line} (broker.conf:1): ")),
            "{text}"
        );
        let harmless = line.split('=').next().unwrap();
        for value in ["", "false", "0", "1", "permissive", "default"] {
            let asks = matches!(
                (harmless, value),
                (
                    "haMasterAddress",
                    "false" | "0" | "1" | "permissive" | "default"
                ) | ("storeType", "false" | "0" | "1" | "permissive")
                    | ("tlsMode", "false" | "0" | "1" | "default")
            );
            assert_eq!(
                read(&format!("{harmless}={value}"), &[]).is_err(),
                asks,
                "{harmless}={value}"
            );
        }
    }
}

#[test]
fn what_clients_are_told_leads_to_what_is_bound() {
    assert_eq!(
        error("brokerIP1=10.0.0.5\n"),
        "cannot advertise brokerIP1=10.0.0.5 (broker.conf:1) with bindAddress=127.0.0.1 (default): only \
         127.0.0.1 is bound, which nothing outside this host reaches; bind what clients are told \
         (--bind 10.0.0.5 --insecure), or remove brokerIP1"
    );
    assert_eq!(
        read(
            "brokerIP1=10.1.0.5",
            &[("--bind", "bindAddress", "10.0.0.5")]
        )
        .unwrap_err()
        .to_string(),
        "cannot advertise brokerIP1=10.1.0.5 (broker.conf:1) with bindAddress=10.0.0.5 (--bind): only \
         10.0.0.5 is bound, and 10.1.0.5 is another address of this host; bind what clients are told \
         (--bind 10.1.0.5 --insecure), or remove brokerIP1"
    );
    assert_eq!(
        error("bindAddress=0.0.0.0\nbrokerIP1=0.0.0.0\ninsecure=true\n"),
        "cannot advertise brokerIP1=0.0.0.0 (broker.conf:2) with bindAddress=0.0.0.0 (broker.conf:1): \
         0.0.0.0 is no address that a client can connect to; set brokerIP1 to an address of this host \
         that is bound, or remove it"
    );
    let all = settings("bindAddress=0.0.0.0\ninsecure=true\n");
    assert_eq!(all.addresses.advertised.to_string(), "10.0.0.5");
    let translated = settings("bind=0.0.0.0\ninsecure=true\nbrokerIP1=203.0.113.9\n");
    assert_eq!(translated.addresses.advertised.to_string(), "203.0.113.9");
}

#[test]
fn listening_beyond_this_host_must_be_typed_out() {
    assert_eq!(
        error("bindAddress=0.0.0.0\n"),
        "cannot listen on bindAddress=0.0.0.0 (broker.conf:1): everybody who reaches that address could \
         read, write and delete everything, and this broker cannot tell friends from strangers yet; \
         bind 127.0.0.1, or type --insecure where the network keeps strangers out"
    );
    let flag = ("--insecure", "insecure", "true");
    assert!(read("bindAddress=0.0.0.0\n", &[flag]).is_ok());
    assert!(read("bindAddress=127.0.0.2\n", &[]).is_ok());
}

#[test]
fn the_command_line_beats_the_file_and_print_config_says_so() {
    let settings = read(
        "# mine\nlistenPort=12000\nbrokerName=a\nnamesrvAddr=10.0.0.1:9876\n",
        &[
            ("--port", "listenPort", "13000"),
            ("--nameserver", "namesrvAddr", "embedded"),
            ("--flush", "flushDiskType", "sync"),
            ("--shards", "shards", "2"),
        ],
    )
    .unwrap();
    assert_eq!(settings.addresses.listen_port, 13000);
    assert_eq!(settings.name_servers, NameServers::Embedded { port: 9876 });
    assert_eq!(settings.shard_count, Some(2));
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
    let printed = settings.print();
    for line in [
        "brokerClusterName=DefaultCluster  # default",
        "brokerName=a  # broker.conf:3",
        "brokerIP1=127.0.0.1  # default: the bound address",
        "listenPort=13000  # --port",
        "namesrvAddr=embedded  # --nameserver",
        "shards=2  # --shards",
        "flushDiskType=SYNC_FLUSH  # --flush",
        "storePathRootDir=/work-folder/store  # default: in the current folder",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line} is not in\n{printed}"
        );
    }
    let ports = settings
        .entries
        .iter()
        .find(|entry| entry.key == "listenPort")
        .unwrap();
    assert_eq!(ports.origin, Origin::Flag("--port".into()));
}

#[test]
fn ports_must_exist_and_not_meet() {
    assert_eq!(
        error("listenPort=65500\nshards=5\n"),
        "cannot give ports to 5 shards from listenPort=65500 on: shard 4 would get a port above 65535; \
         choose a lower listenPort or fewer shards"
    );
    assert!(read("listenPort=65500\nshards=4\n", &[]).is_ok());
    assert_eq!(
        error("listenPort=9858\nshards=3\n"),
        "cannot give ports to 3 shards from listenPort=9858 on: 9876 is a port of shard 2 and of the \
         embedded name server; choose another listenPort or nameserverPort"
    );
    assert!(
        read(
            "listenPort=9858\nshards=3\nnamesrvAddr=10.0.0.1:9876\n",
            &[]
        )
        .is_ok()
    );
}

/// The README's table is made of the table of keys; the failure prints what belongs there.
#[test]
fn the_readme_shows_every_key_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let mut table = String::from("| Key | Default | Allowed | What it does |\n|---|---|---|---|\n");
    for key in keys::KEYS {
        let alias = key
            .alias
            .map(|alias| format!(", `{alias}`"))
            .unwrap_or_default();
        let default = match key.default {
            "" => "—".to_owned(),
            default => format!("`{default}`"),
        };
        let allowed = key.kind.allowed().replace('|', "\\|");
        table += &format!(
            "| `{}`{alias} | {default} | {allowed} | {} |\n",
            key.name, key.about
        );
    }
    assert!(
        readme.contains(&table),
        "README.md lacks this table:\n{table}"
    );
}

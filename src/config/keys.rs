//! Every key that means something here: what it may be, what it is unless said otherwise, what it does.

use std::net::IpAddr;

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

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number in these bounds.
    Number(u64, u64),
    /// One of these words: as stored, and how else it may be written.
    Choice(&'static [(&'static str, &'static str)]),
    /// Letters, digits and `_-.%|`, at most this many.
    Name(usize),
    /// A folder or file.
    Path,
    /// An IP address.
    Address,
    /// `embedded`, or `host:port` separated by `;`.
    NameServers,
    /// Hours of the day, separated by `;`.
    Hours,
    /// Times such as `1s 5s 10m 2h`.
    Levels,
    /// A level of the log, or directives such as `info,corelane::log=debug`.
    Log,
}

const MINUTE_MS: u64 = 60_000;
/// Sizes of files are Java ints in the formats.
const FILE_SIZE_MAX: u64 = i32::MAX as u64;
const LEVELS_MAX: usize = 255;

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

use Kind::{Address, Bool, Choice, Hours, Levels, Log, Name, NameServers, Number, Path};

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
        "name of the broker; shard i of several is <brokerName>-<i>",
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
        "entries of an IndexFile",
    ),
    known_as(
        key(
            "flushDiskType",
            Choice(&[("ASYNC_FLUSH", "async"), ("SYNC_FLUSH", "sync")]),
            "ASYNC_FLUSH",
            "acknowledge after the write, or after an fdatasync that covers it",
        ),
        "flush",
    ),
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
        "262144",
        "bytes of a pull",
    ),
    key(
        "maxTransferCountOnMessageInMemory",
        Number(1, 10_000),
        "32",
        "messages of a pull",
    ),
    key(
        "maxTransferBytesOnMessageInDisk",
        Number(1, 64 << 20),
        "65536",
        "the same, far behind",
    ),
    key(
        "maxTransferCountOnMessageInDisk",
        Number(1, 10_000),
        "8",
        "the same, far behind",
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
            ("copy", ""),
        ]),
        "auto",
        "how messages leave the page cache",
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
        match self.kind {
            Bool => one_of(value, &["true", "false"]),
            Number(min, max) => number(value, min, max).map(|number| number.to_string()),
            Choice(words) => words
                .iter()
                .find(|(word, other)| *word == value || (!other.is_empty() && *other == value))
                .map(|(word, _)| (*word).to_owned())
                .ok_or_else(|| "it is not one of the known words".to_owned()),
            Name(len_max) => name(value, len_max),
            Path if value.contains(',') => Err("it names several folders".to_owned()),
            Path => Ok(value.to_owned()),
            Address => address(value).map(|address| address.to_string()),
            NameServers => name_servers(value).map(|_| value.to_owned()),
            Hours => hours(value).map(|_| value.to_owned()),
            Levels => levels(value).map(|_| value.to_owned()),
            Log => log(value),
        }
    }

    /// What [`Key::check`] lets through, to be read behind "allowed is".
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.kind {
            Bool => "true or false".to_owned(),
            Number(min, max) if min == max => format!("{min}"),
            Number(min, max) => format!("a whole number from {min} to {max}"),
            Choice(words) => words
                .iter()
                .map(|(word, other)| match *other {
                    "" => (*word).to_owned(),
                    other => format!("{word} ({other})"),
                })
                .collect::<Vec<_>>()
                .join(" or "),
            Name(len_max) => format!("1 to {len_max} letters, digits and _ - . % |"),
            Path => "one path".to_owned(),
            Address => "an IP address such as 192.0.2.7".to_owned(),
            NameServers => "embedded, or host:port, several separated by ;".to_owned(),
            Hours => "hours from 00 to 23, several separated by ;".to_owned(),
            Levels => {
                format!("1 to {LEVELS_MAX} times such as 1s 5s 10m 2h 1d, separated by blanks")
            }
            Log => "error, warn, info, debug, trace or off, or directives such as \
                    info,corelane::log=debug"
                .to_owned(),
        }
    }

    /// Whether an empty value means "not set": where a word or number belongs, it is a mistake.
    pub(super) fn may_be_empty(&self) -> bool {
        matches!(self.kind, Name(_) | Path | Address | NameServers)
    }
}

fn one_of(value: &str, words: &[&str]) -> Result<String, String> {
    match words.iter().find(|word| **word == value) {
        Some(word) => Ok((*word).to_owned()),
        None => Err(format!("it is neither {}", words.join(" nor "))),
    }
}

fn number(value: &str, min: u64, max: u64) -> Result<u64, String> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a whole number".to_owned());
    }
    match value.parse() {
        Ok(number) if number < min => Err("it is too small".to_owned()),
        Ok(number) if number <= max => Ok(number),
        _ => Err("it is too large".to_owned()),
    }
}

fn name(value: &str, len_max: usize) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.%|".contains(c);
    if let Some(wrong) = value.chars().find(|c| !is_allowed(*c)) {
        return Err(format!("it contains {wrong:?}"));
    }
    // Names become folders.
    if value == "." || value == ".." {
        return Err("it names a folder".to_owned());
    }
    if len_max < value.len() {
        return Err(format!("it has {} characters", value.len()));
    }
    Ok(value.to_owned())
}

fn address(value: &str) -> Result<IpAddr, String> {
    value
        .parse()
        .map_err(|_| "it is not an IP address".to_owned())
}

/// Empty for `embedded`.
pub(super) fn name_servers(value: &str) -> Result<Vec<String>, String> {
    if value == "embedded" {
        return Ok(Vec::new());
    }
    let mut servers = Vec::new();
    for server in value
        .split(';')
        .map(str::trim)
        .filter(|server| !server.is_empty())
    {
        let Some((host, port)) = server.rsplit_once(':') else {
            return Err(format!("'{server}' has no port"));
        };
        let host_is_name = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || !host.chars().all(host_is_name) {
            return Err(format!("'{server}' has no host"));
        }
        number(port, 1, 65_535).map_err(|why| format!("the port of '{server}': {why}"))?;
        servers.push(server.to_owned());
    }
    if servers.is_empty() {
        return Err("it names no server".to_owned());
    }
    Ok(servers)
}

pub(super) fn hours(value: &str) -> Result<Vec<u8>, String> {
    let hours = value.split(';').map(|hour| match hour.trim().parse() {
        Ok(hour) if hour < 24 => Ok(hour),
        _ => Err(format!("'{hour}' is no hour")),
    });
    hours.collect()
}

/// In milliseconds.
pub(super) fn levels(value: &str) -> Result<Vec<u64>, String> {
    let levels: Result<Vec<_>, _> = value.split_ascii_whitespace().map(level).collect();
    match levels?.as_slice() {
        [] => Err("it names no time".to_owned()),
        levels if LEVELS_MAX < levels.len() => Err(format!("it names {} times", levels.len())),
        levels => Ok(levels.to_vec()),
    }
}

fn level(text: &str) -> Result<u64, String> {
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => MINUTE_MS,
        Some('h') => 60 * MINUTE_MS,
        Some('d') => 24 * 60 * MINUTE_MS,
        _ => return Err(format!("'{text}' does not end in s, m, h or d")),
    };
    let count = number(&text[..text.len() - 1], 0, 36_500);
    count
        .map(|count| count * unit_ms)
        .map_err(|_| format!("'{text}' is no time"))
}

fn log(value: &str) -> Result<String, String> {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    for directive in value.split(',') {
        let (target, level) = directive
            .rsplit_once('=')
            .unwrap_or(("corelane", directive));
        if !LEVELS.contains(&level) {
            return Err(format!("'{level}' is no level"));
        }
        let is_target = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if target.is_empty() || !target.chars().all(is_target) {
            return Err(format!("'{target}' is no module"));
        }
    }
    Ok(value.to_owned())
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

    #[test]
    fn values_are_refused_with_their_reason() {
        let cases = [
            ("listenPort", "-1", "it is not a whole number"),
            ("listenPort", "2", "it is too small"),
            ("listenPort", "65535", "it is too large"),
            ("listenPort", "99999999999999999999", "it is too large"),
            ("messageIndexEnable", "yes", "it is neither true nor false"),
            ("flushDiskType", "SYNC", "it is not one of the known words"),
            ("brokerName", "a/b", "it contains '/'"),
            ("brokerName", "..", "it names a folder"),
            ("storePathCommitLog", "/a,/b", "it names several folders"),
            ("brokerIP1", "localhost", "it is not an IP address"),
            ("namesrvAddr", "a:1;b", "'b' has no port"),
            ("namesrvAddr", ":1", "':1' has no host"),
            ("namesrvAddr", "a:0", "the port of 'a:0': it is too small"),
            ("namesrvAddr", ";", "it names no server"),
            ("deleteWhen", "04;24", "'24' is no hour"),
            (
                "messageDelayLevel",
                "1s 5",
                "'5' does not end in s, m, h or d",
            ),
            ("messageDelayLevel", "1s xm", "'xm' is no time"),
            ("messageDelayLevel", " ", "it names no time"),
            ("log", "loud", "'loud' is no level"),
            (
                "enablePropertyFilter",
                "true",
                "it is not one of the known words",
            ),
        ];
        for (name, value, why) in cases {
            let key = find(name).unwrap();
            assert_eq!(key.check(value), Err(why.to_owned()), "{name}={value}");
        }
        assert_eq!(
            find("flush").unwrap().check("sync"),
            Ok("SYNC_FLUSH".to_owned())
        );
        assert_eq!(
            find("log")
                .unwrap()
                .check("info,corelane::log=debug")
                .unwrap()
                .len(),
            24
        );
        assert_eq!(
            levels("1s 2m 3h 1d").unwrap(),
            [1000, 120_000, 10_800_000, 86_400_000]
        );
        assert_eq!(hours("04; 5").unwrap(), [4, 5]);
    }
}

//! What a shard was configured with, in plain values.

use std::net::SocketAddr;

use super::fetch;
use crate::base::ShardId;
use crate::command::DataVersion;

/// RocketMQ's 18 levels: `1s 5s 10s 30s 1m … 2h`, in milliseconds.
pub const DELAY_LEVELS_DEFAULT: [u64; 18] = {
    const S: u64 = 1000;
    const M: u64 = 60 * S;
    const H: u64 = 60 * M;
    [
        S,
        5 * S,
        10 * S,
        30 * S,
        M,
        2 * M,
        3 * M,
        4 * M,
        5 * M,
        6 * M,
        7 * M,
        8 * M,
        9 * M,
        10 * M,
        20 * M,
        30 * M,
        H,
        2 * H,
    ]
};

/// As much as any pull may get.
const WIDEST_FETCH: FetchBounds = FetchBounds {
    count_max: fetch::COUNT_MAX,
    bytes_max: fetch::BYTES_MAX,
};

/// What one pull may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchBounds {
    /// Messages.
    pub count_max: usize,
    /// Bytes of records; one record is given whatever its size.
    pub bytes_max: u64,
}

impl FetchBounds {
    /// The lower of each.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self {
            count_max: self.count_max.min(other.count_max),
            bytes_max: self.bytes_max.min(other.bytes_max),
        }
    }
}

/// Settings of one shard.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which one this is.
    pub shard: ShardId,
    /// How many there are.
    pub shard_count: u32,
    /// Name of this shard's broker, as routes say it.
    pub broker_name: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Where clients reach this shard: written into records and message ids.
    pub store_host: SocketAddr,
    /// 4 read, 2 write.
    pub perm: u32,
    /// Bytes of a body at most.
    pub message_size_max: usize,
    /// Make unknown topics out of TBW102.
    pub auto_create_topics: bool,
    /// Make unknown groups with defaults.
    pub auto_create_groups: bool,
    /// Queues of TBW102 on this shard.
    pub default_queue_count: u32,
    /// Make the topic that is named after the cluster writable.
    pub cluster_topic: bool,
    /// Make the topic that is named after the broker writable.
    pub broker_topic: bool,
    /// Make RMQ_SYS_TRACE_TOPIC at start.
    pub trace_topic: bool,
    /// Milliseconds of delay level 1, 2, ….
    pub delay_levels: Vec<u64>,
    /// Hold pulls that find nothing.
    pub long_polling: bool,
    /// Hold them this long where long polling is off.
    pub short_polling_ms: u64,
    /// Bounds of pulls that begin in what counts as in memory.
    pub hot_fetch: FetchBounds,
    /// Bounds of pulls that begin further back.
    pub cold_fetch: FetchBounds,
    /// Tell consumers when their group's members change.
    pub notify_members_changed: bool,
    /// A producer that waits for a flush longer than this is told so.
    pub sync_flush_timeout_ms: u64,
    /// A queue that still has its first message is young while its shard's log is no larger than this:
    /// 40 % of memory, as RocketMQ's accessMessageInMemoryMaxRatio.
    pub young_log_size: u64,
    /// Keep an index of keys.
    pub index_keys: bool,
    /// Messages of a query by a unique key.
    pub query_count_max: usize,
    /// Wall milliseconds at start.
    pub boot_ms: u64,
    /// Everything in force, for those who ask.
    pub properties: Vec<(String, String)>,
    /// Counts changes of these settings while the broker runs.
    pub version: DataVersion,
}

impl Settings {
    /// Settings of a single shard on loopback; for tests, benches and the simulator.
    #[must_use]
    pub fn plain(store_host: SocketAddr) -> Self {
        Self {
            shard: ShardId(0),
            shard_count: 1,
            broker_name: "broker-0".to_owned(),
            cluster: "DefaultCluster".to_owned(),
            store_host,
            perm: 6,
            message_size_max: 4 << 20,
            auto_create_topics: true,
            auto_create_groups: true,
            default_queue_count: 8,
            cluster_topic: true,
            broker_topic: true,
            trace_topic: false,
            delay_levels: DELAY_LEVELS_DEFAULT.to_vec(),
            long_polling: true,
            short_polling_ms: 1000,
            hot_fetch: WIDEST_FETCH,
            cold_fetch: WIDEST_FETCH,
            notify_members_changed: true,
            sync_flush_timeout_ms: 5000,
            young_log_size: 1 << 30,
            index_keys: true,
            query_count_max: 32,
            boot_ms: 0,
            properties: Vec::new(),
            version: DataVersion::default(),
        }
    }

    /// The bounds of a pull, by whether it begins in memory.
    pub(super) const fn fetch_bounds(&self, hot: bool) -> FetchBounds {
        if hot { self.hot_fetch } else { self.cold_fetch }
    }

    /// Takes a value in that was checked; keys that mean nothing to a shard change what is shown only.
    pub fn change(&mut self, key: &str, value: &str, now_ms: u64) {
        match self.properties.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.properties.push((key.to_owned(), value.to_owned())),
        }
        self.version.counter += 1;
        self.version.timestamp_ms = now_ms as i64;
        let flag = value == "true";
        let number: u64 = value.parse().unwrap_or(0);
        match key {
            "brokerPermission" => self.perm = number as u32,
            "maxMessageSize" => self.message_size_max = number as usize,
            "autoCreateTopicEnable" => self.auto_create_topics = flag,
            "autoCreateSubscriptionGroup" => self.auto_create_groups = flag,
            "longPollingEnable" => self.long_polling = flag,
            "shortPollingTimeMills" => self.short_polling_ms = number,
            "maxTransferBytesOnMessageInMemory" => self.hot_fetch.bytes_max = number,
            "maxTransferCountOnMessageInMemory" => self.hot_fetch.count_max = number as usize,
            "maxTransferBytesOnMessageInDisk" => self.cold_fetch.bytes_max = number,
            "maxTransferCountOnMessageInDisk" => self.cold_fetch.count_max = number as usize,
            "notifyConsumerIdsChangedEnable" => self.notify_members_changed = flag,
            "syncFlushTimeout" => self.sync_flush_timeout_ms = number,
            "defaultQueryMaxNum" => self.query_count_max = number as usize,
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_holds_is_shown_and_is_counted() {
        let mut settings = Settings::plain("127.0.0.1:10911".parse().unwrap());
        settings.properties = vec![("maxMessageSize".to_owned(), "4194304".to_owned())];
        for (key, value) in [
            ("brokerPermission", "4"),
            ("maxMessageSize", "1024"),
            ("autoCreateTopicEnable", "false"),
            ("fileReservedTime", "1"),
        ] {
            settings.change(key, value, 77);
            let shown = (key.to_owned(), value.to_owned());
            assert!(settings.properties.contains(&shown), "{key}");
        }
        assert_eq!((settings.perm, settings.message_size_max), (4, 1024));
        assert!(!settings.auto_create_topics);
        assert_eq!(settings.properties.len(), 4);
        assert_eq!(
            (settings.version.counter, settings.version.timestamp_ms),
            (4, 77)
        );
    }
}

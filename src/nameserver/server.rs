//! The NameServer as one value: settings, route table and values, driven by whoever owns the sockets.

use crate::command::ConnectionId;
use crate::protocol::rocketmq::frame::Request;

use super::kv::Kv;
use super::requests;
use super::table::RouteTable;

/// How often silent brokers are looked for.
const SCAN_INTERVAL_MS: u64 = 5_000;

/// RocketMQ's settings of a NameServer, with its defaults, as far as they mean something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `bindAddress`: only told (319).
    pub bind_address: String,
    /// `listenPort`: only told (319).
    pub port: u16,
    /// `orderMessageEnable`: routes carry the order configuration of their topic.
    pub order_messages: bool,
    /// `returnOrderTopicConfigToBroker`: brokers are answered with the order configuration.
    pub order_config_to_brokers: bool,
    /// `supportActingMaster`: routes show the smallest slave as master where the master is lost.
    pub acting_masters: bool,
    /// `deleteTopicWithBrokerRegistration`: a topic that a master no longer names is forgotten.
    pub delete_unnamed_topics: bool,
    /// `enableAllTopicList`: 206 is answered.
    pub all_topic_list: bool,
    /// `enableTopicList`: 224, 304, 311, 312 and 313 are answered.
    pub topic_list: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind_address: "127.0.0.1".to_owned(),
            port: 9876,
            order_messages: false,
            order_config_to_brokers: true,
            acting_masters: false,
            delete_unnamed_topics: false,
            all_topic_list: true,
            topic_list: true,
        }
    }
}

impl Settings {
    /// The properties that request 318 may change, by RocketMQ's names: what a restart sets back anyway.
    pub const CHANGEABLE: [&str; 6] = [
        "deleteTopicWithBrokerRegistration",
        "enableAllTopicList",
        "enableTopicList",
        "orderMessageEnable",
        "returnOrderTopicConfigToBroker",
        "supportActingMaster",
    ];

    fn changeable(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "deleteTopicWithBrokerRegistration" => Some(&mut self.delete_unnamed_topics),
            "enableAllTopicList" => Some(&mut self.all_topic_list),
            "enableTopicList" => Some(&mut self.topic_list),
            "orderMessageEnable" => Some(&mut self.order_messages),
            "returnOrderTopicConfigToBroker" => Some(&mut self.order_config_to_brokers),
            "supportActingMaster" => Some(&mut self.acting_masters),
            _ => None,
        }
    }

    /// All properties with their values, as Java writes them: `key=value` lines in the order of the keys.
    #[must_use]
    pub fn properties(&self) -> String {
        let mut lines = vec![
            format!("bindAddress={}\n", self.bind_address),
            format!("listenPort={}\n", self.port),
            format!("scanNotActiveBrokerInterval={SCAN_INTERVAL_MS}\n"),
        ];
        let mut copy = self.clone();
        for name in Self::CHANGEABLE {
            let value = copy.changeable(name).is_some_and(|value| *value);
            lines.push(format!("{name}={value}\n"));
        }
        lines.sort();
        lines.concat()
    }

    /// Changes one property. An `Err` says why not.
    pub fn change(&mut self, name: &str, value: &str) -> Result<(), String> {
        let Some(setting) = self.changeable(name) else {
            return Err(format!(
                "{name} cannot be changed while running; these can: {}",
                Self::CHANGEABLE.join(", ")
            ));
        };
        *setting = match value {
            "true" => true,
            "false" => false,
            _ => return Err(format!("{name}={value}: allowed are true and false")),
        };
        Ok(())
    }
}

/// See the top of the file.
#[derive(Debug, Default)]
pub struct NameServer {
    pub(super) settings: Settings,
    pub(super) table: RouteTable,
    pub(super) kv: Kv,
    next_scan_ms: u64,
}

impl NameServer {
    /// Knows nothing yet: brokers tell.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Takes the bytes of a stored `kvConfig.json`.
    pub fn load_kv(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.kv = Kv::load(bytes)?;
        Ok(())
    }

    /// The bytes of `kvConfig.json`, if they have changed since the last call: the caller stores them.
    pub fn take_dirty_kv(&mut self) -> Option<Vec<u8>> {
        self.kv.take_dirty()
    }

    /// Answers one request into `out`. `now_ms` is any clock that never goes back.
    pub fn serve(
        &mut self,
        request: &Request<'_>,
        from: ConnectionId,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) {
        requests::serve(self, request, from, now_ms, out);
    }

    /// A connection is gone, and with it the brokers that spoke over it last.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        let count = self.table.disconnected(connection);
        if 0 < count {
            tracing::warn!(
                brokers = count,
                "brokers are gone: their connection was closed"
            );
        }
    }

    /// Time passes: brokers that were silent for too long are forgotten. To be called every second or so.
    pub fn tick(&mut self, now_ms: u64) {
        if now_ms < self.next_scan_ms {
            return;
        }
        self.next_scan_ms = now_ms + SCAN_INTERVAL_MS;
        let count = self.table.expire(now_ms);
        if 0 < count {
            tracing::warn!(
                brokers = count,
                "brokers are gone: they did not register in time"
            );
        }
    }

    /// What is known, for counters and tests.
    #[must_use]
    pub const fn table(&self) -> &RouteTable {
        &self.table
    }
}

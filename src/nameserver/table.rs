//! The route table: which brokers live, and which queues of which topic each of them has (P§2.9).
//!
//! It holds what brokers said, by the rules of RocketMQ's NameServer. What clients are told of it is in
//! `route.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::command::{ConnectionId, DataVersion, TopicConfig};

use super::body::QueueMapping;

/// The id of a master among the brokers of one name.
pub const MASTER_ID: i64 = 0;

/// May be read, written, both (P§2.9 `perm`).
pub const PERM_READ: u32 = 4;
/// See [`PERM_READ`].
pub const PERM_WRITE: u32 = 2;

/// How long a broker lives without a word, unless it says otherwise.
pub const TIMEOUT_MS_DEFAULT: u64 = 120_000;

/// Bounds of the table, so that no peer can make it eat the machine.
const ADDRESS_COUNT_MAX: usize = 65_536;
const QUEUE_DATA_COUNT_MAX: usize = 16 * 1024 * 1024;
/// Longest name of a topic, broker, cluster, zone or address. Topics end at 127 bytes for clients, groups
/// at 255, and the topics that brokers make of groups add a few more.
const NAME_SIZE_MAX: usize = 1024;

/// The queues that one broker name has of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueData {
    /// As told by the broker.
    pub read_queue_count: u32,
    /// As told by the broker.
    pub write_queue_count: u32,
    /// As told by the broker, or changed by 205, 327 and the loss of a master.
    pub perm: u32,
    /// Unit bits.
    pub sys_flag: u32,
}

/// Brokers that share one name: a master and its slaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Of the registration that made it.
    pub cluster: Arc<str>,
    /// Id to `host:port`.
    pub addresses: BTreeMap<i64, String>,
    /// Whether its smallest slave may stand in for a lost master.
    pub acting_master: bool,
    /// As told last.
    pub zone: Option<String>,
}

impl Broker {
    /// What clients may ask when they want any of them: the master, else the smallest id.
    #[must_use]
    pub fn first_address(&self) -> Option<&str> {
        self.addresses.values().next().map(String::as_str)
    }
}

/// One registered process of a broker name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Live {
    name: Arc<str>,
    last_update_ms: u64,
    timeout_ms: u64,
    version: DataVersion,
    ha_address: String,
    filter_servers: Vec<String>,
    /// That spoke last: when it goes, so does the broker.
    connection: ConnectionId,
}

/// Cluster and `host:port`: what the NameServer knows a process by.
type LiveKey = (Arc<str>, Arc<str>);

/// A topic: by broker name, in the order of names, what each has of it.
#[derive(Debug, Default)]
struct Topic {
    queues: Vec<(Arc<str>, QueueData)>,
    /// Static topics only.
    mappings: BTreeMap<Arc<str>, QueueMapping>,
}

impl Topic {
    fn index(&self, name: &str) -> Result<usize, usize> {
        self.queues
            .binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

/// Who registers (the header of 103).
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // P§2.9 names them all.
pub struct Identity<'a> {
    pub cluster: &'a str,
    pub name: &'a str,
    pub address: &'a str,
    pub id: i64,
    pub ha_address: &'a str,
    /// `None`: [`TIMEOUT_MS_DEFAULT`].
    pub timeout_ms: Option<u64>,
    /// `None`: a broker that knows nothing of acting masters.
    pub acting_master: Option<bool>,
    pub zone: Option<&'a str>,
}

/// What it registers (the body of 103).
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Told {
    pub version: DataVersion,
    pub topics: Vec<TopicConfig>,
    pub mappings: Vec<(String, QueueMapping)>,
    pub filter_servers: Vec<String>,
}

/// What a slave learns by registering: empty for masters, and while there is no master.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Registered {
    pub master_address: Option<String>,
    pub ha_address: Option<String>,
}

/// Whether topics that a master no longer names are forgotten. Off in RocketMQ, where an incremental
/// registration names one topic only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Missing {
    Kept,
    Deleted,
}

/// See the top of the file.
#[derive(Debug, Default)]
pub struct RouteTable {
    brokers: BTreeMap<Arc<str>, Broker>,
    clusters: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    live: BTreeMap<LiveKey, Live>,
    topics: BTreeMap<Arc<str>, Topic>,
    /// Of all topics together.
    queue_data_count: usize,
}

impl RouteTable {
    /// 103. An `Err` is the remark of a refusal; nothing has changed then.
    pub fn register(
        &mut self,
        who: &Identity<'_>,
        told: Told,
        missing: Missing,
        from: ConnectionId,
        now_ms: u64,
    ) -> Result<Registered, String> {
        self.admit(who, &told)?;
        if self.is_older_rival(who, told.version) {
            // Two processes claim one name and id. The one that is behind is not heard, and not told:
            // it is to stay a broker that nobody finds, as in RocketMQ.
            self.live.remove(&live_key(who.cluster, who.address));
            return Ok(Registered::default());
        }
        let known = self.brokers.get(who.name);
        let first = known.is_none_or(|broker| !broker.addresses.contains_key(&who.id));
        if first && told.topics.len() == 1 {
            return Err(format!(
                "register broker failed: an incremental registration (one topic, {}) of broker {} with id {}, \
                 which has not registered yet; register all its topics first",
                told.topics[0].name, who.name, who.id
            ));
        }
        let name = self.place(who);
        let broker = &self.brokers[&name];
        let min_id = broker.addresses.keys().next().copied();
        let is_acting =
            who.acting_master.is_some() && who.id != MASTER_ID && min_id == Some(who.id);
        let writes = !(is_acting && broker.acting_master);
        let key = live_key(who.cluster, who.address);
        let changed = first
            || self
                .live
                .get(&key)
                .is_none_or(|live| live.version != told.version);
        if who.id == MASTER_ID || is_acting {
            if missing == Missing::Deleted && told.mappings.is_empty() {
                self.forget_unnamed(&name, &told.topics);
            }
            self.take_topics(&name, &told.topics, changed, writes);
            if changed {
                self.take_mappings(&name, told.mappings);
            }
        }
        self.live.insert(
            key,
            Live {
                name,
                last_update_ms: now_ms,
                timeout_ms: who.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
                version: told.version,
                ha_address: who.ha_address.to_owned(),
                filter_servers: told.filter_servers,
                connection: from,
            },
        );
        Ok(self.master_for(who))
    }

    /// Whether names and counts are within bounds.
    fn admit(&self, who: &Identity<'_>, told: &Told) -> Result<(), String> {
        for (what, text) in [
            ("clusterName", who.cluster),
            ("brokerName", who.name),
            ("brokerAddr", who.address),
            ("haServerAddr", who.ha_address),
            ("zoneName", who.zone.unwrap_or_default()),
        ] {
            if NAME_SIZE_MAX < text.len() {
                return Err(format!(
                    "{what} has {} bytes, allowed are {NAME_SIZE_MAX}",
                    text.len()
                ));
            }
        }
        let long = told.topics.iter().map(|topic| &topic.name);
        let mut long = long.chain(told.mappings.iter().map(|(name, _)| name));
        if let Some(name) = long.find(|name| NAME_SIZE_MAX < name.len()) {
            return Err(format!(
                "the name of a topic has {} bytes, allowed are {NAME_SIZE_MAX}",
                name.len()
            ));
        }
        if ADDRESS_COUNT_MAX <= self.live.len()
            && !self.live.contains_key(&live_key(who.cluster, who.address))
        {
            return Err(format!(
                "this NameServer knows {ADDRESS_COUNT_MAX} brokers already, which is its bound"
            ));
        }
        let room = QUEUE_DATA_COUNT_MAX - self.queue_data_count;
        // Only a table that is nearly full needs the exact number.
        if room < told.topics.len() && room < self.unknown_count(who.name, &told.topics) {
            return Err(format!(
                "this NameServer holds {} entries of topics and brokers, its bound is {QUEUE_DATA_COUNT_MAX}; delete topics",
                self.queue_data_count
            ));
        }
        Ok(())
    }

    fn unknown_count(&self, name: &str, topics: &[TopicConfig]) -> usize {
        let has = |topic: &&TopicConfig| {
            let known = self.topics.get(topic.name.as_str());
            known.is_some_and(|known| known.index(name).is_ok())
        };
        topics.len() - topics.iter().filter(has).count()
    }

    /// Whether another address holds this name and id with a newer state version.
    fn is_older_rival(&self, who: &Identity<'_>, version: DataVersion) -> bool {
        let holder = self
            .brokers
            .get(who.name)
            .and_then(|broker| broker.addresses.get(&who.id))
            .filter(|address| *address != who.address);
        holder
            .and_then(|address| self.live.get(&live_key(who.cluster, address)))
            .is_some_and(|live| version.state_version < live.version.state_version)
    }

    /// Puts the address under its name and id, and under no other id of that name.
    fn place(&mut self, who: &Identity<'_>) -> Arc<str> {
        let name: Arc<str> = match self.brokers.get_key_value(who.name) {
            Some((name, _)) => Arc::clone(name),
            None => who.name.into(),
        };
        let cluster: Arc<str> = match self.clusters.get_key_value(who.cluster) {
            Some((cluster, _)) => Arc::clone(cluster),
            None => who.cluster.into(),
        };
        self.clusters
            .entry(Arc::clone(&cluster))
            .or_default()
            .insert(Arc::clone(&name));
        let broker = self
            .brokers
            .entry(Arc::clone(&name))
            .or_insert_with(|| Broker {
                cluster,
                addresses: BTreeMap::new(),
                acting_master: false,
                zone: None,
            });
        broker.acting_master = who.acting_master.unwrap_or(false);
        broker.zone = who.zone.map(str::to_owned);
        broker
            .addresses
            .retain(|id, address| *id == who.id || address != who.address);
        broker.addresses.insert(who.id, who.address.to_owned());
        name
    }

    /// Replaces the queues of a broker, or only adds what is missing where its version did not change.
    fn take_topics(
        &mut self,
        name: &Arc<str>,
        topics: &[TopicConfig],
        changed: bool,
        writes: bool,
    ) {
        for config in topics {
            let perm = if writes {
                config.perm
            } else {
                config.perm & !PERM_WRITE
            };
            let data = QueueData {
                read_queue_count: config.read_queue_count,
                write_queue_count: config.write_queue_count,
                perm,
                sys_flag: config.sys_flag,
            };
            self.put_queue_data(&config.name, name, data, changed);
        }
    }

    fn put_queue_data(&mut self, topic: &str, name: &Arc<str>, data: QueueData, replace: bool) {
        let entry = match self.topics.get_mut(topic) {
            Some(entry) => entry,
            None => self.topics.entry(topic.into()).or_default(),
        };
        match entry.index(name) {
            Ok(at) if replace => entry.queues[at].1 = data,
            Ok(_) => {}
            Err(at) => {
                entry.queues.insert(at, (Arc::clone(name), data));
                self.queue_data_count += 1;
            }
        }
    }

    fn take_mappings(&mut self, name: &Arc<str>, mappings: Vec<(String, QueueMapping)>) {
        for (topic, mapping) in mappings {
            // A mapping without queues would be a topic that no route is made of.
            if let Some(topic) = self.topics.get_mut(topic.as_str()) {
                topic.mappings.insert(Arc::clone(name), mapping);
            }
        }
    }

    fn forget_unnamed(&mut self, name: &str, topics: &[TopicConfig]) {
        let named: BTreeSet<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        self.retain_queue_data(|topic, broker| broker != name || named.contains(topic));
    }

    fn master_for(&self, who: &Identity<'_>) -> Registered {
        if who.id == MASTER_ID {
            return Registered::default();
        }
        let master = self.brokers[who.name].addresses.get(&MASTER_ID);
        let found = master.and_then(|address| Some((address, self.live_of(who.cluster, address)?)));
        match found {
            Some((address, live)) => Registered {
                master_address: Some(address.clone()),
                ha_address: Some(live.ha_address.clone()),
            },
            None => Registered::default(),
        }
    }

    fn live_of(&self, cluster: &str, address: &str) -> Option<&Live> {
        self.live.get(&live_key(cluster, address))
    }

    /// 104.
    pub fn unregister(&mut self, cluster: &str, name: &str, address: &str) {
        self.live.remove(&live_key(cluster, address));
        self.remove_addresses(&[(name.into(), address.into())]);
    }

    /// A connection was closed: the brokers that spoke over it last are gone. How many they were.
    pub fn disconnected(&mut self, connection: ConnectionId) -> usize {
        self.remove_live(|live| live.connection == connection)
    }

    /// Forgets the brokers that were silent for too long. How many they were.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        self.remove_live(|live| live.last_update_ms.saturating_add(live.timeout_ms) < now_ms)
    }

    fn remove_live(&mut self, gone: impl Fn(&Live) -> bool) -> usize {
        let mut removed = Vec::new();
        self.live.retain(|(_, address), live| {
            let gone = gone(live);
            if gone {
                removed.push((Arc::clone(&live.name), Arc::clone(address)));
            }
            !gone
        });
        self.remove_addresses(&removed);
        removed.len()
    }

    /// Takes addresses out of their broker names; one walk over the topics for all of them.
    fn remove_addresses(&mut self, removed: &[(Arc<str>, Arc<str>)]) {
        let mut names_gone = BTreeSet::new();
        let mut names_without_master = BTreeSet::new();
        for (name, address) in removed {
            let Some(broker) = self.brokers.get_mut(name) else {
                continue;
            };
            broker.addresses.retain(|_, other| **other != **address);
            if broker.addresses.is_empty() {
                self.brokers.remove(name);
                names_gone.insert(Arc::clone(name));
            } else if broker.acting_master && !broker.addresses.contains_key(&MASTER_ID) {
                names_without_master.insert(Arc::clone(name));
            }
        }
        if !names_gone.is_empty() {
            for names in self.clusters.values_mut() {
                names.retain(|name| !names_gone.contains(name));
            }
            self.clusters.retain(|_, names| !names.is_empty());
            self.retain_queue_data(|_, name| !names_gone.contains(name));
        }
        for name in &names_without_master {
            self.change_perm(name, |perm| perm & !PERM_WRITE);
        }
    }

    fn retain_queue_data(&mut self, keep: impl Fn(&str, &str) -> bool) {
        let mut count = 0;
        self.topics.retain(|topic, entry| {
            entry.queues.retain(|(name, _)| keep(topic, name));
            entry.mappings.retain(|name, _| keep(topic, name));
            count += entry.queues.len();
            !entry.queues.is_empty()
        });
        self.queue_data_count = count;
    }

    /// 904, 322: a sign of life. Unknown brokers stay unknown: only a registration makes one.
    pub fn refresh(&mut self, cluster: &str, address: &str, now_ms: u64) {
        if let Some(live) = self.live.get_mut(&live_key(cluster, address)) {
            live.last_update_ms = now_ms;
        }
    }

    /// 322: the version that a broker registered with.
    #[must_use]
    pub fn version(&self, cluster: &str, address: &str) -> Option<DataVersion> {
        self.live_of(cluster, address).map(|live| live.version)
    }

    /// 205. How many topics it was.
    pub fn wipe_write_perm(&mut self, name: &str) -> usize {
        self.change_perm(name, |perm| perm & !PERM_WRITE)
    }

    /// 327. How many topics it was.
    pub fn add_write_perm(&mut self, name: &str) -> usize {
        self.change_perm(name, |_| PERM_READ | PERM_WRITE)
    }

    fn change_perm(&mut self, name: &str, change: impl Fn(u32) -> u32) -> usize {
        let mut count = 0;
        for topic in self.topics.values_mut() {
            if let Ok(at) = topic.index(name) {
                let data = &mut topic.queues[at].1;
                data.perm = change(data.perm);
                count += 1;
            }
        }
        count
    }

    /// 216: everywhere, or on the brokers of one cluster.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(entry) = self.topics.get_mut(topic) else {
            return;
        };
        let before = entry.queues.len();
        if let Some(cluster) = cluster {
            let Some(names) = self.clusters.get(cluster) else {
                return;
            };
            entry.queues.retain(|(name, _)| !names.contains(name));
            entry.mappings.retain(|name, _| !names.contains(name));
        } else {
            entry.queues.clear();
        }
        self.queue_data_count -= before - entry.queues.len();
        if entry.queues.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// 217: queues of known brokers only; the first unknown one ends it, as in RocketMQ.
    pub fn register_topic(
        &mut self,
        topic: &str,
        queues: &[(String, QueueData)],
    ) -> Result<(), String> {
        if NAME_SIZE_MAX < topic.len()
            || QUEUE_DATA_COUNT_MAX < self.queue_data_count + queues.len()
        {
            return Err(format!(
                "topic {topic:.64} is beyond the bounds: names {NAME_SIZE_MAX} bytes, entries {QUEUE_DATA_COUNT_MAX}"
            ));
        }
        for (name, data) in queues {
            let Some((name, _)) = self.brokers.get_key_value(name.as_str()) else {
                return Ok(());
            };
            let name = Arc::clone(name);
            self.put_queue_data(topic, &name, *data, true);
        }
        Ok(())
    }

    /// Broker names with their addresses.
    pub fn brokers(&self) -> impl Iterator<Item = (&str, &Broker)> {
        self.brokers.iter().map(|(name, broker)| (&**name, broker))
    }

    /// One broker name.
    #[must_use]
    pub fn broker(&self, name: &str) -> Option<&Broker> {
        self.brokers.get(name)
    }

    /// Clusters with the names of their brokers.
    pub fn clusters(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.clusters
            .iter()
            .map(|(cluster, names)| (&**cluster, names.iter().map(|name| &**name)))
    }

    /// Names of all topics.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(|topic| &**topic)
    }

    /// The queues of a topic, by broker name; `None` where nobody has it.
    #[must_use]
    pub fn queues(&self, topic: &str) -> Option<&[(Arc<str>, QueueData)]> {
        self.topics.get(topic).map(|topic| &*topic.queues)
    }

    /// 311, 312, 313: topics whose first queue data has such a sys flag.
    pub fn topics_by_sys_flag(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = &str> {
        self.topics.iter().filter_map(move |(name, topic)| {
            let (_, data) = topic.queues.first()?;
            wanted(data.sys_flag).then_some(&**name)
        })
    }

    /// 224: topics that some broker of the cluster has.
    #[must_use]
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<&str> {
        let Some(names) = self.clusters.get(cluster) else {
            return Vec::new();
        };
        let has = |topic: &Topic| topic.queues.iter().any(|(name, _)| names.contains(name));
        let topics = self.topics.iter();
        topics
            .filter(|(_, topic)| has(topic))
            .map(|(name, _)| &**name)
            .collect()
    }

    /// Static topics: by broker name, how its queues are mapped.
    #[must_use]
    pub fn mappings(&self, topic: &str) -> Option<&BTreeMap<Arc<str>, QueueMapping>> {
        let mappings = &self.topics.get(topic)?.mappings;
        (!mappings.is_empty()).then_some(mappings)
    }

    /// Filter servers of a registered address (historic).
    #[must_use]
    pub fn filter_servers(&self, cluster: &str, address: &str) -> &[String] {
        self.live_of(cluster, address)
            .map_or(&[], |live| &live.filter_servers)
    }
}

fn live_key(cluster: &str, address: &str) -> LiveKey {
    (cluster.into(), address.into())
}

//! What clients and tools are told of the route table, as JSON: compact, every key in quotes, the keys in
//! the order of the alphabet. Go's client cuts the raw text apart at colons and commas, and Rust's reads
//! no bare numbers as keys (P§2.9 and gotchas 14 to 16), so this one form is for everybody.

use std::collections::BTreeMap;

use serde::Serialize;

use super::body::QueueMapping;
use super::table::{Broker, MASTER_ID, PERM_WRITE, RouteTable};

/// The route of topics of this kind is never bent for acting masters.
const SYNC_MEMBERS_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteWritten<'a> {
    broker_datas: Vec<BrokerWritten<'a>>,
    filter_server_table: BTreeMap<&'a str, &'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_topic_conf: Option<&'a str>,
    queue_datas: Vec<QueueWritten<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_queue_mapping_by_broker: Option<BTreeMap<&'a str, &'a QueueMapping>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BrokerWritten<'a> {
    broker_addrs: BTreeMap<i64, &'a str>,
    broker_name: &'a str,
    cluster: &'a str,
    enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_name: Option<&'a str>,
}

impl<'a> BrokerWritten<'a> {
    fn new(name: &'a str, broker: &'a Broker) -> Self {
        let addresses = broker.addresses.iter();
        Self {
            broker_addrs: addresses
                .map(|(id, address)| (*id, address.as_str()))
                .collect(),
            broker_name: name,
            cluster: &broker.cluster,
            enable_acting_master: broker.acting_master,
            zone_name: broker.zone.as_deref(),
        }
    }

    /// Shows the smallest slave as the master.
    fn promote(&mut self) {
        if let Some((_, address)) = self.broker_addrs.pop_first() {
            self.broker_addrs.insert(MASTER_ID, address);
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueWritten<'a> {
    broker_name: &'a str,
    perm: u32,
    read_queue_nums: u32,
    topic_sys_flag: u32,
    write_queue_nums: u32,
}

/// 105; `None` where no broker that lives has the topic.
#[must_use]
pub fn of_topic(
    table: &RouteTable,
    topic: &str,
    order_topic_conf: Option<&str>,
    acting_masters: bool,
) -> Option<Vec<u8>> {
    let queues = table.queues(topic)?;
    let mut brokers = Vec::new();
    let mut filter_server_table = BTreeMap::new();
    for (name, data) in queues {
        let Some(broker) = table.broker(name) else {
            continue;
        };
        for address in broker.addresses.values() {
            let servers = table.filter_servers(&broker.cluster, address);
            if !servers.is_empty() {
                filter_server_table.insert(address.as_str(), servers);
            }
        }
        let mut written = BrokerWritten::new(name, broker);
        let stands_in = acting_masters
            && broker.acting_master
            && !broker.addresses.contains_key(&MASTER_ID)
            && data.perm & PERM_WRITE == 0
            && !topic.starts_with(SYNC_MEMBERS_PREFIX);
        if stands_in {
            written.promote();
        }
        brokers.push(written);
    }
    if brokers.is_empty() {
        return None;
    }
    let queue_datas = queues
        .iter()
        .map(|(name, data)| QueueWritten {
            broker_name: name,
            perm: data.perm,
            read_queue_nums: data.read_queue_count,
            topic_sys_flag: data.sys_flag,
            write_queue_nums: data.write_queue_count,
        })
        .collect();
    Some(json(&RouteWritten {
        broker_datas: brokers,
        filter_server_table,
        order_topic_conf,
        queue_datas,
        topic_queue_mapping_by_broker: table.mappings(topic).map(|mappings| {
            let mappings = mappings.iter();
            mappings.map(|(name, mapping)| (&**name, mapping)).collect()
        }),
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClustersWritten<'a> {
    broker_addr_table: BTreeMap<&'a str, BrokerWritten<'a>>,
    cluster_addr_table: BTreeMap<&'a str, Vec<&'a str>>,
}

/// 106.
#[must_use]
pub fn of_clusters(table: &RouteTable) -> Vec<u8> {
    json(&ClustersWritten {
        broker_addr_table: table
            .brokers()
            .map(|(name, broker)| (name, BrokerWritten::new(name, broker)))
            .collect(),
        cluster_addr_table: table
            .clusters()
            .map(|(cluster, names)| (cluster, names.collect()))
            .collect(),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicsWritten<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_addr: Option<&'a str>,
    topic_list: Vec<&'a str>,
}

/// 206, 224, 304, 311 to 313.
#[must_use]
pub fn topic_list(topics: Vec<&str>, broker_address: Option<&str>) -> Vec<u8> {
    json(&TopicsWritten {
        broker_addr: broker_address,
        topic_list: topics,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MembersWritten<'a> {
    broker_member_group: GroupWritten<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupWritten<'a> {
    broker_addrs: BTreeMap<i64, &'a str>,
    broker_name: &'a str,
    cluster: &'a str,
}

/// 901: empty addresses where nobody has that name.
#[must_use]
pub fn of_members(table: &RouteTable, cluster: &str, name: &str) -> Vec<u8> {
    let addresses = table.broker(name).map(|broker| &broker.addresses);
    json(&MembersWritten {
        broker_member_group: GroupWritten {
            broker_addrs: addresses
                .into_iter()
                .flatten()
                .map(|(id, address)| (*id, address.as_str()))
                .collect(),
            broker_name: name,
            cluster,
        },
    })
}

#[derive(Serialize)]
struct TableWritten<'a> {
    table: &'a BTreeMap<String, String>,
}

/// 219, and the answer to 103.
#[must_use]
pub fn of_values(values: &BTreeMap<String, String>) -> Vec<u8> {
    json(&TableWritten { table: values })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("every key here is text or a number")
}

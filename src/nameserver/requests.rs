//! The NameServer's requests: one decoded frame in, its answer out (P§2.9).

use crate::command::ConnectionId;
use crate::protocol::rocketmq::frame::{FRAME_SIZE_MAX, HEADER_SIZE_MAX, Request, encode_response};

use super::kv::ORDER_NAMESPACE;
use super::server::NameServer;
use super::table::{Identity, Missing};
use super::{body, route};

macro_rules! codes {
    ($($name:ident = $value:literal),* $(,)?) => {
        $(
            #[doc = concat!("Request code `", stringify!($name), "`.")]
            pub const $name: i32 = $value;
        )*
    };
}

codes! {
    PUT_KV_CONFIG = 100,
    GET_KV_CONFIG = 101,
    DELETE_KV_CONFIG = 102,
    REGISTER_BROKER = 103,
    UNREGISTER_BROKER = 104,
    GET_ROUTEINFO_BY_TOPIC = 105,
    GET_BROKER_CLUSTER_INFO = 106,
    WIPE_WRITE_PERM_OF_BROKER = 205,
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206,
    DELETE_TOPIC_IN_NAMESRV = 216,
    REGISTER_TOPIC_IN_NAMESRV = 217,
    GET_KVLIST_BY_NAMESPACE = 219,
    GET_TOPICS_BY_CLUSTER = 224,
    GET_SYSTEM_TOPIC_LIST_FROM_NS = 304,
    GET_UNIT_TOPIC_LIST = 311,
    GET_HAS_UNIT_SUB_TOPIC_LIST = 312,
    GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST = 313,
    UPDATE_NAMESRV_CONFIG = 318,
    GET_NAMESRV_CONFIG = 319,
    QUERY_DATA_VERSION = 322,
    ADD_WRITE_PERM_OF_BROKER = 327,
    GET_BROKER_MEMBER_GROUP = 901,
    BROKER_HEARTBEAT = 904,
}

const SYSTEM_ERROR: i32 = 1;
const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
const NO_PERMISSION: i32 = 16;
const TOPIC_NOT_EXIST: i32 = 17;
const QUERY_NOT_FOUND: i32 = 22;

/// Bits of a topic's sys flag: it is a unit topic; it is subscribed to by a unit.
const UNIT: u32 = 1;
const UNIT_SUB: u32 = 2;

/// The header's field in which a broker of ours says that a registration names what has changed, and not all there is.
/// Apache's NameServer passes it over.
pub const INCREMENTAL: &str = "incremental";

/// Brokers below 3.0.11 register in a form of their own, which no broker of the last ten years writes.
const BROKER_VERSION_MIN: i32 = 37;

/// What is answered.
#[derive(Debug, Default)]
struct Reply {
    code: i32,
    remark: Option<String>,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn body(body: Vec<u8>) -> Self {
        Self {
            body,
            ..Self::default()
        }
    }

    fn field(name: &'static str, value: impl ToString) -> Self {
        Self {
            fields: vec![(name, value.to_string())],
            ..Self::default()
        }
    }

    fn refused(code: i32, remark: impl Into<String>) -> Self {
        Self {
            code,
            remark: Some(remark.into()),
            ..Self::default()
        }
    }

    fn encode(self, note: u64, out: &mut Vec<u8>) {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let remark = self.remark.as_deref();
        let before = out.len();
        encode_response(out, note, self.code, remark, &fields, self.body.len());
        // Nothing was written where the request wants no answer.
        if before < out.len() {
            out.extend_from_slice(&self.body);
        }
    }
}

/// A refusal on the way out of a request.
type Outcome = Result<Reply, Reply>;

/// Answers one request into `out`; a oneway request is done and not answered, a response is nobody's here.
pub fn serve(
    server: &mut NameServer,
    request: &Request<'_>,
    from: ConnectionId,
    now_ms: u64,
    out: &mut Vec<u8>,
) {
    if request.is_response() {
        return;
    }
    let reply = answer(server, request, from, now_ms).unwrap_or_else(|refusal| refusal);
    let reply = if FRAME_SIZE_MAX - HEADER_SIZE_MAX < reply.body.len() {
        Reply::refused(
            SYSTEM_ERROR,
            format!(
                "the answer has {} bytes, which fits into no frame: ask for less, e.g. by cluster (224) or topic (105)",
                reply.body.len()
            ),
        )
    } else {
        reply
    };
    reply.encode(request.note(), out);
}

fn answer(
    server: &mut NameServer,
    request: &Request<'_>,
    from: ConnectionId,
    now_ms: u64,
) -> Outcome {
    match request.code {
        GET_ROUTEINFO_BY_TOPIC => route_of_topic(server, request),
        REGISTER_BROKER => register(server, request, from, now_ms),
        UNREGISTER_BROKER => unregister(server, request),
        QUERY_DATA_VERSION => query_version(server, request, now_ms),
        BROKER_HEARTBEAT => heartbeat(server, request, now_ms),
        GET_BROKER_CLUSTER_INFO => Ok(Reply::body(route::of_clusters(&server.table))),
        GET_BROKER_MEMBER_GROUP => {
            let cluster = required(request, "clusterName")?;
            let name = required(request, "brokerName")?;
            Ok(Reply::body(route::of_members(&server.table, cluster, name)))
        }
        WIPE_WRITE_PERM_OF_BROKER => {
            let count = server
                .table
                .wipe_write_perm(required(request, "brokerName")?);
            Ok(Reply::field("wipeTopicCount", count))
        }
        ADD_WRITE_PERM_OF_BROKER => {
            let count = server
                .table
                .add_write_perm(required(request, "brokerName")?);
            Ok(Reply::field("addTopicCount", count))
        }
        DELETE_TOPIC_IN_NAMESRV => {
            let topic = required(request, "topic")?;
            let cluster = request
                .field("clusterName")
                .filter(|name| !name.trim().is_empty());
            server.table.delete_topic(topic, cluster);
            Ok(Reply::default())
        }
        REGISTER_TOPIC_IN_NAMESRV => register_topic(server, request),
        GET_ALL_TOPIC_LIST_FROM_NAMESERVER
        | GET_TOPICS_BY_CLUSTER
        | GET_SYSTEM_TOPIC_LIST_FROM_NS
        | GET_UNIT_TOPIC_LIST
        | GET_HAS_UNIT_SUB_TOPIC_LIST
        | GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => topic_list(server, request),
        PUT_KV_CONFIG | GET_KV_CONFIG | DELETE_KV_CONFIG | GET_KVLIST_BY_NAMESPACE => {
            values(server, request)
        }
        GET_NAMESRV_CONFIG => Ok(Reply::body(server.settings.properties().into_bytes())),
        UPDATE_NAMESRV_CONFIG => update_settings(server, request.body),
        code => Err(Reply::refused(
            REQUEST_CODE_NOT_SUPPORTED,
            // Apache's remark begins with a blank.
            format!(" request type {code} not supported"),
        )),
    }
}

/// A header field that must be there.
fn required<'a>(request: &Request<'a>, name: &str) -> Result<&'a str, Reply> {
    request
        .field(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| {
            let code = request.code;
            Reply::refused(
                SYSTEM_ERROR,
                format!("request {code} needs the header field {name}, which is missing"),
            )
        })
}

/// A number that may be left out.
fn number<T: std::str::FromStr>(request: &Request<'_>, name: &str) -> Result<Option<T>, Reply> {
    let Some(text) = request.field(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let code = request.code;
        Reply::refused(
            SYSTEM_ERROR,
            format!("request {code}: the header field {name}={text:.40} is not such a number"),
        )
    })
}

fn flag(request: &Request<'_>, name: &str) -> Option<bool> {
    let text = request.field(name).filter(|text| !text.is_empty())?;
    Some(text.eq_ignore_ascii_case("true"))
}

fn route_of_topic(server: &NameServer, request: &Request<'_>) -> Outcome {
    let topic = required(request, "topic")?;
    let order = if server.settings.order_messages {
        server.kv.value(ORDER_NAMESPACE, topic)
    } else {
        None
    };
    let found = route::of_topic(&server.table, topic, order, server.settings.acting_masters);
    found.map(Reply::body).ok_or_else(|| {
        Reply::refused(
            TOPIC_NOT_EXIST,
            // Clients and tools look for how this begins; any other code would keep producers from
            // asking for the default topic.
            format!(
                "No topic route info in name server for the topic: {topic:.255}\nSee \
                 https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            ),
        )
    })
}

fn identity<'a>(request: &Request<'a>) -> Result<Identity<'a>, Reply> {
    let id = number(request, "brokerId")?;
    Ok(Identity {
        cluster: required(request, "clusterName")?,
        name: required(request, "brokerName")?,
        address: required(request, "brokerAddr")?,
        id: match id {
            Some(id) => id,
            None => return Err(required(request, "brokerId").expect_err("it is missing")),
        },
        ha_address: request.field("haServerAddr").unwrap_or_default(),
        timeout_ms: number(request, "heartbeatTimeoutMillis")?,
        acting_master: flag(request, "enableActingMaster"),
        zone: request.field("__ZONE_NAME").filter(|zone| !zone.is_empty()),
    })
}

fn register(
    server: &mut NameServer,
    request: &Request<'_>,
    from: ConnectionId,
    now_ms: u64,
) -> Outcome {
    let who = identity(request)?;
    if request.version < BROKER_VERSION_MIN {
        return Err(Reply::refused(
            SYSTEM_ERROR,
            format!(
                "register broker failed: broker {} reports version {}, this NameServer reads registrations from {BROKER_VERSION_MIN} on (3.0.11)",
                who.name, request.version
            ),
        ));
    }
    let compressed = flag(request, "compressed").unwrap_or(false);
    let crc = number::<u32>(request, "bodyCrc32")?.unwrap_or(0);
    let told = body::decode(request.body, compressed, crc, request.version)
        .map_err(|why| Reply::refused(SYSTEM_ERROR, why))?;
    let is_part = flag(request, INCREMENTAL).unwrap_or(false);
    let missing = if server.settings.delete_unnamed_topics && !is_part {
        Missing::Deleted
    } else {
        Missing::Kept
    };
    let registered = server
        .table
        .register(&who, told, missing, from, now_ms)
        .map_err(|why| Reply::refused(SYSTEM_ERROR, why))?;
    let mut reply = Reply::default();
    let fields = [
        ("haServerAddr", registered.ha_address),
        ("masterAddr", registered.master_address),
    ];
    let known = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    reply.fields.extend(known);
    if server.settings.order_config_to_brokers
        && let Some(values) = server.kv.namespace(ORDER_NAMESPACE)
    {
        reply.body = route::of_values(values);
    }
    Ok(reply)
}

fn unregister(server: &mut NameServer, request: &Request<'_>) -> Outcome {
    let cluster = required(request, "clusterName")?;
    let name = required(request, "brokerName")?;
    let address = required(request, "brokerAddr")?;
    server.table.unregister(cluster, name, address);
    Ok(Reply::default())
}

fn query_version(server: &mut NameServer, request: &Request<'_>, now_ms: u64) -> Outcome {
    let cluster = required(request, "clusterName")?;
    let address = required(request, "brokerAddr")?;
    let theirs = body::decode_version(request.body)
        .map_err(|why| Reply::refused(SYSTEM_ERROR, format!("request 322: {why}")))?;
    server.table.refresh(cluster, address, now_ms);
    let ours = server.table.version(cluster, address);
    let mut reply = Reply::field("changed", ours != Some(theirs));
    reply.body = ours.map(body::encode_version).unwrap_or_default();
    Ok(reply)
}

fn heartbeat(server: &mut NameServer, request: &Request<'_>, now_ms: u64) -> Outcome {
    let cluster = required(request, "clusterName")?;
    let address = required(request, "brokerAddr")?;
    server.table.refresh(cluster, address, now_ms);
    Ok(Reply::default())
}

fn register_topic(server: &mut NameServer, request: &Request<'_>) -> Outcome {
    let topic = required(request, "topic")?;
    if !request.body.is_empty() {
        let queues = body::decode_route_queues(request.body)
            .map_err(|why| Reply::refused(SYSTEM_ERROR, format!("request 217: {why}")))?;
        server
            .table
            .register_topic(topic, &queues)
            .map_err(|why| Reply::refused(SYSTEM_ERROR, why))?;
    }
    Ok(Reply::default())
}

fn topic_list(server: &NameServer, request: &Request<'_>) -> Outcome {
    let table = &server.table;
    let (enabled, setting) = if request.code == GET_ALL_TOPIC_LIST_FROM_NAMESERVER {
        (server.settings.all_topic_list, "enableAllTopicList")
    } else {
        (server.settings.topic_list, "enableTopicList")
    };
    if !enabled {
        return Err(Reply::refused(
            SYSTEM_ERROR,
            format!("disable: the setting {setting} of this NameServer is false"),
        ));
    }
    let mut broker_address = None;
    let topics = match request.code {
        GET_ALL_TOPIC_LIST_FROM_NAMESERVER => table.topics().collect(),
        GET_TOPICS_BY_CLUSTER => table.topics_of_cluster(required(request, "cluster")?),
        GET_SYSTEM_TOPIC_LIST_FROM_NS => {
            broker_address = table
                .brokers()
                .find_map(|(_, broker)| broker.first_address());
            let clusters = table.clusters();
            clusters
                .flat_map(|(cluster, names)| std::iter::once(cluster).chain(names))
                .collect()
        }
        GET_UNIT_TOPIC_LIST => table.topics_by_sys_flag(|flag| flag & UNIT != 0).collect(),
        GET_HAS_UNIT_SUB_TOPIC_LIST => table
            .topics_by_sys_flag(|flag| flag & UNIT_SUB != 0)
            .collect(),
        _ => table
            .topics_by_sys_flag(|flag| flag & (UNIT | UNIT_SUB) == UNIT_SUB)
            .collect(),
    };
    Ok(Reply::body(route::topic_list(topics, broker_address)))
}

fn values(server: &mut NameServer, request: &Request<'_>) -> Outcome {
    let namespace = required(request, "namespace")?;
    if request.code == GET_KVLIST_BY_NAMESPACE {
        let found = server.kv.namespace(namespace);
        return found
            .map(|values| Reply::body(route::of_values(values)))
            .ok_or_else(|| {
                let remark = format!("No config item, Namespace: {namespace}");
                Reply::refused(QUERY_NOT_FOUND, remark)
            });
    }
    let key = required(request, "key")?;
    match request.code {
        PUT_KV_CONFIG => {
            let value = request.field("value").ok_or_else(|| {
                Reply::refused(
                    SYSTEM_ERROR,
                    "request 100 needs the header field value, which is missing",
                )
            })?;
            let put = server.kv.put(namespace, key, value);
            put.map_err(|why| Reply::refused(SYSTEM_ERROR, why))?;
            Ok(Reply::default())
        }
        DELETE_KV_CONFIG => {
            server.kv.delete(namespace, key);
            Ok(Reply::default())
        }
        _ => match server.kv.value(namespace, key) {
            Some(value) => Ok(Reply::field("value", value)),
            None => Err(Reply::refused(
                QUERY_NOT_FOUND,
                format!("No config item, Namespace: {namespace} Key: {key}"),
            )),
        },
    }
}

/// 318: lines of Java properties; all of them are taken, or none.
fn update_settings(server: &mut NameServer, body: &[u8]) -> Outcome {
    let text = std::str::from_utf8(body).map_err(|_| {
        Reply::refused(
            SYSTEM_ERROR,
            "request 318: the properties are not UTF-8 text",
        )
    })?;
    let mut settings = server.settings.clone();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| {
            Reply::refused(
                SYSTEM_ERROR,
                format!("request 318: {line:.80} is not key=value"),
            )
        })?;
        let changed = settings.change(name.trim(), value.trim());
        changed.map_err(|why| Reply::refused(NO_PERMISSION, why))?;
    }
    server.settings = settings;
    Ok(Reply::default())
}

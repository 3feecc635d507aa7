//! What a broker registers: the body of request 103, read in both of its forms and written as JSON (P§2.9).

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::base::Reader;
use crate::command::{DataVersion, TopicConfig};

use super::table::{QueueData, Told};

/// Brokers of this version and above say in the compressed form how static topics are mapped.
const VERSION_WITH_MAPPINGS: i32 = 413;

/// A compressed body may not unpack to more: 100,000 topics have about 8 MiB.
const UNPACKED_SIZE_MAX: usize = 64 * 1024 * 1024;

/// How the queues of a static topic lie on a broker; only handed on to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // RocketMQ's names.
pub struct QueueMapping {
    #[serde(default)]
    pub bname: String,
    #[serde(default)]
    pub curr_id_map: BTreeMap<i32, i32>,
    #[serde(default)]
    pub dirty: bool,
    #[serde(default)]
    pub epoch: i64,
    #[serde(default)]
    pub scope: String,
    #[serde(default)]
    pub topic: String,
    #[serde(default)]
    pub total_queues: i32,
}

/// Reads the body of a 103 as it came. `crc` is the header's `bodyCrc32`, 0 = not checked.
///
/// Apache's 5.5.0 broker with `compressedRegister=true` packs the body and says `compressed=false` (its own
/// NameServer refuses that): a zlib stream is taken for what it is.
pub fn decode(body: &[u8], compressed: bool, crc: u32, version: i32) -> Result<Told, String> {
    if crc != 0 && crc != crc_of(body) {
        return Err(format!(
            "register broker failed: crc32 not match, the header says {crc}, the body of {} bytes has {}",
            body.len(),
            crc_of(body)
        ));
    }
    let told = if body.is_empty() {
        Ok(Told::default())
    } else if compressed || is_zlib(body) {
        unpack(body).and_then(|bytes| read_compressed(&bytes, version))
    } else {
        read_json(body)
    };
    told.map_err(|why| format!("register broker failed: {why}"))
}

/// What `bodyCrc32` holds: Java keeps the sign bit out of it.
#[must_use]
pub fn crc_of(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7fff_ffff
}

/// The JSON form, for our own brokers.
#[must_use]
pub fn encode(topics: &[impl Borrow<TopicConfig>], version: DataVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + topics.len() * 192);
    out.extend_from_slice(
        br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":"#,
    );
    put_json(&mut out, &VersionJson::from(version));
    out.extend_from_slice(br#","mappingDataVersion":"#);
    put_json(&mut out, &VersionJson::from(DataVersion::default()));
    out.extend_from_slice(br#","topicConfigTable":{"#);
    for (index, topic) in topics.iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        let topic = topic.borrow();
        put_json(&mut out, &topic.name);
        out.push(b':');
        put_json(&mut out, &TopicWritten::from(topic));
    }
    out.extend_from_slice(br#"},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#);
    out
}

/// The compressed form, for a broker with so many topics that their JSON fits into no frame. It has no
/// room for the order and sys flags of topics.
#[must_use]
pub fn encode_compressed(topics: &[impl Borrow<TopicConfig>], version: DataVersion) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::fast());
    let mut put = |bytes: &[u8]| {
        let written = out.write_all(bytes);
        written.expect("a Vec takes every byte");
    };
    let mut piece = Vec::new();
    let put_piece = |put: &mut dyn FnMut(&[u8]), piece: &[u8]| {
        put(&(piece.len() as u32).to_be_bytes());
        put(piece);
    };
    put_piece(&mut put, &encode_version(version));
    put(&(topics.len() as u32).to_be_bytes());
    for topic in topics {
        let topic = topic.borrow();
        let written = TopicWritten::from(topic);
        let (reads, writes, perm) = (topic.read_queue_count, topic.write_queue_count, topic.perm);
        let kind = written.topic_filter_type;
        piece.clear();
        piece.extend_from_slice(
            format!("{} {reads} {writes} {perm} {kind} ", topic.name).as_bytes(),
        );
        put_json(&mut piece, &written.attributes);
        put_piece(&mut put, &piece);
    }
    put_piece(&mut put, b"[]");
    put(&0u32.to_be_bytes()); // queue mappings
    out.finish().expect("a Vec takes every byte")
}

fn put_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a Vec takes every byte, and the keys are text");
}

/// A data version as JSON, for 322.
#[must_use]
pub fn encode_version(version: DataVersion) -> Vec<u8> {
    let mut out = Vec::new();
    put_json(&mut out, &VersionJson::from(version));
    out
}

/// The other way round.
pub fn decode_version(body: &[u8]) -> Result<DataVersion, String> {
    from_json::<VersionJson>(body, "the data version").map(DataVersion::from)
}

/// The queue data of a 217, which sends a whole route.
pub fn decode_route_queues(body: &[u8]) -> Result<Vec<(String, QueueData)>, String> {
    let route: RouteRead = from_json(body, "the route")?;
    let queues = route.queue_datas.unwrap_or_default().into_iter();
    Ok(queues
        .map(|queue| {
            let data = QueueData {
                read_queue_count: queue.read_queue_nums,
                write_queue_count: queue.write_queue_nums,
                perm: queue.perm,
                sys_flag: queue.topic_sys_flag,
            };
            (queue.broker_name, data)
        })
        .collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteRead {
    #[serde(default)]
    queue_datas: Option<Vec<QueueRead>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueRead {
    broker_name: String,
    #[serde(default)]
    perm: u32,
    #[serde(default)]
    read_queue_nums: u32,
    #[serde(default)]
    topic_sys_flag: u32,
    #[serde(default)]
    write_queue_nums: u32,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionJson {
    #[serde(default)]
    counter: i64,
    #[serde(default)]
    state_version: i64,
    #[serde(default)]
    timestamp: i64,
}

impl From<VersionJson> for DataVersion {
    fn from(read: VersionJson) -> Self {
        Self {
            counter: read.counter,
            state_version: read.state_version,
            timestamp_ms: read.timestamp,
        }
    }
}

impl From<DataVersion> for VersionJson {
    fn from(version: DataVersion) -> Self {
        Self {
            counter: version.counter,
            state_version: version.state_version,
            timestamp: version.timestamp_ms,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicWritten<'a> {
    attributes: BTreeMap<&'a str, &'a str>,
    order: bool,
    perm: u32,
    read_queue_nums: u32,
    topic_filter_type: &'static str,
    topic_name: &'a str,
    topic_sys_flag: u32,
    write_queue_nums: u32,
}

impl<'a> From<&'a TopicConfig> for TopicWritten<'a> {
    fn from(topic: &'a TopicConfig) -> Self {
        let attributes = topic.attributes.iter();
        Self {
            attributes: attributes
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            order: topic.order,
            perm: topic.perm,
            read_queue_nums: topic.read_queue_count,
            topic_filter_type: if topic.multi_tag {
                "MULTI_TAG"
            } else {
                "SINGLE_TAG"
            },
            topic_name: &topic.name,
            topic_sys_flag: topic.sys_flag,
            write_queue_nums: topic.write_queue_count,
        }
    }
}

/// As Java's `TopicConfig` has it where a key is left out: 16 queues, readable and writable.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopicRead {
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    order: bool,
    #[serde(default = "perm_read_write")]
    perm: u32,
    #[serde(default = "sixteen")]
    read_queue_nums: u32,
    #[serde(default)]
    topic_filter_type: Option<String>,
    #[serde(default)]
    topic_sys_flag: u32,
    #[serde(default = "sixteen")]
    write_queue_nums: u32,
}

const fn perm_read_write() -> u32 {
    super::table::PERM_READ | super::table::PERM_WRITE
}

const fn sixteen() -> u32 {
    16
}

impl TopicRead {
    fn named(self, name: String) -> TopicConfig {
        TopicConfig {
            name,
            read_queue_count: self.read_queue_nums,
            write_queue_count: self.write_queue_nums,
            perm: self.perm,
            multi_tag: self.topic_filter_type.as_deref() == Some("MULTI_TAG"),
            sys_flag: self.topic_sys_flag,
            order: self.order,
            attributes: self.attributes.unwrap_or_default().into_iter().collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BodyRead {
    #[serde(default)]
    filter_server_list: Option<Vec<String>>,
    #[serde(default)]
    topic_config_serialize_wrapper: Option<WrapperRead>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrapperRead {
    #[serde(default, deserialize_with = "null_is_default")]
    data_version: VersionJson,
    #[serde(default, deserialize_with = "null_is_default")]
    topic_config_table: BTreeMap<String, TopicRead>,
    #[serde(default, deserialize_with = "null_is_default")]
    topic_queue_mapping_info_map: BTreeMap<String, QueueMapping>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn read_json(body: &[u8]) -> Result<Told, String> {
    let read: BodyRead = from_json(body, "the body")?;
    let wrapper = read.topic_config_serialize_wrapper.unwrap_or_default();
    let topics = wrapper.topic_config_table.into_iter();
    Ok(Told {
        version: wrapper.data_version.into(),
        topics: topics.map(|(name, topic)| topic.named(name)).collect(),
        mappings: wrapper.topic_queue_mapping_info_map.into_iter().collect(),
        filter_servers: read.filter_server_list.unwrap_or_default(),
    })
}

/// JSON as Java writes it: maps with numbers as keys do not quote them.
fn from_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice(&quote_keys(bytes)))
        .map_err(|error| format!("{what} is not the JSON that is expected: {error}"))
}

/// `{0:"a",-1:"b"}` becomes `{"0":"a","-1":"b"}`; text in quotes stays as it is.
fn quote_keys(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let mut at = 0;
    let mut in_text = false;
    while let Some(&byte) = bytes.get(at) {
        out.push(byte);
        at += 1;
        if in_text {
            match byte {
                b'\\' => {
                    out.extend(bytes.get(at));
                    at += 1;
                }
                b'"' => in_text = false,
                _ => {}
            }
        } else if byte == b'"' {
            in_text = true;
        } else if matches!(byte, b'{' | b',') {
            let rest = &bytes[at..];
            let digits = rest
                .iter()
                .take_while(|byte| byte.is_ascii_digit() || **byte == b'-')
                .count();
            if 0 < digits && rest.get(digits) == Some(&b':') {
                out.push(b'"');
                out.extend_from_slice(&rest[..digits]);
                out.push(b'"');
                at += digits;
            }
        }
    }
    out
}

/// The two first bytes of a zlib stream name deflate and are a multiple of 31; those of JSON never do.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..]
        if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = UNPACKED_SIZE_MAX as u64 + 1;
    let read = if is_zlib(body) {
        let unpacker = flate2::read::ZlibDecoder::new(body);
        unpacker.take(limit).read_to_end(&mut bytes)
    } else {
        let unpacker = flate2::read::DeflateDecoder::new(body);
        unpacker.take(limit).read_to_end(&mut bytes)
    };
    read.map_err(|error| format!("the compressed body cannot be unpacked: {error}"))?;
    if UNPACKED_SIZE_MAX < bytes.len() {
        return Err(format!(
            "the compressed body unpacks to more than {UNPACKED_SIZE_MAX} bytes"
        ));
    }
    Ok(bytes)
}

fn read_compressed(bytes: &[u8], version: i32) -> Result<Told, String> {
    let mut reader = Reader::new(bytes);
    let data_version = decode_version(piece(&mut reader, "the data version")?)?;
    let mut topics = Vec::new();
    for _ in 0..count(&mut reader, "topics")? {
        topics.push(topic_from_line(piece(&mut reader, "a topic")?)?);
    }
    let filter_servers: Option<Vec<String>> = from_json(
        piece(&mut reader, "the filter servers")?,
        "the filter server list",
    )?;
    let mut mappings = Vec::new();
    if VERSION_WITH_MAPPINGS <= version {
        for _ in 0..count(&mut reader, "queue mappings")? {
            let mapping: QueueMapping =
                from_json(piece(&mut reader, "a queue mapping")?, "a queue mapping")?;
            mappings.push((mapping.topic.clone(), mapping));
        }
    }
    Ok(Told {
        version: data_version,
        topics,
        mappings,
        filter_servers: filter_servers.unwrap_or_default(),
    })
}

fn count(reader: &mut Reader<'_>, what: &str) -> Result<u32, String> {
    reader
        .i32()
        .and_then(|count| u32::try_from(count).ok())
        .ok_or_else(|| format!("the compressed body names no number of {what}"))
}

fn piece<'a>(reader: &mut Reader<'a>, what: &str) -> Result<&'a [u8], String> {
    reader
        .i32()
        .and_then(|len| usize::try_from(len).ok())
        .and_then(|len| reader.bytes(len))
        .ok_or_else(|| format!("the compressed body ends within {what}"))
}

/// `name readNums writeNums perm filterType {attributes}`.
fn topic_from_line(line: &[u8]) -> Result<TopicConfig, String> {
    let text = std::str::from_utf8(line).map_err(|_| "a topic is not UTF-8 text".to_owned())?;
    let malformed = || {
        format!("the topic {text:.200} is not: name, read queues, write queues, perm, filter type")
    };
    let mut parts = text.splitn(6, ' ');
    let mut next = || parts.next().ok_or_else(malformed);
    let number = |text: &str| text.parse().map_err(|_| malformed());
    let topic = TopicConfig {
        name: next()?.to_owned(),
        read_queue_count: number(next()?)?,
        write_queue_count: number(next()?)?,
        perm: number(next()?)?,
        multi_tag: next()? == "MULTI_TAG",
        sys_flag: 0,
        order: false,
        attributes: Vec::new(),
    };
    let attributes = match parts.next() {
        None | Some("") => BTreeMap::new(),
        Some(json) => {
            from_json::<BTreeMap<String, String>>(json.as_bytes(), "the attributes of a topic")?
        }
    };
    Ok(TopicConfig {
        attributes: attributes.into_iter().collect(),
        ..topic
    })
}

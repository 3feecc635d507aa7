//! The NameServer holds to RocketMQ's rules: what brokers register is what clients and tools are told.

use std::io::Write;

use corelane::base::Key;
use corelane::command::{ConnectionId, DataVersion, TopicConfig};
use corelane::nameserver::body;
use corelane::nameserver::{NameServer, Settings};
use corelane::protocol::rocketmq::frame::{HeaderKind, Scratch, decode, encode_request};
use proptest::prelude::*;

const A: ConnectionId = connection(1);
const B: ConnectionId = connection(2);

const fn connection(index: u32) -> ConnectionId {
    ConnectionId(Key {
        index,
        generation: 0,
    })
}

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: i32,
    remark: Option<String>,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Server(NameServer);

impl Server {
    fn new() -> Self {
        Self(NameServer::new(Settings::default()))
    }

    fn ask_at(
        &mut self,
        now_ms: u64,
        from: ConnectionId,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut frame = Vec::new();
        encode_request(&mut frame, HeaderKind::Json, code, 7, false, fields, body);
        self.exchange(now_ms, from, &frame)
    }

    fn exchange(&mut self, now_ms: u64, from: ConnectionId, frame: &[u8]) -> Answer {
        let mut scratch = Scratch::default();
        let request = decode(frame, &mut scratch).unwrap();
        let opaque = request.opaque;
        let mut out = Vec::new();
        self.0.serve(&request, from, now_ms, &mut out);
        let mut scratch = Scratch::default();
        let answer = decode(&out, &mut scratch).expect("one whole frame");
        assert!(answer.is_response());
        assert_eq!(answer.opaque, opaque);
        Answer {
            code: answer.code,
            remark: answer.remark.map(str::to_owned),
            fields: answer
                .fields()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: answer.body.to_vec(),
        }
    }

    fn ask(&mut self, code: i32, fields: &[(&str, &str)]) -> Answer {
        self.ask_at(0, A, code, fields, b"")
    }

    fn route(&mut self, topic: &str) -> Option<serde_json::Value> {
        let answer = self.ask(105, &[("topic", topic)]);
        match answer.code {
            0 => Some(answer.json()),
            17 => None,
            code => panic!("{code}: {answer:?}"),
        }
    }

    /// Key 0 and so on to address, as a route has it.
    fn addresses(&mut self, topic: &str) -> serde_json::Value {
        let route = self.route(topic).expect("a route");
        route["brokerDatas"][0]["brokerAddrs"].clone()
    }

    fn perm(&mut self, topic: &str) -> i64 {
        let route = self.route(topic).expect("a route");
        route["queueDatas"][0]["perm"].as_i64().unwrap()
    }

    fn register(&mut self, broker: &Broker, topics: &[TopicConfig], counter: i64) -> Answer {
        self.register_at(0, A, broker, topics, counter)
    }

    fn register_at(
        &mut self,
        now_ms: u64,
        from: ConnectionId,
        broker: &Broker,
        topics: &[TopicConfig],
        counter: i64,
    ) -> Answer {
        let version = DataVersion {
            counter,
            state_version: broker.state_version,
            timestamp_ms: 5,
        };
        let body = body::encode(topics, version);
        self.ask_at(now_ms, from, 103, &broker.fields(), &body)
    }
}

#[derive(Clone, Copy)]
struct Broker {
    cluster: &'static str,
    name: &'static str,
    address: &'static str,
    id: &'static str,
    acting: Option<&'static str>,
    state_version: i64,
    timeout_ms: Option<&'static str>,
}

const MASTER: Broker = Broker {
    cluster: "DefaultCluster",
    name: "apache",
    address: "127.0.0.1:10911",
    id: "0",
    acting: None,
    state_version: 0,
    timeout_ms: None,
};

const SLAVE: Broker = Broker {
    address: "127.0.0.1:20911",
    id: "1",
    ..MASTER
};

impl Broker {
    fn fields(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![
            ("clusterName", self.cluster),
            ("brokerName", self.name),
            ("brokerAddr", self.address),
            ("brokerId", self.id),
            ("haServerAddr", "127.0.0.1:10912"),
        ];
        fields.extend(self.acting.map(|acting| ("enableActingMaster", acting)));
        fields.extend(self.timeout_ms.map(|time| ("heartbeatTimeoutMillis", time)));
        fields
    }
}

fn topic(name: &str, count: u32) -> TopicConfig {
    TopicConfig {
        name: name.to_owned(),
        read_queue_count: count,
        write_queue_count: count,
        perm: 6,
        multi_tag: false,
        sys_flag: 0,
        order: false,
        attributes: Vec::new(),
    }
}

fn two_topics() -> Vec<TopicConfig> {
    vec![topic("CapOGoPush", 4), topic("TBW102", 8)]
}

// What clients are told.

#[test]
fn a_route_is_byte_for_byte_what_apache_tells_java_and_rust() {
    let mut server = Server::new();
    let broker = Broker {
        address: "127.0.0.1:10711",
        ..MASTER
    };
    assert_eq!(server.register(&broker, &two_topics(), 1).code, 0);
    // Recorded from Apache 5.5.0, with the addresses of the recording. To Go, C++ and Node it wrote
    // {0:"127.0.0.1:10711"}, which Rust cannot read; all of them read the quoted form.
    let recorded = r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10711"},"brokerName":"apache","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"apache","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    let answer = server.ask(105, &[("topic", "CapOGoPush")]);
    assert_eq!(answer.text(), recorded);
    // mqadmin clusterList, recorded likewise.
    let recorded = r#"{"brokerAddrTable":{"apache":{"brokerAddrs":{0:"127.0.0.1:10711"},"brokerName":"apache","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["apache"]}}"#;
    let answer = server.ask(106, &[]);
    assert_eq!(answer.text(), recorded.replace("{0:", "{\"0\":"));
}

#[test]
fn a_topic_of_nobody_is_17_and_its_remark_begins_as_clients_expect() {
    let answer = Server::new().ask(105, &[("topic", "%RETRY%none")]);
    assert_eq!(answer.code, 17);
    let remark = answer.remark.unwrap();
    assert!(
        remark.starts_with("No topic route info in name server for the topic: %RETRY%none"),
        "{remark}"
    );
    assert!(answer.body.is_empty());
}

#[test]
fn every_shard_of_a_topic_is_in_its_route_in_the_order_of_names() {
    let mut server = Server::new();
    for name in ["host-1", "host-0"] {
        let broker = Broker {
            name,
            address: name,
            ..MASTER
        };
        server.register(&broker, &two_topics(), 1);
    }
    let route = server.route("TBW102").unwrap();
    assert_eq!(route["brokerDatas"][0]["brokerName"], "host-0");
    assert_eq!(route["brokerDatas"][1]["brokerName"], "host-1");
    assert_eq!(route["queueDatas"].as_array().unwrap().len(), 2);
}

#[test]
fn order_configuration_is_in_the_route_only_where_order_messages_are_enabled() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let value = [
        ("namespace", "ORDER_TOPIC_CONFIG"),
        ("key", "TBW102"),
        ("value", "apache:8"),
    ];
    assert_eq!(server.ask(100, &value).code, 0);
    assert!(
        server
            .route("TBW102")
            .unwrap()
            .get("orderTopicConf")
            .is_none()
    );
    let change = server.ask_at(0, A, 318, &[], b"orderMessageEnable=true\n");
    assert_eq!(change.code, 0);
    assert_eq!(
        server.route("TBW102").unwrap()["orderTopicConf"],
        "apache:8"
    );
    assert!(
        server
            .route("CapOGoPush")
            .unwrap()
            .get("orderTopicConf")
            .is_none()
    );
}

#[test]
fn a_brokers_zone_is_in_its_routes() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let brokers = |server: &mut Server| server.route("TBW102").unwrap()["brokerDatas"].clone();
    assert!(brokers(&mut server)[0].get("zoneName").is_none());
    let mut fields = MASTER.fields();
    fields.push(("__ZONE_NAME", "z1"));
    let body = body::encode(&two_topics(), DataVersion::default());
    assert_eq!(server.ask_at(0, A, 103, &fields, &body).code, 0);
    assert_eq!(brokers(&mut server)[0]["zoneName"], "z1");
}

// Registration.

#[test]
fn a_broker_is_answered_with_the_order_configuration_unless_told_otherwise() {
    let mut server = Server::new();
    assert!(server.register(&MASTER, &two_topics(), 1).body.is_empty());
    let value = [
        ("namespace", "ORDER_TOPIC_CONFIG"),
        ("key", "T"),
        ("value", "a:4;b:4"),
    ];
    server.ask(100, &value);
    let answer = server.register(&MASTER, &two_topics(), 1);
    assert_eq!(answer.text(), r#"{"table":{"T":"a:4;b:4"}}"#);
    server.ask_at(0, A, 318, &[], b"returnOrderTopicConfigToBroker=false");
    assert!(server.register(&MASTER, &two_topics(), 1).body.is_empty());
}

#[test]
fn a_new_address_under_a_name_and_id_replaces_the_old_one() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let moved = Broker {
        address: "127.0.0.1:30911",
        ..MASTER
    };
    server.register_at(0, B, &moved, &two_topics(), 1);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:30911"})
    );
    // The old process's connection closes later, which must not touch the new one.
    server.0.disconnected(A);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:30911"})
    );
}

#[test]
fn a_slave_that_becomes_master_is_no_longer_listed_as_slave() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    server.register(&SLAVE, &two_topics(), 1);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:10911", "1": "127.0.0.1:20911"})
    );
    let promoted = Broker { id: "0", ..SLAVE };
    server.register(&promoted, &two_topics(), 1);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:20911"})
    );
}

#[test]
fn a_slave_learns_its_master_and_a_master_learns_nothing() {
    let mut server = Server::new();
    let answer = server.register(&SLAVE, &two_topics(), 1);
    assert_eq!(answer.fields, [], "there is no master yet");
    assert_eq!(server.register(&MASTER, &two_topics(), 1).fields, []);
    let answer = server.register(&SLAVE, &two_topics(), 1);
    assert_eq!(answer.field("masterAddr"), Some("127.0.0.1:10911"));
    assert_eq!(answer.field("haServerAddr"), Some("127.0.0.1:10912"));
}

#[test]
fn topics_are_taken_from_the_master_only() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let slaves = [topic("OfTheSlave", 1), topic("TBW102", 1)];
    assert_eq!(server.register(&SLAVE, &slaves, 9).code, 0);
    assert!(server.route("OfTheSlave").is_none());
    assert_eq!(
        server.route("TBW102").unwrap()["queueDatas"][0]["readQueueNums"],
        8
    );
}

#[test]
fn topics_change_only_with_the_data_version_and_missing_ones_come_back() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let changed = [topic("CapOGoPush", 2), topic("TBW102", 2)];
    server.register(&MASTER, &changed, 1);
    assert_eq!(
        server.route("TBW102").unwrap()["queueDatas"][0]["readQueueNums"],
        8,
        "the version is the same"
    );
    server.ask(216, &[("topic", "CapOGoPush")]);
    server.register(&MASTER, &changed, 1);
    assert_eq!(
        server.route("CapOGoPush").unwrap()["queueDatas"][0]["readQueueNums"],
        2,
        "it was deleted, so it is new"
    );
    server.register(&MASTER, &changed, 2);
    assert_eq!(
        server.route("TBW102").unwrap()["queueDatas"][0]["readQueueNums"],
        2
    );
}

#[test]
fn an_incremental_registration_changes_one_topic_and_keeps_the_others() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    assert_eq!(server.register(&MASTER, &[topic("New", 3)], 2).code, 0);
    assert!(server.route("New").is_some());
    assert!(server.route("CapOGoPush").is_some());
}

#[test]
fn an_incremental_registration_of_an_unknown_broker_is_refused() {
    let mut server = Server::new();
    let answer = server.register(&MASTER, &[topic("New", 3)], 1);
    assert_eq!(answer.code, 1);
    assert!(server.route("New").is_none());
    assert_eq!(
        server.ask(106, &[]).text(),
        r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#,
        "nothing stays of it"
    );
    // A broker with one topic comes without any first.
    assert_eq!(server.register(&MASTER, &[], 0).code, 0);
    assert_eq!(server.register(&MASTER, &[topic("New", 3)], 1).code, 0);
    assert!(server.route("New").is_some());
}

#[test]
fn topics_that_a_master_no_longer_names_are_forgotten_only_if_so_set() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    server.register(&MASTER, &[topic("TBW102", 8), topic("X", 1)], 2);
    assert!(server.route("CapOGoPush").is_some());
    server.ask_at(0, A, 318, &[], b"deleteTopicWithBrokerRegistration=true");
    server.register(&MASTER, &[topic("TBW102", 8), topic("X", 1)], 2);
    assert!(server.route("CapOGoPush").is_none());
    assert!(server.route("TBW102").is_some());
}

#[test]
fn a_rival_with_an_older_state_version_is_not_heard() {
    let mut server = Server::new();
    let holder = Broker {
        state_version: 5,
        ..MASTER
    };
    server.register(&holder, &two_topics(), 1);
    let rival = Broker {
        address: "127.0.0.1:666",
        state_version: 4,
        ..MASTER
    };
    assert_eq!(server.register_at(0, B, &rival, &two_topics(), 1).code, 0);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:10911"})
    );
}

#[test]
fn the_checksum_is_over_the_body_as_sent_without_the_sign() {
    let mut server = Server::new();
    let body = body::encode(&two_topics(), DataVersion::default());
    // One body in two has the sign bit set: find one, so that the mask is tested.
    let body = (0..)
        .map(|blanks| [body.clone(), vec![b' '; blanks]].concat())
        .find(|body| 1 << 31 <= crc32fast::hash(body))
        .unwrap();
    let crc = (crc32fast::hash(&body) & 0x7fff_ffff).to_string();
    let mut fields = MASTER.fields();
    fields.push(("bodyCrc32", &crc));
    assert_eq!(server.ask_at(0, A, 103, &fields, &body).code, 0);
    *fields.last_mut().unwrap() = ("bodyCrc32", "1");
    let answer = server.ask_at(0, A, 103, &fields, &body);
    assert_eq!(answer.code, 1);
    assert!(answer.remark.unwrap().contains("crc32"));
    *fields.last_mut().unwrap() = ("bodyCrc32", "0");
    assert_eq!(
        server.ask_at(0, A, 103, &fields, &body).code,
        0,
        "0 = unchecked"
    );
}

#[test]
fn the_compressed_form_registers_the_same_topics() {
    let mut with_attributes = topic("T1", 3);
    with_attributes.multi_tag = true;
    with_attributes.attributes = vec![("message.type".to_owned(), "FIFO".to_owned())];
    let topics = [with_attributes, topic("TBW102", 8)];
    let version = DataVersion {
        counter: 3,
        state_version: 4,
        timestamp_ms: 5,
    };
    let packed = body::encode_compressed(&topics, version);
    let told = body::decode(&packed, true, 0, 479).unwrap();
    assert_eq!(told.topics, topics);
    assert_eq!(told.version, version);
    let told = body::decode(&body::encode(&topics, version), false, 0, 479).unwrap();
    assert_eq!(told.topics, topics);
    assert_eq!(told.version, version);
}

#[test]
fn a_broker_below_413_sends_no_queue_mappings_and_its_topics_no_attributes() {
    let mut plain = Vec::new();
    let mut put = |text: &[u8]| {
        plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
        plain.extend_from_slice(text);
    };
    put(br#"{"counter":2,"timestamp":9}"#);
    plain.extend_from_slice(&1u32.to_be_bytes());
    let mut put = |text: &[u8]| {
        plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
        plain.extend_from_slice(text);
    };
    put(b"Old 4 2 6 SINGLE_TAG");
    put(b"[]");
    for raw in [false, true] {
        let level = flate2::Compression::best();
        let packed = if raw {
            let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), level);
            packer.write_all(&plain).unwrap();
            packer.finish().unwrap()
        } else {
            let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), level);
            packer.write_all(&plain).unwrap();
            packer.finish().unwrap()
        };
        let told = body::decode(&packed, true, 0, 409).unwrap();
        assert_eq!(told.topics[0].write_queue_count, 2);
        assert!(
            body::decode(&packed, true, 0, 413).is_err(),
            "from 413 on a mapping section must follow"
        );
    }
}

/// Recorded from Apache's 5.5.0 broker with `compressedRegister=true`. Its header says `compressed=false`.
const APACHE_COMPRESSED: &str = "eNqNUVtPwjAUXvwFPvPUTKMxIboh4/bGtnIJ24prnRJjThZSA5EN2EaIIf53WwyJWEF62tOk37n1+zRNa2z08XyVFjzTW2ZZz4u44BHP8uk81VtGWS+mCRePyULA9aZVsYym0bQs41PTtHNxyqH/AHREgYXtgEKv7XWAkWHfQaawGqL9oOthYO0u2sica5un40kSZ+9M1EWmUal+OzW0xOwnAaGGsLqCVneNQ+IMqGufOoCVJUvIP3IIcdSPMHikCy5/i1ezwpmtckHEtqGaeEGxLI0pO1r/hjo97D7KJxkFz2IhsyH3kWHoKHDADskAh+Bj3xZXvIjHE77tYqrc/EBVbm73PyS+OvRGx2XZDbKecD4DqXp2IPRuX3Ey/J/z+t9anZJaCviapBzdC1PRK9LpUMzAJxF2AUc4YAfqXP7S2KzJrVJ39vIqvPYFW7PZ5g==";

#[test]
fn apaches_compressed_body_is_read_though_its_header_denies_it() {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    let body = engine.decode(APACHE_COMPRESSED).unwrap();
    let mut fields = MASTER.fields();
    fields.push(("bodyCrc32", "968975174"));
    for compressed in ["false", "true"] {
        let mut server = Server::new();
        fields.push(("compressed", compressed));
        assert_eq!(server.ask_at(0, A, 103, &fields, &body).code, 0);
        let route = server.route("NewOne").unwrap();
        assert_eq!(route["queueDatas"][0]["readQueueNums"], 3);
        assert_eq!(server.perm("TBW102"), 7);
        assert_eq!(server.0.table().topics().count(), 16);
    }
}

#[test]
fn static_topics_keep_their_mapping_though_java_does_not_quote_its_keys() {
    let body = br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"topicConfigTable":{"S":{"perm":6,"readQueueNums":2,"topicName":"S","writeQueueNums":2},"TBW102":{"topicName":"TBW102"}},"topicQueueMappingDetailMap":{"S":{"hostedQueues":{0:[{"gen":0}]}}},"topicQueueMappingInfoMap":{"S":{"bname":"apache","currIdMap":{0:0,1:1},"dirty":false,"epoch":7,"scope":"__global__","topic":"S","totalQueues":2}}}}"#;
    let mut server = Server::new();
    assert_eq!(server.ask_at(0, A, 103, &MASTER.fields(), body).code, 0);
    let route = server.route("S").unwrap();
    assert_eq!(
        route["topicQueueMappingByBroker"]["apache"]["currIdMap"],
        serde_json::json!({"0": 0, "1": 1})
    );
    let route = server.route("TBW102").unwrap();
    assert!(route.get("topicQueueMappingByBroker").is_none());
    assert_eq!(
        route["queueDatas"][0]["writeQueueNums"], 16,
        "Java's default"
    );
}

// The end of brokers.

#[test]
fn a_broker_is_gone_after_120_s_of_silence_and_not_before() {
    let mut server = Server::new();
    server.register_at(1_000, A, &MASTER, &two_topics(), 1);
    server.0.tick(121_000);
    assert!(server.route("TBW102").is_some());
    server.0.tick(121_001 + 5_000);
    assert!(server.route("TBW102").is_none());
    assert_eq!(
        server.ask(106, &[]).text(),
        r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#
    );
    assert_eq!(server.ask(206, &[]).text(), r#"{"topicList":[]}"#);
}

#[test]
fn a_broker_may_name_its_own_timeout() {
    let mut server = Server::new();
    let hasty = Broker {
        timeout_ms: Some("9000"),
        ..MASTER
    };
    server.register_at(0, A, &hasty, &two_topics(), 1);
    server.0.tick(9_000);
    assert!(server.route("TBW102").is_some());
    server.0.tick(14_001);
    assert!(server.route("TBW102").is_none());
}

#[test]
fn heartbeats_and_version_queries_keep_a_broker_alive_and_make_none() {
    let mut server = Server::new();
    let fields = MASTER.fields();
    let version = br#"{"counter":1,"stateVersion":0,"timestamp":5}"#;
    assert_eq!(server.ask_at(0, A, 904, &fields, b"").code, 0);
    let answer = server.ask_at(0, A, 322, &fields, version);
    assert_eq!(answer.field("changed"), Some("true"));
    assert!(answer.body.is_empty());
    assert!(server.0.table().broker("apache").is_none());

    server.register_at(0, A, &MASTER, &two_topics(), 1);
    assert_eq!(server.ask_at(100_000, A, 904, &fields, b"").code, 0);
    server.0.tick(200_000);
    assert!(server.route("TBW102").is_some());
    let answer = server.ask_at(200_000, A, 322, &fields, version);
    assert_eq!(answer.field("changed"), Some("false"));
    assert_eq!(answer.body, version);
    server.0.tick(310_000);
    assert!(server.route("TBW102").is_some());
    let answer = server.ask_at(310_000, A, 322, &fields, br#"{"counter":2}"#);
    assert_eq!(answer.field("changed"), Some("true"));
    assert_eq!(answer.body, version);
}

#[test]
fn a_closed_connection_takes_all_its_brokers_and_no_others() {
    let mut server = Server::new();
    for (name, from) in [("host-0", A), ("host-1", A), ("other-0", B)] {
        let broker = Broker {
            name,
            address: name,
            ..MASTER
        };
        server.register_at(0, from, &broker, &two_topics(), 1);
    }
    server.0.disconnected(A);
    let route = server.route("TBW102").unwrap();
    assert_eq!(route["brokerDatas"].as_array().unwrap().len(), 1);
    assert_eq!(route["queueDatas"].as_array().unwrap().len(), 1);
    assert_eq!(route["brokerDatas"][0]["brokerName"], "other-0");
    let clusters = server.ask(106, &[]).json();
    assert_eq!(
        clusters["clusterAddrTable"],
        serde_json::json!({"DefaultCluster": ["other-0"]})
    );
}

#[test]
fn a_broker_that_reconnected_outlives_its_old_connection() {
    let mut server = Server::new();
    server.register_at(0, A, &MASTER, &two_topics(), 1);
    server.register_at(0, B, &MASTER, &two_topics(), 1);
    server.0.disconnected(A);
    assert!(server.route("TBW102").is_some());
    server.0.disconnected(B);
    assert!(server.route("TBW102").is_none());
}

#[test]
fn unregistering_takes_one_address_and_with_the_last_the_topics() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    server.register(&SLAVE, &two_topics(), 1);
    assert_eq!(server.ask(104, &MASTER.fields()).code, 0);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"1": "127.0.0.1:20911"})
    );
    assert_eq!(
        server.perm("TBW102"),
        6,
        "no acting master: the permission stays"
    );
    assert_eq!(server.ask(104, &SLAVE.fields()).code, 0);
    assert!(server.route("TBW102").is_none());
    assert_eq!(server.ask(104, &SLAVE.fields()).code, 0, "twice is no harm");
}

// Acting masters.

#[test]
fn a_lost_master_is_stood_in_for_read_only_where_brokers_and_settings_allow_it() {
    let acting = |broker: Broker| Broker {
        acting: Some("true"),
        ..broker
    };
    let mut server = Server::new();
    server.register_at(0, A, &acting(MASTER), &two_topics(), 1);
    server.register_at(0, B, &acting(SLAVE), &two_topics(), 1);
    assert_eq!(server.perm("TBW102"), 6);
    server.0.disconnected(A);
    assert_eq!(server.perm("TBW102"), 4, "nobody takes writes");
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"1": "127.0.0.1:20911"}),
        "supportActingMaster is off"
    );
    server.ask_at(0, B, 318, &[], b"supportActingMaster=true");
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:20911"})
    );
    // The slave's own registration keeps it so, and may bring topics.
    let more = [topic("TBW102", 8), topic("New", 1)];
    server.register_at(0, B, &acting(SLAVE), &more, 2);
    assert_eq!(server.perm("TBW102"), 4);
    assert_eq!(server.perm("New"), 4);
    // The master comes back.
    server.register_at(0, A, &acting(MASTER), &two_topics(), 3);
    assert_eq!(server.perm("TBW102"), 6);
    assert_eq!(
        server.addresses("TBW102"),
        serde_json::json!({"0": "127.0.0.1:10911", "1": "127.0.0.1:20911"})
    );
}

// Tools.

#[test]
fn write_permission_is_wiped_and_added_on_every_topic_of_a_broker() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let other = Broker {
        name: "zzz",
        address: "zzz",
        ..MASTER
    };
    server.register(&other, &two_topics(), 1);
    let answer = server.ask(205, &[("brokerName", "apache")]);
    assert_eq!(answer.field("wipeTopicCount"), Some("2"));
    assert_eq!(server.perm("TBW102"), 4);
    let route = server.route("TBW102").unwrap();
    assert_eq!(
        route["queueDatas"][1]["perm"], 6,
        "the other broker is as before"
    );
    server.register(&MASTER, &two_topics(), 1);
    assert_eq!(server.perm("TBW102"), 4, "a heartbeat does not undo it");
    let answer = server.ask(327, &[("brokerName", "apache")]);
    assert_eq!(answer.field("addTopicCount"), Some("2"));
    assert_eq!(server.perm("TBW102"), 6);
    let answer = server.ask(205, &[("brokerName", "nobody")]);
    assert_eq!(answer.field("wipeTopicCount"), Some("0"));
}

#[test]
fn a_topic_is_deleted_everywhere_or_in_one_cluster() {
    let mut server = Server::new();
    let other = Broker {
        cluster: "Other",
        name: "zzz",
        address: "zzz",
        ..MASTER
    };
    server.register(&MASTER, &two_topics(), 1);
    server.register(&other, &two_topics(), 1);
    let fields = [("topic", "TBW102"), ("clusterName", "Other")];
    assert_eq!(server.ask(216, &fields).code, 0);
    let route = server.route("TBW102").unwrap();
    assert_eq!(route["brokerDatas"].as_array().unwrap().len(), 1);
    assert_eq!(route["brokerDatas"][0]["brokerName"], "apache");
    assert_eq!(server.ask(216, &[("topic", "CapOGoPush")]).code, 0);
    assert!(server.route("CapOGoPush").is_none());
    let fields = [("topic", "never was"), ("clusterName", "nowhere")];
    assert_eq!(server.ask(216, &fields).code, 0, "unknown ones succeed");
}

#[test]
fn a_topic_is_registered_by_hand_on_known_brokers_only() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    let route = br#"{"brokerDatas":[{"brokerAddrs":{0:"x"}}],"queueDatas":[{"brokerName":"apache","perm":6,"readQueueNums":3,"writeQueueNums":3}]}"#;
    assert_eq!(
        server.ask_at(0, A, 217, &[("topic", "ByHand")], route).code,
        0
    );
    assert_eq!(
        server.route("ByHand").unwrap()["queueDatas"][0]["readQueueNums"],
        3
    );
    let route = br#"{"queueDatas":[{"brokerName":"nobody","perm":6}]}"#;
    assert_eq!(
        server.ask_at(0, A, 217, &[("topic", "Ghost")], route).code,
        0
    );
    assert!(server.route("Ghost").is_none());
    assert_eq!(
        server.ask(206, &[]).text(),
        r#"{"topicList":["ByHand","CapOGoPush","TBW102"]}"#
    );
}

#[test]
fn topic_lists_are_by_cluster_by_unit_and_of_the_system() {
    let mut server = Server::new();
    let mut unit = topic("Unit", 1);
    unit.sys_flag = 1;
    let mut sub = topic("Sub", 1);
    sub.sys_flag = 2;
    let mut both = topic("Both", 1);
    both.sys_flag = 3;
    server.register(&MASTER, &[topic("Plain", 1), unit, sub, both], 1);
    let list = |server: &mut Server, code, fields: &[(&str, &str)]| {
        let answer = server.ask(code, fields);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.text().to_owned()
    };
    let all = r#"{"topicList":["Both","Plain","Sub","Unit"]}"#;
    assert_eq!(list(&mut server, 206, &[]), all);
    assert_eq!(
        list(&mut server, 224, &[("cluster", "DefaultCluster")]),
        all
    );
    assert_eq!(
        list(&mut server, 224, &[("cluster", "no")]),
        r#"{"topicList":[]}"#
    );
    assert_eq!(
        list(&mut server, 311, &[]),
        r#"{"topicList":["Both","Unit"]}"#
    );
    assert_eq!(
        list(&mut server, 312, &[]),
        r#"{"topicList":["Both","Sub"]}"#
    );
    assert_eq!(list(&mut server, 313, &[]), r#"{"topicList":["Sub"]}"#);
    assert_eq!(
        list(&mut server, 304, &[]),
        r#"{"brokerAddr":"127.0.0.1:10911","topicList":["DefaultCluster","apache"]}"#
    );
    server.ask_at(
        0,
        A,
        318,
        &[],
        b"enableAllTopicList=false\nenableTopicList=false\n",
    );
    for code in [206, 304, 311, 312, 313] {
        assert_eq!(server.ask(code, &[]).code, 1);
    }
}

#[test]
fn members_of_a_broker_name_are_listed() {
    let mut server = Server::new();
    server.register(&MASTER, &two_topics(), 1);
    server.register(&SLAVE, &two_topics(), 1);
    let fields = [("clusterName", "DefaultCluster"), ("brokerName", "apache")];
    assert_eq!(
        server.ask(901, &fields).text(),
        r#"{"brokerMemberGroup":{"brokerAddrs":{"0":"127.0.0.1:10911","1":"127.0.0.1:20911"},"brokerName":"apache","cluster":"DefaultCluster"}}"#
    );
    let fields = [("clusterName", "DefaultCluster"), ("brokerName", "none")];
    assert_eq!(
        server.ask(901, &fields).json()["brokerMemberGroup"]["brokerAddrs"],
        serde_json::json!({})
    );
}

#[test]
fn values_are_put_listed_deleted_and_stored() {
    let mut server = Server::new();
    let key = [("namespace", "JVADM_NS"), ("key", "k1")];
    let value = [("namespace", "JVADM_NS"), ("key", "k1"), ("value", "v1")];
    assert_eq!(server.ask(101, &key).code, 22);
    assert_eq!(server.ask(219, &key).code, 22);
    assert_eq!(server.0.take_dirty_kv(), None);
    assert_eq!(server.ask(100, &value).code, 0);
    assert_eq!(server.ask(101, &key).field("value"), Some("v1"));
    assert_eq!(server.ask(219, &key).text(), r#"{"table":{"k1":"v1"}}"#);
    let stored = server.0.take_dirty_kv().expect("it changed");
    assert_eq!(server.0.take_dirty_kv(), None);
    let mut after_restart = Server::new();
    after_restart.0.load_kv(&stored).unwrap();
    assert_eq!(after_restart.ask(101, &key).field("value"), Some("v1"));
    assert_eq!(server.ask(102, &key).code, 0);
    assert_eq!(server.ask(101, &key).code, 22);
    assert_eq!(server.ask(100, &key).code, 1, "value is missing");
}

#[test]
fn settings_are_told_and_only_those_on_the_list_are_changed() {
    let mut server = Server::new();
    let before = server.ask(319, &[]).text().to_owned();
    for line in [
        "listenPort=9876",
        "orderMessageEnable=false",
        "enableTopicList=true",
    ] {
        assert!(
            before.lines().any(|other| other == line),
            "{line} in {before}"
        );
    }
    for key in [
        "kvConfigPath",
        "configStorePath",
        "rocketmqHome",
        "listenPort",
        "whatever",
    ] {
        let body = format!("orderMessageEnable=true\n{key}=x\n");
        let answer = server.ask_at(0, A, 318, &[], body.as_bytes());
        assert_eq!(answer.code, 16, "{key}");
        assert!(answer.remark.unwrap().contains(key));
    }
    assert_eq!(server.ask(319, &[]).text(), before, "all or nothing");
    assert_eq!(
        server
            .ask_at(0, A, 318, &[], b"orderMessageEnable=yes")
            .code,
        16
    );
    assert_eq!(server.ask_at(0, A, 318, &[], b"nothing").code, 1);
    assert_eq!(
        server
            .ask_at(0, A, 318, &[], b"# x\n\norderMessageEnable=true")
            .code,
        0
    );
    assert!(
        server
            .ask(319, &[])
            .text()
            .contains("orderMessageEnable=true")
    );
}

// Bad input.

#[test]
fn what_a_name_server_does_not_do_is_answered_with_3() {
    // 225 is a broker's (subscription groups, as a list); 234 is nobody's.
    for code in [0, 10, 17, 225, 234, 905, 9999, -5] {
        let answer = Server::new().ask(code, &[]);
        assert_eq!(answer.code, 3);
        assert_eq!(
            answer.remark.unwrap(),
            format!(" request type {code} not supported")
        );
    }
}

#[test]
fn a_missing_or_broken_field_is_named() {
    let mut server = Server::new();
    let fields = MASTER.fields();
    for missing in 0..4 {
        let mut some = fields.clone();
        let (name, _) = some.remove(missing);
        let answer = server.ask_at(0, A, 103, &some, b"");
        assert_eq!(answer.code, 1);
        assert!(answer.remark.unwrap().contains(name));
    }
    let mut bad = fields.clone();
    bad[3].1 = "zero";
    let answer = server.ask_at(0, A, 103, &bad, b"");
    assert_eq!(answer.code, 1);
    assert!(answer.remark.unwrap().contains("brokerId=zero"));
    assert_eq!(server.ask(105, &[]).code, 1);
    assert_eq!(server.ask(105, &[("topic", "")]).code, 1);
}

#[test]
fn oneway_requests_work_and_are_not_answered() {
    let mut server = Server::new();
    let body = body::encode(&two_topics(), DataVersion::default());
    let mut frame = Vec::new();
    encode_request(
        &mut frame,
        HeaderKind::Binary,
        103,
        1,
        true,
        &MASTER.fields(),
        &body,
    );
    let mut scratch = Scratch::default();
    let request = decode(&frame, &mut scratch).unwrap();
    let mut out = Vec::new();
    server.0.serve(&request, A, 0, &mut out);
    assert!(out.is_empty());
    assert!(server.route("TBW102").is_some());
    let mut frame = Vec::new();
    encode_request(
        &mut frame,
        HeaderKind::Json,
        105,
        1,
        true,
        &[("topic", "TBW102")],
        b"",
    );
    let request = decode(&frame, &mut scratch).unwrap();
    server.0.serve(&request, A, 0, &mut out);
    assert!(out.is_empty(), "not even its body");
}

#[test]
fn a_body_that_unpacks_without_end_is_refused() {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..65 {
        packer.write_all(&zeros).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 1 << 17);
    let mut fields = MASTER.fields();
    fields.push(("compressed", "true"));
    let answer = Server::new().ask_at(0, A, 103, &fields, &bomb);
    assert_eq!(answer.code, 1);
    assert!(answer.remark.unwrap().contains("unpacks to more than"));
}

#[test]
fn deep_json_is_refused() {
    let body = [b"{\"x\":".repeat(100_000), b"[".repeat(100_000)].concat();
    assert_eq!(
        Server::new()
            .ask_at(0, A, 103, &MASTER.fields(), &body)
            .code,
        1
    );
}

#[test]
fn an_answer_that_fits_into_no_frame_is_a_refusal() {
    let mut server = Server::new();
    let name = "x".repeat(900);
    for (counter, part) in (1..).zip(["a", "b"]) {
        let topics: Vec<_> = (0..10_000)
            .map(|index| topic(&format!("{part}-{index}-{name}"), 1))
            .collect();
        let body = body::encode_compressed(
            &topics,
            DataVersion {
                counter,
                ..DataVersion::default()
            },
        );
        let mut fields = MASTER.fields();
        fields.push(("compressed", "true"));
        assert_eq!(server.ask_at(0, A, 103, &fields, &body).code, 0);
    }
    let answer = server.ask(206, &[]);
    assert_eq!(answer.code, 1);
    assert!(answer.remark.unwrap().contains("no frame"));
}

#[test]
fn ten_thousand_topics_of_8_shards_register_in_linear_time() {
    let topics: Vec<_> = (0..10_000)
        .map(|index| topic(&format!("topic-{index}"), 8))
        .collect();
    let names: Vec<String> = (0..8).map(|shard| format!("host-{shard}")).collect();
    let mut server = Server::new();
    let started = std::time::Instant::now();
    for name in &names {
        let body = body::encode(&topics, DataVersion::default());
        let fields = [
            ("clusterName", "c"),
            ("brokerName", name.as_str()),
            ("brokerAddr", name.as_str()),
            ("brokerId", "0"),
        ];
        assert_eq!(server.ask_at(0, A, 103, &fields, &body).code, 0);
    }
    server.0.disconnected(A);
    assert!(server.route("topic-1").is_none());
    // Quadratic work would take hours; a slow, shared machine in a debug build takes seconds.
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_body_makes_the_name_server_panic(
        code in prop_oneof![Just(103), Just(217), Just(318), Just(322)],
        compressed: bool,
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut server = Server::new();
        let mut fields = MASTER.fields();
        fields.push(("compressed", if compressed { "true" } else { "false" }));
        fields.push(("topic", "T"));
        server.ask_at(0, A, code, &fields, &body);
    }

    #[test]
    fn no_damage_to_a_good_body_makes_the_name_server_panic(
        pack: bool,
        version in prop_oneof![Just(409), Just(479)],
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        truncate: bool,
    ) {
        let topics = [topic("A", 1), topic("B", 2)];
        // The bytes inside of the zlib stream are what is damaged: outside its checksum says no at once.
        let mut bytes = if pack {
            let packed = body::encode_compressed(&topics, DataVersion::default());
            let mut plain = Vec::new();
            std::io::copy(&mut flate2::read::ZlibDecoder::new(&packed[..]), &mut plain).unwrap();
            plain
        } else {
            body::encode(&topics, DataVersion::default())
        };
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if pack {
            let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&bytes).unwrap();
            bytes = packer.finish().unwrap();
        }
        let _ = body::decode(&bytes, pack, 0, version);
    }

    #[test]
    fn no_fields_make_the_name_server_panic(
        code in prop_oneof![100..110, 204..230, 300..330, 900..906],
        fields in proptest::collection::vec(
            (prop::sample::select(vec!["topic", "brokerName", "brokerAddr", "clusterName", "brokerId", "haServerAddr",
                "namespace", "key", "value", "cluster", "bodyCrc32", "compressed", "heartbeatTimeoutMillis"]),
             prop_oneof!["[a-c0-9-]{0,6}", any::<String>()]), 0..9),
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut server = Server::new();
        server.register(&MASTER, &two_topics(), 1);
        let answer = server.ask(code, &fields);
        // A refusal says why.
        prop_assert!(answer.code == 0 || answer.remark.is_some());
    }
}

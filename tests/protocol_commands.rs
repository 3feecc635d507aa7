//! Each request is read with all its fields, and each field that is missing or wrong is named in a refusal.

use corelane::command::RefusalKind;
use corelane::protocol::rocketmq::{HeaderKind, Scratch, command, decode, encode_request};

/// Debug text of the command, or of the refusal.
fn read(code: i32, fields: &[(&str, &str)], body: &str) -> Result<String, (RefusalKind, String)> {
    let mut frame = Vec::new();
    encode_request(
        &mut frame,
        HeaderKind::Json,
        code,
        1,
        false,
        fields,
        body.as_bytes(),
    );
    let mut scratch = Scratch::default();
    let request = decode(&frame, &mut scratch).expect("a frame");
    match command(&request) {
        Ok(command) => Ok(format!("{command:?}")),
        Err(refusal) => Err((refusal.kind, refusal.text)),
    }
}

struct Case {
    code: i32,
    required: &'static [(&'static str, &'static str)],
    /// What comes of the required fields alone.
    short: &'static str,
    optional: &'static [(&'static str, &'static str)],
    /// What comes of all of them.
    full: &'static str,
}

const CASES: &[Case] = &[
    Case {
        code: 11,
        required: &[
            ("consumerGroup", "G"),
            ("topic", "T"),
            ("queueId", "1"),
            ("queueOffset", "-5"),
            ("maxMsgNums", "32"),
            ("sysFlag", "0"),
        ],
        short: r#"Fetch(Fetch { group: "G", topic: "T", queue_id: 1, from: -5, count_max: 32, bytes_max: None, commit: None, suspend_ms: None, subscription: None, expression_type: None, subscription_version: 0, lite: false })"#,
        optional: &[
            ("sysFlag", "7"),
            ("commitOffset", "-1"),
            ("suspendTimeoutMillis", "15000"),
            ("subscription", "a || b"),
            ("subVersion", "9"),
            ("expressionType", "SQL92"),
            ("maxMsgBytes", "2147483647"),
        ],
        full: r#"Fetch(Fetch { group: "G", topic: "T", queue_id: 1, from: -5, count_max: 32, bytes_max: Some(2147483647), commit: Some(-1), suspend_ms: Some(15000), subscription: Some("a || b"), expression_type: Some("SQL92"), subscription_version: 9, lite: false })"#,
    },
    Case {
        code: 361,
        required: &[
            ("consumerGroup", "G"),
            ("topic", "T"),
            ("queueId", "1"),
            ("queueOffset", "5"),
            ("maxMsgNums", "0"),
            ("sysFlag", "2"),
        ],
        short: r#"Fetch(Fetch { group: "G", topic: "T", queue_id: 1, from: 5, count_max: 0, bytes_max: None, commit: None, suspend_ms: None, subscription: None, expression_type: None, subscription_version: 0, lite: true })"#,
        optional: &[
            ("commitOffset", "7"),
            ("suspendTimeoutMillis", "-1"),
            ("subscription", ""),
            ("expressionType", "TAG"),
        ],
        full: r#"Fetch(Fetch { group: "G", topic: "T", queue_id: 1, from: 5, count_max: 0, bytes_max: None, commit: None, suspend_ms: Some(0), subscription: None, expression_type: None, subscription_version: 0, lite: true })"#,
    },
    Case {
        code: 35,
        required: &[("clientID", "c")],
        short: r#"Unregister { client_id: "c", producer_group: None, consumer_group: None }"#,
        optional: &[("producerGroup", ""), ("consumerGroup", "G")],
        full: r#"Unregister { client_id: "c", producer_group: None, consumer_group: Some("G") }"#,
    },
    Case {
        code: 38,
        required: &[("consumerGroup", "G")],
        short: r#"GroupMembers { group: "G" }"#,
        optional: &[],
        full: r#"GroupMembers { group: "G" }"#,
    },
    Case {
        code: 14,
        required: &[("consumerGroup", "G"), ("topic", "T"), ("queueId", "0")],
        short: r#"OffsetQuery { group: "G", topic: "T", queue_id: 0, zero_if_missing: true }"#,
        optional: &[("setZeroIfNotFound", "false")],
        full: r#"OffsetQuery { group: "G", topic: "T", queue_id: 0, zero_if_missing: false }"#,
    },
    Case {
        code: 15,
        required: &[("consumerGroup", "G"), ("topic", "T")],
        short: r#"OffsetCommit { group: "G", topic: "T", queue_id: None, offset: None }"#,
        optional: &[("queueId", "2"), ("commitOffset", "-1")],
        full: r#"OffsetCommit { group: "G", topic: "T", queue_id: Some(2), offset: Some(-1) }"#,
    },
    Case {
        code: 29,
        required: &[("topic", "T"), ("queueId", "0"), ("timestamp", "-1")],
        short: r#"OffsetByTime { topic: "T", queue_id: 0, timestamp_ms: -1, upper: false }"#,
        optional: &[("boundaryType", "UPPER")],
        full: r#"OffsetByTime { topic: "T", queue_id: 0, timestamp_ms: -1, upper: true }"#,
    },
    Case {
        code: 30,
        required: &[("topic", "T"), ("queueId", "0")],
        short: r#"OffsetMax { topic: "T", queue_id: 0 }"#,
        optional: &[("committed", "true")],
        full: r#"OffsetMax { topic: "T", queue_id: 0 }"#,
    },
    Case {
        code: 31,
        required: &[("topic", "T"), ("queueId", "0")],
        short: r#"OffsetMin { topic: "T", queue_id: 0 }"#,
        optional: &[],
        full: r#"OffsetMin { topic: "T", queue_id: 0 }"#,
    },
    Case {
        code: 32,
        required: &[("topic", "T"), ("queueId", "0")],
        short: r#"EarliestStoreTime { topic: "T", queue_id: 0 }"#,
        optional: &[],
        full: r#"EarliestStoreTime { topic: "T", queue_id: 0 }"#,
    },
    Case {
        code: 36,
        required: &[("group", "G"), ("offset", "4096"), ("delayLevel", "-1")],
        short: r#"SendBack { group: "G", offset: 4096, delay_level: -1, origin_message_id: None, origin_topic: None, max_reconsume_times: None }"#,
        optional: &[
            ("originMsgId", "id"),
            ("originTopic", "T"),
            ("maxReconsumeTimes", "16"),
            ("unitMode", "false"),
        ],
        full: r#"SendBack { group: "G", offset: 4096, delay_level: -1, origin_message_id: Some("id"), origin_topic: Some("T"), max_reconsume_times: Some(16) }"#,
    },
    Case {
        code: 33,
        required: &[("offset", "4096")],
        short: "MessageById { offset: 4096 }",
        optional: &[("topic", "T")],
        full: "MessageById { offset: 4096 }",
    },
    Case {
        code: 12,
        required: &[
            ("topic", "T"),
            ("key", "k"),
            ("maxNum", "32"),
            ("beginTimestamp", "0"),
            ("endTimestamp", "9223372036854775807"),
        ],
        short: r#"MessagesByKey { topic: "T", key: "k", count_max: 32, begin_ms: 0, end_ms: 9223372036854775807, unique: false }"#,
        optional: &[("_UNIQUE_KEY_QUERY", "true")],
        full: r#"MessagesByKey { topic: "T", key: "k", count_max: 32, begin_ms: 0, end_ms: 9223372036854775807, unique: true }"#,
    },
    Case {
        code: 17,
        required: &[
            ("topic", "T"),
            ("readQueueNums", "4"),
            ("writeQueueNums", "8"),
            ("perm", "6"),
        ],
        short: r#"TopicsSave { topics: [TopicConfig { name: "T", read_queue_count: 4, write_queue_count: 8, perm: 6, multi_tag: false, sys_flag: 0, order: false, attributes: [] }] }"#,
        optional: &[
            ("topicFilterType", "MULTI_TAG"),
            ("topicSysFlag", "1"),
            ("order", "true"),
            ("attributes", "+message.type=FIFO"),
            ("defaultTopic", "TBW102"),
        ],
        full: r#"TopicsSave { topics: [TopicConfig { name: "T", read_queue_count: 4, write_queue_count: 8, perm: 6, multi_tag: true, sys_flag: 1, order: true, attributes: [("+message.type", "FIFO")] }] }"#,
    },
    Case {
        code: 215,
        required: &[("topic", "T")],
        short: r#"TopicDelete { topic: "T" }"#,
        optional: &[],
        full: r#"TopicDelete { topic: "T" }"#,
    },
    Case {
        code: 21,
        required: &[],
        short: "TopicsAll { from: None, count_max: None }",
        optional: &[
            ("topicSeq", "2000"),
            ("maxTopicNum", "2000"),
            ("dataVersion", ""),
        ],
        full: "TopicsAll { from: Some(2000), count_max: Some(2000) }",
    },
    Case {
        code: 351,
        required: &[("topic", "T")],
        short: r#"TopicOne { topic: "T" }"#,
        optional: &[("lo", "true")],
        full: r#"TopicOne { topic: "T" }"#,
    },
    Case {
        code: 202,
        required: &[("topic", "T")],
        short: r#"TopicStats { topic: "T" }"#,
        optional: &[],
        full: r#"TopicStats { topic: "T" }"#,
    },
    Case {
        code: 207,
        required: &[("groupName", "G")],
        short: r#"GroupDelete { group: "G", clean_offsets: false }"#,
        optional: &[("cleanOffset", "true")],
        full: r#"GroupDelete { group: "G", clean_offsets: true }"#,
    },
    Case {
        code: 201,
        required: &[],
        short: "GroupsAll { from: None, count_max: None }",
        optional: &[
            ("groupSeq", "0"),
            ("maxGroupNum", "2000"),
            ("dataVersion", ""),
        ],
        full: "GroupsAll { from: Some(0), count_max: Some(2000) }",
    },
    Case {
        code: 352,
        required: &[("group", "G")],
        short: r#"GroupOne { group: "G" }"#,
        optional: &[],
        full: r#"GroupOne { group: "G" }"#,
    },
    Case {
        code: 208,
        required: &[("consumerGroup", "G")],
        short: r#"ConsumeStats { group: "G", topics: [] }"#,
        optional: &[("topic", ""), ("topicList", "T;U")],
        full: r#"ConsumeStats { group: "G", topics: ["T", "U"] }"#,
    },
    Case {
        code: 203,
        required: &[("consumerGroup", "G")],
        short: r#"ConsumerConnections { group: "G" }"#,
        optional: &[],
        full: r#"ConsumerConnections { group: "G" }"#,
    },
    Case {
        code: 204,
        required: &[("producerGroup", "G")],
        short: r#"ProducerConnections { group: "G" }"#,
        optional: &[],
        full: r#"ProducerConnections { group: "G" }"#,
    },
    Case {
        code: 300,
        required: &[("topic", "T")],
        short: r#"GroupsOfTopic { topic: "T" }"#,
        optional: &[],
        full: r#"GroupsOfTopic { topic: "T" }"#,
    },
    Case {
        code: 343,
        required: &[("group", "G")],
        short: r#"TopicsOfGroup { group: "G" }"#,
        optional: &[],
        full: r#"TopicsOfGroup { group: "G" }"#,
    },
    Case {
        code: 303,
        required: &[("topic", "T"), ("group", "G")],
        short: r#"ConsumeTimeSpan { topic: "T", group: "G" }"#,
        optional: &[],
        full: r#"ConsumeTimeSpan { topic: "T", group: "G" }"#,
    },
    Case {
        code: 321,
        required: &[
            ("topic", "T"),
            ("queueId", "0"),
            ("index", "3"),
            ("count", "10"),
        ],
        short: r#"QueueUnits { topic: "T", queue_id: 0, from: 3, count: 10, group: None }"#,
        optional: &[("consumerGroup", "G")],
        full: r#"QueueUnits { topic: "T", queue_id: 0, from: 3, count: 10, group: Some("G") }"#,
    },
    Case {
        code: 315,
        required: &[("statsName", "TOPIC_PUT_NUMS"), ("statsKey", "T")],
        short: r#"Statistics { name: "TOPIC_PUT_NUMS", key: "T" }"#,
        optional: &[],
        full: r#"Statistics { name: "TOPIC_PUT_NUMS", key: "T" }"#,
    },
    Case {
        code: 222,
        required: &[("topic", "T"), ("group", "G"), ("timestamp", "-1")],
        short: r#"OffsetReset { topic: "T", group: "G", timestamp_ms: -1, force: false, queue_id: -1, offset: None }"#,
        optional: &[("isForce", "true"), ("queueId", "2"), ("offset", "-1")],
        full: r#"OffsetReset { topic: "T", group: "G", timestamp_ms: -1, force: true, queue_id: 2, offset: None }"#,
    },
];

#[test]
fn every_field_of_every_request_is_read() {
    for case in CASES {
        let code = case.code;
        assert_eq!(
            read(code, case.required, "").as_deref(),
            Ok(case.short),
            "{code}"
        );
        // What is said twice counts as it was said last: here the optional one.
        let all: Vec<_> = case.required.iter().chain(case.optional).copied().collect();
        assert_eq!(read(code, &all, "").as_deref(), Ok(case.full), "{code}");
    }
    for (code, expected) in [
        (305, "SystemTopics"),
        (328, "AllProducers"),
        (28, "RuntimeInfo"),
        (26, "ConfigRead"),
        (43, "AllOffsets"),
        (45, "AllDelayOffsets"),
    ] {
        assert_eq!(read(code, &[], "").as_deref(), Ok(expected));
    }
}

#[test]
fn every_missing_field_is_named() {
    for case in CASES {
        for missing in 0..case.required.len() {
            let mut fields = case.required.to_vec();
            let (name, _) = fields.remove(missing);
            let (kind, text) = read(case.code, &fields, "").expect_err(name);
            assert_eq!(kind, RefusalKind::SystemError);
            assert_eq!(
                text,
                format!("request {} has no field `{name}`: send one", case.code)
            );
        }
    }
}

#[test]
fn every_number_that_is_none_is_named_with_what_it_is() {
    let mut numbers = 0;
    for case in CASES {
        for (name, value) in case.required.iter().chain(case.optional) {
            if value.parse::<i64>().is_err() {
                continue;
            }
            for wrong in ["x1", "1.5", "99999999999999999999"] {
                let all = case.required.iter().chain(case.optional).copied();
                let fields: Vec<_> = all
                    .map(|(known, value)| (known, if known == *name { wrong } else { value }))
                    .collect();
                let (kind, text) = read(case.code, &fields, "").expect_err(name);
                assert_eq!(kind, RefusalKind::SystemError, "{text}");
                let shown = format!(
                    "field `{name}` of request {} is {wrong:?}: it must be",
                    case.code
                );
                assert!(text.starts_with(&shown), "{text}");
                numbers += 1;
            }
        }
    }
    assert!(90 < numbers, "{numbers}");
}

#[test]
fn bodies_are_read() {
    let lock = r#"{"clientId":"c","consumerGroup":"G","onlyThisBroker":false,"mqSet":[{"brokerName":"b","queueId":"1","topic":"T"}]}"#;
    let queues = r#"group: "G", client_id: "c", queues: [QueueName { topic: "T", broker: "b", queue_id: 1 }] }"#;
    assert_eq!(read(41, &[], lock).unwrap(), format!("Lock {{ {queues}"));
    assert_eq!(
        read(42, &[], &format!("{lock}\n")).unwrap(),
        format!("Unlock {{ {queues}")
    );
    let text = read(41, &[], &lock.replace("\"1\"", "\"one\""))
        .unwrap_err()
        .1;
    assert_eq!(
        text,
        "the body of request 41 names a queue of topic \"T\" without a number"
    );

    assert_eq!(
        read(
            46,
            &[],
            r#"{"clientId":"c","group":"G","namespace":null,"subscriptionData":{"topic":"T","subString":"a > 1","expressionType":"SQL92","subVersion":5,"codeSet":[],"tagsSet":[],"classFilterMode":false}}"#
        )
        .unwrap(),
        r#"CheckClient { client_id: "c", group: "G", subscription: Subscription { topic: "T", expression: "a > 1", expression_type: "SQL92", version: 5, tags: [], codes: [], class_filter: false } }"#
    );
    let group = r#"{"groupName":"G","retryMaxTimes":5,"consumeEnable":false,"attributes":{"a":1}}"#;
    let expected = r#"GroupConfig { name: "G", consume_enable: false, consume_from_min_enable: true, consume_broadcast_enable: true, consume_message_orderly: false, retry_queue_count: 1, retry_max_times: 5, broker_id: 0, which_broker_when_slow: 1, notify_ids_changed: true, sys_flag: 0, consume_timeout_minute: 15, attributes: [("a", "1")] }"#;
    assert_eq!(
        read(200, &[], group).unwrap(),
        format!("GroupsSave {{ groups: [{expected}] }}")
    );
    assert_eq!(
        read(
            225,
            &[],
            &format!("{{\"groupConfigList\":[{group},{group}]}}")
        )
        .unwrap(),
        format!("GroupsSave {{ groups: [{expected}, {expected}] }}")
    );
    let text = read(200, &[], r#"{"groupName":"G","brokerId":"x"}"#)
        .unwrap_err()
        .1;
    assert_eq!(
        text,
        "the body of request 200 gives group \"G\" the brokerId \"x\""
    );
    assert_eq!(
        read(
            18,
            &[],
            r#"{"topicConfigList":[{"topicName":"T","perm":4,"readQueueNums":1}]}"#
        )
        .unwrap(),
        r#"TopicsSave { topics: [TopicConfig { name: "T", read_queue_count: 1, write_queue_count: 16, perm: 4, multi_tag: false, sys_flag: 0, order: false, attributes: [] }] }"#
    );
    let text = read(
        18,
        &[],
        r#"{"topicConfigList":[{"topicName":"T","perm":-4}]}"#,
    )
    .unwrap_err()
    .1;
    assert_eq!(
        text,
        "the body of request 18 gives topic \"T\" the perm \"-4\""
    );
    assert_eq!(
        read(25, &[], "brokerPermission=4\n").unwrap(),
        r#"ConfigUpdate { properties: [("brokerPermission", "4")] }"#
    );
    let large = "x".repeat(5_000_000);
    assert_eq!(
        read(34, &[], &large).unwrap_err().1,
        "the body of request 34 has 5000000 bytes, at most 4194304 are allowed"
    );
}

#[test]
fn unknown_requests_are_refused_in_the_words_of_apache() {
    for code in [37, 324, 370, 200_050, 9999, -1, i32::MAX, 0] {
        assert_eq!(
            read(code, &[], ""),
            Err((
                RefusalKind::RequestNotSupported,
                format!(" request type {code} not supported")
            ))
        );
    }
}

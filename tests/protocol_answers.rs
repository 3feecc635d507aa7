//! Answers are, to the letter of their bodies, what Apache's broker was recorded to send.

use std::net::SocketAddr;

use corelane::base::{PhysicalOffset, QueueOffset};
use corelane::command::{
    Answer, ClientConnection, ConsumeFrom, ConsumeStats, ConsumeType, ConsumerConnections,
    DataVersion, FetchStatus, Fetched, GroupConfig, LogSpan, MessageModel, Notice, Produced,
    ProducerInfo, QueueName, QueueStats, Rate, Refusal, RefusalKind, Subscription, TimeSpan,
    TopicConfig, Unit,
};
use corelane::protocol::rocketmq::{HeaderKind, Note, Request, Scratch, answer, decode, notice};

fn note(code: i32) -> u64 {
    Note {
        opaque: 3,
        kind: HeaderKind::Json,
        oneway: false,
        code,
    }
    .pack()
}

/// Where clients reach the shard.
fn host() -> SocketAddr {
    "127.0.0.1:20911".parse().unwrap()
}

/// Header and body of an answer to a request with this code.
fn said(code: i32, value: &Answer) -> (String, String) {
    let mut out = Vec::new();
    answer(&mut out, note(code), host(), value);
    let header_size = u32::from_be_bytes(out[4..8].try_into().unwrap()) as usize;
    let (header, body) = out[8..].split_at(header_size);
    let mut scratch = Scratch::default();
    if !matches!(value, Answer::Fetched(_)) {
        assert!(decode(&out, &mut scratch).is_ok_and(|response| response.is_response()));
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(header), text(body))
}

fn body(code: i32, value: &Answer) -> String {
    said(code, value).1
}

fn header(code: i32, value: &Answer) -> String {
    said(code, value).0
}

fn queue(queue_id: i32) -> QueueName {
    QueueName {
        topic: "JVADM_T".to_owned(),
        broker: "apache".to_owned(),
        queue_id,
    }
}

fn connection() -> ClientConnection {
    ClientConnection {
        client_id: "192.0.2.2@m".to_owned(),
        address: "127.0.0.1:41794".parse().unwrap(),
        language: "JAVA".to_owned(),
        version: 513,
    }
}

fn subscription() -> Subscription {
    Subscription {
        topic: "JVADM_T".to_owned(),
        expression: "*".to_owned(),
        expression_type: "TAG".to_owned(),
        version: 1_795_242_923_384,
        ..Subscription::default()
    }
}

const VERSION: DataVersion = DataVersion {
    counter: 2,
    state_version: 0,
    timestamp_ms: 1_795_242_626_028,
};

#[test]
fn maps_of_queues_have_the_form_that_only_java_reads() {
    let stats = |max, last_update_ms| QueueStats {
        min: 0,
        max,
        last_update_ms,
    };
    assert_eq!(
        body(
            202,
            &Answer::TopicStats {
                queues: vec![
                    (queue(1), stats(2, 1_795_242_581_730)),
                    (queue(0), stats(2, 1_795_242_581_734)),
                ],
                put_tps: 0.0,
            }
        ),
        r#"{"offsetTable":{{"brokerName":"apache","queueId":1,"topic":"JVADM_T"}:{"lastUpdateTimestamp":1795242581730,"maxOffset":2,"minOffset":0},{"brokerName":"apache","queueId":0,"topic":"JVADM_T"}:{"lastUpdateTimestamp":1795242581734,"maxOffset":2,"minOffset":0}},"topicPutTps":0.0}"#
    );
    assert_eq!(
        body(
            208,
            &Answer::ConsumeStats {
                queues: vec![(
                    queue(1),
                    ConsumeStats {
                        broker_offset: 4,
                        consumer_offset: 4,
                        pull_offset: 4,
                        last_ms: 1_795_242_812_401,
                    }
                )],
                tps: 0.083_333_333_333_333_33,
            }
        ),
        r#"{"consumeTps":0.08333333333333333,"offsetTable":{{"brokerName":"apache","queueId":1,"topic":"JVADM_T"}:{"brokerOffset":4,"consumerOffset":4,"lastTimestamp":1795242812401,"pullOffset":4}}}"#
    );
    assert_eq!(
        body(222, &Answer::Resets(vec![(queue(1), 6), (queue(0), 8)])),
        r#"{"offsetTable":{{"brokerName":"apache","queueId":1,"topic":"JVADM_T"}:6,{"brokerName":"apache","queueId":0,"topic":"JVADM_T"}:8}}"#
    );
    assert_eq!(body(222, &Answer::Resets(vec![])), r#"{"offsetTable":{}}"#);
}

#[test]
fn connections_are_listed_as_apache_lists_them() {
    assert_eq!(
        body(
            203,
            &Answer::ConsumerConnections(ConsumerConnections {
                connections: vec![connection()],
                subscriptions: vec![subscription()],
                consume_type: ConsumeType::Passively,
                message_model: MessageModel::Clustering,
                consume_from: ConsumeFrom::FirstOffset,
            })
        ),
        r#"{"connectionSet":[{"clientAddr":"127.0.0.1:41794","clientId":"192.0.2.2@m","language":"JAVA","version":513}],"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"JVADM_T":{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1795242923384,"tagsSet":[],"topic":"JVADM_T"}}}"#
    );
    let mut strange = connection();
    strange.language = "KLINGON".to_owned();
    assert_eq!(
        body(
            204,
            &Answer::ProducerConnections(vec![connection(), strange])
        ),
        r#"{"connectionSet":[{"clientAddr":"127.0.0.1:41794","clientId":"192.0.2.2@m","language":"JAVA","version":513},{"clientAddr":"127.0.0.1:41794","clientId":"192.0.2.2@m","language":"OTHER","version":513}]}"#,
        "an unknown language would break the tools"
    );
    let producer = ProducerInfo {
        connection: connection(),
        last_update_ms: 1_795_242_945_476,
    };
    assert_eq!(
        body(
            328,
            &Answer::AllProducers(vec![("PG".to_owned(), vec![producer])])
        ),
        r#"{"data":{"PG":[{"clientId":"192.0.2.2@m","language":"JAVA","lastUpdateTimestamp":1795242945476,"remoteIP":"/127.0.0.1:41794","version":513}]}}"#
    );
    assert_eq!(
        said(38, &Answer::Members(vec!["a@1".to_owned(), "b".to_owned()])),
        (
            r#"{"code":0,"extFields":{},"flag":1,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":479}"#.to_owned(),
            r#"{"consumerIdList":["a@1","b"]}"#.to_owned()
        )
    );
    assert_eq!(
        body(41, &Answer::Locked(vec![queue(1)])),
        r#"{"lockOKMQSet":[{"brokerName":"apache","queueId":1,"topic":"JVADM_T"}]}"#
    );
    assert_eq!(body(41, &Answer::Locked(vec![])), r#"{"lockOKMQSet":[]}"#);
}

#[test]
fn settings_are_listed_as_apache_lists_them() {
    let topic = TopicConfig {
        name: "JVADM_T".to_owned(),
        read_queue_count: 2,
        write_queue_count: 2,
        perm: 6,
        multi_tag: false,
        sys_flag: 0,
        order: false,
        attributes: vec![],
    };
    let topic_text = r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":2,"topicFilterType":"SINGLE_TAG","topicName":"JVADM_T","topicSysFlag":0,"writeQueueNums":2}"#;
    assert_eq!(body(351, &Answer::Topic(topic.clone())), topic_text);
    let topics = Answer::Topics {
        table: vec![topic],
        version: VERSION,
        total: 17,
    };
    assert_eq!(
        body(21, &topics),
        format!(
            r#"{{"dataVersion":{{"counter":2,"stateVersion":0,"timestamp":1795242626028}},"mappingDataVersion":{{"counter":0,"stateVersion":0,"timestamp":0}},"topicConfigTable":{{"JVADM_T":{topic_text}}},"topicQueueMappingDetailMap":{{}},"topicQueueMappingInfoMap":{{}}}}"#
        )
    );
    assert!(header(21, &topics).contains(r#""extFields":{"totalTopicNum":"17"}"#));

    let group = GroupConfig::with_defaults("CID_ONSAPI_OWNER");
    let group_text = r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"CID_ONSAPI_OWNER","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;
    assert_eq!(body(352, &Answer::Group(group.clone())), group_text);
    let groups = Answer::Groups {
        table: vec![group],
        version: VERSION,
        total: 10,
    };
    assert_eq!(
        body(201, &groups),
        format!(
            r#"{{"dataVersion":{{"counter":2,"stateVersion":0,"timestamp":1795242626028}},"forbiddenTable":{{}},"subscriptionGroupTable":{{"CID_ONSAPI_OWNER":{group_text}}}}}"#
        )
    );
    assert!(header(201, &groups).contains(r#""extFields":{"totalGroupNum":"10"}"#));

    let config = Answer::Config {
        properties: vec![("traceOn".to_owned(), "true".to_owned())],
        version: VERSION,
    };
    assert_eq!(
        said(26, &config),
        (
            r#"{"code":0,"extFields":{"version":"{\"counter\":2,\"stateVersion\":0,\"timestamp\":1795242626028}"},"flag":1,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":479}"#.to_owned(),
            "traceOn=true\n".to_owned()
        )
    );
}

#[test]
fn status_is_told_as_apache_tells_it() {
    let table = vec![("putTps".to_owned(), "0.5 0.8 0.7".to_owned())];
    assert_eq!(
        body(28, &Answer::Runtime(table)),
        r#"{"table":{"putTps":"0.5 0.8 0.7"}}"#
    );
    let none = Rate::default();
    assert_eq!(
        body(
            315,
            &Answer::Statistics {
                minute: none,
                hour: none,
                day: Rate {
                    sum: 7,
                    tps: f64::NAN,
                    average: 1.5
                },
            }
        ),
        r#"{"statsDay":{"avgpt":1.5,"sum":7,"tps":0.0},"statsHour":{"avgpt":0.0,"sum":0,"tps":0.0},"statsMinute":{"avgpt":0.0,"sum":0,"tps":0.0}}"#
    );
    let names = vec!["JVADM_G".to_owned()];
    assert_eq!(
        body(300, &Answer::GroupNames(names.clone())),
        r#"{"groupList":["JVADM_G"]}"#
    );
    assert_eq!(
        body(343, &Answer::TopicNames(names)),
        r#"{"topicList":["JVADM_G"]}"#
    );
    assert_eq!(
        body(
            303,
            &Answer::TimeSpans(vec![TimeSpan {
                queue: queue(0),
                min_ms: 1,
                max_ms: 2,
                consume_ms: 3,
                delay_ms: 4
            }])
        ),
        r#"{"consumeTimeSpanSet":[{"consumeTimeStamp":3,"delayTime":4,"maxTimeStamp":2,"messageQueue":{"brokerName":"apache","queueId":0,"topic":"JVADM_T"},"minTimeStamp":1}]}"#
    );
}

#[test]
fn units_are_judged_by_the_hash_of_their_tag() {
    let unit = Unit {
        offset: PhysicalOffset(86_031),
        size: 268,
        tags_code: 2_598_919,
    };
    let units = |tags: Option<&[&str]>| {
        said(
            321,
            &Answer::QueueUnits {
                units: vec![unit],
                min: 0,
                max: 6,
                subscription: tags.map(|tags| Subscription {
                    tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                    ..subscription()
                }),
            },
        )
    };
    let (header, body) = units(None);
    assert!(header.contains(r#""remark":"not set any response code""#));
    assert_eq!(
        body,
        r#"{"maxQueueIndex":6,"minQueueIndex":0,"queueData":[{"eval":false,"physicOffset":86031,"physicSize":268,"tagsCode":2598919}]}"#
    );
    assert!(units(Some(&["TagA"])).1.contains(r#""eval":true"#));
    assert!(units(Some(&["TagB"])).1.contains(r#""eval":false"#));
    assert!(units(Some(&[])).1.contains(r#""eval":true"#));
    assert!(
        units(Some(&[]))
            .1
            .contains(r#""subscriptionData":{"classFilterMode""#)
    );
}

#[test]
fn stored_offsets_are_grouped_by_topic_and_group() {
    let offset =
        |topic: &str, queue_id, offset| (topic.to_owned(), "G".to_owned(), queue_id, offset);
    assert_eq!(
        body(
            43,
            &Answer::AllOffsets {
                offsets: vec![offset("T", 1, 5), offset("A", 0, 1), offset("T", 0, 7)],
                version: VERSION,
            }
        ),
        r#"{"dataVersion":{"counter":2,"stateVersion":0,"timestamp":1795242626028},"offsetTable":{"A@G":{"0":1},"T@G":{"0":7,"1":5}}}"#
    );
    assert_eq!(
        body(
            45,
            &Answer::AllDelayOffsets {
                offsets: vec![(1, 10), (18, 0)],
                version: VERSION,
            }
        ),
        r#"{"dataVersion":{"counter":2,"stateVersion":0,"timestamp":1795242626028},"offsetTable":{"1":10,"18":0}}"#
    );
}

#[test]
fn a_pull_is_answered_with_all_its_offsets_and_the_size_of_what_follows() {
    let fetched = |status, from, lens: &[u32]| {
        Answer::Fetched(Fetched {
            status,
            from,
            next: from + 1,
            min: 0,
            max: 9,
            spans: lens
                .iter()
                .map(|len| LogSpan {
                    offset: PhysicalOffset(0),
                    len: *len,
                })
                .collect(),
            count: lens.len() as u32,
        })
    };
    let mut out = Vec::new();
    answer(
        &mut out,
        note(11),
        host(),
        &fetched(FetchStatus::Found, 5, &[100, 23]),
    );
    let length = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
    assert_eq!(
        length + 4,
        out.len() + 123,
        "the spans follow from elsewhere"
    );
    assert_eq!(
        header(11, &fetched(FetchStatus::Found, 5, &[])),
        r#"{"code":0,"extFields":{"suggestWhichBrokerId":"0","nextBeginOffset":"6","minOffset":"0","maxOffset":"9","groupSysFlag":"0","topicSysFlag":"0"},"flag":1,"language":"JAVA","opaque":3,"remark":"FOUND","serializeTypeCurrentRPC":"JSON","version":479}"#
    );
    for (status, from, code, remark) in [
        (FetchStatus::NoMatchedMessage, 5, 20, "NO_MATCHED_MESSAGE"),
        (
            FetchStatus::MessageWasRemoving,
            5,
            20,
            "MESSAGE_WAS_REMOVING",
        ),
        (FetchStatus::OffsetFoundNull, 5, 19, "OFFSET_FOUND_NULL"),
        (
            FetchStatus::OffsetOverflowBadly,
            5,
            21,
            "OFFSET_OVERFLOW_BADLY",
        ),
        (FetchStatus::OffsetOverflowOne, 5, 19, "OFFSET_OVERFLOW_ONE"),
        (FetchStatus::OffsetTooSmall, 5, 21, "OFFSET_TOO_SMALL"),
        (
            FetchStatus::NoMatchedLogicQueue,
            0,
            19,
            "NO_MATCHED_LOGIC_QUEUE",
        ),
        (
            FetchStatus::NoMatchedLogicQueue,
            5,
            21,
            "NO_MATCHED_LOGIC_QUEUE",
        ),
        (FetchStatus::NoMessageInQueue, 0, 19, "NO_MESSAGE_IN_QUEUE"),
        (FetchStatus::NoMessageInQueue, 5, 21, "NO_MESSAGE_IN_QUEUE"),
        (FetchStatus::OffsetReset, 5, 21, "OFFSET_RESET"),
    ] {
        let header = header(361, &fetched(status, from, &[]));
        assert!(header.contains(&format!(r#""code":{code},"#)), "{header}");
        assert!(
            header.contains(&format!(r#""remark":"{remark}""#)),
            "{header}"
        );
        assert!(header.contains(r#""maxOffset":"9""#), "{header}");
    }
}

#[test]
fn refusals_carry_what_their_requests_always_carry() {
    let refused = |code, kind| header(code, &Answer::Refused(Refusal::new(kind, "why")));
    let trace = r#""extFields":{"TRACE_ON":"true","MSG_REGION":"DefaultRegion"}"#;
    assert!(refused(310, RefusalKind::TopicNotExist).contains(trace));
    assert!(refused(320, RefusalKind::MessageIllegal).contains(trace));
    assert!(!refused(310, RefusalKind::SystemError).contains("extFields"));
    assert!(refused(11, RefusalKind::TopicNotExist).contains(r#""extFields":{}"#));
    assert!(!refused(36, RefusalKind::GroupNotExist).contains("extFields"));
    let mut forbidden = Refusal::new(
        RefusalKind::NoPermission,
        "the topic[T] pulling message is forbidden",
    );
    forbidden.forbidden_by = Some(3);
    assert_eq!(
        header(11, &Answer::Refused(forbidden)),
        r#"{"code":16,"extFields":{"forbiddenType":"3"},"flag":1,"language":"JAVA","opaque":3,"remark":"the topic[T] pulling message is forbidden","serializeTypeCurrentRPC":"JSON","version":479}"#
    );
    assert_eq!(
        header(
            9999,
            &Answer::Refused(Refusal::new(
                RefusalKind::RequestNotSupported,
                " request type 9999 not supported"
            ))
        ),
        r#"{"code":3,"flag":1,"language":"JAVA","opaque":3,"remark":" request type 9999 not supported","serializeTypeCurrentRPC":"JSON","version":479}"#
    );
    let none = r#"{"code":22,"extFields":{"indexLastUpdatePhyoffset":"0","indexLastUpdateTimestamp":"0"},"flag":1,"language":"JAVA","opaque":3,"remark":"can not find message, maybe time range not correct","serializeTypeCurrentRPC":"JSON","version":479}"#;
    let nothing = Answer::Records {
        bytes: vec![],
        index_last_ms: 5,
        index_last_offset: 6,
    };
    assert_eq!(header(12, &nothing), none);
}

#[test]
fn small_answers_are_those_of_apache() {
    let plain = r#"{"code":0,"flag":1,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":479}"#;
    assert_eq!(header(36, &Answer::Done), plain);
    assert_eq!(header(42, &Answer::Done), plain);
    assert!(header(15, &Answer::Done).contains(r#""code":0,"extFields":{},"#));
    assert!(header(17, &Answer::Done).contains(r#""remark":"not set any response code""#));
    assert!(
        header(
            15,
            &Answer::DoneWithRemark("Offset has been previously reset")
        )
        .contains(r#""extFields":{},"flag":1,"language":"JAVA","opaque":3,"remark":"Offset has"#)
    );
    assert!(header(14, &Answer::Offset(-1)).contains(r#"{"offset":"-1"},"flag""#));
    assert!(header(31, &Answer::Offset(0)).contains(r#""remark":"","#));
    assert!(header(32, &Answer::Timestamp(-1)).contains(r#"{"timestamp":"-1"}"#));
    assert!(
        header(
            34,
            &Answer::Heartbeat {
                subscription_changed: true
            }
        )
        .contains(r#""extFields":{"IS_SUPPORT_HEART_BEAT_V2":"true","IS_SUB_CHANGE":"true"}"#)
    );
    assert_eq!(
        said(33, &Answer::Record(b"record".to_vec())),
        (plain.to_owned(), "record".to_owned())
    );
    let produced = Answer::Produced(Produced {
        flush_timed_out: true,
        offsets: [PhysicalOffset(0x23374)].into_iter().collect(),
        queue_id: 0,
        queue_offset: QueueOffset(3),
        transaction_id: Some("0100007F000005540000AE42C86D0100".into()),
    });
    assert_eq!(
        header(310, &produced),
        r#"{"code":10,"extFields":{"queueId":"0","msgId":"7F000001000051AF0000000000023374","TRACE_ON":"true","MSG_REGION":"DefaultRegion","queueOffset":"3","transactionId":"0100007F000005540000AE42C86D0100"},"flag":1,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":479}"#
    );
}

#[test]
fn an_answer_too_large_for_a_frame_is_refused() {
    let names = (0..400_000).map(|n| format!("{n:040}")).collect();
    let header = header(305, &Answer::TopicNames(names));
    assert!(
        header.contains(r#""code":1,"#) && header.contains("ask for less"),
        "{header}"
    );
}

#[test]
fn oneway_requests_get_no_answer_at_all() {
    let oneway = note(15) | 1 << 33;
    assert!(Note::unpack(oneway).oneway);
    let mut out = Vec::new();
    answer(&mut out, oneway, host(), &Answer::Done);
    answer(&mut out, oneway, host(), &Answer::Record(vec![1]));
    answer(
        &mut out,
        oneway,
        host(),
        &Answer::Refused(Refusal::new(RefusalKind::SystemBusy, "")),
    );
    answer(
        &mut out,
        oneway,
        host(),
        &Answer::Config {
            properties: vec![("a".to_owned(), "b".to_owned())],
            version: VERSION,
        },
    );
    assert_eq!(out, b"");
}

#[test]
fn a_change_of_members_is_told_without_asking_for_an_answer() {
    let mut out = Vec::new();
    let changed = Notice::MembersChanged {
        group: "CG_py_admin".to_owned(),
    };
    notice(&mut out, HeaderKind::Json, 9703, &changed);
    assert_eq!(
        std::str::from_utf8(&out[8..]).unwrap(),
        r#"{"code":40,"extFields":{"consumerGroup":"CG_py_admin"},"flag":2,"language":"JAVA","opaque":9703,"serializeTypeCurrentRPC":"JSON","version":479}"#
    );
    out.clear();
    notice(&mut out, HeaderKind::Binary, 1, &changed);
    let mut scratch = Scratch::default();
    let request: Request<'_> = decode(&out, &mut scratch).unwrap();
    assert!(request.is_oneway() && !request.is_response());
    assert_eq!(request.field("consumerGroup"), Some("CG_py_admin"));
}

#[test]
fn a_commit_of_gos_library_is_oneway_whatever_it_says() {
    let request = |code: i32, language: &str, flag: i32| {
        let header = format!(
            r#"{{"code":{code},"language":"{language}","version":317,"opaque":42,"flag":{flag}}}"#
        );
        let size = header.len() as u32;
        let frame = [
            &(size + 4).to_be_bytes(),
            &size.to_be_bytes(),
            header.as_bytes(),
        ]
        .concat();
        let mut scratch = Scratch::default();
        Note::unpack(decode(&frame, &mut scratch).unwrap().note()).oneway
    };
    assert!(request(15, "GO", 0) && request(15, "GO", 2) && request(15, "JAVA", 2));
    assert!(!request(15, "JAVA", 0) && !request(14, "GO", 0) && !request(310, "GO", 0));
}

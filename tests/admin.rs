//! What administrators and their tools ask a running broker for, request by request, over TCP.

mod kit;

use std::path::Path;
use std::time::{Duration, Instant};

use kit::{Answer, Broker, Client, bodies, frame, produce_fields};
use serde_json::{Value, json};

/// Small files, so that a few messages fill several.
const SMALL: [&str; 6] = [
    "--set",
    "mappedFileSizeConsumeQueue=200",
    "--set",
    "maxHashSlotNum=1000",
    "--set",
    "maxIndexNum=4000",
];

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.code, 0, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", text(answer)))
}

/// The value behind `key` in a JSON text that Java alone can read.
fn behind<'a>(text: &'a str, key: &str) -> &'a str {
    let at = text.find(key).unwrap_or_else(|| panic!("{key} in {text}")) + key.len();
    &text[at..]
}

fn number_behind(text: &str, key: &str) -> i64 {
    let rest = behind(text, key);
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

fn topic_fields(topic: &str, attributes: &str) -> Value {
    json!({"topic": topic, "defaultTopic": "TBW102", "readQueueNums": "2", "writeQueueNums": "3",
           "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
           "attributes": attributes})
}

fn produce_with(client: &mut Client, topic: &str, properties: &str, body: &[u8]) -> Answer {
    let answer = client.call(310, &produce_fields(topic, 0, properties), body);
    assert_eq!(answer.code, 0, "{answer:?}");
    answer
}

/// Stops in order and starts again: what was in memory is read from files now.
fn restart(mut broker: Broker, folder: &Path) -> Broker {
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let port = broker.port;
    drop(broker);
    Broker::start_on(port, folder, &SMALL)
}

#[test]
fn topics_are_saved_shown_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &SMALL);
    let mut client = broker.client();
    let answer = client.call(17, &topic_fields("t1", "+message.type=FIFO"), &[]);
    assert_eq!(
        (answer.code, &*answer.remark),
        (0, "not set any response code")
    );
    let list = json!({"topicConfigList": [
        {"topicName": "t2", "readQueueNums": 4, "writeQueueNums": 4, "perm": 6},
        {"topicName": "t3", "readQueueNums": 1, "writeQueueNums": 1, "perm": 4, "attributes": {}},
    ]});
    assert_eq!(
        client
            .call(18, &json!({}), list.to_string().as_bytes())
            .code,
        0
    );

    // Whoever was answered is not forgotten, whatever happens next.
    let broker = broker.start_again();
    let mut client = broker.client();
    let topic = json_of(&client.call(351, &json!({"topic": "t1", "lo": "true"}), &[]));
    assert_eq!(topic["readQueueNums"], 2);
    assert_eq!(topic["writeQueueNums"], 3);
    assert_eq!(topic["attributes"], json!({"message.type": "FIFO"}));
    let changed = client.call(17, &topic_fields("t1", "-message.type"), &[]);
    assert_eq!(changed.code, 0);
    let topic = json_of(&client.call(351, &json!({"topic": "t1"}), &[]));
    assert_eq!(topic["attributes"], json!({}));

    let all = client.call(21, &json!({}), &[]);
    let total = all.number("totalTopicNum");
    let table = json_of(&all);
    assert_eq!(
        table["topicConfigTable"].as_object().unwrap().len() as i64,
        total
    );
    assert_eq!(table["topicConfigTable"]["t3"]["perm"], 4);
    let mut seen = 0;
    let mut from = 0;
    while from < total {
        let fields = json!({"topicSeq": from.to_string(), "maxTopicNum": "5", "dataVersion": ""});
        let part = client.call(21, &fields, &[]);
        assert_eq!(part.number("totalTopicNum"), total);
        seen += json_of(&part)["topicConfigTable"]
            .as_object()
            .unwrap()
            .len();
        from += 5;
    }
    assert_eq!(seen as i64, total);

    let system = json_of(&client.call(305, &json!({}), &[]));
    let system = system["topicList"].as_array().unwrap();
    assert!(
        system.contains(&json!("TBW102")) && !system.contains(&json!("t1")),
        "{system:?}"
    );

    let stats = text(&client.call(202, &json!({"topic": "t1"}), &[]));
    assert_eq!(
        stats.matches("\"maxOffset\":0").count(),
        3,
        "three queues, of which two are read: {stats}"
    );

    produce_with(&mut client, "t1", "", b"gone soon");
    assert_eq!(client.call(215, &json!({"topic": "t1"}), &[]).code, 0);
    let answer = client.call(351, &json!({"topic": "t1"}), &[]);
    assert_eq!(
        (answer.code, &*answer.remark),
        (17, "No topic in this broker. topic: t1")
    );
    assert_eq!(client.call(202, &json!({"topic": "t1"}), &[]).code, 17);
    assert_eq!(
        client.call(215, &json!({"topic": "t1"}), &[]).code,
        0,
        "it is gone already"
    );
    let broker = broker.start_again();
    assert_eq!(
        broker.client().call(351, &json!({"topic": "t1"}), &[]).code,
        17
    );
}

#[test]
fn a_topic_that_is_made_again_begins_anew_also_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &SMALL);
    let mut client = broker.client();
    client.make_topic("t", 1);
    for _ in 0..5 {
        produce_with(&mut client, "t", "", b"old");
    }
    assert_eq!(client.call(215, &json!({"topic": "t"}), &[]).code, 0);
    client.make_topic("t", 1);
    for number in 0..3 {
        let answer = produce_with(&mut client, "t", "", b"new");
        assert_eq!(answer.number("queueOffset"), number);
    }
    let bodies_of = |broker: &Broker| bodies(&broker.client().fetch("t", 0, 0, 32).body);
    assert_eq!(bodies_of(&broker), [b"new"; 3]);
    let broker = broker.start_again();
    assert_eq!(bodies_of(&broker), [b"new"; 3]);
    let answer = broker.client().produce("t", 0, b"new");
    assert_eq!(answer.number("queueOffset"), 3);
    assert_eq!(bodies_of(&broker), [b"new"; 4]);
    let broker = restart(broker, folder.path());
    assert_eq!(bodies_of(&broker), [b"new"; 4]);
}

#[test]
fn topics_that_cannot_be_are_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    let before = client.call(21, &json!({}), &[]).number("totalTopicNum");
    let long = "a".repeat(128);
    for name in [
        "",
        " ",
        "../x",
        "a/b",
        "a.b",
        "TBW102",
        "SELF_TEST_TOPIC",
        "DefaultCluster",
        &long,
    ] {
        for code in [17, 215] {
            let answer = client.call(code, &topic_fields(name, ""), &[]);
            assert_eq!(answer.code, 29, "{code} {name:?}: {answer:?}");
            assert!(!answer.remark.is_empty());
        }
    }
    let refused = client.call(17, &topic_fields("TBW102", ""), &[]);
    assert_eq!(
        refused.remark,
        "The topic[TBW102] is conflict with system topic."
    );
    for attributes in ["-message.type", "+colour=red", "+message.type=ODD"] {
        let answer = client.call(17, &topic_fields("t", attributes), &[]);
        assert_eq!(answer.code, 1, "{attributes}: {answer:?}");
    }
    let mixed = client.call(17, &topic_fields("t", "+message.type=MIXED"), &[]);
    assert_eq!(
        (mixed.code, &*mixed.remark),
        (29, "MIXED message type is not supported.")
    );
    for (key, value) in [
        ("readQueueNums", "1000000"),
        ("writeQueueNums", "16385"),
        ("perm", "8"),
    ] {
        let mut fields = topic_fields("t", "");
        fields[key] = json!(value);
        assert_eq!(client.call(17, &fields, &[]).code, 29, "{key} {value}");
    }
    let list = json!({"topicConfigList": [{"topicName": "good"}, {"topicName": "b/d"}]});
    assert_eq!(
        client
            .call(18, &json!({}), list.to_string().as_bytes())
            .code,
        29
    );
    let after = client.call(21, &json!({}), &[]).number("totalTopicNum");
    assert_eq!(
        after, before,
        "one wrong topic of a list leaves the others out"
    );
}

#[test]
fn groups_are_saved_shown_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    let group =
        json!({"groupName": "g1", "retryMaxTimes": 5, "retryQueueNums": 2, "consumeEnable": false});
    assert_eq!(
        client
            .call(200, &json!({}), group.to_string().as_bytes())
            .code,
        0
    );
    let list = json!({"groupConfigList": [{"groupName": "g2"}, {"groupName": "g3"}]});
    assert_eq!(
        client
            .call(225, &json!({}), list.to_string().as_bytes())
            .code,
        0
    );
    let bad = json!({"groupName": "a/b"});
    assert_eq!(
        client
            .call(200, &json!({}), bad.to_string().as_bytes())
            .code,
        29
    );

    let broker = broker.start_again();
    let mut client = broker.client();
    let shown = json_of(&client.call(352, &json!({"group": "g1"}), &[]));
    assert_eq!(shown["retryMaxTimes"], 5);
    assert_eq!(shown["consumeEnable"], false);
    assert_eq!(
        shown["consumeTimeoutMinute"], 15,
        "what is not said keeps its default"
    );
    let retry = json_of(&client.call(351, &json!({"topic": "%RETRY%g1"}), &[]));
    assert_eq!(retry["readQueueNums"], 2);
    let mut names = Client::connect(broker.port + 60);
    let route = names.call(
        105,
        &json!({"topic": "%RETRY%g1", "acceptStandardJsonOnly": "true"}),
        &[],
    );
    assert_eq!(
        json_of(&route)["queueDatas"][0]["readQueueNums"],
        2,
        "tools find a group by this route"
    );
    let all = client.call(
        201,
        &json!({"groupSeq": "0", "maxGroupNum": "2000", "dataVersion": ""}),
        &[],
    );
    let table = json_of(&all);
    let table = table["subscriptionGroupTable"].as_object().unwrap();
    assert_eq!(table.len() as i64, all.number("totalGroupNum"));
    assert!(table.contains_key("g3") && table.contains_key("TOOLS_CONSUMER"));

    client.make_topic("t", 1);
    let commit = json!({"consumerGroup": "g2", "topic": "t", "queueId": "0", "commitOffset": "7"});
    assert_eq!(client.call(15, &commit, &[]).code, 0);
    let fields = json!({"groupName": "g2", "cleanOffset": "true"});
    assert_eq!(client.call(207, &fields, &[]).code, 0);
    assert_eq!(client.call(207, &fields, &[]).code, 0, "it is gone already");
    let answer = client.call(352, &json!({"group": "g2"}), &[]);
    assert_eq!(
        (answer.code, &*answer.remark),
        (26, "No group in this broker. group: g2")
    );
    let offsets = json_of(&client.call(43, &json!({}), &[]));
    assert_eq!(offsets["offsetTable"].get("t@g2"), None, "{offsets}");
}

#[test]
fn messages_are_found_by_place_and_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &SMALL);
    let mut client = broker.client();
    client.make_topic("t", 1);
    client.make_topic("other", 1);
    let large = vec![b'x'; 100_000];
    let mut offsets = Vec::new();
    for number in 0..40 {
        let properties =
            format!("UNIQ_KEY\u{1}U{number}\u{2}KEYS\u{1}all k{number}\u{2}TAGS\u{1}blue\u{2}");
        let body = if number == 7 { &large[..] } else { b"small" };
        let answer = produce_with(&mut client, "t", &properties, body);
        let id = answer.field("msgId").to_owned();
        offsets.push(i64::from_str_radix(&id[id.len() - 16..], 16).unwrap());
    }
    produce_with(
        &mut client,
        "other",
        "KEYS\u{1}all\u{2}",
        b"not of this topic",
    );
    // Java's hash of these two words is one number.
    produce_with(&mut client, "t", "KEYS\u{1}Aa\u{2}", b"of Aa");

    let mut broker = Some(broker);
    for round in ["from memory", "from files"] {
        if round == "from files" {
            broker = broker.map(|broker| restart(broker, folder.path()));
        }
        let mut client = broker.as_ref().unwrap().client();
        let view = |client: &mut Client, offset: i64| {
            client.call(
                33,
                &json!({"offset": offset.to_string(), "topic": "t"}),
                &[],
            )
        };
        assert_eq!(
            bodies(&view(&mut client, offsets[3]).body),
            [b"small"],
            "{round}"
        );
        assert_eq!(
            bodies(&view(&mut client, offsets[7]).body),
            std::slice::from_ref(&large),
            "{round}: read twice"
        );
        for wrong in [
            offsets[3] + 1,
            offsets[3] + 8,
            offsets[39] + 400_000,
            i64::MAX,
            -1,
            4_294_967_040,
        ] {
            let answer = view(&mut client, wrong);
            let remark = format!("can not find message by the offset, {wrong}");
            assert_eq!((answer.code, answer.remark), (1, remark), "{round}");
        }
        let query = |client: &mut Client,
                     key: &str,
                     count: &str,
                     times: (&str, &str),
                     unique: bool| {
            let fields = json!({"topic": "t", "key": key, "maxNum": count, "beginTimestamp": times.0,
                                "endTimestamp": times.1, "_UNIQUE_KEY_QUERY": unique.to_string()});
            client.call(12, &fields, &[])
        };
        let ever = ("0", "9223372036854775807");
        let one = query(&mut client, "k7", "32", ever, false);
        assert_eq!(bodies(&one.body), std::slice::from_ref(&large), "{round}");
        assert!(
            0 < one.number("indexLastUpdateTimestamp")
                && 0 < one.number("indexLastUpdatePhyoffset")
        );
        let unique = query(&mut client, "U3", "1", ever, true);
        assert_eq!(bodies(&unique.body).len(), 1, "{round}");
        assert_eq!(
            bodies(&query(&mut client, "all", "10", ever, false).body).len(),
            10
        );
        assert_eq!(
            bodies(&query(&mut client, "all", "64", ever, false).body).len(),
            40,
            "{round}"
        );
        assert_eq!(
            bodies(&query(&mut client, "Aa", "32", ever, false).body),
            [b"of Aa"]
        );
        assert_eq!(query(&mut client, "BB", "32", ever, false).code, 22);
        for (key, times) in [
            ("k99", ever),
            ("k7", ("0", "1")),
            ("k7", ("9000000000000", "9100000000000")),
        ] {
            let none = query(&mut client, key, "32", times, false);
            assert_eq!(none.code, 22, "{round}: {key} {times:?}");
            assert_eq!(
                none.remark,
                "can not find message, maybe time range not correct"
            );
            assert_eq!(none.field("indexLastUpdatePhyoffset"), "0");
        }
    }
}

#[test]
fn offsets_are_found_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &SMALL);
    let mut client = broker.client();
    client.make_topic("t", 2);
    let group = json!({"groupName": "g"}).to_string();
    assert_eq!(client.call(200, &json!({}), group.as_bytes()).code, 0);
    for _ in 0..30 {
        produce_with(&mut client, "t", "", b"x");
        std::thread::sleep(Duration::from_millis(2));
    }
    let broker = restart(broker, folder.path());
    let mut client = broker.client();
    // 30 units in files of ten, the records in the log: nothing of it is in memory.
    let mut times = Vec::new();
    while times.len() < 30 {
        let answer = client.fetch("t", 0, times.len() as i64, 32);
        assert_eq!(answer.code, 0, "{answer:?}");
        let mut rest = &answer.body[..];
        while !rest.is_empty() {
            times.push(i64::from_be_bytes(rest[56..64].try_into().unwrap()));
            rest = &rest[u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize..];
        }
    }
    assert_eq!(times.len(), 30);
    let mut search = |queue: i64, time: i64, boundary: &str| {
        let fields = json!({"topic": "t", "queueId": queue.to_string(), "timestamp": time.to_string(),
                            "boundaryType": boundary});
        client.call(29, &fields, &[]).number("offset")
    };
    for time in times.iter().flat_map(|time| [time - 1, *time, time + 1]) {
        let lower = times.partition_point(|stored| *stored < time) as i64;
        assert_eq!(
            search(0, time, "LOWER"),
            lower,
            "from {time} on in {times:?}"
        );
        let upper = times.partition_point(|stored| *stored <= time) as i64 - 1;
        assert_eq!(
            search(0, time, "UPPER"),
            upper.max(0),
            "up to {time} in {times:?}"
        );
    }
    assert_eq!(search(0, 0, "LOWER"), 0);
    assert_eq!(search(0, i64::MAX, "LOWER"), 30);
    assert_eq!(search(1, 0, "LOWER"), 0, "an empty queue");
    assert_eq!(search(9, 0, "UPPER"), 0, "a queue that was never there");

    let mut earliest = |queue: &str| {
        client
            .call(32, &json!({"topic": "t", "queueId": queue}), &[])
            .number("timestamp")
    };
    assert_eq!(earliest("0"), times[0]);
    assert_eq!(earliest("1"), -1);

    let stats = text(&client.call(202, &json!({"topic": "t"}), &[]));
    let queue = |id: i64| format!("\"queueId\":{id},\"topic\":\"t\"}}:{{\"lastUpdateTimestamp\":");
    assert_eq!(number_behind(&stats, &queue(0)), times[29], "{stats}");
    assert_eq!(number_behind(&stats, &queue(1)), 0, "{stats}");

    let commit = json!({"consumerGroup": "g", "topic": "t", "queueId": "0", "commitOffset": "12"});
    assert_eq!(client.call(15, &commit, &[]).code, 0);
    let stats = text(&client.call(208, &json!({"consumerGroup": "g"}), &[]));
    let queue = "\"queueId\":0,\"topic\":\"t\"}:{\"brokerOffset\":30,\"consumerOffset\":12,\"lastTimestamp\":";
    assert_eq!(number_behind(&stats, queue), times[11], "{stats}");
    let spans = json_of(&client.call(303, &json!({"topic": "t", "group": "g"}), &[]));
    let spans = spans["consumeTimeSpanSet"].as_array().unwrap();
    assert_eq!(spans.len(), 2);
    let span = spans
        .iter()
        .find(|span| span["messageQueue"]["queueId"] == 0)
        .unwrap();
    assert_eq!(span["minTimeStamp"], times[0]);
    assert_eq!(span["maxTimeStamp"], times[29]);
    assert_eq!(span["consumeTimeStamp"], times[11]);
    assert!(0 < span["delayTime"].as_i64().unwrap());
    assert_eq!(
        client
            .call(303, &json!({"topic": "none", "group": "g"}), &[])
            .code,
        17
    );

    let runtime = json_of(&client.call(28, &json!({}), &[]));
    assert_eq!(
        runtime["table"]["earliestMessageTimeStamp"],
        times[0].to_string()
    );
}

/// `corelane stats --json` of a name server.
fn stats_of(nameserver: &str) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_corelane"))
        .args(["stats", "--json", "--nameserver", nameserver])
        .output()
        .unwrap()
}

#[test]
fn stats_name_the_stages_of_every_shard() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &["--shards", "2", "--flush", "sync"]);
    let mut client = broker.client();
    client.make_topic("T", 1);
    for _ in 0..5 {
        produce_with(&mut client, "T", "", b"x");
    }
    let nameserver = format!("127.0.0.1:{}", broker.port + 60);
    let output = stats_of(&nameserver);
    assert!(output.status.success(), "{output:?}");
    let shards: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shards.as_array().unwrap().len(), 2, "{shards}");
    let stages = [
        "received", "decoded", "appended", "written", "durable", "visible", "sent",
    ];
    assert_eq!(
        shards[0]["stages"].as_object().unwrap().len(),
        stages.len(),
        "{shards}"
    );
    for stage in stages {
        let total = &shards[0]["stages"][stage]["total"];
        assert!(
            total["p50"].is_u64() && total["max"].is_u64(),
            "{stage}: {total}"
        );
    }
    // Answers that were sent are counted when they are asked for, not at the end of a period.
    for stage in ["received", "decoded", "sent"] {
        let count = shards[0]["stages"][stage]["total"]["count"].as_u64();
        assert!(6 <= count.unwrap(), "{stage}: {shards}");
    }
    for stage in ["appended", "written", "durable", "visible"] {
        assert_eq!(shards[0]["stages"][stage]["total"]["count"], 5, "{stage}");
        assert_eq!(shards[1]["stages"][stage]["total"]["count"], 0, "{stage}");
    }
    drop(broker);
    let output = stats_of(&nameserver);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains(&nameserver) && told.contains("--nameserver"),
        "{told}"
    );
}

/// What the kernel has said is looked at behind the requests of its turn, and answered then.
#[test]
fn a_message_is_visible_after_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("T", 1);
    for _ in 0..50 {
        produce_with(&mut client, "T", "", b"x");
    }
    let output = stats_of(&format!("127.0.0.1:{}", broker.port + 60));
    let shards: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |stage: &str, figure: &str| {
        let total = &shards[0]["stages"][stage]["total"];
        total[figure].as_u64().unwrap()
    };
    assert_eq!((of("written", "count"), of("visible", "count")), (50, 50));
    assert!(of("written", "p50") < of("visible", "p50"), "{shards:#}");
}

#[test]
fn units_of_a_queue_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &SMALL);
    let mut client = broker.client();
    client.make_topic("t", 1);
    for _ in 0..25 {
        produce_with(&mut client, "t", "TAGS\u{1}TagA\u{2}", b"x");
    }
    let broker = restart(broker, folder.path());
    let mut client = broker.client();
    let mut units = |from: &str, count: &str| {
        let fields = json!({"topic": "t", "queueId": "0", "index": from, "count": count});
        let answer = client.call(321, &fields, &[]);
        assert_eq!(answer.remark, "not set any response code");
        json_of(&answer)
    };
    let all = units("0", "100");
    assert_eq!(
        (&all["minQueueIndex"], &all["maxQueueIndex"]),
        (&json!(0), &json!(25))
    );
    let data = all["queueData"].as_array().unwrap();
    assert_eq!(data.len(), 25, "over the borders of files of ten units");
    assert!(data.iter().all(|unit| unit["tagsCode"] == 2_598_919));
    assert_eq!(units("7", "5")["queueData"], json!(data[7..12]));
    for (from, count) in [
        ("25", "1"),
        ("-1", "5"),
        ("0", "0"),
        ("0", "-7"),
        ("9223372036854775807", "2"),
    ] {
        assert_eq!(units(from, count)["queueData"], json!([]), "{from} {count}");
    }
    let answer = client.call(
        321,
        &json!({"topic": "t", "queueId": "9", "index": "0", "count": "1"}),
        &[],
    );
    assert_eq!((answer.code, &*answer.remark), (1, "9@t is not exist!"));
}

#[test]
fn offsets_are_set_by_time_by_number_and_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    client.make_topic("t", 2);
    for _ in 0..10 {
        produce_with(&mut client, "t", "", b"x");
    }
    let reset = |client: &mut Client, topic: &str, group: &str, more: &[(&str, &str)]| {
        let mut fields =
            json!({"topic": topic, "group": group, "timestamp": "-1", "isForce": "true"});
        for (key, value) in more {
            fields[*key] = json!(value);
        }
        client.call(222, &fields, &[])
    };
    let none = reset(&mut client, "none", "g", &[]);
    assert_eq!(
        (none.code, &*none.remark),
        (17, "Topic none does not exist")
    );
    let none = reset(&mut client, "t", "g", &[]);
    assert_eq!((none.code, &*none.remark), (26, "Group g does not exist"));
    let group = json!({"groupName": "g"}).to_string();
    assert_eq!(client.call(200, &json!({}), group.as_bytes()).code, 0);

    let all = text(&reset(
        &mut client,
        "t",
        "g",
        &[("queueId", "-1"), ("offset", "-1")],
    ));
    for (queue, end) in [(0, 10), (1, 0)] {
        let key = format!("\"queueId\":{queue},\"topic\":\"t\"}}:");
        assert_eq!(number_behind(&all, &key), end, "{all}");
    }
    let one = reset(&mut client, "t", "g", &[("queueId", "0"), ("offset", "4")]);
    assert_eq!(one.code, 0, "{one:?}");
    for wrong in ["12", "1000"] {
        let answer = reset(
            &mut client,
            "t",
            "g",
            &[("queueId", "0"), ("offset", wrong)],
        );
        assert_eq!(answer.code, 1);
        assert_eq!(
            answer.remark,
            format!("Target offset {wrong} not in consume queue range [0-10]")
        );
    }
    assert_eq!(
        reset(&mut client, "t", "g", &[("queueId", "7")]).code,
        1,
        "no such queue"
    );
    let stored = |client: &mut Client| {
        let fields = json!({"consumerGroup": "g", "topic": "t", "queueId": "0"});
        client.call(14, &fields, &[]).number("offset")
    };
    assert_eq!(stored(&mut client), 4);
    // Who consumes must not write over it before it was told.
    let commit = json!({"consumerGroup": "g", "topic": "t", "queueId": "0", "commitOffset": "9"});
    let ignored = client.call(15, &commit, &[]);
    assert_eq!(
        (ignored.code, &*ignored.remark),
        (0, "Offset has been previously reset")
    );
    let mut pull = kit::fetch_fields("t", 0, 9, 1);
    pull["consumerGroup"] = json!("g");
    let told = client.call(11, &pull, &[]);
    assert_eq!((told.code, told.number("nextBeginOffset")), (21, 4));
    assert_eq!(client.call(15, &commit, &[]).remark, "");
    assert_eq!(stored(&mut client), 9);
    let by_time = text(&reset(&mut client, "t", "g", &[("timestamp", "1")]));
    assert_eq!(
        number_behind(&by_time, "\"queueId\":0,\"topic\":\"t\"}:"),
        0,
        "{by_time}"
    );
}

#[test]
fn who_is_connected_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut admin = broker.client();
    admin.make_topic("t", 1);
    let offline = admin.call(203, &json!({"consumerGroup": "g"}), &[]);
    assert_eq!(
        (offline.code, &*offline.remark),
        (206, "the consumer group[g] not online")
    );
    let unknown = admin.call(204, &json!({"producerGroup": "p"}), &[]);
    assert_eq!(
        (unknown.code, &*unknown.remark),
        (1, "the producer group[p] not exist")
    );

    let mut client = broker.client();
    let heartbeat = json!({"clientID": "c1", "producerDataSet": [{"groupName": "p"}],
        "consumerDataSet": [{"groupName": "g", "consumeType": "CONSUME_PASSIVELY",
            "messageModel": "CLUSTERING", "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "unitMode": false,
            "subscriptionDataSet": [{"topic": "t", "subString": "*", "subVersion": 1, "expressionType": "TAG",
                "classFilterMode": false, "tagsSet": [], "codeSet": []}]}]});
    assert_eq!(
        client
            .call(34, &json!({}), heartbeat.to_string().as_bytes())
            .code,
        0
    );
    let address = client.stream.local_addr().unwrap().to_string();
    let consumers = json_of(&admin.call(203, &json!({"consumerGroup": "g"}), &[]));
    assert_eq!(
        consumers["connectionSet"],
        json!([{"clientAddr": address, "clientId": "c1", "language": "JAVA", "version": 479}])
    );
    assert_eq!(consumers["consumeType"], "CONSUME_PASSIVELY");
    assert_eq!(consumers["subscriptionTable"]["t"]["subString"], "*");
    let producers = json_of(&admin.call(204, &json!({"producerGroup": "p"}), &[]));
    assert_eq!(producers["connectionSet"][0]["clientAddr"], address);
    let all = json_of(&admin.call(328, &json!({}), &[]));
    assert_eq!(all["data"]["p"][0]["remoteIP"], format!("/{address}"));
    let groups = json_of(&admin.call(300, &json!({"topic": "t"}), &[]));
    assert_eq!(groups, json!({"groupList": ["g"]}));

    let commit = json!({"consumerGroup": "g", "topic": "t", "queueId": "0", "commitOffset": "1"});
    assert_eq!(client.call(15, &commit, &[]).code, 0);
    drop(client);
    let end = Instant::now() + Duration::from_secs(10);
    while admin.call(203, &json!({"consumerGroup": "g"}), &[]).code == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        admin.call(203, &json!({"consumerGroup": "g"}), &[]).code,
        206
    );
    let topics = json_of(&admin.call(343, &json!({"group": "g"}), &[]));
    assert_eq!(topics, json!({"topicList": ["t"]}));
    let groups = json_of(&admin.call(300, &json!({"topic": "t"}), &[]));
    assert_eq!(groups, json!({"groupList": ["g"]}), "it has read the topic");
    let offsets = json_of(&admin.call(43, &json!({}), &[]));
    assert_eq!(offsets["offsetTable"]["t@g"], json!({"0": 1}));
}

/// What Apache's broker 5.5.0 answers to 28, but for what has a path or a level in its name.
const RUNTIME_KEYS: &str = "EndTransactionQueueSize EndTransactionThreadPoolQueueCapacity \
    ackThreadPoolQueueCapacity ackThreadPoolQueueHeadWaitTimeMills ackThreadPoolQueueSize bootTimestamp \
    brokerActive brokerVersionDesc commitLogDirCapacity commitLogDiskRatio commitLogMaxOffset \
    commitLogMinOffset consumeQueueDiskRatio dispatchBehindBytes dispatchMaxBuffer earliestMessageTimeStamp \
    getFoundTps getMessageEntireTimeMax getMissTps getTotalTps getTransferredTps \
    litePullThreadPoolQueueCapacity litePullThreadPoolQueueHeadWaitTimeMills litePullThreadPoolQueueSize \
    msgGetTotalTodayMorning msgGetTotalTodayNow msgGetTotalYesterdayMorning msgPutTotalTodayMorning \
    msgPutTotalTodayNow msgPutTotalYesterdayMorning pageCacheLockTimeMills pullThreadPoolQueueCapacity \
    pullThreadPoolQueueHeadWaitTimeMills pullThreadPoolQueueSize putLatency99 putLatency999 \
    putMessageAverageSize putMessageDistributeTime putMessageEntireTimeMax putMessageFailedTimes \
    putMessageSizeTotal putMessageTimesTotal putTps queryThreadPoolQueueCapacity \
    queryThreadPoolQueueHeadWaitTimeMills queryThreadPoolQueueSize remainHowManyDataToFlush \
    remainTransientStoreBufferNumbs runtime sendThreadPoolQueueCapacity \
    sendThreadPoolQueueHeadWaitTimeMills sendThreadPoolQueueSize startAcceptSendRequestTimeStamp \
    timerCongestNum timerDequeueTps timerEnqueueTps timerOffsetBehind timerReadBehind";

#[test]
fn the_state_of_the_broker_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    let earliest = |client: &mut Client| {
        json_of(&client.call(28, &json!({}), &[]))["table"]["earliestMessageTimeStamp"].clone()
    };
    assert_eq!(earliest(&mut client), "-1", "nothing is stored");
    client.make_topic("t", 1);
    for _ in 0..3 {
        produce_with(&mut client, "t", "", b"x");
    }
    produce_with(&mut client, "t", "DELAY\u{1}1\u{2}", b"later");
    assert_eq!(client.fetch("t", 0, 0, 10).code, 0);
    let end = Instant::now() + Duration::from_secs(20);
    let delayed =
        |client: &mut Client| json_of(&client.call(45, &json!({}), &[]))["offsetTable"].clone();
    while delayed(&mut client) != json!({"1": 1}) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(delayed(&mut client), json!({"1": 1}));
    let runtime = json_of(&client.call(28, &json!({}), &[]));
    let table = runtime["table"].as_object().unwrap();
    for key in RUNTIME_KEYS.split_whitespace() {
        assert!(
            table.get(key).is_some_and(Value::is_string),
            "{key} in {table:?}"
        );
    }
    let folder = broker.store.join("0/commitlog");
    assert!(table.contains_key(&format!("commitLogDiskRatio_{}", folder.display())));
    assert_eq!(table["scheduleMessageOffset_1"], "1,1");
    assert_eq!(table["msgPutTotalTodayNow"], table["putMessageTimesTotal"]);
    assert_ne!(table["earliestMessageTimeStamp"], "-1");
    for key in [
        "putTps",
        "getTransferredTps",
        "getFoundTps",
        "getMissTps",
        "getTotalTps",
    ] {
        let numbers: Vec<f64> = table[key]
            .as_str()
            .unwrap()
            .split(' ')
            .map(|one| one.parse().unwrap())
            .collect();
        assert_eq!(numbers.len(), 3, "{key}");
    }
    let capacity = table["commitLogDirCapacity"].as_str().unwrap();
    assert!(
        capacity.starts_with("Total : ") && capacity.ends_with("iB."),
        "{capacity}"
    );
    assert_ne!(
        table["commitLogDiskRatio"], "0.00",
        "the disk has been looked at"
    );

    let stats = json_of(&client.call(
        315,
        &json!({"statsName": "TOPIC_PUT_NUMS", "statsKey": "t"}),
        &[],
    ));
    assert!(stats["statsDay"]["sum"].is_i64(), "{stats}");
    let none = client.call(
        315,
        &json!({"statsName": "TOPIC_PUT_NUMS", "statsKey": "none"}),
        &[],
    );
    assert_eq!(
        (none.code, &*none.remark),
        (1, "The stats <TOPIC_PUT_NUMS> <none> not exist")
    );
}

#[test]
fn the_configuration_is_the_process_s() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &["--shards", "2"]);
    let mut clients = [broker.client(), Client::connect(broker.port + 10)];
    let value = |client: &mut Client, key: &str| {
        let answer = client.call(26, &json!({}), &[]);
        assert!(
            answer.field("version").contains("\"counter\":"),
            "{answer:?}"
        );
        let lines = text(&answer);
        let line = lines
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("{key} in {lines}"))
            .to_owned()
    };
    assert_eq!(
        value(&mut clients[1], "listenPort"),
        (broker.port + 10).to_string()
    );
    let name = value(&mut clients[1], "brokerName");
    assert!(name.ends_with("-1"), "{name}");
    clients[0].make_topic("t", 1);
    clients[1].make_topic("t", 1);

    let update = |client: &mut Client, text: &str| client.call(25, &json!({}), text.as_bytes());
    let changes = "brokerPermission=4\nfileReservedTime=48\nmaxMessageSize=1000\nautoCreateTopicEnable=false\n";
    assert_eq!(update(&mut clients[0], changes).code, 0);
    for client in &mut clients {
        for line in changes.lines() {
            let (key, wanted) = line.split_once('=').unwrap();
            assert_eq!(
                value(client, key),
                wanted,
                "on every shard, before the answer"
            );
        }
        let refused = client.produce("t", 0, &[b'x'; 1001]);
        assert_eq!(refused.code, 13, "{refused:?}");
        assert_eq!(client.produce("unknown", 0, b"x").code, 17);
    }
    let mut names = Client::connect(broker.port + 60);
    let mut perms = || {
        let route = names.call(
            105,
            &json!({"topic": "t", "acceptStandardJsonOnly": "true"}),
            &[],
        );
        let queues = json_of(&route)["queueDatas"].clone();
        let perms = queues
            .as_array()
            .unwrap()
            .iter()
            .map(|queue| queue["perm"].as_i64().unwrap());
        perms.collect::<Vec<_>>()
    };
    assert_eq!(perms(), [4, 4], "routes say what the broker allows");
    assert_eq!(update(&mut clients[1], "brokerPermission=6\n").code, 0);
    assert_eq!(perms(), [6, 6]);

    assert_eq!(
        update(&mut clients[0], "flushDiskTypeX=?\ntraceOn=true\n").code,
        0
    );
    let refused = update(&mut clients[0], "brokerConfigPath=/x\n");
    assert_eq!(
        (refused.code, &*refused.remark),
        (16, "Can not update config in black list.")
    );
    let refused = update(&mut clients[0], "fileReservedTime=99\nlistenPort=1234\n");
    assert_eq!(refused.code, 16, "{refused:?}");
    assert_eq!(
        value(&mut clients[0], "fileReservedTime"),
        "48",
        "all or nothing"
    );
    let refused = update(&mut clients[0], "fileReservedTime=soon\n");
    assert_eq!(refused.code, 29, "{refused:?}");
    assert_eq!(update(&mut clients[0], "").code, 0);
}

#[test]
fn clients_are_told_what_expressions_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    let mut check = |kind: &str| {
        let body = json!({"clientId": "c", "group": "g", "subscriptionData": {"topic": "t", "subString": "a > 1",
            "expressionType": kind, "subVersion": 1, "tagsSet": [], "codeSet": [], "classFilterMode": false}});
        client.call(46, &json!({}), body.to_string().as_bytes())
    };
    assert_eq!(check("TAG").code, 0);
    let refused = check("SQL92");
    let remark = "The broker does not support consumer to filter message by SQL92";
    assert_eq!((refused.code, &*refused.remark), (1, remark));
}

#[test]
fn many_questions_at_once_are_all_answered_and_a_client_may_leave() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &SMALL);
    let mut client = broker.client();
    client.make_topic("t", 1);
    for _ in 0..30 {
        produce_with(&mut client, "t", "KEYS\u{1}all\u{2}", b"x");
    }
    let broker = restart(broker, folder.path());
    let fields = json!({"topic": "t", "queueId": "0", "timestamp": "5", "key": "all", "maxNum": "64",
                        "beginTimestamp": "0", "endTimestamp": "9000000000000"});
    let flood = |client: &mut Client, count: i64| {
        let frames: Vec<u8> = (0..count)
            .flat_map(|number| frame(if number % 2 == 0 { 29 } else { 12 }, number, &fields, &[]))
            .collect();
        std::io::Write::write_all(&mut client.stream, &frames).unwrap();
    };
    let mut leaving = broker.client();
    flood(&mut leaving, 300);
    drop(leaving);
    let mut client = broker.client();
    flood(&mut client, 500);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let (opaque, answer) = client.receive().unwrap();
        let is_busy = answer.code == 2;
        assert!(answer.code == 0 || is_busy, "{answer:?}");
        assert!(seen.insert(opaque), "{opaque} is answered twice");
        if !is_busy && opaque % 2 == 1 {
            assert_eq!(bodies(&answer.body).len(), 30);
        }
    }
    assert_eq!(broker.client().produce("t", 0, b"y").code, 0);
}

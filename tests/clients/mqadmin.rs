//! Apache's mqadmin: each command ends well and prints what an administrator needs from it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::JAVA_5;
use crate::support::broker::{Cluster, SHARD_COUNT};
use crate::support::program::{build, folder_of, home};
use crate::support::{remoting, wait_until};

/// Runs a command that must succeed, and gives what it prints. mqadmin exits with 0 when a command failed,
/// and prints the exception.
fn mqadmin(cluster: &Cluster, command: &str) -> String {
    build("mqadmin");
    let output = Command::new(folder_of("mqadmin").join("run"))
        .args(command.split_whitespace())
        .args(["-n", &cluster.namesrv()])
        .env("HOME", home())
        .output()
        .expect("tests/clients/mqadmin/run starts");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !errors.contains("Exception") && !printed.contains("Exception:"),
        "mqadmin {command}: {}\n{printed}\n{errors}\n{}",
        output.status,
        cluster.log_tail()
    );
    printed
}

fn expect(printed: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(printed.contains(text), "{text:?} is not in\n{printed}");
    }
}

/// The columns of the first line that begins with these words.
fn row<'a>(printed: &'a str, begin: &[&str]) -> Vec<&'a str> {
    printed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.starts_with(begin))
        .unwrap_or_else(|| panic!("no line with {begin:?} in\n{printed}"))
}

/// The value of `Name:  value` in what the query commands print.
fn field<'a>(printed: &'a str, name: &str) -> &'a str {
    let value = printed
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .unwrap_or_else(|| panic!("no {name} in\n{printed}"))
        .trim()
}

#[test]
fn topics_are_made_listed_and_deleted() {
    let cluster = Cluster::shared("mqadmin");
    let topic = "admin-topics";
    let printed = mqadmin(
        &cluster,
        &format!("updateTopic -c DefaultCluster -t {topic} -r 3 -w 3"),
    );
    for address in cluster.addresses() {
        expect(&printed, &[&format!("create topic to {address} success.")]);
    }
    let route = mqadmin(&cluster, &format!("topicRoute -t {topic}"));
    for address in cluster.addresses() {
        expect(&route, &[&format!("\"{address}\"")]);
    }
    let compact: String = route.split_whitespace().collect();
    for queues in ["\"readQueueNums\":3", "\"writeQueueNums\":3", "\"perm\":6"] {
        assert_eq!(
            compact.matches(queues).count(),
            SHARD_COUNT as usize,
            "{queues} in {route}"
        );
    }
    JAVA_5.produce(&cluster, topic, "--count 60");
    let status = mqadmin(&cluster, &format!("topicStatus -t {topic}"));
    let mut stored = 0;
    for shard in 0..SHARD_COUNT {
        for queue in 0..3 {
            let columns = row(&status, &[&cluster.name(shard), &queue.to_string()]);
            assert_eq!(columns[2], "0", "the least offset in {columns:?}");
            stored += columns[3]
                .parse::<u64>()
                .expect("the greatest offset is a number");
        }
    }
    assert_eq!(stored, 60, "{status}");
    row(&mqadmin(&cluster, "topicList"), &[topic]);
    row(
        &mqadmin(&cluster, "topicList -c"),
        &["DefaultCluster", topic],
    );

    let printed = mqadmin(
        &cluster,
        &format!("deleteTopic -c DefaultCluster -t {topic}"),
    );
    expect(
        &printed,
        &[&format!(
            "delete topic [{topic}] from cluster [DefaultCluster] success."
        )],
    );
    let gone = || remoting::route_broker_count(&cluster.namesrv(), topic) == 0;
    assert!(
        wait_until(Duration::from_secs(10), gone),
        "{topic} still has a route"
    );
    let listed = mqadmin(&cluster, "topicList");
    assert!(!listed.contains(topic), "{listed}");
}

#[test]
fn groups_are_made_watched_and_deleted() {
    let cluster = Cluster::shared("mqadmin");
    let (topic, group) = ("admin-groups", "G-admin-groups");
    cluster.create_topic(topic, 2);
    let printed = mqadmin(
        &cluster,
        &format!("updateSubGroup -c DefaultCluster -g {group} -r 5 -s true"),
    );
    for address in cluster.addresses() {
        expect(
            &printed,
            &[&format!("create subscription group to {address} success.")],
        );
    }
    expect(
        &printed,
        &[&format!("groupName={group}"), "retryMaxTimes=5"],
    );

    JAVA_5.produce(&cluster, topic, "--count 100");
    let consumer = JAVA_5.consumer(&cluster, topic, &format!("--group {group} --count 1000000"));
    let arrived = || consumer.deliveries(&cluster).len() == 100;
    assert!(
        wait_until(Duration::from_secs(90), arrived),
        "100 messages do not arrive"
    );
    // It sends until it is told to stop, which is at the end of this test.
    let flags = "produce --group P-admin --count 10000000 --timeout 280";
    let producer = JAVA_5.start(&cluster, topic, flags);
    let sending = || 1 < producer.values().len();
    assert!(
        wait_until(Duration::from_secs(60), sending),
        "the producer does not send"
    );

    let printed = mqadmin(&cluster, &format!("consumerConnection -g {group}"));
    expect(
        &printed,
        &[
            "127.0.0.1:",
            "JAVA",
            "V5_5_0",
            "CONSUME_PASSIVELY",
            "CLUSTERING",
        ],
    );
    row(&printed, &[topic, "*"]);
    row(&printed, &[&format!("%RETRY%{group}"), "*"]);
    let printed = mqadmin(
        &cluster,
        &format!("producerConnection -g P-admin -t {topic}"),
    );
    expect(&printed, &["127.0.0.1:", "JAVA", "V5_5_0"]);
    drop(producer);

    let mut printed = String::new();
    let caught_up = wait_until(Duration::from_secs(90), || {
        printed = mqadmin(&cluster, &format!("consumerProgress -g {group}"));
        printed.contains("Consume Diff Total: 0")
    });
    assert!(caught_up, "{printed}");
    for shard in 0..SHARD_COUNT {
        for queue in ["0", "1"] {
            let columns = row(&printed, &[topic, &cluster.name(shard), queue]);
            assert_eq!(
                columns[3], columns[4],
                "broker's and consumer's offset in {printed}"
            );
        }
    }
    let printed = mqadmin(&cluster, &format!("statsAll -t {topic}"));
    let columns = row(&printed, &[topic, group]);
    assert_eq!(columns.len(), 7, "{printed}");
    assert_eq!(columns[2], "0", "accumulation in {printed}");
    consumer.end(&cluster);

    let printed = mqadmin(
        &cluster,
        &format!("deleteSubGroup -c DefaultCluster -g {group}"),
    );
    for address in cluster.addresses() {
        expect(
            &printed,
            &[&format!(
                "delete subscription group [{group}] from broker [{address}]"
            )],
        );
    }
}

#[test]
fn offsets_are_reset_by_time() {
    let cluster = Cluster::shared("mqadmin");
    let (topic, group) = ("admin-reset", "G-admin-reset");
    cluster.create_topic(topic, 2);
    JAVA_5.produce(&cluster, topic, "--count 50");
    let consume = |count: usize| {
        let flags = format!("--group {group} --count {count} --linger 3");
        let run = JAVA_5.consumer(&cluster, topic, &flags);
        wait_until(Duration::from_secs(90), || {
            count <= run.deliveries(&cluster).len()
        });
        let mut indexes: Vec<u64> = run
            .end(&cluster)
            .iter()
            .filter_map(|delivery| delivery.index)
            .collect();
        indexes.sort_unstable();
        indexes
    };
    assert_eq!(consume(50), (0..50).collect::<Vec<_>>());
    let between = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    std::thread::sleep(Duration::from_millis(20));
    JAVA_5.produce(&cluster, topic, "--count 50 --first 50");
    assert_eq!(consume(50), (50..100).collect::<Vec<_>>());

    // To a moment: what was sent since then comes again.
    let printed = mqadmin(
        &cluster,
        &format!("resetOffsetByTime -g {group} -t {topic} -s {between}"),
    );
    for shard in 0..SHARD_COUNT {
        for queue in ["0", "1"] {
            let reset: u64 = row(&printed, &[&cluster.name(shard), queue])[2]
                .parse()
                .expect("an offset");
            assert!(0 < reset && reset < 50, "{printed}");
        }
    }
    assert_eq!(consume(50), (50..100).collect::<Vec<_>>());
    // To the beginning: everything comes again.
    mqadmin(
        &cluster,
        &format!("resetOffsetByTime -g {group} -t {topic} -s 0"),
    );
    assert_eq!(consume(100), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_cluster_and_its_brokers_are_shown() {
    let cluster = Cluster::shared("mqadmin");
    let printed = mqadmin(&cluster, "clusterList");
    for shard in 0..SHARD_COUNT {
        let columns = row(
            &printed,
            &[
                "DefaultCluster",
                &cluster.name(shard),
                "0",
                &cluster.address(shard),
            ],
        );
        assert!(columns[4].starts_with("V5_"), "version in {printed}");
        let status = mqadmin(
            &cluster,
            &format!("brokerStatus -b {}", cluster.address(shard)),
        );
        for key in [
            "bootTimestamp",
            "brokerVersionDesc",
            "commitLogMaxOffset",
            "commitLogMinOffset",
            "getFoundTps",
            "getTotalTps",
            "msgGetTotalTodayNow",
            "msgPutTotalTodayNow",
            "putTps",
            "putMessageDistributeTime",
            "runtime",
        ] {
            row(&status, &[key, ":"]);
        }
        let config = mqadmin(
            &cluster,
            &format!("getBrokerConfig -b {}", cluster.address(shard)),
        );
        let port = cluster
            .address(shard)
            .rsplit_once(':')
            .expect("a port")
            .1
            .to_owned();
        for (key, value) in [
            ("brokerClusterName", "DefaultCluster"),
            ("brokerName", &*cluster.name(shard)),
            ("brokerId", "0"),
            ("listenPort", &*port),
            ("flushDiskType", "ASYNC_FLUSH"),
            ("maxMessageSize", "4194304"),
            ("autoCreateTopicEnable", "true"),
        ] {
            assert_eq!(row(&config, &[key, "="])[2], value, "{key} in {config}");
        }
    }
}

#[test]
fn messages_are_sent_found_and_read() {
    let cluster = Cluster::shared("mqadmin");
    let topic = "admin-messages";
    cluster.create_topic(topic, 2);
    let name = cluster.name(1);
    JAVA_5.produce(&cluster, topic, "--count 40 --tag blue");
    let command =
        format!("sendMessage -t {topic} -p 你好 -k admin-key -c admin-tag -b {name} -i 1");
    let columns = mqadmin(&cluster, &command);
    let columns = row(&columns, &[&name, "1", "SEND_OK"]);
    let id = columns[3];

    // What was appended a moment ago is found by its keys once the index has it.
    let mut found = String::new();
    let indexed = Instant::now() + Duration::from_secs(20);
    while !found.contains(id) && Instant::now() < indexed {
        found = mqadmin(&cluster, &format!("queryMsgByKey -t {topic} -k admin-key"));
    }
    assert_eq!(row(&found, &[id])[1], "1", "queue in {found}");

    let by_unique_key = mqadmin(&cluster, &format!("queryMsgByUniqueKey -t {topic} -i {id}"));
    let expect_message = |printed: &str| {
        assert_eq!(field(printed, "Topic"), topic);
        assert_eq!(field(printed, "Tags"), "[admin-tag]");
        assert_eq!(field(printed, "Keys"), "[admin-key]");
        assert_eq!(field(printed, "Queue ID"), "1");
        assert_eq!(field(printed, "Store Host"), cluster.address(1));
        expect(printed, &[&format!("UNIQ_KEY={id}")]);
    };
    expect_message(&by_unique_key);
    let offset = field(&by_unique_key, "Queue Offset").to_owned();
    let by_offset = mqadmin(
        &cluster,
        &format!("queryMsgByOffset -t {topic} -b {name} -i 1 -o {offset}"),
    );
    expect_message(&by_offset);
    let offset_id = field(&by_offset, "OffsetID");
    let by_id = mqadmin(&cluster, &format!("queryMsgById -t {topic} -i {offset_id}"));
    expect_message(&by_id);

    let printed = mqadmin(
        &cluster,
        &format!("consumeMessage -t {topic} -b {name} -i 1 -o {offset} -c 1"),
    );
    expect(
        &printed,
        &["Consume ok", &format!("MSGID: {id}"), "BODY: 你好"],
    );
    let printed = mqadmin(
        &cluster,
        &format!("consumeMessage -t {topic} -b {name} -i 0 -o 0 -c 3"),
    );
    assert_eq!(printed.matches("MSGID: ").count(), 3, "{printed}");
}

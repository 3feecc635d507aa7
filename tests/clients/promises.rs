//! What every client library must be able to rely on, whichever it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::support::broker::{Cluster, Queue, SHARD_COUNT, is_reference};
use crate::support::program::{Acknowledgement, Delivery, EXIT_UNSUPPORTED, Program, Run};
use crate::support::{remoting, wait_until};

/// How long a consumer may take to be given what is there. Libraries look for new routes every 30 s and
/// share out queues every 20 s, and a loaded machine adds its own.
const DELIVERY_LIMIT: Duration = Duration::from_secs(90);
/// Queues of a topic on each shard: as many as a producer assumes that finds no route in time.
const QUEUE_COUNT: u32 = 4;
const FOUR_MIB: usize = 4 * 1024 * 1024;
/// What some libraries lack, and a program can therefore not refuse; in the lists it stands behind a colon.
/// A listener that fails one message of a batch fails those that it was not given, too.
const SINGLE_FAILURES: &str = "consume: a failure for each message";
/// Its batch is a single send (10) with a mark, not a send of a batch (320).
const BATCH_CODE: &str = "produce: the request for batches";
/// The send-back (36) names neither the topic nor the limit, only the place of the message.
const TOPIC_OF_SEND_BACK: &str = "consume: the topic of what is sent back";
/// Followed by the kind of pull consumer.
const STORED_OFFSETS: &str = "pull: stored offsets of kind";
const MESSAGE_ILLEGAL: u64 = 13;

/// 10,000 messages from several threads in all four ways of sending. The first consumer of the group is
/// alone, a second one joins while messages are sent, then the first leaves while messages are sent.
pub fn every_message_arrives_over_two_rebalances(program: &Program) {
    const QUARTER: u64 = 2_500;
    let cluster = Cluster::shared(program.name);
    let topic = format!("rebalance-{}", program.name);
    let group = format!("G-rebalance-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    let produce = |quarter: u64, mode: &str| {
        let first = quarter * QUARTER;
        // Apache's broker 5.5.0 stores a batch of the C++ library as one message.
        let whole = mode == "batch" && is_reference() && program.lacks(BATCH_CODE);
        let mode = if whole || program.lacks(&format!("produce --mode {mode}")) {
            "sync"
        } else {
            mode
        };
        let flags =
            format!("--count {QUARTER} --first {first} --threads 4 --mode {mode} --timeout 110");
        program.start(
            &cluster,
            &topic,
            &format!("produce --group P{quarter}-{topic} {flags}"),
        )
    };
    let committed = || cluster.committed_offsets(&group, &topic, QUEUE_COUNT);
    let mut acknowledged = Vec::new();

    let mut first = program.consumer(
        &cluster,
        &topic,
        &format!("--group {group} --count 1000000 --linger 1"),
    );
    let producers = [produce(0, "sync"), produce(1, "oneway")];
    expect_deliveries(&cluster, 1_000, &[&first]);
    let committed_before_join = committed();
    let second = program.consumer(
        &cluster,
        &topic,
        &format!("--group {group} --count 1000000 --linger 2"),
    );
    for producer in producers {
        acknowledged.extend(producer.produced(&cluster));
    }

    acknowledged.extend(produce(2, "async").produced(&cluster));
    // Before the first consumer leaves, the second must have taken part.
    expect_deliveries(&cluster, 500, &[&second]);
    let last_producer = produce(3, "batch");
    expect_deliveries(&cluster, 3 * QUARTER as usize + 1, &[&first, &second]);
    let committed_before_leave = committed();
    let left = Instant::now();
    first.close_stdin();
    acknowledged.extend(last_producer.produced(&cluster));

    expect_deliveries(&cluster, 4 * QUARTER as usize, &[&first, &second]);
    let by_first = first.end(&cluster);
    let by_second = second.end(&cluster);

    let stored: u64 = cluster.max_offsets(&topic, QUEUE_COUNT).values().sum();
    assert_eq!(
        stored,
        4 * QUARTER,
        "messages in the queues; more mean that a send was repeated"
    );
    expect_all(&by_first, &by_second, 0..4 * QUARTER);
    expect_as_acknowledged(&acknowledged, by_first.iter().chain(&by_second));
    for delivery in by_first.iter().chain(&by_second) {
        let index = delivery.index.expect("every message has an index");
        assert_eq!(delivery.body, format!("m-{index}"));
        assert_eq!(delivery.city, "北京", "property of message {index}");
    }
    expect_repeats_bounded(&by_first, &by_second, |at, from| {
        if from < left {
            committed_before_join[&at]
        } else {
            committed_before_leave[&at]
        }
    });
}

/// One thread sends in order, so each queue holds its messages in order; two ordered consumers, the second
/// joining late, are given them in order.
pub fn order_is_kept_in_each_queue(program: &Program) {
    const COUNT: u64 = 900;
    let cluster = Cluster::shared(program.name);
    let topic = format!("order-{}", program.name);
    let group = format!("G-order-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    let ordered = !program.lacks("consume --listener orderly");
    let listener = if ordered { "orderly" } else { "concurrent" };
    let flags = format!("--group {group} --count 1000000 --linger 1 --listener {listener}");
    let first = program.consumer(&cluster, &topic, &flags);
    program.produce(&cluster, &topic, &format!("--count {COUNT}"));
    expect_deliveries(&cluster, 100, &[&first]);
    let committed = cluster.committed_offsets(&group, &topic, QUEUE_COUNT);
    let second = program.consumer(&cluster, &topic, &flags);
    program.produce(
        &cluster,
        &topic,
        &format!("--count {COUNT} --first {COUNT}"),
    );
    program.produce(
        &cluster,
        &topic,
        &format!("--count {COUNT} --first {} --queue 1", 2 * COUNT),
    );
    expect_deliveries(&cluster, 3 * COUNT as usize, &[&first, &second]);
    let by_first = first.end(&cluster);
    let by_second = second.end(&cluster);

    expect_all(&by_first, &by_second, 0..3 * COUNT);
    for mut deliveries in [by_first.clone(), by_second.clone()] {
        if !ordered {
            deliveries.sort_by_key(|delivery| delivery.offset);
        }
        let mut last: HashMap<Queue, &Delivery> = HashMap::new();
        for delivery in &deliveries {
            let at = known_queue(delivery);
            if let Some(before) = last.insert(at, delivery) {
                assert!(
                    before.offset < delivery.offset && before.index < delivery.index,
                    "out of order in {at:?}: {before:?}, then {delivery:?}"
                );
            }
        }
    }
    let to_one_queue: HashSet<Queue> = by_first
        .iter()
        .chain(&by_second)
        .filter(|delivery| Some(2 * COUNT) <= delivery.index)
        .map(known_queue)
        .collect();
    assert_eq!(
        to_one_queue.len(),
        1,
        "queues of what was sent to queue 1: {to_one_queue:?}; {}",
        cluster.log_tail()
    );
    expect_repeats_bounded(&by_first, &by_second, |at, _| committed[&at]);
}

pub fn tags_are_filtered(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("tags-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    let producers: Vec<Run> = ["red", "green", "blue"]
        .iter()
        .zip([0, 100, 200])
        .map(|(tag, first)| {
            let flags = format!("--count 100 --first {first} --tag {tag} --timeout 110");
            program.start(
                &cluster,
                &topic,
                &format!("produce --group P-{tag}-{topic} {flags}"),
            )
        })
        .collect();
    let arguments = [
        "consume",
        "--group",
        &format!("G-{topic}"),
        "--count",
        "200",
        "--timeout",
        "60",
        "--linger",
        "2",
        "--subscription",
        "red || blue",
    ];
    let consumer = program.start_with(&cluster, &topic, &arguments);
    for producer in producers {
        producer.produced(&cluster);
    }
    expect_deliveries(&cluster, 200, &[&consumer]);
    let delivered = consumer.end(&cluster);
    for delivery in &delivered {
        let tag = if delivery.index < Some(100) {
            "red"
        } else {
            "blue"
        };
        assert_eq!(delivery.tag, tag, "{delivery:?}");
    }
    let indexes: Vec<u64> = delivered
        .iter()
        .filter_map(|delivery| delivery.index)
        .collect();
    assert_eq!(indexes.len(), 200, "each red and blue message once");
    assert_eq!(distinct(&delivered), (0..100).chain(200..300).collect());

    // Libraries compare the tags again, so what the broker itself filters is asked of it.
    let place = known_queue(&delivered[0]);
    let address = cluster.address(place.shard);
    let records = remoting::pull(&address, &topic, place.queue, 0, "green");
    let tagged = |tag: &str| {
        let property = format!("TAGS\u{1}{tag}");
        records
            .windows(property.len())
            .any(|window| window == property.as_bytes())
    };
    let found = ["red", "green", "blue"].map(tagged);
    assert_eq!(found, [false, true, false], "red, green, blue for green");
}

/// Delay level 3, 10 s, is the first of the retries.
pub fn a_failing_listener_gets_retries(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("retry-{}", program.name);
    let group = format!("G-{topic}");
    cluster.create_topic(&topic, QUEUE_COUNT);
    cluster.create_group(&group, 3);
    // Else the consumer would find this topic with its next look at the routes, up to 30 s later. That the
    // broker creates it for a new group is left to the test of the dead letters.
    cluster.create_topic(&format!("%RETRY%{group}"), 1);
    let flags = format!("--group {group} --count 20 --linger 2 --fail-until 1");
    let consumer = program.consumer(&cluster, &topic, &flags);
    program.produce(&cluster, &topic, "--count 20");
    let retries = |consumer: &Run| retries(consumer, &cluster);
    let in_batches = program.lacks(SINGLE_FAILURES);
    let is_retry = |delivery: &&Delivery| delivery.reconsume == 1;
    let all_retried = || {
        consumer
            .deliveries(&cluster)
            .iter()
            .filter(is_retry)
            .count()
            == 20
    };
    assert!(
        wait_until(DELIVERY_LIMIT, all_retried),
        "(index, reconsume times): {:?}",
        retries(&consumer)
    );
    let delivered = consumer.end(&cluster);

    let mut failed_at = HashMap::new();
    for delivery in &delivered {
        match delivery.reconsume {
            0 => {
                assert_eq!(delivery.ok, Some(false));
                assert!(
                    failed_at.insert(delivery.index, delivery.at).is_none(),
                    "twice: {delivery:?}"
                );
            }
            _ => {
                assert_eq!(
                    (delivery.ok, delivery.reconsume),
                    (Some(true), 1),
                    "{delivery:?}"
                );
                let index = delivery
                    .index
                    .expect("a retried message keeps its properties");
                let retry_topic = format!("%RETRY%{group}");
                assert!(
                    [&topic, &retry_topic].contains(&&delivery.topic),
                    "{delivery:?}"
                );
                assert_eq!(delivery.body, format!("m-{index}"));
                let Some(failed_at) = failed_at.get(&delivery.index) else {
                    assert!(
                        in_batches,
                        "retried without having been delivered: {delivery:?}"
                    );
                    continue;
                };
                let waited = delivery.at - *failed_at;
                assert!(
                    Duration::from_secs(9) <= waited && waited < Duration::from_secs(40),
                    "message {index} came again after {waited:?}; level 3 is 10 s"
                );
            }
        }
    }
    let retried = delivered.iter().filter(is_retry).count();
    assert_eq!(retried, 20, "each message once again");
    assert!(in_batches || delivered.len() == 40, "each message twice");
}

/// A group that retries once: the second failure sends the message to the group's dead letters.
pub fn a_listener_that_never_succeeds_dead_letters(program: &Program) {
    if is_reference() && program.lacks(TOPIC_OF_SEND_BACK) {
        // Apache's broker 5.5.0 answers with a NullPointerException where it should dead-letter.
        return;
    }
    const COUNT: u64 = 10;
    let cluster = Cluster::shared(program.name);
    let topic = format!("dead-{}", program.name);
    let group = format!("G-{topic}");
    let dead_letters = format!("%DLQ%{group}");
    cluster.create_topic(&topic, QUEUE_COUNT);
    // Clients that cannot set a limit leave it to the group's configuration.
    cluster.create_group(&group, 1);
    let limit = "--max-reconsume 1";
    let limit = if program.lacks(&format!("consume {limit}")) {
        ""
    } else {
        limit
    };
    let flags = format!("--group {group} --count 1000 --linger 1 --fail-until 1000 {limit}");
    let consumer = program.consumer(&cluster, &topic, &flags);
    program.produce(&cluster, &topic, &format!("--count {COUNT}"));
    let retries = |consumer: &Run| retries(consumer, &cluster);
    let dead = || cluster.existing_max_offsets(&dead_letters, 1);
    let all_dead = || dead().values().sum::<u64>() == COUNT;
    assert!(
        wait_until(DELIVERY_LIMIT, all_dead),
        "dead letters: {:?}; deliveries (index, reconsume times): {:?}; {}",
        dead(),
        retries(&consumer),
        cluster.log_tail()
    );
    let delivered = consumer.end(&cluster).len() as u64;
    let twice = delivered == 2 * COUNT || program.lacks(SINGLE_FAILURES) && delivered < 2 * COUNT;
    assert!(
        twice,
        "{delivered} deliveries of {COUNT} messages, each twice"
    );

    let group = format!("G-letters-{}", program.name);
    let reader = program.consumer(
        &cluster,
        &dead_letters,
        &format!("--group {group} --count {COUNT}"),
    );
    expect_deliveries(&cluster, COUNT as usize, &[&reader]);
    let letters = reader.end(&cluster);
    expect_all(&letters, &[], 0..COUNT);
    for letter in &letters {
        assert_eq!(letter.body, format!("m-{}", letter.index.unwrap()));
    }
}

pub fn a_broadcast_reaches_every_consumer(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("broadcast-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    let flags = format!("--group G-{topic} --model broadcasting --count 200 --linger 2");
    let consumers = [
        program.consumer(&cluster, &topic, &flags),
        program.consumer(&cluster, &topic, &flags),
    ];
    program.produce(&cluster, &topic, "--count 200 --threads 2");
    for consumer in consumers {
        expect_deliveries(&cluster, 200, &[&consumer]);
        let delivered = consumer.end(&cluster);
        assert_eq!(delivered.len(), 200, "each message once");
        expect_all(&delivered, &[], 0..200);
    }
}

/// A consumer that ends well repeats nothing; one that is killed repeats at most what it had not committed.
pub fn offsets_survive_consumers(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("offsets-{}", program.name);
    let group = format!("G-{topic}");
    cluster.create_topic(&topic, QUEUE_COUNT);
    for first in [0, 300] {
        program.produce(&cluster, &topic, &format!("--count 300 --first {first}"));
        let delivered = consume_all(program, &cluster, &topic, &group, 300);
        expect_all(&delivered, &[], first..first + 300);
        assert_eq!(delivered.len(), 300, "each message once");
        let ends = cluster.max_offsets(&topic, QUEUE_COUNT);
        assert_eq!(
            cluster.committed_offsets(&group, &topic, QUEUE_COUNT),
            ends,
            "committed, and ends"
        );
    }

    let mut killed = program.consumer(&cluster, &topic, &format!("--group {group} --count 100000"));
    let producer = program.start(
        &cluster,
        &topic,
        &format!("produce --group P2-{topic} --count 2000 --first 600 --threads 2 --timeout 110"),
    );
    expect_deliveries(&cluster, 300, &[&killed]);
    let committed = cluster.committed_offsets(&group, &topic, QUEUE_COUNT);
    killed.kill();
    let by_killed = killed.deliveries(&cluster);
    let successor = program.consumer(&cluster, &topic, &format!("--group {group} --count 100000"));
    producer.produced(&cluster);
    let all = 600..2_600;
    let all_seen = || {
        let seen = successor.deliveries(&cluster);
        distinct(&by_killed).union(&distinct(&seen)).count() == 2_000
    };
    wait_until(DELIVERY_LIMIT, all_seen);
    let by_successor = successor.end(&cluster);
    expect_all(&by_killed, &by_successor, all);
    expect_repeats_bounded(&by_killed, &by_successor, |at, _| committed[&at]);
}

/// After SIGTERM and after kill -9: what was consumed does not come again, what was acknowledged comes.
pub fn offsets_and_messages_survive_the_broker(program: &Program) {
    // Offsets are stored within 1 s here, and every 5 s by Apache's broker; a crash may lose as much.
    let stored_after = Duration::from_secs(if is_reference() { 7 } else { 2 });
    let cluster = Cluster::start();
    let topic = format!("restart-{}", program.name);
    let group = format!("G-{topic}");
    cluster.create_topic(&topic, QUEUE_COUNT);
    let consume_exactly = |first: u64| {
        let delivered = consume_all(program, &cluster, &topic, &group, 200);
        expect_all(&delivered, &[], first..first + 200);
        assert_eq!(delivered.len(), 200, "each message once");
    };
    program.produce(&cluster, &topic, "--count 200");
    consume_exactly(0);
    program.produce(&cluster, &topic, "--count 200 --first 200");
    if is_reference() {
        // Apache's broker may stop before it has met the last commits, which nobody waits for.
        std::thread::sleep(stored_after);
    }
    cluster.restart();
    consume_exactly(200);
    std::thread::sleep(stored_after);
    program.produce(&cluster, &topic, "--count 200 --first 400");
    cluster.kill_and_restart();
    consume_exactly(400);
    program.produce(&cluster, &topic, "--count 200 --first 600");
    consume_exactly(600);
}

pub fn chinese_text_arrives_intact(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("chinese-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    program.run(&cluster, &topic, &format!("chinese --group P-{topic}"));
    let delivered = consume_all(program, &cluster, &topic, &format!("G-{topic}"), 1);
    let [message] = &delivered[..] else {
        panic!("one message, not {delivered:#?}")
    };
    assert_eq!(
        (&*message.body, &*message.tag, &*message.keys),
        ("你好，世界", "标签", "键")
    );
    // The programs do not print this property: it is looked up in the record as it is stored.
    let at = known_queue(message);
    let record = remoting::pull(
        &cluster.address(at.shard),
        &topic,
        at.queue,
        message.offset,
        "*",
    );
    let property = "名\u{1}值\u{2}".as_bytes();
    assert!(
        record
            .windows(property.len())
            .any(|window| window == property),
        "名=值 is not in the record: {}",
        String::from_utf8_lossy(&record)
    );
}

pub fn four_mebibytes_are_the_limit(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("big-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    let send = |size: usize| {
        program.run(
            &cluster,
            &topic,
            &format!("big --group P-{topic} --size {size}"),
        )
    };
    let accepted = send(FOUR_MIB);
    assert_eq!(accepted[0]["status"], "ok", "{accepted:?}");
    let refused = send(FOUR_MIB + 1);
    assert_eq!(refused[0]["status"], "refused", "{refused:?}");
    assert_eq!(refused[0]["code"], MESSAGE_ILLEGAL, "{refused:?}");
    let delivered = consume_all(program, &cluster, &topic, &format!("G-{topic}"), 1);
    assert_eq!(delivered.len(), 1);
    assert!(
        delivered[0].body == "x".repeat(FOUR_MIB),
        "body of {} bytes",
        delivered[0].body.len()
    );
}

pub fn pull_consumers_read_everything(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("pull-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    program.produce(&cluster, &topic, "--count 500 --threads 2");
    for kind in ["pull", "lite"] {
        if program.lacks(&format!("pull --kind {kind}")) {
            continue;
        }
        let group = format!("G-{kind}-{topic}");
        let command = format!("pull --kind {kind} --group {group} --count 500 --timeout 60");
        let run = program.start(&cluster, &topic, &command);
        expect_deliveries(&cluster, 500, &[&run]);
        let delivered = run.end(&cluster);
        expect_all(&delivered, &[], 0..500);
        assert_eq!(delivered.len(), 500, "each message once");
        if !program.lacks(&format!("{STORED_OFFSETS} {kind}")) {
            let ends = cluster.max_offsets(&topic, QUEUE_COUNT);
            let committed = || cluster.committed_offsets(&group, &topic, QUEUE_COUNT);
            // A commit is a one-way request: a broker with many threads may answer a question first.
            if is_reference() {
                wait_until(DELIVERY_LIMIT, || committed() == ends);
            }
            assert_eq!(committed(), ends, "committed, and ends");
        }
    }
}

/// A feature listed as lacking must be one that the program itself calls so: the list cannot hide a failure.
pub fn what_the_library_lacks_is_known(program: &Program) {
    let cluster = Cluster::shared(program.name);
    let topic = format!("lacks-{}", program.name);
    cluster.create_topic(&topic, QUEUE_COUNT);
    for feature in program
        .lacks
        .iter()
        .filter(|feature| feature.contains("--"))
    {
        let run = program.start(
            &cluster,
            &topic,
            &format!("{feature} --group G-{topic} --count 1 --timeout 5"),
        );
        assert_eq!(
            run.exit_code(),
            Some(EXIT_UNSUPPORTED),
            "exit code of {} {feature}",
            program.name
        );
    }
}

// ---------------------------------------------------------------------------------------------------

/// A consumer that ends by itself after `count` messages; its linger shows what came beyond.
fn consume_all(
    program: &Program,
    cluster: &Cluster,
    topic: &str,
    group: &str,
    count: usize,
) -> Vec<Delivery> {
    let run = program.consumer(
        cluster,
        topic,
        &format!("--group {group} --count {count} --linger 2"),
    );
    expect_deliveries(cluster, count, &[&run]);
    run.end(cluster)
}

/// Waits until the consumers were given `count` distinct messages together.
fn expect_deliveries(cluster: &Cluster, count: usize, runs: &[&Run]) {
    let mut seen = HashSet::new();
    let enough = wait_until(DELIVERY_LIMIT, || {
        for delivery in runs.iter().flat_map(|run| run.deliveries(cluster)) {
            // A message without index is known by its place.
            let place = (delivery.queue, delivery.offset);
            seen.insert((delivery.index, delivery.index.is_none().then_some(place)));
        }
        count <= seen.len()
    });
    let indexes: HashSet<u64> = seen.iter().filter_map(|(index, _)| *index).collect();
    let missing = (0..count as u64).filter(|index| !indexes.contains(index));
    assert!(
        enough,
        "{} of {count} messages after {DELIVERY_LIMIT:?}; missing: {:?} …; {}",
        seen.len(),
        missing.take(10).collect::<Vec<_>>(),
        cluster.log_tail()
    );
}

fn retries(consumer: &Run, cluster: &Cluster) -> Vec<(Option<u64>, u64)> {
    consumer
        .deliveries(cluster)
        .iter()
        .map(|delivery| (delivery.index, delivery.reconsume))
        .collect()
}

fn distinct(deliveries: &[Delivery]) -> BTreeSet<u64> {
    deliveries
        .iter()
        .filter_map(|delivery| delivery.index)
        .collect()
}

fn expect_all(by_one: &[Delivery], by_other: &[Delivery], wanted: std::ops::Range<u64>) {
    let mut seen = distinct(by_one);
    seen.extend(distinct(by_other));
    let missing: Vec<u64> = wanted
        .clone()
        .filter(|index| !seen.contains(index))
        .collect();
    let strange: Vec<u64> = seen
        .iter()
        .copied()
        .filter(|index| !wanted.contains(index))
        .collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "of {wanted:?}: {} lost, the first {:?}; {} of others, the first {:?}",
        missing.len(),
        missing.first(),
        strange.len(),
        strange.first()
    );
}

/// A message comes from the place that its acknowledgement named, as far as the library tells.
fn expect_as_acknowledged<'a>(
    acknowledged: &[Acknowledgement],
    delivered: impl Iterator<Item = &'a Delivery>,
) {
    let acknowledged: HashMap<u64, &Acknowledgement> = acknowledged
        .iter()
        .map(|acknowledgement| (acknowledgement.index, acknowledgement))
        .collect();
    for delivery in delivered {
        let acknowledgement = acknowledged[&delivery.index.unwrap()];
        let same_queue = acknowledgement.queue.is_none() || acknowledgement.queue == delivery.queue;
        let same_offset = acknowledgement
            .offset
            .is_none_or(|offset| offset == delivery.offset);
        assert!(
            same_queue && same_offset,
            "{acknowledgement:?}, and then {delivery:?}"
        );
    }
}

fn known_queue(delivery: &Delivery) -> Queue {
    delivery
        .queue
        .unwrap_or_else(|| panic!("no queue in {delivery:?}"))
}

/// Nothing comes twice to one consumer. What came to both was not yet committed when its queue changed hands:
/// its offset is at least what `committed` says for the queue and the time when the later one began with it.
fn expect_repeats_bounded(
    by_earlier: &[Delivery],
    by_later: &[Delivery],
    committed: impl Fn(Queue, Instant) -> u64,
) {
    let mut earlier = BTreeMap::new();
    for delivery in by_earlier {
        let at = (known_queue(delivery), delivery.offset);
        let before = earlier.insert(at, delivery);
        assert!(
            before.is_none(),
            "twice to the earlier consumer: {before:?}, {delivery:?}"
        );
    }
    let mut began = HashMap::new();
    let mut later = BTreeSet::new();
    let mut repeats: BTreeMap<Queue, u64> = BTreeMap::new();
    for delivery in by_later {
        let at = known_queue(delivery);
        let from = *began.entry(at).or_insert(delivery.at);
        assert!(
            later.insert((at, delivery.offset)),
            "twice to the later consumer: {delivery:?}"
        );
        if earlier.contains_key(&(at, delivery.offset)) {
            let committed = committed(at, from);
            assert!(
                committed <= delivery.offset,
                "came again though {at:?} was committed up to {committed} before: {delivery:?}"
            );
            *repeats.entry(at).or_default() += 1;
        }
    }
    let shards: BTreeSet<u32> = earlier
        .keys()
        .map(|(at, _)| at.shard)
        .chain(later.iter().map(|(at, _)| at.shard))
        .collect();
    assert_eq!(shards.len(), SHARD_COUNT as usize, "shards that took part");
    eprintln!("came again, by queue: {repeats:?}");
}

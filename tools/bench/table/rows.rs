//! The rows: which loads are measured, on whom, and what has to be reached.

/// Whose figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    Ours,
    Apache,
    Floor,
    Fio,
}

impl Who {
    pub fn words(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::Apache => "RocketMQ",
            Who::Floor => "floor",
            Who::Fio => "fio",
        }
    }
}

/// A load that its contenders get in turn, run after run.
pub struct Test {
    pub row: u8,
    pub name: &'static str,
    /// async or sync
    pub flush: &'static str,
    pub load: &'static str,
    /// Whether RocketMQ takes part.
    pub with_apache: bool,
    /// What `floor` is asked for; empty where no floor takes part.
    pub floor: &'static str,
}

const fn test(
    row: u8,
    name: &'static str,
    flush: &'static str,
    floor: &'static str,
    load: &'static str,
) -> Test {
    Test {
        row,
        name,
        flush,
        load,
        with_apache: row != 6,
        floor,
    }
}

/// A physical floor writes the same bytes as the broker: what came in, in the groups in which it came.
const APPEND: &str = "append --file-mib 512";
const FLUSH: &str = "flush --file-mib 1024";

pub const TESTS: [Test; 17] = [
    test(
        1,
        "1-64x1",
        "async",
        APPEND,
        "produce --connections 64 --in-flight 1",
    ),
    test(
        1,
        "1-64x8",
        "async",
        APPEND,
        "produce --connections 64 --in-flight 8",
    ),
    test(
        2,
        "2-saturated",
        "async",
        "",
        "e2e --connections 64 --in-flight 8",
    ),
    test(
        3,
        "3-batch-50x100",
        "async",
        "",
        "produce --connections 8 --in-flight 4 --batch 50 --size 100",
    ),
    test(
        4,
        "4-batch-62x1024",
        "async",
        APPEND,
        "produce --connections 4 --in-flight 2 --batch 62",
    ),
    test(
        5,
        "5-sync-64x4",
        "sync",
        "",
        "produce --connections 64 --in-flight 4",
    ),
    test(
        5,
        "5-sync-64x16",
        "sync",
        "",
        "produce --connections 64 --in-flight 16",
    ),
    test(
        6,
        "6-sync-1x1",
        "sync",
        FLUSH,
        "produce --connections 1 --in-flight 1",
    ),
    test(
        6,
        "6-sync-8x1",
        "sync",
        FLUSH,
        "produce --connections 8 --in-flight 1",
    ),
    test(
        6,
        "6-sync-32x1",
        "sync",
        FLUSH,
        "produce --connections 32 --in-flight 1",
    ),
    test(
        6,
        "6-sync-64x4",
        "sync",
        FLUSH,
        "produce --connections 64 --in-flight 4",
    ),
    test(
        6,
        "6-sync-64x16",
        "sync",
        FLUSH,
        "produce --connections 64 --in-flight 16",
    ),
    // RocketMQ takes a thousand a second: what five runs of 30 s hold together tells a p99.99.
    test(
        7,
        "7-sync-1x1",
        "sync",
        FLUSH,
        "produce --connections 1 --in-flight 1 --duration 30 --percentile 99.99",
    ),
    test(
        8,
        "8-async-1x1",
        "async",
        "echo",
        "produce --connections 1 --in-flight 1",
    ),
    test(
        10,
        "10-e2e",
        "async",
        "",
        "e2e --connections 8 --in-flight 64 --rate 10000 --percentile 99",
    ),
    test(
        11,
        "11-one-queue",
        "async",
        "sendfile --queues 1 --file-mib 256",
        "consume --queues 1 --groups 8 --connections 8 --pull-messages 512 --pull-bytes 1048576",
    ),
    test(
        11,
        "11-interleaved",
        "async",
        "gather --queues 16 --file-mib 256",
        "consume --queues 16 --groups 8 --connections 8",
    ),
];

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(least) => least <= value,
            Bound::AtMost(most) => value <= most,
        }
    }
}

/// Whose figure of which test.
pub type Figure = (&'static str, Who, &'static str);

pub struct Goal {
    pub row: u8,
    pub words: &'static str,
    pub ours: Figure,
    /// What ours is divided by; none where the goal is a figure itself.
    pub by: Option<Figure>,
    pub bound: Bound,
}

use Bound::{AtLeast, AtMost};
use Who::{Apache, Fio, Floor, Ours};

/// All goals in the order of their rows.
pub fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    rates(&mut goals);
    flushes(&mut goals);
    latencies(&mut goals);
    deliveries(&mut goals);
    machines(&mut goals);
    goals
}

/// Ours and that of others, under the same test and key.
fn versus(
    goals: &mut Vec<Goal>,
    (row, words): (u8, &'static str),
    (test, key): (&'static str, &'static str),
    others: &[(Who, Bound)],
) {
    for (who, bound) in others {
        goals.push(Goal {
            row,
            words,
            ours: (test, Ours, key),
            by: Some((test, *who, key)),
            bound: *bound,
        });
    }
}

fn rates(goals: &mut Vec<Goal>) {
    const RATE: &str = "messages_per_s";
    const CPU: &str = "server_cpu_us_per_message";
    let both = |apache, floor| [(Apache, AtLeast(apache)), (Floor, AtLeast(floor))];
    let name = (1, "messages/s, 64 × 1");
    versus(goals, name, ("1-64x1", RATE), &both(5.0, 0.85));
    let name = (1, "messages/s, 64 × 8");
    versus(goals, name, ("1-64x8", RATE), &both(12.0, 0.75));
    let name = (2, "server CPU per message, sending and tailing, saturated");
    let bound = AtMost(1.0 / 12.0);
    versus(goals, name, ("2-saturated", CPU), &[(Apache, bound)]);
    goals.push(Goal {
        row: 2,
        words: "the same at RocketMQ's own maximum",
        ours: ("2-at-maximum", Ours, CPU),
        by: Some(("2-saturated", Apache, CPU)),
        bound: AtMost(0.25),
    });
    let name = (3, "messages/s, batches of 50 × 100 B");
    versus(
        goals,
        name,
        ("3-batch-50x100", RATE),
        &[(Apache, AtLeast(10.0))],
    );
    let name = (4, "bytes/s, batches of 62 × 1 KiB");
    let others = [(Floor, AtLeast(0.85)), (Apache, AtLeast(10.0))];
    versus(
        goals,
        name,
        ("4-batch-62x1024", "body_bytes_per_s"),
        &others,
    );
}

fn flushes(goals: &mut Vec<Goal>) {
    const RATE: &str = "messages_per_s";
    let name = (5, "sync, messages/s, 256 in flight");
    versus(
        goals,
        name,
        ("5-sync-64x4", RATE),
        &[(Apache, AtLeast(8.0))],
    );
    let name = (5, "sync, messages/s, 1,024 in flight");
    versus(
        goals,
        name,
        ("5-sync-64x16", RATE),
        &[(Apache, AtLeast(12.0))],
    );
    for (words, test) in [
        ("sync, messages/s, 1 in flight", "6-sync-1x1"),
        ("sync, messages/s, 8 in flight", "6-sync-8x1"),
        ("sync, messages/s, 32 in flight", "6-sync-32x1"),
        ("sync, messages/s, 256 in flight", "6-sync-64x4"),
        ("sync, messages/s, 1,024 in flight", "6-sync-64x16"),
    ] {
        versus(goals, (6, words), (test, RATE), &[(Floor, AtLeast(0.92))]);
    }
    for (words, key, floor, apache) in [
        ("sync, 1 in flight, p50", "service_p50_ns", 1.15, 1.0 / 3.0),
        ("sync, 1 in flight, p99", "service_p99_ns", 1.2, 0.4),
        ("sync, 1 in flight, p99.99", "service_p9999_ns", 1.3, 0.125),
    ] {
        let others = [(Floor, AtMost(floor)), (Apache, AtMost(apache))];
        versus(goals, (7, words), ("7-sync-1x1", key), &others);
    }
}

fn latencies(goals: &mut Vec<Goal>) {
    let name = (8, "async round trip, p50");
    let test = "8-async-1x1";
    versus(
        goals,
        name,
        (test, "service_p50_ns"),
        &[(Floor, AtMost(1.1))],
    );
    for (words, key) in [
        ("async round trip, p99", "service_p99_ns"),
        ("async round trip, p99.9", "service_p999_ns"),
    ] {
        let others = [(Floor, AtMost(1.2)), (Apache, AtMost(0.6))];
        versus(goals, (8, words), (test, key), &others);
    }
    for (words, key, apache) in [
        (
            "half of RocketMQ's maximum, p99.9",
            "response_p999_ns",
            0.05,
        ),
        (
            "half of RocketMQ's maximum, p99.99",
            "response_p9999_ns",
            0.025,
        ),
    ] {
        let others = [(Apache, AtMost(apache)), (Floor, AtMost(1.5))];
        versus(goals, (9, words), ("9-steady", key), &others);
    }
    for (words, key, apache) in [
        ("end to end at 10,000/s, p50", "e2e_p50_ns", 0.125),
        ("end to end at 10,000/s, p99", "e2e_p99_ns", 1.0 / 15.0),
    ] {
        versus(
            goals,
            (10, words),
            ("10-e2e", key),
            &[(Apache, AtMost(apache))],
        );
    }
}

fn deliveries(goals: &mut Vec<Goal>) {
    const CPU: &str = "cpu_us_per_mb";
    for (words, test, apache) in [
        (
            "CPU per GB to 8 groups, one queue",
            "11-one-queue",
            1.0 / 15.0,
        ),
        (
            "CPU per GB to 8 groups, interleaved",
            "11-interleaved",
            0.125,
        ),
    ] {
        let others = [(Floor, AtMost(1.25)), (Apache, AtMost(apache))];
        versus(goals, (11, words), (test, CPU), &others);
    }
    let drain = "12-drain";
    goals.push(Goal {
        row: 12,
        words: "producer p99.9 beside a cold drain, by that without",
        ours: (drain, Ours, "response_beside_p999_ns"),
        by: Some((drain, Ours, "response_alone_p999_ns")),
        bound: AtMost(1.3),
    });
    goals.push(Goal {
        row: 12,
        words: "the drain, by direct reads",
        ours: (drain, Ours, "behind_record_bytes_per_s"),
        by: Some((drain, Fio, "read_bytes_per_s")),
        bound: AtLeast(0.85),
    });
}

fn machines(goals: &mut Vec<Goal>) {
    let mut alone = |row, words, test, key, bound| {
        let ours = (test, Ours, key);
        goals.push(Goal {
            row,
            words,
            ours,
            by: None,
            bound,
        });
    };
    let write = "13-write";
    alone(
        13,
        "writing 3 × memory: worst second by mean",
        write,
        "worst_second_ratio",
        AtLeast(0.75),
    );
    alone(
        14,
        "idle memory, MiB",
        "14-idle",
        "server_rss_mib",
        AtMost(60.0),
    );
    alone(
        14,
        "from exec to the first acknowledgement after kill -9, ms",
        "14-start",
        "start_to_first_ack_ms",
        AtMost(300.0),
    );
    // As good as none: a clock or a log line may wake somebody now and then.
    let shards = "15-two-shards";
    alone(
        15,
        "futex calls per message, two shards",
        shards,
        "futexes_per_message",
        AtMost(0.0005),
    );
    alone(
        15,
        "wake-ups between shards per message",
        shards,
        "own_wakeups_per_message",
        AtMost(0.0005),
    );
    goals.push(Goal {
        row: 13,
        words: "writing 3 × memory: mean, by fio",
        ours: (write, Ours, "log_bytes_per_s"),
        by: Some((write, Fio, "write_bytes_per_s")),
        bound: AtLeast(0.92),
    });
    let name = (14, "memory with many topics and connections");
    let key = "server_rss_anonymous_bytes";
    versus(goals, name, ("14-many", key), &[(Apache, AtMost(0.1))]);
    let key = "server_cpu_us_per_message";
    goals.push(Goal {
        row: 15,
        words: "CPU per message, two shards by one",
        ours: (shards, Ours, key),
        by: Some(("15-one-shard", Ours, key)),
        bound: AtMost(1.05),
    });
    goals.sort_by_key(|goal| goal.row);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cli;
    use clap::Parser;

    #[test]
    fn every_row_has_a_goal_and_every_load_and_floor_can_be_asked_for() {
        let goals = goals();
        for row in 1..=15 {
            assert!(goals.iter().any(|goal| goal.row == row), "row {row}");
        }
        assert!(goals.is_sorted_by_key(|goal| goal.row));
        for test in &TESTS {
            let mut lines = vec![format!("x {} --addr 127.0.0.1:1", test.load)];
            if !test.floor.is_empty() {
                lines.push(format!("x floor {}", test.floor));
            }
            for line in lines {
                let told = Cli::try_parse_from(line.split_whitespace());
                assert!(told.is_ok(), "{line}: {:?}", told.err());
            }
            let has_goal = goals.iter().any(|goal| goal.ours.0 == test.name);
            assert!(has_goal, "{} has no goal", test.name);
        }
    }

    #[test]
    fn bounds_hold_up_to_themselves() {
        assert!(AtLeast(0.85).holds(0.85) && !AtLeast(0.85).holds(0.84));
        assert!(AtMost(1.1).holds(1.1) && !AtMost(1.1).holds(1.11));
    }
}

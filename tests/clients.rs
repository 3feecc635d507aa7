//! Stock client libraries against a freshly started broker: what a user of RocketMQ relies on, each library
//! by its own name. The programs are in tests/clients; CORELANE_REFERENCE=apache judges them themselves.

#[path = "clients/mqadmin.rs"]
mod mqadmin;
#[path = "clients/promises.rs"]
mod promises;
mod support;

use support::program::Program;

static JAVA_4_9_8: Program = Program {
    name: "java-4-9-8",
    folder: "java",
    run: "run-4.9.8",
    environment: &[],
    lacks: &[],
};
static JAVA_5: Program = Program {
    name: "java-5",
    folder: "java",
    run: "run-5.x",
    environment: &[],
    lacks: &[],
};
static JAVA_5_BINARY: Program = Program {
    name: "java-5-binary",
    folder: "java",
    run: "run-5.x",
    environment: &[("ROCKETMQ_SERIALIZE_TYPE", "ROCKETMQ")],
    lacks: &[],
};
static GO: Program = Program {
    name: "go",
    folder: "go",
    run: "run",
    environment: &[],
    lacks: &["pull --kind lite"],
};
static PYTHON: Program = Program {
    name: "python",
    folder: "python",
    run: "run",
    environment: &[],
    lacks: &[
        "consume --max-reconsume 1",
        "produce --mode async --queue 0",
        "produce --mode batch --queue 0",
        "pull --kind lite",
        "consume: a failure for each message",
        "consume: the topic of what is sent back",
        "produce: the request for batches",
        "pull: stored offsets of kind pull",
    ],
};
static NODE: Program = Program {
    name: "node",
    folder: "node",
    run: "run",
    environment: &[],
    lacks: &[
        "consume --listener orderly",
        "produce --mode batch",
        "produce --mode oneway",
        "pull --kind lite",
        "pull --kind pull",
    ],
};
static RUST: Program = Program {
    name: "rust",
    folder: "rust",
    run: "run",
    environment: &[],
    lacks: &["pull: stored offsets of kind pull"],
};

/// One test a promise, so that a failure says which library misses what.
macro_rules! promises_to {
    ($client:ident, $program:expr) => {
        mod $client {
            #[test]
            fn every_message_arrives_over_two_rebalances() {
                super::promises::every_message_arrives_over_two_rebalances(&$program);
            }
            #[test]
            fn order_is_kept_in_each_queue() {
                super::promises::order_is_kept_in_each_queue(&$program);
            }
            #[test]
            fn tags_are_filtered() {
                super::promises::tags_are_filtered(&$program);
            }
            #[test]
            fn a_failing_listener_gets_retries() {
                super::promises::a_failing_listener_gets_retries(&$program);
            }
            #[test]
            fn a_listener_that_never_succeeds_dead_letters() {
                super::promises::a_listener_that_never_succeeds_dead_letters(&$program);
            }
            #[test]
            fn a_broadcast_reaches_every_consumer() {
                super::promises::a_broadcast_reaches_every_consumer(&$program);
            }
            #[test]
            fn offsets_survive_consumers() {
                super::promises::offsets_survive_consumers(&$program);
            }
            #[test]
            fn offsets_and_messages_survive_the_broker() {
                super::promises::offsets_and_messages_survive_the_broker(&$program);
            }
            #[test]
            fn chinese_text_arrives_intact() {
                super::promises::chinese_text_arrives_intact(&$program);
            }
            #[test]
            fn four_mebibytes_are_the_limit() {
                super::promises::four_mebibytes_are_the_limit(&$program);
            }
            #[test]
            fn pull_consumers_read_everything() {
                super::promises::pull_consumers_read_everything(&$program);
            }
            #[test]
            fn what_the_library_lacks_is_known() {
                super::promises::what_the_library_lacks_is_known(&$program);
            }
        }
    };
}

promises_to!(java_4_9_8, crate::JAVA_4_9_8);
promises_to!(java_5, crate::JAVA_5);
promises_to!(java_5_binary, crate::JAVA_5_BINARY);
promises_to!(go, crate::GO);
promises_to!(python, crate::PYTHON);
promises_to!(node, crate::NODE);
promises_to!(rust, crate::RUST);

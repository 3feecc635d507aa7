//! What one record costs the CPU: encoding it with both checksums, judging it, reading it.
//!
//! `cargo bench --bench record`; `SMOKE=1` runs a moment only, to see that it runs.

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{is_smoke, smoke_passed, tiny_or};
use corelane::base::PhysicalOffset;
use corelane::log::record::{Draft, Properties, Verdict, check, parse};

/// A usual string of a Java producer.
const PROPERTIES: &str = "KEYS\u{1}order-4711\u{2}TAGS\u{1}TagA\u{2}WAIT\u{1}true\u{2}\
    UNIQ_KEY\u{1}7F00000104D218B4AAC200B5A1F00001\u{2}";
const ADDED: &[&[u8]] =
    &[b"MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02CLUSTER\x01DefaultCluster\x02"];

fn main() {
    for body_size in [16, 1 << 10, 16 << 10, 256 << 10] {
        let body: Vec<u8> = (0..body_size).map(|at| (at * 31 % 251) as u8).collect();
        let draft = Draft {
            queue_id: 3,
            flag: 0,
            queue_offset: 42,
            sys_flag: 0,
            born_ms: 1_700_000_000_000,
            born_host: "10.0.0.1:50000".parse().expect("an address"),
            store_ms: 1_700_000_000_123,
            store_host: "10.0.0.2:10911".parse().expect("an address"),
            reconsume_times: 0,
            prepared_offset: 0,
            body: &body,
            topic: "TopicTest",
            properties: Properties::new(PROPERTIES, ADDED),
        };
        let offset = PhysicalOffset(4096);
        // As in the log: many records follow one another in one buffer.
        let per_group = (1 << 20) / draft.size() + 1;
        let rounds = tiny_or(1, 400);
        let mut out = Vec::with_capacity(per_group * draft.size());
        let encode = nanoseconds(rounds * per_group, |count| {
            if count % per_group == 0 {
                out.clear();
            }
            black_box(&draft).encode(offset, &mut out);
        });
        let record = &out[..draft.size()];
        let judge = nanoseconds(rounds * per_group, |_| {
            let verdict = check(black_box(record), offset, true);
            assert!(matches!(verdict, Verdict::Record(_)), "{verdict:?}");
        });
        let read = nanoseconds(rounds * per_group, |_| {
            let record = parse(black_box(record)).expect("a record");
            black_box(record.tags_code());
        });
        if is_smoke() {
            continue;
        }
        println!(
            "body {body_size:>6} B, record {:>6} B: encode {encode:>8.1} ns, check {judge:>8.1} ns, \
             parse with tags code {read:>6.1} ns",
            draft.size()
        );
    }
    smoke_passed("record", "records are encoded, judged and read");
}

/// Per call, in the best of twenty parts: what else the machine does is not the record's cost.
fn nanoseconds(count: usize, mut call: impl FnMut(usize)) -> f64 {
    const PARTS: usize = 20;
    let count = count / PARTS + 1;
    let mut part = || {
        let start = Instant::now();
        (0..count).for_each(&mut call);
        start.elapsed().as_nanos() as f64 / count as f64
    };
    (0..PARTS).map(|_| part()).fold(f64::INFINITY, f64::min)
}

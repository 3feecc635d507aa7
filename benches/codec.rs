//! What a send costs in the protocol: nanoseconds and allocations to read one and to write its answer.
//!
//! `cargo bench --bench codec`; with `SMOKE=1` a few runs only, to see that it works.

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::allocations::{Counting, count};
use common::{is_smoke, smoke_passed, tiny_or};
use corelane::base::{PhysicalOffset, QueueOffset};
use corelane::command::{Answer, FetchStatus, Fetched, LogSpan, Produced};
use corelane::protocol::rocketmq::{HeaderKind, Scratch, answer, command, decode, encode_request};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Best of many runs, each shorter than a time slice: other programs can only make a run slower.
fn measure(name: &str, runs: u32, mut work: impl FnMut()) {
    const ROUNDS: u32 = 500;
    work();
    let allocated = count();
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    }
    let allocations = count() - allocated;
    if !is_smoke() {
        let each = allocations as f64 / f64::from(ROUNDS * runs);
        println!("{name:<36} {best:>8.0} ns {each:>6.2} allocations");
    }
    assert_eq!(allocations, 0, "{name}: warm, it must not allocate");
}

fn with_other_flag(frame: &[u8]) -> Vec<u8> {
    const FLAG: &[u8] = b"\"flag\":";
    let mut other = frame.to_vec();
    let at = frame.windows(FLAG.len()).position(|bytes| bytes == FLAG);
    other[at.expect("a header has a flag") + FLAG.len()] = b'2';
    other
}

fn main() {
    let runs = tiny_or(2, 1_000);
    let sent = [
        ("a", "JV_PROD_BC"),
        ("b", "JV_BC"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "1"),
        ("f", "0"),
        ("g", "1795242511313"),
        ("h", "0"),
        (
            "i",
            "KEYS\u{1}b0\u{2}UNIQ_KEY\u{1}FD0000000000000000000000000000022B6C4E0E2F2A6862E3CF0000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}BC\u{2}",
        ),
        ("j", "0"),
        ("k", "false"),
        ("l", "16"),
        ("m", "false"),
        ("n", "apache"),
        ("bname", "apache"),
    ];
    let pulled = [
        ("queueId", "0"),
        ("maxMsgBytes", "262144"),
        ("maxMsgNums", "32"),
        ("sysFlag", "3"),
        ("suspendTimeoutMillis", "15000"),
        ("commitOffset", "8"),
        ("bname", "apache"),
        ("topic", "JVADM_T"),
        ("queueOffset", "8"),
        ("expressionType", "TAG"),
        ("subVersion", "1795242923384"),
        ("consumerGroup", "JVADM_G"),
    ];
    let produced = Answer::Produced(Produced {
        flush_timed_out: false,
        offsets: [PhysicalOffset(0x23374)].into_iter().collect(),
        queue_id: 0,
        queue_offset: QueueOffset(3),
        transaction_id: Some("FD0000000000000000000000000000022B6C4E0E2F2A6862E3CF0000".into()),
    });
    let fetched = Answer::Fetched(Fetched {
        status: FetchStatus::Found,
        from: 8,
        next: 40,
        min: 0,
        max: 40,
        spans: vec![LogSpan {
            offset: PhysicalOffset(0),
            len: 32_768,
        }],
        count: 32,
    });
    let body = [0x61; 1024];
    let host = "127.0.0.1:10911".parse().expect("an address");
    for kind in [HeaderKind::Json, HeaderKind::Binary] {
        let cases = [
            (310, &sent[..], &body[..], &produced),
            (11, &pulled[..], &[][..], &fetched),
        ];
        for (code, fields, body, value) in cases {
            let mut frame = Vec::new();
            encode_request(&mut frame, kind, code, 7, false, fields, body);
            let mut scratch = Scratch::default();
            measure(&format!("{code} {kind:?}: decode"), runs, || {
                let request = decode(black_box(&frame), &mut scratch).expect("a request");
                black_box(&request);
            });
            if kind == HeaderKind::Json {
                // Of the same length but another form: the second is read from its beginning each time.
                let stranger = with_other_flag(&frame);
                measure(
                    &format!("{code} {kind:?}: decode, and a stranger"),
                    runs,
                    || {
                        black_box(decode(black_box(&frame), &mut scratch).expect("a request"));
                        black_box(decode(black_box(&stranger), &mut scratch).expect("a request"));
                    },
                );
            }
            measure(&format!("{code} {kind:?}: decode, command"), runs, || {
                let request = decode(black_box(&frame), &mut scratch).expect("a request");
                black_box(command(&request).expect("a command"));
            });
            let note = decode(&frame, &mut scratch).expect("a request").note();
            let mut out = Vec::with_capacity(4096);
            measure(&format!("{code} {kind:?}: answer"), runs, || {
                out.clear();
                answer(&mut out, black_box(note), host, value);
                black_box(&out);
            });
        }
    }
    smoke_passed(
        "codec",
        "requests are read and answers written without an allocation",
    );
}

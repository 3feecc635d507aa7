//! What a durable append costs: groups of 1 KiB records until the disk has them, by each way to flush, one
//! group after another and with the next one filling meanwhile.
//!
//! `cargo bench --bench flush`; with `SMOKE=1` a moment only, to see that it works.

mod common;

use std::collections::VecDeque;
use std::time::Instant;

use common::door::{Driven, check_records, record, ring};
use common::{Study, cost, folder, is_smoke, smoke_passed, tiny_or};
use corelane::io::Uring;
use corelane::log::{Append, FlushPolicy, Options};

/// Records that are durable together.
const GROUPS: [usize; 5] = [1, 8, 32, 256, 1024];

/// A way to flush is a row here.
const WAYS: [(&str, FlushPolicy, Append); 4] = [
    ("fdatasync", FlushPolicy::GroupCommit, Append::Ring),
    (
        "in place, fdatasync",
        FlushPolicy::GroupCommit,
        Append::InPlace,
    ),
    ("RWF_DSYNC", FlushPolicy::DurableWrites, Append::Ring),
    ("O_DIRECT", FlushPolicy::DurableWrites, Append::Direct),
];

/// Groups that are not durable yet, at most.
const OVERLAPS: [usize; 2] = [1, 2];

fn main() {
    let folder = folder();
    let mut io = ring(Vec::new());
    let mut round = 0;
    let rows = GROUPS.map(|group| format!("{group} × 1 KiB"));
    let cases: Vec<(String, (FlushPolicy, Append), usize)> = WAYS
        .iter()
        .flat_map(|(name, policy, append)| {
            OVERLAPS.map(|overlap| {
                let way = (*policy, *append);
                (format!("{name}, {overlap} under way"), way, overlap)
            })
        })
        .collect();
    let columns: Vec<&str> = cases.iter().map(|(name, ..)| name.as_str()).collect();
    let study = Study::measure(&rows, &columns, |row, column| {
        round += 1;
        let folder = folder.path().join(round.to_string());
        let (_, way, overlap) = cases[column];
        let figures = sample(&mut io, &folder, GROUPS[row], way, overlap);
        std::fs::remove_dir_all(&folder).expect("the log can be removed");
        figures
    });
    study.print_plain("flush: µs from append to durable, p50", "group", 0);
    study.print_plain("flush: µs from append to durable, p99", "group", 1);
    study.print_plain("flush: wall µs a group", "group", 2);
    study.print_plain("flush: CPU µs a group, of all threads", "group", 3);
    smoke_passed(
        "flush",
        "every group by every way is in the file as it was appended",
    );
}

fn sample(
    io: &mut Uring,
    folder: &std::path::Path,
    group: usize,
    (policy, append): (FlushPolicy, Append),
    overlap: usize,
) -> [f64; 4] {
    let groups = tiny_or(3, (16_384 / group).clamp(16, 300));
    let size = (groups * group * 1024) as u64;
    let step = size.next_multiple_of(1 << 20);
    let options = Options {
        prepare_step: step,
        horizon_ahead_max: step,
        append,
        ..Options::new(2 * step, policy)
    };
    let mut driven = Driven::open(io, folder, options);
    let records: Vec<Vec<u8>> = (0..groups * group).map(record).collect();
    let mut times = Vec::with_capacity(groups);
    let mut under_way: VecDeque<(u64, Instant)> = VecDeque::new();
    let all = cost(|| {
        for records in records.chunks(group) {
            let start = Instant::now();
            records.iter().for_each(|record| driven.append(io, record));
            under_way.push_back((driven.log.appended(), start));
            driven.turn(io, false);
            while overlap <= under_way.len() {
                end_one(&mut driven, io, &mut under_way, &mut times);
            }
        }
        while !under_way.is_empty() {
            end_one(&mut driven, io, &mut under_way, &mut times);
        }
    });
    driven.settle(io);
    if is_smoke() {
        check_records(&driven.first_file(), records.len());
        assert_eq!(driven.log.synced(), size, "everything is durable");
    }
    times.sort_unstable();
    let all = all.each(groups);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100] as f64;
    [at(50), at(99), all.wall_ns, all.cpu_ns].map(|ns| ns / 1e3)
}

/// Waits for the oldest group.
fn end_one(
    driven: &mut Driven,
    io: &mut Uring,
    under_way: &mut VecDeque<(u64, Instant)>,
    times: &mut Vec<u64>,
) {
    if let Some((end, start)) = under_way.pop_front() {
        driven.wait(io, end, true);
        times.push(start.elapsed().as_nanos() as u64);
    }
}

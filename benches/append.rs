//! What an append costs: records of 1 KiB through the CommitLog and the ring into the page cache, in groups,
//! over each kind of prepared range; and what preparing the range costs.
//!
//! `cargo bench --bench append`; with `SMOKE=1` a moment only, to see that it works.

mod common;

use common::door::{Driven, check_records, record, ring};
use common::{Study, cost, folder, is_smoke, smoke_passed, tiny_or};
use corelane::io::{Fill, Uring};
use corelane::log::{Append, FlushPolicy, Options};

/// Records that go into one write.
const GROUPS: [usize; 4] = [1, 8, 64, 512];

/// What lies there, and how a group gets there; a way is a row here.
const WAYS: [(&str, Fill, Append); 6] = [
    ("zeros", Fill::Zeros, Append::Ring),
    ("direct zeros", Fill::DirectZeros, Append::Ring),
    ("reserve", Fill::Reserve, Append::Ring),
    ("reserve, in place", Fill::Reserve, Append::InPlace),
    ("direct zeros, O_DIRECT", Fill::DirectZeros, Append::Direct),
    ("reserve, O_DIRECT", Fill::Reserve, Append::Direct),
];

/// Nobody syncs while it is measured, and a round fits into what was prepared before.
const STEP: u64 = 16 << 20;
const NEVER: FlushPolicy = FlushPolicy::Interval {
    age_ns_max: u64::MAX,
    unsynced_bytes_max: u64::MAX,
};

fn main() {
    let folder = folder();
    let mut io = ring(Vec::new());
    let mut round = 0;
    let names = WAYS.map(|(name, ..)| name);
    let rows = GROUPS.map(|group| format!("{group} × 1 KiB"));
    let study = Study::measure(&rows, &names, |row, column| {
        round += 1;
        let folder = folder.path().join(round.to_string());
        let figures = sample(&mut io, &folder, GROUPS[row], WAYS[column]);
        std::fs::remove_dir_all(&folder).expect("the log can be removed");
        figures
    });
    study.print_plain("append: wall µs a record, until it is written", "group", 0);
    study.print_plain("append: CPU µs a record, of all threads", "group", 1);
    study.print_plain("preparing 1 MiB: wall µs", "then groups of", 2);
    study.print_plain("preparing 1 MiB: CPU µs", "then groups of", 3);
    smoke_passed(
        "append",
        "every group over every kind of range is in the file as it was appended",
    );
}

fn sample(
    io: &mut Uring,
    folder: &std::path::Path,
    group: usize,
    (_, fill, append): (&str, Fill, Append),
) -> [f64; 4] {
    let options = Options {
        prepare_step: tiny_or(1 << 20, STEP),
        horizon_ahead_max: tiny_or(1 << 20, STEP),
        fill,
        append,
        ..Options::new(tiny_or(2 << 20, 64 << 20), NEVER)
    };
    let mut opened = None;
    let prepare = cost(|| opened = Some(Driven::open(io, folder, options)));
    let mut driven = opened.expect("opened just now");
    let prepare = prepare.each((options.prepare_step >> 20) as usize);
    let groups = tiny_or(1, (12_288 / group).min(3_000));
    let records: Vec<Vec<u8>> = (0..groups * group).map(record).collect();
    let append = cost(|| {
        for records in records.chunks(group) {
            records.iter().for_each(|record| driven.append(io, record));
            let end = driven.log.appended();
            driven.wait(io, end, false);
        }
    });
    driven.log.sync_now(io);
    driven.settle(io);
    if is_smoke() {
        check_records(&driven.first_file(), records.len());
    }
    let append = append.each(records.len());
    [
        append.wall_ns,
        append.cpu_ns,
        prepare.wall_ns,
        prepare.cpu_ns,
    ]
    .map(|ns| ns / 1e3)
}

//! How bodies leave: the same bytes by every way, and no copy through a buffer of ours on the hot path.

mod kit;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use kit::{Broker, Client, bodies, fetch_fields, produce_fields};
use serde_json::{Value, json};

/// Bytes of bodies that left, by way (28). The broker counts them a few times a second.
fn egress(client: &mut Client) -> Value {
    std::thread::sleep(Duration::from_millis(450));
    let answer = client.call(28, &json!({}), &[]);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["table"].clone()
}

fn bytes(table: &Value, way: &str) -> u64 {
    table[format!("egressBytes_{way}")]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn body(index: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + index * 13) as u8).collect()
}

/// Many small messages over several queues, and some large ones in one queue.
fn fill(client: &mut Client) {
    client.make_topic("scattered", 4);
    client.make_topic("long", 1);
    for index in 0..800 {
        let answer = client.produce("scattered", index as i64 % 4, &body(index, 700));
        assert_eq!(answer.code, 0);
    }
    for index in 0..40 {
        assert_eq!(client.produce("long", 0, &body(index, 100_000)).code, 0);
    }
}

/// Everything comes back as it was sent.
fn read_all(client: &mut Client) {
    for queue_id in 0..4 {
        let mut offset = 0;
        while offset < 200 {
            let answer = client.fetch("scattered", queue_id, offset, 32);
            assert_eq!(answer.code, 0, "{}", answer.remark);
            for (at, got) in bodies(&answer.body).into_iter().enumerate() {
                let index = (offset as usize + at) * 4 + queue_id as usize;
                assert_eq!(got, body(index, 700), "message {index}");
            }
            offset = answer.number("nextBeginOffset");
        }
    }
    let mut offset = 0;
    while offset < 40 {
        let answer = client.fetch("long", 0, offset, 32);
        for (at, got) in bodies(&answer.body).into_iter().enumerate() {
            assert!(
                got == body(offset as usize + at, 100_000),
                "message {}",
                offset as usize + at
            );
        }
        offset = answer.number("nextBeginOffset");
    }
}

#[test]
fn every_way_delivers_the_same_bytes() {
    for way in ["auto", "sendfile", "splice", "gather", "send-zc", "copy"] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(folder.path(), &["--egress", way]);
        let mut client = broker.client();
        fill(&mut client);
        read_all(&mut client);
        let table = egress(&mut client);
        if way != "auto" {
            let others = ["sendfile", "splice", "gather", "send-zc", "copy", "cold"]
                .into_iter()
                .filter(|other| *other != way);
            let by_others: u64 = others.map(|other| bytes(&table, other)).sum();
            assert_eq!(by_others, 0, "{way}: {table}");
            assert!(4_000_000 < bytes(&table, way), "{way}: {table}");
        }
        assert_eq!(broker.stop(), Some(0), "{way}: {}", broker.log());
    }
}

#[test]
fn what_copies_is_not_counted_as_zero_copy() {
    let folder = tempfile::tempdir().unwrap();
    let masked = ["--egress", "send-zc", "--without", "send-zc"];
    let broker = Broker::start(folder.path(), &masked);
    let mut client = broker.client();
    fill(&mut client);
    read_all(&mut client);
    let table = egress(&mut client);
    assert_eq!(bytes(&table, "send-zc"), 0, "{table}");
    assert!(4_000_000 < bytes(&table, "gather"), "{table}");
    let log = broker.log();
    let warning = "egress=send-zc (--egress) has no meaning here, kernelWithout=send-zc (--without) masks it: gather is used";
    let lines: Vec<_> = log.lines().filter(|line| line.contains(warning)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN"), "{}", lines[0]);
}

#[test]
fn bulk_consumers_cost_no_copy() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    fill(&mut client);
    for _ in 0..3 {
        read_all(&mut client);
    }
    let table = egress(&mut client);
    assert_eq!(bytes(&table, "copy"), 0, "{table}");
    assert!(
        0 < bytes(&table, "gather"),
        "scattered records are gathered: {table}"
    );
    assert!(
        0 < bytes(&table, "sendfile"),
        "long runs go by sendfile: {table}"
    );
}

/// Takes everything that is on disk out of the page cache.
fn cool_down(store: &Path) {
    for segment in segments(store) {
        let file = File::open(segment).unwrap();
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }
}

fn segments(store: &Path) -> Vec<PathBuf> {
    let folder = store.join("store/0/commitlog");
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// How many pages of the log the page cache holds (cachestat, since Linux 6.5). A read that refuses to wait
/// would have the kernel read ahead, and so change what is asked for.
fn resident(store: &Path) -> u64 {
    const SYS_CACHESTAT: libc::c_long = 451;
    let mut count = 0;
    for segment in segments(store) {
        let file = File::open(segment).unwrap();
        let range = [0u64, file.metadata().unwrap().len()];
        let mut stat = [0u64; 5];
        let (range, out) = (range.as_ptr(), stat.as_mut_ptr());
        // SAFETY: both arrays are as large as the kernel's structs and outlive the call.
        #[allow(unsafe_code)]
        let done = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range, out, 0u32) };
        assert_eq!(done, 0, "cachestat: {}", std::io::Error::last_os_error());
        count += stat[0];
    }
    count
}

/// 48 MiB over several queues, of which nothing is in memory, a quarter of it read by two from the beginning: how many
/// bytes came from windows, and how many pages more of the log are in memory then.
fn reads_what_is_cold(arguments: &[&str]) -> (u64, u64) {
    const QUEUES: i64 = 4;
    const COUNT: usize = 3_200;
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), arguments);
    let mut client = broker.client();
    client.make_topic("cold", QUEUES as u32);
    // 48 MiB: the last 32 count as hot while the broker that wrote them runs.
    for index in 0..COUNT {
        let answer = client.produce("cold", index as i64 % QUEUES, &body(index, 15_000));
        assert_eq!(answer.code, 0, "{}", answer.remark);
    }
    // What is at the end is cold too where somebody threw it out: nothing stale may be sent then.
    assert_eq!(broker.stop(), Some(0));
    let broker = broker.start_again();
    cool_down(folder.path());
    let before = resident(folder.path());
    let mut clients = [broker.client(), broker.client()];
    let mut offset = 0;
    while offset < COUNT as i64 / QUEUES / 4 {
        for client in &mut clients {
            for queue_id in 0..QUEUES {
                let answer = client.fetch("cold", queue_id, offset, 20);
                assert_eq!(answer.code, 0, "{}", answer.remark);
                let got = bodies(&answer.body);
                assert!(!got.is_empty());
                for (at, got) in got.into_iter().enumerate() {
                    let index = (offset as usize + at) * QUEUES as usize + queue_id as usize;
                    assert!(got == body(index, 15_000), "{arguments:?}: message {index}");
                }
            }
        }
        offset += 20;
    }
    let table = egress(&mut clients[0]);
    assert_eq!(bytes(&table, "copy"), 0, "{arguments:?}: {table}");
    let after = resident(folder.path());
    (bytes(&table, "cold"), after.saturating_sub(before))
}

#[test]
fn what_is_cold_is_read_past_the_page_cache() {
    for masked in [
        &[][..],
        &["--without", "cachestat"],
        &["--without", "direct-io"],
        &["--without", "cachestat,dontcache"],
        &["--egress", "sendfile"],
        &["--egress", "splice"],
        &["--egress", "copy"],
    ] {
        let (cold, grown) = reads_what_is_cold(masked);
        assert!(20_000_000 < cold, "{masked:?}: {cold} bytes were read");
        assert!(grown <= 8, "{masked:?}: {grown} pages more are resident");
    }
}

/// Pages of what counts as hot while the broker that wrote it runs: it is sent without a question.
const HOT_PAGES: u64 = (32 << 20) / 4096;

/// One who reads a backlog from its beginning to its end, and again: the kernel would read ahead of him.
#[test]
fn a_backlog_that_is_read_in_order_stays_out_of_the_page_cache() {
    const COUNT: usize = 2_000;
    const SIZE: usize = 50_000;
    for way in ["auto", "sendfile", "copy"] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(folder.path(), &["--egress", way]);
        let mut client = broker.client();
        client.make_topic("backlog", 1);
        for index in 0..COUNT {
            assert_eq!(client.produce("backlog", 0, &body(index, SIZE)).code, 0);
        }
        cool_down(folder.path());
        for pass in 0..2 {
            let mut offset = 0;
            while offset < COUNT as i64 {
                let answer = client.fetch("backlog", 0, offset, 16);
                assert_eq!(answer.code, 0, "{}", answer.remark);
                for (at, got) in bodies(&answer.body).into_iter().enumerate() {
                    let index = offset as usize + at;
                    assert!(got == body(index, SIZE), "{way}: message {index}");
                }
                offset = answer.number("nextBeginOffset");
            }
            let there = resident(folder.path());
            assert!(there <= HOT_PAGES + 64, "{way}, pass {pass}: {there} pages");
        }
    }
}

#[test]
fn what_is_cold_is_read_through_the_page_cache_where_there_is_no_way_past_it() {
    let (cold, grown) = reads_what_is_cold(&["--without", "cachestat,direct-io,dontcache"]);
    assert!(0 < cold, "windows are read, and leave by any way");
    // Half of what two consumers got was read, and no more than the windows ahead of them besides.
    let asked = 3_200 / 4 * 15_000 / 4096;
    let (least, most) = (asked * 9 / 10, asked * 11 / 10 + 4 * 128);
    assert!(
        (least..=most).contains(&grown),
        "{grown} pages, of {asked} that were asked for"
    );
}

/// Reads all pages of the log but each 64th.
fn warm_with_holes(store: &Path) {
    for segment in segments(store) {
        let file = File::open(segment).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        for page in (0..file.metadata().unwrap().len() / 4096).filter(|page| page % 64 != 32) {
            file.read_exact_at(&mut [0], page * 4096).unwrap();
        }
    }
}

/// A shard that sends a range of which a page is missing waits for the disk in that call, whatever there is of
/// the range before and behind that page.
#[test]
fn a_range_with_one_page_missing_counts_as_cold() {
    const COUNT: usize = 24;
    const SIZE: usize = 1 << 20;
    for masked in [&[][..], &["--without", "cachestat"]] {
        let folder = tempfile::tempdir().unwrap();
        let segment = ["--set", "mappedFileSizeCommitLog=33554432"];
        let mut broker = Broker::start(folder.path(), &[&segment, masked].concat());
        let mut client = broker.client();
        client.make_topic("holes", 1);
        for index in 0..COUNT {
            assert_eq!(client.produce("holes", 0, &body(index, SIZE)).code, 0);
        }
        assert_eq!(broker.stop(), Some(0));
        let broker = broker.start_again();
        cool_down(folder.path());
        warm_with_holes(folder.path());
        let before = resident(folder.path());
        let mut client = broker.client();
        for index in 0..COUNT {
            let answer = client.fetch("holes", 0, index as i64, 1);
            let got = bodies(&answer.body);
            assert_eq!(got.len(), 1, "{}", answer.remark);
            assert!(got[0] == body(index, SIZE), "{masked:?}: message {index}");
        }
        let table = egress(&mut client);
        for way in ["sendfile", "gather", "copy"] {
            assert_eq!(bytes(&table, way), 0, "{masked:?}: {table}");
        }
        assert!(
            (COUNT * SIZE) as u64 <= bytes(&table, "cold"),
            "{masked:?}: {table}"
        );
        let after = resident(folder.path());
        assert!(after <= before + 8, "{masked:?}: {before}, then {after}");
    }
}

/// And one that is there as a whole leaves without a copy, whoever was asked about it.
#[test]
fn what_is_in_memory_since_before_the_start_is_not_read() {
    for masked in [&[][..], &["--without", "cachestat"]] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(folder.path(), masked);
        fill(&mut broker.client());
        assert_eq!(broker.stop(), Some(0));
        let broker = broker.start_again();
        let mut client = broker.client();
        read_all(&mut client);
        let table = egress(&mut client);
        for way in ["cold", "copy"] {
            assert_eq!(bytes(&table, way), 0, "{masked:?}: {table}");
        }
    }
}

#[test]
fn tailing_consumers_cost_no_copy_and_are_answered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &["--flush", "sync"]);
    let (mut producer, mut consumer) = (broker.client(), broker.client());
    producer.make_topic("tail", 1);
    for index in 0..200 {
        let mut fields = fetch_fields("tail", 0, index, 32);
        fields["sysFlag"] = json!("6");
        fields["suspendTimeoutMillis"] = json!("15000");
        let asked = consumer.send(11, &fields, &[]);
        let started = Instant::now();
        producer.call(
            310,
            &produce_fields("tail", 0, ""),
            &body(index as usize, 900),
        );
        let (answered, answer) = consumer.receive().unwrap();
        assert_eq!((answered, answer.code), (asked, 0));
        assert_eq!(bodies(&answer.body), [body(index as usize, 900)]);
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the pull was not woken"
        );
    }
    let table = egress(&mut producer);
    assert_eq!(bytes(&table, "copy"), 0, "{table}");
}

fn descriptors(broker: &Broker) -> usize {
    let folder = format!("/proc/{}/fd", broker.pid());
    std::fs::read_dir(folder).unwrap().count()
}

/// A splice that is broken off leaves bytes in its pipe.
#[test]
fn consumers_that_go_away_leave_no_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &["--egress", "splice"]);
    let mut client = broker.client();
    fill(&mut client);
    let before = descriptors(&broker);
    for _ in 0..40 {
        let mut gone = broker.client();
        for _ in 0..4 {
            gone.send(11, &fetch_fields("long", 0, 0, 32), &[]);
        }
        // Its answer has begun, and does not fit what the kernel holds for it.
        let mut first = [0; 1];
        std::io::Read::read_exact(&mut gone.stream, &mut first).unwrap();
    }
    read_all(&mut client);
    let after = descriptors(&broker);
    assert!(after <= before + 8, "{before} descriptors, then {after}");
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

/// Sets how many descriptors the broker may have; answers how many it was before.
fn limit_descriptors(broker: &Broker, count: u64) -> u64 {
    let pid = broker.pid().as_raw();
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    #[allow(unsafe_code)]
    let set = |new: *const libc::rlimit, old: *mut libc::rlimit| {
        // SAFETY: both point to limits of this function, or nowhere.
        let done = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, new, old) };
        assert_eq!(done, 0, "prlimit: {}", std::io::Error::last_os_error());
    };
    set(std::ptr::null(), &raw mut before);
    let after = libc::rlimit {
        rlim_cur: count,
        ..before
    };
    set(&raw const after, std::ptr::null_mut());
    before.rlim_cur
}

/// The lowest number that no descriptor of the broker has. A file that is open for a moment does not count.
fn first_free_descriptor(broker: &Broker) -> u64 {
    let folder = PathBuf::from(format!("/proc/{}/fd", broker.pid()));
    let look = |_| {
        std::thread::sleep(Duration::from_millis(20));
        let is_free = |number: &u64| !folder.join(number.to_string()).is_symlink();
        (0..).find(is_free).unwrap()
    };
    (0..5).map(look).min().unwrap()
}

/// A splice needs a pipe; where the process has no descriptors left for one, what it should send is copied.
#[test]
fn without_descriptors_for_a_pipe_the_bytes_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &["--egress", "splice"]);
    let mut client = broker.client();
    fill(&mut client);
    let table = egress(&mut client);
    assert_eq!(bytes(&table, "splice"), 0, "no pipe was made yet: {table}");
    let most = limit_descriptors(&broker, first_free_descriptor(&broker));
    read_all(&mut client);
    let table = egress(&mut client);
    assert_eq!(bytes(&table, "splice"), 0, "{table}");
    assert!(4_000_000 < bytes(&table, "copy"), "{table}");
    // When there are some again, pipes are made again.
    limit_descriptors(&broker, most);
    read_all(&mut client);
    let after = egress(&mut client);
    assert!(4_000_000 < bytes(&after, "splice"), "{after}");
    assert_eq!(bytes(&after, "copy"), bytes(&table, "copy"), "{after}");
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

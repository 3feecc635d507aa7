//! How shards share their CPUs with one another and with other programs.

mod kit;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kit::{Broker, Client, bodies, free_ports};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

const SMALL: [&str; 6] = [
    "--set",
    "mappedFileSizeCommitLog=8388608",
    "--set",
    "maxHashSlotNum=1000",
    "--set",
    "maxIndexNum=5000",
];

/// Gives this test, and the brokers it starts, no more than two CPUs. Answers how many it has.
fn on_two_cpus() -> usize {
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me).unwrap();
    let mut few = CpuSet::new();
    let all = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap());
    let count = all.take(2).map(|cpu| few.set(cpu).unwrap()).count();
    sched_setaffinity(me, &few).unwrap();
    count
}

/// What the kernel says of the thread of a shard: fields of `stat`, from the third on.
fn thread(broker: &Broker, shard: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.child.id())).unwrap();
    let name = format!("(shard-{shard})");
    for task in tasks {
        let stat = task.unwrap().path().join("stat");
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        if let Some((_, rest)) = stat.split_once(&format!("{name} ")) {
            return rest.split(' ').map(str::to_owned).collect();
        }
    }
    panic!("no thread {name}");
}

fn nice(broker: &Broker) -> i32 {
    thread(broker, 0)[16].parse().unwrap()
}

/// Seconds of CPU.
fn cpu_s(broker: &Broker, shard: u32) -> f64 {
    let stat = thread(broker, shard);
    let ticks: u64 = stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

const SPIN_LINES: &str = "info,corelane::broker::launch=debug";

#[test]
fn more_shards_than_cpus_all_serve_and_none_stays_awake() {
    let cpu_count = on_two_cpus();
    let folder = tempfile::tempdir().unwrap();
    let most = [
        "--shards",
        "4",
        "--set",
        "spinMaxMicros=1000",
        "--log",
        SPIN_LINES,
    ];
    let mut broker = Broker::start(folder.path(), &[&most[..], &SMALL].concat());
    let log = broker.log();
    assert!(
        log.contains(&format!("4 shards share {cpu_count} CPUs")),
        "{log}"
    );
    assert_eq!(log.matches("stays awake for 0 us").count(), 4, "{log}");
    let mut clients: Vec<Client> = (0..4)
        .map(|shard| Client::connect(broker.port + 10 * shard))
        .collect();
    clients[0].make_topic("T", 1);
    for (shard, client) in clients.iter_mut().enumerate() {
        let body = [shard as u8; 100];
        assert_eq!(client.produce("T", 0, &body).code, 0, "shard {shard}");
        let answer = client.fetch("T", 0, 0, 32);
        assert_eq!(bodies(&answer.body), [body], "shard {shard}");
    }
    // Somebody who asks again soon: what a shard with a CPU of its own would wait for awake.
    let (since, before) = (Instant::now(), cpu_s(&broker, 0));
    while since.elapsed() < Duration::from_secs(2) {
        let fields = json!({"topic": "T", "queueId": "0"});
        assert_eq!(clients[0].call(30, &fields, &[]).code, 0);
        std::thread::sleep(Duration::from_micros(700));
    }
    let part = (cpu_s(&broker, 0) - before) / since.elapsed().as_secs_f64();
    assert!(part < 0.35, "the shard was awake {part:.2} of the time");
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

#[test]
fn shards_with_cpus_of_their_own_may_stay_awake() {
    let cpu_count = on_two_cpus().to_string();
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--shards", &cpu_count, "--log", SPIN_LINES];
    let broker = Broker::start(folder.path(), &[&arguments[..], &SMALL].concat());
    let log = broker.log();
    assert!(!log.contains("shards share"), "{log}");
    let awake = log.matches("stays awake for 50 us").count();
    assert_eq!(awake.to_string(), cpu_count, "{log}");
}

#[test]
fn shards_run_before_other_programs_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &SMALL);
    let normal = nice(&broker);
    assert_eq!(broker.stop(), Some(0));
    let high = ["--set", "shardPriority=high"];
    let broker = Broker::start(folder.path(), &[&high[..], &SMALL].concat());
    let refused = broker.log().contains("shardPriority=high was refused");
    let want = if refused { normal } else { -10 };
    assert_eq!(nice(&broker), want, "{}", broker.log());
    // An ordinary user may be refused, root not.
    assert!(
        !refused || !nix::unistd::geteuid().is_root(),
        "{}",
        broker.log()
    );
}

#[test]
fn who_may_not_have_that_is_told_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_ports();
    let store = folder.path().join("store");
    let high = ["--set", "shardPriority=high"];
    let plain = kit::command(port, &store, &[&high[..], &SMALL].concat());
    // An ordinary user has no such right to lose.
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]);
        command.arg(plain.get_program()).args(plain.get_args());
        command
    } else {
        plain
    };
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(log).spawn().unwrap();
    let mut ready = String::new();
    let stdout = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready).unwrap();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let served = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready.starts_with("corelane is ready"), "{ready}{log}");
    assert!(served);
    let told = "shardPriority=high was refused: give this process CAP_SYS_NICE";
    assert!(log.contains(told), "{log}");
}

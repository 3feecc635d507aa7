//! The load generator as a program: every command once, tiny, against a real broker or one that does wrong.

mod kit;
#[path = "../tools/bench/sham/server.rs"]
mod sham;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kit::Broker;
use sham::Wrong;

fn command(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command
}

fn output(words: &str) -> Output {
    command(words).output().unwrap()
}

/// Runs a command that writes its JSON, and gives exit code, JSON and what it printed.
fn run(folder: &Path, words: &str) -> (i32, Value, String) {
    let json = folder.join("run.json");
    let output = output(&format!("{words} --json {}", json.display()));
    let code = output.status.code().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let told = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("{words}: {text}"));
    std::fs::remove_file(&json).unwrap();
    (code, serde_json::from_str(&told).unwrap(), text)
}

/// Runs a command that must be valid.
fn valid(folder: &Path, words: &str) -> Value {
    let (code, json, text) = run(folder, words);
    assert_eq!(code, 0, "{words}: {text}");
    assert_eq!(json["valid"], true, "{words}: {json}");
    assert_eq!(json["schema"], "corelane-bench/1");
    for key in [
        "args",
        "environment",
        "totals",
        "cost",
        "checks",
        "generator",
    ] {
        assert!(json[key].is_object(), "{words}: no {key} in {json}");
    }
    let totals = json["totals"].as_object().unwrap();
    assert!(
        totals.keys().all(|key| key.ends_with("_per_s")),
        "{totals:?}"
    );
    // A rate is known by its end wherever it stands. Seconds of a CPU make none.
    let mut keys = json.as_object().unwrap().keys();
    let is_named = |key: &String| {
        let is_by_time = key.contains("_per_") && key.ends_with("_s");
        !is_by_time || key.ends_with("_per_s") || key == "messages_per_server_cpu_s"
    };
    let wrong = keys.find(|key| !is_named(key));
    assert_eq!(wrong, None, "{words}");
    json
}

const LOAD: &str = "--queues 2 --size 200 --duration 0.5 --wait sleep --own-delay tell";

/// `| head` and a full disk behind stdout take the words, not the figures.
#[test]
fn what_was_measured_is_kept_though_nobody_reads_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let json = folder.path().join("run.json");
    let words = format!(
        "produce --addr 127.0.0.1:{} --topic unread {LOAD} --json {}",
        broker.port,
        json.display()
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    for (stdout, told) in [
        (Stdio::from(writer), ""),
        (Stdio::from(full), "No space left"),
    ] {
        let output = command(&words).stdout(stdout).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(
            stderr.contains(told) && !stderr.contains("panicked"),
            "{stderr}"
        );
        let run: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(run["valid"], true);
        std::fs::remove_file(&json).unwrap();
    }
}

#[test]
fn every_command_that_drives_a_broker_runs_against_one() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let broker = Broker::start(here, &[]);
    let load = format!("--addr 127.0.0.1:{} {LOAD}", broker.port);

    let files = here.join("files");
    // Slots for half a second: with all of them taken nothing is known of the generator's lateness.
    let words = format!(
        "produce {load} --connections 4 --in-flight 64 --warmup 1 --duration 2 --rate 500 --arrival poisson --size exp:300 --hgrm {0} --hlog {0}.hlog",
        files.display()
    );
    let json = valid(here, &words);
    let sent = json["acknowledged"].as_u64().unwrap();
    assert_eq!(json["checks"]["messages_read_back"], sent, "{json}");
    let cost = &json["cost"];
    assert_eq!(cost["server_pid"], broker.child.id(), "found by the port");
    for key in ["rss_bytes", "cpu_us_per_message", "cpu_us_per_mb"] {
        assert!(cost[key].is_number(), "{key} in {cost}");
    }
    for key in [
        "cpu_us_per_message",
        "cpu_throttled_us",
        "written_bytes_per_payload_byte",
    ] {
        let (told, why) = (&cost["cgroup"][key], &cost["cgroup"]["unknown"][key]);
        assert!(told.is_number() != why.is_string(), "{key}: {cost}");
    }
    // What a comparison tells of the machine, a run by itself tells too.
    let environment = &json["environment"];
    for key in ["damon", "governor", "memory", "commit_of_checkout"] {
        assert!(environment[key].is_string(), "{key} in {environment}");
    }
    for key in ["file_system", "disk_device", "disk_fua", "io_scheduler"] {
        let told = environment[key].as_str().unwrap_or("unknown: not told");
        let is_found = !told.contains("no file open");
        assert!(is_found && told != "unknown: not told", "{key}: {told}");
    }
    let server = json["server_command_line"].as_array().unwrap();
    assert!(server.contains(&"serve".into()), "{server:?}");
    // Where the kernel does not let us count, the reason stands beside.
    let counted = cost["syscalls_per_message"].as_f64();
    let why = &cost["unknown"]["syscalls_per_message"];
    assert!(
        counted.is_some_and(|count| 0.0 < count) != why.is_string(),
        "{cost}"
    );
    let series = json["series"].as_array().unwrap();
    assert_eq!(series.len(), 2, "{json}");
    let messages = series
        .iter()
        .map(|second| second["messages"].as_u64().unwrap());
    let sum = messages.sum::<u64>() as f64;
    assert!((300.0..1_250.0).contains(&sum), "{sum} in 2 s of 500/s");
    for name in ["service", "response", "lateness"] {
        let object = &json[name];
        assert!(object["min_ns"].as_u64() <= object["p50_ns"].as_u64());
        assert!(object["p50_ns"].as_u64() <= object["max_ns"].as_u64());
        assert!(
            object["hgrm"].as_str().is_some_and(|text| 20 < text.len()),
            "{name}"
        );
        let spectrum = std::fs::read_to_string(here.join(format!("files.{name}.hgrm"))).unwrap();
        let total = format!(
            "Total count    = {:>12}]",
            object["count"].as_u64().unwrap()
        );
        assert!(spectrum.contains(&total), "{spectrum}");
    }
    let log = std::fs::read_to_string(here.join("files.hlog")).unwrap();
    assert!(
        log.lines().any(|line| line.starts_with("Tag=response,")),
        "{log}"
    );

    let words = "--connections 2 --in-flight 4 --warmup 0 --batch 5 --keys 9 --tags a,bb --topics 2 --topic many --engine epoll";
    valid(here, &format!("produce {load} {words}"));
    let json = valid(
        here,
        &format!("consume {load} --warmup 0.1 --connections 3 --groups 2"),
    );
    assert_eq!(json["topic_messages"], sent, "{json}");
    assert!(1 <= json["passes"].as_u64().unwrap(), "{json}");
    let words = format!("consume {load} --count 7 --rate 5 --in-flight 3 --batch 2");
    let (code, json, text) = run(here, &words);
    assert_eq!(code, 0, "{text}");
    let told = "note: consume sends nothing: --in-flight, --size, --batch, --rate, --count without";
    assert_eq!(text.matches(told).count(), 2, "before and after: {text}");
    // Neither of them changes when and how it reads.
    assert_eq!(json["rate_intended_per_s"], 0.0, "{json}");
    assert_eq!(json["warmup_s"], 2.0, "{json}");
    let (code, _, text) = run(here, &format!("consume {load} --queues 3"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 of the 3 queues hold nothing"), "{text}");
    let json = valid(
        here,
        &format!("e2e {load} --warmup 0.1 --topic live --rate 1000"),
    );
    assert!(json["e2e"]["p50_ns"].is_number(), "{json}");
    let json = valid(
        here,
        &format!("mixed {load} --warmup 0.1 --topic fan --rate 1000 --groups 2 --backlog 2000"),
    );
    assert!(
        0.0 < json["totals"]["behind_messages_per_s"].as_f64().unwrap(),
        "{json}"
    );

    let json = valid(
        here,
        &format!(
            "mixed {load} --warmup 0.1 --topic slow --rate 500 --groups 1 --backlog 2000 --duration 2 --alone 1 --behind-rate 800"
        ),
    );
    let series = json["series"].as_array().unwrap();
    assert_eq!(series[0]["behind_bytes"], 0, "{json}");
    assert!(0 < series[1]["behind_bytes"].as_u64().unwrap(), "{json}");
    // An answer of 32 messages may come before its time.
    let rate = json["behind_messages_per_s"].as_f64().unwrap();
    assert!(rate <= 800.0 * 1.2 + 64.0, "{json}");
    for name in ["response_alone", "response_beside", "e2e_beside"] {
        assert!(0 < json[name]["count"].as_u64().unwrap(), "{name}: {json}");
    }

    let words = format!("idle --server-pid {} --duration 0.2", broker.child.id());
    let (code, json, _) = run(here, &words);
    assert_eq!(code, 0);
    assert!(
        json["server_rss_bytes"].as_u64().unwrap() > 1 << 20,
        "{json}"
    );
}

#[test]
fn several_threads_are_one_generator() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let broker = Broker::start(here, &[]);
    let load = format!("--addr 127.0.0.1:{} {LOAD} --threads 3", broker.port);
    for engine in ["ring", "epoll"] {
        let words = format!(
            "produce {load} --topic {engine} --engine {engine} --connections 5 --in-flight 3 --rate 1500 --duration 1 --warmup 0.2"
        );
        let json = valid(here, &words);
        let sent = json["acknowledged"].as_u64().unwrap();
        assert_eq!(json["checks"]["messages_read_back"], sent, "{json}");
        // Each thread's part of the rate, and no message of two.
        let samples = json["response"]["count"].as_u64().unwrap();
        assert!((1_480..=1_520).contains(&samples), "{samples}");
        // Two connections of the five.
        assert_eq!(json["generator"]["outstanding_most_of_a_thread"], 2 * 3);
        let threads = json["generator"]["cpu_percent_of_threads"].as_array();
        assert_eq!(threads.map(Vec::len), Some(3), "{json}");
    }
    let words = format!(
        "produce {load} --topic count --connections 4 --count 1000 --duration 30 --warmup 0"
    );
    let json = valid(here, &words);
    assert!(1_000 <= json["acknowledged"].as_u64().unwrap(), "{json}");
    // What was asked for stands among the arguments; the window ended with the count.
    let (asked, lasted) = (&json["args"]["duration_s"], &json["duration_s"]);
    assert_eq!(asked.as_f64(), Some(30.0), "{json}");
    let (lasted, rate) = (lasted.as_f64().unwrap(), json["messages_per_s"].as_f64());
    assert!(lasted < 20.0, "{lasted}");
    let acknowledged = rate.unwrap() * lasted;
    assert!((990.0..=1_010.0).contains(&acknowledged), "{acknowledged}");
    let words = "--topic ring --connections 4 --groups 2 --queues 2 --warmup 0.1 --duration 1";
    let json = valid(here, &format!("consume {load} {words}"));
    assert!(1 <= json["passes"].as_u64().unwrap(), "{json}");
    let words = "--topic live --connections 3 --rate 600 --warmup 0.2 --duration 1";
    let json = valid(here, &format!("e2e {load} {words}"));
    let sent = json["acknowledged"].as_u64().unwrap();
    assert_eq!(json["received"], sent, "{json}");

    let told = output(&format!("produce {load} --connections 2"));
    assert_eq!(told.status.code(), Some(2));
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(text.contains("3 threads"), "{text}");
    // Whichever thread meets it: an error of one ends all.
    drop(broker);
    let told = output(&format!("produce {load} --connections 3"));
    assert_eq!(told.status.code(), Some(2));
}

#[test]
fn rows_of_the_table_are_measured_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // Below the range from which the kernel takes the ports of outgoing connections.
    let port = 15_600 + std::process::id() % 40 * 400;
    let words = format!(
        "table 4 8 14 --smoke --no-apache --room-gib 0 --port {port} --work {0}/work --out {0}/out",
        here.display()
    );
    for round in 1..=2 {
        let told = output(&words);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&told.stdout),
            String::from_utf8_lossy(&told.stderr)
        );
        assert_eq!(told.status.code(), Some(0), "{text}");
        let table = std::fs::read_to_string(here.join("out/table.md")).unwrap();
        for (row, reached) in [
            ("| 4 | bytes/s", true),
            ("| 8 | async round trip, p50", true),
            ("| 14 | idle memory", true),
            ("| 14 | from exec", true),
            ("| 14 | memory with many", false),
        ] {
            let mut lines = table.lines().filter(|line| line.starts_with(row));
            let line = lines.next().unwrap_or_else(|| panic!("{row}: {table}"));
            let is_told = !line.ends_with("not measured |");
            // Without RocketMQ there is nothing to divide by.
            assert_eq!(is_told, reached, "{line}\n{text}");
        }
        let lines = std::fs::read_to_string(here.join("out/table.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), round, "a session appends");
        let json: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        let rates = &json["values"]["4-batch-62x1024"]["floor"]["body_bytes_per_s"];
        assert_eq!(rates.as_array().map(Vec::len), Some(1), "{json}");
        assert!(here.join("out/report.html").exists());
    }
}

#[test]
fn a_search_tells_its_trials() {
    let folder = tempfile::tempdir().unwrap();
    let words = format!(
        "produce --addr {} {LOAD} --duration 0.2 --warmup 0 --in-flight 8 --rate 500 --search p50=400ms",
        sham::broker(Wrong::Nothing)
    );
    let (code, json, text) = run(folder.path(), &words);
    assert_eq!(code, 0, "{text}");
    assert!(
        500.0 <= json["rate_found_per_s"].as_f64().unwrap(),
        "{json}"
    );
    assert!(text.contains("holds"), "{text}");
}

#[test]
fn a_search_is_not_spoiled_by_what_it_sent_after_its_best_trial() {
    let folder = tempfile::tempdir().unwrap();
    // The first trial sends 400 messages; within the second the server begins to refuse.
    let words = format!(
        "produce --addr {} {LOAD} --duration 0.5 --warmup 0 --in-flight 8 --rate 800 --search p50=400ms",
        sham::broker(Wrong::RefuseRest)
    );
    let (code, json, text) = run(folder.path(), &words);
    assert_eq!(code, 0, "{text}");
    assert_eq!(json["rate_found_per_s"], 800.0, "{json}");
    assert_eq!(json["duplicated"], 0, "{json}");
    let trials = json["search"]["trials"].as_array().unwrap();
    assert_eq!(trials.last().unwrap()["holds"], false, "{json}");
    // Its own messages, not those of later trials.
    assert_eq!(json["acknowledged"], json["checks"]["messages_read_back"]);
    assert_eq!(json["acknowledged"], 400, "{json}");
}

#[test]
fn a_start_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let port = kit::free_ports();
    let store = folder.path().join("store");
    let words = format!(
        "start --addr 127.0.0.1:{port} -- {} serve --store {} --port {port} --nameserver-port {} --shards 1",
        env!("CARGO_BIN_EXE_corelane"),
        store.display(),
        port + 60
    );
    let json = folder.path().join("run.json");
    let output = output(&words.replacen("start", &format!("start --json {}", json.display()), 1));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert!(
        0.0 < json["start_to_first_ack_ms"].as_f64().unwrap(),
        "{json}"
    );
}

/// A floor that ends with the test.
struct Floor(Child, u16);

impl Floor {
    fn start(words: &str) -> Floor {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let words = format!("floor {words} --addr 127.0.0.1:{port} --duration 30 --file-mib 16");
        let child = command(&words).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the floor does not listen: {words}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Floor(child, port)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn floors_are_loaded_like_brokers() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (kind, load) in [
        ("echo", "produce --in-flight 4"),
        ("append", "produce --in-flight 4 --batch 3"),
        ("flush", "produce"),
        ("sendfile", "consume --connections 2"),
        ("gather", "consume --connections 2"),
    ] {
        let file = match kind {
            "echo" => String::new(),
            _ => format!("--file {}", here.join("data").display()),
        };
        let floor = Floor::start(&format!("{kind} {file} --queues 2 --size 200"));
        let words = format!("{load} --addr 127.0.0.1:{} {LOAD} --warmup 0", floor.1);
        let json = valid(here, &words);
        assert!(
            0.0 < json["messages_per_s"].as_f64().unwrap(),
            "{kind}: {json}"
        );
    }
}

#[test]
fn what_a_server_does_wrong_makes_the_exit_code_1_and_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (wrong, key) in [
        (Wrong::Lose, "lost"),
        (Wrong::Repeat, "duplicated"),
        (Wrong::Swap, "reordered"),
        (Wrong::Flip, "corrupted"),
    ] {
        let words = format!(
            "produce --addr {} {LOAD} --connections 2 --in-flight 2 --count 900 --duration 20",
            sham::broker(wrong)
        );
        let (code, json, text) = run(folder.path(), &words);
        assert_eq!(code, 1, "{wrong:?}: {text}");
        assert!(
            0 < json["checks"][key].as_u64().unwrap(),
            "{wrong:?}: {json}"
        );
        assert!(text.contains("VOID: messages:"), "{text}");
    }
}

#[test]
fn a_generator_that_is_late_itself_says_so_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let floor = Floor::start("echo");
    // A burst of 8,000 is made one after another: the last of them waits for the first ones.
    let words = format!(
        "produce --addr 127.0.0.1:{} --queues 2 --connections 4 --in-flight 2500 --size 64 --rate 16000 --arrival burst:8000 --duration 1 --warmup 0 --percentile 50",
        floor.1
    );
    let (code, json, text) = run(folder.path(), &words);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("generator's own delay"), "{text}");
    assert!(
        json["generator"]["spoiled"]["response"].is_string(),
        "{json}"
    );
    // What is spoiled is not told, in no form.
    assert_eq!(json["response"]["p50_ns"], Value::Null, "{json}");
    assert_eq!(json["response_p99_ns"], Value::Null, "{json}");
    assert_eq!(json["response_max_ns"], Value::Null, "{json}");
    assert_eq!(json["series"][0]["p99_ns"], Value::Null, "{json}");
    let row = text.lines().find(|line| line.contains("response"));
    assert!(row.unwrap_or("").contains("spoiled"), "{text}");
    // No rate is the server's limit where the generator cannot offer it, and lower ones are tried.
    let search = words.replace("--duration 1 ", "--duration 0.2 ");
    let told = output(&format!("{search} --read-back none --search p50=60s"));
    // On a machine that is busy a server may be so slow that a trial holds: then it is a note.
    let told = [told.stdout, told.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("own delay shows in p50, twice"), "{told}");
    assert!(2 < told.matches("/s: p50").count(), "{told}");
    let (code, json, text) = run(folder.path(), &format!("{words} --own-delay withhold"));
    // On a machine that is busy it may be void for having no CPU.
    let is_late = text.contains("VOID: the generator's own delay");
    assert!(code < 2 && !is_late, "{text}");
    assert_eq!(json["response_p50_ns"], Value::Null, "{json}");
    let (code, json, text) = run(folder.path(), &format!("{words} --own-delay tell"));
    assert_eq!(code, 0, "{text}");
    assert!(json["response_p50_ns"].is_u64(), "{json}");
    assert!(text.contains("told all the same"), "{text}");
}

/// A generator that is stopped again and again, for more than half of its window.
fn stopped_generator(words: &str) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let floor = Floor::start("echo");
    let json = folder.path().join("run.json");
    let words = format!(
        "produce --addr 127.0.0.1:{} --queues 2 --size 64 --duration 2 --warmup 0 --read-back none --json {} {words}",
        floor.1,
        json.display()
    );
    let mut child = command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..200 {
        kill(pid, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(3));
        kill(pid, Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let code = child.wait().unwrap().code();
    let json = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    (code, json)
}

#[test]
fn a_closed_loop_whose_generator_was_stopped_says_so_and_fails() {
    let (code, json) = stopped_generator("");
    let spoiled = &json["generator"]["spoiled"]["service"];
    assert!(spoiled.is_string(), "{json}");
    assert_eq!(code, Some(1), "{json}");
}

#[test]
fn a_rate_that_is_of_a_generator_without_a_cpu_is_void() {
    let (code, json) = stopped_generator("--connections 4 --in-flight 8");
    assert_eq!(code, Some(1), "{json}");
    let why = json["void_because"][0].as_str().unwrap();
    assert!(why.contains("kept off its CPU for"), "{why}");
    let (code, json) = stopped_generator("--connections 4 --in-flight 8 --own-delay tell");
    assert_eq!(code, Some(0), "{json}");
    let away = json["generator"]["kept_away_percent"].as_f64().unwrap();
    assert!(10.0 < away, "{away}");
}

#[test]
fn a_rate_that_the_generator_cannot_offer_is_not_blamed_on_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let floor = Floor::start("echo");
    let words = format!(
        "produce --addr 127.0.0.1:{} --connections 8 --in-flight 2000 --size 16384 --rate 100000000 --duration 1 --warmup 0 --read-back none",
        floor.1
    );
    let (code, json, text) = run(folder.path(), &words);
    assert_eq!(code, 1, "{text}");
    let void = json["void_because"].to_string();
    assert!(void.contains("the generator's limit"), "{void}");
    assert!(!void.contains("the server's limit"), "{void}");
}

fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code().unwrap_or(-1));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

#[test]
fn a_signal_ends_a_run_that_tells_what_it_measured_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let addr = sham::broker(Wrong::Nothing);
    valid(
        folder.path(),
        &format!("produce --addr {addr} {LOAD} --count 500 --duration 20"),
    );
    let load = format!("--addr {addr} --queues 2 --size 200 --wait sleep --own-delay tell");
    for (words, signal, warmup) in [
        ("produce", Signal::SIGINT, 0),
        (
            "produce --threads 2 --connections 2 --topic b",
            Signal::SIGTERM,
            0,
        ),
        ("consume", Signal::SIGINT, 0),
        ("e2e --rate 200 --topic c", Signal::SIGTERM, 0),
        (
            "mixed --rate 200 --topic d --backlog 100 --groups 1",
            Signal::SIGINT,
            0,
        ),
        ("produce --topic e", Signal::SIGINT, 60),
        (
            "produce --topic f --search p50=1s --rate 200",
            Signal::SIGINT,
            0,
        ),
    ] {
        let json = folder.path().join("run.json");
        let words = format!(
            "{words} {load} --duration 60 --warmup {warmup} --json {0} --hlog {0}.hlog",
            json.display()
        );
        let mut child = command(&words).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let code = wait(&mut child, Duration::from_secs(20));
        assert_eq!(code, Some(130), "{words}");
        if words.contains("--search") {
            // Its first trial has not come to its end.
            continue;
        }
        let told = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("{words}"));
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["valid"], false, "{words}: {told}");
        let void = told["void_because"].to_string();
        assert!(void.contains("ended by a signal"), "{words}: {void}");
        assert!(!void.contains("messages: "), "{words}: {void}");
        assert!(
            told["duration_s"].as_f64().unwrap() < 20.0,
            "{words}: {told}"
        );
        let rate = told["messages_per_s"].as_f64().unwrap();
        assert_eq!(0.0 < rate, warmup == 0, "{words}: {told}");
        let log = std::fs::read_to_string(folder.path().join("run.json.hlog")).unwrap();
        assert_eq!(log.contains("Tag="), warmup == 0, "{words}: {log}");
        std::fs::remove_file(&json).unwrap();
    }
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let words = format!(
        "produce --addr {} {LOAD} --duration 60 --warmup 0 --rate 2000",
        sham::broker(Wrong::Silence)
    );
    let mut child = command(&words).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    // The last answer does not come, and the first signal waits for it.
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none());
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(wait(&mut child, Duration::from_secs(3)), Some(130));
}

/// Who reads an error knows what to do about it.
#[test]
fn errors_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let broker = Broker::start(here, &[]);
    let floor = Floor::start("echo");
    std::fs::write(here.join("there"), "x").unwrap();
    let there = here.join("there").display().to_string();
    // Answers whatever comes with what is no frame.
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let garbage_addr = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut socket in garbage.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = socket.write_all(&[0; 64]);
        }
    });
    let addr = format!("--addr 127.0.0.1:{}", broker.port);
    for (words, told) in [
        (
            format!("produce {addr} --rate -5"),
            vec!["--rate is 0 (closed loop) to"],
        ),
        (
            format!("produce {addr} --keys -5"),
            vec!["--keys", "write how many keys there are, or 0"],
        ),
        (
            format!("floor echo --addr 127.0.0.1:{}", floor.1),
            vec![
                "cannot listen on 127.0.0.1:",
                "choose another port with --addr",
            ],
        ),
        (
            format!("floor append --addr 127.0.0.1:0 --file {there} --file-mib 8"),
            vec![&there, "choose one that is not there yet with --file"],
        ),
        (
            format!("floor gather --addr 127.0.0.1:0 --file {there} --file-mib 8"),
            vec![&there, "choose one that is not there yet with --file"],
        ),
        (
            format!("consume {addr} --topic nobody-knows"),
            vec!["nobody-knows", "produce into it first"],
        ),
        (
            format!("produce {addr} --json {}/no/run.json", here.display()),
            vec!["cannot write", "make its folder first"],
        ),
        (
            format!("produce --addr {garbage_addr} --duration 1"),
            vec!["remoting protocol", "--addr"],
        ),
        (
            format!("produce {addr} --cpu 999 --duration 1"),
            vec!["--cpu: there is no CPU 999", "there are 0"],
        ),
    ] {
        let output = output(&words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {text}");
        for told in told {
            assert!(text.contains(told), "{words}: no '{told}' in {text}");
        }
    }
    let words = format!("produce --addr {garbage_addr} --duration 1");
    let text = String::from_utf8_lossy(&output(&words).stderr).into_owned();
    assert!(text.contains(&garbage_addr.to_string()), "{text}");
}

#[test]
fn a_floor_does_not_run_for_ever_for_a_duration_that_cannot_be() {
    for duration in ["-1", "nan"] {
        let words = format!("floor echo --addr 127.0.0.1:0 --duration={duration}");
        let mut child = command(&words).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let mut status = child.try_wait().unwrap();
        while status.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            status = child.try_wait().unwrap();
        }
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(status.and_then(|it| it.code()), Some(2), "{duration}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_said_before_the_run() {
    let floor = Floor::start("echo");
    let addr = format!("127.0.0.1:{}", floor.1);
    for option in ["--json", "--hlog", "--hgrm"] {
        let words = format!("produce --addr {addr} --duration 20 {option} /nonexistent/x");
        let begun = Instant::now();
        let told = output(&words);
        assert_eq!(told.status.code(), Some(2), "{option}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{option}");
        let text = String::from_utf8_lossy(&told.stderr);
        assert!(text.contains("cannot write /nonexistent/x"), "{text}");
    }
}

#[test]
fn without_a_server_the_exit_code_is_2_and_help_is_there_for_every_command() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let told = output(&format!("produce --addr {addr}"));
    assert_eq!(told.status.code(), Some(2));
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(text.contains("is the broker running?"), "{text}");
    for command in [
        "produce", "consume", "e2e", "mixed", "floor", "start", "idle", "table",
    ] {
        let told = output(&format!("{command} --help"));
        assert!(told.status.success());
        assert!(300 < told.stdout.len(), "{command}");
    }
}

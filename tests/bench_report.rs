//! `corelane-bench compare` and `report`: the page is whole and true, runs alternate, a dying server
//! voids its runs, and nothing is left running.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use serde_json::{Value, json};

const BENCH: &str = env!("CARGO_BIN_EXE_corelane-bench");

fn output(words: &[&str]) -> Output {
    Command::new(BENCH).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn latency(from_ns: u64) -> Value {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for at in 0..20_000 {
        histogram.record(from_ns + at * at / 100).unwrap();
    }
    let mut bytes = Vec::new();
    let mut serializer = V2Serializer::new();
    serializer.serialize(&histogram, &mut bytes).unwrap();
    json!({
        "count": histogram.len(),
        "p50_ns": histogram.value_at_quantile(0.5),
        "p99_ns": histogram.value_at_quantile(0.99),
        "max_ns": histogram.max(),
        "hgrm": base64::engine::general_purpose::STANDARD.encode(&bytes),
    })
}

/// A run as the generator writes it.
fn full(rate: f64) -> Value {
    let series: Vec<Value> = (0..5)
        .map(|second| {
            json!({"second": second, "messages": rate as u64 + second, "bytes": 1, "p50_ns": 1000,
                "p99_ns": 5000 + second, "max_ns": 9000})
        })
        .collect();
    json!({
        "schema": "corelane-bench/1",
        "command": "produce",
        "command_line": ["produce", "--addr", "127.0.0.1:1", "--tags", "a b"],
        "server_command_line": ["/opt/broker", "serve"],
        "args": {"connections": 8},
        "environment": {"kernel": "6.1-test", "disk": {"fua": "1"}},
        "totals": {"messages_per_s": rate, "body_bytes_per_s": rate * 1024.0},
        "service": latency(10_000),
        "response": latency(20_000),
        "e2e": latency(40_000),
        "series": series,
        "cost": {"server_cpu_us_per_message": 2.5, "fdatasyncs_per_message": 0.125},
        "checks": {"lost": 0},
        "valid": true,
        "connections": 8, "in_flight": 4, "size_bytes": 1024,
    })
}

/// A run as the first version wrote it: flat, and without a histogram.
fn old(rate: f64) -> Value {
    json!({
        "command": "produce", "kernel": "5.19-old", "messages_per_s": rate,
        "service_samples": 1000, "service_p50_ns": 12_000, "service_p99_ns": 90_000,
        "service_p999_ns": null, "service_max_ns": 100_000,
        "server_cpu_us_per_message": 5.0, "valid": true,
        "connections": 8, "in_flight": 4, "size_bytes": 1024,
    })
}

fn write(folder: &Path, name: &str, json: &Value) -> String {
    let path = folder.join(name);
    std::fs::write(&path, json.to_string()).unwrap();
    path.display().to_string()
}

/// What a page may not have: a way out of its own file.
fn assert_is_self_contained(html: &str) {
    let bare = html.replace("http://www.w3.org/2000/svg", "");
    for outside in [
        "http://", "https://", "src=", "<link", "<script", "@import", "url(",
    ] {
        assert!(!bare.contains(outside), "the page has {outside}");
    }
}

#[test]
fn a_report_holds_every_series_and_needs_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let evil = "<i>&\"'x";
    // Charts of an earlier report go; what else is there is not ours.
    std::fs::create_dir_all(out.join("charts")).unwrap();
    for name in ["07-gone-rate.svg", "mine.svg"] {
        std::fs::write(out.join("charts").join(name), "x").unwrap();
    }
    let mut words = vec![
        "report".to_owned(),
        "--out".to_owned(),
        out.display().to_string(),
    ];
    for (at, rate) in [1000.0, 3000.0, 2000.0].into_iter().enumerate() {
        let file = write(folder.path(), &format!("new{at}.json"), &full(rate));
        words.push(format!("{evil}={file}"));
    }
    let file = write(folder.path(), "before.7.json", &old(500.0));
    words.push(file);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = output(&words);
    assert!(ran.status.success(), "{}", text(&ran.stderr));

    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_is_self_contained(&html);
    assert!(!html.contains("<i>"), "a name is not escaped");
    assert!(html.contains("&lt;i&gt;&amp;"), "the name is not there");
    assert!(html.contains("before"), "the old run is not there");
    // The median of three, with least and most; and the one old run beside it.
    let median = "2,000 <span class=\"range\">(1,000–3,000)</span>";
    assert!(html.contains(median), "the median is wrong");
    assert!(
        html.contains("0.2500×"),
        "the ratio of 500 to 2,000 is wrong"
    );
    for fact in ["6.1-test", "5.19-old", "disk.fua", "fdatasyncs per message"] {
        assert!(html.contains(fact), "{fact} is not there");
    }
    let mut charts: Vec<String> = std::fs::read_dir(out.join("charts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    charts.sort();
    assert!(
        !charts.contains(&"07-gone-rate.svg".to_owned()),
        "{charts:?}"
    );
    assert!(charts.contains(&"mine.svg".to_owned()), "{charts:?}");
    for chart in ["rate", "cost", "series", "series-p99"] {
        check_chart(&out, &html, &charts, chart);
    }
    for latency in ["service", "response", "e2e"] {
        for kind in ["percentiles", "histogram"] {
            check_chart(&out, &html, &charts, &format!("{latency}-{kind}"));
        }
    }
    for command in [
        "corelane-bench produce --addr 127.0.0.1:1 --tags 'a b'",
        "<pre>/opt/broker serve</pre>",
    ] {
        assert!(html.contains(command), "{command} is not there");
    }
    let told = text(&ran.stdout);
    assert!(
        told.contains("2,000 (1,000–3,000)") && told.contains("report.html"),
        "{told}"
    );
}

/// A chart is in the page, and beside it as SVG and as PNG; a drawing, not an empty sheet.
fn check_chart(out: &Path, html: &str, files: &[String], name: &str) {
    let of = |end: &str| {
        let found = files
            .iter()
            .find(|file| file.ends_with(&format!("-{name}{end}")));
        found.unwrap_or_else(|| panic!("no {name}{end} in {files:?}"))
    };
    let svg = std::fs::read_to_string(out.join("charts").join(of(".svg"))).unwrap();
    assert!(html.contains(&svg), "{name} is not in the page");
    assert!(
        svg.contains("&lt;i&gt;&amp;"),
        "{name} has not the contender's name"
    );
    let png = std::fs::read(out.join("charts").join(of(".png"))).unwrap();
    assert_eq!(&png[1..4], b"PNG", "{name}");
    assert!(5_000 < png.len(), "{name} has {} bytes", png.len());
}

#[test]
fn files_that_are_no_runs_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report").display().to_string();
    for content in ["", "[1]", "{}", "{\"service\": {\"hgrm\": \"!\"}}"] {
        let path = folder.path().join("wrong.json");
        std::fs::write(&path, content).unwrap();
        let ran = output(&["report", "--out", &out, &path.display().to_string()]);
        assert_eq!(ran.status.code(), Some(2), "{content}");
        assert!(
            text(&ran.stderr).contains("wrong.json"),
            "{}",
            text(&ran.stderr)
        );
    }
}

#[test]
fn the_help_of_compare_names_every_value_that_the_broker_takes() {
    let help = text(&output(&["compare", "--help"]).stdout);
    let words = |from: &str, to: &str| {
        let part = help.split(from).nth(1).unwrap().split(to).next().unwrap();
        let words = part.split(|c: char| c.is_whitespace() || c == ',');
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    for (setting, (from, to), before) in [
        ("--append=?", ("--append <LIST>", "--egress"), ""),
        ("--egress=?", ("--egress <LIST>", "--broker"), ""),
        ("--flush=?", ("--flush <LIST>", "--append"), ""),
        (
            "--set=flushMethod=?",
            ("--flush <LIST>", "--append"),
            "sync-",
        ),
    ] {
        let mut broker = Command::new(env!("CARGO_BIN_EXE_corelane"));
        let told = broker.args(["serve", setting, "--print-config"]).output();
        let told = text(&told.unwrap().stderr);
        let allowed = told.split("allowed is ").nth(1).expect(&told).trim();
        let known = words(from, to);
        for value in allowed.split(" or ") {
            // ASYNC_FLUSH (async): RocketMQ's word, and the flag's.
            let flag = value
                .split_once('(')
                .map(|(_, flag)| flag.trim_end_matches(')'));
            let value = format!("{before}{}", flag.unwrap_or(value));
            // What a broker chooses for itself has no name in a comparison.
            let is_known = value == "sync-auto" || known.contains(&value);
            assert!(is_known, "{setting}: {value} is not in {known:?}");
        }
    }
}

/// A comparison of servers that echo, on ports of its own, in a folder of its own.
struct Comparison {
    folder: tempfile::TempDir,
    port: u16,
}

impl Comparison {
    /// `number` keeps tests of one process apart, the process's own id those of two.
    fn new(number: u16) -> Comparison {
        let own = (std::process::id() % 60) as u16;
        Comparison {
            folder: tempfile::tempdir().unwrap(),
            port: 21_100 + own * 100 + number,
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BENCH);
        command
            .arg("compare")
            .args(["--port", &self.port.to_string(), "--server-cpu", "0"])
            .args(["--load-cpu", &(cpus() - 1).to_string(), "--room-gib", "0"])
            .arg("--work")
            .arg(self.folder.path().join("work"))
            .arg("--out")
            .arg(self.out())
            .args(words)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// The JSON of all runs, by file.
    fn runs(&self) -> BTreeMap<String, Value> {
        let entries = std::fs::read_dir(self.out().join("runs")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .map(|path| {
                let json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), json)
            })
            .collect()
    }

    /// Living processes whose command line names a port of this comparison.
    fn left(&self) -> Vec<String> {
        let ports = [self.port, self.port + 40].map(|port| format!("127.0.0.1:{port}"));
        let lines = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
                Some(text(&bytes).replace('\0', " "))
            });
        lines
            .filter(|line| ports.iter().any(|port| line.contains(port)))
            .collect()
    }

    fn assert_nothing_is_left(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.left().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.left(), Vec::<String>::new());
    }

    fn wait_for_server(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port + 40)).is_err() {
            assert!(Instant::now() < end, "no server came up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn echo(name: &str, more: &str) -> String {
    format!("{name}='{BENCH}' floor echo --addr 127.0.0.1:{{port}} {more}")
}

const SHORT: [&str; 6] = ["--duration", "0.3", "--warmup", "0.1", "-n", "2"];

#[test]
fn two_servers_are_measured_in_turn() {
    let comparison = Comparison::new(0);
    let (ours, peer) = (echo("ours", ""), echo("peer", ""));
    let mut words = vec!["--broker", &ours, "--peer", &peer, "--warm-peer", "0.2"];
    words.extend([
        "--load",
        "sends=produce --connections 2 --in-flight 4 --own-delay tell",
    ]);
    words.extend(SHORT);
    let ran = comparison.run(&words);
    let told = text(&ran.stderr);
    assert!(ran.status.success(), "{told}");
    let order: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    let wanted = [
        "sends 1/2 ours",
        "sends 1/2 peer",
        "sends 2/2 ours",
        "sends 2/2 peer",
    ];
    assert_eq!(order, wanted, "{told}");

    let runs = comparison.runs();
    assert_eq!(runs.len(), 4, "{:?}", runs.keys());
    for (file, json) in &runs {
        assert!(0.0 < json["messages_per_s"].as_f64().unwrap(), "{file}");
        assert!(json["environment"]["kernel"].is_string(), "{file}");
        assert_eq!(
            json["compare"]["peer"],
            json["compare"]["contender"] == "peer"
        );
        let command = json["compare"]["server_command"].as_str().unwrap();
        assert!(command.contains("floor echo"), "{command}");
        assert!(command.starts_with("taskset -c "), "{command}");
        let command = json["compare"]["generator_command"].as_str().unwrap();
        assert!(!command.contains("--server-pid"), "{command}");
    }
    let html = std::fs::read_to_string(comparison.out().join("report.html")).unwrap();
    assert_is_self_contained(&html);
    assert!(html.contains("÷ peer"), "no ratio to the peer");
    assert!(html.contains("compare --port"), "no command to repeat it");
    comparison.assert_nothing_is_left();

    // Its files alone make the same page.
    let mut again = Command::new(BENCH);
    let out = comparison.folder.path().join("again");
    again
        .arg("report")
        .arg("--title")
        .arg("corelane-bench compare")
        .arg("--out")
        .arg(&out);
    let names = [
        "sends.ours.1",
        "sends.peer.1",
        "sends.ours.2",
        "sends.peer.2",
    ];
    again.args(names.map(|name| comparison.out().join(format!("runs/{name}.json"))));
    assert!(again.status().unwrap().success());
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page == html, "report makes another page than compare");
}

/// More brokers than a disk has room for are up one at a time, and alternate all the same.
#[test]
fn of_a_large_matrix_one_broker_is_up_at_a_time() {
    let comparison = Comparison::new(9);
    let counts = comparison.folder.path().join("counts");
    let broker = format!(
        "b=sh -c 'ls {{store}}/.. | wc -l >> {}; exec {BENCH} floor echo --addr 127.0.0.1:{{port}}' {{flush}} {{append}}",
        counts.display()
    );
    let words = [
        "--broker",
        &broker,
        "--flush",
        "a,b,c,d,e",
        "--append",
        "v,w,x,y,z",
        "--load",
        "sends=produce --count 20 --duration 20 --own-delay tell",
        "-n",
        "2",
    ];
    let ran = comparison.run(&words);
    let told = text(&ran.stderr);
    assert!(ran.status.success(), "{told}");
    let order: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(order.len(), 50, "{told}");
    let ends = [order[0], order[24], order[25], order[49]];
    let wanted = ["1/2 b a v", "1/2 b e z", "2/2 b a v", "2/2 b e z"];
    assert_eq!(ends, wanted.map(|end| format!("sends {end}")));
    let counts = std::fs::read_to_string(counts).unwrap();
    assert_eq!(counts.lines().count(), 50);
    assert!(counts.lines().all(|count| count.trim() == "1"), "{counts}");

    // Each panel has its contenders, and the one that all are divided by.
    let html = std::fs::read_to_string(comparison.out().join("report.html")).unwrap();
    for part in ["b a", "b e"] {
        let summary = format!("<summary>{part}</summary>");
        assert!(html.contains(&summary), "{part} has no panel");
    }
    let svg = "charts/01-sends-05-b-e-service-percentiles.svg";
    let svg = std::fs::read_to_string(comparison.out().join(svg)).unwrap();
    for name in ["b a v", "b e v", "b e z"] {
        assert!(svg.contains(name), "{name} has no line");
    }
    assert!(!svg.contains("b d z"));
    let row = text(&ran.stdout);
    let row = row.lines().find(|line| line.trim().starts_with("b e z"));
    let columns = row.unwrap_or_default().split_whitespace().count();
    assert!(6 < columns, "{row:?}");
    comparison.assert_nothing_is_left();
}

#[test]
fn each_broker_says_what_it_was_built_from() {
    let comparison = Comparison::new(9);
    let broker = env!("CARGO_BIN_EXE_corelane");
    let ours = format!(
        "ours='{broker}' serve --store {{store}} --port {{port}} --nameserver-port {{nameserver-port}} --shards 1"
    );
    let peer = echo("peer", "");
    let load = ["--load", "sends=produce --own-delay tell"];
    let mut words = vec!["--broker", &ours, "--peer", &peer];
    words.extend(load.into_iter().chain(SHORT));
    let ran = comparison.run(&words);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let told = Command::new(broker).arg("--version").output().unwrap();
    let version = json!(text(&told.stdout).trim_end());
    for (file, json) in comparison.runs() {
        let told = &json["environment"]["server_version"];
        match json["compare"]["peer"] == true {
            true => assert_eq!(*told, Value::Null, "{file}"),
            false => assert_eq!(*told, version, "{file}"),
        }
        // The generator's own.
        let own = json["environment"]["version"].as_str().unwrap();
        assert!(version.as_str().unwrap().ends_with(own), "{own} {version}");
    }
    let page = std::fs::read_to_string(comparison.out().join("report.html")).unwrap();
    assert!(page.contains(version.as_str().unwrap()), "not in the page");
    comparison.assert_nothing_is_left();
}

#[test]
fn a_server_that_dies_voids_its_runs_and_only_those() {
    let comparison = Comparison::new(1);
    let (dying, sound) = (echo("dying", "--duration 1.5"), echo("sound", ""));
    let mut words = vec!["--broker", &dying, "--broker", &sound, "-n", "2"];
    words.extend([
        "--duration",
        "3",
        "--warmup",
        "0",
        "--load",
        "sends=produce --own-delay tell",
    ]);
    let ran = comparison.run(&words);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    assert!(told.contains("2 of 4 runs are void"), "{told}");
    for (file, json) in comparison.runs() {
        let is_dying = json["compare"]["contender"] == "dying";
        assert_eq!(file.contains(".void."), is_dying, "{file}");
        assert_eq!(json["valid"], !is_dying, "{file}");
    }
    let html = std::fs::read_to_string(comparison.out().join("report.html")).unwrap();
    assert!(
        html.contains("2 runs count, 2 void"),
        "the page hides void runs"
    );
    assert!(html.contains("the server ended during the comparison, with exit code 0"));
    comparison.assert_nothing_is_left();
}

#[test]
fn a_server_that_was_killed_is_said_to_have_been() {
    let comparison = Comparison::new(7);
    // It becomes the floor, and somebody else's SIGKILL ends that.
    let killed = format!(
        "killed=sh -c '(sleep 1.5; kill -9 $$) & exec \"{BENCH}\" floor echo --addr 127.0.0.1:{{port}}'"
    );
    let words = [
        "--broker",
        &killed,
        "-n",
        "1",
        "--duration",
        "3",
        "--warmup",
        "0",
    ];
    let load = ["--load", "sends=produce --own-delay tell"];
    let ran = comparison.run(&[&words[..], &load[..]].concat());
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stderr));
    let runs = comparison.runs();
    let void = runs["sends.killed.1.void.json"]["void_because"].to_string();
    assert!(void.contains("the server was ended by SIGKILL"), "{void}");
    assert!(void.contains("floor Echo on"), "its last words: {void}");
    comparison.assert_nothing_is_left();
}

#[test]
fn a_cpu_that_is_not_there_is_refused_before_anything_starts() {
    let comparison = Comparison::new(8);
    let ours = echo("ours", "");
    for (option, load) in [
        ("--load-cpu", "sends=produce"),
        ("--server-cpu", "sends=produce"),
        ("--cpu", "sends=produce --cpu 999"),
    ] {
        let mut words = vec!["--broker", &ours, "--load", load];
        if option != "--cpu" {
            words.extend([option, "999"]);
        }
        let ran = comparison.run(&words);
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{told}");
        let wanted = format!("{option}: there is no CPU 999");
        assert!(
            told.contains(&wanted) && told.contains("there are 0"),
            "{told}"
        );
        assert!(!comparison.folder.path().join("work").exists(), "{told}");
    }
}

#[test]
fn a_server_that_does_not_start_is_named_with_its_last_words() {
    let comparison = Comparison::new(2);
    let (sound, wrong) = (echo("sound", ""), echo("wrong", "--no-such-flag"));
    let ran = comparison.run(&["--broker", &sound, "--broker", &wrong]);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(2), "{told}");
    assert!(told.contains("'wrong' ended before it listened"), "{told}");
    assert!(told.contains("--no-such-flag"), "{told}");
    comparison.assert_nothing_is_left();
}

/// A comparison that would take long, under way.
fn long(comparison: &Comparison, peer: &str) -> Child {
    let ours = echo("ours", "");
    let words = [
        "--broker",
        &ours,
        "--peer",
        peer,
        "--duration",
        "60",
        "--load",
        "sends=produce --own-delay tell",
    ];
    let mut command = comparison.command(&words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    comparison.wait_for_server();
    // Into the first run.
    std::thread::sleep(Duration::from_millis(700));
    child
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if end < Instant::now() {
            child.kill().unwrap();
            panic!("the comparison did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tell(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, signal).unwrap();
}

#[test]
fn a_signal_ends_every_server_also_one_behind_a_script() {
    let comparison = Comparison::new(3);
    let peer = format!("peer=sh -c '\"{BENCH}\" floor echo --addr 127.0.0.1:{{port}} & wait'");
    let mut child = long(&comparison, &peer);
    tell(&child, nix::sys::signal::Signal::SIGINT);
    assert_eq!(wait(&mut child).code(), Some(130));
    comparison.assert_nothing_is_left();
}

#[test]
fn servers_do_not_outlive_a_comparison_that_is_killed() {
    let comparison = Comparison::new(4);
    let mut child = long(&comparison, &echo("peer", ""));
    tell(&child, nix::sys::signal::Signal::SIGKILL);
    wait(&mut child);
    comparison.assert_nothing_is_left();
}

#[test]
fn a_server_that_ignores_sigterm_is_killed() {
    let comparison = Comparison::new(5);
    // What ignores a signal hands that on to what it starts.
    let deaf =
        format!("deaf=sh -c 'trap \"\" TERM; \"{BENCH}\" floor echo --addr 127.0.0.1:{{port}}'");
    let mut words = vec![
        "--broker",
        &deaf,
        "--grace",
        "0.3",
        "--load",
        "sends=produce --own-delay tell",
    ];
    words.extend(SHORT);
    let ran = comparison.run(&words);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    comparison.assert_nothing_is_left();
}

#[test]
fn a_run_that_the_generator_calls_void_does_not_count() {
    let comparison = Comparison::new(6);
    let ours = echo("ours", "");
    // What only echoes has no offsets to begin reading at.
    let mut words = vec![
        "--broker",
        &ours,
        "--load",
        "e2e=e2e",
        "--load",
        "sends=produce --own-delay tell",
    ];
    words.extend(SHORT);
    let ran = comparison.run(&words);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    assert!(
        told.contains("2 of 4 runs are void") && told.contains("offsets"),
        "{told}"
    );
    for (file, json) in comparison.runs() {
        let is_void = json["compare"]["work"] == "e2e";
        assert_eq!(file.contains(".void."), is_void, "{file}");
        assert_eq!(json["valid"], !is_void, "{file}");
    }
    comparison.assert_nothing_is_left();
}

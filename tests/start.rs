//! The program as it is typed: exit codes, what is said where.

mod kit;

use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kit::{Broker, free_ports};

fn corelane(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command
        .args(words)
        .env_remove("CORELANE_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_version_and_the_help_are_information_on_stdout() {
    let version = corelane(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let version = text(&version.stdout);
    let wanted = format!("corelane {}", env!("CARGO_PKG_VERSION"));
    let commit = version.trim_end().strip_prefix(&wanted).unwrap();
    // In a checkout, the commit that it was built from: of an archive nobody knows.
    let mut git = Command::new("git");
    let git = git.args(["ls-files", "--error-unmatch", "build.rs"]);
    let is_checkout = git.output().is_ok_and(|told| told.status.success());
    assert_eq!(is_checkout, !commit.is_empty(), "{version}");
    if is_checkout {
        let id = commit
            .strip_prefix(" (")
            .unwrap()
            .strip_suffix(')')
            .unwrap();
        let id = id.strip_suffix("-dirty").unwrap_or(id);
        let is_hash = 4 <= id.len() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_hash, "{version}");
    }
    let help = corelane(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    for part in [
        "Examples:",
        "Exit codes:",
        "could not start",
        "corelane serve --config broker.conf",
    ] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}

#[test]
fn what_is_not_understood_ends_with_2() {
    for words in [
        &[][..],
        &["dance"],
        &["serve", "--dance"],
        &["serve", "--set", "x"],
        &["serve", "--port", "x"],
        &["serve", "--log", "loud", "--print-config"],
        &["nameserver", "--port", "0"],
        &["nameserver", "--bind", "0.0.0.0"],
    ] {
        let output = corelane(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_bad_file_is_named_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.conf");
    std::fs::write(&file, "brokerName=a\nflushDiskType=NEVER\n").unwrap();
    let file = file.to_str().unwrap();
    let output = corelane(&["serve", "--config", file, "--print-config"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        format!(
            "corelane: cannot use flushDiskType=NEVER ({file}:2): it is not one of the known words; \
             allowed is ASYNC_FLUSH (async) or SYNC_FLUSH (sync) or NO_FLUSH (none)\n"
        )
    );
    let output = corelane(&["serve", "--config", "/nowhere/broker.conf"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "corelane: cannot read the configuration in /nowhere/broker.conf: No such file or directory \
         (os error 2); name a file that is there and that this user may read\n"
    );
}

#[test]
fn print_config_shows_what_is_in_force_and_warns_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.conf");
    std::fs::write(
        &file,
        "brokerName=a\nlistenport=1\nsendMessageThreadPoolNums=4\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let words = [
        "serve",
        "--config",
        file,
        "--port",
        "12000",
        "--print-config",
    ];
    let output = corelane(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains(&format!("brokerName=a  # {file}:1\n")),
        "{stdout}"
    );
    assert!(stdout.contains("listenPort=12000  # --port\n"), "{stdout}");
    let stderr = text(&output.stderr);
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines[0].contains(" WARN  corelane: listenport ("),
        "{stderr}"
    );
    assert!(lines[1].ends_with("INFO  corelane: without effect here: sendMessageThreadPoolNums"));
    let quiet = corelane(&[&words[..], &["--log", "error"]].concat());
    assert!(quiet.stderr.is_empty(), "{}", text(&quiet.stderr));
}

/// What a program does whose reader has gone, as `head` goes after its lines.
fn unread(mut command: Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let command = command.stdout(writer).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_reader_that_has_gone_is_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let nameserver = format!("127.0.0.1:{}", broker.port + 60);
    for words in [
        &["stats", "--nameserver", &nameserver][..],
        &["stats", "--json", "--nameserver", &nameserver],
        &["serve", "--print-config"],
        &["--help"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command.args(words).env_remove("CORELANE_LOG");
        let output = unread(command);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn a_server_serves_on_where_nobody_reads_that_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_ports();
    let names = ["nameserver", "--port", &(port + 60).to_string()].map(str::to_owned);
    let mut nameserver = Command::new(env!("CARGO_BIN_EXE_corelane"));
    nameserver.args(&names);
    let broker = kit::command(port, &folder.path().join("store"), &[]);
    for (mut command, port) in [(nameserver, port + 60), (broker, port)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let command = command.stdout(writer).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "{port} does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The line comes when everything is there, some time after the port.
        std::thread::sleep(Duration::from_secs(1));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{port}");
    }
}

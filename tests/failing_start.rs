//! Starts that must fail: exit code 2, and a sentence that says what, where, why and what to do.

mod kit;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use kit::{Broker, command, free_ports};

fn start(port: u16, store: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stderr,
        stdout,
    } = command(port, store, arguments).output().unwrap();
    assert!(stdout.is_empty(), "nothing is ready");
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn fails_with(outcome: (Option<i32>, String), parts: &[&str]) {
    let (code, text) = outcome;
    assert_eq!(code, Some(2), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_ports();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let address = format!("127.0.0.1:{port}");
    fails_with(
        start(port, folder.path(), &[]),
        &[&address, "in use", "--port"],
    );
}

#[test]
fn a_store_that_another_broker_holds() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let pid = broker.child.id().to_string();
    fails_with(
        start(free_ports(), &broker.store, &[]),
        &["lock", &pid, "--store"],
    );
}

#[test]
fn a_store_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("file");
    std::fs::write(&store, b"a file stands where the folder should be").unwrap();
    fails_with(
        start(free_ports(), &store.join("store"), &[]),
        &["store", "--store"],
    );
    // Permissions stop everybody but root.
    if !nix::unistd::geteuid().is_root() {
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        fails_with(start(free_ports(), &closed, &[]), &["--store"]);
    }
}

#[test]
fn direct_writes_that_are_masked() {
    let folder = tempfile::tempdir().unwrap();
    for (way, asked) in [
        (
            &["--flush", "sync", "--flush-method", "direct"][..],
            "flushMethod=direct",
        ),
        (&["--append", "direct"], "appendMode=direct"),
    ] {
        let arguments = [way, &["--without", "direct-io"]].concat();
        let outcome = start(free_ports(), folder.path(), &arguments);
        fails_with(
            outcome,
            &[asked, "direct-io is masked", "another way to write"],
        );
    }
}

#[test]
fn fewer_shards_than_the_store_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), &["--shards", "2"]);
    assert_eq!(broker.stop(), Some(0));
    let outcome = start(free_ports(), &broker.store, &["--shards", "1"]);
    fails_with(outcome, &["2 shards", "--shards 2"]);
}

#[test]
fn a_role_that_this_broker_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    for setting in [
        "brokerRole=SLAVE",
        "brokerId=1",
        "aclEnable=true",
        "enableControllerMode=true",
    ] {
        let key = setting.split_once('=').unwrap().0;
        fails_with(
            start(free_ports(), folder.path(), &["--set", setting]),
            &[key],
        );
    }
}

#[test]
fn other_hosts_without_the_word_insecure() {
    let folder = tempfile::tempdir().unwrap();
    fails_with(
        start(free_ports(), folder.path(), &["--bind", "0.0.0.0"]),
        &["--insecure"],
    );
    let outcome = start(
        free_ports(),
        folder.path(),
        &["--set", "brokerIP1=203.0.113.9"],
    );
    fails_with(outcome, &["203.0.113.9", "127.0.0.1"]);
}

#[test]
fn io_uring_that_is_forbidden() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = command(free_ports(), &folder.path().join("store"), &[]);
    let program = broker.get_program().to_owned();
    let arguments: Vec<_> = broker.get_args().map(ToOwned::to_owned).collect();
    // A tracer answers for the kernel, as a container's seccomp profile would.
    broker = std::process::Command::new("strace");
    broker
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_setup"])
        .args(["-e", "inject=io_uring_setup:error=EPERM"])
        .arg(program)
        .args(arguments);
    let output = broker.output().expect("strace is installed by .ci/prepare");
    let text = String::from_utf8(output.stderr).unwrap();
    fails_with(
        (output.status.code(), text),
        &["io_uring", "io_uring_disabled", "seccomp"],
    );
}

#[test]
fn a_segment_that_is_missing_or_cut() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = ["--set", "mappedFileSizeCommitLog=1048576"];
    let mut broker = Broker::start(folder.path(), &sizes);
    let mut client = broker.client();
    client.make_topic("good", 1);
    for _ in 0..60 {
        assert_eq!(client.produce("good", 0, &[b'x'; 60_000]).code, 0);
    }
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    let log = broker.store.join("0/commitlog");
    let segment = log.join(format!("{:020}", 1 << 20));
    let kept = std::fs::read(&segment).unwrap();
    std::fs::remove_file(&segment).unwrap();
    let outcome = start(free_ports(), &broker.store, &sizes);
    fails_with(outcome, &["00000000000001048576", "missing", "backup"]);
    std::fs::write(&segment, &kept[..1000]).unwrap();
    let outcome = start(free_ports(), &broker.store, &sizes);
    fails_with(outcome, &["1000 bytes", "1048576"]);
    std::fs::write(&segment, &kept).unwrap();
    let broker = broker.start_again();
    assert_eq!(
        kit::bodies(&broker.client().fetch("good", 0, 0, 32).body).len(),
        32
    );
}

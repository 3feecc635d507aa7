//! `corelane doctor` as it is typed: what it says, what it leaves, how it ends.
#![allow(unsafe_code)] // One system call before exec, to stand in for a container's filter.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

fn doctor(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command.arg("doctor").args(words).env_remove("CORELANE_LOG");
    command
}

fn examine(store: &Path) -> (i32, Value) {
    judged(
        &doctor(&["--json", "--store", store.to_str().unwrap()])
            .output()
            .unwrap(),
    )
}

/// The exit code and the JSON, which agree.
fn judged(output: &Output) -> (i32, Value) {
    let code = output.status.code().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|err| panic!("{err}: code {code}, {stderr}"));
    let worst = entries(&report)
        .iter()
        .map(|entry| match entry["verdict"].as_str().unwrap() {
            "ok" => 0,
            "advice" => 1,
            "cannot run" => 2,
            other => panic!("{other} is no verdict"),
        })
        .max()
        .unwrap();
    assert_eq!(code, worst, "{report:#}");
    assert_eq!(report["exitCode"], code);
    (code, report)
}

fn entries(report: &Value) -> &Vec<Value> {
    report["entries"].as_array().unwrap()
}

fn entry<'report>(report: &'report Value, name: &str) -> &'report Value {
    let found = entries(report).iter().find(|entry| entry["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {report:#}"))
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_entry_is_whole_and_the_code_is_that_of_the_worst() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let (_, report) = examine(folder.path());
    assert!(begun.elapsed() < Duration::from_secs(30), "bounded");
    for entry in entries(&report) {
        for key in ["name", "value", "reason"] {
            assert!(
                entry[key].as_str().is_some_and(|text| !text.is_empty()),
                "{key}: {entry:#}"
            );
        }
        let is_ok = entry["verdict"] == "ok";
        assert_eq!(entry.get("fix").unwrap().is_null(), is_ok, "{entry:#}");
    }
    for name in [
        "kernel",
        "io_uring",
        "locked memory",
        "open files",
        "store folder",
        "file system",
        "disk space",
        "disk cache",
        "cold reads",
        "I/O scheduler",
        "disk interrupts",
        "huge pages",
        "DAMON",
        "swapping",
        "dirty limits",
        "CPUs",
        "CPU frequency",
        "NUMA",
        "clock source",
        "congestion control",
        "network interrupts",
    ] {
        entry(&report, name);
    }
}

#[test]
fn the_disk_is_measured_and_nothing_is_left_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kept"), "mine").unwrap();
    let (_, report) = examine(folder.path());
    assert_eq!(names_in(folder.path()), ["kept"]);
    assert_eq!(
        report["measuredIn"],
        fs::canonicalize(folder.path()).unwrap().to_str().unwrap()
    );
    for name in ["sync of 4 KiB", "sync of 64 KiB", "sync of 1 MiB"] {
        let numbers = &entry(&report, name)["numbers"];
        for way in ["zeroed", "unwritten", "growing"] {
            let p50 = numbers[format!("{way}P50Ns")].as_u64().unwrap();
            let p99 = numbers[format!("{way}P99Ns")].as_u64().unwrap();
            assert!(0 < p50 && p50 <= p99, "{name} {way}: {p50} {p99}");
            assert!(0 < numbers[format!("{way}Count")].as_u64().unwrap());
        }
    }
}

#[test]
fn a_store_that_is_not_there_yet_is_measured_beside_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let (_, report) = examine(&folder.path().join("a b/store"));
    let nearest = fs::canonicalize(folder.path()).unwrap();
    assert_eq!(report["measuredIn"], nearest.to_str().unwrap());
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn what_cannot_be_a_store_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "a file").unwrap();
    for store in ["/proc", "/proc/self/store", "/sys", file.to_str().unwrap()] {
        let (code, report) = examine(Path::new(store));
        assert_eq!(code, 2, "{store}: {report:#}");
        assert!(report["measuredIn"].is_null(), "{store}");
        // One reason, one remedy: there is no room to be made in /proc.
        let bad = entries(&report).iter();
        let bad: Vec<_> = bad.filter(|it| it["verdict"] == "cannot run").collect();
        assert_eq!(bad.len(), 1, "{store}: {bad:#?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file");
}

/// The program where everybody may run it, and the number of somebody who is not root.
fn for_an_ordinary_user(folder: &Path) -> (PathBuf, Option<u32>) {
    let program = folder.join("corelane");
    fs::copy(env!("CARGO_BIN_EXE_corelane"), &program).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    (program, is_root.then_some(65_534))
}

#[test]
fn an_ordinary_user_is_told_what_he_may_not_do_and_not_see() {
    let folder = tempfile::tempdir().unwrap();
    let (program, user) = for_an_ordinary_user(folder.path());
    let closed = folder.path().join("closed");
    let open = folder.path().join("open");
    for (path, mode) in [(&closed, 0o555), (&open, 0o777)] {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let examine = |store: &Path| {
        let mut command = Command::new(&program);
        command.args(["doctor", "--json", "--store"]).arg(store);
        command.current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        judged(&command.output().unwrap())
    };
    for store in [closed.clone(), closed.join("below")] {
        let (code, report) = examine(&store);
        assert_eq!(code, 2, "{report:#}");
        let of_folder = entry(&report, "store folder");
        assert_eq!(of_folder["verdict"], "cannot run");
        assert!(of_folder["fix"].as_str().unwrap().contains("chown"));
        assert!(report["measuredIn"].is_null());
    }
    let (_, report) = examine(&open);
    assert_eq!(entry(&report, "store folder")["verdict"], "ok");
    entry(&report, "sync of 4 KiB");
    assert!(names_in(&open).is_empty());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}

/// As the profiles of containers do: `io_uring_setup` answers EPERM.
fn forbid_rings() -> std::io::Result<()> {
    const SETUP: u32 = libc::SYS_io_uring_setup as u32;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SETUP),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter outlives the calls, and the kernel copies it.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) != 0
    };
    if refused {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[test]
fn a_container_that_forbids_rings_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = doctor(&["--json", "--store", folder.path().to_str().unwrap()]);
    // SAFETY: two system calls and no memory of the heap between fork and exec.
    unsafe { command.pre_exec(forbid_rings) };
    let (code, report) = judged(&command.output().unwrap());
    assert_eq!(code, 2);
    let ring = entry(&report, "io_uring");
    assert_eq!(ring["verdict"], "cannot run");
    assert!(
        ring["value"].as_str().unwrap().contains("EPERM"),
        "{ring:#}"
    );
    let says = ring["reason"].as_str().unwrap();
    let by_sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if by_sysctl.map_or(true, |text| text.trim() == "0") {
        assert!(says.contains("seccomp"), "{says}");
        assert!(
            ring["fix"].as_str().unwrap().contains("seccomp"),
            "{ring:#}"
        );
    }
    // The rest is looked at all the same.
    entry(&report, "sync of 4 KiB");
}

#[test]
fn text_says_what_json_says() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_str().unwrap();
    let output = doctor(&["--store", store]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, report) = examine(folder.path());
    for entry in entries(&report) {
        let name = entry["name"].as_str().unwrap();
        assert!(
            text.lines()
                .any(|line| line.get(12..).is_some_and(|rest| rest.starts_with(name))),
            "{name} is not in\n{text}"
        );
    }
    assert!(text.contains(" cannot run\n"), "{text}");
}

#[test]
fn a_configuration_names_the_store_and_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    let (store, log) = (root.join("store"), root.join("log"));
    fs::create_dir(&store).unwrap();
    fs::create_dir(&log).unwrap();
    let file = root.join("broker.conf");
    let say = |text: &str| fs::write(&file, text).unwrap();
    let examine = || {
        let words = ["--json", "--config", file.to_str().unwrap()];
        judged(&doctor(&words).output().unwrap()).1
    };
    // An address that serve refuses without --insecure: nothing listens here.
    say(&format!(
        "storePathRootDir={}\nbindAddress=0.0.0.0\n",
        store.display()
    ));
    assert_eq!(examine()["measuredIn"], store.to_str().unwrap());
    say(&format!(
        "storePathRootDir={}\nstorePathCommitLog={}\n",
        store.display(),
        log.display()
    ));
    let report = examine();
    assert_eq!(report["measuredIn"], log.to_str().unwrap());
    assert_eq!(report["store"], store.to_str().unwrap());
    for path in [&store, &log] {
        assert!(names_in(path).is_empty());
    }
}

#[test]
fn a_store_is_looked_at_where_its_log_is_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let log = fs::canonicalize(folder.path()).unwrap().join("log");
    fs::create_dir(&log).unwrap();
    let file = folder.path().join("broker.conf");
    let text = format!(
        "storePathRootDir=/proc/store\nstorePathCommitLog={}\n",
        log.display()
    );
    fs::write(&file, text).unwrap();
    let words = ["--json", "--config", file.to_str().unwrap()];
    let (code, report) = judged(&doctor(&words).output().unwrap());
    assert_eq!(code, 2, "{report:#}");
    assert_eq!(entry(&report, "file system")["verdict"], "cannot run");
    assert_eq!(entry(&report, "log folder")["verdict"], "ok");
    assert_eq!(report["measuredIn"], log.to_str().unwrap());
}

#[test]
fn folders_of_shards_that_another_user_made_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (program, user) = for_an_ordinary_user(folder.path());
    let store = folder.path().join("store");
    let consume_queue = store.join("1/consumequeue");
    fs::create_dir_all(&consume_queue).unwrap();
    fs::write(store.join("shards.json"), r#"{"version":1,"count":2}"#).unwrap();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&store, 0o777);
    set(&store.join("1"), 0o777);
    let examine = || {
        let mut command = Command::new(&program);
        command.args(["doctor", "--json", "--store"]).arg(&store);
        command.current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        judged(&command.output().unwrap())
    };
    set(&consume_queue, 0o555);
    let (code, report) = examine();
    assert_eq!(code, 2, "{report:#}");
    assert_eq!(entry(&report, "store folder")["verdict"], "ok");
    let of_shards = entry(&report, "shard folders");
    assert_eq!(of_shards["verdict"], "cannot run");
    let said = of_shards["reason"].as_str().unwrap();
    assert!(said.contains("1/consumequeue"), "{said}");
    let fix = of_shards["fix"].as_str().unwrap();
    assert!(fix.contains("chmod -R u+rwX"), "{fix}");
    set(&consume_queue, 0o777);
    let (_, report) = examine();
    assert_eq!(entry(&report, "shard folders")["verdict"], "ok");
    assert!(names_in(&consume_queue).is_empty());
}

#[test]
fn rings_are_those_of_the_shards_that_are_configured_or_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    fs::create_dir(&store).unwrap();
    let rings = |words: &[&str]| {
        let (_, report) = judged(&doctor(words).output().unwrap());
        entry(&report, "io_uring limits")["value"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let file = folder.path().join("broker.conf");
    fs::write(
        &file,
        format!("storePathRootDir={}\nshards=3\n", store.display()),
    )
    .unwrap();
    let of_file = rings(&["--json", "--config", file.to_str().unwrap()]);
    assert!(of_file.starts_with("3 of 3 rings"), "{of_file}");
    fs::write(store.join("shards.json"), r#"{"version":1,"count":4}"#).unwrap();
    let of_store = rings(&["--json", "--store", store.to_str().unwrap()]);
    assert!(of_store.starts_with("4 of 4 rings"), "{of_store}");
}

/// `serve` refuses them, so the doctor does.
#[test]
fn a_store_of_other_shards_than_asked_for_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    fs::create_dir(&store).unwrap();
    let file = folder.path().join("broker.conf");
    let judge = |asked: &str| {
        let text = format!("storePathRootDir={}\n{asked}\n", store.display());
        fs::write(&file, text).unwrap();
        let words = ["--json", "--config", file.to_str().unwrap()];
        let (_, report) = judged(&doctor(&words).output().unwrap());
        let of_shards = entry(&report, "shards");
        let reason = of_shards["reason"].as_str().unwrap().to_owned();
        (of_shards["verdict"] == "cannot run", reason)
    };
    let count = store.join("shards.json");
    assert!(!judge("").0);
    fs::write(&count, r#"{"version":1,"count":2}"#).unwrap();
    assert!(!judge("shards=3").0);
    let (refused, why) = judge("shards=1");
    assert!(refused && why.contains("it has 2 shards"), "{why}");
    fs::write(&count, "2").unwrap();
    assert!(judge("").0);
    fs::remove_file(&count).unwrap();
    fs::create_dir(store.join("commitlog")).unwrap();
    assert!(!judge("").0);
    let (refused, why) = judge("shards=2");
    assert!(refused && why.contains("one broker"), "{why}");
}

#[test]
fn what_is_not_understood_ends_with_2() {
    for words in [
        &["--dance"][..],
        &["here"],
        &["--store"],
        &["--config", "/nowhere/broker.conf"],
    ] {
        let output = doctor(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{words:?}"
        );
    }
    let help = doctor(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for part in [
        "Exit codes:",
        "would run better",
        "--json",
        "--config",
        "Examples:",
    ] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}

/// The broker raises its own soft limit; so does who judges for it.
#[test]
fn a_small_soft_limit_of_files_is_raised_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = doctor(&["--json", "--store", folder.path().to_str().unwrap()]);
    // SAFETY: two system calls, which are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, 12, hard)?;
            Ok(())
        });
    }
    let (code, report) = judged(&command.output().unwrap());
    assert!(code < 2, "{report:#}");
    let files = entry(&report, "open files");
    let value = files["value"].as_str().unwrap();
    assert!(value.starts_with("12 now"), "as it was given: {value}");
}

#[test]
fn a_store_in_a_folder_that_may_not_be_entered_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let (program, user) = for_an_ordinary_user(folder.path());
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let mode = if user.is_some() { 0o700 } else { 0 };
    fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
    let mut command = Command::new(program);
    let store = closed.join("store");
    command.args(["doctor", "--json", "--store", store.to_str().unwrap()]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let (code, report) = judged(&command.output().unwrap());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(code, 2);
    let bad = entries(&report).iter();
    let bad: Vec<_> = bad.filter(|it| it["verdict"] == "cannot run").collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert_eq!(bad[0]["name"], "store folder");
    assert_eq!(entry(&report, "disk trial")["value"], "not seen");
}

/// The doctor opens small rings before those of the shards, and Linux lets go of their memory a moment after they
/// are closed: so two rings take twice the memory that one takes, and not less.
#[test]
fn rings_that_were_closed_do_not_count_against_those_of_the_shards() {
    const PAGE: u64 = 4096;
    let folder = tempfile::tempdir().unwrap();
    let (program, Some(_)) = for_an_ordinary_user(folder.path()) else {
        return; // Other rings of this user would count.
    };
    let user = 1_000_000 + std::process::id();
    let file = folder.path().join("broker.conf");
    let opened_beside = |names: &str, shards: u32, pages: u64| {
        let lines = format!("storePathRootDir=/proc/store\nshards={shards}\nnamesrvAddr={names}\n");
        fs::write(&file, lines).unwrap();
        let mut command = Command::new(&program);
        command.args(["doctor", "--json", "--config", file.to_str().unwrap()]);
        command.uid(user).gid(user).current_dir("/");
        let limit = pages * PAGE;
        // SAFETY: a system call, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit)?));
        }
        let (_, report) = judged(&command.output().unwrap());
        let rings = entries(&report)
            .iter()
            .find(|it| it["name"] == "io_uring limits");
        rings.map_or(0, |rings| {
            let value = rings["value"].as_str().unwrap();
            let (count, _) = value.split_once(' ').unwrap();
            count.parse::<u32>().unwrap()
        })
    };
    let opened = |shards, pages| opened_beside("127.0.0.1:9876", shards, pages);
    let (mut too_few, mut enough) = (1, 256);
    assert_eq!(opened(1, enough), 1);
    while too_few + 1 < enough {
        let pages = u64::midpoint(too_few, enough);
        if opened(1, pages) == 1 {
            enough = pages;
        } else {
            too_few = pages;
        }
    }
    assert_eq!(opened(2, 2 * enough), 2, "{enough} pages for each");
    assert_eq!(opened(2, 2 * enough - 1), 1, "{enough} pages for each");
    // A name server of the broker's own has a ring too.
    assert_eq!(opened_beside("embedded", 1, enough), 0, "{enough} pages");
    assert_eq!(opened_beside("embedded", 1, 2 * enough), 1);
}

//! The rules of the source, held over every file of `src/`: who may import whom, where the doors to the
//! kernel are, how long things may be.

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use source::Source;

/// A room and the rooms it may import. A room that is not here may not exist.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("io", &["base"]),
    ("sim", &["base", "io"]),
    ("command", &["base"]),
    ("log", &["base", "io"]),
    ("index", &["base", "io", "log"]),
    ("egress", &["base", "io"]),
    ("net", &["base", "io", "egress"]),
    ("protocol", &["base", "command"]),
    ("shard", &["base", "io", "command", "log", "index"]),
    ("nameserver", &["base", "io", "command", "net", "protocol"]),
    ("state", &["base", "io", "command"]),
    // Settings are plain values that the broker is given: above the broker it could not
    // take them.
    ("config", &["base", "state"]),
    ("cli", &["config"]),
    ("logging", &[]),
    ("ops", &["base"]),
    (
        "broker",
        &[
            "base",
            "io",
            "command",
            "log",
            "index",
            "egress",
            "net",
            "protocol",
            "shard",
            "nameserver",
            "state",
            "config",
            "ops",
        ],
    ),
    ("stats", &["base", "protocol"]),
    ("inspect", &["base", "io", "log", "index", "state"]),
    ("doctor", &["base", "io", "log", "index", "state"]),
    (
        "main",
        &[
            "cli",
            "config",
            "logging",
            "broker",
            "nameserver",
            "stats",
            "inspect",
            "doctor",
        ],
    ),
];

/// What is found behind one door only, and what to use instead.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", "Io::now_ns: the clock that decides"),
    ("SystemTime", "Io::wall_ms"),
    ("std::fs", "an Op, or a function of io"),
    ("std::os", "io"),
    ("std::net::TcpListener", "io"),
    ("std::net::TcpStream", "io"),
    ("std::net::UdpSocket", "io"),
    ("std::net::ToSocketAddrs", "the helper thread of the broker"),
    ("libc", "io"),
    ("thread::sleep", "a deadline and Io::turn"),
];

/// Rooms whose runs follow a seed: nothing in them may depend on the order of hashes.
const ROOMS_BY_SEED: &[&str] = &["shard", "log", "index", "egress", "net", "io", "sim"];

/// Files with a thread of their own, on which nothing waits that a shard does.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    (
        "src/broker/registration.rs",
        &["Instant::now"],
        "a thread of its own waits for name servers, off every shard",
    ),
    (
        "src/broker/registration/link.rs",
        &[
            "Instant::now",
            "std::net::TcpStream",
            "std::net::ToSocketAddrs",
        ],
        "name servers and DNS are asked on the thread of registration",
    ),
    (
        "src/broker/start.rs",
        &["Instant::now"],
        "the thread that started everything counts the seconds of a stop",
    ),
    (
        "src/logging.rs",
        &["Instant::now", "SystemTime"],
        "the log only shows times, it decides nothing of the broker",
    ),
    (
        "src/stats.rs",
        &["std::net::TcpStream", "std::net::ToSocketAddrs"],
        "a command that asks running shards, with no shard of its own",
    ),
    (
        "src/main.rs",
        &["std::fs"],
        "the configuration is read before there is a broker",
    ),
];

const LINES_PER_FILE_MAX: usize = 500;
const LINES_PER_FUNCTION_MAX: usize = 70;
/// rustfmt holds code to 100; this is for what it leaves alone.
const COLUMNS_MAX: usize = 150;

/// Files that are longer, tests not counted. A number here may only become smaller.
const LONG_FILES: &[(&str, usize)] = &[
    ("src/broker/registration.rs", 543),
    ("src/command.rs", 675),
    ("src/io/uring.rs", 570),
    ("src/log/commit_log.rs", 506),
    ("src/index/index_file/load.rs", 508),
    ("src/log/record.rs", 561),
    ("src/nameserver/table.rs", 593),
    ("src/shard/produce.rs", 635),
];

/// Functions that are longer, as `file name`. A number here may only become smaller.
const LONG_FUNCTIONS: &[(&str, usize)] = &[
    ("src/shard/fetch.rs look", 86),
    ("src/shard/produce.rs produce_one", 90),
    ("src/shard/retry.rs return_record", 77),
];

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    let mut long = BTreeSet::new();
    let files = rust_files(&root.join("src"));
    assert!(20 < files.len(), "only {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        let source = Source::new(path, &text);
        check(&source, &mut faults);
        check_sizes(&source, &mut faults, &mut long);
    }
    for (name, _) in LONG_FILES.iter().chain(LONG_FUNCTIONS) {
        let file = name.split(' ').next().unwrap();
        if !long.contains(*name) && root.join(file).exists() {
            faults.push(format!("{name} is not long any more: take it off its list"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Modules between the root of the crate and this file: `src/log/mod.rs` is 1 deep.
fn depth(path: &str) -> usize {
    let parts = path
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/');
    parts
        .filter(|part| !matches!(*part, "mod" | "lib" | "main"))
        .count()
}

fn room_of(path: &str) -> &str {
    path.trim_start_matches("src/")
        .split(['/', '.'])
        .next()
        .unwrap()
}

fn check(source: &Source, faults: &mut Vec<String>) {
    let path = source.path.as_str();
    if !source.lines[0].starts_with("//! ") {
        faults.push(format!(
            "{path}:1: the first line says what the file is for (//! …)"
        ));
    }
    for (index, line) in source.lines.iter().enumerate() {
        if COLUMNS_MAX < line.chars().count() && !source.is_test[index] {
            faults.push(format!(
                "{path}:{}: wider than {COLUMNS_MAX} columns",
                index + 1
            ));
        }
    }
    check_unsafe(source, faults);
    let room = room_of(path);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        if room != "lib" {
            faults.push(format!("{path}: the room '{room}' is not in ROOMS"));
        }
        return;
    };
    for mention in source.mentions() {
        let at = format!("{path}:{}", mention.line + 1);
        let is_test = source.is_test[mention.line];
        if let Some(other) = other_room(path, &mention.parts)
            && other != room
            && !allowed.contains(&other)
            // Tests run what they test on the simulated kernel.
            && !(is_test && other == "sim")
        {
            faults.push(format!("{at}: '{room}' may not import '{other}'"));
        }
        if !is_test {
            check_words(path, room, &mention.parts, &at, faults);
        }
    }
    // Two names of one `use` are one mistake.
    faults.dedup();
}

/// The room that a path leads to, if it leads into this crate from its root.
fn other_room<'a>(path: &str, parts: &'a [String]) -> Option<&'a str> {
    let up = parts.iter().take_while(|part| *part == "super").count();
    let room = match parts[0].as_str() {
        "crate" => parts.get(1)?,
        "corelane" if path == "src/main.rs" => parts.get(1)?,
        "super" if depth(path) <= up => parts.get(up)?,
        _ => return None,
    };
    // Tests reach the root with one `super` more; names in capitals are no rooms.
    ROOMS
        .iter()
        .any(|(name, _)| name == room)
        .then_some(room.as_str())
}

fn check_words(path: &str, room: &str, parts: &[String], at: &str, faults: &mut Vec<String>) {
    let said = parts.join("::");
    for (word, instead) in BANNED {
        let excepted = EXCEPTIONS
            .iter()
            .any(|(file, words, _)| *file == path && words.contains(word));
        if room != "io" && !excepted && contains_path(&said, word) {
            faults.push(format!(
                "{at}: {word} belongs behind the door, use {instead}"
            ));
        }
    }
    let by_hash = contains_path(&said, "HashMap") || contains_path(&said, "HashSet");
    if by_hash && ROOMS_BY_SEED.contains(&room) && path != "src/io/uring.rs" {
        faults.push(format!(
            "{at}: the order of a hash table follows no seed, use BTreeMap or Slab"
        ));
    }
}

/// Whether the parts of `word` stand side by side in `path`.
fn contains_path(path: &str, word: &str) -> bool {
    format!("::{path}::").contains(&format!("::{word}::"))
}

fn check_unsafe(source: &Source, faults: &mut Vec<String>) {
    for (index, code) in source.code.iter().enumerate() {
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if !source.path.starts_with("src/io/") && words.any(|word| word == "unsafe") {
            faults.push(format!(
                "{}:{}: unsafe belongs in src/io",
                source.path,
                index + 1
            ));
        }
    }
}

fn check_sizes(source: &Source, faults: &mut Vec<String>, long: &mut BTreeSet<String>) {
    let path = &source.path;
    let lines = source.line_count();
    check_size(
        path,
        path,
        lines,
        LINES_PER_FILE_MAX,
        LONG_FILES,
        (faults, long),
    );
    for function in source
        .functions()
        .iter()
        .filter(|function| !source.is_test[function.line])
    {
        let name = format!("{path} {}", function.name);
        let at = format!("{path}:{}: {}", function.line + 1, function.name);
        let limits = (LINES_PER_FUNCTION_MAX, LONG_FUNCTIONS);
        check_size(
            &name,
            &at,
            function.line_count,
            limits.0,
            limits.1,
            (faults, long),
        );
    }
}

fn check_size(
    name: &str,
    at: &str,
    lines: usize,
    usual: usize,
    list: &[(&str, usize)],
    (faults, long): (&mut Vec<String>, &mut BTreeSet<String>),
) {
    if lines <= usual {
        return;
    }
    long.insert(name.to_owned());
    match list.iter().find(|(known, _)| *known == name) {
        None => faults.push(format!(
            "{at} has {lines} lines, {usual} are usual: split it"
        )),
        Some((_, known)) if *known < lines => {
            faults.push(format!(
                "{at} has grown from {known} to {lines} lines: split it"
            ));
        }
        Some(_) => {}
    }
}

/// What a checkout holds must not speak of the machine it was made on.
#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output();
    // A source archive has no git; then there is nothing to look at but what was checked before.
    let Ok(files) = files.map(|output| output.stdout) else {
        return;
    };
    let mut faults = Vec::new();
    for name in files
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = String::from_utf8_lossy(name).into_owned();
        let is_lock = name.ends_with(".lock") || name.ends_with("go.sum");
        let Ok(text) = std::fs::read_to_string(root.join(&name)) else {
            continue;
        };
        // Assembled here, so that this file does not find itself.
        let homes = [["/ro", "ot/"], ["/ho", "me/"], ["/wo", "rk/"]].map(|parts| parts.concat());
        let registries = [
            ["repo.maven.", "apache.org"],
            ["registry.npmjs", ".org"],
            ["pypi", ".org"],
        ];
        let words = homes
            .into_iter()
            .chain(registries.map(|parts| parts.concat()));
        for word in words.filter(|_| !is_lock && !name.starts_with("tests/golden/")) {
            let found = text.lines().position(|line| line.contains(&word));
            faults.extend(found.map(|line| format!("{name}:{}: names {word}", line + 1)));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

mod the_rules_find {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let text = format!("//! Test.\n{text}");
        check(&Source::new(path, &text), &mut faults);
        faults
    }

    #[test]
    fn imports_upwards_in_every_spelling() {
        for text in [
            "use crate::log::CommitLog;",
            "use crate::{base::Prng, log};",
            "use crate::{\n    base::{Prng, Slab},\n    log::{self, record},\n};",
            "fn f() { crate::log::open() }",
            "use super::log::CommitLog;",
            "pub use crate::log as journal;",
        ] {
            let faults = faults("src/io/mod.rs", text);
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert!(
                faults[0].ends_with("'io' may not import 'log'"),
                "{faults:?}"
            );
        }
        assert_eq!(
            faults("src/io/uring.rs", "use super::super::log::A;").len(),
            1
        );
        assert_eq!(
            faults("src/log/commit_log.rs", "use super::index::A;"),
            [""; 0]
        );
        assert_eq!(
            faults("src/main.rs", "use corelane::{config, shard};").len(),
            1
        );
        assert_eq!(
            faults(
                "src/index/mod.rs",
                "use crate::log::{A, B};\nuse crate::io;"
            ),
            [""; 0]
        );
        assert_eq!(faults("src/attic/mod.rs", "").len(), 1);
    }

    #[test]
    fn words_that_belong_behind_the_door() {
        for text in [
            "fn f() { let now = Instant::now(); }",
            "fn f() { let now = std::time::Instant::now(); }",
            "use std::{fmt, fs};",
            "use std::fs::File;",
            "use std::net::{IpAddr, TcpStream};",
            "use std::time::{Duration, SystemTime};",
            "fn f() { libc::fsync(1); }",
            "fn f() { std::thread::sleep(d); }",
            "use std::collections::HashMap;",
            "use std::collections::{BTreeMap, HashSet};",
            "fn f() { unsafe { g() } }",
        ] {
            assert_eq!(faults("src/log/mod.rs", text).len(), 1, "{text}");
        }
        for text in [
            "use std::net::{IpAddr, SocketAddr};",
            "// Instant::now() lies.\n/* unsafe /* std::fs::x */ */",
            "const A: &str = \"unsafe crate::shard::x\"; const B: &str = r#\"libc::x \" \"#;",
            "fn f<'a>(x: &'a str) -> char { '\"' }\nconst C: char = '\\''; // unsafe",
            "#[cfg(test)]\nmod tests {\n use crate::sim::Sim;\n use std::fs;\n}",
        ] {
            assert_eq!(faults("src/log/mod.rs", text), [""; 0], "{text}");
        }
        let behind = "#[cfg(test)]\nmod tests {}\nuse std::fs;";
        assert_eq!(faults("src/log/mod.rs", behind).len(), 1, "only tests may");
    }

    #[test]
    fn files_without_a_first_line_and_lines_too_wide() {
        let mut found = Vec::new();
        check(
            &Source::new("src/log/mod.rs", "use std::fmt;\n"),
            &mut found,
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            faults("src/log/mod.rs", &format!("// {}", "x".repeat(150))).len(),
            1
        );
    }

    #[test]
    fn what_grows() {
        let body = "    let x = 1;\n".repeat(80);
        let text =
            format!("//! Test.\nimpl A {{\nfn f(a: [u8; 2]) -> B {{\n{body}}}\n}}\nfn g();\n");
        let source = Source::new("src/log/mod.rs", &text);
        let functions = source.functions();
        assert_eq!(
            (functions.len(), functions[0].line_count),
            (1, 82),
            "{functions:?}"
        );
        assert_eq!(source.line_count(), 86);
        let (mut found, mut long) = (Vec::new(), BTreeSet::new());
        check_sizes(&source, &mut found, &mut long);
        assert_eq!(
            found,
            ["src/log/mod.rs:3: f has 82 lines, 70 are usual: split it"]
        );
        found.clear();
        for (known, count) in [(82, 0), (83, 0), (81, 1)] {
            check_size("a", "a", 82, 70, &[("a", known)], (&mut found, &mut long));
            assert_eq!(found.len(), count, "known as {known}");
        }
        let tests = format!("//! Test.\n#[cfg(test)]\nmod tests {{\nfn f() {{\n{body}}}\n}}\n");
        assert_eq!(Source::new("src/log/mod.rs", &tests).line_count(), 1);
    }
}

//! The machine on which something was measured: what a reader needs to know before he believes it.
//! The same for a run by itself and for one of a comparison.

mod cpus;
mod place;

pub use cpus::check_cpus;
pub use place::{Place, unknown_disk};

use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The value of `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines();
    let line = lines.find(|line| line.split(':').next().unwrap_or("").trim() == name)?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The one in brackets of `always [madvise] never`.
fn chosen(text: &str) -> String {
    let inner = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or_else(|| text.to_owned(), |(word, _)| word.to_owned())
}

/// CPUs that this process may use. The first call decides: before a thread is pinned.
pub fn cpus_allowed() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(0, usize::from))
}

/// All but what lies below a store: see [`Place`].
pub fn machine() -> Map<String, Value> {
    let mut found = Map::new();
    found.insert("cpus_allowed".to_owned(), json!(cpus_allowed()));
    found.insert("mitigations".to_owned(), mitigations());
    let mut put = |key: &str, value: Option<String>| {
        found.insert(key.to_owned(), json!(value.as_deref().unwrap_or("unknown")));
    };
    put("kernel", line("/proc/sys/kernel/osrelease"));
    put("kernel_command_line", line("/proc/cmdline"));
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    put("cpu_model", field(&cpu, "model name"));
    put("cpus_online", line("/sys/devices/system/cpu/online"));
    let governor = line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    put(
        "governor",
        Some(governor.unwrap_or_else(|| "none: the kernel sets no frequency here".into())),
    );
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    put("memory", field(&memory, "MemTotal"));
    put("swap", field(&memory, "SwapTotal"));
    put(
        "tcp_congestion_control",
        line("/proc/sys/net/ipv4/tcp_congestion_control"),
    );
    let huge = line("/sys/kernel/mm/transparent_hugepage/enabled");
    put("transparent_huge_pages", huge.map(|text| chosen(&text)));
    put("damon", Some(damon(Path::new("/"))));
    let clock = line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    put("clocksource", clock);
    for name in ["swappiness", "dirty_ratio", "dirty_background_ratio"] {
        put(name, line(format!("/proc/sys/vm/{name}")));
    }
    put("load_average", line("/proc/loadavg"));
    let commit = std::env::current_exe().map(|program| commit_of(&program));
    put("commit_of_checkout", commit.ok());
    put("version", Some(env!("CORELANE_VERSION").to_owned()));
    found
}

/// By name; what this CPU has not needs no mitigation and no line.
fn mitigations() -> Value {
    let Ok(folder) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return json!("unknown");
    };
    let mut found: Vec<(String, String)> = folder
        .flatten()
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            (name, line(file.path()).unwrap_or_default())
        })
        .filter(|(_, state)| state != "Not affected")
        .collect();
    found.sort();
    match found.is_empty() {
        true => json!("not affected"),
        false => found.into_iter().collect(),
    }
}

/// Which part of DAMON runs. Its files are root's; its threads, anybody's to see.
fn damon(root: &Path) -> String {
    let mut running = Vec::new();
    for module in ["damon_reclaim", "damon_lru_sort"] {
        let enabled = root.join(format!("sys/module/{module}/parameters/enabled"));
        if line(enabled).as_deref() == Some("Y") {
            running.push(module.to_owned());
        }
    }
    let entries = |folder: &str| fs::read_dir(root.join(folder)).into_iter().flatten();
    for entry in entries("sys/kernel/mm/damon/admin/kdamonds").flatten() {
        if line(entry.path().join("state")).as_deref() == Some("on") {
            running.push(format!("kdamond {}", entry.file_name().to_string_lossy()));
        }
    }
    let is_thread = |entry: fs::DirEntry| {
        let name = line(entry.path().join("comm"));
        name.is_some_and(|name| name.starts_with("kdamond"))
    };
    if running.is_empty() && entries("proc").flatten().any(is_thread) {
        return "on: its thread runs, and only root may see what it does".to_owned();
    }
    match running.is_empty() {
        true => "off".to_owned(),
        false => running.join(", "),
    }
}

/// What git says in a checkout; nothing is locked there, for somebody may be at work.
fn git(checkout: &Path, words: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(checkout).args(words);
    let told = git.env("GIT_OPTIONAL_LOCKS", "0").output().ok();
    let told = told.filter(|told| told.status.success())?;
    let text = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The commit of the checkout that a program was built in, wherever it is started. What it was built
/// from, its version says.
fn commit_of(program: &Path) -> String {
    let mut folders = program.ancestors().skip(1);
    let Some(checkout) = folders.find(|folder| folder.join(".git").exists()) else {
        return "unknown: the program lies in no git checkout".to_owned();
    };
    let words = [
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty",
        "--exclude=*",
    ];
    let Some(commit) = git(checkout, &words) else {
        return "unknown: git does not tell".to_owned();
    };
    let modified = |path: PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    // Written to by every commit and every checkout of another one.
    let log = git(checkout, &["rev-parse", "--git-path", "logs/HEAD"]);
    let moved = log.and_then(|log| modified(checkout.join(log)));
    let built = modified(program.to_owned());
    match built.zip(moved).is_some_and(|(built, moved)| built < moved) {
        true => format!("{commit}, and the program is older"),
        false => commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let found = machine();
        for key in ["kernel", "cpu_model", "damon", "governor", "clocksource"] {
            assert!(found[key].is_string(), "{key}: {found:?}");
        }
        assert!(found["kernel"].as_str().unwrap().contains('.'), "{found:?}");
        assert!(0 < found["cpus_allowed"].as_u64().unwrap(), "{found:?}");
    }

    #[test]
    fn cpus_are_those_that_were_allowed_before_anything_was_pinned() {
        let before = cpus_allowed();
        let pinned = std::thread::spawn(move || {
            let cpu = core_affinity::get_core_ids().unwrap()[0].id;
            crate::pin(Some(&crate::Cpus(vec![cpu]))).unwrap();
            machine()["cpus_allowed"].as_u64()
        });
        assert_eq!(pinned.join().unwrap(), Some(before as u64));
    }

    #[test]
    fn the_commit_is_of_the_programs_checkout_and_not_of_where_it_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("target/release/program");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        let told = commit_of(&program);
        assert!(told.contains("no git checkout"), "{told}");
        for words in [
            "init --quiet",
            "-c user.name=a -c user.email=a@b commit --quiet --allow-empty -m x",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let mut git = Command::new("git");
            git.arg("-C").arg(folder.path()).args(words);
            // Without git there is nothing to tell.
            let Ok(told) = git.status() else { return };
            assert!(told.success());
        }
        let told = commit_of(&program);
        assert!(told.ends_with(", and the program is older"), "{told}");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&program, "").unwrap();
        let told = commit_of(&program);
        assert_eq!(told.len(), 12, "{told}");
        assert!(told.bytes().all(|byte| byte.is_ascii_hexdigit()), "{told}");
    }

    #[test]
    fn damon_is_seen_by_its_files_or_by_its_thread() {
        let root = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/1/comm", "init\n");
        assert_eq!(damon(root.path()), "off");
        put("proc/77/comm", "kdamond.0\n");
        assert!(damon(root.path()).starts_with("on: its thread runs"));
        put("sys/kernel/mm/damon/admin/kdamonds/0/state", "on\n");
        assert_eq!(damon(root.path()), "kdamond 0");
        put("sys/module/damon_reclaim/parameters/enabled", "Y\n");
        assert_eq!(damon(root.path()), "damon_reclaim, kdamond 0");
    }

    #[test]
    fn the_choice_is_the_word_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("none"), "none");
    }
}

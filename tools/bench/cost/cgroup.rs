//! What a server's control group counts: memory, CPU time, how long it was held back, bytes written.
//! Of both versions, for a machine may have one of them for some controllers and one for the others.

use crate::drive;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders by what is read in them; or why it would not be the server's.
type Found = Result<PathBuf, String>;

pub struct Cgroup {
    /// Its path below the folder of its controller.
    path: String,
    memory: Found,
    usage: Found,
    throttling: Found,
    io: Found,
}

#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Counts {
    cpu_us: Option<u64>,
    throttled_us: Option<u64>,
    throttled_count: Option<u64>,
    written_bytes: Option<u64>,
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value of `name value` lines.
fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Of all devices: `8:0 rbytes=1 wbytes=2 …`, or `8:0 Write 2` of the first version.
fn written_bytes(text: &str) -> u64 {
    let of_line = |line: &str| -> Option<u64> {
        let mut words = line.split(' ').skip(1);
        if let Some(bytes) = words.clone().find_map(|word| word.strip_prefix("wbytes=")) {
            return bytes.parse().ok();
        }
        (words.next() == Some("Write")).then(|| words.next()?.parse().ok())?
    };
    text.lines().filter_map(of_line).sum()
}

/// The folder of a controller, of the first version's name or the second one's, and its path.
fn folder(root: &Path, groups: &str, controller: &str) -> Result<(PathBuf, String), String> {
    let mut unified = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty() {
            unified = Some(path);
        } else if controllers.split(',').any(|name| name == controller) {
            return below(&root.join("sys/fs/cgroup").join(controller), path);
        }
    }
    let path = unified.ok_or("the kernel has no control groups")?;
    let at = root.join("sys/fs/cgroup/unified");
    let at = if at.exists() {
        at
    } else {
        root.join("sys/fs/cgroup")
    };
    below(&at, path)
}

fn below(folder: &Path, path: &str) -> Result<(PathBuf, String), String> {
    if path == "/" {
        return Err("the server is in the root control group".to_owned());
    }
    let at = folder.join(path.trim_start_matches('/'));
    match at.exists() {
        true => Ok((at, path.to_owned())),
        false => Err(format!("its control group {path} cannot be seen from here")),
    }
}

/// What others do is counted with it, and cannot be taken out again.
fn unshared(at: PathBuf, pid: u32) -> Found {
    let procs = fs::read_to_string(at.join("cgroup.procs")).unwrap_or_default();
    let own = pid.to_string();
    match procs.lines().filter(|line| *line != own).count() {
        0 => Ok(at),
        count => Err(format!(
            "the server shares its control group with {count} processes"
        )),
    }
}

impl Cgroup {
    pub fn of(pid: u32) -> Cgroup {
        Cgroup::find(Path::new("/"), pid)
    }

    fn find(root: &Path, pid: u32) -> Cgroup {
        let groups = fs::read_to_string(root.join(format!("proc/{pid}/cgroup")));
        let groups = groups.unwrap_or_default();
        let found = |controller| folder(root, &groups, controller);
        let own = |controller| found(controller).and_then(|(at, _)| unshared(at, pid));
        let (memory, cpu) = (found("memory"), found("cpuacct"));
        let path = memory.clone().or(cpu);
        Cgroup {
            path: path.map_or_else(|_| "/".to_owned(), |(_, path)| path),
            memory: memory.and_then(|(at, _)| unshared(at, pid)),
            usage: own("cpuacct"),
            throttling: own("cpu"),
            io: own("blkio"),
        }
    }

    pub fn counts(&self) -> Counts {
        let read = |found: &Found, name| fs::read_to_string(found.as_ref().ok()?.join(name)).ok();
        let of = |found, name| read(found, "cpu.stat").and_then(|text| value(&text, name));
        let usage_ns = self.usage.as_ref().ok();
        let usage_ns = usage_ns.and_then(|at| number(&at.join("cpuacct.usage")));
        let throttled_ns = of(&self.throttling, "throttled_time");
        let io = read(&self.io, "io.stat");
        let io = io.or_else(|| read(&self.io, "blkio.throttle.io_service_bytes"));
        Counts {
            cpu_us: of(&self.usage, "usage_usec").or(usage_ns.map(|ns| ns / 1000)),
            throttled_us: of(&self.throttling, "throttled_usec")
                .or(throttled_ns.map(|ns| ns / 1000)),
            throttled_count: of(&self.throttling, "nr_throttled"),
            written_bytes: io.map(|text| written_bytes(&text)),
        }
    }

    fn memory_bytes(&self) -> Option<u64> {
        let at = self.memory.as_ref().ok()?;
        ["memory.current", "memory.usage_in_bytes"]
            .iter()
            .find_map(|name| number(&at.join(name)))
    }

    /// What it is now, and what it counted while so much was `done`; why where it does not tell.
    pub fn describe(&self, counts: Option<(Counts, Counts, drive::Counts)>) -> Value {
        let mut told = Map::new();
        let mut unknown = Map::new();
        told.insert("path".into(), json!(self.path));
        let mut put = |key: &str, value: Option<Value>, found: &Found| {
            if value.is_none() {
                let off = || "its control group does not count that".to_owned();
                let why = found.as_ref().err().cloned().unwrap_or_else(off);
                unknown.insert(key.into(), json!(why));
            }
            told.insert(key.into(), value.unwrap_or(Value::Null));
        };
        let memory = self.memory_bytes().map(|bytes| json!(bytes));
        put("memory_bytes", memory, &self.memory);
        if let Some((before, after, done)) = counts {
            let since =
                |of: fn(&Counts) -> Option<u64>| Some(of(&after)?.saturating_sub(of(&before)?));
            let each = |count: u64, among: u64| json!(count as f64 / among.max(1) as f64);
            let cpu = since(|at| at.cpu_us).map(|us| each(us, done.messages));
            put("cpu_us_per_message", cpu, &self.usage);
            let throttled = since(|at| at.throttled_us).map(|us| json!(us));
            put("cpu_throttled_us", throttled, &self.throttling);
            let times = since(|at| at.throttled_count).map(|count| json!(count));
            put("cpu_throttled_count", times, &self.throttling);
            let written = since(|at| at.written_bytes).map(|bytes| each(bytes, done.bytes));
            put("written_bytes_per_payload_byte", written, &self.io);
        }
        told.insert("unknown".into(), Value::Object(unknown));
        Value::Object(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    const DONE: drive::Counts = drive::Counts {
        messages: 100,
        bytes: 1000,
    };

    #[test]
    fn a_group_of_the_second_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "proc/7/cgroup", "0::/broker\n");
        let put = |file: &str, text: &str| put(root, &format!("sys/fs/cgroup/broker/{file}"), text);
        put("cgroup.procs", "7\n");
        put("memory.current", "4096\n");
        let stat = |usage: u64, throttled: u64| {
            format!("usage_usec {usage}\nnr_throttled {throttled}\nthrottled_usec 90\n")
        };
        let io = |bytes: u64| format!("8:0 rbytes=5 wbytes={bytes} rios=1\n8:16 wbytes=50\n");
        put("cpu.stat", &stat(1000, 1));
        put("io.stat", &io(100));
        let group = Cgroup::find(root, 7);
        let before = group.counts();
        put("cpu.stat", &stat(1500, 3));
        put("io.stat", &io(3100));
        let told = group.describe(Some((before, group.counts(), DONE)));
        let wanted = json!({
            "path": "/broker", "memory_bytes": 4096, "cpu_us_per_message": 5.0, "cpu_throttled_us": 0,
            "cpu_throttled_count": 2, "written_bytes_per_payload_byte": 3.0, "unknown": {},
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn groups_of_the_first_version_are_read_each_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let groups = "5:memory:/m\n4:blkio:/b\n3:cpu,cpuacct:/c\n0::/\n";
        put(root, "proc/7/cgroup", groups);
        let bytes = "8:0 Read 7\n8:0 Write 900\nTotal 907\n";
        for (file, text) in [
            ("memory/m/memory.usage_in_bytes", "8192\n"),
            ("cpuacct/c/cpuacct.usage", "2000000\n"),
            ("cpu/c/cpu.stat", "nr_throttled 4\nthrottled_time 5000\n"),
            ("blkio/b/blkio.throttle.io_service_bytes", bytes),
        ] {
            put(root, &format!("sys/fs/cgroup/{file}"), text);
        }
        let group = Cgroup::find(root, 7);
        let wanted = Counts {
            cpu_us: Some(2000),
            throttled_us: Some(5),
            throttled_count: Some(4),
            written_bytes: Some(900),
        };
        assert_eq!(group.counts(), wanted);
        assert_eq!(group.describe(None)["memory_bytes"], 8192);
    }

    #[test]
    fn what_is_not_the_servers_alone_is_not_told_and_the_reason_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "proc/7/cgroup", "0::/\n");
        put(root, "sys/fs/cgroup/cpu.stat", "usage_usec 9\n");
        put(root, "proc/8/cgroup", "0::/all\n");
        put(root, "sys/fs/cgroup/all/cgroup.procs", "8\n9\n10\n");
        put(root, "sys/fs/cgroup/all/cpu.stat", "usage_usec 9\n");
        put(root, "proc/9/cgroup", "0::/alone\n");
        put(root, "sys/fs/cgroup/alone/cgroup.procs", "9\n");
        for (pid, why) in [
            (7, "root control group"),
            (8, "with 2 processes"),
            (9, "does not count that"),
        ] {
            let group = Cgroup::find(root, pid);
            let told = group.describe(Some((group.counts(), group.counts(), DONE)));
            for key in ["memory_bytes", "cpu_us_per_message", "cpu_throttled_us"] {
                assert_eq!(told[key], Value::Null, "{pid}: {told}");
                let reason = told["unknown"][key].as_str().unwrap();
                assert!(reason.contains(why), "{pid}: {reason}");
            }
        }
    }
}

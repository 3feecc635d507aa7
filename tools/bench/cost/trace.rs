//! System calls and flushes of a server, counted by the kernel's trace points for a part of the
//! warm-up: counting makes each call a little dearer, so it is over before the window begins.
#![allow(unsafe_code)] // perf_event_open has no wrapper; each place says why it is sound.

use crate::clock;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What one part of the warm-up counted.
pub struct Traced {
    pub messages: u64,
    pub syscalls: u64,
    /// fsync, fdatasync and msync, also those that went through an io_uring.
    pub syncs: u64,
    pub futexes: u64,
    /// Times that a thread of the server woke another one of the server: shards, where they are
    /// called so, or else all threads. None where the kernel does not tell, or where there are too many threads to ask for.
    pub wakeups: Option<u64>,
}

impl Traced {
    fn since(&self, before: &Traced) -> Traced {
        let wakeups = self.wakeups.zip(before.wakeups);
        Traced {
            messages: self.messages.saturating_sub(before.messages),
            syscalls: self.syscalls.saturating_sub(before.syscalls),
            syncs: self.syncs.saturating_sub(before.syncs),
            futexes: self.futexes.saturating_sub(before.futexes),
            wakeups: wakeups.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

pub struct Trace {
    thread: JoinHandle<Result<Traced, String>>,
}

const TRACEPOINT: u32 = 2;
const INHERIT: u64 = 1 << 1;
const SET_FILTER: libc::c_ulong = 0x4008_2406;
/// IORING_OP_FSYNC
const RING_FSYNC: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(300);

/// `struct perf_event_attr` as its first version has it: the kernel reads `size` bytes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}
const _: () = assert!(size_of::<Attributes>() == 64);

fn trace_point(name: &str) -> Result<u64, String> {
    let mut seen = Vec::new();
    for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        let path = format!("{root}/events/{name}/id");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let told = text.trim().parse();
                return told.map_err(|_| format!("{path} holds no number"));
            }
            Err(error) => seen.push(format!("{path}: {error}")),
        }
    }
    Err(format!(
        "{}{}",
        seen.swap_remove(0),
        remedy(Path::new("/sys/kernel/tracing"))
    ))
}

/// A folder that is empty has nothing mounted on it: only root can.
fn remedy(folder: &Path) -> &'static str {
    let is_empty = fs::read_dir(folder).is_ok_and(|mut it| it.next().is_none());
    match is_empty {
        true => "; as root: mount -t tracefs nodev /sys/kernel/tracing",
        false => "",
    }
}

/// A counter of one thread and those that it will start; `None`: the thread has ended.
fn counter(point: u64, thread: i32, filter: Option<&str>) -> Result<Option<File>, String> {
    let attributes = Attributes {
        kind: TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: point,
        flags: INHERIT,
        ..Attributes::default()
    };
    let told = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel reads 64 bytes, which `attributes` has, and keeps no pointer to them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            -1,
            -1,
            8_u64, // PERF_FLAG_FD_CLOEXEC
        )
    };
    if fd < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
        return Ok(None);
    }
    if fd < 0 {
        return Err(told("perf_event_open"));
    }
    // SAFETY: the call above made this descriptor, and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    if let Some(filter) = filter {
        let text = std::ffi::CString::new(filter).expect("a filter has no zero in it");
        // SAFETY: the kernel reads the text to its zero before the call returns.
        if unsafe { libc::ioctl(file.as_raw_fd(), SET_FILTER, text.as_ptr()) } < 0 {
            return Err(told("the filter of a trace point"));
        }
    }
    Ok(Some(file))
}

fn sum(counters: &[File]) -> u64 {
    let one = |mut file: &File| {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes)
            .map_or(0, |()| u64::from_ne_bytes(bytes))
    };
    counters.iter().map(one).sum()
}

#[derive(Default)]
struct Counters {
    syscalls: Vec<File>,
    syncs: Vec<File>,
    futexes: Vec<File>,
    wakeups: Option<Vec<File>>,
}

/// A filter of a trace point may be as long as a page.
const THREADS_MAX: usize = 200;

/// The threads of a process that do its work: of ours the shards, of others all but the workers of
/// a ring, which the kernel starts.
fn threads(pid: u32) -> Result<Vec<i32>, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
    let named = |task: fs::DirEntry| {
        let thread: i32 = task.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        Some((thread, name))
    };
    let mut all: Vec<(i32, String)> = tasks.flatten().filter_map(named).collect();
    let is_shard = |name: &str| name.starts_with("shard-");
    let has_shards = all.iter().any(|(_, name)| is_shard(name));
    all.retain(|(_, name)| is_shard(name) || !has_shards && !name.starts_with("iou-"));
    Ok(all.into_iter().map(|(thread, _)| thread).collect())
}

/// Counts how often a thread wakes one of the others.
fn wakeups(point: u64, thread: i32, all: &[i32]) -> Result<Option<File>, String> {
    let others = all.iter().filter(|other| **other != thread);
    let words: Vec<String> = others.map(|other| format!("pid == {other}")).collect();
    // Who is alone wakes nobody.
    let filter = if words.is_empty() {
        "pid == -1".to_owned()
    } else {
        words.join(" || ")
    };
    counter(point, thread, Some(&filter))
}

impl Counters {
    fn open(pid: u32) -> Result<Counters, String> {
        let enter = trace_point("raw_syscalls/sys_enter")?;
        let ring = trace_point("io_uring/io_uring_submit_req");
        let calls = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_msync];
        let words: Vec<String> = calls.iter().map(|id| format!("id == {id}")).collect();
        let (calls, opcode) = (words.join(" || "), format!("opcode == {RING_FSYNC}"));
        let futex = format!("id == {}", libc::SYS_futex);
        let waking = trace_point("sched/sched_waking").ok();
        let own = threads(pid)?;
        let mut counters = Counters::default();
        if waking.is_some() && own.len() <= THREADS_MAX {
            counters.wakeups = Some(Vec::new());
        }
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
        for task in tasks.flatten() {
            let name = task.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            counters.syscalls.extend(counter(enter, thread, None)?);
            counters.syncs.extend(counter(enter, thread, Some(&calls))?);
            counters
                .futexes
                .extend(counter(enter, thread, Some(&futex))?);
            if let (Some(all), Some(point)) = (&mut counters.wakeups, waking)
                && own.contains(&thread)
            {
                match wakeups(point, thread, &own) {
                    Ok(file) => all.extend(file),
                    Err(_) => counters.wakeups = None,
                }
            }
            if let Ok(ring) = &ring {
                counters
                    .syncs
                    .extend(counter(*ring, thread, Some(&opcode))?);
            }
        }
        Ok(counters)
    }
}

impl Trace {
    /// Counts in the middle of a warm-up of that length; `messages` is what the run has done.
    pub fn start(pid: u32, warm_up_ns: u64, messages: Arc<AtomicU64>) -> Result<Trace, String> {
        let warm_up = Duration::from_nanos(warm_up_ns);
        let length = (warm_up * 2 / 5).min(Duration::from_secs(1));
        if length < SHORTEST {
            return Err("counting needs a warm-up of a second at least (--warmup)".into());
        }
        let end_ns = clock::now_ns() + warm_up_ns;
        let thread = std::thread::spawn(move || {
            std::thread::sleep(warm_up * 3 / 10);
            let counters = Counters::open(pid)?;
            let at = || Traced {
                messages: messages.load(Ordering::Relaxed),
                syscalls: sum(&counters.syscalls),
                syncs: sum(&counters.syncs),
                futexes: sum(&counters.futexes),
                wakeups: counters.wakeups.as_deref().map(sum),
            };
            let before = at();
            std::thread::sleep(length);
            let after = at();
            drop(counters);
            if end_ns < clock::now_ns() {
                return Err(
                    "counting took longer than the warm-up; make it longer (--warmup)".into(),
                );
            }
            Ok(after.since(&before))
        });
        Ok(Trace { thread })
    }

    pub fn end(self) -> Result<Traced, String> {
        let told = self.thread.join();
        told.unwrap_or_else(|_| Err("the counting thread panicked".into()))
    }
}

/// Whether this process may count: some tests have nothing to say where it may not.
#[cfg(test)]
fn may_count() -> bool {
    Counters::open(std::process::id()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_and_flushes_of_a_thread_are_counted() {
        if !may_count() {
            return;
        }
        let file = tempfile::tempfile().unwrap();
        let counters = Counters::open(std::process::id()).unwrap();
        let before = (sum(&counters.syscalls), sum(&counters.syncs));
        for _ in 0..25 {
            file.sync_data().unwrap();
        }
        let after = (sum(&counters.syscalls), sum(&counters.syncs));
        // Other tests of this process may call too.
        assert!(25 <= after.1 - before.1, "{} flushes", after.1 - before.1);
        assert!(25 <= after.0 - before.0);
    }

    #[test]
    fn a_thread_that_has_ended_has_no_counter() {
        if !may_count() {
            return;
        }
        let enter = trace_point("raw_syscalls/sys_enter").unwrap();
        let ended = std::thread::spawn(|| nix::unistd::gettid().as_raw());
        let ended = ended.join().unwrap();
        assert!(counter(enter, ended, None).unwrap().is_none());
    }

    #[test]
    fn a_thread_that_wakes_another_is_seen_and_one_that_wakes_nobody_is_not() {
        use std::sync::mpsc::channel;
        if !may_count() {
            return;
        }
        let (give, take) = channel::<()>();
        let (back, done) = channel();
        let sleeper = std::thread::spawn(move || take.iter().for_each(|()| back.send(()).unwrap()));
        std::thread::sleep(Duration::from_millis(20));
        let counters = Counters::open(std::process::id()).unwrap();
        let at = || {
            (
                sum(counters.wakeups.as_deref().unwrap()),
                sum(&counters.futexes),
            )
        };
        let before = at();
        for _ in 0..25 {
            // Until the other one sleeps: before, it need not be woken.
            std::thread::sleep(Duration::from_millis(1));
            give.send(()).unwrap();
            done.recv().unwrap();
        }
        let after = at();
        drop(give);
        sleeper.join().unwrap();
        assert!(20 <= after.0 - before.0, "{} wake-ups", after.0 - before.0);
        assert!(20 <= after.1 - before.1, "{} futexes", after.1 - before.1);
        let alone = wakeups(trace_point("sched/sched_waking").unwrap(), 0, &[0]);
        assert_eq!(sum(&[alone.unwrap().unwrap()]), 0);
    }

    #[test]
    fn trace_points_that_are_not_mounted_are_told_with_the_command_that_mounts_them() {
        let folder = tempfile::tempdir().unwrap();
        let told = remedy(folder.path());
        assert!(told.contains("mount -t tracefs nodev"), "{told}");
        fs::create_dir(folder.path().join("events")).unwrap();
        assert_eq!(remedy(folder.path()), "");
        assert_eq!(remedy(&folder.path().join("none")), "");
    }

    #[test]
    fn a_short_warm_up_counts_nothing_and_says_why() {
        let told = Trace::start(1, 100_000_000, Arc::default()).err().unwrap();
        assert!(told.contains("--warmup"), "{told}");
    }
}

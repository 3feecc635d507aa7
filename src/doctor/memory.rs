//! Memory: huge pages, DAMON, swapping, and how much may be dirty.

use super::report::{Entry, NOT_SEEN, bytes};
use crate::io::{Tree, Unseen};

pub(super) fn check(tree: &Tree) -> Vec<Entry> {
    vec![
        huge_pages(
            tree.text("/sys/kernel/mm/transparent_hugepage/enabled")
                .as_deref(),
        ),
        damon(&Damon::read(tree)),
        swapping(
            tree.text("/proc/sys/vm/swappiness").as_deref(),
            tree.text("/proc/swaps").as_deref().unwrap_or_default(),
        ),
        Dirty::read(tree).map_or_else(|why| Entry::unseen(DIRTY, &why), |dirty| dirty.judge()),
    ]
}

/// `list` is as the kernel shows it: `always [madvise] never`.
fn huge_pages(list: Result<&str, &Unseen>) -> Entry {
    const NAME: &str = "huge pages";
    match list {
        Err(why) => Entry::unseen(NAME, why),
        Ok(list) if list.contains("[always]") => {
            let reason = "every process gets them unasked: memory grows, and a first touch may wait until the \
                 kernel has moved pages together";
            let fix = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
            Entry::advice(NAME, "always", reason, fix)
        }
        Ok(list) if list.contains("[never]") => Entry::ok(NAME, "never", "nobody waits for them"),
        Ok(_) => Entry::ok(NAME, "madvise", "only who asks gets them"),
    }
}

/// What DAMON does to memory. Its files are root's.
#[derive(Debug, Default)]
struct Damon {
    /// Files to switch off: path, what to write, and what it does there.
    active: Vec<(String, &'static str, String)>,
    /// A file that was not shown: what its threads say then.
    hidden: Option<Threads>,
    exists: bool,
}

/// What can be known of DAMON without its files. Each of its users has a thread of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Threads {
    /// The name of one that runs: it watches memory, and may do no more than that.
    Run(String),
    /// The kernel's threads are shown, and none is of it.
    None,
    /// The kernel's threads are not shown: a container, or `hidepid`.
    NotShown,
}

impl Threads {
    fn read(tree: &Tree) -> Self {
        let pids = tree.names("/proc").into_iter();
        let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let mut of_kernel = pids
            .filter_map(|pid| kernel_thread(&tree.text(&format!("/proc/{pid}/stat")).ok()?))
            .peekable();
        if of_kernel.peek().is_none() {
            return Self::NotShown;
        }
        let found = of_kernel.find(|name| name.starts_with("kdamond"));
        found.map_or(Self::None, Self::Run)
    }
}

/// The name in `/proc/PID/stat`, if a thread of the kernel has it: any process may give itself such a name, and only
/// the flags tell them apart.
fn kernel_thread(stat: &str) -> Option<String> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    /// Behind the name: state, four numbers of processes and groups, that of the terminal's group, flags.
    const FLAGS: usize = 6;
    let (name, behind) = stat.split_once('(')?.1.rsplit_once(')')?;
    let flags: u64 = behind.split_whitespace().nth(FLAGS)?.parse().ok()?;
    (flags & PF_KTHREAD != 0).then(|| name.to_owned())
}

/// What takes pages from memory that nobody touched lately.
const DAMON_TAKES: &[&str] = &["pageout", "cold", "lru_deprio", "migrate_cold"];

impl Damon {
    fn read(tree: &Tree) -> Self {
        const ADMIN: &str = "/sys/kernel/mm/damon/admin/kdamonds";
        let mut damon = Self::default();
        let mut hidden = false;
        for number in tree.names(ADMIN) {
            let state = format!("{ADMIN}/{number}/state");
            damon.exists = true;
            match tree.text(&state) {
                Ok(text) if text == "on" => {
                    let actions = actions(tree, &format!("{ADMIN}/{number}/contexts"));
                    if actions
                        .iter()
                        .any(|action| DAMON_TAKES.contains(&action.as_str()))
                    {
                        damon.active.push((state, "off", actions.join(", ")));
                    }
                }
                Err(Unseen::Forbidden(_)) => hidden = true,
                _ => {}
            }
        }
        for module in ["damon_reclaim", "damon_lru_sort"] {
            let path = format!("/sys/module/{module}/parameters/enabled");
            match tree.text(&path) {
                Ok(text) if text == "Y" => damon.active.push((path, "N", module.to_owned())),
                Err(Unseen::Forbidden(_)) => hidden = true,
                _ => {}
            }
        }
        damon.hidden = hidden.then(|| Threads::read(tree));
        damon
    }
}

fn actions(tree: &Tree, contexts: &str) -> Vec<String> {
    let contexts = tree
        .names(contexts)
        .into_iter()
        .map(|name| format!("{contexts}/{name}/schemes"));
    contexts
        .flat_map(|schemes| {
            let names = tree.names(&schemes).into_iter();
            names
                .filter_map(|name| tree.text(&format!("{schemes}/{name}/action")).ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn damon(damon: &Damon) -> Entry {
    const NAME: &str = "DAMON";
    const WHY: &str = "it takes pages from memory that nobody read for a while, and with them what a slow consumer \
         would read next (kernel-notes/page-cache-and-cold-reads.md)";
    if !damon.active.is_empty() {
        let what: Vec<_> = damon
            .active
            .iter()
            .map(|(_, _, what)| what.as_str())
            .collect();
        let fixes: Vec<_> = damon
            .active
            .iter()
            .map(|(path, word, _)| format!("echo {word} | sudo tee {path}"))
            .collect();
        return Entry::advice(
            NAME,
            format!("on: {}", what.join(", ")),
            WHY,
            fixes.join(" && "),
        );
    }
    const TELLS: &str = "sudo corelane doctor";
    match &damon.hidden {
        Some(Threads::Run(thread)) => {
            let value = format!("on: what it does is not seen ({thread})");
            let reason = format!(
                "its thread runs, and only root may see whether it does more than count; where it evicts, {WHY}"
            );
            let fix = format!("{TELLS}  # says what it does, and how to end that");
            Entry::advice(NAME, value, reason, fix)
        }
        Some(Threads::NotShown) => {
            let reason = format!(
                "only root may read whether it runs, and the kernel's threads are not shown here; {TELLS} tells"
            );
            Entry::ok(NAME, NOT_SEEN, reason)
        }
        Some(Threads::None) => {
            let reason =
                "none of its threads is among the kernel's: no page leaves memory before it must";
            Entry::ok(NAME, "off", reason)
        }
        None => {
            let value = if damon.exists { "off" } else { "none" };
            Entry::ok(NAME, value, "no page leaves memory before it must")
        }
    }
}

fn swapping(swappiness: Result<&str, &Unseen>, swaps: &str) -> Entry {
    const NAME: &str = "swapping";
    let swappiness = match swappiness {
        Ok(text) => text,
        Err(why) => return Entry::unseen(NAME, why),
    };
    // The first line is a heading.
    let has_swap = 1 < swaps.lines().count();
    if !has_swap {
        let value = format!("no swap (swappiness {swappiness})");
        return Entry::ok(NAME, value, "the broker's memory stays in memory");
    }
    let value = format!("swappiness {swappiness}, swap is on");
    if swappiness.parse::<u32>().is_ok_and(|number| number <= 10) {
        return Entry::ok(
            NAME,
            value,
            "the page cache shrinks before a process is swapped out",
        );
    }
    let reason = "a log fills the page cache, and for that the kernel swaps out processes, the broker among them";
    Entry::advice(NAME, value, reason, "sudo sysctl -w vm.swappiness=1")
}

const DIRTY: &str = "dirty limits";

/// From here on writers wait: room for some seconds of any disk's writing.
const STOP_MIN: u64 = 256 << 20;

/// More that is dirty before anybody begins to write it is a mountain in front of somebody's sync.
const BACKGROUND_MAX: u64 = 4 << 30;

struct Dirty {
    /// From here on the kernel writes back.
    background: u64,
    /// From here on writers wait.
    stop: u64,
    /// It looks for old pages so often; 0 = never.
    look_centisecs: u64,
}

impl Dirty {
    fn read(tree: &Tree) -> Result<Self, Unseen> {
        let number = |name: &str| -> Result<u64, Unseen> {
            let path = format!("/proc/sys/vm/{name}");
            let text = tree.text(&path)?;
            text.parse()
                .map_err(|_| Unseen::Other(path, format!("it says {text:?}")))
        };
        let meminfo = tree.text("/proc/meminfo")?;
        let memory = memory_available(&meminfo).unwrap_or(0);
        let of = |size: u64, percent: u64| {
            if 0 < size {
                size
            } else {
                memory / 100 * percent
            }
        };
        Ok(Self {
            background: of(
                number("dirty_background_bytes")?,
                number("dirty_background_ratio")?,
            ),
            stop: of(number("dirty_bytes")?, number("dirty_ratio")?),
            look_centisecs: number("dirty_writeback_centisecs")?,
        })
    }

    fn judge(&self) -> Entry {
        let value = format!(
            "written back from {}, writers wait from {}",
            bytes(self.background),
            bytes(self.stop)
        );
        if self.stop < STOP_MIN {
            let reason = "so little makes every burst wait for the disk";
            let fix =
                "sudo sysctl -w vm.dirty_background_bytes=268435456 vm.dirty_bytes=1073741824";
            return Entry::advice(DIRTY, value, reason, fix);
        }
        if self.look_centisecs == 0 {
            let reason = "nobody looks for old pages (dirty_writeback_centisecs is 0): what nobody syncs stays in \
                 memory only";
            return Entry::advice(
                DIRTY,
                value,
                reason,
                "sudo sysctl -w vm.dirty_writeback_centisecs=500",
            );
        }
        if BACKGROUND_MAX < self.background {
            let reason = "what other programs leave dirty until then stands before the log's syncs at the disk";
            let fix =
                "sudo sysctl -w vm.dirty_background_bytes=1073741824 vm.dirty_bytes=4294967296";
            return Entry::advice(DIRTY, value, reason, fix);
        }
        let reason = "the broker syncs its log itself long before (flushBytes, flushIntervalCommitLog; \
             kernel-notes/write-and-sync.md)";
        Entry::ok(DIRTY, value, reason)
    }
}

fn memory_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn huge_pages_for_all_are_too_many() {
        let judge = |list| huge_pages(Ok(list)).verdict;
        assert_eq!(judge("[always] madvise never"), Verdict::Advice);
        assert_eq!(judge("always [madvise] never"), Verdict::Ok);
        assert_eq!(judge("always madvise [never]"), Verdict::Ok);
    }

    #[test]
    fn swappiness_matters_where_there_is_swap() {
        let swap = "Filename\tType\n/dev/zram0\tpartition";
        assert_eq!(swapping(Ok("60"), "Filename\tType").verdict, Verdict::Ok);
        assert_eq!(swapping(Ok("60"), swap).verdict, Verdict::Advice);
        assert_eq!(swapping(Ok("1"), swap).verdict, Verdict::Ok);
    }

    #[test]
    fn dirty_limits_are_bounds_on_both_sides() {
        let judge = |background: u64, stop: u64, look_centisecs: u64| {
            let dirty = Dirty {
                background,
                stop,
                look_centisecs,
            };
            dirty.judge().verdict
        };
        assert_eq!(judge(2 << 30, 4 << 30, 500), Verdict::Ok);
        assert_eq!(judge(8 << 30, 16 << 30, 500), Verdict::Advice);
        assert_eq!(judge(1 << 20, 64 << 20, 500), Verdict::Advice);
        assert_eq!(judge(2 << 30, 4 << 30, 0), Verdict::Advice);
        assert_eq!(
            memory_available("MemTotal: 9 kB\nMemAvailable:   2048 kB"),
            Some(2 << 20)
        );
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn damon_is_judged_by_what_it_does() {
        const KDAMOND: &str = "sys/kernel/mm/damon/admin/kdamonds/0";
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let tree = Tree::at(root);
        let judge = || damon(&Damon::read(&tree));
        assert_eq!(
            (judge().verdict, judge().value.as_str()),
            (Verdict::Ok, "none")
        );
        put(root, &format!("{KDAMOND}/state"), "on\n");
        let action = format!("{KDAMOND}/contexts/0/schemes/0/action");
        put(root, &action, "stat\n");
        assert_eq!(judge().verdict, Verdict::Ok, "it only counts");
        put(root, &action, "pageout\n");
        assert_eq!(judge().verdict, Verdict::Advice);
        assert_eq!(
            judge().fix.unwrap(),
            format!("echo off | sudo tee /{KDAMOND}/state")
        );
        put(root, &format!("{KDAMOND}/state"), "off\n");
        assert_eq!(
            (judge().verdict, judge().value.as_str()),
            (Verdict::Ok, "off")
        );
        put(root, "sys/module/damon_reclaim/parameters/enabled", "Y\n");
        assert_eq!(judge().verdict, Verdict::Advice);
    }

    /// Its files are root's; who cannot read them is told what its threads say, and no more.
    #[test]
    fn damon_is_known_to_others_by_a_thread_of_the_kernel_only() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::at(folder.path());
        let judge = || {
            let hidden = Some(Threads::read(&tree));
            damon(&Damon {
                hidden,
                exists: true,
                ..Damon::default()
            })
        };
        let thread = |pid: u32, name: &str, flags: u32| {
            let stat = format!("{pid} ({name}) S 2 0 0 0 -1 {flags} 0 0 0\n");
            put(folder.path(), &format!("proc/{pid}/stat"), &stat);
            put(folder.path(), &format!("proc/{pid}/comm"), name);
        };
        // Anybody may be called so. Where no thread of the kernel is shown, that of DAMON would not be either.
        thread(77, "kdamond.0", 4_194_560);
        let unknown = judge();
        assert_eq!(
            (unknown.verdict, unknown.value.as_str()),
            (Verdict::Ok, NOT_SEEN)
        );
        assert!(
            unknown.reason.contains("sudo corelane doctor"),
            "{unknown:?}"
        );
        thread(2, "kthreadd", 2_129_984);
        let off = judge();
        assert_eq!((off.verdict, off.value.as_str()), (Verdict::Ok, "off"));
        assert!(off.reason.contains("none of its threads"), "{off:?}");
        thread(78, "kdamond.1", 2_129_984);
        let on = judge();
        assert_eq!(on.verdict, Verdict::Advice);
        assert!(on.value.contains("not seen (kdamond.1)"), "{on:?}");
        assert!(
            on.fix.unwrap().starts_with("sudo corelane doctor"),
            "the command that tells"
        );
    }

    #[test]
    fn dirty_limits_are_bytes_or_parts_of_memory() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "proc/meminfo", "MemAvailable: 1048576 kB\n");
        for (name, number) in [
            ("dirty_background_bytes", "0"),
            ("dirty_background_ratio", "10"),
            ("dirty_bytes", "536870912"),
            ("dirty_ratio", "0"),
            ("dirty_writeback_centisecs", "500"),
        ] {
            put(root, &format!("proc/sys/vm/{name}"), number);
        }
        let dirty = Dirty::read(&Tree::at(root)).unwrap();
        assert_eq!(dirty.background, (1 << 30) / 100 * 10);
        assert_eq!(dirty.stop, 512 << 20);
    }
}

//! What tests of crashes and failing disks share: file systems of their own, a producer that remembers
//! what was acknowledged, and a reader that compares.
#![allow(dead_code)] // Each test file uses its own part of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::kit::{Broker, Client, frame, produce_fields};

/// Small files, so that a small disk is enough.
pub const SMALL_INDEX: [&str; 4] = ["--set", "maxHashSlotNum=1000", "--set", "maxIndexNum=5000"];

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    // Not every user has these folders in the path.
    let path = std::env::var("PATH").unwrap_or_default();
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; .ci/prepare test installs it"));
    assert!(
        status.success(),
        "{program} {arguments:?}: {status} {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap().trim().to_owned()
}

/// A file system in a file, mounted in a folder of its own. Needs root.
pub struct Disk {
    pub mount: PathBuf,
    /// Where the mount lies, for what must outlive it. A broker here has its store on the disk.
    pub folder: PathBuf,
    device: String,
    options: &'static str,
    mounted: bool,
    _folder: tempfile::TempDir,
}

impl Disk {
    pub fn ext4(megabytes: u64) -> Self {
        let mkfs = ["mkfs.ext4", "-q", "-m", "0"];
        Self::make(megabytes, &mkfs, "errors=remount-ro")
    }

    pub fn xfs() -> Self {
        // Its least size is 300 MB.
        Self::make(320, &["mkfs.xfs", "-q"], "defaults")
    }

    fn make(megabytes: u64, mkfs: &[&str], options: &'static str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "mounting a file system needs root"
        );
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(megabytes << 20).unwrap();
        let image = image.to_str().unwrap();
        run(mkfs[0], &[&mkfs[1..], &[image]].concat());
        let device = run("losetup", &["--find", "--show", image]);
        let mut disk = Self {
            mount: folder.path().join("store"),
            folder: folder.path().to_owned(),
            device,
            options,
            mounted: false,
            _folder: folder,
        };
        std::fs::create_dir(&disk.mount).unwrap();
        disk.mount();
        disk
    }

    pub fn mount(&mut self) {
        let mount = self.mount.to_str().unwrap();
        run("mount", &["-o", self.options, &self.device, mount]);
        self.mounted = true;
        // A folder of the host would take everything and prove nothing.
        run("mountpoint", &["--quiet", mount]);
    }

    /// Unmounts; a process that was just killed may hold the file system for another moment.
    pub fn unmount(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.try_unmount(&[]) {
            assert!(Instant::now() < end, "{} stays busy", self.mount.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mounted = false;
    }

    fn try_unmount(&self, flags: &[&str]) -> bool {
        let mut command = Command::new("umount");
        let command = command.args(flags).arg(&self.mount).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Takes the disk away between two of its writes: nothing reaches it from now on, what the page
    /// cache holds is lost. XFS only.
    pub fn cut_power(&self) {
        let mount = self.mount.to_str().unwrap();
        run("xfs_io", &["-x", "-c", "shutdown", mount]);
    }

    /// Makes ext4 meet an inconsistency, at which it becomes read-only.
    pub fn meet_inconsistency(&self) {
        let name = Path::new(&self.device).file_name().unwrap();
        let path = Path::new("/sys/fs/ext4").join(name);
        std::fs::write(path.join("trigger_fs_error"), b"test").unwrap();
    }

    /// Per cent in use, and bytes that are free.
    pub fn space(&self) -> (f64, u64) {
        let stat = nix::sys::statvfs::statvfs(&self.mount).unwrap();
        let free = stat.blocks_available() * stat.fragment_size();
        let total = stat.blocks() * stat.fragment_size();
        ((total - free) as f64 * 100.0 / total as f64, free)
    }

    /// A file that takes this much away. The answer removes it.
    pub fn fill(&self, bytes: u64) -> PathBuf {
        let path = self.mount.join("filler");
        run(
            "fallocate",
            &["--length", &bytes.to_string(), path.to_str().unwrap()],
        );
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            self.try_unmount(&["--lazy"]);
        }
        run("losetup", &["--detach", &self.device]);
    }
}

/// A file system that keeps all in memory, and has no way past the page cache. Needs root.
pub struct Ramfs(pub tempfile::TempDir);

impl Ramfs {
    pub fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        run("mount", &["-t", "ramfs", "none", path]);
        run("mountpoint", &["--quiet", path]);
        Self(folder)
    }
}

impl Drop for Ramfs {
    fn drop(&mut self) {
        let path = self.0.path().to_str().unwrap();
        run("umount", &["--lazy", path]);
    }
}

/// Waits until something holds.
pub fn wait_for(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Messages by queue and queue offset.
pub type Messages = BTreeMap<(i64, i64), Vec<u8>>;

/// What a producer was told.
#[derive(Default)]
pub struct Told {
    pub acknowledged: Messages,
    /// Code and remark of every refusal.
    pub refused: Vec<(i64, String)>,
    /// When the last acknowledgement came.
    pub last: Option<Instant>,
}

/// A body that no other message has.
pub fn body(name: &str, number: usize, size: usize) -> Vec<u8> {
    let mut body = format!("{name} {number} ").into_bytes();
    // Not all the same: a shifted body must not look right.
    body.extend((body.len()..size).map(|at| b'a' + ((at * 7 + number) % 26) as u8));
    body
}

/// Sends over all queues, `window` at once, until `count` were sent, something was refused, or the
/// connection ends. Two messages at one place fail the test.
pub fn pipeline(
    port: u16,
    topic: &str,
    queue_count: i64,
    name: &str,
    (count, size, window): (usize, usize, usize),
) -> Told {
    let mut client = Client::connect(port);
    let mut told = Told::default();
    let mut flying: BTreeMap<i64, (i64, Vec<u8>)> = BTreeMap::new();
    let mut sent = 0;
    loop {
        while flying.len() < window && sent < count && told.refused.is_empty() {
            let body = body(name, sent, size);
            let queue = sent as i64 % queue_count;
            let opaque = sent as i64 + 1;
            let bytes = frame(310, opaque, &produce_fields(topic, queue, ""), &body);
            flying.insert(opaque, (queue, body));
            if client.stream.write_all(&bytes).is_err() {
                break;
            }
            sent += 1;
        }
        if flying.is_empty() {
            return told;
        }
        let Ok((opaque, answer)) = client.receive() else {
            return told;
        };
        let (queue, body) = flying.remove(&opaque).expect("answers one of the sends");
        if answer.code == 0 {
            assert_eq!(answer.number("queueId"), queue);
            let place = (queue, answer.number("queueOffset"));
            let before = told.acknowledged.insert(place, body);
            assert!(before.is_none(), "two messages at {place:?}");
            told.last = Some(Instant::now());
        } else {
            told.refused.push((answer.code, answer.remark));
        }
    }
}

/// Everything that is there, as records say it themselves.
pub fn read_all(client: &mut Client, topic: &str, queue_count: i64) -> Messages {
    let mut messages = Messages::new();
    for queue in 0..queue_count {
        let mut offset = 0;
        loop {
            let answer = client.fetch(topic, queue, offset, 32);
            let next = answer.number("nextBeginOffset");
            match answer.code {
                0 => take_records(&answer.body, queue, &mut messages),
                // Nothing there, a hole that is stepped over, or a queue that begins later.
                _ if next == offset => break,
                19..=21 => (),
                code => panic!("{code} {}", answer.remark),
            }
            assert!(offset < next, "a fetch gets on: {offset}, {next}");
            offset = next;
        }
    }
    messages
}

fn take_records(records: &[u8], queue: i64, messages: &mut Messages) {
    let mut rest = records;
    while !rest.is_empty() {
        let int = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
        let offset = i64::from_be_bytes(rest[20..28].try_into().unwrap());
        assert_eq!(i64::from(int(12)), queue);
        let body = rest[88..88 + int(84) as usize].to_vec();
        let before = messages.insert((queue, offset), body);
        assert!(before.is_none(), "offset {offset} of queue {queue} twice");
        rest = &rest[int(0) as usize..];
    }
}

/// Every acknowledged message is there, with its body, at its place.
pub fn all_there(acknowledged: &Messages, found: &Messages) {
    for (place, body) in acknowledged {
        let (queue, offset) = place;
        let Some(there) = found.get(place) else {
            panic!(
                "queue {queue}, offset {offset} was acknowledged and is lost; {} of {} are there",
                acknowledged
                    .keys()
                    .filter(|place| found.contains_key(place))
                    .count(),
                acknowledged.len()
            );
        };
        if there != body {
            let at = there.iter().zip(body).position(|(one, two)| one != two);
            let start =
                |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            panic!(
                "queue {queue}, offset {offset}: {:?} instead of {:?}, first wrong byte {at:?}",
                start(there),
                start(body)
            );
        }
    }
}

/// Adds what was acknowledged now to what was before; nothing was promised to two messages.
pub fn merge(acknowledged: &mut Messages, more: Messages) {
    for (place, body) in more {
        let before = acknowledged.insert(place, body);
        assert!(before.is_none(), "{place:?} was acknowledged twice");
    }
}

/// Starts again; what it logs from then on.
pub fn start_again(broker: Broker) -> (Broker, String) {
    let before = broker.log().len();
    let broker = broker.start_again();
    let log = broker.log()[before..].to_owned();
    (broker, log)
}

/// Commits a group's offset.
pub fn commit_offset(client: &mut Client, topic: &str, queue: i64, offset: i64) {
    let fields = json!({"consumerGroup": "readers", "topic": topic, "queueId": queue.to_string(),
        "commitOffset": offset.to_string()});
    assert_eq!(client.call(15, &fields, &[]).code, 0);
}

/// A group's offset.
pub fn committed_offset(client: &mut Client, topic: &str, queue: i64) -> i64 {
    let fields = json!({"consumerGroup": "readers", "topic": topic, "queueId": queue.to_string()});
    client.call(14, &fields, &[]).number("offset")
}

/// The first offset that is there (31), or the end of the queue (30).
pub fn queue_bound(client: &mut Client, code: i64, topic: &str, queue: i64) -> i64 {
    let fields = json!({"topic": topic, "queueId": queue.to_string()});
    client.call(code, &fields, &[]).number("offset")
}

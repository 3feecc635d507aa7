//! What must be had before anything is served: a ring, listeners, the lock on the store, a CPU.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why something of the machine could not be had, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {cause}; {remedy}")]
pub struct SetupError {
    /// What was tried.
    pub doing: String,
    /// What the kernel said.
    pub cause: String,
    /// What helps.
    pub remedy: String,
}

impl SetupError {
    /// An error of the ring's set-up with the remedy that its number suggests.
    pub(super) fn of(doing: &str, err: &std::io::Error) -> Self {
        let remedy = match err.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => {
                "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled to 0, and allow \
                 io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile"
            }
            Some(Errno::ENOSYS) => {
                "this kernel has no io_uring, or hides it: boot Linux 5.19 or newer with CONFIG_IO_URING \
                 (gVisor and WSL 1 have none)"
            }
            Some(Errno::EINVAL) => {
                "this kernel lacks what is needed of io_uring: boot Linux 5.19 or newer; corelane doctor \
                 lists what there is"
            }
            Some(Errno::ENOMEM) => {
                "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=, memory cgroup) to at least \
                 64 MiB"
            }
            Some(Errno::EMFILE | Errno::ENFILE) => {
                "raise the limit of open files (ulimit -n, LimitNOFILE=)"
            }
            _ => "see the cause",
        };
        Self {
            doing: format!("{doing} on Linux {}", release()),
            cause: err.to_string(),
            remedy: remedy.to_owned(),
        }
    }

    /// A ring was had, and lacks what no broker can do without.
    pub(super) fn lacking(doing: &str, what: &str) -> Self {
        Self {
            doing: format!("{doing} on Linux {}", release()),
            cause: format!("it lacks {what}"),
            remedy: "boot Linux 5.19 or newer; corelane doctor lists what there is".to_owned(),
        }
    }
}

/// Of the running kernel.
fn release() -> String {
    let names = nix::sys::utsname::uname().ok();
    let release = names.as_ref().and_then(|names| names.release().to_str());
    release.unwrap_or("(of unknown version)").to_owned()
}

/// Locked memory of a ring that was closed counts against its user until a worker of the kernel has taken the ring apart: 12
/// to 40 ms (kernel-notes/registered-resources.md). One that is refused leaves a part behind too, so each wait is longer.
const MEMORY_RETRY: Duration = Duration::from_millis(10);
const MEMORY_RETRY_MAX: Duration = Duration::from_millis(320);

/// Takes what counts as locked memory; again while rings that are closed may still count.
pub(super) fn once_freed<T>(take: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
    let mut wait = MEMORY_RETRY;
    loop {
        let taken = take();
        let is_refused =
            matches!(&taken, Err(err) if err.raw_os_error() == Some(Errno::ENOMEM as i32));
        if !is_refused || MEMORY_RETRY_MAX < wait {
            return taken;
        }
        std::thread::sleep(wait);
        wait *= 2;
    }
}

/// After a process with a ring was killed, Linux lets go of its listeners a moment after it is gone: the
/// ring is taken apart by a worker of the kernel.
const PORT_FREE_WITHIN: Duration = Duration::from_secs(1);
const PORT_RETRY: Duration = Duration::from_millis(10);

/// Opens a listener; `backlog` as large as the machine allows.
pub fn listen(address: SocketAddr) -> Result<TcpListener, SetupError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restarted broker takes its port over from connections that linger.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Ok(socket.into())
    };
    let begun = Instant::now();
    let mut opened = open();
    while begun.elapsed() < PORT_FREE_WITHIN
        && matches!(&opened, Err(err) if err.kind() == std::io::ErrorKind::AddrInUse)
    {
        std::thread::sleep(PORT_RETRY);
        opened = open();
    }
    opened.map_err(|err| {
        let remedy = match err.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program listens there: stop it, or choose other ports with --port or \
                 --nameserver-port"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this host has no such address: choose one of its own with --bind"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: choose a higher one"
            }
            _ => "see the cause",
        };
        SetupError {
            doing: format!("listen on {address}"),
            cause: err.to_string(),
            remedy: remedy.to_owned(),
        }
    })
}

/// The lock that keeps a second broker off a folder; released when dropped or when the process dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: Flock<File>,
}

/// Locks a folder through its file `lock`, makes both if missing, and leaves the process id in it.
pub fn lock_folder(folder: &Path) -> Result<FolderLock, SetupError> {
    let path = folder.join("lock");
    let doing = || format!("lock the store {}", folder.display());
    super::lane::create_folders(folder).map_err(|err| SetupError {
        doing: format!("make the folder {}", folder.display()),
        cause: err.to_string(),
        remedy: "choose a folder that this user may write with --store".to_owned(),
    })?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|err| SetupError {
            doing: doing(),
            cause: err.to_string(),
            remedy: "run as the owner of the folder, or choose another with --store".to_owned(),
        })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((mut file, errno)) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(SetupError {
                doing: doing(),
                cause: if errno == Errno::EWOULDBLOCK {
                    format!("process {} holds it", holder_of(holder.trim()))
                } else {
                    errno.to_string()
                },
                remedy: "stop that process, or choose another folder with --store".to_owned(),
            })
        }
        Ok(mut file) => {
            let text = std::process::id().to_string();
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(text.as_bytes()));
            written.map_err(|err| SetupError {
                doing: format!("write {}", path.display()),
                cause: err.to_string(),
                remedy: "make room or make the folder writable".to_owned(),
            })?;
            Ok(FolderLock { _file: file })
        }
    }
}

fn holder_of(pid: &str) -> String {
    let comm = if pid.bytes().all(|byte| byte.is_ascii_digit()) && !pid.is_empty() {
        std::fs::read_to_string(Path::new("/proc").join(pid).join("comm")).ok()
    } else {
        None
    };
    match comm {
        Some(name) => format!("{pid} ({})", name.trim()),
        None if pid.is_empty() => "another".to_owned(),
        None => pid.to_owned(),
    }
}

/// Proves that a folder can be written to, before anything depends on it.
pub fn prove_writable(folder: &Path) -> Result<(), SetupError> {
    let path: PathBuf = folder.join(".corelane-write-test");
    let tried = std::fs::write(&path, b"x").and_then(|()| std::fs::remove_file(&path));
    tried.map_err(|err| SetupError {
        doing: format!("write into the store {}", folder.display()),
        cause: err.to_string(),
        remedy: "run as the owner of the folder, or choose another with --store".to_owned(),
    })
}

/// The device on which a folder lies, or will lie once it is made; `None` where nobody can tell.
#[must_use]
pub fn device_of(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let made = folder.ancestors().find_map(|path| path.metadata().ok())?;
    Some(made.dev())
}

/// CPUs this process may use, in order.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    if ids.is_empty() {
        vec![0]
    } else {
        ids.into_iter().map(|core| core.id).collect()
    }
}

/// Pins the calling thread; false where the machine refuses.
pub fn pin(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Lets the calling thread, and the workers that its ring starts, run before threads of normal priority;
/// false where the machine refuses (it takes CAP_SYS_NICE or a limit of RLIMIT_NICE).
pub fn raise_priority() -> bool {
    const NICE: libc::c_int = -10;
    // SAFETY: a call of plain numbers; 0 is the calling thread.
    #[allow(unsafe_code)]
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    done == 0
}

/// Asks the scheduler to move the calling thread, and the workers that its ring starts, in steps of 0.1 ms
/// where they share a CPU (kernel-notes/cores.md). Since 6.12; older kernels take no notice.
pub fn take_short_turns() {
    const SLICE_NS: u64 = 100_000;
    // What is read is written back with another slice, so that policy and priority stay.
    if let Some(mut attributes) = scheduling() {
        attributes.sched_runtime = SLICE_NS;
        // SAFETY: the struct is as the kernel declares it and outlives the call; 0 is the calling thread.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0u32);
        }
    }
}

/// How the calling thread is scheduled.
fn scheduling() -> Option<libc::sched_attr> {
    // SAFETY: the struct is plain numbers, as the kernel declares it, and outlives the call.
    #[allow(unsafe_code)]
    unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        let size = size_of::<libc::sched_attr>() as libc::c_uint;
        let into = &raw mut attributes;
        let done = libc::syscall(libc::SYS_sched_getattr, 0, into, size, 0u32);
        (done == 0).then_some(attributes)
    }
}

/// Raises the soft limit of open files to the hard one and answers it.
pub fn raise_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        hard
    } else {
        soft
    }
}

/// Replaces a small file at start: temp, fsync, rename, fsync of the folder.
///
/// # Errors
/// The kernel's.
pub fn replace_small(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    super::lane::replace(path, &super::whole(bytes.to_vec()), None).map(|_| ())
}

/// Bytes of memory of this machine.
#[must_use]
pub fn memory_size() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    let number = |what| {
        sysconf(what)
            .ok()
            .flatten()
            .and_then(|value| u64::try_from(value).ok())
    };
    number(SysconfVar::_PHYS_PAGES).unwrap_or(0) * number(SysconfVar::PAGE_SIZE).unwrap_or(4096)
}

/// Whether the file system of a folder takes buffered writes of a ring without handing them to a worker:
/// it says so with FOP_BUFFER_WASYNC, which XFS has since 6.0 and btrfs since 6.1, and ext4 never had.
#[must_use]
pub fn ring_writes_at_once(folder: &Path) -> bool {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};
    statfs(folder).is_ok_and(|stat| {
        let kind = stat.filesystem_type();
        kind == XFS_SUPER_MAGIC || kind == BTRFS_SUPER_MAGIC
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_become_short_and_nothing_else_changes() {
        let thread = std::thread::spawn(|| {
            let before = scheduling().expect("the kernel tells");
            take_short_turns();
            (before, scheduling().expect("the kernel tells"))
        });
        let (before, after) = thread.join().unwrap();
        let rest = |of: &libc::sched_attr| (of.sched_policy, of.sched_nice, of.sched_flags);
        assert_eq!(rest(&before), rest(&after));
        // Before 6.12 there is no slice of one's own to be told.
        let slices = (before.sched_runtime, after.sched_runtime);
        assert!(
            matches!(slices, (_, 100_000) | (0, 0)),
            "{slices:?} instead of a tenth of a millisecond"
        );
    }
}

//! The one system call of a turn: submit, wait, give up. Each way to make it cheaper is a witness that only
//! [`super::features`] hands out. See kernel-notes/registered-resources.md.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, RawFd};

use io_uring::{EnterFlags, IoUring};
use memmap2::MmapMut;
use nix::errno::Errno;

const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;
const REGISTER_MEM_REGION: libc::c_uint = 34;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `struct io_uring_region_desc`.
#[repr(C)]
#[derive(Default)]
struct Region {
    user_addr: u64,
    size: u64,
    flags: u32,
    id: u32,
    mmap_offset: u64,
    resv: [u64; 4],
}

/// The memory is ours.
const REGION_OF_USER: u32 = 1;

/// `struct io_uring_mem_region_reg`.
#[repr(C)]
struct RegionUse {
    region: u64,
    flags: u64,
    resv: [u64; 2],
}

/// The region holds arguments of waits.
const USE_WAIT_ARGUMENT: u64 = 1;

/// `struct io_uring_reg_wait`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct WaitArgument {
    seconds: i64,
    nanoseconds: i64,
    min_wait_usec: u32,
    flags: u32,
    sigmask: u64,
    sigmask_size: u32,
    pad: [u32; 3],
    pad2: [u64; 2],
}

const _: () = assert!(size_of::<WaitArgument>() == 64 && size_of::<Region>() == 64);

/// The time in it counts.
const WAIT_HAS_TIME: u32 = 1;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct EventsArgument {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    time: u64,
}

const PAGE_SIZE: usize = 4096;

/// Memory that the kernel reads the argument of a wait from, without copying or checking it.
pub(super) struct RegisteredWait {
    memory: MmapMut,
}

impl RegisteredWait {
    /// Of a ring that is set up and not yet enabled; later the kernel refuses.
    pub(super) fn new(ring: &IoUring) -> Option<Self> {
        let memory = MmapMut::map_anon(PAGE_SIZE).ok()?;
        let region = Region {
            user_addr: memory.as_ptr() as u64,
            size: PAGE_SIZE as u64,
            flags: REGION_OF_USER,
            ..Region::default()
        };
        let mut wanted = RegionUse {
            region: &raw const region as u64,
            flags: USE_WAIT_ARGUMENT,
            resv: [0; 2],
        };
        register(ring.as_raw_fd(), REGISTER_MEM_REGION, &mut wanted).ok()?;
        Some(Self { memory })
    }

    fn place(&self, wait_ns: u64) {
        let argument = WaitArgument {
            seconds: (wait_ns / 1_000_000_000) as i64,
            nanoseconds: (wait_ns % 1_000_000_000) as i64,
            flags: WAIT_HAS_TIME,
            ..WaitArgument::default()
        };
        let start = self.memory.as_ptr().cast::<WaitArgument>().cast_mut();
        // SAFETY: the page is ours, aligned and large enough, and mapped for writing. The kernel has pinned
        // it and reads it only inside the call that follows, of this thread.
        unsafe { start.write_volatile(argument) };
    }
}

/// How a ring is entered. Dropped before its ring.
pub(in crate::io) struct Door {
    /// The ring's descriptor, open as long as the ring.
    ring: RawFd,
    /// The ring's place in the table of this thread, instead of its descriptor.
    place: Option<u32>,
    wait: Option<RegisteredWait>,
    /// In each call that waits.
    flags: u32,
}

impl Door {
    /// By descriptor, with the time to wait in memory that the kernel copies.
    pub(super) fn plain(ring: &IoUring) -> Self {
        Self {
            ring: ring.as_raw_fd(),
            place: None,
            wait: None,
            flags: 0,
        }
    }

    /// By a place in a table of the calling thread, which alone may enter. None: no room in it (16 places),
    /// or no such table (before 5.18).
    pub(super) fn registered(ring: &IoUring) -> Option<Self> {
        let mut door = Self::plain(ring);
        let mut update = RingUpdate {
            offset: u32::MAX,
            resv: 0,
            data: door.ring as u64,
        };
        register(door.ring, REGISTER_RING_FDS, &mut update).ok()?;
        door.place = Some(update.offset);
        Some(door)
    }

    pub(super) fn by_registered_wait(mut self, wait: RegisteredWait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// A wait that the scheduler does not count as waiting for a disk.
    pub(super) fn without_iowait(mut self) -> Self {
        self.flags = EnterFlags::NO_IOWAIT.bits();
        self
    }

    /// Whether it is entered by its place, with a registered wait, not counted as waiting for a disk.
    #[cfg(test)]
    pub(super) fn ways(&self) -> (bool, bool, bool) {
        (self.place.is_some(), self.wait.is_some(), self.flags != 0)
    }

    /// Submits, runs what is due, and waits at most `wait_ns` until `want` completions are there.
    pub(super) fn enter(&self, queued: u32, want: u32, wait_ns: u64) -> Result<(), Errno> {
        let mut flags = EnterFlags::GETEVENTS.bits();
        let (descriptor, registered) = match self.place {
            Some(place) => (place as RawFd, EnterFlags::REGISTERED_RING.bits()),
            None => (self.ring, 0),
        };
        flags |= registered;
        if want == 0 {
            return call(descriptor, [queued, want, flags], 0, 0);
        }
        flags |= EnterFlags::EXT_ARG.bits() | self.flags;
        if let Some(wait) = &self.wait {
            wait.place(wait_ns);
            // The argument is a place in the region, and the first one is 0.
            let size = size_of::<WaitArgument>();
            return call(
                descriptor,
                [queued, want, flags | EnterFlags::EXT_ARG_REG.bits()],
                0,
                size,
            );
        }
        let time = [
            (wait_ns / 1_000_000_000) as i64,
            (wait_ns % 1_000_000_000) as i64,
        ];
        let argument = EventsArgument {
            sigmask: 0,
            sigmask_size: 0,
            min_wait_usec: 0,
            time: time.as_ptr() as u64,
        };
        let address = &raw const argument as usize;
        call(
            descriptor,
            [queued, want, flags],
            address,
            size_of::<EventsArgument>(),
        )
    }
}

impl Drop for Door {
    /// A place in the table keeps the ring open.
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut update = RingUpdate {
                offset: place,
                resv: 0,
                data: 0,
            };
            let _ = register(self.ring, UNREGISTER_RING_FDS, &mut update);
        }
    }
}

fn call(ring: RawFd, counts: [u32; 3], argument: usize, size: usize) -> Result<(), Errno> {
    let [queued, want, flags] = counts;
    // SAFETY: the argument is 0, a place in a registered region, or the address of a value that its caller
    // holds until this returns. Entries queued own their memory, see `Uring::fill_queue`.
    let entered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            queued,
            want,
            flags,
            argument,
            size,
        )
    };
    Errno::result(entered).map(drop)
}

fn register<T>(ring: RawFd, what: libc::c_uint, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the argument is what this operation reads and writes, and outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            what,
            std::ptr::from_mut(argument),
            1,
        )
    };
    Errno::result(done).map(drop)
}

//! Read-only maps of segments, made at first use. Only the kernel touches them: `sendmsg` from a page
//! that cannot be read answers EFAULT where a load would be SIGBUS.
#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::fs::File;

use memmap2::{Advice, Mmap, MmapOptions};
use nix::errno::Errno;

/// The map of one file, or none yet.
#[derive(Debug, Default)]
pub(super) struct Mapped(OnceCell<Mmap>);

impl Mapped {
    /// Address of a range, for an iovec or a question. ERANGE: the file was shorter when it was mapped.
    pub(super) fn address(&self, file: &File, at: u64, len: u64) -> Result<*const u8, Errno> {
        let map = match self.0.get() {
            Some(map) => map,
            None => {
                // SAFETY: nobody makes a reference into the map: its address goes into iovecs, and the
                // kernel copes with a file that shrinks.
                let map = unsafe { MmapOptions::new().map(file) }
                    .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
                // Faults around one record must not read what lies behind it.
                let _ = map.advise(Advice::Random);
                self.0.get_or_init(|| map)
            }
        };
        let end = at.checked_add(len).ok_or(Errno::ERANGE)?;
        if map.len() as u64 <= at || (map.len() as u64) < end {
            return Err(Errno::ERANGE);
        }
        Ok(map.as_ptr().wrapping_add(at as usize))
    }
}

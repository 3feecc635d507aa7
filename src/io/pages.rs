//! Memory that direct I/O takes: whole pages, at the address of a page.

use memmap2::MmapMut;
use nix::errno::Errno;

/// Direct I/O is aligned to this, in memory and in files: no disk has larger logical blocks, and it is the page.
pub const PAGE_SIZE: u64 = 4096;

/// A buffer of whole pages, for one operation at a time. Fresh ones read as zeros.
#[derive(Debug)]
pub struct Pages {
    memory: MmapMut,
    /// Bytes of it that count.
    len: usize,
}

impl Pages {
    /// At least that many bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// ENOMEM, where the machine gives no more memory.
    pub fn new(size: usize) -> Result<Self, Errno> {
        let len = size.max(1).next_multiple_of(PAGE_SIZE as usize);
        let memory = MmapMut::map_anon(len)
            .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::ENOMEM)))?;
        Ok(Self { memory, len })
    }

    /// Bytes that it could hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Lets so many of its bytes count: of a read that is asked for, or of one that came back short.
    ///
    /// # Panics
    /// Beyond its capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.memory.len(), "a buffer does not grow");
        self.len = len;
    }

    /// What counts.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    /// Likewise, to be filled.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

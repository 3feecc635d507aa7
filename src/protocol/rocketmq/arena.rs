//! Where text goes that does not stand in a frame as it is meant: bytes first, found to be text once, at the end.

use super::frame::FrameError;

/// Bytes copied at once. Nearly every piece of a string between two escapes is shorter.
const STRIDE: usize = 16;

/// Bytes that are text when all are there. Its memory stays for the next header.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Longer than what is in use: a copy may write on behind its end, and what follows overwrites it.
    bytes: Vec<u8>,
    len: usize,
}

impl Arena {
    /// Forgets what it holds.
    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    /// Forgets what stands behind its first bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `size` bytes in all.
    #[inline]
    pub(super) fn reserve(&mut self, size: usize) {
        if self.bytes.len() < size + STRIDE {
            self.bytes.resize(size + STRIDE, 0);
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// What is in it so far.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// All of it as text.
    #[inline]
    pub(super) fn text(&self) -> Result<&str, FrameError> {
        std::str::from_utf8(self.bytes())
            .map_err(|error| FrameError::header(error.valid_up_to(), "text that is not UTF-8"))
    }

    /// Appends `from[start..end]`; there must be room.
    #[inline]
    pub(super) fn copy(&mut self, from: &[u8], start: usize, end: usize) {
        let len = end - start;
        let at = self.len;
        self.len += len;
        // A copy of a fixed size is two instructions; one of another size is a call.
        if len <= STRIDE
            && let Some(chunk) = from[start..].first_chunk::<STRIDE>()
            && let Some(room) = self.bytes[at..].first_chunk_mut::<STRIDE>()
        {
            *room = *chunk;
            return;
        }
        self.bytes[at..at + len].copy_from_slice(&from[start..end]);
    }

    /// Appends a byte; there must be room.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Appends a character; there must be room.
    pub(super) fn push_char(&mut self, character: char) {
        let mut buffer = [0; 4];
        let text = character.encode_utf8(&mut buffer).as_bytes();
        self.copy(text, 0, text.len());
    }

    /// Takes a copy of all these bytes, to be changed in place.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> &mut [u8] {
        self.reserve(bytes.len());
        self.len = bytes.len();
        let copy = &mut self.bytes[..bytes.len()];
        copy.copy_from_slice(bytes);
        copy
    }
}

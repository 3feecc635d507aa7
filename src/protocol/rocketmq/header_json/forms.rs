//! Headers that were read before. A client's next header is most often its last one with other digits in the
//! same places: where it is, nothing has to be looked for.
//!
//! Of a header that was read, the form is kept: which of its bytes must be the same in the next one, and which
//! may be another digit, or another character of the same text. A header of this form means the same, but for
//! these bytes, so what was found where is found there again. All others are read from the beginning.

use wide::u8x16;

use crate::protocol::rocketmq::arena::Arena;
use crate::protocol::rocketmq::frame::{Header, Piece};

/// Forms that are kept, by the length of their headers: those of one client and kind of request differ in it.
const COUNT: usize = 64;

/// No form is kept of a longer header: there is more in it than there is to read.
const SIZE_MAX: usize = 2048;

/// A form that was kept gives way when so many others came in its place, and none of its own between.
const STRANGERS_MAX: u8 = 8;

/// Bytes that are compared at once.
const STRIDE: usize = 16;

/// What of a header was copied to the arena: a piece of it, and the byte for an escape behind that.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol::rocketmq) struct Copied {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) then: Option<u8>,
}

/// What reading a header has found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Where the digits of the opaque stand, if it is made of digits only.
    pub(super) opaque: Option<(usize, usize)>,
    /// `None` where something in the arena was not copied byte by byte.
    pub(super) copied: Option<&'a [Copied]>,
    pub(super) fields: &'a [(Piece, Piece)],
    pub(super) header: Header,
}

/// The forms of the headers that came last.
#[derive(Debug, Default)]
pub(in crate::protocol::rocketmq) struct Forms(Vec<Option<Form>>);

#[derive(Debug)]
struct Form {
    /// As it was, in whole strides.
    bytes: Vec<u8>,
    len: usize,
    /// All bits of the bytes that must be the same.
    same: Vec<u8>,
    /// All bits of the bytes that may be any digit. The rest may be anything but quotes and backslashes.
    digits: Vec<u8>,
    opaque: Option<(usize, usize)>,
    copied: Vec<Copied>,
    fields: Vec<(Piece, Piece)>,
    header: Header,
    strangers: u8,
}

impl Forms {
    /// Reads a header of a known form: fields and arena as reading it from the beginning leaves them.
    #[inline]
    pub(super) fn recall(
        &mut self,
        bytes: &[u8],
        fields: &mut Vec<(Piece, Piece)>,
        arena: &mut Arena,
    ) -> Option<Header> {
        let form = self.0.get_mut(bytes.len() % COUNT)?.as_mut()?;
        if !form.fits(bytes) {
            form.strangers = form.strangers.saturating_add(1);
            return None;
        }
        form.strangers = 0;
        fields.extend_from_slice(&form.fields);
        if !form.copied.is_empty() {
            arena.reserve(bytes.len());
            for copied in &form.copied {
                arena.copy(bytes, copied.start as usize, copied.end as usize);
                if let Some(byte) = copied.then {
                    arena.push(byte);
                }
            }
        }
        let mut header = form.header;
        if let Some((start, end)) = form.opaque {
            header.opaque = number(&bytes[start..end])?;
        }
        Some(header)
    }

    /// Keeps the form of a header that was read, if it has one and there is room for it.
    pub(super) fn keep(&mut self, bytes: &[u8], arena_len: usize, found: &Found<'_>) {
        if SIZE_MAX < bytes.len() {
            return;
        }
        let Some(copied) = found.copied else {
            return;
        };
        // What else is in the arena means something to the header itself.
        let fields = found.fields.iter().flat_map(|(name, value)| [name, value]);
        let in_arena = fields.filter(|piece| piece.is_in_arena());
        if in_arena.map(|piece| piece.len()).sum::<usize>() != arena_len {
            return;
        }
        self.0.resize_with(COUNT, || None);
        let place = &mut self.0[bytes.len() % COUNT];
        if place
            .as_ref()
            .is_none_or(|form| STRANGERS_MAX <= form.strangers)
        {
            *place = Some(Form::of(bytes, copied, found));
        }
    }
}

impl Form {
    fn of(bytes: &[u8], copied: &[Copied], found: &Found<'_>) -> Self {
        let size = bytes.len().next_multiple_of(STRIDE);
        let mut form = Self {
            bytes: bytes.to_vec(),
            len: bytes.len(),
            same: vec![0xff; size],
            digits: vec![0; size],
            opaque: found.opaque,
            copied: copied.to_vec(),
            fields: found.fields.to_vec(),
            header: found.header,
            strangers: 0,
        };
        form.bytes.resize(size, 0);
        for copied in copied {
            form.may_be_text(copied.start as usize, copied.end as usize);
        }
        for (_, value) in found.fields {
            let Some((start, end)) = value.in_header() else {
                continue;
            };
            if bytes[start - 1] == b'"' {
                form.may_be_text(start, end);
            } else if bytes[start..end].iter().all(u8::is_ascii_digit) {
                form.may_be_digits(start, end);
            }
        }
        if let Some((start, end)) = found.opaque {
            form.may_be_digits(start, end);
        }
        form
    }

    /// All of the header is text, and what ends a piece of it is ASCII: so is every such piece, whatever is in it.
    fn may_be_text(&mut self, start: usize, end: usize) {
        self.same[start..end].fill(0);
    }

    fn may_be_digits(&mut self, start: usize, end: usize) {
        self.same[start..end].fill(0);
        self.digits[start..end].fill(0xff);
    }

    #[inline]
    fn fits(&self, bytes: &[u8]) -> bool {
        if bytes.len() != self.len {
            return false;
        }
        let (strides, rest) = bytes.as_chunks::<STRIDE>();
        let own = self.bytes.as_chunks::<STRIDE>().0.iter();
        let masks = self.same.as_chunks::<STRIDE>().0.iter();
        let masks = masks.zip(self.digits.as_chunks::<STRIDE>().0);
        let mut last = [0; STRIDE];
        last[..rest.len()].copy_from_slice(rest);
        let given = strides.iter().chain((!rest.is_empty()).then_some(&last));
        let mut wrong = u8x16::splat(0);
        for ((given, own), (same, digits)) in given.zip(own).zip(masks) {
            wrong |= differs(
                u8x16::new(*given),
                u8x16::new(*own),
                u8x16::new(*same),
                u8x16::new(*digits),
            );
        }
        wrong == u8x16::splat(0)
    }
}

/// Not zero where a byte is not one that may stand there.
#[inline]
fn differs(given: u8x16, own: u8x16, same: u8x16, digits: u8x16) -> u8x16 {
    let all = u8x16::splat(0xff);
    let changed = (given ^ own) & same;
    let zero = u8x16::splat(b'0');
    let nine = u8x16::splat(b'9');
    let no_digit = (given.max(nine).simd_eq(nine) & given.min(zero).simd_eq(zero)) ^ all;
    let quotes = given.simd_eq(u8x16::splat(b'"')) | given.simd_eq(u8x16::splat(b'\\'));
    changed | (no_digit & digits) | (quotes & (same ^ all))
}

/// Ten digits do not overflow; what is too large for a header is told by who reads it from the beginning.
fn number(digits: &[u8]) -> Option<i32> {
    let number = digits
        .iter()
        .fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    i32::try_from(number).ok()
}

#[cfg(test)]
mod tests;

//! Where two bytes stand among others, sixty-four at a time.
//!
//! A header has some fifty strings of a few bytes each, a record's properties as many names and values: to
//! look for the end of each of them anew costs more than to mark all ends of a block at once and to count
//! zeros from one to the next.

use wide::u8x16;

const BLOCK: usize = 64;

/// The marks of the block that was looked at last. A value: a loop keeps it in registers.
#[derive(Debug, Clone, Copy)]
pub struct Marks<const ONE: u8, const OTHER: u8> {
    base: usize,
    /// Bit n: one of the two stands at `base + n`.
    bits: u64,
}

impl<const ONE: u8, const OTHER: u8> Marks<ONE, OTHER> {
    /// Looks at the first bytes.
    #[must_use]
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        let (base, bits) = look::<ONE, OTHER>(bytes, 0);
        Self { base, bits }
    }

    /// Index of the first of the two from `start` on, or the length of all. `bytes` must be those it began with.
    #[inline]
    pub fn next(&mut self, bytes: &[u8], start: usize) -> usize {
        let offset = start.wrapping_sub(self.base);
        let behind = if offset < BLOCK {
            let rest = self.bits >> offset;
            if rest != 0 {
                return start + rest.trailing_zeros() as usize;
            }
            self.base + BLOCK
        } else {
            start
        };
        (self.base, self.bits) = look::<ONE, OTHER>(bytes, behind);
        if self.bits == 0 {
            return bytes.len();
        }
        self.base + self.bits.trailing_zeros() as usize
    }
}

/// Where the first block from `at` on that has a mark begins, and its marks; none where none has one.
#[inline(never)]
fn look<const ONE: u8, const OTHER: u8>(bytes: &[u8], mut at: usize) -> (usize, u64) {
    while at < bytes.len() {
        let rest = &bytes[at..];
        let bits = match rest.first_chunk() {
            Some(block) => marks::<ONE, OTHER>(block),
            // The last block, without the bytes in front of these.
            None => match bytes.last_chunk() {
                Some(block) => marks::<ONE, OTHER>(block) >> (BLOCK - rest.len()),
                None => {
                    let mut block = [0; BLOCK];
                    block[..rest.len()].copy_from_slice(rest);
                    marks::<ONE, OTHER>(&block)
                }
            },
        };
        if bits != 0 {
            return (at, bits);
        }
        at += BLOCK;
    }
    (at, 0)
}

/// One bit a byte.
#[inline]
fn marks<const ONE: u8, const OTHER: u8>(block: &[u8; BLOCK]) -> u64 {
    let (one, other) = (u8x16::splat(ONE), u8x16::splat(OTHER));
    let (chunks, _) = block.as_chunks::<16>();
    let mut bits = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = u8x16::new(*chunk);
        let found = bytes.simd_eq(one) | bytes.simd_eq(other);
        bits |= u64::from(found.to_bitmask()) << (16 * index);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    type Quotes = Marks<b'"', b'\\'>;

    #[test]
    fn marks_are_found_at_every_place() {
        for len in 0..200 {
            for mark in [b'"', b'\\'] {
                for at in 0..len {
                    let mut bytes = vec![0xa3; len];
                    bytes[at] = mark;
                    let mut marks = Quotes::new(&bytes);
                    for start in 0..=at {
                        assert_eq!(marks.next(&bytes, start), at);
                        assert_eq!(Quotes::new(&bytes).next(&bytes, start), at);
                    }
                    assert_eq!(marks.next(&bytes, at + 1), len);
                    assert_eq!(marks.next(&bytes, at), at, "back again");
                    assert_eq!(marks.next(&bytes, len + 1), len);
                }
            }
        }
    }

    #[test]
    fn a_block_has_a_bit_for_each_mark_and_no_other() {
        let mut prng = super::super::Prng::from_seed(7);
        for _ in 0..10_000 {
            // Neighbours of the two marks, and bytes that differ from them in one bit, come often.
            let block = std::array::from_fn(|_| {
                let base = [b'"', b'\\', 0, 0xff][prng.below(4) as usize];
                base ^ [0, 0, 1, 0x80][prng.below(4) as usize]
            });
            let plain = block.iter().rev().fold(0, |bits, byte| {
                bits << 1 | u64::from(matches!(byte, b'"' | b'\\'))
            });
            assert_eq!(marks::<b'"', b'\\'>(&block), plain, "{block:x?}");
        }
    }
}

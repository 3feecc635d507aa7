//! The checksum of a whole record out of the checksums of its parts: no byte of a body is read twice.

/// Of CRC-32, lowest bit first.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// For each power of two that a length may have: what so many zero bytes behind it make of a checksum, for
/// each value of each of its eight half-bytes.
static BEHIND: [[[u32; 16]; 8]; 32] = tables();

/// Below this it is faster to read a body again than to put three checksums together. Measured.
const BODY_SIZE_MIN: usize = 512;

/// The checksum of `bytes`, of which those from `at` on, `len` of them, have the checksum `inner`.
#[inline]
pub(super) fn around(bytes: &[u8], at: usize, len: usize, inner: u32) -> u32 {
    if len < BODY_SIZE_MIN {
        return crc32fast::hash(bytes);
    }
    between(&bytes[..at], inner, len, &bytes[at + len..])
}

/// The checksum of `before`, `len` bytes with the checksum `inner`, and `behind`.
pub(super) fn between(before: &[u8], inner: u32, len: usize, behind: &[u8]) -> u32 {
    let crc = joined(crc32fast::hash(before), inner, len);
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(behind);
    hasher.finalize()
}

/// The checksum of two parts, one behind the other: the second is `len` bytes long.
fn joined(first: u32, second: u32, len: usize) -> u32 {
    let mut crc = first;
    let mut left = len as u32;
    while left != 0 {
        let table = &BEHIND[left.trailing_zeros() as usize];
        crc = (0..8).fold(0, |sum, half| {
            sum ^ table[half][(crc >> (4 * half) & 15) as usize]
        });
        left &= left - 1;
    }
    crc ^ second
}

const fn tables() -> [[[u32; 16]; 8]; 32] {
    // What one zero byte makes of each single bit. Checksums are linear: of several bits it makes the sum.
    let mut columns = [0; 32];
    let mut bit = 0;
    while bit < 32 {
        let mut crc = 1u32 << bit;
        let mut step = 0;
        while step < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * POLYNOMIAL);
            step += 1;
        }
        columns[bit] = crc;
        bit += 1;
    }
    let mut all = [[[0; 16]; 8]; 32];
    let mut power = 0;
    while power < 32 {
        let mut half = 0;
        while half < 8 {
            let mut value = 0;
            while value < 16 {
                all[power][half][value] = sum(&columns, (value as u32) << (4 * half));
                value += 1;
            }
            half += 1;
        }
        // Twice as many zero bytes.
        let mut doubled = [0; 32];
        let mut bit = 0;
        while bit < 32 {
            doubled[bit] = sum(&columns, columns[bit]);
            bit += 1;
        }
        columns = doubled;
        power += 1;
    }
    all
}

/// The columns of the bits that are set, added.
const fn sum(columns: &[u32; 32], mut bits: u32) -> u32 {
    let mut sum = 0;
    while bits != 0 {
        sum ^= columns[bits.trailing_zeros() as usize];
        bits &= bits - 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..70_000u32).map(|at| (at * 31 % 251) as u8).collect();
        for len in (0..300).chain([1023, 1024, 4097, 65_535, 65_536, 69_900]) {
            for begin in [0, 1, 88] {
                let inner = &bytes[begin..begin + len];
                let whole = crc32fast::hash(&bytes);
                assert_eq!(around(&bytes, begin, len, crc32fast::hash(inner)), whole);
                let (before, behind) = (&bytes[..begin], &bytes[begin + len..]);
                assert_eq!(between(before, crc32fast::hash(inner), len, behind), whole);
                let crc = joined(
                    crc32fast::hash(&bytes[..begin]),
                    crc32fast::hash(inner),
                    len,
                );
                assert_eq!(
                    crc,
                    crc32fast::hash(&bytes[..begin + len]),
                    "{begin} and {len}"
                );
            }
        }
    }
}

//! The bytes of an IndexFile: header, slots, entries, and its name.

use crate::base::{PhysicalOffset, Reader, Writer};

pub(super) const HEADER_SIZE: u64 = 8 + 8 + 8 + 8 + 4 + 4;
pub(super) const SLOT_SIZE: u64 = 4;
pub(super) const ENTRY_SIZE: u64 = 4 + 8 + 4 + 4;
const PREVIOUS_AT: usize = 4 + 8 + 4;
const _: () = assert!(HEADER_SIZE == 40 && ENTRY_SIZE == 20);

/// The front of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub begin_ms: i64,
    pub end_ms: i64,
    pub begin_offset: PhysicalOffset,
    pub end_offset: PhysicalOffset,
    pub slot_used_count: u32,
    /// The entry that comes next; the first is 1.
    pub next_number: u32,
}

impl Header {
    pub(super) const EMPTY: Self = Self {
        begin_ms: 0,
        end_ms: 0,
        begin_offset: PhysicalOffset(0),
        end_offset: PhysicalOffset(0),
        slot_used_count: 0,
        next_number: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE as usize);
        bytes.put_i64(self.begin_ms);
        bytes.put_i64(self.end_ms);
        bytes.put_u64(self.begin_offset.0);
        bytes.put_u64(self.end_offset.0);
        bytes.put_u32(self.slot_used_count);
        bytes.put_u32(self.next_number);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            begin_ms: reader.i64()?,
            end_ms: reader.i64()?,
            begin_offset: PhysicalOffset(reader.u64()?),
            end_offset: PhysicalOffset(reader.u64()?),
            slot_used_count: reader.u32()?,
            next_number: reader.u32()?,
        })
    }

    /// Whole seconds since the first record, as entries hold them.
    pub(super) fn seconds(&self, store_ms: i64) -> u32 {
        let seconds = store_ms.saturating_sub(self.begin_ms) / 1000;
        seconds.clamp(0, i64::from(i32::MAX)) as u32
    }
}

/// One key of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub hash: u32,
    pub offset: PhysicalOffset,
    pub seconds: u32,
    /// The entry before it in the chain of its slot; 0 = none.
    pub previous: u32,
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_SIZE as usize] {
        let mut bytes = [0; ENTRY_SIZE as usize];
        bytes[..4].copy_from_slice(&self.hash.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[16..].copy_from_slice(&self.previous.to_be_bytes());
        bytes
    }

    /// The entry at the front of these bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            hash: reader.u32()?,
            offset: PhysicalOffset(reader.u64()?),
            seconds: reader.u32()?,
            previous: reader.u32()?,
        })
    }
}

/// Sets [`Entry::previous`] of an encoded entry.
pub(super) fn set_previous(entry: &mut [u8], previous: u32) {
    entry[PREVIOUS_AT..].copy_from_slice(&previous.to_be_bytes());
}

/// A file's name as a number, if it is one: 17 digits, year to millisecond.
pub(super) fn stamp_of(name: &str) -> Option<u64> {
    let is_name = name.len() == 17 && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_name { name.parse().ok() } else { None }
}

/// The name of a file made now, behind all others: files are ordered by their names. Apache writes local
/// time, so that after its files, or a clock that was set back, the next free number is taken.
pub(super) fn stamp_after(last: Option<u64>, wall_ms: u64) -> u64 {
    let now = stamp_at(wall_ms);
    match last {
        Some(last) if now <= last => last + 1,
        _ => now,
    }
}

/// yyyyMMddHHmmssSSS in UTC.
fn stamp_at(wall_ms: u64) -> u64 {
    let (days, ms_of_day) = (wall_ms / 86_400_000, wall_ms % 86_400_000);
    let (year, month, day) = date_of(days);
    let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
    let date = (year * 100 + month) * 100 + day;
    ((date * 100 + hour) * 100 + minute) * 100_000 + ms_of_day % 60_000
}

/// Year, month and day of a day since 1970, counting in years that begin in March so that the odd day of
/// a leap year is the last.
fn date_of(days: u64) -> (u64, u64, u64) {
    const DAYS_400_YEARS: u64 = 146_097;
    let since_0000_03_01 = days + 719_468;
    let (era, day) = (
        since_0000_03_01 / DAYS_400_YEARS,
        since_0000_03_01 % DAYS_400_YEARS,
    );
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day + 2) / 153;
    let day = day - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_times_and_never_twice_the_same() {
        assert_eq!(stamp_at(0), 19_700_101_000_000_000);
        assert_eq!(stamp_at(951_782_399_999), 20_000_228_235_959_999);
        assert_eq!(stamp_at(951_827_696_789), 20_000_229_123_456_789);
        assert_eq!(stamp_at(1_700_000_000_123), 20_231_114_221_320_123);
        assert_eq!(stamp_at(4_107_542_400_000), 21_000_301_000_000_000);
        assert_eq!(
            stamp_after(Some(20_231_114_221_320_123), 1_700_000_000_123),
            20_231_114_221_320_124
        );
        assert_eq!(stamp_after(Some(7), 0), 19_700_101_000_000_000);
        assert_eq!(stamp_of("20231114221320123"), Some(20_231_114_221_320_123));
        assert_eq!(stamp_of("2023111422132012"), None);
        assert_eq!(stamp_of("2023111422132012x"), None);
    }
}

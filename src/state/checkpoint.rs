//! `checkpoint`: how far the files of a shard are on disk. Apache's six numbers, and ours behind them.
//!
//! Apache's broker maps this file and writes its numbers in place, so ours survive its run: the CRC over
//! both tells whether they still belong together. Where it is wrong, Apache's broker wrote last, and what
//! we knew about the log no longer holds.

use super::StateError;
use crate::base::{Reader, Writer};

const FILE: &str = "checkpoint";

/// Apache maps this much.
pub const SIZE: usize = 4096;
/// Apache's fields, P§3.9: six of eight bytes.
const APACHE_SIZE: usize = 6 * 8;
/// Ours begin here and not right behind the six: Apache has added fields before.
const OURS_AT: usize = 512;
/// "CoreLane" in ASCII.
const MAGIC: u64 = 0x436f_7265_4c61_6e65;
const VERSION: u32 = 2;
/// Magic 8, version 4, clean 4, five offsets and numbers of 8, two counts of 4.
const CRC_AT: usize = OURS_AT + 8 + 4 + 4 + 5 * 8 + 2 * 4;
const _: () = assert!(APACHE_SIZE <= OURS_AT && CRC_AT + 4 <= SIZE);

/// The whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Store time of the last record of the CommitLog that is on disk.
    pub physic_msg_ms: i64,
    /// Store time of the last record whose ConsumeQueue unit is on disk.
    pub logics_msg_ms: i64,
    /// Store time of the last record in the last full IndexFile.
    pub index_msg_ms: i64,
    /// Replication's, 0 here.
    pub master_flushed: i64,
    /// Replication's, 0 here.
    pub confirm: i64,
    /// Start of the last record in the ConsumeQueues.
    pub logics_physical_offset: i64,
    /// `None`: Apache's broker wrote the file last, or it is older than this broker.
    pub ours: Option<Ours>,
}

/// What Apache's broker does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ours {
    /// Physical offset below which everything is durable.
    pub synced: u64,
    /// Physical offset that appends never pass before it is moved durably.
    pub horizon: u64,
    /// Physical offset below which ConsumeQueues and IndexFiles are durable.
    pub dispatched: u64,
    /// Records below this physical offset may be Apache's, without a CRC trailer.
    pub takeover: u64,
    /// Which life of the log: another one after each cut.
    pub generation: u64,
    /// ConsumeQueues with units below `dispatched`: as many folders must be there, or somebody took one away.
    pub queue_count: u32,
    /// IndexFiles, likewise.
    pub index_count: u32,
    /// The shard was stopped in order.
    pub clean: bool,
}

/// Reads the file. An error means that it is too short to be a checkpoint.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, StateError> {
    let mut reader = Reader::new(bytes);
    let mut apache = [0; 6];
    for field in &mut apache {
        *field = reader.i64().ok_or_else(|| StateError {
            file: FILE,
            line: 1,
            column: bytes.len() + 1,
            why: format!(
                "{} bytes are too few, {APACHE_SIZE} are the least",
                bytes.len()
            ),
        })?;
    }
    let [
        physic_msg_ms,
        logics_msg_ms,
        index_msg_ms,
        master_flushed,
        confirm,
        logics,
    ] = apache;
    Ok(Checkpoint {
        physic_msg_ms,
        logics_msg_ms,
        index_msg_ms,
        master_flushed,
        confirm,
        logics_physical_offset: logics,
        ours: decode_ours(bytes),
    })
}

fn decode_ours(bytes: &[u8]) -> Option<Ours> {
    let mut reader = Reader::new(bytes.get(OURS_AT..)?);
    if reader.u64()? != MAGIC || reader.u32()? != VERSION {
        return None;
    }
    let clean = reader.u32()? == 1;
    let ours = Ours {
        synced: reader.u64()?,
        horizon: reader.u64()?,
        dispatched: reader.u64()?,
        takeover: reader.u64()?,
        generation: reader.u64()?,
        queue_count: reader.u32()?,
        index_count: reader.u32()?,
        clean,
    };
    let crc = reader.u32()?;
    (crc == crc32fast::hash(&bytes[..CRC_AT])).then_some(ours)
}

/// Writes the file.
#[must_use]
pub fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    bytes.put_i64(checkpoint.physic_msg_ms);
    bytes.put_i64(checkpoint.logics_msg_ms);
    bytes.put_i64(checkpoint.index_msg_ms);
    bytes.put_i64(checkpoint.master_flushed);
    bytes.put_i64(checkpoint.confirm);
    bytes.put_i64(checkpoint.logics_physical_offset);
    assert_eq!(bytes.len(), APACHE_SIZE);
    if let Some(ours) = &checkpoint.ours {
        bytes.resize(OURS_AT, 0);
        bytes.put_u64(MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u32(u32::from(ours.clean));
        bytes.put_u64(ours.synced);
        bytes.put_u64(ours.horizon);
        bytes.put_u64(ours.dispatched);
        bytes.put_u64(ours.takeover);
        bytes.put_u64(ours.generation);
        bytes.put_u32(ours.queue_count);
        bytes.put_u32(ours.index_count);
        assert_eq!(bytes.len(), CRC_AT);
        bytes.put_u32(crc32fast::hash(&bytes));
    }
    bytes.resize(SIZE, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            physic_msg_ms: 1_795_243_105_716,
            logics_msg_ms: 1_795_243_105_715,
            index_msg_ms: 3,
            master_flushed: 4,
            confirm: 5,
            logics_physical_offset: 6,
            ours: Some(Ours {
                synced: 7,
                horizon: 64 << 20,
                dispatched: 9,
                takeover: 10,
                generation: 11,
                queue_count: 12,
                index_count: 13,
                clean: true,
            }),
        }
    }

    #[test]
    fn all_of_it_comes_back() {
        let with = checkpoint();
        let without = Checkpoint { ours: None, ..with };
        let unclean = Checkpoint {
            ours: Some(Ours {
                clean: false,
                ..with.ours.unwrap()
            }),
            ..with
        };
        for checkpoint in [with, without, unclean, Checkpoint::default()] {
            let bytes = encode(&checkpoint);
            assert_eq!(bytes.len(), SIZE);
            assert_eq!(decode(&bytes).unwrap(), checkpoint);
        }
    }

    #[test]
    fn a_flipped_bit_in_what_is_used_makes_ours_worthless() {
        let bytes = encode(&checkpoint());
        for at in 0..SIZE {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let read = decode(&flipped).unwrap();
                if at < CRC_AT + 4 {
                    assert_eq!(read.ours, None, "bit {bit} of byte {at}");
                } else {
                    assert_eq!(read, checkpoint(), "bit {bit} of byte {at} is not used");
                }
            }
        }
    }

    #[test]
    fn what_apache_writes_over_ours_is_noticed() {
        let mut bytes = encode(&checkpoint());
        bytes[..8].copy_from_slice(&1_795_243_999_999i64.to_be_bytes());
        let read = decode(&bytes).unwrap();
        assert_eq!(read.physic_msg_ms, 1_795_243_999_999);
        assert_eq!(read.ours, None);
    }

    #[test]
    fn a_short_file_is_an_error_and_a_cut_one_is_apaches() {
        let bytes = encode(&checkpoint());
        for len in 0..APACHE_SIZE {
            let error = decode(&bytes[..len]).unwrap_err();
            assert_eq!(
                error.why,
                format!("{len} bytes are too few, 48 are the least")
            );
        }
        for len in APACHE_SIZE..CRC_AT + 4 {
            assert_eq!(decode(&bytes[..len]).unwrap().ours, None, "{len} bytes");
        }
    }
}

//! One stored message: its layout (P§3.1), its properties (P§3.3), its ids (P§3.5), its checksums.
//!
//! What lies in the CommitLog is what a pull answers with, byte for byte, so this is a wire format too.

mod checksum;
mod message_id;
mod properties;
pub mod sys_flag;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::{PhysicalOffset, Reader, Writer, string_hash};

pub use message_id::{message_id, parse_message_id, put_message_id};
pub use properties::{
    NAME_VALUE_SEPARATOR, PROPERTIES_SIZE_MAX, PROPERTY_SEPARATOR, Properties, TRAILER_SIZE, pairs,
    property, put_property, without,
};

use properties::{needs_separator, trailer, trailer_of};

/// Magic code of a record whose topic has at most 127 bytes: one byte says how long it is.
pub const MESSAGE_MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic code of a record with a longer topic: two bytes say how long it is.
pub const MESSAGE_MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic code of what fills a segment where the next record has no room.
pub const BLANK_MAGIC: u32 = 0xCBD4_3194;

/// Bytes of a blank that mean something; the rest of its length is left as it is.
pub const BLANK_SIZE: usize = 8;
/// Bytes of a topic that the first layout can name: Java reads its length as a signed byte.
pub const TOPIC_SIZE_MAX_V1: usize = i8::MAX as usize;
/// Bytes of a topic that the second layout can name.
pub const TOPIC_SIZE_MAX: usize = i16::MAX as usize;

// Everything up to the body's length, per family of the two hosts.
const HEAD_SIZE_V4: usize =
    4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8 + HOST_SIZE_V4 + 8 + HOST_SIZE_V4 + 4 + 8 + 4;
const HOST_SIZE_V4: usize = 4 + 4;
const HOST_SIZE_V6: usize = 16 + 4;
/// The smallest record there can be: no body, no topic, no properties.
pub const RECORD_SIZE_MIN: usize = HEAD_SIZE_V4 + 1 + 2;
const _: () = assert!(RECORD_SIZE_MIN == 91);

// Where numbers stand that lie before the first host, and so always at the same place.
const MAGIC_AT: usize = 4;
const PHYSICAL_OFFSET_AT: usize = 28;

/// Java reads checksums as signed numbers and keeps them positive.
const CRC_MASK: u32 = 0x7FFF_FFFF;

/// A record that has no place in the log yet.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The fields are those of P§3.1.
pub struct Draft<'a> {
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: u64,
    /// The bits for the families of the hosts are set by [`Draft::encode`].
    pub sys_flag: i32,
    pub born_ms: i64,
    pub born_host: SocketAddr,
    pub store_ms: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_offset: i64,
    pub body: &'a [u8],
    pub topic: &'a str,
    pub properties: Properties<'a>,
}

impl Draft<'_> {
    /// Bytes of the record.
    #[must_use]
    pub fn size(&self) -> usize {
        HEAD_SIZE_V4
            + host_growth(self.born_host)
            + host_growth(self.store_host)
            + self.body.len()
            + self.topic_len_size()
            + self.topic.len()
            + 2
            + self.properties.size()
    }

    fn topic_len_size(&self) -> usize {
        if self.topic.len() <= TOPIC_SIZE_MAX_V1 {
            1
        } else {
            2
        }
    }

    /// Appends the record, ending with its checksum, as it is stored at `physical_offset`.
    ///
    /// Topic and properties must have been measured before: what a record cannot hold is refused at the
    /// door, so here it is a mistake of the broker.
    pub fn encode(&self, physical_offset: PhysicalOffset, out: &mut Vec<u8>) {
        let size = self.begin(out);
        let start = out.len();
        let body_crc = crc32fast::hash(self.body);
        self.put_head(size, body_crc & CRC_MASK, physical_offset, out);
        let head_len = out.len() - start;
        out.put(self.body);
        self.put_behind_body(out);
        let crc = checksum::around(&out[start..], head_len, self.body.len(), body_crc);
        out.put(&trailer(crc & CRC_MASK));
        debug_assert_eq!(out.len() - start, size, "a record is as long as it says");
    }

    /// Appends the record like [`Draft::encode`], but for its body, and answers where in `out` that belongs.
    pub fn encode_around_body(&self, physical_offset: PhysicalOffset, out: &mut Vec<u8>) -> usize {
        let size = self.begin(out);
        let start = out.len();
        let body_crc = crc32fast::hash(self.body);
        self.put_head(size, body_crc & CRC_MASK, physical_offset, out);
        let body_at = out.len();
        self.put_behind_body(out);
        let (before, behind) = (&out[start..body_at], &out[body_at..]);
        let crc = checksum::between(before, body_crc, self.body.len(), behind);
        out.put(&trailer(crc & CRC_MASK));
        body_at
    }

    /// Makes sure that it can be encoded, and answers its size.
    fn begin(&self, out: &mut Vec<u8>) -> usize {
        let size = self.size();
        let properties_size = self.properties.size();
        assert!(
            self.topic.len() <= TOPIC_SIZE_MAX,
            "topic of {} bytes",
            self.topic.len()
        );
        assert!(
            properties_size <= PROPERTIES_SIZE_MAX,
            "properties of {properties_size} bytes"
        );
        assert!(size <= i32::MAX as usize, "record of {size} bytes");
        out.reserve(size);
        size
    }

    /// Appends what comes behind the body, but for the checksum.
    #[inline]
    fn put_behind_body(&self, out: &mut Vec<u8>) {
        let properties_size = self.properties.size();
        if self.topic_len_size() == 1 {
            out.put_u8(self.topic.len() as u8);
        } else {
            out.put_u16(self.topic.len() as u16);
        }
        out.put(self.topic.as_bytes());
        out.put_u16(properties_size as u16);
        out.put(self.properties.sent);
        if needs_separator(self.properties.sent) {
            out.put_u8(PROPERTY_SEPARATOR);
        }
        for piece in self.properties.added {
            out.put(piece);
        }
        if self.properties.added_needs_separator() {
            out.put_u8(PROPERTY_SEPARATOR);
        }
    }

    /// Appends everything up to and with the body's length.
    #[inline]
    fn put_head(&self, size: usize, body_crc: u32, at: PhysicalOffset, out: &mut Vec<u8>) {
        let magic = if self.topic_len_size() == 1 {
            MESSAGE_MAGIC_V1
        } else {
            MESSAGE_MAGIC_V2
        };
        let born = self.born_host.ip().to_canonical();
        let store = self.store_host.ip().to_canonical();
        // Numbers of a known size, gathered and copied once: the compiler makes few instructions of it.
        let mut head = Gathered::<{ 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8 }>::default();
        head.put((size as u32).to_be_bytes());
        head.put(magic.to_be_bytes());
        head.put(body_crc.to_be_bytes());
        head.put(self.queue_id.to_be_bytes());
        head.put(self.flag.to_be_bytes());
        head.put(self.queue_offset.to_be_bytes());
        head.put(at.0.to_be_bytes());
        head.put(self.sys_flag_stored(born, store).to_be_bytes());
        head.put(self.born_ms.to_be_bytes());
        out.put(&head.bytes);
        put_host(out, born, self.born_host.port());
        out.put_i64(self.store_ms);
        put_host(out, store, self.store_host.port());
        let mut head = Gathered::<{ 4 + 8 + 4 }>::default();
        head.put(self.reconsume_times.to_be_bytes());
        head.put(self.prepared_offset.to_be_bytes());
        head.put((self.body.len() as u32).to_be_bytes());
        out.put(&head.bytes);
    }

    fn sys_flag_stored(&self, born: IpAddr, store: IpAddr) -> i32 {
        let mut flag = self.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6);
        if born.is_ipv6() {
            flag |= sys_flag::BORN_HOST_V6;
        }
        if store.is_ipv6() {
            flag |= sys_flag::STORE_HOST_V6;
        }
        flag
    }
}

/// Small numbers are gathered here and copied once.
struct Gathered<const SIZE: usize> {
    bytes: [u8; SIZE],
    len: usize,
}

impl<const SIZE: usize> Default for Gathered<SIZE> {
    fn default() -> Self {
        Self {
            bytes: [0; SIZE],
            len: 0,
        }
    }
}

impl<const SIZE: usize> Gathered<SIZE> {
    #[inline]
    fn put<const LEN: usize>(&mut self, bytes: [u8; LEN]) {
        self.bytes[self.len..self.len + LEN].copy_from_slice(&bytes);
        self.len += LEN;
    }
}

/// Address and port.
#[inline]
fn put_host(out: &mut Vec<u8>, ip: IpAddr, port: u16) {
    let port = u32::from(port);
    match ip {
        IpAddr::V4(ip) => out.put_u64(u64::from(ip.to_bits()) << 32 | u64::from(port)),
        IpAddr::V6(ip) => {
            out.put(&ip.octets());
            out.put_u32(port);
        }
    }
}

// A mapped IPv4 address (::ffff:a.b.c.d, from a listener for both families) is stored as IPv4, which is
// all that the C++ client reads.
fn host_growth(host: SocketAddr) -> usize {
    if host.ip().to_canonical().is_ipv6() {
        HOST_SIZE_V6 - HOST_SIZE_V4
    } else {
        0
    }
}

/// A record as it lies in the log; everything borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are those of P§3.1.
pub struct Record<'a> {
    /// Bytes, all of it.
    pub size: u32,
    pub magic: u32,
    /// As stored; [`check`] compares it.
    pub body_crc: u32,
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: u64,
    pub physical_offset: PhysicalOffset,
    pub sys_flag: i32,
    pub born_ms: i64,
    pub born_host: SocketAddr,
    pub store_ms: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_offset: i64,
    pub body: &'a [u8],
    pub topic: &'a str,
    /// With the trailer, where there is one. Bytes, because items of a batch are stored as their client
    /// wrote them, and not every client looks at what it writes.
    pub properties: &'a [u8],
}

impl<'a> Record<'a> {
    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&'a str> {
        property(self.properties, name)
    }

    /// What the ConsumeQueue holds of the tag: its hash with the sign extended, 0 for none. (For the
    /// schedule topic it is the deliver time instead, which the record does not know.)
    #[must_use]
    pub fn tags_code(&self) -> i64 {
        self.property("TAGS")
            .map_or(0, |tag| i64::from(string_hash(tag)))
    }

    /// Which part of a transaction it is, as one of [`sys_flag`]'s constants.
    #[must_use]
    pub const fn transaction_type(&self) -> i32 {
        self.sys_flag & sys_flag::TRANSACTION_MASK
    }
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end too early.
    #[error("record of {size} bytes is cut off after {have}")]
    CutOff {
        /// Bytes that it should have, as far as known.
        size: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// No record is this small.
    #[error("record size {0} is below the smallest record ({RECORD_SIZE_MIN})")]
    Size(i32),
    /// Neither of the two layouts.
    #[error("magic code {0:#010x} is not that of a record")]
    Magic(u32),
    /// The lengths inside do not add up to the length of all.
    #[error("lengths inside the record do not add up to its {size} bytes (in its {part})")]
    Lengths {
        /// What the record says of itself.
        size: usize,
        /// Where the sum is first wrong.
        part: &'static str,
    },
    /// A port that is none.
    #[error("port {0} of a host is out of range")]
    Port(u32),
    /// Topics are UTF-8.
    #[error("topic is not UTF-8")]
    TopicNotText,
}

/// Reads the record at the front of these bytes. Checksums are not compared: see [`check`].
pub fn parse(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let have = bytes.len();
    let mut front = Reader::new(bytes);
    let (Some(size_signed), Some(magic)) = (front.i32(), front.u32()) else {
        return Err(RecordError::CutOff {
            size: RECORD_SIZE_MIN,
            have,
        });
    };
    if magic != MESSAGE_MAGIC_V1 && magic != MESSAGE_MAGIC_V2 {
        return Err(RecordError::Magic(magic));
    }
    let size = match usize::try_from(size_signed) {
        Ok(size) if RECORD_SIZE_MIN <= size => size,
        _ => return Err(RecordError::Size(size_signed)),
    };
    let Some(bytes) = bytes.get(..size) else {
        return Err(RecordError::CutOff { size, have });
    };
    let wrong = |part| RecordError::Lengths { size, part };
    let record = parse_fields(bytes, magic, wrong)?;
    Ok(record)
}

fn parse_fields(
    bytes: &[u8],
    magic: u32,
    wrong: impl Fn(&'static str) -> RecordError,
) -> Result<Record<'_>, RecordError> {
    let mut reader = Reader::new(&bytes[8..]);
    let head = || wrong("head");
    let body_crc = reader.u32().ok_or_else(head)?;
    let queue_id = reader.i32().ok_or_else(head)?;
    let flag = reader.i32().ok_or_else(head)?;
    let queue_offset = reader.u64().ok_or_else(head)?;
    let physical_offset = PhysicalOffset(reader.u64().ok_or_else(head)?);
    let sys_flag = reader.i32().ok_or_else(head)?;
    let born_ms = reader.i64().ok_or_else(head)?;
    let born_v6 = sys_flag & sys_flag::BORN_HOST_V6 != 0;
    let born_host = parse_host(&mut reader, born_v6).ok_or_else(head)??;
    let store_ms = reader.i64().ok_or_else(head)?;
    let store_v6 = sys_flag & sys_flag::STORE_HOST_V6 != 0;
    let store_host = parse_host(&mut reader, store_v6).ok_or_else(head)??;
    let reconsume_times = reader.i32().ok_or_else(head)?;
    let prepared_offset = reader.i64().ok_or_else(head)?;
    let body_len = reader.u32().ok_or_else(head)?;
    let body = reader
        .bytes(body_len as usize)
        .ok_or_else(|| wrong("body"))?;
    let topic_len = if magic == MESSAGE_MAGIC_V1 {
        reader.u8().map(usize::from)
    } else {
        reader.u16().map(usize::from)
    };
    let topic = topic_len
        .and_then(|len| reader.bytes(len))
        .ok_or_else(|| wrong("topic"))?;
    let topic = std::str::from_utf8(topic).map_err(|_| RecordError::TopicNotText)?;
    let properties_len = reader.u16();
    let properties = properties_len.and_then(|len| reader.bytes(usize::from(len)));
    let properties = properties.ok_or_else(|| wrong("properties"))?;
    if !reader.rest().is_empty() {
        return Err(wrong("end"));
    }
    Ok(Record {
        size: bytes.len() as u32,
        magic,
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_ms,
        born_host,
        store_ms,
        store_host,
        reconsume_times,
        prepared_offset,
        body,
        topic,
        properties,
    })
}

fn parse_host(reader: &mut Reader<'_>, v6: bool) -> Option<Result<SocketAddr, RecordError>> {
    let ip: IpAddr = if v6 {
        Ipv6Addr::from(reader.bytes(16)?.first_chunk::<16>().copied()?).into()
    } else {
        Ipv4Addr::from(reader.u32()?).into()
    };
    let port = reader.u32()?;
    Some(match u16::try_from(port) {
        Ok(port) => Ok(SocketAddr::new(ip, port)),
        Err(_) => Err(RecordError::Port(port)),
    })
}

/// What stands at a place of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// A record that is what it says.
    Record(Record<'a>),
    /// The rest of the segment holds nothing.
    Blank {
        /// Bytes up to the end of the segment, the blank's own eight included.
        len: u32,
    },
    /// Nothing was ever written here.
    End,
    /// The bytes given end before what begins here: read this many, or, where the segment has no more,
    /// call it damage.
    Short {
        /// Bytes from the same place on.
        need: usize,
    },
    /// Damage, or the torn end of the log.
    Bad(Damage),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its layout.
    #[error(transparent)]
    Layout(#[from] RecordError),
    /// A blank smaller than itself.
    #[error("blank of {0} bytes is smaller than a blank can be")]
    Blank(i32),
    /// It is whole, but belongs elsewhere: a recycled segment holds whole old records.
    #[error("record was written for physical offset {0}")]
    Elsewhere(PhysicalOffset),
    /// The body is not the one that was stored.
    #[error("body checksum is {computed:#010x}, the record says {stored:#010x}")]
    Body {
        /// Of the bytes.
        computed: u32,
        /// In the record.
        stored: u32,
    },
    /// A record of this broker always ends with its checksum.
    #[error("checksum of the whole record (property __CRC32#) is missing")]
    TrailerMissing,
    /// Something in the record is not what was stored.
    #[error(
        "checksum of the whole record is {computed:#010x}, its property __CRC32# says {stored:#010x}"
    )]
    Trailer {
        /// Of the bytes.
        computed: u32,
        /// In the record.
        stored: u64,
    },
}

/// Judges what stands at the front of these bytes, which were read from physical offset `at`.
///
/// `need_trailer`: a record without the whole-record checksum is damage. Apache's broker writes none by
/// default, so that below the place where this broker took a store over it may be missing; where it is
/// there, it is compared.
#[must_use]
pub fn check(bytes: &[u8], at: PhysicalOffset, need_trailer: bool) -> Verdict<'_> {
    let mut front = Reader::new(bytes);
    let (Some(size), Some(magic)) = (front.i32(), front.u32()) else {
        return Verdict::Short { need: BLANK_SIZE };
    };
    match (size, magic) {
        (0, 0) => return Verdict::End,
        (_, BLANK_MAGIC) if (BLANK_SIZE as i32) <= size => {
            return Verdict::Blank { len: size as u32 };
        }
        (_, BLANK_MAGIC) => return Verdict::Bad(Damage::Blank(size)),
        _ => {}
    }
    // The offset first: an old record is known by its first bytes, however long it is.
    let record_magic = magic == MESSAGE_MAGIC_V1 || magic == MESSAGE_MAGIC_V2;
    if let Some(stored) = bytes
        .get(PHYSICAL_OFFSET_AT..)
        .and_then(|rest| Reader::new(rest).u64())
        && record_magic
        && stored != at.0
    {
        return Verdict::Bad(Damage::Elsewhere(PhysicalOffset(stored)));
    }
    match parse(bytes) {
        Ok(record) => match damage_of(&record, bytes, need_trailer) {
            None => Verdict::Record(record),
            Some(damage) => Verdict::Bad(damage),
        },
        Err(RecordError::CutOff { size, .. }) => Verdict::Short { need: size },
        Err(error) => Verdict::Bad(Damage::Layout(error)),
    }
}

fn damage_of(record: &Record<'_>, bytes: &[u8], need_trailer: bool) -> Option<Damage> {
    let stored = record.body_crc;
    let computed = crc32fast::hash(record.body) & CRC_MASK;
    if computed != stored {
        return Some(Damage::Body { computed, stored });
    }
    let Some(stored) = trailer_of(record.properties) else {
        return need_trailer.then_some(Damage::TrailerMissing);
    };
    let covered = record.size as usize - TRAILER_SIZE;
    let computed = crc32fast::hash(&bytes[..covered]) & CRC_MASK;
    (u64::from(computed) != stored).then_some(Damage::Trailer { computed, stored })
}

/// The front of what fills the last `len` bytes of a segment.
#[must_use]
pub fn blank(len: u32) -> [u8; BLANK_SIZE] {
    assert!(
        BLANK_SIZE as u32 <= len && len <= i32::MAX as u32,
        "blank of {len} bytes"
    );
    let mut bytes = [0; BLANK_SIZE];
    bytes[..MAGIC_AT].copy_from_slice(&len.to_be_bytes());
    bytes[MAGIC_AT..].copy_from_slice(&BLANK_MAGIC.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests;

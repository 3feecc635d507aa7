//! One stored message: its layout (P§3.1), its properties (P§3.3), its ids (P§3.5), its checksums.
//!
//! What lies in the CommitLog is what a pull answers with, byte for byte, so this is a wire format too.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::{PhysicalOffset, Reader, Writer, string_hash};

/// Magic code of a record whose topic has at most 127 bytes: one byte says how long it is.
pub const MESSAGE_MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic code of a record with a longer topic: two bytes say how long it is.
pub const MESSAGE_MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic code of what fills a segment where the next record has no room.
pub const BLANK_MAGIC: u32 = 0xCBD4_3194;

/// Bytes of a blank that mean something; the rest of its length is left as it is.
pub const BLANK_SIZE: usize = 8;
/// Properties of a record, the trailer included: their length is a signed 16-bit number.
pub const PROPERTIES_SIZE_MAX: usize = i16::MAX as usize;
/// Bytes of a topic that the first layout can name: Java reads its length as a signed byte.
pub const TOPIC_SIZE_MAX_V1: usize = i8::MAX as usize;
/// Bytes of a topic that the second layout can name.
pub const TOPIC_SIZE_MAX: usize = i16::MAX as usize;

/// Between a property's name and its value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// Behind a property's value.
pub const PROPERTY_SEPARATOR: u8 = 2;

/// Meaning of the bits of a record's system flag (P§3.2).
pub mod sys_flag {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 0x1;
    /// The topic's messages may have several tags.
    pub const MULTI_TAGS: i32 = 0x2;
    /// The two bits that say what part of a transaction a record is.
    pub const TRANSACTION_MASK: i32 = 0xC;
    /// Not in a transaction.
    pub const TRANSACTION_NONE: i32 = 0x0;
    /// A half message.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// A committed message.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// The trace of one that was taken back.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// The born host has 16 address bytes.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// The store host has 16 address bytes.
    pub const STORE_HOST_V6: i32 = 0x20;
}

const TRAILER_NAME: &[u8] = b"__CRC32#";
const TRAILER_DIGITS: usize = 10;
/// Bytes of the checksum property that ends the properties of every record this broker writes.
pub const TRAILER_SIZE: usize = 20;
const _: () = assert!(TRAILER_SIZE == TRAILER_NAME.len() + 1 + TRAILER_DIGITS + 1);

// Everything up to the body's length, per family of the two hosts.
const HEAD_SIZE_V4: usize =
    4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8 + HOST_SIZE_V4 + 8 + HOST_SIZE_V4 + 4 + 8 + 4;
const HOST_SIZE_V4: usize = 4 + 4;
const HOST_SIZE_V6: usize = 16 + 4;
const HEAD_SIZE_MAX: usize = HEAD_SIZE_V4 + 2 * (HOST_SIZE_V6 - HOST_SIZE_V4);
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

/// The properties of a draft, in the pieces that they come in, so that nobody has to join them first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Properties<'a> {
    /// Pairs as a client or an older record had them. A last separator is added where it is missing.
    pub sent: &'a [u8],
    /// Written behind them as they are, one piece after another.
    pub added: &'a [&'a [u8]],
}

impl<'a> Properties<'a> {
    /// Properties of a client or of an older record, whose own checksum is left out, and pieces to
    /// write behind them.
    #[must_use]
    pub fn new(sent: &'a (impl AsRef<[u8]> + ?Sized), added: &'a [&'a [u8]]) -> Self {
        let sent = sent.as_ref();
        let sent = match trailer_of(sent) {
            Some(_) => &sent[..sent.len() - TRAILER_SIZE],
            None => sent,
        };
        Self { sent, added }
    }

    /// Bytes in a record, separators and checksum included; more than [`PROPERTIES_SIZE_MAX`] must be
    /// refused before a record is encoded.
    #[must_use]
    pub fn size(&self) -> usize {
        let added: usize = self.added.iter().map(|piece| piece.len()).sum();
        self.sent.len()
            + usize::from(needs_separator(self.sent))
            + added
            + usize::from(self.added_needs_separator())
            + TRAILER_SIZE
    }

    fn added_needs_separator(&self) -> bool {
        let last = self.added.iter().rev().find(|piece| !piece.is_empty());
        last.is_some_and(|piece| needs_separator(piece))
    }
}

fn needs_separator(pairs: &[u8]) -> bool {
    pairs.last().is_some_and(|last| *last != PROPERTY_SEPARATOR)
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
        let start = out.len();

        let body_crc = crc32fast::hash(self.body);
        let (head, head_len) = self.head(size, body_crc & CRC_MASK, physical_offset);
        out.put(&head[..head_len]);
        out.put(self.body);
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
        let crc = crc32fast::hash(&out[start..]);
        out.put(&trailer(crc & CRC_MASK));
        debug_assert_eq!(out.len() - start, size, "a record is as long as it says");
    }

    /// Everything up to and with the body's length.
    fn head(&self, size: usize, body_crc: u32, at: PhysicalOffset) -> ([u8; HEAD_SIZE_MAX], usize) {
        let magic = if self.topic_len_size() == 1 {
            MESSAGE_MAGIC_V1
        } else {
            MESSAGE_MAGIC_V2
        };
        let born = self.born_host.ip().to_canonical();
        let store = self.store_host.ip().to_canonical();
        let mut head = Head {
            bytes: [0; HEAD_SIZE_MAX],
            len: 0,
        };
        head.put((size as u32).to_be_bytes());
        head.put(magic.to_be_bytes());
        head.put(body_crc.to_be_bytes());
        head.put(self.queue_id.to_be_bytes());
        head.put(self.flag.to_be_bytes());
        head.put(self.queue_offset.to_be_bytes());
        head.put(at.0.to_be_bytes());
        head.put(self.sys_flag_stored(born, store).to_be_bytes());
        head.put(self.born_ms.to_be_bytes());
        head.put_host(born, self.born_host.port());
        head.put(self.store_ms.to_be_bytes());
        head.put_host(store, self.store_host.port());
        head.put(self.reconsume_times.to_be_bytes());
        head.put(self.prepared_offset.to_be_bytes());
        head.put((self.body.len() as u32).to_be_bytes());
        (head.bytes, head.len)
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
struct Head {
    bytes: [u8; HEAD_SIZE_MAX],
    len: usize,
}

impl Head {
    #[inline]
    fn put<const LEN: usize>(&mut self, bytes: [u8; LEN]) {
        self.bytes[self.len..self.len + LEN].copy_from_slice(&bytes);
        self.len += LEN;
    }

    #[inline]
    fn put_host(&mut self, ip: IpAddr, port: u16) {
        match ip {
            IpAddr::V4(ip) => self.put(ip.octets()),
            IpAddr::V6(ip) => self.put(ip.octets()),
        }
        self.put(u32::from(port).to_be_bytes());
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

/// The checksum as Apache's `enabledAppendPropCRC` writes it: digits with the smallest place first.
fn trailer(crc: u32) -> [u8; TRAILER_SIZE] {
    let mut bytes = [0; TRAILER_SIZE];
    let (name, rest) = bytes.split_at_mut(TRAILER_NAME.len());
    name.copy_from_slice(TRAILER_NAME);
    rest[0] = NAME_VALUE_SEPARATOR;
    let mut value = crc;
    for digit in &mut rest[1..=TRAILER_DIGITS] {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    rest[TRAILER_DIGITS + 1] = PROPERTY_SEPARATOR;
    bytes
}

/// The value in a trailer at the very end of these properties, if one is there.
fn trailer_of(properties: &[u8]) -> Option<u64> {
    let at = properties.len().checked_sub(TRAILER_SIZE)?;
    let rest = properties[at..].strip_prefix(TRAILER_NAME)?;
    let rest = rest.strip_prefix(&[NAME_VALUE_SEPARATOR])?;
    let digits = rest.strip_suffix(&[PROPERTY_SEPARATOR])?;
    digits.iter().rev().try_fold(0u64, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u64::from(digit - b'0'))
    })
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

/// Pairs of name and value, in stored order. As in Java's decoder a pair without a name, without a value
/// or without a separator between them is passed over.
pub fn pairs(properties: &(impl AsRef<[u8]> + ?Sized)) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = properties.as_ref();
    let pairs = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(PROPERTY_SEPARATOR, rest).unwrap_or(rest.len());
        let pair = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(pair)
    });
    pairs.filter_map(|pair| {
        let at = memchr::memchr(NAME_VALUE_SEPARATOR, pair)?;
        let (name, value) = (&pair[..at], &pair[at + 1..]);
        (!name.is_empty() && !value.is_empty()).then_some((name, value))
    })
}

/// The value of a property; of several with one name the last counts. One that is not UTF-8 is none.
#[must_use]
pub fn property<'a>(properties: &'a (impl AsRef<[u8]> + ?Sized), name: &str) -> Option<&'a str> {
    let name = name.as_bytes();
    let found = pairs(properties).filter(|(found, _)| *found == name).last();
    found.and_then(|(_, value)| std::str::from_utf8(value).ok())
}

/// The properties without any of these names; borrowed where none of them occurs.
#[must_use]
pub fn without<'a>(properties: &'a str, names: &[&str]) -> Cow<'a, str> {
    let named = |pair: &str| {
        let name = pair.split_once('\u{1}').map_or(pair, |(name, _)| name);
        names.contains(&name)
    };
    if !properties.split('\u{2}').any(named) {
        return Cow::Borrowed(properties);
    }
    let mut kept = String::with_capacity(properties.len());
    for pair in properties
        .split('\u{2}')
        .filter(|pair| !pair.is_empty() && !named(pair))
    {
        kept.push_str(pair);
        kept.push('\u{2}');
    }
    Cow::Owned(kept)
}

/// Appends one pair.
pub fn put_property(out: &mut Vec<u8>, name: &str, value: &str) {
    out.put(name.as_bytes());
    out.put_u8(NAME_VALUE_SEPARATOR);
    out.put(value.as_bytes());
    out.put_u8(PROPERTY_SEPARATOR);
}

/// Appends the id that names a stored message by its host and place (P§3.5), in upper-case hex.
pub fn put_message_id(out: &mut String, host: SocketAddr, offset: PhysicalOffset) {
    let mut put = |bytes: &[u8]| {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for byte in bytes {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    };
    match host.ip().to_canonical() {
        IpAddr::V4(ip) => put(&ip.octets()),
        IpAddr::V6(ip) => put(&ip.octets()),
    }
    put(&u32::from(host.port()).to_be_bytes());
    put(&offset.0.to_be_bytes());
}

/// The id that names a stored message by its host and place: 32 or 56 characters.
#[must_use]
pub fn message_id(host: SocketAddr, offset: PhysicalOffset) -> String {
    let mut text = String::with_capacity(MESSAGE_ID_SIZE_V6);
    put_message_id(&mut text, host, offset);
    text
}

const MESSAGE_ID_SIZE_V4: usize = 2 * (HOST_SIZE_V4 + 8);
const MESSAGE_ID_SIZE_V6: usize = 2 * (HOST_SIZE_V6 + 8);

/// Host and place from such an id; `None` if it is none. Beware: a client's unique key looks the same.
#[must_use]
pub fn parse_message_id(text: &str) -> Option<(SocketAddr, PhysicalOffset)> {
    if text.len() != MESSAGE_ID_SIZE_V4 && text.len() != MESSAGE_ID_SIZE_V6 {
        return None;
    }
    let mut bytes = [0; MESSAGE_ID_SIZE_V6 / 2];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    let mut reader = Reader::new(&bytes);
    let host = parse_host(&mut reader, text.len() == MESSAGE_ID_SIZE_V6)?.ok()?;
    Some((host, PhysicalOffset(reader.u64()?)))
}

#[cfg(test)]
mod tests;

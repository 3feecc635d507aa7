//! A record's properties: named strings (P§3.3), the last of which is the checksum of the whole record.

use std::borrow::Cow;

use crate::base::{Marks, Writer};

/// Properties of a record, the trailer included: their length is a signed 16-bit number.
pub const PROPERTIES_SIZE_MAX: usize = i16::MAX as usize;
/// Between a property's name and its value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// Behind a property's value.
pub const PROPERTY_SEPARATOR: u8 = 2;

const TRAILER_NAME: &[u8] = b"__CRC32#";
const TRAILER_DIGITS: usize = 10;
/// Bytes of the checksum property that ends the properties of every record this broker writes.
pub const TRAILER_SIZE: usize = 20;
const _: () = assert!(TRAILER_SIZE == TRAILER_NAME.len() + 1 + TRAILER_DIGITS + 1);

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

    pub(super) fn added_needs_separator(&self) -> bool {
        let last = self.added.iter().rev().find(|piece| !piece.is_empty());
        last.is_some_and(|piece| needs_separator(piece))
    }
}

pub(super) fn needs_separator(pairs: &[u8]) -> bool {
    pairs.last().is_some_and(|last| *last != PROPERTY_SEPARATOR)
}

/// The checksum as Apache's `enabledAppendPropCRC` writes it: digits with the smallest place first.
pub(super) fn trailer(crc: u32) -> [u8; TRAILER_SIZE] {
    let mut bytes = [0; TRAILER_SIZE];
    let (name, rest) = bytes.split_at_mut(TRAILER_NAME.len());
    name.copy_from_slice(TRAILER_NAME);
    rest[0] = NAME_VALUE_SEPARATOR;
    // Two places at a time, each pair by itself: no division waits for another.
    let pairs = [
        crc,
        crc / 100,
        crc / 10_000,
        crc / 1_000_000,
        crc / 100_000_000,
    ];
    let (places, _) = rest[1..=TRAILER_DIGITS].as_chunks_mut();
    for (place, pair) in places.iter_mut().zip(pairs) {
        *place = PLACES[(pair % 100) as usize];
    }
    rest[TRAILER_DIGITS + 1] = PROPERTY_SEPARATOR;
    bytes
}

/// Two decimal places, the smaller first.
const PLACES: [[u8; 2]; 100] = {
    let mut places = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        places[value] = [b'0' + (value % 10) as u8, b'0' + (value / 10) as u8];
        value += 1;
    }
    places
};

/// The value in a trailer at the very end of these properties, if one is there.
pub(super) fn trailer_of(properties: &[u8]) -> Option<u64> {
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

/// Pairs of name and value, in stored order. As in Java's decoder a pair without a name, without a value
/// or without a separator between them is passed over.
pub fn pairs(properties: &(impl AsRef<[u8]> + ?Sized)) -> impl Iterator<Item = (&[u8], &[u8])> {
    let bytes = properties.as_ref();
    let mut marks = Marks::<NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR>::new(bytes);
    let mut start = 0;
    std::iter::from_fn(move || {
        while start < bytes.len() {
            let split = marks.next(bytes, start);
            // Behind the first separator a name's value may have more of its kind.
            let mut end = split;
            while bytes.get(end) == Some(&NAME_VALUE_SEPARATOR) {
                end = marks.next(bytes, end + 1);
            }
            let name_at = std::mem::replace(&mut start, end + 1);
            if name_at < split && split + 1 < end {
                return Some((&bytes[name_at..split], &bytes[split + 1..end]));
            }
        }
        None
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

//! Reads and writes a ROCKETMQ header (P§1.4).

use crate::base::{Reader, Writer};

use super::codes;
use super::frame::{FIELD_COUNT_MAX, FrameError, Header, Piece, Scratch, VERSION, Written};
use super::queue_mark::target_names;

/// Reads the header; extension fields go to `scratch`.
///
/// Its text is looked at once and not piece by piece: the arena holds the whole header with zeros where its
/// numbers stood. Zeros are ASCII and stand around every text, so that the whole is UTF-8 where each is, and
/// the first wrong byte of the one is that of the other.
pub(super) fn read(bytes: &[u8], scratch: &mut Scratch) -> Result<Header, FrameError> {
    let Scratch { arena, fields, .. } = scratch;
    let mut scan = Scan {
        bytes,
        text: arena.fill(bytes),
        at: 0,
    };
    let header = scan.header().and_then(|(header, end)| {
        scan.fields(end, fields)?;
        Ok(header)
    });
    let end = scan.at;
    arena.truncate(end);
    if header.is_err() {
        // Text in front of what is wrong was wrong before it.
        arena.text()?;
    }
    header
}

/// Topic and queue of what seems to be a send. Nothing else of its header is looked at.
pub(super) fn target(bytes: &[u8]) -> Option<[&[u8]; 2]> {
    let mut reader = Reader::new(bytes);
    let names = target_names(codes::from_16_bits(reader.i16()?))?;
    let (_language, _version, _opaque, _flag) =
        (reader.u8()?, reader.i16()?, reader.i32()?, reader.i32()?);
    let remark_len = reader.u32()?;
    reader.bytes(remark_len as usize)?;
    let _ext_len = reader.u32()?;
    let mut found = [None; 2];
    while !reader.rest().is_empty() {
        let name_len = reader.u16()?;
        let name = reader.bytes(usize::from(name_len))?;
        let value_len = reader.u32()?;
        let value = reader.bytes(value_len as usize)?;
        for (wanted, found) in names.iter().zip(&mut found) {
            if name == wanted.as_bytes() && !value.is_empty() {
                *found = Some(value);
            }
        }
    }
    let [topic, queue] = found;
    Some([topic?, queue?])
}

struct Scan<'a> {
    bytes: &'a [u8],
    /// The same bytes, those zero that are read and no text.
    text: &'a mut [u8],
    at: usize,
}

impl Scan<'_> {
    /// What stands in front of the extension fields, and where these end.
    fn header(&mut self) -> Result<(Header, usize), FrameError> {
        let mut header = Header {
            code: codes::from_16_bits(i16::from_be_bytes(self.head()?)),
            language: Some(codes::language_name(i64::from(i8::from_be_bytes(
                self.head()?,
            )))),
            version: i32::from(i16::from_be_bytes(self.head()?)),
            opaque: i32::from_be_bytes(self.head()?),
            flag: i32::from_be_bytes(self.head()?),
            remark: None,
        };
        let remark_len = i32::from_be_bytes(self.head()?);
        let at = self.at;
        self.at = end_of(self.bytes, at, remark_len)?;
        header.remark = (at < self.at).then(|| Piece::of_arena(at, self.at));
        let ext_len = i32::from_be_bytes(self.head()?);
        let end = end_of(self.bytes, self.at, ext_len).map_err(|_| {
            FrameError::header(
                self.at,
                format!("the extension fields are said to have {ext_len} bytes"),
            )
        })?;
        Ok((header, end))
    }

    /// The extension fields, which end at `end`.
    fn fields(&mut self, end: usize, fields: &mut Vec<(Piece, Piece)>) -> Result<(), FrameError> {
        let bytes = &self.bytes[..end];
        while self.at < end {
            // Where this field has been read to: a text is read when its end is known to be there.
            let at = self.at;
            let short = || FrameError::header(at, "an extension field ends too early");
            let name_len = i16::from_be_bytes(blank(bytes, self.text, at).ok_or_else(short)?);
            let name_at = at + 2;
            self.at = name_at;
            let name_end = end_of(bytes, name_at, i32::from(name_len))?;
            self.at = name_end;
            let value_len = blank(bytes, self.text, name_end).ok_or_else(short)?;
            let value_at = name_end + 4;
            self.at = value_at;
            let value_end = end_of(bytes, value_at, i32::from_be_bytes(value_len))?;
            self.at = value_end;
            // As in Java, text of length 0 is none.
            if name_at < name_end && value_at < value_end {
                if fields.len() == FIELD_COUNT_MAX {
                    return Err(FrameError::header(
                        at,
                        format!("more than {FIELD_COUNT_MAX} extension fields"),
                    ));
                }
                fields.push((
                    Piece::of_arena(name_at, name_end),
                    Piece::of_arena(value_at, value_end),
                ));
            }
        }
        Ok(())
    }

    /// The bytes of a number in front of the extension fields.
    #[inline]
    fn head<const LEN: usize>(&mut self) -> Result<[u8; LEN], FrameError> {
        let number = blank(self.bytes, self.text, self.at)
            .ok_or_else(|| FrameError::header(self.at, "the ROCKETMQ header ends too early"))?;
        self.at += LEN;
        Ok(number)
    }
}

/// The bytes of a number, which is no text.
#[inline]
fn blank<const LEN: usize>(bytes: &[u8], text: &mut [u8], at: usize) -> Option<[u8; LEN]> {
    let number = *bytes.get(at..)?.first_chunk()?;
    *text.get_mut(at..)?.first_chunk_mut()? = [0; LEN];
    Some(number)
}

/// Where a text of `len` bytes ends that begins at `at`.
#[inline]
fn end_of(bytes: &[u8], at: usize, len: i32) -> Result<usize, FrameError> {
    // A negative length becomes one that no frame has.
    let end = at + len as u32 as usize;
    if end <= bytes.len() {
        return Ok(end);
    }
    Err(too_long(at, len))
}

#[cold]
fn too_long(at: usize, len: i32) -> FrameError {
    FrameError::header(at, format!("a text is said to have {len} bytes"))
}

/// Appends the header.
pub(super) fn write(out: &mut Vec<u8>, header: &Written<'_>) {
    // Codes above 16 bits are cut, as Java cuts them: there is no room for more.
    out.put_u16(header.code as u16);
    out.put_u8(codes::LANGUAGE_JAVA_ORDINAL);
    out.put_u16(VERSION as u16);
    out.put_i32(header.opaque);
    out.put_i32(header.flag);
    let remark = header.remark.unwrap_or_default();
    out.put_u32(remark.len() as u32);
    out.put(remark.as_bytes());
    let ext_at = out.len();
    out.put_u32(0);
    for (name, value) in header.ext.unwrap_or_default() {
        assert!(
            name.len() <= i16::MAX as usize,
            "a field name of {} bytes",
            name.len()
        );
        out.put_u16(name.len() as u16);
        out.put(name.as_bytes());
        out.put_u32(value.len() as u32);
        out.put(value.as_bytes());
    }
    let ext_len = (out.len() - ext_at - 4) as u32;
    out[ext_at..ext_at + 4].copy_from_slice(&ext_len.to_be_bytes());
}

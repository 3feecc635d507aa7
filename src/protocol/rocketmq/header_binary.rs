//! Reads and writes a ROCKETMQ header (P§1.4).

use crate::base::Writer;

use super::codes;
use super::frame::{FIELD_COUNT_MAX, FrameError, Header, Piece, Scratch, VERSION, Written};

/// Reads the header; extension fields go to `scratch`.
///
/// Its text is looked at once and not piece by piece: the arena holds the whole header with zeros where its
/// numbers stood. Zeros are ASCII and stand around every text, so that the whole is UTF-8 where each is, and
/// the first wrong byte of the one is that of the other.
pub(super) fn read(bytes: &[u8], scratch: &mut Scratch) -> Result<Header, FrameError> {
    let Scratch { arena, fields } = scratch;
    let mut scan = Scan {
        bytes,
        text: arena.fill(bytes),
        at: 0,
    };
    let header = scan.header(fields);
    let end = scan.at;
    arena.truncate(end);
    if header.is_err() {
        // Text in front of what is wrong was wrong before it.
        arena.text()?;
    }
    header
}

struct Scan<'a> {
    bytes: &'a [u8],
    /// The same bytes, those zero that are read and no text.
    text: &'a mut [u8],
    at: usize,
}

impl Scan<'_> {
    fn header(&mut self, fields: &mut Vec<(Piece, Piece)>) -> Result<Header, FrameError> {
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
        header.remark = self.piece(remark_len)?;
        let ext_len = i32::from_be_bytes(self.head()?);
        let end = self.end_of(ext_len).ok_or_else(|| {
            FrameError::header(
                self.at,
                format!("the extension fields are said to have {ext_len} bytes"),
            )
        })?;
        self.bytes = &self.bytes[..end];
        while self.at < end {
            let at = self.at;
            let short = || FrameError::header(at, "an extension field ends too early");
            let name_len = i16::from_be_bytes(self.number().ok_or_else(short)?);
            let name = self.piece(i32::from(name_len))?;
            let value_len = i32::from_be_bytes(self.number().ok_or_else(short)?);
            let value = self.piece(value_len)?;
            // As in Java, text of length 0 is none.
            if let (Some(name), Some(value)) = (name, value) {
                if fields.len() == FIELD_COUNT_MAX {
                    return Err(FrameError::header(
                        at,
                        format!("more than {FIELD_COUNT_MAX} extension fields"),
                    ));
                }
                fields.push((name, value));
            }
        }
        Ok(header)
    }

    /// The bytes of a number.
    #[inline]
    fn number<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let number = *self.bytes.get(self.at..)?.first_chunk()?;
        *self.text.get_mut(self.at..)?.first_chunk_mut()? = [0; LEN];
        self.at += LEN;
        Some(number)
    }

    /// The bytes of a number in front of the extension fields.
    #[inline]
    fn head<const LEN: usize>(&mut self) -> Result<[u8; LEN], FrameError> {
        self.number()
            .ok_or_else(|| FrameError::header(self.at, "the ROCKETMQ header ends too early"))
    }

    /// Where so many bytes end, if they are there.
    #[inline]
    fn end_of(&self, len: i32) -> Option<usize> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        (end <= self.bytes.len()).then_some(end)
    }

    /// The next `len` bytes, as text.
    #[inline]
    fn piece(&mut self, len: i32) -> Result<Option<Piece>, FrameError> {
        let at = self.at;
        let Some(end) = self.end_of(len) else {
            let what = format!("a text is said to have {len} bytes");
            return Err(FrameError::header(at, what));
        };
        self.at = end;
        Ok((at < end).then(|| Piece::of_arena(at, end)))
    }
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

//! Reads and writes a ROCKETMQ header (P§1.4). All its text goes through the arena: it is short.

use crate::base::{Reader, Writer};

use super::codes;
use super::frame::{FIELD_COUNT_MAX, FrameError, Header, Piece, Scratch, VERSION, Written};

/// Reads the header; extension fields go to `scratch`.
pub(super) fn read(bytes: &[u8], scratch: &mut Scratch) -> Result<Header, FrameError> {
    let mut reader = Reader::new(bytes);
    let short = |reader: &Reader<'_>| {
        FrameError::header(
            bytes.len() - reader.rest().len(),
            "the ROCKETMQ header ends too early",
        )
    };
    let mut header = Header {
        code: codes::from_16_bits(reader.i16().ok_or_else(|| short(&reader))?),
        language: Some(codes::language_name(i64::from(
            reader.i8().ok_or_else(|| short(&reader))?,
        ))),
        version: i32::from(reader.i16().ok_or_else(|| short(&reader))?),
        opaque: reader.i32().ok_or_else(|| short(&reader))?,
        flag: reader.i32().ok_or_else(|| short(&reader))?,
        remark: None,
    };
    let remark_len = reader.i32().ok_or_else(|| short(&reader))?;
    header.remark = text_of(&mut reader, bytes.len(), remark_len, scratch)?;
    let ext_len = reader.i32().ok_or_else(|| short(&reader))?;
    let ext_at = bytes.len() - reader.rest().len();
    let ext = usize::try_from(ext_len)
        .ok()
        .and_then(|len| reader.bytes(len))
        .ok_or_else(|| {
            FrameError::header(
                ext_at,
                format!("the extension fields are said to have {ext_len} bytes"),
            )
        })?;
    let end = ext_at + ext.len();
    let mut reader = Reader::new(ext);
    while !reader.rest().is_empty() {
        let at = end - reader.rest().len();
        let short = || FrameError::header(at, "an extension field ends too early");
        let name_len = reader.i16().ok_or_else(short)?;
        let name = text_of(&mut reader, end, i32::from(name_len), scratch)?;
        let value_len = reader.i32().ok_or_else(short)?;
        let value = text_of(&mut reader, end, value_len, scratch)?;
        // As in Java, text of length 0 is none.
        if let (Some(name), Some(value)) = (name, value) {
            if scratch.fields.len() == FIELD_COUNT_MAX {
                return Err(FrameError::header(
                    at,
                    format!("more than {FIELD_COUNT_MAX} extension fields"),
                ));
            }
            scratch.fields.push((name, value));
        }
    }
    Ok(header)
}

/// The next `len` bytes, as text in the arena.
fn text_of(
    reader: &mut Reader<'_>,
    end: usize,
    len: i32,
    scratch: &mut Scratch,
) -> Result<Option<Piece>, FrameError> {
    let at = end - reader.rest().len();
    let bytes = usize::try_from(len)
        .ok()
        .and_then(|len| reader.bytes(len))
        .ok_or_else(|| FrameError::header(at, format!("a text is said to have {len} bytes")))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| FrameError::header(at + error.valid_up_to(), "text that is not UTF-8"))?;
    let start = scratch.arena.len();
    scratch.arena.push_str(text);
    Ok(Some(Piece::of_arena(start, scratch.arena.len())))
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

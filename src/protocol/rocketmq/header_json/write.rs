//! Writes a JSON header as Java does: its keys in the order of the alphabet, nothing between them.

use super::super::frame::{VERSION, Written};
use super::super::json_write::{put_number, put_text};

/// Appends the header.
pub(in super::super) fn write(out: &mut Vec<u8>, header: &Written<'_>) {
    out.extend_from_slice(b"{\"code\":");
    put_number(out, header.code);
    if let Some(fields) = header.ext {
        out.extend_from_slice(b",\"extFields\":{");
        for (index, (name, value)) in fields.iter().enumerate() {
            if index != 0 {
                out.push(b',');
            }
            put_text(out, name);
            out.push(b':');
            put_text(out, value);
        }
        out.push(b'}');
    }
    put_tail(out, header.flag, header.opaque, header.remark);
}

/// Appends what stands behind the extension fields, and the end of the header.
#[inline]
pub(in super::super) fn put_tail(out: &mut Vec<u8>, flag: i32, opaque: i32, remark: Option<&str>) {
    const _: () = assert!(VERSION == 479);
    if flag == 1 {
        out.extend_from_slice(b",\"flag\":1,\"language\":\"JAVA\",\"opaque\":");
    } else {
        out.extend_from_slice(b",\"flag\":");
        put_number(out, flag);
        out.extend_from_slice(b",\"language\":\"JAVA\",\"opaque\":");
    }
    put_number(out, opaque);
    if let Some(remark) = remark {
        out.extend_from_slice(b",\"remark\":");
        put_text(out, remark);
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}");
}

//! Messages by key and by offset id: 12, 33 (P§2.4).

use crate::command::{Command, Refusal};

use super::codes::response;
use super::frame::{Request, encode_response};

/// 12. The unique key is marked by `_UNIQUE_KEY_QUERY`, from 5.5 on by the index type too.
pub(super) fn by_key<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let index_type = request.text_if_any("indexType");
    Ok(Command::MessagesByKey {
        topic: request.text("topic")?,
        key: request.text("key")?,
        count_max: request.number("maxNum")?,
        begin_ms: request.number("beginTimestamp")?,
        end_ms: request.number("endTimestamp")?,
        unique: request.flag("_UNIQUE_KEY_QUERY") || index_type == Some("U"),
    })
}

/// 33.
pub(super) fn by_id<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    Ok(Command::MessageById {
        offset: request.number("offset")?,
    })
}

const NONE: [(&str, &str); 2] = [
    ("indexLastUpdatePhyoffset", "0"),
    ("indexLastUpdateTimestamp", "0"),
];

/// To 12.
pub(super) fn records(
    out: &mut Vec<u8>,
    note: u64,
    records: &[u8],
    index_last_ms: i64,
    index_last_offset: i64,
) {
    if records.is_empty() {
        return none(
            out,
            note,
            response::QUERY_NOT_FOUND,
            "can not find message, maybe time range not correct",
        );
    }
    let mut ms = itoa::Buffer::new();
    let mut offset = itoa::Buffer::new();
    let fields = [
        (NONE[0].0, offset.format(index_last_offset)),
        (NONE[1].0, ms.format(index_last_ms)),
    ];
    super::whole(out, note, &fields, records);
}

/// To 12, where nothing was found: the fields are there, too.
pub(super) fn none(out: &mut Vec<u8>, note: u64, code: i32, remark: &str) {
    encode_response(out, note, code, Some(remark), &NONE, 0);
}

//! A remoting frame as the replayer sees it: written for the tests alone, so that a fault in the
//! broker's own codec cannot hide in both sides of a comparison.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub const ANSWER: i32 = 1;

/// One frame. Fields of a JSON header keep their JSON kind: some clients write numbers and booleans
/// where others write text, and a replay must repeat exactly that.
#[derive(Clone, Debug)]
pub struct Frame {
    pub header_kind: u8,
    pub code: i32,
    pub language: Value,
    pub version: i32,
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<String>,
    pub ext: Option<Map<String, Value>>,
    /// Keys of a JSON header beyond those above, and what followed its closing brace.
    other: Map<String, Value>,
    tail: Vec<u8>,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn request(code: i32, opaque: i32, ext: &[(&str, String)], body: Vec<u8>) -> Frame {
        let ext = ext
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str())));
        Frame {
            header_kind: 0,
            code,
            language: Value::from("JAVA"),
            version: 513,
            opaque,
            flag: 0,
            remark: None,
            ext: Some(ext.collect()),
            other: Map::new(),
            tail: Vec::new(),
            body,
        }
    }

    pub fn is_answer(&self) -> bool {
        self.flag & ANSWER != 0
    }

    pub fn with_opaque(&self, opaque: i32) -> Frame {
        let mut frame = self.clone();
        frame.opaque = opaque;
        frame
    }

    /// The header fields as text, whatever their JSON kind.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let fields = self.ext.iter().flatten();
        fields
            .map(|(key, value)| (key.clone(), value_text(value)))
            .collect()
    }

    pub fn field(&self, key: &str) -> Option<String> {
        self.ext.as_ref()?.get(key).map(value_text)
    }

    pub fn number(&self, key: &str) -> Option<i64> {
        self.field(key)?.parse().ok()
    }

    /// Replaces a field's value and leaves its JSON kind (number or text) as it was.
    pub fn set_field(&mut self, key: &str, text: &str) {
        let Some(value) = self.ext.as_mut().and_then(|ext| ext.get_mut(key)) else {
            return;
        };
        *value = match (&*value, text.parse::<i64>()) {
            (Value::Number(_), Ok(number)) => Value::from(number),
            _ => Value::from(text),
        };
    }

    /// Reads one whole frame, its length prefix included.
    pub fn decode(bytes: &[u8]) -> Result<Frame, String> {
        let mut reader = Reader { bytes, at: 0 };
        let length = reader.number(4)? as usize;
        if bytes.len() != 4 + length {
            return Err(format!(
                "the prefix says {length} bytes, {} follow it",
                bytes.len() - 4
            ));
        }
        let mark = reader.number(4)? as u32;
        let header = reader.take((mark & 0x00FF_FFFF) as usize)?;
        let body = bytes[reader.at..].to_vec();
        match (mark >> 24) as u8 {
            0 => decode_json(header, body),
            1 => decode_binary(header, body),
            kind => Err(format!(
                "header kind {kind} is neither 0 (JSON) nor 1 (ROCKETMQ)"
            )),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let header = match self.header_kind {
            0 => self.encode_json(),
            _ => self.encode_binary(),
        };
        let length = 4 + header.len() + self.body.len();
        let mark = u32::from(self.header_kind) << 24 | header.len() as u32;
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(mark.to_be_bytes());
        bytes.extend(header);
        bytes.extend(&self.body);
        bytes
    }

    fn encode_json(&self) -> Vec<u8> {
        let mut header = self.other.clone();
        header.insert("code".into(), Value::from(self.code));
        header.insert("language".into(), self.language.clone());
        header.insert("version".into(), Value::from(self.version));
        header.insert("opaque".into(), Value::from(self.opaque));
        header.insert("flag".into(), Value::from(self.flag));
        if let Some(remark) = &self.remark {
            header.insert("remark".into(), Value::from(remark.as_str()));
        }
        if let Some(ext) = &self.ext {
            header.insert("extFields".into(), Value::Object(ext.clone()));
        }
        let mut bytes = Value::Object(header).to_string().into_bytes();
        bytes.extend(&self.tail);
        bytes
    }

    fn encode_binary(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        for (key, value) in self.ext.iter().flatten() {
            let value = value_text(value);
            fields.extend((key.len() as u16).to_be_bytes());
            fields.extend(key.as_bytes());
            fields.extend((value.len() as u32).to_be_bytes());
            fields.extend(value.as_bytes());
        }
        let remark = self.remark.as_deref().unwrap_or_default();
        let mut bytes = Vec::new();
        bytes.extend((self.code as i16).to_be_bytes());
        bytes.push(self.language.as_i64().unwrap_or(0) as u8);
        bytes.extend((self.version as i16).to_be_bytes());
        bytes.extend(self.opaque.to_be_bytes());
        bytes.extend(self.flag.to_be_bytes());
        bytes.extend((remark.len() as u32).to_be_bytes());
        bytes.extend(remark.as_bytes());
        bytes.extend((fields.len() as u32).to_be_bytes());
        bytes.extend(fields);
        bytes
    }
}

fn decode_json(header: &[u8], body: Vec<u8>) -> Result<Frame, String> {
    let end = header
        .iter()
        .rposition(|byte| *byte == b'}')
        .map_or(0, |at| at + 1);
    let (json, tail) = header.split_at(end);
    let value: Value =
        serde_json::from_slice(json).map_err(|cause| format!("header is not JSON: {cause}"))?;
    let Value::Object(mut other) = value else {
        return Err("header is no JSON object".into());
    };
    let mut number = |key: &str| -> Result<i32, String> {
        let value = other.remove(key).and_then(|value| value.as_i64());
        value
            .and_then(|value| i32::try_from(value).ok())
            .ok_or_else(|| format!("{key} is no number"))
    };
    let (code, version) = (number("code")?, number("version")?);
    let (opaque, flag) = (number("opaque")?, number("flag")?);
    let ext = match other.get("extFields") {
        Some(Value::Object(_)) => match other.remove("extFields") {
            Some(Value::Object(ext)) => Some(ext),
            _ => None,
        },
        _ => None,
    };
    let remark = match other.get("remark") {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let language = other.remove("language").unwrap_or(Value::Null);
    Ok(Frame {
        header_kind: 0,
        code,
        language,
        version,
        opaque,
        flag,
        remark,
        ext,
        other,
        tail: tail.to_vec(),
        body,
    })
}

fn decode_binary(header: &[u8], body: Vec<u8>) -> Result<Frame, String> {
    let mut reader = Reader {
        bytes: header,
        at: 0,
    };
    let code = i32::from(reader.number(2)? as i16);
    let language = Value::from(reader.number(1)?);
    let version = i32::from(reader.number(2)? as i16);
    let opaque = reader.number(4)? as i32;
    let flag = reader.number(4)? as i32;
    let remark_len = reader.number(4)? as usize;
    let remark = reader.text(remark_len)?;
    let ext_len = reader.number(4)? as usize;
    let ext_end = reader.at + ext_len;
    let mut ext = Map::new();
    while reader.at < ext_end {
        let key_len = reader.number(2)? as usize;
        let key = reader.text(key_len)?;
        let value_len = reader.number(4)? as usize;
        ext.insert(key, Value::from(reader.text(value_len)?));
    }
    if reader.at != header.len() {
        return Err(format!(
            "binary header ends at {} of {} bytes",
            reader.at,
            header.len()
        ));
    }
    Ok(Frame {
        header_kind: 1,
        code,
        language,
        version,
        opaque,
        flag,
        remark: (!remark.is_empty()).then_some(remark),
        ext: Some(ext),
        other: Map::new(),
        tail: Vec::new(),
        body,
    })
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Big-endian reader that names the place where the bytes ran out.
pub struct Reader<'bytes> {
    pub bytes: &'bytes [u8],
    pub at: usize,
}

impl<'bytes> Reader<'bytes> {
    pub fn take(&mut self, len: usize) -> Result<&'bytes [u8], String> {
        let end = self
            .at
            .checked_add(len)
            .filter(|end| *end <= self.bytes.len());
        let end =
            end.ok_or_else(|| format!("{len} bytes at {} of {}", self.at, self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub fn number(&mut self, len: usize) -> Result<u64, String> {
        Ok(self
            .take(len)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub fn text(&mut self, len: usize) -> Result<String, String> {
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("invalid UTF-8 before {}", self.at))
    }
}

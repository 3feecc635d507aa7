//! Stored message records as pull, query and view answers carry them.

use super::frame::Reader;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Record {
    pub body_crc: u32,
    pub queue_id: u32,
    pub flag: i32,
    pub queue_offset: u64,
    pub physical_offset: u64,
    pub sys_flag: i32,
    pub born_timestamp: u64,
    pub store_host: Vec<u8>,
    pub reconsume_times: i32,
    pub body: Vec<u8>,
    pub topic: String,
    pub properties_text: String,
}

impl Record {
    pub fn properties(&self) -> BTreeMap<String, String> {
        let pairs = self
            .properties_text
            .split('\u{2}')
            .filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (name, value) = pair.split_once('\u{1}').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        };
        pairs.map(split).collect()
    }

    pub fn unique_key(&self) -> Option<String> {
        self.properties().remove("UNIQ_KEY")
    }

    /// The offset message id that a client makes of the record.
    pub fn offset_id(&self) -> String {
        let host: String = self
            .store_host
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        format!("{host}{:016X}", self.physical_offset)
    }
}

/// Reads records that stand one behind the other until the bytes end.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut reader = Reader { bytes, at: 0 };
    let mut records = Vec::new();
    while reader.at < bytes.len() {
        let begin = reader.at;
        let size = reader.number(4)? as usize;
        let record = decode(&mut reader).map_err(|cause| format!("record at {begin}: {cause}"))?;
        if reader.at != begin + size {
            return Err(format!(
                "record at {begin} says {size} bytes, has {}",
                reader.at - begin
            ));
        }
        records.push(record);
    }
    Ok(records)
}

fn decode(reader: &mut Reader<'_>) -> Result<Record, String> {
    let topic_len_size = match reader.number(4)? {
        0xDAA3_20A7 => 1,
        0xDAA3_20AB => 2,
        magic => return Err(format!("magic code {magic:08X}")),
    };
    let body_crc = reader.number(4)? as u32;
    let queue_id = reader.number(4)? as u32;
    let flag = reader.number(4)? as i32;
    let queue_offset = reader.number(8)?;
    let physical_offset = reader.number(8)?;
    let sys_flag = reader.number(4)? as i32;
    let host_size = |bit: i32| if sys_flag & bit == 0 { 8 } else { 20 };
    let born_timestamp = reader.number(8)?;
    reader.take(host_size(0x10))?;
    reader.take(8)?; // when it was stored
    let store_host = reader.take(host_size(0x20))?.to_vec();
    let reconsume_times = reader.number(4)? as i32;
    reader.take(8)?; // where its half message lies
    let body_len = reader.number(4)? as usize;
    let body = reader.take(body_len)?.to_vec();
    let topic_len = reader.number(topic_len_size)? as usize;
    let topic = reader.text(topic_len)?;
    let properties_len = reader.number(2)? as usize;
    let properties_text = reader.text(properties_len)?;
    Ok(Record {
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_timestamp,
        store_host,
        reconsume_times,
        body,
        topic,
        properties_text,
    })
}

/// One item of a batch body, as a producer sends it.
pub fn encode_batch_item(flag: i32, body: &[u8], properties: &str) -> Vec<u8> {
    let size = 4 + 4 + 4 + 4 + 4 + body.len() + 2 + properties.len();
    let mut item = Vec::with_capacity(size);
    item.extend((size as u32).to_be_bytes());
    item.extend([0; 8]);
    item.extend(flag.to_be_bytes());
    item.extend((body.len() as u32).to_be_bytes());
    item.extend(body);
    item.extend((properties.len() as u16).to_be_bytes());
    item.extend(properties.as_bytes());
    item
}

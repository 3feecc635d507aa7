//! Pull requests.

use super::PULL;
use std::io::Write;

/// What a pull asks for.
pub struct Pull<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub queue: u32,
    pub offset: u64,
    pub opaque: u32,
    /// Most messages and bytes of an answer; no bytes asks for the broker's own limit.
    pub count_max: u32,
    pub bytes_max: Option<u32>,
    /// Zero answers at once; else the broker may hold the pull that long.
    pub suspend_ms: u32,
}

const SUSPEND: u32 = 2;
const SUBSCRIPTION: u32 = 4;

impl Pull<'_> {
    pub fn put(&self, out: &mut Vec<u8>) {
        let sys_flag = SUBSCRIPTION | if 0 < self.suspend_ms { SUSPEND } else { 0 };
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        write!(
            out,
            "{{\"code\":{PULL},\"extFields\":{{\"consumerGroup\":\"{}\",\"topic\":\"{}\",\
             \"queueId\":\"{}\",\"queueOffset\":\"{}\",\"maxMsgNums\":\"{}\",\"sysFlag\":\"{sys_flag}\",\
             \"commitOffset\":\"0\",\"suspendTimeoutMillis\":\"{}\",\"subscription\":\"*\",\"subVersion\":\"0\",",
            self.group, self.topic, self.queue, self.offset, self.count_max, self.suspend_ms
        )
        .expect("a vector takes what is written");
        if let Some(bytes) = self.bytes_max {
            write!(out, "\"maxMsgBytes\":\"{bytes}\",").expect("a vector takes what is written");
        }
        write!(
            out,
            "\"expressionType\":\"TAG\"}},\"flag\":0,\"language\":\"JAVA\",\"opaque\":{},\
             \"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}}",
            self.opaque
        )
        .expect("a vector takes what is written");
        let header_size = (out.len() - start - 8) as u32;
        out[start..start + 4].copy_from_slice(&(4 + header_size).to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&header_size.to_be_bytes());
    }
}

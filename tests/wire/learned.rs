//! What a replay learns: which value of this server stands for which recorded one.

use super::frame::Frame;
use super::recording::Recording;
use super::{codes, record::Record};
use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of the recorded broker.
pub const RECORDED_BROKER: &str = "apache";

pub struct Learned {
    /// Physical offset of a record: recorded → ours.
    physical: BTreeMap<u64, u64>,
    /// Message ids, whole: recorded → ours.
    ids: HashMap<String, String>,
    pub broker_name: String,
    store_host: String,
    /// What must be added to a recorded time to stand in the same place in this replay.
    time_shift_ms: i64,
}

impl Learned {
    pub fn new(recording: &Recording, broker_name: String) -> Learned {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_millis());
        let time_shift_ms = now as i64 - recording_begin_ms(recording).unwrap_or(now as i64);
        let (physical, ids) = (BTreeMap::new(), HashMap::new());
        Learned {
            physical,
            ids,
            broker_name,
            store_host: String::new(),
            time_shift_ms,
        }
    }

    /// One message: `recorded` and `ours` are offset ids, possibly lists of them.
    pub fn offset_ids(&mut self, recorded: &str, ours: &str) {
        for (recorded, ours) in recorded.split(',').zip(ours.split(',')) {
            let physical = |id: &str| u64::from_str_radix(id.get(id.len() - 16..)?, 16).ok();
            if let (true, Some(from), Some(to)) = (
                is_id(recorded) && is_id(ours),
                physical(recorded),
                physical(ours),
            ) {
                self.physical.insert(from, to);
                self.store_host = ours[..ours.len() - 16].to_owned();
                self.ids.insert(recorded.to_owned(), ours.to_owned());
            }
        }
    }

    pub fn unique_keys(&mut self, recorded: &str, ours: &str) {
        if recorded != ours {
            self.ids.insert(recorded.to_owned(), ours.to_owned());
        }
    }

    pub fn record(&mut self, recorded: &Record, ours: &Record) {
        self.offset_ids(&recorded.offset_id(), &ours.offset_id());
        if let (Some(recorded), Some(ours)) = (recorded.unique_key(), ours.unique_key()) {
            self.unique_keys(&recorded, &ours);
        }
    }

    /// The offset of ours that stands for a recorded one. An offset a few bytes inside a known
    /// record stays inside it.
    pub fn physical(&self, recorded: u64) -> Option<u64> {
        const INSIDE_MAX: u64 = 64;
        let (begin, ours) = self.physical.range(..=recorded).next_back()?;
        (recorded - begin <= INSIDE_MAX).then(|| ours + (recorded - begin))
    }

    pub fn id(&self, recorded: &str) -> Option<String> {
        if let Some(ours) = self.ids.get(recorded) {
            return Some(ours.clone());
        }
        let is_offset_id = recorded.len() == 32 && recorded.starts_with("7F0000010000");
        let offset = u64::from_str_radix(recorded.get(16..)?, 16).ok();
        let ours = offset
            .filter(|_| is_offset_id)
            .and_then(|offset| self.physical(offset))?;
        Some(format!("{}{ours:016X}", self.store_host))
    }

    /// Puts this server's values in place of recorded ones; whether anything changed.
    pub fn rewrite(&self, request: &mut Frame) -> bool {
        let mut changes: Vec<(&str, String)> = Vec::new();
        let is_by_offset = [codes::CONSUMER_SEND_MSG_BACK, codes::VIEW_MESSAGE_BY_ID];
        if is_by_offset.contains(&request.code) {
            let offset = request
                .number("offset")
                .and_then(|offset| u64::try_from(offset).ok());
            let ours = offset.and_then(|offset| self.physical(offset));
            changes.extend(ours.map(|ours| ("offset", ours.to_string())));
        }
        for key in ["originMsgId", "key", "msgId"] {
            let ours = request.field(key).and_then(|recorded| self.id(&recorded));
            changes.extend(ours.map(|ours| (key, ours)));
        }
        if self.broker_name != RECORDED_BROKER {
            for key in ["bname", "brokerName", "n"] {
                if request.field(key).as_deref() == Some(RECORDED_BROKER) {
                    changes.push((key, self.broker_name.clone()));
                }
            }
        }
        for key in ["beginTimestamp", "endTimestamp", "timestamp"] {
            let recorded = request.number(key).filter(|time| is_time(*time));
            changes.extend(recorded.map(|time| (key, (time + self.time_shift_ms).to_string())));
        }
        for (key, value) in &changes {
            request.set_field(key, value);
        }
        !changes.is_empty() | self.rewrite_body(request)
    }

    fn rewrite_body(&self, request: &mut Frame) -> bool {
        let Ok(text) = std::str::from_utf8(&request.body) else {
            return false;
        };
        if self.broker_name == RECORDED_BROKER || !text.starts_with('{') {
            return false;
        }
        let name = |name: &str| format!("\"brokerName\":\"{name}\"");
        let ours = text.replace(&name(RECORDED_BROKER), &name(&self.broker_name));
        let changed = ours != text;
        request.body = ours.into_bytes();
        changed
    }
}

/// The time of a recording's begin: the earliest time that its requests carry about themselves, or, where none does (a tool
/// that only asks), what its answers say of the messages that were there.
fn recording_begin_ms(recording: &Recording) -> Option<i64> {
    let answers = recording
        .frames
        .iter()
        .filter(|frame| frame.frame.is_answer());
    let told = answers.filter_map(|answer| answer.frame.number("indexLastUpdateTimestamp"));
    let requests = recording
        .frames
        .iter()
        .filter(|frame| !frame.frame.is_answer());
    let born = requests.clone().filter_map(|request| {
        let frame = &request.frame;
        frame.number("bornTimestamp").or_else(|| frame.number("g"))
    });
    let versions = requests
        .clone()
        .filter_map(|request| request.frame.number("subVersion"));
    let asked = requests.filter_map(|request| request.frame.number("timestamp"));
    let first = |times: &mut dyn Iterator<Item = i64>| times.filter(|time| is_time(*time)).min();
    first(&mut born.chain(versions))
        .or_else(|| first(&mut { asked }))
        .or_else(|| first(&mut { told }))
}

/// Whether a number is a wall time in milliseconds.
pub fn is_time(number: i64) -> bool {
    (1_500_000_000_000..2_500_000_000_000).contains(&number)
}

/// Whether a text is a message id: 16 or 28 bytes in hex.
pub fn is_id(text: &str) -> bool {
    (text.len() == 32 || text.len() == 56) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

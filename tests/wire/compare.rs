//! Compares an answer with the recorded one: code, header fields, remark, body.

use super::codes;
use super::frame::Frame;
use super::learned::{Learned, RECORDED_BROKER, is_id, is_time};
use super::loose::{self, Json};
use super::prepare;
use super::record::{self, Record};
use std::collections::{BTreeMap, BTreeSet};

/// One difference between a recorded answer and ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The request's code.
    pub code: i32,
    /// Where: `code`, `remark`, `ext.NAME`, `body`, `body.PATH`, `record.FIELD`, …
    pub place: String,
    pub recorded: String,
    pub ours: String,
    /// Recordings in which it was seen, and the first frame there.
    pub recording: String,
    pub index: usize,
}

const ABSENT: &str = "absent";

pub struct Comparison<'a> {
    /// The request as it was recorded.
    pub request: &'a Frame,
    pub recorded: &'a Frame,
    pub ours: &'a Frame,
    pub learned: &'a Learned,
    /// Whether a pull may find more records than the recorded one found.
    pub may_have_more: bool,
}

type Found = Vec<(String, String, String)>;

impl Comparison<'_> {
    /// Place, recorded and ours of every difference.
    pub fn differences(&self) -> Found {
        let mut found = Found::new();
        let mut unequal = |place: &str, recorded: String, ours: String| {
            if recorded != ours {
                found.push((place.to_owned(), recorded, ours));
            }
        };
        if self.is_early() {
            return Found::new();
        }
        unequal(
            "code",
            self.recorded.code.to_string(),
            self.ours.code.to_string(),
        );
        if self.recorded.code != self.ours.code {
            // The rest follows from the code; its remark helps whoever reads the difference.
            found[0].2 += &format!(" {}", self.ours.remark.as_deref().unwrap_or_default());
            return found;
        }
        unequal("remark", self.remark(self.recorded), self.remark(self.ours));
        unequal(
            "header kind",
            self.recorded.header_kind.to_string(),
            self.ours_kind(),
        );
        self.fields(&mut found);
        self.body(&mut found);
        found
    }

    /// Whether a delayed message was already there when the recorded server had none yet.
    fn is_early(&self) -> bool {
        let is_read =
            codes::is_pull(self.request.code) || self.request.code == codes::QUERY_CONSUMER_OFFSET;
        let answers = (self.recorded.code, self.ours.code);
        self.may_have_more && is_read && (answers == (19, 0) || answers == (22, 0))
    }

    /// Either kind may answer a binary request: Apache answers in JSON.
    fn ours_kind(&self) -> String {
        if self.ours.header_kind == self.request.header_kind {
            return self.recorded.header_kind.to_string();
        }
        self.ours.header_kind.to_string()
    }

    /// Absent and empty are the same to every client.
    fn remark(&self, frame: &Frame) -> String {
        let remark = frame.remark.as_deref().unwrap_or_default();
        normalised(remark, &self.learned.broker_name)
    }

    fn fields(&self, found: &mut Found) {
        let (recorded, ours) = (self.recorded.fields(), self.ours.fields());
        let names: BTreeSet<&String> = recorded.keys().chain(ours.keys()).collect();
        for name in names {
            let value = |fields: &BTreeMap<String, String>| match fields.get(name) {
                Some(value) => self.field_value(name, value),
                None => ABSENT.to_owned(),
            };
            let (recorded, ours) = (value(&recorded), value(&ours));
            let is_end = ["nextBeginOffset", "maxOffset"].contains(&name.as_str());
            let numbers = (recorded.parse::<i64>(), ours.parse::<i64>());
            if let (true, true, (Ok(recorded), Ok(ours))) = (self.may_have_more, is_end, numbers)
                && recorded <= ours
            {
                continue;
            }
            if recorded != ours {
                found.push((format!("ext.{name}"), recorded, ours));
            }
        }
        let raw = self
            .ours
            .ext
            .iter()
            .flatten()
            .filter(|(_, value)| !value.is_string());
        found.extend(raw.map(|(name, value)| {
            (
                format!("ext.{name}"),
                "text".to_owned(),
                format!("raw {value}"),
            )
        }));
    }

    /// A field's value as far as both sides must agree: its kind where each server has its own.
    fn field_value(&self, name: &str, value: &str) -> String {
        let ids: Vec<&str> = value.split(',').collect();
        if ids.iter().all(|id| is_id(id)) {
            return format!("{} ids", ids.len());
        }
        let is_delayed = prepare::send_properties(self.request).contains_key("DELAY");
        match (name, value.parse::<i64>()) {
            // The place in the queue of a delay level, which all topics share.
            ("queueOffset", Ok(_)) if is_delayed => "number".to_owned(),
            ("wipeTopicCount" | "addTopicCount", Ok(_)) => "number".to_owned(),
            // Nothing found is 0; but the first record of a log lies at 0 too.
            ("indexLastUpdatePhyoffset", Ok(_)) if self.recorded.code == 0 => "number".to_owned(),
            ("version", _) if value.starts_with('{') => "JSON".to_owned(),
            (_, Ok(number)) if is_time(number) => "time".to_owned(),
            _ => value.to_owned(),
        }
    }

    fn body(&self, found: &mut Found) {
        let is_of_records = codes::is_pull(self.request.code)
            || [codes::QUERY_MESSAGE, codes::VIEW_MESSAGE_BY_ID].contains(&self.request.code);
        let (recorded, ours) = (&self.recorded.body, &self.ours.body);
        if recorded.is_empty() || ours.is_empty() {
            let size = |body: &[u8]| if body.is_empty() { ABSENT } else { "present" }.to_owned();
            if recorded.is_empty() != ours.is_empty() {
                found.push(("body".to_owned(), size(recorded), size(ours)));
            }
        } else if is_of_records {
            match (record::decode_all(recorded), record::decode_all(ours)) {
                (Ok(recorded), Ok(mut ours)) => {
                    if self.may_have_more {
                        ours.truncate(recorded.len());
                    }
                    records(&recorded, &ours, found);
                }
                (_, Err(cause)) => found.push(("body".into(), "records".into(), cause)),
                (Err(cause), _) => panic!("a recorded body: {cause}"),
            }
        } else {
            self.text_body(recorded, ours, found);
        }
    }

    fn text_body(&self, recorded: &[u8], ours: &[u8], found: &mut Found) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (recorded, ours) = (text(recorded), text(ours));
        let is_properties =
            [codes::GET_BROKER_CONFIG, codes::GET_NAMESRV_CONFIG].contains(&self.request.code);
        if is_properties {
            let keys = |text: &str| -> BTreeMap<String, String> {
                let key = |line: &str| Some(line.split_once('=')?.0.to_owned());
                text.lines()
                    .filter_map(key)
                    .map(|key| (key, "present".to_owned()))
                    .collect()
            };
            return unequal_maps("body.", &keys(&recorded), &keys(&ours), found);
        }
        // Of a route the values count too: clients go by them.
        let show = |value: &str| normalised(value, &self.learned.broker_name);
        let show: Option<&dyn Fn(&str) -> String> =
            (self.request.code == codes::GET_ROUTEINFO_BY_TOPIC).then_some(&show);
        let shape = |text: &str| Ok(loose::shape(&Json::parse(text)?, show));
        match (shape(&recorded), shape(&ours)) {
            (Ok(recorded), Ok(ours)) => unequal_shapes(&recorded, &ours, found),
            (Err(_), _) if recorded == ours => {}
            (_, Err(cause)) => found.push(("body".into(), "JSON".into(), cause)),
            (Err(cause), _) => found.push(("body".into(), cause, "JSON".into())),
        }
    }
}

fn unequal_maps(
    prefix: &str,
    recorded: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
    found: &mut Found,
) {
    let names: BTreeSet<&String> = recorded.keys().chain(ours.keys()).collect();
    for name in names {
        let value = |map: &BTreeMap<String, String>| map.get(name).map_or(ABSENT, |v| v).to_owned();
        let (recorded, ours) = (value(recorded), value(ours));
        if recorded != ours {
            found.push((format!("{prefix}{name}"), recorded, ours));
        }
    }
}

/// Shapes agree where one side has nothing in an array or a map.
fn unequal_shapes(
    recorded: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
    found: &mut Found,
) {
    let empty = |shape: &BTreeMap<String, String>| -> Vec<String> {
        let is_empty = |(_, kind): &(&String, &String)| kind.ends_with("empty");
        shape
            .iter()
            .filter(is_empty)
            .map(|(path, _)| path.clone())
            .collect()
    };
    let holes: Vec<String> = empty(recorded).into_iter().chain(empty(ours)).collect();
    let mut unequal = Found::new();
    unequal_maps("", recorded, ours, &mut unequal);
    found.extend(unequal.into_iter().filter(|(path, recorded, ours)| {
        let kind = |text: &str| text.split(',').next().unwrap_or_default().to_owned();
        let is_below = |hole: &String| {
            path.strip_prefix(hole.as_str())
                .is_some_and(|rest| rest.starts_with(['[', '{', '.']))
        };
        let is_hole = holes.contains(path) && kind(recorded) == kind(ours);
        !is_hole && !holes.iter().any(is_below)
    }));
}

fn records(recorded: &[Record], ours: &[Record], found: &mut Found) {
    if recorded.len() != ours.len() {
        found.push((
            "records".into(),
            recorded.len().to_string(),
            ours.len().to_string(),
        ));
    }
    for (recorded, ours) in recorded.iter().zip(ours) {
        let mut unequal = |field: &str, recorded: String, ours: String| {
            if recorded != ours {
                found.push((format!("record.{field}"), recorded, ours));
            }
        };
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        unequal("topic", recorded.topic.clone(), ours.topic.clone());
        unequal(
            "queue id",
            recorded.queue_id.to_string(),
            ours.queue_id.to_string(),
        );
        unequal(
            "queue offset",
            recorded.queue_offset.to_string(),
            ours.queue_offset.to_string(),
        );
        unequal("flag", recorded.flag.to_string(), ours.flag.to_string());
        unequal(
            "sys flag",
            recorded.sys_flag.to_string(),
            ours.sys_flag.to_string(),
        );
        unequal("body", text(&recorded.body), text(&ours.body));
        unequal(
            "body CRC",
            recorded.body_crc.to_string(),
            ours.body_crc.to_string(),
        );
        let times = |record: &Record| record.reconsume_times.to_string();
        unequal("reconsume times", times(recorded), times(ours));
        let values = |record: &Record| -> BTreeMap<String, String> {
            let properties = record.properties().into_iter();
            properties
                .map(|(name, value)| (name, property_value(value)))
                .collect()
        };
        unequal_maps("record.property ", &values(recorded), &values(ours), found);
    }
}

fn property_value(value: String) -> String {
    let is_known_time = value.parse().is_ok_and(is_time);
    if is_id(&value) {
        "an id".to_owned()
    } else if is_known_time {
        "a time".to_owned()
    } else {
        value
    }
}

/// Text without what differs from run to run: addresses, times, the broker's name.
pub fn normalised(text: &str, broker_name: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(|byte: char| byte.is_ascii_digit()) {
        out += &rest[..begin];
        rest = &rest[begin..];
        let in_address = |byte: char| byte.is_ascii_digit() || byte == '.' || byte == ':';
        let end = rest.find(|byte| !in_address(byte)).unwrap_or(rest.len());
        let word = rest[..end].trim_end_matches([':', '.']);
        rest = &rest[word.len()..];
        let dots = word.bytes().filter(|byte| *byte == b'.').count();
        if dots == 3 {
            out += "ADDRESS";
        } else if word.parse().is_ok_and(is_time) {
            out += "TIME";
        } else {
            out += word;
        }
    }
    out += rest;
    if broker_name == RECORDED_BROKER {
        return out;
    }
    out.replace(broker_name, RECORDED_BROKER)
}

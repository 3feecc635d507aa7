//! What the program prints: JSON lines, and the count of distinct messages that ends a run.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Mutex;

use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_ext::MessageExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub fn print(line: &Value) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away wants no more lines; the work goes on and ends in its own time.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

pub fn received(message: &MessageExt, broker: &str) -> Value {
    let property = |name: &str| message.properties().get(name).map(|value| value.as_str()).unwrap_or_default();
    let body = message.body().unwrap_or_default();
    json!({
        "index": property("index").parse().unwrap_or(-1i64),
        "id": message.msg_id().as_str(),
        "broker": broker,
        "queue": message.queue_id(),
        "offset": message.queue_offset(),
        "tag": property("TAGS"),
        "body": String::from_utf8_lossy(&body),
        "keys": property("KEYS"),
        "city": property("city"),
        "reconsume": message.reconsume_times(),
        "topic": MessageTrait::topic(message).as_str(),
    })
}

/// Counts distinct messages and says when there are enough.
pub struct Progress {
    seen: Mutex<HashSet<String>>,
    enough: usize,
    pub reached: Notify,
}

impl Progress {
    pub fn new(enough: usize) -> Progress {
        Progress { seen: Mutex::new(HashSet::new()), enough, reached: Notify::new() }
    }

    pub fn add(&self, line: &Value) {
        let name = if line["index"] == -1 { &line["id"] } else { &line["index"] };
        let mut seen = self.seen.lock().unwrap();
        seen.insert(name.to_string());
        if seen.len() >= self.enough {
            self.reached.notify_one(); // Kept for whoever waits later.
        }
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

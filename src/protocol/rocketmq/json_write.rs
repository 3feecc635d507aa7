//! Writes JSON bodies as Java reads them: keys in the order of the alphabet, nothing between them, and maps
//! keyed by a queue in the form that only Java knows, `{{"brokerName":…}:…}` (P§2.0).

use crate::command::{DataVersion, QueueName, Subscription};

use super::frame::{put_number, put_text};

/// An object that is being written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens it.
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a name; its value must follow in what is returned.
    pub(super) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.comma();
        put_text(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn comma(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        put_text(self.name(name), value);
    }

    pub(super) fn number(&mut self, name: &str, value: impl Into<i64>) {
        put_number(self.name(name), value.into());
    }

    /// As Java writes doubles: always with a point.
    pub(super) fn float(&mut self, name: &str, value: f64) {
        let value = if value.is_finite() { value } else { 0.0 };
        let text = format!("{value:?}");
        self.name(name).extend_from_slice(text.as_bytes());
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.name(name).extend_from_slice(text);
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, name: &str, values: &[T]) {
        put_list(self.name(name), values, |out, text| {
            put_text(out, text.as_ref());
        });
    }

    pub(super) fn pairs(&mut self, name: &str, pairs: &[(String, String)]) {
        let mut object = Object::begin(self.name(name));
        for (name, value) in pairs {
            object.text(name, value);
        }
        object.end();
    }

    pub(super) fn data_version(&mut self, name: &str, version: DataVersion) {
        put_data_version(self.name(name), version);
    }

    /// A map keyed by queues.
    pub(super) fn queues<V>(
        &mut self,
        name: &str,
        queues: &[(QueueName, V)],
        put: impl Fn(&mut Vec<u8>, &V),
    ) {
        let mut object = Object::begin(self.name(name));
        for (queue, value) in queues {
            object.comma();
            put_queue(object.out, queue);
            object.out.push(b':');
            put(object.out, value);
        }
        object.end();
    }

    /// Closes it.
    pub(super) fn end(self) {
        self.out.push(b'}');
    }
}

/// A list or a set.
pub(super) fn put_list<T>(out: &mut Vec<u8>, all: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, entry) in all.iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        put(out, entry);
    }
    out.push(b']');
}

/// Java's MessageQueue.
pub(super) fn put_queue(out: &mut Vec<u8>, queue: &QueueName) {
    let mut object = Object::begin(out);
    object.text("brokerName", &queue.broker);
    object.number("queueId", queue.queue_id);
    object.text("topic", &queue.topic);
    object.end();
}

/// Java's DataVersion.
pub(super) fn put_data_version(out: &mut Vec<u8>, version: DataVersion) {
    let mut object = Object::begin(out);
    object.number("counter", version.counter);
    object.number("stateVersion", version.state_version);
    object.number("timestamp", version.timestamp_ms);
    object.end();
}

/// Java's SubscriptionData.
pub(super) fn put_subscription(out: &mut Vec<u8>, subscription: &Subscription) {
    let mut object = Object::begin(out);
    object.flag("classFilterMode", subscription.class_filter);
    put_list(object.name("codeSet"), &subscription.codes, |out, code| {
        put_number(out, i64::from(*code));
    });
    object.text("expressionType", &subscription.expression_type);
    object.text("subString", &subscription.expression);
    object.number("subVersion", subscription.version);
    object.texts("tagsSet", &subscription.tags);
    object.text("topic", &subscription.topic);
    object.end();
}

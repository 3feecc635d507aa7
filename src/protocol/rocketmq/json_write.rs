//! Writes JSON bodies as Java reads them: keys in the order of the alphabet, nothing between them, and maps
//! keyed by a queue in the form that only Java knows, `{{"brokerName":…}:…}` (P§2.0).

use crate::command::{DataVersion, QueueName, Subscription};

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
        put_number::<i64>(self.name(name), value.into());
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

/// Appends a decimal number.
#[inline]
pub(super) fn put_number<N: itoa::Integer>(out: &mut Vec<u8>, number: N) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a JSON string.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    if !is_plain(text.as_bytes()) {
        return put_escaped(out, text);
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cold]
fn put_escaped(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every byte, and text is always JSON");
}

/// Whether a JSON string holds these bytes as they are. Eight at a time, and all of them: a loop that ends
/// early is slower, and nearly all text is plain.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // High bits, at least one where a byte is below the number, none where no byte is.
    let below = |word: u64, number: u8| word.wrapping_sub(ONES * u64::from(number)) & !word;
    let odd = |bytes: &[u8; 8]| {
        let word = u64::from_le_bytes(*bytes);
        let quotes = word ^ (ONES * u64::from(b'"'));
        let backslashes = word ^ (ONES * u64::from(b'\\'));
        below(word, b' ') | below(quotes, 1) | below(backslashes, 1)
    };
    let Some(last) = text.last_chunk() else {
        return text
            .iter()
            .all(|byte| b' ' <= *byte && *byte != b'"' && *byte != b'\\');
    };
    let (words, _) = text.as_chunks();
    let found = words
        .iter()
        .fold(odd(last), |found, word| found | odd(word));
    found & HIGHS == 0
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
        put_number(out, *code);
    });
    object.text("expressionType", &subscription.expression_type);
    object.text("subString", &subscription.expression);
    object.number("subVersion", subscription.version);
    object.texts("tagsSet", &subscription.tags);
    object.text("topic", &subscription.topic);
    object.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_wherever_its_odd_byte_stands() {
        let odd = ['"', '\\', '\0', '\u{1}', '\u{1f}', '\n'];
        let plain = [' ', '!', '#', '[', ']', '\u{7f}', 'é', '中', 'a'];
        for len in 0..40 {
            for at in 0..=len {
                for character in odd.iter().chain(&plain) {
                    let mut text = "~".repeat(at);
                    text.push(*character);
                    text.extend(std::iter::repeat_n('~', len - at));
                    let mut out = Vec::new();
                    put_text(&mut out, &text);
                    let expected = serde_json::to_string(&text).unwrap();
                    assert_eq!(String::from_utf8(out).unwrap(), expected);
                    assert_eq!(is_plain(text.as_bytes()), plain.contains(character));
                }
            }
        }
    }
}

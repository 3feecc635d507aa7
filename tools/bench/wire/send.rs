//! Send requests: a header that is copied and patched, and bodies put behind it.

use super::{SEND, SEND_BATCH, SEND_BATCH_ITEM_HEAD, find, put_digits, put_frame, put_hex};
use crate::check::{self, FIELDS_SIZE};
use crate::load::{Bodies, Random};

/// Low bits of the run, lane, slot and sequence, hexadecimal: unique among all messages.
const UNIQUE_PLACE: &str = "SSSSSSNNNNNNNNNN";
const OPAQUE_PLACE: &str = "OOOOOOOOOO";
const BORN_PLACE: &str = "BBBBBBBBBBBBB";
const KEY_PLACE: &str = "KKKKKKKKKK";

/// What all requests of a run have in common.
pub struct Style {
    pub batch: usize,
    pub run: u64,
    /// How many keys there are; none for 0.
    pub keys: u64,
}

/// What one request has of its own.
pub struct Request {
    pub opaque: u32,
    pub born_ms: u64,
    pub slot: u32,
    /// Sequence of its first message.
    pub first: u64,
    pub intended_ns: u64,
}

/// Where ids stand in a message's properties.
#[derive(Clone, Copy)]
struct Places {
    unique_at: usize,
    key_at: Option<usize>,
}

impl Places {
    fn of(bytes: &[u8]) -> Places {
        Places {
            unique_at: find(bytes, UNIQUE_PLACE.as_bytes()).expect("every message has one"),
            key_at: find(bytes, KEY_PLACE.as_bytes()),
        }
    }

    fn fill(self, bytes: &mut [u8], slot: u32, sequence: u64, key: u64) {
        put_hex(&mut bytes[self.unique_at..][..6], u64::from(slot));
        put_hex(&mut bytes[self.unique_at + 6..][..10], sequence);
        if let Some(at) = self.key_at {
            put_digits(&mut bytes[at..][..10], key);
        }
    }
}

/// A send request of one lane and tag.
pub struct SendTemplate {
    /// The frame's lengths and its header.
    head: Vec<u8>,
    opaque_at: usize,
    born_at: usize,
    places: Places,
    /// What stands behind each body of a batch: length of the properties, properties.
    item_tail: Vec<u8>,
    item_places: Places,
    fields: [u8; FIELDS_SIZE],
    batch: usize,
    keys: u64,
}

impl SendTemplate {
    /// `lane` is the number of the queue among all queues of all topics.
    pub fn new(style: &Style, topic: &str, queue: u32, lane: u32, tag: Option<&str>) -> Self {
        assert!(1 <= style.batch);
        let batch = style.batch;
        let run = style.run & 0xFF_FFFF_FFFF;
        let mut properties = format!("UNIQ_KEY\u{1}{run:010X}{lane:06X}{UNIQUE_PLACE}\u{2}");
        if 0 < style.keys {
            properties += &format!("KEYS\u{1}{KEY_PLACE}\u{2}");
        }
        if let Some(tag) = tag {
            properties += &format!("TAGS\u{1}{tag}\u{2}");
        }
        properties += "WAIT\u{1}true\u{2}";
        let code = if batch == 1 { SEND } else { SEND_BATCH };
        let escaped = properties
            .replace('\u{1}', "\\u0001")
            .replace('\u{2}', "\\u0002");
        let header = format!(
            "{{\"code\":{code},\"extFields\":{{\"a\":\"BENCH_PRODUCER\",\"b\":\"{topic}\",\"c\":\"TBW102\",\
             \"d\":\"4\",\"e\":\"{queue}\",\"f\":\"0\",\"g\":\"{BORN_PLACE}\",\"h\":\"0\",\
             \"i\":\"{escaped}\",\
             \"j\":\"0\",\"k\":\"false\",\"m\":\"{}\"}},\"flag\":0,\"language\":\"JAVA\",\
             \"opaque\":{OPAQUE_PLACE},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}}",
            1 < batch
        );
        let mut item_tail = (properties.len() as u16).to_be_bytes().to_vec();
        item_tail.extend_from_slice(properties.as_bytes());
        let mut head = Vec::new();
        put_frame(&mut head, header.as_bytes(), &[]);
        let place = |part: &str| find(&head, part.as_bytes()).expect("the header holds it");
        SendTemplate {
            opaque_at: place(OPAQUE_PLACE),
            born_at: place(BORN_PLACE),
            places: Places::of(&head),
            item_places: Places::of(&item_tail),
            head,
            item_tail,
            fields: check::blank_fields(style.run, check::place(topic, queue)),
            batch,
            keys: style.keys,
        }
    }

    /// Puts one request into `out`; gives the bytes of its bodies.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        request: &Request,
        bodies: &mut Bodies,
        random: &mut Random,
    ) -> u64 {
        let start = out.len();
        out.extend_from_slice(&self.head);
        let head = &mut out[start..];
        put_digits(&mut head[self.opaque_at..][..10], u64::from(request.opaque));
        put_digits(&mut head[self.born_at..][..13], request.born_ms);
        let key = self.draw_key(random);
        self.places.fill(head, request.slot, request.first, key);
        let mut bytes = 0;
        if self.batch == 1 {
            bytes += self.put_body(out, request, request.first, bodies.draw());
        } else {
            for index in 0..self.batch as u64 {
                let sequence = request.first + index;
                let body = bodies.draw();
                let body_size = body.0.len() + FIELDS_SIZE;
                let item_size = SEND_BATCH_ITEM_HEAD + body_size + self.item_tail.len();
                // Size, magic, CRC, flag, body length; the broker sets what is zero.
                let mut item = [0; SEND_BATCH_ITEM_HEAD];
                item[..4].copy_from_slice(&(item_size as u32).to_be_bytes());
                item[16..].copy_from_slice(&(body_size as u32).to_be_bytes());
                out.extend_from_slice(&item);
                bytes += self.put_body(out, request, sequence, body);
                let tail_at = out.len();
                out.extend_from_slice(&self.item_tail);
                let key = self.draw_key(random);
                let tail = &mut out[tail_at..];
                self.item_places.fill(tail, request.slot, sequence, key);
            }
        }
        let size = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&size.to_be_bytes());
        bytes
    }

    fn draw_key(&self, random: &mut Random) -> u64 {
        if self.keys == 0 {
            return 0;
        }
        random.below(self.keys)
    }

    /// The fields end a body, so its CRC goes on from the padding's.
    fn put_body(
        &self,
        out: &mut Vec<u8>,
        request: &Request,
        sequence: u64,
        (padding, padding_crc): (&[u8], u32),
    ) -> u64 {
        out.extend_from_slice(padding);
        let mut fields = self.fields;
        check::seal(
            &mut fields,
            padding_crc,
            request.slot,
            sequence,
            request.intended_ns,
        );
        out.extend_from_slice(&fields);
        (padding.len() + FIELDS_SIZE) as u64
    }

    /// Bytes of a request whose bodies are of this size.
    pub fn size(&self, body_size: f64) -> f64 {
        let items = if self.batch == 1 {
            body_size
        } else {
            let item = (SEND_BATCH_ITEM_HEAD + self.item_tail.len()) as f64 + body_size;
            self.batch as f64 * item
        };
        self.head.len() as f64 + items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Checker, Verdict};
    use crate::load::Sizes;
    use crate::wire::{frame, opaque};

    const STYLE: Style = Style {
        batch: 1,
        run: 7,
        keys: 0,
    };

    fn put(template: &SendTemplate, slot: u32, first: u64, size: usize) -> Vec<u8> {
        let request = Request {
            opaque: opaque(12, 34),
            born_ms: 1_795_242_320_786,
            slot,
            first,
            intended_ns: 99,
        };
        let mut bodies = Bodies::new(&Sizes::Fixed(size), 1);
        let mut out = vec![1, 2, 3];
        let bytes = template.put(&mut out, &request, &mut bodies, &mut Random::new(1));
        assert_eq!(bytes, (size * template.batch) as u64);
        assert_eq!(template.size(size as f64), (out.len() - 3) as f64);
        out.split_off(3)
    }

    #[test]
    fn a_single_request_carries_what_was_put_in_and_a_body_that_checks() {
        let template = SendTemplate::new(&STYLE, "t", 3, 19, None);
        let out = put(&template, 5, 0, 100);
        let found = frame(&out).unwrap().unwrap();
        assert_eq!(found.size, out.len());
        let header: serde_json::Value = serde_json::from_slice(found.header).unwrap();
        assert_eq!(header["code"], 310);
        assert_eq!(header["opaque"], 1_001_200_034);
        assert_eq!(header["extFields"]["g"], "1795242320786");
        assert_eq!(header["extFields"]["e"], "3");
        let properties = header["extFields"]["i"].as_str().unwrap();
        assert_eq!(
            properties,
            "UNIQ_KEY\u{1}00000000070000130000050000000000\u{2}WAIT\u{1}true\u{2}"
        );
        assert_eq!(found.body.len(), 100);
        let good = Verdict::Good {
            run: 7,
            intended_ns: 99,
        };
        assert_eq!(
            Checker::new(check::place("t", 3), false).body(found.body),
            good
        );
        // On another queue or topic the same message is wrong.
        for place in [check::place("t", 4), check::place("u", 3)] {
            let verdict = Checker::new(place, false).body(found.body);
            assert_eq!(verdict, Verdict::Corrupted);
        }
    }

    #[test]
    fn keys_and_tags_are_properties_of_single_messages_and_of_each_in_a_batch() {
        let wanted = "KEYS\u{1}0000000000\u{2}TAGS\u{1}red\u{2}WAIT";
        for batch in [1, 2] {
            let style = Style {
                batch,
                keys: 1,
                ..STYLE
            };
            let out = put(&SendTemplate::new(&style, "t", 0, 0, Some("red")), 0, 0, 64);
            let found = frame(&out).unwrap().unwrap();
            let header: serde_json::Value = serde_json::from_slice(found.header).unwrap();
            let properties = header["extFields"]["i"].as_str().unwrap();
            assert!(properties.contains(wanted), "{properties:?}");
            if 1 < batch {
                let body = String::from_utf8_lossy(found.body);
                assert_eq!(body.matches(wanted).count(), batch);
            }
        }
    }

    #[test]
    fn a_batch_has_whole_items_with_sequences_and_ids_of_their_own() {
        let style = Style { batch: 3, ..STYLE };
        let out = put(&SendTemplate::new(&style, "t", 0, 0, None), 1, 40, 64);
        let found = frame(&out).unwrap().unwrap();
        let mut items = found.body;
        let mut checker = Checker::new(check::place("t", 0), true);
        for sequence in 40..43 {
            let size = u32::from_be_bytes(items[..4].try_into().unwrap()) as usize;
            let body = &items[20..84];
            assert_eq!(check::sequence(body), sequence);
            let good = Verdict::Good {
                run: 7,
                intended_ns: 99,
            };
            assert_eq!(checker.body(body), good);
            let key = format!("UNIQ_KEY\u{1}0000000007000000000001{sequence:010X}\u{2}WAIT");
            assert!(items[86..size].starts_with(key.as_bytes()));
            items = &items[size..];
        }
        assert!(items.is_empty());
    }
}

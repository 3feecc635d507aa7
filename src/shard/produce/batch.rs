//! Several messages in one request: they are taken together, or not at all.

use super::{Target, Unstored, see};
use crate::base::{QueueId, Reader};
use crate::command::{Answer, Peer, Produce, Produced, RefusalKind, Ticket};
use crate::index::{Names, Unit};
use crate::io::Io;
use crate::log::record::{
    Draft, PROPERTIES_SIZE_MAX, Properties, TRAILER_SIZE, put_property, sys_flag,
};
use crate::shard::pending::{After, Appended};
use crate::shard::{Reply, Shard, topics};

/// One message of a batch (P§3.6).
#[derive(Debug)]
struct Item<'a> {
    flag: i32,
    body: &'a [u8],
    properties: &'a [u8],
    names: Names<'a>,
    /// A unique key, for one that comes without.
    made: Option<Made>,
}

/// A unique key as text, and as the property that is stored.
#[derive(Debug)]
struct Made {
    key: String,
    property: Vec<u8>,
}

impl Item<'_> {
    /// Its properties, of which `added` is a part.
    const fn properties<'b>(&'b self, added: &'b [&'b [u8]]) -> Properties<'b> {
        Properties {
            sent: self.properties,
            added,
        }
    }

    fn added(&self) -> &[u8] {
        self.made.as_ref().map_or(&[], |made| &made.property)
    }
}

impl Shard {
    pub(super) fn produce_batch(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        produce: &Produce<'_>,
        target: &Target<'_>,
    ) -> Reply {
        let header = see(produce.properties);
        let transaction = produce.sys_flag & sys_flag::TRANSACTION_MASK != 0;
        let delayed = header.delay_level.is_some_and(|level| 0 < level);
        if 127 < produce.topic.len()
            || topics::is_retry(produce.topic)
            || transaction
            || delayed
            || self.settings.message_size_max < produce.body.len()
        {
            return Reply::Now(Answer::Refused(self.illegal()));
        }
        let Some(items) = self.items(produce.body) else {
            return Self::refuse(
                RefusalKind::MessageIllegal,
                "the batch is illegal: its items' lengths do not fit its body",
            );
        };
        let draft = Draft {
            queue_id: target.queue_id.0 as i32,
            flag: 0,
            queue_offset: 0,
            sys_flag: target.sys_flag(produce),
            born_ms: produce.born_ms,
            born_host: peer.address,
            store_ms: io.wall_ms() as i64,
            store_host: self.settings.store_host,
            reconsume_times: produce.reconsume_times,
            prepared_offset: 0,
            body: &[],
            topic: produce.topic,
            properties: Properties::default(),
        };
        let mut size = 0;
        for item in &items {
            let added = [item.added()];
            let properties = item.properties(&added);
            if PROPERTIES_SIZE_MAX < properties.size() + TRAILER_SIZE {
                return Reply::Now(Answer::Refused(self.illegal()));
            }
            size += Draft {
                body: item.body,
                properties,
                ..draft
            }
            .size();
        }
        if let Err(why) = self.log.begin_batch(size) {
            return self.meet_no_room(Unstored::NoRoom(why));
        }
        let mut produced = self.produced(target, items.len());
        produced.transaction_id = header.names.unique.map(Into::into);
        self.store_batch(
            io.now_ns(),
            ticket,
            &draft,
            &items,
            header.at_write,
            produced,
        );
        self.count_stored(produce.topic, items.len() as u64, size as u64);
        Reply::Later
    }

    /// The messages of a batch, each with a unique key.
    fn items<'a>(&mut self, body: &'a [u8]) -> Option<Vec<Item<'a>>> {
        let mut items = split(body)?;
        for item in items.iter_mut().filter(|item| item.names.unique.is_none()) {
            let key = self.make_unique_key();
            let mut property = Vec::new();
            put_property(&mut property, "UNIQ_KEY", &key);
            item.made = Some(Made { key, property });
        }
        Some(items)
    }

    /// Appends the messages of a batch whose places are made sure of. `draft` is what they share.
    fn store_batch(
        &mut self,
        now_ns: u64,
        ticket: Ticket,
        draft: &Draft<'_>,
        items: &[Item<'_>],
        at_write: bool,
        mut produced: Produced,
    ) {
        let topic = self.topics.get_mut(draft.topic).expect("it was checked");
        let key_prefix_hash = topic.key_prefix_hash;
        let queue = topic.queue(&mut self.queues, QueueId(draft.queue_id as u32));
        let first = self.queues.queue_mut(queue).assign(items.len() as u64);
        for (queue_offset, item) in (first.0..).zip(items) {
            let added = [item.added()];
            let draft = Draft {
                flag: item.flag,
                queue_offset,
                body: item.body,
                properties: item.properties(&added),
                ..*draft
            };
            let size = draft.size();
            let offset = self
                .log
                .append(size, now_ns, |offset, out| {
                    draft.encode(offset, out.buffer_mut());
                })
                .expect("the places of a batch were made sure of");
            let mut names = item.names;
            if let Some(made) = &item.made {
                names.unique = Some(&made.key);
            }
            let unit = Unit {
                offset,
                size: size as u32,
                tags_code: names.tags_code(),
            };
            self.note_record(unit, &names, key_prefix_hash);
            produced.offsets.push(offset);
        }
        produced.queue_offset = first;
        let appended = Appended {
            queue,
            queue_offset: first,
            store_ms: draft.store_ms as u64,
            at_write,
        };
        let after = After::Produced(ticket, produced);
        self.pending.push(now_ns, &appended, after);
    }
}

/// `None` where the lengths do not fit, or nothing is in it.
fn split(body: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut items = Vec::new();
    let mut rest = Reader::new(body);
    while !rest.rest().is_empty() {
        let size = usize::try_from(rest.i32()?).ok()?;
        let mut item = Reader::new(rest.bytes(size.checked_sub(4)?)?);
        let (_magic, _crc) = (item.i32()?, item.i32()?);
        let flag = item.i32()?;
        let body_size = usize::try_from(item.i32()?).ok()?;
        let body = item.bytes(body_size)?;
        let properties_size = usize::try_from(item.i16()?).ok()?;
        let properties = item.bytes(properties_size)?;
        items.push(Item {
            flag,
            body,
            properties,
            names: Names::of(properties),
            made: None,
        });
    }
    (!items.is_empty()).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_into_its_items() {
        // Protocol reference, appendix A.5.
        let hex = "0000002100000000000000000000000000000001610\
                   00a5441475301546167410200000018000000000000000000000000000000026263 0000";
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let body: Vec<u8> = digits
            .chunks(2)
            .map(|pair| {
                u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")
            })
            .collect();
        let items = split(&body).expect("two items");
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].body, b"a");
        assert_eq!(items[0].properties, b"TAGS\x01TagA\x02");
        assert_eq!(items[1].body, b"bc");
        for cut in 1..body.len() {
            if cut != 0x21 {
                assert!(split(&body[..cut]).is_none(), "cut at {cut}");
            }
        }
        assert!(split(&[]).is_none());
    }
}

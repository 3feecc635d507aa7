//! Records: vectors of the protocol reference, and what random damage must not do.

use super::*;
use proptest::prelude::*;
use std::borrow::Cow;

/// P§A.4: as Apache stores it, without a trailer.
const VECTOR: &str = "
000000b1 daa320a7 3610a686 00000003 00000000 000000000000002a 0000000000001000 00000000
0000018bcfe56800 7f000001 0000c350 0000018bcfe5687b 7f000001 00002a9f 00000000 0000000000000000
00000005 68656c6c6f 09 546f70696354657374 0048
4b455953014b455931025441475301546167410257414954017472756502554e49515f4b4559013746303030303031
30344432313842344141433230304235413146303030303102";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(16)).collect();
    digits
        .chunks_exact(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

fn draft<'a>(body: &'a [u8], topic: &'a str, properties: Properties<'a>) -> Draft<'a> {
    Draft {
        queue_id: 3,
        flag: 0,
        queue_offset: 42,
        sys_flag: 0,
        born_ms: 1_700_000_000_000,
        born_host: "127.0.0.1:50000".parse().expect("an address"),
        store_ms: 1_700_000_000_123,
        store_host: "127.0.0.1:10911".parse().expect("an address"),
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        topic,
        properties,
    }
}

fn encoded(draft: &Draft<'_>, at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    draft.encode(PhysicalOffset(at), &mut bytes);
    assert_eq!(
        bytes.len(),
        draft.size(),
        "a draft knows how long its record will be"
    );
    bytes
}

#[test]
fn apaches_record_is_read_and_ours_differs_by_its_trailer_only() {
    let apaches = unhex(VECTOR);
    let record = parse(&apaches).expect("the vector is a record");
    assert_eq!((record.size, record.body_crc), (177, 907_060_870));
    assert_eq!((record.queue_id, record.queue_offset), (3, 42));
    assert_eq!(record.physical_offset, PhysicalOffset(4096));
    assert_eq!(
        (record.born_ms, record.store_ms),
        (1_700_000_000_000, 1_700_000_000_123)
    );
    assert_eq!(
        record.born_host,
        "127.0.0.1:50000".parse().expect("an address")
    );
    assert_eq!(
        record.store_host,
        "127.0.0.1:10911".parse().expect("an address")
    );
    assert_eq!((record.topic, record.body), ("TopicTest", &b"hello"[..]));
    assert_eq!(record.property("KEYS"), Some("KEY1"));
    assert_eq!(
        record.property("UNIQ_KEY"),
        Some("7F00000104D218B4AAC200B5A1F00001")
    );
    assert_eq!(record.tags_code(), 2_598_919);
    assert_eq!(
        check(&apaches, PhysicalOffset(4096), false),
        Verdict::Record(record)
    );
    assert_eq!(
        check(&apaches, PhysicalOffset(4096), true),
        Verdict::Bad(Damage::TrailerMissing)
    );

    let ours = encoded(
        &draft(
            b"hello",
            "TopicTest",
            Properties::new(record.properties, &[]),
        ),
        4096,
    );
    assert_eq!(ours.len(), apaches.len() + TRAILER_SIZE);
    let properties_len_at = apaches.len() - record.properties.len() - 2;
    let same = (4..properties_len_at).chain(properties_len_at + 2..apaches.len());
    for at in same {
        assert_eq!(ours[at], apaches[at], "first wrong byte is at {at}");
    }
    let parsed = parse(&ours).expect("a record");
    assert!(parsed.properties.ends_with(b"\x02"));
    // Computed by hand from its definition.
    let crc = crc32fast::hash(&ours[..177]) & 0x7FFF_FFFF;
    let digits: String = format!("{crc:010}").chars().rev().collect();
    assert_eq!(parsed.property("__CRC32#"), Some(digits.as_str()));
    assert_eq!(
        check(&ours, PhysicalOffset(4096), true),
        Verdict::Record(parsed)
    );
}

#[test]
fn the_trailer_spells_the_smallest_digit_first() {
    assert_eq!(&trailer(1_234), b"__CRC32#\x014321000000\x02");
    assert_eq!(&trailer(CRC_MASK), b"__CRC32#\x017463847412\x02");
    assert_eq!(
        trailer_of(b"a\x01b\x02__CRC32#\x014321000000\x02"),
        Some(1_234)
    );
    assert_eq!(trailer_of(b"__CRC32#\x01432100000x\x02"), None);
    assert_eq!(trailer_of(b"__CRC32#\x014321000000"), None);
}

#[test]
fn separators_are_added_where_they_are_missing_and_an_old_trailer_is_left_out() {
    let pieces: [&[u8]; 3] = [b"C\x01", b"3", b""];
    for (sent, wanted) in [
        ("A\u{1}1\u{2}", "A\u{1}1\u{2}C\u{1}3\u{2}"),
        ("A\u{1}1", "A\u{1}1\u{2}C\u{1}3\u{2}"),
        ("", "C\u{1}3\u{2}"),
        (
            "A\u{1}1\u{2}__CRC32#\u{1}4321000000\u{2}",
            "A\u{1}1\u{2}C\u{1}3\u{2}",
        ),
    ] {
        let bytes = encoded(&draft(b"x", "T", Properties::new(sent, &pieces)), 0);
        let record = parse(&bytes).expect("a record");
        let (before, _) = record
            .properties
            .split_at(record.properties.len() - TRAILER_SIZE);
        assert_eq!(std::str::from_utf8(before), Ok(wanted), "sent {sent:?}");
        assert_eq!(
            check(&bytes, PhysicalOffset(0), true),
            Verdict::Record(record)
        );
    }
    let bare = encoded(&draft(b"x", "T", Properties::default()), 0);
    assert_eq!(
        parse(&bare).expect("a record").properties.len(),
        TRAILER_SIZE
    );
}

#[test]
fn long_topics_and_long_addresses_change_the_layout() {
    let long = "x".repeat(128);
    let mut draft = draft(b"", &long, Properties::default());
    draft.born_host = "[2001:db8::1]:50000".parse().expect("an address");
    draft.store_host = "[::ffff:10.0.0.7]:10911".parse().expect("an address");
    draft.sys_flag = 0x1 | 0x20; // a client's claim about our address counts for nothing
    let bytes = encoded(&draft, 7);
    let record = parse(&bytes).expect("a record");
    assert_eq!(record.magic, MESSAGE_MAGIC_V2);
    assert_eq!((record.topic, record.body_crc), (long.as_str(), 0));
    assert_eq!(record.sys_flag, 0x1 | 0x10);
    assert_eq!(record.born_host, draft.born_host);
    assert_eq!(
        record.store_host,
        "10.0.0.7:10911".parse().expect("an address")
    );
    assert_eq!(
        check(&bytes, PhysicalOffset(7), true),
        Verdict::Record(record)
    );

    draft.topic = &long[1..];
    let bytes = encoded(&draft, 7);
    assert_eq!(parse(&bytes).expect("a record").magic, MESSAGE_MAGIC_V1);
}

#[test]
fn what_is_no_record_is_told_apart() {
    let at = PhysicalOffset(4096);
    let whole = encoded(&draft(b"hello", "T", Properties::default()), 4096);
    assert_eq!(check(&[0; 64], at, true), Verdict::End);
    assert_eq!(check(&[0; 7], at, true), Verdict::Short { need: 8 });
    assert_eq!(check(&blank(300), at, true), Verdict::Blank { len: 300 });
    let mut small = blank(8);
    small[3] = 7;
    assert_eq!(check(&small, at, true), Verdict::Bad(Damage::Blank(7)));
    for len in 8..whole.len() {
        assert_eq!(
            check(&whole[..len], at, true),
            Verdict::Short { need: whole.len() }
        );
    }
    let old = Verdict::Bad(Damage::Elsewhere(at));
    assert_eq!(check(&whole, PhysicalOffset(5000), true), old);
    assert_eq!(
        check(&whole[..40], PhysicalOffset(5000), true),
        old,
        "known early"
    );
}

#[test]
fn properties_are_read_as_java_reads_them() {
    let text = "A\u{1}1\u{2}\u{1}x\u{2}B\u{1}\u{2}C\u{2}A\u{1}2\u{1}3\u{2}D\u{1}4";
    let all: Vec<_> = pairs(text).collect();
    let wanted: [(&[u8], &[u8]); 3] = [(b"A", b"1"), (b"A", b"2\x013"), (b"D", b"4")];
    assert_eq!(all, wanted);
    assert_eq!(property(text, "A"), Some("2\u{1}3"), "the later one wins");
    assert_eq!(property(text, "B"), None);
    assert_eq!(property(&b"A\x01\xff\x02"[..], "A"), None);
    assert_eq!(without("A\u{1}1\u{2}B\u{1}2", &["A"]), "B\u{1}2\u{2}");
    assert!(matches!(without("A\u{1}1\u{2}", &["B"]), Cow::Borrowed(_)));
}

#[test]
fn message_ids_are_those_of_the_reference() {
    let host: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
    let text = message_id(host, PhysicalOffset(4096));
    assert_eq!(text, "7F00000100002A9F0000000000001000");
    assert_eq!(parse_message_id(&text), Some((host, PhysicalOffset(4096))));
    let long: SocketAddr = "[2001:db8::1]:10911".parse().expect("an address");
    let text = message_id(long, PhysicalOffset(u64::MAX));
    assert_eq!(text.len(), 56);
    assert_eq!(
        parse_message_id(&text),
        Some((long, PhysicalOffset(u64::MAX)))
    );
    assert_eq!(parse_message_id("7F00000100002A9F000000000000100"), None);
    assert_eq!(
        parse_message_id("7F00000100012A9F0000000000001000"),
        None,
        "no such port"
    );
    assert_eq!(parse_message_id("ZF00000100002A9F0000000000001000"), None);
}

proptest! {
    #[test]
    fn what_is_encoded_checks_and_any_changed_byte_is_noticed(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        topic in "[a-zA-Z%_-]{1,140}",
        sent in "([A-Z]{1,5}\u{1}[a-z0-9中]{1,9}\u{2}){0,4}",
        numbers in any::<(i32, i32, u64, i32, i64, i64, i32, i64)>(),
        (born_v6, store_v6) in any::<(bool, bool)>(),
        at in 0..u64::MAX / 2,
        change in 1..=255u8,
    ) {
        let mut draft = draft(&body, &topic, Properties::new(&sent, &[b"R\x01x\x02"]));
        (draft.queue_id, draft.flag, draft.queue_offset, draft.sys_flag) =
            (numbers.0, numbers.1, numbers.2, numbers.3);
        (draft.born_ms, draft.store_ms, draft.reconsume_times, draft.prepared_offset) =
            (numbers.4, numbers.5, numbers.6, numbers.7);
        if born_v6 {
            draft.born_host = "[2001:db8::1]:1".parse().expect("an address");
        }
        if store_v6 {
            draft.store_host = "[2001:db8::2]:2".parse().expect("an address");
        }
        let mut bytes = encoded(&draft, at);
        let offset = PhysicalOffset(at);
        let record = parse(&bytes).expect("a record");
        prop_assert_eq!(check(&bytes, offset, true), Verdict::Record(record));
        prop_assert_eq!((record.queue_id, record.flag), (draft.queue_id, draft.flag));
        prop_assert_eq!(record.queue_offset, draft.queue_offset);
        prop_assert_eq!((record.born_ms, record.store_ms), (draft.born_ms, draft.store_ms));
        prop_assert_eq!(record.born_host, draft.born_host);
        prop_assert_eq!(record.store_host, draft.store_host);
        prop_assert_eq!(record.prepared_offset, draft.prepared_offset);
        prop_assert_eq!(record.reconsume_times, draft.reconsume_times);
        prop_assert_eq!(record.sys_flag & !0x30, draft.sys_flag & !0x30);
        prop_assert_eq!((record.body, record.topic), (&body[..], topic.as_str()));
        for position in 0..bytes.len() {
            bytes[position] ^= change;
            let verdict = check(&bytes, offset, true);
            prop_assert!(
                matches!(verdict, Verdict::Bad(_) | Verdict::Short { .. }),
                "byte {} of {} changed by {:#04x}: {:?}", position, bytes.len(), change, verdict
            );
            bytes[position] ^= change;
        }
    }

    #[test]
    fn damaged_records_never_break_the_reader(
        changes in proptest::collection::vec((0..177usize, any::<u8>()), 1..12),
        len in 0..=177usize,
        need_trailer in any::<bool>(),
    ) {
        let mut bytes = unhex(VECTOR);
        for (position, value) in changes {
            bytes[position] = value;
        }
        let bytes = &bytes[..len];
        if let Ok(record) = parse(bytes) {
            prop_assert!(record.size as usize <= bytes.len());
            let _ = record.tags_code();
        }
        let _ = check(bytes, PhysicalOffset(4096), need_trailer);
    }

    #[test]
    fn noise_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!matches!(check(&bytes, PhysicalOffset(0), false), Verdict::Record(_)));
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse_message_id(&text);
        let _ = pairs(&bytes).count();
        let _ = without(&text, &["A"]);
    }
}

//! A header of a known form means what it means to whoever has never seen one.

use super::super::tests::framed;
use super::*;
use crate::protocol::rocketmq::frame::{Scratch, decode};

const SENT: &str = "{\"code\":310,\"extFields\":{\"a\":\"PG\",\"b\":\"TopicTest\",\"c\":\"TBW102\",\"d\":\"8\",\"e\":\"3\",\
    \"f\":\"0\",\"g\":\"1700000000000\",\"h\":\"0\",\"i\":\"KEYS\\u0001k1\\u0002UNIQ_KEY\\u00017F0000010000\\u0002TAGS\\u0001主A\",\
    \"j\":\"0\",\"k\":\"false\",\"m\":\"false\"},\"flag\":0,\"language\":\"JAVA\",\"opaque\":217,\
    \"serializeTypeCurrentRPC\":\"JSON\",\"version\":453}";

const HEADERS: [&str; 7] = [
    SENT,
    "{\"code\":11,\"extFields\":{\"maxMsgNums\":32,\"queueId\":0,\"x\":true,\"y\":-1,\"z\":1.50,\"n\":null,\"topic\":\"T\"},\
     \"flag\":0,\"language\":\"CPP\",\"opaque\":10,\"remark\":\"\",\"version\":63}\n",
    "{\"language\":1,\"version\":\"63\",\"opaque\":\"10\",\"code\":11,\"extFields\":{\"a\":\"32\",\"\\u0062\":\"T\"}}",
    " { \"x\" : {\"a\":[1,\"2\",{\"b\":null}]} , \"opaque\" : 10, \"extFields\" : { \"m\" : 32 , \"t\":\"T\" } } ",
    "{\"code\":1,\"opaque\":5,\"opaque\":6,\"extFields\":{\"x\":\"\\u0001\"},\"extFields\":{\"a\":\"1\\u0002\",\"a\":\"2\"}}",
    "{\"remark\":\"a\\u0001\",\"language\":\"J\\u0001\",\"extFields\":{\"i\":\"x\\ud83d\\ude00y\\n\"},\"opaque\":7}",
    "{\"opaque\":2147483647,\"extFields\":{\"\":\"\",\"\\u0001n\\u0002\":\"\\u0001v\\u0002\"}}",
];

/// All that a frame says, or what is wrong with it.
fn told(header: &str, scratch: &mut Scratch) -> String {
    match decode(&framed(header), scratch) {
        Err(error) => error.to_string(),
        Ok(request) => {
            let fields: Vec<_> = request.fields().collect();
            let numbers = (request.code, request.opaque, request.flag, request.version);
            format!(
                "{numbers:?} {} {:?} {fields:?}",
                request.language, request.remark
            )
        }
    }
}

fn is_recalled(header: &str, scratch: &mut Scratch) -> bool {
    scratch.clear();
    let (fields, arena) = (&mut scratch.fields, &mut scratch.arena);
    scratch
        .forms
        .recall(header.as_bytes(), fields, arena)
        .is_some()
}

#[test]
fn every_other_byte_at_every_place_means_the_same() {
    for header in HEADERS {
        for at in 0..header.len() {
            for byte in *b"\"\\0219:aA,{}[ \n\x01\x7f/" {
                let mut bytes = header.as_bytes().to_vec();
                bytes[at] = byte;
                let Ok(other) = String::from_utf8(bytes) else {
                    continue;
                };
                let mut scratch = Scratch::default();
                told(header, &mut scratch);
                let wanted = told(&other, &mut Scratch::default());
                assert_eq!(told(&other, &mut scratch), wanted, "{other}");
                assert_eq!(
                    told(header, &mut scratch),
                    told(header, &mut Scratch::default())
                );
            }
        }
    }
}

#[test]
fn a_character_of_two_bytes_instead_of_two_means_the_same() {
    for header in HEADERS {
        for at in 0..header.len() - 1 {
            let (Some(before), Some(behind)) = (header.get(..at), header.get(at + 2..)) else {
                continue;
            };
            let other = [before, "é", behind].concat();
            let mut scratch = Scratch::default();
            told(header, &mut scratch);
            let wanted = told(&other, &mut Scratch::default());
            assert_eq!(told(&other, &mut scratch), wanted, "{other}");
        }
    }
}

#[test]
fn two_bytes_at_once_mean_the_same() {
    let mut prng = crate::base::Prng::from_seed(3);
    for header in HEADERS {
        let mut scratch = Scratch::default();
        for _ in 0..20_000 {
            let mut bytes = header.as_bytes().to_vec();
            for _ in 0..2 {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = b"\"\\0129xu{},:\n"[prng.below(13) as usize];
            }
            if let Ok(other) = String::from_utf8(bytes) {
                let wanted = told(&other, &mut Scratch::default());
                assert_eq!(told(&other, &mut scratch), wanted, "{other}");
            }
        }
    }
}

#[test]
fn the_next_header_of_a_client_has_the_form_of_its_last() {
    let next = SENT
        .replace("217", "218")
        .replace("1700000000000", "1700000000999")
        .replace("7F0000010000", "7F0000010001")
        .replace("主A", "A东");
    let mut scratch = Scratch::default();
    assert!(!is_recalled(SENT, &mut scratch));
    told(SENT, &mut scratch);
    assert!(is_recalled(SENT, &mut scratch) && is_recalled(&next, &mut scratch));
    for other in [
        next.replace("218", "21x"),
        next.replace("JAVA", "RUST"),
        next.replace("\"3\"", "\"\\\""),
        next.replace("\"3\"", "333"),
        next.replace("false", "fa\"se"),
    ] {
        assert!(!is_recalled(&other, &mut scratch), "{other}");
    }
}

#[test]
fn a_form_that_nothing_has_any_more_gives_way() {
    let mut scratch = Scratch::default();
    told(SENT, &mut scratch);
    let other = SENT.replace("JAVA", "RUST");
    for _ in 0..STRANGERS_MAX {
        assert!(is_recalled(SENT, &mut scratch));
        told(&other, &mut scratch);
        assert!(!is_recalled(&other, &mut scratch), "one of each in turn");
    }
    for _ in 0..STRANGERS_MAX {
        told(&other, &mut scratch);
    }
    assert!(is_recalled(&other, &mut scratch));
}

#[test]
fn an_opaque_beyond_32_bits_is_refused_as_ever() {
    let header = HEADERS[6];
    let mut scratch = Scratch::default();
    told(header, &mut scratch);
    assert!(is_recalled(header, &mut scratch));
    let beyond = header.replace("2147483647", "2147483648");
    assert!(told(&beyond, &mut scratch).contains("not a 32-bit number"));
}

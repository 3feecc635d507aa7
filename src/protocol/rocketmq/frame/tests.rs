//! Frames of both header kinds, whole, cut, changed and lying.

use proptest::prelude::*;

use super::*;

const JSON: u64 = 7;
const BINARY: u64 = 7 | 1 << 32;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|character| character.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn a_json_response_is_written_as_java_writes_it() {
    // Protocol reference, A.6.
    let mut out = Vec::new();
    let fields = [
        ("IS_SUB_CHANGE", "true"),
        ("IS_SUPPORT_HEART_BEAT_V2", "true"),
    ];
    encode_response(&mut out, JSON, 0, None, &fields, 0);
    assert_eq!(out[..8], hex("000000aa 000000a6"));
    assert_eq!(
        std::str::from_utf8(&out[8..]).unwrap(),
        r#"{"code":0,"extFields":{"IS_SUB_CHANGE":"true","IS_SUPPORT_HEART_BEAT_V2":"true"},"flag":1,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}"#
    );
}

#[test]
fn a_binary_response_is_written_as_java_writes_it() {
    // Protocol reference, A.7.
    let mut out = Vec::new();
    encode_response(&mut out, BINARY, 0, None, &[("offset", "42")], 0);
    assert_eq!(
        out,
        hex(
            "00000027 01000023 0000 00 01df 00000007 00000001 00000000 0000000e
             0006 6f6666736574 00000002 3432"
        )
    );
}

#[test]
fn a_response_leaves_room_for_its_body_and_stands_behind_others() {
    let mut out = b"before".to_vec();
    encode_response(&mut out, JSON, 1, Some("a \"remark\"\n\u{1}"), &[], 5);
    out.extend_from_slice(b"12345");
    let frame = &out[6..];
    assert_eq!(frame_size(frame), Ok(Some(frame.len())));
    let mut scratch = Scratch::default();
    let response = decode(frame, &mut scratch).unwrap();
    assert!(response.is_response());
    assert_eq!(response.remark, Some("a \"remark\"\n\u{1}"));
    assert_eq!(response.body, b"12345");
    assert_eq!(response.language, "JAVA");
    assert_eq!(response.version, 479);
}

#[test]
fn a_oneway_request_is_not_answered() {
    let mut out = Vec::new();
    encode_response(&mut out, JSON | 1 << 33, 0, None, &[("offset", "1")], 0);
    assert_eq!(out, b"");
}

#[test]
fn an_endless_remark_is_cut_between_characters() {
    let mut out = Vec::new();
    let remark = "中".repeat(1_000_000);
    encode_response(&mut out, JSON, 1, Some(&remark), &[], 0);
    let mut scratch = Scratch::default();
    let response = decode(&out, &mut scratch).unwrap();
    assert_eq!(response.remark.map(str::len), Some(REMARK_SIZE_MAX / 3 * 3));
}

#[test]
fn empty_fields_are_said_where_apache_says_them() {
    let written = |code: i32, response: i32| {
        let note = Note {
            opaque: 1,
            kind: HeaderKind::Json,
            oneway: false,
            code,
        };
        let mut out = Vec::new();
        encode_response(&mut out, note.pack(), response, None, &[], 0);
        String::from_utf8_lossy(&out[8..]).contains("\"extFields\":{}")
    };
    assert!(written(15, 0) && written(11, 24) && written(38, 1));
    assert!(!written(36, 0) && !written(33, 1) && !written(11, 3));
}

#[test]
fn lying_lengths_are_found_as_soon_as_they_are_there() {
    assert_eq!(frame_size(&[]), Ok(None));
    assert_eq!(frame_size(&[0, 0, 0]), Ok(None));
    assert_eq!(frame_size(&[0, 0, 1, 0]), Ok(None));
    assert_eq!(frame_size(&[0, 0, 0, 4, 0, 0, 0]), Ok(None));
    assert_eq!(frame_size(&[0, 0, 0, 4, 0, 0, 0, 0]), Ok(Some(8)));
    for length in [0, 3, (FRAME_SIZE_MAX - 3) as u32, 0x8000_0000, u32::MAX] {
        assert_eq!(
            frame_size(&length.to_be_bytes()),
            Err(FrameError::Size { length })
        );
    }
    assert_eq!(
        frame_size(&((FRAME_SIZE_MAX - 4) as u32).to_be_bytes()),
        Ok(None),
        "the largest frame"
    );
    assert_eq!(
        frame_size(&[0, 0, 0, 9, 0, 0, 0, 6]),
        Err(FrameError::HeaderSize { header: 6, rest: 5 })
    );
    assert_eq!(
        frame_size(&[0, 0x40, 0, 0, 0, 0x20, 0, 0]),
        Err(FrameError::HeaderSize {
            header: 0x20_0000,
            rest: 0x40_0000 - 4
        })
    );
    assert_eq!(
        frame_size(&[0, 0, 0, 9, 2, 0, 0, 0]),
        Err(FrameError::HeaderKind(2))
    );
    assert!(frame_size(b"GET / HTTP/1.1").is_err());
    assert!(frame_size(&[0x16, 3, 1, 0, 5]).is_err(), "TLS");
}

#[test]
fn pop_codes_come_back_from_16_bits() {
    for code in (200_050..=200_056).chain([200_151]) {
        let mut out = Vec::new();
        encode_request(&mut out, HeaderKind::Binary, code, -3, true, &[], b"");
        let mut scratch = Scratch::default();
        let request = decode(&out, &mut scratch).unwrap();
        assert_eq!(request.code, code);
        assert_eq!(request.opaque, -3);
        assert!(request.is_oneway());
    }
}

#[test]
fn broken_binary_headers_say_what_and_where() {
    let good = hex(
        "00000027 01000023 0000 00 01df 00000007 00000001 00000000 0000000e
         0006 6f6666736574 00000002 3432",
    );
    let fault = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[8 + at] = byte;
        let mut scratch = Scratch::default();
        decode(&frame, &mut scratch)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        fault(16, 99),
        "bad header: a text is said to have 99 bytes, at byte 17 of the header"
    );
    assert!(fault(13, 0xff).contains("-16777216 bytes"));
    assert!(fault(20, 99).contains("extension fields are said to have 99"));
    assert!(fault(21, 0x80).contains("-32762 bytes"));
    assert!(fault(33, 0xff).contains("not UTF-8"));
}

#[test]
fn utf8_is_asked_of_json_headers() {
    let mut frame = hex("00000009 00000005");
    frame.extend_from_slice(b"{\"\xff\"}");
    let mut scratch = Scratch::default();
    let error = decode(&frame, &mut scratch).map(|_| ()).unwrap_err();
    assert_eq!(
        error,
        FrameError::header(2, "the JSON header is not UTF-8 text")
    );
}

fn any_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    // The binary form knows no empty text.
    proptest::collection::vec(("[a-zA-Z_]{1,9}", ".{1,20}"), 0..20)
}

fn any_frame() -> impl Strategy<Value = (Vec<u8>, Vec<(String, String)>)> {
    let head = (
        any::<bool>(),
        0..=i32::from(i16::MAX),
        any::<i32>(),
        any::<bool>(),
    );
    (head, any_fields(), any::<Vec<u8>>()).prop_map(|(head, fields, body)| {
        let (binary, code, opaque, oneway) = head;
        // POP's numbers in 16 bits are nobody else's.
        let code = if codes::from_16_bits(code as i16) == code {
            code
        } else {
            10
        };
        let kind = if binary {
            HeaderKind::Binary
        } else {
            HeaderKind::Json
        };
        let lent: Vec<_> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let mut out = Vec::new();
        encode_request(&mut out, kind, code, opaque, oneway, &lent, &body);
        let mut scratch = Scratch::default();
        let request = decode(&out, &mut scratch).expect("what we write we read");
        assert_eq!((request.code, request.kind), (code, kind));
        assert_eq!((request.opaque, request.is_oneway()), (opaque, oneway));
        assert_eq!(request.body, body);
        assert_eq!(request.fields().collect::<Vec<_>>(), lent);
        let note = Note::unpack(request.note());
        assert_eq!(
            note,
            Note {
                opaque,
                kind,
                oneway,
                code
            }
        );
        (out, fields)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((frame, _) in any_frame()) {
        prop_assert_eq!(frame_size(&frame), Ok(Some(frame.len())));
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics((frame, _) in any_frame(), changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut scratch = Scratch::default();
        for len in 0..frame.len() {
            prop_assert!(decode(&frame[..len], &mut scratch).is_err());
            // The same, with lengths that fit: it is the header that ends too early.
            if 8 <= len {
                let mut cut = frame[..len].to_vec();
                cut[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
                cut[5..8].copy_from_slice(&(len as u32 - 8).to_be_bytes()[1..]);
                let _ = decode(&cut, &mut scratch);
            }
        }
        let mut changed = frame;
        for (at, byte) in changes {
            let at = at % changed.len();
            changed[at] = byte;
            if let Ok(request) = decode(&changed, &mut scratch) {
                for (name, _) in request.fields() {
                    prop_assert!(request.field(name).is_some());
                }
            }
        }
    }

    #[test]
    fn any_json_that_serde_reads_we_read_alike(
        fields in proptest::collection::vec((".{0,12}", ".{0,30}"), 0..12),
        remark in ".{0,10}",
        pretty in any::<bool>(),
    ) {
        let map: serde_json::Map<String, serde_json::Value> = fields
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let json = serde_json::json!({
            "remark": remark, "extFields": map, "code": 5, "other": [map, [remark, 1.5e9]],
        });
        let header = if pretty {
            serde_json::to_vec_pretty(&json)
        } else {
            serde_json::to_vec(&json)
        }.unwrap();
        let mut frame = ((header.len() + 4) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
        frame.extend_from_slice(&header);
        let mut scratch = Scratch::default();
        let request = decode(&frame, &mut scratch).unwrap();
        prop_assert_eq!(request.remark, Some(remark.as_str()));
        prop_assert_eq!(request.fields().count(), map.len());
        for (name, value) in &map {
            prop_assert_eq!(request.field(name), value.as_str());
        }
    }
}

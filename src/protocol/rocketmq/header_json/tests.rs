//! JSON headers as each client writes them, and broken ones.

use crate::protocol::rocketmq::frame::{FrameError, Scratch, decode};

pub(super) fn framed(header: &str) -> Vec<u8> {
    let mut frame = ((header.len() + 4) as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame
}

/// What is wrong with a header.
fn fault(header: &str) -> String {
    let mut scratch = Scratch::default();
    match decode(&framed(header), &mut scratch) {
        Err(error @ FrameError::Header { .. }) => error.to_string(),
        other => panic!("{header:?} gave {other:?}"),
    }
}

#[test]
fn what_each_client_sends_is_understood() {
    let cases = [
        // C++: numbers, newline, empty remark, language by name.
        "{\"code\":11,\"extFields\":{\"maxMsgNums\":32,\"queueId\":0,\"topic\":\"T\"},\"flag\":0,\"language\":\"CPP\",\"opaque\":10,\"remark\":\"\",\"version\":63}\n",
        // Language by number, numbers as text.
        "{\"language\":1,\"version\":\"63\",\"opaque\":\"10\",\"code\":11,\"extFields\":{\"maxMsgNums\":\"32\",\"topic\":\"T\"}}",
        // Unknown members of every shape, white space everywhere.
        " { \"x\" : {\"a\":[1,2,{\"b\":null}],\"c\":\"}\\\"\"} , \"y\":[] ,\"z\":-1.5e3, \"code\" : 11 , \"opaque\":10, \"version\":63,\r\n\t\"language\":\"CPP\",\"extFields\" : { \"maxMsgNums\" : 32 , \"topic\":\"T\" } } ",
    ];
    for header in cases {
        let mut scratch = Scratch::default();
        let frame = framed(header);
        let request = decode(&frame, &mut scratch).expect(header);
        assert_eq!(
            (request.code, request.opaque, request.version),
            (11, 10, 63)
        );
        assert_eq!(request.language, "CPP");
        assert_eq!(request.field("maxMsgNums"), Some("32"));
        assert_eq!(request.field("topic"), Some("T"));
        assert_eq!(request.field("nothing"), None);
    }
}

#[test]
fn absent_things_are_absent() {
    for header in [
        "{\"code\":34,\"extFields\":null,\"remark\":null}",
        "{\"code\":34}",
        "{\"code\":34,\"extFields\":{},\"flag\":null,\"language\":null}",
        "{\"code\":34,\"extFields\":{\"a\":null}}",
    ] {
        let mut scratch = Scratch::default();
        let frame = framed(header);
        let request = decode(&frame, &mut scratch).expect(header);
        assert_eq!(request.fields().count(), 0, "{header}");
        assert_eq!(request.remark, None, "{header}");
        assert_eq!(request.language, "OTHER", "{header}");
    }
}

#[test]
fn numbers_and_booleans_keep_their_text() {
    let mut scratch = Scratch::default();
    let frame = framed(
        "{\"code\":310,\"extFields\":{\"a\":false,\"b\":-1,\"c\":1.50,\"d\":9223372036854775807}}",
    );
    let request = decode(&frame, &mut scratch).unwrap();
    let fields: Vec<_> = request.fields().collect();
    assert_eq!(
        fields,
        [
            ("a", "false"),
            ("b", "-1"),
            ("c", "1.50"),
            ("d", "9223372036854775807")
        ]
    );
}

#[test]
fn escapes_become_text() {
    let mut scratch = Scratch::default();
    let frame = framed(
        "{\"extFields\":{\"i\":\"KEYS\\u0001k\\u0002\\n\\/\\\\\\\"\\u4e2d文\\ud83d\\ude00\",\"\\u0062\":\"\\ud83d!\\ude00\\ud83d\\u0041\"}}",
    );
    let request = decode(&frame, &mut scratch).unwrap();
    assert_eq!(request.field("i"), Some("KEYS\u{1}k\u{2}\n/\\\"中文😀"));
    assert_eq!(request.field("b"), Some("?!??A"), "halves that stand alone");
}

#[test]
fn of_two_fields_with_one_name_the_last_counts() {
    let mut scratch = Scratch::default();
    let frame = framed(
        "{\"code\":1,\"code\":2,\"extFields\":{\"x\":\"1\"},\"extFields\":{\"a\":\"1\",\"a\":\"2\"}}",
    );
    let request = decode(&frame, &mut scratch).unwrap();
    assert_eq!(request.code, 2);
    assert_eq!(request.field("a"), Some("2"));
    assert_eq!(request.field("x"), None);
}

#[test]
fn broken_headers_say_what_and_where() {
    assert_eq!(
        fault("[1]"),
        "bad header: the JSON header must be an object, at byte 0 of the header"
    );
    assert_eq!(
        fault("{\"code\":\"ten\"}"),
        "bad header: `code` is \"ten\", not a 32-bit number, at byte 8 of the header"
    );
    for (header, part) in [
        ("{\"code\":99999999999}", "not a 32-bit number"),
        ("{\"code\":1.0}", "not a 32-bit number"),
        ("{\"code\":1}x", "stands behind"),
        ("{\"code\":1", "expected `,` or `}`"),
        ("{\"code\":1,}", "name in quotes"),
        ("{,\"code\":1}", "name in quotes"),
        ("{\"code\" 1}", "expected `:`"),
        ("{\"extFields\":3}", "no object"),
        ("{\"extFields\":nothing}", "neither text nor number"),
        ("{\"extFields\":{\"a\":{}}}", "neither text nor number"),
        ("{\"extFields\":{\"a\":\"b}", "no end"),
        ("{\"extFields\":{\"a\":\"\\q\"}}", "unknown escape"),
        ("{\"extFields\":{\"a\":\"\\u12\"}}", "four hexadecimal"),
        ("{\"x\":[", "no end"),
        ("{\"x\":\"", "no end"),
        ("{\"x\":]}", "expected a value"),
    ] {
        let fault = fault(header);
        assert!(fault.contains(part), "{header}: {fault}");
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(fault(&deep).contains("levels"));
    let many: Vec<_> = (0..129).map(|n| format!("\"{n}\":{n}")).collect();
    let many = format!("{{\"extFields\":{{{}}}}}", many.join(","));
    assert!(fault(&many).contains("more than 128 extension fields"));
}

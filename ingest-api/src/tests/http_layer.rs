//! What a request gets whose query, encoding or charset is not supported: what to send instead.

use super::support::*;

fn utf16(text: &str, bom: &[u8], bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let text = text.encode_utf16().flat_map(bytes);
    bom.iter().copied().chain(text).collect()
}

#[tokio::test]
async fn a_request_that_is_not_supported_gets_a_sentence_on_what_to_send_instead() {
    let front_end = Setup::default().start();
    let json = r#"[{"device":"meter-1","metric":"p","value":1}]"#;
    let plain = || json.as_bytes().to_vec();
    let encoding = |value| vec![("content-encoding", value)];
    let content_type = |value| vec![("content-type", value)];
    let encoded = "compress the body once, with gzip or zstd, or send it as it is";
    let bom_le = utf16(json, &[0xff, 0xfe], u16::to_le_bytes);
    let bom_be = utf16(json, &[0xfe, 0xff], u16::to_be_bytes);
    let (le, be) = (
        utf16(json, &[], u16::to_le_bytes),
        utf16(json, &[], u16::to_be_bytes),
    );
    let packed = zstd::encode_all(&bom_le[..], 1).unwrap();
    let wide = "the body is UTF-16 or UTF-32; encode it as UTF-8";
    let twice = vec![("content-encoding", "gzip"), ("content-encoding", "zstd")];
    for (query, headers, body, status, code, parts) in [
        (
            "",
            encoding("deflate"),
            plain(),
            415,
            "unsupported_encoding",
            ["'deflate'", encoded],
        ),
        (
            "",
            encoding("br"),
            plain(),
            415,
            "unsupported_encoding",
            ["'br'", encoded],
        ),
        (
            "",
            encoding("gzip, br"),
            plain(),
            415,
            "unsupported_encoding",
            ["'gzip, br'", encoded],
        ),
        (
            "",
            encoding("gzip,gzip"),
            plain(),
            415,
            "unsupported_encoding",
            ["'gzip,gzip'", encoded],
        ),
        (
            "",
            encoding("x\u{e4}"),
            plain(),
            415,
            "unsupported_encoding",
            ["'x\u{e4}'", encoded],
        ),
        (
            "",
            twice,
            plain(),
            415,
            "unsupported_encoding",
            ["'gzip, zstd'", encoded],
        ),
        ("", vec![], bom_le.clone(), 400, "not_utf8", [wide; 2]),
        ("", vec![], bom_be.clone(), 400, "not_utf8", [wide; 2]),
        ("", vec![], le, 400, "not_utf8", [wide; 2]),
        ("", vec![], be, 400, "not_utf8", [wide; 2]),
        ("", encoding("zstd"), packed, 400, "not_utf8", [wide; 2]),
        (
            "",
            content_type("application/x-ndjson"),
            bom_le,
            400,
            "not_utf8",
            [wide; 2],
        ),
        (
            "?precision=h",
            vec![],
            plain(),
            400,
            "bad_query",
            ["'h'", "s, ms, us or ns"],
        ),
        (
            "?atomic=yes",
            vec![],
            plain(),
            400,
            "bad_query",
            ["'yes'", "true or false"],
        ),
        (
            "?unit=W",
            vec![],
            plain(),
            400,
            "bad_query",
            ["'unit'", "precision (s, ms, us or ns)"],
        ),
    ] {
        let uri = format!("/v1/readings{query}");
        let response = front_end.send("POST", &uri, &headers, body).await;
        assert_eq!(
            (response.status, response.code()),
            (status, Some(code)),
            "{uri} {headers:?}: {response:?}"
        );
        let detail = response.body["detail"].as_str().unwrap();
        for part in parts {
            assert!(detail.contains(part), "{part} is not in: {detail}");
        }
    }
    front_end.assert_books("not supported");
}

#[tokio::test]
async fn a_bad_time_is_explained_with_its_value_and_what_to_send() {
    let front_end = Setup::default().start();
    for (query, time, code, part) in [
        (
            "",
            "\"2026-11-21T10:00:00\"",
            "bad_timestamp",
            "append Z or an offset",
        ),
        ("", "1795168800000", "bad_timestamp", "add ?precision=ms"),
        (
            "",
            "\"2016-12-31T23:59:60Z\"",
            "bad_timestamp",
            "leap second",
        ),
        (
            "",
            "\"2016-12-31T23:59:59+24:00\"",
            "bad_timestamp",
            "+23:59",
        ),
        ("", "\"9999-12-31T23:59:59Z\"", "measured_in_future", ""),
        (
            "?precision=ns",
            "1e300",
            "bad_timestamp",
            "'1e300' in nanoseconds",
        ),
    ] {
        let body = format!(r#"{{"device":"meter-1","metric":"p","value":1,"measured_at":{time}}}"#);
        let uri = format!("/v1/readings{query}");
        let response = front_end.send("POST", &uri, &[], body).await;
        assert_eq!(
            (response.status, response.errors()),
            (422, vec![(0, code)]),
            "{time}"
        );
        let detail = response.body["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{time}: {detail}");
    }
}

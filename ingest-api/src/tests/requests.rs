//! What each kind of request gets as its response.

use std::io::Write as _;

use schema::clock;
use serde_json::{Value, json};

use super::support::*;

const NDJSON: Header = ("content-type", "application/x-ndjson");
const GZIP: Header = ("content-encoding", "gzip");
const ZSTD: Header = ("content-encoding", "zstd");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A request for `/v1/readings`, and the status and code of its response.
struct Row {
    query: &'static str,
    headers: Vec<Header>,
    body: Vec<u8>,
    status: u16,
    code: Option<&'static str>,
}

fn row(
    query: &'static str,
    headers: &[Header],
    body: impl Into<Vec<u8>>,
    expected: (u16, &'static str),
) -> Row {
    Row {
        query,
        headers: headers.to_vec(),
        body: body.into(),
        status: expected.0,
        code: Some(expected.1).filter(|code| !code.is_empty()),
    }
}

const OK: (u16, &str) = (202, "");

/// A front end whose sink confirms every batch; sends the requests and compares the responses.
async fn check(table: Vec<Row>) {
    let mut front_end = Setup::default().start();
    front_end.sent.take().unwrap().respond_with(Ok(()));
    for row in table {
        let uri = format!("/v1/readings{}", row.query);
        let text = String::from_utf8_lossy(&row.body[..row.body.len().min(60)]).into_owned();
        let response = front_end.send("POST", &uri, &row.headers, row.body).await;
        let expected = (row.status, row.code);
        let what = format!("{uri} {:?} {text}: {response:?}", row.headers);
        assert_eq!((response.status, response.code()), expected, "{what}");
        front_end.assert_books(&what);
    }
}

#[tokio::test]
async fn every_format_precision_and_compression_is_accepted() {
    let one = reading(METER, "p").to_string();
    let two = json!([reading(METER, "p"), reading(METER, "p")]).to_string();
    let seconds = clock::now() / 1_000_000;
    let scaled = |scale: i64| at(METER, "p", seconds * scale).to_string();
    let charset = ("content-type", "application/json; charset=utf-8");
    check(vec![
        row("", &[], one.clone(), OK),
        row("", &[charset], one.clone(), OK),
        row("", &[], two.clone(), OK),
        row("", &[], format!("{{\"readings\": {two}}}"), OK),
        row("", &[NDJSON], format!("{one}\r\n\n{one}\n"), OK),
        row("", &[], untimed(METER, "p").to_string(), OK),
        row("?precision=s", &[], scaled(1), OK),
        row("?precision=ms", &[], scaled(1_000), OK),
        row("?precision=us", &[], scaled(1_000_000), OK),
        row("?precision=ns", &[], scaled(1_000_000_000), OK),
        row("?atomic=true", &[], two.clone(), OK),
        row("?atomic=false&precision=s", &[], two.clone(), OK),
        row("", &[GZIP], gzip(one.as_bytes()), OK),
        row(
            "",
            &[("content-encoding", "x-gzip")],
            gzip(one.as_bytes()),
            OK,
        ),
        row("", &[ZSTD], zstd(one.as_bytes()), OK),
        row("", &[NDJSON, ZSTD], zstd(one.as_bytes()), OK),
        row("", &[("content-encoding", "Identity")], one, OK),
    ])
    .await;
}

#[tokio::test]
async fn a_request_that_cannot_be_read_gets_its_code() {
    let one = reading(METER, "p").to_string();
    let csv = ("content-type", "text/csv");
    let brotli = ("content-encoding", "br");
    let length = ("content-length", "250001");
    let long = " ".repeat(MAX_BODY + 1);
    check(vec![
        row("?precision=h", &[], one.clone(), (400, "bad_query")),
        row("?atomic=1", &[], one.clone(), (400, "bad_query")),
        row("?unit=W", &[], one.clone(), (400, "bad_query")),
        row("", &[csv], one.clone(), (415, "unsupported_media_type")),
        row("", &[brotli], one.clone(), (415, "unsupported_encoding")),
        row("", &[GZIP], one.clone(), (400, "bad_compression")),
        row("", &[ZSTD], one.clone(), (400, "bad_compression")),
        row("", &[], "", (422, "no_readings")),
        row("", &[], "[1, ", (400, "malformed_json")),
        row("", &[], "17", (400, "malformed_json")),
        row("", &[], &b"{\xff}"[..], (400, "not_utf8")),
        row("", &[], "[]", (422, "no_readings")),
        row("", &[NDJSON], "\n\n", (422, "no_readings")),
        row("", &[length], one, (413, "body_too_large")),
        row("", &[], long.clone(), (413, "body_too_large")),
        row("", &[GZIP], gzip(long.as_bytes()), (413, "body_too_large")),
        row("", &[ZSTD], zstd(long.as_bytes()), (413, "body_too_large")),
        row(
            "",
            &[NDJSON],
            "0\n".repeat(100_001),
            (413, "too_many_readings"),
        ),
        row(
            "",
            &[],
            format!("[{}0]", "0,".repeat(100_000)),
            (413, "too_many_readings"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn another_path_is_not_found_and_another_method_not_allowed() {
    let front_end = Setup::default().start();
    for (method, path, status, code) in [
        ("GET", "/v1/readings", 405, "method_not_allowed"),
        ("PUT", "/v1/readings", 405, "method_not_allowed"),
        ("POST", "/v1/reading", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
    ] {
        let response = front_end.send(method, path, &[], "").await;
        assert_eq!(
            (response.status, response.code()),
            (status, Some(code)),
            "{method} {path}"
        );
    }
}

/// A bad reading of each kind, with its code.
fn bad_readings() -> Vec<(Value, &'static str)> {
    let now = clock::now() / 1_000_000;
    let value = |value: Value| json!({"device": METER, "metric": "p", "value": value});
    let time =
        |time: Value| json!({"device": METER, "metric": "p", "value": 1, "measured_at": time});
    vec![
        (reading("meter-2", "p"), "unknown_device"),
        (reading(METER, "q"), "unknown_metric"),
        (reading(INACTIVE, "p"), "inactive_device"),
        (value(Value::Null), "value_not_finite"),
        (value(json!("Infinity")), "value_not_finite"),
        (value(json!("1.5")), "bad_reading"),
        (time(json!(now + 3_600)), "measured_in_future"),
        (time(json!(now - 40 * 86_400)), "measured_too_old"),
        (time(json!("soon")), "bad_timestamp"),
        (reading(&"x".repeat(257), "p"), "name_too_long"),
        (reading("", "p"), "bad_name"),
        (json!({"device": METER}), "bad_reading"),
        (json!(0), "bad_reading"),
    ]
}

#[tokio::test]
async fn a_bad_reading_is_rejected_alone_and_the_response_lists_its_index_and_code() {
    let mut front_end = with_horizon().start();
    let batches = front_end.sent.take().unwrap().respond_with(Ok(()));
    let bad = bad_readings();
    let mut readings = vec![reading(METER, "p")];
    readings.extend(bad.iter().map(|(reading, _)| reading.clone()));
    readings.push(reading(METER, "p"));
    let response = front_end.post("", &json!(readings)).await;
    let expected: Vec<_> = (1..).zip(bad.iter().map(|(_, code)| *code)).collect();
    assert_eq!(
        (response.status, response.counts()),
        (202, [2, bad.len() as u64, 0])
    );
    assert_eq!(response.errors(), expected);
    let batches = batches.lock().unwrap();
    assert_eq!(
        (batches.len(), &batches[0].series_id[..]),
        (1, &[10, 10][..])
    );
    front_end.assert_books("partial success");
}

#[tokio::test]
async fn a_request_without_a_good_reading_and_an_atomic_one_with_a_bad_reading_send_nothing() {
    let mut front_end = with_horizon().start();
    let batches = front_end.sent.take().unwrap().respond_with(Ok(()));
    for (bad, code) in bad_readings() {
        let response = front_end.post("", &json!([bad])).await;
        let expected = (422, Some("no_reading_accepted"), vec![(0, code)]);
        assert_eq!(
            (response.status, response.code(), response.errors()),
            expected
        );
        let mixed = json!([reading(METER, "p"), bad, reading(METER, "p")]);
        let response = front_end.post("?atomic=true", &mixed).await;
        let expected = (422, Some("no_reading_accepted"), [0, 3, 0]);
        assert_eq!(
            (response.status, response.code(), response.counts()),
            expected
        );
        assert_eq!(response.errors(), [(1, code)]);
        front_end.assert_books(code);
    }
    assert_eq!(batches.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_response_lists_the_first_hundred_bad_readings() {
    let mut front_end = Setup::default().start();
    front_end.sent.take().unwrap().respond_with(Ok(()));
    for (bad, listed, omitted) in [(100, 100, Value::Null), (250, 100, json!(150))] {
        let mut readings = vec![json!(0); bad];
        let response = front_end.post("", &json!(readings)).await;
        assert_eq!((response.status, response.errors().len()), (422, listed));
        assert_eq!(response.body["errors_omitted"], omitted);
        readings.push(reading(METER, "p"));
        let response = front_end.post("", &json!(readings)).await;
        assert_eq!((response.status, response.errors().len()), (202, listed));
        assert_eq!(response.counts(), [1, bad as u64, 0]);
        assert_eq!(response.body["errors_omitted"], omitted);
        // Those that are rejected because of others are not listed.
        let response = front_end.post("?atomic=true", &json!(readings)).await;
        assert_eq!(response.counts(), [0, bad as u64 + 1, 0]);
        assert_eq!(response.body["errors_omitted"], omitted);
    }
}

#[tokio::test]
async fn only_an_atomic_request_has_to_fit_into_one_batch() {
    let mut front_end = Setup::default().start();
    front_end.sent.take().unwrap().respond_with(Ok(()));
    let now = clock::now() / 1_000_000;
    // Short names of members keep the body within its limit.
    let lines = |count: i64, step: i64| {
        let line = |n| {
            let measured_at = now - n * step;
            format!(r#"{{"device":"meter-1","metric":"p","value":1,"measured_at":{measured_at}}}"#)
        };
        let lines: Vec<String> = (0..count).map(line).collect();
        gzip(lines.join("\n").as_bytes())
    };
    let headers = [NDJSON, GZIP];
    for (count, step, fits) in [(2_000, 1, true), (256, 86_400, true), (257, 86_400, false)] {
        let body = lines(count, step);
        let all = front_end
            .send("POST", "/v1/readings", &headers, body.clone())
            .await;
        assert_eq!((all.status, all.counts()), (202, [count as u64, 0, 0]));
        let atomic = front_end
            .send("POST", "/v1/readings?atomic=true", &headers, body)
            .await;
        let expected = if fits { OK } else { (413, "atomic_too_large") };
        assert_eq!((atomic.status, atomic.code().unwrap_or_default()), expected);
        front_end.assert_books("atomic");
    }
}

#[tokio::test]
async fn data_after_the_end_of_a_gzip_stream_is_named() {
    let mut front_end = Setup::default().start();
    front_end.sent.take().unwrap().respond_with(Ok(()));
    let (one, two) = (gzip(b"[{\"device\""), gzip(b":\"meter-1\"}]"));
    let parts = [&one[..], &two[..]].concat();
    let response = front_end.send("POST", "/v1/readings", &[GZIP], parts).await;
    assert_eq!(response.errors(), [(0, "bad_reading")], "{response:?}");
    let twice = gzip(&gzip(b"[]"));
    for (header, body, expected) in [
        (
            GZIP,
            [&one[..], b"\n\n\n"].concat(),
            "3 bytes after the end of the gzip stream; send",
        ),
        (
            GZIP,
            one[..one.len() - 9].to_vec(),
            "; check that content-encoding names",
        ),
        (ZSTD, one.clone(), "; check that content-encoding names"),
        (GZIP, twice, "compressed twice; compress it once"),
    ] {
        let response = front_end
            .send("POST", "/v1/readings", &[header], body)
            .await;
        assert_eq!(response.code(), Some("bad_compression"), "{response:?}");
        let detail = response.body["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{expected} is not in: {detail}");
    }
}

#[tokio::test]
async fn binary_data_is_not_called_utf_16() {
    let front_end = Setup::default().start();
    let bytes: Vec<u8> = (0..=255).collect();
    let response = front_end.send("POST", "/v1/readings", &[], bytes).await;
    let detail = response.body["detail"].as_str().unwrap();
    assert!(detail.contains("not valid UTF-8 at byte 129"), "{detail}");
}

#[tokio::test]
async fn a_chunked_encoding_that_is_not_valid_is_named() {
    let front_end = Setup::default().start();
    for (body, expected) in [
        (
            "zz\r\n[]\r\n0\r\n\r\n",
            "the chunked encoding of the body is not valid; correct",
        ),
        ("2\r\n[", "the body ended early"),
    ] {
        let head = "POST /v1/readings HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let response = front_end.exchange(&format!("{head}{body}")).await;
        assert!(
            response.contains("\"code\":\"body_incomplete\""),
            "{response}"
        );
        assert!(
            response.contains(expected),
            "{expected} is not in: {response}"
        );
    }
}

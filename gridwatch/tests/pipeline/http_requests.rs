//! HTTP requests: body formats, partial success, and hostile bodies.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::*;

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn one(device: &str, metric: &str, value: Value, measured_at: Value) -> Value {
    json!({"device": device, "metric": metric, "value": value, "measured_at": measured_at})
}

fn error_codes(response: &Value) -> Vec<(u64, String)> {
    let error = |error: &Value| {
        (
            error["index"].as_u64().unwrap(),
            error["code"].as_str().unwrap().to_owned(),
        )
    };
    response["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(error)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_of_every_format_precision_and_compression_are_stored() {
    let site = Site::running();
    let mut second = 0;
    let mut next = |scale: i64| {
        second += 1;
        let measured_at = (BEGIN / 1_000_000 + second) * scale;
        json!({"device": "m", "metric": "p", "value": second, "measured_at": measured_at})
    };
    let (object, array, envelope) = (
        next(1),
        json!([next(1), next(1)]),
        json!({"readings": [next(1)]}),
    );
    let lines = format!("{}\n{}\n", next(1), next(1));
    let (milli, micro, nano) = (next(1_000), next(1_000_000), next(1_000_000_000));
    let (zipped, packed) = (
        gzip(next(1).to_string().as_bytes()),
        zstd::encode_all(next(1).to_string().as_bytes(), 3),
    );
    let total = second;
    for (query, headers, body) in [
        ("", vec![JSON], object.to_string().into_bytes()),
        ("?precision=s", vec![JSON], array.to_string().into_bytes()),
        ("", vec![], envelope.to_string().into_bytes()),
        ("", vec![NDJSON], lines.into_bytes()),
        ("?precision=ms", vec![JSON], milli.to_string().into_bytes()),
        ("?precision=us", vec![JSON], micro.to_string().into_bytes()),
        (
            "?precision=ns",
            vec![("content-type", "application/json; charset=utf-8")],
            nano.to_string().into_bytes(),
        ),
        ("", vec![JSON, ("content-encoding", "gzip")], zipped),
        (
            "",
            vec![JSON, ("content-encoding", "zstd")],
            packed.unwrap(),
        ),
    ] {
        let response = site.send(query, &headers, body).await;
        assert_eq!(
            response.status,
            202,
            "{query} {headers:?}: {}",
            response.text()
        );
    }
    site.wait_in_ledger(total).await;
    let expected = format!(
        "SELECT count(*) FROM reading WHERE extract(epoch FROM measured_at)::bigint - {} = value",
        BEGIN / 1_000_000
    );
    assert_eq!(site.query_int(&expected).await, total);
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_reading_is_rejected_with_its_code_and_costs_no_other_reading() {
    let mut site = Site::new();
    let add = [
        "devices",
        "add",
        "meter-1",
        "off",
        "--metric",
        "p:W",
        "--database-url",
        &site.database_url,
    ];
    assert!(gridwatch(&add).status.success());
    site.execute("UPDATE device SET active = false WHERE external_id = 'off'")
        .await;
    site.start_ingest(&["--horizon", "30d"]);
    site.start_worker(&[]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let bad = [
        (one("nobody", "p", json!(1), json!(now)), "unknown_device"),
        (one("meter-1", "q", json!(1), json!(now)), "unknown_metric"),
        (one("off", "p", json!(1), json!(now)), "inactive_device"),
        (
            one("meter-1", "p", Value::Null, json!(now)),
            "value_not_finite",
        ),
        (
            one("meter-1", "p", json!(1), json!(now + 3_600)),
            "measured_in_future",
        ),
        (
            one("meter-1", "p", json!(1), json!(now - 40 * 86_400)),
            "measured_too_old",
        ),
        (
            one("meter-1", "p", json!(1), json!("soon")),
            "bad_timestamp",
        ),
        (
            one(&"x".repeat(300), "p", json!(1), json!(now)),
            "name_too_long",
        ),
        (one("", "p", json!(1), json!(now)), "bad_name"),
        (json!({"device": "meter-1"}), "bad_reading"),
    ];
    let mut readings = vec![one("meter-1", "p", json!(1), json!(now))];
    readings.extend(bad.iter().map(|(reading, _)| reading.clone()));
    readings.push(one("meter-1", "p", json!(2), json!(now - 1)));

    let response = site.post(json!(readings)).await;
    let expected: Vec<_> = bad
        .iter()
        .enumerate()
        .map(|(index, (_, code))| (index as u64 + 1, (*code).to_owned()))
        .collect();
    assert_eq!(response.status, 202);
    assert_eq!(error_codes(&response.json()), expected);
    assert_eq!(
        (
            response.json()["accepted"].as_u64(),
            response.json()["rejected"].as_u64()
        ),
        (Some(2), Some(10))
    );

    // An atomic request with a bad reading stores nothing.
    let atomic = site
        .send("?atomic=true", &[JSON], json!(readings).to_string())
        .await;
    assert_eq!(
        (atomic.status.as_u16(), atomic.json()["code"].as_str()),
        (422, Some("no_reading_accepted"))
    );
    assert_eq!(atomic.headers["content-type"], "application/problem+json");
    // An atomic request without a bad reading stores all.
    let all = json!([readings[0], readings[11]]).to_string();
    assert_eq!(site.send("?atomic=true", &[JSON], all).await.status, 202);
    // These readings need two messages, which are stored independently of each other: the request
    // could not be atomic.
    let long: Vec<_> = (0..5_000)
        .map(|at| reading("meter-1", "p", at, 1.0))
        .collect();
    let long = site
        .send("?atomic=true", &[JSON], json!(long).to_string())
        .await;
    assert_eq!(
        (long.status.as_u16(), long.json()["code"].as_str()),
        (413, Some("atomic_too_large"))
    );
    // A request without a good reading.
    let none = site.post(json!([bad[0].0, bad[1].0])).await;
    assert_eq!(
        (none.status.as_u16(), error_codes(&none.json()).len()),
        (422, 2)
    );

    site.wait_in_ledger(4).await;
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 2);
    site.assert_books().await;
    let rejected = |code: &str| {
        site.ingest().metric(&format!(
            "gridwatch_readings_rejected_total{{code=\"{code}\"}}"
        ))
    };
    assert_eq!(
        (
            rejected("unknown_device"),
            rejected("bad_name"),
            rejected("atomic_request")
        ),
        (3.0, 2.0, 5_002.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_lists_the_first_hundred_bad_readings() {
    let mut site = Site::new();
    site.start_ingest(&[]);
    let response = site.post(json!(vec![0; 250])).await.json();
    assert_eq!(
        (
            response["rejected"].as_u64(),
            response["errors"].as_array().unwrap().len()
        ),
        (Some(250), 100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_are_refused_with_a_code_and_harm_no_other_request() {
    let mut site = Site::new();
    site.start_ingest(&[
        "--unknown-devices",
        "register",
        "--max-body-bytes",
        "1000000",
    ]);
    site.start_worker(&[]);
    let good = reading("m", "p", 1, 1.0).to_string();
    let zeros = vec![b' '; 50_000_000];
    let (gzip_bomb, zstd_bomb) = (gzip(&zeros), zstd::encode_all(&zeros[..], 19).unwrap());
    assert!(gzip_bomb.len() < 100_000 && zstd_bomb.len() < 100_000);
    let mut broken_zip = gzip(good.as_bytes());
    broken_zip.truncate(20);
    let gz = ("content-encoding", "gzip");
    let zs = ("content-encoding", "zstd");
    let cases = vec![
        (413, "body_too_large", "", vec![JSON], vec![b' '; 1_000_001]),
        (413, "body_too_large", "", vec![JSON, gz], gzip_bomb),
        (413, "body_too_large", "", vec![JSON, zs], zstd_bomb),
        (
            413,
            "too_many_readings",
            "",
            vec![JSON],
            format!("[{}0]", "0,".repeat(100_000)).into_bytes(),
        ),
        (400, "bad_compression", "", vec![JSON, gz], broken_zip),
        (
            400,
            "bad_compression",
            "",
            vec![JSON, zs],
            good.clone().into_bytes(),
        ),
        (
            400,
            "malformed_json",
            "",
            vec![JSON],
            good.as_bytes()[..30].to_vec(),
        ),
        (422, "no_readings", "", vec![JSON], Vec::new()),
        (
            400,
            "malformed_json",
            "",
            vec![JSON],
            "[".repeat(100_000).into_bytes(),
        ),
        (
            400,
            "not_utf8",
            "",
            vec![JSON],
            b"{\"device\": \"\xff\xfe\"}".to_vec(),
        ),
        (
            415,
            "unsupported_media_type",
            "",
            vec![("content-type", "text/csv")],
            good.clone().into_bytes(),
        ),
        (
            415,
            "unsupported_encoding",
            "",
            vec![JSON, ("content-encoding", "br")],
            good.clone().into_bytes(),
        ),
        (
            400,
            "bad_query",
            "?precision=weeks",
            vec![JSON],
            good.clone().into_bytes(),
        ),
        (
            400,
            "bad_query",
            "?presicion=s",
            vec![JSON],
            good.clone().into_bytes(),
        ),
        (422, "no_readings", "", vec![JSON], b"[]".to_vec()),
    ];
    for (status, code, query, headers, body) in cases {
        let response = site.send(query, &headers, body).await;
        assert_eq!(
            (response.status.as_u16(), response.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            response.text()
        );
    }
    let other = site
        .client
        .get(
            format!("http://{}/v1/readings", site.listen)
                .parse()
                .unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(
        (other.status.as_u16(), other.json()["code"].as_str()),
        (405, Some("method_not_allowed"))
    );

    assert_eq!(site.send("", &[JSON], good).await.status, 202);
    site.wait_in_ledger(1).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_its_whole_body_before_it_reads_receives_the_response() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut site = Site::new();
    site.start_ingest(&["--max-body-bytes", "8000000"]);
    let mut stream = tokio::net::TcpStream::connect(&site.listen).await.unwrap();
    let head = "POST /v1/readings HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                content-length: 8000001\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; 8_000_001]).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(
        response.starts_with("HTTP/1.1 413 ") && response.contains("body_too_large"),
        "{response}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnects_during_its_request_leaves_no_pending_reading() {
    use tokio::io::AsyncWriteExt as _;
    let site = Site::running();
    for cut in [20, 120, 160] {
        let body = reading("m", "p", cut, 1.0).to_string();
        let head = format!(
            "POST /v1/readings HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = format!("{head}{body}");
        let mut stream = tokio::net::TcpStream::connect(&site.listen).await.unwrap();
        let cut = usize::try_from(cut).unwrap().min(request.len());
        stream.write_all(&request.as_bytes()[..cut]).await.unwrap();
        drop(stream);
    }
    assert_eq!(site.post(reading("m", "p", 1, 1.0)).await.status, 202);
    site.assert_books().await;
    assert_eq!(site.ingest().metric("gridwatch_pending_readings"), 0.0);
}

//! Files against a scripted front end.

mod formats;

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use clap::Parser as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{Command, Settings};

/// A file and the flags to import it with.
struct Case {
    file: tempfile::NamedTempFile,
    flags: Vec<String>,
}

impl Case {
    fn new(content: impl AsRef<[u8]>) -> Self {
        Self::without_names(content).with(&["--device", "meter", "--metric", "energy"])
    }

    /// The flags name neither a device nor a metric.
    fn without_names(content: impl AsRef<[u8]>) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_ref()).unwrap();
        let flags = Vec::new();
        Self { file, flags }
    }

    fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    fn arguments(&self) -> Import {
        let mut arguments = vec!["gridwatch", "import", self.file.path().to_str().unwrap()];
        arguments.extend(self.flags.iter().map(String::as_str));
        match Settings::try_parse_from(arguments).unwrap().command {
            Command::Import(import) => import,
            other => panic!("{other:?}"),
        }
    }

    /// The rows, each as "line: reading" or "line: code: detail".
    fn readings(&self) -> Vec<String> {
        let mut source = source::open(&self.arguments()).unwrap();
        let mut texts = Vec::new();
        while let Some(row) = source.next().unwrap() {
            texts.push(match row {
                Ok(row) => format!("{}: {}", row.place, row.json),
                Err(row) => format!("{}: {}: {}", row.place, row.code, row.detail),
            });
        }
        texts
    }

    /// The rows, each as "line time value" or "line code: detail".
    fn rows(&self) -> Vec<String> {
        let short = |text: String| {
            let text = text.strip_prefix("line ").unwrap().to_owned();
            let (line, rest) = text.split_once(": ").unwrap();
            let reading: Result<Value, _> = serde_json::from_str(rest);
            match reading {
                Ok(reading) => format!("{line} {} {}", reading["measured_at"], reading["value"]),
                Err(_) => format!("{line} {rest}"),
            }
        };
        self.readings().into_iter().map(short).collect()
    }

    /// Why the file is refused.
    fn refusal(&self) -> String {
        source::open(&self.arguments()).err().unwrap().to_string()
    }

    fn layout(&self) -> String {
        source::open(&self.arguments()).unwrap().layout()
    }
}

#[test]
fn a_file_with_a_header_is_read_by_the_names_or_the_order_of_its_columns() {
    let content = "id,when,usage\n1,2019-01-01T00:15:00Z,55.09\n";
    let by_name = Case::new(content).with(&["--time-column", "when", "--value-column", "usage"]);
    assert_eq!(by_name.rows(), [r#"2 "2019-01-01T00:15:00Z" 55.09"#]);
    assert_eq!(
        by_name.layout(),
        "the first line is the header; the time is column 'when', the value is column 'usage'"
    );
    let by_order = Case::new("when,usage\n1546301700,5\n");
    assert_eq!(by_order.rows(), ["2 1546301700 5"]);
}

#[test]
fn a_file_without_a_header_keeps_its_first_row() {
    for first in ["2019-01-01T00:15:00Z", "2019-01-01 00:15:00", "1546301700"] {
        let case = Case::new(format!("{first},1\n{first},2\n")).with(&["--time-zone", "UTC"]);
        assert_eq!(case.rows().len(), 2, "{first}");
        assert_eq!(
            case.layout(),
            "there is no header, because the first line begins with a time; \
             the time is column 1, the value is column 2"
        );
    }
}

#[test]
fn a_file_that_lacks_the_columns_is_refused_with_what_it_has() {
    for (content, flags, expected) in [
        ("", &[][..], "is empty"),
        ("\n \n", &[], "is empty"),
        ("time;usage\n1;2\n", &[], "line 1 is 'time;usage'"),
        (
            "a,b\n",
            &["--time-column", "c"],
            "no column 'c' in line 1; there are 'a', 'b'",
        ),
        (
            "a,b\n",
            &["--time-column", "b"],
            "column 'b' is both the time and the value",
        ),
        ("a,\"b\n", &[], "line 1: a quotation mark"),
    ] {
        let refusal = Case::new(content).with(flags).refusal();
        assert!(
            refusal.contains(expected),
            "expected {expected:?}, got {refusal:?}"
        );
    }
    let refusal = Case::new(b"\xff\xfet\0i\0").refusal();
    assert!(
        refusal.contains("line 1: the line is not UTF-8 text"),
        "{refusal}"
    );
}

#[test]
fn a_row_that_is_not_a_reading_costs_only_itself_and_is_named_by_its_line() {
    let content = b"\xef\xbb\xbftime,usage\r\n\
        1,1\r\n\
        \r\n\
        2\r\n\
        3,3,3\r\n\
        then,4\r\n\
        5,five\r\n\
        6,NaN\r\n\
        7,\r\n\
        8,\"8\r\n\
        \xff,9\r\n\
        ,10\r\n\
        11,\" 1e400\"\r\n\
        2019-01-01 00:15:00,12\r\n\
        \"13\",\"+.5\"";
    let expected = [
        "2 1 1",
        "4 bad_row: 1 field, but the header has 2",
        "5 bad_row: 3 fields, but the header has 2",
        "6 bad_timestamp: column 'time': 'then' is not a time",
        "7 value_not_finite: column 'usage': 'five' is not a finite number",
        "8 value_not_finite: column 'usage': 'NaN' is not a finite number",
        "9 value_not_finite: column 'usage': the value is empty",
        "10 bad_row: a quotation mark (\") is not closed in its line",
        "11 bad_row: the line is not UTF-8 text",
        "12 bad_timestamp: column 'time': the time is empty",
        "13 value_not_finite: column 'usage': '1e400' is not a finite number",
        "14 no_time_zone: column 'time': the time '2019-01-01 00:15:00' has no zone; name the zone",
        "15 13 0.5",
    ];
    let rows = Case::new(content).rows();
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (row, expected) in rows.iter().zip(expected) {
        assert!(
            row.starts_with(expected),
            "expected {expected:?}, got {row:?}"
        );
    }
}

#[test]
fn a_line_that_is_too_long_costs_only_itself() {
    let long = "x".repeat(3 << 20);
    let rows = Case::new(format!("time,usage\n1,1\n{long}\n3,3\n{long}")).rows();
    let expected = "the line is longer than 1 MiB";
    assert_eq!(rows.len(), 4);
    assert_eq!((rows[0].as_str(), rows[2].as_str()), ("2 1 1", "4 3 3"));
    assert_eq!(rows[1], format!("3 bad_row: {expected}"));
    assert_eq!(rows[3], format!("5 bad_row: {expected}"));
    let refusal = Case::new(long).refusal();
    assert!(
        refusal.ends_with(&format!("line 1: {expected}")),
        "{refusal}"
    );
}

/// What the front end was sent: query string and readings of each request.
type Requests = Arc<Mutex<Vec<(String, Vec<Value>)>>>;

/// Starts a front end that responds with what `respond` makes of the readings and of the number of
/// earlier requests. Returns its URL.
async fn start_front_end(
    respond: impl Fn(&[Value], usize) -> (u16, Value) + Clone + Send + Sync + 'static,
) -> (String, Requests) {
    let requests = Requests::default();
    let seen = requests.clone();
    let handler = move |RawQuery(query): RawQuery, body: String| async move {
        let readings: Vec<Value> = serde_json::from_str(&body).unwrap();
        let mut seen = seen.lock().unwrap();
        let (status, response) = respond(&readings, seen.len());
        seen.push((query.unwrap_or_default(), readings));
        let status = StatusCode::from_u16(status).unwrap();
        (status, response.to_string()).into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/readings", post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, requests)
}

/// Rejects all readings and lists as many of them.
fn reject_all(readings: &[Value], listed: usize) -> (u16, Value) {
    let error = |index| json!({"index": index, "code": "unknown_device", "detail": "not known"});
    let errors: Vec<Value> = (0..listed.min(readings.len())).map(error).collect();
    let rejected = readings.len();
    (
        422,
        json!({"accepted": 0, "rejected": rejected, "errors": errors}),
    )
}

fn accept_all(readings: &[Value]) -> (u16, Value) {
    (
        202,
        json!({"accepted": readings.len(), "rejected": 0, "errors": []}),
    )
}

#[tokio::test]
async fn rows_are_sent_in_requests_with_their_precision() {
    let (url, requests) = start_front_end(|readings, _| accept_all(readings)).await;
    let case = Case::new("time,usage\n1,1\n2,2.50\nx,9\n3,3\n").with(&[
        "--url",
        &url,
        "--precision",
        "ms",
        "--batch",
        "2",
    ]);
    let summary = readings(&case.arguments()).await.unwrap();
    assert_eq!((summary.accepted, summary.rejected), (3, 1));
    let reading = |time: u8, value: Value| {
        let (device, metric) = ("meter", "energy");
        json!({"device": device, "metric": metric, "value": value, "measured_at": time})
    };
    let query = || "precision=ms".to_owned();
    let expected = [
        (query(), vec![reading(1, json!(1)), reading(2, json!(2.5))]),
        (query(), vec![reading(3, json!(3))]),
    ];
    assert_eq!(*requests.lock().unwrap(), expected);
    let error = run(case.arguments()).await.unwrap_err();
    assert_eq!(error.to_string(), "1 of 4 rows were left out");
    assert!(error.is::<LeftOut>());
}

#[tokio::test]
async fn the_reasons_add_up_to_the_rejected_rows() {
    let (url, _) = start_front_end(|readings, _| reject_all(readings, 100)).await;
    let mut content = String::from("time,usage\nthen,1\n");
    (0..250).for_each(|time| content.push_str(&format!("{time},1\n")));
    let case = Case::new(content).with(&["--url", &url]);
    let summary = readings(&case.arguments()).await.unwrap();
    let text = summary.text(&case.arguments());
    for expected in [
        "0 accepted, 251 rejected\n",
        "  bad_timestamp: 1\n",
        "  unknown_device: 100\n",
        "  reason not listed by the front end: 150 ",
        "  line 3: unknown_device: not known\n",
        "  … and 231 more rows\n",
        "gridwatch devices add 'meter' --metric 'energy'",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn a_rejected_number_as_a_time_leads_to_the_precision() {
    let reject = |_: &[Value], _| {
        let error = json!({"index": 0, "code": "bad_timestamp", "detail": "not a time"});
        (
            422,
            json!({"accepted": 0, "rejected": 1, "errors": [error]}),
        )
    };
    let (url, _) = start_front_end(reject).await;
    for (time, has_advice) in [("1546301700000", true), ("2019-02-30T00:00:00Z", false)] {
        let case = Case::new(format!("{time},1\n")).with(&["--url", &url]);
        let summary = readings(&case.arguments()).await.unwrap();
        let text = summary.text(&case.arguments());
        assert_eq!(text.contains("--precision s;"), has_advice, "{text}");
    }
}

#[tokio::test]
async fn a_file_whose_times_have_no_zone_is_refused_before_anything_is_sent() {
    let (url, requests) = start_front_end(|readings, _| accept_all(readings)).await;
    let content = "time,usage\n2019-01-01 00:15:00,1\n2019-01-01 00:30:00,2\n";
    let case = Case::new(content).with(&["--url", &url]);
    let error = run(case.arguments()).await.unwrap_err();
    assert!(error.is::<UsageError>());
    let text = error.to_string();
    assert!(
        text.contains("line 2:") && text.contains("--time-zone"),
        "{text}"
    );
    assert!(requests.lock().unwrap().is_empty());
    run(case.with(&["--time-zone", "UTC"]).arguments())
        .await
        .unwrap();
    let time = &requests.lock().unwrap()[0].1[0]["measured_at"].clone();
    assert_eq!(time, "2019-01-01T00:15:00Z");
}

#[tokio::test]
async fn a_header_without_rows_is_an_error() {
    let error = run(Case::new("time,usage\n").arguments())
        .await
        .unwrap_err();
    assert!(
        error.is::<UsageError>() && error.to_string().contains("no reading"),
        "{error}"
    );
}

const SHORT: send::Retries = send::Retries {
    pause: Duration::from_millis(1),
    unreachable: Duration::from_millis(50),
    unavailable: LIMIT,
};
/// Ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_front_end_that_is_unreachable_is_reported_with_its_url_after_retries() {
    let url = "http://127.0.0.1:1";
    let mut front_end = FrontEnd::new(url, "s").unwrap();
    front_end.retries = SHORT;
    let problems = Mutex::new(Vec::new());
    let notify = |problem: &str| problems.lock().unwrap().push(problem.to_owned());
    let error = front_end.post(Bytes::new(), notify).await.unwrap_err();
    let text = error.to_string();
    let expected = format!("cannot reach the front end at {url}: Connection refused");
    assert!(
        text.starts_with(&expected) && text.contains("--url"),
        "{text}"
    );
    let problems = problems.into_inner().unwrap();
    assert!(problems[0].starts_with(&expected), "{problems:?}");
    assert!(
        problems[0].contains("; retrying for another "),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_request_is_retried_while_the_front_end_is_unavailable() {
    const STATUSES: [u16; 4] = [503, 408, 500, 503];
    let respond = |readings: &[Value], earlier: usize| match STATUSES.get(earlier) {
        Some(status) => (*status, json!({"detail": "the queue is down"})),
        None => accept_all(readings),
    };
    let (url, requests) = start_front_end(respond).await;
    let mut front_end = FrontEnd::new(&url, "s").unwrap();
    front_end.retries = SHORT;
    let problems = Mutex::new(Vec::new());
    let notify = |problem: &str| problems.lock().unwrap().push(problem.to_owned());
    let response = front_end.post("[1]".into(), notify).await.unwrap();
    assert_eq!(response["accepted"], 1);
    assert_eq!(requests.lock().unwrap().len(), STATUSES.len() + 1);
    let problems = problems.into_inner().unwrap();
    assert_eq!(problems.len(), STATUSES.len());
    for (problem, status) in problems.iter().zip(STATUSES) {
        let expected = format!("{url} responded with {status}: the queue is down; retrying for ");
        assert!(problem.starts_with(&expected), "{problem}");
    }
}

/// Starts a front end that closes each connection after this response, which may be empty. Returns
/// its URL.
async fn start_scripted(responses: &'static [&'static str]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for response in responses {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"[1]") {
                assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0);
            }
            connection.write_all(response.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_refused_connection_after_a_long_outage_is_retried() {
    let url = start_scripted(&[
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "",
        "HTTP/1.1 202 Accepted\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{\"accepted\": 1}",
    ])
    .await;
    let mut front_end = FrontEnd::new(&url, "s").unwrap();
    // When the connection is closed, the outage is longer than a closed connection may last.
    front_end.retries = send::Retries {
        pause: Duration::from_millis(20),
        unreachable: Duration::from_millis(10),
        unavailable: LIMIT,
    };
    let response = front_end.post("[1]".into(), |_| {}).await.unwrap();
    assert_eq!(response["accepted"], 1);
}

#[tokio::test]
async fn a_response_that_is_not_one_of_a_front_end_is_an_error() {
    for (status, body, expected) in [
        (
            404,
            json!({"detail": "no such path"}),
            "404 Not Found: no such path; --url must be",
        ),
        (200, json!("hello"), "200 OK: '\"hello\"'; --url must be"),
        (
            413,
            json!({"detail": "too large"}),
            "too large; choose a smaller --batch",
        ),
        (
            202,
            json!({"accepted": 3, "rejected": 0}),
            "counted 3 accepted",
        ),
    ] {
        let (url, _) = start_front_end(move |_, _| (status, body.clone())).await;
        let case = Case::new("time,usage\n1,1\n").with(&["--url", &url]);
        let error = run(case.arguments()).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(expected),
            "expected {expected:?}, got {text:?}"
        );
        assert!(!error.is::<UsageError>() && !error.is::<LeftOut>());
    }
}

#[tokio::test]
async fn wrong_flags_are_refused_before_the_file_is_read() {
    for (flags, expected) in [
        (
            &["--url", "ftp://x"][..],
            "--url 'ftp://x': expected http://HOST:PORT",
        ),
        (&["--url", "localhost:8080"], "expected http://HOST:PORT"),
    ] {
        let error = run(Case::new("").with(flags).arguments())
            .await
            .unwrap_err();
        assert!(error.is::<UsageError>(), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn flags_of_readings_are_refused_for_other_files() {
    for kind in ["factories", "sprockets"] {
        let error = run(Case::new("{}").with(&["--kind", kind]).arguments()).await;
        let error = error.unwrap_err();
        assert!(error.is::<UsageError>(), "{error}");
        assert!(error.to_string().contains("are for readings"), "{error}");
    }
}

/// Starts a query API that knows no document, and refuses all that it is to create after the first
/// `accepted` ones. Returns its URL.
async fn start_query_api(accepted: usize) -> String {
    let created = Arc::new(Mutex::new(0));
    let list = || async { r#"{"types": [], "components": [], "next": null}"# };
    let create = move || async move {
        let mut created = created.lock().unwrap();
        *created += 1;
        if *created <= accepted {
            return (StatusCode::CREATED, r#"{"id": "x", "component": "x"}"#);
        }
        let problem = r#"{"code": "invalid_document", "detail": "the name is not valid"}"#;
        (StatusCode::UNPROCESSABLE_ENTITY, problem)
    };
    let missing = || async {
        let problem = r#"{"code": "unknown_device", "detail": "not known"}"#;
        (StatusCode::NOT_FOUND, problem)
    };
    let put = || async { "{}" };
    let router = Router::new()
        .route("/v1/types", get(list).post(create.clone()))
        .route("/v1/components", get(list).post(create.clone()))
        .route("/v1/devices", post(create))
        .route("/v1/devices/{*path}", get(missing))
        .route("/v1/imports/{id}", axum::routing::put(put));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_refusal_after_something_was_stored_is_not_a_wrong_file_and_the_rest_is_printed() {
    let data = json!({
        "sprocket_production_actual": [1], "sprocket_production_goal": [1], "time": [1],
    });
    let factory = json!({ "factory": { "chart_data": data } });
    let factories = json!({ "factories": [factory] });
    let sprockets = json!({ "sprockets": [{}, {}] });
    for (kind, content, expected) in [
        (
            "factories",
            factories,
            "components: 1 new, 0 already stored\n  devices: 0 new, 0",
        ),
        (
            "sprockets",
            sprockets,
            "not sent to its end:\n  types: 1 new, 0 already stored",
        ),
    ] {
        for accepted in [0, 1] {
            let url = start_query_api(accepted).await;
            let case = Case::without_names(content.to_string());
            let case = case.with(&["--kind", kind, "--url", &url]);
            let error = run(case.arguments()).await.unwrap_err();
            assert_eq!(error.to_string(), "the name is not valid");
            assert_eq!(error.is::<UsageError>(), accepted == 0, "{kind} {accepted}");
        }
        let url = start_query_api(1).await;
        let case = Case::without_names(content.to_string());
        let case = case.with(&["--kind", kind, "--url", &url]);
        let arguments = case.arguments();
        let mut attempt = Attempt::default();
        import(&arguments, &mut attempt).await.unwrap_err();
        let text = attempt.text(&arguments, false);
        assert!(text.contains(expected), "{text}");
    }
}

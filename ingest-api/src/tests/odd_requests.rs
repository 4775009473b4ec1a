//! The whole behaviour of the front end for odd requests, which are a table in `odd_requests.txt`.
//!
//! Its first lines state how it is read. Every request goes through the router, with a sink that
//! confirms each batch.

use jiff::Timestamp;
use schema::clock;
use transport::testing::RecordedBatches;

use super::support::*;

const TABLE: &str = include_str!("odd_requests.txt");

/// What no response may contain: the words of the parser and of the language.
const FORBIDDEN: [&str; 12] = [
    "struct",
    "invalid type",
    "serde",
    "expected value at",
    "expected struct",
    "borrowed",
    "missing field",
    "unknown field",
    "EOF while",
    "RawReading",
    "deserialize",
    "f64",
];

/// The requests of a section of the table.
#[derive(Debug, Clone)]
struct Section {
    method: &'static str,
    uri: &'static str,
    headers: Vec<Header>,
    /// The body, in which `…` is replaced by what is odd.
    body: &'static str,
}

/// A row of the table.
struct Row {
    line: usize,
    section: Section,
    request: String,
    outcome: &'static str,
    text: &'static str,
}

fn table() -> Vec<Row> {
    let new_section = Section {
        method: "POST",
        uri: "/v1/readings",
        headers: Vec::new(),
        body: "…",
    };
    let (mut section, mut rows, mut request) = (new_section.clone(), Vec::new(), String::new());
    let numbered = (1..).zip(TABLE.lines());
    for (line, text) in numbered.skip_while(|(_, text)| !text.starts_with("##")) {
        if text.starts_with("##") {
            section = new_section.clone();
        } else if let Some(setting) = text.strip_prefix("= ") {
            match setting.split_once(": ") {
                Some(("body", body)) => section.body = body,
                Some(header) => section.headers.push(header),
                None => (section.method, section.uri) = setting.split_once(' ').unwrap(),
            }
        } else if let Some((rest, expected)) = text.split_once("▸ ") {
            request.push_str(rest.trim());
            let (outcome, text) = expected.split_once(" ▸ ").unwrap_or((expected, ""));
            rows.push(Row {
                line,
                section: section.clone(),
                request: std::mem::take(&mut request),
                outcome: outcome.trim(),
                text,
            });
        } else {
            request.push_str(text.trim());
        }
    }
    assert_eq!(request, "", "a request without its response");
    rows
}

/// The bytes of a request: `↵` is a line feed, and what is in `⟨⟩` stands for something else.
fn bytes(request: &str, now: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in request.replace('↵', "\n").split('⟩') {
        let (text, special) = part.split_once('⟨').unwrap_or((part, ""));
        bytes.extend_from_slice(text.as_bytes());
        let special = special.as_bytes();
        match special {
            [] => {}
            [b'n', b'o', b'w', seconds @ ..] => {
                let seconds = str::from_utf8(seconds).unwrap();
                let seconds: i64 = if seconds.is_empty() {
                    0
                } else {
                    seconds.parse().unwrap()
                };
                bytes.extend_from_slice((now + seconds).to_string().as_bytes());
            }
            _ => match str::from_utf8(special).unwrap().split_once('×') {
                Some((times, text)) => {
                    let times = times.parse().unwrap();
                    bytes.extend_from_slice(text.repeat(times).as_bytes());
                }
                None => {
                    let hex = str::from_utf8(special).unwrap().split(' ');
                    bytes.extend(hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
                }
            },
        }
    }
    bytes
}

/// Status, code, and index, line and code of each error, as the table writes them.
fn outcome(response: &JsonResponse) -> String {
    let mut words = vec![response.status.to_string()];
    words.extend(response.code().map(str::to_owned));
    words.retain(|word| word != "no_reading_accepted");
    for error in response.body["errors"].as_array().into_iter().flatten() {
        let line = error["line"].as_u64();
        let line = line.map(|line| format!("@{line}")).unwrap_or_default();
        let code = error["code"].as_str().unwrap();
        words.push(format!("{}{line}:{code}", error["index"]));
    }
    words.join(" ")
}

/// The sentences of a response, and what was stored.
fn text(response: &JsonResponse, stored: &RecordedBatches) -> String {
    let mut texts = vec![];
    texts.extend(response.body["detail"].as_str().map(str::to_owned));
    for error in response.body["errors"].as_array().into_iter().flatten() {
        texts.push(error["detail"].as_str().unwrap().to_owned());
    }
    for batch in stored.lock().unwrap().drain(..) {
        for (measured_at, value) in batch.measured_at.iter().zip(&batch.value) {
            let time = Timestamp::from_microsecond(*measured_at).unwrap();
            texts.push(format!("stored {value} of {time}"));
        }
    }
    texts.join("; ")
}

#[tokio::test]
async fn every_odd_request_gets_its_status_its_code_and_a_sentence_that_helps() {
    let mut front_end = with_horizon().start();
    let stored = front_end.sent.take().unwrap().respond_with(Ok(()));
    let mut failures = Vec::new();
    let rows = table();
    for row in &rows {
        let Section {
            method,
            uri,
            headers,
            body,
        } = &row.section;
        let now = clock::now() / 1_000_000;
        let body = bytes(&body.replace('…', &row.request), now);
        let response = front_end.send(method, uri, headers, body).await;
        let (outcome, text) = (outcome(&response), text(&response, &stored));
        let all = response.body.to_string();
        // The sentences about the query string are those of axum.
        let is_checked = response.code() != Some("bad_query");
        let forbidden = FORBIDDEN
            .iter()
            .find(|word| is_checked && all.contains(**word));
        if outcome != row.outcome || !text.contains(row.text) || forbidden.is_some() {
            let Row {
                line,
                request,
                outcome: expected,
                text: expected_text,
                ..
            } = row;
            failures.push(format!(
                "odd_requests.txt, line {line}: {method} {uri} {request}\n  \
                 expected {expected} ▸ {expected_text}\n  came     {outcome} ▸ {text}\n  \
                 forbidden words: {forbidden:?}"
            ));
        }
        front_end.assert_books(&row.request);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(rows.len() >= 100, "only {} rows", rows.len());
}

/// The page that a user of the API reads.
#[test]
fn every_code_has_its_row_in_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/HTTP.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rejections = schema::Rejection::ALL.map(schema::Rejection::code);
    for code in service::api_error::CODES.into_iter().chain(rejections) {
        let row = format!("| `{code}` |");
        assert!(page.contains(&row), "docs/HTTP.md has no row for {code}");
    }
}

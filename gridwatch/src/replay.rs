//! `gridwatch replay`: sends the readings of a CSV file to a running front end.
//!
//! In: a file with a time and a value per row. Out: every row was accepted, or was rejected and is
//! listed with its line and the reason. Requests that fail with 503 or without a response are
//! retried.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use service::client::{Client, StatusCode, Uri};

use crate::UsageError;
use crate::config::Replay;

/// How long a response may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a retry.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Upper bound on the retries of a request.
const MAX_RETRIES: u32 = 60;
/// Upper bound on the retries of the first request, which shows whether there is a front end.
const MAX_FIRST_RETRIES: u32 = 2;
/// Upper bound on the rejected rows that are listed.
const MAX_LISTED: usize = 20;

/// The outcome of the rows.
#[derive(Default)]
struct Summary {
    accepted: u64,
    rejected: u64,
    listed: Vec<String>,
    codes: BTreeMap<String, u64>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Replay) -> anyhow::Result<()> {
    let base = arguments.url.trim_end_matches('/');
    let uri: Uri = format!("{base}/v1/readings")
        .parse()
        .map_err(|_| UsageError(format!("--url {base}: not a URL")))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        return Err(UsageError(format!("--url {base}: expected http://HOST:PORT")).into());
    }
    let rows = read(&arguments)?;
    let client = Client::new(TIMEOUT);
    let bar = ProgressBar::new(rows.len() as u64).with_style(
        ProgressStyle::with_template(
            "{wide_bar} {human_pos}/{human_len} readings  {per_sec}  {eta}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut summary = Summary::default();
    for chunk in rows.chunks(arguments.batch) {
        send(&client, &uri, &arguments, chunk, &mut summary).await?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    println!(
        "{}: {} accepted, {} rejected",
        arguments.file.display(),
        summary.accepted,
        summary.rejected
    );
    for (code, count) in &summary.codes {
        println!("  {code}: {count}");
    }
    for line in &summary.listed {
        println!("  {line}");
    }
    Ok(())
}

/// A row of the file.
struct Row {
    line: u64,
    time: String,
    value: Value,
}

fn read(arguments: &Replay) -> Result<Vec<Row>, UsageError> {
    let name = arguments.file.display();
    let wrong = |reason: String| UsageError(format!("{name}: {reason}"));
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(&arguments.file)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let headers = reader
        .headers()
        .map_err(|error| wrong(error.to_string()))?
        .clone();
    let column = |asked: &Option<String>, otherwise: usize| match asked {
        Some(asked) => headers
            .iter()
            .position(|header| header == asked)
            .ok_or_else(|| {
                wrong(format!(
                    "no column '{asked}'; there are: {}",
                    headers.iter().collect::<Vec<_>>().join(", ")
                ))
            }),
        None if otherwise < headers.len() => Ok(otherwise),
        None => Err(wrong(
            "expected a header line and at least two columns: time and value".into(),
        )),
    };
    let time = column(&arguments.time_column, 0)?;
    let value = column(&arguments.value_column, 1)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let field = |index| record.get(index).unwrap_or_default();
        let line = record.position().map_or(0, csv::Position::line);
        rows.push(Row {
            line,
            time: time_of(field(time)),
            value: value_of(field(value)),
        });
    }
    Ok(rows)
}

/// Adds UTC to a time without a zone. Other texts are sent unchanged, so that the front end
/// validates them.
fn time_of(text: &str) -> String {
    match text.parse::<jiff::civil::DateTime>() {
        Ok(time) if text.parse::<jiff::Timestamp>().is_err() => format!("{time}Z"),
        _ => text.to_owned(),
    }
}

/// A finite number, or a value that the front end rejects.
fn value_of(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        Ok(_) => Value::Null,
        Err(_) => json!(text),
    }
}

/// Sends one request, retries it while the front end is unavailable, and adds its outcome.
async fn send(
    client: &Client,
    uri: &Uri,
    arguments: &Replay,
    rows: &[Row],
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let reading = |row: &Row| {
        json!({
            "device": arguments.device,
            "metric": arguments.metric,
            "value": row.value,
            "measured_at": row.time,
        })
    };
    let readings: Vec<Value> = rows.iter().map(reading).collect();
    let body = Bytes::from(serde_json::to_vec(&readings)?);
    let headers = [("content-type", "application/json")];
    let is_first = summary.accepted + summary.rejected == 0;
    let max_retries = if is_first {
        MAX_FIRST_RETRIES
    } else {
        MAX_RETRIES
    };
    let mut retries = 0;
    let response = loop {
        let result = client.post(uri.clone(), &headers, body.clone()).await;
        let reason = match result {
            Ok(response) if response.status != StatusCode::SERVICE_UNAVAILABLE => break response,
            Ok(response) => match response.json()["detail"].as_str() {
                Some(detail) => detail.to_owned(),
                None => response.status.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if retries == max_retries {
            let sentence = format!("{uri} does not accept readings: {reason}");
            return Err(UsageError(sentence).into());
        }
        retries += 1;
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    let result = response.json();
    let is_outcome =
        response.status.is_success() || response.status == StatusCode::UNPROCESSABLE_ENTITY;
    if !is_outcome {
        let detail = match result["detail"].as_str() {
            Some(detail) => detail.to_owned(),
            None => response.text(),
        };
        anyhow::bail!("{uri} responded with {}: {detail}", response.status);
    }
    summary.add(&result, rows)
}

impl Summary {
    /// Adds the outcome of a request, from the JSON of its response.
    fn add(&mut self, result: &Value, rows: &[Row]) -> anyhow::Result<()> {
        self.accepted += result["accepted"]
            .as_u64()
            .context("the response has no number of accepted readings")?;
        self.rejected += result["rejected"].as_u64().unwrap_or_default();
        for error in result["errors"].as_array().into_iter().flatten() {
            let code = error["code"].as_str().unwrap_or("unknown").to_owned();
            let index = error["index"].as_u64();
            let row = index.and_then(|index| rows.get(usize::try_from(index).ok()?));
            if self.listed.len() < MAX_LISTED {
                let line = row.map_or(0, |row| row.line);
                let detail = error["detail"].as_str().unwrap_or_default();
                self.listed.push(format!("line {line}: {code}: {detail}"));
            }
            *self.codes.entry(code).or_default() += 1;
        }
        Ok(())
    }
}

//! `gridwatch replay`: a CSV file of readings through a running front end.
//!
//! In: a file with a time and a value a row. Out: every row was accepted, or was rejected and is listed with its line and
//! the reason. A front end that cannot take readings for now is asked again until it can.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use service::client::Client;

use crate::Usage;
use crate::config::Replay;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a request is sent once more, and how often that is done.
const RETRY: (Duration, u32) = (Duration::from_secs(1), 60);
/// Rejected rows that are listed.
const LISTED: usize = 20;

/// What became of the rows.
#[derive(Default)]
struct Summary {
    accepted: u64,
    rejected: u64,
    listed: Vec<String>,
    codes: BTreeMap<String, u64>,
}

/// Runs the command.
pub async fn run(arguments: Replay) -> anyhow::Result<()> {
    let base = arguments.url.trim_end_matches('/');
    let uri: Uri = format!("{base}/v1/readings")
        .parse()
        .map_err(|_| Usage(format!("--url {base}: not a URL")))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        return Err(Usage(format!("--url {base}: expected http://HOST:PORT")).into());
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

fn read(arguments: &Replay) -> Result<Vec<Row>, Usage> {
    let name = arguments.file.display();
    let wrong = |reason: String| Usage(format!("{name}: {reason}"));
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
            "expected a header line and at least two columns, time and value".into(),
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

/// A time without a zone is UTC. What is no time goes to the front end as it is, which rejects it by its rules.
fn time_of(text: &str) -> String {
    match text.parse::<jiff::civil::DateTime>() {
        Ok(time) if text.parse::<jiff::Timestamp>().is_err() => format!("{time}Z"),
        _ => text.to_owned(),
    }
}

/// A finite number, or what the front end takes for none.
fn value_of(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        Ok(_) => Value::Null,
        Err(_) => json!(text),
    }
}

async fn send(
    client: &Client,
    uri: &Uri,
    arguments: &Replay,
    rows: &[Row],
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let reading = |row: &Row| {
        json!({
            "device": arguments.device, "metric": arguments.metric, "value": row.value, "measured_at": row.time,
        })
    };
    let body = Bytes::from(serde_json::to_vec(
        &rows.iter().map(reading).collect::<Vec<_>>(),
    )?);
    let mut attempts = 0;
    let answer = loop {
        attempts += 1;
        let reason = match client
            .post(
                uri.clone(),
                &[("content-type", "application/json")],
                body.clone(),
            )
            .await
        {
            Ok(answer) if answer.status != StatusCode::SERVICE_UNAVAILABLE => break answer,
            Ok(answer) => answer.json()["detail"].as_str().unwrap_or("503").to_owned(),
            Err(error) => error.to_string(),
        };
        // The first request tells whether there is a front end at all.
        if attempts > RETRY.1 || (attempts > 2 && summary.accepted + summary.rejected == 0) {
            return Err(Usage(format!("{uri} does not take readings: {reason}")).into());
        }
        tokio::time::sleep(RETRY.0).await;
    };
    let result = answer.json();
    if !answer.status.is_success() && answer.status != StatusCode::UNPROCESSABLE_ENTITY {
        let detail = result["detail"]
            .as_str()
            .map_or_else(|| answer.text(), ToOwned::to_owned);
        anyhow::bail!("{uri} answered {}: {detail}", answer.status);
    }
    summary.accepted += result["accepted"]
        .as_u64()
        .context("the answer does not say how many were accepted")?;
    summary.rejected += result["rejected"].as_u64().unwrap_or_default();
    for error in result["errors"].as_array().into_iter().flatten() {
        let code = error["code"].as_str().unwrap_or("unknown").to_owned();
        let line = error["index"]
            .as_u64()
            .and_then(|index| rows.get(usize::try_from(index).ok()?))
            .map(|row| row.line);
        if summary.listed.len() < LISTED {
            let detail = error["detail"].as_str().unwrap_or_default();
            summary.listed.push(format!(
                "line {}: {code}: {detail}",
                line.unwrap_or_default()
            ));
        }
        *summary.codes.entry(code).or_default() += 1;
    }
    Ok(())
}

//! `gridwatch replay`: sends the readings of a CSV file to a running front end.
//!
//! In: a file with a time and a value per row. Out: every row was accepted, or was rejected and is
//! counted with its reason. A row that is not a reading does not affect the others. Requests that
//! fail with 408, 500 or 503, or without a response, are retried for a while.

mod progress;
mod rows;
mod send;
mod summary;
#[cfg(test)]
mod tests;
mod time;

use std::io::BufRead;

use bytes::Bytes;
use schema::reading::check_names;
use serde_json::json;
use service::quote::quote;

use self::progress::Progress;
use self::rows::{Row, Rows};
use self::send::FrontEnd;
use self::summary::Summary;
use crate::UsageError;
use crate::config::Replay;

/// The whole file was sent, and rows of it were rejected: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{rejected} of {rows} rows were rejected")]
pub(crate) struct RowsRejected {
    rejected: u64,
    rows: u64,
}

/// Runs the command.
pub(crate) async fn run(arguments: Replay) -> anyhow::Result<()> {
    let summary = replay(&arguments).await?;
    if summary.rejected > 0 {
        let (rejected, rows) = (summary.rejected, summary.rows());
        return Err(RowsRejected { rejected, rows }.into());
    }
    Ok(())
}

/// Sends the rows and prints what became of them.
///
/// # Errors
/// [`UsageError`]: the file or a flag is wrong, and nothing was sent. Otherwise the front end is
/// unavailable or the file cannot be read to its end; what was sent until then is printed.
pub(crate) async fn replay(arguments: &Replay) -> anyhow::Result<Summary> {
    let (device, metric) = (&arguments.device, &arguments.metric);
    check_names(device, metric).map_err(|error| {
        let (device, metric) = (quote(device), quote(metric));
        UsageError(format!("--device {device} --metric {metric}: {error}"))
    })?;
    let front_end = FrontEnd::new(&arguments.url, &arguments.precision)?;
    let rows = Rows::open(arguments)?;
    eprintln!("{}: {}", rows.name(), rows.layout());
    let name = rows.name().to_owned();
    let progress = Progress::new(&name, rows.bytes());
    let mut summary = Summary::default();
    let sent = send(&front_end, arguments, rows, &mut summary, &progress).await;
    progress.finish();
    match &sent {
        Ok(()) if summary.rows() == 0 => {
            let sentence = format!("{name}: there is no row after the header");
            return Err(UsageError(sentence).into());
        }
        Ok(()) => summary.print(&name, arguments),
        Err(_) if summary.rows() > 0 => {
            summary.print(&format!("{name}, not sent to its end"), arguments);
        }
        Err(_) => {}
    }
    sent.map(|()| summary)
}

/// Sends the rows of a text as those of the file, which is not read, and prints nothing.
///
/// # Errors
/// As [`replay`].
pub(crate) async fn replay_text(text: &str, arguments: &Replay) -> anyhow::Result<Summary> {
    let front_end = FrontEnd::new(&arguments.url, &arguments.precision)?;
    let bytes = text.len() as u64;
    let rows = Rows::read(text.as_bytes(), bytes, arguments)?;
    let progress = Progress::new(rows.name(), bytes);
    let mut summary = Summary::default();
    let sent = send(&front_end, arguments, rows, &mut summary, &progress).await;
    progress.finish();
    sent.map(|()| summary)
}

/// Sends the rows in requests of `--batch` readings.
async fn send(
    front_end: &FrontEnd,
    arguments: &Replay,
    mut rows: Rows<impl BufRead>,
    summary: &mut Summary,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    let mut has_row = false;
    loop {
        let row = rows.next()?;
        let is_last = row.is_none();
        match row {
            Some(Ok(row)) => {
                has_row = true;
                batch.push(row);
            }
            Some(Err(invalid)) => {
                if !has_row && invalid.code == time::NO_ZONE {
                    // Most likely no row has a zone: refuse the file and not each of its rows.
                    let (name, line) = (rows.name(), invalid.line);
                    let sentence = format!("{name}, line {line}: {}", invalid.detail);
                    return Err(UsageError(sentence).into());
                }
                summary.reject(invalid.line, invalid.code, &invalid.detail);
            }
            None => {}
        }
        if batch.len() == arguments.batch || (is_last && !batch.is_empty()) {
            let body = body(&batch, &arguments.device, &arguments.metric);
            let notify = |problem: &str| progress.notify(problem);
            let response = front_end.post(body, notify).await?;
            summary.add(&response, &batch)?;
            batch.clear();
            progress.set(rows.position(), summary);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The JSON of a request.
fn body(rows: &[Row], device: &str, metric: &str) -> Bytes {
    let (device, metric) = (json!(device), json!(metric));
    let mut body = String::from("[");
    for row in rows {
        if body.len() > 1 {
            body.push(',');
        }
        let Row { time, value, .. } = row;
        body.push_str(&format!(
            r#"{{"device":{device},"metric":{metric},"value":{value},"measured_at":{time}}}"#
        ));
    }
    body.push(']');
    body.into()
}

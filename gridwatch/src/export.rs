//! `gridwatch export`: readings from a query API to a file that `gridwatch import` reads.
//!
//! In: devices and a range of time. Out: a line for each reading, on standard output or in a file,
//! which appears when it is complete. Readings are read in pages, each of which proves that it is
//! complete, so that memory does not depend on their number.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::UsageError;
use crate::config::{Export, ExportFormat};
use crate::query_client::{QueryApi, QueryError};

/// Readings of a page.
const PAGE: &str = "10000";

/// A line of a page.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Reading {
        device: String,
        metric: String,
        time: String,
        value: f64,
    },
    End {
        end: bool,
        rows: Option<u64>,
        next: Option<String>,
    },
}

/// A reading as the front end takes it.
#[derive(Serialize)]
struct Reading {
    device: String,
    metric: String,
    value: f64,
    measured_at: String,
}

/// Runs the command.
pub(crate) async fn run(arguments: Export) -> anyhow::Result<()> {
    let api = QueryApi::new("--url", &arguments.query.url)?;
    let rows = match &arguments.output {
        Some(path) => to_file(&api, &arguments, path).await?,
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            let written = pages(&api, &arguments, &mut out).await;
            match written.and_then(|rows| Ok((rows, out.flush()?).0)) {
                Ok(rows) => rows,
                // The program that reads the output has what it needs.
                Err(error) if crate::is_broken_pipe(&error) => return Ok(()),
                Err(error) => return Err(error.context("the output is not complete")),
            }
        }
    };
    eprintln!("{rows} readings exported");
    Ok(())
}

/// Writes a file beside its place and moves it there.
async fn to_file(api: &QueryApi, arguments: &Export, path: &Path) -> anyhow::Result<u64> {
    let name = path.display();
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")));
    let file = file.map_err(|error| UsageError(format!("--output {name}: {error}")))?;
    let mut out = BufWriter::new(file);
    let rows = pages(api, arguments, &mut out).await?;
    let file = out.into_inner().map_err(|error| error.into_error());
    let file = file.with_context(|| format!("cannot write {name}"))?;
    file.persist(path)
        .with_context(|| format!("cannot write {name}"))?;
    Ok(rows)
}

/// Writes all pages. Returns the number of readings.
async fn pages(api: &QueryApi, arguments: &Export, out: &mut dyn Write) -> anyhow::Result<u64> {
    if arguments.format == ExportFormat::Csv {
        out.write_all(b"device,metric,time,value\n")?;
    }
    let mut rows = 0;
    let mut next: Option<String> = None;
    loop {
        let mut parameters = vec![
            ("from", arguments.from.as_str()),
            ("to", arguments.to.as_str()),
            ("format", "ndjson"),
            ("limit", PAGE),
        ];
        parameters.extend(
            arguments
                .device
                .iter()
                .map(|device| ("device", device.as_str())),
        );
        parameters.extend(arguments.metric.as_deref().map(|metric| ("metric", metric)));
        let zone = arguments.time_zone.as_deref();
        parameters.extend(zone.map(|zone| ("time_zone", zone)));
        parameters.extend(next.as_deref().map(|next| ("next", next)));
        let response = api.get("/readings", &parameters).await;
        let response = response.map_err(QueryError::of_command)?;
        let (count, position) = page(&response.body, arguments.format, out)?;
        rows += count;
        match position {
            Some(position) => next = Some(position),
            None => return Ok(rows),
        }
    }
}

/// Writes a page. Returns the number of its readings, and where the next page starts.
fn page(
    body: &[u8],
    format: ExportFormat,
    out: &mut dyn Write,
) -> anyhow::Result<(u64, Option<String>)> {
    let mut count = 0;
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = serde_json::from_slice(line);
        match line.map_err(|_| anyhow::anyhow!("the response of the query API is not readable"))? {
            Line::Reading {
                device,
                metric,
                time,
                value,
            } => {
                count += 1;
                let reading = Reading {
                    device,
                    metric,
                    value,
                    measured_at: time,
                };
                write(out, format, &reading)?;
            }
            Line::End { end, rows, next } if end && rows == Some(count) => {
                return Ok((count, next));
            }
            Line::End { .. } => break,
        }
    }
    bail!("the response of the query API is not complete; export again")
}

fn write(out: &mut dyn Write, format: ExportFormat, reading: &Reading) -> anyhow::Result<()> {
    match format {
        ExportFormat::Ndjson => {
            let line = serde_json::to_string(reading)?;
            writeln!(out, "{line}")?;
        }
        ExportFormat::Csv => {
            let (device, metric) = (field(&reading.device), field(&reading.metric));
            let Reading {
                measured_at, value, ..
            } = reading;
            writeln!(out, "{device},{metric},{measured_at},{value}")?;
        }
    }
    Ok(())
}

/// A text as a field of CSV, in quotation marks if it needs them.
fn field(text: &str) -> String {
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(body: &str, format: ExportFormat) -> anyhow::Result<(String, Option<String>)> {
        let mut out = Vec::new();
        let (_, next) = page(body.as_bytes(), format, &mut out)?;
        Ok((String::from_utf8(out).unwrap(), next))
    }

    #[test]
    fn a_page_is_written_in_the_form_that_import_reads() {
        let body = concat!(
            r#"{"device":"a,\"b","metric":"p","time":"2026-01-01T00:00:00Z","value":1.5}"#,
            "\n",
            r#"{"end":true,"rows":1,"next":"1.2"}"#
        );
        let (ndjson, next) = exported(body, ExportFormat::Ndjson).unwrap();
        assert_eq!(next.as_deref(), Some("1.2"));
        let expected =
            r#"{"device":"a,\"b","metric":"p","value":1.5,"measured_at":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(ndjson, format!("{expected}\n"));
        let (csv, _) = exported(body, ExportFormat::Csv).unwrap();
        assert_eq!(csv, "\"a,\"\"b\",p,2026-01-01T00:00:00Z,1.5\n");
    }

    #[test]
    fn a_page_that_is_not_complete_is_an_error() {
        let reading = r#"{"device":"a","metric":"p","time":"2026-01-01T00:00:00Z","value":1.5}"#;
        for body in [
            reading.to_owned(),
            format!("{reading}\n{{\"end\":true,\"rows\":2,\"next\":null}}"),
            format!("{reading}\n{{\"end\":false,\"error\":\"x\"}}"),
            format!("{reading}\n{{\"dev"),
        ] {
            assert!(exported(&body, ExportFormat::Ndjson).is_err(), "{body}");
        }
    }
}

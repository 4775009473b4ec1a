//! `gridwatch export`: readings from a query API to a file that `gridwatch import` reads.
//!
//! In: devices and a range of time. Out: a line for each reading, on standard output or in a file,
//! which appears when it is complete. Readings are read in pages, each of which proves that it is
//! complete, so that memory does not depend on their number.

use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::UsageError;
use crate::config::{Export, ExportFormat};
use crate::output::{is_broken_pipe, note};
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
        Some(path) => {
            let interrupt = async {
                let _ = tokio::signal::ctrl_c().await;
            };
            to_file(&api, &arguments, path, interrupt).await?
        }
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            let written = pages(&api, &arguments, &mut out).await;
            match written.and_then(|rows| Ok((rows, out.flush()?).0)) {
                Ok(rows) => rows,
                // The program that reads the output has what it needs.
                Err(error) if is_broken_pipe(&error) => return Ok(()),
                Err(error) => return Err(error.context("the output is not complete")),
            }
        }
    };
    note(format_args!("{rows} readings exported"));
    Ok(())
}

/// Writes a file beside its place and moves it there. A failure and an interrupt leave no file.
async fn to_file(
    api: &QueryApi,
    arguments: &Export,
    path: &Path,
    interrupt: impl Future<Output = ()>,
) -> anyhow::Result<u64> {
    let name = path.display();
    let writing = async {
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        // The permissions of any new file, from which the operating system takes the umask.
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory.unwrap_or(Path::new(".")));
        let file = file.map_err(|error| UsageError(format!("--output {name}: {error}")))?;
        let mut out = BufWriter::new(file);
        let rows = pages(api, arguments, &mut out).await?;
        let file = out.into_inner().map_err(|error| error.into_error());
        let file = file.with_context(|| format!("cannot write {name}"))?;
        file.persist(path)
            .with_context(|| format!("cannot write {name}"))?;
        Ok(rows)
    };
    tokio::select! {
        // It is caught before there is a file.
        biased;
        () = interrupt => bail!("interrupted; {name} was not written"),
        written = writing => written,
    }
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
    use std::fs::{File, read_dir};

    use axum::Router;
    use axum::routing::get;
    use clap::Parser as _;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::{Command, Settings};
    use crate::query_client::tests::serve;

    fn arguments() -> Export {
        let flags = "export --device a --from 2026-01-01 --to 2026-01-02";
        let all = ["gridwatch"].into_iter().chain(flags.split(' '));
        match Settings::try_parse_from(all).unwrap().command {
            Command::Export(export) => export,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_has_the_permissions_of_any_new_file() {
        let body = r#"{"end":true,"rows":0,"next":null}"#;
        let api = serve(Router::new().route("/v1/readings", get(body))).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("readings.ndjson");
        let never = std::future::pending();
        to_file(&api, &arguments(), &path, never).await.unwrap();
        let other = File::create(directory.path().join("other")).unwrap();
        let mode = |file: File| file.metadata().unwrap().permissions().mode();
        assert_eq!(mode(File::open(path).unwrap()), mode(other));
    }

    #[tokio::test]
    async fn an_interrupt_leaves_no_file() {
        let requested = CancellationToken::new();
        let seen = requested.clone();
        let respond = move || async move {
            seen.cancel();
            std::future::pending::<&str>().await
        };
        let api = serve(Router::new().route("/v1/readings", get(respond))).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("readings.ndjson");
        let interrupt = async {
            requested.cancelled().await;
            assert_eq!(read_dir(directory.path()).unwrap().count(), 1);
        };
        let written = to_file(&api, &arguments(), &path, interrupt).await;
        let error = written.unwrap_err();
        assert!(error.to_string().starts_with("interrupted; "), "{error}");
        assert!(!error.is::<UsageError>());
        assert_eq!(read_dir(directory.path()).unwrap().count(), 0);
    }

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

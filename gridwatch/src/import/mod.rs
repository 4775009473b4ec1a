//! `gridwatch import`: sends the content of a file to a running front end and query API.
//!
//! In: a file with readings, factories or sprockets. Out: every reading was accepted, or was left
//! out and is counted with its reason. A row that is not a reading does not affect the others.
//! Requests that fail with 408, 500 or 503, or without a response, are retried for a while.
//! Importing a file again changes nothing, so that an import that was interrupted is repeated.

mod csv;
mod factories;
mod influx;
mod lines;
mod model;
mod ndjson;
mod record;
mod send;
mod source;
mod sprockets;
mod summary;
#[cfg(test)]
mod tests;
mod time;

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use self::lines::Lines;
use self::model::AllCounts;
use self::record::Record;
use self::send::FrontEnd;
use self::source::{Row, Source};
use self::summary::Summary;
use crate::UsageError;
use crate::config::{Import, ImportFormat, ImportKind};
use crate::model::list;
use crate::output::{self, ended, note};
use crate::progress::Progress;
use crate::query_client::QueryApi;

/// The whole file was processed, and something of it was left out: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{rejected} of {rows} rows were left out")]
pub(crate) struct LeftOut {
    rejected: u64,
    rows: u64,
}

/// How long an import may take to end after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The import was stopped by Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error(
    "interrupted; import the file again to continue: what is stored already is not stored twice"
)]
struct Interrupted;

/// An import that is running.
#[derive(Default)]
struct Attempt {
    summary: Summary,
    /// The documents of a file that describes the model.
    counts: AllCounts,
    /// None until the file and the flags are known to be right.
    record: Option<Record>,
    /// Cancelled by Ctrl-C.
    stop: CancellationToken,
}

impl Attempt {
    /// Remembers that the import has started.
    async fn begin(&mut self, arguments: &Import) {
        self.record = Some(Record::begin(arguments, &self.stop).await);
    }

    /// Whether the servers have stored something of the file, or had it already.
    fn has_stored(&self) -> bool {
        self.summary.accepted > 0 || !self.counts.is_empty()
    }

    /// Prints what became of the file. Of a file that was not processed to its end: if anything
    /// did.
    ///
    /// # Errors
    /// Stdout cannot be written.
    fn print(&self, arguments: &Import, is_complete: bool) -> std::io::Result<()> {
        if is_complete || self.summary.rows() > 0 || !self.counts.is_empty() {
            output::summary(self.text(arguments, is_complete))?;
        }
        Ok(())
    }

    fn text(&self, arguments: &Import, is_complete: bool) -> String {
        let name = arguments.file().display();
        let end = if is_complete {
            ""
        } else {
            ", not sent to its end"
        };
        let mut text = match arguments.kind {
            // Types have no readings.
            ImportKind::Sprockets => format!("{name}{end}:"),
            _ => format!("{name}{end}: {}", self.summary.text(arguments)),
        };
        for line in self.counts.lines(arguments.kind) {
            text.push_str(&format!("\n{line}"));
        }
        text
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Import) -> anyhow::Result<()> {
    if arguments.list {
        let api = QueryApi::new("--query-url", arguments.query_url())?;
        let filters = Vec::new();
        let listing = list::<crate::model::Import>(&api, "/imports", &filters, arguments.json);
        return ended(listing.await);
    }
    check_flags(&arguments)?;
    let mut attempt = Attempt::default();
    let stop = attempt.stop.clone();
    let interrupting = tokio::spawn(interrupt(stop.clone()));
    let outcome = tokio::select! {
        outcome = import(&arguments, &mut attempt) => outcome,
        () = stop.cancelled() => Err(Interrupted.into()),
    };
    // First, because after Ctrl-C the process may end before the record is written.
    let printed = attempt.print(&arguments, outcome.is_ok());
    let has_stored = attempt.has_stored();
    let Attempt {
        summary, record, ..
    } = attempt;
    if let Some(record) = record {
        record.end(&summary, outcome.is_ok()).await;
    }
    interrupting.abort();
    match outcome {
        // The exit code of a wrong flag or file says that nothing was sent.
        Err(error) if has_stored && error.is::<UsageError>() => anyhow::bail!("{error:#}"),
        other => other?,
    }
    printed?;
    if summary.rejected > 0 {
        let (rejected, rows) = (summary.rejected, summary.rows());
        return Err(LeftOut { rejected, rows }.into());
    }
    Ok(())
}

/// Waits for Ctrl-C, and then ends the process if the import does not end: a pipe may have no more
/// lines for a long time. A second Ctrl-C ends it at once.
async fn interrupt(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stop.cancel();
    let _ = tokio::time::timeout(STOP_LIMIT, tokio::signal::ctrl_c()).await;
    note(format_args!("gridwatch: {Interrupted}"));
    std::process::exit(1);
}

async fn import(arguments: &Import, attempt: &mut Attempt) -> anyhow::Result<()> {
    match arguments.kind {
        ImportKind::Readings => import_readings(arguments, attempt).await,
        ImportKind::Factories => factories::import(arguments, attempt).await,
        ImportKind::Sprockets => sprockets::import(arguments, attempt).await,
    }
}

/// Refuses flags of readings for a file with something else.
fn check_flags(arguments: &Import) -> Result<(), UsageError> {
    let has_names = arguments.device.is_some() || arguments.metric.is_some();
    if arguments.kind != ImportKind::Readings && (has_names || arguments.format.is_some()) {
        return Err(UsageError(
            "--device, --metric and --format are for readings; leave them out with --kind \
             factories and --kind sprockets"
                .into(),
        ));
    }
    Ok(())
}

/// The unit of times that are numbers.
fn precision(arguments: &Import) -> &str {
    let default = match (arguments.kind, source::format(arguments)) {
        (ImportKind::Readings, ImportFormat::Influx) => "ns",
        _ => "s",
    };
    arguments.precision.as_deref().unwrap_or(default)
}

/// Sends readings and prints what became of them. The import is not remembered.
///
/// # Errors
/// [`UsageError`]: the file or a flag is wrong, and nothing was sent. Otherwise the front end is
/// unavailable or the file cannot be read to its end; what was sent until then is printed.
pub(crate) async fn readings(arguments: &Import) -> anyhow::Result<Summary> {
    let mut attempt = Attempt::default();
    let source = source::open(arguments)?;
    let sent = send_file(arguments, source, &mut attempt).await;
    attempt.print(arguments, sent.is_ok())?;
    sent.map(|()| attempt.summary)
}

async fn import_readings(arguments: &Import, attempt: &mut Attempt) -> anyhow::Result<()> {
    FrontEnd::new(&arguments.url, precision(arguments))?;
    let source = source::open(arguments)?;
    attempt.begin(arguments).await;
    send_file(arguments, source, attempt).await
}

async fn send_file(
    arguments: &Import,
    mut source: Box<dyn Source>,
    attempt: &mut Attempt,
) -> anyhow::Result<()> {
    let front_end = FrontEnd::new(&arguments.url, precision(arguments))?;
    let name = arguments.file().display().to_string();
    note(format_args!("{name}: {}", source.layout()));
    let progress = Progress::new(&name, source.progress().0);
    let summary = &mut attempt.summary;
    let sent = send(&front_end, arguments, source.as_mut(), summary, &progress).await;
    progress.finish();
    if sent.is_ok() && summary.rows() == 0 {
        let sentence = format!("{name}: there is no reading in the file");
        return Err(UsageError(sentence).into());
    }
    sent
}

/// Sends the rows of a CSV text as those of the file, which is not read, and prints nothing.
///
/// # Errors
/// As [`readings`].
pub(crate) async fn text(text: &'static str, arguments: &Import) -> anyhow::Result<Summary> {
    let front_end = FrontEnd::new(&arguments.url, precision(arguments))?;
    let name = arguments.file().display().to_string();
    let mut rows = csv::Rows::read(Lines::of_text(name.clone(), text), arguments)?;
    let progress = Progress::new(&name, rows.progress().0);
    let mut summary = Summary::default();
    let sent = send(&front_end, arguments, &mut rows, &mut summary, &progress).await;
    progress.finish();
    sent.map(|()| summary)
}

/// Sends the rows in requests of `--batch` readings.
async fn send(
    front_end: &FrontEnd,
    arguments: &Import,
    source: &mut dyn Source,
    summary: &mut Summary,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    let mut has_row = false;
    loop {
        let row = source.next()?;
        let is_last = row.is_none();
        match row {
            Some(Ok(row)) => {
                has_row = true;
                batch.push(row);
            }
            Some(Err(invalid)) => {
                if !has_row && invalid.code == time::NO_ZONE {
                    // Most likely no row has a zone: refuse the file and not each of its rows.
                    let (name, place) = (arguments.file().display(), invalid.place);
                    let sentence = format!("{name}, {place}: {}", invalid.detail);
                    return Err(UsageError(sentence).into());
                }
                summary.reject(Some(invalid.place), invalid.code, &invalid.detail);
            }
            None => {}
        }
        if batch.len() == arguments.batch || (is_last && !batch.is_empty()) {
            let notify = |problem: &str| progress.notify(problem);
            let response = front_end.post(body(&batch), notify).await?;
            summary.add(&response, &batch)?;
            batch.clear();
            let Summary {
                accepted, rejected, ..
            } = summary;
            let done = format!("{accepted} accepted, {rejected} rejected");
            progress.set(source.progress().1, &done);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The JSON of a request.
fn body(rows: &[Row]) -> Bytes {
    let rows: Vec<&str> = rows.iter().map(|row| row.json.as_str()).collect();
    format!("[{}]", rows.join(",")).into()
}

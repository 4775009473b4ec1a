//! What the formats have in common: rows out of a file.
//!
//! In: a file and the flags. Out: the JSON of each reading, as the front end takes it, or why a
//! row is not a reading, with its place.

use std::fmt;

use schema::reading::check_names;
use serde_json::{Number, json};
use service::quote::quote;

use super::{csv, influx, ndjson};
use crate::UsageError;
use crate::config::{Import, ImportFormat};

/// The code of a row without a finite number.
pub(super) const BAD_VALUE: &str = "value_not_finite";
/// The code of a row that does not name its device or its metric.
pub(super) const NO_NAME: &str = "no_name";

/// Where a reading is in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A line, from 1.
    Line(u64),
    /// An entry of the arrays of a factory, both from 1.
    Entry(usize, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Entry(factory, entry) => write!(f, "factory {factory}, entry {entry}"),
        }
    }
}

/// A reading of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it is.
    pub place: Place,
    /// Its JSON.
    pub json: String,
    /// Whether its time is a number, whose unit is `--precision`.
    pub has_numeric_time: bool,
}

/// A row that is not a reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidRow {
    /// Where it is.
    pub place: Place,
    /// The code under which it is counted.
    pub code: &'static str,
    /// What is wrong, in terms of the file.
    pub detail: String,
}

/// A code and what is wrong.
pub(super) type Fault = (&'static str, String);

/// The JSON of a reading, from the JSON of its value and its time.
pub(super) fn reading(device: &str, metric: &str, value: &str, time: &str) -> String {
    let (device, metric) = (json!(device), json!(metric));
    format!(r#"{{"device":{device},"metric":{metric},"value":{value},"measured_at":{time}}}"#)
}

/// The JSON of a finite number.
///
/// # Errors
/// What is wrong.
pub(super) fn read_value(text: &str) -> Result<String, String> {
    if serde_json::from_str::<Number>(text).is_ok() {
        return Ok(text.to_owned());
    }
    // Forms that JSON does not have: .5, 5., +5.
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(json!(number).to_string()),
        _ if text.is_empty() => Err("the value is empty".into()),
        _ => Err(format!("{} is not a finite number", quote(text))),
    }
}

/// A file with readings.
pub(super) trait Source {
    /// Length of the file, and number of bytes that are read.
    fn progress(&self) -> (u64, u64);
    /// How the file is read.
    fn layout(&self) -> String;
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    fn next(&mut self) -> anyhow::Result<Option<Result<Row, InvalidRow>>>;
}

/// The format of a file: `--format`, or that of its extension.
pub(super) fn format(arguments: &Import) -> ImportFormat {
    let extension = arguments.file().extension().unwrap_or_default();
    let extension = extension.to_string_lossy().to_ascii_lowercase();
    arguments.format.unwrap_or(match extension.as_str() {
        "ndjson" | "jsonl" => ImportFormat::Ndjson,
        "lp" | "influx" => ImportFormat::Influx,
        _ => ImportFormat::Csv,
    })
}

/// Opens the file.
///
/// # Errors
/// The file cannot be read, or the flags do not suit it.
pub(super) fn open(arguments: &Import) -> Result<Box<dyn Source>, UsageError> {
    let given = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
    let (device, metric) = (given(&arguments.device), given(&arguments.metric));
    check_names(&device, &metric).map_err(|error| {
        let (device, metric) = (quote(&device), quote(&metric));
        UsageError(format!("--device {device} --metric {metric}: {error}"))
    })?;
    let format = format(arguments);
    for (flag, is_given, own) in [
        (
            "--time-column",
            arguments.time_column.is_some(),
            ImportFormat::Csv,
        ),
        (
            "--value-column",
            arguments.value_column.is_some(),
            ImportFormat::Csv,
        ),
        (
            "--device-tag",
            arguments.device_tag.is_some(),
            ImportFormat::Influx,
        ),
    ] {
        if is_given && format != own {
            let sentence = format!("{flag} does not apply to a file of this format; see --format");
            return Err(UsageError(sentence));
        }
    }
    Ok(match format {
        ImportFormat::Csv => Box::new(csv::Rows::open(arguments)?),
        ImportFormat::Ndjson => Box::new(ndjson::Rows::open(arguments)?),
        ImportFormat::Influx => Box::new(influx::Rows::open(arguments)?),
    })
}

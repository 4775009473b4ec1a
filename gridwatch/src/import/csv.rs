//! The rows of a CSV file.
//!
//! In: a file with comma-separated fields, one row per line, with or without a header. Out: the
//! time and the value of each row as JSON, or why the row is not a reading, with its line. Lines
//! are split before quotation marks are read, so that one that is not closed costs only its line.

use jiff::tz::TimeZone;
use loadtest::plural::plural;
use service::quote::quote;

use super::lines::Lines;
use super::source::{BAD_VALUE, Fault, InvalidRow, NO_NAME, Row, Source, read_value, reading};
use super::time;
use crate::UsageError;
use crate::config::Import;

/// The code of a line that cannot be split into the fields of a row.
const BAD_ROW: &str = "bad_row";

/// A column that is read.
#[derive(Debug)]
struct Column {
    index: usize,
    /// How messages call it.
    label: String,
}

/// Who measured the readings.
#[derive(Debug)]
enum Names {
    /// The flags name the device or the metric.
    Given(String),
    /// A column does.
    Column(Column),
}

/// The file, and how it is read.
pub(super) struct Rows {
    lines: Lines,
    device: Names,
    metric: Names,
    time: Column,
    value: Column,
    /// Number of fields of each row.
    fields: usize,
    has_header: bool,
    /// The first row of a file without a header.
    first: Option<Vec<String>>,
    zone: Option<TimeZone>,
}

impl Rows {
    /// Opens the file and finds the columns.
    ///
    /// # Errors
    /// The file cannot be read, or does not have the columns.
    pub(super) fn open(arguments: &Import) -> Result<Self, UsageError> {
        Self::read(Lines::open(arguments.file())?, arguments)
    }

    /// Finds the columns in the first line.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn read(mut lines: Lines, arguments: &Import) -> Result<Self, UsageError> {
        let name = lines.name().to_owned();
        let wrong = |reason: String| UsageError(format!("{name}: {reason}"));
        let first = lines
            .next()
            .map_err(|error| UsageError(format!("{error:#}")))?;
        let first = first.map(|line| line.and_then(split));
        let line = lines.line();
        let first = match first {
            None => return Err(wrong("is empty".into())),
            Some(first) => first.map_err(|reason| wrong(format!("line {line}: {reason}")))?,
        };
        if first.len() < 2 {
            return Err(wrong(format!(
                "expected at least two columns with a comma in between, the time and the value; \
                 line {line} is {}",
                quote(&first.join(","))
            )));
        }
        let (time_column, value_column) = (&arguments.time_column, &arguments.value_column);
        let names_device = arguments.device.is_none() || arguments.metric.is_none();
        let is_row = time_column.is_none()
            && value_column.is_none()
            && !names_device
            && time::is_time(&first[0]);
        let find = |name: &str| first.iter().position(|header| header == name);
        let column = |asked: &Option<String>, usual: &str, default: usize| match asked {
            Some(name) => find(name).ok_or_else(|| {
                let headers: Vec<String> = first.iter().map(|name| quote(name)).collect();
                wrong(format!(
                    "no column {} in line {line}; there are {}",
                    quote(name),
                    headers.join(", ")
                ))
            }),
            // The columns of an export have these names.
            None if names_device => Ok(find(usual).unwrap_or(default)),
            None => Ok(default),
        };
        let (time, value) = (
            column(time_column, "time", 0)?,
            column(value_column, "value", 1)?,
        );
        let label = |index: usize| match is_row {
            true => format!("column {}", index + 1),
            false => format!("column {}", quote(&first[index])),
        };
        if time == value {
            let label = label(time);
            return Err(wrong(format!(
                "{label} is both the time and the value; give --time-column and --value-column"
            )));
        }
        let labelled = |index: usize| Column {
            index,
            label: label(index),
        };
        let names = |given: &Option<String>, what: &str| match (given, find(what)) {
            (Some(name), _) => Ok(Names::Given(name.clone())),
            (None, Some(index)) => Ok(Names::Column(labelled(index))),
            (None, None) => Err(wrong(format!(
                "no column '{what}' in line {line} names the {what} of the readings; give --{what}"
            ))),
        };
        Ok(Self {
            device: names(&arguments.device, "device")?,
            metric: names(&arguments.metric, "metric")?,
            time: labelled(time),
            value: labelled(value),
            fields: first.len(),
            has_header: !is_row,
            first: is_row.then_some(first),
            zone: arguments.time_zone.clone(),
            lines,
        })
    }

    fn row(&self, fields: &[String]) -> Result<Row, Fault> {
        if fields.len() != self.fields {
            let (count, expected) = (fields.len(), self.fields);
            let first = if self.has_header {
                "the header"
            } else {
                "the first row"
            };
            let fields = plural(count as u64, "field");
            let reason = format!("{fields}, but {first} has {expected}");
            return Err((BAD_ROW, reason));
        }
        let in_column = |column: &Column, reason| format!("{}: {reason}", column.label);
        let name = |names: &Names| match names {
            Names::Given(name) => Ok(name.clone()),
            Names::Column(column) => match fields[column.index].as_str() {
                "" => Err((NO_NAME, in_column(column, "the name is empty".into()))),
                name => Ok(name.to_owned()),
            },
        };
        let (device, metric) = (name(&self.device)?, name(&self.metric)?);
        let time = time::read(&fields[self.time.index], self.zone.as_ref())
            .map_err(|(code, reason)| (code, in_column(&self.time, reason)))?;
        let value = read_value(&fields[self.value.index])
            .map_err(|reason| (BAD_VALUE, in_column(&self.value, reason)))?;
        Ok(Row {
            place: self.lines.place(),
            json: reading(&device, &metric, &value, &time),
            has_numeric_time: !time.starts_with('"'),
        })
    }
}

impl Source for Rows {
    fn progress(&self) -> (u64, u64) {
        self.lines.progress()
    }

    fn layout(&self) -> String {
        let header = match self.has_header {
            true => "the first line is the header",
            false => "there is no header, because the first line begins with a time",
        };
        let (time, value) = (&self.time.label, &self.value.label);
        let mut layout = format!("{header}; the time is {time}, the value is {value}");
        for (what, names) in [("device", &self.device), ("metric", &self.metric)] {
            if let Names::Column(column) = names {
                layout.push_str(&format!(", the {what} is {}", column.label));
            }
        }
        layout
    }

    fn next(&mut self) -> anyhow::Result<Option<Result<Row, InvalidRow>>> {
        let fields = match self.first.take() {
            Some(first) => Ok(first),
            None => match self.lines.next()? {
                Some(line) => line.and_then(split),
                None => return Ok(None),
            },
        };
        let row = match fields {
            Ok(fields) => self.row(&fields),
            Err(reason) => Err((BAD_ROW, reason)),
        };
        let place = self.lines.place();
        Ok(Some(row.map_err(|(code, detail)| InvalidRow {
            place,
            code,
            detail,
        })))
    }
}

/// The fields of a line, without the spaces around them.
fn split(line: &str) -> Result<Vec<String>, String> {
    if !line.contains('"') {
        return Ok(line.split(',').map(|field| field.trim().into()).collect());
    }
    // A quotation mark in a quoted field is doubled.
    if !line.matches('"').count().is_multiple_of(2) {
        return Err("a quotation mark (\") is not closed in its line".into());
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    reader
        .read_record(&mut record)
        .map_err(|_| "the line cannot be split into fields".to_owned())?;
    Ok(record.iter().map(str::to_owned).collect())
}

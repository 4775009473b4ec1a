//! The rows of a CSV file.
//!
//! In: a file with comma-separated fields, one row per line, with or without a header. Out: the
//! time and the value of each row as JSON, or why the row is not a reading, with its line. Lines
//! are split before quotation marks are read, so that one that is not closed costs only its line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};

use anyhow::Context as _;
use loadtest::plural::plural;
use serde_json::{Number, json};
use service::quote::quote;

use super::time;
use crate::UsageError;
use crate::config::Replay;

/// Upper bound on the bytes of a line, with its end.
const MAX_LINE: u64 = 1 << 20;
/// The code of a line that cannot be split into the fields of a row.
const BAD_ROW: &str = "bad_row";
/// The code of a row without a finite number.
const BAD_VALUE: &str = "value_not_finite";

/// A row of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its line, from 1.
    pub line: u64,
    /// The JSON of `measured_at`.
    pub time: String,
    /// The JSON of `value`.
    pub value: String,
}

/// A row that is not a reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidRow {
    /// Its line, from 1.
    pub line: u64,
    /// The code under which it is counted.
    pub code: &'static str,
    /// What is wrong, in terms of the file.
    pub detail: String,
}

/// A column that is read.
#[derive(Debug)]
struct Column {
    index: usize,
    /// How messages call it.
    label: String,
}

/// The file, and the line that is read next.
pub(super) struct Rows<R> {
    name: String,
    reader: R,
    bytes: u64,
    position: u64,
    line: u64,
    buffer: Vec<u8>,
    time: Column,
    value: Column,
    /// Number of fields of each row.
    fields: usize,
    has_header: bool,
    /// The first row of a file without a header.
    first: Option<Vec<String>>,
    utc: bool,
}

impl Rows<BufReader<File>> {
    /// Opens the file and finds the columns.
    ///
    /// # Errors
    /// The file cannot be read, or does not have the columns.
    pub(super) fn open(arguments: &Replay) -> Result<Self, UsageError> {
        let opened = File::open(&arguments.file)
            .and_then(|file| Ok((file.metadata()?.len(), BufReader::new(file))));
        let (bytes, reader) = opened.map_err(|error| {
            let name = arguments.file.display();
            UsageError(format!("{name}: cannot be read: {error}"))
        })?;
        Self::read(reader, bytes, arguments)
    }
}

impl<R: BufRead> Rows<R> {
    /// Finds the columns in the first line of a file with so many bytes.
    ///
    /// # Errors
    /// The file cannot be read, or does not have the columns.
    pub(super) fn read(reader: R, bytes: u64, arguments: &Replay) -> Result<Self, UsageError> {
        let name = arguments.file.display().to_string();
        let wrong = |reason: String| UsageError(format!("{name}: {reason}"));
        let unreadable = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
        let unknown = || Column {
            index: 0,
            label: String::new(),
        };
        let mut rows = Self {
            name: name.clone(),
            reader,
            bytes,
            position: 0,
            line: 0,
            buffer: Vec::new(),
            time: unknown(),
            value: unknown(),
            fields: 0,
            has_header: false,
            first: None,
            utc: arguments.utc,
        };
        let first = match rows.read_line().map_err(unreadable)? {
            None => return Err(wrong("is empty".into())),
            Some(first) => {
                first.map_err(|reason| wrong(format!("line {}: {reason}", rows.line)))?
            }
        };
        if first.len() < 2 {
            return Err(wrong(format!(
                "expected at least two columns with a comma in between, the time and the value; \
                 line {} is {}",
                rows.line,
                quote(&first.join(","))
            )));
        }
        let asked = [&arguments.time_column, &arguments.value_column];
        let is_row = asked == [&None, &None] && time::is_time(&first[0]);
        let column = |asked: &Option<String>, default: usize| match asked {
            Some(name) => {
                let index = first.iter().position(|header| header == name);
                index.ok_or_else(|| {
                    let headers: Vec<String> = first.iter().map(|name| quote(name)).collect();
                    wrong(format!(
                        "no column {} in line {}; there are {}",
                        quote(name),
                        rows.line,
                        headers.join(", ")
                    ))
                })
            }
            None => Ok(default),
        };
        let (time, value) = (column(asked[0], 0)?, column(asked[1], 1)?);
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
        [rows.time, rows.value] = [time, value].map(|index| Column {
            index,
            label: label(index),
        });
        rows.fields = first.len();
        rows.has_header = !is_row;
        rows.first = is_row.then_some(first);
        Ok(rows)
    }

    /// The path of the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of bytes that are read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What the first line was taken for, and which columns are read.
    pub(super) fn layout(&self) -> String {
        let header = match self.has_header {
            true => "the first line is the header",
            false => "there is no header, because the first line begins with a time",
        };
        let (time, value) = (&self.time.label, &self.value.label);
        format!("{header}; the time is {time}, the value is {value}")
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Result<Row, InvalidRow>>> {
        let fields = match self.first.take() {
            Some(first) => Ok(first),
            None => match self.read_line() {
                Ok(Some(fields)) => fields,
                Ok(None) => return Ok(None),
                Err(error) => {
                    let line = self.line + 1;
                    return Err(error)
                        .with_context(|| format!("{}, line {line}: cannot be read", self.name));
                }
            },
        };
        let row = match fields {
            Ok(fields) => self.row(&fields),
            Err(reason) => Err((BAD_ROW, reason)),
        };
        let line = self.line;
        let invalid = |(code, detail)| InvalidRow { line, code, detail };
        Ok(Some(row.map_err(invalid)))
    }

    fn row(&self, fields: &[String]) -> Result<Row, (&'static str, String)> {
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
        let time = time::read(&fields[self.time.index], self.utc)
            .map_err(|(code, reason)| (code, in_column(&self.time, reason)))?;
        let value = read_value(&fields[self.value.index])
            .map_err(|reason| (BAD_VALUE, in_column(&self.value, reason)))?;
        Ok(Row {
            line: self.line,
            time,
            value,
        })
    }

    /// The fields of the next line that is not blank, or why it has none; `None` at the end.
    fn read_line(&mut self) -> std::io::Result<Option<Result<Vec<String>, String>>> {
        loop {
            self.buffer.clear();
            let mut bounded = self.reader.by_ref().take(MAX_LINE);
            let length = bounded.read_until(b'\n', &mut self.buffer)?;
            if length == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.position += length as u64;
            if length as u64 == MAX_LINE && !self.buffer.ends_with(b"\n") {
                let skipped = self.reader.skip_until(b'\n')?;
                self.position += skipped as u64;
                if skipped > 0 {
                    return Ok(Some(Err("the line is longer than 1 MiB".into())));
                }
            }
            let mut bytes = self.buffer.as_slice();
            if self.line == 1 {
                // The byte order mark, which spreadsheets write.
                bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
            }
            let text = match std::str::from_utf8(bytes) {
                Ok(text) => text.trim(),
                Err(_) => return Ok(Some(Err("the line is not UTF-8 text".into()))),
            };
            if !text.is_empty() {
                return Ok(Some(split(text)));
            }
        }
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

/// The JSON of a finite number.
fn read_value(text: &str) -> Result<String, String> {
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

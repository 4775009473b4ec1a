//! The rows of a CSV file.
//!
//! In: a header with the names of fields, and a line for each row. Out: the same values as in
//! JSON. Lines are bounded before they are parsed.

use serde_json::Value;
use service::FieldError;

use super::{Format, MAX_ROW_BYTES, Rows, devices, too_long};
use crate::resources::definition::Definition;
use crate::resources::fields::{self, Field, Rule, error};

/// Reads the rows of a CSV file.
pub(super) fn read(bytes: &[u8], rows: &mut Rows) {
    if let Err(error) = check_lines(bytes) {
        rows.errors.push(error);
        return;
    }
    let mut reader = ::csv::ReaderBuilder::new()
        .trim(::csv::Trim::All)
        .from_reader(bytes);
    let header: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(str::to_owned).collect(),
        Err(cause) => {
            rows.errors.push(csv_error(&cause));
            return;
        }
    };
    let Definition {
        fields, computed, ..
    } = rows.definition;
    for (index, name) in header.iter().enumerate() {
        if header[..index].contains(name) {
            let line = Some(1);
            let reason = "this column is listed twice";
            let error = error(fields::pointer(name), reason);
            rows.errors.push(FieldError { line, ..error });
        }
        let is_field = fields.iter().any(|field| field.name == name);
        if !is_field && !rows.more_fields.contains(&name.as_str()) {
            let unknown = fields::unknown_field(fields, computed, name);
            let line = Some(1);
            rows.errors.push(FieldError { line, ..unknown });
        }
    }
    if !rows.errors.is_empty() {
        return;
    }
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, ::csv::Position::line);
                let line = usize::try_from(line).unwrap_or(usize::MAX);
                let cells = header
                    .iter()
                    .zip(&record)
                    .filter(|(_, cell)| !cell.is_empty());
                let row = cells.map(|(name, text)| (name.clone(), cell(fields, name, text)));
                rows.push(Format::Csv, line, Ok(Value::Object(row.collect())));
            }
            Err(cause) => rows.errors.push(csv_error(&cause)),
        }
        if rows.is_full() {
            break;
        }
    }
}

/// Upper bound on the columns of a CSV file; there are fewer fields.
const MAX_COLUMNS: usize = 64;

/// Refuses a line that is too long, or has too many columns, before it is parsed: each column needs
/// memory of its own. Quotes mean what they mean to the parser: only one at the start of a cell
/// opens it.
fn check_lines(bytes: &[u8]) -> Result<(), FieldError> {
    enum Cell {
        Start,
        Plain,
        Quoted,
        /// Behind a quote in a quoted cell, which ends it, or is the first of two.
        Quote,
    }
    let (mut cell, mut line, mut first) = (Cell::Start, 1, 1);
    let (mut length, mut columns) = (0, 1);
    for byte in bytes {
        line += usize::from(*byte == b'\n');
        length += 1;
        cell = match (cell, byte) {
            (Cell::Start | Cell::Quote, b'"') | (Cell::Quoted, 0..b'"' | b'#'..) => Cell::Quoted,
            (Cell::Quoted, b'"') => Cell::Quote,
            (_, b',') => {
                columns += 1;
                Cell::Start
            }
            (_, b'\n' | b'\r') => {
                (length, columns, first) = (0, 1, line);
                Cell::Start
            }
            _ => Cell::Plain,
        };
        let reason = if columns > MAX_COLUMNS {
            format!("the line has more than {MAX_COLUMNS} columns")
        } else if length > MAX_ROW_BYTES {
            too_long()
        } else {
            continue;
        };
        let line = Some(first);
        return Err(FieldError {
            line,
            ..error("", reason)
        });
    }
    Ok(())
}

fn csv_error(cause: &::csv::Error) -> FieldError {
    let line = cause.position().map(::csv::Position::line);
    let line = line.and_then(|line| usize::try_from(line).ok());
    let reason = match cause.kind() {
        ::csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("the line has {len} fields, and the header has {expected_len}"),
        ::csv::ErrorKind::Utf8 { .. } => "the line is not valid UTF-8".into(),
        _ => "the line is not valid CSV".into(),
    };
    FieldError {
        line,
        ..error("", reason)
    }
}

/// A cell of a CSV file. One that cannot be parsed stays text, which the field then refuses.
fn cell(fields: &[Field], name: &str, text: &str) -> Value {
    if name == devices::SERIES_FIELD {
        return devices::series_cell(text);
    }
    let field = fields.iter().find(|field| field.name == name);
    let text_value = || Value::String(text.to_owned());
    match field.map(|field| field.rule) {
        Some(Rule::Boolean | Rule::Number(..) | Rule::Positive(_) | Rule::Object) => {
            serde_json::from_str(text).unwrap_or_else(|_| text_value())
        }
        _ => text_value(),
    }
}

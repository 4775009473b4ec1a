//! The forms of a response: rows in, text out.
//!
//! A form is one file and its line in [`Format::parse`] and [`Format::accepted`]. Every form
//! proves that a response is complete: JSON ends with `next`, NDJSON with a line `"end": true`,
//! Arrow with its end marker; every form has the trailer `gridwatch-rows`, and `gridwatch-next` if
//! there is another page.

mod arrow;
mod csv;
mod json;
mod ndjson;

use axum::http::{HeaderMap, header};
use schema::reading::Micros;
use service::ApiError;
use store::reads::points::Point;

use crate::aggregate::{Aggregate, Bucket};
use crate::time;

/// A row of a response.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    /// A stored value.
    Point(Point),
    /// A bucket, with the aggregates that were asked for.
    Bucket(&'a Bucket, &'a [Aggregate], Option<Beside>),
}

/// In a comparison of two periods: the start of the bucket of the current period that a bucket
/// belongs to, if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Beside(pub Option<Micros>);

/// The columns of a response.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// Those of buckets; for points there are none.
    pub aggregates: Option<&'a [Aggregate]>,
    /// Whether buckets are sums of devices.
    pub combined: bool,
    /// Whether two periods are compared.
    pub compared: bool,
}

impl Columns<'_> {
    /// The name of what a series belongs to.
    pub(crate) fn owner(self) -> &'static str {
        if self.combined { "component" } else { "device" }
    }
}

/// The name of a series.
#[derive(Clone, Copy)]
pub(crate) struct Label<'a> {
    /// `device` or `component`.
    pub owner: &'static str,
    /// Which one.
    pub name: &'a str,
    /// Its metric.
    pub metric: &'a str,
    /// The unit of the values, if it is known.
    pub unit: Option<&'a str>,
    /// In a comparison: `current` or `previous`.
    pub period: Option<&'static str>,
}

/// Writes a response, series by series.
pub(crate) trait Writer: Send {
    /// The beginning of the response.
    fn start(&mut self, out: &mut Vec<u8>, columns: Columns<'_>);
    /// The rows that follow are of this series.
    fn series(&mut self, out: &mut Vec<u8>, label: Label<'_>);
    /// A row.
    fn row(&mut self, out: &mut Vec<u8>, row: Row<'_>);
    /// The end of a complete response. `next` is where the next page starts, if there is one.
    fn end(&mut self, out: &mut Vec<u8>, rows: u64, next: Option<&str>);
    /// The end of a response that cannot be completed, as far as the form has a place for it.
    fn error(&mut self, out: &mut Vec<u8>, sentence: &str);
}

/// The form of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

impl Format {
    const ALL: [Self; 4] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow];

    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
        }
    }

    /// The media type of the response.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Parses the parameter `format`.
    ///
    /// # Errors
    /// A sentence with the value and what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| {
            format!("format: '{text}' is not a format: use json, ndjson, csv or arrow")
        })
    }

    /// The first format of `Accept` that exists; JSON if there is no such header.
    ///
    /// # Errors
    /// None of them exists.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(accept) = headers.get(header::ACCEPT) else {
            return Ok(Self::Json);
        };
        let accept = accept.to_str().unwrap_or_default();
        let media_types = accept
            .split(',')
            .map(|entry| entry.split(';').next().unwrap_or_default().trim());
        let found = media_types
            .into_iter()
            .find_map(|media_type| match media_type {
                "*/*" | "application/*" | "application/json" => Some(Self::Json),
                "application/x-ndjson" | "application/ndjson" => Some(Self::Ndjson),
                "text/csv" | "text/*" => Some(Self::Csv),
                "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
                _ => None,
            });
        found.ok_or_else(|| {
            ApiError::NotAcceptable(format!(
                "'{accept}' is not available: accept application/json, application/x-ndjson, \
                 text/csv or application/vnd.apache.arrow.stream, or use the parameter format"
            ))
        })
    }

    /// A writer of this form.
    pub(crate) fn writer(self) -> Box<dyn Writer> {
        match self {
            Self::Json => Box::<json::JsonWriter>::default(),
            Self::Ndjson => Box::<ndjson::NdjsonWriter>::default(),
            Self::Csv => Box::<csv::CsvWriter>::default(),
            Self::Arrow => Box::<arrow::ArrowWriter>::default(),
        }
    }
}

/// The aggregates that have a column of their own: the count has one in any case.
fn without_count(aggregates: &[Aggregate]) -> impl Iterator<Item = Aggregate> {
    aggregates
        .iter()
        .copied()
        .filter(|aggregate| *aggregate != Aggregate::Count)
}

/// Writes a value as JSON. Serializing text and numbers into memory cannot fail.
fn json_value(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    let _ = serde_json::to_writer(out, value);
}

/// Writes an instant as a JSON string.
fn json_time(out: &mut Vec<u8>, instant: Micros) {
    use std::io::Write as _;
    let _ = write!(out, "\"{}\"", time::format(instant));
}

/// Writes the members of a row as those of a JSON object, without braces.
fn json_members(out: &mut Vec<u8>, row: Row<'_>) {
    match row {
        Row::Point(point) => {
            out.extend_from_slice(b"\"time\":");
            json_time(out, point.time);
            out.extend_from_slice(b",\"value\":");
            json_value(out, &point.value);
        }
        Row::Bucket(bucket, aggregates, beside) => {
            out.extend_from_slice(b"\"start\":");
            json_time(out, bucket.range.from);
            out.extend_from_slice(b",\"end\":");
            json_time(out, bucket.range.to);
            if let Some(Beside(beside)) = beside {
                out.extend_from_slice(b",\"beside\":");
                match beside {
                    Some(start) => json_time(out, start),
                    None => out.extend_from_slice(b"null"),
                }
            }
            out.extend_from_slice(b",\"count\":");
            json_value(out, &bucket.count);
            out.extend_from_slice(b",\"coverage\":");
            json_value(out, &bucket.coverage);
            if let Some(devices) = bucket.devices {
                out.extend_from_slice(b",\"contributing\":");
                json_value(out, &devices.contributing);
                out.extend_from_slice(b",\"of\":");
                json_value(out, &devices.of);
            }
            for aggregate in without_count(aggregates) {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(aggregate.name().as_bytes());
                out.extend_from_slice(b"\":");
                json_value(out, &bucket.get(aggregate));
            }
        }
    }
}

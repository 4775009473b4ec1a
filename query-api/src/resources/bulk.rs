//! `POST /v1/devices:bulk`: many devices at once, all or none of them.
//!
//! In: a JSON array, NDJSON or CSV. Out: the number of devices and series that were created, or an
//! error for each line. Each row has the fields of a device and, optionally, its `series`: a list
//! of `{"metric", "unit", "kind", "rollover"}`, or in CSV `metric:unit;metric:unit`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use service::{ApiError, FieldError};
use store::model::bulk::{self, Devices};

use super::Model;
use super::definition::{DEVICE, SERIES};
use super::error::write_error;
use super::fields::{self, Rule, error};
use super::request::{media_type, parse, post_conditions, receive};
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;

/// Upper bound on the body.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Upper bound on the devices of a request.
const MAX_DEVICES: usize = 200_000;
/// Upper bound on the series of a device.
const MAX_SERIES: usize = 1_000;
/// After this many errors the rest of the body is not checked.
const MAX_ERRORS: usize = 1_000;

const SERIES_FIELD: &str = "series";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Array,
    Ndjson,
    Csv,
}

/// Creates devices.
pub(crate) async fn create(
    State(model): State<Arc<Model>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    Parameters::new(uri.query(), openapi::NONE).finish()?;
    let format = match media_type(&headers).as_str() {
        "application/json" => Format::Array,
        "application/x-ndjson" | "application/ndjson" => Format::Ndjson,
        "text/csv" => Format::Csv,
        other => {
            let reason = format!(
                "content-type must be application/json, application/x-ndjson or text/csv, \
                 and it is '{other}'"
            );
            return Err(ApiError::UnsupportedMediaType(reason));
        }
    };
    // One at a time: a body and its rows may need several times MAX_BYTES.
    let permit = model
        .bulk
        .try_acquire()
        .map_err(|_| ApiError::TooManyBodies)?;
    let bytes = receive(&headers, body, MAX_BYTES).await?;
    let request = post_conditions(&headers, uri.path(), &bytes)?;
    let reading = tokio::task::spawn_blocking(move || read(format, &bytes));
    let devices = reading.await.map_err(|error| {
        tracing::error!(%error, "reading devices failed");
        ApiError::Internal
    })??;
    let created = bulk::create(&model.pool, devices, &request).await;
    drop(permit);
    let created = created.map_err(|cause| match write_error(&DEVICE, &[], &[], cause) {
        ApiError::InvalidBody(errors) => {
            let located = errors.into_iter().map(|error| located(format, error));
            ApiError::InvalidBody(located.collect())
        }
        ApiError::AlreadyExists { .. } => {
            let reason = "a device of the list was registered at the same time; send it again";
            ApiError::InvalidBody(vec![error("", reason)])
        }
        other => other,
    })?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Rows that were read, and their errors.
#[derive(Default)]
struct Rows {
    devices: Devices,
    errors: Vec<FieldError>,
}

impl Rows {
    /// Adds the row of a line.
    fn push(&mut self, format: Format, line: usize, row: Result<Value, Vec<FieldError>>) {
        match row.and_then(device) {
            Ok(device) => {
                let name = device["device"].as_str().unwrap_or_default();
                self.devices.push(line, name, &device);
            }
            Err(errors) => self.errors.extend(errors.into_iter().map(|error| {
                let line = Some(line);
                located(format, FieldError { line, ..error })
            })),
        }
    }

    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS || self.devices.len() > MAX_DEVICES
    }
}

fn read(format: Format, bytes: &Bytes) -> Result<Devices, ApiError> {
    let mut rows = Rows::default();
    match format {
        Format::Array => read_array(bytes, &mut rows)?,
        Format::Ndjson => read_ndjson(bytes, &mut rows)?,
        Format::Csv => read_csv(bytes, &mut rows),
    }
    if rows.devices.len() > MAX_DEVICES {
        let reason = format!("a request has at most {MAX_DEVICES} devices; split it");
        rows.errors.insert(0, error("", reason));
    }
    if !rows.errors.is_empty() {
        return Err(ApiError::InvalidBody(rows.errors));
    }
    if rows.devices.is_empty() {
        return Err(ApiError::InvalidBody(vec![error(
            "",
            "there are no devices",
        )]));
    }
    Ok(rows.devices)
}

fn read_array(bytes: &[u8], rows: &mut Rows) -> Result<(), ApiError> {
    let Value::Array(items) = parse(bytes)? else {
        let reason = "the body is not an array of devices";
        rows.errors.push(error("", reason));
        return Ok(());
    };
    for (index, item) in items.into_iter().enumerate() {
        rows.push(Format::Array, index + 1, Ok(item));
        if rows.is_full() {
            break;
        }
    }
    Ok(())
}

fn read_ndjson(bytes: &[u8], rows: &mut Rows) -> Result<(), ApiError> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|error| ApiError::NotUtf8(error.valid_up_to()))?;
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(line);
        let row = row.map_err(|cause| {
            let reason = format!("the line is not valid JSON at column {}", cause.column());
            vec![error("", reason)]
        });
        rows.push(Format::Ndjson, index + 1, row);
        if rows.is_full() {
            break;
        }
    }
    Ok(())
}

fn read_csv(bytes: &[u8], rows: &mut Rows) {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let header: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(str::to_owned).collect(),
        Err(cause) => {
            rows.errors.push(csv_error(&cause));
            return;
        }
    };
    for name in &header {
        let is_field = DEVICE.fields.iter().any(|field| field.name == name);
        if !is_field && name != SERIES_FIELD {
            let unknown = fields::unknown_field(DEVICE.fields, DEVICE.computed, name);
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
                let line = record.position().map_or(0, csv::Position::line);
                let line = usize::try_from(line).unwrap_or(usize::MAX);
                let cells = header
                    .iter()
                    .zip(&record)
                    .filter(|(_, cell)| !cell.is_empty());
                let row = cells.map(|(name, text)| (name.clone(), cell(name, text)));
                rows.push(Format::Csv, line, Ok(Value::Object(row.collect())));
            }
            Err(cause) => rows.errors.push(csv_error(&cause)),
        }
        if rows.is_full() {
            break;
        }
    }
}

fn csv_error(cause: &csv::Error) -> FieldError {
    let line = cause.position().map(csv::Position::line);
    let line = line.and_then(|line| usize::try_from(line).ok());
    let reason = match cause.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("the line has {len} fields, and the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "the line is not valid UTF-8".into(),
        _ => "the line is not valid CSV".into(),
    };
    FieldError {
        line,
        ..error("", reason)
    }
}

/// A cell of a CSV file. One that cannot be parsed stays text, which the field then refuses.
fn cell(name: &str, text: &str) -> Value {
    if name == SERIES_FIELD {
        let series = text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        return series
            .map(|part| match part.split_once(':') {
                Some((metric, unit)) => json!({ "metric": metric.trim(), "unit": unit.trim() }),
                None => json!({ "metric": part }),
            })
            .collect();
    }
    let field = DEVICE.fields.iter().find(|field| field.name == name);
    let text_value = || Value::String(text.to_owned());
    match field.map(|field| field.rule) {
        Some(Rule::Boolean | Rule::Number(..) | Rule::Positive(_) | Rule::Object) => {
            serde_json::from_str(text).unwrap_or_else(|_| text_value())
        }
        _ => text_value(),
    }
}

/// A device with every field, and its series.
fn device(row: Value) -> Result<Value, Vec<FieldError>> {
    let mut map = fields::object(row)?;
    let series = map.remove(SERIES_FIELD).unwrap_or(Value::Null);
    let mut errors = Vec::new();
    let series = series_list(series, &mut errors);
    match DEVICE.read(map, &[]) {
        Ok(mut device) if errors.is_empty() => {
            device.insert(SERIES_FIELD.into(), Value::Array(series));
            Ok(Value::Object(device))
        }
        Ok(_) => Err(errors),
        Err(own) => Err(own.into_iter().chain(errors).collect()),
    }
}

fn series_list(series: Value, errors: &mut Vec<FieldError>) -> Vec<Value> {
    let items = match series {
        Value::Null => return Vec::new(),
        Value::Array(items) if items.len() <= MAX_SERIES => items,
        other => {
            let value = fields::shorten(&other);
            let reason = format!("{value} is not a list of at most {MAX_SERIES} series");
            errors.push(error("/series", reason));
            return Vec::new();
        }
    };
    let mut list: Vec<Value> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let read = fields::object(item).and_then(|map: Map<String, Value>| SERIES.read(map, &[]));
        match read {
            Ok(series) if list.iter().any(|other| other["metric"] == series["metric"]) => {
                let pointer = format!("/series/{index}/metric");
                errors.push(error(pointer, "this metric is listed twice"));
            }
            Ok(series) => list.push(Value::Object(series)),
            Err(own) => errors.extend(own.into_iter().map(|own| FieldError {
                pointer: format!("/series/{index}{}", own.pointer),
                ..own
            })),
        }
    }
    list
}

/// In an array, the pointer has the position of the device, and there is no line.
fn located(format: Format, error: FieldError) -> FieldError {
    match (format, error.line) {
        (Format::Array, Some(position)) => FieldError {
            line: None,
            pointer: format!("/{}{}", position - 1, error.pointer),
            reason: error.reason,
        },
        _ => error,
    }
}

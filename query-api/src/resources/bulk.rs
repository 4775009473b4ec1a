//! `POST /v1/devices:bulk`: many devices at once, all or none of them.
//!
//! In: a JSON array, NDJSON or CSV. Out: the number of devices and series that were created, or an
//! error for each line. Each row has the fields of a device and, optionally, its `series`: a list
//! of `{"metric", "unit", "kind", "rollover"}`, or in CSV `metric:unit;metric:unit`.

mod csv;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use service::{ApiError, FieldError};
use store::model::bulk::{self, Devices};

use super::Model;
use super::definition::{DEVICE, SERIES};
use super::error::write_error;
use super::fields::{self, error};
use super::request::{media_type, post_conditions, receive};
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;

/// Upper bound on the body.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Upper bound on the devices of a request.
const MAX_DEVICES: usize = 200_000;
/// Upper bound on the series of a device.
const MAX_SERIES: usize = 1_000;
/// Upper bound on the bytes of a row: of an element of an array, or of a line. A parsed row needs
/// some twenty times as much memory.
const MAX_ROW_BYTES: usize = 1024 * 1024;
/// After this many errors the rest of the body is not checked.
const MAX_ERRORS: usize = 100;

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
        .clone()
        .try_acquire_owned()
        .map_err(|_| ApiError::TooManyBodies)?;
    let bytes = receive(&headers, body, MAX_BYTES).await?;
    let request = post_conditions(&headers, uri.path(), &bytes)?;
    // The permit goes along: when the request is cancelled, the task still runs to its end.
    let reading = tokio::task::spawn_blocking(move || (read(format, &bytes), permit));
    let (devices, permit) = reading.await.map_err(|error| {
        tracing::error!(%error, "reading devices failed");
        ApiError::Internal
    })?;
    let devices = devices?;
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
        Format::Csv => csv::read(bytes, &mut rows),
    }
    if rows.devices.len() > MAX_DEVICES {
        let reason = format!("a request has at most {MAX_DEVICES} devices; split it");
        rows.errors.insert(0, error("", reason));
    }
    if !rows.errors.is_empty() {
        rows.errors.truncate(MAX_ERRORS);
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
    std::str::from_utf8(bytes).map_err(|error| ApiError::NotUtf8(error.valid_up_to()))?;
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let read = Array(rows).deserialize(&mut parser);
    match read.and_then(|()| parser.end()) {
        // The rest is not read after too many errors.
        _ if rows.is_full() => Ok(()),
        Ok(()) => Ok(()),
        Err(cause) if cause.is_data() => {
            let reason = "the body is not an array of devices";
            rows.errors.push(error("", reason));
            Ok(())
        }
        Err(cause) => Err(ApiError::MalformedJson(format!(
            "the body is not valid JSON: {cause}"
        ))),
    }
}

/// Reads an array element by element, so that one of them is in memory as a value.
struct Array<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for Array<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let rows = self.0;
        let mut position = 0;
        while let Some(item) = items.next_element::<&RawValue>()? {
            position += 1;
            rows.push(Format::Array, position, row(item.get()));
            if rows.is_full() {
                break;
            }
        }
        Ok(())
    }
}

/// The JSON of a row.
fn row(text: &str) -> Result<Value, Vec<FieldError>> {
    if text.len() > MAX_ROW_BYTES {
        return Err(vec![error("", too_long())]);
    }
    serde_json::from_str(text).map_err(|cause| {
        let reason = format!("the line is not valid JSON at column {}", cause.column());
        vec![error("", reason)]
    })
}

fn too_long() -> String {
    format!("a device has at most {MAX_ROW_BYTES} bytes")
}

fn read_ndjson(bytes: &[u8], rows: &mut Rows) -> Result<(), ApiError> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|error| ApiError::NotUtf8(error.valid_up_to()))?;
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        rows.push(Format::Ndjson, index + 1, row(line));
        if rows.is_full() {
            break;
        }
    }
    Ok(())
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
    // At most MAX_SERIES names.
    let mut metrics = HashSet::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let read = fields::object(item).and_then(|map: Map<String, Value>| SERIES.read(map, &[]));
        match read {
            Ok(series) if !metrics.insert(series["metric"].to_string()) => {
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

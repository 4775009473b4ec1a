//! `POST /v1/devices:bulk` and `/v1/components:bulk`: many at once, all or none of them.
//!
//! In: a JSON array, NDJSON or CSV. Out: the number of rows that were created, or an error for each
//! line. Each row has the fields of its resource, and those of [`devices`] or [`components`]. With
//! `existing=skip`, rows that exist already are left out and counted.

mod components;
mod csv;
mod devices;

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use service::{ApiError, FieldError};
use store::model::bulk::{self, Existing};

use super::Model;
use super::definition::{COMPONENT, DEVICE, Definition};
use super::error::write_error;
use super::fields::error;
use super::request::{media_type, post_conditions, receive};
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;

/// Upper bound on the body.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Upper bound on the rows of a request.
const MAX_ROWS: usize = 200_000;
/// Upper bound on the bytes of a row: of an element of an array, or of a line. A parsed row needs
/// some twenty times as much memory.
const MAX_ROW_BYTES: usize = 1024 * 1024;
/// After this many errors the rest of the body is not checked.
const MAX_ERRORS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Array,
    Ndjson,
    Csv,
}

/// What a row becomes: its key, and a document with every field. [`ApiError::InvalidBody`] is about
/// this row alone; any other error ends the request.
type Row = Result<(String, Value), ApiError>;

/// Creates devices.
pub(crate) async fn create_devices(
    State(model): State<Arc<Model>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let rows = Rows::new(&DEVICE, devices::MORE_FIELDS, devices::read);
    create(model, rows, uri, headers, body).await
}

/// Creates components.
pub(crate) async fn create_components(
    State(model): State<Arc<Model>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut reader = components::Reader::new(model.clone());
    let read = move |line, row| reader.read(line, row);
    let rows = Rows::new(&COMPONENT, components::MORE_FIELDS, read);
    create(model, rows, uri, headers, body).await
}

async fn create(
    model: Arc<Model>,
    rows: Rows,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut parameters = Parameters::new(uri.query(), openapi::BULK);
    let existing = parameters.parsed("existing", |text| match text {
        "refuse" => Ok(Existing::Refuse),
        "skip" => Ok(Existing::Skip),
        _ => Err(format!(
            "existing: '{text}' is not known: use refuse or skip"
        )),
    })?;
    parameters.finish()?;
    let definition = rows.definition;
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
    let target = uri
        .path_and_query()
        .map_or(uri.path(), |path| path.as_str());
    let request = post_conditions(&headers, target, &bytes)?;
    // The permit goes along: when the request is cancelled, the task still runs to its end.
    let reading = tokio::task::spawn_blocking(move || (read(format, &bytes, rows), permit));
    let (rows, permit) = reading.await.map_err(|error| {
        tracing::error!(%error, "reading rows failed");
        ApiError::Internal
    })?;
    let (rows, existing) = (rows?, existing.unwrap_or_default());
    let created = bulk::create(&model.pool, definition.resource, rows, existing, &request).await;
    drop(permit);
    let created = created.map_err(|cause| match write_error(definition, &[], &[], cause) {
        ApiError::InvalidBody(errors) => {
            let located = errors.into_iter().map(|error| located(format, error));
            ApiError::InvalidBody(located.collect())
        }
        ApiError::AlreadyExists { what, .. } => {
            let reason =
                format!("a {what} of the list was created at the same time; send it again");
            ApiError::InvalidBody(vec![error("", reason)])
        }
        other => other,
    })?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Rows that were read, and their errors.
struct Rows {
    definition: &'static Definition,
    /// Fields beside those of the definition.
    more_fields: &'static [&'static str],
    read: Box<dyn FnMut(usize, Value) -> Row + Send>,
    rows: bulk::Rows,
    errors: Vec<FieldError>,
    failure: Option<ApiError>,
}

impl Rows {
    fn new(
        definition: &'static Definition,
        more_fields: &'static [&'static str],
        read: impl FnMut(usize, Value) -> Row + Send + 'static,
    ) -> Self {
        Self {
            definition,
            more_fields,
            read: Box::new(read),
            rows: bulk::Rows::default(),
            errors: Vec::new(),
            failure: None,
        }
    }

    /// Adds the row of a line.
    fn push(&mut self, format: Format, line: usize, row: Result<Value, Vec<FieldError>>) {
        let row = row.map_err(ApiError::InvalidBody);
        match row.and_then(|row| (self.read)(line, row)) {
            Ok((key, document)) => self.rows.push(line, &key, &document),
            Err(ApiError::InvalidBody(errors)) => {
                self.errors.extend(errors.into_iter().map(|error| {
                    let line = Some(line);
                    located(format, FieldError { line, ..error })
                }));
            }
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn is_full(&self) -> bool {
        let is_failed = self.failure.is_some();
        is_failed || self.errors.len() >= MAX_ERRORS || self.rows.len() > MAX_ROWS
    }
}

fn read(format: Format, bytes: &Bytes, mut rows: Rows) -> Result<bulk::Rows, ApiError> {
    match format {
        Format::Array => read_array(bytes, &mut rows)?,
        Format::Ndjson => read_ndjson(bytes, &mut rows)?,
        Format::Csv => csv::read(bytes, &mut rows),
    }
    if let Some(failure) = rows.failure {
        return Err(failure);
    }
    let list = rows.definition.list;
    if rows.rows.len() > MAX_ROWS {
        let reason = format!("a request has at most {MAX_ROWS} {list}; split it");
        rows.errors.insert(0, error("", reason));
    }
    if rows.errors.is_empty() && rows.rows.is_empty() {
        rows.errors.push(error("", format!("there are no {list}")));
    }
    if !rows.errors.is_empty() {
        rows.errors.truncate(MAX_ERRORS);
        return Err(ApiError::InvalidBody(rows.errors));
    }
    Ok(rows.rows)
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
            let reason = format!("the body is not an array of {}", rows.definition.list);
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
        formatter.write_str("an array")
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
    format!("a row has at most {MAX_ROW_BYTES} bytes")
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

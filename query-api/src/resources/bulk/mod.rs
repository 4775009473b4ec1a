//! `POST /v1/devices:bulk` and `/v1/components:bulk`: many at once, all or none of them.
//!
//! In: a JSON array, NDJSON or CSV. Out: the number of rows that were created, or an error for each
//! line. Each row has the fields of its resource, and those of [`devices`] or [`components`]. With
//! `existing=skip`, rows that exist already are left out and counted.

mod components;
mod devices;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde_json::Value;
use service::{ApiError, FieldError};
use store::model::bulk::{self, Existing};

use super::Model;
use super::definition::{COMPONENT, DEVICE, Definition};
use super::error::write_error;
use super::fields::{self, Field, Rule, error};
use super::request::{media_type, parse, post_conditions, receive};
use crate::parameters::Parameters;

/// Upper bound on the body.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Upper bound on the rows of a request.
const MAX_ROWS: usize = 200_000;
/// After this many errors the rest of the body is not checked.
const MAX_ERRORS: usize = 1_000;

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
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let rows = Rows::new(&DEVICE, devices::MORE_FIELDS, devices::read);
    create(model, rows, uri, query, headers, body).await
}

/// Creates components.
pub(crate) async fn create_components(
    State(model): State<Arc<Model>>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut reader = components::Reader::new(model.clone());
    let read = move |line, row| reader.read(line, row);
    let rows = Rows::new(&COMPONENT, components::MORE_FIELDS, read);
    create(model, rows, uri, query, headers, body).await
}

async fn create(
    model: Arc<Model>,
    rows: Rows,
    uri: Uri,
    query: Option<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut parameters = Parameters::new(query.as_deref());
    let existing = parameters.parsed("existing", |text| match text {
        "refuse" => Ok(Existing::Refuse),
        "skip" => Ok(Existing::Skip),
        _ => Err(format!("existing: '{text}' is not refuse or skip")),
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
        .try_acquire()
        .map_err(|_| ApiError::TooManyBodies)?;
    let bytes = receive(&headers, body, MAX_BYTES).await?;
    let target = uri
        .path_and_query()
        .map_or(uri.path(), |path| path.as_str());
    let request = post_conditions(&headers, target, &bytes)?;
    let reading = tokio::task::spawn_blocking(move || read(format, &bytes, rows));
    let rows = reading.await.map_err(|error| {
        tracing::error!(%error, "reading rows failed");
        ApiError::Internal
    })??;
    let existing = existing.unwrap_or_default();
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
        Format::Csv => read_csv(bytes, &mut rows),
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
        return Err(ApiError::InvalidBody(rows.errors));
    }
    Ok(rows.rows)
}

fn read_array(bytes: &[u8], rows: &mut Rows) -> Result<(), ApiError> {
    let Value::Array(items) = parse(bytes)? else {
        let reason = format!("the body is not an array of {}", rows.definition.list);
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
    let Definition {
        fields, computed, ..
    } = rows.definition;
    for name in &header {
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
                let line = record.position().map_or(0, csv::Position::line);
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

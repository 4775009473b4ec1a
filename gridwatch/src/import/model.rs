//! Documents of the model that a file describes: found, or created through the query API.
//!
//! In: documents. Out: documents that exist. What exists is not created again; a request that is
//! repeated has the same `Idempotency-Key`, which is derived from the content of the file.

use std::path::Path;

use serde_json::Value;
use service::client::Method;
use sha2::{Digest as _, Sha256};

use crate::UsageError;
use crate::config::ImportKind;
use crate::query_client::{QueryApi, QueryError};

/// Upper bound on the size of a file that is read as a whole.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Who changes the model, as `/v1/changes` shows it.
const ACTOR: &str = "gridwatch import";

/// A file that was read as a whole.
pub(super) struct Document {
    /// Its path.
    pub name: String,
    /// Its content.
    pub json: Value,
    /// What the keys of its requests begin with.
    key: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not JSON.
    pub(super) fn read(path: &Path) -> Result<Self, UsageError> {
        let name = path.display().to_string();
        let wrong = |reason: String| UsageError(format!("{name}: {reason}"));
        let unreadable = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_FILE_BYTES {
            let sentence = format!("the file has {bytes} bytes; at most {MAX_FILE_BYTES} are read");
            return Err(wrong(sentence));
        }
        let content = std::fs::read(path).map_err(unreadable)?;
        let json = serde_json::from_slice(&content).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            wrong(format!(
                "line {line}, column {column}: the file is not valid JSON"
            ))
        })?;
        let digest: [u8; 32] = Sha256::digest(&content).into();
        let key = digest[..16].iter().map(|byte| format!("{byte:02x}"));
        Ok(Self {
            name,
            json,
            key: key.collect(),
        })
    }

    /// The error of a place in the file.
    pub(super) fn wrong(&self, pointer: &str, reason: &str) -> UsageError {
        UsageError(format!(
            "{}, {pointer}: {reason}; nothing was imported",
            self.name
        ))
    }

    /// The key of the request for a part of the file.
    pub(super) fn key(&self, part: &str) -> String {
        format!("{}:{part}", self.key)
    }
}

/// How many documents were created, and how many existed.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub created: u64,
    pub existing: u64,
}

impl Counts {
    /// Counts a document and passes it on.
    pub(super) fn add(&mut self, document: (Value, bool)) -> Value {
        match document.1 {
            true => self.created += 1,
            false => self.existing += 1,
        }
        document.0
    }

    /// The line of a summary.
    pub(super) fn text(&self, what: &str) -> String {
        let Self { created, existing } = self;
        format!("  {what}: {created} new, {existing} already stored")
    }
}

/// The documents of a file.
#[derive(Debug, Default)]
pub(super) struct AllCounts {
    pub components: Counts,
    pub devices: Counts,
    pub series: Counts,
    pub targets: Counts,
    pub types: Counts,
}

impl AllCounts {
    /// The lines of a summary: those that a file of this kind can have.
    pub(super) fn lines(&self, kind: ImportKind) -> Vec<String> {
        match kind {
            ImportKind::Readings => Vec::new(),
            ImportKind::Factories => vec![
                self.components.text("components"),
                self.devices.text("devices"),
                self.series.text("series"),
                self.targets.text("targets"),
            ],
            ImportKind::Sprockets => vec![self.types.text("types")],
        }
    }

    /// Whether no document is stored yet.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            components,
            devices,
            series,
            targets,
            types,
        } = self;
        let all = [components, devices, series, targets, types];
        all.iter().all(|own| own.created + own.existing == 0)
    }
}

/// Reads a document. `None` if there is none.
pub(super) async fn find(api: &QueryApi, path: &str) -> anyhow::Result<Option<Value>> {
    match api.get(path, &[]).await {
        Ok(response) => Ok(Some(response.json())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.of_command()),
    }
}

fn is_missing(error: &QueryError) -> bool {
    let codes = ["unknown_device", "unknown_series", "unknown_resource"];
    codes.iter().any(|code| error.has_code(code))
}

/// The first entry of a list that `is_it` accepts.
pub(super) async fn find_in_list(
    api: &QueryApi,
    list: &str,
    filters: &[(&str, &str)],
    is_it: impl Fn(&Value) -> bool,
) -> anyhow::Result<Option<Value>> {
    let mut next = None;
    loop {
        let (entries, position) = page(api, list, list, filters, next.as_deref()).await?;
        if let Some(found) = entries.into_iter().find(&is_it) {
            return Ok(Some(found));
        }
        match position {
            Some(position) => next = Some(position),
            None => return Ok(None),
        }
    }
}

/// A page of a list, and the position of the next one.
pub(super) async fn page(
    api: &QueryApi,
    path: &str,
    list: &str,
    filters: &[(&str, &str)],
    next: Option<&str>,
) -> anyhow::Result<(Vec<Value>, Option<String>)> {
    let mut parameters = filters.to_vec();
    parameters.extend(next.map(|next| ("next", next)));
    let response = api.get(&format!("/{path}"), &parameters).await;
    let body = response.map_err(QueryError::of_command)?.json();
    let entries = body[list].as_array().cloned().unwrap_or_default();
    Ok((entries, body["next"].as_str().map(str::to_owned)))
}

/// Creates a document in a list. A retry with the same key creates it once.
pub(super) async fn create(
    api: &QueryApi,
    list: &str,
    key: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    let keyed = [("x-actor", ACTOR), ("idempotency-key", key)];
    for headers in [&keyed[..], &keyed[..1]] {
        let response = api.write(Method::POST, list, headers, body).await;
        let response = response.map_err(QueryError::of_command)?;
        let location = response.headers.get("location");
        let location = location.and_then(|path| path.to_str().ok()?.strip_prefix("/v1"));
        // The response to an earlier request with the key may be about a document that was
        // deleted since; then a request without the key creates it.
        match location {
            Some(path) if find(api, path).await?.is_none() => {}
            _ => return Ok(response.json()),
        }
    }
    anyhow::bail!("a document of {list} was deleted while it was created; import the file again")
}

/// Changes members of a document.
pub(super) async fn patch(api: &QueryApi, path: &str, body: &Value) -> anyhow::Result<()> {
    let response = api
        .write(Method::PATCH, path, &[("x-actor", ACTOR)], body)
        .await;
    response.map_err(QueryError::of_command)?;
    Ok(())
}

//! `/v1/imports`: what `gridwatch import` has loaded.
//!
//! In: an entry per import, under an id that the client chooses (UUIDv7, which is its position in
//! the list). `PUT` creates or replaces it. Out: the entries. Old ones are removed.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use service::{ApiError, FieldError};
use store::model::imports::{self, Import};
use store::reads::points::Order;
use uuid::Uuid;

use super::Model;
use super::fields::Absent::{Null, Refused};
use super::fields::{self, Field, Rule, error};
use super::request::{actor, receive_json};
use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, not_a_position};

/// Entries of a page, unless the request has a `limit`.
const DEFAULT_LIMIT: usize = 100;
/// Upper bound on the entries of a page.
const MAX_LIMIT: usize = 5_000;
/// Upper bound on a count. JSON numbers are exact up to here.
const MAX_COUNT: f64 = 1e15;

const COMPUTED: &[&str] = &["id", "created_at", "updated_at", "updated_by"];
const FIELDS: [Field; 6] = [
    Field::new("name", Rule::Text(1_024), Refused),
    Field::new("digest", Rule::Text(128), Null),
    Field::new("kind", Rule::Slug, Refused),
    Field::new("accepted", Rule::Number(0.0, MAX_COUNT), Refused),
    Field::new("left_out", Rule::Number(0.0, MAX_COUNT), Refused),
    Field::new("complete", Rule::Boolean, Refused),
];

/// Lists imports. The oldest is first, unless `order=desc`.
pub(crate) async fn list(
    State(model): State<Arc<Model>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::IMPORTS);
    let limit = parameters.count("limit", MAX_LIMIT)?;
    let after = parameters.parsed("next", |text| {
        let position = text.parse::<Uuid>();
        position.map_err(|_| not_a_position(text))
    })?;
    let descending = parameters.order()? == Order::NewestFirst;
    parameters.finish()?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let page = imports::page(&model.pool, after, descending, limit).await;
    let page = page.map_err(|error| api_error(&error))?;
    let last = page.last().filter(|_| page.len() == limit);
    let next = last.map(|import| import["id"].clone());
    Ok(Json(json!({ "imports": page, "next": next })))
}

/// One import.
pub(crate) async fn get(
    State(model): State<Arc<Model>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    Parameters::new(query.as_deref(), openapi::NONE).finish()?;
    let found = match id.parse() {
        Ok(id) => imports::get(&model.pool, id)
            .await
            .map_err(|error| api_error(&error))?,
        Err(_) => None,
    };
    found.map(Json).ok_or_else(|| unknown(id))
}

/// Writes an import.
pub(crate) async fn put(
    State(model): State<Arc<Model>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Parameters::new(query.as_deref(), openapi::NONE).finish()?;
    let Ok(key) = id.parse() else {
        return Err(unknown(id));
    };
    let (_, body) = receive_json(&headers, body, &["application/json"]).await?;
    let actor = actor(&headers)?;
    let map = fields::object(body).and_then(|map| fields::read(&FIELDS, COMPUTED, map));
    let import = map.and_then(|map| import(&map));
    let import = import.map_err(ApiError::InvalidBody)?;
    let written = imports::put(&model.pool, key, &import, &actor).await;
    written.map(Json).map_err(|error| api_error(&error))
}

fn import(map: &Map<String, Value>) -> Result<Import, Vec<FieldError>> {
    let count = |name: &str| {
        let reason = || vec![error(fields::pointer(name), "this must be a whole number")];
        map[name].as_i64().ok_or_else(reason)
    };
    let text = |name: &str| map[name].as_str().unwrap_or_default().to_owned();
    Ok(Import {
        name: text("name"),
        digest: map["digest"].as_str().map(str::to_owned),
        kind: text("kind"),
        accepted: count("accepted")?,
        left_out: count("left_out")?,
        complete: map["complete"] == true,
    })
}

fn unknown(id: String) -> ApiError {
    ApiError::UnknownResource { what: "import", id }
}

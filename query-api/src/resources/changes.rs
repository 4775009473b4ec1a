//! `GET /v1/changes`: who changed what, and when.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use service::ApiError;
use store::model::changes::{self, Query};
use store::reads::points::Order;

use super::Model;
use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, not_a_position};
use crate::time;

/// Entries of a page, unless the request has a `limit`.
const DEFAULT_LIMIT: usize = 100;
/// Upper bound on the entries of a page.
const MAX_LIMIT: usize = 5_000;
/// Entries of one query. Each has two whole documents.
const SLICE: usize = 100;
/// A page that is longer than this ends, with a `next`.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Lists changes. The oldest is first, unless `order=desc`.
pub(crate) async fn list(
    State(model): State<Arc<Model>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::CHANGES);
    let limit = parameters.count("limit", MAX_LIMIT)?;
    let instant = |name: &'static str| move |text: &str| time::parse(name, text, &TimeZone::UTC);
    let printable = |name: &'static str| {
        move |text: &str| match text.contains('\0') {
            true => Err(format!("{name} contains the character U+0000")),
            false => Ok(text.to_owned()),
        }
    };
    let mut wanted = Query {
        entity: parameters.parsed("entity", printable("entity"))?,
        entity_id: parameters.parsed("id", printable("id"))?,
        actor: parameters.parsed("actor", printable("actor"))?,
        from: parameters.parsed("from", instant("from"))?,
        to: parameters.parsed("to", instant("to"))?,
        after: parameters.parsed("next", |text| {
            let position = text.parse::<i64>();
            position.map_err(|_| not_a_position(text))
        })?,
        descending: parameters.order()? == Order::NewestFirst,
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    };
    parameters.finish()?;
    let (limit, mut listed, mut bytes) = (wanted.limit, Vec::new(), 0);
    let is_complete = loop {
        wanted.limit = SLICE.min(limit - listed.len());
        let slice = changes::page(&model.pool, &wanted).await;
        let slice = slice.map_err(|error| api_error(&error))?;
        let is_last = slice.len() < wanted.limit;
        for (change, length) in slice {
            wanted.after = change["id"].as_i64();
            listed.push(change);
            bytes += length;
        }
        if is_last || listed.len() == limit || bytes > MAX_PAGE_BYTES {
            break is_last;
        }
    };
    let last = listed.last().filter(|_| !is_complete);
    let next = last.map(|change| change["id"].to_string());
    Ok(Json(json!({ "changes": listed, "next": next })))
}

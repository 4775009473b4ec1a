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
use crate::parameters::Parameters;
use crate::time;

/// Entries of a page, unless the request has a `limit`.
const DEFAULT_LIMIT: usize = 100;
/// Upper bound on the entries of a page. Each has two whole documents.
const MAX_LIMIT: usize = 1_000;

/// Lists changes. The oldest is first, unless `order=desc`.
pub(crate) async fn list(
    State(model): State<Arc<Model>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(query.as_deref());
    let limit = parameters.count("limit", MAX_LIMIT)?;
    let instant = |name: &'static str| move |text: &str| time::parse(name, text, &TimeZone::UTC);
    let printable = |name: &'static str| {
        move |text: &str| match text.contains('\0') {
            true => Err(format!("{name} contains the character U+0000")),
            false => Ok(text.to_owned()),
        }
    };
    let wanted = Query {
        entity: parameters.parsed("entity", printable("entity"))?,
        entity_id: parameters.parsed("id", printable("id"))?,
        actor: parameters.parsed("actor", printable("actor"))?,
        from: parameters.parsed("from", instant("from"))?,
        to: parameters.parsed("to", instant("to"))?,
        after: parameters.parsed("next", |text| {
            let position = text.parse::<i64>();
            position.map_err(|_| format!("next: '{text}' is not a position"))
        })?,
        descending: parameters.order()? == Order::NewestFirst,
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    };
    parameters.finish()?;
    let page = changes::page(&model.pool, &wanted).await;
    let page = page.map_err(|error| api_error(&error))?;
    let last = page.last().filter(|_| page.len() == wanted.limit);
    let next = last.map(|change| change["id"].to_string());
    Ok(Json(json!({ "changes": page, "next": next })))
}

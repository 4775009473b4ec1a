//! `PUT …/targets`: all targets of a series at once.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use serde_json::Value;
use service::{ApiError, FieldError};
use store::model::targets;

use super::Model;
use super::definition::{SERIES, TARGET};
use super::error::write_error;
use super::fields::{self, error};
use super::request::{conditions, receive_json};
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;

/// Upper bound on the targets of a request.
const MAX_TARGETS: usize = 10_000;

/// Replaces the targets of a series by those of the list.
pub(crate) async fn replace(
    State(model): State<Arc<Model>>,
    Path(path): Path<Vec<String>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Parameters::new(query.as_deref(), openapi::NONE).finish()?;
    let (_, body) = receive_json(&headers, body, &["application/json"]).await?;
    let request = conditions(&headers)?;
    let key = SERIES.key(path)?;
    let targets = read(body).map_err(ApiError::InvalidBody)?;
    let replaced = targets::replace(&model.pool, &key, &targets, &request).await;
    let replaced = replaced.map_err(|error| write_error(&SERIES, &key, &key, error))?;
    Ok(Json(replaced))
}

fn read(body: Value) -> Result<Value, Vec<FieldError>> {
    let mut map = fields::object(body)?;
    let items = match map.remove(TARGET.list) {
        Some(Value::Array(items)) if items.len() <= MAX_TARGETS => items,
        _ => {
            let reason = format!("this is a list of at most {MAX_TARGETS} targets");
            return Err(vec![error("/targets", reason)]);
        }
    };
    if let Some(name) = map.keys().next() {
        let reason = "there is no such field; the only field is targets";
        return Err(vec![error(fields::pointer(name), reason)]);
    }
    let (mut errors, mut targets) = (Vec::new(), Vec::with_capacity(items.len()));
    for (index, item) in items.into_iter().enumerate() {
        let target = fields::object(item).and_then(|map| TARGET.read(map, TARGET.computed));
        match target {
            Ok(target) => targets.push(Value::Object(target)),
            Err(own) => errors.extend(own.into_iter().map(|own| FieldError {
                pointer: format!("/targets/{index}{}", own.pointer),
                ..own
            })),
        }
    }
    let mut starts: Vec<(&str, usize)> = targets
        .iter()
        .enumerate()
        .filter_map(|(index, target)| Some((target["starts_at"].as_str()?, index)))
        .collect();
    starts.sort_unstable();
    for pair in starts.windows(2) {
        if pair[0].0 == pair[1].0 {
            let pointer = format!("/targets/{}/starts_at", pair[1].1);
            errors.push(error(pointer, "another target starts at this time"));
        }
    }
    if errors.is_empty() {
        Ok(Value::Array(targets))
    } else {
        Err(errors)
    }
}

//! Lists: latest points, conflicts and dead letters, and the latency of the stages.
//!
//! Every list is paged: `{"…": […], "next": …}`, where `next` is the value of the parameter `next`
//! for the page behind it, and null at the end.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use schema::partition::DAY;
use serde_json::{Value, json};
use service::ApiError;
use store::Pool;
use store::reads::incidents::{self, Incident};
use store::reads::latest::{self, PAGE};
use store::reads::{ReadError, latency};

use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, bad, not_a_position};
use crate::time;

/// Entries of a page, unless the request has a `limit`.
const DEFAULT_LIMIT: usize = 100;
/// Upper bound on the entries of a page.
const MAX_LIMIT: usize = 5_000;

type Reply = Result<Json<Value>, ApiError>;

fn failed(error: ReadError) -> ApiError {
    api_error(&error)
}

fn limit(parameters: &mut Parameters<'_>) -> Result<usize, ApiError> {
    let limit = parameters.count("limit", MAX_LIMIT)?;
    Ok(limit.unwrap_or(DEFAULT_LIMIT))
}

/// `GET /v1/latest`: the latest point of each series that has one.
pub(crate) async fn latest(State(pool): State<Arc<Pool>>, RawQuery(query): RawQuery) -> Reply {
    let mut parameters = Parameters::new(query.as_deref(), openapi::LATEST);
    let names = parameters.all("device");
    let metric = parameters.one("metric")?;
    // The metric is behind the last control character that no name can have.
    let next = parameters.one("next")?.unwrap_or_default();
    parameters.finish()?;
    let after = next.split_once('\u{1f}').unwrap_or((&next, ""));
    let names = (!names.is_empty()).then_some(names);
    let page = latest::page(&pool, after, names.as_deref(), metric.as_deref()).await;
    let page = page.map_err(failed)?;
    let next = (page.len() == PAGE).then(|| page.last()).flatten();
    let next = next.map(|(series, _)| format!("{}\u{1f}{}", series.device, series.metric));
    let rows = page.iter().filter_map(|(series, point)| {
        let point = point.as_ref()?;
        Some(json!({
            "device": series.device, "metric": series.metric, "unit": series.unit,
            "time": time::format(point.time).to_string(), "value": point.value,
        }))
    });
    let rows: Vec<Value> = rows.collect();
    Ok(Json(json!({ "latest": rows, "next": next })))
}

/// `GET /v1/conflicts`.
pub(crate) async fn conflicts(pool: State<Arc<Pool>>, query: RawQuery) -> Reply {
    incidents(pool, query, Incident::Conflict, "conflicts").await
}

/// `GET /v1/dead-letters`.
pub(crate) async fn dead_letters(pool: State<Arc<Pool>>, query: RawQuery) -> Reply {
    incidents(pool, query, Incident::DeadLetter, "dead_letters").await
}

async fn incidents(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
    incident: Incident,
    name: &str,
) -> Reply {
    let mut parameters = Parameters::new(query.as_deref(), openapi::INCIDENTS);
    let limit = limit(&mut parameters)?;
    let before = parameters.parsed("next", |text| {
        let position = text.parse::<i64>();
        position.map_err(|_| not_a_position(text))
    })?;
    parameters.finish()?;
    let before = before.unwrap_or(i64::MAX);
    let page = incidents::page(&pool, incident, before, limit).await;
    let page = page.map_err(failed)?;
    let next = (page.len() == limit).then(|| page.last().map(|entry| entry.0.to_string()));
    let parse = |entry: &(i64, String)| serde_json::from_str(&entry.1).unwrap_or(Value::Null);
    let entries: Vec<Value> = page.iter().map(parse).collect();
    Ok(Json(json!({ name: entries, "next": next.flatten() })))
}

/// Upper bound on the range of `/v1/latency`.
const MAX_LATENCY_DAYS: i64 = 31;

/// `GET /v1/latency`: the stages per minute, from the ledger.
pub(crate) async fn latency(State(pool): State<Arc<Pool>>, RawQuery(query): RawQuery) -> Reply {
    let mut parameters = Parameters::new(query.as_deref(), openapi::LATENCY);
    let zone = parameters.zone()?;
    let range = parameters.range(&zone)?;
    parameters.finish()?;
    if range.to.saturating_sub(range.from) > MAX_LATENCY_DAYS * DAY {
        let sentence =
            format!("the range is longer than {MAX_LATENCY_DAYS} days: ask for a shorter one");
        return Err(bad(sentence));
    }
    let minutes = latency::minutes(&pool, range.from, range.to).await;
    let pair = |pair: &[f64; 2]| json!({ "p50": pair[0], "p99": pair[1] });
    let minute = |minute: &latency::Minute| {
        json!({
            "start": time::format(minute.start).to_string(),
            "batches": minute.batches,
            "readings": minute.readings,
            "seconds": {
                "received_to_enqueued": pair(&minute.received_to_enqueued),
                "enqueued_to_dequeued": pair(&minute.enqueued_to_dequeued),
                "dequeued_to_persisted": pair(&minute.dequeued_to_persisted),
                "received_to_persisted": pair(&minute.received_to_persisted),
            },
        })
    };
    let minutes: Vec<Value> = minutes.map_err(failed)?.iter().map(minute).collect();
    Ok(Json(json!({ "minutes": minutes, "next": null })))
}

//! `GET /v1/readings/history`: what happened to one reading.
//!
//! In: a device, a metric and a time. Out: the stored value, the batches that may have carried the
//! reading with their clocks, conflicts and dead letters. A list that was cut off says so.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use service::ApiError;
use store::Pool;
use store::reads::history::{self, Found};
use store::reads::series::{self, Series};

use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, bad};
use crate::time;

/// See the module.
pub(crate) async fn get(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::HISTORY);
    let names = one_series(&mut parameters)?;
    let instant = parameters.parsed("time", |text| time::parse("time", text, &TimeZone::UTC))?;
    parameters.finish()?;
    let Some(instant) = instant else {
        return Err(bad("time is missing: name the time of the reading".into()));
    };
    let series = find(&pool, names).await?;
    let failed = |error| api_error(&error);
    let stored = history::stored(&pool, series.id, instant).await;
    let batches = history::batches(&pool, instant).await;
    let conflicts = history::conflicts(&pool, series.id, instant).await;
    let dead_letters = history::dead_letters(&pool, series.id, instant).await;
    Ok(Json(json!({
        "device": series.device,
        "metric": series.metric,
        "unit": series.unit,
        "time": time::format(instant).to_string(),
        "stored_value": stored.map_err(failed)?,
        "batches": list(batches.map_err(failed)?),
        "conflicts": list(conflicts.map_err(failed)?),
        "dead_letters": list(dead_letters.map_err(failed)?),
    })))
}

fn list(found: Found) -> Value {
    let parse = |entry: &String| serde_json::from_str(entry).unwrap_or(Value::Null);
    let entries: Vec<Value> = found.entries.iter().map(parse).collect();
    json!({ "entries": entries, "complete": found.complete })
}

/// `device` and `metric`, both required.
pub(crate) fn one_series(parameters: &mut Parameters<'_>) -> Result<(String, String), ApiError> {
    let mut required = |name: &'static str| {
        let value = parameters.one(name)?;
        value.ok_or_else(|| bad(format!("{name} is missing: name a device and a metric")))
    };
    Ok((required("device")?, required("metric")?))
}

/// The series of a device and a metric.
pub(crate) async fn find(pool: &Pool, names: (String, String)) -> Result<Series, ApiError> {
    let (device, metric) = names;
    let devices = [device.clone()];
    let found = series::find(pool, &devices, Some(&metric)).await;
    if let Some(series) = found.map_err(|error| api_error(&error))?.pop() {
        return Ok(series);
    }
    let unknown = series::unknown_devices(pool, &devices).await;
    match unknown.map_err(|error| api_error(&error))?.is_empty() {
        true => Err(ApiError::UnknownSeries { device, metric }),
        false => Err(ApiError::UnknownDevice(device)),
    }
}

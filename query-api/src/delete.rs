//! `DELETE /v1/readings`: deletes the readings of a series in a range of time.
//!
//! In: a device, a metric and a range. Out: 200 with the number of readings, or 202 with the job
//! that deletes the rest. Who deleted what is in `/v1/changes`.

use std::slice;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use service::ApiError;
use store::Pool;
use store::model::WriteError;
use store::model::readings::delete_range;

use crate::error::api_error;
use crate::history::{find, one_series};
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;
use crate::resources::actor;
use crate::selection::zone_of_devices;

/// See the module.
pub(crate) async fn delete(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::DELETE_READINGS);
    let names = one_series(&mut parameters)?;
    let zone = zone_of_devices(&mut parameters, &pool, slice::from_ref(&names.0)).await?;
    let range = parameters.range(&zone)?;
    parameters.finish()?;
    let actor = actor(&headers)?;
    let series = find(&pool, names).await?;
    let deletion = delete_range(&pool, &series, range, &actor).await;
    let deletion = deletion.map_err(|error| match error {
        WriteError::Read(error) => api_error(&error),
        error => {
            tracing::error!(%error, "readings cannot be deleted");
            ApiError::Internal
        }
    })?;
    let job = deletion.job.map(|job| job.to_string());
    let body = Json(json!({ "deleted": deletion.deleted, "job": job }));
    Ok(match job {
        None => body.into_response(),
        Some(job) => {
            let headers = [(header::LOCATION, format!("/v1/jobs/{job}"))];
            (StatusCode::ACCEPTED, headers, body).into_response()
        }
    })
}

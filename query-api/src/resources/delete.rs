//! Deleting, and the jobs that delete what is too much for one request.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use service::ApiError;
use store::model::{self, jobs};
use uuid::Uuid;

use super::Model;
use super::definition::Definition;
use super::error::write_error;
use super::list::boolean;
use super::request::conditions;
use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;

/// `DELETE` on a resource: 200 with what was deleted, or 202 with the job that deletes the rest.
pub(crate) async fn delete(
    model: &Model,
    definition: &Definition,
    path: Vec<String>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query, openapi::DELETE);
    let cascade = parameters.parsed("cascade", |text| boolean("cascade", text))?;
    parameters.finish()?;
    let request = conditions(headers)?;
    let key = definition.key(path)?;
    let cascade = cascade.unwrap_or(false);
    let deletion = model::delete(&model.pool, definition.resource, &key, &request, cascade).await;
    let deletion = deletion.map_err(|error| write_error(definition, &key, &key, error))?;
    let job = deletion.job.map(|job| job.to_string());
    let body = Json(json!({ "deleted": deletion.deleted, "job": job }));
    Ok(match deletion.job {
        None => body.into_response(),
        Some(job) => {
            let headers = [(header::LOCATION, format!("/v1/jobs/{job}"))];
            (StatusCode::ACCEPTED, headers, body).into_response()
        }
    })
}

/// `GET /v1/jobs/{id}`.
pub(crate) async fn job(
    State(model): State<Arc<Model>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    Parameters::new(query.as_deref(), openapi::NONE).finish()?;
    let found = match id.parse::<Uuid>() {
        Ok(id) => jobs::get(&model.pool, id)
            .await
            .map_err(|error| api_error(&error))?,
        Err(_) => None,
    };
    found
        .map(Json)
        .ok_or(ApiError::UnknownResource { what: "job", id })
}

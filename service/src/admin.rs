//! The admin port of a process: `/metrics`, `/healthz` (alive) and `/readyz` (able to work).

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::json;

use crate::ApiError;
use crate::health::{Health, HealthState};
use crate::metrics::Metrics;

/// What the port serves, for a request to another path.
const PATHS: &str = "this port serves /metrics, /healthz and /readyz";

/// The routes of the admin port.
pub fn router(metrics: Metrics, health: Health) -> Router {
    let render = move || {
        let text = metrics.render();
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        async move { ([(header::CONTENT_TYPE, content_type)], text) }
    };
    let ready = move || {
        let (state, parts) = health.report();
        let ready = state != HealthState::Unready;
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = json!({ "ready": ready, "state": state.label(), "parts": parts });
        async move { (status, Json(body)).into_response() }
    };
    Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed(PATHS) })
        .fallback(|| async { ApiError::NotFound(PATHS) })
}

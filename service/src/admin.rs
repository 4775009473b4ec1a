//! The admin port of a process: `/metrics`, `/healthz` (alive) and `/readyz` (able to do its work).

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::json;

use crate::health::{Ability, Health};
use crate::metrics::Metrics;

/// The admin routes.
pub fn router(metrics: Metrics, health: Health) -> Router {
    let render = move || {
        let text = metrics.render();
        async move {
            (
                [(
                    header::CONTENT_TYPE,
                    "text/plain; version=0.0.4; charset=utf-8",
                )],
                text,
            )
        }
    };
    let ready = move || {
        let (ability, parts) = health.report();
        let ready = ability != Ability::Unready;
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        async move {
            (
                status,
                Json(json!({ "ready": ready, "state": ability.label(), "parts": parts })),
            )
                .into_response()
        }
    };
    Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(ready))
}

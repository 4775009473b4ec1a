//! The admin port of a process: `/metrics`, `/healthz` (alive) and `/readyz` (able to work).

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};

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
        async move { (status, document(&body)).into_response() }
    };
    Router::new()
        .route("/metrics", get(render))
        .route(
            "/healthz",
            get(|| async { document(&json!({ "alive": true })) }),
        )
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed(PATHS) })
        .fallback(|| async { ApiError::NotFound(PATHS) })
}

/// A JSON document. The newline is for terminals.
fn document(value: &Value) -> impl IntoResponse + use<> {
    let content_type = "application/json";
    ([(header::CONTENT_TYPE, content_type)], format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn every_json_response_ends_with_a_newline() {
        for (response, content_type) in [
            (document(&json!({})).into_response(), "application/json"),
            (
                ApiError::NotFound(PATHS).into_response(),
                "application/problem+json",
            ),
        ] {
            assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.ends_with(b"}\n"), "{body:?}");
        }
    }
}

//! The read side: questions about what was stored, over HTTP.
//!
//! In: requests. Out: readings, aggregates, devices, conflicts, dead letters and latencies,
//! from PostgreSQL ([`store::reads`]). Nothing here knows the queue. While PostgreSQL is
//! unavailable, requests get 503.

mod aggregate;
mod delete;
mod error;
mod format;
mod history;
mod lists;
mod parameters;
mod performance;
mod readings;
#[cfg(test)]
mod readings_tests;
mod resolution;
mod resources;
mod selection;
mod stream;
#[cfg(test)]
mod subtree_tests;
mod tail;
#[cfg(test)]
mod tests;
mod time;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use service::log_limit::LogLimit;
use service::{ApiError, Context};
use store::Pool;
use tail::Tails;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How the read side behaves.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Upper bound on open connections.
    pub max_connections: usize,
    /// How long requests in flight may take after the stop signal.
    pub grace: Duration,
}

/// What the read side serves, for a request to another path.
const PATHS: &str = "this port serves /v1/readings, /v1/daily, /v1/latest, /v1/latency, \
                     /v1/conflicts, /v1/dead-letters, /v1/devices, /v1/components, /v1/kinds, \
                     /v1/types, /v1/customers, /v1/changes, /v1/imports and /v1/jobs";

/// The routes, without a fallback, so that they can be part of another port.
///
/// `/v1/readings` has `GET` and `DELETE` only: a port that also accepts readings adds `POST`.
pub fn routes(pool: Pool) -> Router {
    routes_until(CancellationToken::new(), pool)
}

/// The same routes, whose tails end with the stop signal.
pub fn routes_until(stop: CancellationToken, pool: Pool) -> Router {
    let tails = Router::new()
        .route("/v1/readings/tail", get(tail::get))
        .with_state(Arc::new(Tails::new(pool.clone(), stop)));
    Router::new()
        .route("/v1/readings", get(readings::get).delete(delete::delete))
        .route("/v1/readings/history", get(history::get))
        .route("/v1/daily", get(readings::get_daily))
        .route("/v1/components/{id}/performance", get(performance::get))
        .route("/v1/latest", get(lists::latest))
        .route("/v1/latency", get(lists::latency))
        .route("/v1/conflicts", get(lists::conflicts))
        .route("/v1/dead-letters", get(lists::dead_letters))
        .with_state(Arc::new(pool.clone()))
        .merge(resources::routes(pool))
        .merge(tails)
}

/// How long to wait before looking for a job again.
const JOB_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two slices of a job, in which others get a connection.
const SLICE_PAUSE: Duration = Duration::from_millis(5);

/// Works on jobs until the stop signal. A process that serves [`routes`] runs this too.
pub async fn run_jobs(context: Context, pool: Pool) {
    let failures = LogLimit::new();
    while !context.stop.is_cancelled() {
        let pause = match store::model::jobs::run_slice(&pool).await {
            Ok(true) => SLICE_PAUSE,
            Ok(false) => JOB_INTERVAL,
            Err(error) => {
                if let Some(failures) = failures.count() {
                    tracing::warn!(%error, failures, "jobs cannot be worked on");
                }
                JOB_INTERVAL
            }
        };
        context
            .stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await;
    }
}

/// Serves until the stop signal, and then until the requests in flight are done or the grace period
/// is over. The caller closes the pool afterwards.
pub async fn run(context: Context, config: Config, listener: TcpListener, pool: Pool) {
    let not_allowed = || async {
        ApiError::MethodNotAllowed("this path does not support the method; see the header allow")
    };
    let router = routes_until(context.stop.clone(), pool.clone())
        .method_not_allowed_fallback(not_allowed)
        .fallback(|| async { ApiError::NotFound(PATHS) });
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "responding to queries");
    }
    let server = service::http::Config {
        name: "queries",
        max_connections: config.max_connections,
        grace: config.grace,
    };
    tokio::join!(
        service::http::serve_until_stop(&context, server, listener, router),
        run_jobs(context.clone(), pool)
    );
}

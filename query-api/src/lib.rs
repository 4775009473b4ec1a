//! The read side: questions about what was stored, over HTTP.
//!
//! In: requests. Out: readings, aggregates, devices, conflicts, dead letters and latencies,
//! from PostgreSQL ([`store::reads`]). Nothing here knows the queue. While PostgreSQL is
//! unavailable, requests get 503.

mod access;
mod aggregate;
mod comparison;
#[cfg(test)]
mod completeness_tests;
mod delete;
#[cfg(test)]
mod disconnect_tests;
mod error;
mod format;
mod history;
#[cfg(test)]
mod http_tests;
mod lists;
mod names;
pub mod openapi;
mod parameters;
mod performance;
#[cfg(test)]
mod period_tests;
mod readings;
#[cfg(test)]
mod readings_tests;
mod request_id;
mod resolution;
mod resources;
mod rollups;
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

pub use access::Access;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use service::log_limit::LogLimit;
use service::{ApiError, Context};
use store::Pool;
use store::reads::ReadError;
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
    /// Which requests are accepted.
    pub access: Access,
}

/// What the read side serves, for a request to another path.
const PATHS: &str = "this port serves /v1/readings, /v1/daily, /v1/latest, /v1/latency, \
                     /v1/conflicts, /v1/dead-letters, /v1/devices, /v1/components, /v1/kinds, \
                     /v1/types, /v1/customers, /v1/changes, /v1/imports and /v1/jobs; see /docs";

/// The routes for everybody, without a fallback.
pub fn routes(pool: Pool) -> Router {
    routes_until(CancellationToken::new(), pool, Access::Open)
}

/// The routes, without a fallback, so that they can be part of another port. Their tails end with
/// the stop signal.
///
/// `/v1/readings` has `GET` and `DELETE` only: a port that also accepts readings adds `POST`.
pub fn routes_until(stop: CancellationToken, pool: Pool, access: Access) -> Router {
    checked(paths(stop, pool), access)
}

/// Adds what every route has. The last layer is the first to see a request.
fn checked(router: Router, access: Access) -> Router {
    router
        .layer(from_fn(names::check))
        .layer(from_fn_with_state(access, access::check))
        .layer(from_fn(request_id::add))
}

fn paths(stop: CancellationToken, pool: Pool) -> Router {
    let tails = Router::new()
        .route("/v1/readings/tail", get(tail::get))
        .with_state(Arc::new(Tails::new(pool.clone(), stop)));
    Router::new()
        .route("/v1/readings/history", get(history::get))
        .route("/v1/daily", get(readings::get_daily))
        .route("/v1/components/{id}/performance", get(performance::get))
        .route("/v1/latest", get(lists::latest))
        .route("/v1/latency", get(lists::latency))
        .route("/v1/conflicts", get(lists::conflicts))
        .route("/v1/dead-letters", get(lists::dead_letters))
        .with_state(Arc::new(pool.clone()))
        .merge(resources::routes(pool.clone()))
        .merge(tails)
        .method_not_allowed_fallback(not_allowed)
        // A port that also accepts readings adds POST, and its own response to other methods.
        .merge(
            Router::new()
                .route("/v1/readings", get(readings::get).delete(delete::delete))
                .with_state(Arc::new(pool)),
        )
}

async fn not_allowed() -> ApiError {
    ApiError::MethodNotAllowed("this path does not support the method; see the header allow")
}

/// Time between two polls for work.
const WORK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two slices of work, in which others get a connection.
const SLICE_PAUSE: Duration = Duration::from_millis(5);

/// Works on jobs and roll-ups until the stop signal. A process that serves [`routes`] runs this
/// too.
pub async fn run_background_work(context: Context, pool: Pool) {
    let jobs = async || store::model::jobs::run_slice(&pool).await;
    let mut builder = rollups::Builder::new();
    tokio::join!(
        repeat(&context, "jobs", jobs),
        repeat(&context, "roll-ups", async || builder
            .run_slice(&pool)
            .await),
    );
}

/// Runs slices of work until the stop signal: one after the other while there is work.
async fn repeat(
    context: &Context,
    what: &'static str,
    mut slice: impl AsyncFnMut() -> Result<bool, ReadError>,
) {
    let failures = LogLimit::new();
    while !context.stop.is_cancelled() {
        let pause = match slice().await {
            Ok(true) => SLICE_PAUSE,
            Ok(false) => WORK_INTERVAL,
            Err(error) => {
                if let Some(failures) = failures.count() {
                    tracing::warn!(%error, failures, "{what} cannot be worked on");
                }
                WORK_INTERVAL
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
    let router = paths(context.stop.clone(), pool.clone())
        .merge(service::openapi::routes(&[openapi::api()]))
        .method_not_allowed_fallback(not_allowed)
        .fallback(async || ApiError::NotFound(PATHS));
    let router = checked(router, config.access);
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
        run_background_work(context.clone(), pool)
    );
}

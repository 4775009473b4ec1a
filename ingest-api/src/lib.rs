//! The front end: readings in over HTTP, batches out to a sink.
//!
//! ```text
//! read body (body) ▸ parse (format, timestamp) ▸ validate, resolve (readings, registry)
//!   ▸ coalesce ▸ sink
//! ```
//!
//! The front end resolves names from memory ([`registry`]) and does not wait for PostgreSQL, except
//! to register a name that nobody has registered. A reading that was accepted with 202 is durable
//! in the sink.

mod body;
pub mod coalesce;
pub mod format;
pub mod openapi;
mod query;
mod readings;
pub mod registry;
#[cfg(test)]
mod tests;
mod timestamp;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use schema::{Rejection, metric};
use service::health::Component;
use service::{ApiError, Context};
use store::Pool;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::Sink;

use crate::body::Bodies;
use crate::coalesce::Coalescer;
use crate::readings::Readings;
use crate::registry::Registry;
use crate::registry::refresh;
use crate::registry::register::Registrar;

/// How long batches, and registrations, of clients that have disconnected may take after the last
/// response.
const FINAL_WAIT: Duration = Duration::from_secs(1);
/// How much longer than the sink a request waits for its outcome.
const RESPONSE_MARGIN: Duration = Duration::from_secs(1);

/// What to do with readings of devices that are not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownDevices {
    /// Reject them.
    #[default]
    Reject,
    /// Register the device and the metric.
    Register,
}

impl FromStr for UnknownDevices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reject" => Ok(Self::Reject),
            "register" => Ok(Self::Register),
            _ => Err("expected 'reject' or 'register'".into()),
        }
    }
}

/// What the sink of a front end confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirms {
    /// Readings are on a queue: the response is 202.
    Enqueued,
    /// Readings are committed to PostgreSQL: the response is 201.
    Committed,
}

impl Confirms {
    const fn status(self) -> StatusCode {
        match self {
            Self::Enqueued => StatusCode::ACCEPTED,
            Self::Committed => StatusCode::CREATED,
        }
    }
}

/// How the front end behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`UnknownDevices`].
    pub unknown_devices: UnknownDevices,
    /// Upper bound on series in the registry, beyond which none is registered.
    pub max_series: usize,
    /// Upper bound on the length of a body in bytes, before and after decompression.
    pub max_body_bytes: usize,
    /// Upper bound on the memory of all bodies in flight, in bytes.
    pub body_budget_bytes: usize,
    /// Upper bound on open connections.
    pub max_connections: usize,
    /// See [`coalesce::Config`].
    pub coalesce: coalesce::Config,
    /// How far in the future a reading may be measured.
    pub future_tolerance: Duration,
    /// How old a reading may be; no age limit if `None`.
    pub horizon: Option<Duration>,
    /// What the sink confirms, which is what the response states.
    pub confirms: Confirms,
    /// How long requests in flight may take after the stop signal.
    pub grace: Duration,
}

/// Serves until the stop signal, then drains: stops accepting connections, and returns when every
/// batch has its outcome or the grace period is over. The caller closes the sink and the pool
/// afterwards. `more` has the further routes of the same port.
pub async fn run(
    context: Context,
    config: Config,
    listener: TcpListener,
    sink: Arc<dyn Sink>,
    pool: Pool,
    more: Router,
) {
    let registry = Arc::new(Registry::default());
    let refresh_stop = CancellationToken::new();
    let refreshing = tokio::spawn(refresh::run(
        registry.clone(),
        pool.clone(),
        context.health.component(Component::Registry),
        refresh_stop.clone(),
    ));
    let tasks = TaskTracker::new();
    let (readings, registering) = readings(&context, &config, registry, sink, pool, &tasks);
    let router = router(readings).merge(more);
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "accepting readings");
    }
    let server = service::http::Config {
        name: "readings",
        max_connections: config.max_connections,
        grace: config.grace,
    };
    service::http::serve_until_stop(&context, server, listener, router).await;

    // The router held the last coalescer and the last registrar. Their tasks finish their work and
    // end.
    tasks.close();
    if tokio::time::timeout(FINAL_WAIT, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "batches were still unconfirmed at shutdown; their clients got no 2xx response"
        );
    }
    if let Some(mut registering) = registering
        && tokio::time::timeout(FINAL_WAIT, &mut registering)
            .await
            .is_err()
    {
        // Registering is idempotent, and no client waits for it.
        registering.abort();
        let _ = registering.await;
    }
    refresh_stop.cancel();
    let _ = refreshing.await;
}

/// What the handler works with, and the task of the registrar. The coalescer is a task of `tasks`.
fn readings(
    context: &Context,
    config: &Config,
    registry: Arc<Registry>,
    sink: Arc<dyn Sink>,
    pool: Pool,
    tasks: &TaskTracker,
) -> (Readings, Option<JoinHandle<()>>) {
    let histograms = context.histograms.clone();
    let coalescer = Coalescer::start(config.coalesce.clone(), sink, histograms.clone(), tasks);
    let (registrar, registering) = match config.unknown_devices {
        UnknownDevices::Reject => (None, None),
        UnknownDevices::Register => {
            let started = Registrar::start(registry.clone(), pool, config.max_series);
            (Some(started.0), Some(started.1))
        }
    };
    // Each counter exists before its first event, so that a rate includes that event.
    for rejection in Rejection::ALL {
        let code = rejection.code();
        metrics::counter!(metric::REJECTED.name, metric::LABEL_CODE => code).increment(0);
    }
    for reason in ["full", "registry"] {
        let name = metric::UNAVAILABLE.name;
        metrics::counter!(name, metric::LABEL_REASON => reason).increment(0);
    }
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let readings = Readings {
        bodies: Bodies::new(config.max_body_bytes, config.body_budget_bytes),
        registry,
        registrar,
        max_series: config.max_series,
        coalescer,
        future_tolerance: micros(config.future_tolerance),
        horizon: config.horizon.map(micros),
        response_timeout: config.coalesce.deliver_timeout + RESPONSE_MARGIN,
        success: config.confirms.status(),
        histograms,
        received: metrics::counter!(metric::RECEIVED.name),
    };
    (readings, registering)
}

/// What the port serves, for a request to another path.
const PATHS: &str = "send readings to /v1/readings; /docs lists all paths of this port; in a path, \
                     write %2F for a / in a name";

fn router(readings: Readings) -> Router {
    let not_allowed = || async { ApiError::MethodNotAllowed("send readings with POST") };
    let not_found = || async { ApiError::NotFound(PATHS) };
    Router::new()
        .route("/v1/readings", post(readings::post).fallback(not_allowed))
        .fallback(not_found)
        .with_state(Arc::new(readings))
}

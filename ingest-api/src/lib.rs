//! Gridwatch's front door: readings in over HTTP, batches out to a sink.
//!
//! ```text
//! decode (body, format, timestamp) ▸ validate, resolve (readings, registry) ▸ coalesce ▸ sink
//! ```
//!
//! The front end never waits for PostgreSQL on the way of a reading: names are resolved from memory ([`registry`]), and
//! only a name that is new to everyone is asked about. What answers 202 is durable in the sink.

pub mod amqp_sink;
pub mod body;
pub mod coalesce;
pub mod failover;
pub mod format;
pub mod readings;
pub mod registry;
pub mod timestamp;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use deadpool_postgres::Pool;
use metrics::Counter;
use schema::metric;
use service::health::Health;
use service::metrics::Histograms;
use service::problem::Problem;
use service::sink::Sink;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Bodies;
use crate::coalesce::Coalescer;
use crate::readings::Readings;
use crate::registry::register::Registrar;
use crate::registry::{Registry, follow};

/// How long batches of clients that have gone may still take at the end, beyond the grace period.
const SETTLE: Duration = Duration::from_secs(1);

/// What happens to readings of devices that are not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownDevices {
    /// They are rejected.
    #[default]
    Reject,
    /// They are registered, with the metric.
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

/// How the front end behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`UnknownDevices`].
    pub unknown_devices: UnknownDevices,
    /// Most series that registering may fill the registry with.
    pub max_series: usize,
    /// Longest body in bytes, before and after decompression.
    pub max_body_bytes: usize,
    /// Budget of all bodies under way together, in bytes.
    pub body_budget_bytes: usize,
    /// Most connections at a time.
    pub max_connections: usize,
    /// See [`coalesce::Config`].
    pub coalesce: coalesce::Config,
    /// How far ahead of our clock a reading may be.
    pub future_tolerance: Duration,
    /// How far behind our clock a reading may be; without one any age is welcome.
    pub horizon: Option<Duration>,
    /// Whether the sink's word means that readings are in PostgreSQL: they are answered 201 then, and 202 otherwise.
    pub stored: bool,
    /// How long requests and batches under way may take to finish after the stop signal.
    pub grace: Duration,
}

/// Serves until `stop`, then drains: takes no further connection, lets the requests under way finish, and returns when
/// every batch has had its answer or the grace period is over. The caller closes the sink and the pool afterwards.
///
/// # Errors
/// None at present; the signature leaves room for fatal ones.
pub async fn run(
    config: Config,
    listener: TcpListener,
    sink: Arc<dyn Sink>,
    pool: Pool,
    health: Health,
    histograms: Arc<Histograms>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let registry = Arc::new(Registry::default());
    let followed = CancellationToken::new();
    let follower = tokio::spawn(follow::run(
        registry.clone(),
        pool.clone(),
        health.part("database"),
        followed.clone(),
    ));

    let tasks = TaskTracker::new();
    let coalescer = Coalescer::start(config.coalesce.clone(), sink, histograms.clone(), &tasks);
    let registrar = match config.unknown_devices {
        UnknownDevices::Reject => None,
        UnknownDevices::Register => {
            Some(Registrar::start(registry.clone(), pool, config.max_series))
        }
    };
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let readings = Arc::new(Readings {
        bodies: Bodies::new(config.max_body_bytes, config.body_budget_bytes),
        registry,
        registrar,
        coalescer,
        future_tolerance: micros(config.future_tolerance),
        horizon: config.horizon.map(micros),
        // The sink has its whole time, and a little to answer in.
        answer_timeout: config.coalesce.deliver_timeout + Duration::from_secs(1),
        success: if config.stored {
            StatusCode::CREATED
        } else {
            StatusCode::ACCEPTED
        },
        histograms,
        received: metrics::counter!(metric::RECEIVED.name),
    });
    {
        let health = health.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            health.drain();
        });
    }
    tracing::info!(address = ?listener.local_addr().ok(), "taking readings");
    let statuses = Arc::new(Statuses::default());
    let answered = move |status| statuses.count(status);
    service::http::serve(
        listener,
        router(readings),
        answered,
        config.max_connections,
        config.grace,
        stop,
    )
    .await;

    // The last coalescer went with the router: what it holds is delivered, and then its task ends.
    tasks.close();
    // Every request that could be answered was: what is still unconfirmed was promised to nobody.
    if tokio::time::timeout(SETTLE, tasks.wait()).await.is_err() {
        tracing::warn!("batches were still unconfirmed at the end; no one was told 202 for them");
    }
    followed.cancel();
    let _ = follower.await;
    Ok(())
}

fn router(readings: Arc<Readings>) -> Router {
    let not_allowed = || async {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "readings are sent with POST",
        )
    };
    let not_found = || async {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "readings are sent to /v1/readings",
        )
    };
    Router::new()
        .route("/v1/readings", post(readings::post).fallback(not_allowed))
        .fallback(not_found)
        .with_state(readings)
}

/// Counters of answers, one a status, made once.
struct Statuses(Vec<(StatusCode, Counter)>);

impl Default for Statuses {
    fn default() -> Self {
        let codes = [201, 202, 400, 404, 405, 408, 413, 415, 422, 500, 503].into_iter();
        let counter = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap_or_default();
            (
                status,
                metrics::counter!(metric::HTTP_REQUESTS.name, metric::LABEL_STATUS => code.to_string()),
            )
        };
        Self(codes.map(counter).collect())
    }
}

impl Statuses {
    fn count(&self, answered: StatusCode) {
        if let Some((_, counter)) = self.0.iter().find(|(status, _)| *status == answered) {
            counter.increment(1);
        }
    }
}

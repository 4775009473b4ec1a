//! HTTP in: accepts connections and serves a router, with bounds that `axum::serve` does not have.
//!
//! In: connections of a listener. Out: responses, each counted by status, and each error by code.
//! At the limit of connections further ones wait in the listener's backlog.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::Counter;
use schema::metric;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api_error::ErrorCode;

/// How long a request head may take to arrive, and how long an idle connection stays open: longer
/// than the minute between two readings of a meter.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept; the most frequent cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How one listener is served.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The value of the metric label `listener`.
    pub name: &'static str,
    /// Upper bound on open connections.
    pub max_connections: usize,
    /// How long requests in flight may take after the stop signal.
    pub grace: Duration,
}

/// Serves `router` until `stop`; then closes the listener and waits for the requests in flight, for
/// at most the grace period.
pub async fn serve(config: Config, listener: TcpListener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let connections = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    let counters = Arc::new(ResponseCounters::new(config.name));
    let router = TowerToHyperService::new(router);
    // This is not a layer of the router, because each layer boxes every request.
    let service = service_fn(move |request| {
        let (response, counters) = (router.call(request), counters.clone());
        async move {
            response
                .await
                .inspect(|response| counters.increment(response))
        }
    });
    loop {
        let accepted = stop.run_until_cancelled(async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        });
        let (slot, stream) = match accepted.await {
            None => break,
            Some((slot, Ok((stream, _)))) => (slot, stream),
            Some((_, Err(error))) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Responses are small and must not wait for a full packet.
        let _ = stream.set_nodelay(true);
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        let connection = server.serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    let drained = async {
        connections.shutdown().await;
        tasks.wait().await;
    };
    if tokio::time::timeout(config.grace, drained).await.is_err() {
        let grace_seconds = config.grace.as_secs();
        tracing::warn!(
            grace_seconds,
            "requests were still in flight at the end of the grace period"
        );
    }
}

/// First status code; the last one is 999.
const FIRST_STATUS: usize = 100;

/// Counters of one listener, one for each status that occurred. Made on first use, so that counting
/// a response is one atomic addition.
struct ResponseCounters {
    listener: &'static str,
    by_status: Vec<OnceLock<Counter>>,
}

impl ResponseCounters {
    fn new(listener: &'static str) -> Self {
        let by_status = (FIRST_STATUS..1_000).map(|_| OnceLock::new()).collect();
        Self {
            listener,
            by_status,
        }
    }

    fn increment(&self, response: &Response) {
        let status = response.status().as_u16();
        let index = usize::from(status).saturating_sub(FIRST_STATUS);
        if let Some(counter) = self.by_status.get(index) {
            let make = || {
                metrics::counter!(
                    metric::HTTP_REQUESTS.name,
                    metric::LABEL_LISTENER => self.listener,
                    metric::LABEL_STATUS => status.to_string()
                )
            };
            counter.get_or_init(make).increment(1);
        }
        if let Some(ErrorCode(code)) = response.extensions().get() {
            metrics::counter!(
                metric::HTTP_ERRORS.name,
                metric::LABEL_LISTENER => self.listener,
                metric::LABEL_CODE => *code
            )
            .increment(1);
        }
    }
}

//! HTTP in: accepts connections and serves a router, with a bound on connections and on the time a head may take.
//!
//! `axum::serve` has neither bound; this is its loop with both.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long the head of a request may take, and how long an idle connection is kept: longer than the minute between two
/// readings of a meter.
const HEAD: Duration = Duration::from_secs(75);
/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `stop`; then takes no further connection and lets the requests under way finish, for at most
/// `grace`. At `max_connections` further ones wait in the listener's backlog. `answered` hears the status of every answer.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    answered: impl Fn(StatusCode) + Clone + Send + Sync + 'static,
    max_connections: usize,
    grace: Duration,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(max_connections));
    let connections = GracefulShutdown::new();
    let router = TowerToHyperService::new(router);
    // Not a layer of the router: those put every request into a box or two.
    let service = service_fn(move |request| {
        let (answer, answered) = (router.call(request), answered.clone());
        async move { answer.await.inspect(|answer| answered(answer.status())) }
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
        // Answers are small and must not wait for a full packet.
        let _ = stream.set_nodelay(true);
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let connection =
            connections.watch(server.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            grace_seconds = grace.as_secs(),
            "requests were still under way at the end of the grace period"
        );
    }
}

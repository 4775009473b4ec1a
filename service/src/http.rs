//! HTTP in: accepts connections and serves a router, with bounds that `axum::serve` does not have.
//!
//! In: connections of a listener. Out: responses, each counted by status, and each error by code.
//! At the limit of connections further ones wait in the listener's backlog.

mod connection;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The routes of a listener.
pub use axum::Router;
use axum::response::Response;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use metrics::Counter;
use schema::metric;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Context;
use crate::api_error::{CODES, ErrorCode};

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
    let tasks = TaskTracker::new();
    let counters = Arc::new(ResponseCounters::new(config.name));
    let router = TowerToHyperService::new(router);
    // This is not a layer of the router, because each layer boxes every request.
    let service = {
        let counters = counters.clone();
        service_fn(move |request| {
            let (response, counters) = (router.call(request), counters.clone());
            async move {
                response
                    .await
                    .inspect(|response| counters.count_response(response))
            }
        })
    };
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
        // Each connection has a token of its own: they do not share its lock.
        let (service, stop, counters) = (service.clone(), stop.child_token(), counters.clone());
        tasks.spawn(async move {
            connection::serve(stream, service, HEAD_TIMEOUT, stop, &counters).await;
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(config.grace, tasks.wait())
        .await
        .is_err()
    {
        let grace_seconds = config.grace.as_secs();
        tracing::warn!(
            grace_seconds,
            "requests were still in flight at the end of the grace period"
        );
    }
}

/// As [`serve`], until the stop signal of the process, which is also when it becomes unready.
pub async fn serve_until_stop(
    context: &Context,
    config: Config,
    listener: TcpListener,
    router: Router,
) {
    let drain = async {
        context.stop.cancelled().await;
        context.health.begin_drain();
    };
    tokio::join!(serve(config, listener, router, context.stop.clone()), drain);
}

/// First status code; the last one is 999.
const FIRST_STATUS: usize = 100;
/// The statuses that Gridwatch responds with. Their counters exist from the start, so that a rate
/// includes the first response.
const STATUSES: [u16; 19] = [
    200, 201, 202, 400, 403, 404, 405, 406, 408, 409, 412, 413, 414, 415, 422, 431, 500, 503, 504,
];

/// Counters of one listener. Each is made once, so that counting is one atomic addition.
struct ResponseCounters {
    listener: &'static str,
    by_status: Vec<OnceLock<Counter>>,
    by_code: Vec<(&'static str, Counter)>,
}

impl ResponseCounters {
    fn new(listener: &'static str) -> Self {
        let by_code = |code| {
            let name = metric::HTTP_ERRORS.name;
            let counter = metrics::counter!(
                name, metric::LABEL_LISTENER => listener, metric::LABEL_CODE => code
            );
            (code, counter)
        };
        let counters = Self {
            listener,
            by_status: (FIRST_STATUS..1_000).map(|_| OnceLock::new()).collect(),
            by_code: CODES.into_iter().map(by_code).collect(),
        };
        for status in STATUSES {
            counters.by_status(status);
        }
        counters
    }

    fn by_status(&self, status: u16) -> Option<&Counter> {
        let index = usize::from(status).checked_sub(FIRST_STATUS)?;
        let counter = self.by_status.get(index)?;
        Some(counter.get_or_init(|| {
            let (name, status) = (metric::HTTP_REQUESTS.name, status.to_string());
            metrics::counter!(
                name, metric::LABEL_LISTENER => self.listener, metric::LABEL_STATUS => status
            )
        }))
    }

    fn count_response(&self, response: &Response) {
        if let Some(counter) = self.by_status(response.status().as_u16()) {
            counter.increment(1);
        }
        if let Some(ErrorCode(code)) = response.extensions().get() {
            self.count_error(code);
        }
    }

    fn count_error(&self, code: &str) {
        if let Some((_, counter)) = self.by_code.iter().find(|(own, _)| *own == code) {
            counter.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use axum::routing::get;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::ApiError;

    async fn start(
        max_connections: usize,
        router: Router,
    ) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config {
            name: "test",
            max_connections,
            grace: Duration::from_secs(60),
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(config, listener, router, stop.clone()));
        (address, stop, serving)
    }

    /// Sends a request on an open connection and returns the status line of the response.
    async fn request(connection: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        read_response(connection).await
    }

    /// Reads a response with an empty body, or the beginning of another one.
    async fn read_response(connection: &mut TcpStream) -> String {
        let mut response = Vec::new();
        while !response.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = connection.read_buf(&mut response).await.unwrap();
            assert!(read > 0, "the connection was closed");
        }
        let response = String::from_utf8_lossy(&response);
        response.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_waits_until_another_one_is_closed() {
        let served = Arc::new(AtomicUsize::new(0));
        let counter = served.clone();
        let handler = move || {
            counter.fetch_add(1, SeqCst);
            std::future::ready(())
        };
        let (address, stop, serving) = start(1, Router::new().route("/", get(handler))).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        request(&mut first, "/").await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let pending = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
        second.write_all(pending).await.unwrap();
        for _ in 0..100 {
            request(&mut first, "/").await;
        }
        assert_eq!(served.load(SeqCst), 101, "the second connection was served");
        drop(first);
        read_response(&mut second).await;
        assert_eq!(served.load(SeqCst), 102);
        drop(second);
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn every_response_is_counted_by_listener_and_status_and_errors_by_code() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let _local = metrics::set_default_local_recorder(&recorder);
        let router = Router::new()
            .route("/", get(|| async {}))
            .route(
                "/teapot",
                get(|| async { axum::http::StatusCode::IM_A_TEAPOT }),
            )
            .fallback(|| async { ApiError::NotFound("hint") });
        let (address, stop, serving) = start(9, router).await;
        for (path, status) in [
            ("/", "200"),
            ("/teapot", "418"),
            ("/x", "404"),
            ("/y", "404"),
        ] {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let line = request(&mut connection, path).await;
            assert!(line.contains(status), "{path}: {line}");
        }
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection
            .write_all(b"this is not HTTP\r\n\r\n")
            .await
            .unwrap();
        let line = read_response(&mut connection).await;
        assert!(line.contains("400"), "{line}");
        stop.cancel();
        serving.await.unwrap();
        let rendered = handle.render();
        for expected in [
            "gridwatch_http_requests_total{listener=\"test\",status=\"200\"} 1",
            "gridwatch_http_requests_total{listener=\"test\",status=\"418\"} 1",
            "gridwatch_http_requests_total{listener=\"test\",status=\"404\"} 2",
            "gridwatch_http_errors_total{listener=\"test\",code=\"not_found\"} 2",
            "gridwatch_http_errors_total{listener=\"test\",code=\"bad_request_head\"} 1",
            "gridwatch_http_requests_total{listener=\"test\",status=\"503\"} 0",
            "gridwatch_http_errors_total{listener=\"test\",code=\"overloaded\"} 0",
        ] {
            assert!(
                rendered.contains(expected),
                "{expected} is not in:\n{rendered}"
            );
        }
    }
}

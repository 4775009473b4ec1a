//! The front end of a test.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use schema::{clock, metric};
use serde_json::{Value, json};
use service::Context;
use service::health::{Component, Health};
use store::registry::Device;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use transport::testing::{Counters, RecordingSink, SentBatches, within_limit};

use crate::registry::{Freshness, Registry};
use crate::{Config, Confirms, UnknownDevices, coalesce};

/// Longest body in bytes.
pub(super) const MAX_BODY: usize = 250_000;

/// A registered device with the metric `p`, and a registered device that is inactive.
pub(super) const METER: &str = "meter-1";
pub(super) const INACTIVE: &str = "meter-off";

/// Name and value of a header.
pub(super) type Header = (&'static str, &'static str);

/// The front end, and what it counts.
pub(super) struct FrontEnd {
    router: Router,
    pub sent: Option<SentBatches>,
    counters: Counters,
}

/// What a test changes of a front end.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub unknown_devices: UnknownDevices,
    pub freshness: Freshness,
    pub response_timeout: Option<Duration>,
    pub horizon: Option<Duration>,
    pub confirms: Confirms,
    pub max_pending: usize,
    pub max_body: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            unknown_devices: UnknownDevices::Reject,
            freshness: Freshness::Fresh,
            response_timeout: None,
            horizon: None,
            confirms: Confirms::Enqueued,
            max_pending: 20_000,
            max_body: MAX_BODY,
        }
    }
}

/// A front end that rejects readings older than 30 days.
pub(super) fn with_horizon() -> Setup {
    Setup {
        horizon: Some(Duration::from_secs(30 * 86_400)),
        ..Setup::default()
    }
}

impl Setup {
    pub(super) fn start(self) -> FrontEnd {
        let counters = Counters::record();
        let (sink, sent) = RecordingSink::new();
        let config = Config {
            unknown_devices: self.unknown_devices,
            max_series: 10,
            max_body_bytes: self.max_body,
            body_budget_bytes: 0,
            max_connections: 1,
            coalesce: coalesce::Config {
                max_in_flight: 4,
                max_pending: self.max_pending,
                deliver_timeout: Duration::from_secs(10),
            },
            future_tolerance: Duration::from_secs(300),
            horizon: self.horizon,
            confirms: self.confirms,
            grace: Duration::ZERO,
        };
        let context = Context {
            health: Health::new(&[Component::Registry]),
            histograms: Arc::default(),
            stop: CancellationToken::new(),
        };
        // Nothing listens there.
        let pool = store::testing::pool("postgres://gridwatch@127.0.0.1:1/none", 1);
        let registry = registry(self.freshness);
        let tasks = TaskTracker::new();
        let (mut readings, _registering) =
            crate::readings(&context, &config, registry, sink, pool, &tasks);
        if let Some(timeout) = self.response_timeout {
            readings.response_timeout = timeout;
        }
        FrontEnd {
            router: crate::router(readings),
            sent: Some(sent),
            counters,
        }
    }
}

/// A registry in this state. An empty one has no names.
fn registry(freshness: Freshness) -> Arc<Registry> {
    let registry = Arc::new(Registry::default());
    let device = |id, name: &str, active| Device {
        id,
        name: name.into(),
        active,
        series: vec![("p".into(), id * 10)],
    };
    if freshness != Freshness::Empty {
        registry.update(vec![device(1, METER, true), device(2, INACTIVE, false)]);
        registry.set_reachable(true);
    }
    if freshness != Freshness::Fresh {
        registry.set_reachable(false);
    }
    assert_eq!(registry.freshness(), freshness);
    registry
}

/// A response with its body.
#[derive(Debug)]
pub(super) struct JsonResponse {
    pub status: u16,
    pub body: Value,
}

impl JsonResponse {
    async fn read(response: Response<Body>) -> Self {
        let status = response.status();
        let headers = response.headers().clone();
        let content_type = if status.is_success() {
            "application/json"
        } else {
            "application/problem+json"
        };
        assert_eq!(headers[header::CONTENT_TYPE], content_type, "{status}");
        let has_retry_after = headers.contains_key(header::RETRY_AFTER);
        let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(has_retry_after, is_unavailable, "{status}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Self {
            status: status.as_u16(),
            body: serde_json::from_slice(&body).unwrap(),
        }
    }

    /// The code of an error; `None` for a success.
    pub(super) fn code(&self) -> Option<&str> {
        self.body["code"].as_str()
    }

    /// `accepted`, `rejected` and `unavailable`; 0 for a member that is absent.
    pub(super) fn counts(&self) -> [u64; 3] {
        ["accepted", "rejected", "unavailable"].map(|name| self.body[name].as_u64().unwrap_or(0))
    }

    /// Index and code of each rejected reading.
    pub(super) fn errors(&self) -> Vec<(u64, &str)> {
        let errors = self.body["errors"].as_array();
        errors
            .into_iter()
            .flatten()
            .map(|error| {
                (
                    error["index"].as_u64().unwrap(),
                    error["code"].as_str().unwrap(),
                )
            })
            .collect()
    }
}

impl FrontEnd {
    /// Sends a request and waits for its response.
    pub(super) fn send<B: Into<Body>>(
        &self,
        method: &str,
        uri: &str,
        headers: &[Header],
        body: B,
    ) -> impl Future<Output = JsonResponse> + use<B> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request);
        async move { JsonResponse::read(response.await.unwrap()).await }
    }

    /// Sends bytes over a connection of its own, closes its writing half, and returns what the
    /// server sends.
    pub(super) async fn exchange(&self, bytes: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let config = service::http::Config {
            name: "test",
            max_connections: 1,
            grace: Duration::ZERO,
        };
        let stop = CancellationToken::new();
        let serving = service::http::serve(config, listener, self.router.clone(), stop.clone());
        let talking = async {
            client.write_all(bytes.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut received = String::new();
            client.read_to_string(&mut received).await.unwrap();
            stop.cancel();
            received
        };
        let both = async { tokio::join!(serving, talking).1 };
        within_limit("the server closes the connection", both).await
    }

    /// Sends readings as JSON.
    pub(super) async fn post(&self, query: &str, body: &Value) -> JsonResponse {
        let uri = format!("/v1/readings{query}");
        self.send("POST", &uri, &[], body.to_string()).await
    }

    /// The sum of a counter over all labels.
    pub(super) fn counted(&self, metric: metric::Metric) -> u64 {
        self.counters.sum(metric.name, &[])
    }

    /// Readings that were counted as unavailable for this reason.
    pub(super) fn unavailable(&self, reason: &str) -> u64 {
        let labels = [(metric::LABEL_REASON, reason)];
        self.counters.sum(metric::UNAVAILABLE.name, &labels)
    }

    /// Asserts that the counters balance: each reading is counted once.
    pub(super) fn assert_books(&self, what: &str) {
        let [received, accepted, rejected, unavailable] = [
            metric::RECEIVED,
            metric::ACCEPTED,
            metric::REJECTED,
            metric::UNAVAILABLE,
        ]
        .map(|metric| self.counted(metric));
        assert_eq!(
            received,
            accepted + rejected + unavailable,
            "{what}: accepted {accepted}, rejected {rejected}, unavailable {unavailable}"
        );
    }
}

/// A reading of now.
pub(super) fn reading(device: &str, metric: &str) -> Value {
    at(device, metric, clock::now() / 1_000_000)
}

/// A reading of this second.
pub(super) fn at(device: &str, metric: &str, second: i64) -> Value {
    json!({"device": device, "metric": metric, "value": 1.5, "measured_at": second})
}

/// A reading without a time of its own.
pub(super) fn untimed(device: &str, metric: &str) -> Value {
    json!({"device": device, "metric": metric, "value": 1.5})
}

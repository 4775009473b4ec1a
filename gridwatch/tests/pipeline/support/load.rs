//! Readings to send, and clients that send them.
//!
//! In: a front end's address. Out: HTTP requests, and a record of each request with whether it was
//! accepted. A request that fails is recorded as not accepted, and its readings are not sent again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use testbed::wait::until_async;
use tokio::task::JoinHandle;

use super::{Client, LIMIT, Response, Site};

/// 2026-11-01T00:00:00Z in microseconds; the readings of the tests are measured from here on.
pub(crate) const BEGIN: i64 = 1_793_491_200_000_000;

/// The header of a JSON body.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Part of the load and no wait for anything: it bounds the requests that fail at once, each of
/// which is recorded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A reading as JSON, measured `at` seconds after [`BEGIN`].
pub(crate) fn reading(device: &str, metric: &str, at: i64, value: f64) -> Value {
    let measured_at = BEGIN / 1_000_000 + at;
    json!({"device": device, "metric": metric, "value": value, "measured_at": measured_at})
}

/// A client whose requests time out after a minute.
pub(crate) fn http_client() -> Client {
    Client::new(Duration::from_secs(60))
}

/// Sends `POST /v1/readings` to the front end at `listen` (`host:port`). `query` is empty or starts
/// with a question mark.
pub(crate) async fn post_readings(
    client: &Client,
    listen: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Response> {
    let uri = format!("http://{listen}/v1/readings{query}").parse()?;
    Ok(client.post(uri, headers, body.into()).await?)
}

/// Clients that send requests one after the other, each reading once, until they are stopped.
pub(crate) struct LoadClients {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<SentRequest>>>,
}

/// A request: `count` readings of a device from second `first` on. The value of each reading is its
/// second.
pub(crate) struct SentRequest {
    pub device: String,
    pub first: i64,
    pub count: i64,
    pub accepted: bool,
}

impl SentRequest {
    /// A request with one reading of a device.
    pub(crate) fn of_one(device: &str, at: i64, accepted: bool) -> Self {
        Self {
            device: device.to_owned(),
            first: at,
            count: 1,
            accepted,
        }
    }
}

impl LoadClients {
    /// Starts this many clients of a site; each request has `batch` readings.
    pub(crate) fn start(site: &Site, clients: usize, batch: i64) -> Self {
        Self::start_on(&site.listen, "load", clients, batch)
    }

    /// As [`LoadClients::start`], for a front end and for devices whose names start with `prefix`.
    pub(crate) fn start_on(listen: &str, prefix: &str, clients: usize, batch: i64) -> Self {
        let http = http_client();
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicU64::new(0));
        let client = |number: usize| {
            let (stop, accepted, client) = (stop.clone(), accepted.clone(), http.clone());
            let (listen, device) = (listen.to_owned(), format!("{prefix}-{number}"));
            tokio::spawn(async move {
                let mut sent = Vec::new();
                let mut first = 0;
                while !stop.load(Ordering::Relaxed) {
                    let readings: Vec<Value> = (first..first + batch)
                        .map(|at| reading(&device, "power", at, at as f64))
                        .collect();
                    let body = serde_json::to_vec(&readings).unwrap();
                    let response = post_readings(&client, &listen, "", &[JSON], body).await;
                    let ok = response.is_ok_and(|response| response.status.is_success());
                    if ok {
                        accepted.fetch_add(batch as u64, Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    }
                    sent.push(SentRequest {
                        device: device.clone(),
                        first,
                        count: batch,
                        accepted: ok,
                    });
                    first += batch;
                }
                sent
            })
        };
        Self {
            clients: (0..clients).map(client).collect(),
            stop,
            accepted,
        }
    }

    /// Readings that were accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until this many more readings were accepted.
    pub(crate) async fn wait_accepted(&self, more: u64) {
        let goal = self.accepted() + more;
        until_async(
            &format!("{goal} readings are accepted"),
            LIMIT,
            async || self.accepted() >= goal,
        )
        .await;
    }

    /// Stops the clients and returns all of their requests.
    pub(crate) async fn stop(self) -> Vec<SentRequest> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for client in self.clients {
            sent.extend(client.await.unwrap());
        }
        sent
    }
}

/// `data/meterusage.csv`, if it is beside the checkout.
pub(crate) fn meter_file() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/meterusage.csv");
    file.is_file().then_some(file)
}

//! Metrics of Gridwatch's processes: counters, stage times and CPU time, from `/metrics` on their
//! admin ports.
//!
//! In: addresses of admin ports. Out: a [`Snapshot`] with the sums over all processes. A process
//! that does not respond is an error that names its address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, Uri};
use schema::clock::Stage;
use schema::metric::{self, Metric};
use schema::prometheus::{Histogram, parse, sum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http;

/// Time limit for the response of a process.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest text of metrics, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The books: the counters of readings, summed over the processes. They balance when every accepted
/// reading is processed: `accepted = persisted + duplicate + conflict + dead_lettered`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Books {
    /// Confirmed as durable by the front ends.
    pub accepted: f64,
    /// Rejected by the front ends; not to be retried.
    pub rejected: f64,
    /// Rejected with 503, or the client disconnected.
    pub unavailable: f64,
    /// Those of `unavailable` that may be stored nevertheless.
    pub unconfirmed: f64,
    /// Committed to the table.
    pub persisted: f64,
    /// Already stored.
    pub duplicate: f64,
    /// Already stored with another value.
    pub conflict: f64,
    /// Stored in the table `dead_letter`.
    pub dead_lettered: f64,
}

impl Books {
    /// Readings that the worker has processed.
    pub(crate) fn processed(&self) -> f64 {
        self.persisted + self.duplicate + self.conflict + self.dead_lettered
    }

    /// Readings that are accepted and not processed yet.
    pub(crate) fn backlog(&self) -> f64 {
        (self.accepted - self.processed()).max(0.0)
    }

    /// The counts since an earlier scrape.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            accepted: self.accepted - earlier.accepted,
            rejected: self.rejected - earlier.rejected,
            unavailable: self.unavailable - earlier.unavailable,
            unconfirmed: self.unconfirmed - earlier.unconfirmed,
            persisted: self.persisted - earlier.persisted,
            duplicate: self.duplicate - earlier.duplicate,
            conflict: self.conflict - earlier.conflict,
            dead_lettered: self.dead_lettered - earlier.dead_lettered,
        }
    }
}

/// Times of a stage in milliseconds, with the precision of the histogram's buckets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTimes {
    /// The `stage` label, such as `measured_to_received`.
    pub stage: String,
    /// Number of readings.
    pub readings: u64,
    /// The mean.
    pub mean: f64,
    /// The median, interpolated within its bucket.
    pub p50: f64,
    /// The 99th percentile, interpolated within its bucket.
    pub p99: f64,
}

/// The metrics of all processes at one time.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The counters of readings.
    pub(crate) books: Books,
    /// Readings accepted by each process, in the order of the addresses.
    pub(crate) accepted: Vec<f64>,
    /// CPU-seconds of each process, in the order of the addresses.
    pub(crate) cpu: Vec<f64>,
    /// Resident memory of each process in MiB.
    pub(crate) memory: Vec<f64>,
    /// Program and version of the processes, such as `gridwatch 0.1.0`.
    pub(crate) versions: BTreeSet<String>,
    stages: BTreeMap<&'static str, Histogram>,
}

/// Scrapes the processes at these admin addresses.
///
/// # Errors
/// A process does not respond.
pub async fn scrape(addresses: &[String]) -> anyhow::Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    for address in addresses {
        let text = tokio::time::timeout(TIMEOUT, get_metrics(address)).await;
        let text = text
            .context("no response in time")
            .flatten()
            .with_context(|| format!("admin port {address}"))?;
        snapshot.add(&text);
    }
    Ok(snapshot)
}

/// The address in a URL such as `http://127.0.0.1:8081`, or in `HOST:PORT`.
///
/// # Errors
/// The text is neither.
pub fn parse_address(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.split('/').next().unwrap_or_default();
    let is_valid = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    if address.rsplit_once(':').is_some_and(is_valid) {
        Ok(address.to_owned())
    } else {
        Err("expected HOST:PORT, such as 127.0.0.1:8081".into())
    }
}

async fn get_metrics(address: &str) -> anyhow::Result<String> {
    let mut sender = http::connect(address).await?;
    let mut request = Request::default();
    *request.uri_mut() = Uri::from_static("/metrics");
    request.headers_mut().insert("host", address.parse()?);
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status.is_success(), "the response has status {status}");
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

impl Snapshot {
    /// Adds the metrics of one process.
    fn add(&mut self, text: &str) {
        let samples = parse(text);
        let total = |metric: Metric| sum(&samples, metric.name, &[]);
        let unconfirmed = [(metric::LABEL_REASON, "unconfirmed")];
        let books = &mut self.books;
        books.accepted += total(metric::ACCEPTED);
        books.rejected += total(metric::REJECTED);
        books.unavailable += total(metric::UNAVAILABLE);
        books.unconfirmed += sum(&samples, metric::UNAVAILABLE.name, &unconfirmed);
        books.persisted += total(metric::PERSISTED);
        books.duplicate += total(metric::DUPLICATE);
        books.conflict += total(metric::CONFLICT);
        books.dead_lettered += total(metric::DEAD_LETTERED);
        let build_infos = samples
            .iter()
            .filter(|sample| sample.name == metric::BUILD_INFO.name);
        self.versions.extend(
            build_infos
                .filter_map(|info| info.label(metric::LABEL_VERSION))
                .map(|version| format!("gridwatch {version}")),
        );
        self.accepted.push(total(metric::ACCEPTED));
        self.cpu
            .push(sum(&samples, "process_cpu_seconds_total", &[]));
        let memory = sum(&samples, "process_resident_memory_bytes", &[]);
        self.memory.push(memory / 1024.0 / 1024.0);
        for stage in Stage::ALL {
            let label = [(metric::LABEL_STAGE, stage.label())];
            let histogram = Histogram::of(&samples, metric::STAGE_SECONDS.name, &label);
            self.stages
                .entry(stage.label())
                .or_default()
                .add(&histogram);
        }
    }

    /// The times of each stage since an earlier snapshot. Stages without readings are left out.
    pub(crate) fn stages_since(&self, earlier: &Self) -> Vec<StageTimes> {
        let times = |stage: Stage| {
            let mut histogram = self.stages.get(stage.label())?.clone();
            if let Some(earlier) = earlier.stages.get(stage.label()) {
                histogram = histogram.since(earlier);
            }
            Some(StageTimes {
                stage: stage.label().to_owned(),
                readings: histogram.count() as u64,
                mean: histogram.mean()? * 1e3,
                p50: histogram.quantile(0.5)? * 1e3,
                p99: histogram.quantile(0.99)? * 1e3,
            })
        };
        Stage::ALL.into_iter().filter_map(times).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# HELP x y
gridwatch_readings_accepted_total 10
gridwatch_readings_unavailable_total{reason="full"} 3
gridwatch_readings_unavailable_total{reason="unconfirmed"} 2
process_cpu_seconds_total 1.5
gridwatch_stage_seconds_bucket{stage="received_to_enqueued",le="0.001"} 50
gridwatch_stage_seconds_bucket{stage="received_to_enqueued",le="0.01"} 100
gridwatch_stage_seconds_bucket{stage="received_to_enqueued",le="+Inf"} 100
gridwatch_stage_seconds_sum{stage="received_to_enqueued"} 0.5
"#;

    #[test]
    fn counters_and_stages_of_several_processes_are_summed() {
        let mut snapshot = Snapshot::default();
        snapshot.add(METRICS);
        let earlier = snapshot.clone();
        snapshot.add(METRICS);
        assert_eq!(
            (
                snapshot.books.accepted,
                snapshot.books.unavailable,
                snapshot.books.unconfirmed
            ),
            (20.0, 10.0, 4.0)
        );
        assert_eq!(snapshot.cpu, [1.5, 1.5]);
        let stages = snapshot.stages_since(&earlier);
        assert_eq!(
            (
                stages.len(),
                stages[0].readings,
                stages[0].mean,
                stages[0].p50
            ),
            (1, 100, 5.0, 1.0)
        );
        assert!((stages[0].p99 - 9.82).abs() < 0.01, "{stages:?}");
    }

    #[test]
    fn an_admin_address_is_parsed_with_and_without_http() {
        assert_eq!(
            parse_address("http://127.0.0.1:8081/metrics").unwrap(),
            "127.0.0.1:8081"
        );
        assert_eq!(parse_address("host:1").unwrap(), "host:1");
        for invalid in ["host", ":1", "host:x"] {
            assert!(parse_address(invalid).is_err(), "{invalid}");
        }
    }
}

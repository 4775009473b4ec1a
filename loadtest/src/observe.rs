//! What Gridwatch's processes say of themselves: counters, stage times and CPU time, from the `/metrics` of their admin ports.
//!
//! In: addresses of admin ports. Out: sums over all of them. A process that does not answer is an error by its address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use schema::clock::Stage;
use schema::metric::{self, Metric};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest text of metrics, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// The counters of the books, summed over the processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Books {
    /// Confirmed as durable by the front ends.
    pub accepted: f64,
    /// Not to be retried.
    pub rejected: f64,
    /// Answered with 503, or given up by the client.
    pub unavailable: f64,
    /// Those of them that may be stored all the same.
    pub unconfirmed: f64,
    /// Committed to the table.
    pub persisted: f64,
    /// Stored already.
    pub duplicate: f64,
    /// Stored already with another value.
    pub conflict: f64,
    /// Kept in the table `dead_letter`.
    pub dead_lettered: f64,
}

impl Books {
    /// What the worker is through with.
    pub fn settled(&self) -> f64 {
        self.persisted + self.duplicate + self.conflict + self.dead_lettered
    }

    /// Accepted, and not through yet.
    pub fn backlog(&self) -> f64 {
        (self.accepted - self.settled()).max(0.0)
    }

    /// What was counted since an earlier look.
    pub fn since(&self, earlier: &Self) -> Self {
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

/// Times of a stage in milliseconds, to the width of the buckets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTimes {
    /// `measured_to_received` and so on.
    pub stage: String,
    /// Readings that went through it.
    pub readings: u64,
    /// Their mean.
    pub mean: f64,
    /// The median, between the bounds of its bucket.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
}

/// Cumulative counts by upper bound in seconds, and the sum.
#[derive(Debug, Clone, Default, PartialEq)]
struct Histogram {
    buckets: Vec<(f64, f64)>,
    sum: f64,
}

/// One look at all processes.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Their books.
    pub books: Books,
    /// Readings accepted by process, in the order of the addresses.
    pub accepted: Vec<f64>,
    /// CPU-seconds by process, in the order of the addresses.
    pub cpu: Vec<f64>,
    /// Resident memory by process, in MiB.
    pub memory: Vec<f64>,
    /// What they are, such as `gridwatch 0.1.0`.
    pub versions: BTreeSet<String>,
    stages: BTreeMap<&'static str, Histogram>,
}

/// Looks at the processes behind these admin addresses.
///
/// # Errors
/// One does not answer.
pub async fn look(addresses: &[String]) -> anyhow::Result<Look> {
    let mut look = Look::default();
    for address in addresses {
        let text = tokio::time::timeout(PATIENCE, get(address)).await;
        let text = text
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("admin port {address}"))?;
        look.add(&text);
    }
    Ok(look)
}

/// The address behind a URL such as `http://127.0.0.1:9090`, or such an address itself.
///
/// # Errors
/// It is none.
pub fn address(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.split('/').next().unwrap_or_default();
    let (host, port) = address
        .rsplit_once(':')
        .ok_or("expected HOST:PORT, such as 127.0.0.1:9090")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("expected HOST:PORT, such as 127.0.0.1:9090".into());
    }
    Ok(address.to_owned())
}

async fn get(address: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut link, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static("/metrics");
    request.headers_mut().insert("host", address.parse()?);
    let answer = link.send_request(request).await?;
    ensure!(
        answer.status().is_success(),
        "it answers {}",
        answer.status()
    );
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    drop(link);
    connection.abort();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

impl Look {
    fn add(&mut self, text: &str) {
        let samples = || {
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(Sample::read)
        };
        let sum = |name: &str| {
            samples()
                .filter(|sample| sample.name == name)
                .map(|sample| sample.value)
                .sum::<f64>()
        };
        let of = |metric: Metric| sum(metric.name);
        let books = &mut self.books;
        books.accepted += of(metric::ACCEPTED);
        books.rejected += of(metric::REJECTED);
        books.unavailable += of(metric::UNAVAILABLE);
        books.persisted += of(metric::PERSISTED);
        books.duplicate += of(metric::DUPLICATE);
        books.conflict += of(metric::CONFLICT);
        books.dead_lettered += of(metric::DEAD_LETTERED);
        let unconfirmed = |sample: &Sample<'_>| {
            sample.name == metric::UNAVAILABLE.name
                && sample.label(metric::LABEL_REASON) == Some("unconfirmed")
        };
        books.unconfirmed += samples()
            .filter(unconfirmed)
            .map(|sample| sample.value)
            .sum::<f64>();
        for info in samples().filter(|sample| sample.name == metric::BUILD_INFO.name) {
            self.versions.extend(
                info.label(metric::LABEL_VERSION)
                    .map(|version| format!("gridwatch {version}")),
            );
        }
        self.accepted.push(of(metric::ACCEPTED));
        self.cpu.push(sum("process_cpu_seconds_total"));
        self.memory
            .push(sum("process_resident_memory_bytes") / 1024.0 / 1024.0);
        for stage in Stage::ALL {
            let own =
                |sample: &Sample<'_>| sample.label(metric::LABEL_STAGE) == Some(stage.label());
            let histogram = self.stages.entry(stage.label()).or_default();
            for sample in samples().filter(own) {
                match sample.name.strip_prefix(metric::STAGE_SECONDS.name) {
                    Some("_bucket") => {
                        let bound = sample
                            .label("le")
                            .and_then(|bound| bound.parse().ok())
                            .unwrap_or(f64::INFINITY);
                        match histogram
                            .buckets
                            .iter_mut()
                            .find(|bucket| bucket.0 == bound)
                        {
                            Some(bucket) => bucket.1 += sample.value,
                            None => histogram.buckets.push((bound, sample.value)),
                        }
                    }
                    Some("_sum") => histogram.sum += sample.value,
                    _ => {}
                }
            }
        }
    }

    /// The times of each stage since an earlier look.
    pub fn stages_since(&self, earlier: &Self) -> Vec<StageTimes> {
        let times = |stage: Stage| {
            let now = self.stages.get(stage.label())?;
            let none = Histogram::default();
            let before = earlier.stages.get(stage.label()).unwrap_or(&none);
            let was = |bound| {
                before
                    .buckets
                    .iter()
                    .find(|bucket| bucket.0 == bound)
                    .map_or(0.0, |bucket| bucket.1)
            };
            let buckets: Vec<_> = now
                .buckets
                .iter()
                .map(|&(bound, count)| (bound, count - was(bound)))
                .collect();
            let count = buckets.last()?.1;
            (count > 0.0).then(|| StageTimes {
                stage: stage.label().to_owned(),
                readings: count as u64,
                mean: (now.sum - before.sum) / count * 1e3,
                p50: quantile(&buckets, 0.5) * 1e3,
                p99: quantile(&buckets, 0.99) * 1e3,
            })
        };
        Stage::ALL.into_iter().filter_map(times).collect()
    }
}

/// A quantile from cumulative buckets, in a straight line between the bounds of its bucket.
fn quantile(buckets: &[(f64, f64)], quantile: f64) -> f64 {
    let rank = quantile * buckets.last().map_or(0.0, |last| last.1);
    let (mut lower, mut below) = (0.0, 0.0);
    for &(bound, count) in buckets {
        if count >= rank && count > below {
            return if bound.is_finite() {
                lower + (bound - lower) * (rank - below) / (count - below)
            } else {
                lower
            };
        }
        (lower, below) = (if bound.is_finite() { bound } else { lower }, count);
    }
    lower
}

/// A line of the text format.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Self {
            name,
            labels: labels.trim_end_matches('}'),
            value: value.parse().ok()?,
        })
    }

    /// A label's value; Gridwatch's have no commas or quotes.
    fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.split(',').find_map(|label| {
            label
                .strip_prefix(name)?
                .strip_prefix("=\"")?
                .strip_suffix('"')
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_stages_of_several_processes_are_summed() {
        let text = "# HELP x y\ngridwatch_readings_accepted_total 10\n\
            gridwatch_readings_unavailable_total{reason=\"full\"} 3\n\
            gridwatch_readings_unavailable_total{reason=\"unconfirmed\"} 2\nprocess_cpu_seconds_total 1.5\n\
            gridwatch_stage_seconds_bucket{stage=\"received_to_enqueued\",le=\"0.001\"} 50\n\
            gridwatch_stage_seconds_bucket{stage=\"received_to_enqueued\",le=\"0.01\"} 100\n\
            gridwatch_stage_seconds_bucket{stage=\"received_to_enqueued\",le=\"+Inf\"} 100\n\
            gridwatch_stage_seconds_sum{stage=\"received_to_enqueued\"} 0.5\n";
        let mut look = Look::default();
        look.add(text);
        let earlier = look.clone();
        look.add(text);
        assert_eq!(
            (
                look.books.accepted,
                look.books.unavailable,
                look.books.unconfirmed
            ),
            (20.0, 10.0, 4.0)
        );
        assert_eq!(look.cpu, [1.5, 1.5]);
        let stages = look.stages_since(&earlier);
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
    fn an_admin_address_is_taken_with_and_without_http() {
        assert_eq!(
            address("http://127.0.0.1:9090/metrics").unwrap(),
            "127.0.0.1:9090"
        );
        assert_eq!(address("host:1").unwrap(), "host:1");
        assert!(address("host").is_err() && address(":1").is_err() && address("host:x").is_err());
    }
}

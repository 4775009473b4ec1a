//! The load: the readings of a fleet, sent by the load generator of `loadtest`.
//!
//! In: a [`Load profile`](FleetTraffic) and the address of a front end. Out: counts and latencies.
//! A response that the benchmark does not expect is an error with examples.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use loadtest::generator::{Generator, Pacing, Sent};
use loadtest::scenario::Scenario;
use loadtest::send::Target;
use loadtest::traffic::Traffic;
use schema::reading::Micros;
use tokio_util::sync::CancellationToken;

/// Prefix of the device names; the number of the device follows, with six digits.
pub(crate) const PREFIX: &str = "lt-";
/// Devices of the fleet.
pub(crate) const DEVICES: usize = 5_000;
/// Metrics of each device.
pub(crate) const METRICS: [&str; 2] = ["current", "voltage"];
/// Series of the fleet.
pub(crate) const SERIES: usize = DEVICES * METRICS.len();

/// 2026-11-01T00:00:00Z: the readings of a benchmark are measured from here on.
pub(crate) const BEGIN: Micros = 1_793_491_200_000_000;
/// Readings that are measured per second when they are sent without a schedule: ten of each series.
pub(crate) const MEASURING_RATE: f64 = 100_000.0;

/// The readings of the fleet, one of each series in turn, and the requests that they are sent in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FleetTraffic {
    /// When the first reading is measured.
    pub begin: Micros,
    /// Readings measured per second. If the requests follow a schedule, they are sent at this rate.
    pub rate: f64,
    /// Number of readings, rounded down to whole requests.
    pub readings: usize,
    /// Readings per request.
    pub batch: usize,
    /// Connections, each with one request in flight.
    pub connections: usize,
}

impl FleetTraffic {
    /// The requests by number.
    ///
    /// # Errors
    /// A value is 0, or a series would be measured more often than every 4 ms.
    pub(crate) fn traffic(&self) -> anyhow::Result<Traffic> {
        let Self {
            begin,
            rate,
            readings,
            batch,
            connections,
        } = *self;
        let nanos = Duration::from_secs_f64(readings as f64 / rate).as_nanos();
        // The timeout is longer than any response of a server that works takes.
        let scenario = Scenario::parse(&format!(
            "name = 'benchmark'\nrate = {rate:?}\nduration = '{nanos}ns'\nbatch = {batch}\n\
             connections = {connections}\ntimeout = '60s'\n[fleet]\ndevices = {DEVICES}\n\
             metrics = {METRICS:?}\nprefix = '{PREFIX}'\n"
        ))?;
        Ok(Traffic::new(&scenario, begin))
    }
}

/// A generator that sends to the front end at `listen` (`host:port`). It has one thread per core.
pub(crate) fn generator(
    listen: &str,
    traffic: Traffic,
    pacing: Pacing,
) -> anyhow::Result<Generator> {
    Ok(Generator {
        traffic: Arc::new(traffic),
        target: Target::new(&format!("http://{listen}"))?,
        threads: std::thread::available_parallelism()?.get() as u64,
        pacing,
    })
}

/// Sends every request, each as soon as a connection is free.
///
/// # Errors
/// A reading was not accepted.
pub(crate) async fn send_all(listen: &str, traffic: Traffic) -> anyhow::Result<Sent> {
    generator(listen, traffic, Pacing::AsFastAsPossible)?
        .send(CancellationToken::new(), |_| {})
        .await?
        .ensure_all_accepted()
}

/// Number of requests that got 503.
///
/// # Errors
/// A request got no response, or one that is neither 503 nor the expected 202.
pub(crate) fn refused_requests(sent: &Sent) -> anyhow::Result<u64> {
    let statuses = &sent.counts.statuses;
    let is_expected = statuses.keys().all(|status| matches!(status, 202 | 503));
    ensure!(
        is_expected && sent.counts.mismatched == 0,
        "unexpected responses, by status: {statuses:?}: {}",
        sent.examples.join("; ")
    );
    Ok(statuses.get(&503).copied().unwrap_or_default())
}

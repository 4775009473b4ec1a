//! A run: the load generator sends a scenario while the processes are monitored; then the results
//! are reported.
//!
//! In: a scenario and a target. Out: a [`Report`] and a [`Ledger`]. Ctrl-C ends the run early; its
//! results up to then are reported. A process that does not respond during the run is a result; one
//! that does not respond before it is an error.

mod latency_log;
mod monitor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::clock;
use schema::reading::Micros;
use testbed::usage;
use tokio_util::sync::CancellationToken;

use self::latency_log::LatencyLogFile;
use self::monitor::{Baseline, Monitor};
use crate::generator::{Generator, HEAD_START, Pacing, seconds_between};
use crate::harness::progress::Progress;
use crate::harness::report::{Machine, Report, SendRate, VERSION};
use crate::harness::scrape::scrape;
use crate::ledger::{Ledger, Outcome};
use crate::recorder::{Measurements, Quantiles};
use crate::scenario::{Mode, Scenario};
use crate::send::Target;
use crate::traffic::Traffic;

/// What to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// What is sent.
    pub scenario: Scenario,
    /// Where it is sent.
    pub target: Target,
    /// Threads that send.
    pub threads: u64,
    /// Name and admin address of each process.
    pub admins: Vec<(String, String)>,
    /// Processes of this machine whose CPU time is measured.
    pub watched: Vec<WatchedProcess>,
    /// Time limit, after the last response, until everything accepted is stored.
    pub drain_timeout: Duration,
    /// The file for the latencies of each second, in the log format of HdrHistogram.
    pub log: Option<PathBuf>,
}

/// A process of this machine.
#[derive(Debug, Clone)]
pub struct WatchedProcess {
    /// The name in the report.
    pub name: String,
    /// The process id.
    pub pid: u32,
    /// Whether it is a server with several processes, which are added up.
    pub is_server: bool,
    /// Whether its CPU time is divided by the stored readings instead of the accepted ones. With a
    /// queue between front end and worker these differ.
    pub is_storing: bool,
}

impl WatchedProcess {
    fn cpu(&self) -> f64 {
        if self.is_server {
            usage::of_server(self.pid)
        } else {
            usage::of_process(self.pid)
        }
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct RunOutcome {
    /// See [`Report`].
    pub report: Report,
    /// The outcome of each request.
    pub ledger: Ledger,
}

impl Run {
    /// Runs until the end of the scenario or until `stop` is cancelled.
    ///
    /// # Errors
    /// A process does not respond before the start, a file cannot be written, or a thread cannot be
    /// started.
    pub async fn execute(
        self,
        progress: &mut Progress,
        stop: CancellationToken,
    ) -> anyhow::Result<RunOutcome> {
        let addresses: Vec<String> = self
            .admins
            .iter()
            .map(|(_, address)| address.clone())
            .collect();
        let snapshot = scrape(&addresses).await?;
        let begin = Instant::now() + HEAD_START;
        let started_at = clock::now() + HEAD_START.as_micros() as Micros;
        let first_measurement = self.scenario.begin.unwrap_or(started_at);
        let generator = Generator {
            traffic: Arc::new(Traffic::new(&self.scenario, first_measurement)),
            target: self.target.clone(),
            threads: self.threads,
            pacing: Pacing::Scenario,
        };
        let sending = generator.start(begin, &stop)?;
        let mut file = self
            .log
            .as_deref()
            .map(LatencyLogFile::create)
            .transpose()?;
        let log = file.as_mut().map(LatencyLogFile::begin).transpose()?;
        let baseline = Baseline {
            snapshot,
            cpu: self.watched.iter().map(WatchedProcess::cpu).collect(),
            at: begin,
            accepted: 0,
        };
        let mut monitor = Monitor::new(&self, &addresses, baseline, log);
        monitor.until_sent(&sending, progress, &stop).await?;
        let sent = monitor.cpu_now();
        let (ledger, ended) = sending.join()?;
        let seconds = seconds_between(begin, ended);
        let interrupted = stop.is_cancelled();
        let end = monitor.until_drained(sent, &stop, progress).await;
        let report = monitor.report(
            Facts {
                traffic: &generator.traffic,
                ledger: &ledger,
                seconds,
                started_at,
                interrupted,
            },
            end,
        );
        Ok(RunOutcome { report, ledger })
    }
}

/// What the report needs besides the results of the monitor.
struct Facts<'a> {
    traffic: &'a Traffic,
    ledger: &'a Ledger,
    seconds: f64,
    started_at: Micros,
    interrupted: bool,
}

impl Monitor<'_> {
    fn report(self, facts: Facts<'_>, end: monitor::End) -> Report {
        let Facts {
            traffic, ledger, ..
        } = facts;
        let warm = self.warm.as_ref().unwrap_or(&self.start);
        let mut scenario = self.run.scenario.clone();
        scenario.begin = Some(traffic.begin());
        let sent = (0..ledger.len())
            .filter(|&request| ledger.get(request) != Outcome::Unsent)
            .count() as u64;
        let planned = match scenario.mode {
            Mode::Open => traffic.requests(),
            Mode::Closed => sent,
        };
        let last_send = self.total.last_send.map_or(0.0, |last| {
            last.saturating_duration_since(self.start.at).as_secs_f64()
        });
        let send_rate = (scenario.mode == Mode::Open && !facts.interrupted).then(|| {
            let batch = scenario.batch;
            SendRate::new(
                planned * batch,
                traffic.schedule_end(),
                sent * batch,
                last_send,
            )
        });
        let started_at = jiff::Timestamp::from_microsecond(facts.started_at);
        let (total, has_metrics) = (&self.total, !self.addresses.is_empty());
        let books = end.snapshot.as_ref().filter(|_| has_metrics);
        Report {
            version: VERSION,
            scenario: toml::to_string(&scenario).unwrap_or_default(),
            name: scenario.name.clone(),
            seed: scenario.seed,
            begin: traffic.begin(),
            target: self.run.target.uri.to_string(),
            started_at: started_at.map(|at| at.to_string()).unwrap_or_default(),
            seconds: facts.seconds,
            interrupted: facts.interrupted,
            machine: Machine::this(),
            versions: self.start.snapshot.versions.iter().cloned().collect(),
            counts: total.counts.clone(),
            unsent: planned - sent,
            accepted_per_second: total.counts.accepted as f64 / facts.seconds,
            send_rate,
            latency_ms: Quantiles::from(&total.latency),
            latency_from_send_ms: Quantiles::from(&total.latency_from_send),
            lateness_ms: Quantiles::from(&total.lateness),
            curve_ms: curve(total),
            books: books.map(|end| end.books.since(&self.start.snapshot.books)),
            stages: end
                .snapshot
                .as_ref()
                .map(|end| end.stages_since(&warm.snapshot))
                .unwrap_or_default(),
            backlog_growth_per_second: growth(&self.backlogs),
            drain_seconds: end.drained_after.map(|time| time.as_secs_f64()),
            processes: self.processes(warm, &end),
            examples: total.examples.clone(),
            rows: self.rows,
        }
    }
}

/// The growth of the backlog per second: the slope of the line of best fit through (seconds,
/// backlog). A worker stores large transactions, so the difference between two single values would
/// be misleading.
fn growth(backlogs: &[(f64, f64)]) -> Option<f64> {
    let count = backlogs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| backlogs.iter().map(of).sum::<f64>() / count;
    let (mean_time, mean_backlog) = (mean(|point| point.0), mean(|point| point.1));
    let variance: f64 = backlogs
        .iter()
        .map(|point| (point.0 - mean_time).powi(2))
        .sum();
    let covariance: f64 = backlogs
        .iter()
        .map(|point| (point.0 - mean_time) * (point.1 - mean_backlog))
        .sum();
    (backlogs.len() > 2 && variance > 0.0).then(|| covariance / variance)
}

/// Latency by quantile: the quantile, the latency from the scheduled send, and from the actual
/// send. The quantiles are closer together towards the last one, p99.999.
fn curve(total: &Measurements) -> Vec<(f64, f64, f64)> {
    let mut points = Vec::new();
    let mut above: f64 = 1.0;
    while above >= 1e-5 && total.latency.len() as f64 * above >= 1.0 {
        let quantile = 1.0 - above;
        let at = |histogram: &hdrhistogram::Histogram<u64>| {
            histogram.value_at_quantile(quantile) as f64 / 1e3
        };
        points.push((quantile, at(&total.latency), at(&total.latency_from_send)));
        above *= 0.8;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sawtooth_backlog_does_not_grow_and_a_rising_one_does() {
        // At 100,000 readings/s, a transaction stores 30,000 readings every 0.4 s.
        let sawtooth = |growth: f64| -> Vec<_> {
            let point = |n: i32| {
                let seconds = f64::from(n) * 0.25;
                (seconds, f64::from(n * 25 % 40) * 1_000.0 + growth * seconds)
            };
            (0..30).map(point).collect()
        };
        let steady = growth(&sawtooth(0.0)).unwrap();
        let rising = growth(&sawtooth(10_000.0)).unwrap();
        assert!(
            steady.abs() < 2_000.0 && (rising - steady - 10_000.0).abs() < 1.0,
            "{steady}, {rising}"
        );
        assert_eq!(growth(&[(1.0, 5.0), (2.0, 6.0)]), None);
    }
}

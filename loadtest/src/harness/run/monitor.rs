//! The monitor of a run: it collects measurements and scrapes the processes while the generator
//! sends.
//!
//! In: the recorders of the sending threads, and admin addresses. Out: a row per second, totals,
//! backlogs and CPU times. A scrape that fails leaves its values out.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::latency_log::LatencyLog;
use super::{Run, WatchedProcess};
use crate::generator::{Sending, seconds_between};
use crate::harness::progress::Progress;
use crate::harness::report::{ProcessUse, Row};
use crate::harness::scrape::{Snapshot, scrape};
use crate::recorder::{Measurements, Quantiles, Recorder};

/// Interval of rows.
const ROW_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(250);
/// Interval at which the end of the sending threads, or of the backlog, is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Time limit of a scrape after the run was stopped.
const LAST_SCRAPE_TIMEOUT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Monitor<'a> {
    pub(super) run: &'a Run,
    pub(super) addresses: &'a [String],
    /// The state before the first send.
    pub(super) start: Baseline,
    /// The state at the end of the warm-up; none if the run was stopped before.
    pub(super) warm: Option<Baseline>,
    pub(super) total: Measurements,
    pub(super) rows: Vec<Row>,
    /// Seconds since the start and backlog, after the warm-up.
    pub(super) backlogs: Vec<(f64, f64)>,
    log: Option<LatencyLog<'a>>,
}

/// The state that later values are compared with.
#[derive(Debug)]
pub(super) struct Baseline {
    pub(super) snapshot: Snapshot,
    /// CPU-seconds of the watched processes.
    pub(super) cpu: Vec<f64>,
    pub(super) at: Instant,
    /// Readings accepted until then.
    pub(super) accepted: u64,
}

/// CPU-seconds of the watched processes at a time.
pub(super) struct CpuAt {
    at: Instant,
    cpu: Vec<f64>,
}

/// The state at the end of the run.
pub(super) struct End {
    /// The last scrape; none if a process did not respond.
    pub(super) snapshot: Option<Snapshot>,
    /// The time until everything accepted was processed; none if the time limit was reached.
    pub(super) drained_after: Option<Duration>,
    /// When everything was sent.
    sent: CpuAt,
    /// When everything was processed.
    drained: CpuAt,
}

impl<'a> Monitor<'a> {
    pub(super) fn new(
        run: &'a Run,
        addresses: &'a [String],
        start: Baseline,
        log: Option<LatencyLog<'a>>,
    ) -> Self {
        Self {
            run,
            addresses,
            start,
            warm: None,
            total: Measurements::default(),
            rows: Vec::new(),
            backlogs: Vec::new(),
            log,
        }
    }

    /// CPU-seconds of the watched processes now.
    pub(super) fn cpu_now(&self) -> CpuAt {
        CpuAt {
            at: Instant::now(),
            cpu: self.run.watched.iter().map(WatchedProcess::cpu).collect(),
        }
    }

    /// Adds a row per second until every thread has ended.
    pub(super) async fn until_sent(
        &mut self,
        sending: &Sending,
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let begin = self.start.at;
        let mut next_row = begin + ROW_INTERVAL;
        let mut next_scrape = begin + self.run.scenario.warm_up;
        loop {
            let mut backlog = None;
            while Instant::now() < next_row && !sending.is_finished() {
                let left = next_row.saturating_duration_since(Instant::now());
                tokio::time::sleep(POLL_INTERVAL.min(left)).await;
                if Instant::now() < next_scrape {
                    continue;
                }
                next_scrape = Instant::now() + SCRAPE_INTERVAL;
                // A process that does not respond for a while must not end the run.
                let Some(snapshot) = self.scrape(stop).await else {
                    continue;
                };
                backlog = self.backlog(&snapshot);
                if let Some(backlog) = backlog {
                    self.backlogs.push((begin.elapsed().as_secs_f64(), backlog));
                }
                if self.warm.is_none() {
                    let CpuAt { at, cpu } = self.cpu_now();
                    self.warm = Some(Baseline {
                        snapshot,
                        cpu,
                        at,
                        accepted: self.total.counts.accepted + uncollected(sending),
                    });
                }
            }
            let is_last = sending.is_finished();
            let mut interval = Measurements::default();
            sending.collect_into(&mut interval);
            let at = begin.elapsed();
            if backlog.is_none() {
                let snapshot = self.scrape(stop).await;
                backlog = snapshot.and_then(|snapshot| self.backlog(&snapshot));
            }
            self.add_interval(&interval, at, backlog)?;
            if let Some(row) = self.rows.last() {
                progress.row(row, &self.total.counts, stop.is_cancelled());
            }
            if is_last {
                return Ok(());
            }
            // A slow scrape skips rows instead of making the next ones short.
            while next_row <= Instant::now() {
                next_row += ROW_INTERVAL;
            }
        }
    }

    /// Scrapes the processes; none if one does not respond, or not before the run is stopped.
    async fn scrape(&self, stop: &CancellationToken) -> Option<Snapshot> {
        let scraping = scrape(self.addresses);
        if stop.is_cancelled() {
            let result = tokio::time::timeout(LAST_SCRAPE_TIMEOUT, scraping).await;
            return result.ok()?.ok();
        }
        stop.run_until_cancelled(scraping).await?.ok()
    }

    /// Readings that were accepted in this run and are not processed; none without metrics.
    fn backlog(&self, snapshot: &Snapshot) -> Option<f64> {
        let since_start = || snapshot.books.since(&self.start.snapshot.books);
        (!self.addresses.is_empty()).then(|| since_start().backlog())
    }

    /// Adds the measurements of the interval that ends at `at` after the start.
    fn add_interval(
        &mut self,
        interval: &Measurements,
        at: Duration,
        backlog: Option<f64>,
    ) -> anyhow::Result<()> {
        let before = self.rows.last().map_or(0.0, |row| row.at);
        let seconds = (at.as_secs_f64() - before).max(1e-3);
        self.total.add(interval);
        if let Some(log) = &mut self.log {
            let from = Duration::from_secs_f64(before);
            log.write(interval, from, Duration::from_secs_f64(seconds))?;
        }
        // The last interval may be too short for a rate.
        if seconds < ROW_INTERVAL.as_secs_f64() / 4.0 && !self.rows.is_empty() {
            return Ok(());
        }
        let has_latency = !interval.latency.is_empty();
        self.rows.push(Row {
            at: at.as_secs_f64(),
            accepted_per_second: interval.counts.accepted as f64 / seconds,
            errors: interval.counts.errors,
            latency_ms: has_latency.then(|| Quantiles::from(&interval.latency)),
            backlog,
        });
        Ok(())
    }

    /// Waits until everything accepted is processed, up to the time limit. A process that does not
    /// respond may recover.
    pub(super) async fn until_drained(
        &self,
        sent: CpuAt,
        stop: &CancellationToken,
        progress: &mut Progress,
    ) -> End {
        let started = Instant::now();
        loop {
            let snapshot = self.scrape(stop).await;
            let backlog = snapshot.as_ref().and_then(|last| self.backlog(last));
            let is_drained = backlog == Some(0.0);
            if is_drained
                || self.addresses.is_empty()
                || started.elapsed() > self.run.drain_timeout
                || stop.is_cancelled()
            {
                return End {
                    snapshot,
                    drained_after: is_drained.then(|| started.elapsed()),
                    sent,
                    drained: self.cpu_now(),
                };
            }
            progress.draining(backlog);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// CPU time and memory of each process: measured on this machine if the process is watched,
    /// otherwise from its metrics.
    pub(super) fn processes(&self, warm: &Baseline, end: &End) -> Vec<ProcessUse> {
        let accepted = (self.total.counts.accepted - warm.accepted) as f64;
        // Readings accepted in the warm-up and processed after it are work of the processes that
        // store.
        let last = end.snapshot.as_ref().filter(|_| !self.addresses.is_empty());
        let processed = last.map_or(accepted, |last| {
            last.books.processed() - warm.snapshot.books.processed()
        });
        let per_million = |is_storing: bool, cpu_seconds: f64| {
            let readings = if is_storing { processed } else { accepted };
            (readings > 0.0).then(|| cpu_seconds / readings * 1e6)
        };
        let mut processes = Vec::new();
        for (index, watched) in self.run.watched.iter().enumerate() {
            let cpu_seconds = end.drained.cpu[index] - warm.cpu[index];
            let while_sending = (end.sent.cpu[index] - warm.cpu[index]).max(0.0);
            processes.push(ProcessUse {
                process: watched.name.clone(),
                cpu_seconds,
                cores: while_sending / seconds_between(warm.at, end.sent.at),
                cpu_seconds_per_million: per_million(watched.is_storing, cpu_seconds),
                memory_mib: testbed::usage::memory_mib(watched.pid),
            });
        }
        let Some(last) = &end.snapshot else {
            return processes;
        };
        for (index, (name, _)) in self.run.admins.iter().enumerate() {
            if self.run.watched.iter().any(|watched| watched.name == *name) {
                continue;
            }
            let cpu_seconds = last.cpu[index] - warm.snapshot.cpu[index];
            let is_storing = last.accepted[index] == 0.0;
            processes.push(ProcessUse {
                process: name.clone(),
                cpu_seconds,
                cores: cpu_seconds / seconds_between(warm.at, end.drained.at),
                cpu_seconds_per_million: per_million(is_storing, cpu_seconds),
                memory_mib: last.memory[index],
            });
        }
        processes
    }
}

/// Accepted readings that are not collected yet.
fn uncollected(sending: &Sending) -> u64 {
    let accepted = |recorder: &Recorder| recorder.lock().counts.accepted;
    sending.recorders.iter().map(accepted).sum()
}

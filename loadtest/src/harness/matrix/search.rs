//! The search for the highest rate that meets the target. A closed loop finds the ceiling; then the
//! interval below it is halved with every trial.
//!
//! In: a cell. Out: every trial with its result, the highest rate that met the target, why the next
//! higher one did not, and measurements at 50 % and 80 % of the highest rate. A cell that accepts
//! nothing has a highest rate of 0.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, FRONT_END, GENERATOR};
use super::{CellResult, Plan, TARGET_MS};
use crate::harness::idle_server;
use crate::harness::progress::Progress;
use crate::harness::report::Report;
use crate::harness::run::Run;
use crate::scenario::{Mode, Scenario};
use crate::send::Target;

/// The backlog grows if more than this share of the accepted readings is not stored.
const MAX_GROWTH: f64 = 0.05;
/// Time limit after a run until everything accepted is stored.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// The share of cores or threads that counts as all of them.
const BUSY: f64 = 0.85;

/// Why a rate did not meet the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// It met the target.
    None,
    /// Requests had no final response, or a wrong one.
    Errors,
    /// The response time at the 99th percentile was above the target.
    Latency,
    /// Readings were accepted faster than they were stored.
    Backlog,
}

impl Limit {
    /// The limit in a sentence.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::None => "not reached",
            Self::Errors => "errors",
            Self::Latency => "the response time",
            Self::Backlog => "a growing backlog",
        }
    }
}

/// A trial of the search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Scheduled readings per second.
    pub rate: f64,
    /// Accepted readings per second.
    pub accepted_per_second: f64,
    /// The response time at the 99th percentile, from the scheduled send.
    pub p99_ms: f64,
    /// Readings accepted and not stored at the end.
    pub backlog: f64,
    /// Why the rate did not meet the target.
    pub limit: Limit,
}

/// A run against a cell, or against the idle server.
fn prepare_run(scenario: Scenario, target: Target) -> Run {
    Run {
        scenario,
        target,
        threads: 1,
        admins: Vec::new(),
        watched: Vec::new(),
        drain_timeout: Duration::ZERO,
        log: None,
    }
}

/// Readings per second that the generator reaches against the idle server.
///
/// # Errors
/// The idle server cannot be started.
pub(super) async fn generator_rate(plan: &Plan, stop: &CancellationToken) -> anyhow::Result<f64> {
    let address = idle_server::start(([127, 0, 0, 1], 0).into()).await?;
    let mut target = Target::new(&format!("http://{address}"))?;
    target.is_checked = false;
    let run = prepare_run(plan.scenario(Mode::Closed, 1.0, plan.trial)?, target);
    let outcome = run.execute(&mut Progress::quiet(), stop.clone()).await?;
    Ok(outcome.report.accepted_per_second)
}

/// Searches and measures a cell. The result is none if `stop` was cancelled.
///
/// # Errors
/// A process does not respond.
pub(super) async fn measure(
    plan: &Plan,
    cell: &Cell,
    log: &mut dyn FnMut(&str),
    stop: &CancellationToken,
) -> anyhow::Result<Option<CellResult>> {
    let mut search = Search {
        plan,
        cell,
        log,
        stop,
        trials: Vec::new(),
    };
    search.execute().await
}

struct Search<'a> {
    plan: &'a Plan,
    cell: &'a Cell,
    log: &'a mut dyn FnMut(&str),
    stop: &'a CancellationToken,
    trials: Vec<Trial>,
}

impl Search<'_> {
    async fn execute(&mut self) -> anyhow::Result<Option<CellResult>> {
        // Registers the fleet, so that no trial includes the time for it.
        self.run(Mode::Closed, 1.0, Duration::from_secs(1)).await?;
        let ceiling = self.run(Mode::Closed, 1.0, self.plan.trial).await?;
        (self.log)(&format!(
            "{:.0} readings/s in a closed loop",
            ceiling.accepted_per_second
        ));
        let (best, limit) = if ceiling.counts.accepted > 0 {
            self.find_highest_rate(ceiling.accepted_per_second).await?
        } else {
            let examples = ceiling.examples.join("; ");
            (self.log)(&format!("nothing was accepted: {examples}"));
            (0.0, Limit::Errors)
        };
        let mut measured = Vec::new();
        for share in [0.5, 0.8] {
            if best > 0.0 && !self.stop.is_cancelled() {
                measured.push(self.measure_share(best, share).await?);
            }
        }
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        let deployment = self.cell.deployment;
        let threads = f64::from(deployment.instances * deployment.threads);
        Ok(Some(CellResult {
            mode: deployment.mode,
            instances: deployment.instances,
            threads: deployment.threads,
            ceiling_per_second: ceiling.accepted_per_second,
            best_per_second: best,
            limit,
            bottleneck: bottleneck(&ceiling, threads),
            trials: std::mem::take(&mut self.trials),
            measured,
        }))
    }

    /// The highest rate that met the target, and why the next higher one did not.
    async fn find_highest_rate(&mut self, ceiling: f64) -> anyhow::Result<(f64, Limit)> {
        let (mut low, mut high, mut limit) = (0.0, ceiling * 1.1, Limit::None);
        for _ in 0..self.plan.trials {
            if self.stop.is_cancelled() {
                break;
            }
            // The ceiling of a closed loop includes readings that are not stored yet, so the first
            // trial is at half of it.
            let rate = (low + high) / 2.0;
            let mut trial = self.try_rate(rate).await?;
            let may_be_chance = matches!(trial.limit, Limit::Latency | Limit::Backlog);
            if may_be_chance && !self.stop.is_cancelled() {
                // A second trial, because the disk of a shared machine is slow at times.
                trial = self.try_rate(rate).await?;
            }
            if trial.limit == Limit::None {
                low = rate;
            } else {
                (high, limit) = (rate, trial.limit);
            }
        }
        Ok((low, limit))
    }

    async fn try_rate(&mut self, rate: f64) -> anyhow::Result<Trial> {
        let report = self.run(Mode::Open, rate, self.plan.trial).await?;
        let trial = evaluate(&report, rate);
        let result = match trial.limit {
            Limit::None => "the target is met".to_owned(),
            limit => format!("the target is not met: {}", limit.description()),
        };
        (self.log)(&format!(
            "{rate:.0} readings/s: p99 {:.1} ms, backlog {:.0}, {result}",
            trial.p99_ms, trial.backlog
        ));
        self.trials.push(trial);
        Ok(trial)
    }

    async fn measure_share(&mut self, best: f64, share: f64) -> anyhow::Result<Report> {
        let report = self
            .run(Mode::Open, best * share, self.plan.measure)
            .await?;
        (self.log)(&format!(
            "at {:.0} %: p50 {:.2} ms, p99 {:.2} ms",
            share * 100.0,
            report.latency_ms.p50,
            report.latency_ms.p99
        ));
        Ok(report)
    }

    async fn run(&self, mode: Mode, rate: f64, duration: Duration) -> anyhow::Result<Report> {
        self.cell.checkpoint().await?;
        let scenario = self.plan.scenario(mode, rate, duration)?;
        let run = Run {
            admins: self.cell.admins.clone(),
            watched: self.cell.watched.clone(),
            drain_timeout: DRAIN_TIMEOUT,
            ..prepare_run(scenario, Target::new(&self.cell.url)?)
        };
        let outcome = run
            .execute(&mut Progress::quiet(), self.stop.clone())
            .await?;
        Ok(outcome.report)
    }
}

fn evaluate(report: &Report, rate: f64) -> Trial {
    let backlog = report.rows.iter().rev().find_map(|row| row.backlog);
    // Without a known backlog the target is not met.
    let has_errors = report.counts.failed() > 0 || report.counts.sent == 0 || backlog.is_none();
    let limit = if has_errors {
        Limit::Errors
    } else if report.latency_ms.p99 > TARGET_MS {
        Limit::Latency
    } else if is_backlog_growing(report) {
        Limit::Backlog
    } else {
        Limit::None
    };
    Trial {
        rate,
        accepted_per_second: report.accepted_per_second,
        p99_ms: report.latency_ms.p99,
        backlog: backlog.unwrap_or_default(),
        limit,
    }
}

fn is_backlog_growing(report: &Report) -> bool {
    report
        .backlog_growth_per_second
        .is_some_and(|growth| growth > report.accepted_per_second * MAX_GROWTH)
}

/// The bottleneck while requests were sent, from the CPU time of each process and the growth of the
/// backlog. `front_end_threads` is the number of threads of all front ends together.
fn bottleneck(report: &Report, front_end_threads: f64) -> String {
    let mut cores_by_name: Vec<(&str, f64)> = Vec::new();
    for process in &report.processes {
        let known = cores_by_name
            .iter_mut()
            .find(|(name, _)| *name == process.process);
        match known {
            Some((_, cores)) => *cores += process.cores,
            None => cores_by_name.push((&process.process, process.cores)),
        }
    }
    cores_by_name.sort_by(|one, other| other.1.total_cmp(&one.1));
    let used: f64 = cores_by_name.iter().map(|(_, cores)| cores).sum();
    let busiest: Vec<String> = cores_by_name
        .iter()
        .take(3)
        .map(|(name, cores)| format!("{name} {cores:.2}"))
        .collect();
    let cores = report.machine.cores as f64;
    let backlog = if is_backlog_growing(report) {
        "; the backlog grew, so storing was slower than accepting"
    } else {
        ""
    };
    let is_busy = |name: &str, threads: f64| {
        cores_by_name
            .iter()
            .any(|(own, cores)| *own == name && *cores >= threads * BUSY)
    };
    let bottleneck = if used >= cores * BUSY {
        "the cores of the machine"
    } else if is_busy(FRONT_END, front_end_threads) {
        "the threads of the front ends"
    } else if is_busy(GENERATOR, 1.0) {
        "the thread of the load generator"
    } else {
        "waiting for other processes and the disk"
    };
    format!(
        "{bottleneck}: {used:.2} of {cores:.0} cores busy ({}){backlog}",
        busiest.join(", ")
    )
}

//! The search for the highest rate that meets the target: a closed loop finds the ceiling, halving the interval below it the
//! rate.
//!
//! In: a cell. Out: every trial with its judgement, the best rate, what kept the next higher one from it, and measurements at
//! a half and at four fifths.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::matrix::cell::{Cell, FRONT_END, GENERATOR};
use crate::matrix::{Loaded, Plan, TARGET_MS};
use crate::nothing;
use crate::progress::Progress;
use crate::report::Report;
use crate::run::Run;
use crate::scenario::Mode;
use crate::send::Target;

/// A backlog grows where so large a part of the rate is not stored.
const GROWTH: f64 = 0.05;
/// How long what was accepted may take until it is stored, before the next trial.
const SETTLE: Duration = Duration::from_secs(120);
/// Share of cores or threads that counts as all of them.
const BUSY: f64 = 0.85;

/// Why a rate was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// It was met.
    None,
    /// Requests had no final answer, or a wrong one.
    Errors,
    /// Answers took longer than the target at the 99th percentile.
    Latency,
    /// Readings were accepted faster than they were stored.
    Backlog,
}

impl Limit {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::None => "nothing yet",
            Self::Errors => "errors",
            Self::Latency => "the time of the answers",
            Self::Backlog => "a growing backlog",
        }
    }
}

/// A trial of the search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Readings a second that were to be sent.
    pub rate: f64,
    /// Readings a second that were accepted.
    pub accepted_per_second: f64,
    /// The answers at the 99th percentile, from the intended send.
    pub p99_ms: f64,
    /// Accepted and not stored at the end.
    pub backlog: f64,
    /// How it was judged.
    pub limit: Limit,
}

async fn run(
    plan: &Plan,
    cell: &Cell,
    mode: Mode,
    rate: f64,
    duration: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    cell.rest().await?;
    let run = Run {
        scenario: plan.scenario(mode, rate, duration)?,
        target: Target::new(&cell.url)?,
        threads: 1,
        admins: cell.admins.clone(),
        watched: cell.watched.clone(),
        settle: SETTLE,
        log: None,
    };
    Ok(run
        .execute(&mut Progress::quiet(), stop.clone())
        .await?
        .report)
}

/// Readings a second that the generator reaches where nothing is done with them.
///
/// # Errors
/// Loopback has no port.
pub async fn generator(plan: &Plan, stop: &CancellationToken) -> anyhow::Result<f64> {
    let address = nothing::start(([127, 0, 0, 1], 0).into()).await?;
    let mut target = Target::new(&format!("http://{address}"))?;
    target.is_checked = false;
    let run = Run {
        scenario: plan.scenario(Mode::Closed, 1.0, plan.trial)?,
        target,
        threads: 1,
        admins: Vec::new(),
        watched: Vec::new(),
        settle: Duration::ZERO,
        log: None,
    };
    Ok(run
        .execute(&mut Progress::quiet(), stop.clone())
        .await?
        .report
        .accepted_per_second)
}

/// Loads a cell. None where it was stopped.
///
/// # Errors
/// A process does not tell what it has to.
pub async fn load(
    plan: &Plan,
    cell: &Cell,
    say: &mut dyn FnMut(&str),
    stop: &CancellationToken,
) -> anyhow::Result<Option<Loaded>> {
    // Registers the fleet, so that no trial pays for it.
    run(plan, cell, Mode::Closed, 1.0, Duration::from_secs(1), stop).await?;
    let ceiling = run(plan, cell, Mode::Closed, 1.0, plan.trial, stop).await?;
    say(&format!(
        "{:.0} readings/s as fast as it goes",
        ceiling.accepted_per_second
    ));
    let (mut low, mut high) = (0.0, ceiling.accepted_per_second * 1.1);
    let (mut trials, mut limit): (Vec<Trial>, Limit) = (Vec::new(), Limit::None);
    if ceiling.counts.accepted == 0 {
        limit = Limit::Errors;
        say(&format!(
            "nothing was accepted: {}",
            ceiling.unlike.join("; ")
        ));
    }
    for _ in 0..if limit == Limit::None { plan.trials } else { 0 } {
        if stop.is_cancelled() {
            return Ok(None);
        }
        // The ceiling of a closed loop leaves out what is not stored yet: the first try is half way.
        let rate = (low + high) / 2.0;
        let mut trial = attempt(plan, cell, rate, say, stop).await?;
        trials.push(trial);
        if matches!(trial.limit, Limit::Latency | Limit::Backlog) && !stop.is_cancelled() {
            // Once more: the disk of a machine that is shared hesitates at times, and that is not this rate's fault.
            trial = attempt(plan, cell, rate, say, stop).await?;
            trials.push(trial);
        }
        if trial.limit == Limit::None {
            low = rate;
        } else {
            (high, limit) = (rate, trial.limit);
        }
    }
    let mut measured = Vec::new();
    for share in [0.5, 0.8] {
        if low > 0.0 && !stop.is_cancelled() {
            let report = run(plan, cell, Mode::Open, low * share, plan.measure, stop).await?;
            say(&format!(
                "at {:.0} %: p50 {:.2} ms, p99 {:.2} ms",
                share * 100.0,
                report.latency_ms.p50,
                report.latency_ms.p99
            ));
            measured.push(report);
        }
    }
    if stop.is_cancelled() {
        return Ok(None);
    }
    Ok(Some(Loaded {
        way: cell.way,
        instances: cell.instances,
        threads: cell.threads,
        ceiling_per_second: ceiling.accepted_per_second,
        best_per_second: low,
        limit,
        bottleneck: bottleneck(&ceiling, f64::from(cell.instances * cell.threads)),
        trials,
        measured,
    }))
}

async fn attempt(
    plan: &Plan,
    cell: &Cell,
    rate: f64,
    say: &mut dyn FnMut(&str),
    stop: &CancellationToken,
) -> anyhow::Result<Trial> {
    let trial = judge(
        &run(plan, cell, Mode::Open, rate, plan.trial, stop).await?,
        rate,
    );
    let verdict = match trial.limit {
        Limit::None => "met".to_owned(),
        other => format!("not met for {}", other.words()),
    };
    say(&format!(
        "{rate:.0} readings/s: p99 {:.1} ms, backlog {:.0}, {verdict}",
        trial.p99_ms, trial.backlog
    ));
    Ok(trial)
}

fn judge(report: &Report, rate: f64) -> Trial {
    let counts = &report.counts;
    let backlog = report.rows.iter().rev().find_map(|row| row.backlog);
    // Where no process says what is stored, nothing is known to be met.
    let limit = if counts.errors + counts.unlike + counts.dropped > 0
        || counts.sent == 0
        || backlog.is_none()
    {
        Limit::Errors
    } else if report.latency_ms.p99 > TARGET_MS {
        Limit::Latency
    } else if is_growing(report) {
        Limit::Backlog
    } else {
        Limit::None
    };
    let backlog = backlog.unwrap_or_default();
    Trial {
        rate,
        accepted_per_second: report.accepted_per_second,
        p99_ms: report.latency_ms.p99,
        backlog,
        limit,
    }
}

fn is_growing(report: &Report) -> bool {
    report
        .backlog_growth_per_second
        .is_some_and(|growth| growth > report.accepted_per_second * GROWTH)
}

/// What was busiest while requests were sent, from the CPU time of each process, and the depth of the queue. `front_ends` is
/// how many threads those have together.
fn bottleneck(report: &Report, front_ends: f64) -> String {
    let mut by_name: Vec<(&str, f64)> = Vec::new();
    for one in &report.processes {
        match by_name.iter_mut().find(|(name, _)| *name == one.process) {
            Some((_, cores)) => *cores += one.cores,
            None => by_name.push((&one.process, one.cores)),
        }
    }
    by_name.sort_by(|one, other| other.1.total_cmp(&one.1));
    let all: f64 = by_name.iter().map(|(_, cores)| cores).sum();
    let parts: Vec<String> = by_name
        .iter()
        .take(3)
        .map(|(name, cores)| format!("{name} {cores:.2}"))
        .collect();
    let cores = report.machine.cores as f64;
    let queue = if is_growing(report) {
        ", while the backlog grew: storing was the slower part"
    } else {
        ""
    };
    let is_full = |name: &str, threads: f64| {
        by_name
            .iter()
            .any(|(own, cores)| *own == name && *cores >= threads * BUSY)
    };
    let verdict = if all >= cores * BUSY {
        "the machine's cores"
    } else if is_full(FRONT_END, front_ends) {
        "the threads of the front ends, which were busy all the time"
    } else if is_full(GENERATOR, 1.0) {
        "the load generator itself, whose thread was busy all the time"
    } else {
        "waiting for each other and the disk, not the cores"
    };
    format!(
        "{verdict}: {all:.2} of {cores:.0} cores busy ({}){queue}",
        parts.join(", ")
    )
}

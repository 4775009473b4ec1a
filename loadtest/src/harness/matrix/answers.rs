//! The five questions, and a sentence with figures that answers each.
//!
//! In: the results of the cells. Out: five answers. If the cells of a question are
//! missing, the answer is "It was not measured."

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CellResult;
use super::cell::DeploymentMode;
use crate::harness::plot::format_number;
use crate::harness::report::Report;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// The answer, with its figures.
    pub answer: String,
}

/// Finds an answer in the results of the cells.
type FindAnswer = fn(&[CellResult]) -> Option<String>;

const QUESTIONS: [(&str, FindAnswer); 5] = [
    (
        "Which rate does one front-end process with one thread sustain?",
        one_thread,
    ),
    (
        "Which rate does one front-end process with several threads sustain?",
        several_threads,
    ),
    (
        "Which rate do several front ends behind a load balancer sustain, \
         and does the database become the bottleneck?",
        several_instances,
    ),
    (
        "Which rates do the same deployments sustain with the queue instead of direct writes?",
        queued,
    ),
    (
        "How do the latencies differ between direct and queued?",
        latencies,
    ),
];

/// The answers to the five questions.
pub(super) fn of(cells: &[CellResult]) -> Vec<Answer> {
    let answer = |(question, find): (&str, FindAnswer)| Answer {
        question: question.to_owned(),
        answer: find(cells).unwrap_or_else(|| "It was not measured.".into()),
    };
    QUESTIONS.into_iter().map(answer).collect()
}

fn find_cell(
    cells: &[CellResult],
    mode: DeploymentMode,
    instances: u16,
    is_one_thread: bool,
) -> Option<&CellResult> {
    let is_match = |cell: &&CellResult| {
        cell.mode == mode && cell.instances == instances && (cell.threads == 1) == is_one_thread
    };
    cells.iter().find(is_match)
}

fn rate(cell: &CellResult) -> String {
    format!("{} readings/s", format_number(cell.best_per_second))
}

/// The rate of a cell as a multiple of the rate of another.
fn multiple(cell: &CellResult, other: &CellResult) -> String {
    match other.best_per_second {
        0.0 => "an unknown multiple".into(),
        rate => format!("{:.2} times", cell.best_per_second / rate),
    }
}

fn one_thread(cells: &[CellResult]) -> Option<String> {
    let cell = find_cell(cells, DeploymentMode::Direct, 1, true)?;
    Some(format!(
        "With direct writes and one thread it sustains {} within the target; \
         at higher rates the limit is {}. In a closed loop it reaches {} readings/s. \
         The bottleneck is then {}.",
        rate(cell),
        cell.limit.description(),
        format_number(cell.ceiling_per_second),
        cell.bottleneck
    ))
}

fn several_threads(cells: &[CellResult]) -> Option<String> {
    let one = find_cell(cells, DeploymentMode::Direct, 1, true)?;
    let all = find_cell(cells, DeploymentMode::Direct, 1, false)?;
    Some(format!(
        "With {} threads it sustains {}, {} the rate with one thread.",
        all.threads,
        rate(all),
        multiple(all, one)
    ))
}

fn several_instances(cells: &[CellResult]) -> Option<String> {
    let one = find_cell(cells, DeploymentMode::Direct, 1, true)?;
    let several: Vec<&CellResult> = cells
        .iter()
        .filter(|cell| cell.mode == DeploymentMode::Direct && cell.instances > 1)
        .collect();
    let last = several.last()?;
    let rates: Vec<String> = several
        .iter()
        .map(|cell| format!("{} front ends sustain {}", cell.instances, rate(cell)))
        .collect();
    Some(format!(
        "{} (one: {}); with {} it is {} the rate of one. The bottleneck in a closed loop is {}.",
        rates.join(", "),
        rate(one),
        last.instances,
        multiple(last, one),
        last.bottleneck
    ))
}

fn queued(cells: &[CellResult]) -> Option<String> {
    let queued = || {
        cells
            .iter()
            .filter(|cell| cell.mode == DeploymentMode::Queued)
    };
    let pairs = queued().filter_map(|queued| {
        let direct = cells.iter().find(|cell| {
            cell.mode == DeploymentMode::Direct
                && (cell.instances, cell.threads) == (queued.instances, queued.threads)
        })?;
        Some(format!(
            "{}: {} instead of {} ({})",
            queued.name(),
            rate(queued),
            format_number(direct.best_per_second),
            multiple(queued, direct)
        ))
    });
    let pairs: Vec<String> = pairs.collect();
    Some(format!(
        "{}. The bottleneck in a closed loop is {}.",
        pairs.join("; "),
        queued().next_back()?.bottleneck
    ))
}

fn latencies(cells: &[CellResult]) -> Option<String> {
    let at_80_percent = |mode| find_cell(cells, mode, 1, false)?.measured.get(1);
    let direct = at_80_percent(DeploymentMode::Direct)?;
    let queued = at_80_percent(DeploymentMode::Queued)?;
    let total = |report: &Report| {
        let stage = report.stage("received_to_persisted")?;
        Some((stage.p50, stage.p99))
    };
    let (direct_total, queued_total) = (total(direct)?, total(queued)?);
    Some(format!(
        "At 80 % of the highest rate, with one front end and all threads, the response time is \
         {} ms direct and {} ms queued at the median, {} and {} ms at the 99th percentile. \
         The time from receipt to the table is {} and {} ms at the median, \
         {} and {} ms at the 99th percentile.",
        format_number(direct.latency_ms.p50),
        format_number(queued.latency_ms.p50),
        format_number(direct.latency_ms.p99),
        format_number(queued.latency_ms.p99),
        format_number(direct_total.0),
        format_number(queued_total.0),
        format_number(direct_total.1),
        format_number(queued_total.1),
    ))
}

//! The five questions, and an answer to each in a sentence with its figures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::matrix::Loaded;
use crate::matrix::cell::{Way, name};
use crate::plot::human;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// The answer, with its figures.
    pub answer: String,
}

/// Finds an answer in the cells.
type Find = fn(&[Loaded]) -> Option<String>;

/// Answers from the cells that were loaded; a question whose cells are missing says so.
pub fn of(cells: &[Loaded]) -> Vec<Answer> {
    let questions: [(&str, Find); 5] = [
        (
            "How well does one front-end process carry the load?",
            one_thread,
        ),
        ("How well does one with several threads?", several_threads),
        (
            "How well do several behind a load balancer, and does the database become the bottleneck?",
            several_instances,
        ),
        (
            "How well does the same set-up with the queue instead of writing directly?",
            queued,
        ),
        ("How do the latencies change between the two?", latencies),
    ];
    let answer = |(question, answer): (&str, Find)| Answer {
        question: question.to_owned(),
        answer: answer(cells).unwrap_or_else(|| "It was not measured.".into()),
    };
    questions.into_iter().map(answer).collect()
}

fn cell(cells: &[Loaded], way: Way, instances: u16, is_one_thread: bool) -> Option<&Loaded> {
    let fits = |cell: &&Loaded| {
        cell.way == way && cell.instances == instances && (cell.threads == 1) == is_one_thread
    };
    cells.iter().find(fits)
}

fn rate(cell: &Loaded) -> String {
    format!("{} readings/s", human(cell.best_per_second))
}

fn times(one: &Loaded, other: &Loaded) -> String {
    match other.best_per_second {
        0.0 => "nobody knows how many times".into(),
        of => format!("{:.2} times", one.best_per_second / of),
    }
}

fn one_thread(cells: &[Loaded]) -> Option<String> {
    let one = cell(cells, Way::Direct, 1, true)?;
    Some(format!(
        "Writing directly with one thread it carries {} within the target; beyond it, {} sets the limit. As fast as it goes it \
         takes {} readings/s. The limit then: {}.",
        rate(one),
        one.limit.words(),
        human(one.ceiling_per_second),
        one.bottleneck
    ))
}

fn several_threads(cells: &[Loaded]) -> Option<String> {
    let (one, all) = (
        cell(cells, Way::Direct, 1, true)?,
        cell(cells, Way::Direct, 1, false)?,
    );
    Some(format!(
        "With {} threads it carries {}, {} as much as with one.",
        all.threads,
        rate(all),
        times(all, one)
    ))
}

fn several_instances(cells: &[Loaded]) -> Option<String> {
    let one = cell(cells, Way::Direct, 1, true)?;
    let several: Vec<&Loaded> = cells
        .iter()
        .filter(|cell| cell.way == Way::Direct && cell.instances > 1)
        .collect();
    let last = several.last()?;
    let each: Vec<String> = several
        .iter()
        .map(|cell| format!("{} carry {}", cell.instances, rate(cell)))
        .collect();
    Some(format!(
        "{} (one: {}), {} as much with {}. The limit as fast as they go: {}.",
        each.join(", "),
        rate(one),
        times(last, one),
        last.instances,
        last.bottleneck
    ))
}

fn queued(cells: &[Loaded]) -> Option<String> {
    let pairs = cells
        .iter()
        .filter(|cell| cell.way == Way::Queued)
        .filter_map(|queued| {
            let is_pair = |cell: &&Loaded| {
                cell.way == Way::Direct
                    && (cell.instances, cell.threads) == (queued.instances, queued.threads)
            };
            let direct = cells.iter().find(is_pair)?;
            Some(format!(
                "{}: {} instead of {} ({})",
                name(queued.way, queued.instances, queued.threads),
                rate(queued),
                human(direct.best_per_second),
                times(queued, direct)
            ))
        });
    let pairs: Vec<String> = pairs.collect();
    let last = cells.iter().rfind(|cell| cell.way == Way::Queued)?;
    Some(format!(
        "{}. The limit as fast as it goes: {}.",
        pairs.join("; "),
        last.bottleneck
    ))
}

fn latencies(cells: &[Loaded]) -> Option<String> {
    let at = |way| cell(cells, way, 1, false)?.measured.get(1);
    let (direct, queued) = (at(Way::Direct)?, at(Way::Queued)?);
    let total = |report: &crate::report::Report| {
        let stage = report
            .stages
            .iter()
            .find(|stage| stage.stage == "received_to_persisted")?;
        Some((stage.p50, stage.p99))
    };
    let (direct_total, queued_total) = (total(direct)?, total(queued)?);
    Some(format!(
        "At 80 % of what each carries with one front end and all threads, an answer takes {} ms directly and {} ms queued at \
         the median, {} and {} ms at the 99th percentile; from receipt to the table it is {} and {} ms at the median, {} and \
         {} ms at the 99th.",
        human(direct.latency_ms.p50),
        human(queued.latency_ms.p50),
        human(direct.latency_ms.p99),
        human(queued.latency_ms.p99),
        human(direct_total.0),
        human(queued_total.0),
        human(direct_total.1),
        human(queued_total.1),
    ))
}

//! Comparison: is one set of runs worse than another, beyond what runs differ by themselves?
//!
//! In: reports or matrices of either side, of repeated runs where there are any. Out: each figure of both with the change, the
//! noise, and whether it is worse. The noise of a figure is how far the runs of the base lie apart, so that a new side that
//! has become unsteady does not excuse itself; where there is only one run, an assumed one is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::matrix::cell::name;
use crate::matrix::{self, Matrix};
use crate::report::{self, Machine, Report};
use crate::scenario::Scenario;

/// Noise that is assumed where the base has one run only.
const ONE_RUN: f64 = 0.15;
/// The same of what a cell of a matrix carries: short trials of a search differ by so much,
const ONE_MATRIX: f64 = 0.35;
/// and of the times at a part of that, by this.
const ONE_MATRIX_TIMES: f64 = 1.0;
/// Changes below this are never called worse.
const LEAST: f64 = 0.05;
/// Times below this are not told apart, in milliseconds: a tick of a clock or a scheduler.
const LEAST_MS: f64 = 0.2;
/// The same of CPU-seconds for a million readings.
const LEAST_CPU: f64 = 0.02;

/// A figure of a run.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    /// Whether more of it is better.
    is_rate: bool,
    /// Differences up to this are none.
    least: f64,
    /// Noise where the base has one run only.
    assumed: f64,
    /// The worst run counts, and not the median: of failures, one is one too many.
    is_by_worst: bool,
}

/// A figure of both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What it is.
    pub figure: String,
    /// The median of the first side.
    pub base: f64,
    /// The median of the second.
    pub new: f64,
    /// By which part of the first it is better (above 0) or worse (below).
    pub better: f64,
    /// By which part runs of the base lie apart.
    pub noise: f64,
    /// Worse, and by more than the noise.
    pub is_regression: bool,
}

/// What a comparison has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Each figure that both sides have.
    pub changes: Vec<Change>,
    /// Figures that only the base has: nobody knows whether they are worse.
    pub missing: Vec<String>,
    /// Why the sides may not be comparable.
    pub warnings: Vec<String>,
}

/// A run of a side.
struct Side {
    figures: Vec<Figure>,
    /// What it was and where, so that only the like is compared.
    what: String,
    is_interrupted: bool,
}

/// Compares two sides, each a report, a matrix, a folder of one, or a folder of such folders.
///
/// # Errors
/// A side has none, or they have no figure in common.
pub fn compare(base: &Path, new: &Path) -> anyhow::Result<Comparison> {
    let (base, new) = (read(base)?, read(new)?);
    let mut found = Comparison::default();
    let mut figures: Vec<&Figure> = Vec::new();
    for figure in base.iter().flat_map(|run| &run.figures) {
        if figures.iter().all(|one| one.name != figure.name) {
            figures.push(figure);
        }
    }
    for figure in figures {
        let of = |side: &[Side]| -> Vec<f64> {
            let value = |run: &Side| {
                Some(
                    run.figures
                        .iter()
                        .find(|one| one.name == figure.name)?
                        .value,
                )
            };
            side.iter().filter_map(value).collect()
        };
        let (before, after) = (of(&base), of(&new));
        if after.len() < new.len() {
            found.missing.push(figure.name.clone());
        } else {
            found.changes.push(change(figure, &before, &after));
        }
    }
    ensure!(!found.changes.is_empty(), "they have no figure in common");
    let first = &base[0].what;
    for other in base.iter().chain(&new).filter(|run| run.what != *first) {
        let warning = format!("not the same was run: {first}; and: {}", other.what);
        if !found.warnings.contains(&warning) {
            found.warnings.push(warning);
        }
    }
    if base.iter().chain(&new).any(|run| run.is_interrupted) {
        found
            .warnings
            .push("a run was ended before its time".into());
    }
    Ok(found)
}

fn change(figure: &Figure, before: &[f64], after: &[f64]) -> Change {
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let one = |values: &[f64]| {
        if figure.is_by_worst {
            worst(values)
        } else {
            median(values)
        }
    };
    let (base, new) = (one(before), one(after));
    let noise = if figure.is_by_worst {
        0.0
    } else {
        spread(before).unwrap_or(figure.assumed)
    };
    let difference = if figure.is_rate {
        new - base
    } else {
        base - new
    };
    let better = if base > 0.0 {
        difference / base
    } else {
        difference.signum() * f64::from(difference != 0.0)
    };
    Change {
        figure: figure.name.clone(),
        base,
        new,
        better,
        noise,
        is_regression: better < -noise.max(LEAST) && difference.abs() > figure.least,
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        (sorted[half - 1] + sorted[half]) / 2.0
    }
}

/// How far values lie apart, as a part of their median; none of a single one.
fn spread(values: &[f64]) -> Option<f64> {
    let (least, most) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), &one| {
            (least.min(one), most.max(one))
        });
    let median = median(values);
    (values.len() > 1).then(|| {
        if median > 0.0 {
            (most - least) / median
        } else {
            0.0
        }
    })
}

fn read(side: &Path) -> anyhow::Result<Vec<Side>> {
    let mut files = Vec::new();
    find(side, 2, &mut files)?;
    files.sort();
    let runs: anyhow::Result<Vec<_>> = files.iter().map(|file| run(file)).collect();
    let runs = runs?;
    ensure!(
        !runs.is_empty(),
        "{}: no {} and no {} in it",
        side.display(),
        report::FILE,
        matrix::FILE
    );
    Ok(runs)
}

/// Reports and matrices of a file or a folder, down to so many levels.
fn find(path: &Path, levels: u32, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let is_one = path
            .file_name()
            .is_some_and(|name| name == report::FILE || name == matrix::FILE);
        if is_one || (levels > 1 && path.is_dir()) {
            find(&path, levels - 1, files)?;
        }
    }
    Ok(())
}

fn run(file: &Path) -> anyhow::Result<Side> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if let Ok(matrix) = serde_json::from_str::<Matrix>(&text) {
        let Matrix {
            batch, connections, ..
        } = matrix;
        let what = format!(
            "a matrix with requests of {batch} over {connections} connections, {}",
            on(&matrix.machine)
        );
        return Ok(Side {
            figures: of_matrix(&matrix),
            what,
            is_interrupted: matrix.incomplete.is_some(),
        });
    }
    let report: Report = serde_json::from_str(&text).with_context(|| {
        format!(
            "{}: neither a report nor a matrix of this version",
            file.display()
        )
    })?;
    let scenario = Scenario::parse(&report.scenario).with_context(|| file.display().to_string())?;
    let what = format!(
        "{}, {:?} loop, {} readings/s in requests of {} over {} connections for {:?}, {}",
        scenario.name,
        scenario.mode,
        scenario.rate,
        scenario.batch,
        scenario.connections,
        scenario.duration,
        on(&report.machine)
    );
    Ok(Side {
        figures: of_report(&report, ""),
        what,
        is_interrupted: report.interrupted,
    })
}

fn on(machine: &Machine) -> String {
    format!("on {} x {}", machine.cores, machine.processor)
}

fn of_report(report: &Report, of: &str) -> Vec<Figure> {
    let figure = |name: &str, value, is_rate, least| Figure {
        name: format!("{of}{name}"),
        value,
        is_rate,
        least,
        assumed: ONE_RUN,
        is_by_worst: false,
    };
    let mut figures = vec![figure(
        "readings/s accepted",
        report.accepted_per_second,
        true,
        0.0,
    )];
    let times = &report.latency_ms;
    // Of a run that was ended in its warm-up there are none: that is not 0 ms.
    if times.count > 0 {
        for (name, value) in [
            ("p50", times.p50),
            ("p99", times.p99),
            ("p99.9", times.p999),
        ] {
            figures.push(figure(
                &format!("answer, {name} in ms"),
                value,
                false,
                LEAST_MS,
            ));
        }
    }
    for stage in &report.stages {
        figures.push(figure(
            &format!("{}, p99 in ms", stage.stage),
            stage.p99,
            false,
            LEAST_MS,
        ));
    }
    // Of several with one name, the sum.
    let mut processes: BTreeMap<&str, f64> = BTreeMap::new();
    for process in &report.processes {
        if let Some(cpu) = process.cpu_seconds_per_million {
            *processes.entry(&process.process).or_default() += cpu;
        }
    }
    for (process, cpu) in processes {
        figures.push(figure(
            &format!("{process}, CPU-s per million"),
            cpu,
            false,
            LEAST_CPU,
        ));
    }
    let counts = &report.counts;
    for (name, count) in [
        ("failed", counts.errors + counts.unlike),
        ("were dropped", counts.dropped),
    ] {
        let figure = figure(&format!("requests that {name}"), count as f64, false, 0.0);
        figures.push(Figure {
            is_by_worst: true,
            ..figure
        });
    }
    figures
}

fn of_matrix(matrix: &Matrix) -> Vec<Figure> {
    let mut figures = Vec::new();
    for cell in &matrix.cells {
        let name = name(cell.way, cell.instances, cell.threads);
        for (what, value) in [
            ("carries", cell.best_per_second),
            ("closed loop", cell.ceiling_per_second),
        ] {
            let name = format!("{name}, {what}, readings/s");
            figures.push(Figure {
                name,
                value,
                is_rate: true,
                least: 0.0,
                assumed: ONE_MATRIX,
                is_by_worst: false,
            });
        }
        for (report, share) in cell.measured.iter().zip(["50 %", "80 %"]) {
            // Its rate is that share of what the cell carries, and no figure of its own.
            let own = of_report(report, &format!("{name} at {share}: "))
                .into_iter()
                .filter(|one| !one.is_rate);
            figures.extend(own.map(|one| Figure {
                assumed: ONE_MATRIX_TIMES,
                ..one
            }));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_is_what_lies_beyond_the_noise() {
        let change = |is_rate, is_by_worst, before: &[f64], after: &[f64]| {
            let figure = Figure {
                name: "x".into(),
                value: 0.0,
                is_rate,
                least: 0.0,
                assumed: ONE_RUN,
                is_by_worst,
            };
            change(&figure, before, after).is_regression
        };
        let (rate, time) = (
            |before: &[f64], after: &[f64]| change(true, false, before, after),
            |before: &[f64], after: &[f64]| change(false, false, before, after),
        );
        // Quiet runs: ten per cent less is worse, three are not, more never is.
        assert!(rate(&[100.0, 101.0, 99.0], &[90.0, 91.0, 89.0]));
        assert!(!rate(&[100.0, 101.0, 99.0], &[97.0, 97.0, 97.0]));
        assert!(!rate(&[100.0, 101.0, 99.0], &[150.0, 150.0, 150.0]));
        // A noisy base hides the same ten per cent, and one run proves as little; that the new side is noisy hides nothing.
        assert!(!rate(&[100.0, 120.0, 90.0], &[90.0, 91.0, 89.0]));
        assert!(!rate(&[100.0], &[90.0]) && rate(&[100.0], &[80.0]));
        assert!(rate(&[100.0, 101.0, 99.0], &[50.0, 50.0, 100.0]));
        // Of times and errors, less is better, and of errors the worst run counts.
        assert!(time(&[1.0, 1.0], &[1.2, 1.2]) && !time(&[1.2, 1.2], &[1.0, 1.0]));
        let errors = |before: &[f64], after: &[f64]| change(false, true, before, after);
        assert!(errors(&[0.0, 0.0, 0.0], &[0.0, 0.0, 5.0]) && !errors(&[0.0], &[0.0]));
    }
}

//! Comparison: is one set of runs worse than another, beyond what runs differ by themselves?
//!
//! In: reports or matrices of either side, of repeated runs where there are any. Out: each figure of both with the change, the
//! noise, and whether it is worse. The noise of a figure is how far the runs of a side lie apart; where there is only one
//! run, it is taken as [`UNKNOWN_NOISE`].

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::matrix::cell::name;
use crate::matrix::{self, Matrix};
use crate::report::{self, Report};

/// Noise that is assumed where a side has one run only.
pub const UNKNOWN_NOISE: f64 = 0.15;
/// Changes below this are never called worse.
const LEAST: f64 = 0.05;
/// Times below this are not told apart, in milliseconds: a tick of a clock or a scheduler.
const LEAST_MS: f64 = 0.2;

/// A figure of a run.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    /// Whether more of it is better.
    is_rate: bool,
    /// Differences up to this are none.
    least: f64,
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
    /// By which part runs of one side lie apart.
    pub noise: f64,
    /// Worse, and by more than the noise.
    pub is_regression: bool,
}

/// Compares two sides, each a report, a matrix, a folder of one, or a folder of such folders.
///
/// # Errors
/// A side has none, or they have no figure in common.
pub fn compare(base: &Path, new: &Path) -> anyhow::Result<Vec<Change>> {
    let (base, new) = (read(base)?, read(new)?);
    let mut changes = Vec::new();
    for figure in &base[0] {
        let of = |side: &[Vec<Figure>]| -> Vec<f64> {
            let value = |run: &Vec<Figure>| Some(run.iter().find(|one| one.name == figure.name)?.value);
            side.iter().filter_map(value).collect()
        };
        let (before, after) = (of(&base), of(&new));
        if !after.is_empty() {
            changes.push(change(figure, &before, &after));
        }
    }
    ensure!(!changes.is_empty(), "they have no figure in common");
    Ok(changes)
}

fn change(figure: &Figure, before: &[f64], after: &[f64]) -> Change {
    let (base, new) = (median(before), median(after));
    let noise = spread(before).max(spread(after));
    let difference = if figure.is_rate { new - base } else { base - new };
    let better = if base > 0.0 { difference / base } else { difference.signum() * f64::from(difference != 0.0) };
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
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// How far values lie apart, as a part of their median.
fn spread(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return UNKNOWN_NOISE;
    }
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), &one| (least.min(one), most.max(one)));
    let median = median(values);
    if median > 0.0 { (most - least) / median } else { 0.0 }
}

/// The figures of each run of a side.
fn read(side: &Path) -> anyhow::Result<Vec<Vec<Figure>>> {
    let mut files = Vec::new();
    find(side, 2, &mut files)?;
    files.sort();
    let runs: anyhow::Result<Vec<_>> = files.iter().map(|file| figures(file)).collect();
    let runs = runs?;
    ensure!(!runs.is_empty(), "{}: no {} and no {} in it", side.display(), report::FILE, matrix::FILE);
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
        let is_one = path.file_name().is_some_and(|name| name == report::FILE || name == matrix::FILE);
        if is_one || (levels > 1 && path.is_dir()) {
            find(&path, levels - 1, files)?;
        }
    }
    Ok(())
}

fn figures(file: &Path) -> anyhow::Result<Vec<Figure>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if let Ok(matrix) = serde_json::from_str::<Matrix>(&text) {
        return Ok(of_matrix(&matrix));
    }
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{}: neither a report nor a matrix of this version", file.display()))?;
    Ok(of_report(&report, ""))
}

fn of_report(report: &Report, of: &str) -> Vec<Figure> {
    let mut figures = vec![Figure {
        name: format!("{of}readings/s accepted"),
        value: report.accepted_per_second,
        is_rate: true,
        least: 0.0,
    }];
    let mut less = |name: String, value: f64, least| figures.push(Figure { name, value, is_rate: false, least });
    let times = &report.latency_ms;
    for (name, value) in [("p50", times.p50), ("p99", times.p99), ("p99.9", times.p999)] {
        less(format!("{of}answer, {name} in ms"), value, LEAST_MS);
    }
    for stage in &report.stages {
        less(format!("{of}{}, p99 in ms", stage.stage), stage.p99, LEAST_MS);
    }
    for process in &report.processes {
        less(format!("{of}{}, CPU-s per million", process.process), process.cpu_seconds_per_million, 0.02);
    }
    less(format!("{of}requests that failed"), (report.counts.errors + report.counts.unlike) as f64, 0.0);
    less(format!("{of}requests that were dropped"), report.counts.dropped as f64, 0.0);
    figures
}

fn of_matrix(matrix: &Matrix) -> Vec<Figure> {
    let mut figures = Vec::new();
    for cell in &matrix.cells {
        let name = name(cell.way, cell.instances, cell.threads);
        for (what, value) in [("carries", cell.best_per_second), ("closed loop", cell.ceiling_per_second)] {
            let name = format!("{name}, {what}, readings/s");
            figures.push(Figure { name, value, is_rate: true, least: 0.0 });
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(is_rate: bool) -> Figure {
        Figure { name: "x".into(), value: 0.0, is_rate, least: 0.0 }
    }

    #[test]
    fn worse_is_what_lies_beyond_the_noise() {
        let change = |is_rate, before: &[f64], after: &[f64]| change(&figure(is_rate), before, after).is_regression;
        // Quiet runs: ten per cent less is worse, three are not, more never is.
        assert!(change(true, &[100.0, 101.0, 99.0], &[90.0, 91.0, 89.0]));
        assert!(!change(true, &[100.0, 101.0, 99.0], &[97.0, 97.0, 97.0]));
        assert!(!change(true, &[100.0, 101.0, 99.0], &[150.0, 150.0, 150.0]));
        // Noisy runs hide the same ten per cent, and one run proves as little.
        assert!(!change(true, &[100.0, 120.0, 90.0], &[90.0, 91.0, 89.0]));
        assert!(!change(true, &[100.0], &[90.0]) && change(true, &[100.0], &[80.0]));
        // Of times and errors, less is better.
        assert!(change(false, &[1.0, 1.0], &[1.2, 1.2]) && !change(false, &[1.2, 1.2], &[1.0, 1.0]));
        assert!(change(false, &[0.0, 0.0], &[5.0, 5.0]) && !change(false, &[0.0], &[0.0]));
    }
}

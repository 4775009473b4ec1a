//! The figures of one side of a comparison, from its reports and matrices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::harness::matrix::{self, Matrix};
use crate::harness::report::{self, Machine, Report};
use crate::plural::plural;
use crate::scenario::{Mode, Scenario};

/// Assumed noise if the base has one run only.
pub(super) const ONE_RUN: f64 = 0.15;
/// Assumed noise of the highest rate of a matrix cell: the short trials of a search differ by that
/// much.
const ONE_MATRIX: f64 = 0.35;
/// Assumed noise of the latencies at a share of that rate.
const ONE_MATRIX_LATENCIES: f64 = 1.0;
/// Differences of latencies up to this are ignored, in milliseconds: the resolution of a clock or a
/// scheduler.
const MIN_DIFFERENCE_MS: f64 = 0.2;
/// The same for CPU-seconds per million readings.
const MIN_DIFFERENCE_CPU: f64 = 0.02;

/// A figure of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    /// Whether a higher value is better.
    pub(super) is_rate: bool,
    /// Differences up to this are ignored.
    pub(super) min_difference: f64,
    /// The noise if the base has one run only.
    pub(super) assumed_noise: f64,
    /// Whether the worst run is compared instead of the median, as for failures.
    pub(super) is_by_worst: bool,
}

/// A run of one side.
pub(super) struct SideRun {
    pub(super) figures: Vec<Figure>,
    /// What was run, and on which machine; only equal runs are comparable.
    pub(super) description: String,
    pub(super) is_interrupted: bool,
}

/// Reads the runs of a side: a report, a matrix, or directories of them.
///
/// # Errors
/// There is none, or a file cannot be read.
pub(super) fn read(side: &Path) -> anyhow::Result<Vec<SideRun>> {
    let mut files = Vec::new();
    find(side, 2, &mut files)?;
    files.sort();
    let runs: anyhow::Result<Vec<_>> = files.iter().map(|file| read_run(file)).collect();
    let runs = runs?;
    ensure!(
        !runs.is_empty(),
        "{}: the directory has neither {} nor {}",
        side.display(),
        report::FILE,
        matrix::FILE
    );
    Ok(runs)
}

/// Finds reports and matrices in a file or a directory, down to this number of levels.
fn find(path: &Path, levels: u32, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let is_run = path
            .file_name()
            .is_some_and(|name| name == report::FILE || name == matrix::FILE);
        if is_run || (levels > 1 && path.is_dir()) {
            find(&path, levels - 1, files)?;
        }
    }
    Ok(())
}

fn read_run(file: &Path) -> anyhow::Result<SideRun> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if let Ok(matrix) = serde_json::from_str::<Matrix>(&text) {
        let description = format!(
            "a matrix with {} per request over {}, {}",
            plural(matrix.batch, "reading"),
            plural(matrix.connections, "connection"),
            machine_description(&matrix.machine)
        );
        return Ok(SideRun {
            figures: of_matrix(&matrix),
            description,
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
    let rate = match scenario.mode {
        Mode::Open => format!("{} readings/s", scenario.first_rate()),
        Mode::Closed => "a closed loop".to_owned(),
    };
    let description = format!(
        "{}, {rate}, {} per request over {} for {:?}, {}",
        scenario.name,
        plural(scenario.batch, "reading"),
        plural(scenario.connections, "connection"),
        scenario.duration,
        machine_description(&report.machine)
    );
    Ok(SideRun {
        figures: of_report(&report, ""),
        description,
        is_interrupted: report.interrupted,
    })
}

fn machine_description(machine: &Machine) -> String {
    format!(
        "on {} of {}",
        plural(machine.cores, "core"),
        machine.processor
    )
}

fn of_report(report: &Report, prefix: &str) -> Vec<Figure> {
    let figure = |name: &str, value, is_rate, min_difference| Figure {
        name: format!("{prefix}{name}"),
        value,
        is_rate,
        min_difference,
        assumed_noise: ONE_RUN,
        is_by_worst: false,
    };
    let mut figures = vec![figure(
        "readings/s accepted",
        report.accepted_per_second,
        true,
        0.0,
    )];
    let latency = &report.latency_ms;
    // A run that was stopped in its warm-up has no latencies, not latencies of 0 ms.
    if latency.count > 0 {
        for (name, value) in [
            ("p50", latency.p50),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
        ] {
            let name = format!("response, {name} in ms");
            figures.push(figure(&name, value, false, MIN_DIFFERENCE_MS));
        }
    }
    for stage in &report.stages {
        let name = format!("{}, p99 in ms", stage.stage);
        figures.push(figure(&name, stage.p99, false, MIN_DIFFERENCE_MS));
    }
    // Processes with the same name are added up.
    let mut processes: BTreeMap<&str, f64> = BTreeMap::new();
    for process in &report.processes {
        if let Some(cpu) = process.cpu_seconds_per_million {
            *processes.entry(&process.process).or_default() += cpu;
        }
    }
    for (process, cpu) in processes {
        let name = format!("{process}, CPU-s per million");
        figures.push(figure(&name, cpu, false, MIN_DIFFERENCE_CPU));
    }
    let counts = &report.counts;
    for (name, count) in [
        ("requests that failed", counts.errors + counts.mismatched),
        ("requests that were dropped", counts.dropped),
    ] {
        figures.push(Figure {
            is_by_worst: true,
            ..figure(name, count as f64, false, 0.0)
        });
    }
    figures
}

fn of_matrix(matrix: &Matrix) -> Vec<Figure> {
    let mut figures = Vec::new();
    for cell in &matrix.cells {
        let name = cell.name();
        for (what, value) in [
            ("highest rate", cell.best_per_second),
            ("closed loop", cell.ceiling_per_second),
        ] {
            figures.push(Figure {
                name: format!("{name}, {what}, readings/s"),
                value,
                is_rate: true,
                min_difference: 0.0,
                assumed_noise: ONE_MATRIX,
                is_by_worst: false,
            });
        }
        for (report, share) in cell.measured.iter().zip(["50 %", "80 %"]) {
            // The rate of a measurement is a share of the highest rate, not a figure of its own.
            let latencies = of_report(report, &format!("{name} at {share}: "))
                .into_iter()
                .filter(|figure| !figure.is_rate);
            figures.extend(latencies.map(|figure| Figure {
                assumed_noise: ONE_MATRIX_LATENCIES,
                ..figure
            }));
        }
    }
    figures
}

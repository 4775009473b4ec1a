//! The HTML page of a matrix: the answers first, then their figures.
//!
//! In: a [`Matrix`]. Out: HTML and SVG. Nothing can fail.

use std::fmt::Write as _;

use super::cell::{FRONT_END, GENERATOR};
use super::{CellResult, Matrix};
use crate::harness::html::{
    PIPELINE_STAGES, document, nines, percentile_axes, table, table_row, text_row,
};
use crate::harness::plot::{Line, bars, escape, format_number, lines, stacks};
use crate::harness::report::Report;
use crate::plural::plural;

/// The processes without the generator, in the order of the pipeline.
const PROCESSES: [&str; 5] = ["HAProxy", FRONT_END, "RabbitMQ", "worker", "PostgreSQL"];

/// The page.
pub fn page(matrix: &Matrix) -> String {
    let mut out = String::new();
    for answer in &matrix.answers {
        let _ = write!(
            out,
            "<h2>{}</h2><p>{}</p>",
            escape(&answer.question),
            escape(&answer.answer)
        );
    }
    let _ = write!(
        out,
        "<h2>Highest rates</h2><p>The highest rate, in readings per second, at which 99 % of \
         the responses are received within {} ms of the scheduled send, without errors and \
         without a growing backlog.</p>\
         {}{}",
        format_number(matrix.target_ms),
        picture(matrix),
        table(&rates(&matrix.cells))
    );
    for (title, index) in [
        ("At 50 % of the highest rate", 0),
        ("At 80 % of the highest rate", 1),
    ] {
        let measured: Vec<(String, &Report)> = matrix
            .cells
            .iter()
            .filter_map(|cell| Some((cell.name(), cell.measured.get(index)?)))
            .collect();
        let _ = write!(out, "<h2>{title}</h2>{}", latencies(&measured));
    }
    write_environment(matrix, &mut out);
    document("Load test: matrix", &out)
}

fn write_environment(matrix: &Matrix, out: &mut String) {
    let machine = &matrix.machine;
    let _ = write!(
        out,
        "<h2>Environment</h2><p>{}, {}, {} MiB, Linux {}. The generator, the load balancer, \
         the servers and Gridwatch share these cores: {}; started {}; seed {}; \
         {} per request over {}. Against an idle server the generator reaches \
         {} readings/s, {:.1} times the highest rate above.</p>",
        escape(&machine.processor),
        plural(machine.cores, "core"),
        format_number(machine.memory_mib as f64),
        escape(&machine.kernel),
        escape(&matrix.versions.join(", ")),
        escape(&matrix.started_at),
        matrix.seed,
        plural(matrix.batch, "reading"),
        plural(matrix.connections, "connection"),
        format_number(matrix.generator_per_second),
        matrix.headroom
    );
}

/// The highest rate of each deployment, as SVG.
pub fn picture(matrix: &Matrix) -> String {
    let rates: Vec<_> = matrix
        .cells
        .iter()
        .map(|cell| (cell.name(), cell.best_per_second))
        .collect();
    bars("readings/s", &rates)
}

fn rates(cells: &[CellResult]) -> Vec<Vec<String>> {
    let mut rows = vec![text_row(&[
        "",
        "highest rate",
        "closed loop",
        "limit",
        "bottleneck in the closed loop",
    ])];
    for cell in cells {
        let mut row = table_row(
            &cell.name(),
            &[cell.best_per_second, cell.ceiling_per_second],
        );
        row.extend([cell.limit.description().to_owned(), cell.bottleneck.clone()]);
        rows.push(row);
    }
    rows
}

fn latencies(measured: &[(String, &Report)]) -> String {
    let mut rows = vec![text_row(&[
        "ms",
        "p50",
        "p99",
        "p99.9",
        "p99.99",
        "stored p50",
        "stored p99",
        "CPU-s per million",
    ])];
    let mut bars = Vec::new();
    for (name, report) in measured {
        let total = report.stage("received_to_persisted");
        let cpu: f64 = report
            .processes
            .iter()
            .filter(|process| process.process != GENERATOR)
            .filter_map(|process| process.cpu_seconds_per_million)
            .sum();
        let latency = &report.latency_ms;
        let values = [
            latency.p50,
            latency.p99,
            latency.p999,
            latency.p9999,
            total.map_or(0.0, |total| total.p50),
            total.map_or(0.0, |total| total.p99),
            cpu,
        ];
        rows.push(table_row(name, &values));
        let mean = |stage: &str| report.stage(stage).map_or(0.0, |stage| stage.mean);
        bars.push((name.clone(), PIPELINE_STAGES.map(mean).to_vec()));
    }
    let curves: Vec<Line> = measured
        .iter()
        .map(|(name, report)| Line {
            name: name.clone(),
            points: report
                .curve_ms
                .iter()
                .map(|point| (nines(point.0), point.1))
                .collect(),
        })
        .collect();
    format!(
        "{}{}<p>Mean time from receipt to the table:</p>{}\
         <p>CPU-seconds per million readings, by process:</p>{}",
        table(&rows),
        lines(percentile_axes("percentile of the responses"), &curves),
        stacks("ms", &PIPELINE_STAGES, &bars),
        stacks("CPU-s", &PROCESSES, &cpu_by_process(measured))
    )
}

/// CPU-seconds per million readings, in the order of [`PROCESSES`].
fn cpu_by_process(measured: &[(String, &Report)]) -> Vec<(String, Vec<f64>)> {
    let cpu = |report: &Report, name: &str| -> f64 {
        let processes = report.processes.iter();
        let named = processes.filter(|process| process.process == name);
        named
            .filter_map(|process| process.cpu_seconds_per_million)
            .sum()
    };
    let bar = |(name, report): &(String, &Report)| {
        let values = PROCESSES.map(|process| cpu(report, process));
        (name.clone(), values.to_vec())
    };
    measured.iter().map(bar).collect()
}

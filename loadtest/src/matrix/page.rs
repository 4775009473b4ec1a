//! The matrix as a page: the answers first, then what they rest on.

use std::fmt::Write as _;

use crate::html::{WAY, document, table};
use crate::matrix::cell::name;
use crate::matrix::{Loaded, Matrix};
use crate::plot::{Axes, Line, bars, escape, human, lines, stacks};
use crate::report::Report;

/// What Gridwatch runs with, in the order of a reading's way; the generator counts apart.
const PROCESSES: [&str; 5] = ["HAProxy", "front end", "RabbitMQ", "worker", "PostgreSQL"];

/// The whole page.
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
        "<h2>What each carries</h2><p>The highest rate, in readings a second, at which 99 of 100 answers came within {} ms of \
         the intended send, without an error, and without a growing backlog.</p>{}{}",
        human(matrix.target_ms),
        picture(matrix),
        table(&rates(&matrix.cells))
    );
    for (title, at) in [("At 50 % of it", 0), ("At 80 % of it", 1)] {
        let measured: Vec<(String, &Report)> = matrix
            .cells
            .iter()
            .filter_map(|cell| Some((title_of(cell), cell.measured.get(at)?)))
            .collect();
        let _ = write!(out, "<h2>{title}</h2>{}", latencies(&measured));
    }
    let machine = &matrix.machine;
    let _ = write!(
        out,
        "<h2>Where and how</h2><p>{}, {} cores, {} MiB, Linux {}, with the generator, the load balancer, the servers and \
         Gridwatch on the same cores: {}; begun {}; seed {}; requests of {} readings over {} connections. Against a server that does \
         nothing the generator reaches {} readings/s, {:.1} times the best rate above.</p>",
        escape(&machine.processor),
        machine.cores,
        human(machine.memory_mib as f64),
        escape(&machine.kernel),
        escape(&matrix.versions.join(", ")),
        escape(&matrix.started_at),
        matrix.seed,
        matrix.batch,
        matrix.connections,
        human(matrix.generator_per_second),
        matrix.headroom
    );
    document("Load test: the matrix", &out)
}

/// What each shape carries, as a picture.
pub fn picture(matrix: &Matrix) -> String {
    let each: Vec<_> = matrix
        .cells
        .iter()
        .map(|cell| (title_of(cell), cell.best_per_second))
        .collect();
    bars("readings/s", &each)
}

fn title_of(cell: &Loaded) -> String {
    name(cell.way, cell.instances, cell.threads)
}

fn rates(cells: &[Loaded]) -> Vec<Vec<String>> {
    let mut rows = vec![
        [
            "",
            "carries",
            "closed loop",
            "limit",
            "the limit as fast as it goes",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for cell in cells {
        rows.push(vec![
            title_of(cell),
            human(cell.best_per_second),
            human(cell.ceiling_per_second),
            cell.limit.words().to_owned(),
            cell.bottleneck.clone(),
        ]);
    }
    rows
}

fn latencies(measured: &[(String, &Report)]) -> String {
    let mut rows = vec![
        [
            "ms",
            "p50",
            "p99",
            "p99.9",
            "p99.99",
            "stored p50",
            "stored p99",
            "CPU-s per million",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut bars = Vec::new();
    for (name, report) in measured {
        let stage = |stage: &str| report.stages.iter().find(|one| one.stage == stage);
        let total = stage("received_to_persisted");
        let cpu: f64 = report
            .processes
            .iter()
            .filter(|one| one.process != "load generator")
            .filter_map(|one| one.cpu_seconds_per_million)
            .sum();
        let times = &report.latency_ms;
        let values = [
            times.p50,
            times.p99,
            times.p999,
            times.p9999,
            total.map_or(0.0, |total| total.p50),
            total.map_or(0.0, |total| total.p99),
            cpu,
        ];
        rows.push(
            std::iter::once(name.clone())
                .chain(values.map(human))
                .collect(),
        );
        bars.push((
            name.clone(),
            WAY.map(|name| stage(name).map_or(0.0, |stage| stage.mean))
                .to_vec(),
        ));
    }
    let curves: Vec<Line> = measured
        .iter()
        .map(|(name, report)| Line {
            name: name.clone(),
            points: report
                .curve_ms
                .iter()
                .map(|point| (-(1.0 - point.0).log10(), point.1))
                .collect(),
        })
        .collect();
    let ticks = [
        (0.0, "0"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
    ];
    let axes = Axes {
        x: "percentile of the answers",
        y: "milliseconds",
        is_log: true,
        ticks: &ticks,
    };
    format!(
        "{}{}<p>From receipt to the table, in the mean:</p>{}<p>CPU-seconds per million readings, by process:</p>{}",
        table(&rows),
        lines(axes, &curves),
        stacks("ms", &WAY, &bars),
        stacks("CPU-s", &PROCESSES, &cpu(measured))
    )
}

/// CPU time for a million readings by process, in the order of [`PROCESSES`].
fn cpu(measured: &[(String, &Report)]) -> Vec<(String, Vec<f64>)> {
    let of = |report: &Report, process: &str| -> f64 {
        let own = report.processes.iter().filter(|one| one.process == process);
        own.filter_map(|one| one.cpu_seconds_per_million).sum()
    };
    let bar = |(name, report): &(String, &Report)| {
        (name.clone(), PROCESSES.map(|one| of(report, one)).to_vec())
    };
    measured.iter().map(bar).collect()
}

//! The HTML page of a report: one file that loads nothing from the network.
//!
//! In: a [`Report`]. Out: HTML. Nothing can fail.

use std::fmt::Write as _;

use crate::harness::plot::{Axes, Line, escape, format_number, lines, stacks};
use crate::harness::report::{Report, Row};
use crate::plural::{plural, with_separators};
use crate::recorder::Quantiles;

/// The stages of a reading in Gridwatch, in the order of the pipeline.
pub(crate) const PIPELINE_STAGES: [&str; 3] = [
    "received_to_enqueued",
    "enqueued_to_dequeued",
    "dequeued_to_persisted",
];
const STYLE: &str = "\
    body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;\
    color:#1a1a1a}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
    table{border-collapse:collapse}\
    td,th{padding:.15em .9em .15em 0;text-align:right;font-variant-numeric:tabular-nums}\
    td:first-child,th:first-child{text-align:left}\
    th{font-weight:600;border-bottom:1px solid #bbb}\
    svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#444}\
    .grid{stroke:#e3e3e3}.legend span{margin-right:1.2em}\
    .legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em}\
    pre{background:#f5f5f5;padding:.8em;overflow-x:auto;font-size:13px}.bad{color:#b00020}";

/// A page with this title and body.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n\
         <body>\n<h1>{0}</h1>\n{body}\n</body></html>\n",
        escape(title)
    )
}

/// A table; the first row is its head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut out = String::from("<table>");
    for (number, row) in rows.iter().enumerate() {
        let cell = if number == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for text in row {
            let _ = write!(out, "<{cell}>{}</{cell}>", escape(text));
        }
        out.push_str("</tr>\n");
    }
    out + "</table>"
}

/// A table row: a name and formatted values.
pub(crate) fn table_row(name: &str, values: &[f64]) -> Vec<String> {
    let values = values.iter().copied().map(format_number);
    std::iter::once(name.to_owned()).chain(values).collect()
}

/// A table row of texts.
pub(crate) fn text_row(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The page of a run.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    write_summary(report, &mut out);
    write_responses(report, &mut out);
    write_rows(report, &mut out);
    write_latency(report, &mut out);
    write_stages(report, &mut out);
    write_processes(report, &mut out);
    write_environment(report, &mut out);
    document(&format!("Load test: {}", report.name), &out)
}

fn write_summary(report: &Report, out: &mut String) {
    let counts = &report.counts;
    let _ = write!(
        out,
        "<p>{} accepted in {} s ({} per second), {} rejected, {} without a final response. \
         {} sent: {} late, {} dropped, {} retried, {} repeated.{}</p>",
        plural(counts.accepted, "reading"),
        format_number(report.seconds),
        format_number(report.accepted_per_second),
        with_separators(counts.rejected),
        with_separators(counts.unknown),
        plural(counts.sent, "request"),
        with_separators(counts.late),
        with_separators(counts.dropped),
        with_separators(counts.retried),
        with_separators(counts.repeated),
        if report.interrupted {
            " The run was ended early."
        } else {
            ""
        },
    );
    if let Some(missed) = report.missed_rate() {
        let _ = write!(out, "<p class=\"bad\">The {missed}.</p>");
    }
    if let Some(advice) = report.advice() {
        let _ = write!(out, "<pre>{}</pre>", escape(&advice));
    }
    if counts.mismatched + counts.errors > 0 {
        let _ = write!(
            out,
            "<p class=\"bad\">Without a final response: {}. Not as expected: {}. Examples:</p>\
             <pre>{}</pre>",
            plural(counts.errors, "request"),
            plural(counts.mismatched, "response"),
            escape(&report.examples.join("\n"))
        );
    }
}

/// Responses by status, requests without a response by cause, and unexpected errors by code.
fn write_responses(report: &Report, out: &mut String) {
    let rows: Vec<_> = report
        .counts
        .responses()
        .into_iter()
        .map(|(name, count)| vec![name, with_separators(count)])
        .collect();
    let head = text_row(&["response", "count"]);
    let _ = write!(
        out,
        "<h2>Responses</h2>{}",
        table(&[&[head][..], &rows].concat())
    );
    if report.counts.error_codes.is_empty() {
        return;
    }
    let codes = report.counts.error_codes.iter();
    let rows: Vec<_> = codes
        .map(|(code, count)| vec![code.clone(), with_separators(*count)])
        .collect();
    let head = text_row(&["unexpected error, as listed in responses", "count"]);
    let _ = write!(out, "{}", table(&[&[head][..], &rows].concat()));
}

fn write_environment(report: &Report, out: &mut String) {
    let machine = &report.machine;
    let versions: String = report
        .versions
        .iter()
        .map(|version| escape(version) + "; ")
        .collect();
    let _ = write!(
        out,
        "<h2>Environment and scenario</h2><p>{}, {}, {} MiB, Linux {}; loadtest {}; \
         {versions}target {}; started {}; seed {}.</p><pre>{}</pre>",
        escape(&machine.processor),
        plural(machine.cores, "core"),
        format_number(machine.memory_mib as f64),
        escape(&machine.kernel),
        escape(&machine.loadtest),
        escape(&report.target),
        escape(&report.started_at),
        report.seed,
        escape(&report.scenario)
    );
}

/// Rate, backlog and latency by time.
fn write_rows(report: &Report, out: &mut String) {
    let line = |name: &str, value: &dyn Fn(&Row) -> f64| Line {
        name: name.to_owned(),
        points: report.rows.iter().map(|row| (row.at, value(row))).collect(),
    };
    let axes = |y| Axes {
        x: "seconds",
        y,
        ..Axes::default()
    };
    let mut rates = vec![line("accepted", &|row| row.accepted_per_second)];
    if report.rows.iter().any(|row| row.backlog.is_some()) {
        rates.push(line("accepted and not stored yet", &|row| {
            row.backlog.unwrap_or(f64::NAN)
        }));
    }
    let rates = lines(axes("readings"), &rates);
    let _ = write!(out, "<h2>Readings per second</h2>{rates}");
    let latency = |value: fn(&Quantiles) -> f64| {
        move |row: &Row| row.latency_ms.as_ref().map_or(f64::NAN, value)
    };
    let latencies = [
        line("p50", &latency(|quantiles| quantiles.p50)),
        line("p99", &latency(|quantiles| quantiles.p99)),
        line("max", &latency(|quantiles| quantiles.max)),
    ];
    let axes = Axes {
        is_log: true,
        ..axes("milliseconds")
    };
    let latencies = lines(axes, &latencies);
    let _ = write!(
        out,
        "<h2>Latency over time, in ms, from the scheduled send</h2>{latencies}"
    );
}

/// Latency by percentile.
fn write_latency(report: &Report, out: &mut String) {
    let row = |name: &str, quantiles: &Quantiles| {
        let values = [
            quantiles.p50,
            quantiles.p90,
            quantiles.p99,
            quantiles.p999,
            quantiles.p9999,
            quantiles.max,
        ];
        let is_empty = quantiles.count == 0;
        table_row(
            name,
            &values.map(|value| if is_empty { f64::NAN } else { value }),
        )
    };
    let rows = [
        text_row(&["ms", "p50", "p90", "p99", "p99.9", "p99.99", "max"]),
        row("from the scheduled send", &report.latency_ms),
        row("from the actual send", &report.latency_from_send_ms),
        row("lateness of the send", &report.lateness_ms),
    ];
    let _ = write!(out, "<h2>Latency by percentile, in ms</h2>{}", table(&rows));
    let line = |name: &str, latency: fn(&(f64, f64, f64)) -> f64| Line {
        name: name.to_owned(),
        points: report
            .curve_ms
            .iter()
            .map(|point| (nines(point.0), latency(point)))
            .collect(),
    };
    let latencies = [
        line("from the scheduled send (corrected)", |point| point.1),
        line("from the actual send (uncorrected)", |point| point.2),
    ];
    out.push_str(&lines(percentile_axes("percentile"), &latencies));
}

/// The position of a quantile on a percentile axis: 1 for 90 %, 2 for 99 %.
pub(crate) fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// Axes of latency by percentile.
pub(crate) fn percentile_axes(label: &str) -> Axes<'_> {
    Axes {
        x: label,
        y: "milliseconds",
        is_log: true,
        ticks: &[
            (0.0, "0"),
            (1.0, "90 %"),
            (2.0, "99 %"),
            (3.0, "99.9 %"),
            (4.0, "99.99 %"),
            (5.0, "99.999 %"),
        ],
    }
}

fn write_stages(report: &Report, out: &mut String) {
    if report.stages.is_empty() {
        return;
    }
    let mean = |stage: &str| report.stage(stage).map_or(0.0, |stage| stage.mean);
    let bar = vec![("mean".to_owned(), PIPELINE_STAGES.map(mean).to_vec())];
    let bars = stacks("ms", &PIPELINE_STAGES, &bar);
    let _ = write!(out, "<h2>Stages</h2>{bars}");
    let mut rows = vec![text_row(&["ms", "mean", "p50", "p99", "readings"])];
    for stage in &report.stages {
        let values = [stage.mean, stage.p50, stage.p99, stage.readings as f64];
        rows.push(table_row(&stage.stage, &values));
    }
    out.push_str(&table(&rows));
}

fn write_processes(report: &Report, out: &mut String) {
    if report.processes.is_empty() {
        return;
    }
    let mut rows = vec![text_row(&[
        "process",
        "CPU-s",
        "CPU-s per million readings",
        "MiB",
    ])];
    for process in &report.processes {
        let values = [
            process.cpu_seconds,
            process.cpu_seconds_per_million.unwrap_or(f64::NAN),
            process.memory_mib,
        ];
        rows.push(table_row(&process.process, &values));
    }
    let _ = write!(out, "<h2>CPU time by process</h2>{}", table(&rows));
}

//! The report as a page: one file, no network.

use std::fmt::Write as _;

use crate::meter::Quantiles;
use crate::plot::{Axes, Line, escape, human, lines, stacks};
use crate::report::Report;

/// The stages that stand one behind the other on a reading's way in Gridwatch.
pub const WAY: [&str; 3] = [
    "received_to_enqueued",
    "enqueued_to_dequeued",
    "dequeued_to_persisted",
];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#1a1a1a}\
    h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}\
    td,th{padding:.15em .9em .15em 0;text-align:right;font-variant-numeric:tabular-nums}\
    td:first-child,th:first-child{text-align:left}th{font-weight:600;border-bottom:1px solid #bbb}\
    svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#444}.grid{stroke:#e3e3e3}\
    .legend span{margin-right:1.2em}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em}\
    pre{background:#f5f5f5;padding:.8em;overflow-x:auto;font-size:13px}.bad{color:#b00020}";

/// A whole page around what it says.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body>\n<h1>{0}</h1>\n{body}\n</body></html>\n",
        escape(title)
    )
}

/// A table; the first row is its head.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut out = String::from("<table>");
    for (at, row) in rows.iter().enumerate() {
        let cell = if at == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for text in row {
            let _ = write!(out, "<{cell}>{}</{cell}>", escape(text));
        }
        out.push_str("</tr>\n");
    }
    out + "</table>"
}

/// The page of a run.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let counts = &report.counts;
    let _ = write!(
        out,
        "<p>{} readings accepted in {} s ({} a second), {} rejected, {} without a final answer. {} requests sent, {} late, \
         {} dropped, {} sent again after an error, {} repeated.{}</p>",
        human(counts.accepted as f64),
        human(report.seconds),
        human(report.accepted_per_second),
        human(counts.rejected as f64),
        human(counts.unknown as f64),
        human(counts.sent as f64),
        human(counts.late as f64),
        human(counts.dropped as f64),
        human(counts.retried as f64),
        human(counts.repeated as f64),
        if report.interrupted {
            " The run was ended before its time."
        } else {
            ""
        },
    );
    if counts.unlike + counts.errors > 0 {
        let _ = write!(
            out,
            "<p class=\"bad\">{} requests failed, and {} answers do not fit what was sent:</p><pre>{}</pre>",
            counts.errors,
            counts.unlike,
            escape(&report.unlike.join("\n"))
        );
    }
    over_time(report, &mut out);
    latency(report, &mut out);
    processes(report, &mut out);
    let machine = &report.machine;
    let _ = write!(
        out,
        "<h2>Where and what</h2><p>{}, {} cores, {} MiB, Linux {}; loadtest {}; {}target {}; begun {}; seed {}.</p><pre>{}</pre>",
        escape(&machine.processor),
        machine.cores,
        human(machine.memory_mib as f64),
        escape(&machine.kernel),
        escape(&machine.loadtest),
        report
            .versions
            .iter()
            .map(|version| escape(version) + "; ")
            .collect::<String>(),
        escape(&report.target),
        escape(&report.started_at),
        report.seed,
        escape(&report.scenario)
    );
    document(&format!("Load test: {}", report.name), &out)
}

fn over_time(report: &Report, out: &mut String) {
    let line = |name: &str, of: &dyn Fn(&crate::report::Row) -> f64| Line {
        name: name.to_owned(),
        points: report.rows.iter().map(|row| (row.at, of(row))).collect(),
    };
    let axes = |y| Axes {
        x: "seconds",
        y,
        ..Axes::default()
    };
    let mut flow = vec![line("accepted", &|row| row.accepted_per_second)];
    if report.rows.iter().any(|row| row.backlog.is_some()) {
        flow.push(line("accepted and not stored yet", &|row| {
            row.backlog.unwrap_or(f64::NAN)
        }));
    }
    let _ = write!(
        out,
        "<h2>Readings a second</h2>{}",
        lines(axes("readings"), &flow)
    );
    let of = |part: fn(&Quantiles) -> f64| {
        move |row: &crate::report::Row| row.latency_ms.as_ref().map_or(f64::NAN, part)
    };
    let times = [
        line("p50", &of(|times| times.p50)),
        line("p99", &of(|times| times.p99)),
        line("longest", &of(|times| times.max)),
    ];
    let axes = Axes {
        is_log: true,
        ..axes("milliseconds")
    };
    let _ = write!(
        out,
        "<h2>Latency over time, in ms, from the intended send</h2>{}",
        lines(axes, &times)
    );
}

fn latency(report: &Report, out: &mut String) {
    let row = |name: &str, times: &Quantiles| {
        let values = [
            times.p50,
            times.p90,
            times.p99,
            times.p999,
            times.p9999,
            times.max,
        ];
        let values = values.map(|value| if times.count > 0 { value } else { f64::NAN });
        std::iter::once(name.to_owned())
            .chain(values.map(human))
            .collect::<Vec<_>>()
    };
    let head = ["ms", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
        .map(str::to_owned)
        .to_vec();
    let rows = [
        head,
        row("from the intended send", &report.latency_ms),
        row("from the send itself", &report.latency_from_send_ms),
        row("lateness of the send", &report.lateness_ms),
    ];
    let _ = write!(out, "<h2>Latency by percentile, in ms</h2>{}", table(&rows));
    let line = |name: &str, of: fn(&(f64, f64, f64)) -> f64| Line {
        name: name.to_owned(),
        points: report
            .curve_ms
            .iter()
            .map(|point| (-(1.0 - point.0).log10(), of(point)))
            .collect(),
    };
    let ticks = [
        (0.0, "0"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ];
    let axes = Axes {
        x: "percentile",
        y: "milliseconds",
        is_log: true,
        ticks: &ticks,
    };
    let both = [
        line("from the intended send (corrected)", |p| p.1),
        line("from the send itself (uncorrected)", |p| p.2),
    ];
    out.push_str(&lines(axes, &both));
    if report.stages.is_empty() {
        return;
    }
    let mean = |stage: &str| {
        report
            .stages
            .iter()
            .find(|one| one.stage == stage)
            .map_or(0.0, |one| one.mean)
    };
    let bar = vec![("mean".to_owned(), WAY.map(mean).to_vec())];
    let _ = write!(out, "<h2>The stages</h2>{}", stacks("ms", &WAY, &bar));
    let mut rows = vec![
        ["ms", "mean", "p50", "p99", "readings"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for stage in &report.stages {
        let values = [stage.mean, stage.p50, stage.p99, stage.readings as f64].map(human);
        rows.push(std::iter::once(stage.stage.clone()).chain(values).collect());
    }
    out.push_str(&table(&rows));
}

fn processes(report: &Report, out: &mut String) {
    if report.processes.is_empty() {
        return;
    }
    let mut rows = vec![
        ["process", "CPU-s", "CPU-s per million readings", "MiB"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for one in &report.processes {
        let values = [
            one.cpu_seconds,
            one.cpu_seconds_per_million.unwrap_or(f64::NAN),
            one.memory_mib,
        ]
        .map(human);
        rows.push(std::iter::once(one.process.clone()).chain(values).collect());
    }
    let _ = write!(out, "<h2>CPU time by process</h2>{}", table(&rows));
}

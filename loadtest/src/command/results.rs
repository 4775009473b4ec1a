//! The results of the commands as text, and the exit codes that follow from them.

use std::fmt::Write as _;
use std::path::Path;

use loadtest::harness::compare::Comparison;
use loadtest::harness::plot::format_number;
use loadtest::harness::report::{self, Report};
use loadtest::harness::verify::Verdict;
use loadtest::plural::{plural, with_separators};
use loadtest::recorder::{Counts, Quantiles};

/// Exit code of a finding: a broken promise, failed requests, a rate that was not reached, or a
/// regression.
const FINDING: u8 = 3;

fn exit_code(is_finding: bool) -> u8 {
    if is_finding { FINDING } else { 0 }
}

/// The results of a run, and the exit code.
pub(super) fn run(report: &Report, directory: &Path) -> (String, u8) {
    let mut out = String::new();
    write_counts(report, &mut out);
    write_latencies(report, &mut out);
    for stage in &report.stages {
        let _ = writeln!(
            out,
            "{:<28}{:>10.2}{:>10}{:>10.2}",
            stage.stage, stage.p50, "", stage.p99
        );
    }
    for process in &report.processes {
        let cpu = process
            .cpu_seconds_per_million
            .map_or_else(|| "no".to_owned(), |seconds| format!("{seconds:.2}"));
        let _ = writeln!(
            out,
            "{:<28}{cpu:>10} CPU-s per million readings, {:.0} MiB",
            process.process, process.memory_mib
        );
    }
    for example in &report.examples {
        let _ = writeln!(out, "  {example}");
    }
    for text in report.missed_rate().iter().chain(&report.advice()) {
        let _ = writeln!(out, "{text}");
    }
    let page = directory.join(report::PAGE);
    let _ = writeln!(out, "report in {}", page.display());
    let is_finding = report.counts.failed() > 0 || report.missed_rate().is_some();
    (out, exit_code(is_finding))
}

fn write_counts(report: &Report, out: &mut String) {
    let counts = &report.counts;
    let early = if report.interrupted {
        " (ended early)"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "{} sent in {:.1} s{early}: {} accepted ({}/s), {} rejected, {} without a final response",
        plural(counts.sent, "request"),
        report.seconds,
        plural(counts.accepted, "reading"),
        with_separators(report.accepted_per_second.round() as u64),
        with_separators(counts.rejected),
        with_separators(counts.unknown),
    );
    let Counts {
        late,
        dropped,
        retried,
        repeated,
        mismatched,
        ..
    } = *counts;
    let _ = writeln!(
        out,
        "requests: {} late, {} dropped, {} retried, {} repeated",
        with_separators(late),
        with_separators(dropped),
        with_separators(retried),
        with_separators(repeated)
    );
    let join = |counts: Vec<(String, u64)>| {
        let texts = counts
            .into_iter()
            .map(|(name, count)| format!("{name}: {}", with_separators(count)));
        texts.collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(out, "responses: {}", join(counts.responses()));
    if mismatched > 0 {
        let _ = writeln!(
            out,
            "not as expected: {}, of which the first are listed below",
            plural(mismatched, "response")
        );
    }
    if !counts.error_codes.is_empty() {
        let codes = counts.error_codes.clone().into_iter().collect();
        let _ = writeln!(out, "errors listed in these responses: {}", join(codes));
    }
}

fn write_latencies(report: &Report, out: &mut String) {
    if report.latency_ms.count == 0 {
        let _ = writeln!(
            out,
            "no request ended after the warm-up, so there are no latencies"
        );
        return;
    }
    let _ = writeln!(
        out,
        "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "ms", "p50", "p90", "p99", "p99.9", "max"
    );
    let mut line = |name: &str, quantiles: &Quantiles| {
        let _ = writeln!(
            out,
            "{name:<28}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            quantiles.p50, quantiles.p90, quantiles.p99, quantiles.p999, quantiles.max
        );
    };
    line("from the scheduled send", &report.latency_ms);
    line("from the actual send", &report.latency_from_send_ms);
    line("lateness of the send", &report.lateness_ms);
}

/// The result of a verification, and the exit code.
pub(super) fn verdict(verdict: &Verdict) -> (String, u8) {
    let Verdict {
        accepted,
        rejected,
        unknown,
        stored,
        dead_lettered,
        of_other_runs,
        violations,
    } = verdict;
    let mut out = format!(
        "accepted {}, rejected or not sent {}, without a final response {}\n\
         stored {}, dead-lettered {}\n",
        with_separators(*accepted),
        with_separators(*rejected),
        with_separators(*unknown),
        with_separators(*stored),
        with_separators(*dead_lettered)
    );
    for violation in violations {
        let times = plural(violation.count, "time");
        let _ = writeln!(out, "BROKEN: {} ({times})", violation.promise);
        for example in &violation.examples {
            let _ = writeln!(out, "  {example}");
        }
    }
    if violations.is_empty() {
        out += "verified: every accepted reading is stored once as it was sent, and no other \
                reading\n";
    }
    if violations.is_empty() && *of_other_runs > 0 {
        let _ = writeln!(
            out,
            "not verified: {} of the same series and time range, without the mark of this run. \
             These are of other runs or were never sent. Use a separate database to verify every \
             row",
            plural(*of_other_runs, "row")
        );
    }
    (out, exit_code(!violations.is_empty()))
}

/// The result of a comparison, and the exit code.
pub(super) fn comparison(comparison: &Comparison) -> (String, u8) {
    let mut out = format!(
        "{:<72}{:>12}{:>12}{:>9}{:>9}\n",
        "", "base", "new", "better", "noise"
    );
    for change in &comparison.changes {
        let regression = if change.is_regression { "  WORSE" } else { "" };
        let _ = writeln!(
            out,
            "{:<72}{:>12}{:>12}{:>8.1}%{:>8.1}%{regression}",
            change.figure,
            format_number(change.base),
            format_number(change.new),
            change.better * 100.0,
            change.noise * 100.0
        );
    }
    for figure in &comparison.missing {
        let _ = writeln!(out, "{figure:<72}  MISSING on the new side");
    }
    for warning in &comparison.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let changes = comparison.changes.iter();
    let worse = changes.filter(|change| change.is_regression).count();
    let missing = comparison.missing.len();
    let conclusion = match (worse, missing) {
        (0, 0) => "no figure is worse beyond the noise".to_owned(),
        (worse, 0) => figures(worse, "worse beyond the noise"),
        (0, missing) => figures(missing, "missing on the new side"),
        (worse, missing) => format!(
            "{}, and {}",
            figures(worse, "worse beyond the noise"),
            figures(missing, "missing on the new side")
        ),
    };
    let _ = writeln!(out, "{conclusion}");
    (out, exit_code(worse + missing > 0))
}

/// `1 figure is …`, `2 figures are …`.
fn figures(count: usize, what: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb} {what}", plural(count as u64, "figure"))
}

#[cfg(test)]
mod tests {
    use loadtest::harness::compare::Change;

    use super::*;

    #[test]
    fn a_comparison_ends_in_a_sentence_with_its_exit_code() {
        let change = |is_regression| Change {
            figure: "x".into(),
            base: 1.0,
            new: 1.0,
            better: 0.0,
            noise: 0.0,
            is_regression,
        };
        for (worse, missing, sentence, code) in [
            (0, 0, "no figure is worse beyond the noise", 0),
            (1, 0, "1 figure is worse beyond the noise", 3),
            (2, 0, "2 figures are worse beyond the noise", 3),
            (0, 1, "1 figure is missing on the new side", 3),
            (
                1,
                2,
                "1 figure is worse beyond the noise, and 2 figures are missing on the new side",
                3,
            ),
        ] {
            let changes = (0..worse + 1).map(|number| change(number > 0)).collect();
            let (text, actual) = comparison(&Comparison {
                changes,
                missing: vec!["y".to_owned(); missing],
                warnings: Vec::new(),
            });
            assert_eq!((text.lines().last(), actual), (Some(sentence), code));
        }
    }
}

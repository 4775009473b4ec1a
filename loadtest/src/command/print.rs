//! The results of the commands on standard output, and the exit codes that follow from them.

use std::path::Path;
use std::process::ExitCode;

use loadtest::harness::compare::Comparison;
use loadtest::harness::plot::format_number;
use loadtest::harness::report::{self, Report};
use loadtest::harness::verify::Verdict;
use loadtest::recorder::Quantiles;

/// Exit code of a finding: a broken promise, failed requests, or a regression.
const FINDING: u8 = 3;

/// Prints the results of a run, and returns the exit code.
pub(super) fn run(report: &Report, directory: &Path) -> u8 {
    let counts = &report.counts;
    let early = if report.interrupted {
        " (ended early)"
    } else {
        ""
    };
    println!(
        "{} requests sent in {:.1} s{early}: {} readings accepted ({:.0}/s), {} rejected, \
         {} without a final response",
        counts.sent,
        report.seconds,
        counts.accepted,
        report.accepted_per_second,
        counts.rejected,
        counts.unknown,
    );
    println!(
        "late {}, dropped {}, retried {}, repeated {}, mismatched responses {}",
        counts.late, counts.dropped, counts.retried, counts.repeated, counts.mismatched
    );
    println!(
        "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "ms", "p50", "p90", "p99", "p99.9", "max"
    );
    let line = |name: &str, quantiles: &Quantiles| {
        println!(
            "{name:<28}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            quantiles.p50, quantiles.p90, quantiles.p99, quantiles.p999, quantiles.max
        );
    };
    if report.latency_ms.count > 0 {
        line("from the scheduled send", &report.latency_ms);
        line("from the actual send", &report.latency_from_send_ms);
        line("lateness of the send", &report.lateness_ms);
    } else {
        println!("no request ended after the warm-up, so there are no latencies");
    }
    for stage in &report.stages {
        println!(
            "{:<28}{:>10.2}{:>10}{:>10.2}",
            stage.stage, stage.p50, "", stage.p99
        );
    }
    for process in &report.processes {
        let cpu = process
            .cpu_seconds_per_million
            .map_or_else(|| "no".to_owned(), |seconds| format!("{seconds:.2}"));
        println!(
            "{:<28}{cpu:>10} CPU-s per million readings, {:.0} MiB",
            process.process, process.memory_mib
        );
    }
    for example in &report.examples {
        println!("  {example}");
    }
    println!("report in {}", directory.join(report::PAGE).display());
    match counts.failed() {
        0 => 0,
        _ => FINDING,
    }
}

/// Prints the result of a verification, and returns the exit code.
pub(super) fn verdict(verdict: &Verdict) -> ExitCode {
    let Verdict {
        accepted,
        rejected,
        unknown,
        stored,
        dead_lettered,
        of_other_runs,
        violations,
    } = verdict;
    println!(
        "accepted {accepted}, rejected or not sent {rejected}, without a final response {unknown}"
    );
    println!("stored {stored}, dead-lettered {dead_lettered}");
    for violation in violations {
        println!("BROKEN: {} ({} times)", violation.promise, violation.count);
        for example in &violation.examples {
            println!("  {example}");
        }
    }
    if !violations.is_empty() {
        return ExitCode::from(FINDING);
    }
    println!(
        "verified: every accepted reading is stored once as it was sent, and no other reading"
    );
    if *of_other_runs > 0 {
        println!(
            "not verified: {of_other_runs} rows of the same series and time range that do not have \
             the mark of this run; they are of other runs or were never sent. Use a separate \
             database to verify every row"
        );
    }
    ExitCode::SUCCESS
}

/// Prints the result of a comparison, and returns the exit code.
pub(super) fn comparison(comparison: &Comparison) -> ExitCode {
    println!(
        "{:<72}{:>12}{:>12}{:>9}{:>9}",
        "", "base", "new", "better", "noise"
    );
    for change in &comparison.changes {
        let regression = if change.is_regression { "  WORSE" } else { "" };
        println!(
            "{:<72}{:>12}{:>12}{:>8.1}%{:>8.1}%{regression}",
            change.figure,
            format_number(change.base),
            format_number(change.new),
            change.better * 100.0,
            change.noise * 100.0
        );
    }
    for figure in &comparison.missing {
        println!("{figure:<72}  MISSING on the new side");
    }
    for warning in &comparison.warnings {
        println!("warning: {warning}");
    }
    let changes = comparison.changes.iter();
    let worse = changes.filter(|change| change.is_regression).count();
    let missing = comparison.missing.len();
    if worse + missing == 0 {
        println!("no figure is worse beyond the noise");
        return ExitCode::SUCCESS;
    }
    println!("{worse} figures are worse, {missing} are missing");
    ExitCode::from(FINDING)
}

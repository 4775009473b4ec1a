//! What the commands say of what they have found, and how the process ends.

use std::path::Path;
use std::process::ExitCode;

use loadtest::compare::Comparison;
use loadtest::plot::human;
use loadtest::report::{self, Report};
use loadtest::verify::Verdict;

/// Exit code of a finding: a broken promise, errors in the run, a regression.
const FINDING: u8 = 3;

/// Of a run; returns the exit code.
pub fn run(report: &Report, folder: &Path) -> u8 {
    let counts = &report.counts;
    println!(
        "sent {} requests in {:.1} s{}: {} readings accepted ({:.0}/s), {} rejected, {} without a final answer",
        counts.sent,
        report.seconds,
        if report.interrupted {
            " (ended before its time)"
        } else {
            ""
        },
        counts.accepted,
        report.accepted_per_second,
        counts.rejected,
        counts.unknown,
    );
    println!(
        "late {}, dropped {}, retried {}, repeated {}, unlike what was sent {}",
        counts.late, counts.dropped, counts.retried, counts.repeated, counts.unlike
    );
    println!(
        "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "ms", "p50", "p90", "p99", "p99.9", "max"
    );
    let line = |name: &str, times: &loadtest::meter::Quantiles| {
        println!(
            "{name:<28}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            times.p50, times.p90, times.p99, times.p999, times.max
        );
    };
    if report.latency_ms.count > 0 {
        line("from the intended send", &report.latency_ms);
        line("from the send itself", &report.latency_from_send_ms);
        line("lateness of the send", &report.lateness_ms);
    } else {
        println!("no request ended after the warm-up: nothing is known of latencies");
    }
    for stage in &report.stages {
        println!(
            "{:<28}{:>10.2}{:>10}{:>10.2}",
            stage.stage, stage.p50, "", stage.p99
        );
    }
    for process in &report.processes {
        let cost = process
            .cpu_seconds_per_million
            .map_or_else(|| "no".to_owned(), |seconds| format!("{seconds:.2}"));
        println!(
            "{:<28}{cost:>10} CPU-s per million readings, {:.0} MiB",
            process.process, process.memory_mib
        );
    }
    for words in &report.unlike {
        println!("  {words}");
    }
    println!("report in {}", folder.join(report::PAGE).display());
    match counts.unlike + counts.errors + counts.dropped {
        0 => 0,
        _ => FINDING,
    }
}

/// Of a verification.
pub fn verdict(verdict: &Verdict) -> ExitCode {
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
        "accepted {accepted}, rejected or not sent {rejected}, without a final answer {unknown}"
    );
    println!("stored {stored}, dead-lettered {dead_lettered}");
    for violation in violations {
        println!("BROKEN: {} ({} times)", violation.promise, violation.count);
        for example in &violation.examples {
            println!("  {example}");
        }
    }
    match violations.is_empty() {
        true => {
            println!(
                "proved: what was accepted is stored, each once and as it was sent, and nothing else is"
            );
            if *of_other_runs > 0 {
                println!(
                    "except for {of_other_runs} rows of the same series and hours that have not this run's mark: they are \
                     of other runs, or made up. A database of its own leaves no such doubt"
                );
            }
            ExitCode::SUCCESS
        }
        false => ExitCode::from(FINDING),
    }
}

/// Of a comparison.
pub fn comparison(found: &Comparison) -> ExitCode {
    println!(
        "{:<72}{:>12}{:>12}{:>9}{:>9}",
        "", "base", "new", "better", "noise"
    );
    for one in &found.changes {
        let verdict = if one.is_regression { "  WORSE" } else { "" };
        println!(
            "{:<72}{:>12}{:>12}{:>8.1}%{:>8.1}%{verdict}",
            one.figure,
            human(one.base),
            human(one.new),
            one.better * 100.0,
            one.noise * 100.0
        );
    }
    for figure in &found.missing {
        println!("{figure:<72}  MISSING on the new side");
    }
    for warning in &found.warnings {
        println!("mind: {warning}");
    }
    let worse = found.changes.iter().filter(|one| one.is_regression).count();
    let verdict = match (worse, found.missing.len()) {
        (0, 0) => "nothing is worse beyond the noise".to_owned(),
        (worse, missing) => format!("{worse} figures are worse, {missing} are missing"),
    };
    println!("{verdict}");
    if worse + found.missing.len() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FINDING)
    }
}

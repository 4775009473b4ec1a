//! `loadtest matrix`: measures every deployment, and writes the results.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use loadtest::harness::matrix::{self, Matrix, Plan, page};
use loadtest::harness::plot::format_number;
use tokio_util::sync::CancellationToken;

use super::arguments::MatrixArguments;
use super::{UsageError, output, stop_on_signal};

/// File name of the HTML page.
const PAGE: &str = "matrix.html";
/// File name of the chart of the highest rates.
const PICTURE: &str = "matrix.svg";

pub(super) async fn execute(arguments: MatrixArguments) -> anyhow::Result<ExitCode> {
    let gridwatch = match arguments.gridwatch {
        Some(file) => file,
        None => std::env::current_exe()?.with_file_name("gridwatch"),
    };
    if !gridwatch.is_file() {
        return Err(UsageError(format!(
            "{}: no such file; give its path with --gridwatch",
            gridwatch.display()
        ))
        .into());
    }
    let directory = arguments.report;
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let plan = Plan {
        gridwatch,
        instances: arguments.instances,
        batch: arguments.batch,
        connections: arguments.connections,
        trial: arguments.trial,
        trials: arguments.trials,
        measure: arguments.measure,
        seed: arguments.seed,
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let started = Instant::now();
    let mut log = |text: &str| {
        output::log(&format!(
            "{:>4.0} s  {text}",
            started.elapsed().as_secs_f64()
        ));
    };
    let matrix = plan.execute(&mut log, stop).await?;
    for (file, text) in [
        (matrix::FILE, serde_json::to_string_pretty(&matrix)?),
        (PICTURE, page::picture(&matrix)),
        (PAGE, page::page(&matrix)),
    ] {
        let path = directory.join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    output::print(&results(&matrix, &directory.join(PAGE)))?;
    Ok(match &matrix.incomplete {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

/// The results as text.
fn results(matrix: &Matrix, page: &Path) -> String {
    let mut out = String::new();
    for answer in &matrix.answers {
        let _ = writeln!(out, "{}\n  {}", answer.question, answer.answer);
    }
    let _ = writeln!(
        out,
        "against an idle server the generator reaches {} readings/s, {:.1} times the highest rate",
        format_number(matrix.generator_per_second),
        matrix.headroom
    );
    if matrix.is_generator_near() {
        let warning =
            "the generator is not much faster than Gridwatch, so it may be the bottleneck";
        let _ = writeln!(out, "warning: {warning}");
    }
    let _ = writeln!(out, "report in {}", page.display());
    if let Some(reason) = &matrix.incomplete {
        let _ = writeln!(out, "incomplete: {reason}");
    }
    out
}

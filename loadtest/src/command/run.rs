//! `loadtest run`: checks the arguments, runs the scenario once or repeatedly, and writes the
//! reports.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use loadtest::harness::plot::format_number;
use loadtest::harness::progress::Progress;
use loadtest::harness::report;
use loadtest::harness::run::{Run, RunOutcome};
use loadtest::harness::scrape::scrape;
use loadtest::plural::plural;
use loadtest::scenario::{Mode, Scenario};
use loadtest::send::Target;
use tokio_util::sync::CancellationToken;

use super::arguments::{MAX_REPEAT, RunArguments};
use super::{UsageError, load_scenario, output, results, stop_on_signal};

pub(super) async fn execute(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let scenario = scenario_with_overrides(&arguments)?;
    let mut target = Target::new(&arguments.target)
        .map_err(|error| UsageError(format!("--target {}: {error}", arguments.target)))?;
    target.is_checked = !arguments.unchecked;
    check_writable(&arguments.report)?;
    check_reachable(&arguments, &target).await?;
    log_start(&scenario);
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    // Reports of an earlier run would be mistaken for reports of this one.
    remove_report(&arguments.report)?;
    for turn in 1..=MAX_REPEAT {
        remove_report(&arguments.report.join(turn.to_string()))?;
    }
    let mut exit_code = 0;
    for turn in 1..=arguments.repeat {
        let directory = match arguments.repeat {
            1 => arguments.report.clone(),
            _ => arguments.report.join(turn.to_string()),
        };
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let run = Run {
            scenario: scenario.clone(),
            target: target.clone(),
            threads: arguments.threads.unwrap_or_else(half_of_the_cores),
            admins: arguments.admin.clone(),
            watched: Vec::new(),
            drain_timeout: arguments.drain_timeout,
            log: Some(directory.join(report::LOG)),
        };
        let mut progress = Progress::new(scenario.duration);
        let outcome = run.execute(&mut progress, stop.clone()).await;
        progress.clear();
        let outcome = outcome?;
        write_report(&directory, &outcome)?;
        let (text, code) = results::run(&outcome.report, &directory);
        output::print(&text)?;
        exit_code = exit_code.max(code);
        if stop.is_cancelled() {
            break;
        }
    }
    Ok(ExitCode::from(exit_code))
}

fn scenario_with_overrides(arguments: &RunArguments) -> Result<Scenario, UsageError> {
    let mut scenario = load_scenario(&arguments.scenario)?;
    if scenario.mode == Mode::Closed && arguments.rate.is_some() {
        let reason = "it has no effect on a closed loop, which sends as fast as its connections \
                      allow; remove it, or use a scenario without mode = \"closed\"";
        return Err(UsageError(format!("--rate: {reason}")));
    }
    scenario.rate = arguments.rate.or(scenario.rate);
    if let Some(duration) = arguments.duration {
        scenario.stretch(duration);
    }
    scenario.batch = arguments.batch.unwrap_or(scenario.batch);
    scenario.connections = arguments.connections.unwrap_or(scenario.connections);
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    let begin = arguments.begin.map(jiff::Timestamp::as_microsecond);
    scenario.begin = begin.or(scenario.begin);
    scenario.check().map_err(|(key, reason)| {
        UsageError(format!("with the command-line overrides: {key}: {reason}"))
    })?;
    Ok(scenario)
}

/// Checks that files can be written to the directory of the report, which is created.
fn check_writable(directory: &Path) -> Result<(), UsageError> {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| tempfile::tempfile_in(directory).map(drop));
    written.map_err(|error| {
        let directory = directory.display();
        UsageError(format!(
            "--report {directory}: {error}; give a directory that can be written"
        ))
    })
}

/// Checks that the target and the admin ports accept connections.
async fn check_reachable(arguments: &RunArguments, target: &Target) -> Result<(), UsageError> {
    target.probe().await.map_err(|error| {
        let url = &arguments.target;
        UsageError(format!("--target {url}: {error}; is it running?"))
    })?;
    for (_, address) in &arguments.admin {
        let snapshot = scrape(std::slice::from_ref(address)).await;
        snapshot
            .map_err(|error| UsageError(format!("--admin: {error:#}; is the process running?")))?;
    }
    Ok(())
}

fn log_start(scenario: &Scenario) {
    let rate = match (scenario.mode, scenario.rate) {
        (Mode::Open, Some(rate)) => format!("{} readings/s", format_number(rate)),
        _ => "as fast as the connections allow".to_owned(),
    };
    output::log(&format!(
        "{}: {rate}, {} per request, {}, {:?}, seed {}",
        scenario.name,
        plural(scenario.batch, "reading"),
        plural(scenario.connections, "connection"),
        scenario.duration,
        scenario.seed
    ));
}

fn half_of_the_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() as u64 / 2).max(1))
}

/// Removes the files of a run from its directory, and the directory if it is then empty.
fn remove_report(directory: &Path) -> anyhow::Result<()> {
    for file in [
        report::FILE,
        report::PAGE,
        report::LEDGER,
        report::LOG,
        report::VERDICT,
    ] {
        let path = directory.join(file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    // Fails if the directory has other files or does not exist.
    let _ = std::fs::remove_dir(directory);
    Ok(())
}

/// Writes the ledger first, because nothing can be verified without it.
fn write_report(directory: &Path, outcome: &RunOutcome) -> anyhow::Result<()> {
    let RunOutcome { report, ledger } = outcome;
    ledger.write(&directory.join(report::LEDGER), report.begin)?;
    for (file, text) in [
        (report::FILE, serde_json::to_string_pretty(report)?),
        (report::PAGE, loadtest::harness::html::page(report)),
    ] {
        let path = directory.join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

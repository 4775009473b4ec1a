//! The command line: parses the arguments, runs the command, prints its results, and returns the
//! exit code.
//!
//! A wrong argument or file is a [`UsageError`] with exit code 2; any other error has exit code 1.
//! A finding, such as a broken promise, has exit code 3. The exit code is the same if nobody reads
//! the results.

mod arguments;
mod matrix;
mod output;
mod results;
mod run;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use loadtest::harness::report::{self, Report};
use loadtest::harness::verify::Verify;
use loadtest::ledger::Ledger;
use loadtest::scenario::Scenario;
use tokio_util::sync::CancellationToken;

pub(crate) use self::arguments::Arguments;
use self::arguments::{Command, VerifyArguments};
pub(crate) use self::output::log;

/// A wrong argument or file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

/// Runs the command and returns the exit code of the process.
pub(crate) fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Run(arguments) => run::execute(arguments).await,
            Command::Verify(arguments) => verify(arguments).await,
            Command::Matrix(arguments) => matrix::execute(arguments).await,
            Command::Compare { base, new } => compare(&base, &new),
            Command::Schema { matrix } => {
                let schema = if matrix {
                    loadtest::harness::matrix::schema()
                } else {
                    report::schema()
                };
                output::print(&schema)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Devices { scenario } => print_devices(&load_scenario(&scenario)?),
            Command::IdleServer { listen } => serve_idle(listen).await,
        }
    })
}

fn load_scenario(path: &Path) -> Result<Scenario, UsageError> {
    Scenario::load(path).map_err(|error| UsageError(error.to_string()))
}

async fn verify(arguments: VerifyArguments) -> anyhow::Result<ExitCode> {
    let urls = [arguments.database_url, arguments.database_url_file];
    // One of them is required.
    let url = urls.into_iter().flatten().next().unwrap_or_default();
    url.parse::<tokio_postgres::Config>().map_err(|error| {
        UsageError(format!(
            "--database-url: {error}; expected postgres://user:password@host:5432/database"
        ))
    })?;
    let directory = &arguments.report;
    let usage =
        |error: anyhow::Error| UsageError(format!("--report {}: {error:#}", directory.display()));
    let report = Report::read(directory).map_err(usage)?;
    let ledger = Ledger::read(&directory.join(report::LEDGER), report.begin).map_err(usage)?;
    let verify = Verify {
        report: &report,
        ledger: &ledger,
        database_url: &url,
        admins: &arguments.admin,
        drain_timeout: arguments.drain_timeout,
    };
    let verdict = verify.execute().await?;
    std::fs::write(
        directory.join(report::VERDICT),
        serde_json::to_string_pretty(&verdict)?,
    )?;
    let (text, code) = results::verdict(&verdict);
    output::print(&text)?;
    Ok(code.into())
}

fn compare(base: &Path, new: &Path) -> anyhow::Result<ExitCode> {
    let comparison = loadtest::harness::compare::compare(base, new)
        .map_err(|error| UsageError(format!("{error:#}")))?;
    let (text, code) = results::comparison(&comparison);
    output::print(&text)?;
    Ok(code.into())
}

fn print_devices(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let devices = 0..scenario.fleet.devices;
    let names: String = devices
        .map(|device| format!("{}{device:06}\n", scenario.fleet.prefix))
        .collect();
    output::print(&names)?;
    Ok(ExitCode::SUCCESS)
}

async fn serve_idle(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let address = loadtest::harness::idle_server::start(listen)
        .await
        .with_context(|| listen.to_string())?;
    let line = format!("responding with 202 to every request on http://{address}\n");
    output::print(&line)?;
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}

/// Cancels `stop` on the first signal; the second one ends the process at once.
async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut terminate) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    else {
        return;
    };
    for exit_code in [None, Some(130)] {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        if let Some(code) = exit_code {
            std::process::exit(code);
        }
        log("stopping; the report will be written (press Ctrl-C again to exit at once)");
        stop.cancel();
    }
}

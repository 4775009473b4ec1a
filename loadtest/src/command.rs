//! The command line: parses the arguments, runs the command, prints its results, and returns the
//! exit code.
//!
//! A wrong argument or file is a [`UsageError`] with exit code 2; any other error has exit code 1.
//! A finding, such as a broken promise, has exit code 3.

mod arguments;
mod matrix;
mod print;
mod run;

use std::io::Write as _;
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
                print!("{schema}");
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
    let directory = &arguments.report;
    let usage =
        |error: anyhow::Error| UsageError(format!("--report {}: {error:#}", directory.display()));
    let report = Report::read(directory).map_err(usage)?;
    let ledger = Ledger::read(&directory.join(report::LEDGER), report.begin).map_err(usage)?;
    let verify = Verify {
        report: &report,
        ledger: &ledger,
        database_url: &arguments.database_url,
        admins: &arguments.admin,
        drain_timeout: arguments.drain_timeout,
    };
    let verdict = verify.execute().await?;
    std::fs::write(
        directory.join(report::VERDICT),
        serde_json::to_string_pretty(&verdict)?,
    )?;
    Ok(print::verdict(&verdict))
}

fn compare(base: &Path, new: &Path) -> anyhow::Result<ExitCode> {
    let comparison = loadtest::harness::compare::compare(base, new)
        .map_err(|error| UsageError(format!("{error:#}")))?;
    Ok(print::comparison(&comparison))
}

fn print_devices(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut write = || -> std::io::Result<()> {
        for device in 0..scenario.fleet.devices {
            writeln!(out, "{}{device:06}", scenario.fleet.prefix)?;
        }
        out.flush()
    };
    match write() {
        // The reader needs no more lines, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => Ok(result.map(|()| ExitCode::SUCCESS)?),
    }
}

async fn serve_idle(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let address = loadtest::harness::idle_server::start(listen)
        .await
        .with_context(|| listen.to_string())?;
    println!("responding with 202 to every request on http://{address}");
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
        eprintln!("stopping; the report will be written (press Ctrl-C again to exit at once)");
        stop.cancel();
    }
}

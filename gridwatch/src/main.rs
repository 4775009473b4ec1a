//! Gridwatch: the command line, and the place where the parts are put together.

// They panic if the output is closed; `output` has what to use instead.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod config;
mod demo;
mod devices;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(not(feature = "embedded"))]
#[path = "embedded/absent.rs"]
mod embedded;
mod export;
mod health;
mod import;
mod migrate;
mod model;
mod output;
mod progress;
mod query_client;
mod readings;
mod seed;
mod serve;

use std::process::ExitCode;

use crate::config::{Command, Loaded};
use crate::import::LeftOut;

/// A request is parsed on one thread and finished on another, which mimalloc handles well; the
/// figures are in docs/decisions/0011.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A wrong flag, file, address or URL: one sentence for the user, and exit code 2. The exit codes
/// are in the help of `gridwatch`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

fn main() -> ExitCode {
    match run(config::load()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("gridwatch: {error:#}"));
            ExitCode::from(if error.is::<UsageError>() {
                2
            } else if error.is::<LeftOut>() {
                3
            } else {
                1
            })
        }
    }
}

fn run(Loaded { settings, warnings }: Loaded) -> anyhow::Result<()> {
    // First, because it may replace the process.
    confine(&settings.command)?;
    service::telemetry::init(&settings.log, settings.log_format)
        .map_err(|error| UsageError(format!("--log '{}': {error}", settings.log)))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.threads {
        runtime.worker_threads(threads.into());
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match settings.command {
            Command::IngestApi(arguments) => serve::ingest_api::run(arguments).await,
            Command::Worker(arguments) => serve::worker::run(arguments).await,
            Command::QueryApi(arguments) => serve::query_api::run(arguments).await,
            Command::Standalone(arguments) => serve::standalone::run(arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Migrate(arguments) => migrate::run(arguments).await,
            Command::Health(arguments) => health::run(arguments).await,
            Command::Devices(arguments) => devices::run(arguments).await,
            Command::Components(arguments) => model::components(arguments.command).await,
            Command::Series(arguments) => model::series(arguments.command).await,
            Command::Targets(arguments) => model::targets(arguments.command).await,
            Command::Seed(arguments) => seed::run(arguments).await,
            Command::Readings(arguments) => readings::run(arguments).await,
            Command::Import(arguments) => import::run(arguments).await,
            Command::Export(arguments) => export::run(arguments).await,
        }
    })
}

/// Keeps the files of the embedded database in the directory of the command, if it uses one. This
/// may replace the process.
fn confine(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Standalone(standalone) if standalone.database.database_url.is_none() => {
            let data = &standalone.data;
            let directory = std::path::absolute(data)
                .map_err(|error| UsageError(format!("--data '{}': {error}", data.display())))?;
            embedded::confine_to(&directory)
        }
        Command::Demo(demo) if demo.database_url.is_none() => demo::confine(),
        _ => Ok(()),
    }
}

//! Gridwatch: the operator's command, and the place where the parts are put together.

mod config;
mod devices;
mod embedded;
mod migrate;
mod replay;
mod serve;

use std::process::ExitCode;

use crate::config::Command;

/// Requests are taken apart on one thread and finished on another: docs/decisions/0011 has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A wrong flag, file, address or URL: one sentence to the user, and exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn main() -> ExitCode {
    let settings = config::load();
    let result = run(settings);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gridwatch: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn run(settings: config::Settings) -> anyhow::Result<()> {
    service::telemetry::init(&settings.log, settings.log_format)
        .map_err(|error| Usage(format!("--log '{}': {error}", settings.log)))?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.threads {
        runtime.worker_threads(threads.into());
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match settings.command {
            Command::IngestApi(arguments) => serve::ingest_api(arguments).await,
            Command::Worker(arguments) => serve::worker(arguments).await,
            Command::Standalone(arguments) => serve::standalone(arguments).await,
            Command::Migrate(arguments) => migrate::run(arguments).await,
            Command::Devices(arguments) => devices::run(arguments).await,
            Command::Replay(arguments) => replay::run(arguments).await,
        }
    })
}

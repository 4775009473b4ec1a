//! The commands and their flags. The doc comments are the help texts.

mod model;
mod options;
mod readings;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use service::telemetry::LogFormat;

pub(crate) use self::model::*;
pub(crate) use self::options::*;
pub(crate) use self::readings::*;
pub(crate) use self::servers::*;
use super::values;

/// The longest time of a limit.
const DAY: Duration = Duration::from_secs(86_400);
/// The longest time between `measured_at` and now.
const LONGEST_AGE: Duration = DAY.saturating_mul(365 * 1_000);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The end of the help.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running: a server is unavailable, a disk failed, or another fatal error
  2    a flag, a setting or a file is wrong
  3    import has finished, and some readings were left out
  130  a second signal ended the process at once";

/// Gridwatch: readings from devices over HTTP into PostgreSQL, exactly once, every stage timed.
///
/// Every flag except those of demo can also be set in the environment as GRIDWATCH_ and its name,
/// or in a TOML file.
#[derive(Debug, Parser)]
#[command(name = "gridwatch", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Settings {
    /// TOML file with settings; keys are names of flags, sections are names of commands
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// What to log: a level, or a filter such as info,worker=debug
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter
    )]
    pub log: String,
    /// Format of log lines: text or json
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Number of worker threads [default: number of cores]
    #[arg(
        long,
        global = true,
        value_name = "COUNT",
        value_parser = |text: &str| values::count(text, 1..=1_024_u16)
    )]
    pub threads: Option<u16>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept readings over HTTP and publish them to RabbitMQ
    IngestApi(IngestApi),
    /// Consume batches from RabbitMQ and write them to PostgreSQL
    Worker(Worker),
    /// Respond to questions about the stored readings over HTTP
    QueryApi(QueryApi),
    /// Run everything in one process, with a queue on disk and an embedded PostgreSQL
    Standalone(Standalone),
    /// Try Gridwatch: standalone in a temporary directory, with a simulated fleet
    Demo(Demo),
    /// Create the tables or bring them up to date
    Migrate(Migrate),
    /// Check whether a process is ready: exit code 0 or 1, for the health check of a container
    Health(Health),
    /// Register, list and show devices
    Devices(Devices),
    /// List and show the components of the model
    Components(Components),
    /// List and show the series of a device
    Series(Series),
    /// List and show the targets of a series
    Targets(Targets),
    /// Create a grid to try Gridwatch with
    Seed(Seed),
    /// Show the readings of a device as a table, a plot or JSON
    Readings(Readings),
    /// Send the content of a file to a running front end. Exit code 3: something was left out
    Import(Import),
    /// Write readings to a file that import reads
    Export(Export),
}

fn log_filter(text: &str) -> Result<String, String> {
    service::telemetry::check_filter(text)?;
    Ok(text.to_owned())
}

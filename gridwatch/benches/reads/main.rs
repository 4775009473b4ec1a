//! `make bench`, third part: what reading costs, against the same question in SQL on the same
//! machine, and what it costs the pipeline.
//!
//! A comparison has rounds in which its limit and Gridwatch take turns; the result is the median of
//! the ratios. The limit of a query is the time that `psql` shows for a statement (`\timing`) whose
//! output it discards. The time of Gridwatch is that of an HTTP client of the benchmark, from the
//! request to the last byte of the response, which it discards too. Both have an open connection,
//! and both ask twice and count the second time.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod dataset;
mod export;
mod marks;
mod pressure;
mod queries;
mod report;
#[path = "../common/servers.rs"]
mod servers;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use common::{CommonArguments, write_report};
use dataset::Dataset;
use report::Report;
use servers::{Servers, machine};

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A day of a device at 1 Hz, in every format
    Day,
    /// A station of ten devices, in quarters of an hour
    Station,
    /// Quartiles of each day of a year
    Year,
    /// The latest readings and the list of a fleet
    Fleet,
    /// Memory while many rows are exported
    Export,
    /// Readings of standalone while many rows are exported
    Embedded,
    /// The pipeline with many readers
    Readers,
    /// The pipeline while many devices are registered
    Registry,
    /// Roll-ups' marks in the worker's transaction
    Marks,
}

impl Part {
    /// Whether it asks for the readings of the data set.
    fn needs_dataset(self) -> bool {
        use Part::{Day, Export, Fleet, Station, Year};
        matches!(self, Day | Station | Year | Fleet | Export)
    }
}

/// Measures what reading costs, against SQL on this machine
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Parts to run; default: all of them
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Rounds of each comparison; the result is their median
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Devices of the fleet
    #[arg(long, default_value_t = 100_000)]
    devices: u32,
    /// Days of a year
    #[arg(long, default_value_t = 365)]
    year_days: u32,
    /// Seconds between two readings of the second device with a year; the first has 900
    #[arg(long, default_value_t = 60)]
    year_interval: u32,
    /// Rows that query-api exports
    #[arg(long, default_value_t = 10_000_000)]
    export_rows: i64,
    /// Rows that standalone exports
    #[arg(long, default_value_t = 2_000_000)]
    embedded_rows: i64,
    /// Concurrent readers
    #[arg(long, default_value_t = 200)]
    readers: usize,
    /// Milliseconds between two requests of a reader
    #[arg(long, default_value_t = 1_000)]
    reader_interval: u64,
    /// Length of a measurement of the pipeline in seconds
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Transactions with and without closed days
    #[arg(long, default_value_t = 30)]
    transactions: usize,
    /// The JSON file to write; a relative path starts at the root of the workspace
    #[arg(long, value_name = "PATH", default_value = "target/bench/reads.json")]
    out: PathBuf,
}

impl Arguments {
    fn runs(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn reader_interval(&self) -> Duration {
        Duration::from_millis(self.reader_interval)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let servers = Servers::start(arguments.common.program()?).await?;
    let mut figures = Vec::new();
    let needs_dataset = |part: &Part| part.needs_dataset() && arguments.runs(*part);
    if Part::value_variants().iter().any(needs_dataset) {
        let mut dataset = Dataset::create(&servers, &arguments).await?;
        if arguments.runs(Part::Day) {
            figures.extend(queries::day(&dataset, &arguments).await?);
        }
        if arguments.runs(Part::Station) {
            figures.extend(queries::station(&dataset, &arguments).await?);
        }
        if arguments.runs(Part::Year) {
            figures.extend(queries::year(&dataset, &arguments).await?);
        }
        if arguments.runs(Part::Fleet) {
            figures.extend(queries::fleet(&dataset, &arguments).await?);
        }
        if arguments.runs(Part::Export) {
            figures.extend(export::memory(&dataset, &arguments).await?);
        }
        dataset.api.terminate()?;
        drop(dataset);
        servers.drop_database(dataset::NAME).await?;
    }
    if arguments.runs(Part::Embedded) {
        figures.extend(export::embedded(&servers.program, &arguments).await?);
    }
    if arguments.runs(Part::Readers) {
        figures.extend(pressure::readers(&servers, &arguments).await?);
    }
    if arguments.runs(Part::Registry) {
        figures.extend(pressure::registry(&servers, &arguments).await?);
    }
    if arguments.runs(Part::Marks) {
        figures.extend(marks::measure(&servers, &arguments).await?);
    }
    let report = Report {
        machine: machine(),
        unix_time: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        figures,
    };
    report.print();
    write_report(&arguments.out, &report)
}

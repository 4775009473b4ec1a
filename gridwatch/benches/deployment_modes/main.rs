//! `make bench`, second part: the spool, standalone, and an outage of the broker.
//!
//! The limit of the spool is a loop that writes and syncs groups of the same size, in the same
//! round. The spool runs in the benchmark itself, so `--gridwatch` does not change its figures.
//! The table goes to standard output, and the figures as JSON to `--out`.

#[path = "../common/mod.rs"]
mod common;
mod outage;
mod report;
mod spool;
mod standalone;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use common::{CommonArguments, write_report};
use report::Report;

/// Sizes of the payloads that are appended to the spool, in bytes.
const PAYLOADS: [usize; 3] = [200, 1_400, 80_000];

/// Measures the spool, standalone, and an outage of the broker. --gridwatch does not affect the
/// spool, which is a part of the benchmark's own binary
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Rounds of the spool; the result is their median
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of a round of the spool in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Readings sent to standalone
    #[arg(long, default_value_t = 2_000_000)]
    readings: usize,
    /// The JSON file to write; a relative path starts at the root of the workspace
    #[arg(
        long,
        value_name = "PATH",
        default_value = "target/bench/deployment_modes.json"
    )]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let program = arguments.common.program()?;
    let mut appends = Vec::new();
    for payload in PAYLOADS {
        let duration = Duration::from_secs(arguments.seconds);
        appends.push(spool::measure(arguments.rounds, duration, payload).await?);
    }
    let report = Report {
        appends,
        standalone: standalone::measure(&program, arguments.readings).await?,
        outage: outage::measure(&program).await?,
    };
    report.print();
    write_report(&arguments.out, &report)
}

//! `make bench`, first part: what the pipeline carries, as ratios to the limits of this machine.
//!
//! A comparison has rounds in which its limit and Gridwatch take turns, so that a machine whose
//! speed changes changes it for both; the result is the median of the ratios. The table goes to
//! standard output, and the figures as JSON to `--out`.
//!
//! The load generator is the one of `loadtest`. It shares the cores with the servers and uses more
//! CPU time per request than a client that ignores the responses: it parses each response and
//! renders each request of one reading. Therefore the same client, with the same requests, drives
//! both sides of the comparisons with single readings: its cost lowers both rates. The requests of
//! the end-to-end comparison are rendered in advance; its limit, `COPY`, has no client but the
//! benchmark, which encodes the rows in advance.

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod measurements;
mod report;
#[path = "../common/servers.rs"]
mod servers;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use common::load::{BEGIN, FleetTraffic, MEASURING_RATE, SERIES};
use common::{CommonArguments, write_report};
use loadtest::statistics::median;
use report::{Comparison, Report};
use servers::{Cpu, Servers, machine};

/// Readings per request, end to end and under overload.
const BATCH: usize = 1_000;
/// Connections of the end-to-end comparison.
const CONNECTIONS: usize = 16;
/// Connections of the comparison with single readings.
const FEW_CONNECTIONS: usize = 64;
/// Connections of the same comparison with as many connections as a fleet of meters has.
const MANY_CONNECTIONS: usize = 1_000;
/// Highest rate of the overload in readings per second: that of a reading of each series every
/// 4 ms, the limit of the load generator.
const MAX_OVERLOAD: f64 = 2_500_000.0;

/// Measures what the pipeline carries, as ratios to the limits of this machine
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Rounds of each comparison; the result is their median
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Readings of an end-to-end round
    #[arg(long, default_value_t = 3_000_000)]
    readings: usize,
    /// Length of a round of single readings in seconds
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Length of the overload in seconds
    #[arg(long, default_value_t = 60)]
    overload: u64,
    /// The JSON file to write; a relative path starts at the root of the workspace
    #[arg(
        long,
        value_name = "PATH",
        default_value = "target/bench/pipeline.json"
    )]
    out: PathBuf,
    /// Serve the limit of single readings at this address; the benchmark runs itself with it
    #[arg(long, hide = true)]
    bare: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &arguments.bare {
            Some(address) => limits::serve_bare(address).await,
            None => run(arguments).await,
        }
    })
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let servers = Servers::start(arguments.common.program()?).await?;
    let (end_to_end, cpu) = compare_end_to_end(&servers, &arguments).await?;
    let singles = compare_single_readings(&servers, &arguments).await?;
    let rate = (median(&end_to_end.gridwatch) * 2.0).min(MAX_OVERLOAD);
    println!(
        "overload: {rate:.0} readings/s for {} s",
        arguments.overload
    );
    let overload = servers
        .measure_overload(rate, Duration::from_secs(arguments.overload))
        .await?;
    let report = Report {
        machine: machine(),
        unix_time: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        end_to_end,
        singles: singles.with_worker,
        singles_queued_only: singles.without_worker,
        singles_many: singles.many_connections,
        singles_p50_ms: median(&singles.p50_ms),
        singles_p99_ms: median(&singles.p99_ms),
        cpu_seconds_per_million_readings: cpu,
        overload,
    };
    report.print();
    write_report(&arguments.out, &report)
}

/// Compares the pipeline with one `COPY`, and returns the CPU time of the last round.
async fn compare_end_to_end(
    servers: &Servers,
    arguments: &Arguments,
) -> anyhow::Result<(Comparison, Cpu)> {
    let traffic = FleetTraffic {
        begin: BEGIN,
        rate: MEASURING_RATE,
        readings: arguments.readings,
        batch: BATCH,
        connections: CONNECTIONS,
    };
    let traffic = traffic.traffic()?.render_all();
    println!(
        "end to end: {} requests of {BATCH} readings, {SERIES} series; the limit is one COPY of \
         the same rows in order of arrival",
        traffic.requests()
    );
    let mut comparison = Comparison::new("end to end", "readings/s", 0.8);
    let mut cpu = Cpu::default();
    for round in 0..arguments.rounds {
        let limit = servers.measure_copy(round, &traffic).await?;
        let rate;
        (rate, cpu) = servers.measure_end_to_end(round, &traffic).await?;
        comparison.add_round(limit, rate);
    }
    Ok((comparison, cpu))
}

struct SingleReadings {
    with_worker: Comparison,
    without_worker: Comparison,
    many_connections: Comparison,
    /// Latencies of the rounds of `with_worker`.
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
}

/// Compares requests of one reading with a handler that responds at once.
async fn compare_single_readings(
    servers: &Servers,
    arguments: &Arguments,
) -> anyhow::Result<SingleReadings> {
    println!(
        "single readings: requests of one reading, confirmed by the broker, on {FEW_CONNECTIONS} \
         and on {MANY_CONNECTIONS} connections; the limit is an HTTP handler that responds at once"
    );
    let compare = |what| Comparison::new(what, "requests/s", 0.4);
    let mut results = SingleReadings {
        with_worker: compare("single readings"),
        without_worker: compare("single readings, no worker"),
        many_connections: compare("single readings, 1,000 connections"),
        p50_ms: Vec::new(),
        p99_ms: Vec::new(),
    };
    let duration = Duration::from_secs(arguments.seconds);
    for round in 0..arguments.rounds {
        let limit = servers.measure_bare(FEW_CONNECTIONS, duration).await?;
        let queued = servers
            .measure_single_readings(&format!("queued{round}"), FEW_CONNECTIONS, duration, false)
            .await?;
        results
            .without_worker
            .add_round(limit, queued.accepted_per_second());
        let stored = servers
            .measure_single_readings(&format!("singles{round}"), FEW_CONNECTIONS, duration, true)
            .await?;
        results
            .with_worker
            .add_round(limit, stored.accepted_per_second());
        results.p50_ms.push(stored.latency_ms.p50);
        results.p99_ms.push(stored.latency_ms.p99);
        let limit = servers.measure_bare(MANY_CONNECTIONS, duration).await?;
        let many = servers
            .measure_single_readings(&format!("many{round}"), MANY_CONNECTIONS, duration, true)
            .await?;
        results
            .many_connections
            .add_round(limit, many.accepted_per_second());
    }
    Ok(results)
}

//! `make bench`: what the pipeline carries, as ratios to what this machine can do at most, in one run.
//!
//! Every ratio comes from rounds in which the limit and the pipeline take turns, so that a machine whose speed drifts
//! drifts for both; the median round counts. The table goes to standard output, the figures as JSON to `--out`.

#[path = "../common.rs"]
mod common;
mod generator;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use common::median;
use generator::SERIES;
use serde::{Deserialize, Serialize};
use stage::Stage;

/// Readings of a request in the end-to-end run.
const BATCH: usize = 1_000;
/// Connections of the run with single readings.
const SINGLES: usize = 64;
/// Connections of the same as a fleet of meters has them.
const MANY: usize = 1_000;

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each comparison; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Readings of an end-to-end round
    #[arg(long, default_value_t = 3_000_000)]
    readings: usize,
    /// Seconds of a round of single readings
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Seconds of overload
    #[arg(long, default_value_t = 60)]
    overload: u64,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench/pipeline.json")]
    out: PathBuf,
    /// Serve the limit of single readings, for the benchmark itself
    #[arg(long, hide = true)]
    bare: Option<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One comparison: rounds of both sides, and the median of the ratios.
#[derive(Debug, Serialize)]
struct Comparison {
    what: &'static str,
    unit: &'static str,
    limit: Vec<f64>,
    gridwatch: Vec<f64>,
    ratio: f64,
    goal: f64,
}

impl Comparison {
    fn new(what: &'static str, unit: &'static str, goal: f64) -> Self {
        Self {
            what,
            unit,
            limit: Vec::new(),
            gridwatch: Vec::new(),
            ratio: 0.0,
            goal,
        }
    }

    fn round(&mut self, limit: f64, gridwatch: f64) {
        println!(
            "  {}: limit {limit:.0} {}, gridwatch {gridwatch:.0}, ratio {:.2}",
            self.what,
            self.unit,
            gridwatch / limit
        );
        self.limit.push(limit);
        self.gridwatch.push(gridwatch);
        self.ratio = median(
            self.limit
                .iter()
                .zip(&self.gridwatch)
                .map(|(limit, own)| own / limit)
                .collect(),
        );
    }
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    front_end: f64,
    broker: f64,
    worker: f64,
    postgresql: f64,
}

#[derive(Debug, Default, Serialize)]
struct Overload {
    seconds: u64,
    offered_per_second: f64,
    accepted: u64,
    refused: u64,
    front_end_peak_mib: f64,
    worker_peak_mib: f64,
    /// Median of the last third less median of the middle third.
    front_end_growth_mib: f64,
    worker_growth_mib: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: String,
    unix_time: u64,
    end_to_end: Comparison,
    singles: Comparison,
    /// The same while no worker empties the queue: front end and broker alone.
    singles_queued_only: Comparison,
    /// The worker running, on many connections.
    singles_many: Comparison,
    singles_p50_ms: f64,
    singles_p99_ms: f64,
    cpu_seconds_per_million_readings: Cpu,
    overload: Overload,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &arguments.bare {
            Some(address) => serve_bare(address).await,
            None => run(arguments).await,
        }
    })
}

/// The limit of single readings: axum, the same JSON, 202 at once.
async fn serve_bare(address: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "parsed and not used: that is the limit")]
    struct Reading {
        device: String,
        metric: String,
        value: f64,
        measured_at: i64,
    }
    let post =
        axum::routing::post(
            async |body: Bytes| match serde_json::from_slice::<Reading>(&body) {
                Ok(_) => (
                    axum::http::StatusCode::ACCEPTED,
                    r#"{"accepted":1,"rejected":0,"errors":[]}"#,
                ),
                Err(_) => (axum::http::StatusCode::BAD_REQUEST, ""),
            },
        );
    let ready = axum::routing::get(async || "");
    let router = axum::Router::new()
        .route("/v1/readings", post)
        .route("/readyz", ready);
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))),
        router,
    )
    .await?)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let mut end_to_end = Comparison::new("end to end", "readings/s", 0.8);
    let mut cpu = Cpu::default();
    println!(
        "{} readings in requests of {BATCH}, {SERIES} series, against one COPY in order of arrival",
        arguments.readings
    );
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(
        (0..arguments.readings)
            .step_by(BATCH)
            .map(|first| generator::request(first, BATCH))
            .collect(),
    );
    for round in 0..arguments.rounds {
        let limit = stage.copy(round, arguments.readings).await?;
        let (rate, used) = stage
            .end_to_end(round, arguments.readings, requests.clone())
            .await?;
        end_to_end.round(limit, rate);
        cpu = used;
    }
    drop(requests);

    let mut singles = Comparison::new("single readings", "requests/s", 0.4);
    let mut queued_only = Comparison::new("single readings, no worker", "requests/s", 0.4);
    let mut many = Comparison::new("the same on 1,000 connections", "requests/s", 0.4);
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    println!(
        "requests of one reading, confirmed by the broker, on {SINGLES} connections and on {MANY}"
    );
    for round in 0..arguments.rounds {
        let duration = Duration::from_secs(arguments.seconds);
        let limit = stage.bare(SINGLES, duration).await?;
        let queued = stage
            .singles(&format!("queued{round}"), SINGLES, duration, false)
            .await?;
        queued_only.round(limit.per_second, queued.per_second);
        let own = stage
            .singles(&format!("singles{round}"), SINGLES, duration, true)
            .await?;
        singles.round(limit.per_second, own.per_second);
        p50.push(own.p50_ms);
        p99.push(own.p99_ms);
        let limit = stage.bare(MANY, duration).await?;
        let own = stage
            .singles(&format!("many{round}"), MANY, duration, true)
            .await?;
        many.round(limit.per_second, own.per_second);
    }

    let rate = median(end_to_end.gridwatch.clone()) * 2.0;
    println!(
        "overload: {rate:.0} readings/s offered for {} s",
        arguments.overload
    );
    let overload = stage
        .overload(rate, Duration::from_secs(arguments.overload))
        .await?;
    let report = Report {
        machine: machine(),
        unix_time: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs(),
        end_to_end,
        singles,
        singles_queued_only: queued_only,
        singles_many: many,
        singles_p50_ms: median(p50),
        singles_p99_ms: median(p99),
        cpu_seconds_per_million_readings: cpu,
        overload,
    };
    print(&report);
    // cargo runs a benchmark in the folder of its package.
    let out = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(&arguments.out);
    std::fs::create_dir_all(out.parent().context("no folder")?)?;
    std::fs::write(&out, serde_json::to_string_pretty(&report)?)?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

fn print(report: &Report) {
    println!("\n{}", report.machine);
    println!(
        "{:<42} {:>12} {:>12} {:>7} {:>6}",
        "", "limit", "gridwatch", "ratio", "goal"
    );
    for comparison in [
        &report.end_to_end,
        &report.singles,
        &report.singles_queued_only,
        &report.singles_many,
    ] {
        let what = format!("{} ({})", comparison.what, comparison.unit);
        println!(
            "{what:<42} {:>12.0} {:>12.0} {:>7.2} {:>6.2}",
            median(comparison.limit.clone()),
            median(comparison.gridwatch.clone()),
            comparison.ratio,
            comparison.goal
        );
    }
    println!(
        "single readings: p50 {:.1} ms, p99 {:.1} ms",
        report.singles_p50_ms, report.singles_p99_ms
    );
    let cpu = &report.cpu_seconds_per_million_readings;
    println!(
        "CPU-seconds per million readings: front end {:.2}, broker {:.2}, worker {:.2}, PostgreSQL {:.2}",
        cpu.front_end, cpu.broker, cpu.worker, cpu.postgresql
    );
    let overload = &report.overload;
    println!(
        "overload: {} accepted, {} refused; peak memory: front end {:.0} MiB, worker {:.0} MiB; growth from the middle \
         third to the last: {:.0} and {:.0} MiB",
        overload.accepted,
        overload.refused,
        overload.front_end_peak_mib,
        overload.worker_peak_mib,
        overload.front_end_growth_mib,
        overload.worker_growth_mib
    );
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}", cores, model.trim_start_matches([' ', '\t', ':']))
}

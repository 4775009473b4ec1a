//! `make bench`: what the pipeline carries, as ratios to what this machine can do at most, in one run.
//!
//! Every ratio comes from rounds in which the limit and the pipeline take turns, so that a machine whose speed drifts
//! drifts for both; the median round counts. The table goes to standard output, the figures as JSON to `--out`.

#[path = "../common.rs"]
mod common;
mod generator;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Parser;
use common::{address, median, program};
use futures_util::SinkExt as _;
use generator::{METRICS, SERIES};
use serde::{Deserialize, Serialize};
use testbed::postgres::Postgres;
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use testbed::usage;
use tokio_postgres::{Client, NoTls};

/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const POSTGRES_EPOCH: u64 = 946_684_800_000_000;
/// Readings of a request in the end-to-end run.
const BATCH: usize = 1_000;
/// Connections of the end-to-end run.
const CONNECTIONS: usize = 16;
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
        Self { what, unit, limit: Vec::new(), gridwatch: Vec::new(), ratio: 0.0, goal }
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
        self.ratio = median(self.limit.iter().zip(&self.gridwatch).map(|(limit, own)| own / limit).collect());
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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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
    let post = axum::routing::post(async |body: Bytes| match serde_json::from_slice::<Reading>(&body) {
        Ok(_) => (axum::http::StatusCode::ACCEPTED, r#"{"accepted":1,"rejected":0,"errors":[]}"#),
        Err(_) => (axum::http::StatusCode::BAD_REQUEST, ""),
    });
    let ready = axum::routing::get(async || "");
    let router = axum::Router::new().route("/v1/readings", post).route("/readyz", ready);
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router).await?)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let mut end_to_end = Comparison::new("end to end", "readings/s", 0.8);
    let mut cpu = Cpu::default();
    println!(
        "{} readings in requests of {BATCH}, {SERIES} series, against one COPY in order of arrival",
        arguments.readings
    );
    let requests: Arc<Vec<Vec<u8>>> =
        Arc::new((0..arguments.readings).step_by(BATCH).map(|first| generator::request(first, BATCH)).collect());
    for round in 0..arguments.rounds {
        let limit = stage.copy(round, arguments.readings).await?;
        let (rate, used) = stage.end_to_end(round, arguments.readings, requests.clone()).await?;
        end_to_end.round(limit, rate);
        cpu = used;
    }
    drop(requests);

    let mut singles = Comparison::new("single readings", "requests/s", 0.4);
    let mut queued_only = Comparison::new("single readings, no worker", "requests/s", 0.4);
    let mut many = Comparison::new("the same on 1,000 connections", "requests/s", 0.4);
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    println!("requests of one reading, confirmed by the broker, on {SINGLES} connections and on {MANY}");
    for round in 0..arguments.rounds {
        let duration = Duration::from_secs(arguments.seconds);
        let limit = stage.bare(SINGLES, duration).await?;
        let queued = stage.singles(&format!("queued{round}"), SINGLES, duration, false).await?;
        queued_only.round(limit.per_second, queued.per_second);
        let own = stage.singles(&format!("singles{round}"), SINGLES, duration, true).await?;
        singles.round(limit.per_second, own.per_second);
        p50.push(own.p50_ms);
        p99.push(own.p99_ms);
        let limit = stage.bare(MANY, duration).await?;
        let own = stage.singles(&format!("many{round}"), MANY, duration, true).await?;
        many.round(limit.per_second, own.per_second);
    }

    let rate = median(end_to_end.gridwatch.clone()) * 2.0;
    println!("overload: {rate:.0} readings/s offered for {} s", arguments.overload);
    let overload = stage.overload(rate, Duration::from_secs(arguments.overload)).await?;
    let report = Report {
        machine: machine(),
        unix_time: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
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
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&arguments.out);
    std::fs::create_dir_all(out.parent().context("no folder")?)?;
    std::fs::write(&out, serde_json::to_string_pretty(&report)?)?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

fn print(report: &Report) {
    println!("\n{}", report.machine);
    println!("{:<42} {:>12} {:>12} {:>7} {:>6}", "", "limit", "gridwatch", "ratio", "goal");
    for comparison in [&report.end_to_end, &report.singles, &report.singles_queued_only, &report.singles_many] {
        let what = format!("{} ({})", comparison.what, comparison.unit);
        println!(
            "{what:<42} {:>12.0} {:>12.0} {:>7.2} {:>6.2}",
            median(comparison.limit.clone()),
            median(comparison.gridwatch.clone()),
            comparison.ratio,
            comparison.goal
        );
    }
    println!("single readings: p50 {:.1} ms, p99 {:.1} ms", report.singles_p50_ms, report.singles_p99_ms);
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

/// The servers of a run.
struct Stage {
    postgres: Postgres,
    rabbitmq: RabbitMq,
    folder: tempfile::TempDir,
}

/// A front end and a worker on a database and a virtual host of their own.
struct Pipeline {
    ingest: Process,
    worker: Process,
    listen: String,
    database: Client,
}

impl Stage {
    async fn start() -> anyhow::Result<Self> {
        println!("starting PostgreSQL and RabbitMQ");
        let stage = Self { postgres: Postgres::start()?, rabbitmq: RabbitMq::start(16)?, folder: tempfile::tempdir()? };
        stage.connect("postgres").await?.batch_execute("CREATE DATABASE template").await?;
        let migrate = ["migrate", "--database-url", &stage.postgres.url("template")];
        ensure!(std::process::Command::new(program()).args(migrate).output()?.status.success(), "migrate");
        let metrics: Vec<&str> = METRICS.to_vec();
        let template = stage.connect("template").await?;
        template
            .execute(
                "INSERT INTO device (external_id) SELECT 'device-' || to_char(n, 'FM00000') FROM generate_series(0, $1) n",
                &[&(generator::DEVICES as i32 - 1)],
            )
            .await?;
        template
            .execute(
                "INSERT INTO series (device_id, metric)
                 SELECT d.id, m FROM device d CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS m (m, n) ORDER BY d.id, n",
                &[&metrics],
            )
            .await?;
        template.batch_execute("SELECT gridwatch_create_reading_day('2026-11-01')").await?;
        Ok(stage)
    }

    async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn database(&self, name: &str) -> anyhow::Result<Client> {
        let create = format!("CREATE DATABASE {name} TEMPLATE template");
        let server = self.connect("postgres").await?;
        server.batch_execute(&create).await?;
        server.batch_execute("CHECKPOINT").await?;
        self.connect(name).await
    }

    async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.connect("postgres").await?.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?)
    }

    /// Rows a second of one COPY in order of arrival. The rows are encoded beforehand: it is the limit of PostgreSQL.
    async fn copy(&self, round: usize, readings: usize) -> anyhow::Result<f64> {
        let name = format!("copy{round}");
        let database = self.database(&name).await?;
        let mut chunks = Vec::new();
        let mut buffer = BytesMut::new();
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for number in 0..readings {
            let (device, metric, millis, value) = generator::reading(number);
            buffer.put_i16(3);
            buffer.put_i32(4);
            buffer.put_i32((device * METRICS.len() + metric + 1) as i32);
            buffer.put_i32(8);
            buffer.put_u64(millis * 1_000 - POSTGRES_EPOCH);
            buffer.put_i32(8);
            buffer.put_f64(value);
            if buffer.len() > 128 * 1024 {
                chunks.push(buffer.split().freeze());
            }
        }
        buffer.put_i16(-1);
        chunks.push(buffer.freeze());
        let begun = Instant::now();
        let statement = "COPY reading (series_id, measured_at, value) FROM STDIN (FORMAT binary)";
        let mut sink = std::pin::pin!(database.copy_in::<_, Bytes>(statement).await?);
        for chunk in chunks {
            sink.feed(chunk).await?;
        }
        let rows = sink.finish().await?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(rows == readings as u64, "{rows} rows copied");
        self.drop_database(&name).await?;
        Ok(readings as f64 / seconds)
    }

    async fn pipeline(&self, name: &str) -> anyhow::Result<Pipeline> {
        let database = self.database(name).await?;
        let (listen, admin) = (address()?, address()?);
        let (amqp, url) = (self.rabbitmq.url(&self.rabbitmq.vhost()?), self.postgres.url(name));
        let common = ["--amqp-url", &amqp, "--database-url", &url];
        let ingest = [&["ingest-api", "--listen", &listen, "--admin", &admin], &common[..]].concat();
        let mut ingest = Process::start(program(), &ingest, &admin, self.folder.path())?;
        let admin = address()?;
        let worker = [&["worker", "--admin", &admin], &common[..]].concat();
        let mut worker = Process::start(program(), &worker, &admin, self.folder.path())?;
        ingest.wait_ready();
        worker.wait_ready();
        Ok(Pipeline { ingest, worker, listen, database })
    }

    /// Readings a second from the first send to the last row committed, and CPU-seconds per million readings.
    async fn end_to_end(
        &self,
        round: usize,
        readings: usize,
        requests: Arc<Vec<Vec<u8>>>,
    ) -> anyhow::Result<(f64, Cpu)> {
        let name = format!("pipeline{round}");
        let mut pipeline = self.pipeline(&name).await?;
        let before = self.cpu(&pipeline);
        let begun = Instant::now();
        generator::send_all(&pipeline.listen, requests, CONNECTIONS).await?;
        let accepted = begun.elapsed();
        pipeline.wait_settled(readings).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = self.cpu(&pipeline);
        let rows: i64 = pipeline.database.query_one("SELECT count(*) FROM reading", &[]).await?.get(0);
        ensure!(rows == readings as i64, "{rows} rows of {readings} are stored");
        println!("  accepted in {:.1} s, stored in {seconds:.1} s", accepted.as_secs_f64());
        pipeline.stop()?;
        self.drop_database(&name).await?;
        let per_million = |after: f64, before: f64| (after - before) * 1e6 / readings as f64;
        let cpu = Cpu {
            front_end: per_million(after.front_end, before.front_end),
            broker: per_million(after.broker, before.broker),
            worker: per_million(after.worker, before.worker),
            postgresql: per_million(after.postgresql, before.postgresql),
        };
        Ok((readings as f64 / seconds, cpu))
    }

    fn cpu(&self, pipeline: &Pipeline) -> Cpu {
        Cpu {
            front_end: usage::of_process(pipeline.ingest.pid()),
            worker: usage::of_process(pipeline.worker.pid()),
            broker: usage::of_server(self.rabbitmq.pid().unwrap_or_default()),
            postgresql: usage::of_server(self.postgres.pid().unwrap_or_default()),
        }
    }

    async fn bare(&self, connections: usize, duration: Duration) -> anyhow::Result<generator::Singles> {
        let address = address()?;
        let own = std::env::current_exe()?;
        let mut server = Process::start(&own, &["--bare", &address], &address, self.folder.path())?;
        server.wait_ready();
        generator::singles(&address, connections, duration).await
    }

    /// With or without a worker that empties the queue meanwhile.
    async fn singles(
        &self,
        name: &str,
        connections: usize,
        duration: Duration,
        working: bool,
    ) -> anyhow::Result<generator::Singles> {
        let mut pipeline = self.pipeline(name).await?;
        if !working {
            pipeline.worker.signal("STOP")?;
        }
        let (before, own) = (self.cpu(&pipeline), usage::of_process(std::process::id()));
        let result = generator::singles(&pipeline.listen, connections, duration).await?;
        let (after, own) = (self.cpu(&pipeline), usage::of_process(std::process::id()) - own);
        let cores = |after: f64, before: f64| (after - before) / duration.as_secs_f64();
        println!(
            "  cores: generator {:.2}, front end {:.2}, broker {:.2}, worker {:.2}, PostgreSQL {:.2}",
            own / duration.as_secs_f64(),
            cores(after.front_end, before.front_end),
            cores(after.broker, before.broker),
            cores(after.worker, before.worker),
            cores(after.postgresql, before.postgresql)
        );
        pipeline.worker.signal("CONT")?;
        let accepted = pipeline.ingest.metric("gridwatch_readings_accepted_total") as usize;
        let [batches, confirming] = ["gridwatch_sink_batches_total", "gridwatch_sink_confirm_seconds_sum"]
            .map(|name| pipeline.ingest.metric(name));
        println!(
            "  {} the worker: {:.0} requests/s, p50 {:.1} ms; {:.0} readings a message, confirmed in {:.2} ms on average",
            if working { "with" } else { "without" },
            result.per_second,
            result.p50_ms,
            accepted as f64 / batches,
            confirming / batches * 1e3
        );
        pipeline.wait_settled(accepted).await?;
        pipeline.stop()?;
        self.drop_database(name).await?;
        Ok(result)
    }

    async fn overload(&self, rate: f64, duration: Duration) -> anyhow::Result<Overload> {
        let mut pipeline = self.pipeline("overload").await?;
        let (ingest, worker) = (pipeline.ingest.pid(), pipeline.worker.pid());
        let watch = tokio::spawn(async move {
            let (mut front_end, mut own) = (Vec::new(), Vec::new());
            let begun = Instant::now();
            while begun.elapsed() < duration {
                front_end.push(usage::memory_mib(ingest));
                own.push(usage::memory_mib(worker));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            (front_end, own)
        });
        let offered = generator::offer(&pipeline.listen, BATCH, rate, duration).await?;
        let (front_end, worker) = watch.await?;
        pipeline.stop()?;
        use std::sync::atomic::Ordering::Relaxed;
        let peak = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
        let growth = |samples: &[f64]| {
            let third = samples.len() / 3;
            median(samples[2 * third..].to_vec()) - median(samples[third..2 * third].to_vec())
        };
        Ok(Overload {
            seconds: duration.as_secs(),
            offered_per_second: rate,
            accepted: offered.accepted.load(Relaxed),
            refused: offered.refused.load(Relaxed),
            front_end_peak_mib: peak(&front_end),
            worker_peak_mib: peak(&worker),
            front_end_growth_mib: growth(&front_end),
            worker_growth_mib: growth(&worker),
        })
    }
}

impl Pipeline {
    async fn wait_settled(&self, readings: usize) -> anyhow::Result<()> {
        let settled = self.database.prepare("SELECT coalesce(sum(readings), 0)::bigint FROM batch").await?;
        while self.database.query_one(&settled, &[]).await?.get::<_, i64>(0) < readings as i64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.ingest.terminate()?;
        self.worker.terminate()?;
        Ok(())
    }
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}", cores, model.trim_start_matches([' ', '\t', ':']))
}

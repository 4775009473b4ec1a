//! `make bench`, second part: the spool against the disk, a front end whose broker goes away, and standalone.
//!
//! The limit of the spool is a loop that writes and syncs the same bytes, as many at a time as the spool does, in the same
//! round. The table goes to standard output, the figures as JSON to `--out`.

#[path = "../common.rs"]
mod common;
#[expect(
    dead_code,
    reason = "shared with the other benchmark, which uses all of it"
)]
#[path = "../pipeline/generator.rs"]
mod generator;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use common::{address, median, program};
use serde::Serialize;
use testbed::faulty_proxy::{Condition, FaultyProxy};
use testbed::postgres::Postgres;
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use transport::spool::{self, record};

/// Tasks that append at a time, as many as the connections of a run with single readings.
const APPENDING: usize = 64;
/// Readings a second in the outage, and of a request.
const OUTAGE: (f64, usize) = (20_000.0, 100);
/// Readings of a request to standalone.
const BATCH: usize = 1_000;

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of a round of the spool
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Readings sent to standalone
    #[arg(long, default_value_t = 2_000_000)]
    readings: usize,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench/shapes.json")]
    out: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The spool with payloads of one size; rates are medians.
#[derive(Debug, Serialize)]
struct Appends {
    payload_bytes: usize,
    group: f64,
    limit_per_second: f64,
    spool_per_second: f64,
    spool_mb_per_second: f64,
    ratio: f64,
    goal: f64,
}

#[derive(Debug, Serialize)]
struct Outage {
    readings_per_second: f64,
    away_seconds: f64,
    accepted: u64,
    refused: u64,
    stored: i64,
    p99_ms: f64,
    worst_ms: f64,
    spooled: f64,
    drain_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Standalone {
    readings_per_second: f64,
    accepted_per_second: f64,
    first_start_ms: f64,
    start_ms: f64,
    binary_mb: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    appends: Vec<Appends>,
    outage: Outage,
    standalone: Standalone,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut appends = Vec::new();
    for payload in [200, 1_400, 80_000] {
        appends.push(spool(&arguments, payload).await?);
    }
    let standalone = standalone(arguments.readings).await?;
    let outage = outage().await?;
    let report = Report {
        appends,
        outage,
        standalone,
    };
    print(&report);
    let out = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(&arguments.out);
    std::fs::create_dir_all(out.parent().context("no folder")?)?;
    std::fs::write(&out, serde_json::to_string_pretty(&report)?)?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

fn print(report: &Report) {
    println!(
        "\n{:<28} {:>10} {:>10} {:>9} {:>7} {:>6}",
        "spool, appends/s", "limit", "spool", "MB/s", "ratio", "goal"
    );
    for one in &report.appends {
        println!(
            "{:<28} {:>10.0} {:>10.0} {:>9.1} {:>7.2} {:>6.2}",
            format!("{} B, {:.0} a sync", one.payload_bytes, one.group),
            one.limit_per_second,
            one.spool_per_second,
            one.spool_mb_per_second,
            one.ratio,
            one.goal
        );
    }
    let Outage {
        accepted,
        refused,
        stored,
        p99_ms,
        worst_ms,
        spooled,
        drain_seconds,
        ..
    } = &report.outage;
    println!(
        "outage of {:.1} s at {:.0} readings/s: {accepted} accepted, {refused} refused, {stored} stored; p99 {p99_ms:.0} ms, \
         worst {worst_ms:.0} ms; {spooled:.0} readings through the spool, drained {drain_seconds:.1} s after the return",
        report.outage.away_seconds, report.outage.readings_per_second
    );
    let Standalone {
        readings_per_second,
        accepted_per_second,
        first_start_ms,
        start_ms,
        binary_mb,
    } = &report.standalone;
    println!(
        "standalone: {readings_per_second:.0} readings/s stored, {accepted_per_second:.0} accepted; ready after \
         {first_start_ms:.0} ms the first time, {start_ms:.0} ms then; binary {binary_mb:.0} MB"
    );
}

/// Appends of many tasks, and a loop of as large groups, in turns.
async fn spool(arguments: &Arguments, payload: usize) -> anyhow::Result<Appends> {
    let (mut limits, mut rates, mut groups, mut ratios) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let duration = Duration::from_secs(arguments.seconds);
    for _ in 0..arguments.rounds {
        let folder = tempfile::tempdir()?;
        let (rate, group) = append(folder.path(), payload, duration).await?;
        let limit = plain(
            folder.path(),
            (payload + record::HEADER) * group.round() as usize,
            duration,
        )? * group;
        println!(
            "  {payload} B: limit {limit:.0}, spool {rate:.0} appends/s, {group:.1} a sync, ratio {:.2}",
            rate / limit
        );
        limits.push(limit);
        rates.push(rate);
        groups.push(group);
        ratios.push(rate / limit);
    }
    let spool_per_second = median(rates);
    Ok(Appends {
        payload_bytes: payload,
        group: median(groups),
        limit_per_second: median(limits),
        spool_per_second,
        spool_mb_per_second: spool_per_second * payload as f64 / 1e6,
        ratio: median(ratios),
        goal: 0.8,
    })
}

/// Appends a second, and how many a sync covered.
async fn append(folder: &Path, payload: usize, duration: Duration) -> anyhow::Result<(f64, f64)> {
    let config = spool::Config {
        directory: folder.join("spool"),
        max_bytes: u64::MAX,
        segment_bytes: 16 * 1024 * 1024,
    };
    let (spool, _source, guard) = spool::open(config, 1)?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..APPENDING {
        let (spool, payload) = (spool.clone(), Bytes::from(vec![7; payload]));
        tasks.spawn(async move {
            let mut count = 0_u64;
            while begun.elapsed() < duration {
                spool.append(payload.clone(), 1).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(task) = tasks.join_next().await {
        count += task??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let syncs = spool.syncs();
    guard.close();
    Ok((count as f64 / seconds, count as f64 / syncs as f64))
}

/// Groups a second of a loop that writes and syncs.
fn plain(folder: &Path, bytes: usize, duration: Duration) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join("plain"))?;
    let group = vec![7; bytes];
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < duration {
        file.write_all(&group)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// Readings a second into the embedded database, from the first send to the last row, and how long starting takes.
async fn standalone(readings: usize) -> anyhow::Result<Standalone> {
    let folder = tempfile::tempdir()?;
    let (listen, admin) = (address()?, address()?);
    let data = folder.path().join("data");
    let data = data.to_str().context("a strange name")?;
    let start = || {
        let begun = Instant::now();
        let arguments = [
            "standalone",
            "--data",
            data,
            "--listen",
            &listen,
            "--admin",
            &admin,
        ];
        let mut process = Process::start(program(), &arguments, &admin, folder.path())?;
        process.wait_ready();
        anyhow::Ok((process, begun.elapsed().as_secs_f64() * 1e3))
    };
    let (mut process, first_start_ms) = start()?;
    println!("standalone: {readings} readings in requests of {BATCH}");
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(
        (0..readings)
            .step_by(BATCH)
            .map(|first| generator::request(first, BATCH))
            .collect(),
    );
    let begun = Instant::now();
    generator::send_all(&listen, requests, 16).await?;
    let accepted_per_second = readings as f64 / begun.elapsed().as_secs_f64();
    while process.metric("gridwatch_readings_persisted_total") < readings as f64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let readings_per_second = readings as f64 / begun.elapsed().as_secs_f64();
    process.terminate()?;
    let (mut process, start_ms) = start()?;
    process.terminate()?;
    let binary_mb = std::fs::metadata(program())?.len() as f64 / 1e6;
    Ok(Standalone {
        readings_per_second,
        accepted_per_second,
        first_start_ms,
        start_ms,
        binary_mb,
    })
}

/// A front end with a spool, whose broker is cut off for four of twelve seconds.
async fn outage() -> anyhow::Result<Outage> {
    println!(
        "outage: {} readings/s for 12 s, the broker away from second 4 to 8",
        OUTAGE.0
    );
    let (postgres, rabbitmq, folder) = (
        Postgres::start()?,
        RabbitMq::start(1)?,
        tempfile::tempdir()?,
    );
    let url = postgres.url("postgres");
    let migrate = ["migrate", "--database-url", &url];
    ensure!(
        std::process::Command::new(program())
            .args(migrate)
            .output()?
            .status
            .success(),
        "migrate"
    );
    let proxy = FaultyProxy::start(rabbitmq.address()).await?;
    let amqp = rabbitmq.url(&rabbitmq.vhost()?);
    let cut = amqp.replace(&rabbitmq.address(), &proxy.address().to_string());
    let (listen, admin, worker_admin) = (address()?, address()?, address()?);
    let spool = folder.path().join("spool");
    let spool = spool.to_str().context("a strange name")?;
    let ingest = [
        &[
            "ingest-api",
            "--listen",
            &listen,
            "--admin",
            &admin,
            "--amqp-url",
            &cut,
            "--database-url",
            &url,
        ][..],
        &["--unknown-devices", "register", "--spool", spool],
    ]
    .concat();
    let mut ingest = Process::start(program(), &ingest, &admin, folder.path())?;
    let worker = [
        "worker",
        "--admin",
        &worker_admin,
        "--amqp-url",
        &amqp,
        "--database-url",
        &url,
    ];
    let mut worker = Process::start(program(), &worker, &worker_admin, folder.path())?;
    ingest.wait_ready();
    worker.wait_ready();
    // The names first, so that the run measures none of their registering.
    let names: Vec<Vec<u8>> = (0..generator::SERIES)
        .step_by(BATCH)
        .map(|first| generator::request(1_000_000_000 + first, BATCH))
        .collect();
    generator::send_all(&listen, Arc::new(names), 4).await?;

    let offering = {
        let listen = listen.clone();
        tokio::spawn(async move {
            generator::offer(&listen, OUTAGE.1, OUTAGE.0, Duration::from_secs(12)).await
        })
    };
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.set(Condition::Disconnected);
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.set(Condition::HEALTHY);
    let back = Instant::now();
    // The gauge is set every second; so is what this says.
    while !ingest.admin("/readyz")?.contains("\"state\":\"ready\"")
        || ingest.metric("gridwatch_spool_readings") > 0.0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let drain_seconds = back.elapsed().as_secs_f64();
    let offered = offering.await??;
    let accepted = offered.accepted.load(Relaxed);
    let settled = accepted + generator::SERIES as u64;
    let (database, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let deadline = Instant::now() + Duration::from_secs(60);
    let stored = loop {
        let stored: i64 = database
            .query_one("SELECT count(*) FROM reading", &[])
            .await?
            .get(0);
        if stored as u64 >= settled || Instant::now() > deadline {
            break stored - generator::SERIES as i64;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut latencies =
        std::mem::take(&mut *offered.latencies.lock().expect("nobody panics with it"));
    latencies.sort_unstable();
    let millis = |index: usize| latencies.get(index).copied().unwrap_or_default() as f64 / 1e3;
    let spooled = ingest.metric("gridwatch_spooled_readings_total");
    ingest.terminate()?;
    worker.terminate()?;
    Ok(Outage {
        readings_per_second: OUTAGE.0,
        away_seconds: 4.0,
        accepted,
        refused: offered.refused.load(Relaxed),
        stored,
        p99_ms: millis(latencies.len() * 99 / 100),
        worst_ms: millis(latencies.len().saturating_sub(1)),
        spooled,
        drain_seconds,
    })
}

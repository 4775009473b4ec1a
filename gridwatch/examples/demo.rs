//! `make demo`: all of Gridwatch in one process, with real and generated readings. `make demo-servers`: the same with a
//! front end and a worker on private nodes of PostgreSQL and RabbitMQ.
//!
//! Starts what is needed, replays a month of a real meter if its file is at hand, generates a fleet, prints what became of
//! it all, and stays up until Ctrl-C. Leaves nothing behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::http::Uri;
use indicatif::{ProgressBar, ProgressStyle};
use schema::clock::{Stage, now};
use schema::metric::BUCKETS;
use service::client::Client;
use testbed::free_port;
use testbed::postgres::Postgres;
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use tokio_util::sync::CancellationToken;

/// Devices of the fleet: each reports current and voltage, once a second of the last half minute.
const DEVICES: usize = 5_000;
const SECONDS: usize = 30;
/// Readings a request, as a collector would send them.
const BATCH: usize = 1_000;
/// Requests under way at a time.
const CONCURRENT: usize = 16;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let gridwatch = program()?;
    let stop = service::shutdown::on_signal()?;
    let folder = tempfile::tempdir()?;
    match std::env::args().nth(1).as_deref() {
        None => standalone(&gridwatch, folder.path(), stop).await,
        Some("--servers") => servers(&gridwatch, folder.path(), stop).await,
        Some(other) => bail!("unknown argument '{other}'; known is --servers"),
    }
}

async fn standalone(
    gridwatch: &Path,
    folder: &Path,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (listen, admin) = (pick(8080)?, pick(9090)?);
    let data = folder.join("data");
    let data = data
        .to_str()
        .context("the temporary folder has a strange name")?;
    println!("gridwatch standalone --data {data} --listen {listen} --admin {admin}");
    let arguments = [
        "standalone",
        "--data",
        data,
        "--listen",
        &listen,
        "--admin",
        &admin,
    ];
    let mut process = Process::start(gridwatch, &arguments, &admin, folder)?;
    process.wait_ready();
    let places =
        format!("readings   http://{listen}/v1/readings\nmetrics    http://{admin}/metrics");
    show(gridwatch, &listen, &process, &process, &places, stop).await?;
    process.terminate()?;
    Ok(())
}

async fn servers(gridwatch: &Path, folder: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    println!("starting private PostgreSQL and RabbitMQ nodes …");
    let postgres = Postgres::start()?;
    let rabbitmq = RabbitMq::start(1)?;
    let (database_url, amqp_url) = (postgres.url("postgres"), rabbitmq.url(&rabbitmq.vhost()?));
    command(gridwatch, &["migrate", "--database-url", &database_url])?;
    let listen = pick(8080)?;
    let (ingest_admin, worker_admin) = (pick(9090)?, pick(9091)?);
    let urls = ["--amqp-url", &amqp_url, "--database-url", &database_url];
    let ingest = [
        "ingest-api",
        "--listen",
        &listen,
        "--admin",
        &ingest_admin,
        "--unknown-devices",
        "register",
    ];
    let mut ingest = Process::start(
        gridwatch,
        &[&ingest, &urls[..]].concat(),
        &ingest_admin,
        folder,
    )?;
    let worker = ["worker", "--admin", &worker_admin];
    let mut worker = Process::start(
        gridwatch,
        &[&worker, &urls[..]].concat(),
        &worker_admin,
        folder,
    )?;
    ingest.wait_ready();
    worker.wait_ready();
    let places = format!(
        "readings   http://{listen}/v1/readings\nmetrics    http://{ingest_admin}/metrics  \
         http://{worker_admin}/metrics\ndatabase   psql {database_url}"
    );
    show(gridwatch, &listen, &ingest, &worker, &places, stop).await?;
    ingest.terminate()?;
    worker.terminate()?;
    Ok(())
}

/// Sends readings, prints what became of them and where things are, and waits for the stop signal.
async fn show(
    gridwatch: &Path,
    listen: &str,
    ingest: &Process,
    worker: &Process,
    places: &str,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let work = async {
        replay(gridwatch, &format!("http://{listen}"))?;
        generate(listen).await?;
        settle(ingest, worker).await;
        report(ingest, worker);
        println!("\n{places}\nrunning until Ctrl-C");
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        result = work => result?,
        () = stop.cancelled() => println!("\nstopping"),
    }
    Ok(())
}

/// The binary beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("no folder")?;
    let program = folder.join("gridwatch");
    if !program.is_file() {
        bail!(
            "{} is missing: run 'make demo', which builds it",
            program.display()
        );
    }
    Ok(program)
}

fn command(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    if !Command::new(program).args(arguments).status()?.success() {
        bail!("gridwatch {} failed", arguments[0]);
    }
    Ok(())
}

/// The usual port where it is free, otherwise any.
fn pick(usual: u16) -> anyhow::Result<String> {
    let port = match std::net::TcpListener::bind(("127.0.0.1", usual)) {
        Ok(_) => usual,
        Err(_) => free_port()?,
    };
    Ok(format!("127.0.0.1:{port}"))
}

/// A month of a real meter, where its file is beside the checkout or named in `METER_CSV`.
fn replay(gridwatch: &Path, url: &str) -> anyhow::Result<()> {
    let file = std::env::var_os("METER_CSV").map(PathBuf::from);
    let places = [
        "meterusage.csv",
        "data/meterusage.csv",
        "../shared/data/meterusage.csv",
    ]
    .map(PathBuf::from);
    match file.into_iter().chain(places).find(|file| file.is_file()) {
        Some(file) => {
            let file = file.to_string_lossy().into_owned();
            command(
                gridwatch,
                &[
                    "replay", &file, "--device", "meter-1", "--metric", "energy", "--url", url,
                ],
            )
        }
        None => {
            println!(
                "no meterusage.csv at hand (METER_CSV names one); going on with generated readings"
            );
            Ok(())
        }
    }
}

/// Sends the fleet's readings, several requests at a time.
async fn generate(listen: &str) -> anyhow::Result<()> {
    let uri: Uri = format!("http://{listen}/v1/readings").parse()?;
    let client = Client::new(Duration::from_secs(30));
    let total = DEVICES * 2 * SECONDS;
    let bar = ProgressBar::new(total as u64).with_style(ProgressStyle::with_template(
        "{wide_bar} {human_pos}/{human_len} readings  {per_sec}  {eta}",
    )?);
    let begin = now() / 1_000_000 - SECONDS as i64;
    let mut requests = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for first in (0..total).step_by(BATCH) {
        if requests.len() == CONCURRENT {
            requests.join_next().await.context("no request")???;
            bar.inc(BATCH as u64);
        }
        let (client, uri) = (client.clone(), uri.clone());
        requests.spawn(async move {
            let answer = client
                .post(
                    uri,
                    &[("content-type", "application/json")],
                    body(first, begin).into(),
                )
                .await?;
            if answer.status != 202 {
                bail!("{}: {}", answer.status, answer.text());
            }
            Ok(())
        });
    }
    while let Some(request) = requests.join_next().await {
        request??;
        bar.inc(BATCH as u64);
    }
    bar.finish_and_clear();
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    println!("a fleet of {DEVICES} devices: {total} readings sent, {rate:.0} a second");
    Ok(())
}

fn body(first: usize, begin: i64) -> String {
    let readings: Vec<String> = (first..first + BATCH)
        .map(|number| {
            let (device, second) = (number / 2 % DEVICES, number / 2 / DEVICES);
            let (metric, base) = if number % 2 == 0 { ("current", 40.0) } else { ("voltage", 230.0) };
            let value = base + (number % 97) as f64 / 10.0;
            let at = begin + second as i64;
            format!(r#"{{"device":"feeder-{device:05}","metric":"{metric}","value":{value},"measured_at":{at}}}"#)
        })
        .collect();
    format!("[{}]", readings.join(","))
}

/// Waits until the worker has an end for every accepted reading.
async fn settle(ingest: &Process, worker: &Process) {
    testbed::wait::until_async(
        "every accepted reading is settled",
        Duration::from_secs(120),
        async || {
            let settled: f64 = ["persisted", "duplicate", "conflict", "dead_lettered"]
                .iter()
                .map(|which| worker.metric(&format!("gridwatch_readings_{which}_total")))
                .sum();
            settled >= ingest.metric("gridwatch_readings_accepted_total")
        },
    )
    .await;
}

fn report(ingest: &Process, worker: &Process) {
    println!();
    for (process, names) in [
        (ingest, &["accepted", "rejected"][..]),
        (
            worker,
            &["persisted", "duplicate", "conflict", "dead_lettered"],
        ),
    ] {
        for name in names {
            println!(
                "{name:<24}{:>12}",
                process.metric(&format!("gridwatch_readings_{name}_total"))
            );
        }
    }
    println!("\n{:<24}{:>12}{:>12}", "stage", "p50", "p99");
    for stage in Stage::ALL {
        let process = if matches!(stage, Stage::MeasuredToReceived | Stage::ReceivedToEnqueued) {
            ingest
        } else {
            worker
        };
        let metrics = process.admin("/metrics").unwrap_or_default();
        let buckets = buckets(&metrics, stage);
        println!(
            "{:<24}{:>12}{:>12}",
            stage.label(),
            quantile(&buckets, 0.5),
            quantile(&buckets, 0.99)
        );
    }
    println!("(from the histograms' buckets; the replayed month counts as measured years ago)");
}

/// Cumulative counts of a stage, by the bucket's upper bound in seconds.
fn buckets(metrics: &str, stage: Stage) -> BTreeMap<u64, u64> {
    let prefix = format!(
        "gridwatch_stage_seconds_bucket{{stage=\"{}\",le=\"",
        stage.label()
    );
    metrics
        .lines()
        .filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            let micros = bound
                .parse::<f64>()
                .ok()
                .filter(|bound| bound.is_finite())
                .map_or(u64::MAX, |s| (s * 1e6) as u64);
            Some((micros, count.parse().ok()?))
        })
        .collect()
}

/// A quantile, interpolated within its bucket as Prometheus does.
fn quantile(buckets: &BTreeMap<u64, u64>, quantile: f64) -> String {
    let total = buckets.values().max().copied().unwrap_or_default();
    let rank = total as f64 * quantile;
    let (mut below, mut lower) = (0, 0);
    for (&bound, &count) in buckets {
        if total > 0 && count as f64 >= rank {
            if bound == u64::MAX {
                return format!("> {:.0} s", BUCKETS[BUCKETS.len() - 1]);
            }
            let share = (rank - below as f64) / (count - below).max(1) as f64;
            let millis = (lower as f64 + (bound - lower) as f64 * share) / 1e3;
            return if millis < 10_000.0 {
                format!("{millis:.1} ms")
            } else {
                format!("{:.0} s", millis / 1e3)
            };
        }
        (below, lower) = (count, bound);
    }
    "-".into()
}

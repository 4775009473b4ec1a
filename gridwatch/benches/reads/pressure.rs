//! The pipeline while something else happens: readers, and a refresh of a large registry.

use std::time::{Duration, Instant};

use anyhow::ensure;
use loadtest::generator::{Pacing, Sent};
use tokio_util::sync::CancellationToken;

use crate::Arguments;
use crate::client::Client;
use crate::common::free_address;
use crate::common::load::{
    FleetTraffic, MEASURING_RATE, PREFIX, generator, refused_requests, send_all,
};
use crate::report::{Figure, Goal};
use crate::servers::{Pipeline, Servers};
use schema::clock;
use testbed::process::Process;
use testbed::usage;

/// Readings per request.
const BATCH: usize = 100;
/// Connections of the load.
const CONNECTIONS: usize = 64;
/// Readings that the ceiling is measured with. With fewer, they would fit in the buffers of
/// PostgreSQL, and the rate could not be sustained.
const CEILING_READINGS: usize = 6_000_000;
/// How far before the present the readings of a ceiling begin.
const BACK: i64 = 60_000_000;

/// Readings per second that the pipeline stores.
async fn ceiling(pipeline: &Pipeline) -> anyhow::Result<f64> {
    let traffic = FleetTraffic {
        begin: clock::now() - BACK,
        rate: MEASURING_RATE,
        readings: CEILING_READINGS,
        batch: BATCH,
        connections: CONNECTIONS,
    };
    let traffic = traffic.traffic()?.render_all();
    let started = Instant::now();
    let sent = send_all(&pipeline.listen, traffic).await?;
    pipeline.wait_stored(sent.counts.accepted).await?;
    Ok(sent.counts.accepted as f64 / started.elapsed().as_secs_f64())
}

/// Sends at a rate for a while, and waits until everything is stored. Returns the rate at which it
/// was stored too.
async fn steady(pipeline: &Pipeline, rate: f64, duration: Duration) -> anyhow::Result<(Sent, f64)> {
    let stored = "SELECT coalesce(sum(readings), 0)::bigint FROM batch";
    let before: i64 = pipeline.database.query_one(stored, &[]).await?.get(0);
    let traffic = FleetTraffic {
        begin: clock::now(),
        rate,
        readings: (rate * duration.as_secs_f64()) as usize,
        batch: BATCH,
        connections: CONNECTIONS,
    };
    let generator = generator(&pipeline.listen, traffic.traffic()?, Pacing::Scenario)?;
    let started = Instant::now();
    let sent = generator.send(CancellationToken::new(), |_| {}).await?;
    ensure!(refused_requests(&sent)? == 0, "the rate was too high");
    pipeline
        .wait_stored(before.unsigned_abs() + sent.counts.accepted)
        .await?;
    let rate = sent.counts.accepted as f64 / started.elapsed().as_secs_f64();
    Ok((sent, rate))
}

/// Milliseconds that a reader asks for, as a live dashboard does.
const RANGE: i64 = 60_000;

/// Reads the last minute until the stop signal, one request per interval. Returns the latencies.
async fn reader(
    address: String,
    number: usize,
    every: Duration,
    stop: CancellationToken,
) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(&address).await?;
    // Not all at the same moment.
    tokio::time::sleep(every.mul_f64(number as f64 / 200.0)).await;
    let mut times = Vec::new();
    while !stop.is_cancelled() {
        let to = clock::now() / 1_000;
        let path = format!(
            "/v1/readings?device={PREFIX}{number:06}&from={}&to={to}&resolution=1s&aggregates=mean",
            to - RANGE
        );
        times.push(client.time(&path).await?.0);
        stop.run_until_cancelled(tokio::time::sleep(every)).await;
    }
    Ok(times)
}

/// Readers while the pipeline works at a half and at a quarter of its ceiling.
pub(crate) async fn readers(
    servers: &Servers,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Figure>> {
    let mut pipeline = servers.start_pipeline("readers").await?;
    let (address, admin) = (free_address()?, free_address()?);
    let url = servers.url("readers");
    let command = ["query-api", "--listen", &address, "--admin", &admin];
    let command = [&command[..], &["--database-url", &url]].concat();
    let mut api = Process::start(&servers.program, &command, &admin, servers.logs())?;
    api.wait_ready();
    let ceiling = ceiling(&pipeline).await?;
    let (duration, every) = (arguments.seconds(), arguments.reader_interval());
    let count = arguments.readers;
    let mut figures = Vec::new();
    for (share, rate_goal, latency_goal) in [
        (0.5, Goal::RatioAtLeast(0.95), Goal::RatioAtMost(1.5)),
        (0.25, Goal::None, Goal::None),
    ] {
        let rate = ceiling * share;
        println!("readers: {count}, each every {every:?}, at {rate:.0} readings/s");
        let name = |what: &str| format!("{what} at {:.0} % of the ceiling", share * 100.0);
        let mut stored = Figure::new(name("readings stored, readers"), "1/s", rate_goal);
        let mut p99 = Figure::new(name("p99 of ingest, readers"), "ms", latency_goal);
        let mut read = Figure::new(name("median of a read"), "ms", Goal::None);
        for _ in 0..arguments.rounds {
            let (quiet, quiet_rate) = steady(&pipeline, rate, duration).await?;
            let stop = CancellationToken::new();
            let readers: Vec<_> = (0..count)
                .map(|number| tokio::spawn(reader(address.clone(), number, every, stop.clone())))
                .collect();
            let before = (servers.cpu(&pipeline), usage::of_process(api.pid()));
            let started = Instant::now();
            let (busy, busy_rate) = steady(&pipeline, rate, duration).await?;
            let per_second = 1.0 / started.elapsed().as_secs_f64();
            let cores = servers.cpu(&pipeline).since(before.0, per_second);
            let api_cores = (usage::of_process(api.pid()) - before.1) * per_second;
            stop.cancel();
            let mut times = Vec::new();
            for reader in readers {
                times.extend(reader.await??);
            }
            println!(
                "  stored {quiet_rate:.0}/s and {busy_rate:.0}/s, p99 {:.1} and {:.1} ms, {} \
                 reads; cores in use: query-api {api_cores:.2}, {cores:?}",
                quiet.latency_ms.p99,
                busy.latency_ms.p99,
                times.len()
            );
            stored.add_round(quiet_rate, busy_rate);
            p99.add_round(quiet.latency_ms.p99, busy.latency_ms.p99);
            read.gridwatch.push(loadtest::statistics::median(&times));
        }
        figures.extend([stored, p99, read]);
    }
    api.terminate()?;
    pipeline.stop()?;
    servers.drop_database("readers").await?;
    Ok(figures)
}

/// A large number of devices is registered, and changed, while the pipeline works at a quarter of
/// its ceiling: the change itself takes a core of PostgreSQL for some seconds.
pub(crate) async fn registry(
    servers: &Servers,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Figure>> {
    let mut pipeline = servers.start_pipeline("registry").await?;
    let rate = ceiling(&pipeline).await? / 4.0;
    let (devices, duration) = (arguments.devices, arguments.seconds());
    println!("registry: {devices} devices are added and changed, at {rate:.0} readings/s");
    let client = testbed::postgres::connect(&servers.url("registry")).await?;
    let mut figures = Vec::new();
    for what in ["added", "changed"] {
        let name = |figure| format!("{figure}, {devices} devices {what}");
        let mut p99 = Figure::new(name("p99 of ingest"), "ms", Goal::None);
        let mut longest = Figure::new(name("longest request"), "ms", Goal::None);
        for round in 0..arguments.rounds {
            let statement = match what {
                "added" => format!(
                    "INSERT INTO device (external_id)
                     SELECT 'fleet-{round}-' || n FROM generate_series(1, {devices}) n;
                     INSERT INTO series (device_id, metric)
                     SELECT id, 'power' FROM device WHERE external_id LIKE 'fleet-{round}-%'"
                ),
                _ => format!(
                    "UPDATE device SET active = true, changed_in = DEFAULT
                     WHERE external_id LIKE 'fleet-{round}-%'"
                ),
            };
            let (quiet, _) = steady(&pipeline, rate, duration).await?;
            let change = async {
                tokio::time::sleep(duration.mul_f64(0.2)).await;
                client.batch_execute(&statement).await
            };
            let (steady, changed) = tokio::join!(steady(&pipeline, rate, duration), change);
            changed?;
            let (busy, _) = steady?;
            println!(
                "  {what}: p99 {:.1} ms and {:.1} ms, highest {:.1} ms and {:.1} ms",
                quiet.latency_ms.p99,
                busy.latency_ms.p99,
                quiet.latency_ms.max,
                busy.latency_ms.max
            );
            p99.add_round(quiet.latency_ms.p99, busy.latency_ms.p99);
            longest.add_round(quiet.latency_ms.max, busy.latency_ms.max);
        }
        figures.extend([p99, longest]);
    }
    pipeline.stop()?;
    servers.drop_database("registry").await?;
    Ok(figures)
}

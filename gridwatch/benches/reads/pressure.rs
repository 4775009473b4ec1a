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
/// Readings that the ceiling is measured with.
const CEILING_READINGS: usize = 1_500_000;
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

/// Reads until the stop signal, one request per interval. Returns the latencies.
async fn reader(
    address: String,
    number: usize,
    every: Duration,
    stop: CancellationToken,
) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(&address).await?;
    let from = clock::now() / 1_000 - 3_600_000;
    let to = from + 7_200_000;
    let path = format!(
        "/v1/readings?device={PREFIX}{number:06}&from={from}&to={to}&resolution=1m&aggregates=mean"
    );
    // Not all at the same moment.
    tokio::time::sleep(every.mul_f64(number as f64 / 200.0)).await;
    let mut times = Vec::new();
    while !stop.is_cancelled() {
        times.push(client.time(&path).await?.0);
        stop.run_until_cancelled(tokio::time::sleep(every)).await;
    }
    Ok(times)
}

/// Readers while the pipeline works at half of its ceiling.
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
    let rate = ceiling(&pipeline).await? / 2.0;
    let (duration, every) = (arguments.seconds(), arguments.reader_interval());
    let count = arguments.readers;
    println!("readers: {count}, each every {every:?}, at {rate:.0} readings/s");
    let mut stored = Figure::new(
        "readings stored, with readers",
        "1/s",
        Goal::RatioAtLeast(0.95),
    );
    let mut p99 = Figure::new("p99 of ingest, with readers", "ms", Goal::RatioAtMost(1.5));
    let mut read = Figure::new("median of the readers' requests", "ms", Goal::None);
    let mut requests = Figure::new("requests of the readers", "1/s", Goal::None);
    for _ in 0..arguments.rounds {
        let (quiet, quiet_rate) = steady(&pipeline, rate, duration).await?;
        let stop = CancellationToken::new();
        let readers: Vec<_> = (0..count)
            .map(|number| tokio::spawn(reader(address.clone(), number, every, stop.clone())))
            .collect();
        let cpu = (servers.cpu(&pipeline), usage::of_process(api.pid()));
        let (busy, busy_rate) = steady(&pipeline, rate, duration).await?;
        let cores = servers
            .cpu(&pipeline)
            .since(cpu.0, 1.0 / duration.as_secs_f64());
        let api_cores = (usage::of_process(api.pid()) - cpu.1) / duration.as_secs_f64();
        stop.cancel();
        let mut times = Vec::new();
        for reader in readers {
            times.extend(reader.await??);
        }
        println!(
            "  stored {quiet_rate:.0}/s and {busy_rate:.0}/s, p99 {:.1} and {:.1} ms, {} reads; \
             cores in use: query-api {api_cores:.2}, {cores:?}",
            quiet.latency_ms.p99,
            busy.latency_ms.p99,
            times.len()
        );
        stored.add_round(quiet_rate, busy_rate);
        p99.add_round(quiet.latency_ms.p99, busy.latency_ms.p99);
        read.gridwatch.push(loadtest::statistics::median(&times));
        requests
            .gridwatch
            .push(times.len() as f64 / duration.as_secs_f64());
    }
    api.terminate()?;
    pipeline.stop()?;
    servers.drop_database("readers").await?;
    Ok(vec![stored, p99, read, requests])
}

/// A large number of devices is registered, and changed, while the pipeline works at half of its
/// ceiling.
pub(crate) async fn registry(
    servers: &Servers,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Figure>> {
    let mut pipeline = servers.start_pipeline("registry").await?;
    let rate = ceiling(&pipeline).await? / 2.0;
    let (devices, duration) = (arguments.devices, arguments.seconds());
    println!("registry: {devices} devices are added and changed, at {rate:.0} readings/s");
    let (quiet, _) = steady(&pipeline, rate, duration).await?;
    let url = servers.url("registry");
    let mut p99 = Vec::new();
    for (what, statement) in [
        (
            "added",
            format!(
                "INSERT INTO device (external_id)
                 SELECT 'fleet-' || n FROM generate_series(1, {devices}) n;
                 INSERT INTO series (device_id, metric)
                 SELECT id, 'power' FROM device WHERE external_id LIKE 'fleet-%'"
            ),
        ),
        (
            "changed",
            "UPDATE device SET active = true, changed_in = DEFAULT
             WHERE external_id LIKE 'fleet-%'"
                .to_owned(),
        ),
    ] {
        let client = testbed::postgres::connect(&url).await?;
        let change = async {
            tokio::time::sleep(duration.mul_f64(0.2)).await;
            client.batch_execute(&statement).await
        };
        let (steady, changed) = tokio::join!(steady(&pipeline, rate, duration), change);
        changed?;
        let (busy, _) = steady?;
        println!(
            "  {what}: p99 {:.1} ms and {:.1} ms, highest {:.1} ms and {:.1} ms",
            quiet.latency_ms.p99, busy.latency_ms.p99, quiet.latency_ms.max, busy.latency_ms.max
        );
        let name = format!("p99 of ingest, {devices} devices {what}");
        let mut figure = Figure::new(name, "ms", Goal::None);
        figure.add_round(quiet.latency_ms.p99, busy.latency_ms.p99);
        p99.push(figure);
        let name = format!("longest request, {devices} devices {what}");
        let mut figure = Figure::new(name, "ms", Goal::None);
        figure.add_round(quiet.latency_ms.max, busy.latency_ms.max);
        p99.push(figure);
    }
    pipeline.stop()?;
    servers.drop_database("registry").await?;
    Ok(p99)
}

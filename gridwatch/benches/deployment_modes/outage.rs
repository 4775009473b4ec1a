//! An outage of the broker: a front end with a spool sends through a faulty proxy, which is
//! disconnected for some seconds.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use loadtest::generator::{Pacing, Sent};
use testbed::faulty_proxy::{Condition, FaultyProxy};
use testbed::postgres::{Postgres, connect};
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use tokio_util::sync::CancellationToken;

use crate::common::load::{
    BEGIN, FleetTraffic, MEASURING_RATE, SERIES, generator, refused_requests, send_all,
};
use crate::common::{free_address, migrate};
use crate::report::Outage;

/// Readings per second.
const RATE: f64 = 20_000.0;
/// Readings per request.
const BATCH: usize = 100;
/// Connections.
const CONNECTIONS: usize = 64;
/// Length of the load in seconds. The broker is disconnected for the second third of it.
const SECONDS: u64 = 12;
/// Length of the outage.
const OUTAGE: Duration = Duration::from_secs(SECONDS / 3);
/// Time limit for storing the accepted readings.
const STORE_LIMIT: Duration = Duration::from_secs(60);
/// Poll interval of the state of the front end.
const POLL: Duration = Duration::from_millis(20);

/// Sends readings at a fixed rate while the broker disconnects and returns.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Outage> {
    println!(
        "outage: {RATE} readings/s for {SECONDS} s, the broker unavailable for {OUTAGE:?} of them"
    );
    let (postgres, rabbitmq) = (Postgres::start()?, RabbitMq::start(1)?);
    let url = postgres.url("postgres");
    migrate(program, &url)?;
    let proxy = FaultyProxy::start(rabbitmq.address()).await?;
    let directory = tempfile::tempdir()?;
    let (listen, mut ingest, mut worker) =
        start_pipeline(program, &url, &rabbitmq, &proxy, directory.path())?;
    register_series(&listen).await?;

    let load = tokio::spawn(send_at_fixed_rate(listen));
    tokio::time::sleep(OUTAGE).await;
    proxy.set(Condition::Disconnected);
    tokio::time::sleep(OUTAGE).await;
    proxy.set(Condition::HEALTHY);
    let returned = Instant::now();
    // The state and the metric are updated once per second.
    while !ingest.admin("/readyz")?.contains("\"state\":\"ready\"")
        || ingest.metric("gridwatch_spool_readings") > 0.0
    {
        tokio::time::sleep(POLL).await;
    }
    let drain_seconds = returned.elapsed().as_secs_f64();
    let sent = load.await??;
    let stored = count_stored(&url, sent.counts.accepted).await?;
    let spooled = ingest.metric("gridwatch_spooled_readings_total");
    ingest.terminate()?;
    worker.terminate()?;
    Ok(Outage {
        readings_per_second: RATE,
        seconds: OUTAGE.as_secs_f64(),
        accepted: sent.counts.accepted,
        refused: refused_requests(&sent)? * BATCH as u64,
        stored,
        p99_ms: sent.latency_ms.p99,
        worst_ms: sent.latency_ms.max,
        spooled,
        drain_seconds,
    })
}

/// Starts a front end with a spool behind the proxy, and a worker with its own connection to the
/// broker. Returns the address of the front end and the two processes.
fn start_pipeline(
    program: &Path,
    database_url: &str,
    rabbitmq: &RabbitMq,
    proxy: &FaultyProxy,
    directory: &Path,
) -> anyhow::Result<(String, Process, Process)> {
    let amqp_url = rabbitmq.url(&rabbitmq.vhost()?);
    let proxy_url = amqp_url.replace(&rabbitmq.address(), &proxy.address().to_string());
    let (listen, admin, worker_admin) = (free_address()?, free_address()?, free_address()?);
    let spool = directory.join("spool");
    let ingest = [
        "ingest-api",
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--amqp-url",
        &proxy_url,
        "--database-url",
        database_url,
        "--unknown-devices",
        "register",
        "--spool",
        spool.to_str().context("the path is not valid UTF-8")?,
    ];
    let worker = [
        "worker",
        "--admin",
        &worker_admin,
        "--amqp-url",
        &amqp_url,
        "--database-url",
        database_url,
    ];
    let mut ingest = Process::start(program, &ingest, &admin, directory)?;
    let mut worker = Process::start(program, &worker, &worker_admin, directory)?;
    ingest.wait_ready();
    worker.wait_ready();
    Ok((listen, ingest, worker))
}

/// Sends a reading of each series, so that the measurement does not include their registration.
async fn register_series(listen: &str) -> anyhow::Result<()> {
    let traffic = FleetTraffic {
        // After all readings of the measurement, on the same day.
        begin: BEGIN + 12 * 3_600_000_000,
        rate: MEASURING_RATE,
        readings: SERIES,
        batch: 1_000,
        connections: 4,
    };
    send_all(listen, traffic.traffic()?).await?;
    Ok(())
}

async fn send_at_fixed_rate(listen: String) -> anyhow::Result<Sent> {
    let traffic = FleetTraffic {
        begin: BEGIN,
        rate: RATE,
        readings: RATE as usize * SECONDS as usize,
        batch: BATCH,
        connections: CONNECTIONS,
    };
    let generator = generator(&listen, traffic.traffic()?, Pacing::Scenario)?;
    let sent = generator.send(CancellationToken::new(), |_| {}).await?;
    let dropped = sent.counts.dropped;
    ensure!(
        dropped == 0,
        "{dropped} requests were not sent because they were 10 s late"
    );
    Ok(sent)
}

/// Waits until this many readings are stored, besides those of the registration. Returns the number
/// of rows, which is lower if the time limit is reached.
async fn count_stored(url: &str, accepted: u64) -> anyhow::Result<i64> {
    let database = connect(url).await?;
    let deadline = Instant::now() + STORE_LIMIT;
    loop {
        let count = "SELECT count(*) FROM reading";
        let rows: i64 = database.query_one(count, &[]).await?.get(0);
        let stored = rows - SERIES as i64;
        if stored >= accepted as i64 || Instant::now() > deadline {
            return Ok(stored);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

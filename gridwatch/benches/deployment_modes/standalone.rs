//! Standalone: readings per second into the embedded database, and the time of a start.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use testbed::process::Process;

use crate::common::free_address;
use crate::common::load::{BEGIN, FleetTraffic, MEASURING_RATE, send_all};
use crate::report::Standalone;

/// Readings per request.
const BATCH: usize = 1_000;
/// Connections.
const CONNECTIONS: usize = 16;
/// Interval at which the counter of stored readings is polled.
const POLL: Duration = Duration::from_millis(20);

/// Measures from the first send to the last row.
pub(crate) async fn measure(program: &Path, readings: usize) -> anyhow::Result<Standalone> {
    let directory = tempfile::tempdir()?;
    let (listen, admin) = (free_address()?, free_address()?);
    let data = directory.path().join("data");
    let data = data.to_str().context("the path is not valid UTF-8")?;
    let arguments = [
        "standalone",
        "--data",
        data,
        "--listen",
        &listen,
        "--admin",
        &admin,
    ];
    let start = || {
        let started = Instant::now();
        let mut process = Process::start(program, &arguments, &admin, directory.path())?;
        process.wait_ready();
        anyhow::Ok((process, started.elapsed().as_secs_f64() * 1e3))
    };
    let (mut process, first_start_ms) = start()?;
    println!("standalone: {readings} readings in requests of {BATCH}");
    let traffic = FleetTraffic {
        begin: BEGIN,
        rate: MEASURING_RATE,
        readings,
        batch: BATCH,
        connections: CONNECTIONS,
    };
    let traffic = traffic.traffic()?.render_all();
    let started = Instant::now();
    let sent = send_all(&listen, traffic).await?;
    let accepted = sent.counts.accepted as f64;
    while process.metric("gridwatch_readings_persisted_total") < accepted {
        tokio::time::sleep(POLL).await;
    }
    let readings_per_second = accepted / started.elapsed().as_secs_f64();
    process.terminate()?;
    let (mut process, start_ms) = start()?;
    process.terminate()?;
    Ok(Standalone {
        readings_per_second,
        accepted_per_second: sent.accepted_per_second(),
        first_start_ms,
        start_ms,
        binary_mb: std::fs::metadata(program)?.len() as f64 / 1e6,
    })
}

//! Long responses: the memory of the process, and what they cost the ingest path of an embedded
//! database.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use schema::clock;
use serde_json::{Value, json};
use testbed::process::Process;
use testbed::usage;
use tokio_util::sync::CancellationToken;

use crate::Arguments;
use crate::client::Client;
use crate::common::free_address;
use crate::dataset::Dataset;
use crate::report::{Figure, Goal};

/// Interval at which memory is measured.
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);
/// Readings of a request that loads.
const BATCH: i64 = 1_000;
/// Microseconds between two of them.
const SPACING: i64 = 100;
/// Pause between two readings whose clocks are looked up.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// The longest time without an export that is measured.
const QUIET: Duration = Duration::from_secs(5);

/// Peak of the resident memory above that of the idle process, while many readings are exported.
pub(crate) async fn memory(
    dataset: &Dataset,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Figure>> {
    let rows = arguments.export_rows;
    println!("export: {rows} rows");
    let [day, end] = &dataset.open;
    // The day has not ended, so that no roll-ups of it are built meanwhile.
    let load = format!(
        "INSERT INTO reading (series_id, measured_at, value)
         SELECT s.id, timestamptz '{day} 00:00Z' + n * interval '1 millisecond', n % 1000 * 0.25
         FROM series s JOIN device d ON d.id = s.device_id, generate_series(0, {rows} - 1) n
         WHERE d.external_id = 'export'"
    );
    dataset.database.batch_execute(&load).await?;
    let idle = usage::memory_mib(dataset.api.pid());
    let mut figures = Vec::new();
    for format in ["csv", "json", "arrow"] {
        let path =
            format!("/v1/readings?device=export&metric=power&from={day}&to={end}&format={format}");
        let mut client = Client::connect(&dataset.address).await?;
        let stop = CancellationToken::new();
        let (time, peak) = tokio::join!(
            async {
                let time = client.time(&path).await;
                stop.cancel();
                time
            },
            async {
                let mut peak = 0.0_f64;
                while !stop.is_cancelled() {
                    peak = peak.max(usage::memory_mib(dataset.api.pid()));
                    tokio::time::sleep(MEMORY_INTERVAL).await;
                }
                peak
            }
        );
        let (time, length) = time?;
        println!(
            "  {format}: {length} bytes in {:.1} s, memory {idle:.0} MiB, then {peak:.0} MiB",
            time / 1e3
        );
        figures.push(Figure::of(
            format!("memory above idle, {rows} rows as {format}"),
            "MiB",
            Goal::AtMost(128.0),
            peak - idle,
        ));
        let rate = rows as f64 / time * 1e3;
        let name = format!("rows exported as {format}");
        figures.push(Figure::of(name, "1/s", Goal::None, rate));
    }
    Ok(figures)
}

/// How long readings wait for the embedded database, while nothing else happens and while many rows
/// are exported.
pub(crate) async fn embedded(program: &Path, arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let rows = arguments.embedded_rows;
    println!("embedded: {rows} rows");
    let directory = tempfile::tempdir()?;
    let (listen, admin) = (free_address()?, free_address()?);
    let data = directory.path().join("data");
    let data = data.to_str().context("the path is not valid UTF-8")?;
    let command = [
        "standalone",
        "--data",
        data,
        "--listen",
        &listen,
        "--admin",
        &admin,
    ];
    let mut process = Process::start(program, &command, &admin, directory.path())?;
    process.wait_ready();
    let begin = clock::now() - rows * SPACING - 1_000_000;
    let mut client = Client::connect(&listen).await?;
    for first in (0..rows).step_by(usize::try_from(BATCH)?) {
        let readings: Vec<Value> = (first..rows.min(first + BATCH))
            .map(|n| {
                json!({"device": "export", "metric": "power", "value": (n % 1000) as f64 * 0.25,
                       "measured_at": begin + n * SPACING})
            })
            .collect();
        let body = serde_json::to_vec(&readings)?.into();
        client.post("/v1/readings?precision=us", body).await?;
    }
    while process.metric("gridwatch_readings_persisted_total") < rows as f64 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (quiet, _) = probe(&listen, tokio::time::sleep(QUIET)).await?;
    let (from, to) = (begin / 1_000 - 1, clock::now() / 1_000 + 1_000);
    let path = format!("/v1/readings?device=export&metric=power&from={from}&to={to}&format=csv");
    let mut exported = Ok((0.0, 0));
    let export = async {
        exported = client.time(&path).await;
    };
    let (busy, probes) = probe(&listen, export).await?;
    let (time, length) = exported?;
    println!(
        "  {rows} rows, {length} bytes in {:.1} s; {probes} readings meanwhile, from worker to \
         commit at most {busy:.0} ms, without export {quiet:.0} ms",
        time / 1e3
    );
    process.terminate()?;
    let name = format!("longest wait of ingest, embedded, {rows} rows exported");
    let mut held = Figure::new(name, "ms", Goal::AtMost(100.0));
    held.add_round(quiet, busy);
    Ok(vec![held])
}

/// Sends single readings while something happens. Returns the longest time from the worker to the
/// commit in milliseconds, as the ledger knows it, and the number of readings.
async fn probe(listen: &str, meanwhile: impl Future<Output = ()>) -> anyhow::Result<(f64, usize)> {
    let stop = CancellationToken::new();
    let begun = clock::now();
    let probes = async {
        let mut client = Client::connect(listen).await?;
        let mut probes = 0;
        while !stop.is_cancelled() {
            let reading = json!([{"device": "probe", "metric": "power", "value": 1,
                                  "measured_at": clock::now()}]);
            let body = serde_json::to_vec(&reading)?.into();
            client.post("/v1/readings?precision=us", body).await?;
            probes += 1;
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        anyhow::Ok(probes)
    };
    let (probes, ()) = tokio::join!(probes, async {
        meanwhile.await;
        stop.cancel();
    });
    let probes = probes?;
    ensure!(probes > 0, "no reading was sent");
    let mut client = Client::connect(listen).await?;
    let started = Instant::now();
    let mut longest = 0.0_f64;
    let (from, to) = (begun / 1_000, clock::now() / 1_000 + 1);
    let path = format!("/v1/readings?device=probe&metric=power&from={from}&to={to}");
    // The last reading may not be stored yet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stored: Value = serde_json::from_slice(&client.get(&path).await?)?;
    let points = stored["series"][0]["points"].as_array();
    let points = points.context("no reading is stored")?.clone();
    for point in &points {
        let time = point["time"].as_str().unwrap_or_default();
        let path = format!("/v1/readings/history?device=probe&metric=power&time={time}");
        let history: Value = serde_json::from_slice(&client.get(&path).await?)?;
        let entries = history["batches"]["entries"].as_array();
        for batch in entries.into_iter().flatten() {
            let clock = |name: &str| -> anyhow::Result<i64> {
                let time: jiff::Timestamp = batch[name].as_str().unwrap_or_default().parse()?;
                Ok(time.as_microsecond())
            };
            let waited = clock("persisted_at")? - clock("dequeued_at")?;
            longest = longest.max(waited as f64 / 1e3);
        }
        // Histories of many readings would take longer than the measurement.
        if started.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    Ok((longest, probes))
}

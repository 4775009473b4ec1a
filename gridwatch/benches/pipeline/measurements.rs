//! Measurements of Gridwatch: end to end, with single readings, and under overload.

use std::time::{Duration, Instant};

use anyhow::ensure;
use loadtest::generator::{Generator, Pacing, Sent};
use loadtest::statistics::median;
use loadtest::traffic::Traffic;
use testbed::usage;
use tokio_util::sync::CancellationToken;

use crate::BATCH;
use crate::common::load::{
    BEGIN, FleetTraffic, MEASURING_RATE, generator, refused_requests, send_all,
};
use crate::report::Overload;
use crate::servers::{Cpu, Pipeline, Servers};

/// A rate that no pipeline reaches with requests of one reading.
const MAX_SINGLE_READINGS: usize = 1_000_000;
/// Connections under overload.
const OVERLOAD_CONNECTIONS: usize = 64;
/// Interval at which memory is measured.
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);

/// Sends until the duration has passed. Requests in flight are completed.
async fn send_for(generator: Generator, duration: Duration) -> anyhow::Result<Sent> {
    let stop = CancellationToken::new();
    let timer = async {
        tokio::time::sleep(duration).await;
        stop.cancel();
    };
    let (sent, ()) = tokio::join!(generator.send(stop.clone(), |_| {}), timer);
    sent
}

/// Sends requests of one reading for a while, each connection the next one on the response to the
/// previous one.
///
/// A scenario in mode `closed` would do the same, but needs 40,000 series: the times of its
/// readings advance faster.
pub(crate) async fn send_single_readings(
    listen: &str,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Sent> {
    let traffic = FleetTraffic {
        begin: BEGIN,
        rate: MEASURING_RATE,
        readings: (duration.as_secs() as usize + 1) * MAX_SINGLE_READINGS,
        batch: 1,
        connections,
    };
    let generator = generator(listen, traffic.traffic()?, Pacing::AsFastAsPossible)?;
    send_for(generator, duration).await?.ensure_all_accepted()
}

impl Servers {
    /// Readings per second from the first send to the last commit, and CPU time per million
    /// readings.
    pub(crate) async fn measure_end_to_end(
        &self,
        round: usize,
        traffic: &Traffic,
    ) -> anyhow::Result<(f64, Cpu)> {
        let name = format!("pipeline{round}");
        let mut pipeline = self.start_pipeline(&name).await?;
        let before = self.cpu(&pipeline);
        let started = Instant::now();
        let sent = send_all(&pipeline.listen, traffic.clone()).await?;
        let readings = sent.counts.accepted;
        pipeline.wait_stored(readings).await?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = self.cpu(&pipeline).since(before, 1e6 / readings as f64);
        println!(
            "  accepted in {:.1} s, stored in {seconds:.1} s",
            sent.seconds
        );
        let count = "SELECT count(*) FROM reading";
        let rows: i64 = pipeline.database.query_one(count, &[]).await?.get(0);
        ensure!(
            rows as u64 == readings && readings == traffic.requests() * BATCH as u64,
            "{rows} rows are stored of {readings} accepted readings"
        );
        pipeline.stop()?;
        self.drop_database(&name).await?;
        Ok((readings as f64 / seconds, cpu))
    }

    /// Sends requests of one reading to a new pipeline. Without `is_stored`, the worker is stopped
    /// meanwhile, and the queue grows.
    pub(crate) async fn measure_single_readings(
        &self,
        name: &str,
        connections: usize,
        duration: Duration,
        is_stored: bool,
    ) -> anyhow::Result<Sent> {
        let mut pipeline = self.start_pipeline(name).await?;
        if !is_stored {
            pipeline.worker.signal("STOP")?;
        }
        let before = self.cpu(&pipeline);
        let own_before = usage::of_process(std::process::id());
        let sent = send_single_readings(&pipeline.listen, connections, duration).await?;
        let per_second = 1.0 / duration.as_secs_f64();
        let cores = self.cpu(&pipeline).since(before, per_second);
        let own_cores = (usage::of_process(std::process::id()) - own_before) * per_second;
        pipeline.worker.signal("CONT")?;
        println!(
            "  cores in use: load generator {own_cores:.2}, front end {:.2}, broker {:.2}, \
             worker {:.2}, PostgreSQL {:.2}",
            cores.front_end, cores.broker, cores.worker, cores.postgresql
        );
        print_messages(&pipeline, &sent, is_stored);
        pipeline.wait_stored(sent.counts.accepted).await?;
        pipeline.stop()?;
        self.drop_database(name).await?;
        Ok(sent)
    }

    /// Sends readings at a rate that is too high, and measures the memory of the front end and the
    /// worker.
    pub(crate) async fn measure_overload(
        &self,
        rate: f64,
        duration: Duration,
    ) -> anyhow::Result<Overload> {
        let mut pipeline = self.start_pipeline("overload").await?;
        let traffic = FleetTraffic {
            begin: BEGIN,
            rate,
            readings: (rate * duration.as_secs_f64()) as usize,
            batch: BATCH,
            connections: OVERLOAD_CONNECTIONS,
        };
        let generator = generator(&pipeline.listen, traffic.traffic()?, Pacing::Scenario)?;
        let (sent, (front_end, worker)) = tokio::join!(
            send_for(generator, duration),
            sample_memory(&pipeline, duration)
        );
        let sent = sent?;
        pipeline.stop()?;
        Ok(Overload {
            seconds: duration.as_secs(),
            offered_per_second: rate,
            accepted: sent.counts.accepted,
            refused: refused_requests(&sent)? * BATCH as u64,
            front_end_peak_mib: peak(&front_end),
            worker_peak_mib: peak(&worker),
            front_end_growth_mib: growth(&front_end),
            worker_growth_mib: growth(&worker),
        })
    }
}

fn print_messages(pipeline: &Pipeline, sent: &Sent, is_stored: bool) {
    let metric = |name| pipeline.ingest.metric(name);
    let messages = metric("gridwatch_sink_batches_total");
    let confirm_seconds = metric("gridwatch_sink_confirm_seconds_sum");
    println!(
        "  {} a worker: {:.0} requests/s, p50 {:.1} ms; {:.0} readings per message, confirmed \
         after {:.2} ms on average",
        if is_stored { "with" } else { "without" },
        sent.accepted_per_second(),
        sent.latency_ms.p50,
        sent.counts.accepted as f64 / messages,
        confirm_seconds / messages * 1e3
    );
}

/// Resident memory of the front end and of the worker in MiB, at regular intervals.
async fn sample_memory(pipeline: &Pipeline, duration: Duration) -> (Vec<f64>, Vec<f64>) {
    let (mut front_end, mut worker) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed() < duration {
        front_end.push(usage::memory_mib(pipeline.ingest.pid()));
        worker.push(usage::memory_mib(pipeline.worker.pid()));
        tokio::time::sleep(MEMORY_INTERVAL).await;
    }
    (front_end, worker)
}

fn peak(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(0.0, f64::max)
}

/// The median of the last third minus the median of the middle third.
fn growth(samples: &[f64]) -> f64 {
    let third = samples.len() / 3;
    median(&samples[2 * third..]) - median(&samples[third..2 * third])
}

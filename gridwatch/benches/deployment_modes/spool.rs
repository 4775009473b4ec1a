//! The spool, compared with a loop that writes and syncs groups of the same size.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loadtest::statistics::median;
use transport::spool::{self, record};

use crate::report::Appends;

/// Concurrent appends, like the connections of the benchmark with single readings.
const CONCURRENT_APPENDS: usize = 64;
/// Goal of the ratio.
const GOAL: f64 = 0.8;

/// Measures the spool and its limit in turns.
pub(crate) async fn measure(
    rounds: usize,
    duration: Duration,
    payload: usize,
) -> anyhow::Result<Appends> {
    let (mut limits, mut rates, mut groups, mut ratios) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let directory = tempfile::tempdir()?;
        let (rate, group) = append(directory.path(), payload, duration).await?;
        let bytes = (payload + record::HEADER) * group.round() as usize;
        let limit = write_and_sync(directory.path(), bytes, duration)? * group;
        println!(
            "  spool, {payload} bytes: limit {limit:.0} appends/s, spool {rate:.0}, \
             {group:.1} per sync, ratio {:.2}",
            rate / limit
        );
        limits.push(limit);
        rates.push(rate);
        groups.push(group);
        ratios.push(rate / limit);
    }
    let spool_per_second = median(&rates);
    Ok(Appends {
        payload_bytes: payload,
        group: median(&groups),
        limit_per_second: median(&limits),
        spool_per_second,
        spool_mb_per_second: spool_per_second * payload as f64 / 1e6,
        ratio: median(&ratios),
        goal: GOAL,
    })
}

/// Appends per second, and the mean number of appends per sync.
async fn append(
    directory: &Path,
    payload: usize,
    duration: Duration,
) -> anyhow::Result<(f64, f64)> {
    let config = spool::Config {
        directory: directory.join("spool"),
        max_bytes: u64::MAX,
        segment_bytes: 16 * 1024 * 1024,
    };
    let (spool, _source, guard) = spool::open(config, 1)?;
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONCURRENT_APPENDS {
        let (spool, payload) = (spool.clone(), Bytes::from(vec![7; payload]));
        tasks.spawn(async move {
            let mut count = 0_u64;
            while started.elapsed() < duration {
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
    let seconds = started.elapsed().as_secs_f64();
    let syncs = spool.syncs();
    guard.close();
    Ok((count as f64 / seconds, count as f64 / syncs as f64))
}

/// Groups per second of a loop that writes and syncs.
fn write_and_sync(directory: &Path, bytes: usize, duration: Duration) -> anyhow::Result<f64> {
    let mut file = File::create(directory.join("limit"))?;
    let group = vec![7; bytes];
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < duration {
        file.write_all(&group)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

//! Reports the depth of the spool as metrics, and whether it accepts batches as its health.

use std::time::Duration;

use schema::{clock, metric};
use service::health::ComponentHealth;
use tokio_util::sync::CancellationToken;

use super::Spool;

/// Time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Weight of the last interval in the moving average of the drain rate.
const RATE_WEIGHT: f64 = 0.3;

/// Reports the depth and the health of the spool every second, until `stop`.
pub async fn monitor(spool: Spool, health: ComponentHealth, stop: CancellationToken) {
    let gauge = |metric: metric::Metric| metrics::gauge!(metric.name);
    // Readings acknowledged per second.
    let mut rate = 0.0;
    let mut acknowledged_before = 0;
    // They exist before the first damage, so that an alert sees it.
    for counter in [metric::SPOOL_DAMAGED, metric::SPOOL_MISSING] {
        metrics::counter!(counter.name).increment(0);
    }
    gauge(metric::SPOOL_MAX_BYTES).set(spool.shared.max_bytes as f64);
    loop {
        let (depth, acknowledged, refusal) = {
            let state = spool.shared.lock();
            (state.depth, state.acknowledged, state.refusal)
        };
        let drained = (acknowledged - acknowledged_before) as f64;
        rate += RATE_WEIGHT * (drained / REPORT_INTERVAL.as_secs_f64() - rate);
        acknowledged_before = acknowledged;
        gauge(metric::SPOOL_READINGS).set(depth.readings as f64);
        gauge(metric::SPOOL_BYTES).set(depth.bytes as f64);
        // The call only reads what the kernel knows. It fails if the disk was unmounted, which the
        // writer reports.
        if let Ok(disk) = rustix::fs::statvfs(&spool.shared.directory) {
            gauge(metric::SPOOL_DISK_FREE).set(disk.f_bavail as f64 * disk.f_frsize as f64);
        }
        let age = depth
            .oldest
            .map_or(0.0, |oldest| (clock::now() - oldest).max(0) as f64 / 1e6);
        gauge(metric::SPOOL_AGE).set(age);
        gauge(metric::SPOOL_TIME_TO_EMPTY).set(match depth.readings {
            0 => 0.0,
            readings if rate >= 1.0 => readings as f64 / rate,
            _ => f64::INFINITY,
        });
        match (spool.shared.failed.is_cancelled(), refusal) {
            (true, _) => health.unready("its disk has failed"),
            (_, Some(reason)) => health.unready(reason),
            _ => health.ready(),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(REPORT_INTERVAL))
            .await
            .is_none()
        {
            return;
        }
    }
}

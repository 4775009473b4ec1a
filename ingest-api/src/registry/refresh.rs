//! Refreshing the registry: every second, what has changed in PostgreSQL.
//!
//! In: the devices that changed since the last refresh. Out: an up-to-date registry. While
//! PostgreSQL is unavailable the registry is stale; the next refresh continues where the last one
//! ended.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use service::health::ComponentHealth;
use service::poll::{Interval, poll};
use store::Pool;
use store::registry::{Position, changes_since};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// How often the registry is refreshed, and when it counts as stale.
const INTERVAL: Interval = Interval {
    pause: Duration::from_secs(1),
    timeout: Duration::from_secs(15),
};

/// Refreshes the registry until `stop`.
pub async fn run(
    registry: Arc<Registry>,
    pool: Pool,
    health: ComponentHealth,
    stop: CancellationToken,
) {
    let refresh = |position: Option<&Position>| {
        let (registry, pool) = (registry.clone(), pool.clone());
        let position = position.cloned().unwrap_or_default();
        async move { changes_since(&pool, &position, |devices| registry.update(devices)).await }
    };
    let report = |result: Result<&Position, String>| {
        registry.set_reachable(result.is_ok());
        match result {
            Ok(_) => health.ready(),
            Err(reason) => health.unready(reason),
        }
    };
    poll(INTERVAL, stop, refresh, report).await;
}

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
use store::Pool;
use store::registry::{Position, changes_since};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// Pause between two refreshes.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a refresh may take before the registry counts as stale.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Refreshes the registry until `stop`.
pub async fn run(
    registry: Arc<Registry>,
    pool: Pool,
    health: ComponentHealth,
    stop: CancellationToken,
) {
    let mut position = Position::default();
    let mut refreshing = None;
    while !stop.is_cancelled() {
        // One task at a time, which is not cancelled: a cancelled query goes on at the server.
        let task = refreshing.get_or_insert_with(|| {
            let (registry, pool, position) = (registry.clone(), pool.clone(), position.clone());
            tokio::spawn(async move {
                changes_since(&pool, &position, |devices| registry.update(devices)).await
            })
        });
        let refreshed = tokio::time::timeout(TIMEOUT, task);
        let Some(refreshed) = stop.run_until_cancelled(refreshed).await else {
            break;
        };
        let result = match refreshed {
            Err(_) => Err(format!("no response within {} s", TIMEOUT.as_secs())),
            Ok(joined) => {
                refreshing = None;
                joined.unwrap_or_else(|panic| Err(panic.to_string()))
            }
        };
        match result {
            Ok(next) => {
                position = next;
                registry.set_reachable(true);
                health.ready();
            }
            Err(reason) => {
                registry.set_reachable(false);
                health.unready(reason);
            }
        }
        let pause = tokio::time::sleep(INTERVAL);
        stop.run_until_cancelled(pause).await;
    }
    if let Some(task) = refreshing {
        // It may be waiting for a database that does not respond; nothing is lost with it.
        task.abort();
        let _ = task.await;
    }
}

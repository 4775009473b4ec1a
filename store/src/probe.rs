//! Whether PostgreSQL responds, as a state of health.

use std::time::Duration;

use service::health::ComponentHealth;
use service::poll::{Interval, poll};
use tokio_util::sync::CancellationToken;

use crate::{Pool, is_reachable};

/// How often PostgreSQL is asked, and after which time it counts as unavailable.
pub const PROBE: Interval = Interval {
    pause: Duration::from_secs(1),
    timeout: Duration::from_secs(15),
};

/// Reports every second whether PostgreSQL responds, until `stop`.
pub async fn run(pool: Pool, database: ComponentHealth, stop: CancellationToken) {
    let query = |_: Option<&()>| {
        let pool = pool.clone();
        async move { is_reachable(&pool).await }
    };
    let report = |result: Result<&(), String>| match result {
        Ok(()) => database.ready(),
        Err(reason) => database.unready(reason),
    };
    poll(PROBE, stop, query, report).await;
}

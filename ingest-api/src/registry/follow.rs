//! Following PostgreSQL: every second, what has changed in `device` and `series`.
//!
//! In: rows whose `changed_in` is not before the oldest transaction that was running at the last look. That may read a
//! row twice and never misses one, whatever the order of commits. Out: the registry, kept fresh. PostgreSQL away: the
//! registry is marked stale, and the next look goes on from where the last one was.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use futures_util::TryStreamExt as _;
use service::health::Part;
use service::postgres::words;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Device, Registry};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a look may take before the registry counts as stale.
const PATIENCE: Duration = Duration::from_secs(15);
/// Devices taken over at once: requests wait for the registry meanwhile.
const CHUNK: usize = 1_000;

const CHANGED: &str = "
    SELECT d.id, d.external_id, d.active,
           array_remove(array_agg(s.metric ORDER BY s.id), NULL),
           array_remove(array_agg(s.id ORDER BY s.id), NULL)
    FROM device d LEFT JOIN series s ON s.device_id = d.id
    WHERE d.id IN (SELECT id FROM device WHERE changed_in >= $1::text::xid8
                   UNION SELECT device_id FROM series WHERE changed_in >= $1::text::xid8)
    GROUP BY d.id";

/// Follows until `stop`.
pub async fn run(registry: Arc<Registry>, pool: Pool, health: Part, stop: CancellationToken) {
    let mut since = "0".to_owned();
    let mut looking = None;
    while !stop.is_cancelled() {
        // A task, and never two: a query that is given up in the middle goes on at the server.
        let task = looking.get_or_insert_with(|| {
            tokio::spawn(look(registry.clone(), pool.clone(), since.clone()))
        });
        let Some(looked) = stop
            .run_until_cancelled(tokio::time::timeout(PATIENCE, task))
            .await
        else {
            return;
        };
        let result = match looked {
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(joined) => {
                looking = None;
                joined.unwrap_or_else(|panic| Err(panic.to_string()))
            }
        };
        match result {
            Ok(horizon) => {
                since = horizon;
                registry.mark(true);
                health.ready();
            }
            Err(reason) => {
                registry.mark(false);
                health.unready(reason);
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
    }
}

/// Takes over what changed since, and returns from where to look the next time.
async fn look(registry: Arc<Registry>, pool: Pool, since: String) -> Result<String, String> {
    let client = pool
        .get()
        .await
        .map_err(|error| format!("cannot connect: {}", words(&error)))?;
    let result = changes(&registry, &client, &since).await;
    if result.is_err()
        && !schema::migrations::are_current(&client)
            .await
            .unwrap_or(true)
    {
        return Err("the tables are missing or old: run 'gridwatch migrate'".into());
    }
    result.map_err(|error| words(&error))
}

async fn changes(
    registry: &Registry,
    client: &Client,
    since: &str,
) -> Result<String, tokio_postgres::Error> {
    // Before the rows: a transaction that commits in between is read now and once more the next time.
    let horizon = client
        .query_one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text", &[])
        .await?
        .get(0);
    let rows = client.query_raw(CHANGED, [since]).await?;
    let mut chunks = std::pin::pin!(rows.try_chunks(CHUNK));
    while let Some(rows) = chunks.try_next().await.map_err(|error| error.1)? {
        registry.put(rows.iter().map(device).collect());
    }
    Ok(horizon)
}

/// A row of id, external id, active, metrics, series ids.
pub(super) fn device(row: &tokio_postgres::Row) -> Device {
    let metrics: Vec<String> = row.get(3);
    let ids: Vec<i32> = row.get(4);
    Device {
        id: row.get(0),
        name: row.get(1),
        active: row.get(2),
        series: metrics.into_iter().zip(ids).collect(),
    }
}

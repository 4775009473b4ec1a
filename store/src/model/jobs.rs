//! Jobs: deletions that are too large for one transaction.
//!
//! In: the job that is oldest. Out: a slice of its work, in one transaction that also writes its
//! progress. Whoever runs slices may stop at any time: the next process continues from the last
//! slice. Two processes never work on the same job, because its row is locked.

use std::time::{Duration, Instant};

use deadpool_postgres::Transaction;
use serde_json::Value;
use uuid::Uuid;

use super::remove::{Counts, add_counts, column, remove_components, remove_devices};
use super::{WriteError, component, parse, readings};
use crate::Pool;
use crate::reads::{ReadError, connection};

/// Rows of components or devices of a slice.
const ROWS: i64 = 200;
/// Readings of a slice.
const READINGS: i64 = 5_000;
/// Series whose readings one statement deletes.
const SERIES: i64 = 200;
/// After this time a slice ends. The embedded database has one connection.
const SLICE_TIME: Duration = Duration::from_millis(20);

const NEXT: &str = "
    SELECT id, component, actor, position, action FROM job WHERE state = 'running'
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";

const DOCUMENT: &str = "
    SELECT json_build_object(
        'id', id, 'action', action, 'state', state, 'actor', actor, 'error', error,
        'deleted', json_build_object('components', components, 'devices', devices,
                                     'series', series, 'readings', readings),
        'progress', CASE WHEN state = 'done' THEN 1 ELSE (
            SELECT (count(*) FILTER (WHERE relid::regclass::text COLLATE \"C\"
                                           < split_part(job.position, ' ', 1)))::float8
                   / greatest(count(*), 1)
            FROM pg_partition_tree('reading') WHERE isleaf) END,
        'created_at', gridwatch_time(created_at), 'updated_at', gridwatch_time(updated_at),
        'finished_at', gridwatch_time(finished_at))::text
    FROM job WHERE id = $1";

/// A job and its progress.
///
/// # Errors
/// [`ReadError`].
pub async fn get(pool: &Pool, id: Uuid) -> Result<Option<Value>, ReadError> {
    let client = connection(pool).await?;
    let row = client.query_opt(DOCUMENT, &[&id]).await?;
    row.map(|row| parse(row.get(0))).transpose()
}

/// Works on a job for a moment. Returns whether there was one.
///
/// # Errors
/// [`ReadError`]; the slice changed nothing. A job whose slice would fail again is marked as
/// failed.
pub async fn run_slice(pool: &Pool) -> Result<bool, ReadError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    let Some(row) = transaction.query_opt(NEXT, &[]).await? else {
        return Ok(false);
    };
    let (job, component): (Uuid, Option<Uuid>) = (row.get(0), row.get(1));
    let (actor, position): (String, String) = (row.get(2), row.get(3));
    let worked = match component {
        None if row.get::<_, &str>(4) == readings::ACTION => {
            readings::run_slice(&transaction, job, &position).await
        }
        Some(root) => delete_rows(&transaction, job, root, &actor).await,
        None => delete_readings(&transaction, job, &position).await,
    };
    match worked {
        Ok(()) => {
            transaction.commit().await?;
            Ok(true)
        }
        Err(WriteError::Read(error @ (ReadError::Unavailable(_) | ReadError::Timeout))) => {
            Err(error)
        }
        Err(error) => {
            transaction.rollback().await?;
            let sql = "UPDATE job SET state = 'failed', updated_at = now(), finished_at = now(),
                           error = 'the server failed; its log has the cause'
                       WHERE id = $1";
            client.execute(sql, &[&job]).await?;
            Err(ReadError::Failed(format!("job {job}: {error}")))
        }
    }
}

/// Deletes some devices of a subtree, or, when there are none, some components without children.
async fn delete_rows(
    transaction: &Transaction<'_>,
    job: Uuid,
    root: Uuid,
    actor: &str,
) -> Result<(), WriteError> {
    let sql = "SELECT id FROM device
               WHERE component IN (SELECT component FROM gridwatch_subtree($1)) LIMIT $2";
    let devices: Vec<i32> = column(&transaction.query(sql, &[&root, &ROWS]).await?);
    if !devices.is_empty() {
        let counts = remove_devices(transaction, &devices, actor, Some(job)).await?;
        return Ok(add_counts(transaction, job, counts).await?);
    }
    component::lock_tree(transaction).await?;
    let sql = "SELECT id FROM component c
               WHERE id IN (SELECT component FROM gridwatch_subtree($1))
                 AND NOT EXISTS (SELECT FROM component child WHERE child.parent = c.id)
               LIMIT $2 FOR UPDATE";
    let components: Vec<Uuid> = column(&transaction.query(sql, &[&root, &ROWS]).await?);
    if components.is_empty() || components.contains(&root) {
        let sql = "UPDATE job SET component = NULL WHERE id = $1";
        transaction.execute(sql, &[&job]).await?;
    }
    let counts = Counts {
        components: remove_components(transaction, &components, actor).await?,
        ..Counts::default()
    };
    Ok(add_counts(transaction, job, counts).await?)
}

/// Deletes readings of the job's series, partition by partition and, in each, series by series. The
/// position is the name of the partition and the last series that has none left in it.
async fn delete_readings(
    transaction: &Transaction<'_>,
    job: Uuid,
    position: &str,
) -> Result<(), WriteError> {
    let started = Instant::now();
    let sql = "SELECT relid::regclass::text FROM pg_partition_tree('reading')
               WHERE isleaf ORDER BY relid::regclass::text COLLATE \"C\"";
    let partitions: Vec<String> = column(&transaction.query(sql, &[]).await?);
    let (current, last) = position.rsplit_once(' ').unwrap_or(("", "0"));
    let mut rest = partitions
        .iter()
        .filter(|name| name.as_str() >= current)
        .peekable();
    // The partition may have been dropped in the meantime.
    let mut last: i32 = match rest.peek() {
        Some(name) if name.as_str() == current => last.parse().unwrap_or(0),
        _ => 0,
    };
    let mut deleted = 0;
    while deleted < READINGS && started.elapsed() < SLICE_TIME {
        let Some(partition) = rest.peek() else {
            break;
        };
        let sql = "SELECT series_id FROM deleted_series WHERE job = $1 AND series_id > $2
                   ORDER BY series_id LIMIT $3";
        let series: Vec<i32> = column(&transaction.query(sql, &[&job, &last, &SERIES]).await?);
        let Some(&greatest) = series.last() else {
            rest.next();
            last = 0;
            continue;
        };
        let sql = format!(
            "DELETE FROM {partition} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM {partition} WHERE series_id = ANY($1) LIMIT $2))"
        );
        let limit = READINGS - deleted;
        let count = transaction.execute(&sql, &[&series, &limit]).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deleted += count;
        if count < limit {
            last = greatest;
        }
    }
    let counts = Counts {
        readings: deleted,
        ..Counts::default()
    };
    add_counts(transaction, job, counts).await?;
    match rest.peek() {
        Some(partition) => {
            let sql = "UPDATE job SET position = $2 WHERE id = $1";
            let position = format!("{partition} {last}");
            transaction.execute(sql, &[&job, &position]).await?;
        }
        None => {
            let sql = "UPDATE job SET state = 'done', finished_at = now() WHERE id = $1";
            transaction.execute(sql, &[&job]).await?;
        }
    }
    Ok(())
}

//! Jobs: deletions that are too large for one transaction.
//!
//! In: the job that has waited longest. Out: a slice of its work, in one transaction that also
//! writes its progress. Jobs take turns. A process that runs slices may stop at any time: the next
//! process continues from the last slice. Two processes never work on the same job, because its row
//! is locked. A job whose slice fails is retried later, and the others go on.

use std::time::{Duration, Instant};

use deadpool_postgres::Transaction;
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::remove::{Counts, add_counts, column, lock_devices, remove_components, remove_devices};
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
    SELECT id, component, actor, position, action, cut::text::bigint, waits_for = '{}'
    FROM job WHERE state = 'running' AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED";

/// The first time, remembers which transactions of workers are in flight. Later, forgets those that
/// are over. Returns whether none is left.
///
/// A worker finds out which series are deleted in the statement that writes to the ledger. It has
/// the lock of the table `batch` from before that statement until the end of its transaction.
const WAIT: &str = "
    WITH storing (ids) AS (
        SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}') FROM pg_locks
        WHERE relation = 'batch'::regclass AND mode = 'RowExclusiveLock' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND pid IS DISTINCT FROM pg_backend_pid())
    UPDATE job SET waits_for = ARRAY(
        SELECT unnest(ids) FROM storing
        INTERSECT SELECT unnest(coalesce(waits_for, ids)) FROM storing)
    WHERE id = $1 RETURNING waits_for = '{}'";

/// How long a job is left alone while it waits for workers.
const LATER: &str = "
    UPDATE job SET due_at = clock_timestamp() + interval '100 milliseconds' WHERE id = $1";

/// After a failure a job pauses for 2 seconds, and twice as long after each further one, up to 64.
const RETRY_LATER: &str = "
    UPDATE job SET failures = failures + 1, updated_at = now(),
        due_at = clock_timestamp() + interval '1 second' * 2 ^ least(failures + 1, 6),
        error = 'the last step failed and is retried; the log of the server has the cause'
    WHERE id = $1";

const FAIL: &str = "
    UPDATE job SET state = 'failed', updated_at = now(), finished_at = now(),
                   error = 'the server failed; its log has the cause'
    WHERE id = $1";

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
/// [`ReadError`]; the slice changed nothing. A job whose slice may succeed later is retried after a
/// pause, and one whose slice would fail again is marked as failed.
pub async fn run_slice(pool: &Pool) -> Result<bool, ReadError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    let Some(row) = transaction.query_opt(NEXT, &[]).await? else {
        return Ok(false);
    };
    let job: Uuid = row.get(0);
    match work(&transaction, &row).await {
        Ok(()) => {
            transaction.commit().await?;
            Ok(true)
        }
        Err(error) => {
            transaction.rollback().await?;
            let (sql, error) = match error {
                WriteError::Read(error @ (ReadError::Unavailable(_) | ReadError::Timeout)) => {
                    (RETRY_LATER, error)
                }
                error => (FAIL, ReadError::Failed(format!("job {job}: {error}"))),
            };
            client.execute(sql, &[&job]).await?;
            Err(error)
        }
    }
}

/// Does a slice of a row of [`NEXT`].
async fn work(transaction: &Transaction<'_>, row: &Row) -> Result<(), WriteError> {
    let (job, component): (Uuid, Option<Uuid>) = (row.get(0), row.get(1));
    let (actor, position): (&str, &str) = (row.get(2), row.get(3));
    if let Some(root) = component {
        return delete_rows(transaction, job, root, actor).await;
    }
    if row.get::<_, &str>(4) == readings::ACTION {
        return readings::run_slice(transaction, job, position, row.get(5)).await;
    }
    // The rows of the series are gone, so that workers that begin now see it.
    let waited = row.get::<_, Option<bool>>(6) == Some(true);
    if waited || transaction.query_one(WAIT, &[&job]).await?.get(0) {
        return delete_readings(transaction, job, position).await;
    }
    transaction.execute(LATER, &[&job]).await?;
    Ok(())
}

/// Deletes some devices of a subtree, or, when there are none, some components without children.
async fn delete_rows(
    transaction: &Transaction<'_>,
    job: Uuid,
    root: Uuid,
    actor: &str,
) -> Result<(), WriteError> {
    component::lock_tree(transaction).await?;
    let sql = "SELECT id FROM device
               WHERE component IN (SELECT component FROM gridwatch_subtree($1)) LIMIT $2";
    let devices: Vec<i32> = column(&transaction.query(sql, &[&root, &ROWS]).await?);
    if !devices.is_empty() {
        // A device may have been moved until its row was locked.
        lock_devices(transaction, &devices).await?;
        let sql = "SELECT id FROM device
                   WHERE id = ANY($2)
                     AND component IN (SELECT component FROM gridwatch_subtree($1))";
        let devices: Vec<i32> = column(&transaction.query(sql, &[&root, &devices]).await?);
        let counts = remove_devices(transaction, &devices, actor, Some(job)).await?;
        return Ok(add_counts(transaction, job, counts).await?);
    }
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
    let sql = "SELECT relid::regclass::text FROM pg_partition_tree('reading')
               WHERE isleaf ORDER BY relid::regclass::text COLLATE \"C\"";
    let mut partitions: Vec<String> = column(&transaction.query(sql, &[]).await?);
    // A partition that was dropped during the query has no name, but a number.
    partitions.retain(|name| !name.starts_with(|first: char| first.is_ascii_digit()));
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
    // From here on: a slice that finds the partitions slowly must delete something too.
    let started = Instant::now();
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
        let count = transaction.execute(&sql, &[&series, &limit]).await;
        let count = count.map_err(dropped)?;
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

/// The next slice reads the list of the partitions again, and does not find this one.
fn dropped(error: Error) -> WriteError {
    if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
        let cause = "a partition was dropped while its readings were deleted";
        return ReadError::Unavailable(cause.into()).into();
    }
    error.into()
}

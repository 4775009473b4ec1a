//! Closing days, and marks of what changed on them afterwards.

use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Transaction};
use schema::partition::Day;
use schema::reading::SeriesId;
use tokio_postgres::Error;

use super::Mark;
use crate::Pool;
use crate::reads::points::TimeRange;
use crate::reads::{ReadError, connection};

/// Rows of roll-ups of a statement.
const ORPHANS: i64 = 2_000;

/// The neighbours of a day are closed with it, because a local day has parts of two days of UTC.
/// The days before 2000 share a partition and are never closed.
const CLOSE: &str = "
    INSERT INTO rollup_day (day)
    SELECT DISTINCT day + neighbour
    FROM gridwatch_reading_days() AS day, generate_series(-1, 1) AS neighbour
    WHERE day + neighbour < ((now() - $1::float8 * interval '1 second') AT TIME ZONE 'UTC')::date
    ON CONFLICT (day) DO NOTHING";

/// A number that has not been given out yet is of another server, which this database was restored
/// from.
const SETTLE: &str = "
    UPDATE rollup_day SET settled_in = pg_current_xact_id()
    WHERE settled_in IS NULL OR settled_in >= pg_snapshot_xmax(pg_current_snapshot())";

/// Closes the days with readings that ended at least `delay` ago.
///
/// # Errors
/// [`ReadError`].
pub async fn close_days(pool: &Pool, delay: Duration) -> Result<(), ReadError> {
    let client = connection(pool).await?;
    client.execute(CLOSE, &[&delay.as_secs_f64()]).await?;
    // In a transaction of its own, which begins after the other one was committed.
    client.execute(SETTLE, &[]).await?;
    Ok(())
}

/// Marks series and days of UTC, of which those that are not closed are ignored.
///
/// # Errors
/// PostgreSQL's error.
pub(crate) async fn mark(client: &ClientWrapper, marks: &[Mark]) -> Result<(), Error> {
    let mark = |&(series, Day(day)): &Mark| (series, day);
    let (series, days): (Vec<SeriesId>, Vec<i32>) = marks.iter().map(mark).unzip();
    let sql = "INSERT INTO rollup_mark (series_id, day)
               SELECT mark.series_id, c.day
               FROM unnest($1::integer[], $2::integer[]) AS mark (series_id, day)
               JOIN rollup_day c ON c.day = date '1970-01-01' + mark.day";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&series, &days]).await?;
    Ok(())
}

/// Marks a series in a range whose readings this transaction has changed.
///
/// # Errors
/// PostgreSQL's error.
pub(crate) async fn mark_range(
    transaction: &Transaction<'_>,
    series: SeriesId,
    range: TimeRange,
) -> Result<(), Error> {
    let sql = "INSERT INTO rollup_mark (series_id, day)
               SELECT $1, day FROM rollup_day
               WHERE day - date '1970-01-01' BETWEEN $2::integer AND $3::integer";
    let (Day(first), Day(last)) = (Day::of(range.from), Day::of(range.to));
    transaction.execute(sql, &[&series, &first, &last]).await?;
    Ok(())
}

/// Deletes some roll-ups of deleted series. Returns whether there may be more.
///
/// # Errors
/// [`ReadError`].
pub async fn delete_orphans(pool: &Pool) -> Result<bool, ReadError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    let sql = "SELECT series_id FROM deleted_series WHERE NOT rollups_deleted
               ORDER BY series_id LIMIT 1 FOR UPDATE SKIP LOCKED";
    let Some(row) = transaction.query_opt(sql, &[]).await? else {
        return Ok(false);
    };
    let series: SeriesId = row.get(0);
    // Another process may be storing roll-ups of the series, and has this lock meanwhile.
    let sql = "SELECT FROM rollup_lease FOR UPDATE";
    transaction.execute(sql, &[]).await?;
    let mut deleted = 0;
    for table in ["rollup_quarter_hour", "rollup_local_day", "rollup_mark"] {
        let sql = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM {table} WHERE series_id = $1 LIMIT $2))"
        );
        deleted += transaction.execute(&sql, &[&series, &ORPHANS]).await?;
    }
    if deleted == 0 {
        let sql = "UPDATE deleted_series SET rollups_deleted = true WHERE series_id = $1";
        transaction.execute(sql, &[&series]).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

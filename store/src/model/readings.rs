//! Deleting the readings of a series in a range of time.
//!
//! In: a series and a range. Out: what was deleted, and the job that deletes the rest, if that is
//! too much for one transaction. The request itself is recorded in the table `change`, in the
//! transaction that begins it. Readings of the range that are stored later stay.

use deadpool_postgres::Transaction;
use schema::reading::{Micros, SeriesId};
use serde_json::json;
use tokio_postgres::Error;
use uuid::Uuid;

use super::remove::{Counts, add_counts};
use super::{Deletion, WriteError};
use crate::Pool;
use crate::reads::connection;
use crate::reads::points::TimeRange;
use crate::reads::series::Series;
use crate::rollups;

/// Readings of a transaction.
const READINGS: i64 = 5_000;

/// The action of a job that deletes a range. Its position is what is left: the id of the series,
/// and the range in microseconds since 1970.
pub(super) const ACTION: &str = "delete_readings";

/// Deletes a range.
///
/// # Errors
/// [`WriteError`]; nothing was deleted.
pub async fn delete_range(
    pool: &Pool,
    series: &Series,
    range: TimeRange,
    actor: &str,
) -> Result<Deletion, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    let (deleted, rest) = slice(&transaction, series.id, range).await?;
    let mut job = None;
    if let Some(rest) = rest {
        let id = Uuid::now_v7();
        let sql = "INSERT INTO job (id, action, actor, position, readings)
                   VALUES ($1, $2, $3, $4, $5)";
        let position = position(series.id, rest);
        transaction
            .execute(sql, &[&id, &ACTION, &actor, &position, &deleted])
            .await?;
        job = Some(id);
    }
    // `gridwatch_time` formats the range as everywhere in the table.
    let sql = "INSERT INTO change (actor, entity, entity_id, action, before)
               VALUES ($1, 'readings', $2, 'delete', jsonb_build_object(
                   'from', gridwatch_time('epoch'::timestamptz
                                          + $3::bigint * interval '1 microsecond'),
                   'to', gridwatch_time('epoch'::timestamptz
                                        + $4::bigint * interval '1 microsecond'),
                   'deleted', CASE WHEN $6::uuid IS NULL THEN $5::bigint END, 'job', $6::uuid))";
    let id = format!("{}/{}", series.device, series.metric);
    transaction
        .execute(sql, &[&actor, &id, &range.from, &range.to, &deleted, &job])
        .await?;
    transaction.commit().await?;
    let deleted = json!({ "readings": deleted });
    Ok(Deletion { deleted, job })
}

/// Deletes the next readings of a job.
pub(super) async fn run_slice(
    transaction: &Transaction<'_>,
    job: Uuid,
    rest: &str,
) -> Result<(), WriteError> {
    let mut counts = Counts::default();
    let left = match parse(rest) {
        Some((series, range)) => {
            let (deleted, left) = slice(transaction, series, range).await?;
            counts.readings = deleted;
            left.map(|left| position(series, left))
        }
        None => None,
    };
    add_counts(transaction, job, counts).await?;
    match left {
        Some(position) => {
            let sql = "UPDATE job SET position = $2 WHERE id = $1";
            transaction.execute(sql, &[&job, &position]).await?;
        }
        None => {
            let sql = "UPDATE job SET state = 'done', finished_at = now() WHERE id = $1";
            transaction.execute(sql, &[&job]).await?;
        }
    }
    Ok(())
}

/// Deletes the oldest readings of a range. Returns their number, and the range that is left.
async fn slice(
    transaction: &Transaction<'_>,
    series: SeriesId,
    range: TimeRange,
) -> Result<(i64, Option<TimeRange>), Error> {
    let (from, to) = (range.from, range.to);
    let instant = |parameter: u8| {
        format!("'epoch'::timestamptz + ${parameter}::bigint * interval '1 microsecond'")
    };
    let range_of = format!(
        "series_id = $1 AND measured_at >= {} AND measured_at < {}",
        instant(2),
        instant(3)
    );
    let sql = format!(
        "SELECT (extract(epoch FROM measured_at) * 1000000)::bigint FROM reading
         WHERE {range_of} ORDER BY measured_at OFFSET $4 LIMIT 1"
    );
    let row = transaction
        .query_opt(&sql, &[&series, &from, &to, &READINGS])
        .await?;
    let end: Option<Micros> = row.map(|row| row.get(0));
    let sql = format!("DELETE FROM reading WHERE {range_of}");
    let until = end.unwrap_or(to);
    let deleted = transaction.execute(&sql, &[&series, &from, &until]).await?;
    let changed = TimeRange { from, to: until };
    rollups::mark_range(transaction, series, changed).await?;
    let left = end.map(|from| TimeRange { from, to });
    Ok((i64::try_from(deleted).unwrap_or(i64::MAX), left))
}

fn position(series: SeriesId, rest: TimeRange) -> String {
    format!("{series} {} {}", rest.from, rest.to)
}

fn parse(position: &str) -> Option<(SeriesId, TimeRange)> {
    let mut parts = position.split(' ');
    let series = parts.next()?.parse().ok()?;
    let from = parts.next()?.parse().ok()?;
    let to = parts.next()?.parse().ok()?;
    Some((series, TimeRange { from, to }))
}

//! Deleting the readings of a series in a range of time.
//!
//! In: a series and a range. Out: what was deleted, and the job that deletes the rest, if that is
//! too much for one transaction. The request itself is recorded in the table `change`, in the
//! transaction that begins it.
//!
//! The job deletes what was stored when it was accepted, and keeps what is stored later. It tells
//! them apart by the transaction that wrote a row (`xmin`): the job remembers the first transaction
//! number that was not taken yet, its cut. A row below it was stored before, or by a transaction
//! that was in flight, whose rows may be deleted or not, as if it had been a moment earlier or
//! later. (`pg_visible_in_snapshot` does not know the numbers of savepoints, which a worker uses.)
//!
//! `xmin` has 32 bits, and a frozen row keeps it. Of a number that was used again, the older row
//! counts as later only when exactly one round of 2^32 transactions lies between, and is kept.
//! A database that is restored from a dump has new numbers: the job then deletes what is there.

use deadpool_postgres::Transaction;
use schema::reading::{Micros, SeriesId};
use serde_json::json;
use tokio_postgres::Error;
use uuid::Uuid;

use super::remove::{Counts, add_counts};
use super::{Deletion, WriteError};
use crate::Pool;
use crate::ledger::timestamp;
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
    let (deleted, rest) = slice(&transaction, series.id, range, None).await?;
    let mut job = None;
    if let Some(rest) = rest {
        let id = Uuid::now_v7();
        let sql = "INSERT INTO job (id, action, actor, position, readings, cut)
                   VALUES ($1, $2, $3, $4, $5, pg_snapshot_xmax(pg_current_snapshot()))";
        let position = position(series.id, rest);
        transaction
            .execute(sql, &[&id, &ACTION, &actor, &position, &deleted])
            .await?;
        job = Some(id);
    }
    // `gridwatch_time` formats the range as everywhere in the table.
    let sql = "INSERT INTO change (actor, entity, entity_id, action, before)
               VALUES ($1, 'readings', $2, 'delete', jsonb_build_object(
                   'from', gridwatch_time($3), 'to', gridwatch_time($4),
                   'deleted', CASE WHEN $6::uuid IS NULL THEN $5::bigint END, 'job', $6::uuid))";
    let id = format!("{}/{}", series.device, series.metric);
    let (from, to) = (timestamp(range.from), timestamp(range.to));
    transaction
        .execute(sql, &[&actor, &id, &from, &to, &deleted, &job])
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
    cut: Option<i64>,
) -> Result<(), WriteError> {
    let mut counts = Counts::default();
    let left = match parse(rest) {
        Some((series, range)) => {
            let (deleted, left) = slice(transaction, series, range, cut).await?;
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

/// Whether a row is below the cut `$4`. The numbers from the cut to the next one are those of later
/// transactions, in a circle of 2^32 numbers.
const BELOW_CUT: &str = "($4::bigint IS NULL OR
    (xmin::text::bigint - $4 % 4294967296 + 4294967296) % 4294967296
    >= (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - $4))";

/// Deletes the oldest readings of a range. Returns their number, and the range that is left.
async fn slice(
    transaction: &Transaction<'_>,
    series: SeriesId,
    range: TimeRange,
    cut: Option<i64>,
) -> Result<(i64, Option<TimeRange>), Error> {
    let range_of = "series_id = $1 AND measured_at >= $2 AND measured_at < $3";
    let sql = format!(
        "SELECT (extract(epoch FROM measured_at) * 1000000)::bigint FROM reading
         WHERE {range_of} ORDER BY measured_at OFFSET $4 LIMIT 1"
    );
    let from = timestamp(range.from);
    let row = transaction
        .query_opt(&sql, &[&series, &from, &timestamp(range.to), &READINGS])
        .await?;
    let end: Option<Micros> = row.map(|row| row.get(0));
    let sql = format!("DELETE FROM reading WHERE {range_of} AND {BELOW_CUT}");
    let changed = TimeRange {
        to: end.unwrap_or(range.to),
        ..range
    };
    let deleted = transaction
        .execute(&sql, &[&series, &from, &timestamp(changed.to), &cut])
        .await?;
    rollups::mark_range(transaction, series, changed).await?;
    let left = end.map(|from| TimeRange { from, ..range });
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

#[cfg(test)]
mod tests {
    use super::BELOW_CUT;
    use crate::testing::{connect, create_database};

    #[tokio::test]
    async fn rows_of_transactions_from_the_cut_on_are_later_and_all_others_are_earlier() {
        let client = connect(&create_database().await).await;
        let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        let next: i64 = client.query_one(next, &[]).await.unwrap().get(0);
        let cut = next - 10;
        let sql = format!(
            "SELECT {} FROM (SELECT $1::text::xid AS xmin) AS row",
            BELOW_CUT.replace("$4", "$2")
        );
        for (xmin, expected) in [
            (cut - 1, true),
            (cut, false),
            (next - 1, false),
            // Frozen, and of the round before.
            (2, true),
            (next + 1_000_000, true),
            (4_294_967_295, true),
        ] {
            let text = xmin.to_string();
            let row = client.query_one(&sql, &[&text, &cut]).await.unwrap();
            let found: bool = row.get(0);
            assert_eq!(found, expected, "{xmin}, cut {cut}, next {next}");
        }
    }
}

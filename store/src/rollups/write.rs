//! Storing roll-ups.

use std::collections::BTreeMap;
use std::time::SystemTime;

use deadpool_postgres::Transaction;
use schema::reading::{Micros, SeriesId};
use tokio_postgres::Error;
use uuid::Uuid;

use super::{LocalDay, Plan, Summary, Work};
use crate::Pool;
use crate::ledger::timestamp;
use crate::reads::{ReadError, connection};

/// The roll-ups of one series and day of UTC. They replace those that are stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Built {
    /// Each quarter of an hour with its start.
    pub quarters: Vec<(Micros, Summary)>,
    /// The time zone of the local days. Those of other time zones are removed.
    pub zone: String,
    /// Every local day that was computed, also those without readings.
    pub local_days: Vec<(i32, Option<LocalDay>)>,
}

/// A series may have been deleted since the plan. Its roll-ups may have been deleted too.
const EXISTS: &str = "NOT EXISTS (SELECT FROM deleted_series d WHERE d.series_id = new.series_id)";

/// Stores what was built of the first entries of a plan. Returns `false` if another process has the
/// lease now; then nothing was stored.
///
/// # Errors
/// [`ReadError`]; nothing was stored.
pub async fn write(
    pool: &Pool,
    holder: Uuid,
    plan: &Plan,
    built: &[Built],
) -> Result<bool, ReadError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    // The lock on the row holds until the commit: no other process takes the lease before it.
    let sql = "UPDATE rollup_lease SET holder = holder
               WHERE holder = $1 AND expires_at > clock_timestamp()";
    if transaction.execute(sql, &[&holder]).await? == 0 {
        return Ok(false);
    }
    let done: Vec<(&Work, &Built)> = plan.work.iter().zip(built).collect();
    delete(&transaction, &done).await?;
    insert_quarters(&transaction, &done).await?;
    insert_local_days(&transaction, &done).await?;
    if let Some(day) = plan.day {
        let is_last = plan.is_last && done.len() == plan.work.len();
        let next = done.last().map(|(work, _)| work.series.saturating_add(1));
        let sql = "UPDATE rollup_day SET next_series = coalesce($2, next_series),
                       built_at = CASE WHEN $3 THEN now() END
                   WHERE day = date '1970-01-01' + $1::integer";
        transaction.execute(sql, &[&day, &next, &is_last]).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// Deletes what is replaced, and the marks. Local days of another time zone are not built again,
/// so that they must not stay.
async fn delete(transaction: &Transaction<'_>, done: &[(&Work, &Built)]) -> Result<(), Error> {
    let series: Vec<SeriesId> = done.iter().map(|(work, _)| work.series).collect();
    let days: Vec<i32> = done.iter().map(|(work, _)| work.day).collect();
    let sql = "DELETE FROM rollup_quarter_hour r
               USING unnest($1::integer[], $2::integer[]) AS done (series_id, day)
               WHERE r.series_id = done.series_id
                 AND r.starts_at >= (date '1970-01-01' + done.day)::timestamp AT TIME ZONE 'UTC'
                 AND r.starts_at
                     < (date '1970-01-01' + done.day + 1)::timestamp AT TIME ZONE 'UTC'";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&series, &days]).await?;
    let zones: Vec<&str> = done.iter().map(|(_, built)| built.zone.as_str()).collect();
    let sql = "DELETE FROM rollup_local_day r
               USING unnest($1::integer[], $2::integer[], $3::text[])
                   AS done (series_id, day, time_zone)
               WHERE r.series_id = done.series_id AND r.time_zone <> done.time_zone
                 AND r.day - date '1970-01-01' BETWEEN done.day - 1 AND done.day + 1";
    let statement = transaction.prepare_cached(sql).await?;
    transaction
        .execute(&statement, &[&series, &days, &zones])
        .await?;
    let (mut series_of_day, mut zones, mut local_days) = (Vec::new(), Vec::new(), Vec::new());
    for (work, built) in done {
        for (day, _) in &built.local_days {
            series_of_day.push(work.series);
            zones.push(built.zone.as_str());
            local_days.push(*day);
        }
    }
    let sql = "DELETE FROM rollup_local_day r
               USING unnest($1::integer[], $2::text[], $3::integer[])
                   AS done (series_id, time_zone, day)
               WHERE r.series_id = done.series_id AND r.time_zone = done.time_zone
                 AND r.day = date '1970-01-01' + done.day";
    let statement = transaction.prepare_cached(sql).await?;
    transaction
        .execute(&statement, &[&series_of_day, &zones, &local_days])
        .await?;
    let marks: Vec<i64> = done
        .iter()
        .flat_map(|(work, _)| &work.marks)
        .copied()
        .collect();
    let statement = "DELETE FROM rollup_mark WHERE id = ANY($1)";
    let statement = transaction.prepare_cached(statement).await?;
    transaction.execute(&statement, &[&marks]).await?;
    Ok(())
}

/// The columns of summaries.
#[derive(Default)]
struct Columns {
    counts: Vec<i64>,
    values: [Vec<f64>; 7],
    times: [Vec<SystemTime>; 2],
}

impl Columns {
    fn push(&mut self, summary: &Summary) {
        self.counts
            .push(i64::try_from(summary.count).unwrap_or(i64::MAX));
        let Summary { first, last, .. } = summary;
        let values = [
            summary.min,
            summary.max,
            summary.sum,
            first.value,
            last.value,
            summary.weighted,
            summary.increase,
        ];
        for (column, value) in self.values.iter_mut().zip(values) {
            column.push(value);
        }
        for (column, point) in self.times.iter_mut().zip([first, last]) {
            column.push(timestamp(point.time));
        }
    }
}

async fn insert_quarters(
    transaction: &Transaction<'_>,
    done: &[(&Work, &Built)],
) -> Result<(), Error> {
    let (mut series, mut starts) = (Vec::new(), Vec::new());
    let mut columns = Columns::default();
    for (work, built) in done {
        for (start, summary) in &built.quarters {
            series.push(work.series);
            starts.push(timestamp(*start));
            columns.push(summary);
        }
    }
    let sql = format!(
        "INSERT INTO rollup_quarter_hour (series_id, starts_at, count, min, max, sum, first,
                   last, weighted, increase, first_at, last_at)
               SELECT * FROM unnest($1::integer[], $2::timestamptz[], $3::bigint[], $4::float8[],
                   $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::float8[],
                   $10::float8[], $11::timestamptz[], $12::timestamptz[]) AS new (series_id)
               WHERE {EXISTS}"
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let [min, max, sum, first, last, weighted, increase] = &columns.values;
    let [first_at, last_at] = &columns.times;
    transaction
        .execute(
            &statement,
            &[
                &series,
                &starts,
                &columns.counts,
                min,
                max,
                sum,
                first,
                last,
                weighted,
                increase,
                first_at,
                last_at,
            ],
        )
        .await?;
    Ok(())
}

async fn insert_local_days(
    transaction: &Transaction<'_>,
    done: &[(&Work, &Built)],
) -> Result<(), Error> {
    // Neighbouring days of UTC have a local day in common. What was computed last is the newest.
    let mut newest = BTreeMap::new();
    for (work, built) in done {
        for (day, local) in &built.local_days {
            newest.insert((work.series, built.zone.as_str(), *day), local.as_ref());
        }
    }
    let (mut series, mut zones, mut days) = (Vec::new(), Vec::new(), Vec::new());
    let mut columns = Columns::default();
    let mut quartiles: [Vec<f64>; 3] = Default::default();
    for ((id, zone, day), local) in newest {
        let Some(local) = local else { continue };
        series.push(id);
        zones.push(zone);
        days.push(day);
        columns.push(&local.summary);
        for (column, value) in quartiles.iter_mut().zip(local.quartiles) {
            column.push(value);
        }
    }
    let sql = format!(
        "INSERT INTO rollup_local_day (series_id, time_zone, day, count, min, max, sum, first,
                   last, weighted, increase, first_at, last_at, q1, median, q3)
               SELECT new.series_id, new.time_zone, date '1970-01-01' + new.day, count, min, max,
                   sum, first, last, weighted, increase, first_at, last_at, q1, median, q3
               FROM unnest($1::integer[], $2::text[], $3::integer[], $4::bigint[], $5::float8[],
                   $6::float8[], $7::float8[], $8::float8[], $9::float8[], $10::float8[],
                   $11::float8[], $12::timestamptz[], $13::timestamptz[], $14::float8[],
                   $15::float8[], $16::float8[])
                   AS new (series_id, time_zone, day, count, min, max, sum, first, last, weighted,
                       increase, first_at, last_at, q1, median, q3)
               WHERE {EXISTS}"
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let [min, max, sum, first, last, weighted, increase] = &columns.values;
    let [first_at, last_at] = &columns.times;
    let [q1, median, q3] = &quartiles;
    transaction
        .execute(
            &statement,
            &[
                &series,
                &zones,
                &days,
                &columns.counts,
                min,
                max,
                sum,
                first,
                last,
                weighted,
                increase,
                first_at,
                last_at,
                q1,
                median,
                q3,
            ],
        )
        .await?;
    Ok(())
}

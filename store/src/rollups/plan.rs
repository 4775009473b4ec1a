//! What is to be built next.

use schema::partition::DAY;
use schema::reading::{Micros, SeriesId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::Pool;
use crate::ledger::timestamp;
use crate::reads::{ReadError, connection};

/// Series of a plan.
const SERIES: i64 = 100;
/// Seconds for which a process has the lease.
const LEASE_SECONDS: f64 = 60.0;

/// A day is built when every transaction that may have changed it without a mark has ended.
const IS_SETTLED: &str = "settled_in <= pg_snapshot_xmin(pg_current_snapshot())";

/// A series and a day of UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The series.
    pub series: SeriesId,
    /// Whether the series has not been deleted.
    pub exists: bool,
    /// The day, counted from 1970.
    pub day: i32,
    /// See [`crate::reads::series::Series`].
    pub rollover: Option<f64>,
    /// The time zone of the component of its device, if it has one.
    pub zone: Option<String>,
    /// The marks that are removed when this is done: those that were committed when it was
    /// planned. A mark with a lower number may be committed later.
    pub marks: Vec<i64>,
    /// The days around this one that can be built.
    pub closed: Vec<i32>,
}

/// Work, and how far the first building of a day is then.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In the order of series.
    pub work: Vec<Work>,
    /// The day that is built for the first time, if this is not about marks.
    pub day: Option<i32>,
    /// Whether the day has no other series.
    pub is_last: bool,
}

/// The next work. `None`: there is nothing to do, or another process is doing it.
///
/// # Errors
/// [`ReadError`].
pub async fn plan(pool: &Pool, holder: Uuid) -> Result<Option<Plan>, ReadError> {
    let client = connection(pool).await?;
    // Most of the time there is nothing to do, and then nothing is written.
    let sql = "SELECT EXISTS (SELECT FROM rollup_day WHERE built_at IS NULL)
                   OR EXISTS (SELECT FROM rollup_mark)";
    if !client.query_one(sql, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = "UPDATE rollup_lease
               SET holder = $1, expires_at = clock_timestamp() + $2::float8 * interval '1 second'
               WHERE holder = $1 OR expires_at < clock_timestamp()";
    if client.execute(sql, &[&holder, &LEASE_SECONDS]).await? == 0 {
        return Ok(None);
    }
    let closed = format!(
        "(SELECT coalesce(array_agg(near.day - date '1970-01-01'), '{{}}') FROM rollup_day near
          WHERE near.day BETWEEN todo.day - 3 AND todo.day + 3 AND near.{IS_SETTLED})"
    );
    let marked = format!(
        "SELECT todo.series_id, todo.day - date '1970-01-01', s.rollover,
                gridwatch_time_zone(d.component), todo.marks, {closed}, s.id IS NOT NULL
         FROM (SELECT m.series_id, m.day, array_agg(m.id) AS marks
               FROM (SELECT * FROM rollup_mark
                     WHERE day IN (SELECT day FROM rollup_day WHERE {IS_SETTLED})
                     ORDER BY id LIMIT $1) AS oldest
               JOIN rollup_mark m USING (series_id, day)
               GROUP BY m.series_id, m.day) AS todo
         LEFT JOIN series s ON s.id = todo.series_id LEFT JOIN device d ON d.id = s.device_id
         ORDER BY todo.series_id, todo.day"
    );
    let statement = client.prepare_cached(&marked).await?;
    let rows = client.query(&statement, &[&SERIES]).await?;
    if !rows.is_empty() {
        return Ok(Some(Plan {
            work: rows.iter().map(work).collect(),
            ..Plan::default()
        }));
    }
    let sql = format!(
        "SELECT day - date '1970-01-01', next_series FROM rollup_day
         WHERE built_at IS NULL AND {IS_SETTLED} ORDER BY day LIMIT 1"
    );
    let Some(row) = client.query_opt(&sql, &[]).await? else {
        return Ok(None);
    };
    let (day, next): (i32, SeriesId) = (row.get(0), row.get(1));
    // A local day that ends on this day begins on the day before at the earliest. The series are
    // found by jumping from one to the next in the keys.
    let is_near = "measured_at >= $2 AND measured_at < $3";
    let sql = format!(
        "WITH RECURSIVE found (series_id) AS (
             (SELECT series_id FROM reading WHERE series_id >= $1 AND {is_near}
              ORDER BY series_id LIMIT 1)
             UNION ALL
             SELECT (SELECT r.series_id FROM reading r
                     WHERE r.series_id > found.series_id AND {is_near}
                     ORDER BY r.series_id LIMIT 1)
             FROM found WHERE found.series_id IS NOT NULL)
         SELECT todo.series_id, $4::integer, s.rollover, gridwatch_time_zone(d.component),
                '{{}}'::bigint[], {closed}, s.id IS NOT NULL
         FROM (SELECT series_id, date '1970-01-01' + $4::integer AS day FROM found
               WHERE series_id IS NOT NULL LIMIT $5) AS todo
         LEFT JOIN series s ON s.id = todo.series_id LEFT JOIN device d ON d.id = s.device_id
         ORDER BY todo.series_id"
    );
    let start = Micros::from(day) * DAY;
    let (from, to) = (timestamp(start - DAY), timestamp(start + DAY));
    let statement = client.prepare_cached(&sql).await?;
    let rows = client
        .query(&statement, &[&next, &from, &to, &day, &SERIES])
        .await?;
    Ok(Some(Plan {
        work: rows.iter().map(work).collect(),
        day: Some(day),
        is_last: i64::try_from(rows.len()).is_ok_and(|found| found < SERIES),
    }))
}

fn work(row: &Row) -> Work {
    Work {
        series: row.get(0),
        exists: row.get(6),
        day: row.get(1),
        rollover: row.get(2),
        zone: row.get(3),
        marks: row.get(4),
        closed: row.get(5),
    }
}

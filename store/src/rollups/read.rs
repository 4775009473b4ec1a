//! Reading roll-ups that are valid.

use schema::reading::{Micros, SeriesId};
use tokio_postgres::Row;

use super::{LocalDay, Summary};
use crate::Pool;
use crate::ledger::timestamp;
use crate::reads::points::{Point, TimeRange};
use crate::reads::{ReadError, query};

/// Roll-ups of one query.
pub const SLICE: usize = 5_000;

/// The columns of a [`Summary`].
const COLUMNS: &str = "count, min, max, sum, first, first_at, last, last_at, weighted, increase";

/// The quarters of an hour that start in a range, the oldest first, at most [`SLICE`].
///
/// # Errors
/// [`ReadError`].
pub async fn quarters(
    pool: &Pool,
    series: SeriesId,
    range: TimeRange,
) -> Result<Vec<(Micros, Summary)>, ReadError> {
    let sql = format!(
        "SELECT {COLUMNS}, starts_at FROM rollup_quarter_hour r
         WHERE series_id = $1 AND starts_at >= $2 AND starts_at < $3
           AND NOT EXISTS (SELECT FROM rollup_mark m
                           WHERE m.series_id = $1
                             AND m.day = (r.starts_at AT TIME ZONE 'UTC')::date)
         ORDER BY starts_at LIMIT {SLICE}"
    );
    let (from, to) = (timestamp(range.from), timestamp(range.to));
    let rows = query(pool, &sql, &[&series, &from, &to]).await?;
    Ok(rows
        .iter()
        .map(|row| (micros(row, 10), summary(row)))
        .collect())
}

/// The local days of a time zone from one date to before another one, in days since 1970.
///
/// # Errors
/// [`ReadError`].
pub async fn local_days(
    pool: &Pool,
    series: SeriesId,
    zone: &str,
    days: std::ops::Range<i32>,
) -> Result<Vec<LocalDay>, ReadError> {
    // A local day is within the day of UTC with the same date and its two neighbours.
    let sql = format!(
        "SELECT {COLUMNS}, day - date '1970-01-01', q1, median, q3 FROM rollup_local_day r
         WHERE series_id = $1 AND time_zone = $2
           AND day >= date '1970-01-01' + $3::integer AND day < date '1970-01-01' + $4::integer
           AND NOT EXISTS (SELECT FROM rollup_mark m
                           WHERE m.series_id = $1 AND m.day BETWEEN r.day - 1 AND r.day + 1)
         ORDER BY day LIMIT {SLICE}"
    );
    let rows = query(pool, &sql, &[&series, &zone, &days.start, &days.end]).await?;
    let local_day = |row: &Row| LocalDay {
        day: row.get(10),
        quartiles: [row.get(11), row.get(12), row.get(13)],
        summary: summary(row),
    };
    Ok(rows.iter().map(local_day).collect())
}

fn summary(row: &Row) -> Summary {
    let point = |value, time| Point {
        time: micros(row, time),
        value: row.get(value),
    };
    Summary {
        count: row.get::<_, i64>(0).unsigned_abs(),
        min: row.get(1),
        max: row.get(2),
        sum: row.get(3),
        first: point(4, 5),
        last: point(6, 7),
        weighted: row.get(8),
        increase: row.get(9),
    }
}

fn micros(row: &Row, column: usize) -> Micros {
    crate::ledger::micros(row.get(column))
}

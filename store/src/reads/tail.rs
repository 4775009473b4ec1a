//! The points that were added to some series.
//!
//! In: for each series, the time of the last point that the caller has. Out: later points.

use std::time::SystemTime;

use schema::reading::{Micros, SeriesId};

use super::points::Point;
use super::{ReadError, query};
use crate::Pool;
use crate::ledger::timestamp;

const AFTER: &str = "
    SELECT wanted.id, (extract(epoch FROM r.measured_at) * 1000000)::bigint, r.value
    FROM unnest($1::integer[], $2::timestamptz[]) AS wanted (id, time)
    CROSS JOIN LATERAL (
        SELECT measured_at, value FROM reading
        WHERE series_id = wanted.id AND measured_at > wanted.time
        ORDER BY measured_at LIMIT $3) r
    ORDER BY 2, 1";

/// The points behind these positions in the order of time, at most `limit` of each series.
///
/// # Errors
/// [`ReadError`].
pub async fn after(
    pool: &Pool,
    positions: &[(SeriesId, Micros)],
    limit: usize,
) -> Result<Vec<(SeriesId, Point)>, ReadError> {
    let position = |&(id, time)| (id, timestamp(time));
    let (ids, times): (Vec<SeriesId>, Vec<SystemTime>) = positions.iter().map(position).unzip();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(pool, AFTER, &[&ids, &times, &limit]).await?;
    let point = |row: &tokio_postgres::Row| {
        let (time, value) = (row.get(1), row.get(2));
        (row.get(0), Point { time, value })
    };
    Ok(rows.iter().map(point).collect())
}

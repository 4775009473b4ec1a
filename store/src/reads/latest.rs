//! The latest point of each series.
//!
//! In: a page of series. Out: the latest point of each that has one. Most series have reported
//! lately: their points are found in the newest partitions. Only the others are looked up in all
//! of them.

use std::collections::HashMap;

use schema::clock;
use schema::reading::{MIN_MEASURED_AT, Micros, SeriesId};
use tokio_postgres::types::ToSql;

use super::points::Point;
use super::series::{COLUMNS, Series};
use super::{ReadError, query};
use crate::Pool;
use crate::ledger::timestamp;

/// Series of one query: the embedded database finds their points in some tens of milliseconds.
pub const PAGE: usize = 1_000;

/// How far back the first query looks.
const RECENT_MICROS: Micros = 26 * 3_600 * 1_000_000;

const LATEST: &str = "
    SELECT wanted.id, (extract(epoch FROM r.measured_at) * 1000000)::bigint, r.value
    FROM unnest($1::integer[]) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT measured_at, value FROM reading
        WHERE series_id = wanted.id AND measured_at >= $2
        ORDER BY measured_at DESC LIMIT 1) r";

/// A series and its latest point, if it has one.
pub type Latest = (Series, Option<Point>);

/// The series behind `after` (external id and metric), at most [`PAGE`], each with its latest
/// point. An empty page is the end.
///
/// # Errors
/// [`ReadError`].
pub async fn page(
    pool: &Pool,
    after: (&str, &str),
    devices: Option<&[String]>,
    metric: Option<&str>,
) -> Result<Vec<Latest>, ReadError> {
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    // A comparison of columns of two tables uses no index. The one of the name alone does.
    let sql = format!(
        "SELECT {COLUMNS} FROM device d JOIN series s ON s.device_id = d.id
         WHERE d.external_id >= $1 AND (d.external_id, s.metric) > ($1, $2)
           AND ($3::text[] IS NULL OR d.external_id = ANY($3))
           AND ($4::text IS NULL OR s.metric = $4)
         ORDER BY d.external_id, s.metric LIMIT $5"
    );
    let parameters: [&(dyn ToSql + Sync); 5] = [&after.0, &after.1, &devices, &metric, &limit];
    let rows = query(pool, &sql, &parameters).await?;
    let series: Vec<Series> = rows.iter().map(Series::from_row).collect();
    let mut missing: Vec<SeriesId> = series.iter().map(|series| series.id).collect();
    let mut found: HashMap<SeriesId, Point> = HashMap::with_capacity(missing.len());
    for since in [clock::now() - RECENT_MICROS, MIN_MEASURED_AT] {
        if missing.is_empty() {
            break;
        }
        for row in query(pool, LATEST, &[&missing, &timestamp(since)]).await? {
            let (time, value) = (row.get(1), row.get(2));
            found.insert(row.get(0), Point { time, value });
        }
        missing.retain(|id| !found.contains_key(id));
    }
    let with_point = |series: Series| {
        let point = found.get(&series.id).copied();
        (series, point)
    };
    Ok(series.into_iter().map(with_point).collect())
}

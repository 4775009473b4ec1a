//! The targets of a series: a step function of time.
//!
//! In: a series and a range of time. Out: the steps in the order of time, one page at a time. The
//! first step is the one that holds at the start of the range, if there is one.

use schema::reading::{Micros, SeriesId};

use super::points::TimeRange;
use super::{ReadError, query};
use crate::Pool;
use crate::ledger::timestamp;

/// Steps of a page.
pub const PAGE: usize = 5_000;

/// From `time` on, until the next step, the target is `value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Not before the range.
    pub time: Micros,
    /// `None`: no target.
    pub value: Option<f64>,
}

const STEPS: &str = "
    WITH wanted AS (SELECT $2::timestamptz AS valid_from, $3::timestamptz AS valid_to)
    SELECT (extract(epoch FROM greatest(starts_at, valid_from)) * 1000000)::bigint, value
    FROM target, wanted
    WHERE series_id = $1 AND starts_at < valid_to
      AND starts_at >= coalesce((SELECT max(starts_at) FROM target
                                 WHERE series_id = $1 AND starts_at <= valid_from), valid_from)
    ORDER BY starts_at LIMIT $4";

/// The first steps of a range, at most [`PAGE`]. A full page ends with the step that the next page
/// starts with.
///
/// # Errors
/// [`ReadError`].
pub async fn page(pool: &Pool, series: SeriesId, range: TimeRange) -> Result<Vec<Step>, ReadError> {
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let (from, to) = (timestamp(range.from), timestamp(range.to));
    let rows = query(pool, STEPS, &[&series, &from, &to, &limit]).await?;
    let step = |row: &tokio_postgres::Row| Step {
        time: row.get(0),
        value: row.get(1),
    };
    Ok(rows.iter().map(step).collect())
}

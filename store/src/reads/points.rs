//! The points of a series, in slices.
//!
//! In: a series, a range of time and a direction. Out: at most a slice of points in the order of
//! time, or [`Slices`], one after the other.
//!
//! A query names one series, so that PostgreSQL walks the key of one partition after the other and
//! sorts nothing. A slice is one row with an array of times and one of values: the same points as
//! rows of a query cost ten times as much, and as rows of COPY a third more.

use std::error::Error;
use std::sync::Arc;

use schema::clock::POSTGRES_EPOCH;
use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, Micros, SeriesId};
use tokio_postgres::types::{FromSql, ToSql, Type, accepts};
use tokio_util::task::AbortOnDropHandle;

use super::{CancelOnDrop, ReadError};
use crate::Pool;
use crate::ledger::timestamp;

/// Points of a slice. The embedded database reads them in some tens of milliseconds.
pub const SLICE: usize = 20_000;

/// A stored value of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When it was measured.
    pub time: Micros,
    /// What was measured.
    pub value: f64,
}

/// A range of time: `from` belongs to it, `to` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first instant.
    pub from: Micros,
    /// The instant after the last one.
    pub to: Micros,
}

/// Which end of the range comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The oldest point first.
    #[default]
    OldestFirst,
    /// The newest point first.
    NewestFirst,
}

impl TimeRange {
    /// The rest of the range behind a point, in a direction.
    #[must_use]
    pub fn after(self, time: Micros, order: Order) -> Self {
        match order {
            Order::OldestFirst => Self {
                from: time + 1,
                ..self
            },
            Order::NewestFirst => Self { to: time, ..self },
        }
    }

    /// Whether an instant is in it.
    #[must_use]
    pub fn contains(self, time: Micros) -> bool {
        (self.from..self.to).contains(&time)
    }

    /// Whether no instant is in it.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }
}

/// The first points of a range, at most `limit`. If the future is dropped, the query ends.
///
/// # Errors
/// [`ReadError`].
pub async fn slice(
    pool: &Pool,
    series: SeriesId,
    range: TimeRange,
    order: Order,
    limit: usize,
) -> Result<Vec<Point>, ReadError> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let direction = match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    };
    let sql = format!(
        "SELECT array_agg(measured_at), array_agg(value) FROM (
             SELECT measured_at, value FROM reading
             WHERE series_id = $1 AND measured_at >= $2 AND measured_at < $3
             ORDER BY measured_at {direction} LIMIT $4) AS slice"
    );
    let (from, to) = (timestamp(range.from), timestamp(range.to));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let connection = CancelOnDrop::connect(pool).await?;
    // Not a prepared statement: its plan would be made for any range and lock every partition.
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&series, Type::INT4),
        (&from, Type::TIMESTAMPTZ),
        (&to, Type::TIMESTAMPTZ),
        (&limit, Type::INT8),
    ];
    let rows = connection.client()?.query_typed(&sql, &parameters).await;
    connection.finish();
    let rows = rows?;
    let Some(row) = rows.first() else {
        return Ok(Vec::new());
    };
    let times: Vec<Instant> = row.try_get::<_, Option<_>>(0)?.unwrap_or_default();
    let values: Vec<f64> = row.try_get::<_, Option<_>>(1)?.unwrap_or_default();
    let points = times.into_iter().zip(values);
    Ok(points
        .map(|(Instant(time), value)| Point { time, value })
        .collect())
}

/// The points of a range, slice by slice. The next slice is read while the caller works on the last
/// one. If this is dropped, the query ends.
pub struct Slices {
    pool: Arc<Pool>,
    series: SeriesId,
    order: Order,
    /// Points that may still be read.
    left: usize,
    reading: Option<Reading>,
}

/// A slice that a task of its own reads.
struct Reading {
    range: TimeRange,
    limit: usize,
    task: AbortOnDropHandle<Result<Vec<Point>, ReadError>>,
}

impl Slices {
    /// Begins to read a range, at most `limit` points of it.
    #[must_use]
    pub fn new(
        pool: &Arc<Pool>,
        series: SeriesId,
        range: TimeRange,
        order: Order,
        limit: usize,
    ) -> Self {
        let mut slices = Self {
            pool: pool.clone(),
            series,
            order,
            left: limit,
            reading: None,
        };
        slices.read(range);
        slices
    }

    /// The next points, none if the range has none. `None`: there are no more slices.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Point>>, ReadError> {
        let Some(reading) = &mut self.reading else {
            return Ok(None);
        };
        let points = (&mut reading.task).await;
        let points = points.map_err(|error| ReadError::Failed(error.to_string()))??;
        let (range, limit) = (reading.range, reading.limit);
        self.reading = None;
        self.left -= points.len();
        if let Some(last) = points.last()
            && points.len() == limit
            && self.left > 0
        {
            self.read(range.after(last.time, self.order));
        }
        Ok(Some(points))
    }

    fn read(&mut self, range: TimeRange) {
        let (pool, series, order) = (self.pool.clone(), self.series, self.order);
        let limit = self.left.min(SLICE);
        let slice = async move { slice(&pool, series, range, order, limit).await };
        self.reading = Some(Reading {
            range,
            limit,
            task: AbortOnDropHandle::new(tokio::spawn(slice)),
        });
    }
}

/// The last point before an instant.
///
/// # Errors
/// [`ReadError`].
pub async fn last_before(
    pool: &Pool,
    series: SeriesId,
    time: Micros,
) -> Result<Option<Point>, ReadError> {
    let range = TimeRange {
        from: MIN_MEASURED_AT,
        to: time,
    };
    let points = slice(pool, series, range, Order::NewestFirst, 1).await?;
    Ok(points.first().copied())
}

/// The first point at or after an instant.
///
/// # Errors
/// [`ReadError`].
pub async fn first_from(
    pool: &Pool,
    series: SeriesId,
    time: Micros,
) -> Result<Option<Point>, ReadError> {
    let range = TimeRange {
        from: time,
        to: MAX_MEASURED_AT,
    };
    let points = slice(pool, series, range, Order::OldestFirst, 1).await?;
    Ok(points.first().copied())
}

/// A `timestamptz`.
struct Instant(Micros);

impl<'a> FromSql<'a> for Instant {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let since_epoch = i64::from_sql(&Type::INT8, raw)?;
        Ok(Self(since_epoch.saturating_add(POSTGRES_EPOCH)))
    }

    accepts!(TIMESTAMPTZ);
}

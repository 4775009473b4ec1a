//! The points of a series, in slices.
//!
//! In: a series, a range of time and a direction. Out: at most a slice of points in the order of
//! time. The caller asks for the next slice from where the last one ended.
//!
//! A query names one series, so that PostgreSQL walks the key of one partition after the other and
//! sorts nothing. Rows arrive in the binary format of COPY, which costs a tenth of a row of a
//! query.

use bytes::{Buf as _, BytesMut};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use schema::clock::POSTGRES_EPOCH;
use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, Micros, SeriesId};
use tokio_postgres::Client;

use super::{CancelOnDrop, ReadError};
use crate::Pool;

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
    // COPY has no parameters. All of these are numbers and times that were formatted here.
    let statement = format!(
        "COPY (SELECT measured_at, value FROM reading
               WHERE series_id = {series} AND measured_at >= '{}' AND measured_at < '{}'
               ORDER BY measured_at {direction} LIMIT {limit})
         TO STDOUT (FORMAT binary)",
        literal(range.from),
        literal(range.to),
    );
    let connection = CancelOnDrop::connect(pool).await?;
    let points = copy(connection.client()?, &statement).await;
    connection.finish();
    points
}

async fn copy(client: &Client, statement: &str) -> Result<Vec<Point>, ReadError> {
    let stream = client.copy_out(statement).await?;
    let mut stream = std::pin::pin!(stream);
    let mut decoder = Decoder::default();
    while let Some(chunk) = stream.try_next().await? {
        decoder.push(&chunk)?;
    }
    Ok(decoder.points)
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

/// An instant as PostgreSQL reads it, clamped to the times that readings may have. The last of them
/// is later than the last [`Timestamp`].
fn literal(time: Micros) -> String {
    let time = time.clamp(MIN_MEASURED_AT, MAX_MEASURED_AT);
    let instant = Timestamp::from_microsecond(time);
    instant.map_or_else(|_| "infinity".into(), |instant| instant.to_string())
}

/// Signature, flags and length of the extension.
const HEADER: usize = 11 + 4 + 4;
/// Field count, and two fields of eight bytes, each with its length.
const ROW: usize = 2 + 2 * (4 + 8);

/// Decodes `COPY … TO STDOUT (FORMAT binary)` as the manual page of COPY defines it.
#[derive(Default)]
struct Decoder {
    buffer: BytesMut,
    header_read: bool,
    points: Vec<Point>,
}

impl Decoder {
    fn push(&mut self, chunk: &[u8]) -> Result<(), ReadError> {
        self.buffer.extend_from_slice(chunk);
        if !self.header_read {
            if self.buffer.len() < HEADER {
                return Ok(());
            }
            self.buffer.advance(HEADER);
            self.header_read = true;
        }
        while self.buffer.len() >= ROW {
            let mut row = self.buffer.split_to(ROW);
            let malformed = || ReadError::Failed("COPY returned a row of another form".into());
            if row.get_i16() != 2 || row.get_i32() != 8 {
                return Err(malformed());
            }
            let time = row.get_i64().saturating_add(POSTGRES_EPOCH);
            if row.get_i32() != 8 {
                return Err(malformed());
            }
            let value = row.get_f64();
            self.points.push(Point { time, value });
        }
        Ok(())
    }
}

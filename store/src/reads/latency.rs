//! The latency of the stages, from the clocks in the ledger.

use schema::reading::Micros;

use super::{ReadError, query};
use crate::Pool;
use crate::ledger::timestamp;

/// The batches that were stored in one minute. Latencies are in seconds, those of batches without
/// weights; a stage ends with the last reading of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Minute {
    /// Start of the minute.
    pub start: Micros,
    /// Number of batches.
    pub batches: i64,
    /// Number of readings.
    pub readings: i64,
    /// Median and 99th percentile from the last reading's receipt to the enqueueing.
    pub received_to_enqueued: [f64; 2],
    /// The same from there to the worker.
    pub enqueued_to_dequeued: [f64; 2],
    /// The same from there to the commit.
    pub dequeued_to_persisted: [f64; 2],
    /// The same from the first reading's receipt to the commit.
    pub received_to_persisted: [f64; 2],
}

const LATENCY: &str = "
    SELECT (extract(epoch FROM date_bin('1 minute', persisted_at, 'epoch')) * 1000000)::bigint,
           count(*), sum(readings)::bigint,
           percentile_cont('{0.5,0.99}'::float8[]) WITHIN GROUP (ORDER BY greatest(0,
               extract(epoch FROM enqueued_at - last_received)::float8)),
           percentile_cont('{0.5,0.99}'::float8[]) WITHIN GROUP (ORDER BY greatest(0,
               extract(epoch FROM dequeued_at - enqueued_at)::float8)),
           percentile_cont('{0.5,0.99}'::float8[]) WITHIN GROUP (ORDER BY greatest(0,
               extract(epoch FROM persisted_at - dequeued_at)::float8)),
           percentile_cont('{0.5,0.99}'::float8[]) WITHIN GROUP (ORDER BY greatest(0,
               extract(epoch FROM persisted_at - first_received)::float8))
    FROM batch
    WHERE id >= $1 AND persisted_at >= $2 AND persisted_at < $3
    GROUP BY 1 ORDER BY 1";

/// The minutes of a range in which batches were stored.
///
/// # Errors
/// [`ReadError`].
pub async fn minutes(pool: &Pool, from: Micros, to: Micros) -> Result<Vec<Minute>, ReadError> {
    // Ids of batches begin with the milliseconds of their making (UUIDv7), so that the key of the
    // ledger finds them. A batch waits in the queue for at most the time that is allowed for here.
    let first = from.saturating_sub(MAX_QUEUED_MICROS).max(0) / 1_000;
    let first = uuid::Uuid::from_u128(u128::from(first.unsigned_abs()) << 80);
    let (from, to) = (timestamp(from), timestamp(to));
    let rows = query(pool, LATENCY, &[&first, &from, &to]).await?;
    let pair = |row: &tokio_postgres::Row, index: usize| {
        let values: Vec<f64> = row.get(index);
        [values[0], values[1]]
    };
    let minute = |row: &tokio_postgres::Row| Minute {
        start: row.get(0),
        batches: row.get(1),
        readings: row.get(2),
        received_to_enqueued: pair(row, 3),
        enqueued_to_dequeued: pair(row, 4),
        dequeued_to_persisted: pair(row, 5),
        received_to_persisted: pair(row, 6),
    };
    Ok(rows.iter().map(minute).collect())
}

/// How long a batch may have waited in the queue and still be found: a week.
const MAX_QUEUED_MICROS: Micros = 7 * 86_400 * 1_000_000;

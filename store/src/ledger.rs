//! The ledger: which batches have been stored, in the table `batch`.
//!
//! In: batches. Out: which of them are new, and later how many of their readings were stored. The
//! ledger makes the effect of a batch happen once, however often the batch is delivered. Its rows
//! carry the stage clocks.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_postgres::ClientWrapper;
use schema::partition::Day;
use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, Micros};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use crate::rows::BatchCounts;
use crate::transaction::ReceivedBatch;

const INSERT: &str = "
    INSERT INTO batch (id, readings, stored, duplicates, conflicts, dead_letters,
                       first_measured, last_measured, first_received, last_received,
                       enqueued_at, dequeued_at)
    SELECT id, readings, readings, 0, 0, 0, first_measured, last_measured,
           first_received, last_received, enqueued_at, dequeued_at
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::timestamptz[],
                $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])
        AS entry (id, readings, first_measured, last_measured, first_received, last_received,
                  enqueued_at, dequeued_at)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id, EXISTS (SELECT FROM deleted_series
                          WHERE deleted_at > $9::timestamptz - interval '1 day')";

const UPDATE: &str = "
    UPDATE batch SET stored = entry.stored, duplicates = entry.duplicates,
                     conflicts = entry.conflicts, dead_letters = entry.dead_letters,
                     persisted_at = clock_timestamp()
    FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[])
        AS entry (id, stored, duplicates, conflicts, dead_letters)
    WHERE batch.id = entry.id
    RETURNING (
        SELECT max(day) - date '1970-01-01' FROM rollup_day
        WHERE day BETWEEN (first_measured AT TIME ZONE 'UTC')::date
                      AND (last_measured AT TIME ZONE 'UTC')::date)";

const SELECT: &str = "
    SELECT id, stored, duplicates, conflicts, dead_letters FROM batch WHERE id = ANY($1)";

/// Inserts the batches into the ledger. Returns the ids of those that are new, and whether any
/// series was deleted after the oldest batch was enqueued: these may have readings of it. A day is
/// allowed for clocks that differ. Waits for another worker that is storing the same batch.
///
/// # Errors
/// PostgreSQL's error.
pub(crate) async fn insert(
    client: &ClientWrapper,
    received: &[ReceivedBatch],
) -> Result<(HashSet<Uuid>, bool), Error> {
    let mut ids = Vec::with_capacity(received.len());
    let mut readings = Vec::with_capacity(received.len());
    let mut times: [Vec<SystemTime>; 6] = Default::default();
    for ReceivedBatch { batch, dequeued_at } in received {
        ids.push(batch.id);
        readings.push(batch.len() as i32);
        let measured = batch.measured_at.iter().copied();
        let received = batch.receipts.iter().map(|receipt| receipt.received_at);
        let clocks = [
            measured.clone().min().unwrap_or(batch.enqueued_at),
            measured.max().unwrap_or(batch.enqueued_at),
            received.clone().min().unwrap_or(batch.enqueued_at),
            received.max().unwrap_or(batch.enqueued_at),
            batch.enqueued_at,
            *dequeued_at,
        ];
        for (column, clock) in times.iter_mut().zip(clocks) {
            column.push(timestamp(clock));
        }
    }
    let oldest = times[4].iter().min().copied().unwrap_or(UNIX_EPOCH);
    let [a, b, c, d, e, f] = &times;
    let statement = client.prepare_cached(INSERT).await?;
    let rows = client
        .query(&statement, &[&ids, &readings, a, b, c, d, e, f, &oldest])
        .await?;
    let any_deleted = rows.first().is_some_and(|row| row.get(1));
    Ok((rows.iter().map(|row| row.get(0)).collect(), any_deleted))
}

/// Updates the counts of the batches and sets `persisted_at`. Returns the newest closed day
/// ([`crate::rollups`]) that any of them may have readings of.
///
/// # Errors
/// PostgreSQL's error.
pub(crate) async fn update(
    client: &ClientWrapper,
    ids: &[Uuid],
    counts: &[BatchCounts],
) -> Result<Option<Day>, Error> {
    if ids.is_empty() {
        return Ok(None);
    }
    let column = |field: fn(&BatchCounts) -> u32| -> Vec<i32> {
        counts.iter().map(|counts| field(counts) as i32).collect()
    };
    let stored = column(|counts| counts.stored);
    let duplicates = column(|counts| counts.duplicates);
    let conflicts = column(|counts| counts.conflicts);
    let dead_letters = column(|counts| counts.dead_letters);
    let statement = client.prepare_cached(UPDATE).await?;
    let rows = client
        .query(
            &statement,
            &[&ids, &stored, &duplicates, &conflicts, &dead_letters],
        )
        .await?;
    let closed = rows.iter().filter_map(|row| row.get::<_, Option<i32>>(0));
    Ok(closed.max().map(Day))
}

/// The counts of those batches that are in the ledger, each with its index.
///
/// # Errors
/// PostgreSQL's error.
pub async fn counts(
    client: &ClientWrapper,
    received: &[ReceivedBatch],
) -> Result<Vec<(usize, BatchCounts)>, Error> {
    let ids: Vec<Uuid> = received.iter().map(|received| received.batch.id).collect();
    let statement = client.prepare_cached(SELECT).await?;
    let rows = client.query(&statement, &[&ids]).await?;
    let column = |row: &Row, column| u32::try_from(row.get::<_, i32>(column)).unwrap_or_default();
    let entries = rows.iter().filter_map(|row| {
        let id: Uuid = row.get(0);
        let counts = BatchCounts {
            stored: column(row, 1),
            duplicates: column(row, 2),
            conflicts: column(row, 3),
            dead_letters: column(row, 4),
        };
        Some((ids.iter().position(|own| *own == id)?, counts))
    });
    Ok(entries.collect())
}

/// A time as PostgreSQL stores it. Any producer can write to the queue, so that a clock in a
/// message may be outside the calendar; it is clamped.
pub(crate) fn timestamp(micros: Micros) -> SystemTime {
    let micros = micros.clamp(MIN_MEASURED_AT, MAX_MEASURED_AT);
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// The inverse of [`timestamp`].
pub(crate) fn micros(time: SystemTime) -> Micros {
    let clamped =
        |distance: Duration| Micros::try_from(distance.as_micros()).unwrap_or(Micros::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => clamped(since),
        Err(before) => -clamped(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_are_exact_and_those_outside_the_calendar_are_clamped() {
        for (micros, expected) in [
            (0, 0),
            (1, 1),
            (-1, -1),
            (i64::MIN, MIN_MEASURED_AT),
            (i64::MAX, MAX_MEASURED_AT),
        ] {
            assert_eq!(super::micros(timestamp(micros)), expected, "{micros}");
        }
    }
}

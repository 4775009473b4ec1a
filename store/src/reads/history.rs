//! What happened to one reading.
//!
//! In: a series and a time. Out: the stored value, the batches that may have carried the reading,
//! and what was not stored, as JSON objects that PostgreSQL builds. The ledger does not know which
//! readings a batch had, only the range of their times. The ledger and the dead letters have no
//! index for this question, so that they are searched in slices, up to a bound.

use schema::reading::{Micros, SeriesId};
use uuid::Uuid;

use super::{ReadError, query};
use crate::Pool;
use crate::ledger::timestamp;

/// Rows of a slice.
const SLICE: i64 = 10_000;
/// Slices of a search.
const MAX_SLICES: usize = 50;
/// Upper bound on the entries of a list.
const MAX_ENTRIES: i64 = 100;
/// How much later than the time of a batch its readings may have been measured: clocks differ.
const MAX_AHEAD_MICROS: Micros = 86_400 * 1_000_000;

/// A list, and whether everything that could belong to it was searched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// JSON objects.
    pub entries: Vec<String>,
    /// Whether the search reached the end.
    pub complete: bool,
}

/// The stored value.
///
/// # Errors
/// [`ReadError`].
pub async fn stored(pool: &Pool, series: SeriesId, time: Micros) -> Result<Option<f64>, ReadError> {
    let sql = "SELECT value FROM reading WHERE series_id = $1 AND measured_at = $2";
    let rows = query(pool, sql, &[&series, &timestamp(time)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Other values than the stored one that were offered, the oldest first.
///
/// # Errors
/// [`ReadError`].
pub async fn conflicts(pool: &Pool, series: SeriesId, time: Micros) -> Result<Found, ReadError> {
    let sql = "SELECT json_build_object('id', id, 'stored_value', stored_value,
                    'offered_value', offered_value, 'batch', batch_id,
                    'seen_at', gridwatch_time(seen_at))::text
         FROM conflict WHERE series_id = $1 AND measured_at = $2 ORDER BY id LIMIT $3";
    let limit = MAX_ENTRIES + 1;
    let rows = query(pool, sql, &[&series, &timestamp(time), &limit]).await?;
    let mut found = Found {
        entries: rows.iter().map(|row| row.get(0)).collect(),
        complete: true,
    };
    cut(&mut found);
    Ok(found)
}

/// The batches whose readings were measured around this time and that were made after it, the
/// oldest first.
///
/// # Errors
/// [`ReadError`].
pub async fn batches(pool: &Pool, time: Micros) -> Result<Found, ReadError> {
    let sql = format!(
        "WITH slice AS MATERIALIZED (SELECT * FROM batch WHERE id > $1 ORDER BY id LIMIT {SLICE})
         SELECT (SELECT count(*) FROM slice), (SELECT id FROM slice ORDER BY id DESC LIMIT 1),
                ARRAY(SELECT json_build_object('batch', id, 'readings', readings,
                          'stored', stored, 'duplicates', duplicates, 'conflicts', conflicts,
                          'dead_letters', dead_letters,
                          'first_received', gridwatch_time(first_received),
                          'last_received', gridwatch_time(last_received),
                          'enqueued_at', gridwatch_time(enqueued_at),
                          'dequeued_at', gridwatch_time(dequeued_at),
                          'persisted_at', gridwatch_time(persisted_at))::text
                      FROM slice WHERE $2 BETWEEN first_measured AND last_measured
                      ORDER BY id LIMIT {MAX_ENTRIES} + 1)"
    );
    // Ids of batches begin with the milliseconds of their making (UUIDv7).
    let first = time.saturating_sub(MAX_AHEAD_MICROS).max(0) / 1_000;
    let mut after = Uuid::from_u128(u128::from(first.unsigned_abs()) << 80);
    let mut found = Found::default();
    for _ in 0..MAX_SLICES {
        let rows = query(pool, &sql, &[&after, &timestamp(time)]).await?;
        let Some(row) = rows.first() else { break };
        found.entries.extend(row.get::<_, Vec<String>>(2));
        found.complete = row.get::<_, i64>(0) < SLICE;
        if cut(&mut found) || found.complete {
            break;
        }
        after = row.get(1);
    }
    Ok(found)
}

/// The dead letters of this reading, the newest first.
///
/// # Errors
/// [`ReadError`].
pub async fn dead_letters(pool: &Pool, series: SeriesId, time: Micros) -> Result<Found, ReadError> {
    let sql = format!(
        "WITH slice AS MATERIALIZED (
             SELECT * FROM dead_letter WHERE id < $3 ORDER BY id DESC LIMIT {SLICE})
         SELECT (SELECT count(*) FROM slice), (SELECT min(id) FROM slice),
                ARRAY(SELECT json_build_object('id', id, 'code', code, 'detail', detail,
                          'value', CASE WHEN value NOT IN ('NaN', 'Infinity', '-Infinity')
                                        THEN value END,
                          'batch', batch_id,
                          'dead_lettered_at', gridwatch_time(dead_lettered_at))::text
                      FROM slice WHERE series_id = $1 AND measured_at_us = $2
                      ORDER BY id DESC LIMIT {MAX_ENTRIES} + 1)"
    );
    let mut before = i64::MAX;
    let mut found = Found::default();
    for _ in 0..MAX_SLICES {
        let rows = query(pool, &sql, &[&series, &time, &before]).await?;
        let Some(row) = rows.first() else { break };
        found.entries.extend(row.get::<_, Vec<String>>(2));
        found.complete = row.get::<_, i64>(0) < SLICE;
        if cut(&mut found) || found.complete {
            break;
        }
        before = row.get(1);
    }
    Ok(found)
}

/// Keeps a list within its bound. Returns whether it was cut.
fn cut(found: &mut Found) -> bool {
    let max = usize::try_from(MAX_ENTRIES).unwrap_or(usize::MAX);
    let is_cut = found.entries.len() > max;
    if is_cut {
        found.entries.truncate(max);
        found.complete = false;
    }
    is_cut
}

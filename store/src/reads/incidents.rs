//! Readings that are not in the table: conflicts and dead letters, the newest first.
//!
//! In: the id behind which a page starts. Out: a page as JSON objects that PostgreSQL builds, so
//! that a response has the columns of the table.

use super::{ReadError, query};
use crate::Pool;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// Another value than the stored one was offered.
    Conflict,
    /// The reading or the message could not be stored.
    DeadLetter,
}

const CONFLICTS: &str = "
    SELECT c.id, json_build_object('id', c.id, 'device', d.external_id, 'metric', s.metric,
        'time', c.measured_at, 'stored_value', c.stored_value, 'offered_value', c.offered_value,
        'batch', c.batch_id, 'seen_at', c.seen_at)::text
    FROM conflict c LEFT JOIN series s ON s.id = c.series_id LEFT JOIN device d ON d.id = device_id
    WHERE c.id < $1 ORDER BY c.id DESC LIMIT $2";

const DEAD_LETTERS: &str = "
    SELECT l.id, json_build_object('id', l.id, 'code', l.code, 'detail', l.detail,
        'device', d.external_id, 'metric', s.metric, 'measured_at_us', l.measured_at_us,
        'value', CASE WHEN l.value NOT IN ('NaN', 'Infinity', '-Infinity') THEN l.value END,
        'batch', l.batch_id, 'message_sha256', encode(l.message_sha256, 'hex'),
        'dead_lettered_at', l.dead_lettered_at)::text
    FROM dead_letter l LEFT JOIN series s ON s.id = l.series_id
    LEFT JOIN device d ON d.id = device_id
    WHERE l.id < $1 ORDER BY l.id DESC LIMIT $2";

/// The entries with an id below `before`, each with its id, the newest first.
///
/// # Errors
/// [`ReadError`].
pub async fn page(
    pool: &Pool,
    incident: Incident,
    before: i64,
    limit: usize,
) -> Result<Vec<(i64, String)>, ReadError> {
    let statement = match incident {
        Incident::Conflict => CONFLICTS,
        Incident::DeadLetter => DEAD_LETTERS,
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(pool, statement, &[&before, &limit]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

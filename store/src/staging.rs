//! The staging table: the slower path for rows of which some have a key that exists already.
//!
//! In: a range of rows. Out: the new ones are in the reading table; the others are counted as
//! duplicates (same value) or conflicts (another value).

use std::collections::BTreeSet;
use std::ops::Range;

use deadpool_postgres::ClientWrapper;
use schema::partition::Day;
use tokio_postgres::Error;

use crate::copy::{Target, copy_in};
use crate::rows::AssembledRows;

/// Seconds in a day.
const DAY_SECONDS: i64 = 86_400;

const CREATE: &str = "
    CREATE TEMPORARY TABLE IF NOT EXISTS staging (
        series_id integer NOT NULL, measured_at timestamptz NOT NULL,
        value double precision NOT NULL, row integer NOT NULL) ON COMMIT DELETE ROWS;
    TRUNCATE staging";

/// Leaves in the staging table the rows whose key existed.
const INSERT: &str = "
    WITH inserted AS (
        INSERT INTO reading (series_id, measured_at, value)
        SELECT series_id, measured_at, value FROM staging ORDER BY series_id, measured_at
        ON CONFLICT (series_id, measured_at) DO NOTHING
        RETURNING series_id, measured_at)
    DELETE FROM staging USING inserted
    WHERE staging.series_id = inserted.series_id AND staging.measured_at = inserted.measured_at";

/// Selects the stored values of the staged keys between two times.
///
/// The times are in the text so that the planner can exclude partitions: a plan locks every
/// partition that it includes, and there may be thousands. OFFSET prevents a join with the whole
/// partition.
fn select_stored_values(from: i64, to: i64) -> String {
    format!(
        "SELECT staging.row, stored.value
         FROM staging CROSS JOIN LATERAL (
             SELECT value FROM reading
             WHERE reading.series_id = staging.series_id
               AND reading.measured_at = staging.measured_at
               AND reading.measured_at >= to_timestamp({from})
               AND reading.measured_at < to_timestamp({to})
             OFFSET 0) AS stored
         WHERE staging.measured_at >= to_timestamp({from})
           AND staging.measured_at < to_timestamp({to})"
    )
}

/// Stores a range of the rows through the staging table.
///
/// # Errors
/// PostgreSQL's error; the caller rolls back.
pub(crate) async fn store(
    client: &ClientWrapper,
    assembled: &mut AssembledRows,
    range: Range<usize>,
) -> Result<(), Error> {
    client.batch_execute(CREATE).await?;
    copy_in(client, Target::Staging, &assembled.rows[range.clone()]).await?;
    client.batch_execute(INSERT).await?;
    let days: BTreeSet<Day> = assembled.rows[range.clone()]
        .iter()
        .map(|row| Day::of(row.measured_at))
        .collect();
    for day in days {
        let from = i64::from(day.0) * DAY_SECONDS;
        let statement = select_stored_values(from, from + DAY_SECONDS);
        for stored in client.query(&statement, &[]).await? {
            let offset = usize::try_from(stored.get::<_, i32>(0)).unwrap_or_default();
            assembled.mark_existing(range.start + offset, stored.get(1));
        }
    }
    Ok(())
}

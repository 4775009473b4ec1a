//! What could not be stored as it came: the tables `conflict` and `dead_letter`.
//!
//! In: conflicts, dead letters and poison messages of a transaction. Out: a row for each.

use std::time::SystemTime;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Error;
use uuid::Uuid;

use crate::ledger::timestamp;
use crate::rows::{Conflict, DeadLetter};
use crate::transaction::PoisonMessage;

const INSERT_CONFLICTS: &str = "
    INSERT INTO conflict (series_id, measured_at, stored_value, offered_value, batch_id)
    SELECT * FROM unnest($1::integer[], $2::timestamptz[], $3::float8[], $4::float8[],
                         $5::uuid[])";

const INSERT_DEAD_LETTERS: &str = "
    INSERT INTO dead_letter (code, detail, batch_id, series_id, measured_at_us, value)
    SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::integer[], $5::bigint[],
                         $6::float8[])";

const INSERT_POISON: &str = "
    INSERT INTO dead_letter (code, detail, message_sha256)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
    ON CONFLICT (message_sha256) DO NOTHING";

fn column<T, C>(rows: &[T], field: impl Fn(&T) -> C) -> Vec<C> {
    rows.iter().map(field).collect()
}

/// Inserts conflicts. `batch_ids` are indexed by the batch of a row.
pub(crate) async fn insert_conflicts(
    client: &ClientWrapper,
    conflicts: &[Conflict],
    batch_ids: &[Uuid],
) -> Result<(), Error> {
    if conflicts.is_empty() {
        return Ok(());
    }
    let series = column(conflicts, |conflict| conflict.row.series_id);
    let times: Vec<SystemTime> = column(conflicts, |conflict| timestamp(conflict.row.measured_at));
    let stored = column(conflicts, |conflict| conflict.stored);
    let offered = column(conflicts, |conflict| conflict.row.value);
    let batches = column(conflicts, |conflict| batch_ids[conflict.row.batch as usize]);
    let statement = client.prepare_cached(INSERT_CONFLICTS).await?;
    client
        .execute(&statement, &[&series, &times, &stored, &offered, &batches])
        .await?;
    Ok(())
}

/// Inserts the readings that the table refuses. `batch_ids` are indexed by the batch of a row.
pub(crate) async fn insert_dead_letters(
    client: &ClientWrapper,
    letters: &[DeadLetter],
    batch_ids: &[Uuid],
) -> Result<(), Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let codes: Vec<&str> = letters.iter().map(|letter| letter.code.as_str()).collect();
    let details: Vec<&str> = letters
        .iter()
        .map(|letter| letter.detail.as_str())
        .collect();
    let batches = column(letters, |letter| batch_ids[letter.row.batch as usize]);
    let series = column(letters, |letter| letter.row.series_id);
    let times = column(letters, |letter| letter.row.measured_at);
    let values = column(letters, |letter| letter.row.value);
    let statement = client.prepare_cached(INSERT_DEAD_LETTERS).await?;
    client
        .execute(
            &statement,
            &[&codes, &details, &batches, &series, &times, &values],
        )
        .await?;
    Ok(())
}

/// Inserts the reasons of poison messages, each message once.
pub(crate) async fn insert_poison(
    client: &ClientWrapper,
    poison: &[PoisonMessage],
) -> Result<(), Error> {
    if poison.is_empty() {
        return Ok(());
    }
    let codes: Vec<&str> = poison.iter().map(|poison| poison.code).collect();
    let details: Vec<&str> = poison.iter().map(|poison| poison.detail.as_str()).collect();
    let digests: Vec<&[u8]> = poison.iter().map(|poison| &poison.digest[..]).collect();
    let statement = client.prepare_cached(INSERT_POISON).await?;
    client
        .execute(&statement, &[&codes, &details, &digests])
        .await?;
    Ok(())
}

//! Storing: one transaction, from the ledger to the commit.
//!
//! In: batches and poison messages. Out: all of it committed, and the books of it; or nothing of it, and PostgreSQL's
//! error. The transaction enters each batch into the ledger and leaves out those that are in it already; copies the rows
//! straight into the table; only where a key is stored already does it go over a staging table; and where a row is refused,
//! it halves the rows until the bad one stands alone and becomes a dead letter.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_postgres::ClientWrapper;
use schema::Batch;
use schema::partition::Day;
use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, Micros};
use tokio_postgres::Error;
use uuid::Uuid;

use crate::assemble::{Assembled, Conflict, DeadLetter, Tallied, assemble};
use crate::copy::{Target, copy_in};
use crate::failure::{Class, classify};

/// Seconds of a day.
const SECONDS: i64 = 86_400;

/// A batch, and when it was taken from the source.
#[derive(Debug)]
pub struct Taken {
    /// The batch.
    pub batch: Arc<Batch>,
    /// When it was taken.
    pub dequeued_at: Micros,
}

/// A message that is no batch. The message itself is kept by the source; this is the reason.
#[derive(Debug, Clone)]
pub struct Poison {
    /// SHA-256 of the message: so that its row is written once, and can be found from the message.
    pub digest: [u8; 32],
    /// Stable code.
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

/// What a transaction did.
#[derive(Debug, Default)]
pub struct Stored {
    /// Index of each batch that was new, and how its readings ended. The others were in the ledger.
    pub fresh: Vec<(usize, Tallied)>,
    /// Whether any key was stored already.
    pub staged: bool,
}

const ENTER: &str = "
    INSERT INTO batch (id, readings, stored, duplicates, conflicts, dead_letters, first_measured, last_measured,
                       first_received, last_received, enqueued_at, dequeued_at)
    SELECT id, readings, readings, 0, 0, 0, first_measured, last_measured, first_received, last_received,
           enqueued_at, dequeued_at
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
                $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])
        AS entry (id, readings, first_measured, last_measured, first_received, last_received, enqueued_at, dequeued_at)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

const FINISH: &str = "
    UPDATE batch SET stored = entry.stored, duplicates = entry.duplicates, conflicts = entry.conflicts,
                     dead_letters = entry.dead_letters, persisted_at = clock_timestamp()
    FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[])
        AS entry (id, stored, duplicates, conflicts, dead_letters)
    WHERE batch.id = entry.id";

const TALLIES: &str =
    "SELECT id, stored, duplicates, conflicts, dead_letters FROM batch WHERE id = ANY($1)";

const CREATE_STAGING: &str = "
    CREATE TEMPORARY TABLE IF NOT EXISTS staging (
        series_id integer NOT NULL, measured_at timestamptz NOT NULL, value double precision NOT NULL,
        row integer NOT NULL) ON COMMIT DELETE ROWS;
    TRUNCATE staging";

/// Leaves in the staging table those rows whose key was stored already.
const INSERT_STAGED: &str = "
    WITH inserted AS (
        INSERT INTO reading (series_id, measured_at, value)
        SELECT series_id, measured_at, value FROM staging ORDER BY series_id, measured_at
        ON CONFLICT (series_id, measured_at) DO NOTHING
        RETURNING series_id, measured_at)
    DELETE FROM staging USING inserted
    WHERE staging.series_id = inserted.series_id AND staging.measured_at = inserted.measured_at";

/// The stored values of the staged keys between two times. The times stand in the text, so that the planner sees which
/// partitions are out of the question: a plan locks every partition that it leaves in, and there may be thousands. OFFSET
/// keeps it from joining the whole partition.
fn stored_values(from: i64, to: i64) -> String {
    format!(
        "SELECT staging.row, stored.value
         FROM staging CROSS JOIN LATERAL (
             SELECT value FROM reading
             WHERE reading.series_id = staging.series_id AND reading.measured_at = staging.measured_at
               AND reading.measured_at >= to_timestamp({from}) AND reading.measured_at < to_timestamp({to})
             OFFSET 0) AS stored
         WHERE staging.measured_at >= to_timestamp({from}) AND staging.measured_at < to_timestamp({to})"
    )
}

const KEEP_CONFLICTS: &str = "
    INSERT INTO conflict (series_id, measured_at, stored_value, offered_value, batch_id)
    SELECT * FROM unnest($1::integer[], $2::timestamptz[], $3::float8[], $4::float8[], $5::uuid[])";

const KEEP_DEAD_LETTERS: &str = "
    INSERT INTO dead_letter (code, detail, batch_id, series_id, measured_at_us, value)
    SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::integer[], $5::bigint[], $6::float8[])";

const KEEP_POISON: &str = "
    INSERT INTO dead_letter (code, detail, message_sha256)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
    ON CONFLICT (message_sha256) DO NOTHING";

/// Runs one transaction. The days of the readings must have their partitions.
///
/// # Errors
/// PostgreSQL's; the transaction is open or unknown then, so the connection must be thrown away, which rolls it back.
/// Only an error of the COMMIT itself leaves open whether all of it is stored: just before it, `committing` is given the
/// batches that are stored if it succeeds. With `final_attempt` a row that no partition takes is refused like any bad row.
pub async fn store(
    client: &ClientWrapper,
    taken: &[Taken],
    poison: &[Poison],
    final_attempt: bool,
    committing: &mut Vec<usize>,
) -> Result<Stored, Error> {
    client.batch_execute("BEGIN").await?;
    let mut new = enter(client, taken).await?;
    // An id that is twice among the batches is new once.
    let fresh: Vec<usize> = (0..taken.len())
        .filter(|&index| new.remove(&taken[index].batch.id))
        .collect();
    let batches = fresh.iter().map(|&index| &*taken[index].batch);
    let mut assembled = assemble(batches);
    let staged = store_rows(client, &mut assembled, final_attempt).await?;
    let ids: Vec<Uuid> = fresh.iter().map(|&index| taken[index].batch.id).collect();
    keep(client, &assembled, &ids, poison).await?;
    finish(client, &ids, &assembled.tallies).await?;
    committing.clone_from(&fresh);
    client.batch_execute("COMMIT").await?;
    Ok(Stored {
        fresh: fresh.into_iter().zip(assembled.tallies).collect(),
        staged,
    })
}

/// What the ledger says of batches that may have been committed: by their index.
///
/// # Errors
/// PostgreSQL's.
pub async fn tallies(
    client: &ClientWrapper,
    taken: &[Taken],
) -> Result<Vec<(usize, Tallied)>, Error> {
    let ids: Vec<Uuid> = taken.iter().map(|taken| taken.batch.id).collect();
    let count = |row: &tokio_postgres::Row, column| {
        u32::try_from(row.get::<_, i32>(column)).unwrap_or_default()
    };
    let rows = client
        .query(&client.prepare_cached(TALLIES).await?, &[&ids])
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let id: Uuid = row.get(0);
            let tallied = Tallied {
                stored: count(row, 1),
                duplicates: count(row, 2),
                conflicts: count(row, 3),
                dead_letters: count(row, 4),
            };
            Some((ids.iter().position(|own| *own == id)?, tallied))
        })
        .collect())
}

/// Enters the batches into the ledger and returns the ids of the new ones. Waits for another worker that is storing the
/// same batch.
async fn enter(client: &ClientWrapper, taken: &[Taken]) -> Result<HashSet<Uuid>, Error> {
    let mut ids = Vec::with_capacity(taken.len());
    let mut readings = Vec::with_capacity(taken.len());
    let mut times: [Vec<SystemTime>; 6] = Default::default();
    for Taken { batch, dequeued_at } in taken {
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
            column.push(time(clock));
        }
    }
    let [a, b, c, d, e, f] = &times;
    let statement = client.prepare_cached(ENTER).await?;
    let rows = client
        .query(&statement, &[&ids, &readings, a, b, c, d, e, f])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Stores the rows, and notes in `assembled` which of them were stored already or refused. Returns whether any was.
async fn store_rows(
    client: &ClientWrapper,
    assembled: &mut Assembled,
    final_attempt: bool,
) -> Result<bool, Error> {
    let is_bad = |error: &Error| match classify(error) {
        Class::BadRow => true,
        Class::NoPartition => final_attempt,
        _ => false,
    };
    let mut staged = false;
    let mut ranges = Vec::new();
    if !assembled.rows.is_empty() {
        ranges.push(0..assembled.rows.len());
    }
    while let Some(range) = ranges.pop() {
        client.batch_execute("SAVEPOINT rows").await?;
        let mut result = copy_in(client, Target::Reading, &assembled.rows[range.clone()]).await;
        if let Err(error) = &result
            && classify(error) == Class::KeyExists
        {
            client.batch_execute("ROLLBACK TO SAVEPOINT rows").await?;
            staged = true;
            result = store_staged(client, assembled, range.clone()).await;
        }
        match result {
            Ok(()) => client.batch_execute("RELEASE SAVEPOINT rows").await?,
            Err(error) if is_bad(&error) => {
                client
                    .batch_execute("ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows")
                    .await?;
                if range.len() == 1 {
                    refuse(assembled, range.start, &error);
                } else {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(staged)
}

/// Stores a range of the rows over the staging table: those whose key is stored already are told apart by their value.
async fn store_staged(
    client: &ClientWrapper,
    assembled: &mut Assembled,
    range: Range<usize>,
) -> Result<(), Error> {
    client.batch_execute(CREATE_STAGING).await?;
    copy_in(client, Target::Staging, &assembled.rows[range.clone()]).await?;
    client.batch_execute(INSERT_STAGED).await?;
    let days: BTreeSet<Day> = assembled.rows[range.clone()]
        .iter()
        .map(|row| Day::of(row.measured_at))
        .collect();
    for day in days {
        let begin = i64::from(day.0) * SECONDS;
        for stored in client
            .query(&stored_values(begin, begin + SECONDS), &[])
            .await?
        {
            let index = range.start + usize::try_from(stored.get::<_, i32>(0)).unwrap_or_default();
            note_stored(assembled, index, stored.get(1));
        }
    }
    Ok(())
}

/// A row's key was stored already, with this value.
fn note_stored(assembled: &mut Assembled, index: usize, stored: f64) {
    let row = assembled.rows[index];
    let tally = &mut assembled.tallies[row.batch as usize];
    tally.stored -= 1;
    if row.value == stored {
        tally.duplicates += 1;
    } else {
        tally.conflicts += 1;
        assembled.conflicts.push(Conflict { row, stored });
    }
}

fn refuse(assembled: &mut Assembled, index: usize, error: &Error) {
    let row = assembled.rows[index];
    let tally = &mut assembled.tallies[row.batch as usize];
    tally.stored -= 1;
    tally.dead_letters += 1;
    let (code, detail) = match error.as_db_error() {
        Some(database) => (database.code().code(), database.message().to_owned()),
        None => ("unknown", error.to_string()),
    };
    assembled.dead_letters.push(DeadLetter {
        row,
        code: format!("sqlstate_{code}"),
        detail,
    });
}

async fn keep(
    client: &ClientWrapper,
    assembled: &Assembled,
    ids: &[Uuid],
    poison: &[Poison],
) -> Result<(), Error> {
    let conflicts = &assembled.conflicts;
    if !conflicts.is_empty() {
        let series: Vec<i32> = conflicts
            .iter()
            .map(|conflict| conflict.row.series_id)
            .collect();
        let times: Vec<SystemTime> = conflicts
            .iter()
            .map(|conflict| time(conflict.row.measured_at))
            .collect();
        let stored: Vec<f64> = conflicts.iter().map(|conflict| conflict.stored).collect();
        let offered: Vec<f64> = conflicts
            .iter()
            .map(|conflict| conflict.row.value)
            .collect();
        let batches: Vec<Uuid> = conflicts
            .iter()
            .map(|conflict| ids[conflict.row.batch as usize])
            .collect();
        let statement = client.prepare_cached(KEEP_CONFLICTS).await?;
        client
            .execute(&statement, &[&series, &times, &stored, &offered, &batches])
            .await?;
    }
    let letters = &assembled.dead_letters;
    if !letters.is_empty() {
        let codes: Vec<&str> = letters.iter().map(|letter| letter.code.as_str()).collect();
        let details: Vec<&str> = letters
            .iter()
            .map(|letter| letter.detail.as_str())
            .collect();
        let batches: Vec<Uuid> = letters
            .iter()
            .map(|letter| ids[letter.row.batch as usize])
            .collect();
        let series: Vec<i32> = letters.iter().map(|letter| letter.row.series_id).collect();
        let times: Vec<i64> = letters
            .iter()
            .map(|letter| letter.row.measured_at)
            .collect();
        let values: Vec<f64> = letters.iter().map(|letter| letter.row.value).collect();
        let statement = client.prepare_cached(KEEP_DEAD_LETTERS).await?;
        client
            .execute(
                &statement,
                &[&codes, &details, &batches, &series, &times, &values],
            )
            .await?;
    }
    if !poison.is_empty() {
        let codes: Vec<&str> = poison.iter().map(|poison| poison.code).collect();
        let details: Vec<&str> = poison.iter().map(|poison| poison.detail.as_str()).collect();
        let digests: Vec<&[u8]> = poison.iter().map(|poison| &poison.digest[..]).collect();
        let statement = client.prepare_cached(KEEP_POISON).await?;
        client
            .execute(&statement, &[&codes, &details, &digests])
            .await?;
    }
    Ok(())
}

async fn finish(client: &ClientWrapper, ids: &[Uuid], tallies: &[Tallied]) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let column = |field: fn(&Tallied) -> u32| {
        tallies
            .iter()
            .map(|tally| field(tally) as i32)
            .collect::<Vec<_>>()
    };
    let stored = column(|tally| tally.stored);
    let duplicates = column(|tally| tally.duplicates);
    let conflicts = column(|tally| tally.conflicts);
    let dead_letters = column(|tally| tally.dead_letters);
    let statement = client.prepare_cached(FINISH).await?;
    client
        .execute(
            &statement,
            &[&ids, &stored, &duplicates, &conflicts, &dead_letters],
        )
        .await?;
    Ok(())
}

/// A clock as PostgreSQL takes it. Clocks of the wire are anyone's; those beyond the calendar are put on its edge.
fn time(micros: Micros) -> SystemTime {
    let micros = micros.clamp(MIN_MEASURED_AT, MAX_MEASURED_AT);
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

//! The transaction that stores batches, from the ledger to the commit.
//!
//! In: batches and poison messages. Out: all of them are committed and counted, or nothing is, and
//! PostgreSQL's error is returned. The transaction inserts each batch into the ledger and skips
//! those that are there already. Readings of deleted series become dead letters. It copies the rows straight into the reading table. If a key
//! exists already, the rows go through the staging table. If a row is refused, the rows are
//! bisected until the bad one is alone and becomes a dead letter.

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use schema::Batch;
use schema::reading::{Micros, SeriesId};
use tokio_postgres::Error;
use uuid::Uuid;

use crate::copy::{Target, copy_in};
use crate::error::{ErrorClass, classify};
use crate::rows::{AssembledRows, BatchCounts, assemble};
use crate::{ledger, rejects, staging};

/// A batch, and when it was received from the source.
#[derive(Debug)]
pub struct ReceivedBatch {
    /// The batch.
    pub batch: Arc<Batch>,
    /// When it was received.
    pub dequeued_at: Micros,
}

/// A message that is not a valid batch. The source keeps the message itself; this is the reason.
#[derive(Debug, Clone)]
pub struct PoisonMessage {
    /// SHA-256 of the message: its row is written once, and can be found from the message.
    pub digest: [u8; 32],
    /// Stable code.
    pub code: &'static str,
    /// The reason, for people.
    pub detail: String,
}

/// The effect of a transaction.
#[derive(Debug, Default)]
pub struct StoredBatches {
    /// Index and counts of each batch that was new. The others were in the ledger.
    pub new: Vec<(usize, BatchCounts)>,
    /// Whether any key existed already.
    pub staged: bool,
}

/// Runs one transaction. The days of the readings must have their partitions.
///
/// With `final_attempt`, a row that no partition accepts is dead-lettered like any bad row.
///
/// # Errors
/// PostgreSQL's error. The transaction is then open or in doubt, and the caller must discard the
/// connection, which rolls back. Only an error of COMMIT leaves it in doubt whether everything is
/// stored: just before it, `committing` receives the indexes of the batches that are stored if the
/// commit succeeds.
pub async fn store_batches(
    client: &ClientWrapper,
    received: &[ReceivedBatch],
    poison: &[PoisonMessage],
    final_attempt: bool,
    committing: &mut Vec<usize>,
) -> Result<StoredBatches, Error> {
    client.batch_execute("BEGIN").await?;
    let (mut new_ids, any_deleted) = ledger::insert(client, received).await?;
    // An id that occurs twice among the batches is new once.
    let new: Vec<usize> = (0..received.len())
        .filter(|&index| new_ids.remove(&received[index].batch.id))
        .collect();
    let batches = new.iter().map(|&index| &*received[index].batch);
    let mut assembled = assemble(batches);
    if any_deleted {
        reject_deleted(client, &mut assembled).await?;
    }
    let staged = store_rows(client, &mut assembled, final_attempt).await?;
    let ids: Vec<Uuid> = new.iter().map(|&index| received[index].batch.id).collect();
    rejects::insert_conflicts(client, &assembled.conflicts, &ids).await?;
    rejects::insert_dead_letters(client, &assembled.dead_letters, &ids).await?;
    rejects::insert_poison(client, poison).await?;
    ledger::update(client, &ids, &assembled.counts).await?;
    committing.clone_from(&new);
    client.batch_execute("COMMIT").await?;
    Ok(StoredBatches {
        new: new.into_iter().zip(assembled.counts).collect(),
        staged,
    })
}

/// Makes dead letters of the readings whose series was deleted while they were in the queue.
async fn reject_deleted(
    client: &ClientWrapper,
    assembled: &mut AssembledRows,
) -> Result<(), Error> {
    // Rows are sorted by series.
    let mut series: Vec<SeriesId> = assembled.rows.iter().map(|row| row.series_id).collect();
    series.dedup();
    let sql = "SELECT series_id FROM deleted_series WHERE series_id = ANY($1)";
    let statement = client.prepare_cached(sql).await?;
    let deleted = client.query(&statement, &[&series]).await?;
    let deleted: HashSet<SeriesId> = deleted.iter().map(|row| row.get(0)).collect();
    if !deleted.is_empty() {
        assembled.reject_deleted(&deleted);
    }
    Ok(())
}

/// Stores the rows, and records in `assembled` which of them existed already or were refused.
/// Returns whether any key existed.
async fn store_rows(
    client: &ClientWrapper,
    assembled: &mut AssembledRows,
    final_attempt: bool,
) -> Result<bool, Error> {
    let is_bad_row = |error: &Error| match classify(error) {
        ErrorClass::BadRow => true,
        ErrorClass::NoPartition => final_attempt,
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
            && classify(error) == ErrorClass::KeyExists
        {
            client.batch_execute("ROLLBACK TO SAVEPOINT rows").await?;
            staged = true;
            result = staging::store(client, assembled, range.clone()).await;
        }
        match result {
            Ok(()) => client.batch_execute("RELEASE SAVEPOINT rows").await?,
            Err(error) if is_bad_row(&error) => {
                client
                    .batch_execute("ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows")
                    .await?;
                if range.len() == 1 {
                    assembled.mark_refused(range.start, &error);
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

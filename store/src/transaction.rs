//! The transaction that stores batches, from the ledger to the commit.
//!
//! In: batches and poison messages. Out: all of them are committed and counted, or nothing is, and
//! PostgreSQL's error is returned. The transaction inserts each batch into the ledger and skips
//! those that are there already. Readings of deleted series become dead letters. It copies the rows
//! straight into the reading table. If a key exists already, the rows go through the staging table.
//! If a row is refused, the rows are bisected until the bad one is alone and becomes a dead letter.

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use schema::Batch;
use schema::partition::Day;
use schema::reading::{Micros, SeriesId};
use tokio_postgres::Error;
use uuid::Uuid;

use crate::copy::{Target, copy_in};
use crate::error::{ErrorClass, classify};
use crate::rows::{AssembledRows, BatchCounts, Row, assemble};
use crate::{ledger, rejects, rollups, staging};

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
    assembled.settle_repeats();
    let ids: Vec<Uuid> = new.iter().map(|&index| received[index].batch.id).collect();
    rejects::insert_conflicts(client, &assembled.conflicts, &ids).await?;
    rejects::insert_dead_letters(client, &assembled.dead_letters, &ids).await?;
    rejects::insert_poison(client, poison).await?;
    if let Some(newest) = ledger::update(client, &ids, &assembled.counts).await? {
        mark_closed_days(client, &assembled, newest).await?;
    }
    committing.clone_from(&new);
    client.batch_execute("COMMIT").await?;
    Ok(StoredBatches {
        new: new.into_iter().zip(assembled.counts).collect(),
        staged,
    })
}

/// Marks the roll-ups that the new rows make invalid. `newest` is the newest closed day that they
/// may have. The transaction has written before this: a day that is closed after this statement is
/// not built before the transaction has ended.
async fn mark_closed_days(
    client: &ClientWrapper,
    assembled: &AssembledRows,
    newest: Day,
) -> Result<(), Error> {
    // Rows are sorted by series and time.
    let key = |row: &Row| (row.series_id, Day::of(row.measured_at));
    let mut marks: Vec<_> = assembled.stored().map(key).collect();
    marks.retain(|(_, day)| *day <= newest);
    marks.dedup();
    if marks.is_empty() {
        return Ok(());
    }
    rollups::mark(client, &marks).await
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

#[cfg(test)]
mod tests {
    use schema::Reading;
    use schema::batch::Receipt;
    use tokio_postgres::Client;

    use super::*;
    use crate::testing::{connect, create_database, pool};

    /// 2026-11-20T00:00:00Z.
    const BEGIN: Micros = 1_795_132_800_000_000;

    /// A database whose table refuses the value 666, and has one reading of series 1.
    async fn create() -> (crate::Pool, Client) {
        let url = create_database().await;
        let client = connect(&url).await;
        client
            .batch_execute(
                "ALTER TABLE reading ADD CONSTRAINT refused CHECK (value <> 666);
                 SELECT gridwatch_create_reading_day('2026-11-20');
                 INSERT INTO reading VALUES (1, '2026-11-20T00:00:00Z', 5)",
            )
            .await
            .unwrap();
        (pool(&url, 1), client)
    }

    /// A batch of readings of series 1, each with its time after [`BEGIN`] and its value.
    fn received(readings: &[(Micros, f64)]) -> ReceivedBatch {
        let mut batch = Batch {
            enqueued_at: BEGIN,
            ..Batch::new()
        };
        batch.receipts.push(Receipt {
            received_at: BEGIN,
            count: readings.len() as u32,
        });
        for &(after, value) in readings {
            batch.push(Reading {
                series_id: 1,
                measured_at: BEGIN + after,
                value,
            });
        }
        ReceivedBatch {
            batch: Arc::new(batch),
            dequeued_at: BEGIN,
        }
    }

    async fn texts(client: &Client, query: &str) -> Vec<String> {
        let rows = client.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    #[tokio::test]
    async fn bad_rows_and_conflicts_are_kept_with_their_reason_and_cost_no_other_row() {
        let (pool, sql) = create().await;
        // One of another day, which has no partition; two that are refused; one that exists with
        // another value and one with the same; and 100 good ones.
        let mut readings = vec![(-86_400_000_000, 1.0), (0, 7.0), (1, 666.0), (60, 666.0)];
        readings.extend((100..200).map(|n| (n, n as f64)));
        let first = received(&readings);
        let second = received(&[(0, 5.0), (300, 1.0)]);
        let poison = PoisonMessage {
            digest: [7; 32],
            code: "not_a_batch",
            detail: "test".into(),
        };
        let client = pool.get().await.unwrap();
        let mut committing = Vec::new();
        let stored = store_batches(
            &client,
            &[first, second],
            std::slice::from_ref(&poison),
            true,
            &mut committing,
        )
        .await
        .unwrap();
        let counts = |stored, duplicates, conflicts, dead_letters| BatchCounts {
            stored,
            duplicates,
            conflicts,
            dead_letters,
        };
        // The stored value is 5: 7 is a conflict, and the 5 behind it a duplicate.
        assert_eq!(
            stored.new,
            [(0, counts(100, 0, 1, 3)), (1, counts(1, 1, 0, 0))]
        );
        assert!(stored.staged);
        assert_eq!(committing, [0, 1]);
        let count = "SELECT count(*)::text FROM reading";
        assert_eq!(texts(&sql, count).await, ["102"]);
        let conflicts = "SELECT stored_value || ' ' || offered_value FROM conflict ORDER BY id";
        assert_eq!(texts(&sql, conflicts).await, ["5 7"]);
        let dead = "SELECT code || ' ' || coalesce(value::text, encode(message_sha256, 'hex'))
                    FROM dead_letter ORDER BY id";
        let mut dead = texts(&sql, dead).await;
        dead.sort();
        let poisoned = format!("not_a_batch {}", "07".repeat(32));
        let expected = [
            &poisoned,
            "sqlstate_23514 1",
            "sqlstate_23514 666",
            "sqlstate_23514 666",
        ];
        assert_eq!(dead, expected);
    }

    #[tokio::test]
    async fn a_missing_partition_fails_the_transaction_until_the_final_attempt() {
        let (pool, sql) = create().await;
        let client = pool.get().await.unwrap();
        let received = [received(&[(-86_400_000_000, 1.0)])];
        let mut committing = Vec::new();
        let error = store_batches(&client, &received, &[], false, &mut committing)
            .await
            .unwrap_err();
        assert_eq!(classify(&error), ErrorClass::NoPartition);
        assert!(committing.is_empty());
        let dead = "SELECT code FROM dead_letter";
        assert!(texts(&sql, dead).await.is_empty());
    }
}

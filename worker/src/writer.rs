//! The writer: one transaction into PostgreSQL, with as many attempts as it takes.
//!
//! In: a pending transaction. Out: it is committed and counted, or the process stops first and its
//! deliveries are returned to the queue. A transient error is retried with backoff on a new
//! connection; nothing is lost, because nothing is acknowledged. A fatal error ends the process.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use schema::clock::{self, Stage};
use schema::metric;
use service::Context;
use service::histogram::LocalHistogram;
use service::log_limit::LogLimit;
use service::metrics::Histograms;
use store::error::{ErrorClass, cause, classify};
use store::ledger;
use store::partitions::Partitions;
use store::rows::BatchCounts;
use store::transaction::{ReceivedBatch, StoredBatches, store_batches};
use store::{Object, Pool};
use tokio_util::sync::CancellationToken;

use crate::intake::TransactionWriter;
use crate::pending::PendingTransaction;

/// How many attempts may fail because of a missing partition before its rows are dead-lettered.
const PARTITION_ATTEMPTS: usize = 2;
/// First and longest pause between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The process stops; the deliveries are returned to the queue.
    #[error("stopped while PostgreSQL was unavailable")]
    Stopped,
    /// PostgreSQL reports an error that no retry resolves.
    #[error("PostgreSQL: {0}")]
    Fatal(String),
}

/// Writes transactions, each on a connection of the pool. One per process.
#[derive(Debug)]
pub(crate) struct Writer {
    pool: Pool,
    partitions: Arc<Partitions>,
    histograms: Arc<Histograms>,
    stop: CancellationToken,
    counters: Counters,
    retry_log: LogLimit,
}

#[derive(Debug)]
struct Counters {
    persisted: Counter,
    duplicate: Counter,
    conflict: Counter,
    dead_lettered: Counter,
    redelivered: Counter,
    transactions: Counter,
    staged: Counter,
    retries: Counter,
}

impl Counters {
    fn new() -> Self {
        Self {
            persisted: metrics::counter!(metric::PERSISTED.name),
            duplicate: metrics::counter!(metric::DUPLICATE.name),
            conflict: metrics::counter!(metric::CONFLICT.name),
            dead_lettered: metrics::counter!(metric::DEAD_LETTERED.name),
            redelivered: metrics::counter!(metric::REDELIVERED_BATCHES.name),
            transactions: metrics::counter!(metric::TRANSACTIONS.name),
            staged: metrics::counter!(metric::STAGED_TRANSACTIONS.name),
            retries: metrics::counter!(metric::TRANSACTION_RETRIES.name),
        }
    }
}

/// State of the attempts at one transaction.
#[derive(Debug, Default)]
struct Attempts {
    /// Indexes of the batches that an earlier attempt may have committed: its COMMIT failed, so
    /// that the outcome is unknown.
    in_doubt: BTreeSet<usize>,
    /// Number of attempts that failed because of a missing partition.
    without_partition: usize,
}

/// The result of an attempt that succeeded.
struct Committed {
    stored: StoredBatches,
    /// What the ledger has for the batches that were in doubt before.
    ledger: Vec<(usize, BatchCounts)>,
}

/// The error of an attempt.
enum AttemptError {
    Postgres(store::Error),
    Connect(String),
}

impl Writer {
    /// A writer on this pool. After the stop signal a transaction that fails is not retried.
    pub(crate) fn new(context: &Context, pool: Pool, partitions: Arc<Partitions>) -> Self {
        Self {
            pool,
            partitions,
            histograms: context.histograms.clone(),
            stop: context.stop.clone(),
            counters: Counters::new(),
            retry_log: LogLimit::new(),
        }
    }
}

impl TransactionWriter for Writer {
    async fn write(&self, transaction: &PendingTransaction) -> Result<(), WriteError> {
        let mut pause = BACKOFF.0;
        let mut attempts = Attempts::default();
        loop {
            let mut committing = Vec::new();
            let attempt = self.attempt(transaction, &attempts, &mut committing);
            let reason = match attempt.await {
                Ok(committed) => {
                    self.count(&transaction.batches, committed, &attempts.in_doubt);
                    return Ok(());
                }
                Err(AttemptError::Connect(reason)) => reason,
                Err(AttemptError::Postgres(error)) => {
                    let reason = cause(&error);
                    match classify(&error) {
                        ErrorClass::Transient | ErrorClass::KeyExists => {}
                        ErrorClass::NoPartition => attempts.without_partition += 1,
                        ErrorClass::BadRow | ErrorClass::Fatal => {
                            return Err(WriteError::Fatal(reason));
                        }
                    }
                    reason
                }
            };
            attempts.in_doubt.extend(committing);
            if self.stop.is_cancelled() {
                return Err(WriteError::Stopped);
            }
            if let Some(attempts) = self.retry_log.count() {
                tracing::warn!(reason, attempts, "cannot store readings; retrying");
            }
            self.counters.retries.increment(1);
            let pausing = tokio::time::sleep(pause);
            self.stop.run_until_cancelled(pausing).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

impl Writer {
    /// Makes one attempt. `committing` receives the indexes of the batches that are stored if the
    /// commit succeeds, before it is sent.
    async fn attempt(
        &self,
        transaction: &PendingTransaction,
        attempts: &Attempts,
        committing: &mut Vec<usize>,
    ) -> Result<Committed, AttemptError> {
        let client = self
            .pool
            .get()
            .await
            .map_err(|error| AttemptError::Connect(cause(&error)))?;
        // A partition that is missing after it was created is detached, or was dropped on purpose.
        let final_attempt = attempts.without_partition >= PARTITION_ATTEMPTS;
        let PendingTransaction {
            batches,
            poison,
            days,
            ..
        } = transaction;
        let result = async {
            self.partitions.ensure(&client, days).await?;
            let begin = tokio::time::Instant::now();
            let stored = store_batches(&client, batches, poison, final_attempt, committing).await?;
            let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.histograms.transaction.record(micros, 1);
            let ledger = if attempts.in_doubt.is_empty() {
                Vec::new()
            } else {
                ledger::counts(&client, batches).await?
            };
            Ok(Committed { stored, ledger })
        }
        .await;
        if let Err(error) = &result {
            // The transaction may be open, and the pool does not roll back: close the connection.
            // This comes before the next `get`, because the pool may have only one connection.
            drop(Object::take(client));
            if classify(error) == ErrorClass::NoPartition
                && let Ok(other) = self.pool.get().await
            {
                // An error here occurs again in the next attempt, which handles it.
                let _ = self.partitions.refresh(&other).await;
            }
        }
        result.map_err(AttemptError::Postgres)
    }

    /// Increments the counters and records the stage latencies, for each batch once.
    fn count(&self, received: &[ReceivedBatch], committed: Committed, in_doubt: &BTreeSet<usize>) {
        let persisted_at = clock::now();
        let Committed { stored, ledger } = committed;
        let counters = &self.counters;
        counters.transactions.increment(1);
        counters.staged.increment(u64::from(stored.staged));
        // Batches in doubt that the ledger has were committed by an earlier attempt and are counted
        // now. Other batches of the ledger were counted when they were stored.
        let new: BTreeSet<usize> = stored.new.iter().map(|(index, _)| *index).collect();
        let was_in_doubt =
            |(index, _): &(usize, BatchCounts)| in_doubt.contains(index) && !new.contains(index);
        let mut counted = stored.new;
        counted.extend(ledger.into_iter().filter(was_in_doubt));
        let redelivered = received.len() - counted.len();
        counters.redelivered.increment(redelivered as u64);
        let mut queued = LocalHistogram::default();
        let mut dequeued = LocalHistogram::default();
        let mut since_received = LocalHistogram::default();
        let mut since_measured = LocalHistogram::default();
        let mut sum = BatchCounts::default();
        for (index, counts) in counted {
            sum.stored += counts.stored;
            sum.duplicates += counts.duplicates;
            sum.conflicts += counts.conflicts;
            sum.dead_letters += counts.dead_letters;
            let ReceivedBatch { batch, dequeued_at } = &received[index];
            let readings = batch.len() as u64;
            queued.between(batch.enqueued_at, *dequeued_at, readings);
            dequeued.between(*dequeued_at, persisted_at, readings);
            for receipt in &batch.receipts {
                let count = u64::from(receipt.count);
                since_received.between(receipt.received_at, persisted_at, count);
            }
            for &measured_at in &batch.measured_at {
                since_measured.between(measured_at, persisted_at, 1);
            }
        }
        counters.persisted.increment(u64::from(sum.stored));
        counters.duplicate.increment(u64::from(sum.duplicates));
        counters.conflict.increment(u64::from(sum.conflicts));
        counters
            .dead_lettered
            .increment(u64::from(sum.dead_letters));
        for (stage, histogram) in [
            (Stage::EnqueuedToDequeued, &queued),
            (Stage::DequeuedToPersisted, &dequeued),
            (Stage::ReceivedToPersisted, &since_received),
            (Stage::MeasuredToPersisted, &since_measured),
        ] {
            self.histograms.merge_stage(stage, histogram);
        }
    }
}

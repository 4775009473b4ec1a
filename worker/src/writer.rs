//! Writing: one load of deliveries into PostgreSQL, as often as it takes.
//!
//! In: batches and poison messages. Out: they are committed and counted, or the process stops first and they are given back.
//! A transient failure is tried again with backoff, on a new connection; nothing is lost, because nothing is acknowledged.
//! A failure that no retry mends ends the process with its words.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use metrics::Counter;
use schema::clock::{self, Stage};
use schema::metric;
use schema::partition::Days;
use service::histogram::Tally;
use service::metrics::Histograms;
use service::postgres::words;
use tokio_util::sync::CancellationToken;

use crate::assemble::Tallied;
use crate::failure::{Class, classify};
use crate::partitions::Partitions;
use crate::store::{self, Poison, Stored, Taken};

/// How often an attempt may fail for want of a partition before the rows without one are dead letters.
const PARTITION_ATTEMPTS: usize = 2;
/// First and longest pause between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a load was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The process stops; the load is given back.
    #[error("stopped while PostgreSQL could not take the readings")]
    Stopped,
    /// PostgreSQL says something that no retry mends.
    #[error("PostgreSQL: {0}")]
    Fatal(String),
}

/// Writes loads. One a process; every load has a connection of the pool to itself.
#[derive(Debug)]
pub struct Writer {
    pool: Pool,
    partitions: Arc<Partitions>,
    histograms: Arc<Histograms>,
    stop: CancellationToken,
    persisted: Counter,
    duplicate: Counter,
    conflict: Counter,
    dead_lettered: Counter,
    redelivered: Counter,
    transactions: Counter,
    staged: Counter,
    retries: Counter,
}

/// One attempt's failure.
enum Failure {
    Postgres(tokio_postgres::Error),
    Connect(String),
}

impl Writer {
    /// A writer on this pool. After `stop` a load that cannot be written is given up.
    pub fn new(
        pool: Pool,
        partitions: Arc<Partitions>,
        histograms: Arc<Histograms>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            pool,
            partitions,
            histograms,
            stop,
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

    /// Writes one load.
    ///
    /// # Errors
    /// [`WriteError`]; nothing of the load must be acknowledged then.
    pub async fn write(
        &self,
        taken: &[Taken],
        poison: &[Poison],
        days: &Days,
    ) -> Result<(), WriteError> {
        let mut pause = BACKOFF.0;
        // The batches that earlier attempts may have committed without our hearing of it.
        let mut in_doubt = BTreeSet::new();
        let mut without_partition = 0;
        loop {
            let mut committing = Vec::new();
            // A partition that is still missing after it was made is not to be had: it is detached, or was dropped for good.
            let last = without_partition >= PARTITION_ATTEMPTS;
            let reason = match self
                .attempt(
                    taken,
                    poison,
                    days,
                    last,
                    !in_doubt.is_empty(),
                    &mut committing,
                )
                .await
            {
                Ok((stored, in_ledger)) => {
                    self.account(taken, stored, &in_ledger, &in_doubt);
                    return Ok(());
                }
                Err(Failure::Connect(reason)) => reason,
                Err(Failure::Postgres(error)) => match classify(&error) {
                    Class::NoPartition => {
                        without_partition += 1;
                        words(&error)
                    }
                    Class::Transient | Class::KeyExists => words(&error),
                    Class::BadRow | Class::Fatal => return Err(WriteError::Fatal(words(&error))),
                },
            };
            in_doubt.extend(committing);
            if self.stop.is_cancelled() {
                return Err(WriteError::Stopped);
            }
            tracing::warn!(
                reason,
                retry_in_ms = pause.as_millis() as u64,
                "cannot store readings for now"
            );
            self.retries.increment(1);
            self.stop
                .run_until_cancelled(tokio::time::sleep(pause))
                .await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// One attempt. Returns what was stored, and the ledger's word on what an attempt in doubt had stored.
    async fn attempt(
        &self,
        taken: &[Taken],
        poison: &[Poison],
        days: &Days,
        last: bool,
        in_doubt: bool,
        committing: &mut Vec<usize>,
    ) -> Result<(Stored, Vec<(usize, Tallied)>), Failure> {
        let client = self
            .pool
            .get()
            .await
            .map_err(|error| Failure::Connect(words(&error)))?;
        let result = async {
            self.partitions.ensure(&client, days).await?;
            let begun = tokio::time::Instant::now();
            let stored = store::store(&client, taken, poison, last, committing).await?;
            self.histograms.transaction.record(
                u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                1,
            );
            let in_ledger = if in_doubt {
                store::tallies(&client, taken).await?
            } else {
                Vec::new()
            };
            Ok((stored, in_ledger))
        }
        .await;
        if let Err(error) = &result {
            // Its transaction may be open; nothing of the pool rolls back. And a pool of one connection has no other.
            drop(Object::take(client));
            if classify(error) == Class::NoPartition
                && let Ok(other) = self.pool.get().await
            {
                // A failure shows again at the next attempt.
                let _ = self.partitions.refresh(&other).await;
            }
        }
        result.map_err(Failure::Postgres)
    }

    /// Moves the counters and feeds the clocks, each batch once.
    fn account(
        &self,
        taken: &[Taken],
        stored: Stored,
        in_ledger: &[(usize, Tallied)],
        in_doubt: &BTreeSet<usize>,
    ) {
        let persisted_at = clock::now();
        self.transactions.increment(1);
        if stored.staged {
            self.staged.increment(1);
        }
        // After a commit in doubt the ledger knows what was stored then. What it had before that was counted before.
        let mut counted = stored.fresh;
        let new: BTreeSet<usize> = counted.iter().map(|(index, _)| *index).collect();
        counted.extend(
            in_ledger
                .iter()
                .filter(|(index, _)| in_doubt.contains(index) && !new.contains(index)),
        );
        self.redelivered
            .increment((taken.len() - counted.len()) as u64);
        let mut queued = Tally::default();
        let mut dequeued = Tally::default();
        let mut received = Tally::default();
        let mut measured = Tally::default();
        let mut sum = Tallied::default();
        for (index, tallied) in counted {
            sum.stored += tallied.stored;
            sum.duplicates += tallied.duplicates;
            sum.conflicts += tallied.conflicts;
            sum.dead_letters += tallied.dead_letters;
            let Taken { batch, dequeued_at } = &taken[index];
            let readings = batch.len() as u64;
            queued.between(batch.enqueued_at, *dequeued_at, readings);
            dequeued.between(*dequeued_at, persisted_at, readings);
            for receipt in &batch.receipts {
                received.between(receipt.received_at, persisted_at, u64::from(receipt.count));
            }
            for &measured_at in &batch.measured_at {
                measured.between(measured_at, persisted_at, 1);
            }
        }
        self.persisted.increment(u64::from(sum.stored));
        self.duplicate.increment(u64::from(sum.duplicates));
        self.conflict.increment(u64::from(sum.conflicts));
        self.dead_lettered.increment(u64::from(sum.dead_letters));
        for (stage, tally) in [
            (Stage::EnqueuedToDequeued, &queued),
            (Stage::DequeuedToPersisted, &dequeued),
            (Stage::ReceivedToPersisted, &received),
            (Stage::MeasuredToPersisted, &measured),
        ] {
            self.histograms.merge_stage(stage, tally);
        }
    }
}

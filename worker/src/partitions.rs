//! Partitions: the days that readings are about to be stored under, made before the transaction.
//!
//! In: the days of a transaction. Out: each of them has its partition. What was made or seen is remembered; a partition
//! that was dropped since shows as an error of the transaction, and then the memory is read anew. Days that readings come in
//! for are made ahead.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use schema::clock;
use schema::partition::{self, DAY, Day, Days};
use service::postgres::words;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

/// Days made ahead of today.
const AHEAD: i32 = 3;
/// How often it is looked whether days have to be made ahead.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// The days that are known to have a partition.
#[derive(Debug, Default)]
pub struct Partitions(Mutex<HashSet<Day>>);

impl Partitions {
    /// Makes what is missing for these days.
    ///
    /// # Errors
    /// PostgreSQL's; the days before the failing one have their partitions.
    pub async fn ensure(&self, client: &Client, days: &Days) -> Result<(), Error> {
        let missing: Vec<Day> = {
            let known = self.lock();
            days.own().filter(|day| !known.contains(day)).collect()
        };
        // Without the lock: making one may wait for whoever has locked the table. Two that make the same take turns there.
        for day in missing {
            partition::create(client, day).await?;
            self.lock().insert(day);
            tracing::debug!(day = day.0, "partition made or found");
        }
        Ok(())
    }

    /// Reads from PostgreSQL which days have a partition.
    ///
    /// # Errors
    /// PostgreSQL's; what was known stays known.
    pub async fn refresh(&self, client: &Client) -> Result<(), Error> {
        let existing = partition::existing(client).await?;
        *self.lock() = existing;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Day>> {
        // A thread that panicked while holding the lock leaves a set that is still a set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes today's partition and the next days', now and every hour, until `stop`.
pub async fn make_ahead(partitions: Arc<Partitions>, pool: Pool, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let today = Day::of(clock::now()).0;
        let days = (today..=today + AHEAD)
            .map(|day| i64::from(day) * DAY)
            .collect();
        let made = async {
            let client = pool.get().await.map_err(|error| words(&error))?;
            partitions
                .ensure(&client, &days)
                .await
                .map_err(|error| words(&error))
        };
        if let Err(reason) = made.await {
            tracing::warn!(
                reason,
                "cannot make partitions ahead; they are made when readings need them"
            );
        }
        stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
    }
}

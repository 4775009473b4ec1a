//! Partitions: one for each day that readings are stored under, created before the transaction.
//!
//! In: the days of a transaction. Out: each of these days has its partition. Days that are known to
//! have one are cached. When a partition was dropped since, the transaction fails, and the cache is
//! read again. The days ahead of today get their partitions early.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema::clock;
use schema::partition::{DAY, Day, Days};
use tokio_postgres::{Client, Error};

use crate::Pool;
use crate::error::cause;

/// Number of days after today that get their partitions early.
const DAYS_AHEAD: i32 = 3;

const SELECT_DAYS: &str = "SELECT day - DATE '1970-01-01' FROM gridwatch_reading_days()";
const CREATE_DAY: &str = "SELECT gridwatch_create_reading_day(DATE '1970-01-01' + $1::integer)";

/// The days that are known to have a partition.
#[derive(Debug, Default)]
pub struct Partitions(Mutex<HashSet<Day>>);

impl Partitions {
    /// Creates the missing partitions of these days, each in a transaction of its own, which does
    /// not block writers of other days.
    ///
    /// # Errors
    /// PostgreSQL's error; the days before the failed one have their partitions.
    pub async fn ensure(&self, client: &Client, days: &Days) -> Result<(), Error> {
        let missing: Vec<Day> = {
            let known = self.lock();
            days.own().filter(|day| !known.contains(day)).collect()
        };
        // Without the lock, because creating a partition may wait for a lock on the table. If two
        // tasks create the same partition, PostgreSQL serialises them.
        for day in missing {
            client.execute(CREATE_DAY, &[&day.0]).await?;
            self.lock().insert(day);
            tracing::debug!(day = day.0, "partition created or found");
        }
        Ok(())
    }

    /// Reads from PostgreSQL which days have a partition.
    ///
    /// # Errors
    /// PostgreSQL's error; the cache is unchanged.
    pub async fn refresh(&self, client: &Client) -> Result<(), Error> {
        let rows = client.query(SELECT_DAYS, &[]).await?;
        *self.lock() = rows.into_iter().map(|row| Day(row.get(0))).collect();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Day>> {
        // If a thread panicked while it held the lock, the set is still valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads which days have a partition, over a connection of the pool.
///
/// # Errors
/// A sentence with the cause.
pub async fn load(partitions: &Partitions, pool: &Pool) -> Result<(), String> {
    let client = crate::database::get(pool).await?;
    let loaded = partitions.refresh(&client).await;
    loaded.map_err(|error| cause(&error))
}

/// Creates the missing partitions of today and the next days, over a connection of the pool.
///
/// # Errors
/// A sentence with the cause; the days before the failed one have their partitions.
pub async fn create_ahead(partitions: &Partitions, pool: &Pool) -> Result<(), String> {
    let today = Day::of(clock::now()).0;
    let days = (today..=today + DAYS_AHEAD).map(|day| i64::from(day) * DAY);
    let client = crate::database::get(pool).await?;
    let created = partitions.ensure(&client, &days.collect()).await;
    created.map_err(|error| cause(&error))
}

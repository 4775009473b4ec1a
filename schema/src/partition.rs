//! Partitions of the reading table: one a UTC day, and one for everything before 2000.
//!
//! Devices whose clock battery died report 1970; an attacker could report any day there ever was. Days before 2000 share
//! the partition that the migrations make, so that the number of partitions is bounded by the age of the century.

use std::collections::HashSet;

use tokio_postgres::{Client, Error};

use crate::reading::Micros;

/// Microseconds of a day.
pub const DAY: Micros = 86_400_000_000;

/// 2000-01-01, in days since the epoch: the first day with a partition of its own.
pub const FIRST_DAY: Day = Day(10_957);

/// A UTC day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    /// The day that a time is in. Times beyond `i32` days are clamped; no reading has one.
    pub fn of(at: Micros) -> Self {
        let day = at.div_euclid(DAY);
        Self(i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX }))
    }

    /// Whether the day has a partition of its own.
    pub fn has_partition(self) -> bool {
        self >= FIRST_DAY
    }
}

/// The days that have a partition.
///
/// # Errors
/// Whatever PostgreSQL says; nothing has changed then.
pub async fn existing(client: &Client) -> Result<HashSet<Day>, Error> {
    let rows = client.query("SELECT day - DATE '1970-01-01' FROM gridwatch_reading_days()", &[]).await?;
    Ok(rows.into_iter().map(|row| Day(row.get(0))).collect())
}

/// Makes the partition of a day where it is missing, in a transaction of its own, without stopping those who write to
/// other days.
///
/// # Errors
/// Whatever PostgreSQL says; the partition is there whole or not at all.
pub async fn create(client: &Client, day: Day) -> Result<(), Error> {
    client.execute("SELECT gridwatch_create_reading_day(DATE '1970-01-01' + $1::integer)", &[&day.0]).await?;
    Ok(())
}

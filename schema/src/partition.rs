//! Partitions of the reading table: one a UTC day, and one for everything before 2000.
//!
//! Devices whose clock battery died report 1970; an attacker could report any day there ever was. Days before 2000 share
//! the partition that the migrations make, so that the number of partitions is bounded by the age of the century.

use std::collections::{BTreeSet, HashSet};

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

/// Most partitions that the readings of one batch may lie in. A transaction locks every partition that it writes to, and
/// its index, until it ends; a server has room for 6,400 locks by default.
pub const MAX_DAYS: usize = 256;

/// The partitions that some readings lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Days(BTreeSet<Day>);

impl Days {
    /// Adds the partition of a time. The days before the first share one.
    pub fn insert(&mut self, at: Micros) {
        let day = Day::of(at).max(Day(FIRST_DAY.0 - 1));
        // Most readings are of the same day as the one before, and most often of the latest.
        if self.0.last() != Some(&day) {
            self.0.insert(day);
        }
    }

    /// How many partitions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: &Days) {
        self.0.extend(&other.0);
    }

    /// How many partitions both together have.
    pub fn len_with(&self, other: &Days) -> usize {
        self.0.union(&other.0).count()
    }

    /// The days that have a partition of their own.
    pub fn own(&self) -> impl Iterator<Item = Day> + '_ {
        self.0.iter().copied().filter(|day| day.has_partition())
    }
}

impl FromIterator<Micros> for Days {
    fn from_iter<I: IntoIterator<Item = Micros>>(times: I) -> Self {
        let mut days = Self::default();
        times.into_iter().for_each(|at| days.insert(at));
        days
    }
}

/// The days that have a partition.
///
/// # Errors
/// Whatever PostgreSQL says; nothing has changed then.
pub async fn existing(client: &Client) -> Result<HashSet<Day>, Error> {
    let rows = client
        .query(
            "SELECT day - DATE '1970-01-01' FROM gridwatch_reading_days()",
            &[],
        )
        .await?;
    Ok(rows.into_iter().map(|row| Day(row.get(0))).collect())
}

/// Makes the partition of a day where it is missing, in a transaction of its own, without stopping those who write to
/// other days.
///
/// # Errors
/// Whatever PostgreSQL says; the partition is there whole or not at all.
pub async fn create(client: &Client, day: Day) -> Result<(), Error> {
    client
        .execute(
            "SELECT gridwatch_create_reading_day(DATE '1970-01-01' + $1::integer)",
            &[&day.0],
        )
        .await?;
    Ok(())
}

//! Partitions of the reading table: one for each UTC day, and one for everything before 2000.
//!
//! Devices whose clock battery is empty report 1970, and an attacker could report any day. Days
//! before 2000 share the partition that the migrations create, so that there is at most one
//! partition per day since 2000.

use std::collections::BTreeSet;

use crate::reading::Micros;

/// Microseconds in a day.
pub const DAY: Micros = 86_400_000_000;

/// 2000-01-01, in days since the epoch: the first day with a partition of its own.
pub const FIRST_DAY: Day = Day(10_957);

/// A UTC day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    /// The day of a time. Times beyond `i32` days are clamped; no valid reading has one.
    pub fn of(at: Micros) -> Self {
        let day = at.div_euclid(DAY);
        Self(i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX }))
    }

    /// Whether the day has a partition of its own.
    pub fn has_partition(self) -> bool {
        self >= FIRST_DAY
    }
}

/// Upper bound on the partitions that the readings of one batch belong to.
///
/// A transaction locks every partition that it writes to, and its index, until it ends; a server
/// has room for 6,400 locks by default.
pub const MAX_DAYS: usize = 256;

/// The partitions that a set of readings belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Days(BTreeSet<Day>);

impl Days {
    /// Adds the partition of a time. The days before [`FIRST_DAY`] share one.
    pub fn insert(&mut self, at: Micros) {
        let day = Day::of(at).max(Day(FIRST_DAY.0 - 1));
        // Most readings have the same day as the one before, usually the latest.
        if self.0.last() != Some(&day) {
            self.0.insert(day);
        }
    }

    /// The number of partitions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all partitions of another set.
    pub fn extend(&mut self, other: &Days) {
        self.0.extend(&other.0);
    }

    /// The number of partitions of both sets together.
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

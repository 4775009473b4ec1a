//! Roll-ups: summaries of the readings of a series in a quarter of an hour and in a local day.
//!
//! In: days that have ended. Out: their roll-ups, which queries read instead of the readings
//! ([`read`]). The migration that creates the tables says when a roll-up is valid.
//!
//! A roll-up is built like this: [`plan`] says what is to be built, the caller reads the readings
//! in slices and computes, and [`write()`] stores the result and removes the marks that the plan
//! saw. A reading that is stored in between leaves a mark of its own. So a summary that lacks it
//! is not used, and is built again. One process at a time holds the lease to do this.

mod close;
mod plan;
pub mod read;
mod write;

pub use close::{close_days, delete_orphans};
pub(crate) use close::{mark, mark_range};
pub use plan::{Plan, Work, plan};
use schema::partition::Day;
use schema::reading::{Micros, SeriesId};
pub use write::{Built, write};

use crate::reads::points::Point;

/// Microseconds of a quarter of an hour.
pub const QUARTER_HOUR: Micros = 900_000_000;

/// A summary of the readings of a series in a range. There is at least one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Number of readings.
    pub count: u64,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
    /// The sum of the values.
    pub sum: f64,
    /// The first reading.
    pub first: Point,
    /// The last reading.
    pub last: Point,
    /// Sum of each value times the microseconds until the next reading, from the first to the last.
    pub weighted: f64,
    /// Increase of a counter from the first reading to the last.
    pub increase: f64,
}

/// The roll-up of a local day.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalDay {
    /// The date, in days since 1970.
    pub day: i32,
    /// The first and the third quartile, and the median between them.
    pub quartiles: [f64; 3],
    /// The rest.
    pub summary: Summary,
}

/// A key of `rollup_mark`.
pub(crate) type Mark = (SeriesId, Day);

//! Aggregates of buckets, computed from the points of one series in the order of time.
//!
//! In: the last point before each part of the range, its points, and the first one after it. Out:
//! buckets, one by one. Memory is the values of one bucket, and only if quartiles are asked for.
//!
//! - `twa`, the time-weighted mean, takes a value as valid until the next one.
//! - `increase` of a counter is interpolated between points, so that the increases of buckets add
//!   up to the increase of the range. It is not known before the first point and after the last
//!   one. [`step`] says what a value below the last one means.

mod combined;
mod open;
mod summary;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use schema::reading::Micros;
use store::reads::points::TimeRange;

use crate::resolution::Resolution;

pub(crate) use combined::Combined;
pub(crate) use open::{Buckets, Complete, MAX_VALUES};
pub(crate) use summary::{Rollup, add_to};

/// What a bucket can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Min,
    Q1,
    Median,
    Q3,
    Max,
    Mean,
    Twa,
    Sum,
    Count,
    First,
    Last,
    Increase,
}

impl Aggregate {
    /// Every aggregate, in the order in which they are documented.
    pub(crate) const ALL: [Self; 12] = [
        Self::Min,
        Self::Q1,
        Self::Median,
        Self::Q3,
        Self::Max,
        Self::Mean,
        Self::Twa,
        Self::Sum,
        Self::Count,
        Self::First,
        Self::Last,
        Self::Increase,
    ];

    /// Its name in requests and responses.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Q1 => "q1",
            Self::Median => "median",
            Self::Q3 => "q3",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Twa => "twa",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::First => "first",
            Self::Last => "last",
            Self::Increase => "increase",
        }
    }

    /// Parses a list of names with commas.
    ///
    /// # Errors
    /// A sentence with the value and what is expected.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let parse = |name: &str| {
            let found = Self::ALL.into_iter().find(|own| own.name() == name);
            found.ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("aggregates: '{name}' is not an aggregate: use {names}")
            })
        };
        let mut aggregates = Vec::new();
        for name in text.split(',') {
            let aggregate = parse(name)?;
            if aggregates.contains(&aggregate) {
                return Err(format!(
                    "aggregates: '{name}' is there twice: leave one out"
                ));
            }
            aggregates.push(aggregate);
        }
        Ok(aggregates)
    }
}

/// What a bucket without points shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fill {
    /// There is no such bucket in the response.
    #[default]
    None,
    /// It is there, and its aggregates are null.
    Null,
    /// It has the last value before it.
    Previous,
    /// It has the value at its middle, on the line between the points before and after it.
    Linear,
}

/// How points become buckets.
pub(crate) struct Bucketing {
    /// The length of buckets.
    pub resolution: Resolution,
    /// The zone of days and months.
    pub zone: TimeZone,
    /// What buckets have.
    pub aggregates: Vec<Aggregate>,
    /// What buckets without points show.
    pub fill: Fill,
    /// The longest time without points that is filled.
    pub max_gap: Option<Micros>,
}

impl Bucketing {
    /// Whether quartiles are asked for.
    pub(crate) fn needs_quartiles(&self) -> bool {
        use Aggregate::{Median, Q1, Q3};
        let needs = |own: &Aggregate| matches!(own, Q1 | Median | Q3);
        self.aggregates.iter().any(needs)
    }

    /// Whether the points next to a range are needed.
    pub(crate) fn needs_neighbours(&self) -> bool {
        let needs = |own: &Aggregate| matches!(own, Aggregate::Twa | Aggregate::Increase);
        self.aggregates.iter().any(needs) || matches!(self.fill, Fill::Previous | Fill::Linear)
    }

    /// The part of a range that the bucket of an instant covers.
    pub(crate) fn clipped(&self, time: Micros, range: TimeRange) -> TimeRange {
        let bucket = self.resolution.bucket(time, &self.zone);
        TimeRange {
            from: bucket.from.max(range.from),
            to: bucket.to.min(range.to),
        }
    }

    /// Whether a time without points is short enough to be filled.
    fn fills(&self, gap: Micros) -> bool {
        self.max_gap.is_none_or(|max_gap| gap <= max_gap)
    }
}

/// Of how many devices a bucket is the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Those that have a value.
    pub contributing: u32,
    /// Those that were in the subtree for some time of the bucket.
    pub of: u32,
}

/// The aggregates of one bucket. Those that are not known are `None`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bucket {
    /// The part of the range that the bucket covers.
    pub range: TimeRange,
    /// Number of points.
    pub count: u64,
    /// The share of the expected points that are there, at most 1; `None` if nothing is expected.
    pub coverage: Option<f64>,
    /// For a sum of devices.
    pub devices: Option<Devices>,
    /// In the order of [`Aggregate`].
    values: [Option<f64>; Aggregate::ALL.len()],
}

impl Bucket {
    /// An aggregate, if it is known.
    pub(crate) fn get(&self, aggregate: Aggregate) -> Option<f64> {
        self.values[aggregate as usize]
    }
}

/// The increase of a counter from one value to the next.
///
/// A value below the last one is a rollover if the counter can roll over and the increase is then
/// at most half of its span. Otherwise it is a reset: the counter started again from zero.
fn step(from: f64, to: f64, rollover: Option<f64>) -> f64 {
    if to >= from {
        return to - from;
    }
    match rollover {
        Some(span) if from <= span && to + span - from <= span / 2.0 => to + span - from,
        _ => to,
    }
}

/// The quartiles of values as `percentile_cont` defines them: linear between the two nearest.
pub(crate) fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    if values.is_empty() {
        return None;
    }
    // Only the values at these positions need to be in order.
    let mut at = |fraction: f64| {
        let position = fraction * (values.len() - 1) as f64;
        let below = position.floor() as usize;
        let (_, low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
        let (low, part) = (*low, position - below as f64);
        if part == 0.0 {
            return low;
        }
        let high = above.iter().copied().min_by(f64::total_cmp);
        low + (high.unwrap_or(low) - low) * part
    };
    Some([at(0.25), at(0.5), at(0.75)])
}

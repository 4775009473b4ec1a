//! Aggregates of buckets, computed from the points of one series in the order of time.
//!
//! In: the last point before the range, the points of the range, and the first one after it. Out:
//! buckets. Memory is the values of one bucket, and only if quartiles are asked for.
//!
//! - `twa`, the time-weighted mean, takes a value as valid until the next one.
//! - `increase` of a counter is interpolated between points, so that the increases of buckets add
//!   up to the increase of the range. A value below the last one is a reset: the counter started
//!   again from zero. It is not known before the first point and after the last one.

#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use schema::reading::Micros;
use store::reads::points::{Point, TimeRange};

use crate::resolution::Resolution;

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
        text.split(',').map(parse).collect()
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
}

/// The aggregates of one bucket. Those of a bucket without points are `None`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bucket {
    /// The part of the range that the bucket covers.
    pub range: TimeRange,
    /// Number of points.
    pub count: u64,
    min: f64,
    max: f64,
    sum: f64,
    first: f64,
    last: f64,
    quartiles: Option<[f64; 3]>,
    twa: Option<f64>,
    increase: Option<f64>,
    /// The value of a bucket without points, with [`Fill::Previous`].
    carried: Option<f64>,
}

impl Bucket {
    /// An aggregate, if it is known.
    pub(crate) fn get(&self, aggregate: Aggregate) -> Option<f64> {
        let of_points = |value: f64| {
            if self.count > 0 {
                Some(value)
            } else {
                self.carried
            }
        };
        match aggregate {
            Aggregate::Min => of_points(self.min),
            Aggregate::Q1 => self.quartiles.map(|q| q[0]).or(self.carried),
            Aggregate::Median => self.quartiles.map(|q| q[1]).or(self.carried),
            Aggregate::Q3 => self.quartiles.map(|q| q[2]).or(self.carried),
            Aggregate::Max => of_points(self.max),
            Aggregate::Mean => of_points(self.sum / self.count as f64),
            Aggregate::Twa => self.twa.or(self.carried),
            Aggregate::Sum => (self.count > 0).then_some(self.sum),
            Aggregate::Count => Some(self.count as f64),
            Aggregate::First => of_points(self.first),
            Aggregate::Last => of_points(self.last),
            Aggregate::Increase => self.increase,
        }
    }
}

/// The bucket that points are added to.
struct Open {
    range: TimeRange,
    count: u64,
    min: f64,
    max: f64,
    sum: f64,
    first: f64,
    last: f64,
    values: Vec<f64>,
    weighted: f64,
    weight: f64,
    increase: Option<f64>,
}

impl Open {
    fn new(range: TimeRange) -> Self {
        Self {
            range,
            count: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            first: 0.0,
            last: 0.0,
            values: Vec::new(),
            weighted: 0.0,
            weight: 0.0,
            increase: None,
        }
    }
}

/// Turns points into buckets.
pub(crate) struct Buckets {
    resolution: Resolution,
    zone: TimeZone,
    range: TimeRange,
    fill: Fill,
    quartiles: bool,
    increase: bool,
    previous: Option<Point>,
    open: Option<Open>,
    /// Where the next bucket starts, if every bucket is in the response.
    next: Micros,
    done: Vec<Bucket>,
}

impl Buckets {
    /// Buckets of a range. `before` is the last point before it, if there is one.
    pub(crate) fn new(
        resolution: Resolution,
        zone: TimeZone,
        range: TimeRange,
        aggregates: &[Aggregate],
        fill: Fill,
        before: Option<Point>,
    ) -> Self {
        use Aggregate::{Median, Q1, Q3};
        let quartiles = aggregates.iter().any(|own| matches!(own, Q1 | Median | Q3));
        Self {
            resolution,
            zone,
            range,
            fill,
            quartiles,
            increase: aggregates.contains(&Aggregate::Increase),
            previous: before,
            open: None,
            next: range.from,
            done: Vec::new(),
        }
    }

    /// Adds a point of the range, later than all before it.
    pub(crate) fn push(&mut self, point: Point) {
        if let Some(previous) = self.previous {
            self.span(previous, point);
        }
        let (quartiles, value) = (self.quartiles, point.value);
        let open = self.open_at(point.time);
        if open.count == 0 {
            open.first = value;
        }
        open.count += 1;
        open.last = value;
        open.min = open.min.min(value);
        open.max = open.max.max(value);
        open.sum += value;
        if quartiles {
            open.values.push(value);
        }
        self.previous = Some(point);
    }

    /// The buckets that are complete since the last call.
    pub(crate) fn take(&mut self) -> Vec<Bucket> {
        std::mem::take(&mut self.done)
    }

    /// The remaining buckets. `after` is the first point behind the range, if there is one.
    pub(crate) fn finish(mut self, after: Option<Point>) -> Vec<Bucket> {
        match (self.previous, after) {
            (Some(previous), Some(after)) => self.span(previous, after),
            (Some(previous), None) => self.hold_to_the_end_of_the_bucket(previous),
            (None, _) => {}
        }
        self.close();
        if self.fill != Fill::None {
            self.add_empty(self.range.to);
        }
        self.done
    }

    fn every_bucket(&self) -> bool {
        self.increase || self.fill != Fill::None
    }

    /// The open bucket, which contains this instant.
    fn open_at(&mut self, time: Micros) -> &mut Open {
        if self.open.as_ref().is_some_and(|open| time >= open.range.to) {
            self.close();
        }
        let range = match &self.open {
            Some(open) => open.range,
            None => {
                let range = self.clipped(time);
                self.add_empty(range.from);
                range
            }
        };
        self.open.get_or_insert_with(|| Open::new(range))
    }

    fn clipped(&self, time: Micros) -> TimeRange {
        let bucket = self.resolution.bucket(time, &self.zone);
        TimeRange {
            from: bucket.from.max(self.range.from),
            to: bucket.to.min(self.range.to),
        }
    }

    /// Distributes what lies between two points: the time for which the first value is valid, and
    /// the increase.
    fn span(&mut self, from: Point, to: Point) {
        let end = to.time.min(self.range.to);
        let mut time = from.time.max(self.range.from);
        let step = if to.value >= from.value {
            to.value - from.value
        } else {
            to.value
        };
        let length = (to.time - from.time) as f64;
        let (increase, every) = (self.increase, self.every_bucket());
        while time < end {
            let open = self.open_at(time);
            let until = open.range.to.min(end);
            let part = (until - time) as f64;
            open.weighted += from.value * part;
            open.weight += part;
            if increase {
                *open.increase.get_or_insert(0.0) += step * part / length;
            }
            // Buckets without points that nobody asked for are skipped.
            time = if every {
                until
            } else {
                until.max(self.resolution.bucket(end - 1, &self.zone).from)
            };
        }
    }

    /// After the last point of a series its value is valid to the end of its bucket.
    fn hold_to_the_end_of_the_bucket(&mut self, last: Point) {
        if let Some(open) = &mut self.open
            && last.time >= open.range.from
        {
            let part = (open.range.to - last.time) as f64;
            open.weighted += last.value * part;
            open.weight += part;
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.next = open.range.to;
        if open.count == 0 && !self.every_bucket() {
            return;
        }
        let empty = open.count == 0;
        // The increase alone must not fill gaps for the other aggregates.
        if empty && self.fill == Fill::None && open.increase.is_none() {
            return;
        }
        let carried = match (self.fill, &self.previous) {
            (Fill::Previous, Some(previous)) if empty => Some(previous.value),
            _ => None,
        };
        let twa = (open.weight > 0.0 && (!empty || carried.is_some()))
            .then(|| open.weighted / open.weight);
        // A point at the very end of a bucket is valid for no time in it.
        let twa = twa.or((!empty).then_some(open.last));
        self.done.push(Bucket {
            range: open.range,
            count: open.count,
            min: open.min,
            max: open.max,
            sum: open.sum,
            first: open.first,
            last: open.last,
            quartiles: quartiles(open.values),
            twa,
            increase: open.increase,
            carried,
        });
    }

    /// Adds the buckets without points from the end of the last one up to an instant.
    fn add_empty(&mut self, until: Micros) {
        if self.fill == Fill::None {
            return;
        }
        while self.next < until {
            self.open = Some(Open::new(self.clipped(self.next)));
            self.close();
        }
    }
}

/// The quartiles of values as `percentile_cont` defines them: linear between the two nearest.
fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |fraction: f64| {
        let position = fraction * (values.len() - 1) as f64;
        let below = position.floor() as usize;
        let above = position.ceil() as usize;
        let (low, high) = (values[below], values[above]);
        low + (high - low) * (position - below as f64)
    };
    Some([at(0.25), at(0.5), at(0.75)])
}

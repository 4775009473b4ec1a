//! The points of one series become buckets.

use schema::reading::Micros;
use store::reads::points::{Point, TimeRange};
use store::reads::subtree::{Member, overlap};

use super::{Aggregate, Bucket, Bucketing, Fill, quartiles, step};

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
    /// The value of a bucket without points.
    filled: Option<f64>,
}

impl Open {
    fn new(range: TimeRange, filled: Option<f64>) -> Self {
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
            filled,
        }
    }

    fn close(self, coverage: Option<f64>) -> Bucket {
        use Aggregate::{Count, First, Increase, Last, Max, Mean, Median, Min, Q1, Q3, Sum, Twa};
        let (count, empty, filled) = (self.count, self.count == 0, self.filled);
        let of_points = |value: f64| if empty { filled } else { Some(value) };
        let quartiles = quartiles(self.values);
        let quartile = |index: usize| quartiles.map(|values| values[index]).or(filled);
        // A point at the very end of a bucket is valid for no time in it.
        let twa = match self.weight > 0.0 {
            true => self.weighted / self.weight,
            false => self.last,
        };
        let value = |aggregate: Aggregate| match aggregate {
            Min => of_points(self.min),
            Q1 => quartile(0),
            Median => quartile(1),
            Q3 => quartile(2),
            Max => of_points(self.max),
            Mean => of_points(self.sum / count as f64),
            Twa => of_points(twa),
            Sum => (!empty).then_some(self.sum),
            Count => Some(count as f64),
            First => of_points(self.first),
            Last => of_points(self.last),
            Increase => self.increase,
        };
        Bucket {
            range: self.range,
            count,
            coverage,
            devices: None,
            values: Aggregate::ALL.map(value),
        }
    }
}

/// Turns points into buckets. For each part of the range: [`Self::enter`], [`Self::push`] its
/// points, [`Self::leave`].
pub(crate) struct Buckets<'a> {
    bucketing: &'a Bucketing,
    range: TimeRange,
    member: &'a Member,
    quartiles: bool,
    increase: bool,
    /// The part of the range that points are added to.
    part: TimeRange,
    previous: Option<Point>,
    open: Option<Open>,
    /// Where the next bucket starts, if every bucket is in the response.
    next: Micros,
    done: Vec<Bucket>,
}

impl<'a> Buckets<'a> {
    /// Buckets of a range.
    pub(crate) fn new(bucketing: &'a Bucketing, range: TimeRange, member: &'a Member) -> Self {
        use Aggregate::{Increase, Median, Q1, Q3};
        let aggregates = &bucketing.aggregates;
        Self {
            bucketing,
            range,
            member,
            quartiles: aggregates.iter().any(|own| matches!(own, Q1 | Median | Q3)),
            increase: aggregates.contains(&Increase),
            part: range,
            previous: None,
            open: None,
            next: range.from,
            done: Vec::new(),
        }
    }

    /// Begins a part of the range. `before` is the last point before it, if there is one.
    pub(crate) fn enter(&mut self, part: TimeRange, before: Option<Point>) {
        let first = self.bucketing.clipped(part.from, self.range).from;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.range.to <= first)
        {
            self.close();
        }
        if self.open.is_none() {
            self.add_empty(first);
        }
        self.part = part;
        self.previous = before;
    }

    /// Adds a point of the part, later than all before it.
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

    /// Ends a part. `after` is the first point behind it, if there is one.
    pub(crate) fn leave(&mut self, after: Option<Point>) {
        match (self.previous, after) {
            (Some(previous), Some(after)) => self.span(previous, after),
            (Some(previous), None) => self.hold_to_the_end_of_the_bucket(previous),
            (None, _) => {}
        }
        if self.bucketing.fill != Fill::None {
            self.open_at(self.part.to - 1);
        }
        self.previous = None;
    }

    /// The buckets that are complete since the last call.
    pub(crate) fn take(&mut self) -> Vec<Bucket> {
        std::mem::take(&mut self.done)
    }

    /// The remaining buckets.
    pub(crate) fn finish(mut self) -> Vec<Bucket> {
        self.close();
        self.add_empty(self.range.to);
        self.done
    }

    fn every_bucket(&self) -> bool {
        self.increase || self.bucketing.fill != Fill::None
    }

    /// The open bucket, which contains this instant.
    fn open_at(&mut self, time: Micros) -> &mut Open {
        if self.open.as_ref().is_some_and(|open| time >= open.range.to) {
            self.close();
        }
        let range = match &self.open {
            Some(open) => open.range,
            None => {
                let range = self.bucketing.clipped(time, self.range);
                self.add_empty(range.from);
                range
            }
        };
        let filled = self.carried(range);
        self.open.get_or_insert_with(|| Open::new(range, filled))
    }

    /// The value that a bucket without points has from before it.
    fn carried(&self, range: TimeRange) -> Option<f64> {
        let previous = self.previous?;
        let fills = self.bucketing.fill == Fill::Previous
            && self.bucketing.fills(range.from - previous.time);
        fills.then_some(previous.value)
    }

    /// Distributes what lies between two points: the time for which the first value is valid, and
    /// the increase.
    fn span(&mut self, from: Point, to: Point) {
        let end = to.time.min(self.part.to);
        let mut time = from.time.max(self.part.from);
        let step = step(from.value, to.value, self.member.series.rollover);
        let length = (to.time - from.time) as f64;
        let (increase, every) = (self.increase, self.every_bucket());
        let bucketing = self.bucketing;
        let linear = bucketing.fill == Fill::Linear && bucketing.fills(to.time - from.time);
        while time < end {
            let open = self.open_at(time);
            let until = open.range.to.min(end);
            let part = (until - time) as f64;
            open.weighted += from.value * part;
            open.weight += part;
            if increase {
                *open.increase.get_or_insert(0.0) += step * part / length;
            }
            let middle = open.range.from + (open.range.to - open.range.from) / 2;
            if linear && (from.time..=to.time).contains(&middle) {
                let position = (middle - from.time) as f64 / length;
                open.filled = Some(from.value + (to.value - from.value) * position);
            }
            // Buckets without points that nobody asked for are skipped.
            time = if every {
                until
            } else {
                until.max(bucketing.resolution.bucket(end - 1, &bucketing.zone).from)
            };
        }
    }

    /// After the last point of a series its value is valid to the end of its bucket.
    fn hold_to_the_end_of_the_bucket(&mut self, last: Point) {
        if let Some(open) = &mut self.open
            && last.time >= open.range.from
        {
            let part = (open.range.to.min(self.part.to) - last.time) as f64;
            open.weighted += last.value * part;
            open.weight += part;
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.next = open.range.to;
        // The increase alone must not fill gaps for the other aggregates.
        if open.count == 0 && self.bucketing.fill == Fill::None && open.increase.is_none() {
            return;
        }
        let coverage = self.coverage(&open);
        self.done.push(open.close(coverage));
    }

    fn coverage(&self, open: &Open) -> Option<f64> {
        let interval = self.member.series.expected_interval?;
        let present = overlap(&self.member.parts, open.range) as f64 / 1e6;
        let covered = open.count as f64 * interval / present;
        (present > 0.0).then(|| covered.min(1.0))
    }

    /// Adds the buckets without points from the end of the last one up to an instant.
    fn add_empty(&mut self, until: Micros) {
        if self.bucketing.fill == Fill::None {
            return;
        }
        while self.next < until {
            let range = self.bucketing.clipped(self.next, self.range);
            self.open = Some(Open::new(range, self.carried(range)));
            self.close();
        }
    }
}

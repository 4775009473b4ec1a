//! The points of one series become buckets.
//!
//! In: what happens to the series, in the order of time. Out: buckets, each as soon as it is
//! complete. One point may complete many buckets, because a gap can be long: they are made one by
//! one, so that memory does not depend on the gap.

use schema::reading::Micros;
use store::reads::points::{Point, TimeRange};
use store::reads::subtree::{Member, overlap};

use super::{Aggregate, Bucket, Bucketing, Fill, Rollup, quartiles, step};

/// Upper bound on the values of a bucket whose quartiles are computed: 160 MB. A month at 1 Hz has
/// 2.7 million.
pub(crate) const MAX_VALUES: usize = 20_000_000;
/// The quartiles of more values take too long for the threads that serve requests.
const LARGE: usize = 100_000;

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
    /// Instead of the values, if they come from a roll-up.
    quartiles: Option<[f64; 3]>,
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
            quartiles: None,
            weighted: 0.0,
            weight: 0.0,
            increase: None,
            filled,
        }
    }

    fn summarize(self, coverage: Option<f64>) -> Bucket {
        use Aggregate::{Count, First, Increase, Last, Max, Mean, Median, Min, Q1, Q3, Sum, Twa};
        let (count, empty, filled) = (self.count, self.count == 0, self.filled);
        let of_points = |value: f64| if empty { filled } else { Some(value) };
        let quartiles = self.quartiles.or_else(|| quartiles(self.values));
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

/// A bucket that is complete. Its quartiles are not computed yet.
pub(crate) struct Complete {
    open: Open,
    coverage: Option<f64>,
}

impl Complete {
    /// Its aggregates.
    pub(crate) fn summarize(self) -> Bucket {
        self.open.summarize(self.coverage)
    }

    /// Whether [`Self::summarize`] takes so long that it belongs on a thread of its own.
    pub(crate) fn is_large(&self) -> bool {
        self.open.values.len() > LARGE
    }
}

/// What happens to the buckets of a series.
#[derive(Clone, Copy)]
enum Step {
    Enter(TimeRange, Option<Point>),
    Push(Point),
    PushRollup(Rollup),
    Leave,
    Finish,
}

/// What lies between two points: the time for which the first value is valid, and the increase.
#[derive(Clone, Copy)]
struct Span {
    from: Point,
    to: Point,
    /// What is distributed already ends here.
    time: Micros,
    end: Micros,
    increase: f64,
    is_linear: bool,
}

/// Turns points into buckets. For each part of the range: [`Self::enter`], [`Self::push`] its
/// points, [`Self::leave`]. At the end: [`Self::finish`]. After each of these steps, [`Self::next`]
/// until it returns `None`.
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
    from: Micros,
    /// The step that is not done yet, and what has to be distributed before it.
    step: Option<Step>,
    span: Option<Span>,
}

impl<'a> Buckets<'a> {
    /// Buckets of a range.
    pub(crate) fn new(bucketing: &'a Bucketing, range: TimeRange, member: &'a Member) -> Self {
        Self {
            bucketing,
            range,
            member,
            quartiles: bucketing.needs_quartiles(),
            increase: bucketing.aggregates.contains(&Aggregate::Increase),
            part: range,
            previous: None,
            open: None,
            from: range.from,
            step: None,
            span: None,
        }
    }

    /// Begins a part of the range. `before` is the last point before it, if there is one.
    pub(crate) fn enter(&mut self, part: TimeRange, before: Option<Point>) {
        self.begin(Step::Enter(part, before));
    }

    /// Adds a point of the part, later than all before it.
    pub(crate) fn push(&mut self, point: Point) {
        self.span = self.previous.map(|previous| self.span(previous, point));
        self.begin(Step::Push(point));
    }

    /// Adds the roll-up of points of the part: later than all before them, and all in one bucket.
    pub(crate) fn push_rollup(&mut self, rollup: Rollup) {
        let first = rollup.0.first;
        self.span = self.previous.map(|previous| self.span(previous, first));
        self.begin(Step::PushRollup(rollup));
    }

    /// Ends a part. `after` is the first point behind it, if there is one.
    pub(crate) fn leave(&mut self, after: Option<Point>) {
        match (self.previous, after) {
            (Some(previous), Some(after)) => self.span = Some(self.span(previous, after)),
            (Some(previous), None) => self.hold_to_the_end_of_the_bucket(previous),
            (None, _) => {}
        }
        self.begin(Step::Leave);
    }

    /// Completes the remaining buckets.
    pub(crate) fn finish(&mut self) {
        self.begin(Step::Finish);
    }

    fn begin(&mut self, step: Step) {
        debug_assert!(self.step.is_none(), "the step before is not done");
        self.step = Some(step);
    }

    /// The next bucket that the present step completes. `None`: the step is done.
    pub(crate) fn next(&mut self) -> Option<Complete> {
        let step = self.step?;
        let complete = self.distribute().or_else(|| match step {
            Step::Enter(part, _) => {
                self.complete_until(self.bucketing.clipped(part.from, self.range).from)
            }
            Step::Push(point) => self.open_at(point.time),
            Step::PushRollup((summary, _)) => self.open_at(summary.first.time),
            Step::Leave if self.bucketing.fill == Fill::None => None,
            Step::Leave => self.open_at(self.part.to - 1),
            Step::Finish => self.complete_until(self.range.to),
        });
        if complete.is_some() {
            return complete;
        }
        self.step = None;
        match step {
            Step::Enter(part, before) => (self.part, self.previous) = (part, before),
            Step::Push(point) => self.add(point),
            Step::PushRollup(rollup) => self.add_rollup(rollup),
            Step::Leave => self.previous = None,
            Step::Finish => {}
        }
        None
    }

    /// Whether the open bucket has more values than quartiles are computed of.
    pub(crate) fn has_too_many_values(&self) -> bool {
        let count = self.open.as_ref().map_or(0, |open| open.values.len());
        count > MAX_VALUES
    }

    /// Whether the open bucket has so many values that it may use much memory.
    pub(crate) fn has_many_values(&self) -> bool {
        let count = self.open.as_ref().map_or(0, |open| open.values.len());
        count > LARGE
    }

    /// Adds a point to the open bucket.
    fn add(&mut self, point: Point) {
        self.previous = Some(point);
        let Some(open) = &mut self.open else { return };
        let value = point.value;
        if open.count == 0 {
            open.first = value;
        }
        open.count += 1;
        open.last = value;
        open.min = open.min.min(value);
        open.max = open.max.max(value);
        open.sum += value;
        if self.quartiles {
            open.values.push(value);
        }
    }

    /// Adds a roll-up to the open bucket.
    fn add_rollup(&mut self, (summary, quartiles): Rollup) {
        self.previous = Some(summary.last);
        let Some(open) = &mut self.open else { return };
        if open.count == 0 {
            open.first = summary.first.value;
        }
        open.count += summary.count;
        open.last = summary.last.value;
        open.min = open.min.min(summary.min);
        open.max = open.max.max(summary.max);
        open.sum += summary.sum;
        open.weighted += summary.weighted;
        open.weight += (summary.last.time - summary.first.time) as f64;
        open.quartiles = quartiles;
        if self.increase && summary.count > 1 {
            *open.increase.get_or_insert(0.0) += summary.increase;
        }
    }

    /// Makes the bucket that contains an instant the open one. Returns the next bucket that is
    /// complete before it; `None` when it is open.
    fn open_at(&mut self, time: Micros) -> Option<Complete> {
        if self.open.as_ref().is_some_and(|open| time < open.range.to) {
            return None;
        }
        let range = self.bucketing.clipped(time, self.range);
        let complete = self.complete_until(range.from);
        if complete.is_none() {
            self.open = Some(Open::new(range, self.carried(range)));
        }
        complete
    }

    /// The next bucket that ends at or before an instant. If gaps are filled, that includes buckets
    /// without points.
    fn complete_until(&mut self, until: Micros) -> Option<Complete> {
        loop {
            match &self.open {
                Some(open) if open.range.to > until => return None,
                Some(_) => {
                    if let Some(complete) = self.close() {
                        return Some(complete);
                    }
                }
                None if self.bucketing.fill == Fill::None || self.from >= until => return None,
                None => {
                    let range = self.bucketing.clipped(self.from, self.range);
                    self.open = Some(Open::new(range, self.carried(range)));
                }
            }
        }
    }

    /// The value that a bucket without points has from before it.
    fn carried(&self, range: TimeRange) -> Option<f64> {
        let previous = self.previous?;
        let fills = self.bucketing.fill == Fill::Previous
            && self.bucketing.fills(range.from - previous.time);
        fills.then_some(previous.value)
    }

    /// What lies between two points, as far as it belongs to the part.
    fn span(&self, from: Point, to: Point) -> Span {
        let bucketing = self.bucketing;
        Span {
            from,
            to,
            time: from.time.max(self.part.from),
            end: to.time.min(self.part.to),
            increase: step(from.value, to.value, self.member.series.rollover),
            is_linear: bucketing.fill == Fill::Linear && bucketing.fills(to.time - from.time),
        }
    }

    /// Distributes the present span. Returns the next bucket that is complete before its end.
    fn distribute(&mut self) -> Option<Complete> {
        let mut span = self.span?;
        let (from, to) = (span.from, span.to);
        let length = (to.time - from.time) as f64;
        while span.time < span.end {
            let complete = self.open_at(span.time);
            if complete.is_some() {
                self.span = Some(span);
                return complete;
            }
            let Some(open) = &mut self.open else { break };
            let until = open.range.to.min(span.end);
            let part = (until - span.time) as f64;
            open.weighted += from.value * part;
            open.weight += part;
            if self.increase {
                *open.increase.get_or_insert(0.0) += span.increase * part / length;
            }
            let middle = open.range.from + (open.range.to - open.range.from) / 2;
            if span.is_linear && (from.time..=to.time).contains(&middle) {
                let position = (middle - from.time) as f64 / length;
                open.filled = Some(from.value + (to.value - from.value) * position);
            }
            span.time = until;
            if !self.increase && self.bucketing.fill == Fill::None && until < span.end {
                // Buckets without points that the request does not ask for are skipped.
                let bucketing = self.bucketing;
                let last = bucketing.resolution.bucket(span.end - 1, &bucketing.zone);
                span.time = until.max(last.from);
            }
        }
        self.span = None;
        None
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

    /// Closes the open bucket. `None` if it is not part of the response.
    fn close(&mut self) -> Option<Complete> {
        let open = self.open.take()?;
        self.from = open.range.to;
        // The increase alone must not fill gaps for the other aggregates.
        if open.count == 0 && self.bucketing.fill == Fill::None && open.increase.is_none() {
            return None;
        }
        let coverage = self.coverage(&open);
        Some(Complete { open, coverage })
    }

    fn coverage(&self, open: &Open) -> Option<f64> {
        let interval = self.member.series.expected_interval?;
        let present = overlap(&self.member.parts, open.range) as f64 / 1e6;
        let covered = open.count as f64 * interval / present;
        (present > 0.0).then(|| covered.min(1.0))
    }
}

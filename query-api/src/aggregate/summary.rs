//! Readings that follow each other become a summary, which buckets take instead of the readings.

use store::reads::points::Point;
use store::rollups::Summary;

use super::step;

/// A summary of readings. Their quartiles are known if they are those of a whole local day.
pub(crate) type Rollup = (Summary, Option<[f64; 3]>);

/// A summary of one reading.
fn of_point(point: Point) -> Summary {
    Summary {
        count: 1,
        min: point.value,
        max: point.value,
        sum: point.value,
        first: point,
        last: point,
        weighted: 0.0,
        increase: 0.0,
    }
}

/// Adds a later reading.
fn add(summary: &mut Summary, point: Point, rollover: Option<f64>) {
    let last = summary.last;
    summary.count += 1;
    summary.min = summary.min.min(point.value);
    summary.max = summary.max.max(point.value);
    summary.sum += point.value;
    summary.weighted += last.value * (point.time - last.time) as f64;
    summary.increase += step(last.value, point.value, rollover);
    summary.last = point;
}

/// Adds a reading to what may be the first.
pub(crate) fn add_to(summary: &mut Option<Summary>, point: Point, rollover: Option<f64>) {
    match summary {
        Some(summary) => add(summary, point, rollover),
        None => *summary = Some(of_point(point)),
    }
}

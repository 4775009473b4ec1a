//! Building roll-ups in the background.
//!
//! In: what is to be built ([`store::rollups::plan()`]), and the readings of it. Out: roll-ups of
//! quarters of an hour and of local days. A slice is a few short queries, so that other tasks get the
//! connection of an embedded database in between.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use jiff::ToSpan as _;
use jiff::civil::date;
use jiff::tz::TimeZone;
use schema::partition::{DAY, Day};
use schema::reading::Micros;
use store::Pool;
use store::reads::ReadError;
use store::reads::points::{self, Order, Point, TimeRange};
use store::rollups::{self, Built, LocalDay, QUARTER_HOUR, Summary, Work};
use uuid::Uuid;

use crate::aggregate::{add_to, quartiles};
use crate::resolution::{self, start_of};

/// How long after its end a day is closed. Readings that come later are marked.
const CLOSE_DELAY: Duration = Duration::from_secs(3_600);
/// How often days are closed.
const CLOSE_INTERVAL: Duration = Duration::from_secs(60);
/// With fewer readings on a day, reading them costs about as much as reading their roll-ups.
const MIN_READINGS: u64 = 192;
/// With more readings in the local days around a day, there are no roll-ups of it, because the
/// values of a day are in memory for its quartiles.
const MAX_READINGS: usize = 8_000_000;
/// After this many readings, or rows of roll-ups, a slice ends.
const SLICE_READINGS: usize = 20_000;
const SLICE_ROWS: usize = 1_000;

/// The task of a process.
pub(crate) struct Builder {
    holder: Uuid,
    closed: Option<Instant>,
}

impl Builder {
    /// A task that has done nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            holder: Uuid::now_v7(),
            closed: None,
        }
    }

    /// Builds for a moment. Returns whether there was anything to do.
    ///
    /// # Errors
    /// [`ReadError`]; what was not stored is built again.
    pub(crate) async fn run_slice(&mut self, pool: &Pool) -> Result<bool, ReadError> {
        let is_due = |closed: Instant| closed.elapsed() >= CLOSE_INTERVAL;
        if self.closed.is_none_or(is_due) {
            rollups::close_days(pool, CLOSE_DELAY).await?;
            self.closed = Some(Instant::now());
        }
        let Some(plan) = rollups::plan(pool, self.holder).await? else {
            return rollups::delete_orphans(pool).await;
        };
        let (mut built, mut readings, mut rows) = (Vec::new(), 0, 0);
        for work in &plan.work {
            let (result, read) = build(pool, work).await?;
            readings += read;
            rows += result.quarters.len() + result.local_days.len();
            built.push(result);
            if readings >= SLICE_READINGS || rows >= SLICE_ROWS {
                break;
            }
        }
        rollups::write(pool, self.holder, &plan, &built).await
    }
}

/// A local day that is computed.
struct OpenDay {
    day: i32,
    range: TimeRange,
    values: Vec<f64>,
    summary: Option<Summary>,
}

/// Computes the roll-ups of a series and a day of UTC. Returns the number of readings too.
async fn build(pool: &Pool, work: &Work) -> Result<(Built, usize), ReadError> {
    if !work.exists {
        return Ok((Built::default(), 0));
    }
    let zone = TimeZone::get(work.zone.as_deref().unwrap_or("UTC")).ok();
    let zone_name = zone.as_ref().and_then(TimeZone::iana_name);
    let mut local_days = match &zone {
        Some(zone) => local_days(work, zone),
        None => Vec::new(),
    };
    let start = Micros::from(work.day) * DAY;
    let day = TimeRange {
        from: start,
        to: start + DAY,
    };
    let ranges = local_days.iter().map(|local| local.range).chain([day]);
    let from = ranges.clone().map(|range| range.from).min();
    let mut rest = TimeRange {
        from: from.unwrap_or(day.from),
        to: ranges.map(|range| range.to).max().unwrap_or(day.to),
    };
    let mut quarters: Vec<(Micros, Option<Summary>)> = Vec::new();
    let mut read = 0;
    loop {
        let slice = points::slice(pool, work.series, rest, Order::OldestFirst, points::SLICE);
        let slice = slice.await?;
        read += slice.len();
        for &point in &slice {
            add_to_quarter(&mut quarters, day, point, work.rollover);
            let holds = |local: &&mut OpenDay| local.range.contains(point.time);
            if let Some(local) = local_days.iter_mut().find(holds) {
                local.values.push(point.value);
                add_to(&mut local.summary, point, work.rollover);
            }
        }
        let Some(last) = slice.last().filter(|_| slice.len() == points::SLICE) else {
            break;
        };
        if read > MAX_READINGS {
            quarters.clear();
            for local in &mut local_days {
                local.summary = None;
            }
            break;
        }
        rest = rest.after(last.time, Order::OldestFirst);
    }
    let quarters: Vec<(Micros, Summary)> = quarters
        .into_iter()
        .filter_map(|(start, summary)| Some((start, summary?)))
        .collect();
    let count: u64 = quarters.iter().map(|(_, summary)| summary.count).sum();
    let built = Built {
        quarters: if count < MIN_READINGS {
            Vec::new()
        } else {
            quarters
        },
        zone: zone_name.unwrap_or_default().into(),
        local_days: close(local_days).await?,
    };
    Ok((built, read))
}

fn add_to_quarter(
    quarters: &mut Vec<(Micros, Option<Summary>)>,
    day: TimeRange,
    point: Point,
    rollover: Option<f64>,
) {
    if !day.contains(point.time) {
        return;
    }
    let start = point.time.div_euclid(QUARTER_HOUR) * QUARTER_HOUR;
    if quarters.last().is_none_or(|(last, _)| *last != start) {
        quarters.push((start, None));
    }
    if let Some((_, summary)) = quarters.last_mut() {
        add_to(summary, point, rollover);
    }
}

/// The local days that are to be computed: those that end on the day, and for a mark all that have
/// a part of it. Only those are computed of which every day of UTC is closed, because other days
/// have no marks.
fn local_days(work: &Work, zone: &TimeZone) -> Vec<OpenDay> {
    let mut days = Vec::new();
    for day in work.day - 1..=work.day + 1 {
        let Some(range) = local_day(day, zone) else {
            continue;
        };
        let (Day(first), Day(last)) = (Day::of(range.from), Day::of(range.to - 1));
        let is_due = match work.marks.is_empty() {
            true => last == work.day && first >= work.day - 1,
            false => (first..=last).contains(&work.day),
        };
        if is_due && (first..=last).all(|day| work.closed.contains(&day)) {
            days.push(OpenDay {
                day,
                range,
                values: Vec::new(),
                summary: None,
            });
        }
    }
    days
}

/// The range of a local day, counted from 1970. `None`: clocks skip it.
pub(crate) fn local_day(day: i32, zone: &TimeZone) -> Option<TimeRange> {
    let date = date(1970, 1, 1).checked_add(day.days()).ok()?;
    let range = TimeRange {
        from: start_of(date, zone),
        to: start_of(date.checked_add(1.day()).ok()?, zone),
    };
    (!range.is_empty()).then_some(range)
}

/// The local date of an instant, in days since 1970.
pub(crate) fn local_date(time: Micros, zone: &TimeZone) -> Option<i32> {
    let day = resolution::local_date(time, zone);
    Some(date(1970, 1, 1).until(day).ok()?.get_days())
}

/// Sorting the values of a day takes some milliseconds, or much more if there are very many.
async fn close(days: Vec<OpenDay>) -> Result<Vec<(i32, Option<LocalDay>)>, ReadError> {
    let close = move || {
        let local_day = |local: OpenDay| {
            let summary = local.summary;
            let quartiles = summary.and_then(|_| quartiles(local.values));
            let closed = summary.zip(quartiles).map(|(summary, quartiles)| LocalDay {
                day: local.day,
                quartiles,
                summary,
            });
            (local.day, closed)
        };
        days.into_iter().map(local_day).collect()
    };
    let closed = tokio::task::spawn_blocking(close).await;
    closed.map_err(|error| ReadError::Failed(error.to_string()))
}

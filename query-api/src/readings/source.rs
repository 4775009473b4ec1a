//! What the buckets of a series are computed from: valid roll-ups, or else readings.
//!
//! In: a part of the range, from its beginning on. Out: runs, each behind the one before it, that
//! cover the part.

use std::collections::VecDeque;
use std::sync::Arc;

use schema::partition::DAY;
use schema::reading::{Micros, SeriesId};
use store::Pool;
use store::reads::ReadError;
use store::reads::points::{Order, Point, Slices, TimeRange};
use store::rollups::{self, QUARTER_HOUR};

use crate::aggregate::{Bucketing, Rollup};
use crate::resolution::Resolution;
use crate::rollups::{local_date, local_day};

/// Days of UTC whose quarters of an hour are one slice at most.
const WINDOW: Micros = 50 * DAY;

/// What follows.
pub(super) enum Run {
    /// The next readings.
    Points(Vec<Point>),
    /// Roll-ups of the next readings, each within one bucket.
    Rollups(Vec<Rollup>),
}

/// A range whose readings are known by roll-ups.
struct Segment {
    range: TimeRange,
    rollups: Vec<Rollup>,
}

/// Which roll-ups suit buckets.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Suitable {
    quarters: bool,
    local_days: bool,
}

impl Suitable {
    fn of(bucketing: &Bucketing) -> Self {
        let quartiles = bucketing.needs_quartiles();
        match bucketing.resolution {
            Resolution::Fixed(length) => Self {
                quarters: !quartiles && length % QUARTER_HOUR == 0,
                local_days: false,
            },
            Resolution::Days(days) => Self {
                quarters: !quartiles,
                local_days: !quartiles || days == 1,
            },
            Resolution::Months(_) => Self {
                quarters: !quartiles,
                local_days: !quartiles,
            },
        }
    }
}

/// The rest of a part.
pub(super) struct Source<'a> {
    pool: &'a Arc<Pool>,
    bucketing: &'a Bucketing,
    series: SeriesId,
    suitable: Suitable,
    /// What has not been returned.
    rest: TimeRange,
    /// Roll-ups have been looked up until here.
    known_until: Micros,
    segments: VecDeque<Segment>,
    /// Readings before the rest that have not been returned.
    slices: Option<Slices>,
}

impl<'a> Source<'a> {
    /// Where the part ends.
    pub(super) fn end(&self) -> Micros {
        self.rest.to
    }

    /// A whole part.
    pub(super) fn new(
        pool: &'a Arc<Pool>,
        bucketing: &'a Bucketing,
        series: SeriesId,
        part: TimeRange,
    ) -> Self {
        Self {
            pool,
            bucketing,
            series,
            suitable: Suitable::of(bucketing),
            rest: part,
            known_until: part.from,
            segments: VecDeque::new(),
            slices: None,
        }
    }

    /// The next run. `None`: the part ends.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) async fn next(&mut self) -> Result<Option<Run>, ReadError> {
        if let Some(slices) = &mut self.slices {
            if let Some(points) = slices.next().await? {
                return Ok(Some(Run::Points(points)));
            }
            self.slices = None;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.known_until <= self.rest.from {
            self.look_up().await?;
        }
        let until = match self.segments.front() {
            Some(segment) if segment.range.from <= self.rest.from => {
                self.rest.from = segment.range.to;
                let segment = self.segments.pop_front();
                return Ok(segment.map(|segment| Run::Rollups(segment.rollups)));
            }
            Some(segment) => segment.range.from,
            None => self.known_until.min(self.rest.to),
        };
        let range = TimeRange {
            to: until,
            ..self.rest
        };
        self.rest.from = until;
        let order = Order::OldestFirst;
        let mut slices = Slices::new(self.pool, self.series, range, order, usize::MAX);
        let points = slices.next().await?;
        self.slices = Some(slices);
        Ok(points.map(Run::Points))
    }

    /// Finds the roll-ups of the next days.
    async fn look_up(&mut self) -> Result<(), ReadError> {
        self.segments.clear();
        self.known_until = self.rest.to;
        if self.suitable.local_days {
            self.look_up_local_days().await?;
        }
        if self.suitable.quarters && self.segments.is_empty() {
            self.look_up_quarters().await?;
        }
        Ok(())
    }

    async fn look_up_local_days(&mut self) -> Result<(), ReadError> {
        let (zone, rest) = (&self.bucketing.zone, self.rest);
        let dates = (local_date(rest.from, zone), local_date(rest.to - 1, zone));
        let (Some(name), (Some(first), Some(last))) = (zone.iana_name(), dates) else {
            return Ok(());
        };
        let days = first..last.saturating_add(1);
        let found = rollups::read::local_days(self.pool, self.series, name, days).await?;
        let is_cut = found.len() == rollups::read::SLICE;
        for local in found {
            let Some(range) = local_day(local.day, zone) else {
                continue;
            };
            if is_cut {
                self.known_until = range.to.min(rest.to);
            }
            if range.from >= rest.from && range.to <= rest.to {
                let rollups = vec![(local.summary, Some(local.quartiles))];
                self.segments.push_back(Segment { range, rollups });
            }
        }
        Ok(())
    }

    /// If any quarter of a day of UTC is there, the others have no readings.
    async fn look_up_quarters(&mut self) -> Result<(), ReadError> {
        let rest = self.rest;
        let up = |time: Micros| {
            time.saturating_add(QUARTER_HOUR - 1)
                .div_euclid(QUARTER_HOUR)
        };
        let day_after = (rest.from.div_euclid(DAY) * DAY).saturating_add(WINDOW);
        let aligned = TimeRange {
            from: up(rest.from) * QUARTER_HOUR,
            to: rest.to.min(day_after).div_euclid(QUARTER_HOUR) * QUARTER_HOUR,
        };
        self.known_until = day_after.min(rest.to);
        if aligned.is_empty() {
            return Ok(());
        }
        let found = rollups::read::quarters(self.pool, self.series, aligned).await?;
        for (start, summary) in found {
            let day = start.div_euclid(DAY) * DAY;
            let range = TimeRange {
                from: day.max(aligned.from),
                to: (day + DAY).min(aligned.to),
            };
            let rollup = (summary, None);
            match self.segments.back_mut() {
                Some(segment) if segment.range == range => segment.rollups.push(rollup),
                _ => self.segments.push_back(Segment {
                    range,
                    rollups: vec![rollup],
                }),
            }
        }
        Ok(())
    }
}

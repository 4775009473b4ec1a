//! The buckets of series, read in slices.

use std::sync::Arc;
use std::vec::IntoIter;

use schema::reading::Micros;
use store::Pool;
use store::reads::ReadError;
use store::reads::points::{self, Point, TimeRange};
use store::reads::subtree::Member;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::source::{Run, Source};
use crate::aggregate::{Bucket, Bucketing, Buckets, Combined, Complete, Rollup};
use crate::error::QueryError;

/// Buckets that are returned at once: one slice may complete many, because gaps can be long.
const BUCKETS: usize = 1_000;

/// Series whose buckets have many values in memory, for their quartiles. Each has up to 160 MB, and
/// twice as much while the list of values grows. Other requests wait.
static LARGE: Semaphore = Semaphore::const_new(4);

/// What is read next.
enum Next<'a> {
    /// The point before the next part.
    Part,
    /// A run of a part.
    Run(Source<'a>),
    /// The first point behind a part that ends here.
    After(Micros),
    /// Nothing.
    End,
}

/// The buckets of one series. Memory is a slice of points and [`BUCKETS`].
pub(super) struct MemberBuckets<'a> {
    pool: &'a Arc<Pool>,
    bucketing: &'a Bucketing,
    member: &'a Member,
    buckets: Buckets<'a>,
    /// The number of parts that were begun.
    begun: usize,
    next: Next<'a>,
    /// Points and roll-ups that were read and are not in a bucket yet.
    points: IntoIter<Point>,
    rollups: IntoIter<Rollup>,
    /// That of [`LARGE`], once a bucket has many values.
    permit: Option<SemaphorePermit<'static>>,
}

impl<'a> MemberBuckets<'a> {
    /// The buckets of a range, before the first slice.
    pub(super) fn new(
        pool: &'a Arc<Pool>,
        bucketing: &'a Bucketing,
        range: TimeRange,
        member: &'a Member,
    ) -> Self {
        Self {
            pool,
            bucketing,
            member,
            buckets: Buckets::new(bucketing, range, member),
            begun: 0,
            next: Next::Part,
            points: Vec::new().into_iter(),
            rollups: Vec::new().into_iter(),
            permit: None,
        }
    }

    /// Reads at most one slice. Returns buckets that are complete then, at most [`BUCKETS`], and
    /// `None` at the end.
    ///
    /// # Errors
    /// [`QueryError`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bucket>>, QueryError> {
        let (mut done, mut was_read) = (Vec::new(), false);
        while done.len() < BUCKETS {
            if let Some(complete) = self.buckets.next() {
                done.push(summarize(complete).await?);
            } else if let Some(point) = self.points.next() {
                self.buckets.push(point);
            } else if let Some(rollup) = self.rollups.next() {
                self.buckets.push_rollup(rollup);
            } else if let Next::End = self.next {
                return Ok((!done.is_empty()).then_some(done));
            } else if was_read {
                break;
            } else {
                was_read = matches!(self.next, Next::Run(_));
                self.read().await?;
            }
        }
        Ok(Some(done))
    }

    /// Reads what is next, and begins the step that belongs to it.
    async fn read(&mut self) -> Result<(), QueryError> {
        if self.buckets.has_too_many_values() {
            return Err(QueryError::TooManyValues);
        }
        if self.buckets.has_many_values() && self.permit.is_none() {
            self.permit = LARGE.acquire().await.ok();
        }
        let (pool, id) = (self.pool, self.member.series.id);
        let neighbours = self.bucketing.needs_neighbours();
        match &mut self.next {
            Next::Part => match self.member.parts.get(self.begun) {
                Some(&part) => {
                    let before = match neighbours {
                        true => points::last_before(pool, id, part.from).await?,
                        false => None,
                    };
                    self.buckets.enter(part, before);
                    self.begun += 1;
                    self.next = Next::Run(Source::new(pool, self.bucketing, id, part));
                }
                None => {
                    self.buckets.finish();
                    self.next = Next::End;
                }
            },
            Next::Run(source) => match source.next().await? {
                Some(Run::Points(points)) => self.points = points.into_iter(),
                Some(Run::Rollups(rollups)) => self.rollups = rollups.into_iter(),
                None => self.next = Next::After(source.end()),
            },
            &mut Next::After(end) => {
                let after = match neighbours {
                    true => points::first_from(pool, id, end).await?,
                    false => None,
                };
                self.buckets.leave(after);
                self.next = Next::Part;
            }
            Next::End => {}
        }
        Ok(())
    }
}

/// The aggregates of a bucket. Those of a large one are computed where they hold up no request.
async fn summarize(complete: Complete) -> Result<Bucket, QueryError> {
    if !complete.is_large() {
        return Ok(complete.summarize());
    }
    let summarized = tokio::task::spawn_blocking(|| complete.summarize()).await;
    summarized.map_err(|error| QueryError::Read(ReadError::Failed(error.to_string())))
}

/// The sum of the buckets of series.
///
/// # Errors
/// [`QueryError`].
pub(crate) async fn sum(
    pool: &Arc<Pool>,
    members: &[Member],
    bucketing: &Bucketing,
    range: TimeRange,
) -> Result<Vec<Bucket>, QueryError> {
    let mut combined = Combined::new(bucketing, range);
    // Two at the same time, so that PostgreSQL uses two cores.
    for pair in members.chunks(2) {
        let first = all(pool, bucketing, range, pair.first());
        let second = all(pool, bucketing, range, pair.get(1));
        let (first, second) = tokio::try_join!(first, second)?;
        for (member, buckets) in pair.iter().zip([first, second]) {
            combined.expect(member);
            for bucket in &buckets {
                combined.add(member, bucket);
            }
        }
    }
    Ok(combined.finish())
}

/// All buckets of a series, if there is one.
async fn all(
    pool: &Arc<Pool>,
    bucketing: &Bucketing,
    range: TimeRange,
    member: Option<&Member>,
) -> Result<Vec<Bucket>, QueryError> {
    let mut all = Vec::new();
    if let Some(member) = member {
        let mut buckets = MemberBuckets::new(pool, bucketing, range, member);
        while let Some(some) = buckets.next().await? {
            all.extend(some);
        }
    }
    Ok(all)
}

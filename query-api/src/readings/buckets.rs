//! The buckets of series, read in slices.

use store::Pool;
use store::reads::ReadError;
use store::reads::points::{self, Order, SLICE, TimeRange};
use store::reads::subtree::Member;

use crate::aggregate::{Bucket, Bucketing, Buckets, Combined};

/// The buckets of one series. Memory is a slice of points.
pub(super) struct MemberBuckets<'a> {
    pool: &'a Pool,
    bucketing: &'a Bucketing,
    member: &'a Member,
    buckets: Option<Buckets<'a>>,
    /// The number of parts that were begun.
    begun: usize,
    /// What is left of the part that was begun last.
    rest: Option<TimeRange>,
}

impl<'a> MemberBuckets<'a> {
    /// The buckets of a range, before the first slice.
    pub(super) fn new(
        pool: &'a Pool,
        bucketing: &'a Bucketing,
        range: TimeRange,
        member: &'a Member,
    ) -> Self {
        Self {
            pool,
            bucketing,
            member,
            buckets: Some(Buckets::new(bucketing, range, member)),
            begun: 0,
            rest: None,
        }
    }

    /// Reads a slice. Returns the buckets that are complete then, and `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bucket>>, ReadError> {
        let (pool, id) = (self.pool, self.member.series.id);
        let neighbours = self.bucketing.needs_neighbours();
        let Some(buckets) = &mut self.buckets else {
            return Ok(None);
        };
        let rest = match (self.rest, self.member.parts.get(self.begun)) {
            (Some(rest), _) => rest,
            (None, Some(&part)) => {
                let before = match neighbours {
                    true => points::last_before(pool, id, part.from).await?,
                    false => None,
                };
                buckets.enter(part, before);
                self.begun += 1;
                part
            }
            (None, None) => return Ok(self.buckets.take().map(Buckets::finish)),
        };
        let slice = points::slice(pool, id, rest, Order::OldestFirst, SLICE).await?;
        for &point in &slice {
            buckets.push(point);
        }
        self.rest = match slice.last() {
            Some(last) if slice.len() == SLICE => Some(rest.after(last.time, Order::OldestFirst)),
            _ => None,
        };
        if self.rest.is_none() {
            let after = match neighbours {
                true => points::first_from(pool, id, rest.to).await?,
                false => None,
            };
            buckets.leave(after);
        }
        Ok(Some(buckets.take()))
    }
}

/// The sum of the buckets of series.
///
/// # Errors
/// [`ReadError`].
pub(crate) async fn sum(
    pool: &Pool,
    members: &[Member],
    bucketing: &Bucketing,
    range: TimeRange,
) -> Result<Vec<Bucket>, ReadError> {
    let mut combined = Combined::new(bucketing, range);
    for member in members {
        combined.expect(member);
        let mut buckets = MemberBuckets::new(pool, bucketing, range, member);
        while let Some(some) = buckets.next().await? {
            for bucket in &some {
                combined.add(member, bucket);
            }
        }
    }
    Ok(combined.finish())
}

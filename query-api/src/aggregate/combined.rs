//! The sum of the buckets of several series.
//!
//! In: the buckets of each series. Out: one series of buckets. A mean of a device that was in the
//! subtree for a part of a bucket counts with that part, so that a device that moves counts once.

use store::reads::points::TimeRange;
use store::reads::subtree::{Member, overlap};

use super::{Aggregate, Bucket, Bucketing, Devices, Fill};

/// Sums of buckets. Memory is that of the buckets of one series.
pub(crate) struct Combined<'a> {
    bucketing: &'a Bucketing,
    buckets: Vec<Bucket>,
    /// How many more series are in the subtree from this bucket on, and of those, how many have an
    /// expected interval.
    changes: Vec<[i64; 2]>,
    /// The sum of the coverages of a bucket.
    coverage: Vec<f64>,
}

impl<'a> Combined<'a> {
    /// The aggregates that can be added.
    pub(crate) const AGGREGATES: [Aggregate; 5] = [
        Aggregate::Mean,
        Aggregate::Twa,
        Aggregate::Sum,
        Aggregate::Count,
        Aggregate::Increase,
    ];

    /// The buckets of a range, without values.
    pub(crate) fn new(bucketing: &'a Bucketing, range: TimeRange) -> Self {
        let mut buckets = Vec::new();
        let mut time = range.from;
        while time < range.to {
            let clipped = bucketing.clipped(time, range);
            time = clipped.to;
            buckets.push(Bucket {
                range: clipped,
                count: 0,
                coverage: None,
                devices: None,
                values: [None; Aggregate::ALL.len()],
            });
        }
        Self {
            bucketing,
            changes: vec![[0, 0]; buckets.len() + 1],
            coverage: vec![0.0; buckets.len()],
            buckets,
        }
    }

    /// The bucket that contains an instant.
    fn index(&self, time: schema::reading::Micros) -> usize {
        let after = self
            .buckets
            .partition_point(|bucket| bucket.range.from <= time);
        after.saturating_sub(1)
    }

    /// Counts a series in the buckets in which it is in the subtree.
    pub(crate) fn expect(&mut self, member: &Member) {
        let change = [1, i64::from(member.series.expected_interval.is_some())];
        // Two parts may share a bucket.
        let mut counted = 0;
        for part in &member.parts {
            let first = self.index(part.from).max(counted);
            let end = self.index(part.to - 1) + 1;
            if first < end {
                for (index, sign) in [(first, 1), (end, -1)] {
                    self.changes[index][0] += sign * change[0];
                    self.changes[index][1] += sign * change[1];
                }
                counted = end;
            }
        }
    }

    /// Adds a bucket of a series.
    pub(crate) fn add(&mut self, member: &Member, bucket: &Bucket) {
        let index = self.index(bucket.range.from);
        let Some(sum) = self.buckets.get_mut(index) else {
            return;
        };
        let length = (sum.range.to - sum.range.from) as f64;
        let share = overlap(&member.parts, sum.range) as f64 / length;
        let mut contributes = false;
        for &aggregate in &self.bucketing.aggregates {
            let weight = match aggregate {
                Aggregate::Mean | Aggregate::Twa => share,
                _ => 1.0,
            };
            if let Some(value) = bucket.get(aggregate) {
                *sum.values[aggregate as usize].get_or_insert(0.0) += value * weight;
                contributes |= aggregate != Aggregate::Count || bucket.count > 0;
            }
        }
        sum.count += bucket.count;
        let devices = sum.devices.get_or_insert(Devices {
            contributing: 0,
            of: 0,
        });
        devices.contributing += u32::from(contributes);
        self.coverage[index] += bucket.coverage.unwrap_or(0.0);
    }

    /// The sums. Buckets to which nothing contributes are there if they are to be filled.
    pub(crate) fn finish(self) -> Vec<Bucket> {
        let (mut of, mut expected) = (0, 0);
        let mut buckets = self.buckets;
        for (index, bucket) in buckets.iter_mut().enumerate() {
            of += self.changes[index][0];
            expected += self.changes[index][1];
            let contributing = bucket.devices.map_or(0, |devices| devices.contributing);
            bucket.devices = Some(Devices {
                contributing,
                of: u32::try_from(of).unwrap_or(u32::MAX),
            });
            bucket.coverage = (expected > 0).then(|| self.coverage[index] / expected as f64);
        }
        if self.bucketing.fill == Fill::None {
            let contributes = |bucket: &Bucket| {
                bucket
                    .devices
                    .is_some_and(|devices| devices.contributing > 0)
            };
            buckets.retain(contributes);
        }
        buckets
    }
}

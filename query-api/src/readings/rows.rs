//! The rows of a response, on their way to the client.
//!
//! In: a request that was checked. Out: points or buckets in the form of the response. An error of
//! the first query is the response; a later one breaks it off.

use std::iter;
use std::sync::Arc;

use store::Pool;
use store::reads::ReadError;
use store::reads::points::{Order, Slices, TimeRange};
use store::reads::subtree::Member;

use super::buckets::{MemberBuckets, sum};
use super::{Period, ReadRequest};
use crate::aggregate::Bucketing;
use crate::error::QueryError;
use crate::format::{Columns, Format, Label, Row, Writer};
use crate::stream::{Disconnected, Output};

/// Why a response ended early.
enum Ended {
    Disconnected,
    Failed(QueryError),
}

impl From<Disconnected> for Ended {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}

impl From<QueryError> for Ended {
    fn from(error: QueryError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

/// See the module.
pub(super) struct Rows {
    writer: Box<dyn Writer>,
    output: Output,
    started: bool,
    count: u64,
}

impl Rows {
    /// The rows of a response, before the first one.
    pub(super) fn new(format: Format, output: Output) -> Self {
        Self {
            writer: format.writer(),
            output,
            started: false,
            count: 0,
        }
    }

    /// Sends a whole response.
    pub(super) async fn produce(
        mut self,
        pool: Arc<Pool>,
        request: ReadRequest,
    ) -> Result<(), Disconnected> {
        let written = match &request.bucketing {
            None => self.points(&pool, &request).await,
            Some(bucketing) => {
                let buckets = self.periods(&pool, &request, bucketing).await;
                buckets.map(|()| None)
            }
        };
        match written {
            Ok(next) => {
                self.start(&request);
                self.writer
                    .end(self.output.buffer(), self.count, next.as_deref());
                self.output.finish(self.count, next.as_deref()).await
            }
            Err(Ended::Disconnected) => Err(Disconnected),
            Err(Ended::Failed(error)) => {
                if self.started {
                    self.writer.error(self.output.buffer(), &error.to_string());
                }
                self.output.fail(error).await
            }
        }
    }

    /// Writes the beginning, once. It is called after the first query, so that an error of that
    /// query can still be the response.
    fn start(&mut self, request: &ReadRequest) {
        if !std::mem::replace(&mut self.started, true) {
            let bucketing = request.bucketing.as_ref();
            let columns = Columns {
                aggregates: bucketing.map(|bucketing| bucketing.aggregates.as_slice()),
                combined: request.sum.is_some(),
                compared: request.previous.is_some(),
            };
            self.writer.start(self.output.buffer(), columns);
        }
    }

    /// The rows that follow are of this series.
    fn series(&mut self, member: &Member, period: Option<&'static str>) {
        let label = Label {
            owner: "device",
            name: &member.series.device,
            metric: &member.series.metric,
            unit: member.series.unit.as_deref(),
            period,
        };
        self.writer.series(self.output.buffer(), label);
    }

    async fn row(&mut self, row: Row<'_>) -> Result<(), Disconnected> {
        self.writer.row(self.output.buffer(), row);
        self.count += 1;
        self.output.send_if_full().await
    }

    /// Writes the points of every series. Returns where the next page starts.
    async fn points(
        &mut self,
        pool: &Arc<Pool>,
        request: &ReadRequest,
    ) -> Result<Option<String>, Ended> {
        let (mut members, whole) = (request.current.members.as_slice(), request.current.range);
        let mut cursor = request.cursor;
        if let Some((id, _)) = cursor {
            let position = members.iter().position(|member| member.series.id == id);
            members = &members[position.unwrap_or(members.len())..];
        }
        let mut left = request.limit.unwrap_or(usize::MAX);
        for member in members {
            let range = match cursor.take() {
                Some((_, time)) => whole.after(time, request.order),
                None => whole,
            };
            let mut named = false;
            for part in parts(member, range, request.order) {
                let id = member.series.id;
                let mut slices = Slices::new(pool, id, part, request.order, left);
                while let Some(slice) = self.output.unless_closed(slices.next()).await?? {
                    self.start(request);
                    if !std::mem::replace(&mut named, true) {
                        self.series(member, None);
                    }
                    for &point in &slice {
                        self.row(Row::Point(point)).await?;
                    }
                    left -= slice.len();
                    if let Some(last) = slice.last().filter(|_| left == 0) {
                        return Ok(Some(format!("{id}.{}", last.time)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Writes the buckets of the period, and then those of the one that it is compared with.
    async fn periods(
        &mut self,
        pool: &Arc<Pool>,
        request: &ReadRequest,
        bucketing: &Bucketing,
    ) -> Result<(), Ended> {
        for period in iter::once(&request.current).chain(&request.previous) {
            match &request.sum {
                None => self.buckets(pool, request, bucketing, period).await?,
                Some(_) => self.sum(pool, request, bucketing, period).await?,
            }
        }
        Ok(())
    }

    /// Writes the buckets of every series.
    async fn buckets(
        &mut self,
        pool: &Arc<Pool>,
        request: &ReadRequest,
        bucketing: &Bucketing,
        period: &Period,
    ) -> Result<(), Ended> {
        for member in &period.members {
            let mut buckets = MemberBuckets::new(pool, bucketing, period.range, member);
            let mut named = false;
            while let Some(some) = self.output.unless_closed(buckets.next()).await?? {
                self.start(request);
                if !std::mem::replace(&mut named, true) {
                    self.series(member, request.name_of(period));
                }
                for bucket in &some {
                    let beside = request.beside(bucketing, period, bucket);
                    self.row(Row::Bucket(bucket, &bucketing.aggregates, beside))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Writes the sum of the series.
    async fn sum(
        &mut self,
        pool: &Arc<Pool>,
        request: &ReadRequest,
        bucketing: &Bucketing,
        period: &Period,
    ) -> Result<(), Ended> {
        let Some(label) = &request.sum else {
            return Ok(());
        };
        let buckets = sum(pool, &period.members, bucketing, period.range);
        let buckets = self.output.unless_closed(buckets).await??;
        self.start(request);
        let label = Label {
            owner: "component",
            name: &label.component.to_string(),
            metric: &label.metric,
            unit: label.unit.as_deref(),
            period: request.name_of(period),
        };
        self.writer.series(self.output.buffer(), label);
        for bucket in &buckets {
            let beside = request.beside(bucketing, period, bucket);
            self.row(Row::Bucket(bucket, &bucketing.aggregates, beside))
                .await?;
        }
        Ok(())
    }
}

/// The parts of a range in which a series counts, in the order of the response.
fn parts(member: &Member, range: TimeRange, order: Order) -> Vec<TimeRange> {
    let clipped = member.parts.iter().map(|part| TimeRange {
        from: part.from.max(range.from),
        to: part.to.min(range.to),
    });
    let mut parts: Vec<TimeRange> = clipped.filter(|part| !part.is_empty()).collect();
    if order == Order::NewestFirst {
        parts.reverse();
    }
    parts
}

//! `GET /v1/components/{id}/performance`: actual against target.
//!
//! In: a component, a metric, a range of time and a resolution. Out: columns of the same length,
//! one entry per bucket of the range. `actual` is the sum of the series of the subtree, `goal` that
//! of their targets, `ratio` the one divided by the other.
//!
//! A target of a gauge is a value, and the goal of a bucket is its time-weighted mean. A target of
//! a counter is an increase per hour, and the goal of a bucket is what it adds up to. A target of
//! intervals is the value of one interval, and is compared with their mean.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use schema::reading::Micros;
use serde_json::{Value, json};
use service::ApiError;
use store::Pool;
use store::reads::ReadError;
use store::reads::points::TimeRange;
use store::reads::series::SeriesKind;
use store::reads::subtree::{Member, overlap};
use store::reads::targets::{self, Step};

use crate::aggregate::{Aggregate, Bucket, Bucketing, Fill};
use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, bad};
use crate::readings::{MAX_SUM_BUCKETS, check_sum_buckets, common, sum};
use crate::resolution::Resolution;
use crate::selection::Selection;
use crate::time;

const HOUR: f64 = 3_600e6;

/// See the module.
pub(crate) async fn get(
    State(pool): State<Arc<Pool>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::PERFORMANCE);
    let Ok(component) = id.parse() else {
        let what = "component";
        return Err(ApiError::UnknownResource { what, id });
    };
    let selection = Selection::of_component(&mut parameters, &pool, component).await?;
    let range = parameters.range(&selection.zone)?;
    let resolution = parameters.parsed("resolution", Resolution::parse)?;
    let points = MAX_SUM_BUCKETS.try_into().unwrap_or(usize::MAX);
    let max_points = parameters.count("max_points", points)?;
    parameters.finish()?;
    let resolution = match (resolution, max_points) {
        (Some(resolution), None) => resolution,
        (None, Some(max_points)) => Resolution::for_points(range, max_points),
        _ => {
            let sentence = "resolution is missing: use one such as 15m, or max_points";
            return Err(bad(sentence.into()));
        }
    };
    let Some(metric) = &selection.metric else {
        return Err(bad("metric is missing: performance is that of one".into()));
    };
    check_sum_buckets(resolution, range)?;
    let members = selection.find(&pool, range).await?;
    let (kind, unit) = common(&members, metric)?;
    let aggregate = match kind {
        SeriesKind::Gauge => Aggregate::Twa,
        SeriesKind::Counter => Aggregate::Increase,
        SeriesKind::Interval => Aggregate::Mean,
    };
    let bucketing = Bucketing {
        resolution,
        zone: selection.zone.clone(),
        aggregates: vec![aggregate],
        fill: Fill::Null,
        max_gap: None,
    };
    let buckets = sum(&pool, &members, &bucketing, range).await;
    let buckets = buckets.map_err(|error| ApiError::from(&error))?;
    let mut goals = vec![None; buckets.len()];
    for member in &members {
        let added = add_goals(&pool, member, kind, &buckets, range, &mut goals).await;
        added.map_err(|error| api_error(&error))?;
    }
    let actual = |bucket: &Bucket| bucket.get(aggregate);
    let ratio = |(bucket, goal): (&Bucket, &Option<f64>)| {
        let goal = goal.filter(|goal| *goal != 0.0)?;
        Some(actual(bucket)? / goal)
    };
    let column = |value: fn(&Bucket) -> Value| buckets.iter().map(value).collect::<Vec<_>>();
    Ok(Json(json!({
        "component": id,
        "metric": metric,
        "unit": unit,
        "time": column(|bucket| time::format(bucket.range.from).to_string().into()),
        "end": column(|bucket| time::format(bucket.range.to).to_string().into()),
        "actual": buckets.iter().map(actual).collect::<Vec<_>>(),
        "goal": &goals,
        "ratio": buckets.iter().zip(&goals).map(ratio).collect::<Vec<_>>(),
        "contributing": column(|bucket| bucket.devices.map(|own| own.contributing).into()),
        "of": column(|bucket| bucket.devices.map(|own| own.of).into()),
    })))
}

/// Adds the goals of one series.
async fn add_goals(
    pool: &Pool,
    member: &Member,
    kind: SeriesKind,
    buckets: &[Bucket],
    range: TimeRange,
    goals: &mut [Option<f64>],
) -> Result<(), ReadError> {
    let mut own = Vec::new();
    let mut from = range.from;
    loop {
        let rest = TimeRange { from, ..range };
        let steps = targets::page(pool, member.series.id, rest).await?;
        let more = steps.len() == targets::PAGE;
        if steps.is_empty() {
            break;
        }
        if own.is_empty() {
            own = vec![Goal::default(); buckets.len()];
        }
        for (index, step) in steps.iter().enumerate() {
            let to = match steps.get(index + 1) {
                Some(next) => next.time,
                None if more => break,
                None => range.to,
            };
            add_step(&mut own, buckets, member, *step, to);
        }
        match steps.last() {
            Some(last) if more => from = last.time,
            _ => break,
        }
    }
    for ((goal, own), bucket) in goals.iter_mut().zip(&own).zip(buckets) {
        if own.known > 0.0 {
            let length = (bucket.range.to - bucket.range.from) as f64;
            let share = overlap(&member.parts, bucket.range) as f64 / length;
            *goal.get_or_insert(0.0) += match kind {
                SeriesKind::Counter => own.weighted / HOUR,
                SeriesKind::Gauge | SeriesKind::Interval => own.weighted / own.known * share,
            };
        }
    }
    Ok(())
}

/// The target of one series in a bucket.
#[derive(Clone, Copy, Default)]
struct Goal {
    /// Target times microseconds.
    weighted: f64,
    /// Microseconds with a target.
    known: f64,
}

fn add_step(own: &mut [Goal], buckets: &[Bucket], member: &Member, step: Step, to: Micros) {
    let Some(value) = step.value else { return };
    let first = buckets.partition_point(|bucket| bucket.range.to <= step.time);
    for (goal, bucket) in own.iter_mut().zip(buckets).skip(first) {
        if bucket.range.from >= to {
            break;
        }
        let valid = TimeRange {
            from: bucket.range.from.max(step.time),
            to: bucket.range.to.min(to),
        };
        let length = overlap(&member.parts, valid) as f64;
        goal.weighted += value * length;
        goal.known += length;
    }
}

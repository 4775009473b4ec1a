//! `GET /v1/readings` and `GET /v1/daily`: points or buckets of series.
//!
//! In: devices or a component, a metric, a range of time, and optionally a resolution with
//! aggregates. Out: a stream of rows, series by series. The series and the range are checked first,
//! so that a mistake is an error and not an empty response.

mod buckets;
mod rows;
mod source;

use std::iter;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::tz::TimeZone;
use schema::reading::{Micros, SeriesId};
use service::ApiError;
use store::Pool;
use store::reads::points::{Order, TimeRange};
use store::reads::series::SeriesKind;
use store::reads::subtree::Member;
use uuid::Uuid;

use crate::aggregate::{Aggregate, Bucket, Bucketing, Combined, Fill};
use crate::comparison::Shift;
use crate::format::{Beside, Format};
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, bad};
use crate::resolution::Resolution;
use crate::selection::Selection;
use crate::{stream, time};

pub(crate) use buckets::sum;
use rows::Rows;

/// Upper bound on `limit` and `max_points`.
const MAX_POINTS: usize = 1_000_000;
/// Upper bound on the buckets of one series.
const MAX_BUCKETS: u64 = 1_000_000;
/// Upper bound on the buckets of a sum, which is in memory.
pub(crate) const MAX_SUM_BUCKETS: u64 = 50_000;

/// The sum of the series of a subtree.
struct Sum {
    component: Uuid,
    metric: String,
    unit: Option<String>,
}

/// The series of a range.
struct Period {
    members: Vec<Member>,
    range: TimeRange,
    /// How much earlier it is than the one that it is compared with.
    shift: Option<Shift>,
}

/// A request that was checked.
struct ReadRequest {
    current: Period,
    /// What the current period is compared with.
    previous: Option<Period>,
    order: Order,
    /// The number of points after which the response ends with `next`.
    limit: Option<usize>,
    /// Where the page starts: behind this point of this series.
    cursor: Option<(SeriesId, Micros)>,
    /// `None` for points.
    bucketing: Option<Bucketing>,
    /// One series instead of one per device.
    sum: Option<Sum>,
}

impl ReadRequest {
    /// The name of a period in a comparison.
    fn name_of(&self, period: &Period) -> Option<&'static str> {
        let name = if period.shift.is_some() {
            "previous"
        } else {
            "current"
        };
        self.previous.as_ref().map(|_| name)
    }

    /// In a comparison, what the bucket of a period stands beside.
    fn beside(&self, bucketing: &Bucketing, period: &Period, bucket: &Bucket) -> Option<Beside> {
        self.previous.as_ref()?;
        Some(Beside(match &period.shift {
            Some(shift) => shift.beside(bucketing, bucket.range, self.current.range),
            None => Some(bucket.range.from),
        }))
    }
}

/// `GET /v1/readings`.
pub(crate) async fn get(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::READINGS);
    let format = format(&mut parameters, &headers)?;
    let combine = parameters.parsed("combine", |text| match text {
        "none" => Ok(false),
        "sum" => Ok(true),
        _ => Err(format!("combine: '{text}' is not known: use none or sum")),
    })?;
    let selection = Selection::read(&mut parameters, &pool).await?;
    let range = parameters.range(&selection.zone)?;
    let order = parameters.order()?;
    let limit = parameters.count("limit", MAX_POINTS)?;
    let cursor = parameters.parsed("next", parse_cursor)?;
    let mut bucketing = bucketing(&mut parameters, range, selection.zone.clone())?;
    let parse = |text: &str| Shift::parse(text, &selection.zone);
    let shift = parameters.parsed("compare", parse)?;
    parameters.finish()?;
    if bucketing.is_some() && (limit.is_some() || cursor.is_some() || order != Order::OldestFirst) {
        let sentence = "limit, next and order=desc are for resolution=raw; buckets are not paged";
        return Err(bad(sentence.into()));
    }
    let previous_range = match (&shift, &bucketing) {
        (None, _) => None,
        (Some(_), None) => {
            let sentence = "compare needs a resolution such as 1d, or max_points";
            return Err(bad(sentence.into()));
        }
        (Some(shift), Some(bucketing)) => {
            let earlier = shift.earlier_range(range, bucketing.resolution);
            let earlier = earlier.map_err(bad)?;
            check_buckets(bucketing.resolution, earlier)?;
            Some(earlier)
        }
    };
    let members = selection.find(&pool, range).await?;
    let previous = match previous_range {
        None => None,
        Some(range) => Some(Period {
            members: selection.find(&pool, range).await?,
            range,
            shift,
        }),
    };
    if let Some(cursor) = cursor {
        check_cursor(cursor, &members, range)?;
    }
    let mut sum = None;
    if combine == Some(true) {
        let Some(bucketing) = &mut bucketing else {
            let sentence = "combine=sum needs a resolution such as 15m, or max_points";
            return Err(bad(sentence.into()));
        };
        let ranges = iter::once(range).chain(previous_range);
        let earlier = previous.iter().flat_map(|period| &period.members);
        sum = Some(combined(
            &selection,
            members.iter().chain(earlier),
            bucketing,
            ranges,
        )?);
    }
    if let Some(bucketing) = &mut bucketing
        && bucketing.aggregates.is_empty()
    {
        bucketing.aggregates.push(Aggregate::Mean);
    }
    let request = ReadRequest {
        current: Period {
            members,
            range,
            shift: None,
        },
        previous,
        order,
        limit,
        cursor,
        bucketing,
        sum,
    };
    respond(pool, request, format).await
}

/// Checks that the series can be added, and chooses what is added unless the request does.
fn combined<'a>(
    selection: &Selection,
    members: impl IntoIterator<Item = &'a Member>,
    bucketing: &mut Bucketing,
    ranges: impl IntoIterator<Item = TimeRange>,
) -> Result<Sum, ApiError> {
    let (Some(component), Some(metric)) = (selection.component(), selection.metric.clone()) else {
        let sentence = "combine=sum needs a component and a metric";
        return Err(bad(sentence.into()));
    };
    let unsuitable = |own: &&Aggregate| !Combined::AGGREGATES.contains(own);
    if let Some(aggregate) = bucketing.aggregates.iter().find(unsuitable) {
        let name = aggregate.name();
        let names = Combined::AGGREGATES.map(Aggregate::name).join(", ");
        return Err(bad(format!(
            "aggregates: '{name}' of devices cannot be added: with combine=sum use {names}"
        )));
    }
    for range in ranges {
        check_sum_buckets(bucketing.resolution, range)?;
    }
    let (kind, unit) = common(members, &metric)?;
    if bucketing.aggregates.is_empty() {
        bucketing.aggregates.push(match kind {
            SeriesKind::Gauge => Aggregate::Mean,
            SeriesKind::Counter => Aggregate::Increase,
            SeriesKind::Interval => Aggregate::Sum,
        });
    }
    Ok(Sum {
        component,
        metric,
        unit,
    })
}

/// Refuses a sum with too many buckets.
pub(crate) fn check_sum_buckets(resolution: Resolution, range: TimeRange) -> Result<(), ApiError> {
    match resolution.buckets(range) {
        ..=MAX_SUM_BUCKETS => Ok(()),
        buckets => Err(bad(format!(
            "resolution: the range has {buckets} buckets; at most {MAX_SUM_BUCKETS} are added up"
        ))),
    }
}

/// The kind and the unit that the series have in common.
///
/// # Errors
/// They differ: the sum would mean nothing.
pub(crate) fn common<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    metric: &str,
) -> Result<(SeriesKind, Option<String>), ApiError> {
    let mut series = members.into_iter().map(|member| &member.series);
    let Some(first) = series.next() else {
        return Ok((SeriesKind::default(), None));
    };
    for series in series {
        let (own, other) = (series.unit.as_deref(), first.unit.as_deref());
        if own != other || series.kind != first.kind {
            let what = if own == other { "kinds" } else { "units" };
            return Err(bad(format!(
                "metric: '{metric}' of the devices '{}' and '{}' cannot be added, because their \
                 {what} differ",
                first.device, series.device
            )));
        }
    }
    Ok((first.kind, first.unit.clone()))
}

/// `GET /v1/daily`: the five-number summary of each local day.
pub(crate) async fn get_daily(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::DAILY);
    let format = format(&mut parameters, &headers)?;
    let selection = Selection::read(&mut parameters, &pool).await?;
    let range = parameters.range(&selection.zone)?;
    parameters.finish()?;
    use Aggregate::{Max, Median, Min, Q1, Q3};
    let request = ReadRequest {
        current: Period {
            members: selection.find(&pool, range).await?,
            range,
            shift: None,
        },
        previous: None,
        order: Order::OldestFirst,
        limit: None,
        cursor: None,
        bucketing: Some(Bucketing {
            resolution: Resolution::Days(1),
            zone: selection.zone,
            aggregates: vec![Min, Q1, Median, Q3, Max],
            fill: Fill::None,
            max_gap: None,
        }),
        sum: None,
    };
    respond(pool, request, format).await
}

fn format(parameters: &mut Parameters<'_>, headers: &HeaderMap) -> Result<Format, ApiError> {
    match parameters.parsed("format", Format::parse)? {
        Some(format) => Ok(format),
        None => Format::accepted(headers),
    }
}

/// `resolution` or `max_points`, and what belongs to them. No aggregates: those of the default.
fn bucketing(
    parameters: &mut Parameters<'_>,
    range: TimeRange,
    zone: TimeZone,
) -> Result<Option<Bucketing>, ApiError> {
    let text = parameters.one("resolution")?;
    let max_points = parameters.count("max_points", MAX_POINTS)?;
    let aggregates = parameters.parsed("aggregates", Aggregate::parse_list)?;
    let fill = parameters.parsed("fill", |text| match text {
        "none" => Ok(Fill::None),
        "null" => Ok(Fill::Null),
        "previous" => Ok(Fill::Previous),
        "linear" => Ok(Fill::Linear),
        _ => Err(format!(
            "fill: '{text}' is not a fill: use none, null, previous or linear"
        )),
    })?;
    let max_gap = parameters.parsed("max_gap", |text| time::length("max_gap", text))?;
    if max_gap.is_some() && !matches!(fill, Some(Fill::Previous | Fill::Linear)) {
        let sentence = "max_gap is for fill=previous and fill=linear";
        return Err(bad(sentence.into()));
    }
    let resolution = match (text.as_deref(), max_points) {
        (Some(_), Some(_)) => {
            let sentence = "resolution and max_points exclude each other: max_points chooses one";
            return Err(bad(sentence.into()));
        }
        (None | Some("raw"), None) if aggregates.is_some() || fill.is_some() => {
            let sentence = "aggregates and fill need a resolution such as 15m, or max_points";
            return Err(bad(sentence.into()));
        }
        (None | Some("raw"), None) => return Ok(None),
        (Some(text), None) => Resolution::parse(text).map_err(bad)?,
        (None, Some(max_points)) => Resolution::for_points(range, max_points),
    };
    check_buckets(resolution, range)?;
    Ok(Some(Bucketing {
        resolution,
        zone,
        aggregates: aggregates.unwrap_or_default(),
        fill: fill.unwrap_or_default(),
        max_gap,
    }))
}

/// Refuses a range with too many buckets.
fn check_buckets(resolution: Resolution, range: TimeRange) -> Result<(), ApiError> {
    match resolution.buckets(range) {
        ..=MAX_BUCKETS => Ok(()),
        buckets => Err(bad(format!(
            "resolution: the range has {buckets} buckets; at most {MAX_BUCKETS} are computed"
        ))),
    }
}

async fn respond(
    pool: Arc<Pool>,
    request: ReadRequest,
    format: Format,
) -> Result<Response, ApiError> {
    stream::respond(format.media_type(), |output| {
        Rows::new(format, output).produce(pool, request)
    })
    .await
}

/// Refuses a position that no page of this request ended at. Nothing would be behind it, which
/// would look like the end of a complete response.
fn check_cursor(
    (id, time): (SeriesId, Micros),
    members: &[Member],
    range: TimeRange,
) -> Result<(), ApiError> {
    if !members.iter().any(|member| member.series.id == id) {
        let sentence = "next: the series of this position is not part of the request; if it was \
                        deleted or moved since, start again without next";
        return Err(bad(sentence.into()));
    }
    if !(range.from..range.to).contains(&time) {
        let sentence = "next: the position is outside of the range; use the value of next from \
                        the last response, with the same from and to";
        return Err(bad(sentence.into()));
    }
    Ok(())
}

/// Where a page starts: `SERIES.MICROSECONDS`, the last point of the page before it.
fn parse_cursor(text: &str) -> Result<(SeriesId, Micros), String> {
    let parts = text.split_once('.');
    let parsed = parts.and_then(|(id, time)| Some((id.parse().ok()?, time.parse().ok()?)));
    parsed.ok_or_else(|| {
        format!("next: '{text}' is not a position: use the value of next from the last response")
    })
}

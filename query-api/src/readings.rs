//! `GET /v1/readings` and `GET /v1/daily`: points or buckets of series.
//!
//! In: devices, a metric, a range of time, and optionally a resolution with aggregates. Out: a
//! stream of rows, series by series. The series and the range are checked first, so that a mistake
//! is an error and not an empty response.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::tz::TimeZone;
use schema::reading::{Micros, SeriesId};
use service::ApiError;
use store::Pool;
use store::reads::ReadError;
use store::reads::points::{self, Order, SLICE, TimeRange};
use store::reads::series::{self, Series};

use crate::aggregate::{Aggregate, Buckets, Fill};
use crate::error::api_error;
use crate::format::{Format, Row, Writer};
use crate::parameters::{Parameters, bad};
use crate::resolution::Resolution;
use crate::stream::{self, Disconnected, Output};

/// Upper bound on the devices of one request.
const MAX_DEVICES: usize = 1_000;
/// Upper bound on `limit` and `max_points`.
const MAX_POINTS: usize = 1_000_000;
/// Upper bound on the buckets of one series.
const MAX_BUCKETS: u64 = 1_000_000;

/// How points become buckets.
struct Bucketing {
    resolution: Resolution,
    zone: TimeZone,
    aggregates: Vec<Aggregate>,
    fill: Fill,
}

/// A request that was checked.
struct ReadRequest {
    series: Vec<Series>,
    range: TimeRange,
    order: Order,
    /// The number of points after which the response ends with `next`.
    limit: Option<usize>,
    /// Where the page starts: behind this point of this series.
    cursor: Option<(SeriesId, Micros)>,
    /// `None` for points.
    bucketing: Option<Bucketing>,
}

/// `GET /v1/readings`.
pub(crate) async fn get(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query.as_deref());
    let format = format(&mut parameters, &headers)?;
    let (devices, metric) = names(&mut parameters)?;
    let zone = parameters.zone()?;
    let range = parameters.range(&zone)?;
    let order = parameters.order()?;
    let limit = parameters.count("limit", MAX_POINTS)?;
    let cursor = parameters.parsed("next", parse_cursor)?;
    let bucketing = bucketing(&mut parameters, range, zone)?;
    parameters.finish()?;
    if bucketing.is_some() && (limit.is_some() || cursor.is_some() || order != Order::OldestFirst) {
        let sentence = "limit, next and order=desc are for resolution=raw; buckets are not paged";
        return Err(bad(sentence.into()));
    }
    let series = find(&pool, &devices, metric.as_deref()).await?;
    let request = ReadRequest {
        series,
        range,
        order,
        limit,
        cursor,
        bucketing,
    };
    respond(pool, request, format).await
}

/// `GET /v1/daily`: the five-number summary of each local day.
pub(crate) async fn get_daily(
    State(pool): State<Arc<Pool>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query.as_deref());
    let format = format(&mut parameters, &headers)?;
    let (devices, metric) = names(&mut parameters)?;
    let zone = parameters.zone()?;
    let range = parameters.range(&zone)?;
    parameters.finish()?;
    let series = find(&pool, &devices, metric.as_deref()).await?;
    use Aggregate::{Max, Median, Min, Q1, Q3};
    let request = ReadRequest {
        series,
        range,
        order: Order::OldestFirst,
        limit: None,
        cursor: None,
        bucketing: Some(Bucketing {
            resolution: Resolution::Days(1),
            zone,
            aggregates: vec![Min, Q1, Median, Q3, Max],
            fill: Fill::None,
        }),
    };
    respond(pool, request, format).await
}

fn format(parameters: &mut Parameters<'_>, headers: &HeaderMap) -> Result<Format, ApiError> {
    match parameters.parsed("format", Format::parse)? {
        Some(format) => Ok(format),
        None => Format::accepted(headers),
    }
}

/// `device`, once or more, and `metric`.
fn names(parameters: &mut Parameters<'_>) -> Result<(Vec<String>, Option<String>), ApiError> {
    let devices = parameters.all("device");
    if devices.is_empty() {
        let sentence = "device is missing: name a device, or several by repeating the parameter";
        return Err(bad(sentence.into()));
    }
    if devices.len() > MAX_DEVICES {
        let sentence = format!("{} devices; at most {MAX_DEVICES} are read", devices.len());
        return Err(bad(sentence));
    }
    Ok((devices, parameters.one("metric")?))
}

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
        _ => Err(format!(
            "fill: '{text}' is not a fill: use none, null or previous"
        )),
    })?;
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
    let buckets = resolution.buckets(range);
    if buckets > MAX_BUCKETS {
        return Err(bad(format!(
            "resolution: the range has {buckets} buckets; at most {MAX_BUCKETS} are computed"
        )));
    }
    Ok(Some(Bucketing {
        resolution,
        zone,
        aggregates: aggregates.unwrap_or_else(|| vec![Aggregate::Mean]),
        fill: fill.unwrap_or_default(),
    }))
}

/// The series of a request.
async fn find(
    pool: &Pool,
    devices: &[String],
    metric: Option<&str>,
) -> Result<Vec<Series>, ApiError> {
    let found = series::find(pool, devices, metric).await;
    let found = found.map_err(|error| api_error(&error))?;
    let missing = |device: &&String| !found.iter().any(|series| series.device == **device);
    if let Some(device) = devices.iter().find(missing) {
        let unknown = series::unknown_devices(pool, devices).await;
        let unknown = unknown.map_err(|error| api_error(&error))?;
        return Err(match (unknown.first(), metric) {
            (Some(device), _) => ApiError::UnknownDevice(device.clone()),
            (None, Some(metric)) => ApiError::UnknownSeries {
                device: device.clone(),
                metric: metric.into(),
            },
            // A device without any series has no points.
            (None, None) => return Ok(found),
        });
    }
    Ok(found)
}

async fn respond(
    pool: Arc<Pool>,
    request: ReadRequest,
    format: Format,
) -> Result<Response, ApiError> {
    stream::respond(format.media_type(), |output| {
        let rows = Rows {
            writer: format.writer(),
            output,
            started: false,
            count: 0,
        };
        rows.produce(pool, request)
    })
    .await
}

/// Where a page starts: `SERIES.MICROSECONDS`, the last point of the page before it.
fn parse_cursor(text: &str) -> Result<(SeriesId, Micros), String> {
    let parts = text.split_once('.');
    let parsed = parts.and_then(|(id, time)| Some((id.parse().ok()?, time.parse().ok()?)));
    parsed.ok_or_else(|| {
        format!("next: '{text}' is not a position: use the value of next from the last response")
    })
}

/// Why a response ended early.
enum Ended {
    Disconnected,
    Failed(ReadError),
}

impl From<Disconnected> for Ended {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

/// The rows of a response, on their way to the client.
struct Rows {
    writer: Box<dyn Writer>,
    output: Output,
    started: bool,
    count: u64,
}

impl Rows {
    async fn produce(mut self, pool: Arc<Pool>, request: ReadRequest) -> Result<(), Disconnected> {
        let written = match &request.bucketing {
            None => self.points(&pool, &request).await,
            Some(bucketing) => {
                let buckets = self.buckets(&pool, &request, bucketing).await;
                buckets.map(|()| None)
            }
        };
        match written {
            Ok(next) => {
                self.start(&request);
                self.writer
                    .end(self.output.buffer(), self.count, next.as_deref());
                self.output.finish(self.count).await
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
            let aggregates = bucketing.map(|bucketing| bucketing.aggregates.as_slice());
            self.writer.start(self.output.buffer(), aggregates);
        }
    }

    async fn row(&mut self, row: Row<'_>) -> Result<(), Disconnected> {
        self.writer.row(self.output.buffer(), row);
        self.count += 1;
        self.output.send_if_full().await
    }

    /// Writes the points of every series. Returns where the next page starts.
    async fn points(
        &mut self,
        pool: &Pool,
        request: &ReadRequest,
    ) -> Result<Option<String>, Ended> {
        let mut series = request.series.as_slice();
        let mut cursor = request.cursor;
        if let Some((id, _)) = cursor {
            let position = series.iter().position(|series| series.id == id);
            series = &series[position.unwrap_or(series.len())..];
        }
        let mut left = request.limit.unwrap_or(usize::MAX);
        for series in series {
            let mut rest = match cursor.take() {
                Some((_, time)) => request.range.after(time, request.order),
                None => request.range,
            };
            let mut named = false;
            loop {
                let wanted = left.min(SLICE);
                let slice = points::slice(pool, series.id, rest, request.order, wanted).await?;
                self.start(request);
                if !std::mem::replace(&mut named, true) {
                    self.writer.series(self.output.buffer(), series);
                }
                for &point in &slice {
                    self.row(Row::Point(point)).await?;
                }
                left -= slice.len();
                let Some(last) = slice.last() else { break };
                if left == 0 {
                    return Ok(Some(format!("{}.{}", series.id, last.time)));
                }
                if slice.len() < wanted {
                    break;
                }
                rest = rest.after(last.time, request.order);
            }
        }
        Ok(None)
    }

    /// Writes the buckets of every series.
    async fn buckets(
        &mut self,
        pool: &Pool,
        request: &ReadRequest,
        bucketing: &Bucketing,
    ) -> Result<(), Ended> {
        let range = request.range;
        use Aggregate::{Increase, Twa};
        let wanted = &bucketing.aggregates;
        let needs_neighbours = wanted.iter().any(|own| matches!(own, Twa | Increase))
            || bucketing.fill == Fill::Previous;
        for series in &request.series {
            let (mut before, mut after) = (None, None);
            if needs_neighbours {
                before = points::last_before(pool, series.id, range.from).await?;
                after = points::first_from(pool, series.id, range.to).await?;
            }
            let mut buckets = Buckets::new(
                bucketing.resolution,
                bucketing.zone.clone(),
                range,
                wanted,
                bucketing.fill,
                before,
            );
            let mut rest = range;
            let mut named = false;
            loop {
                let slice = points::slice(pool, series.id, rest, Order::OldestFirst, SLICE).await?;
                self.start(request);
                if !std::mem::replace(&mut named, true) {
                    self.writer.series(self.output.buffer(), series);
                }
                for &point in &slice {
                    buckets.push(point);
                }
                for bucket in buckets.take() {
                    self.row(Row::Bucket(&bucket, wanted)).await?;
                }
                match slice.last() {
                    Some(last) if slice.len() == SLICE => {
                        rest = rest.after(last.time, Order::OldestFirst);
                    }
                    _ => break,
                }
            }
            for bucket in buckets.finish(after) {
                self.row(Row::Bucket(&bucket, wanted)).await?;
            }
        }
        Ok(())
    }
}

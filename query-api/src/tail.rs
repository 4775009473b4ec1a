//! `GET /v1/readings/tail`: new readings of devices, as Server-Sent Events.
//!
//! In: devices, and on a reconnect the `Last-Event-ID`. Out: an event `readings` with what was
//! stored since the last poll, and comments in between, so that proxies keep the connection. The
//! id of an event is the position in each series. An id that cannot be resumed gets an event
//! `reset`, and the tail goes on with new readings. While PostgreSQL is unavailable, there are only
//! comments. A tail ends when the client disconnects or the process stops.
//!
//! A tail holds no connection between two polls.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, Micros, SeriesId};
use serde_json::{Value, json};
use service::ApiError;
use store::Pool;
use store::reads::points;
use store::reads::series::{self, Series};
use store::reads::tail;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, bad};
use crate::stream::{self, Disconnected, Output};
use crate::time;

/// Upper bound on tails at the same time.
pub(crate) const MAX_TAILS: usize = 100;
/// Upper bound on the series of a tail.
const MAX_SERIES: usize = 100;
/// Upper bound on the readings of an event.
const MAX_READINGS: usize = 5_000;
/// Pause between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two comments.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// An id is resumed if no series has points that are later than its position by more than this.
const MAX_RESUMED_MICROS: Micros = 3_600 * 1_000_000;

/// What every tail needs.
pub(crate) struct Tails {
    pool: Pool,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Tails {
    /// No tails. They end with the stop signal.
    pub(crate) fn new(pool: Pool, stop: CancellationToken) -> Self {
        Self {
            pool,
            slots: Arc::new(Semaphore::new(MAX_TAILS)),
            stop,
        }
    }
}

/// For each series, the time of the last point that the client has.
type Positions = Vec<(SeriesId, Micros)>;

/// See the module.
pub(crate) async fn get(
    State(tails): State<Arc<Tails>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query.as_deref(), openapi::TAIL);
    let devices = parameters.all("device");
    let metric = parameters.one("metric")?;
    parameters.finish()?;
    if devices.is_empty() || devices.len() > MAX_SERIES {
        return Err(bad(format!(
            "device: {} devices; name 1 to {MAX_SERIES}",
            devices.len()
        )));
    }
    let pool = &tails.pool;
    let unknown = series::unknown_devices(pool, &devices).await;
    if let Some(device) = unknown.map_err(|error| api_error(&error))?.pop() {
        return Err(ApiError::UnknownDevice(device));
    }
    let series = series::find(pool, &devices, metric.as_deref()).await;
    let series = series.map_err(|error| api_error(&error))?;
    if series.is_empty() || series.len() > MAX_SERIES {
        return Err(bad(format!(
            "the devices have {} series with this metric; a tail has 1 to {MAX_SERIES}",
            series.len()
        )));
    }
    let slot = tails.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| ApiError::TooManyTails)?;
    let mut latest = Positions::with_capacity(series.len());
    for series in &series {
        let last = points::last_before(pool, series.id, MAX_MEASURED_AT).await;
        let last = last.map_err(|error| api_error(&error))?;
        latest.push((series.id, last.map_or(MIN_MEASURED_AT, |point| point.time)));
    }
    let last_id = headers.get("last-event-id");
    let resumed = last_id.map(|id| resume(id, &latest));
    let tail = Tail {
        series,
        reset: resumed == Some(None),
        positions: resumed.flatten().unwrap_or(latest),
        _slot: slot,
    };
    let (pool, stop) = (tails.pool.clone(), tails.stop.clone());
    let mut response =
        stream::respond("text/event-stream", |output| tail.run(pool, stop, output)).await?;
    let headers = response.headers_mut();
    headers.remove(header::TRAILER);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The positions of an id, if it can be resumed.
fn resume(id: &HeaderValue, latest: &Positions) -> Option<Positions> {
    let part = |part: &str| {
        let (series, time) = part.split_once('.')?;
        let time = time.parse::<Micros>().ok()?;
        Some((series.parse().ok()?, time))
    };
    let own: Option<Positions> = id.to_str().ok()?.split(',').map(part).collect();
    let own = own.filter(|own| own.len() == latest.len())?;
    let is_recent = |(own, latest): (&(SeriesId, Micros), &(SeriesId, Micros))| {
        let is_valid = (MIN_MEASURED_AT..=MAX_MEASURED_AT).contains(&own.1);
        is_valid && own.0 == latest.0 && latest.1 - own.1 <= MAX_RESUMED_MICROS
    };
    own.iter().zip(latest).all(is_recent).then_some(own)
}

struct Tail {
    series: Vec<Series>,
    positions: Positions,
    /// Whether the client asked for an id that cannot be resumed.
    reset: bool,
    _slot: OwnedSemaphorePermit,
}

impl Tail {
    async fn run(
        mut self,
        pool: Pool,
        stop: CancellationToken,
        mut output: Output,
    ) -> Result<(), Disconnected> {
        output
            .buffer()
            .extend_from_slice(b": new readings follow\n\n");
        if self.reset {
            let reason = "the id is too old, or of other series: read what is missing from \
                          /v1/readings";
            self.event(&mut output, "reset", &json!({ "reason": reason }));
        }
        let limit = MAX_READINGS / self.series.len().max(1);
        let mut sent_at = Instant::now();
        loop {
            let polled = tail::after(&pool, &self.positions, limit).await;
            let mut is_full = false;
            match polled {
                Ok(points) if points.is_empty() => {}
                Ok(points) => {
                    is_full = points.len() >= limit;
                    let points = points.iter().filter_map(|(id, point)| {
                        let index = self.series.iter().position(|own| own.id == *id)?;
                        self.positions[index].1 = point.time;
                        let series = &self.series[index];
                        Some(json!({
                            "device": series.device, "metric": series.metric,
                            "time": time::format(point.time).to_string(), "value": point.value,
                        }))
                    });
                    let points: Vec<Value> = points.collect();
                    self.event(&mut output, "readings", &points.into());
                }
                Err(error) => tracing::warn!(%error, "a tail cannot poll"),
            }
            if output.buffer().is_empty() && sent_at.elapsed() >= HEARTBEAT_INTERVAL {
                output.buffer().extend_from_slice(b": heartbeat\n\n");
            }
            if !output.buffer().is_empty() {
                tokio::select! {
                    sent = output.send() => sent?,
                    () = stop.cancelled() => return Ok(()),
                }
                sent_at = Instant::now();
            }
            if is_full {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                disconnected = output.closed() => return Err(disconnected),
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Adds an event, whose id is the present position.
    fn event(&self, output: &mut Output, name: &str, data: &Value) {
        let id = |(series, time): &(SeriesId, Micros)| format!("{series}.{time}");
        let id: Vec<String> = self.positions.iter().map(id).collect();
        let event = format!("id: {}\nevent: {name}\ndata: {data}\n\n", id.join(","));
        output.buffer().extend_from_slice(event.as_bytes());
    }
}

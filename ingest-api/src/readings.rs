//! `POST /v1/readings`: decode ▸ validate ▸ resolve ▸ submit ▸ answer.
//!
//! In: a request. Out: 202 once every accepted reading is durable (201 where that is in PostgreSQL), with what was rejected and why; otherwise a problem
//! that says whether to retry. A bad reading costs itself only, unless the request is `?atomic=true`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::Counter;
use schema::batch::MAX_READINGS as MAX_BATCH;
use schema::partition::{Days, MAX_DAYS};
use schema::reading::{Micros, Reading, TimeBounds, check_names, check_value};
use schema::{Rejection, clock, metric};
use serde::{Deserialize, Serialize};
use service::metrics::Histograms;
use service::problem::Problem;
use service::sink::SinkError;
use tokio::time::Instant;

use crate::body::{Announced, Bodies, Text};
use crate::coalesce::{Coalescer, Outcome};
use crate::format::{self, Format, FormatError, RawReading};
use crate::registry::register::{RegisterError, Registrar};
use crate::registry::{Freshness, Known, Registry};
use crate::timestamp::{Precision, RawTime};

/// Errors that an answer lists; the rest is counted only.
const LISTED: usize = format::MAX_DETAILS;
/// Bodies above this many bytes are read on a thread of their own, so that the others do not wait meanwhile.
const LARGE: usize = 256 * 1024;

/// What the handler works with; one a process.
pub struct Readings {
    /// Bounds on bodies.
    pub bodies: Bodies,
    /// Names in memory.
    pub registry: Arc<Registry>,
    /// Takes new names, where unknown devices are registered; `None` where they are rejected.
    pub registrar: Option<Registrar>,
    /// Takes the readings.
    pub coalescer: Coalescer,
    /// How far ahead of our clock a reading may be, in microseconds.
    pub future_tolerance: Micros,
    /// How far behind our clock a reading may be, in microseconds.
    pub horizon: Option<Micros>,
    /// How long a request may wait for its outcome.
    pub answer_timeout: Duration,
    /// What a request with an accepted reading is answered.
    pub success: StatusCode,
    /// Histograms of the process.
    pub histograms: Arc<Histograms>,
    /// `gridwatch_readings_received_total`.
    pub received: Counter,
}

/// The query string.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    #[serde(default)]
    precision: Precision,
    #[serde(default)]
    atomic: bool,
}

/// One rejected reading in an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Listed {
    index: usize,
    code: &'static str,
    detail: String,
}

/// A request's readings, sorted into what can be stored, what never will be, and what cannot be told for now.
#[derive(Debug, Default)]
struct Sorted {
    good: Vec<Reading>,
    listed: Vec<Listed>,
    rejected: BTreeMap<Rejection, u64>,
    unavailable: u64,
    /// A good reading has the time of receipt: sent again it is another reading.
    timeless: bool,
}

impl Sorted {
    fn reject(&mut self, index: usize, rejection: Rejection, detail: Option<String>) {
        *self.rejected.entry(rejection).or_default() += 1;
        if self.listed.len() < LISTED {
            let detail = detail.unwrap_or_else(|| rejection.to_string());
            self.listed.push(Listed {
                index,
                code: rejection.code(),
                detail,
            });
        }
    }

    fn rejections(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// A request whose head has been read, and is gone: it borrows from a buffer of 8 kB, which is not kept for as long as the
/// readings are under way then.
struct Opened {
    parameters: Parameters,
    format: Format,
    announced: Announced,
    body: Body,
}

impl Opened {
    fn new(request: Request) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let Query(parameters) = Query::try_from_uri(&head.uri).map_err(|error| {
            let detail = format!(
                "{}; known are precision=s|ms|us|ns and atomic=true|false",
                error.body_text()
            );
            Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail)
        })?;
        let format = format_of(&head.headers)?;
        Ok(Self {
            parameters,
            format,
            announced: Announced::new(&head.headers),
            body,
        })
    }
}

/// The handler. No `async fn`: its future would hold the whole head, and is made for every request.
pub fn post(
    State(readings): State<Arc<Readings>>,
    request: Request,
) -> impl Future<Output = Response> + Send {
    let begun = Instant::now();
    let opened = Opened::new(request);
    async move {
        let response = match readings.take(opened).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        readings.histograms.http.record(micros, 1);
        response
    }
}

impl Readings {
    async fn take(self: &Arc<Self>, opened: Result<Opened, Problem>) -> Result<Response, Problem> {
        let Opened {
            parameters,
            format,
            announced,
            body,
        } = opened?;
        let text = self.bodies.read(announced, body).await?;
        let received_at = clock::now();
        // The text keeps its share of the budget until the answer.
        let (sorted, _text) = if text.len() > LARGE {
            let this = self.clone();
            let sort = move || {
                (
                    this.sort(format, &text, parameters.precision, received_at),
                    text,
                )
            };
            tokio::task::spawn_blocking(sort)
                .await
                .map_err(|_| internal())?
        } else {
            (
                self.sort(format, &text, parameters.precision, received_at),
                text,
            )
        };
        let (mut sorted, unknown) = sorted?;
        if !unknown.is_empty() {
            self.settle_unknown(&mut sorted, unknown).await;
            sorted.listed.sort_by_key(|listed| listed.index);
        }
        self.submit(sorted, parameters.atomic, received_at).await
    }

    /// Reads and validates a request, and finds the series of those names that the registry knows.
    fn sort(
        &self,
        format: Format,
        text: &Text,
        precision: Precision,
        received_at: Micros,
    ) -> Result<(Sorted, Vec<Unknown>), Problem> {
        let entries = format::read(format, text.as_str()?).map_err(|error| match &error {
            FormatError::Malformed(_) => {
                Problem::new(StatusCode::BAD_REQUEST, "malformed_json", error.to_string())
            }
            FormatError::TooMany => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_readings",
                error.to_string(),
            ),
        })?;
        let bounds = TimeBounds::around(received_at, self.future_tolerance, self.horizon);
        let mut sorted = Sorted {
            good: Vec::with_capacity(entries.len()),
            ..Sorted::default()
        };
        let mut unknown = Vec::new();
        let names = self.registry.names();
        for (index, entry) in entries.into_iter().enumerate() {
            let raw = match entry {
                Ok(raw) => raw,
                Err((rejection, detail)) => {
                    sorted.reject(index, rejection, Some(detail));
                    continue;
                }
            };
            let measured_at = match check(&raw, precision, received_at, &bounds) {
                Ok(measured_at) => measured_at,
                Err(rejection) => {
                    sorted.reject(index, rejection, None);
                    continue;
                }
            };
            let known = names.find(&raw.device, &raw.metric);
            sorted.timeless |= matches!(raw.measured_at, RawTime::Absent);
            match known {
                Known::Series(series_id) => sorted.good.push(Reading {
                    series_id,
                    measured_at,
                    value: raw.value,
                }),
                Known::Inactive => sorted.reject(index, Rejection::InactiveDevice, None),
                Known::NoDevice | Known::NoMetric => match check_names(&raw.device, &raw.metric) {
                    Ok(()) => unknown.push(Unknown {
                        index,
                        device: raw.device.into_owned(),
                        metric: raw.metric.into_owned(),
                        measured_at,
                        value: raw.value,
                    }),
                    Err(rejection) => sorted.reject(index, rejection, None),
                },
            }
        }
        Ok((sorted, unknown))
    }

    /// Rejects or registers the names that the registry does not know; while it cannot tell, they are to be retried.
    async fn settle_unknown(&self, sorted: &mut Sorted, unknown: Vec<Unknown>) {
        let Some(registrar) = &self.registrar else {
            // Before the names: what was loaded in between is found then.
            let fresh = self.registry.freshness() == Freshness::Fresh;
            let names = self.registry.names();
            for one in unknown {
                let (rejection, name) = match names.find(&one.device, &one.metric) {
                    Known::Series(series_id) => {
                        sorted.good.push(Reading {
                            series_id,
                            measured_at: one.measured_at,
                            value: one.value,
                        });
                        continue;
                    }
                    _ if !fresh => {
                        sorted.unavailable += 1;
                        continue;
                    }
                    Known::Inactive => (Rejection::InactiveDevice, &one.device),
                    Known::NoDevice => (Rejection::UnknownDevice, &one.device),
                    Known::NoMetric => (Rejection::UnknownMetric, &one.metric),
                };
                sorted.reject(one.index, rejection, Some(format!("{rejection}: '{name}'")));
            }
            return;
        };
        let pairs = unknown
            .iter()
            .map(|one| (one.device.clone(), one.metric.clone()))
            .collect();
        let registered = tokio::time::timeout(self.answer_timeout, registrar.register(pairs))
            .await
            .unwrap_or(Err(RegisterError::Unavailable));
        let names = self.registry.names();
        for one in unknown {
            match (names.find(&one.device, &one.metric), &registered) {
                (Known::Series(series_id), _) => {
                    sorted.good.push(Reading {
                        series_id,
                        measured_at: one.measured_at,
                        value: one.value,
                    });
                }
                (Known::Inactive, _) => sorted.reject(one.index, Rejection::InactiveDevice, None),
                (_, Err(RegisterError::Full)) => {
                    sorted.reject(one.index, Rejection::RegistryFull, None)
                }
                (_, _) => sorted.unavailable += 1,
            }
        }
    }

    /// Does the books of what was decided, hands in the good readings and waits for their outcome.
    async fn submit(
        &self,
        mut sorted: Sorted,
        atomic: bool,
        received_at: Micros,
    ) -> Result<Response, Problem> {
        let total = sorted.good.len() as u64 + sorted.rejections() + sorted.unavailable;
        if total == 0 {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "no_readings",
                "the request has no readings",
            ));
        }
        self.received.increment(total);
        let too_large = atomic && !fits_a_batch(&sorted.good);
        if atomic && (sorted.rejections() > 0 || too_large) {
            let dropped = sorted.good.len() as u64 + sorted.unavailable;
            *sorted.rejected.entry(Rejection::AtomicRequest).or_default() += dropped;
            sorted.good.clear();
            sorted.unavailable = 0;
        } else if sorted.unavailable > 0 && (atomic || sorted.timeless) {
            // The request is to be sent again, and what has no time of its own would be stored once more each time.
            sorted.unavailable += sorted.good.len() as u64;
            sorted.good.clear();
        }
        for (rejection, &count) in &sorted.rejected {
            metrics::counter!(metric::REJECTED.name, metric::LABEL_CODE => rejection.code())
                .increment(count);
        }
        if too_large {
            let detail =
                format!("an atomic request has at most {MAX_BATCH} readings of {MAX_DAYS} days");
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "atomic_too_large",
                detail,
            ));
        }
        if sorted.unavailable > 0 {
            unavailable("registry", sorted.unavailable);
        }
        let accepted = sorted.good.len() as u64;
        if accepted > 0 {
            let timeless = sorted.timeless;
            let outcomes = self
                .coalescer
                .submit(sorted.good, received_at)
                .map_err(|_| {
                    unavailable("full", accepted);
                    let detail = "as many readings wait for the queue as may; retry";
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
                })?;
            self.wait(outcomes, timeless).await?;
        }
        let rejected: u64 = sorted.rejected.values().sum();
        if sorted.unavailable > 0 {
            let detail = "the registry cannot be asked about names it does not know; retry the whole request";
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "registry_unavailable",
                detail,
            )
            .with("accepted", accepted)
            .with("rejected", rejected)
            .with("unavailable", sorted.unavailable));
        }
        if accepted == 0 {
            let errors = serde_json::to_value(&sorted.listed).map_err(|_| internal())?;
            let detail = "none of the readings was accepted; do not retry them as they are";
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "no_reading_accepted",
                detail,
            )
            .with("accepted", 0)
            .with("rejected", rejected)
            .with("errors", errors));
        }
        Ok((
            self.success,
            Json(Answer {
                accepted,
                rejected,
                errors: sorted.listed,
            }),
        )
            .into_response())
    }

    async fn wait(
        &self,
        outcomes: Vec<tokio::sync::oneshot::Receiver<Outcome>>,
        timeless: bool,
    ) -> Result<(), Problem> {
        let parts = outcomes.len();
        let all = async {
            for outcome in outcomes {
                // A reply that was dropped: the process is on its way out.
                outcome.await.unwrap_or_else(|_| {
                    Err(SinkError::Unconfirmed("the process is stopping".into()))
                })?;
            }
            Ok(())
        };
        let unavailable =
            |code, detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        let in_doubt = |reason: &str| {
            let retry = if timeless {
                "stores those twice that have no measured_at"
            } else {
                "stores nothing twice"
            };
            let detail =
                format!("{reason}; the readings may be stored or not: retry, that {retry}");
            unavailable("unconfirmed", &detail)
        };
        match tokio::time::timeout(self.answer_timeout, all).await {
            Ok(Ok(())) => Ok(()),
            // Another part of it may be stored.
            Ok(Err(SinkError::Refused(reason))) if parts > 1 => Err(in_doubt(&reason)),
            Ok(Err(SinkError::Refused(reason))) => Err(unavailable(
                "queue_unavailable",
                &format!("{reason}; retry"),
            )),
            Ok(Err(SinkError::Unconfirmed(reason))) => Err(in_doubt(&reason)),
            Err(_) => Err(in_doubt("no confirmation in time")),
        }
    }
}

/// A reading whose names the registry does not know.
struct Unknown {
    index: usize,
    device: String,
    metric: String,
    measured_at: Micros,
    value: f64,
}

#[derive(Serialize)]
struct Answer {
    accepted: u64,
    rejected: u64,
    errors: Vec<Listed>,
}

fn check(
    raw: &RawReading<'_>,
    precision: Precision,
    received_at: Micros,
    bounds: &TimeBounds,
) -> Result<Micros, Rejection> {
    check_value(raw.value)?;
    let measured_at = raw.measured_at.resolve(precision, received_at)?;
    bounds.check(measured_at)?;
    Ok(measured_at)
}

/// Whether readings travel together: what is in two batches is stored or not independently.
fn fits_a_batch(readings: &[Reading]) -> bool {
    let days: Days = readings.iter().map(|reading| reading.measured_at).collect();
    readings.len() <= MAX_BATCH && days.len() <= MAX_DAYS
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Format::Json);
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(Format::Json)
    } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(Format::Ndjson)
    } else {
        let detail = "content-type is application/json or application/x-ndjson";
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        ))
    }
}

fn unavailable(reason: &'static str, count: u64) {
    metrics::counter!(metric::UNAVAILABLE.name, metric::LABEL_REASON => reason).increment(count);
}

fn internal() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the request could not be worked on",
    )
}

//! `POST /v1/readings`: parse ▸ validate ▸ resolve ▸ submit ▸ respond.
//!
//! In: a request. Out: 202 when every accepted reading is durable (201 when that means committed to
//! PostgreSQL), with what was rejected and why; otherwise an error that tells whether to retry. A
//! bad reading is rejected alone, unless the request is `?atomic=true`.

mod detail;
mod submit;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::Counter;
use schema::clock;
use schema::reading::Micros;
use service::ApiError;
use service::metrics::Histograms;
use tokio::time::Instant;

use crate::body::{Bodies, BodyHeaders};
use crate::coalesce::Coalescer;
use crate::format::Format;
use crate::query::Parameters;
use crate::registry::Registry;
use crate::registry::register::Registrar;

/// Bodies above this many bytes are parsed on a thread for blocking work, so that they do not delay
/// other requests.
const LARGE: usize = 256 * 1024;

/// What the handler works with. One per process.
pub(crate) struct Readings {
    /// Limits on bodies.
    pub bodies: Bodies,
    /// Names in memory.
    pub registry: Arc<Registry>,
    /// Registers new names; `None` if unknown devices are rejected.
    pub registrar: Option<Registrar>,
    /// Upper bound on series, for messages.
    pub max_series: usize,
    /// Delivers readings to the sink.
    pub coalescer: Coalescer,
    /// How far in the future a reading may be measured, in microseconds.
    pub future_tolerance: Micros,
    /// How old a reading may be, in microseconds; no limit if `None`.
    pub horizon: Option<Micros>,
    /// How long a request waits for a registration and for its outcome.
    pub response_timeout: Duration,
    /// The status of a response with an accepted reading.
    pub success: StatusCode,
    /// Histograms of the process.
    pub histograms: Arc<Histograms>,
    /// `gridwatch_readings_received_total`.
    pub received: Counter,
}

/// A request without its head, which borrows from a buffer of 8 kB. The buffer is released, because
/// the readings may be in flight for a while.
struct ReadingsRequest {
    parameters: Parameters,
    format: &'static Format,
    headers: BodyHeaders,
    body: Body,
}

impl ReadingsRequest {
    fn new(request: Request) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let parameters = Parameters::from_uri(&head.uri)?;
        let format = Format::from_content_type(head.headers.get(header::CONTENT_TYPE))?;
        Ok(Self {
            parameters,
            format,
            headers: BodyHeaders::new(&head.headers),
            body,
        })
    }
}

/// Handles a request. This is not an `async fn`, whose future would hold the whole head and is
/// allocated for every request.
pub(crate) fn post(
    State(readings): State<Arc<Readings>>,
    request: Request,
) -> impl Future<Output = Response> + Send {
    let begin = Instant::now();
    let request = ReadingsRequest::new(request);
    async move {
        let response = match readings.process(request).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        readings.histograms.http.record(micros, 1);
        response
    }
}

impl Readings {
    async fn process(
        self: &Arc<Self>,
        request: Result<ReadingsRequest, ApiError>,
    ) -> Result<Response, ApiError> {
        let ReadingsRequest {
            parameters,
            format,
            headers,
            body,
        } = request?;
        let Parameters { precision, atomic } = parameters;
        let bytes = self.bodies.read(headers, format, body).await?;
        let received_at = clock::now();
        // `_bytes` keeps its permit of the memory budget until the response.
        let (validated, _bytes) = if bytes.len() > LARGE {
            let this = self.clone();
            let validate = move || (this.validate(format, &bytes, precision, received_at), bytes);
            tokio::task::spawn_blocking(validate)
                .await
                .map_err(|_| ApiError::Internal)?
        } else {
            (self.validate(format, &bytes, precision, received_at), bytes)
        };
        let (mut validated, unknown) = validated?;
        if !unknown.is_empty() {
            self.resolve_unknown(&mut validated, unknown).await;
            validated.errors.sort_by_key(|error| error.index);
        }
        self.submit(validated, atomic, received_at).await
    }
}

//! One connection: it sends requests one after the other, and records the outcome of each.
//!
//! In: requests from the queue of its thread. Out: measurements and ledger entries. A connection
//! that breaks is opened again for the next request.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Uri};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::{Sender, SenderState, lock};
use crate::http;
use crate::ledger::Outcome;
use crate::plural::plural;
use crate::recorder::{Counts, TransportError, record};
use crate::scenario::Mode;
use crate::traffic::{Request, RequestFault};

/// A request that is later than this is dropped.
const MAX_LATENESS: Duration = Duration::from_secs(10);
/// A send that is later than this counts as late.
const LATE: Duration = Duration::from_millis(1);
/// Longest response body, in bytes.
const MAX_RESPONSE: usize = 1024 * 1024;
/// Longest `Retry-After` that is respected.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);
/// Longest part of a response body in a message, in bytes.
const MAX_EXCERPT: usize = 300;

pub(super) struct Connection {
    state: Arc<SenderState>,
    /// The open HTTP connection, if any.
    http: Option<SendRequest<Full<Bytes>>>,
    path: Uri,
    headers: HeaderMap,
}

/// The result of sending a request once.
#[derive(Debug, Clone, PartialEq)]
enum Attempt {
    Response {
        status: u16,
        retry_after: Option<Duration>,
        body: Bytes,
    },
    Failed(Failure),
}

/// No connection, a broken connection, or no response in time.
#[derive(Debug, Clone, PartialEq)]
struct Failure {
    cause: TransportError,
    /// The cause, with the error of the operating system.
    reason: String,
}

impl Failure {
    fn new(cause: TransportError, detail: impl Display) -> Self {
        Self {
            cause,
            reason: format!("{}: {detail}", cause.description()),
        }
    }

    /// No connection could be opened.
    fn connecting(error: &anyhow::Error) -> Self {
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let cause = match kind {
            Some(ErrorKind::ConnectionRefused) => TransportError::ConnectionRefused,
            _ => TransportError::NoConnection,
        };
        Self::new(cause, format_args!("{error:#}"))
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let cause = if error.is_parse() {
            TransportError::InvalidResponse
        } else {
            TransportError::ConnectionBroken
        };
        Self::new(cause, error)
    }
}

impl Attempt {
    /// Whether a retry would give the same response.
    fn is_final(&self) -> bool {
        matches!(self, Self::Response { status, .. } if *status < 500)
    }

    /// Counts the status, or why there is none.
    fn count(&self, counts: &mut Counts) {
        match self {
            Self::Response { status, .. } => *counts.statuses.entry(*status).or_default() += 1,
            Self::Failed(failure) => counts.add_transport_error(failure.cause),
        }
    }
}

/// The body of a 2xx response.
#[derive(Debug, Deserialize)]
struct ResponseCounts {
    accepted: u64,
    rejected: u64,
}

/// The body of a response with errors: one for each rejected reading, or one for the request.
#[derive(Debug, Deserialize)]
struct ResponseErrors<'a> {
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    errors: Vec<ResponseError<'a>>,
}

#[derive(Debug, Deserialize)]
struct ResponseError<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

/// Counts the codes of the errors in a response; none if it has no errors in this form.
fn count_error_codes(body: &[u8], counts: &mut Counts) {
    let Ok(response) = serde_json::from_slice::<ResponseErrors<'_>>(body) else {
        return;
    };
    for error in &response.errors {
        counts.add_error_code(&error.code, 1);
    }
    if let (Some(code), true) = (&response.code, response.errors.is_empty()) {
        counts.add_error_code(code, 1);
    }
}

impl Request {
    fn readings(&self) -> u64 {
        self.good + self.bad
    }

    /// Whether the body of a 2xx response has the expected counts of readings.
    fn matches(&self, body: &[u8]) -> bool {
        let counts: Option<ResponseCounts> = serde_json::from_slice(body).ok();
        self.good > 0
            && counts
                .is_some_and(|counts| (counts.accepted, counts.rejected) == (self.good, self.bad))
    }
}

/// Status and beginning of the body, for a message.
fn excerpt(status: u16, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_EXCERPT)]);
    format!("{status} {body}")
}

impl Connection {
    pub(super) fn new(state: Arc<SenderState>, path: Uri, headers: HeaderMap) -> Self {
        Self {
            state,
            http: None,
            path,
            headers,
        }
    }

    fn sender(&self) -> &Sender {
        &self.state.sender
    }

    /// Sends requests until the schedule or the duration ends, or the run is stopped.
    pub(super) async fn run(mut self) {
        let state = self.state.clone();
        let sender = &state.sender;
        let end = sender.begin + sender.traffic.scenario().duration;
        let is_closed = sender.mode() == Mode::Closed;
        loop {
            let Some((number, due)) = lock(&state.queue).pop(&sender.traffic) else {
                return;
            };
            let due = sender.begin + if sender.is_paced { due } else { Duration::ZERO };
            if sender.is_paced && due + MAX_LATENESS < Instant::now() {
                sender.recorder.lock().counts.dropped += 1;
                // A long sequence of dropped requests must not block the other connections of this
                // thread.
                tokio::task::yield_now().await;
                if sender.stop.is_cancelled() {
                    return;
                }
                continue;
            }
            // Rendered before its scheduled time, so that rendering does not delay it.
            let request = sender.traffic.request(number);
            if Instant::now() < due {
                let wait = state.timer.sleep_until(due);
                if sender.stop.run_until_cancelled(wait).await.is_none() {
                    return;
                }
            }
            let started = Instant::now();
            if sender.stop.is_cancelled() || (is_closed && started >= end) {
                return;
            }
            let due = if sender.is_paced { due } else { started };
            self.process(number, &request, due, started).await;
        }
    }

    /// Sends a request until there is a final response or the limit of retries is reached, and
    /// records its outcome.
    async fn process(&mut self, number: u64, request: &Request, due: Instant, started: Instant) {
        let state = self.state.clone();
        let sender = &state.sender;
        let entry = number / sender.partition.threads;
        // The outcome is unknown until there is a response.
        lock(&state.ledger).set(entry, Outcome::Unknown);
        let is_warm = due >= sender.begin + sender.traffic.scenario().warm_up;
        let is_disconnect = request.fault == Some(RequestFault::Disconnect);
        let attempt = self.send_with_retries(request).await;
        self.measure(due, started, is_warm && !is_disconnect, attempt.is_final());
        let outcome = self.evaluate(request, number, &attempt);
        lock(&state.ledger).set(entry, outcome);
        if outcome == Outcome::Accepted && sender.traffic.is_repeated(number) {
            // The readings are already accepted: a 503 changes nothing, but another status has to
            // be a 2xx.
            let attempt = self.send(request).await;
            let counts = &mut sender.recorder.lock().counts;
            counts.repeated += 1;
            attempt.count(counts);
            if attempt.is_final() {
                self.evaluate_repeated(request, number, &attempt);
            }
        }
    }

    async fn send_with_retries(&mut self, request: &Request) -> Attempt {
        let state = self.state.clone();
        let sender = &state.sender;
        let retry = sender.traffic.scenario().retry;
        let mut retries = 0;
        loop {
            let attempt = self.send(request).await;
            let is_disconnect = request.fault == Some(RequestFault::Disconnect);
            if attempt.is_final() || is_disconnect || retries == retry.attempts {
                return attempt;
            }
            retries += 1;
            {
                let counts = &mut sender.recorder.lock().counts;
                counts.retried += 1;
                attempt.count(counts);
            }
            let pause = match &attempt {
                Attempt::Response { retry_after, .. } => retry_after.unwrap_or(retry.after),
                Attempt::Failed(_) => retry.after,
            };
            let pause = tokio::time::sleep(pause);
            if sender.stop.run_until_cancelled(pause).await.is_none() {
                return attempt;
            }
        }
    }

    /// Records the times of a request. A request without a final response counts with the timeout
    /// at least; otherwise a target that fails fast would have low latencies.
    fn measure(&self, due: Instant, started: Instant, is_timed: bool, is_final: bool) {
        let (sender, ended) = (self.sender(), Instant::now());
        let mut measurements = sender.recorder.lock();
        measurements.counts.sent += 1;
        measurements.last_send = measurements.last_send.max(Some(started));
        measurements.counts.late += u64::from(started > due + LATE);
        if is_timed {
            let least = if is_final {
                Duration::ZERO
            } else {
                sender.traffic.scenario().timeout
            };
            record(&mut measurements.latency, (ended - due).max(least));
            record(
                &mut measurements.latency_from_send,
                (ended - started).max(least),
            );
            record(&mut measurements.lateness, started - due);
        }
    }

    /// Checks the response to the repetition of an accepted request.
    fn evaluate_repeated(&self, request: &Request, number: u64, attempt: &Attempt) {
        let Attempt::Response { status, body, .. } = attempt else {
            return;
        };
        let is_match = !self.sender().target.is_checked || request.matches(body);
        if *status >= 300 || !is_match {
            let example = || format!("request {number}, repeated: {}", excerpt(*status, body));
            self.sender().recorder.lock().add_mismatch(example);
        }
    }

    /// Counts the readings of a request by its outcome, and checks that the response matches the
    /// request.
    fn evaluate(&self, request: &Request, number: u64, attempt: &Attempt) -> Outcome {
        let mut measurements = self.sender().recorder.lock();
        attempt.count(&mut measurements.counts);
        let (status, body) = match attempt {
            Attempt::Response { status, body, .. } => (*status, body),
            Attempt::Failed(Failure { reason, .. }) => {
                if request.fault == Some(RequestFault::Disconnect) {
                    measurements.counts.rejected += request.readings();
                    return Outcome::Rejected;
                }
                measurements
                    .add_error(request.readings(), || format!("request {number}: {reason}"));
                return Outcome::Unknown;
            }
        };
        let example = || format!("request {number}: {}", excerpt(status, body));
        let mismatch = || {
            let expected = plural(request.good, "reading");
            format!("{}; expected {expected} to be accepted", example())
        };
        match status {
            200..=299 if !self.sender().target.is_checked => {
                measurements.counts.accepted += request.good;
                Outcome::Accepted
            }
            200..=299 if request.matches(body) => {
                measurements.counts.accepted += request.good;
                measurements.counts.rejected += request.bad;
                Outcome::Accepted
            }
            200..=299 => {
                count_error_codes(body, &mut measurements.counts);
                measurements.add_mismatch(mismatch);
                measurements.counts.unknown += request.readings();
                Outcome::Unknown
            }
            400..=499 => {
                measurements.counts.rejected += request.readings();
                if request.good > 0 {
                    count_error_codes(body, &mut measurements.counts);
                    measurements.add_mismatch(mismatch);
                }
                Outcome::Rejected
            }
            _ => {
                measurements.add_error(request.readings(), example);
                Outcome::Unknown
            }
        }
    }

    async fn send(&mut self, request: &Request) -> Attempt {
        let timeout = self.sender().traffic.scenario().timeout;
        let result = match request.fault {
            Some(RequestFault::Disconnect) => {
                tokio::time::timeout(timeout, self.disconnect(request)).await
            }
            _ => tokio::time::timeout(timeout, self.try_send(request)).await,
        };
        match result {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(failure)) => {
                self.http = None;
                Attempt::Failed(failure)
            }
            Err(_) => {
                // A late response must not be read as the response to the next request.
                self.http = None;
                let limit = format_args!("{timeout:?}");
                Attempt::Failed(Failure::new(TransportError::Timeout, limit))
            }
        }
    }

    async fn try_send(&mut self, request: &Request) -> Result<Attempt, Failure> {
        let message = self.message(request);
        let http = self.connected().await?;
        let mut response = http.send_request(message).await?;
        let status = response.status().as_u16();
        let seconds = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let mut body = Bytes::new();
        while let Some(frame) = response.body_mut().frame().await {
            // Nearly every response has one frame, which is not copied.
            match frame?.into_data() {
                Ok(data) if body.is_empty() => body = data,
                Ok(data) => body = [body, data].concat().into(),
                Err(_) => {}
            }
            if body.len() > MAX_RESPONSE {
                let detail = format_args!("it has more than {MAX_RESPONSE} bytes");
                return Err(Failure::new(TransportError::InvalidResponse, detail));
            }
        }
        Ok(Attempt::Response {
            status,
            retry_after,
            body,
        })
    }

    /// The open connection, or a new one: the server may have closed it since the last request.
    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        let open = match self.http.take() {
            Some(mut http) => http.ready().await.is_ok().then_some(http),
            None => None,
        };
        let http = match open {
            Some(http) => http,
            None => http::connect(self.sender().target.address())
                .await
                .map_err(|error| Failure::connecting(&error))?,
        };
        Ok(self.http.insert(http))
    }

    fn message(&self, request: &Request) -> hyper::Request<Full<Bytes>> {
        let mut message = hyper::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = Method::POST;
        *message.uri_mut() = self.path.clone();
        *message.headers_mut() = self.headers.clone();
        let length = HeaderValue::from(request.body.len());
        message.headers_mut().insert(header::CONTENT_LENGTH, length);
        if let Some(encoding) = request.encoding {
            let encoding = HeaderValue::from_static(encoding);
            message
                .headers_mut()
                .insert(header::CONTENT_ENCODING, encoding);
        }
        message
    }

    /// Sends the head and half of the body of a request, and closes the connection.
    async fn disconnect(&self, request: &Request) -> Result<Attempt, Failure> {
        let stream = http::open(self.sender().target.address()).await;
        let mut stream = stream.map_err(|error| Failure::connecting(&error.into()))?;
        let (length, half) = (request.body.len(), &request.body[..request.body.len() / 2]);
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: loadtest\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n",
            self.path
        );
        stream
            .write_all(&[head.as_bytes(), half].concat())
            .await
            .map_err(|error| Failure::new(TransportError::ConnectionBroken, error))?;
        Ok(Attempt::Failed(Failure::new(
            TransportError::ClosedOnPurpose,
            "half of the body was sent",
        )))
    }
}

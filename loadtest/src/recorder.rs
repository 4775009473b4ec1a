//! Measurements of the requests: counts and latencies, collected once per second.
//!
//! In: the result of each request, from the threads that send. Out: the measurements since the last
//! collection, which the run adds up. Memory does not grow with the number of requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that a histogram distinguishes, in microseconds.
const MAX_LATENCY: u64 = 600_000_000;
/// Limit of the mismatches whose text is stored; further ones are only counted.
const MAX_EXAMPLES: usize = 20;

/// Limit of the codes of rejections that are counted separately, and of the length of each.
const MAX_CODES: usize = 50;

/// An empty histogram of microseconds with three significant digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// Adds a duration to a histogram.
pub(crate) fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(MAX_LATENCY));
}

/// Why a request has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "harness", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransportError {
    /// The target refused the connection: nothing listens there.
    ConnectionRefused,
    /// No connection could be opened for another reason.
    NoConnection,
    /// The connection broke before the response was complete.
    ConnectionBroken,
    /// The response was not received within the scenario's timeout.
    Timeout,
    /// The response is not valid HTTP, or longer than 1 MiB.
    InvalidResponse,
    /// The generator closed the connection, as the scenario's share of hostile requests demands.
    ClosedOnPurpose,
}

impl TransportError {
    /// The cause in a few words.
    pub fn description(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection refused",
            Self::NoConnection => "no connection",
            Self::ConnectionBroken => "connection broken",
            Self::Timeout => "no response in time",
            Self::InvalidResponse => "invalid response",
            Self::ClosedOnPurpose => "closed on purpose by the generator",
        }
    }
}

/// Counts of a run or a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "harness", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Requests sent, each counted once however often it was retried.
    pub sent: u64,
    /// Requests whose first send began more than a millisecond after its scheduled time.
    pub late: u64,
    /// Requests that were not sent because they were too late.
    pub dropped: u64,
    /// Retries after a 5xx status or without a response.
    pub retried: u64,
    /// Requests sent a second time after they were accepted, as by a device that missed the
    /// response.
    pub repeated: u64,
    /// Readings that a 2xx response accepted.
    pub accepted: u64,
    /// Readings that the front end rejected.
    pub rejected: u64,
    /// Readings without a final response.
    pub unknown: u64,
    /// Requests without a final response: 5xx, a broken connection or a timeout.
    pub errors: u64,
    /// Responses that do not match the request.
    #[serde(rename = "unlike")]
    pub mismatched: u64,
    /// Responses by status, those to retries and repetitions included; 0 where there was none.
    pub statuses: BTreeMap<u16, u64>,
    /// What is counted as status 0, by its cause.
    #[serde(default)]
    pub transport_errors: BTreeMap<TransportError, u64>,
    /// Errors by their code, from the responses that reject readings unexpectedly. A response lists
    /// a hundred errors at most.
    #[serde(default)]
    pub error_codes: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds the counts of another part.
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.late += other.late;
        self.dropped += other.dropped;
        self.retried += other.retried;
        self.repeated += other.repeated;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.errors += other.errors;
        self.mismatched += other.mismatched;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (cause, count) in &other.transport_errors {
            *self.transport_errors.entry(*cause).or_default() += count;
        }
        for (code, count) in &other.error_codes {
            self.add_error_code(code, *count);
        }
    }

    /// Responses by status and requests without a response by cause, each with its description.
    #[cfg(feature = "harness")]
    pub fn responses(&self) -> Vec<(String, u64)> {
        let statuses = self.statuses.iter().filter(|(status, _)| **status > 0);
        let statuses = statuses.map(|(&status, &count)| {
            let known = hyper::StatusCode::from_u16(status).ok();
            let reason = known.and_then(|status| status.canonical_reason());
            (format!("{status} {}", reason.unwrap_or_default()), count)
        });
        let errors = self.transport_errors.iter();
        let errors = errors.map(|(cause, &count)| (cause.description().to_owned(), count));
        statuses.chain(errors).collect()
    }

    /// Counts a sent request that has no response.
    pub(crate) fn add_transport_error(&mut self, cause: TransportError) {
        *self.statuses.entry(0).or_default() += 1;
        *self.transport_errors.entry(cause).or_default() += 1;
    }

    /// Counts errors with a code. The codes are input, so their number is limited.
    pub(crate) fn add_error_code(&mut self, code: &str, count: u64) {
        if let Some(known) = self.error_codes.get_mut(code) {
            *known += count;
        } else if self.error_codes.len() < MAX_CODES && code.len() <= MAX_CODES {
            self.error_codes.insert(code.to_owned(), count);
        }
    }

    /// Requests that failed: without a final response, with a mismatched one, or not sent in time.
    pub fn failed(&self) -> u64 {
        self.errors + self.mismatched + self.dropped
    }
}

/// Measurements of a run or a part of it. Histograms are in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Measurements {
    /// See [`Counts`].
    pub(crate) counts: Counts,
    /// From the scheduled send to the final response: the time that a device waits that cannot
    /// choose when it measures. A request without a final response counts with the timeout at
    /// least.
    pub(crate) latency: Histogram<u64>,
    /// The same from the actual send. It hides that a slow response delays the sends after it.
    pub(crate) latency_from_send: Histogram<u64>,
    /// From the scheduled send to the actual send.
    pub(crate) lateness: Histogram<u64>,
    /// When the last request was sent for the first time; none before the first one.
    pub(crate) last_send: Option<Instant>,
    /// Examples of responses that do not match the request, or the first error.
    pub(crate) examples: Vec<String>,
}

impl Default for Measurements {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            latency: histogram(),
            latency_from_send: histogram(),
            lateness: histogram(),
            last_send: None,
            examples: Vec::new(),
        }
    }
}

impl Measurements {
    /// Adds another part.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.last_send = self.last_send.max(other.last_send);
        for (own, more) in [
            (&mut self.latency, &other.latency),
            (&mut self.latency_from_send, &other.latency_from_send),
            (&mut self.lateness, &other.lateness),
        ] {
            // Adding fails only for different bounds.
            let _ = own.add(more);
        }
        let left = MAX_EXAMPLES.saturating_sub(self.examples.len());
        self.examples
            .extend(other.examples.iter().take(left).cloned());
    }

    /// Counts a response that does not match the request.
    pub(crate) fn add_mismatch(&mut self, example: impl FnOnce() -> String) {
        self.counts.mismatched += 1;
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(example());
        }
    }

    /// Counts a request without a final response. The first one is stored as an example.
    pub(crate) fn add_error(&mut self, readings: u64, example: impl FnOnce() -> String) {
        self.counts.errors += 1;
        self.counts.unknown += readings;
        if self.examples.is_empty() {
            self.examples.push(example());
        }
    }

    /// Removes all measurements; the allocated memory is reused.
    fn clear(&mut self) {
        self.counts = Counts::default();
        self.examples.clear();
        for histogram in [
            &mut self.latency,
            &mut self.latency_from_send,
            &mut self.lateness,
        ] {
            histogram.reset();
        }
    }
}

/// The measurements of one thread since the last collection. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Measurements>>);

impl Recorder {
    /// Gives access to the measurements; hold the lock briefly.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Measurements> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the measurements since the last collection into `total`.
    pub(crate) fn collect_into(&self, total: &mut Measurements) {
        let mut measurements = self.lock();
        total.add(&measurements);
        measurements.clear();
    }
}

/// Quantiles of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "harness", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// Number of values.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The 99.99th percentile.
    pub p9999: f64,
    /// The largest value.
    pub max: f64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

//! Submitting a validated request to the coalescer, and the response.
//!
//! In: a validated request. Out: a response when the outcome of every reading is known, and the
//! counters of received, rejected and unavailable readings. The coalescer counts the rest.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use schema::batch::MAX_READINGS as MAX_BATCH;
use schema::partition::{Days, MAX_DAYS};
use schema::reading::{Micros, Reading};
use schema::{Rejection, metric};
use serde::Serialize;
use service::ApiError;
use tokio::sync::oneshot;
use transport::SinkError;

use super::Readings;
use super::validate::{ReadingError, ValidatedRequest};
use crate::coalesce::Outcome;

/// The body of a successful response.
#[derive(Serialize)]
struct Accepted {
    accepted: u64,
    rejected: u64,
    errors: Vec<ReadingError>,
    /// Number of errors beyond those that are listed; absent if it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors_omitted: Option<u64>,
}

impl Readings {
    /// Submits the valid readings, waits for their outcome and builds the response.
    pub(super) async fn submit(
        &self,
        mut request: ValidatedRequest,
        atomic: bool,
        received_at: Micros,
    ) -> Result<Response, ApiError> {
        let total = request.valid.len() as u64 + request.rejections() + request.unavailable;
        if total == 0 {
            return Err(ApiError::NoReadings);
        }
        self.received.increment(total);
        let listed = request.errors.len() as u64;
        let errors_omitted = Some(request.rejections() - listed).filter(|&omitted| omitted > 0);
        let too_large = atomic && !fits_into_batch(&request.valid);
        if atomic && (request.rejections() > 0 || too_large) {
            let dropped = request.valid.len() as u64 + request.unavailable;
            *request
                .rejected
                .entry(Rejection::AtomicRequest)
                .or_default() += dropped;
            request.valid.clear();
            request.unavailable = 0;
        } else if request.unavailable > 0 && (atomic || request.has_untimed) {
            // The client has to retry the request, and each retry would store the readings without
            // a time of their own again.
            request.unavailable += request.valid.len() as u64;
            request.valid.clear();
        }
        count_rejected(&request.rejected);
        if too_large {
            return Err(ApiError::AtomicTooLarge {
                max_readings: MAX_BATCH,
                max_days: MAX_DAYS,
            });
        }
        if request.unavailable > 0 {
            count_unavailable("registry", request.unavailable);
        }
        let (accepted, rejected) = (request.valid.len() as u64, request.rejections());
        if accepted > 0 {
            let outcomes = self
                .coalescer
                .submit(request.valid, received_at)
                .map_err(|_| {
                    count_unavailable("full", accepted);
                    ApiError::TooManyPending
                })?;
            self.wait(outcomes, !request.has_untimed).await?;
        }
        if request.unavailable > 0 {
            return Err(ApiError::RegistryUnavailable {
                accepted,
                rejected,
                unavailable: request.unavailable,
            });
        }
        if accepted == 0 {
            let errors = serde_json::to_value(&request.errors).map_err(|_| ApiError::Internal)?;
            return Err(ApiError::NoReadingAccepted {
                rejected,
                errors,
                errors_omitted,
            });
        }
        let body = Accepted {
            accepted,
            rejected,
            errors: request.errors,
            errors_omitted,
        };
        Ok((self.success, Json(body)).into_response())
    }

    /// Waits until every part of a request is durable.
    async fn wait(
        &self,
        outcomes: Vec<oneshot::Receiver<Outcome>>,
        retry_is_safe: bool,
    ) -> Result<(), ApiError> {
        let unconfirmed = |reason| ApiError::Unconfirmed {
            reason,
            retry_is_safe,
        };
        let all = async {
            let mut is_partly_stored = false;
            let mut refused = None;
            for outcome in outcomes {
                let stopping = || SinkError::Unconfirmed("the process is stopping".into());
                match outcome.await.unwrap_or_else(|_| Err(stopping())) {
                    Ok(()) => is_partly_stored = true,
                    Err(SinkError::Refused(reason)) => refused = Some(reason),
                    Err(SinkError::Unconfirmed(reason)) => return Err(unconfirmed(reason)),
                }
            }
            match refused {
                None => Ok(()),
                Some(reason) if is_partly_stored => Err(unconfirmed(reason)),
                Some(reason) => Err(ApiError::QueueUnavailable(reason)),
            }
        };
        match tokio::time::timeout(self.response_timeout, all).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unconfirmed("no confirmation within the timeout".into())),
        }
    }
}

/// Whether readings fit into one batch. Two batches are stored independently of each other.
fn fits_into_batch(readings: &[Reading]) -> bool {
    let days: Days = readings.iter().map(|reading| reading.measured_at).collect();
    readings.len() <= MAX_BATCH && days.len() <= MAX_DAYS
}

fn count_rejected(rejected: &BTreeMap<Rejection, u64>) {
    for (rejection, &count) in rejected {
        let name = metric::REJECTED.name;
        metrics::counter!(name, metric::LABEL_CODE => rejection.code()).increment(count);
    }
}

fn count_unavailable(reason: &'static str, count: u64) {
    let name = metric::UNAVAILABLE.name;
    metrics::counter!(name, metric::LABEL_REASON => reason).increment(count);
}

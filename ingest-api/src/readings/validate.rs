//! Validating a request: which of its readings can be stored.
//!
//! In: the bytes of a body. Out: the valid readings with their series, and an error for each of the
//! others. Names that the registry does not have are registered or rejected; while PostgreSQL is
//! unavailable, their readings have to be retried.

use std::collections::BTreeMap;

use schema::Rejection;
use schema::reading::{Micros, Reading, TimeBounds, check_names, check_value};
use serde::Serialize;
use service::ApiError;

use super::{Readings, detail};
use crate::format::{Format, MAX_DETAILS, RawReading};
use crate::registry::register::RegisterError;
use crate::registry::{Freshness, Lookup};
use crate::timestamp::{Precision, RawTime};

/// A rejected reading in a response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ReadingError {
    /// Its place among the readings of the request, from 0.
    pub index: usize,
    /// Its line in the body, from 1, if the format has a reading per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    code: &'static str,
    detail: String,
}

/// The readings of a request, by what can be done with them.
#[derive(Debug, Default)]
pub(super) struct ValidatedRequest {
    /// Readings that can be stored.
    pub valid: Vec<Reading>,
    /// The first [`MAX_DETAILS`] rejected readings.
    pub errors: Vec<ReadingError>,
    /// Number of rejected readings, by reason.
    pub rejected: BTreeMap<Rejection, u64>,
    /// Number of readings that have to be retried because PostgreSQL is unavailable.
    pub unavailable: u64,
    /// Whether a valid reading has no time of its own: a retry of it is another reading.
    pub has_untimed: bool,
}

impl ValidatedRequest {
    /// Counts a rejected reading, and lists the first ones. `detail` is called for those only.
    fn reject(&mut self, index: usize, rejection: Rejection, detail: impl FnOnce() -> String) {
        *self.rejected.entry(rejection).or_default() += 1;
        if self.errors.len() < MAX_DETAILS {
            self.errors.push(ReadingError {
                index,
                line: None,
                code: rejection.code(),
                detail: detail(),
            });
        }
    }

    /// The same for a reading with names that are not in the registry.
    fn reject_unknown(
        &mut self,
        reading: &UnknownReading,
        rejection: Rejection,
        detail: impl FnOnce() -> String,
    ) {
        let listed = self.errors.len();
        self.reject(reading.index, rejection, detail);
        if let Some(error) = self.errors.get_mut(listed) {
            error.line = reading.line;
        }
    }

    /// Number of rejected readings.
    pub(super) fn rejections(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// A valid reading whose names are not in the registry.
pub(super) struct UnknownReading {
    index: usize,
    line: Option<usize>,
    device: String,
    metric: String,
    measured_at: Micros,
    value: f64,
}

impl UnknownReading {
    fn with_series(&self, series_id: i32) -> Reading {
        Reading {
            series_id,
            measured_at: self.measured_at,
            value: self.value,
        }
    }
}

impl Readings {
    /// Parses and validates a request, and resolves the names that the registry has. Returns the
    /// readings with other names separately.
    pub(super) fn validate(
        &self,
        format: &Format,
        bytes: &[u8],
        precision: Precision,
        received_at: Micros,
    ) -> Result<(ValidatedRequest, Vec<UnknownReading>), ApiError> {
        let entries = format.parse(bytes)?;
        let bounds = TimeBounds::around(received_at, self.future_tolerance, self.horizon);
        let mut request = ValidatedRequest {
            valid: Vec::with_capacity(entries.len()),
            ..ValidatedRequest::default()
        };
        let mut unknown = Vec::new();
        let names = self.registry.names();
        for (index, entry) in entries.into_iter().enumerate() {
            let raw = match entry {
                Ok(raw) => raw,
                Err((rejection, detail)) => {
                    request.reject(index, rejection, || detail);
                    continue;
                }
            };
            let measured_at = match check(&raw, precision, received_at, &bounds) {
                Ok(measured_at) => measured_at,
                Err(rejection) => {
                    let detail = || self.explain(rejection, &raw, precision, received_at);
                    request.reject(index, rejection, detail);
                    continue;
                }
            };
            let lookup = names.find(&raw.device, &raw.metric);
            request.has_untimed |= matches!(raw.measured_at, RawTime::Absent);
            match lookup {
                Lookup::Series(series_id) => request.valid.push(Reading {
                    series_id,
                    measured_at,
                    value: raw.value,
                }),
                Lookup::Inactive => {
                    let rejection = Rejection::InactiveDevice;
                    let detail = || detail::not_registered(rejection, &raw.device, &raw.metric);
                    request.reject(index, rejection, detail);
                }
                Lookup::UnknownDevice | Lookup::UnknownMetric => {
                    match check_names(&raw.device, &raw.metric) {
                        Ok(()) => unknown.push(UnknownReading {
                            index,
                            line: None,
                            device: raw.device.into_owned(),
                            metric: raw.metric.into_owned(),
                            measured_at,
                            value: raw.value,
                        }),
                        Err(error) => request.reject(index, error.rejection(), || {
                            detail::bad_name(&error, &raw.device, &raw.metric)
                        }),
                    }
                }
            }
        }
        drop(names);
        let errors = request.errors.iter_mut();
        set_lines(
            format,
            bytes,
            errors.map(|error| (error.index, &mut error.line)),
        );
        let readings = unknown.iter_mut();
        set_lines(
            format,
            bytes,
            readings.map(|reading| (reading.index, &mut reading.line)),
        );
        Ok((request, unknown))
    }

    /// Why the value or the time of a reading is rejected.
    fn explain(
        &self,
        rejection: Rejection,
        raw: &RawReading<'_>,
        precision: Precision,
        received_at: Micros,
    ) -> String {
        let measured_at = raw.measured_at.resolve(precision, received_at);
        match (rejection, measured_at, self.horizon) {
            (Rejection::ValueNotFinite, _, _) => detail::not_finite(raw),
            (Rejection::MeasuredInFuture, Ok(measured_at), _) => {
                detail::in_future(measured_at, received_at, self.future_tolerance)
            }
            (Rejection::MeasuredTooOld, Ok(measured_at), Some(horizon)) => {
                detail::too_old(measured_at, received_at, horizon)
            }
            (Rejection::BadTimestamp, _, _) => raw.measured_at.explain(precision),
            _ => rejection.to_string(),
        }
    }

    /// Registers or rejects readings with unknown names, by the policy of the deployment.
    pub(super) async fn resolve_unknown(
        &self,
        request: &mut ValidatedRequest,
        unknown: Vec<UnknownReading>,
    ) {
        match &self.registrar {
            None => self.reject_unknown(request, unknown),
            Some(registrar) => {
                let pairs = unknown
                    .iter()
                    .map(|reading| (reading.device.clone(), reading.metric.clone()));
                let registering = registrar.register(pairs.collect());
                let registered = tokio::time::timeout(self.response_timeout, registering)
                    .await
                    .unwrap_or(Err(RegisterError::Unavailable));
                self.accept_registered(request, unknown, &registered);
            }
        }
    }

    /// Rejects readings with unknown names, if the registry is up to date.
    fn reject_unknown(&self, request: &mut ValidatedRequest, unknown: Vec<UnknownReading>) {
        // Read before the names, so that names that are loaded in between are found.
        let is_fresh = self.registry.freshness() == Freshness::Fresh;
        let names = self.registry.names();
        for reading in unknown {
            let rejection = match names.find(&reading.device, &reading.metric) {
                Lookup::Series(series_id) => {
                    request.valid.push(reading.with_series(series_id));
                    continue;
                }
                _ if !is_fresh => {
                    request.unavailable += 1;
                    continue;
                }
                Lookup::Inactive => Rejection::InactiveDevice,
                Lookup::UnknownDevice => Rejection::UnknownDevice,
                Lookup::UnknownMetric => Rejection::UnknownMetric,
            };
            let detail = || detail::not_registered(rejection, &reading.device, &reading.metric);
            request.reject_unknown(&reading, rejection, detail);
        }
    }

    /// Accepts readings whose names have been registered.
    fn accept_registered(
        &self,
        request: &mut ValidatedRequest,
        unknown: Vec<UnknownReading>,
        registered: &Result<(), RegisterError>,
    ) {
        let names = self.registry.names();
        for reading in unknown {
            match (names.find(&reading.device, &reading.metric), registered) {
                (Lookup::Series(series_id), _) => {
                    request.valid.push(reading.with_series(series_id));
                }
                (Lookup::Inactive, _) => {
                    let rejection = Rejection::InactiveDevice;
                    let detail =
                        || detail::not_registered(rejection, &reading.device, &reading.metric);
                    request.reject_unknown(&reading, rejection, detail);
                }
                (_, Err(RegisterError::Full)) => {
                    let detail =
                        || detail::registry_full(&reading.device, &reading.metric, self.max_series);
                    request.reject_unknown(&reading, Rejection::RegistryFull, detail);
                }
                (_, _) => request.unavailable += 1,
            }
        }
    }
}

/// Sets the lines of entries with ascending indices, if the format has an entry per line.
fn set_lines<'a>(
    format: &Format,
    bytes: &[u8],
    entries: impl Iterator<Item = (usize, &'a mut Option<usize>)>,
) {
    let (indices, lines): (Vec<usize>, Vec<&mut Option<usize>>) = entries.unzip();
    if indices.is_empty() {
        return;
    }
    for (line, number) in lines
        .into_iter()
        .zip(format.lines(bytes, &indices).into_iter().flatten())
    {
        *line = Some(number);
    }
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

//! A reading and its validation rules.
//!
//! In: names, values and times. Out: a [`Rejection`] for those that are not valid. The rules are
//! pure. Whether a device or a metric exists is decided by the registry (`ingest-api`), but the
//! codes for it are here, so that every code is in one place.

/// Microseconds since 1970-01-01T00:00:00Z: the unit of time on the wire and in memory.
pub type Micros = i64;

/// `series.id` in PostgreSQL: how a reading refers to its series after the front end.
pub type SeriesId = i32;

/// Longest external id of a device, in bytes.
pub const MAX_DEVICE_BYTES: usize = 256;
/// Longest name of a metric, in bytes.
pub const MAX_METRIC_BYTES: usize = 128;

/// 0001-01-01T00:00:00Z, the earliest valid time of a reading. PostgreSQL supports earlier times,
/// RFC 3339 does not.
pub const MIN_MEASURED_AT: Micros = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z, the latest valid time of a reading.
pub const MAX_MEASURED_AT: Micros = 253_402_300_799_999_999;

/// One measured value of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The series it belongs to.
    pub series_id: SeriesId,
    /// When it was measured.
    pub measured_at: Micros,
    /// What was measured, in the unit of the series; always finite.
    pub value: f64,
}

/// Why a reading is rejected. [`Rejection::code`] is stable: programs and dashboards depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rejection {
    /// No device has this name.
    #[error("no device of this name is registered")]
    UnknownDevice,
    /// The device is registered and inactive.
    #[error("the device is registered as inactive")]
    InactiveDevice,
    /// The device is registered, but not with this metric.
    #[error("the device has no metric of this name")]
    UnknownMetric,
    /// NaN, an infinity, null or a number beyond 64-bit floating point.
    #[error("the value is not a finite number")]
    ValueNotFinite,
    /// Further ahead of the receiver's clock than the tolerance.
    #[error("measured_at is in the future beyond the tolerance")]
    MeasuredInFuture,
    /// Older than the configured horizon.
    #[error("measured_at is before the retention horizon")]
    MeasuredTooOld,
    /// Neither RFC 3339 nor an epoch number in the request's precision, or outside the years 1 to
    /// 9999.
    #[error(
        "measured_at is not a valid time; use RFC 3339, \
         or a number with ?precision=s|ms|us|ns (default: s)"
    )]
    BadTimestamp,
    /// A device or metric name longer than [`MAX_DEVICE_BYTES`] or [`MAX_METRIC_BYTES`].
    #[error("a device name has at most 256 bytes, a metric name at most 128")]
    NameTooLong,
    /// An empty name, or one with control characters.
    #[error("a name has at least one character and no control characters")]
    BadName,
    /// Not an object with device, metric, value and optionally measured_at.
    #[error("a reading is an object with device, metric, value and optionally measured_at")]
    BadReading,
    /// Registering this name would exceed the limit on series.
    #[error("the registry is full; no more series can be registered")]
    RegistryFull,
    /// The reading itself is valid, but the request is `?atomic=true` and another reading is not.
    #[error("another reading of this atomic request was rejected")]
    AtomicRequest,
}

impl Rejection {
    /// Every rejection, in the order of their documentation.
    pub const ALL: [Rejection; 12] = [
        Self::UnknownDevice,
        Self::InactiveDevice,
        Self::UnknownMetric,
        Self::ValueNotFinite,
        Self::MeasuredInFuture,
        Self::MeasuredTooOld,
        Self::BadTimestamp,
        Self::NameTooLong,
        Self::BadName,
        Self::BadReading,
        Self::RegistryFull,
        Self::AtomicRequest,
    ];

    /// The stable code: in responses, as a metric label, in the dead-letter table.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownDevice => "unknown_device",
            Self::InactiveDevice => "inactive_device",
            Self::UnknownMetric => "unknown_metric",
            Self::ValueNotFinite => "value_not_finite",
            Self::MeasuredInFuture => "measured_in_future",
            Self::MeasuredTooOld => "measured_too_old",
            Self::BadTimestamp => "bad_timestamp",
            Self::NameTooLong => "name_too_long",
            Self::BadName => "bad_name",
            Self::BadReading => "bad_reading",
            Self::RegistryFull => "registry_full",
            Self::AtomicRequest => "atomic_request",
        }
    }
}

/// Bounds on `measured_at`, computed once per request from the receiver's clock.
#[derive(Debug, Clone, Copy)]
pub struct TimeBounds {
    latest: Micros,
    earliest: Option<Micros>,
}

impl TimeBounds {
    /// The latest valid time is `now` plus `future_tolerance`. The earliest is `now` minus
    /// `horizon`, if there is a horizon.
    pub fn around(now: Micros, future_tolerance: Micros, horizon: Option<Micros>) -> Self {
        Self {
            latest: now.saturating_add(future_tolerance),
            earliest: horizon.map(|h| now.saturating_sub(h)),
        }
    }

    /// Checks a time against the calendar and these bounds.
    pub fn check(&self, measured_at: Micros) -> Result<(), Rejection> {
        check_calendar(measured_at)?;
        if measured_at > self.latest {
            return Err(Rejection::MeasuredInFuture);
        }
        if self.earliest.is_some_and(|earliest| measured_at < earliest) {
            return Err(Rejection::MeasuredTooOld);
        }
        Ok(())
    }
}

/// Checks that the table and RFC 3339 can both represent a time.
pub fn check_calendar(measured_at: Micros) -> Result<(), Rejection> {
    if (MIN_MEASURED_AT..=MAX_MEASURED_AT).contains(&measured_at) {
        Ok(())
    } else {
        Err(Rejection::BadTimestamp)
    }
}

/// Checks that a value is finite.
pub fn check_value(value: f64) -> Result<(), Rejection> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Rejection::ValueNotFinite)
    }
}

/// Checks the names of a device and a metric. PostgreSQL's `text` cannot hold NUL, and other
/// control characters break logs and tables in which a name is printed.
pub fn check_names(device: &str, metric: &str) -> Result<(), Rejection> {
    if device.len() > MAX_DEVICE_BYTES || metric.len() > MAX_METRIC_BYTES {
        return Err(Rejection::NameTooLong);
    }
    for name in [device, metric] {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(Rejection::BadName);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_stable() {
        let codes: Vec<_> = Rejection::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(
            codes,
            [
                "unknown_device",
                "inactive_device",
                "unknown_metric",
                "value_not_finite",
                "measured_in_future",
                "measured_too_old",
                "bad_timestamp",
                "name_too_long",
                "bad_name",
                "bad_reading",
                "registry_full",
                "atomic_request"
            ]
        );
    }

    #[test]
    fn the_past_is_bounded_only_by_a_configured_horizon() {
        let now = 1_700_000_000_000_000;
        let open = TimeBounds::around(now, 10, None);
        assert_eq!(open.check(now + 10), Ok(()));
        assert_eq!(open.check(now + 11), Err(Rejection::MeasuredInFuture));
        assert_eq!(open.check(MIN_MEASURED_AT), Ok(()));
        assert_eq!(
            open.check(MIN_MEASURED_AT - 1),
            Err(Rejection::BadTimestamp)
        );
        assert_eq!(open.check(i64::MAX), Err(Rejection::BadTimestamp));
        let horizon = TimeBounds::around(now, 10, Some(100));
        assert_eq!(horizon.check(now - 100), Ok(()));
        assert_eq!(horizon.check(now - 101), Err(Rejection::MeasuredTooOld));
    }

    #[test]
    fn values_and_names_are_checked_against_their_bounds() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(check_value(value), Err(Rejection::ValueNotFinite));
        }
        assert_eq!(check_value(-0.0), Ok(()));
        let long = "x".repeat(MAX_DEVICE_BYTES);
        assert_eq!(check_names(&long, "power"), Ok(()));
        assert_eq!(
            check_names(&format!("{long}x"), "power"),
            Err(Rejection::NameTooLong)
        );
        assert_eq!(check_names("meter", ""), Err(Rejection::BadName));
        assert_eq!(check_names("me\0ter", "power"), Err(Rejection::BadName));
    }
}

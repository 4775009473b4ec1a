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
    /// A name that is empty or has only whitespace, has control characters, or begins or ends
    /// with whitespace.
    #[error("a name is not empty, has no control characters, and no whitespace at its ends")]
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

/// Why a name is not valid, for people. [`NameError::rejection`] has the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// See [`Rejection::NameTooLong`].
    #[error("the {kind} name has {bytes} bytes; at most {max} are accepted")]
    TooLong {
        /// "device" or "metric".
        kind: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It has no characters.
    #[error("the {0} name is empty")]
    Empty(&'static str),
    /// It has only whitespace.
    #[error("the {0} name has only whitespace")]
    Blank(&'static str),
    /// It has a control character.
    #[error(
        "the {kind} name has the control character U+{code:04X}; \
         a name has no control characters"
    )]
    Control {
        /// "device" or "metric".
        kind: &'static str,
        /// The code point of the first control character.
        code: u32,
    },
    /// It begins or ends with whitespace.
    #[error("the {0} name begins or ends with whitespace; remove it")]
    Padded(&'static str),
}

impl NameError {
    /// The rejection of a reading with this name.
    pub const fn rejection(&self) -> Rejection {
        match self {
            Self::TooLong { .. } => Rejection::NameTooLong,
            Self::Empty(_) | Self::Blank(_) | Self::Control { .. } | Self::Padded(_) => {
                Rejection::BadName
            }
        }
    }
}

/// Checks the names of a device and a metric. PostgreSQL's `text` cannot hold NUL. Other control
/// characters, and whitespace at the ends, give names that look like other names wherever they are
/// printed.
pub fn check_names(device: &str, metric: &str) -> Result<(), NameError> {
    check_device(device)?;
    check_metric(metric)
}

/// Checks the name of a device, as [`check_names`] does.
pub fn check_device(name: &str) -> Result<(), NameError> {
    check_name("device", name, MAX_DEVICE_BYTES)
}

/// Checks the name of a metric, as [`check_names`] does.
pub fn check_metric(name: &str) -> Result<(), NameError> {
    check_name("metric", name, MAX_METRIC_BYTES)
}

fn check_name(kind: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.len() > max {
        let bytes = name.len();
        return Err(NameError::TooLong { kind, bytes, max });
    }
    if name.is_empty() {
        return Err(NameError::Empty(kind));
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        let code = u32::from(control);
        return Err(NameError::Control { kind, code });
    }
    match name.trim() {
        "" => Err(NameError::Blank(kind)),
        trimmed if trimmed.len() < name.len() => Err(NameError::Padded(kind)),
        _ => Ok(()),
    }
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
    fn a_value_is_finite() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(check_value(value), Err(Rejection::ValueNotFinite));
        }
        assert_eq!(check_value(-0.0), Ok(()));
    }

    #[test]
    fn a_name_is_not_empty_not_too_long_and_can_be_printed() {
        let device = "x".repeat(MAX_DEVICE_BYTES);
        let metric = "x".repeat(MAX_METRIC_BYTES);
        assert_eq!(check_names(&device, &metric), Ok(()));
        assert_eq!(check_names("Zähler 1", "power"), Ok(()));
        for (device, metric, code, text) in [
            (
                &*format!("{device}x"),
                "p",
                "name_too_long",
                "257 bytes; at most 256",
            ),
            (
                "m",
                &format!("{metric}x"),
                "name_too_long",
                "129 bytes; at most 128",
            ),
            ("", "p", "bad_name", "the device name is empty"),
            ("m", "", "bad_name", "the metric name is empty"),
            (" \u{3000}", "p", "bad_name", "only whitespace"),
            ("me\0ter", "p", "bad_name", "U+0000"),
            ("\t", "p", "bad_name", "U+0009"),
            ("m\u{85}", "p", "bad_name", "U+0085"),
            (
                "m",
                " p",
                "bad_name",
                "the metric name begins or ends with whitespace",
            ),
            (
                "m\u{a0}",
                "p",
                "bad_name",
                "the device name begins or ends with whitespace",
            ),
        ] {
            let error = check_names(device, metric).unwrap_err();
            assert_eq!(error.rejection().code(), code, "{device:?} {metric:?}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

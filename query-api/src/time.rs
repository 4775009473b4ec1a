//! Times and zones of a request.
//!
//! In: text of a query string. Out: microseconds since 1970, or a sentence that says what is
//! expected.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use schema::reading::{MIN_MEASURED_AT, Micros};

/// An instant: RFC 3339, a number of milliseconds since 1970 (as Grafana sends it), or a date,
/// which is its first instant in the zone of the request.
///
/// # Errors
/// A sentence with the value and what is expected.
pub(crate) fn parse(name: &str, text: &str, zone: &TimeZone) -> Result<Micros, String> {
    // A '+' of an offset that was not percent-encoded arrives as a space.
    let spaced = text.replace(' ', "+");
    let parsed = if let Ok(milliseconds) = text.parse::<i64>() {
        milliseconds.checked_mul(1_000)
    } else if let Ok(date) = text.parse::<civil::Date>()
        && text.len() <= 10
    {
        let start = date.to_zoned(zone.clone()).ok();
        start.map(|start| start.timestamp().as_microsecond())
    } else {
        let instant: Option<Timestamp> = text.parse().or_else(|_| spaced.parse()).ok();
        instant.map(Timestamp::as_microsecond)
    };
    // Beyond the calendar, sums of times and lengths would overflow.
    let latest = Timestamp::MAX.as_microsecond();
    let parsed = parsed.filter(|time| (MIN_MEASURED_AT..=latest).contains(time));
    parsed.ok_or_else(|| {
        format!(
            "{name}: '{text}' is not a time: use RFC 3339 such as 2026-11-21T10:00:00Z, \
             a date, or milliseconds since 1970"
        )
    })
}

/// A length of time: a number with `s`, `m`, `h` or `d`.
///
/// # Errors
/// A sentence with the value and what is expected.
pub(crate) fn length(name: &str, text: &str) -> Result<Micros, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let length = seconds.and_then(|seconds: i64| {
        let count = count.parse::<i64>().ok()?;
        count.checked_mul(seconds * 1_000_000)
    });
    length.filter(|&length| length > 0).ok_or_else(|| {
        format!("{name}: '{text}' is not a length of time: use a number with s, m, h or d")
    })
}

/// A time zone by its IANA name, such as `Europe/Berlin`.
///
/// # Errors
/// A sentence with the value and what is expected.
pub(crate) fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| {
        format!("time_zone: '{text}' is not a time zone: use an IANA name such as Europe/Berlin")
    })
}

/// An instant as text: RFC 3339 in UTC, with as many digits as it needs.
pub(crate) fn format(time: Micros) -> Instant {
    Instant(time)
}

/// See [`format`].
pub(crate) struct Instant(Micros);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(instant) = Timestamp::from_microsecond(self.0) {
            return fmt::Display::fmt(&instant, f);
        }
        // A timestamp ends a day before the calendar does.
        let epoch = civil::date(1970, 1, 1).at(0, 0, 0, 0);
        match epoch.checked_add(SignedDuration::from_micros(self.0)) {
            Ok(datetime) => {
                fmt::Display::fmt(&datetime, f)?;
                f.write_str("Z")
            }
            Err(_) if self.0 < 0 => f.write_str("-infinity"),
            Err(_) => f.write_str("infinity"),
        }
    }
}

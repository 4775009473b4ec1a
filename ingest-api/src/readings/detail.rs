//! The sentences about rejected readings: the value concerned, and the limit.
//!
//! They are made for the readings that a response lists only.

use schema::Rejection;
use schema::reading::{Micros, NameError};
use service::quote::quote;

use crate::format::RawReading;
use crate::registry::register::MAX_SERIES_OF_DEVICE;

/// Units of time in microseconds, the largest first.
const UNITS: [(&str, Micros); 6] = [
    ("days", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("µs", 1),
];

/// A reading whose value is not finite.
pub(super) fn not_finite(raw: &RawReading<'_>) -> String {
    let value = match raw.value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "null or NaN",
    };
    format!("the value is {value}; send a finite number, or leave the reading out")
}

/// A reading that was measured after `now` by more than the tolerance.
pub(super) fn in_future(measured_at: Micros, now: Micros, tolerance: Micros) -> String {
    format!(
        "measured_at {}is {} in the future; at most {} is accepted",
        instant(measured_at),
        duration(measured_at.saturating_sub(now), true),
        duration(tolerance, false)
    )
}

/// A reading that was measured before `now` by more than the horizon.
pub(super) fn too_old(measured_at: Micros, now: Micros, horizon: Micros) -> String {
    format!(
        "measured_at {}is {} old; at most {} is accepted",
        instant(measured_at),
        duration(now.saturating_sub(measured_at), true),
        duration(horizon, false)
    )
}

/// A name that is not valid.
pub(super) fn bad_name(error: &NameError, device: &str, metric: &str) -> String {
    format!("{error} ({})", names(device, metric))
}

/// A name that is not registered, or inactive.
pub(super) fn not_registered(rejection: Rejection, device: &str, metric: &str) -> String {
    let (device, metric) = (quote(device), quote(metric));
    match rejection {
        Rejection::UnknownDevice => format!("no device named {device} is registered"),
        Rejection::UnknownMetric => format!("device {device} has no metric named {metric}"),
        Rejection::InactiveDevice => format!("device {device} is registered as inactive"),
        other => other.to_string(),
    }
}

/// A name that cannot be registered, because a limit is reached.
pub(super) fn registry_full(device: &str, metric: &str, max_series: usize) -> String {
    format!(
        "{} cannot be registered: the limit of {max_series} series, or of {MAX_SERIES_OF_DEVICE} \
         metrics of one device, is reached",
        names(device, metric)
    )
}

fn names(device: &str, metric: &str) -> String {
    let (device, metric) = (quote(device), quote(metric));
    format!("device {device}, metric {metric}")
}

/// A time with a space after it, or nothing if it has no text.
fn instant(micros: Micros) -> String {
    let time = jiff::Timestamp::from_microsecond(micros);
    time.map(|time| format!("{time} ")).unwrap_or_default()
}

/// A length of time in its two largest units.
fn duration(micros: Micros, round_up: bool) -> String {
    let largest = UNITS.iter().position(|(_, unit)| micros >= *unit);
    let Some(largest) = largest else {
        return "0 s".into();
    };
    let (name, unit) = UNITS[largest];
    let (next_name, next) = UNITS.get(largest + 1).copied().unwrap_or((name, unit));
    let remainder = micros % next;
    let rounded = match remainder {
        1.. if round_up => micros.saturating_add(next - remainder),
        _ => micros - remainder,
    };
    let (whole, rest) = (rounded / unit, rounded % unit / next);
    let name = if whole == 1 && name == "days" {
        "day"
    } else {
        name
    };
    match rest {
        0 => format!("{whole} {name}"),
        _ => format!("{whole} {name} {rest} {next_name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_units_and_an_excess_is_rounded_up() {
        for (micros, down, up) in [
            (0, "0 s", "0 s"),
            (7, "7 µs", "7 µs"),
            (1_500, "1 ms 500 µs", "1 ms 500 µs"),
            (300_000_000, "5 min", "5 min"),
            (300_000_001, "5 min", "5 min 1 s"),
            (3_599_999_999, "59 min 59 s", "60 min"),
            (86_400_000_000, "1 day", "1 day"),
            (30 * 86_400_000_000 + 1, "30 days", "30 days 1 h"),
        ] {
            assert_eq!(duration(micros, false), down);
            assert_eq!(duration(micros, true), up);
        }
        duration(Micros::MAX, true);
    }
}

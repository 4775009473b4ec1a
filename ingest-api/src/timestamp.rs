//! Times as devices send them: RFC 3339, or an epoch number in the precision of the request.
//!
//! In: a JSON value. Out: microseconds since 1970, or a rejection.

use std::borrow::Cow;
use std::fmt;

use schema::Rejection;
use schema::reading::{Micros, check_calendar};
use serde::{Deserialize, Deserializer, de};

/// Unit of numeric times. The default is seconds: a time in a finer unit that is interpreted as
/// seconds is far in the future and rejected, so that a forgotten `precision` never stores a wrong
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Seconds.
    #[default]
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds, truncated to microseconds.
    Ns,
}

/// A time as it is in the input.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RawTime<'a> {
    /// Absent: the time of receipt applies.
    #[default]
    Absent,
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Fraction(f64),
    /// A string, which should be RFC 3339.
    Text(Cow<'a, str>),
    /// A number or a type that cannot be a time.
    Unusable,
}

impl RawTime<'_> {
    /// The time in microseconds, or `received_at` if it is absent.
    ///
    /// # Errors
    /// [`Rejection::BadTimestamp`].
    pub fn resolve(&self, precision: Precision, received_at: Micros) -> Result<Micros, Rejection> {
        let micros = match self {
            Self::Absent => Some(received_at),
            Self::Whole(number) => match precision {
                Precision::S => number.checked_mul(1_000_000),
                Precision::Ms => number.checked_mul(1_000),
                Precision::Us => Some(*number),
                Precision::Ns => Some(number.div_euclid(1_000)),
            },
            Self::Fraction(number) => {
                let scale = match precision {
                    Precision::S => 1e6,
                    Precision::Ms => 1e3,
                    Precision::Us => 1.0,
                    Precision::Ns => 1e-3,
                };
                let micros = (number * scale).round();
                // The cast saturates, and the result is then outside the calendar.
                micros.is_finite().then_some(micros as i64)
            }
            Self::Text(text) => text
                .parse::<jiff::Timestamp>()
                .ok()
                .map(|time| time.as_microsecond()),
            Self::Unusable => None,
        };
        let micros = micros.ok_or(Rejection::BadTimestamp)?;
        check_calendar(micros)?;
        Ok(micros)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawTime<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawTime<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as an RFC 3339 string or a number")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(RawTime::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(RawTime::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(RawTime::Whole(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(number).map_or(RawTime::Unusable, RawTime::Whole))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(RawTime::Fraction(number))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(RawTime::Absent)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(RawTime::Unusable)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Micros = 1_795_168_800_000_000; // 2026-11-20T10:00:00Z

    fn resolve(json: &str, precision: Precision) -> Result<Micros, Rejection> {
        serde_json::from_str::<RawTime<'_>>(json)
            .unwrap()
            .resolve(precision, 7)
    }

    #[test]
    fn rfc_3339_and_every_precision_are_equivalent() {
        for (json, precision) in [
            ("\"2026-11-20T10:00:00Z\"", Precision::S),
            ("\"2026-11-20T11:30:00.000000+01:30\"", Precision::Ns),
            ("1795168800", Precision::S),
            ("1795168800.0", Precision::S),
            ("1795168800000", Precision::Ms),
            ("1795168800000000", Precision::Us),
            ("1795168800000000999", Precision::Ns),
        ] {
            assert_eq!(resolve(json, precision), Ok(TEN), "{json}");
        }
        assert_eq!(resolve("1795168800.25", Precision::S), Ok(TEN + 250_000));
        assert_eq!(resolve("-1", Precision::Ns), Ok(-1));
    }

    #[test]
    fn an_absent_time_is_the_time_of_receipt() {
        assert_eq!(resolve("null", Precision::S), Ok(7));
    }

    #[test]
    fn a_value_that_is_not_a_time_is_rejected() {
        for json in [
            "\"yesterday\"",
            "\"\"",
            "true",
            "1e300",
            "18446744073709551615",
            "9223372036854775807",
        ] {
            assert_eq!(
                resolve(json, Precision::S),
                Err(Rejection::BadTimestamp),
                "{json}"
            );
        }
    }
}

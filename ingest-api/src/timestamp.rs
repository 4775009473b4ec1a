//! Times as devices send them: RFC 3339, or an epoch number in the precision of the request.
//!
//! In: a JSON value. Out: microseconds since 1970, or a rejection, which [`RawTime::explain`]
//! explains. There is one rule: a time is rounded down to whole microseconds, from text and from
//! numbers of every precision. Both are read digit by digit, so that they agree.

#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;

use schema::Rejection;
use schema::reading::{Micros, check_calendar};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use service::quote::quote;

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
    /// Nanoseconds.
    Ns,
}

impl Precision {
    /// The unit is ten to this power microseconds.
    const fn power(self) -> i64 {
        match self {
            Self::S => 6,
            Self::Ms => 3,
            Self::Us => 0,
            Self::Ns => -3,
        }
    }
}

/// The precisions that a forgotten or wrong `precision` may stand for, with their plural and the
/// value of the parameter. From coarse to fine: the first one whose time is plausible is suggested.
const SUGGESTED: [(Precision, &str, &str); 4] = [
    (Precision::S, "seconds", "s"),
    (Precision::Ms, "milliseconds", "ms"),
    (Precision::Us, "microseconds", "us"),
    (Precision::Ns, "nanoseconds", "ns"),
];

/// 2000-01-01 and 2100-01-01: a time between them is plausible enough to suggest a precision.
const PLAUSIBLE: std::ops::Range<Micros> = 946_684_800_000_000..4_102_444_800_000_000;

/// A time as it is in the input.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RawTime<'a> {
    /// Absent: the time of receipt applies.
    #[default]
    Absent,
    /// A number, as JSON writes it.
    Number(&'a str),
    /// A string, which should be RFC 3339.
    Text(Cow<'a, str>),
    /// JSON of a type that cannot be a time.
    Unusable(&'a str),
}

impl RawTime<'_> {
    /// The time in microseconds, or `received_at` if it is absent.
    ///
    /// # Errors
    /// [`Rejection::BadTimestamp`].
    pub fn resolve(&self, precision: Precision, received_at: Micros) -> Result<Micros, Rejection> {
        let micros = match self {
            Self::Absent => Some(received_at),
            Self::Number(number) => parse_number(number, precision),
            Self::Text(text) => text::parse(text).ok(),
            Self::Unusable(_) => None,
        };
        let micros = micros.ok_or(Rejection::BadTimestamp)?;
        check_calendar(micros)?;
        Ok(micros)
    }

    /// Why the time is a [`Rejection::BadTimestamp`], and what to send instead.
    pub fn explain(&self, precision: Precision) -> String {
        match self {
            // Never rejected.
            Self::Absent => String::new(),
            Self::Number(number) => {
                let suggested = SUGGESTED.iter().find(|(suggested, _, _)| {
                    parse_number(number, *suggested).is_some_and(|at| PLAUSIBLE.contains(&at))
                });
                let number = quote(number);
                match suggested {
                    Some((_, plural, value)) => {
                        format!("measured_at {number} looks like {plural}; add ?precision={value}")
                    }
                    None => {
                        let (_, plural, _) = SUGGESTED[precision as usize];
                        format!(
                            "measured_at {number} in {plural} is outside the years 1 to 9999; \
                             send the time since 1970 in the unit of ?precision=s|ms|us|ns \
                             (default: s)"
                        )
                    }
                }
            }
            Self::Text(text) => {
                let reason = match text::parse(text) {
                    Ok(_) => "is outside the years 1 to 9999",
                    Err(error) => error.reason(),
                };
                format!("measured_at {} {reason}", quote(text))
            }
            Self::Unusable(json) => format!(
                "measured_at {} is not a time; send RFC 3339 such as \"2026-11-21T10:00:00Z\", \
                 a number with ?precision=s|ms|us|ns (default: s), or null for the time of receipt",
                quote(json)
            ),
        }
    }
}

/// A JSON number of this unit in microseconds, rounded down; `None` beyond 64 bits.
fn parse_number(number: &str, precision: Precision) -> Option<Micros> {
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // An exponent beyond 32 bits: the number is zero, all but zero, or too large.
    let limit = if exponent.starts_with('-') {
        i32::MIN
    } else {
        i32::MAX
    };
    let exponent = i64::from(exponent.parse().unwrap_or(limit));
    // How many digits are left of the decimal point of the number in microseconds.
    let point = whole.len() as i64 + exponent + precision.power();
    let mut micros: Micros = 0;
    let mut has_fraction = false;
    let mut place = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = Micros::from(digit.checked_sub(b'0')?);
        if place < point {
            micros = micros.checked_mul(10)?.checked_add(digit)?;
        } else {
            has_fraction |= digit != 0;
        }
        place += 1;
    }
    // Without this condition, an exponent could make the loop long.
    while place < point && micros != 0 {
        micros = micros.checked_mul(10)?;
        place += 1;
    }
    Some(if is_negative {
        -micros - Micros::from(has_fraction)
    } else {
        micros
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for RawTime<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match json.as_bytes().first() {
            Some(b'n') => Self::Absent,
            Some(b'-' | b'0'..=b'9') => Self::Number(json),
            Some(b'"') => string(json),
            _ => Self::Unusable(json),
        })
    }
}

/// The text of a JSON string. It is borrowed if it has no escape sequence.
fn string(json: &str) -> RawTime<'_> {
    let text = &json[1..json.len() - 1];
    if !text.contains('\\') {
        return RawTime::Text(Cow::Borrowed(text));
    }
    match serde_json::from_str(json) {
        Ok(text) => RawTime::Text(Cow::Owned(text)),
        // An escape sequence that is not Unicode.
        Err(_) => RawTime::Unusable(json),
    }
}

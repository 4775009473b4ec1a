//! RFC 3339 as text: a date, a time with any number of fractional digits, and an offset.

use jiff::civil::{DateTime, date};
use schema::reading::Micros;

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Why a text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextError {
    /// Not a date, a time and an offset.
    Form,
    /// A number in a string.
    QuotedNumber,
    /// A date and a time without an offset.
    NoOffset,
    /// Hours and minutes without seconds.
    NoSeconds,
    /// An offset that is not `±hh:mm`, or beyond 23:59.
    Offset,
    /// A fraction without a digit.
    Fraction,
    /// Second 60.
    LeapSecond,
    /// A day or a time that does not exist.
    NoSuchTime,
}

impl TextError {
    /// What is wrong and what to send instead, as the end of a sentence about the text.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Form => {
                "is not a time; send RFC 3339 such as \"2026-11-21T10:00:00Z\", \
                 or a number with ?precision=s|ms|us|ns (default: s)"
            }
            Self::QuotedNumber => "is a number in quotes; send it without quotes",
            Self::NoOffset => "has no zone: append Z or an offset such as +01:00",
            Self::NoSeconds => "has no seconds: send hours, minutes and seconds, as in 10:00:00",
            Self::Offset => {
                "has a zone that is not an offset of hours and minutes: \
                 send Z, or an offset from -23:59 to +23:59"
            }
            Self::Fraction => "has a fraction of a second that is not a point and digits",
            Self::LeapSecond => {
                "is a leap second, which PostgreSQL cannot store: \
                 send second 59 or the next second"
            }
            Self::NoSuchTime => "is a day or a time that does not exist",
        }
    }
}

/// A text in microseconds since 1970, rounded down. The calendar has the years 0 to 9999.
pub(super) fn parse(text: &str) -> Result<Micros, TextError> {
    let (day, rest) = parse_day(text).ok_or_else(|| {
        if !text.is_empty() && text.parse::<f64>().is_ok_and(f64::is_finite) {
            TextError::QuotedNumber
        } else {
            TextError::Form
        }
    })?;
    let rest = rest.strip_prefix(['T', 't', ' ']).ok_or(TextError::Form)?;
    let (hour, rest) = number(rest, 2).ok_or(TextError::Form)?;
    let rest = rest.strip_prefix(':').ok_or(TextError::Form)?;
    let (minute, rest) = number(rest, 2).ok_or(TextError::Form)?;
    let rest = rest.strip_prefix(':').ok_or(TextError::NoSeconds)?;
    let (second, rest) = number(rest, 2).ok_or(TextError::NoSeconds)?;
    let (fraction, rest) = parse_fraction(rest)?;
    let offset = parse_offset(rest)?;

    if second == 60 {
        return Err(TextError::LeapSecond);
    }
    let [year, month, day] = day;
    let [month, day, hour, minute, second] =
        // Two digits always fit.
        [month, day, hour, minute, second].map(|number| number as i8);
    let local = DateTime::new(year, month, day, hour, minute, second, 0)
        .map_err(|_| TextError::NoSuchTime)?;
    let seconds = local.duration_since(EPOCH).as_secs() - offset;
    Ok(seconds * 1_000_000 + fraction)
}

/// Year, month and day, and the rest.
fn parse_day(text: &str) -> Option<([i16; 3], &str)> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    Some(([year, month, day], rest))
}

/// The fraction of a second in microseconds, rounded down, and the rest.
fn parse_fraction(text: &str) -> Result<(Micros, &str), TextError> {
    if text.starts_with(',') {
        return Err(TextError::Fraction);
    }
    let Some(text) = text.strip_prefix('.') else {
        return Ok((0, text));
    };
    let end = text
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(text.len());
    if end == 0 {
        return Err(TextError::Fraction);
    }
    let (digits, rest) = text.split_at(end);
    let digits = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = digits.fold(0, |micros, digit| micros * 10 + Micros::from(digit - b'0'));
    Ok((micros, rest))
}

/// An offset from UTC in seconds. It is the end of the text.
fn parse_offset(text: &str) -> Result<i64, TextError> {
    let (sign, rest) = match text.as_bytes().first() {
        None => return Err(TextError::NoOffset),
        Some(b'Z' | b'z') if text.len() == 1 => return Ok(0),
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        Some(_) => return Err(TextError::Offset),
    };
    let hours_and_minutes = || {
        let (hours, rest) = number(rest, 2)?;
        let (minutes, rest) = number(rest.strip_prefix(':')?, 2)?;
        (rest.is_empty() && hours <= 23 && minutes <= 59).then_some((hours, minutes))
    };
    let (hours, minutes) = hours_and_minutes().ok_or(TextError::Offset)?;
    Ok(sign * (i64::from(hours) * 3_600 + i64::from(minutes) * 60))
}

/// A number of this many digits, at most four, and the rest.
fn number(text: &str, digits: usize) -> Option<(i16, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    let mut value = 0;
    for digit in number.bytes() {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i16::from(digit - b'0');
    }
    Some((value, rest))
}

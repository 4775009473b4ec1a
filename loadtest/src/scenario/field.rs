//! Serialization of a scenario's values. The error of an invalid value states what was expected.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use schema::reading::Micros;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{CLOSED_RATE, MAX_BATCH};

/// Limits of [`super::LoadProfile::steps`].
const MIN_STEPS: i64 = 2;
const MAX_STEPS: i64 = 1_000;

pub(super) fn one() -> u64 {
    1
}

pub(super) fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// Reads a value of any type, so that the error of a wrong type has the value and what was
/// expected.
fn read<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    from: D,
    expected: &str,
) -> Result<T, D::Error> {
    let value = toml::Value::deserialize(from)?;
    T::deserialize(value.clone()).map_err(|_| unexpected(&value, expected))
}

fn unexpected<E: de::Error>(value: impl Display, expected: &str) -> E {
    E::custom(format!("{value}: expected {expected}"))
}

fn number<'de, D: Deserializer<'de>>(
    from: D,
    is_valid: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<f64, D::Error> {
    let value = read(from, expected)?;
    if is_valid(value) {
        Ok(value)
    } else {
        Err(unexpected(value, expected))
    }
}

pub(super) fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(
        from,
        |value| value > 0.0 && value <= CLOSED_RATE,
        "a number above 0 and up to 10,000,000",
    )
}

pub(super) fn some_rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    rate(from).map(Some)
}

pub(super) fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(
        from,
        |value| (0.0..=1.0).contains(&value),
        "a share from 0 to 1",
    )
}

fn integer<'de, T: TryFrom<i64>, D: Deserializer<'de>>(
    from: D,
    range: RangeInclusive<i64>,
) -> Result<T, D::Error> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let value: i64 = read(from, &expected)?;
    let valid = Some(value).filter(|value| range.contains(value));
    valid
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| unexpected(value, &expected))
}

pub(super) fn seed<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    integer(from, 0..=i64::MAX)
}

pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    integer(from, 1..=1_000_000)
}

pub(super) fn batch<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    integer(from, 1..=MAX_BATCH as i64)
}

pub(super) fn some_steps<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    integer(from, MIN_STEPS..=MAX_STEPS).map(Some)
}

pub(super) fn attempts<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    integer(from, 0..=u32::MAX.into())
}

pub(super) fn metrics<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let expected = "different names of letters, digits and '_', such as [\"current\", \"voltage\"]";
    let names: Vec<String> = read(from, expected)?;
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    let is_valid = |name: &String| is_plain(name, "_");
    if names.is_empty() || unique.len() < names.len() || !names.iter().all(is_valid) {
        return Err(unexpected(format_args!("{names:?}"), expected));
    }
    Ok(names)
}

pub(super) fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let expected = "1 to 100 letters, digits and any of '-_.:'";
    let text: String = read(from, expected)?;
    if is_plain(&text, "-_.:") {
        Ok(text)
    } else {
        Err(unexpected(format_args!("{text:?}"), expected))
    }
}

/// Whether a name consists of letters, digits and these other characters, none of which JSON has to
/// escape.
fn is_plain(name: &str, others: &str) -> bool {
    (1..=100).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

pub(super) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        humantime::format_duration(*value).to_string().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let expected = "a time such as \"30s\" or \"500ms\"";
        let text: String = read(from, expected)?;
        humantime::parse_duration(&text).map_err(|_| unexpected(format_args!("{text:?}"), expected))
    }
}

pub(super) mod duration_option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(from).map(Some)
    }
}

pub(super) mod rfc3339 {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Micros>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let time = value.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        time.map(|time| time.to_string()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Micros>, D::Error> {
        let expected = "a time such as \"2026-11-01T00:00:00Z\"";
        let text: String = read(from, expected)?;
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Some(time.as_microsecond())),
            Err(_) => Err(unexpected(format_args!("{text:?}"), expected)),
        }
    }
}

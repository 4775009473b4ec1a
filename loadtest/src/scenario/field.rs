//! Serialization of a scenario's values. The error of an invalid value states what was expected.

use std::time::Duration;

use schema::reading::Micros;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{CLOSED_RATE, MAX_BATCH};

pub(super) fn one() -> u64 {
    1
}

pub(super) fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn number<'de, D: Deserializer<'de>>(
    from: D,
    is_valid: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if is_valid(value) {
        Ok(value)
    } else {
        Err(de::Error::custom(format!("{value}: expected {expected}")))
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

fn integer<'de, D: Deserializer<'de>>(from: D, max: u64) -> Result<u64, D::Error> {
    let value = i64::deserialize(from)?;
    match u64::try_from(value) {
        Ok(valid) if (1..=max).contains(&valid) => Ok(valid),
        _ => Err(de::Error::custom(format!(
            "{value}: expected a whole number from 1 to {max}"
        ))),
    }
}

pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    integer(from, 1_000_000)
}

pub(super) fn batch<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    integer(from, MAX_BATCH)
}

pub(super) fn metrics<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    let is_valid = |name: &String| is_plain(name, "_");
    if names.is_empty() || unique.len() < names.len() || !names.iter().all(is_valid) {
        return Err(de::Error::custom(
            "expected different names of letters, digits and '_'",
        ));
    }
    Ok(names)
}

pub(super) fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if is_plain(&text, "-_.:") {
        Ok(text)
    } else {
        Err(de::Error::custom(
            "expected 1 to 100 letters, digits and any of '-_.:'",
        ))
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
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|_| {
            de::Error::custom(format!(
                "\"{text}\": expected a time such as \"30s\" or \"500ms\""
            ))
        })
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
        let text = String::deserialize(from)?;
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Some(time.as_microsecond())),
            Err(_) => Err(de::Error::custom(format!(
                "\"{text}\": expected a time such as \"2026-11-01T00:00:00Z\""
            ))),
        }
    }
}

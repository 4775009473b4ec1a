//! A reading as a JSON object: an element of an array, or a line.
//!
//! In: a range of a body. Out: the raw reading, or why it is not valid.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::MapAccess;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use super::fault::Fault;
use super::position::Positions;
use super::{InvalidReading, MAX_DETAILS, RawReading};
use crate::timestamp::RawTime;

/// A reading as a JSON object. An array with the members in their order is not a reading.
#[derive(Debug)]
pub(super) struct JsonReading<'a>(Members<'a>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(deserialize_with = "value")]
    value: f64,
    #[serde(borrow, default)]
    measured_at: RawTime<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonReading<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = JsonReading<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                Members::deserialize(MapAccessDeserializer::new(members)).map(JsonReading)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl<'a> From<JsonReading<'a>> for RawReading<'a> {
    fn from(JsonReading(members): JsonReading<'a>) -> Self {
        let Members {
            device,
            metric,
            value,
            measured_at,
        } = members;
        Self {
            device,
            metric,
            value,
            measured_at,
        }
    }
}

/// A number. What stands for a number that is not finite becomes one, and is rejected later.
fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number")
        }
        fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }
        fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_unit<E>(self) -> Result<f64, E> {
            Ok(f64::NAN)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<f64, E> {
            match text {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
            }
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// Parses the elements of a body, in order.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    body: &'a [u8],
    /// The body, if all of it is UTF-8.
    text: Option<&'a str>,
    positions: Positions<'a>,
    invalid: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            text: std::str::from_utf8(body).ok(),
            positions: Positions::new(body),
            invalid: 0,
        }
    }

    /// Parses the element in a range of the body. The first [`MAX_DETAILS`] invalid ones are
    /// explained.
    pub(super) fn read(&mut self, range: Range<usize>) -> Result<RawReading<'a>, InvalidReading> {
        let start = range.start;
        let element = &self.body[range.clone()];
        let text = match self.text {
            Some(text) => text.get(range),
            None => std::str::from_utf8(element).ok(),
        };
        let reading = text.and_then(|text| serde_json::from_str::<JsonReading<'a>>(text).ok());
        match reading {
            Some(reading) => Ok(reading.into()),
            None => Err(self.explain(element, start)),
        }
    }

    #[cold]
    fn explain(&mut self, element: &[u8], start: usize) -> InvalidReading {
        let fault = Fault::find(element);
        self.invalid += 1;
        if self.invalid > MAX_DETAILS {
            return (fault.rejection(), String::new());
        }
        let position = self.positions.of(start + fault.offset().unwrap_or(0));
        (fault.rejection(), fault.detail(element, position))
    }
}

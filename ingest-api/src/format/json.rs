//! `application/json`: one object, an array of objects, or `{"readings": […]}`.
//!
//! A well-formed request is parsed in one typed pass. Only when that fails, each reading is parsed
//! separately, so that a bad one is rejected alone.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schema::Rejection;
use serde::de::{IgnoredAny, SeqAccess};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{
    Entries, Format, FormatError, InvalidReading, MAX_DETAILS, MAX_READINGS, RawReading, truncate,
    utf8,
};
use crate::timestamp::RawTime;
use service::ApiError;

pub(super) const FORMAT: Format = Format {
    content_type: "application/json",
    malformed: ApiError::MalformedJson,
    read,
    // Every entry of an array but the first follows a comma.
    max_entries: |bytes| bytes.iter().filter(|&&byte| byte == b',').count() + 1,
};

/// A reading as a JSON object.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with device, metric, value and optionally measured_at"
)]
struct JsonReading<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(deserialize_with = "value_or_nan")]
    value: f64,
    #[serde(borrow, default)]
    measured_at: RawTime<'a>,
}

impl<'a> From<JsonReading<'a>> for RawReading<'a> {
    fn from(reading: JsonReading<'a>) -> Self {
        let JsonReading {
            device,
            metric,
            value,
            measured_at,
        } = reading;
        Self {
            device,
            metric,
            value,
            measured_at,
        }
    }
}

fn read(bytes: &[u8]) -> Result<Entries<'_>, FormatError> {
    let text = utf8(bytes)?.trim_ascii();
    let readings = match text.as_bytes().first() {
        Some(b'[') => match serde_json::from_str::<Capped<JsonReading<'_>>>(text) {
            Ok(typed) => Readings::Typed(typed),
            Err(_) => Readings::Raw(serde_json::from_str(text).map_err(malformed)?),
        },
        Some(b'{') if is_envelope(text) => {
            match serde_json::from_str::<Envelope<Capped<JsonReading<'_>>>>(text) {
                Ok(envelope) => Readings::Typed(envelope.readings),
                Err(_) => {
                    let envelope: Envelope<Capped<&RawValue>> =
                        serde_json::from_str(text).map_err(malformed)?;
                    Readings::Raw(envelope.readings)
                }
            }
        }
        Some(b'{') => {
            // The body must be valid JSON before the reading in it can be judged.
            let raw: &RawValue = serde_json::from_str(text).map_err(malformed)?;
            return Ok(vec![read_reading(raw.get(), &mut 0)]);
        }
        None => return Err(FormatError::Malformed("the body is empty".into())),
        Some(_) => {
            return Err(FormatError::Malformed(
                "expected a reading as an object, an array of readings, or {\"readings\": […]}"
                    .into(),
            ));
        }
    };
    match readings {
        Readings::Typed(typed) => {
            let readings = typed.within_limit()?.into_iter();
            Ok(readings.map(|reading| Ok(reading.into())).collect())
        }
        Readings::Raw(raw) => {
            let mut invalid = 0;
            let readings = raw.within_limit()?.into_iter();
            Ok(readings
                .map(|raw| read_reading(raw.get(), &mut invalid))
                .collect())
        }
    }
}

enum Readings<'a> {
    Typed(Capped<JsonReading<'a>>),
    Raw(Capped<&'a RawValue>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with readings")]
struct Envelope<T> {
    readings: T,
}

fn is_envelope(text: &str) -> bool {
    text[1..].trim_ascii_start().starts_with("\"readings\"")
}

fn malformed(error: serde_json::Error) -> FormatError {
    FormatError::Malformed(truncate(&error.to_string()))
}

/// Parses one reading. `invalid` counts the invalid readings of the request; the first
/// [`MAX_DETAILS`] are explained.
pub(super) fn read_reading<'a>(
    text: &'a str,
    invalid: &mut usize,
) -> Result<RawReading<'a>, InvalidReading> {
    match serde_json::from_str::<JsonReading<'a>>(text) {
        Ok(reading) => Ok(reading.into()),
        Err(error) => {
            *invalid += 1;
            let rejection = classify(text);
            let detail = match rejection {
                _ if *invalid > MAX_DETAILS => String::new(),
                Rejection::BadReading => truncate(&error.to_string()),
                other => other.to_string(),
            };
            Err((rejection, detail))
        }
    }
}

/// Why a text is not a reading. A number that is too large for `f64` is an error of the value, not
/// of the reading's form.
fn classify(text: &str) -> Rejection {
    #[derive(Deserialize)]
    struct OnlyValue<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let value = serde_json::from_str::<OnlyValue<'_>>(text).map(|only| only.value.get());
    let number = value.ok().and_then(|value| value.parse::<f64>().ok());
    match number {
        Some(number) if !number.is_finite() => Rejection::ValueNotFinite,
        _ => Rejection::BadReading,
    }
}

fn value_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number as value")
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
                "NaN" | "Infinity" | "-Infinity" => Ok(f64::NAN),
                _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
            }
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// An array of which at most [`MAX_READINGS`] entries are stored. The rest is skipped, so that
/// memory is bounded.
struct Capped<T> {
    items: Vec<T>,
    exceeded: bool,
}

impl<T> Capped<T> {
    fn within_limit(self) -> Result<Vec<T>, FormatError> {
        if self.exceeded {
            Err(FormatError::TooMany)
        } else {
            Ok(self.items)
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Capped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Capped<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of readings")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Capped<T>, A::Error> {
                let mut items = Vec::new();
                let mut exceeded = false;
                while items.len() < MAX_READINGS {
                    match array.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Capped { items, exceeded }),
                    }
                }
                while array.next_element::<IgnoredAny>()?.is_some() {
                    exceeded = true;
                }
                Ok(Capped { items, exceeded })
            }
        }
        deserializer.deserialize_seq(Visitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_DETAIL_CHARS;
    use super::*;

    const GOOD: &str = r#"{"device": "meter-1", "metric": "active_power", "value": 1.5,
        "measured_at": "2026-11-20T10:00:00Z"}"#;

    fn parse(text: &str) -> Result<Entries<'_>, FormatError> {
        read(text.as_bytes())
    }

    #[test]
    fn an_object_an_array_and_an_envelope_are_equivalent() {
        let expected = RawReading {
            device: "meter-1".into(),
            metric: "active_power".into(),
            value: 1.5,
            measured_at: RawTime::Text("2026-11-20T10:00:00Z".into()),
        };
        let array = format!(" [{GOOD}]\n");
        let envelope = format!("{{ \"readings\": [{GOOD}]}}");
        for text in [GOOD, &array, &envelope] {
            assert_eq!(parse(text).unwrap(), vec![Ok(expected.clone())], "{text}");
        }
    }

    #[test]
    fn a_value_is_parsed_to_its_last_bit() {
        // A parser that rounds twice is off by one bit for these.
        for value in [
            "31.245270191439438",
            "100.78399658203125",
            "5e-324",
            "1.7976931348623157e308",
        ] {
            let text = format!(r#"{{"device": "m", "metric": "p", "value": {value}}}"#);
            let entries = parse(&text).unwrap();
            let parsed = entries[0].as_ref().unwrap().value;
            let expected: f64 = value.parse().unwrap();
            assert_eq!(parsed.to_bits(), expected.to_bits(), "{value}");
        }
    }

    #[test]
    fn only_the_first_invalid_readings_are_explained() {
        let text = format!("[{}0]", "0,".repeat(MAX_DETAILS));
        let entries = parse(&text).unwrap();
        let explained = entries
            .iter()
            .filter(|entry| matches!(entry, Err((_, detail)) if !detail.is_empty()));
        assert_eq!(explained.count(), MAX_DETAILS);
        assert_eq!(entries.len(), MAX_DETAILS + 1);
    }

    #[test]
    fn a_bad_reading_is_rejected_alone() {
        let bad = [
            (
                r#"{"device": "m", "metric": "p", "value": 1e999}"#,
                Rejection::ValueNotFinite,
            ),
            (
                r#"{"device": "m", "metric": "p", "value": "1.5"}"#,
                Rejection::BadReading,
            ),
            (
                r#"{"device": "m", "metric": "p", "value": 1, "mesured_at": 5}"#,
                Rejection::BadReading,
            ),
            (
                r#"{"device": 5, "metric": "p", "value": 1}"#,
                Rejection::BadReading,
            ),
            (r#"{"metric": "p", "value": 1}"#, Rejection::BadReading),
            ("17", Rejection::BadReading),
            ("[]", Rejection::BadReading),
        ];
        for (text, expected) in bad {
            let body = format!("[{GOOD},{text},{GOOD}]");
            let entries = parse(&body).unwrap();
            assert!(entries[0].is_ok() && entries[2].is_ok(), "{text}");
            assert_eq!(entries[1].as_ref().unwrap_err().0, expected, "{text}");
        }
    }

    #[test]
    fn null_and_the_names_of_values_that_are_not_finite_become_nan() {
        for value in ["null", "\"NaN\"", "\"-Infinity\""] {
            let text = format!(r#"{{"device":"m","metric":"p","value":{value}}}"#);
            let entries = parse(&text).unwrap();
            assert!(entries[0].as_ref().unwrap().value.is_nan(), "{value}");
        }
    }

    #[test]
    fn a_body_that_is_not_json_fails_with_the_position() {
        for text in [
            "",
            "  ",
            "hello",
            "[",
            "[{]",
            &GOOD[..40],
            r#"{"readings": 5}"#,
            r#"{"readings": [], "x": 1}"#,
        ] {
            let result = parse(text);
            assert!(matches!(result, Err(FormatError::Malformed(_))), "{text}");
        }
        let Err(FormatError::Malformed(detail)) = parse("[{]") else {
            panic!("accepted")
        };
        assert!(detail.contains("line 1 column 3"), "{detail}");
        assert_eq!(read(b"[\xff]"), Err(FormatError::NotUtf8(1)));
    }

    #[test]
    fn the_number_of_readings_is_bounded() {
        let array = |n: usize| format!("[{}]", vec!["0"; n].join(","));
        assert_eq!(parse(&array(MAX_READINGS)).unwrap().len(), MAX_READINGS);
        let too_many = array(MAX_READINGS + 1);
        assert_eq!(parse(&too_many), Err(FormatError::TooMany));
    }

    #[test]
    fn an_explanation_does_not_grow_with_the_input() {
        let text = format!(r#"{{"{}": 1}}"#, "x".repeat(100_000));
        let entries = parse(&text).unwrap();
        let (_, detail) = entries[0].as_ref().unwrap_err();
        assert_eq!(detail.chars().count(), MAX_DETAIL_CHARS);
    }
}

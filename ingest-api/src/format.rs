//! Formats: the text of a request into raw readings.
//!
//! In: JSON (one object, an array, `{"readings": […]}`) or NDJSON, as UTF-8. Out: one entry a reading, in order: the raw
//! reading, borrowed from the text, or why it is none. A reading that is not one costs itself only; text that is not JSON
//! costs the request. Well-formed requests are read in one typed pass; only when that fails are the readings taken apart
//! and read one by one.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schema::Rejection;
use serde::de::{IgnoredAny, SeqAccess};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::timestamp::RawTime;

/// Most readings in one request.
pub const MAX_READINGS: usize = 100_000;
/// Longest explanation of one rejected reading, in characters: it may quote the input.
const MAX_DETAIL: usize = 200;

/// Rejected readings of a request that are explained.
pub const MAX_DETAILS: usize = 100;

/// A reading as it stood in the input.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReading<'a> {
    /// External id of the device.
    #[serde(borrow)]
    pub device: Cow<'a, str>,
    /// Name of the metric.
    #[serde(borrow)]
    pub metric: Cow<'a, str>,
    /// The value; NaN for null and for the words that stand for what JSON cannot say.
    #[serde(deserialize_with = "value_or_nan")]
    pub value: f64,
    /// When it was measured.
    #[serde(borrow, default)]
    pub measured_at: RawTime<'a>,
}

/// Why one entry is no reading: the rejection and a detail for people.
pub type Unreadable = (Rejection, String);

/// Entries of a request, in order.
pub type Entries<'a> = Vec<Result<RawReading<'a>, Unreadable>>;

/// Why a request could not be read at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The text is not JSON, or its outermost shape is none of the three.
    #[error("{0}")]
    Malformed(String),
    /// More than [`MAX_READINGS`].
    #[error("the request has more than 100000 readings; send them in several")]
    TooMany,
}

/// How the text of a request is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`: one object a line.
    Ndjson,
}

/// Reads a request.
///
/// # Errors
/// [`FormatError`]: nothing of it was read.
pub fn read(format: Format, text: &str) -> Result<Entries<'_>, FormatError> {
    match format {
        Format::Json => read_json(text),
        Format::Ndjson => read_ndjson(text),
    }
}

fn read_ndjson(text: &str) -> Result<Entries<'_>, FormatError> {
    let mut entries = Entries::new();
    let mut bad = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if entries.len() == MAX_READINGS {
            return Err(FormatError::TooMany);
        }
        entries.push(read_one(line, &mut bad));
    }
    Ok(entries)
}

fn read_json(text: &str) -> Result<Entries<'_>, FormatError> {
    let text = text.trim_ascii();
    let readings = match text.as_bytes().first() {
        Some(b'[') => match serde_json::from_str::<Capped<RawReading<'_>>>(text) {
            Ok(typed) => Shape::Typed(typed),
            Err(_) => Shape::Raw(serde_json::from_str(text).map_err(malformed)?),
        },
        Some(b'{') if is_envelope(text) => {
            match serde_json::from_str::<Envelope<Capped<RawReading<'_>>>>(text) {
                Ok(typed) => Shape::Typed(typed.readings),
                Err(_) => Shape::Raw(
                    serde_json::from_str::<Envelope<Capped<&RawValue>>>(text)
                        .map_err(malformed)?
                        .readings,
                ),
            }
        }
        Some(b'{') => {
            // The outermost shape must be whole before a single reading can be judged.
            let raw: &RawValue = serde_json::from_str(text).map_err(malformed)?;
            return Ok(vec![read_one(raw.get(), &mut 0)]);
        }
        None => return Err(FormatError::Malformed("the body is empty".into())),
        Some(_) => {
            return Err(FormatError::Malformed(
                "expected one reading as object, an array of readings, or {\"readings\": […]}"
                    .into(),
            ));
        }
    };
    match readings {
        Shape::Typed(typed) => Ok(typed.within()?.into_iter().map(Ok).collect()),
        Shape::Raw(raw) => {
            let mut bad = 0;
            Ok(raw
                .within()?
                .into_iter()
                .map(|one| read_one(one.get(), &mut bad))
                .collect())
        }
    }
}

enum Shape<'a> {
    Typed(Capped<RawReading<'a>>),
    Raw(Capped<&'a RawValue>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<T> {
    readings: T,
}

fn is_envelope(text: &str) -> bool {
    text[1..].trim_ascii_start().starts_with("\"readings\"")
}

fn malformed(error: serde_json::Error) -> FormatError {
    FormatError::Malformed(cut(&error.to_string()))
}

fn cut(detail: &str) -> String {
    detail.chars().take(MAX_DETAIL).collect()
}

/// Reads one reading by itself and says what is wrong with it; in words for the first [`MAX_DETAILS`] of a request.
fn read_one<'a>(text: &'a str, bad: &mut usize) -> Result<RawReading<'a>, Unreadable> {
    /// The same shape with the value unread: a number too large for `f64` is an error of the number, not of the shape.
    #[derive(Deserialize)]
    struct Unread<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    serde_json::from_str(text).map_err(|error| {
        let value = serde_json::from_str::<Unread<'_>>(text).map(|unread| unread.value.get());
        let number = value.ok().and_then(|value| value.parse::<f64>().ok());
        *bad += 1;
        let detail = |words: &dyn fmt::Display| {
            if *bad > MAX_DETAILS {
                String::new()
            } else {
                cut(&words.to_string())
            }
        };
        match number {
            Some(number) if !number.is_finite() => (
                Rejection::ValueNotFinite,
                detail(&Rejection::ValueNotFinite),
            ),
            _ => (Rejection::BadReading, detail(&error)),
        }
    })
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

/// An array of which at most [`MAX_READINGS`] are kept; the rest is read over, so that memory stays bounded.
struct Capped<T> {
    items: Vec<T>,
    over: bool,
}

impl<T> Capped<T> {
    fn within(self) -> Result<Vec<T>, FormatError> {
        if self.over {
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
                while items.len() < MAX_READINGS {
                    match array.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Capped { items, over: false }),
                    }
                }
                let mut over = false;
                while array.next_element::<IgnoredAny>()?.is_some() {
                    over = true;
                }
                Ok(Capped { items, over })
            }
        }
        deserializer.deserialize_seq(Visitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = r#"{"device": "meter-1", "metric": "active_power", "value": 1.5, "measured_at": "2026-11-20T10:00:00Z"}"#;

    fn codes(entries: &Entries<'_>) -> Vec<Option<Rejection>> {
        entries
            .iter()
            .map(|entry| entry.as_ref().err().map(|(rejection, _)| *rejection))
            .collect()
    }

    #[test]
    fn one_object_an_array_an_envelope_and_lines_say_the_same() {
        let expected = RawReading {
            device: "meter-1".into(),
            metric: "active_power".into(),
            value: 1.5,
            measured_at: RawTime::Text("2026-11-20T10:00:00Z".into()),
        };
        for text in [
            GOOD.to_owned(),
            format!(" [{GOOD}]\n"),
            format!("{{ \"readings\": [{GOOD}]}}"),
        ] {
            assert_eq!(
                read(Format::Json, &text).unwrap(),
                vec![Ok(expected.clone())],
                "{text}"
            );
        }
        let lines = format!("{GOOD}\r\n\n{GOOD}");
        assert_eq!(
            read(Format::Ndjson, &lines).unwrap(),
            vec![Ok(expected.clone()), Ok(expected)]
        );
    }

    #[test]
    fn a_value_is_read_to_its_last_bit() {
        // These come out one bit off where a parser rounds twice.
        for value in [
            "31.245270191439438",
            "100.78399658203125",
            "5e-324",
            "1.7976931348623157e308",
        ] {
            let text = format!(r#"{{"device": "m", "metric": "p", "value": {value}}}"#);
            let read = read(Format::Json, &text).unwrap();
            assert_eq!(
                read[0].as_ref().unwrap().value.to_bits(),
                value.parse::<f64>().unwrap().to_bits(),
                "{value}"
            );
        }
    }

    #[test]
    fn only_the_first_bad_readings_are_explained() {
        let text = format!("[{}0]", "0,".repeat(MAX_DETAILS));
        let read = read(Format::Json, &text).unwrap();
        let explained = read
            .iter()
            .filter(|one| one.as_ref().is_err_and(|(_, detail)| !detail.is_empty()))
            .count();
        assert_eq!((read.len(), explained), (MAX_DETAILS + 1, MAX_DETAILS));
    }

    #[test]
    fn a_bad_reading_costs_itself_only() {
        let bad = [
            r#"{"device": "m", "metric": "p", "value": 1e999}"#,
            r#"{"device": "m", "metric": "p", "value": "1.5"}"#,
            r#"{"device": "m", "metric": "p", "value": 1, "mesured_at": 5}"#,
            r#"{"device": 5, "metric": "p", "value": 1}"#,
            r#"{"metric": "p", "value": 1}"#,
            "17",
            "[]",
        ];
        let expected = [
            vec![None, Some(Rejection::ValueNotFinite)],
            vec![Some(Rejection::BadReading); bad.len() - 1],
            vec![None],
        ]
        .concat();
        let json = format!("[{GOOD},{},{GOOD}]", bad.join(","));
        assert_eq!(codes(&read(Format::Json, &json).unwrap()), expected);
        let lines = format!("{GOOD}\n{}\n{GOOD}", bad.join("\n"));
        assert_eq!(codes(&read(Format::Ndjson, &lines).unwrap()), expected);
    }

    #[test]
    fn null_and_the_words_for_it_are_not_finite() {
        for value in ["null", "\"NaN\"", "\"-Infinity\""] {
            let text = format!(r#"{{"device":"m","metric":"p","value":{value}}}"#);
            assert!(
                read(Format::Json, &text).unwrap()[0]
                    .as_ref()
                    .unwrap()
                    .value
                    .is_nan(),
                "{value}"
            );
        }
    }

    #[test]
    fn text_that_is_not_json_costs_the_request_and_says_where() {
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
            assert!(
                matches!(read(Format::Json, text), Err(FormatError::Malformed(_))),
                "{text}"
            );
        }
        let Err(FormatError::Malformed(detail)) = read(Format::Json, "[{]") else {
            panic!("accepted")
        };
        assert!(detail.contains("line 1 column 3"), "{detail}");
    }

    #[test]
    fn readings_beyond_the_bound_are_refused() {
        let many = |n: usize| format!("[{}]", vec!["0"; n].join(","));
        assert_eq!(
            read(Format::Json, &many(MAX_READINGS)).unwrap().len(),
            MAX_READINGS
        );
        assert_eq!(
            read(Format::Json, &many(MAX_READINGS + 1)),
            Err(FormatError::TooMany)
        );
        assert_eq!(
            read(Format::Ndjson, &"0\n".repeat(MAX_READINGS + 1)),
            Err(FormatError::TooMany)
        );
    }

    #[test]
    fn an_explanation_never_grows_with_the_input() {
        let text = format!(r#"{{"{}": 1}}"#, "x".repeat(100_000));
        let entries = read(Format::Json, &text).unwrap();
        assert_eq!(
            entries[0].as_ref().unwrap_err().1.chars().count(),
            MAX_DETAIL
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC*", json in r#"[\[\]{}",:0-9a-z \n\\]{0,200}"#) {
            for format in [Format::Json, Format::Ndjson] {
                let _ = read(format, &text);
                let _ = read(format, &json);
            }
        }
    }
}

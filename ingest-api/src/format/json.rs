//! `application/json`: one object, an array of objects, or `{"readings": […]}`.
//!
//! A well-formed request is parsed in one typed pass. Only when that fails, the body is split into
//! its readings, and each is parsed separately, so that a bad one is rejected alone.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess};
use serde::{Deserialize, Deserializer, de};
use service::ApiError;
use service::quote::quote;

use super::element::{Elements, JsonReading};
use super::fault::{Fault, not_json};
use super::position::Positions;
use super::split::{Parts, SplitError, skip_blanks};
use super::{Entries, Format, FormatError, MAX_READINGS};

pub(super) const FORMAT: Format = Format {
    content_type: "application/json",
    malformed: ApiError::MalformedJson,
    read,
    lines: None,
    // Every entry of an array but the first follows a comma.
    max_entries: |bytes| bytes.iter().filter(|&&byte| byte == b',').count() + 1,
};

/// The start of an envelope.
const READINGS: &[u8] = b"\"readings\"";

fn read(body: &[u8]) -> Result<Entries<'_>, FormatError> {
    match std::str::from_utf8(body).ok().and_then(read_typed) {
        Some(readings) => {
            let readings = readings.within_limit()?.into_iter();
            Ok(readings.map(|reading| Ok(reading.into())).collect())
        }
        None => read_separately(body),
    }
}

/// Parses a body in which every reading has the right form.
fn read_typed(text: &str) -> Option<Capped<JsonReading<'_>>> {
    let text = text.trim_ascii();
    let open = text.as_bytes().first()?;
    match open {
        b'[' => serde_json::from_str(text).ok(),
        b'{' if text[1..]
            .trim_ascii_start()
            .as_bytes()
            .starts_with(READINGS) =>
        {
            let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
            Some(envelope.readings)
        }
        b'{' => Some(Capped {
            items: vec![serde_json::from_str(text).ok()?],
            exceeded: false,
        }),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    readings: Capped<JsonReading<'a>>,
}

/// Parses a body with each reading on its own.
fn read_separately(body: &[u8]) -> Result<Entries<'_>, FormatError> {
    let start = skip_blanks(body, 0);
    let inside = skip_blanks(body, start + 1);
    match body.get(start) {
        Some(b'[') => {
            let (entries, end) = read_array(body, start)?;
            expect_end(body, end)?;
            Ok(entries)
        }
        Some(b'{') if body[inside..].starts_with(READINGS) => {
            read_envelope(body, inside + READINGS.len())
        }
        Some(b'{') => read_object(body, start),
        Some(_) => {
            check_utf8(body)?;
            let found = quote(&String::from_utf8_lossy(&body[start..]));
            Err(FormatError::Malformed(format!(
                "expected a reading as an object, an array of readings, or {{\"readings\": […]}}, \
                 not {found}"
            )))
        }
        None => {
            let detail = "the body is empty; send a reading as a JSON object, or an array of them";
            Err(FormatError::Malformed(detail.into()))
        }
    }
}

/// Parses the array that begins at an offset. Also returns the offset after it.
fn read_array(body: &[u8], open: usize) -> Result<(Entries<'_>, usize), FormatError> {
    let mut entries = Entries::new();
    let mut elements = Elements::new(body);
    let mut parts = Parts::new(body, open);
    for part in parts.by_ref() {
        let part = part.map_err(|SplitError(offset)| malformed(body, offset))?;
        if entries.len() == MAX_READINGS {
            return Err(FormatError::TooMany);
        }
        entries.push(elements.read(part));
    }
    Ok((entries, parts.end()))
}

/// Parses the rest of an envelope after the name of its member.
fn read_envelope(body: &[u8], at: usize) -> Result<Entries<'_>, FormatError> {
    let colon = skip_blanks(body, at);
    if body.get(colon) != Some(&b':') {
        return Err(malformed(body, colon));
    }
    let array = skip_blanks(body, colon + 1);
    match body.get(array) {
        Some(b'[') => {}
        None => return Err(malformed(body, array)),
        Some(_) => {
            let detail = "\"readings\" must be an array of readings";
            return Err(FormatError::Malformed(detail.into()));
        }
    }
    let (entries, end) = read_array(body, array)?;
    let close = skip_blanks(body, end);
    match body.get(close) {
        Some(b'}') => expect_end(body, close + 1)?,
        Some(b',') => return Err(other_members()),
        _ => return Err(malformed(body, close)),
    }
    Ok(entries)
}

/// Parses a body of one reading, which is not valid. The body must be JSON before the reading in it
/// can be judged.
fn read_object(body: &[u8], start: usize) -> Result<Entries<'_>, FormatError> {
    let end = body.trim_ascii_end().len();
    match Fault::find(&body[start..end]) {
        Fault::NotUtf8(offset) => Err(FormatError::NotUtf8(start + offset)),
        Fault::NotJson(offset) => Err(malformed(body, start + offset)),
        Fault::Unknown(member) if member == "readings" => Err(other_members()),
        _ => Ok(vec![Elements::new(body).read(start..end)]),
    }
}

fn expect_end(body: &[u8], at: usize) -> Result<(), FormatError> {
    let end = skip_blanks(body, at);
    if end < body.trim_ascii_end().len() {
        return Err(malformed(body, end));
    }
    Ok(())
}

fn other_members() -> FormatError {
    FormatError::Malformed("the body has members besides \"readings\"; remove them".into())
}

fn check_utf8(body: &[u8]) -> Result<(), FormatError> {
    let checked = std::str::from_utf8(body);
    checked.map_err(|error| FormatError::NotUtf8(error.valid_up_to()))?;
    Ok(())
}

/// The error of a body that is not JSON at an offset, perhaps because it is not UTF-8 before.
fn malformed(body: &[u8], offset: usize) -> FormatError {
    match check_utf8(body) {
        Err(error) => error,
        Ok(()) => {
            let position = Positions::new(body).of(offset);
            FormatError::Malformed(not_json(body, offset, position))
        }
    }
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
    use schema::Rejection;

    use super::super::{MAX_DETAILS, RawReading};
    use super::*;
    use crate::timestamp::RawTime;

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
    fn null_and_the_names_of_values_that_are_not_finite_are_not_finite() {
        for value in ["null", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""] {
            let text = format!(r#"{{"device":"m","metric":"p","value":{value}}}"#);
            let entries = parse(&text).unwrap();
            assert!(!entries[0].as_ref().unwrap().value.is_finite(), "{value}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_split_fails_with_the_position() {
        for (text, expected) in [
            ("", "the body is empty"),
            ("  ", "the body is empty"),
            ("hello", "not 'hello'"),
            ("[", "it ends too early, at line 1, column 2"),
            ("[{]", "line 1, column 3, near ']'"),
            ("[0,\n0 0]", "line 2, column 3, near '0]'"),
            ("[0]\n]", "line 2, column 1, near ']'"),
            (&GOOD[..40], "it ends too early, at line 1, column 41"),
            (r#"{"device": "m",}"#, "line 1, column 16, near '}'"),
            (r#"{"readings""#, "it ends too early"),
            (r#"{"readings":"#, "it ends too early"),
            (r#"{"readings": 5}"#, "\"readings\" must be an array"),
            (
                r#"{"readings": [], "x": 1}"#,
                "members besides \"readings\"",
            ),
            (
                r#"{"x": 1, "readings": []}"#,
                "members besides \"readings\"",
            ),
            (r#"{"readings": []]"#, "near ']'"),
            (r#"{"readings": []} {}"#, "near '{}'"),
        ] {
            let Err(FormatError::Malformed(detail)) = parse(text) else {
                panic!("{text} is accepted")
            };
            assert!(detail.contains(expected), "{text}: {detail}");
        }
        for body in [&b"[\xff"[..], b"\xff", b"{\xff}", b"[{\"a\":\"\xff\"}}]"] {
            assert!(matches!(read(body), Err(FormatError::NotUtf8(_))));
        }
    }

    #[test]
    fn a_reading_that_is_not_json_is_rejected_alone_with_its_position_in_the_body() {
        for (bad, rejection, expected) in [
            (
                &br#"{"device":"m","metric":"p","value":NaN}"#[..],
                "value_not_finite",
                "NaN",
            ),
            (
                br#"{"device":"m","metric":"p","value":-Infinity}"#,
                "value_not_finite",
                "-Infinity",
            ),
            (
                br#"{"device":"m","metric":"p","value":01}"#,
                "bad_reading",
                "line 3, column 38, near '01}'",
            ),
            (
                b"{\n'device':'m'}",
                "bad_reading",
                "line 4, column 1, near ''device':'m'}'",
            ),
            (
                b"{\"device\":\"\xe9\"}",
                "bad_reading",
                "0xE9 at line 3, column 14",
            ),
            (
                br#"["m","p",1]"#,
                "bad_reading",
                "a JSON object, not an array",
            ),
        ] {
            let (before, after) = (format!("[{GOOD}\n, "), format!(",{GOOD}]"));
            let array = [before.as_bytes(), bad, after.as_bytes()].concat();
            let envelope = [b"{\"readings\":", &array[..], b"}\r\n"].concat();
            for body in [&array, &envelope] {
                let entries = read(body).unwrap();
                assert!(entries[0].is_ok() && entries[2].is_ok(), "{entries:?}");
                let (code, detail) = entries[1].as_ref().unwrap_err();
                assert_eq!(code.code(), rejection, "{detail}");
                assert!(detail.contains(expected), "{detail}");
            }
        }
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
        assert!(detail.chars().count() < 200, "{detail}");
    }
}

//! Why a text is not a reading, in words that do not depend on the parser.
//!
//! In: the bytes of an element that the parser has refused. Out: its rejection, and a sentence with
//! the member, the value and the place.

use std::borrow::Cow;

use schema::Rejection;
use serde::Deserialize;
use serde_json::value::RawValue;
use service::quote::{shorten, shorten_to};

use super::position::Position;
use super::split::{Parts, SplitError, skip_blanks, string_end};

/// The members of a reading. All but the last are required.
const MEMBERS: [&str; 4] = ["device", "metric", "value", "measured_at"];
/// How much of a text that is not valid JSON is quoted, in characters.
const MAX_EXCERPT_CHARS: usize = 20;

/// What is wrong with an element.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault<'a> {
    /// It is not UTF-8 at this offset.
    NotUtf8(usize),
    /// It is not JSON at this offset.
    NotJson(usize),
    /// It is JSON, but not an object.
    NotAnObject(&'a str),
    /// A member that a reading does not have.
    Unknown(Cow<'a, str>),
    /// A member that occurs twice.
    Repeated(&'static str),
    /// A member that is not there.
    Missing(&'static str),
    /// A member of another type.
    WrongType {
        member: &'static str,
        expected: &'static str,
        found: &'a str,
    },
    /// The value is a number, but not a finite one.
    NotFinite(&'a str),
    /// The time is a number, but not a finite one.
    NotFiniteTime(&'a str),
    /// Something else.
    Other,
}

impl<'a> Fault<'a> {
    /// Finds what is wrong with an element.
    pub(super) fn find(element: &'a [u8]) -> Self {
        let text = match std::str::from_utf8(element) {
            Ok(text) => text,
            Err(error) => return Self::NotUtf8(error.valid_up_to()),
        };
        match Members::read(text) {
            Ok(members) => members.fault(),
            Err(fault) => fault,
        }
    }

    /// The rejection of the reading.
    pub(super) fn rejection(&self) -> Rejection {
        match self {
            Self::NotFinite(_) => Rejection::ValueNotFinite,
            Self::NotFiniteTime(_) => Rejection::BadTimestamp,
            _ => Rejection::BadReading,
        }
    }

    /// The offset in the element, if the fault is at a place and not in a member.
    pub(super) fn offset(&self) -> Option<usize> {
        match self {
            Self::NotUtf8(offset) | Self::NotJson(offset) => Some(*offset),
            _ => None,
        }
    }

    /// What is wrong. `element` and `position` are those of the fault.
    pub(super) fn detail(&self, element: &[u8], position: Position) -> String {
        match self {
            Self::NotUtf8(offset) => {
                let byte = element.get(*offset).copied().unwrap_or_default();
                format!("the byte 0x{byte:02X} at {position} is not UTF-8; send UTF-8")
            }
            Self::NotJson(offset) => not_json(element, *offset, position),
            Self::NotAnObject(found) => {
                format!("a reading must be a JSON object, not {}", describe(found))
            }
            Self::Unknown(member) => format!(
                "\"{}\" is not a member of a reading; \
                 a reading has device, metric, value and optionally measured_at",
                shorten(member)
            ),
            Self::Repeated(member) => format!("\"{member}\" occurs twice"),
            Self::Missing(member) => format!("\"{member}\" is missing"),
            Self::WrongType {
                member,
                expected,
                found,
            } => format!("\"{member}\" must be {expected}, not {}", describe(found)),
            Self::NotFinite(found) => format!(
                "the value {} is not a finite 64-bit floating-point number",
                shorten(found)
            ),
            Self::NotFiniteTime(found) => {
                format!("measured_at {} is not a time", shorten(found))
            }
            Self::Other => Rejection::BadReading.to_string(),
        }
    }
}

/// The sentence about a text that is not JSON at an offset.
pub(super) fn not_json(text: &[u8], offset: usize, position: Position) -> String {
    let rest = String::from_utf8_lossy(text.get(offset..).unwrap_or_default());
    if rest.is_empty() {
        return format!("not valid JSON: it ends too early, at {position}");
    }
    let excerpt = shorten_to(&rest, MAX_EXCERPT_CHARS);
    format!("not valid JSON at {position}, near '{excerpt}'")
}

/// The members of an object, as they are in the text.
#[derive(Default)]
struct Members<'a> {
    /// In the order of [`MEMBERS`].
    values: [Option<(usize, &'a str)>; MEMBERS.len()],
    repeated: Option<&'static str>,
    unknown: Option<Cow<'a, str>>,
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Result<Self, Fault<'a>> {
        if !text.starts_with('{') {
            check_json(text, 0)?;
            return Err(Fault::NotAnObject(text));
        }
        let mut members = Self::default();
        let mut parts = Parts::new(text.as_bytes(), 0);
        for part in parts.by_ref() {
            let part = part.map_err(|SplitError(offset)| Fault::NotJson(offset))?;
            // The part ends with the member.
            members.add(&text[..part.end], part.start)?;
        }
        if parts.end() < text.len() {
            return Err(Fault::NotJson(skip_blanks(text.as_bytes(), parts.end())));
        }
        Ok(members)
    }

    /// Adds the member at the end of a text, from an offset on.
    fn add(&mut self, text: &'a str, start: usize) -> Result<(), Fault<'a>> {
        let bytes = text.as_bytes();
        let key_end = match bytes[start] {
            b'"' => string_end(bytes, start).ok_or(Fault::NotJson(text.len()))?,
            _ => return Err(Fault::NotJson(start)),
        };
        let key = string(&text[start..key_end], start)?;
        let colon = skip_blanks(bytes, key_end);
        if bytes.get(colon) != Some(&b':') {
            return Err(Fault::NotJson(colon));
        }
        let value_start = skip_blanks(bytes, colon + 1);
        let value = &text[value_start..];
        check_json(value, value_start)?;
        match MEMBERS.iter().position(|member| *member == key) {
            None if self.unknown.is_none() || key == "readings" => self.unknown = Some(key),
            None => {}
            Some(index) => {
                let before = self.values[index].replace((value_start, value));
                self.repeated = self.repeated.or(before.map(|_| MEMBERS[index]));
            }
        }
        Ok(())
    }

    fn fault(self) -> Fault<'a> {
        if let Some(member) = self.unknown {
            return Fault::Unknown(member);
        }
        if let Some(member) = self.repeated {
            return Fault::Repeated(member);
        }
        for (member, found) in MEMBERS.into_iter().zip(self.values) {
            let fault = match found {
                None if member == "measured_at" => None,
                None => Some(Fault::Missing(member)),
                Some((start, found)) => match member {
                    "value" => value_fault(found),
                    "measured_at" => time_fault(found, start),
                    _ => name_fault(member, found, start),
                },
            };
            if let Some(fault) = fault {
                return fault;
            }
        }
        Fault::Other
    }
}

fn name_fault<'a>(member: &'static str, found: &'a str, start: usize) -> Option<Fault<'a>> {
    if found.starts_with('"') {
        return string(found, start).err();
    }
    Some(Fault::WrongType {
        member,
        expected: "a string",
        found,
    })
}

fn value_fault(found: &str) -> Option<Fault<'_>> {
    match found {
        "null" | "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"" => None,
        _ => match found.parse::<f64>() {
            Ok(number) if number.is_finite() => None,
            Ok(_) => Some(Fault::NotFinite(found)),
            Err(_) => Some(Fault::WrongType {
                member: "value",
                expected: "a number",
                found,
            }),
        },
    }
}

fn time_fault(found: &str, start: usize) -> Option<Fault<'_>> {
    match found.as_bytes().first() {
        Some(b'"') => string(found, start).err(),
        Some(b'[' | b'{') => Some(Fault::WrongType {
            member: "measured_at",
            expected: "a time in RFC 3339 or a number",
            found,
        }),
        _ => match found.parse::<f64>() {
            Ok(number) if !number.is_finite() => Some(Fault::NotFiniteTime(found)),
            _ => None,
        },
    }
}

/// A string as JSON has it, with its quotes, at an offset of the element.
fn string(text: &str, start: usize) -> Result<Cow<'_, str>, Fault<'_>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    match serde_json::from_str::<Text<'_>>(text) {
        Ok(string) => Ok(string.0),
        Err(error) => Err(Fault::NotJson(start + offset(&error, text))),
    }
}

/// Checks that a text at an offset of the element is JSON, or one of the numbers that many
/// programs write although JSON does not have them.
fn check_json(text: &str, start: usize) -> Result<(), Fault<'_>> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Ok(());
    }
    let Err(error) = serde_json::from_str::<&RawValue>(text) else {
        return Ok(());
    };
    let has_inside = text.starts_with(['"', '[', '{']);
    let offset = if has_inside { offset(&error, text) } else { 0 };
    Err(Fault::NotJson(start + offset))
}

/// The offset of an error in its text.
fn offset(error: &serde_json::Error, text: &str) -> usize {
    if error.is_eof() {
        return text.len();
    }
    let before = text.split_inclusive('\n').take(error.line().max(1) - 1);
    let line_start: usize = before.map(str::len).sum();
    (line_start + error.column().saturating_sub(1)).min(text.len())
}

/// A JSON value in a sentence.
fn describe(value: &str) -> String {
    match value.as_bytes().first() {
        Some(b'[') => "an array".into(),
        Some(b'{') => "an object".into(),
        Some(b'"') => format!("the string {}", shorten(value)),
        Some(b'-' | b'0'..=b'9') => format!("the number {}", shorten(value)),
        _ => shorten(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::position::Positions;
    use super::*;

    #[track_caller]
    fn detail(element: &str) -> String {
        let fault = Fault::find(element.as_bytes());
        let offset = fault.offset().unwrap_or(0);
        let position = Positions::new(element.as_bytes()).of(offset);
        fault.detail(element.as_bytes(), position)
    }

    #[test]
    fn the_first_fault_is_named_with_its_member_its_value_and_its_place() {
        for (element, expected) in [
            ("17", "a reading must be a JSON object, not the number 17"),
            ("[{}]", "a reading must be a JSON object, not an array"),
            ("null", "a reading must be a JSON object, not null"),
            ("NaN", "a reading must be a JSON object, not NaN"),
            ("{}", "\"device\" is missing"),
            (
                r#"{"device":5,"metric":"p","value":1}"#,
                "\"device\" must be a string, not the number 5",
            ),
            (
                r#"{"device":"m","metric":null,"value":1}"#,
                "\"metric\" must be a string, not null",
            ),
            (
                r#"{"device":"m","metric":"p","value":"abc"}"#,
                "\"value\" must be a number, not the string \"abc\"",
            ),
            (
                r#"{"device":"m","metric":"p","value":[1]}"#,
                "\"value\" must be a number, not an array",
            ),
            (
                r#"{"device":"m","metric":"p","value":-Infinity}"#,
                "the value -Infinity is not a finite",
            ),
            (
                r#"{"device":"m","metric":"p","value":1e999}"#,
                "the value 1e999 is not a finite",
            ),
            (
                r#"{"device":"m","metric":"p","value":1,"measured_at":NaN}"#,
                "measured_at NaN is not a time",
            ),
            (
                r#"{"device":"m","metric":"p","value":1,"measured_at":{}}"#,
                "not an object",
            ),
            (
                r#"{"device":"m","metric":"p","value":1,"value":1}"#,
                "\"value\" occurs twice",
            ),
            (
                r#"{"device":"m","metric":"p","value":1,"valeu":1}"#,
                "\"valeu\" is not a member",
            ),
            ("{\n \"device\": nan}", "line 2, column 12, near 'nan}'"),
            ("{\"a\": [1,\n2,\n x]}", "line 3, column 2, near 'x]}'"),
            (r#"{"device" "m"}"#, "column 11, near '\"m\"}'"),
            (r#"{"device":"\x"}"#, "column 13"),
            (
                r#"{"device":"\ud800","metric":"p","value":1}"#,
                "not valid JSON at line 1",
            ),
            (r#"{"device":}"#, "column 11"),
            (r#"{device:1}"#, "column 2, near 'device:1}'"),
            (r#"{"device":1} {}"#, "column 14, near '{}'"),
            (
                r#"{"device":"m""#,
                "it ends too early, at line 1, column 14",
            ),
            ("{\"device\":\"a\tb\"}", "not valid JSON at line 1"),
        ] {
            let detail = detail(element);
            assert!(detail.contains(expected), "{element}: {detail}");
        }
        let fault = Fault::find(b"{\"device\":\"caf\xe9\"}");
        assert_eq!(fault, Fault::NotUtf8(14));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_each_sentence_is_short(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            text in concat!(
                r#"\{?("(device|metric|value|measured_at)""#,
                r#"|[\[\]{}",:0-9a-zäé€ \n\\]){0,40}\}?"#
            ),
        ) {
            for element in [&bytes[..], text.as_bytes()] {
                let fault = Fault::find(element);
                let position = Positions::new(element).of(fault.offset().unwrap_or(0));
                prop_assert!(fault.offset().unwrap_or(0) <= element.len());
                prop_assert!(fault.detail(element, position).chars().count() <= 200);
            }
        }
    }
}

//! Body formats: the bytes of a request into raw readings.
//!
//! In: the bytes of a body. Out: one entry per reading, in order: the raw reading, borrowed from
//! the bytes, or why it is not valid. A bad reading does not affect the others; a body that cannot
//! be split into readings fails the request.
//!
//! A format is a file beside this one, with one [`Format`], and a line in `FORMATS`.

mod element;
mod fault;
mod json;
mod ndjson;
mod position;
mod split;

use std::borrow::Cow;

use axum::http::HeaderValue;
use schema::Rejection;
use service::ApiError;

use crate::timestamp::RawTime;

/// Every format. The first one is the default for a request without `Content-Type`.
static FORMATS: &[Format] = &[json::FORMAT, ndjson::FORMAT];

/// Upper bound on the readings of a request.
pub const MAX_READINGS: usize = 100_000;
/// Upper bound on the rejected readings of a request that are explained.
pub const MAX_DETAILS: usize = 100;
/// What some programs write at the beginning of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a body, from 1, that have the entries with these ascending indices.
type FindLines = fn(body: &[u8], indices: &[usize]) -> Vec<usize>;

/// A format of bodies.
#[derive(Debug)]
pub struct Format {
    /// Its media type, without parameters.
    pub content_type: &'static str,
    /// The error when a body is not in this format, from what is wrong and where.
    pub malformed: fn(String) -> ApiError,
    /// Parses a body without a byte order mark.
    read: for<'a> fn(&'a [u8]) -> Result<Entries<'a>, FormatError>,
    /// `None` for a format whose entries are not lines.
    lines: Option<FindLines>,
    /// An upper bound on the entries of a body that is cheap to compute, for the memory budget.
    pub max_entries: fn(&[u8]) -> usize,
}

/// A reading as it is in the input.
#[derive(Debug, Clone, PartialEq)]
pub struct RawReading<'a> {
    /// External id of the device.
    pub device: Cow<'a, str>,
    /// Name of the metric.
    pub metric: Cow<'a, str>,
    /// The value; NaN if the input has none that is a finite number.
    pub value: f64,
    /// When it was measured.
    pub measured_at: RawTime<'a>,
}

/// Why an entry is not a valid reading: the rejection and an explanation for people, which is empty
/// beyond [`MAX_DETAILS`].
pub type InvalidReading = (Rejection, String);

/// The entries of a request, in order.
pub type Entries<'a> = Vec<Result<RawReading<'a>, InvalidReading>>;

/// Why a body cannot be parsed at all.
#[derive(Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The body is not UTF-8 from this offset on.
    NotUtf8(usize),
    /// The body is not in the format.
    Malformed(String),
    /// The body has more than [`MAX_READINGS`].
    TooMany,
}

impl Format {
    /// The format of a `Content-Type`.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`].
    pub fn from_content_type(value: Option<&HeaderValue>) -> Result<&'static Self, ApiError> {
        let Some(value) = value else {
            return Ok(&FORMATS[0]);
        };
        let value = value.to_str().unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim();
        FORMATS
            .iter()
            .find(|format| media_type.eq_ignore_ascii_case(format.content_type))
            .ok_or_else(|| {
                let supported: Vec<&str> = FORMATS.iter().map(|f| f.content_type).collect();
                let supported = supported.join(" or ");
                ApiError::UnsupportedMediaType(format!("content-type must be {supported}"))
            })
    }

    /// Parses a body.
    ///
    /// # Errors
    /// 400 or 413.
    pub fn parse<'a>(&self, bytes: &'a [u8]) -> Result<Entries<'a>, ApiError> {
        let body = without_mark(bytes);
        (self.read)(body).map_err(|error| match error {
            FormatError::NotUtf8(byte) => ApiError::NotUtf8(bytes.len() - body.len() + byte),
            FormatError::Malformed(detail) => (self.malformed)(detail),
            FormatError::TooMany => ApiError::TooManyReadings(MAX_READINGS),
        })
    }

    /// The lines, from 1, of the entries with these ascending indices, if the format has one entry
    /// per line.
    pub fn lines(&self, bytes: &[u8], indices: &[usize]) -> Option<Vec<usize>> {
        self.lines.map(|lines| lines(without_mark(bytes), indices))
    }
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content_type(value: &'static str) -> Result<&'static str, u16> {
        Format::from_content_type(Some(&HeaderValue::from_static(value)))
            .map(|format| format.content_type)
            .map_err(|error| error.status().as_u16())
    }

    #[test]
    fn the_content_type_selects_the_format_and_json_is_the_default() {
        assert_eq!(
            Format::from_content_type(None).unwrap().content_type,
            "application/json"
        );
        assert_eq!(
            content_type("Application/JSON; charset=utf-8"),
            Ok("application/json")
        );
        assert_eq!(
            content_type("application/x-ndjson"),
            Ok("application/x-ndjson")
        );
        assert_eq!(content_type("text/csv"), Err(415));
        assert_eq!(content_type(""), Err(415));
    }

    /// An invariant of the hot path. Vectors grow by doubling, hence the logarithm.
    #[test]
    fn parsing_allocates_per_request_and_not_per_reading() {
        let reading = r#"{"device":"meter-1","metric":"power","value":1.5,"measured_at":1}"#;
        let requests = |count: usize| {
            let readings = vec![reading; count];
            let json = format!("[{}]", readings.join(","));
            let ndjson = readings.join("\n");
            [(&json::FORMAT, json), (&ndjson::FORMAT, ndjson)]
        };
        for (format, body) in requests(4_096) {
            let parse = || drop((format.read)(body.as_bytes()).unwrap());
            let allocations = allocation_counter::measure(parse).count_total;
            let content_type = format.content_type;
            assert!(
                allocations <= 16,
                "{content_type}: {allocations} allocations"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_a_part_of_the_body() {
        let reading = r#"{"device":"m","metric":"p","value":1}"#;
        for format in FORMATS {
            let marked = [BYTE_ORDER_MARK, reading.as_bytes()].concat();
            let entries = format.parse(&marked).unwrap();
            assert_eq!(entries, format.parse(reading.as_bytes()).unwrap());
            assert!(entries[0].is_ok());
        }
        let not_utf8 = [BYTE_ORDER_MARK, b"[\xff"].concat();
        assert_eq!(FORMATS[0].parse(&not_utf8), Err(ApiError::NotUtf8(4)));
    }

    proptest! {
        /// Breaking one reading of a body costs that reading only, wherever the body can still be
        /// split.
        #[test]
        fn no_bytes_in_a_reading_cost_another_one(
            garbage in r#"([a-zäé€0-9'+./\-]|\\u){1,20}"#,
            place in 0_usize..5,
            is_latin_1 in any::<bool>(),
        ) {
            let good = r#"{"device":"m","metric":"p","value":1}"#;
            let bad = format!(r#"{{"device":"m","metric":"p","value":{garbage}}}"#);
            let mut bad = bad.into_bytes();
            if is_latin_1 {
                bad[11] = 0xe9;
            }
            let mut readings = [good.as_bytes(); 5];
            readings[place] = &bad;
            let array = [b"[", &readings.join(&b","[..])[..], b"]"].concat();
            for (format, body) in [
                (&json::FORMAT, array),
                (&ndjson::FORMAT, readings.join(&b"\n"[..])),
            ] {
                let entries = format.parse(&body).unwrap();
                prop_assert_eq!(entries.len(), 5);
                for (index, entry) in entries.iter().enumerate() {
                    let may_fail = index == place;
                    prop_assert!(entry.is_ok() || may_fail, "{:?}", entry);
                }
            }
        }

        #[test]
        fn no_bytes_make_a_format_panic_or_exceed_its_upper_bound(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in r#"[\[\]{}",:0-9a-z \n\\]{0,200}"#,
        ) {
            for format in FORMATS {
                for bytes in [&bytes[..], text.as_bytes()] {
                    if let Ok(entries) = (format.read)(bytes) {
                        prop_assert!(entries.len() <= (format.max_entries)(bytes));
                    }
                }
            }
        }
    }
}

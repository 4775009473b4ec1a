//! Times in a CSV file.
//!
//! In: the text of a field. Out: the JSON of `measured_at`, or why there is none. Whether a time
//! exists is decided by the front end, so that there is one rule for it.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde_json::{Number, json};
use service::quote::quote;

use super::source::Fault;

/// The code of a row whose time has no zone.
pub(super) const NO_ZONE: &str = "no_time_zone";
/// The code of a row whose time is not one.
pub(super) const BAD_TIME: &str = "bad_timestamp";
/// The code of a local time that happens twice, when clocks are turned back.
const AMBIGUOUS: &str = "ambiguous_time";
/// The code of a local time that does not happen, when clocks are turned forward.
const SKIPPED: &str = "skipped_time";

/// The form of a time.
#[derive(Debug, PartialEq, Eq)]
enum Form<'a> {
    /// Seconds since 1970, or another unit with `--precision`.
    Number,
    /// A date, a time and a zone.
    Zoned,
    /// A date, and a time unless it is empty.
    Zoneless(&'a str, &'a str),
}

/// The form of a text, if it may be a time.
fn form(text: &str) -> Option<Form<'_>> {
    if serde_json::from_str::<Number>(text).is_ok() {
        return Some(Form::Number);
    }
    let (date, rest) = text.split_at_checked("YYYY-MM-DD".len())?;
    let is_date = date.bytes().enumerate().all(|(index, byte)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if !is_date {
        return None;
    }
    if rest.is_empty() {
        return Some(Form::Zoneless(date, ""));
    }
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let is_time = |byte: u8| byte.is_ascii_digit() || byte == b':' || byte == b'.';
    if !time.is_empty() && time.bytes().all(is_time) {
        Some(Form::Zoneless(date, time))
    } else {
        Some(Form::Zoned)
    }
}

/// Whether a text is a time rather than the name of a column.
pub(super) fn is_time(text: &str) -> bool {
    form(text).is_some()
}

/// The JSON of `measured_at`. A time without a zone is one of `zone`.
///
/// # Errors
/// A code and what is wrong.
pub(super) fn read(text: &str, zone: Option<&TimeZone>) -> Result<String, Fault> {
    match form(text) {
        Some(Form::Number) => Ok(text.to_owned()),
        Some(Form::Zoned) => Ok(json!(text).to_string()),
        Some(Form::Zoneless(date, time)) if let Some(zone) = zone => {
            let time = match time.len() {
                0 => "00:00:00".to_owned(),
                5 => format!("{time}:00"),
                _ => time.to_owned(),
            };
            match zone.iana_name() {
                Some("UTC") => Ok(json!(format!("{date}T{time}Z")).to_string()),
                _ => local(text, &format!("{date}T{time}"), zone),
            }
        }
        Some(Form::Zoneless(..)) => Err((
            NO_ZONE,
            format!(
                "the time {} has no zone; name the zone of the file with --time-zone, for example \
                 --time-zone UTC or --time-zone Europe/Berlin",
                quote(text)
            ),
        )),
        None if text.is_empty() => Err((BAD_TIME, "the time is empty".into())),
        None => Err((
            BAD_TIME,
            format!(
                "{} is not a time; use RFC 3339, as in 2026-11-20T10:00:00Z, \
                 or a number of seconds since 1970 (other units: --precision)",
                quote(text)
            ),
        )),
    }
}

/// The JSON of a local time, in UTC. `text` is what the file has.
fn local(text: &str, time: &str, zone: &TimeZone) -> Result<String, Fault> {
    let not_a_time = |_| (BAD_TIME, format!("{} is not a time", quote(text)));
    let datetime: DateTime = time.parse().map_err(not_a_time)?;
    let ambiguous = zone.to_ambiguous_timestamp(datetime);
    let name = zone.iana_name().unwrap_or("the zone");
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {
            let timestamp = ambiguous.unambiguous().map_err(not_a_time)?;
            Ok(json!(timestamp.to_string()).to_string())
        }
        AmbiguousOffset::Gap { .. } => Err((
            SKIPPED,
            format!(
                "the time {} does not exist in {name}, where clocks are turned forward over it",
                quote(text)
            ),
        )),
        AmbiguousOffset::Fold { .. } => Err((
            AMBIGUOUS,
            format!(
                "the time {} exists twice in {name}, where clocks are turned back; \
                 add the offset, as in 2026-10-25T02:30:00+01:00",
                quote(text)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn a_time_is_sent_in_its_own_form() {
        for (text, expected) in [
            ("1546301700", "1546301700"),
            ("1546301700.123456789", "1546301700.123456789"),
            ("-1", "-1"),
            ("2019-01-01T00:15:00Z", r#""2019-01-01T00:15:00Z""#),
            (
                "2019-01-01 00:15:00+01:00",
                r#""2019-01-01 00:15:00+01:00""#,
            ),
            (
                "2019-01-01T00:15:00.5-05:00",
                r#""2019-01-01T00:15:00.5-05:00""#,
            ),
            ("2016-12-31T23:59:60Z", r#""2016-12-31T23:59:60Z""#),
        ] {
            for zone in [None, Some(&zone("UTC")), Some(&zone("Europe/Berlin"))] {
                assert_eq!(read(text, zone).as_deref(), Ok(expected), "{text}");
            }
        }
    }

    #[test]
    fn a_time_without_a_zone_is_utc_only_on_demand() {
        for (text, expected) in [
            ("2019-01-01 00:15:00", r#""2019-01-01T00:15:00Z""#),
            (
                "2019-01-01T00:15:00.123456789",
                r#""2019-01-01T00:15:00.123456789Z""#,
            ),
            ("2019-01-01 00:15", r#""2019-01-01T00:15:00Z""#),
            ("2019-01-01", r#""2019-01-01T00:00:00Z""#),
        ] {
            assert_eq!(
                read(text, Some(&TimeZone::UTC)).as_deref(),
                Ok(expected),
                "{text}"
            );
            let (code, detail) = read(text, None).unwrap_err();
            assert_eq!(code, NO_ZONE, "{text}");
            assert!(
                detail.contains(text) && detail.contains("--time-zone"),
                "{detail}"
            );
        }
    }

    #[test]
    fn a_local_time_is_converted_unless_it_exists_twice_or_never() {
        let berlin = zone("Europe/Berlin");
        for (text, expected) in [
            ("2026-07-01 00:15", r#""2026-06-30T22:15:00Z""#),
            ("2026-01-01 00:15:00.5", r#""2025-12-31T23:15:00.5Z""#),
            ("2026-03-29", r#""2026-03-28T23:00:00Z""#),
        ] {
            assert_eq!(read(text, Some(&berlin)).as_deref(), Ok(expected), "{text}");
        }
        for (text, code) in [
            ("2026-03-29 02:30:00", SKIPPED),
            ("2026-10-25 02:30:00", AMBIGUOUS),
            ("2026-02-30 00:00:00", BAD_TIME),
            ("2026-01-01 25:00:00", BAD_TIME),
        ] {
            let (found, detail) = read(text, Some(&berlin)).unwrap_err();
            assert_eq!(found, code, "{text}");
            assert!(detail.contains(&text[..10]), "{detail}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_rejected_with_the_accepted_forms() {
        for text in [
            "",
            "then",
            "01/02/2019 00:15",
            "time",
            "2019-1-1 0:15",
            "+5",
            "größe-und-mehr",
        ] {
            assert!(!is_time(text), "{text}");
            assert_eq!(
                read(text, Some(&TimeZone::UTC)).unwrap_err().0,
                BAD_TIME,
                "{text}"
            );
        }
        let (_, detail) = read("then", None).unwrap_err();
        assert!(
            detail.contains("'then'") && detail.contains("--precision"),
            "{detail}"
        );
    }
}

//! Times in a CSV file.
//!
//! In: the text of a field. Out: the JSON of `measured_at`, or why there is none. Whether a time
//! exists is decided by the front end, so that there is one rule for it.

use serde_json::{Number, json};
use service::quote::quote;

/// The code of a row whose time has no zone.
pub(super) const NO_ZONE: &str = "no_time_zone";
/// The code of a row whose time is not one.
pub(super) const BAD_TIME: &str = "bad_timestamp";

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

/// The JSON of `measured_at`. A time without a zone is UTC if `utc` is set.
///
/// # Errors
/// A code and what is wrong.
pub(super) fn read(text: &str, utc: bool) -> Result<String, (&'static str, String)> {
    match form(text) {
        Some(Form::Number) => Ok(text.to_owned()),
        Some(Form::Zoned) => Ok(json!(text).to_string()),
        Some(Form::Zoneless(date, time)) if utc => {
            let time = match time.len() {
                0 => "00:00:00".to_owned(),
                5 => format!("{time}:00"),
                _ => time.to_owned(),
            };
            Ok(json!(format!("{date}T{time}Z")).to_string())
        }
        Some(Form::Zoneless(..)) => Err((
            NO_ZONE,
            format!(
                "the time {} has no zone; give --utc if the times of the file are UTC, \
                 otherwise add the offset, as in 2026-11-20T11:00:00+01:00",
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

#[cfg(test)]
mod tests {
    use super::*;

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
            for utc in [false, true] {
                assert_eq!(read(text, utc).as_deref(), Ok(expected), "{text}");
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
            assert_eq!(read(text, true).as_deref(), Ok(expected), "{text}");
            let (code, detail) = read(text, false).unwrap_err();
            assert_eq!(code, NO_ZONE, "{text}");
            assert!(
                detail.contains(text) && detail.contains("--utc"),
                "{detail}"
            );
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
            assert_eq!(read(text, true).unwrap_err().0, BAD_TIME, "{text}");
        }
        let (_, detail) = read("then", false).unwrap_err();
        assert!(
            detail.contains("'then'") && detail.contains("--precision"),
            "{detail}"
        );
    }
}
